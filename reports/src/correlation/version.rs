//! Versions as far as they can be compared whoever wrote them: numbers with dots.

use std::{cmp::Ordering, fmt};

/// The numbers that a text begins with, such as the `2.36` of `2.36-9+deb12u1`. What follows them is written differently by each system.
#[derive(Clone, Debug)]
pub(super) struct Version {
    text: String,
    numbers: Vec<u64>,
}

impl Version {
    /// `None`: it begins with no number.
    pub(super) fn new(text: &str) -> Option<Self> {
        // An epoch or a `v` says nothing of the release.
        let text = text.split_once(':').map_or(text, |(_, rest)| rest);
        let text = text.strip_prefix('v').unwrap_or(text);
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let text = text.get(..end)?.trim_end_matches('.');
        let numbers: Option<Vec<u64>> = text.split('.').map(|number| number.parse().ok()).collect();
        numbers.map(|numbers| Self { text: text.to_owned(), numbers })
    }

    /// Without zeros at its end: `9` is `9.0`.
    fn significant(&self) -> &[u64] {
        let end = self.numbers.iter().rposition(|number| *number != 0).map_or(0, |last| last + 1);
        self.numbers.get(..end).unwrap_or_default()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.significant() == other.significant()
    }
}

impl Eq for Version {}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.significant().cmp(other.significant())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let version = |text| Version::new(text).unwrap();
        for (less, more) in
            [("2.9", "2.36"), ("2.36-9+deb12u1", "2.41-1"), ("6.1.0-13-amd64", "6.12.5"), ("1:1.9", "2.0")]
        {
            assert!(version(less) < version(more), "{less} {more}");
        }
        assert_eq!(version("9"), version("9.0-r1"));
        assert_eq!(version("2.36-9+deb12u1").to_string(), "2.36");
        assert!(["", "rolling", ".1", "2..1", "99999999999999999999"].iter().all(|text| Version::new(text).is_none()));
    }
}
