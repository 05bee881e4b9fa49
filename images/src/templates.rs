//! Templates in the store: frozen guests, found through the digest of everything that decides them.
//!
//! ```text
//! templates/<key>/       memory, state of the devices, disk, keys: whatever was put there, and
//!   template.json        what each file was when it was put there, and what its maker notes of it
//!   bad                  there if it proved to be of no use while others used it
//!   used                 touched by whoever uses it: the least recently used goes first
//! templates/<key>.lock   held by who makes it
//! ```
//!
//! A template may be lost at any moment without harm: it can be made again. So it is checked to the last byte before it is used, and
//! what does not hold is removed; nothing is waited for until it has reached the disk.

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
/// In the build_dir of one that is being made: the bytes it may come to.
const CLAIM: &str = "claim";
/// It is of no use and waits until those who use it nevertheless are done.
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

/// A template, checked. For as long as this value lives, nothing removes it from the store; but another one may be put in its place,
/// see [`Template::is_in_place`].
#[derive(Debug)]
pub struct Template<T> {
    /// The folder with its files.
    pub folder: PathBuf,
    /// What its maker noted.
    pub note: T,
    /// Keeps the folder locked, together with others who use it.
    lease: File,
}

/// A template that is being made: a folder to put its files into. Dropped without being published it leaves nothing.
#[derive(Debug)]
pub struct Unfinished {
    key: Digest,
    build_dir: BuildDir,
    _making: File,
}

/// What came of wanting to make one.
#[derive(Debug)]
pub enum Begun<T> {
    /// Somebody else made it meanwhile.
    Found(Template<T>),
    /// It is ours to make.
    Free(Unfinished),
    /// The flag was set while we waited.
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
    /// There can be no folder for them.
    pub fn templates(&self, limit: ByteSize) -> Result<Templates, TemplateError> {
        let folder = self.root().join("templates");
        // The keys of frozen guests are in there.
        let made = fs::create_dir_all(&folder).and_then(|()| build_dir::only_ours(&folder));
        made.map_err(at(&folder))?;
        Ok(Templates { folder, builds: self.builds(), lock: self.own_lock(), limit, trusting: false })
    }
}

impl Templates {
    /// The same for a store that lies on a disk whose every byte was checked: only the sizes of files are looked at.
    pub fn trusting(self) -> Self {
        Self { trusting: true, ..self }
    }

    /// The template of this key, every byte of it checked; `None`: there is none.
    ///
    /// # Errors
    ///
    /// What is there is of no use, and why; it is there no more.
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

    /// Waits until nobody else makes the template of this key, and looks again. `waiting` is told once, who does.
    ///
    /// `bytes`: what it will need on the disk at the most.
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
            // It may have been swept away between the two.
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
        // Said before anybody looks: of two who begin at the same time, neither may think that all of the room is his.
        let claim = build_dir.folder().join(CLAIM);
        fs::write(&claim, bytes.to_string()).map_err(at(&claim))?;
        let wanted = self.claimed();
        if let Err(error) = space::require(&[(&self.folder, wanted)]) {
            let (taken, free) = (self.bytes(), space::free(&self.folder).unwrap_or(0));
            let missing = wanted.saturating_sub(free);
            // What would not help is not thrown away.
            if taken >= missing {
                self.evict(taken - missing, None);
            }
            space::require(&[(&self.folder, wanted)])
                .map_err(|_| at(&self.folder)(io::Error::new(io::ErrorKind::StorageFull, error.to_string())))?;
        }
        Ok(Begun::Free(Unfinished { key, build_dir, _making: making }))
    }

    /// Puts a finished template into the store. Others that were not used for the longest time go, until all fit again: how many.
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

    /// Gives a template up that proved to be of no use: nobody finds it any more, and it is gone when nobody uses it.
    pub fn discard<T>(&self, template: &Template<T>) {
        self.give_up(&template.folder, &template.lease);
    }

    fn give_up(&self, folder: &Path, lease: &File) {
        {
            // Nobody may put another one in its place between the two.
            let Ok(_lock) = self.lock.take() else { return };
            if !is_at(lease, folder) {
                return;
            }
            let _ = File::create(folder.join(BAD));
        }
        // Ours alone, unless others use it: then whoever makes it anew moves it aside.
        if lock::try_exclusive(lease).unwrap_or(false) {
            self.remove(folder, lease);
        } else {
            // Asking for more has cost us what we had.
            let _ = lock::try_shared(lease);
        }
    }

    /// Removes the locks of templates that are not there and that nobody makes.
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

    /// What templates that are being made may still need on the disk, in bytes.
    fn claimed(&self) -> u64 {
        let sites = fs::read_dir(&self.builds).into_iter().flatten().flatten().map(|entry| entry.path());
        let claims = sites.filter_map(|build_dir| {
            let claim: u64 = fs::read_to_string(build_dir.join(CLAIM)).ok()?.parse().ok()?;
            Some(claim.saturating_sub(space::taken(&build_dir::image_of(&build_dir))))
        });
        claims.fold(0, u64::saturating_add)
    }

    /// What all of them may take.
    pub fn limit(&self) -> ByteSize {
        self.limit
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.all().len()
    }

    /// What all templates take on the disk, in bytes.
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

    /// Removes all that nobody uses, or only looks (`dry`). Folder, bytes, and whether it is gone or would be.
    pub(crate) fn clear(&self, dry: bool) -> Vec<(PathBuf, u64, bool)> {
        let cleared = self.all().into_iter().map(|(folder, _, bytes)| {
            let file = File::open(&folder);
            let free = file.as_ref().is_ok_and(|file| lock::try_exclusive(file).unwrap_or(false));
            let gone = free && (dry || file.is_ok_and(|file| self.remove(&folder, &file)));
            (folder, bytes, gone)
        });
        cleared.collect()
    }

    /// Removes the least recently used that nobody uses now, until the rest takes no more than `limit`.
    /// How many went.
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
            // Held until it has lost its name: nobody begins to use it in between.
            if lock::try_exclusive(&file).unwrap_or(false) && self.remove(&folder, &file) {
                sum -= bytes;
                gone += 1;
            }
        }
        gone
    }

    /// Removes a folder that is locked, as `held`, for us alone.
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
        // With the build_dir it is removed, which takes its time; the store's lock is free by then.
        drop(build_dir);
        true
    }
}

impl Unfinished {
    /// Where its files go: no folders, no links.
    pub fn folder(&self) -> PathBuf {
        self.build_dir.image()
    }
}

impl<T> Template<T> {
    /// Whether its files are still what its folder's name stands for: whoever found it damaged has made it anew meanwhile.
    pub fn is_in_place(&self) -> bool {
        is_at(&self.lease, &self.folder)
    }
}

#[cfg(test)]
mod tests;
