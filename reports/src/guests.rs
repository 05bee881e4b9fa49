//! How guests were started, forked or booted, in the words of every output.

use std::{cmp::Reverse, collections::BTreeMap};

use crate::{Boot, Run};

/// Maximum number of lines of [`summary`].
const MAX_LINES: usize = 3;

/// `forked`, `cold`, or `cold: ` and the reason.
pub(crate) fn how(boot: &Boot) -> String {
    match boot {
        Boot::Forked { .. } => "forked".to_owned(),
        Boot::Cold { reason: None } => "cold".to_owned(),
        Boot::Cold { reason: Some(reason) } => format!("cold: {reason}"),
    }
}

/// The guests of all attempts, counted: `5 forked, 1 cold (the template of debian-12 could not be made)`. Each further reason is
/// a line of its own, up to three lines. Empty if no fork was wanted.
pub(crate) fn summary(run: &Run) -> Vec<String> {
    let (mut forked, mut cold) = (0, 0);
    let mut by_reason = BTreeMap::<&str, usize>::new();
    let attempts = run.cells.iter().flat_map(|cell| &cell.attempts);
    for guest in attempts.filter_map(|attempt| attempt.guest.as_ref()) {
        match &guest.boot {
            Boot::Forked { .. } => forked += 1,
            Boot::Cold { reason: None } => cold += 1,
            Boot::Cold { reason: Some(reason) } => *by_reason.entry(reason).or_default() += 1,
        }
    }
    if forked == 0 && by_reason.is_empty() {
        return Vec::new();
    }
    let mut by_reason: Vec<_> = by_reason.into_iter().collect();
    by_reason.sort_by_key(|(_, count)| Reverse(*count));
    let mut lines: Vec<String> = by_reason.iter().map(|(reason, count)| format!("{count} cold ({reason})")).collect();
    if let Some(rest) = by_reason.get(MAX_LINES - 1..).filter(|rest| rest.len() > 1) {
        let guests: usize = rest.iter().map(|(_, count)| count).sum();
        lines.truncate(MAX_LINES - 1);
        lines.push(format!("{guests} cold for {} other reasons", rest.len()));
    }
    let mut first = vec![format!("{forked} forked")];
    first.extend((cold > 0).then(|| format!("{cold} cold")));
    first.extend((!lines.is_empty()).then(|| lines.remove(0)));
    lines.insert(0, first.join(", "));
    lines
}
