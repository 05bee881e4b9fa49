//! Lines of a guest, fit to be shown.

/// Most characters of one line: more is a dump, not a message.
const LONGEST: usize = 300;

/// The last `count` lines that say something.
pub(super) fn last_lines(output: &[u8], count: usize) -> Vec<String> {
    let mut lines = lines(output);
    lines.split_off(lines.len().saturating_sub(count))
}

/// The lines that say something, cleaned, each cut to a length a person reads; their indentation is kept.
pub(super) fn lines(output: &[u8]) -> Vec<String> {
    reports::clean::text(&String::from_utf8_lossy(output))
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
        .map(|line| match line.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("{}...", &line[..end]),
            None => line.to_owned(),
        })
        .collect()
}

/// Name and version in a line in which a script of ours says what is installed: `nestmatrix: hello 2.10-3 is installed`.
pub(super) fn stated(line: &str) -> Option<(&str, &str)> {
    let said = line.strip_prefix("nestmatrix: ")?.strip_suffix(" is installed")?;
    said.split_once(' ').filter(|(name, version)| !name.is_empty() && !version.is_empty() && !version.contains(' '))
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
