//! Makes text from outside safe to show. All of it passes here.
//!
//! Guests are hostile: their output may move a terminal's cursor, hide the rest of a log, reverse a line or make an XML file
//! unreadable. Everything that people see passes through here once, when it enters a [`crate::Run`] or is read from a log; the
//! renderers then only escape for their own format. Removed characters are still in the log on disk.
//!
//! Escape sequences are removed by a parser of our own, because the usual ones (vte) follow the terminal's rule that an
//! unfinished `ESC ]` swallows everything after it: a guest could hide its failure that way.

/// Maximum length of the result of [`fn@line`], in characters.
pub const MAX_LINE: usize = 1_000;

/// Maximum length of the parameters of a control sequence.
const MAX_PARAMETERS: usize = 64;

/// Text of many lines: no escape sequences, no control characters except `\n` and `\t`, nothing that reorders or hides text.
///
/// `\r\n` and a lone `\r` become `\n`, so each step of a progress bar is visible. The result has only characters that XML 1.0
/// allows.
pub fn text(raw: &str) -> String {
    let mut clean = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find(is_hidden) {
        clean.push_str(&rest[..at]);
        let mut following = rest[at..].chars();
        let Some(found) = following.next() else { break };
        rest = following.as_str();
        match found {
            '\u{1b}' => rest = after_escape(rest),
            '\u{9b}' => rest = after_control_sequence(rest),
            '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}' => rest = after_control_string(rest),
            '\r' => {
                // Serial consoles write `\r\r\n`; any run of returns is one line end.
                rest = rest.trim_start_matches('\r');
                rest = rest.strip_prefix('\n').unwrap_or(rest);
                clean.push('\n');
            }
            '\u{2028}' | '\u{2029}' | '\u{85}' => clean.push('\n'),
            _ => {}
        }
    }
    clean.push_str(rest);
    clean
}

/// One line: as [`text`], with line ends and tabs as single spaces, trimmed, and at most [`MAX_LINE`] characters.
pub fn line(raw: &str) -> String {
    // Cut early: a line is short, its source may be megabytes.
    let mut clean = String::new();
    let mut length = 0;
    for word in text(prefix(raw, 8 * MAX_LINE)).split_whitespace() {
        if length > 0 {
            clean.push(' ');
            length += 1;
        }
        for c in word.chars() {
            if length == MAX_LINE - 1 {
                clean.push('…');
                return clean;
            }
            clean.push(c);
            length += 1;
        }
    }
    clean
}

/// As [`text`], but at most about `max_bytes`: the beginning and the end, and between them the number of omitted bytes.
pub fn excerpt(raw: &str, max_bytes: usize) -> String {
    let clean = text(raw);
    if clean.len() <= max_bytes {
        return clean;
    }
    let head = prefix(&clean, max_bytes / 2);
    let tail = suffix(&clean, max_bytes / 2);
    format!("{head}\n[... {} bytes left out ...]\n{tail}", clean.len() - head.len() - tail.len())
}

/// The longest prefix of at most `max_bytes` bytes that ends between characters.
pub(crate) fn prefix(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}

/// The longest suffix of at most `max_bytes` bytes that begins between characters.
pub(crate) fn suffix(text: &str, max_bytes: usize) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(max_bytes))..]
}

/// Characters that are never shown unchanged.
const fn is_hidden(c: char) -> bool {
    match c {
        '\n' | '\t' => false,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => true,
        // Direction marks, embeddings, overrides and isolates: they change the reading order of a line.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' => true,
        // Not characters of XML 1.0.
        '\u{fffe}' | '\u{ffff}' => true,
        // Tag characters: invisible copies of ASCII.
        '\u{e0000}'..='\u{e007f}' => true,
        _ => false,
    }
}

/// The text after an escape sequence whose ESC has just been read (ECMA-48).
fn after_escape(rest: &str) -> &str {
    let mut following = rest.chars();
    match following.next() {
        Some('[') => after_control_sequence(following.as_str()),
        Some(']' | 'P' | 'X' | '^' | '_') => after_control_string(following.as_str()),
        Some(' '..='/') => {
            let tail = following.as_str().trim_start_matches(|c| matches!(c, ' '..='/'));
            tail.strip_prefix(|c| matches!(c, '0'..='~')).unwrap_or(tail)
        }
        Some('0'..='~') => following.as_str(),
        _ => rest,
    }
}

/// The text after the parameters and the final byte of a control sequence; all of it if there is no such sequence.
fn after_control_sequence(rest: &str) -> &str {
    let parameters = rest.bytes().take_while(|byte| matches!(byte, b' '..=b'?')).take(MAX_PARAMETERS + 1).count();
    if parameters > MAX_PARAMETERS {
        return rest;
    }
    let tail = &rest[parameters..];
    tail.strip_prefix(|c| matches!(c, '@'..='~')).unwrap_or(tail)
}

/// The text after the end of a control string (a window title, a link); all of it if it does not end before the next control
/// character, because an unfinished one must not hide the following text.
fn after_control_string(rest: &str) -> &str {
    let Some(end) = rest.find(|c: char| c.is_control()) else { return rest };
    let tail = &rest[end..];
    ["\u{7}", "\u{1b}\\", "\u{9c}"].iter().find_map(|end| tail.strip_prefix(end)).unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn colours_titles_and_links_vanish_and_their_text_stays() {
        assert_eq!(
            text("\u{1b}[1;31mred\u{1b}[0m and \u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{7}!"),
            "red and link!"
        );
        assert_eq!(text("\u{9b}31mred\u{1b}(B\u{1b}7\u{1b}c"), "red");
    }

    #[test]
    fn an_unfinished_sequence_cannot_hide_what_follows() {
        assert_eq!(text("\u{1b}]0;title\nE: broken"), "0;title\nE: broken");
        assert_eq!(text("\u{1b}Pq\nE: broken"), "q\nE: broken");
        assert!(text(&format!("\u{1b}[{}E: broken", "1;".repeat(200))).ends_with("E: broken"));
    }

    #[test]
    fn line_ends_of_serial_consoles_and_progress_bars_become_lines() {
        assert_eq!(text("boot\r\r\nok\r\n10%\r20%"), "boot\nok\n10%\n20%");
    }

    #[test]
    fn text_cannot_be_turned_around_or_hidden() {
        assert_eq!(text("user\u{202e}txt.exe\u{2066}\u{200f}\u{feff}\0\u{8}"), "usertxt.exe");
    }

    #[test]
    fn a_line_is_one_short_line() {
        assert_eq!(line("  dpkg:\r\n\terror \u{1b}[0m "), "dpkg: error");
        assert_eq!(line(&"x".repeat(5_000)).chars().count(), MAX_LINE);
    }

    #[test]
    fn an_excerpt_keeps_both_ends_and_says_what_is_missing() {
        let long = format!("first{}last", "é".repeat(1_000));
        let short = excerpt(&long, 100);
        assert!(short.starts_with("first") && short.ends_with("last") && short.contains("bytes left out"), "{short}");
    }

    proptest! {
        #[test]
        fn nothing_hidden_survives(raw in any::<String>()) {
            let clean = text(&raw);
            prop_assert!(!clean.chars().any(is_hidden), "{clean:?}");
            prop_assert_eq!(text(&clean), clean);
            prop_assert!(line(&raw).chars().count() <= MAX_LINE);
            prop_assert!(!line(&raw).contains(['\n', '\t']));
        }

        #[test]
        fn plain_text_is_untouched(raw in "[ -~äß→\n\t]{0,200}") {
            prop_assert_eq!(text(&raw), raw);
        }
    }
}
