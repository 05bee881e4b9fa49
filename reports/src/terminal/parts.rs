//! Building blocks of permanent lines.

use super::paint::Paint;
use crate::clean;

/// Lines of evidence below a failure.
pub(super) const MAX_EVIDENCE: usize = 12;
/// Indent of lines that belong to the line above.
pub(super) const INDENT: &str = "          ";

/// `  PASS  text`: the label is right-aligned.
pub(super) fn label(plain: &str, painted: String, text: &str) -> String {
    format!("{}{painted}  {text}", " ".repeat(8_usize.saturating_sub(plain.len())))
}

/// The next step for the line above.
pub(super) fn help(text: &str) -> Vec<String> {
    let title = |index| if index == 0 { "help: " } else { "      " };
    text.lines()
        .enumerate()
        .map(|(index, line)| format!("{INDENT}{}{line}", title(index)).trim_end().to_owned())
        .collect()
}

/// A quoted line.
pub(super) fn quoted(line: &str, paint: Paint) -> String {
    let line = clean::excerpt(line, 1_000).replace('\n', " ");
    format!("{INDENT}{} {}", paint.dim("|"), line.trim_end()).trim_end().to_owned()
}
