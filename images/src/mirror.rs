//! Where a Debian release is downloaded from: the mirror and the proxy of this machine.
//!
//! This project names no mirror. On a Debian machine its own apt sources show which mirror is near and reachable; the sources of
//! any other release are derived from them. Elsewhere mmdebstrap's default is used.

use std::{fmt::Write as _, fs, path::Path, sync::atomic::AtomicBool, time::Duration};

use crate::{Suite, error::Failure, tool};

/// Settings of this machine's apt that apply to a build too; mmdebstrap by itself uses none of them.
const SETTINGS: &[&str] = &["Acquire::http::Proxy", "Acquire::https::Proxy", "Acquire::Check-Valid-Until"];

/// apt reads some small files.
const DUMP_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_DUMP_BYTES: u64 = 16 << 20;

/// The settings of this machine's apt that a build shares, as an apt configuration file; may be empty.
pub(crate) fn apt_settings(cancel: &AtomicBool) -> Result<String, Failure> {
    if tool::find("apt-config").is_none() {
        return Ok(String::new());
    }
    let mut dump = tool::command("apt-config");
    dump.arg("dump");
    let dump = tool::output(dump, "apt-config", DUMP_TIMEOUT, MAX_DUMP_BYTES, cancel)?;
    Ok(shared_settings(&String::from_utf8_lossy(&dump)))
}

/// The lines of `apt-config dump` (`Name "value";`) that we share.
fn shared_settings(dump: &str) -> String {
    let shared = |line: &&str| {
        let name = line.split(' ').next().unwrap_or_default();
        SETTINGS.iter().any(|known| known.eq_ignore_ascii_case(name)) && !line.ends_with("\"\";")
    };
    dump.lines().filter(shared).fold(String::new(), |settings, line| settings + line + "\n")
}

/// One archive of the machine's own apt sources.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    uri: String,
    suites: Vec<String>,
    components: Vec<String>,
    /// A keyring file; keys inside the sources are not used.
    signed_by: Option<String>,
}

/// The apt sources to bootstrap `release` from, derived from the files under `etc_apt` (normally `/etc/apt`).
///
/// `None`: this machine has no Debian mirror; mmdebstrap chooses.
pub(crate) fn sources_for(release: &str, suites: &[Suite], etc_apt: &Path) -> Option<String> {
    derive(release, suites, &read(etc_apt))
}

/// Reads the sources in apt's order: the one file first, then the folder by name. Unreadable files are skipped.
fn read(etc_apt: &Path) -> Vec<Source> {
    let mut files = vec![etc_apt.join("sources.list")];
    let mut parts: Vec<_> = fs::read_dir(etc_apt.join("sources.list.d"))
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    parts.sort();
    files.append(&mut parts);
    let mut sources = Vec::new();
    for file in files {
        let parse = match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => one_line,
            Some("sources") => deb822,
            _ => continue,
        };
        if let Ok(text) = fs::read_to_string(&file) {
            sources.append(&mut parse(&text));
        }
    }
    sources
}

/// `deb [options] uri suite component...`, one per line.
fn one_line(text: &str) -> Vec<Source> {
    text.lines().filter_map(one_source).collect()
}

fn one_source(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?;
    let mut rest = rest.strip_prefix([' ', '\t'])?.trim_start();
    let mut signed_by = None;
    if let Some(bracket) = rest.strip_prefix('[') {
        let (options, after) = bracket.split_once(']')?;
        signed_by = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by=")).map(str::to_owned);
        rest = after;
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Source { uri: words.next()?, suites: vec![words.next()?], components: words.collect(), signed_by })
}

/// Paragraphs of `Field: value`, where a line that begins with a blank continues the value.
fn deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')).chain([""]) {
        if line.trim().is_empty() {
            sources.extend(paragraph(&std::mem::take(&mut fields)));
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((field, value)) = line.split_once(':') {
            fields.push((field.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    sources
}

fn paragraph(fields: &[(String, String)]) -> Vec<Source> {
    let words = |name: &str| -> Vec<String> {
        let value = fields.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value);
        value.split_whitespace().map(str::to_owned).collect()
    };
    let disabled = words("enabled").first().is_some_and(|word| word.eq_ignore_ascii_case("no"));
    if disabled || !words("types").iter().any(|kind| kind == "deb") {
        return Vec::new();
    }
    let signed_by = words("signed-by").first().filter(|key| key.starts_with('/')).cloned();
    let (suites, components) = (words("suites"), words("components"));
    words("uris")
        .into_iter()
        .map(|uri| Source { uri, suites: suites.clone(), components: components.clone(), signed_by: signed_by.clone() })
        .collect()
}

fn derive(release: &str, suites: &[Suite], sources: &[Source]) -> Option<String> {
    // Vendors put their own packages below a folder `debian` as well; only a Debian mirror has Debian's updates.
    let archives = || sources.iter().filter(|source| is_debian_archive(source));
    let main = archives().find(|archive| has_updates(sources, &archive.uri)).or_else(|| archives().next())?;
    let mut list = String::new();
    let mut line = |source: &Source, suite: &str| {
        let signed_by = source.signed_by.as_ref().map_or(String::new(), |key| format!("[signed-by={key}] "));
        writeln!(list, "deb {signed_by}{} {suite} main", source.uri).expect("strings take all writes");
    };
    line(main, release);
    for suite in suites {
        let source = match suite {
            Suite::Updates => Some(main),
            Suite::Security => sources.iter().find(|source| is_debian_security(source)),
        };
        if let Some(source) = source {
            line(source, &format!("{release}-{}", suite.suffix()));
        }
    }
    Some(list)
}

fn has_updates(sources: &[Source], uri: &str) -> bool {
    sources.iter().any(|source| source.uri == uri && source.suites.iter().any(|suite| suite.ends_with("-updates")))
}

fn last_path_component(uri: &str) -> &str {
    uri.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

fn has_main(source: &Source) -> bool {
    source.components.iter().any(|component| component == "main") && is_fetched(&source.uri)
}

/// Reachable from inside the build, which has another file system.
fn is_fetched(uri: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| uri.starts_with(scheme))
}

fn is_debian_archive(source: &Source) -> bool {
    has_main(source) && last_path_component(&source.uri) == "debian" && !is_debian_security(source)
}

fn is_debian_security(source: &Source) -> bool {
    let is_security = |suite: &String| suite.ends_with("-security") || suite.ends_with("/updates");
    has_main(source)
        && last_path_component(&source.uri).starts_with("debian")
        && (last_path_component(&source.uri) == "debian-security" || source.suites.iter().all(is_security))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &[Suite] = &[Suite::Updates, Suite::Security];

    const DEB822: &str = "\
Types: deb
# a comment in between
URIs: http://mirror.test/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.test/debian-security
Suites:
 bookworm-security
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
";

    const ONE_LINE: &str = "\
# deb http://old.test/debian etch main
deb https://packages.other.test/apt cloud-sdk-bookworm main
deb-src http://mirror.test/debian bookworm main
deb\t[arch=amd64 signed-by=/k.gpg] http://mirror.test/debian/ bookworm main non-free # near
deb http://security.test/debian-security bookworm-security main
";

    #[test]
    fn another_release_comes_from_the_mirror_and_with_the_keyring_this_machine_uses() {
        insta::assert_snapshot!(derive("trixie", BOTH, &deb822(DEB822)).expect("a Debian machine"), @r"
        deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.test/debian trixie main
        deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.test/debian trixie-updates main
        deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.test/debian-security trixie-security main
        ");
    }

    #[test]
    fn one_line_sources_are_understood_and_other_archives_are_not_taken_for_debian() {
        insta::assert_snapshot!(derive("bullseye", BOTH, &one_line(ONE_LINE)).expect("a Debian machine"), @r"
        deb [signed-by=/k.gpg] http://mirror.test/debian/ bullseye main
        deb [signed-by=/k.gpg] http://mirror.test/debian/ bullseye-updates main
        deb http://security.test/debian-security bullseye-security main
        ");
    }

    #[test]
    fn a_vendor_with_a_folder_named_debian_is_not_taken_for_debian() {
        let vendor = "deb https://packages.vendor.test/stable/debian bookworm main\n";
        let sources: Vec<Source> = one_line(vendor).into_iter().chain(deb822(DEB822)).collect();
        insta::assert_snapshot!(derive("trixie", &[], &sources).expect("a Debian machine"), @r"
        deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.test/debian trixie main
        ");
    }

    #[test]
    fn testing_and_unstable_have_no_security_or_updates_suite() {
        insta::assert_snapshot!(derive("sid", &[], &deb822(DEB822)).expect("a Debian machine"), @r"
        deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.test/debian sid main
        ");
    }

    #[test]
    fn a_machine_that_is_not_debian_leaves_the_choice_to_mmdebstrap() {
        let ubuntu =
            "deb http://mirror.test/ubuntu noble main universe\ndeb http://mirror.test/ubuntu noble-security main\n";
        assert_eq!(derive("bookworm", BOTH, &one_line(ubuntu)), None);
        let disabled = DEB822.replace("Types: deb", "Enabled: no\nTypes: deb");
        assert_eq!(derive("bookworm", BOTH, &deb822(&disabled)), None);
        assert_eq!(sources_for("bookworm", BOTH, Path::new("/nonexistent")), None);
    }

    #[test]
    fn a_machine_with_a_mirror_but_no_security_suite_still_gets_its_release() {
        let only_main = "deb http://mirror.test/debian bookworm main";
        insta::assert_snapshot!(derive("trixie", BOTH, &one_line(only_main)).expect("a Debian machine"), @r"
        deb http://mirror.test/debian trixie main
        deb http://mirror.test/debian trixie-updates main
        ");
    }

    #[test]
    fn the_folder_is_read_after_the_file_and_only_files_apt_would_read() {
        let etc = tempfile::tempdir().expect("temporary folder");
        fs::create_dir(etc.path().join("sources.list.d")).expect("folder");
        fs::write(etc.path().join("sources.list.d/debian.sources"), DEB822).expect("file");
        fs::write(etc.path().join("sources.list.d/debian.sources.bak"), "deb http://wrong.test/debian x main")
            .expect("file");
        let first = "deb http://first.test/debian bookworm main\ndeb http://first.test/debian bookworm-updates main";
        fs::write(etc.path().join("sources.list"), first).expect("file");
        let sources = sources_for("sid", &[], etc.path()).expect("a Debian machine");
        assert_eq!(sources, "deb http://first.test/debian sid main\n");
    }

    #[test]
    fn the_proxy_of_this_machine_is_used_for_a_build_too_and_nothing_else_of_its_settings() {
        let dump = "APT::Architecture \"amd64\";\nAcquire::http::Proxy \"http://proxy.test:3142\";\n\
                    Acquire::https::Proxy \"\";\nAcquire::http::Proxy-Auto-Detect \"/x\";\n";
        assert_eq!(shared_settings(dump), "Acquire::http::Proxy \"http://proxy.test:3142\";\n");
        assert_eq!(shared_settings("not found"), "");
    }

    proptest::proptest! {
        #[test]
        fn no_text_in_the_sources_makes_us_panic(text in "(?s).{0,400}") {
            derive("sid", BOTH, &one_line(&text));
            derive("sid", BOTH, &deb822(&text));
        }
    }
}
