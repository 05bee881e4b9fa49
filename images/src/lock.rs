//! File locks that are released when their holder dies, however it dies.
//!
//! `flock` locks belong to the open file: all processes that inherited it hold it together, and it is released when the last one
//! ends. Nothing here blocks without checking the caller's cancel flag.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Interval of checks while waiting.
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// Time a new holder of a lock gets to write its process id.
const PID_TIMEOUT: Duration = Duration::from_secs(2);

/// Opens a lock file, creating it if need be.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o644).open(path)
}

/// Tries to take the exclusive lock; `false`: it is held.
pub(crate) fn try_exclusive(file: &File) -> io::Result<bool> {
    outcome(file.try_lock())
}

/// Tries to take the shared lock; `false`: it is held exclusively.
pub(crate) fn try_shared(file: &File) -> io::Result<bool> {
    outcome(file.try_lock_shared())
}

fn outcome(tried: Result<(), TryLockError>) -> io::Result<bool> {
    match tried {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Waits for the exclusive lock for at most `limit`; `false`: timeout.
pub(crate) fn exclusive_within(file: &File, limit: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        if try_exclusive(file)? {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        thread::sleep(POLL);
    }
}

/// How waiting for a lock ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// We hold it. It was free at once, or not.
    Got {
        /// Another process held it before us.
        after_another: bool,
    },
    /// The cancel flag was set.
    Cancelled,
}

/// Waits for the lock without a limit, unless cancelled; then writes our process id into the file, for others who wait. `waiting`
/// is called once with the process id in the file; `None`: there is none.
pub(crate) fn exclusive(file: &mut File, cancel: &AtomicBool, waiting: &dyn Fn(Option<u32>)) -> io::Result<Waited> {
    let (mut after_another, mut told) = (false, false);
    let began = Instant::now();
    while !try_exclusive(file)? {
        if cancel.load(Ordering::Relaxed) {
            return Ok(Waited::Cancelled);
        }
        after_another = true;
        if !told {
            // A new holder has yet to write its process id.
            let holder = holder(file);
            told = holder.is_some() || began.elapsed() >= PID_TIMEOUT;
            if told {
                waiting(holder);
            }
        }
        thread::sleep(POLL);
    }
    if after_another && !told {
        waiting(None);
    }
    sign(file)?;
    Ok(Waited::Got { after_another })
}

fn sign(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn holder(file: &mut File) -> Option<u32> {
    file.rewind().ok()?;
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::alone;

    #[test]
    fn whoever_waits_learns_which_process_has_the_lock_and_can_be_cancelled() {
        let _alone = alone();
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("lock");
        let cancel = AtomicBool::new(false);
        let mut first = open(&path).expect("lock file");
        let got = exclusive(&mut first, &cancel, &|_| panic!("it is free")).expect("lock");
        assert_eq!(got, Waited::Got { after_another: false });

        let mut second = open(&path).expect("lock file");
        let waited = exclusive(&mut second, &cancel, &|holder| {
            assert_eq!(holder, Some(std::process::id()));
            cancel.store(true, Ordering::Relaxed);
        });
        assert_eq!(waited.expect("lock"), Waited::Cancelled);

        drop(first);
        cancel.store(false, Ordering::Relaxed);
        let got = exclusive(&mut second, &cancel, &|_| panic!("it is free")).expect("lock");
        assert_eq!(got, Waited::Got { after_another: false });
    }

    #[test]
    fn whoever_has_just_got_the_lock_is_named_once_he_has_written_who_he_is() {
        let _alone = alone();
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("lock");
        let mut first = open(&path).expect("lock file");
        assert!(try_exclusive(&first).expect("lock"));
        let told = std::sync::Mutex::new(Vec::new());
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let mut second = open(&path).expect("lock file");
                let cancel = AtomicBool::new(false);
                exclusive(&mut second, &cancel, &|holder| told.lock().expect("told").push(holder))
            });
            thread::sleep(POLL * 4);
            sign(&mut first).expect("process id");
            thread::sleep(POLL * 4);
            drop(first);
            let got = waiter.join().expect("thread").expect("lock");
            assert_eq!(got, Waited::Got { after_another: true });
        });
        assert_eq!(*told.lock().expect("told"), [Some(std::process::id())]);
    }
}
