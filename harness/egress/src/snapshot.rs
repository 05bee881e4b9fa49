//! Services that have a repository as it was at any date. Pure.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// How long after a repository was made its service may have that state, the likeliest first. One has exactly what there was at any
/// moment; another one has what there was several times a day, and answers with the last state before the moment it is asked for. A
/// package stays for more than a day after a newer one has come.
const AFTER: [SignedDuration; 4] = [
    SignedDuration::from_mins(10),
    SignedDuration::from_hours(1),
    SignedDuration::from_hours(5),
    SignedDuration::from_hours(26),
];

/// Where a repository can be had as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// Address of the repository.
    pub of: String,
    /// Address of the service, with [`Snapshot::ID`] where the date stands.
    pub at: String,
    /// When the repository was made that is pinned.
    pub date: Timestamp,
}

impl Snapshot {
    /// What stands for the date, as in the addresses that apt knows.
    pub const ID: &str = "@SNAPSHOTID@";

    /// Where the service may have this file of the repository, the likeliest first; it is of another one: nowhere.
    pub(crate) fn addresses(&self, url: &str) -> Vec<String> {
        let path = url.strip_prefix(self.of.trim_end_matches('/')).filter(|path| path.starts_with('/'));
        let dates = AFTER.iter().filter_map(|after| self.date.checked_add(*after).ok());
        let at = |date: Timestamp| {
            self.at.trim_end_matches('/').replace(Self::ID, &date.strftime("%Y%m%dT%H%M%SZ").to_string())
        };
        path.map_or_else(Vec::new, |path| dates.map(|date| format!("{}{path}", at(date))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_repository_is_looked_for_at_dates_after_the_pinned_one_and_no_other_file() {
        let snapshot = Snapshot {
            of: "http://d.test/debian".to_owned(),
            at: "https://s.test/archive/debian/@SNAPSHOTID@/".to_owned(),
            date: "2026-11-27T02:10:32Z".parse().unwrap(),
        };
        let addresses = snapshot.addresses("http://d.test/debian/pool/x_1_all.deb");
        assert_eq!(
            addresses[..2],
            [
                "https://s.test/archive/debian/20261127T022032Z/pool/x_1_all.deb",
                "https://s.test/archive/debian/20261127T031032Z/pool/x_1_all.deb"
            ]
        );
        assert_eq!(addresses.len(), AFTER.len());
        for other in ["http://d.test/debian-security/x", "http://e.test/debian/x", "http://d.test/debian"] {
            assert!(snapshot.addresses(other).is_empty(), "{other}");
        }
    }
}
