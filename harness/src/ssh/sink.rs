//! Where a stream of the guest goes: to disk as it comes, never more than a cap, with its last bytes kept in memory.
//!
//! A guest may print without limit, and a disk may be full: neither disturbs the command, and memory stays bounded. What is left
//! out is counted and said.

use std::{
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// How much of one stream is written to disk unless the caller says otherwise, in bytes.
pub const DEFAULT_CAP: u64 = 64 * 1024 * 1024;
/// How much of the end of a stream is kept in memory, in bytes.
pub const TAIL_BYTES: usize = 64 * 1024;

/// Where a stream goes.
#[derive(Debug)]
pub enum Sink {
    /// Only the tail is kept.
    Tail,
    /// To this file; what is above `cap` bytes is counted, and the last of it written at the end.
    File {
        /// The file.
        path: PathBuf,
        /// Most bytes written before the tail.
        cap: u64,
        /// What is in the file stays, and this line comes after it; `None`: it is created or emptied.
        after: Option<String>,
    },
    /// Piece by piece to the receiver at the other end of a channel: a command whose output is not read is blocked, and
    /// one whose listener is gone is cut short.
    Pieces(tokio::sync::mpsc::Sender<Vec<u8>>),
    /// Byte for byte into this file; a command that writes more than `cap` bytes is cut short.
    Spool {
        /// The file.
        file: File,
        /// Most bytes written.
        cap: u64,
    },
}

/// A sink in use.
#[derive(Debug)]
pub(super) struct Drain {
    file: Option<File>,
    pieces: Option<tokio::sync::mpsc::Sender<Vec<u8>>>,
    cap: u64,
    stops_when_full: bool,
    seen: u64,
    /// The last bytes; grows to twice [`TAIL_BYTES`] before its front half is thrown away, so that no byte moves twice.
    tail: Vec<u8>,
    failure: Option<io::Error>,
}

/// What a sink took.
#[derive(Debug)]
pub(super) struct Drained {
    pub(super) bytes: u64,
    pub(super) tail: Vec<u8>,
    /// The first thing that went wrong on our side.
    pub(super) failure: Option<io::Error>,
}

impl Drain {
    pub(super) fn open(sink: Sink) -> Self {
        let mut pieces = None;
        let (file, cap, stops_when_full) = match sink {
            Sink::Tail => (None, 0, false),
            Sink::Pieces(listener) => {
                pieces = Some(listener);
                (None, u64::MAX, true)
            }
            Sink::File { path, cap, after: None } => (Some(File::create(path)), cap, false),
            Sink::File { path, cap, after: Some(line) } => (Some(append(&path, &line)), cap, false),
            Sink::Spool { file, cap } => (Some(Ok(file)), cap, true),
        };
        let (file, failure) = match file.transpose() {
            Ok(file) => (file, None),
            Err(error) => (None, Some(error)),
        };
        Self { file, pieces, cap, stops_when_full, seen: 0, tail: Vec::new(), failure }
    }

    /// Takes what came; `false` when the command is to be cut short.
    pub(super) fn take(&mut self, bytes: &[u8]) -> bool {
        let room = usize::try_from(self.cap.saturating_sub(self.seen)).unwrap_or(usize::MAX);
        self.seen += bytes.len() as u64;
        self.write(&bytes[..bytes.len().min(room)]);

        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]);
        if self.tail.len() > 2 * TAIL_BYTES {
            self.tail.drain(..self.tail.len() - TAIL_BYTES);
        }
        if let Some(listener) = &self.pieces
            && !bytes.is_empty()
            && listener.blocking_send(bytes.to_vec()).is_err()
        {
            return false;
        }
        !(self.stops_when_full && (self.seen > self.cap || self.failure.is_some()))
    }

    /// Writes the end of a stream that was too long, and says what was left out before it.
    pub(super) fn finish(mut self) -> Drained {
        self.tail.drain(..self.tail.len().saturating_sub(TAIL_BYTES));
        let above = self.seen.saturating_sub(self.cap);
        if above > 0 && !self.stops_when_full && self.file.is_some() {
            let kept = self.tail.len().min(usize::try_from(above).unwrap_or(usize::MAX));
            let left_out = above - kept as u64;
            if left_out > 0 {
                self.write(format!("\n[nestmatrix: {left_out} bytes left out here]\n").as_bytes());
            }
            let tail = std::mem::take(&mut self.tail);
            self.write(&tail[tail.len() - kept..]);
            self.tail = tail;
        }
        Drained { bytes: self.seen, tail: self.tail, failure: self.failure }
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(bytes)
        {
            self.failure.get_or_insert(error);
            self.file = None;
        }
    }
}

/// The file, open for what comes after such a line.
fn append(path: &Path, line: &str) -> io::Result<File> {
    let mut file = File::options().create(true).append(true).open(path)?;
    file.write_all(format!("{line}\n").as_bytes())?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_sink(cap: u64, pieces: &[&[u8]]) -> (Vec<u8>, Drained) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut drain = Drain::open(Sink::File { path: path.clone(), cap, after: None });
        for piece in pieces {
            assert!(drain.take(piece), "a log never stops a command");
        }
        let drained = drain.finish();
        (std::fs::read(path).unwrap(), drained)
    }

    #[test]
    fn a_stream_below_the_cap_arrives_byte_for_byte() {
        let (file, drained) = file_sink(10, &[b"hello", b"", b"world"]);
        assert_eq!(file, b"helloworld");
        assert_eq!(drained.tail, b"helloworld");
        assert_eq!(drained.bytes, 10);
    }

    #[test]
    fn a_stream_that_follows_another_one_is_written_after_it_and_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for (after, piece) in [(None, b"one"), (Some("[again]".to_owned()), b"two")] {
            let mut drain = Drain::open(Sink::File { path: path.clone(), cap: 10, after });
            assert!(drain.take(b"run ") && drain.take(piece));
            assert!(drain.finish().failure.is_none());
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), "run one[again]\nrun two");
    }

    #[test]
    fn a_stream_just_above_the_cap_is_still_whole_because_the_tail_follows_the_head() {
        let (file, drained) = file_sink(8, &[b"hello", b"world"]);
        assert_eq!(file, b"helloworld");
        assert_eq!(drained.bytes, 10);
    }

    #[test]
    fn a_long_stream_keeps_head_and_tail_and_says_how_much_is_missing() {
        let middle = vec![b'.'; TAIL_BYTES];
        let pieces: Vec<&[u8]> = vec![b"head", &middle, &middle, &middle, &middle, b"the end"];
        let (file, drained) = file_sink(4, &pieces);
        let left_out = 4 * TAIL_BYTES + 7 - TAIL_BYTES;
        let text = String::from_utf8(file).unwrap();
        assert!(text.starts_with(&format!("head\n[nestmatrix: {left_out} bytes left out here]\n...")));
        assert!(text.ends_with("...the end"));
        assert!(text.len() < TAIL_BYTES + 100);
        assert_eq!(drained.tail.len(), TAIL_BYTES);
        assert_eq!(drained.bytes, 4 * TAIL_BYTES as u64 + 11);
    }

    #[test]
    fn a_spool_stops_the_command_when_full_and_holds_exactly_its_cap() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spool");
        let mut drain = Drain::open(Sink::Spool { file: File::create(&path).unwrap(), cap: 6 });
        assert!(drain.take(b"1234"));
        assert!(!drain.take(b"5678"));
        drain.finish();
        assert_eq!(std::fs::read(path).unwrap(), b"123456");
    }

    #[test]
    fn a_full_disk_does_not_stop_a_command_and_is_reported() {
        let mut drain = Drain::open(Sink::File { path: "/dev/full".into(), cap: 100, after: None });
        assert!(drain.take(b"lost"));
        assert!(drain.take(b" words"));
        let drained = drain.finish();
        assert_eq!(drained.tail, b"lost words");
        assert_eq!(drained.failure.unwrap().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_file_that_cannot_be_made_is_reported_and_the_tail_is_still_there() {
        let mut drain = Drain::open(Sink::File { path: "/nonexistent/log".into(), cap: 100, after: None });
        assert!(drain.take(b"words"));
        let drained = drain.finish();
        assert_eq!(drained.tail, b"words");
        assert!(drained.failure.is_some());
    }
}
