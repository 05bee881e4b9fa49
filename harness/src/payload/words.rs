//! Lines of a guest, fit to be shown.

use serde::{
    Deserialize,
    de::value::{BorrowedStrDeserializer, Error},
};

/// Most characters of one line: more is a dump, not a message.
const LONGEST: usize = 300;

/// The last `count` lines that say something.
pub(super) fn last_lines(output: &[u8], count: usize) -> Vec<String> {
    let mut lines = lines(output);
    lines.split_off(lines.len().saturating_sub(count))
}

/// The lines that say something, cleaned, each cut to a length a person reads; their indentation is kept.
pub(super) fn lines(output: &[u8]) -> Vec<String> {
    let mut lines = lines_in_full(output);
    for line in &mut lines {
        if let Some((end, _)) = line.char_indices().nth(LONGEST) {
            line.truncate(end);
            line.push_str("...");
        }
    }
    lines
}

/// The same, however long they are.
pub(super) fn lines_in_full(output: &[u8]) -> Vec<String> {
    let text = reports::clean::text(&String::from_utf8_lossy(output));
    text.lines().map(str::trim_end).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// The value that reports and matrix files write as this word.
pub(super) fn meant<'a, T: Deserialize<'a>>(word: &'a str) -> Option<T> {
    T::deserialize(BorrowedStrDeserializer::<Error>::new(word)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_lines_and_escape_sequences_are_no_words_and_long_lines_are_cut() {
        let long = "x".repeat(1000);
        let output = format!("one\n\n  \x1b[31mtwo\x1b[0m  \r\n\0\n{long}\n");
        assert_eq!(lines(output.as_bytes()), ["one", "  two", &format!("{}...", "x".repeat(300))]);
        assert_eq!(last_lines(b"a\nb\nc\n", 2), ["b", "c"]);
        assert_eq!(last_lines(b"a", 2), ["a"]);
    }
}
