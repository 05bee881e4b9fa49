//! Versions as far as they can be compared across distributions: numbers with dots.

use std::{cmp::Ordering, fmt};

/// The numbers that a text begins with, such as the `2.36` of `2.36-9+deb12u1`. What follows them is written differently by each system.
#[derive(Clone, Debug)]
pub(super) struct Version {
    text: String,
    /// Where a packager has started to count anew: the `1` of `1:2.0`.
    epoch: u64,
    numbers: Vec<u64>,
}

impl Version {
    /// `None`: it begins with no number.
    pub(super) fn new(text: &str) -> Option<Self> {
        let (epoch, text) = match text.split_once(':') {
            Some((epoch, text)) => (epoch.parse().ok()?, text),
            None => (0, text),
        };
        let text = text.strip_prefix('v').unwrap_or(text);
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let text = text.get(..end)?.trim_end_matches('.');
        let numbers: Option<Vec<u64>> = text.split('.').map(|number| number.parse().ok()).collect();
        numbers.map(|numbers| Self { text: text.to_owned(), epoch, numbers })
    }

    /// Numbers with dots and nothing else: where it stands for something else than a version, such as a size, it has a unit.
    pub(super) fn only(text: &str) -> Option<Self> {
        Self::new(text).filter(|version| version.text == text)
    }

    pub(super) const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Without zeros at its end: `9` is `9.0`.
    fn significant(&self) -> &[u64] {
        let end = self.numbers.iter().rposition(|number| *number != 0).map_or(0, |last| last + 1);
        self.numbers.get(..end).unwrap_or_default()
    }

    /// Which of two equal versions stands for both.
    pub(super) fn in_order(&self, other: &Self) -> Ordering {
        self.cmp(other).then_with(|| self.text.cmp(&other.text))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.epoch {
            0 => f.write_str(&self.text),
            epoch => write!(f, "{epoch}:{}", self.text),
        }
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
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
        (self.epoch, self.significant()).cmp(&(other.epoch, other.significant()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let version = |text| Version::new(text).unwrap();
        for (less, more) in
            [("2.9", "2.36"), ("2.36-9+deb12u1", "2.41-1"), ("6.1.0-13-amd64", "6.12.5"), ("2.0", "1:1.9")]
        {
            assert!(version(less) < version(more), "{less} {more}");
        }
        assert_eq!(version("9"), version("9.0-r1"));
        assert_eq!(["2.36-9+deb12u1", "1:2.0-3"].map(|text| version(text).to_string()), ["2.36", "1:2.0"]);
        assert!(
            ["", "rolling", ".1", "2..1", "99999999999999999999", "mysql:8.0"]
                .iter()
                .all(|text| Version::new(text).is_none())
        );
        assert!(["512MiB", "v1", "1:2", "0x10", "30m"].iter().all(|text| Version::only(text).is_none()));
        assert!(["8", "8.10"].iter().all(|text| Version::only(text).is_some()));
    }
}
