//! Whether a package manager means by a version what the matrix means.
//!
//! A release has one name where it is made and others where it is packaged: `1.3.0-rc1` is `1.3.0~rc1-1` to dpkg and rpm, `1.3.0_rc1-r0`
//! to apk, `1.3.0rc1-1` to pacman and PEP 440, `1.3.0.r1` to FreeBSD.

/// Whether a package manager may mean this version by what it says: however it writes a pre-release, and with what packagers put around it.
pub(super) fn is_version(found: &str, wanted: &str) -> bool {
    let (found_epoch, found) = epoch(found);
    let (wanted_epoch, wanted) = epoch(wanted);
    if wanted_epoch.is_some_and(|wanted| wanted != found_epoch.unwrap_or("0")) {
        return false;
    }
    let found = with_early_release(found);
    let found = parts(&found);
    // A build's metadata may be left out.
    let plain = wanted.split_once('+').map(|(plain, _)| plain);
    [Some(wanted), plain].into_iter().flatten().any(|wanted| is_same(&found, &parts(wanted)))
}

/// `1:2.12`
fn epoch(version: &str) -> (Option<&str>, &str) {
    let split = version.split_once(':');
    let number = |epoch: &str| !epoch.is_empty() && epoch.bytes().all(|byte| byte.is_ascii_digit());
    split.filter(|(epoch, _)| number(epoch)).map_or((None, version), |(epoch, version)| (Some(epoch), version))
}

/// Packages of the RPM family may have the pre-release in their release: `1.3.0-0.1.rc1.fc40` is before `1.3.0-1`.
fn with_early_release(found: &str) -> String {
    let early = || {
        let (version, release) = found.rsplit_once('-')?;
        let (number, rest) = release.strip_prefix("0.")?.split_once('.')?;
        let word = rest.trim_end_matches(|c| c != '.').trim_end_matches('.');
        let first = parts(rest).into_iter().next()?;
        let is_early = number.bytes().all(|byte| byte.is_ascii_digit()) && first.is_early();
        is_early.then(|| format!("{version}~{}-0.{number}", if word.is_empty() { rest } else { word }))
    };
    early().unwrap_or_else(|| found.to_owned())
}

/// A run of digits or of letters, and what stands before it.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    /// `None`: it follows at once.
    separator: Option<char>,
    text: String,
}

impl Part {
    fn is_number(&self) -> bool {
        self.text.starts_with(|c: char| c.is_ascii_digit())
    }

    /// A word for what comes before a release, or is somewhere between two.
    fn is_early(&self) -> bool {
        const EARLY: [&str; 19] = [
            "a", "b", "c", "rc", "r", "pre", "dev", "git", "svn", "hg", "bzr", "cvs", "m", "snapshot", "nightly",
            "exp", "test", "beta", "alpha",
        ];
        EARLY.contains(&&*self.text)
    }

    /// The same word, or one that another packager writes for it.
    fn is(&self, wanted: &Self) -> bool {
        self.text == wanted.text || self.text == "r" && wanted.text == "rc" && self.separator == Some('.')
    }
}

/// The parts of a version, as they are compared: in small letters, without zeros before numbers or a `v` before the first.
fn parts(version: &str) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut separator = None;
    let mut begun = false;
    for c in version.chars().map(|c| c.to_ascii_lowercase()) {
        if !c.is_ascii_alphanumeric() {
            (separator, begun) = (Some(c), false);
            continue;
        }
        match parts.last_mut().filter(|part| begun && part.is_number() == c.is_ascii_digit()) {
            Some(part) => part.text.push(c),
            None => parts.push(Part { separator, text: c.to_string() }),
        }
        (separator, begun) = (None, true);
    }
    if parts.first().is_some_and(|first| first.text == "v") {
        parts.remove(0);
    }
    for part in &mut parts {
        let plain = match &*part.text {
            "alpha" => "a",
            "beta" => "b",
            "preview" => "pre",
            text if part.is_number() => text.trim_start_matches('0'),
            text => text,
        };
        part.text = if plain.is_empty() { "0".to_owned() } else { plain.to_owned() };
    }
    parts
}

/// Whether the one version begins with the other, and goes on with what only packagers write.
fn is_same(found: &[Part], wanted: &[Part]) -> bool {
    if wanted.is_empty() || found.len() < wanted.len() {
        return false;
    }
    let mut beside_a_word = true;
    for (found, wanted) in found.iter().zip(wanted) {
        let loose = beside_a_word || !wanted.is_number();
        if !found.is(wanted) || !(loose || is_alike(found.separator, wanted.separator)) {
            return false;
        }
        beside_a_word = !wanted.is_number();
    }
    let Some(next) = found.get(wanted.len()) else { return true };
    let in_revision = found[1..wanted.len()].iter().any(|part| part.separator == Some('-') && part.is_number());
    match next.separator {
        // A revision, `-r0` of apk among them.
        Some('-') => next.is_number() || !next.is_early() || next.text == "r",
        // `+dfsg`, `+deb12u1`, `+b1`.
        Some('+') => !["rc", "pre"].contains(&&*next.text),
        // FreeBSD's revision, but not apk's `_rc1` and `_p1`.
        Some('_') => next.is_number(),
        // FreeBSD's epoch.
        Some(',') => true,
        // A name of a system, `~bpo12`, `~jammy`: not `~rc1` nor `~20240501`.
        Some('~') => in_revision || !next.is_number() && !next.is_early(),
        // `.fc40`, where the matrix says the revision as well.
        Some('.') => in_revision && !next.is_number(),
        _ => in_revision && !next.is_number(),
    }
}

/// Separators of numbers that mean the same: not every packager may write a `-`.
fn is_alike(found: Option<char>, wanted: Option<char>) -> bool {
    found == wanted || (found, wanted) == (Some('_'), Some('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_itself_however_its_packager_writes_it() {
        for (wanted, found) in [
            (
                "2.12",
                "2.12 2.12-1 1:2.12-1 1:2.12+dfsg-3 2.12-r0 2.12_1,1 2.12,1 2.12+b1 2.12-1+b1 2.12-1.fc40 2.12-1.el9_4 v2.12",
            ),
            ("v2.12", "2.12-1 2.12 v2.12-1 2.12-r3"),
            ("V2.12", "2.12-1"),
            ("2.12", "2.12-1~bpo12+1 2.12~bpo12+1 2.12-0ubuntu1~22.04 2.12~jammy 2.12-0.1 2.12+ds1-2 2.12+deb12u1"),
            // Tags as people write them.
            (
                "1.3.0-rc1",
                "1.3.0~rc1 1.3.0~rc1-1 1.3.0~rc1-1.fc40 1.3.0_rc1-r0 1.3.0rc1-1 1:1.3.0rc1-1 1.3.0.rc1-1 1.3.0-rc1-1",
            ),
            ("1.3.0-rc1", "1.3.0.r1 1.3.0.r1_2,1 1.3.0-0.1.rc1.fc40 1.3.0-0.2.rc1 1.3.0~rc1+dfsg-1"),
            ("v1.3.0-rc.1", "1.3.0~rc1-1 1.3.0~rc.1-1 1.3.0_rc1-r0 1.3.0rc1-1"),
            ("1.3.0-RC1", "1.3.0~rc1-1 1.3.0rc1-1"),
            ("1.3.0-beta.2", "1.3.0~beta2-1 1.3.0_beta2-r0 1.3.0b2-1 1.3.0.b2 1.3.0~beta.2-1"),
            ("1.3.0-alpha", "1.3.0~alpha-1 1.3.0_alpha-r0 1.3.0alpha-1 1.3.0a-1"),
            ("1.3.0~rc1", "1.3.0~rc1-1 1.3.0_rc1-r0 1.3.0rc1-1"),
            // PEP 440.
            ("1.3.0rc1", "1.3.0~rc1-1 1.3.0_rc1-r0 1.3.0rc1-1 1.3.0~rc1-1.fc40"),
            ("1.3.0b2", "1.3.0~beta2-1 1.3.0~b2-1 1.3.0_beta2-r0"),
            ("1.3.0.dev5", "1.3.0~dev5-1 1.3.0.dev5-1 1.3.0dev5-1"),
            ("1.3.0.post1", "1.3.0.post1-1 1.3.0+post1-1"),
            ("9.6p1", "1:9.6p1-4 9.6_p1-r0 9.6.p1 9.6p1-1.fc40"),
            ("1.0.2a", "1.0.2a-1 1.0.2a-r0"),
            // With epoch, revision or metadata.
            ("1:2.12", "1:2.12-1"),
            ("0:2.12", "2.12-1"),
            ("2.12-1", "2.12-1 2.12-1+deb12u1 2.12-1.fc40 2.12_1 1:2.12-1 2.12-1ubuntu3"),
            ("1.3.0+build5", "1.3.0+build5-1 1.3.0-1 1.3.0+dfsg-1"),
            ("1.3.0-rc1+git5", "1.3.0~rc1-1 1.3.0~rc1+git5-1"),
            ("2024.05.01", "2024.05.01-1 2024.5.1-1"),
            ("20240501", "20240501-1"),
            ("1.3.0-1-g0123abc", "1.3.0_1_g0123abc-1 1.3.0-1-g0123abc-1"),
        ] {
            for found in found.split(' ') {
                assert!(is_version(found, wanted), "{found} is {wanted}");
            }
        }
    }

    #[test]
    fn another_version_is_not_it_however_alike() {
        for (wanted, found) in [
            ("2.12", "2.11-1 2.12.1-1 2.120 2.1 2.1-2 2 12-1 2.13-1 2.12.0.1 1:2.11-12 2-12"),
            (
                "2.12",
                "2.12~rc1-1 2.12~rc1 2.12_rc1-r0 2.12rc1-1 2.12-rc1-1 2.12.r1 2.12-0.1.rc1.fc40 2.12~beta2 2.12b1-1 2.12a-1",
            ),
            (
                "2.12",
                "2.12~20240501-1 2.12^20240501git1-1 2.12~git20240501-1 2.12_p1-r0 2.12_git20240501-r0 2.12p1-1 2.12-0.1.git1 2.12+rc1-1",
            ),
            (
                "1.3.0-rc1",
                "1.3.0-1 1.3.0 1.3.0~rc2-1 1.3.0~rc10-1 1.3.0~rc11 1.3.0_rc2-r0 1.3.0rc2-1 1.3.0~beta1-1 1.3.1~rc1-1 1.3.0.r2",
            ),
            ("1.3.0-rc1", "1.3.0-0.1.rc2.fc40 1.3.0-1.rc1x 1.3.0~rc1.1-1 1.3.0-r1 1.3~rc1-1"),
            ("1.3.0-rc", "1.3.0~rc1-1 1.3.0-1"),
            ("1.3.0.post1", "1.3.0-1 1.3.0.post2-1"),
            ("1:2.12", "2:2.12-1 2.12-1"),
            ("2.12-1", "2.12-2 2.12.1-1 2.12-10 2.12-r1"),
            ("1.3.0+build5", "1.3.1-1 1.3.0~rc1-1"),
            ("1.3.0-1", "1.3.0.1-1"),
            ("", "1.0 1"),
            ("v", "1.0"),
        ] {
            for found in found.split(' ') {
                assert!(!is_version(found, wanted), "{found} is not {wanted}");
            }
        }
    }
}
