//! The journal: every event of a run, one JSON line each, written immediately.
//!
//! Every report is rebuilt from the journal, also after a crash. So it is append-only, a line is one `write(2)` and ends with a
//! checksum, and verdicts are synced to the disk. Reading skips damaged lines and reports them ([`Damage`]); resuming accepts
//! only the damage that a crash causes: a torn last line. The writer holds a lock on the file (which ends with the process), so
//! two processes never continue one run. Readers need no lock: they find whole lines, and one in progress.

mod chain;

use std::{
    fmt,
    fs::{File, OpenOptions, TryLockError},
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
};

use self::chain::Chain;
use crate::{
    Event, EventKind, clean,
    regular::{self, Links},
};

/// Name of the journal in the folder of a run.
pub const FILE_NAME: &str = "events.jsonl";

/// Maximum length of a line that is read or written, in bytes. More than any event; bounds the memory for a file that is not a
/// journal.
const MAX_LINE: u64 = 64 << 20;
/// Maximum number of damaged lines that are reported.
const MAX_DAMAGE: usize = 1_000;

/// The journal of a run in progress.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    /// Length of the file up to the last whole line.
    length: u64,
    chain: Chain,
}

/// A line of a journal that is not an event, or that does not follow from the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Counted from 1.
    pub line: u64,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} was not understood: {}", self.line, self.reason)
    }
}

/// The journal could not be written or read.
#[derive(Debug, thiserror::Error)]
#[error("event log {}", .path.display())]
pub struct JournalError {
    /// The file.
    pub path: PathBuf,
    /// What happened.
    #[source]
    pub kind: JournalErrorKind,
}

/// What happened to a journal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalErrorKind {
    /// It could not be read.
    #[error("read failed: {0}")]
    Read(io::Error),
    /// An event could not be written. Unrecorded events count as not happened.
    #[error("write failed: {0}; the run ends here, its last events are not recorded")]
    Write(io::Error),
    /// Its lock is taken.
    #[error("another process is writing it: is that run still in progress?")]
    InUse,
    /// An event could not be written as JSON.
    #[error("event cannot be written as JSON: {0}")]
    Encode(serde_json::Error),
    /// It is damaged before its last line, so it cannot be resumed.
    #[error("{}:{}: damaged: {}; `nestmatrix report` shows what is left, start a new run for the rest", .file.display(), .damage.line, .damage.reason)]
    Damaged {
        /// The file.
        file: PathBuf,
        /// The first damaged line.
        damage: Damage,
    },
}

impl Journal {
    /// Starts the journal of a run in the run's folder. An existing journal is an error; it is never overwritten.
    pub fn create(dir: &Path) -> Result<Self, JournalError> {
        let path = dir.join(FILE_NAME);
        let open = || {
            let created = OpenOptions::new().append(true).create_new(true).open(&path);
            let file = created.map_err(JournalErrorKind::Write)?;
            lock(&file)?;
            Ok(file)
        };
        match open() {
            Ok(file) => Ok(Self { file, path, length: 0, chain: Chain::new() }),
            Err(kind) => Err(JournalError { path, kind }),
        }
    }

    /// Opens the journal of a run that died or was interrupted, to append after its last whole event: a torn last line is cut
    /// off. A journal that another process is writing, or that is damaged before its last line, is an error and left unchanged.
    pub fn resume(dir: &Path) -> Result<Self, JournalError> {
        let path = dir.join(FILE_NAME);
        let open = || {
            let mut options = OpenOptions::new();
            let opened = regular::open(&path, options.read(true).append(true), Links::Follow);
            let mut file = opened.map_err(JournalErrorKind::Read)?;
            lock(&file)?;
            let Scanned { damage, length, lacks_newline, chain, torn } = scan(&file, |_| {})?;
            if let Some(damage) = damage.into_iter().find(|damage| Some(damage.line) != torn) {
                return Err(JournalErrorKind::Damaged { file: path.clone(), damage });
            }
            file.set_len(length).map_err(JournalErrorKind::Write)?;
            if lacks_newline {
                file.write_all(b"\n").map_err(JournalErrorKind::Write)?;
            }
            Ok((file, length + u64::from(lacks_newline), chain))
        };
        match open() {
            Ok((file, length, chain)) => Ok(Self { file, path, length, chain }),
            Err(kind) => Err(JournalError { path, kind }),
        }
    }

    /// Appends one event. Once it returns, a crash of this process cannot lose the event; after a verdict, neither can a crash of
    /// the machine. After an error (a full disk) the journal ends with the previous event, and the next one may be tried.
    pub fn append(&mut self, event: &Event) -> Result<(), JournalError> {
        self.try_append(event).map_err(|kind| JournalError { path: self.path.clone(), kind })
    }

    fn try_append(&mut self, event: &Event) -> Result<(), JournalErrorKind> {
        let mut line = serde_json::to_vec(event).map_err(JournalErrorKind::Encode)?;
        let mut chain = self.chain.clone();
        chain.seal(&mut line);
        line.push(b'\n');
        if let Err(error) = self.file.write_all(&line) {
            // A torn line must not become the beginning of the next one. If even this fails, reading reports the line.
            let _ = self.file.set_len(self.length);
            return Err(JournalErrorKind::Write(error));
        }
        self.length += line.len() as u64;
        self.chain = chain;
        if matches!(event.kind, EventKind::CellFinished { .. } | EventKind::RunFinished { .. }) {
            self.file.sync_data().map_err(JournalErrorKind::Write)?;
        }
        Ok(())
    }
}

/// Reads the events of a run in order; returns damaged lines, at most 1,000.
///
/// A line that is not an event is skipped. A line that does not follow from the one before it is read all the same: a failure in
/// it must not be lost. A truncated last line was being written when the run died.
pub fn for_each(dir: &Path, see: impl FnMut(Event)) -> Result<Vec<Damage>, JournalError> {
    let path = dir.join(FILE_NAME);
    let opened = regular::open(&path, OpenOptions::new().read(true), Links::Follow).map_err(JournalErrorKind::Read);
    let scanned = opened.and_then(|file| scan(&file, see));
    scanned.map(|scanned| scanned.damage).map_err(|kind| JournalError { path, kind })
}

/// The content of a journal.
struct Scanned {
    damage: Vec<Damage>,
    /// Length of the file up to the end of its last event.
    length: u64,
    /// The last event is complete except for its line end.
    lacks_newline: bool,
    /// The chain at the last event.
    chain: Chain,
    /// The last line, if it is not an event.
    torn: Option<u64>,
}

/// Visits every event of a journal, in order.
fn scan(file: &File, mut see: impl FnMut(Event)) -> Result<Scanned, JournalErrorKind> {
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    // Bytes since the last event.
    let mut skipped = 0;
    let mut chain = Chain::new();
    let mut scanned = Scanned { damage: Vec::new(), length: 0, lacks_newline: false, chain: Chain::new(), torn: None };
    for number in 1.. {
        line.clear();
        let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).map_err(JournalErrorKind::Read)?;
        if read == 0 {
            break;
        }
        let whole = line.last() == Some(&b'\n');
        let content = line.strip_suffix(b"\n").unwrap_or(&line);
        let event = serde_json::from_slice::<Event>(content);
        let follows = chain.check(content);
        let reason = match (&event, follows) {
            (Err(_), _) if !whole => {
                Some("it was cut off while it was written: the run crashed or was killed".to_owned())
            }
            (Err(error), _) => {
                Some(format!("not an event of this version of nestmatrix: {}", clean::line(&error.to_string())))
            }
            (Ok(_), Err(reason)) => Some(reason.to_owned()),
            (Ok(_), Ok(())) => None,
        };
        if let Some(reason) = reason
            && scanned.damage.len() < MAX_DAMAGE
        {
            scanned.damage.push(Damage { line: number, reason });
        }
        scanned.torn = event.is_err().then_some(number);
        if let Ok(event) = event {
            see(event);
            (scanned.length, scanned.lacks_newline) = (scanned.length + skipped + read as u64, !whole);
            skipped = 0;
            scanned.chain = chain.clone();
        } else {
            skipped += read as u64;
        }
    }
    Ok(scanned)
}

/// Held until the file is closed.
fn lock(file: &File) -> Result<(), JournalErrorKind> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => JournalErrorKind::InUse,
        TryLockError::Error(error) => JournalErrorKind::Read(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_cannot_be_written_is_an_error_in_words_and_the_next_one_may_be_tried() {
        let path = PathBuf::from("/dev/full");
        let file = OpenOptions::new().append(true).open(&path).expect("there");
        let mut journal = Journal { file, path, length: 0, chain: Chain::new() };
        let kind = EventKind::RunFinished { elapsed_ms: 1 };
        let event = Event { at: jiff::Timestamp::UNIX_EPOCH, clock_ms: None, kind };
        let error = journal.append(&event).expect_err("no space").kind;
        assert!(error.to_string().starts_with("write failed: No space left on device"), "{error}");
        assert_eq!((journal.length, journal.chain), (0, Chain::new()));
    }
}
