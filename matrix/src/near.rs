//! Names that look like what was meant.

/// At most this many suggestions: more is a list, not a hint.
const SUGGESTIONS: usize = 3;

/// The candidates that are a slip of the finger away from `name`, nearest first.
pub(crate) fn names<S: AsRef<str>>(name: &str, candidates: &[S]) -> Vec<String> {
    let wanted = name.to_lowercase();
    let mut scored: Vec<_> = candidates
        .iter()
        .map(|candidate| candidate.as_ref())
        .map(|candidate| {
            let known = candidate.to_lowercase();
            let score = strsim::jaro_winkler(&wanted, &known);
            // `debian-12` for `debian-12-minimal`: part of a name is near it however long the rest is.
            let contained = wanted.len() >= 3 && known.contains(&wanted);
            (if contained { score.max(0.95) } else { score }, candidate)
        })
        .filter(|(score, _)| *score >= 0.8)
        .collect();
    scored.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    scored.into_iter().take(SUGGESTIONS).map(|(_, candidate)| candidate.to_owned()).collect()
}

/// `did you mean ...?` where there is something near, and otherwise (or besides) this.
pub(crate) fn help<S: AsRef<str>>(name: &str, candidates: &[S], otherwise: &str) -> String {
    let near = names(name, candidates);
    if near.is_empty() {
        otherwise.to_owned()
    } else {
        let near: Vec<_> = near.iter().map(|name| format!("`{name}`")).collect();
        format!("did you mean {}? {otherwise}", near.join(" or "))
    }
}
