//! Templates in the store: frozen guests, under the digest of everything that decides them.
//!
//! ```text
//! templates/<key>/       memory, state of the devices, disk, keys: any files, and
//!   template.json        their record, and the maker's note
//!   bad                  present if it proved useless while others used it
//!   used                 touched by each user: the least recently used is removed first
//! templates/<key>.lock   held by its maker
//! ```
//!
//! A template may be lost at any moment without harm: it can be made again. So every byte of it is checked before use, a damaged
//! one is removed, and nothing is synced to the disk.

mod record;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    time::SystemTime,
};

use matrix::{ByteSize, Digest};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    build_dir::{self, BuildDir},
    lock::{self, Waited},
    prepared::{self, is_at},
    space,
    store::{Store, StoreLock},
};

const USED: &str = "used";
/// In the build directory of a template in progress: its maximum size in bytes.
const CLAIM: &str = "claim";
/// It is useless and waits until its current users are done.
const BAD: &str = "bad";

/// The templates of a store.
#[derive(Clone, Debug)]
pub struct Templates {
    folder: PathBuf,
    builds: PathBuf,
    lock: StoreLock,
    limit: ByteSize,
    trusting: bool,
}

/// A checked template. While this value lives, nothing removes it from the store; but another one may replace it, see
/// [`Template::is_in_place`].
#[derive(Debug)]
pub struct Template<T> {
    /// The folder with its files.
    pub folder: PathBuf,
    /// The maker's note.
    pub note: T,
    /// Locks the folder, shared with other users of it.
    lease: File,
}

/// A template in progress: a folder for its files. Dropped without being published it leaves nothing.
#[derive(Debug)]
pub struct Unfinished {
    key: Digest,
    build_dir: BuildDir,
    _making: File,
}

/// The result of starting to make one.
#[derive(Debug)]
pub enum Begun<T> {
    /// Another process made it meanwhile.
    Found(Template<T>),
    /// It is ours to make.
    Free(Unfinished),
    /// Cancelled while waiting.
    Cancelled,
}

/// A template cannot be made or kept.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct TemplateError {
    path: PathBuf,
    source: io::Error,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> TemplateError {
    move |source| TemplateError { path: path.to_owned(), source }
}

impl Store {
    /// Its templates, which may take `limit` on the disk together.
    ///
    /// # Errors
    ///
    /// Their folder cannot be created.
    pub fn templates(&self, limit: ByteSize) -> Result<Templates, TemplateError> {
        let folder = self.root().join("templates");
        // It contains the keys of frozen guests.
        let made = fs::create_dir_all(&folder).and_then(|()| build_dir::only_ours(&folder));
        made.map_err(at(&folder))?;
        Ok(Templates { folder, builds: self.builds(), lock: self.own_lock(), limit, trusting: false })
    }
}

impl Templates {
    /// The same for a store on a disk that is already verified: only the sizes of files are checked.
    pub fn trusting(self) -> Self {
        Self { trusting: true, ..self }
    }

    /// The template of this key, completely checked; `None`: there is none.
    ///
    /// # Errors
    ///
    /// It was damaged, with the reason; it has been removed.
    pub fn find<T: DeserializeOwned + Serialize>(&self, key: Digest) -> Result<Option<Template<T>>, String> {
        let folder = self.place(key);
        let Some(lease) = prepared::lease(&folder) else { return Ok(None) };
        let given_up = folder.join(BAD).exists().then(|| format!("{} was given up", folder.display()));
        match given_up.map_or_else(|| record::check(&folder, key, self.trusting), Err) {
            Ok(note) => {
                let _ = File::create(folder.join(USED)).and_then(|file| file.set_modified(SystemTime::now()));
                Ok(Some(Template { folder, note, lease }))
            }
            Err(reason) => {
                self.give_up(&folder, &lease);
                Err(reason)
            }
        }
    }

    /// Waits until nobody else makes the template of this key, and looks again. `waiting` is called once, with the maker.
    ///
    /// `bytes`: its maximum size on the disk.
    ///
    /// # Errors
    ///
    /// There is no room, or the store cannot be written to.
    pub fn begin<T: DeserializeOwned + Serialize>(
        &self,
        key: Digest,
        bytes: u64,
        cancel: &AtomicBool,
        waiting: &dyn Fn(Option<u32>),
    ) -> Result<Begun<T>, TemplateError> {
        let path = self.folder.join(format!("{}.lock", key.hex()));
        let making = loop {
            let mut making = lock::open(&path).map_err(at(&path))?;
            if lock::exclusive(&mut making, cancel, waiting).map_err(at(&path))? == Waited::Cancelled {
                return Ok(Begun::Cancelled);
            }
            // It may have been swept between the two calls.
            if is_at(&making, &path) {
                break making;
            }
        };
        if let Ok(Some(template)) = self.find(key) {
            return Ok(Begun::Found(template));
        }
        let build_dir = {
            let _lock = self.lock.take().map_err(at(&self.folder))?;
            BuildDir::create(&self.builds).map_err(|error| at(&self.builds)(io::Error::other(error.to_string())))?
        };
        // Reserved before the check: of two processes that begin at the same time, neither may count all of the room as free.
        let claim = build_dir.folder().join(CLAIM);
        fs::write(&claim, bytes.to_string()).map_err(at(&claim))?;
        let wanted = self.claimed();
        if let Err(error) = space::require(&[(&self.folder, wanted)]) {
            let (taken, free) = (self.bytes(), space::free(&self.folder).unwrap_or(0));
            let missing = wanted.saturating_sub(free);
            // Nothing is removed in vain.
            if taken >= missing {
                self.evict(taken - missing, None);
            }
            space::require(&[(&self.folder, wanted)])
                .map_err(|_| at(&self.folder)(io::Error::new(io::ErrorKind::StorageFull, error.to_string())))?;
        }
        Ok(Begun::Free(Unfinished { key, build_dir, _making: making }))
    }

    /// Puts a finished template into the store. Removes the least recently used others until all fit; returns their number.
    ///
    /// # Errors
    ///
    /// It cannot be read, or not be moved.
    pub fn publish<T: Serialize>(
        &self,
        unfinished: Unfinished,
        note: T,
    ) -> Result<(Template<T>, usize), TemplateError> {
        let Unfinished { key, build_dir, _making } = unfinished;
        let (from, to) = (build_dir.image(), self.place(key));
        record::write(&from, key, &note).and_then(|()| fs::write(from.join(USED), [])).map_err(at(&from))?;
        let lease = {
            let _lock = self.lock.take().map_err(at(&self.folder))?;
            if to.exists() {
                fs::rename(&to, build_dir.folder().join("replaced")).map_err(at(&to))?;
            }
            fs::rename(&from, &to).map_err(at(&to))?;
            prepared::lease(&to).ok_or_else(|| at(&to)(io::ErrorKind::NotFound.into()))?
        };
        let gone = self.evict(self.limit.bytes(), Some(&to));
        self.sweep_locks();
        Ok((Template { folder: to, note, lease }, gone))
    }

    /// Gives up a useless template: nobody finds it any more, and it is removed when nobody uses it.
    pub fn discard<T>(&self, template: &Template<T>) {
        self.give_up(&template.folder, &template.lease);
    }

    fn give_up(&self, folder: &Path, lease: &File) {
        {
            // Nobody may replace it between the two calls.
            let Ok(_lock) = self.lock.take() else { return };
            if !is_at(lease, folder) {
                return;
            }
            let _ = File::create(folder.join(BAD));
        }
        // Exclusive, unless others use it: then the next maker moves it aside.
        if lock::try_exclusive(lease).unwrap_or(false) {
            self.remove(folder, lease);
        } else {
            // The failed attempt to upgrade the lock has released it.
            let _ = lock::try_shared(lease);
        }
    }

    /// Removes the locks of templates that do not exist and that nobody makes.
    fn sweep_locks(&self) {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let locks = entries.filter(|path| path.extension().is_some_and(|extension| extension == "lock"));
        for path in locks.filter(|path| !path.with_extension("").exists()) {
            let Ok(file) = File::open(&path) else { continue };
            if lock::try_exclusive(&file).unwrap_or(false) && is_at(&file, &path) {
                let _ = fs::remove_file(&path);
            }
        }
    }

    /// Room that templates in progress may still need, in bytes.
    fn claimed(&self) -> u64 {
        let folders = fs::read_dir(&self.builds).into_iter().flatten().flatten().map(|entry| entry.path());
        let claims = folders.filter_map(|build_dir| {
            let claim: u64 = fs::read_to_string(build_dir.join(CLAIM)).ok()?.parse().ok()?;
            Some(claim.saturating_sub(space::taken(&build_dir::image_of(&build_dir))))
        });
        claims.fold(0, u64::saturating_add)
    }

    /// The limit of all of them.
    pub fn limit(&self) -> ByteSize {
        self.limit
    }

    /// Their number.
    pub fn count(&self) -> usize {
        self.all().len()
    }

    /// Size of all templates on the disk, in bytes.
    pub fn bytes(&self) -> u64 {
        self.all().iter().map(|(_, _, bytes)| bytes).sum()
    }

    fn place(&self, key: Digest) -> PathBuf {
        self.folder.join(key.hex())
    }

    /// Folder, last use and size of each.
    fn all(&self) -> Vec<(PathBuf, SystemTime, u64)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let folders = entries.map(|entry| entry.path()).filter(|path| path.is_dir() && !path.is_symlink());
        let known = folders.map(|folder| {
            let used = fs::metadata(folder.join(USED)).and_then(|found| found.modified());
            let bytes = space::taken(&folder);
            (folder, used.unwrap_or(SystemTime::UNIX_EPOCH), bytes)
        });
        known.collect()
    }

    /// Removes all unused ones, or only lists them (`dry`). Folder, bytes, and whether it is (or would be) removed.
    pub(crate) fn clear(&self, dry: bool) -> Vec<(PathBuf, u64, bool)> {
        let cleared = self.all().into_iter().map(|(folder, _, bytes)| {
            let file = File::open(&folder);
            let free = file.as_ref().is_ok_and(|file| lock::try_exclusive(file).unwrap_or(false));
            let gone = free && (dry || file.is_ok_and(|file| self.remove(&folder, &file)));
            (folder, bytes, gone)
        });
        cleared.collect()
    }

    /// Removes the least recently used ones that are not in use, until the rest takes at most `limit`. Returns their number.
    fn evict(&self, limit: u64, spared: Option<&Path>) -> usize {
        let mut gone = 0;
        let mut all = self.all();
        all.sort_by_key(|(_, used, _)| *used);
        let mut sum: u64 = all.iter().map(|(_, _, bytes)| bytes).sum();
        for (folder, _, bytes) in all {
            if sum <= limit {
                break;
            }
            if Some(folder.as_path()) == spared {
                continue;
            }
            let Ok(file) = File::open(&folder) else { continue };
            // Held until it has lost its name, so that nobody starts to use it in between.
            if lock::try_exclusive(&file).unwrap_or(false) && self.remove(&folder, &file) {
                sum -= bytes;
                gone += 1;
            }
        }
        gone
    }

    /// Removes a folder that is locked exclusively, as `held`.
    fn remove(&self, folder: &Path, held: &File) -> bool {
        let build_dir = {
            let Ok(_lock) = self.lock.take() else { return false };
            if !is_at(held, folder) {
                return false;
            }
            let Ok(build_dir) = BuildDir::create(&self.builds) else { return false };
            if fs::rename(folder, build_dir.folder().join("discarded")).is_err() {
                return false;
            }
            build_dir
        };
        // Removed with the build directory, which takes time; the store's lock is free by then.
        drop(build_dir);
        true
    }
}

impl Unfinished {
    /// Its files: no folders, no links.
    pub fn folder(&self) -> PathBuf {
        self.build_dir.image()
    }
}

impl<T> Template<T> {
    /// True if its folder still has its name: a damaged template may have been replaced meanwhile.
    pub fn is_in_place(&self) -> bool {
        is_at(&self.lease, &self.folder)
    }
}

#[cfg(test)]
mod tests;
