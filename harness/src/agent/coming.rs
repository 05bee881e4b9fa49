//! An image that comes to a machine where guests are to run, in whichever way: whose turn it is, what is said meanwhile, and how it gets its
//! name.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, Read as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::shared;

/// An image that no run used for so long is removed.
const UNUSED: Duration = Duration::from_secs(30 * 24 * 3600);
/// Marks the last use of an image.
const USED: &str = "used";
/// How often a lock is tried that another process holds, and the sender told.
const LOCK_INTERVAL: Duration = Duration::from_secs(1);
/// The kind of a folder's name that is being fetched.
pub(super) const FETCHED: &str = "fetch";

/// What is there of an image: the sizes of its files, in the order they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct There {
    /// All of it is there.
    pub(crate) whole: bool,
    /// So many bytes of each file are.
    pub(crate) bytes: [u64; 3],
    /// Disk space that these files take, in bytes: their holes take none.
    pub(crate) allocated: u64,
    /// Free disk space, in bytes.
    pub(crate) free: u64,
}

/// What the sender is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reply {
    /// Another run is bringing the same image, or the run is still ending. Said again and again.
    Waiting,
    /// It is being fetched, so many bytes so far. Said again and again.
    Fetching(u64),
    /// What is there.
    There(There),
    /// It is there.
    Done,
    /// The disk is full.
    Full(String),
    /// It did not go well.
    Failed(String),
}

pub(super) fn is_full(error: &io::Error) -> bool {
    // What unpacks an archive wraps it.
    let source =
        error.get_ref().and_then(|source| source.source()).and_then(|source| source.downcast_ref::<io::Error>());
    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
    full.contains(&error.kind()) || source.is_some_and(is_full)
}

/// Waits for a lock that other processes release when they end. The sender is told of it; without one there is no use in waiting.
pub(super) fn locked(lock: &File, output: &mut impl io::Write, waiting: &mut dyn FnMut()) -> io::Result<()> {
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(fs::TryLockError::Error(error)) => return Err(error),
            Err(fs::TryLockError::WouldBlock) => {
                say(output, &Reply::Waiting)?;
                waiting();
                thread::sleep(LOCK_INTERVAL);
            }
        }
    }
}

/// A line of JSON.
pub(super) fn say(output: &mut impl io::Write, message: &impl Serialize) -> io::Result<()> {
    let line = serde_json::to_string(message)?;
    writeln!(output, "{line}")?;
    output.flush()
}

/// A line of JSON of at most so many bytes.
pub(super) fn line<T: DeserializeOwned>(input: &mut impl io::BufRead, longest: u64) -> io::Result<T> {
    let mut line = Vec::new();
    input.take(longest).read_until(b'\n', &mut line)?;
    if !line.ends_with(b"\n") {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&line)?)
}

/// What comes over the line leads nowhere else.
pub(super) fn name(text: &str) -> io::Result<&str> {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if plain && !text.is_empty() && !text.starts_with('.') { Ok(text) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// An image that is not there, and that nobody else brings while this lives.
pub(super) struct Coming {
    images: PathBuf,
    place: PathBuf,
    /// What an upload has left, or leaves.
    pub(super) part: PathBuf,
    /// What a fetch leaves.
    pub(super) fetched: PathBuf,
    _lock: File,
}

impl Coming {
    /// `None`: it is there.
    pub(super) fn new(root: &Path, folder: &str, output: &mut impl io::Write) -> io::Result<Option<Self>> {
        let images = root.join(shared::IMAGES);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&images)?;
        let place = images.join(name(folder)?);
        let below = |kind: &str| images.join(format!("{folder}.{kind}"));
        // Another run may be bringing the same: then it is there, or goes on from there.
        let lock = File::create(below("lock"))?;
        locked(&lock, output, &mut || {})?;
        if place.is_dir() {
            File::create(place.join(USED))?.set_modified(SystemTime::now())?;
            return Ok(None);
        }
        remove_unused(&images);
        let (part, fetched) = (below("part"), below(FETCHED));
        remove(&fetched)?;
        Ok(Some(Self { images, place, part, fetched, _lock: lock }))
    }

    /// It has come, into this folder: it gets its name.
    pub(super) fn is_whole(&self, folder: &Path) -> io::Result<()> {
        File::create(folder.join(USED))?;
        File::open(folder)?.sync_all()?;
        fs::rename(folder, &self.place)?;
        File::open(&self.images)?.sync_all()
    }
}

/// Removes a folder, if there is one.
pub(super) fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Images that nobody used for long, whole or not, and what is left of fetches that were killed.
fn remove_unused(images: &Path) {
    let old = |path: &Path| {
        let used = fs::metadata(path.join(USED)).or_else(|_| fs::metadata(path));
        let age = used.and_then(|used| used.modified()).ok().and_then(|used| used.elapsed().ok());
        age.is_some_and(|age| age > UNUSED)
    };
    for entry in fs::read_dir(images).into_iter().flatten().flatten() {
        let path = entry.path();
        let lock = path.with_extension("lock");
        let is_rest = path.extension().is_some_and(|kind| kind == FETCHED);
        if !path.is_dir() || !(is_rest || old(&path)) {
            continue;
        }
        if let Ok(lock) = File::create(&lock)
            && lock.try_lock().is_ok()
        {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_of_the_folder() {
        for text in ["..", ".", "", "a/b", "/etc", ".lock"] {
            name(text).unwrap_err();
        }
        name("run-2026_1.x").unwrap();
    }
}
