//! Detects a web page in place of an image, and extracts its words.

/// Bytes of a file that are inspected.
pub(super) const INSPECTED_BYTES: usize = 4096;

/// Maximum length of a quoted line, in characters.
const MAX_LINE_LEN: usize = 100;

/// True if a file that begins like this is a page: by its content type, or by its content.
pub(super) fn is_page(content_type: Option<&str>, head: &[u8]) -> bool {
    let kind = content_type.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim().to_ascii_lowercase();
    match text(head) {
        Some(text) => {
            let text = text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
            kind.starts_with("text/") || kind.contains("html") || text.starts_with(['<', '{', '['])
        }
        // Servers that do not know a file name extension call its content `text/plain`; that is no page.
        None => kind.contains("html"),
    }
}

/// The page's title, or its first line, without tags, shortened; `None`: it has no words.
pub(super) fn words(head: &[u8]) -> Option<String> {
    let text = text(head)?;
    let title = || {
        let (_, title) = text.split_once("<title>").or_else(|| text.split_once("<TITLE>"))?;
        title.split('<').next().map(tidy).filter(|title| !title.is_empty())
    };
    title().or_else(|| without_tags(text).lines().map(tidy).find(|line| !line.is_empty()))
}

/// The bytes as text, if they are text; a character cut by the end is ignored.
fn text(head: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&head[..error.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    let is_control = |c: char| c.is_control() && !c.is_whitespace() && c != '\u{1b}';
    (!text.contains(is_control)).then_some(text)
}

fn without_tags(text: &str) -> String {
    let mut inside = false;
    let outside = text.chars().filter(|&c| {
        let was_inside = inside;
        inside = if inside { c != '>' } else { c == '<' };
        !was_inside && !inside
    });
    outside.collect()
}

/// One line without control characters, one space between words.
fn tidy(line: &str) -> String {
    let words: Vec<&str> =
        line.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    let line = words.join(" ");
    match line.char_indices().nth(MAX_LINE_LEN) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_known_by_their_type_or_by_how_they_begin() {
        for (kind, head) in [
            (Some("text/html; charset=utf-8"), "anything"),
            (Some("TEXT/HTML"), "anything"),
            (Some("application/xhtml+xml"), "anything"),
            (Some("text/plain"), "Not here."),
            (Some("application/octet-stream"), "\n <!DOCTYPE html>"),
            (None, "\u{feff}<?xml version=\"1.0\"?>"),
            (None, "{\"error\": \"no\"}"),
        ] {
            assert!(is_page(kind, head.as_bytes()), "{kind:?} {head:?}");
        }
        assert!(is_page(Some("text/html"), b"\xff\x00"));
    }

    #[test]
    fn images_are_no_pages_also_when_a_server_takes_them_for_text() {
        for kind in [None, Some("application/x-xz"), Some("text/plain")] {
            for head in [&b"\xfd7zXZ\0"[..], b"QFI\xfb\0\0\0\x03", b"\x1f\x8b\x08", b"\0\0\0\0", b"<\0", b"{\xff"] {
                assert!(!is_page(kind, head), "{kind:?} {head:?}");
            }
        }
    }

    #[test]
    fn a_page_is_quoted_by_its_title_or_its_first_line_in_plain_words() {
        assert_eq!(words(b"<html><head><title>Log\n in </title>").as_deref(), Some("Log in"));
        assert_eq!(words(b"<html><head>\n<h1>Go\x1b[31m away</h1>\n<p>now").as_deref(), Some("Go [31m away"));
        assert_eq!(words(b"{\"error\": \"no such file\"}").as_deref(), Some("{\"error\": \"no such file\"}"));
        assert_eq!(
            words("ä".repeat(INSPECTED_BYTES).as_bytes()).map(|line| line.chars().count()),
            Some(MAX_LINE_LEN + 3)
        );
        assert_eq!(words(&"é".as_bytes()[..1]), None, "half a character");
        assert_eq!(words(b"\xff\xfe\0"), None);
        assert_eq!(words(b"<br>"), None);
    }
}
