//! What a guest sends of its files (`collect.sh`), read as what it is: bytes by an adversary.
//!
//! Frames are told from content by a mark that was drawn for this one exchange. Only regular files come out, under paths that are made
//! safe, in bounded numbers and sizes, and nothing but one frame's text is ever in memory. A stream counts as complete only if its last
//! frame came and says how many there were.

use std::{
    collections::HashSet,
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
};

use memchr::memmem;

use super::{Limits, file_name, warnings::Warnings};

/// Longest text of a frame, in bytes: a path is no longer than 4096.
const LONGEST_TEXT: u64 = 8192;
/// What of a path is shown, in bytes.
const SHOWN: usize = 255;
/// How much is searched for marks at once, in bytes.
const BLOCK: u64 = 1 << 20;

/// A file that may be kept.
pub(super) struct Item<'a> {
    /// Relative, of safe names only, separated by `/`.
    pub(super) path: String,
    /// The same one for two names of one file.
    pub(super) inode: u64,
    /// What came of it, all of which is within the limits.
    pub(super) content: &'a mut dyn Read,
}

/// Reads a stream to its end, or as far as the limits and its own form allow. `keep` is given each file, also one that did not come
/// whole, and returns how many bytes of it were kept, or why it could not be.
pub(super) fn read(
    stream: &mut (impl Read + Seek),
    mark: &str,
    limits: &Limits,
    warnings: &mut Warnings,
    mut keep: impl FnMut(Item<'_>) -> Result<u64, String>,
) {
    // Of each file there are two frames; whatever else is said is about one that is left out, or about a pattern.
    let most = limits.count.saturating_mul(2).saturating_add(10_000);
    let spans = match spans(stream, mark.as_bytes(), most) {
        Ok(spans) => spans,
        Err(error) => return warnings.add(format!("the files of the guest cannot be read here: {error}")),
    };
    let mut reading = Reading { stream, limits, warnings, spans: spans.into_iter(), frames: 0, files: 0, bytes: 0 };
    if let Err(why) = reading.all(&mut keep) {
        warnings.add(format!("the files of the guest did not all come: {why}"));
    }
}

/// What lies behind each mark, up to the next one or the end, of the first `most` marks.
fn spans(stream: &mut (impl Read + Seek), mark: &[u8], most: usize) -> io::Result<Vec<Range<u64>>> {
    let mark_finder = memmem::Finder::new(mark);
    let mut starts = Vec::new();
    let (mut window, mut window_at) = (Vec::new(), stream.seek(SeekFrom::Start(0))?);
    loop {
        let came = stream.take(BLOCK).read_to_end(&mut window)?;
        starts.extend(mark_finder.find_iter(&window).map(|at| window_at + at as u64));
        if came == 0 || starts.len() > most {
            break;
        }
        // A mark may lie across two blocks; a whole one is never seen twice.
        let done = window.len().saturating_sub(mark.len() - 1);
        window.drain(..done);
        window_at += done as u64;
    }
    let end = stream.seek(SeekFrom::End(0))?;
    starts.truncate(most + 1);
    let ends = starts.iter().skip(1).copied().chain([end]);
    Ok(starts
        .iter()
        .map(|start| start + mark.len() as u64)
        .zip(ends)
        .map(|(start, end)| start..end)
        .take(most)
        .collect())
}

struct Frame {
    letter: u8,
    text: Vec<u8>,
    /// Where in the stream what follows the text lies.
    body: Range<u64>,
}

struct Reading<'a, S> {
    stream: &'a mut S,
    limits: &'a Limits,
    warnings: &'a mut Warnings,
    spans: std::vec::IntoIter<Range<u64>>,
    /// Frames so far.
    frames: u64,
    files: usize,
    bytes: u64,
}

impl<S: Read + Seek> Reading<'_, S> {
    /// Reads frame after frame up to the last one; why it is not there.
    fn all(&mut self, keep: &mut impl FnMut(Item<'_>) -> Result<u64, String>) -> Result<(), String> {
        let mut seen = HashSet::new();
        loop {
            let before = self.frames;
            let frame = self.next()?.ok_or("the end is missing")?;
            if frame.letter != b'F' && !frame.body.is_empty() {
                return Err("there is something between two frames".to_owned());
            }
            let said = String::from_utf8_lossy(&frame.text);
            match frame.letter {
                b'N' => self.warnings.note(said),
                b'L' => self.warnings.add(said),
                b'R' => self.warnings.note(format!("{said} was there before the suite started: it is removed")),
                b'F' => self.file(&frame, &mut seen, keep)?,
                b'O' if self.spans.len() > 0 => return Err("there is something behind the end".to_owned()),
                b'O' if said.parse() == Ok(before) => return Ok(()),
                b'O' => return Err(format!("{before} frames came, {} were sent", reports::clean::line(&said))),
                _ => return Err("a frame is of no kind that is known".to_owned()),
            }
        }
    }

    fn next(&mut self) -> Result<Option<Frame>, String> {
        let Some(span) = self.spans.next() else { return Ok(None) };
        self.frames += 1;
        let read = self.stream.seek(SeekFrom::Start(span.start)).and_then(|_| {
            let mut head = Vec::new();
            self.stream.take((span.end - span.start).min(LONGEST_TEXT)).read_to_end(&mut head)?;
            Ok(head)
        });
        let mut head = read.map_err(|error| error.to_string())?;
        let end = head.iter().position(|&byte| byte == 0).ok_or("a frame breaks off")?;
        head.truncate(end);
        let (&letter, text) = head.split_first().ok_or("a frame is empty")?;
        Ok(Some(Frame { letter, text: text.to_vec(), body: span.start + end as u64 + 1..span.end }))
    }

    /// A file, and the frame that says how it ended. What came of it is kept in any case: it may be what a person looks for.
    fn file(
        &mut self,
        frame: &Frame,
        seen: &mut HashSet<Vec<u8>>,
        keep: &mut impl FnMut(Item<'_>) -> Result<u64, String>,
    ) -> Result<(), String> {
        let mut words = frame.text.splitn(3, |&byte| byte == b' ');
        let mut number = || str::from_utf8(words.next()?).ok()?.parse::<u64>().ok();
        let (Some(stated), Some(inode), Some(raw)) = (number(), number(), words.next()) else {
            return Err("a file is not described".to_owned());
        };
        let came = frame.body.end - frame.body.start;
        let shown = reports::clean::line(&String::from_utf8_lossy(&raw[..raw.len().min(SHOWN)]));
        self.files += 1;
        if self.files > self.limits.count {
            return Err(format!("more than {} files", self.limits.count));
        }
        // Two patterns may match it.
        if seen.insert(raw.to_vec()) {
            self.kept((raw, &shown), inode, &frame.body, keep);
        }
        match self.next() {
            Ok(Some(Frame { letter: b'E', text, body })) if body.is_empty() => {
                if text != b"0" {
                    self.warnings.add(format!("{shown} cannot be read to its end in the guest: {came} bytes came"));
                } else if came != stated {
                    let line = format!("{shown} changed while it was fetched: it had {stated} bytes, {came} came");
                    self.warnings.add(line);
                }
                Ok(())
            }
            _ => Err(format!("{shown} breaks off: {came} of {stated} bytes came")),
        }
    }

    fn kept(
        &mut self,
        (raw, shown): (&[u8], &str),
        inode: u64,
        body: &Range<u64>,
        keep: &mut impl FnMut(Item<'_>) -> Result<u64, String>,
    ) {
        let (limits, came) = (self.limits, body.end - body.start);
        let kept = match file_name::below(raw) {
            Err(reason) => Err(reason),
            Ok(_) if came > limits.per_file => Err(format!("it has {came} bytes, {} may be", limits.per_file)),
            Ok(_) if self.bytes.saturating_add(came) > limits.total => {
                Err(format!("with its {came} bytes it is more than {} bytes in all", limits.total))
            }
            Ok((path, renamed)) => {
                self.bytes += came;
                if renamed {
                    self.warnings.note(format!("{shown} was fetched as {path}: its name is not fit for a file here"));
                }
                let content = self.stream.seek(SeekFrom::Start(body.start)).map_err(|error| error.to_string());
                content.and_then(|_| {
                    let kept = keep(Item { path, inode, content: &mut (&mut *self.stream).take(came) })?;
                    if kept == came { Ok(()) } else { Err(format!("only {kept} of its {came} bytes could be kept")) }
                })
            }
        };
        if let Err(reason) = kept {
            self.warnings.add(format!("{shown} was not fetched: {reason}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;
    use crate::payload::warnings;

    const MARK: &str = "0123456789abcdef";
    const LIMITS: Limits = Limits { per_file: 100, total: 250, count: 6 };

    /// One frame and what follows it.
    fn frame(text: &str, body: &[u8]) -> Vec<u8> {
        [MARK.as_bytes(), text.as_bytes(), b"\0", body].concat()
    }

    fn file(path: &str, content: &[u8]) -> Vec<u8> {
        [frame(&format!("F{} 7 {path}", content.len()), content), frame("E0", b"")].concat()
    }

    fn stream(parts: &[Vec<u8>]) -> Vec<u8> {
        let frames = memmem::find_iter(&parts.concat(), MARK).count();
        [parts.concat(), frame(&format!("O{frames}"), b"")].concat()
    }

    /// What is kept of a stream, as `path=content`, and the warnings.
    struct Came {
        kept: Vec<String>,
        warnings: Vec<String>,
        complete: bool,
    }

    fn came_within(limits: &Limits, stream: &[u8]) -> Came {
        let (mut kept, mut warnings) = (Vec::new(), Warnings::default());
        read(&mut Cursor::new(stream), MARK, limits, &mut warnings, |item| {
            let mut text = Vec::new();
            item.content.read_to_end(&mut text).map_err(|error| error.to_string())?;
            kept.push(format!("{}={}", item.path, String::from_utf8_lossy(&text)));
            Ok(text.len() as u64)
        });
        let complete = warnings.lost.is_none();
        Came { kept, warnings: warnings.into_lines(), complete }
    }

    fn came(stream: &[u8]) -> Came {
        came_within(&LIMITS, stream)
    }

    #[test]
    fn files_come_out_as_they_are_whatever_a_login_prints_before_them() {
        let hello = stream(&[file("/var/log.txt", b"hello\0\n"), file("/etc/empty", b"")]);
        let all = came(&[b"Welcome!\n", &hello[..]].concat());
        assert_eq!((all.kept.join("|"), all.complete), ("var/log.txt=hello\0\n|etc/empty=".to_owned(), true));
        assert_eq!(all.warnings, [""; 0]);
        let nothing = came(&stream(&[frame("Nnothing matches /x", b"")]));
        assert_eq!((nothing.kept.len(), nothing.complete), (0, true));
        assert_eq!(nothing.warnings, ["nothing matches /x"]);
    }

    #[test]
    fn what_the_guest_says_is_missing_is_missing() {
        let all = came(&stream(&[file("/a", b"1"), frame("L/b was not fetched: it is a \x1b[1mpipe", b"")]));
        assert_eq!((all.kept.join("|").as_str(), all.complete), ("a=1", false));
        assert_eq!(all.warnings, ["/b was not fetched: it is a pipe"]);
    }

    #[test]
    fn a_path_that_two_patterns_match_comes_once() {
        let all = came(&stream(&[file("/a", b"1"), file("/a", b"1"), file("/b", b"1")]));
        assert_eq!((all.kept.join("|").as_str(), all.complete), ("a=1|b=1", true));
    }

    #[test]
    fn nothing_that_leads_elsewhere_comes_out() {
        let all = came(&stream(&[file("../up", b"x"), file("/a/../../up", b"x"), file("/", b"x")]));
        assert_eq!((all.kept.len(), all.complete), (0, false));
        insta::assert_snapshot!(all.warnings.join("\n"), @r"
        ../up was not fetched: its path leads upwards
        /a/../../up was not fetched: its path leads upwards
        / was not fetched: it has no name
        ");
    }

    #[test]
    fn limits_hold_against_a_guest_that_does_not_keep_them() {
        let large = came(&stream(&[file("/large", &[b'x'; 101]), file("/small", b"1")]));
        assert_eq!(large.kept, ["small=1"]);
        assert_eq!(large.warnings, ["/large was not fetched: it has 101 bytes, 100 may be"]);

        let many = |content: &[u8]| came(&stream(&(0..9).map(|n| file(&format!("/{n}"), content)).collect::<Vec<_>>()));
        let (heavy, light) = (many(&[b'x'; 100]), many(b"x"));
        assert_eq!((heavy.kept.len(), heavy.complete), (2, false));
        assert_eq!(heavy.warnings[0], "/2 was not fetched: with its 100 bytes it is more than 250 bytes in all");
        assert_eq!((light.kept.len(), light.complete), (6, false));
        assert_eq!(light.warnings, ["the files of the guest did not all come: more than 6 files"]);
    }

    #[test]
    fn a_stream_that_ends_early_keeps_what_came_and_says_so() {
        let whole = stream(&[file("/a", b"first"), file("/b", b"second")]);
        let at = memmem::find(&whole, b"cond").unwrap();
        let all = came(&whole[..at]);
        assert_eq!(all.kept, ["a=first", "b=se"]);
        assert_eq!(all.warnings, ["the files of the guest did not all come: /b breaks off: 2 of 6 bytes came"]);
        assert_eq!(came(b"").warnings, ["the files of the guest did not all come: the end is missing"]);
    }

    #[test]
    fn a_file_that_changes_or_cannot_be_read_is_kept_but_not_whole() {
        let grown = [frame("F3 7 /a", b"12345"), frame("E0", b"")].concat();
        let broken = [frame("F9 7 /b", b"12345"), frame("E1", b"")].concat();
        let all = came(&stream(&[grown, broken]));
        assert_eq!((all.kept.join("|").as_str(), all.complete), ("a=12345|b=12345", false));
        insta::assert_snapshot!(all.warnings.join("\n"), @r"
        /a changed while it was fetched: it had 3 bytes, 5 came
        /b cannot be read to its end in the guest: 5 bytes came
        ");
    }

    #[test]
    fn a_mark_across_two_blocks_is_found_and_a_large_file_is_not_cut() {
        let limits = Limits { per_file: 4 << 20, total: 8 << 20, count: 6 };
        let block = usize::try_from(BLOCK).unwrap();
        for off in 0..50 {
            let content = vec![b'0'; block - off];
            let all = came_within(&limits, &stream(&[file("/a", &content), file("/b", b"x")]));
            assert!(all.complete, "{off}: {:?}", all.warnings);
            assert_eq!(all.kept[0].len(), 2 + content.len());
        }
    }

    #[test]
    fn a_guest_cannot_flood_us_with_warnings_or_frames() {
        let all = came(&stream(&vec![frame("L../up", b""); 500]));
        assert_eq!(all.warnings.len(), warnings::MOST + 1);
        assert_eq!(all.warnings.last().unwrap(), "and 450 more of this kind");
        let marks = came(&MARK.repeat(100_000).into_bytes());
        assert_eq!(marks.warnings, ["the files of the guest did not all come: a frame breaks off"]);
        let notes = came(&stream(&vec![frame("Nx", b""); 50_000]));
        assert!(!notes.complete);
    }

    /// Some files, as they are in a guest.
    fn files() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
        let content = prop::collection::vec(any::<u8>(), 0..40);
        prop::collection::vec(("/[a-z]{1,3}(/[a-z]{1,3})?", content), 0..5)
    }

    fn sent(files: &[(String, Vec<u8>)]) -> Vec<u8> {
        stream(&files.iter().map(|(path, content)| file(path, content)).collect::<Vec<_>>())
    }

    proptest! {
        #[test]
        fn no_stream_whatsoever_does_harm(
            noise in prop::collection::vec(prop_oneof![Just(MARK.as_bytes().to_vec()), prop::collection::vec(any::<u8>(), 0..20)], 0..60),
        ) {
            let all = came(&noise.concat());
            prop_assert!(all.kept.len() <= LIMITS.count);
        }

        #[test]
        fn no_stream_that_was_cut_counts_as_complete(files in files(), at in any::<prop::sample::Index>()) {
            let whole = sent(&files);
            prop_assert!(came(&whole).complete);
            prop_assert!(!came(&whole[..at.index(whole.len())]).complete);
        }

        #[test]
        fn no_stream_that_lost_or_gained_bytes_counts_as_complete(
            files in files(), from in any::<prop::sample::Index>(), length in 1_usize..60, twice in any::<bool>(),
        ) {
            let whole = sent(&files);
            let from = from.index(whole.len());
            let to = (from + length).min(whole.len());
            let altered = match twice {
                true => [&whole[..to], &whole[from..]].concat(),
                false => [&whole[..from], &whole[to..]].concat(),
            };
            // A login may print what it likes before the first mark, and paths may become others.
            let (before, after) = (came(&whole), came(&altered));
            let contents = |all: &Came| -> Vec<String> {
                all.kept.iter().map(|kept| kept.split_once('=').unwrap().1.to_owned()).collect()
            };
            prop_assert!(!after.complete || contents(&before) == contents(&after), "{:?}", after.kept);
        }
    }
}
