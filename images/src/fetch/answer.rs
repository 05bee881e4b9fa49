//! What an HTTP answer means for the bytes that are already there.

use super::{client::Head, trouble::Trouble};

/// What the following bytes are.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// The whole file.
    Whole {
        /// Its size in bytes, if known.
        total: Option<u64>,
    },
    /// The missing rest, or a part of it.
    Rest {
        /// Size of the whole file in bytes, if known.
        total: Option<u64>,
    },
    /// Nothing was missing.
    Complete,
    /// The bytes that are there are not part of that file any more.
    Stale,
}

/// Judges the answer to a request for everything from `offset` on, of a file with `known` bytes, if known.
pub(super) fn judge(head: &Head, offset: u64, known: Option<u64>) -> Result<Answer, Trouble> {
    match head.code {
        // 203: the same, from a proxy that changed something; the checksum decides.
        200 | 203 => Ok(Answer::Whole { total: head.content_length }),
        206 if offset > 0 => {
            let wrong = || Trouble::WrongRest {
                offset,
                sent: head.content_range.clone().unwrap_or_else(|| "an unnamed part".to_owned()),
            };
            let range = head.content_range.as_deref().and_then(range).ok_or_else(wrong)?;
            let fits = range.first == offset
                && range.last >= range.first
                && range.total.is_none_or(|total| total > range.last && known.is_none_or(|known| known == total))
                && head.content_length.is_none_or(|length| length == range.last - range.first + 1);
            if fits { Ok(Answer::Rest { total: range.total.or(known) }) } else { Err(wrong()) }
        }
        416 if offset > 0 => match head.content_range.as_deref().and_then(|range| range.strip_prefix("bytes */")) {
            Some(total) if total.trim().parse() == Ok(offset) && known.is_none_or(|known| known == offset) => {
                Ok(Answer::Complete)
            }
            _ => Ok(Answer::Stale),
        },
        code => Err(Trouble::Status { code, name: head.name, line: None }),
    }
}

struct Range {
    first: u64,
    last: u64,
    total: Option<u64>,
}

/// RFC 9110, 14.4: `bytes 42-1233/1234`, or `*` where the size is not known.
fn range(text: &str) -> Option<Range> {
    let (bounds, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = bounds.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some(Range { first: first.trim().parse().ok()?, last: last.trim().parse().ok()?, total })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(content_range: &str, content_length: Option<u64>) -> Head {
        Head { code: 206, content_range: Some(content_range.to_owned()), content_length, ..Head::default() }
    }

    #[test]
    fn the_rest_is_taken_only_if_it_is_the_one_that_was_asked_for() {
        let rest = |range, length, known| judge(&part(range, length), 10, known);
        assert_eq!(rest("bytes 10-19/20", Some(10), Some(20)).expect("fits"), Answer::Rest { total: Some(20) });
        assert_eq!(rest("bytes 10-14/20", None, None).expect("a part of it"), Answer::Rest { total: Some(20) });
        assert_eq!(rest("bytes 10-19/*", None, Some(20)).expect("fits"), Answer::Rest { total: Some(20) });
        for (range, length, known) in [
            ("bytes 0-19/20", None, Some(20)),
            ("bytes 11-19/20", None, Some(20)),
            ("bytes 10-20/21", None, Some(20)),
            ("bytes 10-19/19", None, None),
            ("bytes 10-9/20", None, None),
            ("bytes 10-19/20", Some(9), None),
            ("bytes 10-18446744073709551615/*", Some(3), None),
            ("items 10-19/20", None, None),
            ("", None, None),
        ] {
            let error = judge(&part(range, length), 10, known).expect_err(range);
            assert!(matches!(error, Trouble::WrongRest { .. }), "{error}");
        }
        let nothing_asked = judge(&part("bytes 0-19/20", None), 0, None).expect_err("the whole was asked for");
        assert!(matches!(nothing_asked, Trouble::Status { code: 206, .. }));
    }

    #[test]
    fn a_server_without_a_rest_says_whether_that_is_all() {
        let beyond = |range: Option<&str>, known| {
            let head = Head { code: 416, content_range: range.map(str::to_owned), ..Head::default() };
            judge(&head, 10, known).expect("an answer")
        };
        assert_eq!(beyond(Some("bytes */10"), Some(10)), Answer::Complete);
        assert_eq!(beyond(Some("bytes */10"), None), Answer::Complete);
        assert_eq!(beyond(Some("bytes */10"), Some(11)), Answer::Stale);
        assert_eq!(beyond(Some("bytes */9"), None), Answer::Stale);
        assert_eq!(beyond(None, None), Answer::Stale);
    }

    #[test]
    fn a_server_that_ignores_ranges_begins_anew_and_others_say_no() {
        let head = |code| Head { code, content_length: Some(20), ..Head::default() };
        assert_eq!(judge(&head(200), 10, None).expect("whole"), Answer::Whole { total: Some(20) });
        for code in [204, 304, 404, 500] {
            judge(&head(code), 10, None).expect_err("no file");
        }
    }
}
