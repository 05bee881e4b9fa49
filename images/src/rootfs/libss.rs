//! Quoting for debugfs commands (libss).

/// A word for libss: quotes are doubled, nothing else is special inside them.
pub(super) fn quoted(word: &str) -> String {
    format!("\"{}\"", word.replace('"', "\"\""))
}
