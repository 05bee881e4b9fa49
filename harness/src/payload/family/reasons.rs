//! Why a package manager failed, out of everything it said.

use crate::payload::words;

/// Most lines that are shown of a failure.
pub(crate) const MOST: usize = 12;
/// Most lines that are shown of what a package's script said before it failed.
const MOST_SAID: usize = 5;

/// How the output of a package manager reads. Lines have their indentation.
pub(super) struct Grammar {
    /// The part of a line that says why; indented lines that follow belong to it. `None`: it does not.
    pub(super) reason: fn(&str) -> Option<&str>,
    /// A reason that blames a package's script: what the script said stands before it.
    pub(super) blames: fn(&str) -> bool,
    /// Lines that only say what comes next: what a script said begins after them.
    pub(super) progress: fn(&str) -> bool,
    /// Lines that are left out, with the indented ones that follow: advice, or the same once more.
    pub(super) noise: fn(&str) -> bool,
    /// How lines begin that say that another program holds the package manager's lock.
    pub(super) locked: &'static [&'static str],
    /// How lines begin, indented or not, that say that a package is being worked on: its scripts may call a package manager.
    pub(super) begun: &'static [&'static str],
    /// What stands in lines that say that a package is missing.
    pub(super) missing: &'static [&'static str],
    /// What stands in lines that say that a package is in a repository that is known, and was not downloaded.
    pub(super) unfetched: &'static [&'static str],
    /// What else stands in lines that say that a repository cannot be used, or that a file of it is not what its lists or signatures say.
    pub(super) unusable: &'static [&'static str],
    /// What stands in lines that say that packages cannot be installed together, or not with what there is.
    pub(super) unsolvable: &'static [&'static str],
    /// What stands in lines that say that it is something else.
    pub(super) not_missing: &'static [&'static str],
}

/// The lines that say why it failed; if nothing looks like one, the last lines.
pub(super) fn of(output: &[u8], grammar: &Grammar) -> Vec<String> {
    let all = words::lines(output);
    let mut why: Vec<String> = Vec::new();
    let mut lines = all.as_slice();
    let mut before: Vec<&String> = Vec::new();
    while let Some((line, rest)) = lines.split_first() {
        let details = rest.iter().take_while(|line| line.starts_with([' ', '\t'])).count();
        lines = rest;
        if (grammar.noise)(line) {
            lines = &rest[details..];
        } else if let Some(reason) = (grammar.reason)(line) {
            if (grammar.blames)(line) {
                let said = before.iter().rev().take_while(|line| !(grammar.progress)(line)).take(MOST_SAID).count();
                why.extend(before.split_off(before.len() - said).into_iter().cloned());
            }
            why.push(reason.to_owned());
            why.extend(rest[..details].iter().filter(|line| !(grammar.noise)(line)).cloned());
            lines = &rest[details..];
            before.clear();
        } else {
            before.push(line);
        }
    }
    if why.is_empty() {
        return words::last_lines(output, MOST_SAID);
    }
    why.dedup();
    why.truncate(MOST);
    why
}

/// Whether the line begins with one of these.
pub(crate) fn starts(line: &str, with: &[&str]) -> bool {
    with.iter().any(|start| line.starts_with(start))
}
