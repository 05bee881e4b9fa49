//! Limits the size of logs in the page.
//!
//! With few cells all useful text fits; with thousands each gets a smaller share, bad ones a larger one, and a browser still
//! opens the page at once.

use crate::Run;

/// Bytes of escaped log text for all bad cells together, and for all others.
const BAD: usize = 4 << 20;
const GOOD: usize = 1 << 20;
/// Bytes for the requests of all cells together, and as much for those of all templates.
const REQUESTS: usize = 1 << 20;
/// Maximum bytes of log text for one cell.
const MAX_CELL: usize = 64 << 10;
/// A smaller share is useless: the log is only linked.
const MIN_CELL: usize = 512;

/// The share of each cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    bad: usize,
    good: usize,
}

impl Budget {
    pub(super) fn new(run: &Run) -> Self {
        let bad = run.cells.iter().filter(|cell| cell.outcome().is_bad()).count();
        let share = |all: usize, cells: usize| {
            let share = (all / cells.max(1)).min(MAX_CELL);
            if share < MIN_CELL { 0 } else { share }
        };
        Self { bad: share(BAD, bad), good: share(GOOD, run.cells.len() - bad) }
    }

    /// Bytes of log text for a cell.
    pub(super) const fn logs(self, bad: bool) -> usize {
        if bad { self.bad } else { self.good }
    }

    /// Bytes for the requests of each of `all` cells or templates.
    pub(super) fn requests(all: usize) -> usize {
        (REQUESTS / all.max(1)).min(MAX_CELL)
    }

    /// Bytes for the details of a cell's test cases.
    pub(super) const fn tests(self, bad: bool) -> usize {
        self.logs(bad) / 4
    }
}

/// The last whole lines of a text that take at most `max` bytes when escaped for HTML.
pub(super) fn last_lines(text: &str, max: usize) -> &str {
    let mut cost = 0;
    let mut start = text.len();
    for (at, c) in text.char_indices().rev() {
        cost += escaped(c);
        if cost > max {
            let rest = &text[start..];
            return rest.split_once('\n').map_or(rest, |(_, whole)| if whole.is_empty() { rest } else { whole });
        }
        start = at;
    }
    text
}

/// The beginning of a text that takes at most `max` bytes when escaped for HTML.
pub(super) fn beginning(text: &str, max: usize) -> &str {
    let mut cost = 0;
    let end = text.char_indices().find(|(_, c)| {
        cost += escaped(*c);
        cost > max
    });
    end.map_or(text, |(at, _)| &text[..at])
}

/// Bytes of a text when escaped for HTML.
pub(super) fn cost(text: &str) -> usize {
    text.chars().map(escaped).sum()
}

/// Bytes of a character in the page.
const fn escaped(c: char) -> usize {
    match c {
        '<' | '>' => 4,
        '&' | '\'' => 5,
        '"' => 6,
        _ => c.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_whole_lines_at_the_end_and_counts_as_escaped() {
        assert_eq!(last_lines("one\ntwo\nthree", 9), "three");
        assert_eq!(last_lines("one\ntwo", 100), "one\ntwo");
        assert_eq!(last_lines("<<<<", 9), "<<");
        assert_eq!(beginning("a\"\"", 8), "a\"");
    }
}
