//! Suggestions of similar names.

use crate::Arch;

/// Maximum number of suggestions.
const SUGGESTIONS: usize = 3;

/// Maximum length of a compared name, in bytes: longer names are no typos, and take long to compare.
const MAX_NAME_LEN: usize = 200;

/// The candidates within a typo of `name`, nearest first.
pub(crate) fn names<S: AsRef<str>>(name: &str, candidates: &[S]) -> Vec<String> {
    if name.len() > MAX_NAME_LEN {
        return Vec::new();
    }
    let wanted = name.to_lowercase();
    let mut scored: Vec<_> = candidates
        .iter()
        .map(|candidate| candidate.as_ref())
        .filter(|candidate| candidate.len() <= MAX_NAME_LEN)
        .filter(|candidate| !is_said_already(candidate, &wanted, candidates))
        .map(|candidate| {
            let known = candidate.to_lowercase();
            let score = strsim::jaro_winkler(&wanted, &known);
            // `debian-12` for `debian-12-minimal`: part of a name is near it, however long the rest is.
            let contained = wanted.len() >= 3 && known.contains(&wanted);
            (if contained { score.max(0.95) } else { score }, candidate)
        })
        .filter(|(score, _)| *score >= 0.8)
        .collect();
    scored.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    // The catalog has one entry of a name for each architecture.
    let mut near: Vec<String> = Vec::new();
    for (_, candidate) in scored {
        if near.len() < SUGGESTIONS && !near.iter().any(|said| said == candidate) {
            near.push(candidate.to_owned());
        }
    }
    near
}

/// A name with an architecture at its end adds nothing to the one without, unless an architecture was asked for.
fn is_said_already<S: AsRef<str>>(candidate: &str, wanted: &str, candidates: &[S]) -> bool {
    Arch::ALL.into_iter().any(|arch| {
        let shorter = candidate.strip_suffix(arch.name()).and_then(|rest| rest.strip_suffix('-'));
        shorter.is_some_and(|shorter| candidates.iter().any(|known| known.as_ref() == shorter))
            && !wanted.contains(&arch.name()[..3])
    })
}

/// `did you mean ...?` if a name is near; otherwise (or besides) this.
pub fn help<S: AsRef<str>>(name: &str, candidates: &[S], otherwise: &str) -> String {
    let near = names(name, candidates);
    if near.is_empty() {
        otherwise.to_owned()
    } else {
        let near: Vec<_> = near.iter().map(|name| format!("`{name}`")).collect();
        format!("did you mean {}? {otherwise}", near.join(" or "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_the_same_with_an_architecture_are_not_both_suggested() {
        let known = ["debian-12", "debian-12-x86_64", "debian-12-aarch64", "only-aarch64"];
        assert_eq!(names("debain-12", &known), ["debian-12"]);
        assert_eq!(names("only", &known), ["only-aarch64"]);
        assert_eq!(names("debain-12-aarch64", &known)[0], "debian-12-aarch64");
    }

    #[test]
    fn a_name_that_is_there_twice_is_suggested_once() {
        let known = ["debian-12-minimal", "debian-13-minimal", "debian-12-minimal"];
        assert_eq!(names("debian-12-minmal", &known), ["debian-12-minimal", "debian-13-minimal"]);
    }
}
