//! Reads logs with text from guests: bounded, cleaned, and never through a link.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::Path,
};

use crate::{
    clean, human,
    regular::{self, Links},
};

/// A part of a log, cleaned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Excerpt {
    /// The text that is shown.
    pub text: String,
    /// Omitted bytes of the file.
    pub omitted: u64,
    /// Bytes of the file.
    pub total: u64,
}

/// The last lines of a log: whole lines, at most `max_lines` of them from the last `max_bytes`.
///
/// # Errors
///
/// The file cannot be read, is no regular file, or is a symbolic link.
pub fn tail(path: &Path, max_bytes: u64, max_lines: usize) -> io::Result<Excerpt> {
    let (file, total) = open(path)?;
    let raw = read_at(&file, total.saturating_sub(max_bytes), max_bytes)?;
    let whole = if raw.len() as u64 == total { &raw[..] } else { from_line_start(&raw) };
    let text = clean::text(&String::from_utf8_lossy(whole));
    let text = text.trim_end();
    let start = text.rmatch_indices('\n').nth(max_lines.saturating_sub(1)).map_or(0, |(at, _)| at + 1);
    let text = if max_lines == 0 { "" } else { &text[start..] };
    let shown_whole = whole.len() as u64 == total && start == 0 && max_lines > 0;
    let omitted = if shown_whole { 0 } else { total.saturating_sub(text.len() as u64) };
    Ok(Excerpt { text: text.to_owned(), omitted, total })
}

/// The beginning and the end of a log, about `max_bytes` together; a line between them names the omitted bytes and the file
/// `name`.
///
/// # Errors
///
/// As for [`tail`].
pub fn head_tail(path: &Path, max_bytes: u64, name: &str) -> io::Result<Excerpt> {
    let (file, total) = open(path)?;
    if total <= max_bytes {
        let raw = read_at(&file, 0, total)?;
        return Ok(Excerpt { text: clean::text(&String::from_utf8_lossy(&raw)), omitted: 0, total });
    }
    let half = max_bytes / 2;
    let head = read_at(&file, 0, half)?;
    let tail = read_at(&file, total - half, half)?;
    let omitted = total.saturating_sub(half * 2);
    let text = format!(
        "{}\n[... {} left out, see {name} ...]\n{}",
        clean::text(&String::from_utf8_lossy(&head)),
        human::bytes(omitted),
        clean::text(&String::from_utf8_lossy(&tail)),
    );
    Ok(Excerpt { text, omitted, total })
}

/// Size of a log in bytes; `None` if it is missing, empty, or not a regular file.
pub(crate) fn size(path: &Path) -> Option<u64> {
    let metadata = path.symlink_metadata().ok()?;
    (metadata.is_file() && metadata.len() > 0).then_some(metadata.len())
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = regular::open(path, OpenOptions::new().read(true), Links::Refuse)?;
    let length = file.metadata()?.len();
    Ok((file, length))
}

fn read_at(mut file: &File, start: u64, length: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(start))?;
    let mut raw = Vec::new();
    file.take(length).read_to_end(&mut raw)?;
    Ok(raw)
}

/// From the first whole line; everything if there is only one.
fn from_line_start(raw: &[u8]) -> &[u8] {
    match raw.iter().position(|byte| *byte == b'\n') {
        Some(at) if at + 1 < raw.len() => &raw[at + 1..],
        _ => raw,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(content: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("console.log");
        std::fs::write(&path, content).expect("writable");
        (dir, path)
    }

    #[test]
    fn a_tail_is_the_last_whole_lines_clean() {
        let (_dir, path) = log(b"one\ntwo\n\x1b[31mthree\x1b[0m\r\nfour\n");
        assert_eq!(tail(&path, 1_000, 2).expect("readable").text, "three\nfour");
        assert_eq!(tail(&path, 8, 10).expect("readable").text, "four");
        let all = tail(&path, 1_000, 10).expect("readable");
        assert_eq!((all.text.as_str(), all.omitted), ("one\ntwo\nthree\nfour", 0));
    }

    #[test]
    fn a_tail_without_line_ends_is_still_shown() {
        let (_dir, path) = log(&[b'x'; 5_000]);
        assert_eq!(tail(&path, 100, 5).expect("readable").text, "x".repeat(100));
    }

    #[test]
    fn both_ends_of_a_long_log_are_kept_and_the_gap_is_named() {
        let mut content = b"begin\n".to_vec();
        content.extend(vec![b'.'; 1 << 20]);
        content.extend(b"\nend\n");
        let (_dir, path) = log(&content);
        let excerpt = head_tail(&path, 1_024, "cells/x/stdout.log").expect("readable");
        assert!(excerpt.text.starts_with("begin\n") && excerpt.text.ends_with("\nend\n"));
        assert!(excerpt.text.contains("[... 1023.0 KiB left out, see cells/x/stdout.log ...]"), "{}", excerpt.text);
        assert!(excerpt.text.len() < 1_200);
    }

    #[test]
    fn links_and_pipes_are_refused_at_once() {
        let (dir, path) = log(b"secret");
        let link = dir.path().join("stdout.log");
        std::os::unix::fs::symlink(&path, &link).expect("link");
        assert!(tail(&link, 10, 10).is_err());
        assert_eq!(size(&link), None);
        let pipe = dir.path().join("stderr.log");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("pipe");
        assert!(tail(&pipe, 10, 10).is_err());
    }
}
