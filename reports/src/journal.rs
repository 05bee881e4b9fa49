//! The journal: every event of a run, one JSON line each, on disk the moment it happens.
//!
//! It is the truth of a run: every report is rebuilt from it, also after a crash. So it is only ever appended to, a line is
//! one `write(2)` and ends with a checksum, verdicts are synced to the disk. Reading goes past what it does not understand and
//! says so ([`Damage`]); going on with a journal forgives exactly what a crash can do to it: a torn last line. Whoever writes it
//! holds a lock on it (which ends with the process, however that ends), so two processes never continue one run. Readers need
//! none: what they find is whole lines, and one that is being written.

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

/// Longest line that is read or written, in bytes. Above any event we write; bounds memory against a file that is not a journal.
const MAX_LINE: u64 = 64 << 20;
/// Most lines that are named as damaged.
const MAX_DAMAGE: usize = 1_000;

/// The journal of a run that is being written.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    /// Length of the file up to the last whole line.
    length: u64,
    chain: Chain,
}

/// A line of a journal that was not understood, or that does not follow from the one before it.
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
    /// An event could not be written. What is not on record has not happened.
    #[error("write failed: {0}; the run ends here, its last events are not recorded")]
    Write(io::Error),
    /// Its lock is taken.
    #[error("another process is writing it: is that run still in progress?")]
    InUse,
    /// An event could not be written as JSON.
    #[error("event cannot be written as JSON: {0}")]
    Encode(serde_json::Error),
    /// It is damaged before its last line, so nobody can go on with it.
    #[error("{}:{}: damaged: {}; `nestmatrix report` shows what is left, start a new run for the rest", .file.display(), .damage.line, .damage.reason)]
    Damaged {
        /// The file.
        file: PathBuf,
        /// The first line that is.
        damage: Damage,
    },
}

impl Journal {
    /// Starts the journal of a run in the run's folder. A journal that exists already is an error, never overwritten.
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

    /// Opens the journal of a run that died or was interrupted, to go on after its last whole event: a torn last line is cut
    /// off. A journal that another process is writing, or that is damaged before its last line, is an error and left as it is.
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

    /// Appends one event. After it returned, a crash of this process cannot lose it; after a verdict, a crash of the machine
    /// cannot either. After an error (a full disk) the journal ends with the event before, and the next one may be tried.
    pub fn append(&mut self, event: &Event) -> Result<(), JournalError> {
        self.try_append(event).map_err(|kind| JournalError { path: self.path.clone(), kind })
    }

    fn try_append(&mut self, event: &Event) -> Result<(), JournalErrorKind> {
        let mut line = serde_json::to_vec(event).map_err(JournalErrorKind::Encode)?;
        let mut chain = self.chain.clone();
        chain.seal(&mut line);
        line.push(b'\n');
        if let Err(error) = self.file.write_all(&line) {
            // Half a line must not become the beginning of the next one. If even this fails, reading will name the line.
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

/// Reads the events of a run one by one, in order; what was not understood on the way, at most 1,000 lines of it.
///
/// A line that is no event is passed by. A line that does not follow from the one before it is read all the same: what it says of a
/// failure must not be lost. A last line that is cut off was being written when the run died.
pub fn for_each(dir: &Path, see: impl FnMut(Event)) -> Result<Vec<Damage>, JournalError> {
    let path = dir.join(FILE_NAME);
    let opened = regular::open(&path, OpenOptions::new().read(true), Links::Follow).map_err(JournalErrorKind::Read);
    let scanned = opened.and_then(|file| scan(&file, see));
    scanned.map(|scanned| scanned.damage).map_err(|kind| JournalError { path, kind })
}

/// What a journal holds.
struct Scanned {
    damage: Vec<Damage>,
    /// Length of the file up to the end of its last event.
    length: u64,
    /// The last event is whole but for its line end.
    lacks_newline: bool,
    /// The chain at the last event.
    chain: Chain,
    /// The last line, if it is no event.
    torn: Option<u64>,
}

/// Sees every event of a journal, in order.
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
