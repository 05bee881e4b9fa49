//! The language that debugfs takes orders in.

/// A word as libss takes it: quotes are doubled, and nothing else is special in them.
pub(super) fn quoted(word: &str) -> String {
    format!("\"{}\"", word.replace('"', "\"\""))
}
