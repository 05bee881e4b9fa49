//! What dies with a run: overlays and keys, in `<store>/scratch/<run>/`, next to the images they stand on.
//!
//! The folder is locked for as long as the run lives. A later start that finds an unlocked folder knows
//! that its run is dead, ends the guests it left (unless they were kept on purpose), and removes it.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::guest::{process_alive, process_start_time};

const LOCK: &str = "lock";
/// A guest that was left to a person on purpose.
const KEPT: &str = "kept.json";

/// The scratch folder cannot be created or locked.
#[derive(Debug, thiserror::Error)]
#[error("could not {what} {}: {source}", path.display())]
pub struct ScratchError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// A run's scratch folder. Dropping it removes everything in it but kept guests.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    _lock: File,
}

#[derive(Serialize, Deserialize)]
struct Note {
    pid: u32,
    started: u64,
}

impl Scratch {
    /// Makes and locks the folder of the run `name`.
    pub fn create(store: &Path, name: &str) -> Result<Self, ScratchError> {
        let root = store.join("scratch");
        let at = |what, path: &Path| {
            let path = path.to_owned();
            move |source| ScratchError { what, path, source }
        };
        fs::create_dir_all(&root).map_err(at("create", &root))?;
        // As every other start will write it, however the store was named: guests are found by it.
        let root = root.canonicalize().map_err(at("find", &root))?;
        let path = root.join(name);
        // A sweep must not see the folder between its making and its locking, so both happen under the root's lock.
        let _turn = turn(&root).map_err(at("lock", &root))?;
        private_folder(&path).map_err(at("create", &path))?;
        let lock = File::create(path.join(LOCK)).map_err(at("write into", &path))?;
        lock.lock().map_err(at("lock", &path))?;
        note(&path.join(LOCK), std::process::id()).map_err(at("write into", &path))?;
        Ok(Self { path, _lock: lock })
    }

    /// The folder; only we can read it.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        clear(&self.path);
    }
}

/// Notes a guest that is left to a person: no sweep ends it.
pub fn note_kept(folder: &Path, pid: u32) -> io::Result<()> {
    note(&folder.join(KEPT), pid)
}

fn note(file: &Path, pid: u32) -> io::Result<()> {
    let started = process_start_time(pid).ok_or_else(|| io::Error::other("the process is gone"))?;
    fs::write(file, serde_json::to_vec(&Note { pid, started })?)
}

/// Kills the process whose run has this folder, if it lives. Its guests die with it.
pub fn end_owner(run: &Path) {
    let owner = fs::read(run.join(LOCK)).ok().and_then(|note| serde_json::from_slice::<Note>(&note).ok());
    let Some(Note { pid, started }) = owner else { return };
    let handle = Pid::from_raw(pid as i32).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    // Compared behind the handle: from here on the number cannot pass to another process.
    if let Some(handle) = handle.filter(|_| process_alive(pid, started)) {
        let _ = pidfd_send_signal(&handle, Signal::KILL);
    }
}

/// Whether the run of this name is dead; `None`: nobody can tell.
pub fn is_dead(store: &Path, name: &str) -> Option<bool> {
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return None;
    }
    let root = store.join("scratch");
    // A store that cannot be looked into says nothing of its runs.
    fs::read_dir(&root).ok()?;
    match File::open(root.join(name).join(LOCK)).map(|lock| lock.try_lock_shared()) {
        Ok(Ok(())) => Some(true),
        Ok(Err(TryLockError::WouldBlock)) => Some(false),
        Ok(Err(TryLockError::Error(_))) => None,
        Err(error) => (error.kind() == io::ErrorKind::NotFound).then_some(true),
    }
}

/// Ends and removes what dead runs left. Says what it did, a line for each.
pub fn sweep(store: &Path) -> Vec<String> {
    let Ok(root) = store.join("scratch").canonicalize() else { return Vec::new() };
    let Ok(entries) = fs::read_dir(&root) else { return Vec::new() };
    let Ok(_turn) = turn(&root) else { return Vec::new() };
    let mut done = Vec::new();
    for run in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
        let lock = match File::open(run.join(LOCK)) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Its maker died between two steps that a living one takes under the root's lock.
                clear(&run);
                continue;
            }
            // Not ours, or no file can be opened now: that says nothing about its run.
            Err(_) => continue,
        };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => continue,
        }
        let ended = end_guests(&run);
        let had_kept = has_kept(&run);
        clear(&run);
        let name = run.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !run.exists() && (ended > 0 || !had_kept) {
            done.push(format!("removed what the dead run {name} had left ({ended} guests were still running)"));
        }
    }
    done
}

fn turn(root: &Path) -> io::Result<File> {
    let file = File::create(root.join(".turn"))?;
    file.lock()?;
    Ok(file)
}

fn private_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().mode(0o700).create(path)
}

fn kept(attempt: &Path) -> Option<Note> {
    serde_json::from_slice(&fs::read(attempt.join(KEPT)).ok()?).ok()
}

fn attempts(run: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(run).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir() && !path.is_symlink()).collect()
}

/// A kept guest that still runs.
fn is_kept(attempt: &Path) -> bool {
    kept(attempt).is_some_and(|kept| process_alive(kept.pid, kept.started))
}

fn has_kept(run: &Path) -> bool {
    attempts(run).iter().any(|attempt| attempt.join(KEPT).exists())
}

/// Kills the guests of a dead run that nobody asked to keep. How many there were.
///
/// They are found by what they were started with: QEMUs with a file of that run on their command line. Nothing need have been
/// written down for that, so there is no moment at which a killed run leaves a guest that is not found.
pub fn end_guests(run: &Path) -> usize {
    let spared: Vec<u32> = attempts(run)
        .iter()
        .filter(|attempt| is_kept(attempt))
        .filter_map(|attempt| kept(attempt))
        .map(|kept| kept.pid)
        .collect();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|process| process.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter(|number| !spared.contains(number)).filter(|&number| end_guest(number, run)).count()
}

fn end_guest(number: u32, run: &Path) -> bool {
    if !is_guest(number, run) {
        return false;
    }
    let handle = Pid::from_raw(number as i32).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    // Checked again behind the handle: from here on the number cannot pass to another process.
    let Some(handle) = handle.filter(|_| is_guest(number, run)) else { return false };
    let ended = pidfd_send_signal(&handle, Signal::KILL).is_ok();
    for _ in 0..100 {
        if process_start_time(number).is_none() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    ended
}

/// Is this a QEMU with a file of that run?
fn is_guest(number: u32, run: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt as _;
    let line = fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
    let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
    let name = program.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    // In an option list QEMU wants commas doubled; that is how they stand there.
    let folder: Vec<u8> = run
        .as_os_str()
        .as_bytes()
        .iter()
        .flat_map(|byte| vec![*byte; if *byte == b',' { 2 } else { 1 }])
        .chain([b'/'])
        .collect();
    name.starts_with(b"qemu-system") && line.windows(folder.len()).any(|part| part == folder)
}

/// Removes all but the folders of kept guests that still run.
fn clear(run: &Path) {
    let mut kept = false;
    for attempt in attempts(run) {
        if is_kept(&attempt) {
            kept = true;
        } else {
            let _ = fs::remove_dir_all(&attempt);
        }
    }
    if !kept {
        let _ = fs::remove_dir_all(run);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        process::{Child, Command, Stdio},
        time::Instant,
    };

    use super::*;

    /// A dead run's folder with one attempt, and a process under QEMU's name that holds the disk in it.
    fn dead_run(store: &Path) -> (PathBuf, Child) {
        let attempt = store.canonicalize().unwrap().join("scratch/dead, very/cell-1");
        fs::create_dir_all(&attempt).unwrap();
        fs::write(attempt.parent().unwrap().join(LOCK), "").unwrap();
        fs::write(attempt.join("disk.qcow2"), "overlay").unwrap();
        let disk = format!("file={}/disk.qcow2", attempt.display()).replace(',', ",,");
        (attempt, process("qemu-system-x86_64", &disk))
    }

    /// A process that is called so and has this argument.
    fn process(name: &str, argument: &str) -> Child {
        use std::os::unix::process::CommandExt as _;
        // The shell waits for its input, which never comes.
        let mut command = Command::new("/bin/sh");
        let child = command.arg0(name).args(["-c", "read line", argument]).stdin(Stdio::piped()).spawn().unwrap();
        // The kernel lets a parent go on a moment before the new program's command line can be read.
        let began = Instant::now();
        while fs::read(format!("/proc/{}/cmdline", child.id())).unwrap().is_empty() {
            assert!(began.elapsed() < Duration::from_secs(10), "{name} did not start");
            std::thread::sleep(Duration::from_millis(1));
        }
        child
    }

    #[test]
    fn what_a_dead_run_left_is_ended_and_removed() {
        let store = tempfile::tempdir().unwrap();
        let (attempt, mut guest) = dead_run(store.path());
        let said = sweep(store.path());
        assert!(said[0].contains("dead") && said[0].contains("1 guests"), "{said:?}");
        assert!(!attempt.parent().unwrap().exists());
        assert!(!guest.wait().unwrap().success(), "it was killed");
    }

    #[test]
    fn a_living_run_is_left_alone() {
        let store = tempfile::tempdir().unwrap();
        let scratch = Scratch::create(store.path(), "living").unwrap();
        fs::create_dir(scratch.path().join("cell-1")).unwrap();
        assert!(sweep(store.path()).is_empty());
        assert!(scratch.path().join("cell-1").is_dir());
        let path = scratch.path().to_owned();
        drop(scratch);
        assert!(!path.exists(), "a run that ends takes its folder along");
    }

    #[test]
    fn a_kept_guest_survives_the_sweep_until_it_is_stopped() {
        let store = tempfile::tempdir().unwrap();
        let (attempt, mut guest) = dead_run(store.path());
        note_kept(&attempt, guest.id()).unwrap();
        assert!(sweep(store.path()).is_empty());
        assert!(attempt.join("disk.qcow2").exists());
        guest.kill().unwrap();
        guest.wait().unwrap();
        sweep(store.path());
        assert!(!attempt.exists());
    }

    #[test]
    fn a_run_whose_lock_cannot_be_opened_is_not_taken_for_dead() {
        let store = tempfile::tempdir().unwrap();
        let run = store.path().join("scratch/other");
        fs::create_dir_all(run.join("cell-1")).unwrap();
        // It cannot be opened, not even by root: a link to itself.
        std::os::unix::fs::symlink(LOCK, run.join(LOCK)).unwrap();
        assert!(sweep(store.path()).is_empty());
        assert!(run.join("cell-1").is_dir());
    }

    #[test]
    fn a_guest_that_is_gone_or_whose_note_cannot_be_written_is_not_kept() {
        let store = tempfile::tempdir().unwrap();
        let mut guest = process("qemu-system-x86_64", "");
        assert!(note_kept(&store.path().join("missing"), guest.id()).is_err());
        guest.kill().unwrap();
        guest.wait().unwrap();
        assert!(note_kept(store.path(), guest.id()).is_err());
    }

    #[test]
    fn only_qemu_is_ended_and_nobody_who_looks_at_the_same_files() {
        let store = tempfile::tempdir().unwrap();
        let (attempt, mut guest) = dead_run(store.path());
        let mut reader = process("less", &format!("{}/console.log", attempt.display()));
        sweep(store.path());
        assert!(!guest.wait().unwrap().success(), "it was killed");
        assert!(reader.try_wait().unwrap().is_none(), "it still runs");
        reader.kill().unwrap();
        reader.wait().unwrap();
    }
}
