//! Decodes a results file.
//!
//! XML 1.0, appendix F: a byte order mark decides, then zero bytes around the first character, then the declaration. A wrong
//! guess garbles names, not verdicts; but UTF-16 read as UTF-8 has no elements at all.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};
use quick_xml::{Reader, events::Event};

/// The declaration must be within this many bytes.
const DECLARATION: usize = 1_024;

/// The text, and whether invalid bytes in it were replaced.
///
/// # Errors
///
/// The name of an unsupported encoding.
pub(super) fn decode(xml: &[u8]) -> Result<(Cow<'_, str>, bool), String> {
    if matches!(xml, [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] | [b'<', 0, 0, 0, ..] | [0, 0, 0, b'<', ..]) {
        return Err("UTF-32".to_owned());
    }
    let (encoding, rest) = match (Encoding::for_bom(xml), xml) {
        (Some((encoding, length)), _) => (encoding, &xml[length..]),
        (None, [1..=0x7f, 0, ..]) => (UTF_16LE, xml),
        (None, [0, 1..=0x7f, ..]) => (UTF_16BE, xml),
        (None, _) => (declared(xml)?, xml),
    };
    let (text, replaced) = encoding.decode_without_bom_handling(rest);
    // Here a lost byte shifts everything that follows.
    if replaced && (encoding == UTF_16LE || encoding == UTF_16BE) {
        return Err(format!("{}, and not all of it is", encoding.name()));
    }
    Ok((text, replaced))
}

/// The declared encoding; UTF-8 without a declaration.
fn declared(xml: &[u8]) -> Result<&'static Encoding, String> {
    let start = String::from_utf8_lossy(&xml[..xml.len().min(DECLARATION)]);
    let mut reader = Reader::from_str(start.trim_start());
    let Ok(Event::Decl(declaration)) = reader.read_event() else { return Ok(UTF_8) };
    let Some(Ok(label)) = declaration.encoding() else { return Ok(UTF_8) };
    match Encoding::for_label_no_replacement(label.as_bytes()) {
        // The declaration is in single bytes: the program built UTF-16 in memory, and then wrote UTF-8.
        Some(encoding) if encoding == UTF_16LE || encoding == UTF_16BE => Ok(UTF_8),
        Some(encoding) => Ok(encoding),
        None => Err(crate::clean::line(&label)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(xml: &[u8]) -> String {
        let (text, replaced) = decode(xml).expect("readable");
        assert!(!replaced);
        text.into_owned()
    }

    fn utf16(text: &str, unit: impl Fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(unit).collect()
    }

    #[test]
    fn utf_16_is_known_by_its_mark_or_by_its_zeros() {
        // As Windows writes it, whatever the declaration says.
        let xml = "<?xml version=\"1.0\" encoding=\"utf-8\"?><a name=\"größer €\"/>";
        for marked in [xml.to_owned(), format!("\u{feff}{xml}")] {
            assert_eq!(text(&utf16(&marked, u16::to_le_bytes)), xml);
            assert_eq!(text(&utf16(&marked, u16::to_be_bytes)), xml);
        }
        assert_eq!(text(format!("\u{feff}{xml}").as_bytes()), xml);
        let cut = decode(&utf16(xml, u16::to_le_bytes)[..41]).expect_err("half a character");
        assert_eq!(cut, "UTF-16LE, and not all of it is");
    }

    #[test]
    fn a_declared_encoding_is_the_one_that_is_read() {
        for (label, bytes, shown) in [
            ("ISO-8859-1", &b"gr\xf6\xdfer"[..], "größer"),
            ("windows-1252", b"10 \x80", "10 €"),
            ("iso-8859-15", b"10 \xa4", "10 €"),
            ("US-ASCII", b"plain", "plain"),
            ("UTF-16", "größer".as_bytes(), "größer"),
            ("Shift_JIS", b"\x83e\x83X\x83g", "テスト"),
        ] {
            let declaration = format!("\n<?xml version='1.0' encoding='{label}'?>");
            let xml = [declaration.as_bytes(), b"<a>", bytes, b"</a>"].concat();
            assert_eq!(text(&xml), format!("{declaration}<a>{shown}</a>"));
        }
    }

    #[test]
    fn an_encoding_that_is_not_known_is_named() {
        let error = |xml: &[u8]| decode(xml).expect_err("unknown");
        assert_eq!(error(b"<?xml version='1.0' encoding='utf-7'?><a/>"), "utf-7");
        assert_eq!(error(&[0xff, 0xfe, 0, 0, b'<', 0, 0, 0]), "UTF-32");
        assert_eq!(error(&[0, 0, 0, b'<']), "UTF-32");
    }

    #[test]
    fn bytes_that_are_no_utf_8_are_replaced_and_that_is_known() {
        let (text, replaced) = decode(b"<a>\xff</a>").expect("readable");
        assert_eq!((&*text, replaced), ("<a>\u{fffd}</a>", true));
    }
}
