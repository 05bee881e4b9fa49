//! Whose an instance is: told by its labels, and by what this store knows of its own runs.

use std::{
    fs,
    io::{self, ErrorKind},
    path::Path,
    time::Duration,
};

use matrix::Digest;

use super::held::request_id;
use crate::scratch;

/// Runs of this store that asked for instances, a file for each. A store that was copied, and machines that were cloned, have the same
/// name; which runs they began, they do not have in common.
const RUNS: &str = "gce-runs";
/// An instance lives no longer (Compute Engine's documentation: limit the run time of a VM).
const LONGEST: Duration = Duration::from_secs(121 * 24 * 3600);

/// Whose an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// A run of this machine's store, which lives.
    Alive,
    /// A run of this machine's store, which is dead.
    Dead,
    /// Another machine's, or another store's: whether its run lives cannot be seen from here.
    Elsewhere,
}

/// Notes that a run of this store is about to ask for instances.
pub(crate) fn note(store: &Path, run: &str) -> io::Result<()> {
    let runs = store.join(RUNS);
    fs::create_dir_all(&runs)?;
    for old in fs::read_dir(&runs)?.flatten() {
        let age = old.metadata().and_then(|meta| meta.modified()).ok().and_then(|at| at.elapsed().ok());
        if age.is_some_and(|age| age > LONGEST) {
            let _ = fs::remove_file(old.path());
        }
    }
    fs::write(runs.join(run), "")
}

/// Whose the run of this name is, if it is one of this owner's.
pub(super) fn whose(store: &Path, run: &str) -> Whose {
    match scratch::is_dead(store, run) {
        Some(false) => Whose::Alive,
        Some(true) if store.join(RUNS).join(run).is_file() => Whose::Dead,
        _ => Whose::Elsewhere,
    }
}

/// What the instances of a store's runs are labelled with. A store that was copied to another machine is another owner there: else that
/// one would take the runs of this one for dead.
pub(crate) fn owner(store: &Path) -> io::Result<String> {
    let file = store.join("gce-owner");
    let id = match fs::read_to_string(&file) {
        Ok(id) if !id.trim().is_empty() => id,
        _ => {
            let new = tempfile::NamedTempFile::new_in(store)?;
            fs::write(new.path(), request_id())?;
            // Another run may have made one meanwhile: both use that.
            match new.persist_noclobber(&file) {
                Ok(_) => {}
                Err(error) if error.error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.error),
            }
            fs::read_to_string(&file)?
        }
    };
    let machine = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let host = rustix::system::uname();
    let all = format!("{}|{}|{}", id.trim(), machine.trim(), host.nodename().to_string_lossy());
    Ok(Digest::of(all.as_bytes()).hex()[..16].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_has_one_owner_and_another_store_another() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let name = owner(one.path()).unwrap();
        assert_eq!(owner(one.path()).unwrap(), name);
        assert_ne!(owner(two.path()).unwrap(), name);
        assert!(name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
    }

    #[test]
    fn only_a_run_that_this_store_began_can_be_dead() {
        let store = tempfile::tempdir().unwrap();
        assert_eq!(whose(store.path(), "r"), Whose::Elsewhere, "there is no folder of runs: nothing can be told");
        let alive = scratch::Scratch::create(store.path(), "r").unwrap();
        assert_eq!(whose(store.path(), "r"), Whose::Alive);
        drop(alive);
        assert_eq!(whose(store.path(), "r"), Whose::Elsewhere, "a clone of this machine may have it");
        note(store.path(), "r").unwrap();
        assert_eq!(whose(store.path(), "r"), Whose::Dead);
        assert_eq!(whose(store.path(), "../gce-runs/r"), Whose::Elsewhere);
        assert_eq!(whose(store.path(), ""), Whose::Elsewhere);
        let file = fs::File::options().write(true).open(store.path().join(RUNS).join("r")).unwrap();
        file.set_modified(std::time::SystemTime::now() - 2 * LONGEST).unwrap();
        note(store.path(), "s").unwrap();
        assert!(!store.path().join(RUNS).join("r").exists(), "it can have none any more");
    }
}
