//! Versions as far as they can be compared across distributions: numbers with dots.

/// The numbers that a text begins with, such as the `2.36` of `2.36-9+deb12u1`. What follows them is written differently by each system.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Version {
    /// Where a packager has started to count anew: the `1` of `1:2.0`.
    pub(super) epoch: u64,
    /// Without zeros at its end: `9` is `9.0`.
    numbers: Vec<u64>,
}

/// The version, and the part of the text that says it. `None`: it begins with no number.
pub(super) fn read(text: &str) -> Option<(Version, &str)> {
    let (epoch, rest) = match text.split_once(':') {
        Some((epoch, rest)) => (epoch.parse().ok()?, rest),
        None => (0, text),
    };
    let rest = rest.strip_prefix('v').unwrap_or(rest);
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let said = rest.get(..end)?.trim_end_matches('.');
    let numbers: Option<Vec<u64>> = said.split('.').map(|number| number.parse().ok()).collect();
    let mut numbers = numbers?;
    while numbers.last() == Some(&0) {
        numbers.pop();
    }
    Some((Version { epoch, numbers }, text.get(..text.len() - rest.len() + said.len())?))
}

/// Numbers with dots and nothing else: where it stands for something else than a version, such as a size, it has a unit.
pub(super) fn read_only(text: &str) -> Option<(Version, &str)> {
    read(text).filter(|_| text.chars().all(|c| c.is_ascii_digit() || c == '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let version = |text| read(text).unwrap().0;
        for (less, more) in
            [("2.9", "2.36"), ("2.36-9+deb12u1", "2.41-1"), ("6.1.0-13-amd64", "6.12.5"), ("2.0", "1:1.9")]
        {
            assert!(version(less) < version(more), "{less} {more}");
        }
        assert_eq!(version("9"), version("9.0-r1"));
        let said = ["2.36-9+deb12u1", "1:2.0-3", "v1.2.", "24.04"].map(|text| read(text).unwrap().1);
        assert_eq!(said, ["2.36", "1:2.0", "v1.2", "24.04"]);
        let none = ["", "rolling", ".1", "2..1", "99999999999999999999", "mysql:8.0"];
        assert!(none.iter().all(|text| read(text).is_none()));
        assert!(["512MiB", "v1", "1:2", "0x10", "30m"].iter().all(|text| read_only(text).is_none()));
        assert!(["8", "8.10"].iter().all(|text| read_only(text).is_some()));
    }
}
