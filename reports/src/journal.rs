//! The journal: every event of a run, one JSON line each, on disk the moment it happens.
//!
//! It is the truth of a run: every report is rebuilt from it, also after a crash. So it is only ever appended to, a line is
//! one `write(2)`, verdicts are synced to the disk, and reading forgives exactly what a crash can do to it: a torn last line.
//! Whoever writes it holds a lock on it (which ends with the process, however that ends), so two processes never continue one
//! run. Readers need none: what they find is whole lines, and one that is being written.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
};

use crate::{Event, EventKind};

/// Name of the journal in the folder of a run.
pub const FILE_NAME: &str = "events.jsonl";

/// Longest line that is read or written, in bytes. Above any event we write; bounds memory against a file that is not a journal.
const MAX_LINE: u64 = 64 << 20;

/// The journal of a run that is being written.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    /// Length of the file up to the last whole line.
    length: u64,
}

/// The journal could not be written or read.
#[derive(Debug, thiserror::Error)]
#[error("journal {}", .path.display())]
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
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Its lock is taken.
    #[error("another process is writing it: is that run still going on?")]
    InUse,
    /// An event could not be written as JSON.
    #[error("event cannot be written as JSON: {0}")]
    Encode(serde_json::Error),
    /// A line before the last one is not an event.
    #[error("{}:{line}: not an event written by this version of nestmatrix: {reason}", .file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
}

impl Journal {
    /// Starts the journal of a run in the run's folder. A journal that exists already is an error, never overwritten.
    pub fn create(dir: &Path) -> Result<Self, JournalError> {
        let path = dir.join(FILE_NAME);
        let open = || {
            let file = OpenOptions::new().append(true).create_new(true).open(&path)?;
            lock(&file)?;
            Ok(file)
        };
        match open() {
            Ok(file) => Ok(Self { file, path, length: 0 }),
            Err(kind) => Err(JournalError { path, kind }),
        }
    }

    /// Opens the journal of a run that died or was interrupted, to go on after its last whole event: a torn last line is cut
    /// off. A journal that another process is writing, or that is damaged before its last line, is an error and left as it is.
    pub fn resume(dir: &Path) -> Result<Self, JournalError> {
        let path = dir.join(FILE_NAME);
        let open = || {
            let mut file = OpenOptions::new().read(true).append(true).open(&path)?;
            lock(&file)?;
            let end = scan(&file, &path, |_| {})?;
            file.set_len(end.length)?;
            if end.lacks_newline {
                file.write_all(b"\n")?;
            }
            Ok((file, end.length + u64::from(end.lacks_newline)))
        };
        match open() {
            Ok((file, length)) => Ok(Self { file, path, length }),
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
        line.push(b'\n');
        if let Err(error) = self.file.write_all(&line) {
            // Half a line must not become the beginning of the next one. If even this fails, reading will name the line.
            let _ = self.file.set_len(self.length);
            return Err(error.into());
        }
        self.length += line.len() as u64;
        if matches!(event.kind, EventKind::CellFinished { .. } | EventKind::RunFinished { .. }) {
            self.file.sync_data()?;
        }
        Ok(())
    }
}

/// Reads every event of a run. See [`for_each`], which needs memory for one event at a time only.
pub fn read(dir: &Path) -> Result<Vec<Event>, JournalError> {
    let mut events = Vec::new();
    for_each(dir, |event| events.push(event))?;
    Ok(events)
}

/// Reads the events of a run one by one, in order.
///
/// A last line that is no event was being written when the run died, and is left out. Any other such line is an error.
pub fn for_each(dir: &Path, see: impl FnMut(Event)) -> Result<(), JournalError> {
    let path = dir.join(FILE_NAME);
    let scanned = File::open(&path).map_err(JournalErrorKind::from).and_then(|file| scan(&file, &path, see));
    scanned.map(drop).map_err(|kind| JournalError { path, kind })
}

/// Where a journal ends.
struct End {
    /// Length of the file up to the end of its last event.
    length: u64,
    /// The last event is whole but for its line end.
    lacks_newline: bool,
}

/// Sees every event of a journal, in order.
fn scan(file: &File, path: &Path, mut see: impl FnMut(Event)) -> Result<End, JournalErrorKind> {
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    // A bad line is only an error once another line follows it.
    let mut torn = None;
    let mut end = End { length: 0, lacks_newline: false };
    for number in 1.. {
        line.clear();
        let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        if let Some((line, reason)) = torn {
            return Err(JournalErrorKind::Line { file: path.to_owned(), line, reason });
        }
        match serde_json::from_slice(&line) {
            Ok(event) => {
                see(event);
                end.length += read as u64;
                end.lacks_newline = line.last() != Some(&b'\n');
            }
            Err(error) => torn = Some((number, error.to_string())),
        }
    }
    Ok(end)
}

/// Held until the file is closed.
fn lock(file: &File) -> Result<(), JournalErrorKind> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => JournalErrorKind::InUse,
        TryLockError::Error(error) => error.into(),
    })
}
