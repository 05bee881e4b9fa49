//! Who has the repositories of a lock as they were: what their Release files say, and distributions' own services. Pure.

use std::collections::BTreeMap;

use egress::{Policy, Snapshot, is_file_url};
use jiff::{Timestamp, fmt::rfc2822};

/// Distributions' services, by the label of their repositories. They are those that apt 3 knows (`Acquire::Snapshots::URI`, apt.conf(5)).
const SERVICES: [(&str, &str); 4] = [
    ("Debian", "https://snapshot.debian.org/archive/debian/@SNAPSHOTID@"),
    ("Debian Backports", "https://snapshot.debian.org/archive/debian/@SNAPSHOTID@"),
    ("Debian-Security", "https://snapshot.debian.org/archive/debian-security/@SNAPSHOTID@"),
    ("Ubuntu", "https://snapshot.ubuntu.com/ubuntu/@SNAPSHOTID@"),
];

/// Most repositories of an image with a service.
pub(super) const MOST: usize = 16;

/// Whether a file of this address says what a repository is.
pub(crate) fn is_release(url: &str) -> bool {
    url.rsplit('/').next().is_some_and(|name| ["InRelease", "Release"].contains(&name))
}

/// Who has these repositories as they were, by their Release files: addresses and texts. The state of a repository is that of its newest.
pub(crate) fn snapshots(releases: impl IntoIterator<Item = (String, String)>) -> Vec<Snapshot> {
    let mut newest = BTreeMap::new();
    for found in releases.into_iter().filter_map(|(url, text)| snapshot(&url, &text)) {
        let known: &mut Snapshot = newest.entry(found.of.clone()).or_insert_with(|| found.clone());
        if known.date < found.date {
            *known = found;
        }
    }
    newest.into_values().take(MOST).collect()
}

/// Whether the service may be asked: it is a distribution's own, at the repository's own server, or the matrix names its host. For what a
/// Release file says, anybody may have written.
pub(crate) fn is_allowed(snapshot: &Snapshot, policy: &Policy) -> bool {
    let server = |url: &str| url.split('/').nth(2).map(str::to_owned);
    SERVICES.iter().any(|(_, at)| *at == snapshot.at)
        || server(&snapshot.at) == server(&snapshot.of)
        || policy.names(&snapshot.at)
}

fn snapshot(url: &str, text: &str) -> Option<Snapshot> {
    let (folder, _) = url.rsplit_once('/')?;
    let of = folder.split_once("/dists/").map_or(folder, |(repository, _)| repository);
    let of = of.trim_end_matches("/.").trim_end_matches('/').to_owned();
    let date = date(field(text, "Date")?)?;
    let own = field(text, "Snapshots").filter(|at| is_service(at));
    let known = || SERVICES.iter().find(|(label, _)| field(text, "Label") == Some(*label)).map(|(_, at)| *at);
    Some(Snapshot { of, at: own.or_else(known)?.to_owned(), date }).filter(|found| is_repository(&found.of))
}

/// Whether this is the address of a repository, as its files' addresses begin.
pub(super) fn is_repository(of: &str) -> bool {
    is_file_url(&format!("{of}/x"))
}

/// Whether this is the address of a service.
pub(super) fn is_service(at: &str) -> bool {
    (at.starts_with("http://") || at.starts_with("https://")) && at.contains(Snapshot::ID)
}

/// One of the lines at the beginning of the file; after them are the digests of lists.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim())
}

/// As RFC 2822 writes it, but for the name of the zone.
fn date(text: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(text.replace("UTC", "GMT")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(label: &str, date: &str, more: &str) -> String {
        format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nOrigin: x\nLabel: {label}\nDate: {date}\n{more}SHA256:\n ab 1 Packages\n"
        )
    }

    #[test]
    fn a_repository_is_as_it_was_at_the_date_of_its_newest_release_file() {
        let old = release("Debian", "Sat, 11 Jul 2026 10:16:37 UTC", "");
        let new = release("Debian", "Fri, 27 Nov 2026 02:10:32 UTC", "");
        let security = release("Debian-Security", "Thu, 26 Nov 2026 21:03:35 UTC", "");
        let found = snapshots([
            ("http://d.test/debian/dists/bookworm/InRelease".to_owned(), old),
            ("http://d.test/debian//dists/bookworm-updates/InRelease".to_owned(), new),
            ("http://d.test/debian-security/dists/bookworm-security/InRelease".to_owned(), security),
        ]);
        let words: Vec<_> = found.iter().map(|found| format!("{} {} {}", found.of, found.at, found.date)).collect();
        assert_eq!(
            words,
            [
                "http://d.test/debian https://snapshot.debian.org/archive/debian/@SNAPSHOTID@ 2026-11-27T02:10:32Z",
                "http://d.test/debian-security https://snapshot.debian.org/archive/debian-security/@SNAPSHOTID@ 2026-11-26T21:03:35Z",
            ]
        );
    }

    #[test]
    fn what_a_release_file_says_of_itself_comes_first_and_what_nobody_knows_has_no_service() {
        let of = |url: &str, text: &str| {
            snapshots([(url.to_owned(), text.to_owned())]).pop().map(|found| (found.of, found.at))
        };
        let date = "Fri, 27 Nov 2026 02:10:32 +0000";
        let own = release("Ubuntu", date, "Snapshots: http://s.test/@SNAPSHOTID@/\n");
        let expected = Some(("http://d.test/flat".to_owned(), "http://s.test/@SNAPSHOTID@/".to_owned()));
        assert_eq!(of("http://d.test/flat/./InRelease", &own), expected);
        assert_eq!(of("http://d.test/flat/InRelease", &own), expected);
        for nobody in [
            release("mine", date, ""),
            release("mine", date, "Snapshots: no\n"),
            release("mine", date, "Snapshots: file:///@SNAPSHOTID@\n"),
            release("Debian", "yesterday", ""),
            String::new(),
        ] {
            assert_eq!(of("http://d.test/flat/InRelease", &nobody), None, "{nobody}");
        }
        assert!(
            is_release("http://d.test/InRelease")
                && is_release("http://d.test/Release")
                && !is_release("http://d.test/Release.gpg")
        );
    }

    #[test]
    fn a_service_that_only_a_release_file_names_is_not_asked() {
        let policy = Policy { named: vec!["s.test".parse().unwrap()], ..Policy::default() };
        let is_allowed = |at: &str| {
            let (of, at) = ("http://d.test:8080/flat".to_owned(), at.to_owned());
            is_allowed(&Snapshot { of, at, date: Timestamp::UNIX_EPOCH }, &policy)
        };
        for at in [SERVICES[0].1, "http://d.test:8080/snap/@SNAPSHOTID@", "https://s.test/@SNAPSHOTID@"] {
            assert!(is_allowed(at), "{at}");
        }
        for at in ["http://d.test/@SNAPSHOTID@", "http://s.test:25/@SNAPSHOTID@", "http://other.test/@SNAPSHOTID@"] {
            assert!(!is_allowed(at), "{at}");
        }
    }
}
