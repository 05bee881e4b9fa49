//! The store: images under the digest of their content, found through the digest of their recipe.
//!
//! ```text
//! lock                      held briefly: no sweep runs while a process starts
//! recipes/<digest>.json     the content the recipe was last built to; replaced by renaming
//! recipes/<digest>.lock     held by the process that builds that recipe
//! images/<digest>/          disk.qcow2, vmlinuz, initrd.img, packages.tsv, image.json; locked by its users
//! templates/                frozen guests, see `templates`
//! downloads/                interrupted downloads, by recipe: the next try resumes them
//! builds/                   builds in progress, see `build_dir`
//! ```
//!
//! Nothing half-written has a final name. Several processes may use one store.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    time::{Duration, SystemTime},
};

use matrix::Digest;
use serde::{Deserialize, Serialize};

use crate::{
    Entry, Origin, Source,
    build::{self, Build, Makers},
    build_dir::{self, BuildDir},
    error::{Failure, PrepareError, PrepareErrorKind, StoreError, StoreErrorKind},
    lock::{self, Waited},
    prepared::{self, PACKAGES, PreparedImage, RECORD, Record, Unusable},
    space,
};

/// Time limit for the store's own lock, which is held briefly; a process that holds it longer is stopped or stuck.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// The content-addressed cache of images.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    /// The folder of its images, without links: an overlay of a disk refers to it by this path, and must find it from everywhere.
    images: PathBuf,
    swept: Vec<String>,
}

/// Options of a preparation.
pub struct Control<'a> {
    /// Rebuild it even if it is there.
    pub refresh: bool,
    /// When set, every process of the preparation is killed within a tenth of a second; removing their files takes a few seconds
    /// more.
    pub cancel: &'a AtomicBool,
    /// Called with progress messages, one line at a time, from any thread.
    pub progress: &'a (dyn Fn(&str) + Sync),
}

/// An image in the store, not verified.
#[derive(Clone, Debug, PartialEq)]
pub struct PresentImage {
    /// Identity of its content.
    pub digest: Digest,
    /// Its folder.
    pub path: PathBuf,
    /// Its disk.
    pub disk: PathBuf,
    /// Its size on the disk, in bytes.
    pub bytes: u64,
    /// When it was built.
    pub built_at: jiff::Timestamp,
    /// How many packages are installed in it.
    pub packages: usize,
}

/// The content that a recipe was last built to (`recipes/<digest>.json`).
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pointer {
    /// For people who inspect the store.
    pub(crate) name: String,
    pub(crate) content: Digest,
}

impl Store {
    /// The default store: `NESTMATRIX_STORE`, else `nestmatrix` in `XDG_CACHE_HOME` or `~/.cache`.
    ///
    /// # Errors
    ///
    /// None of the three variables is set.
    pub fn default_root() -> Result<PathBuf, StoreError> {
        default_root(|name| std::env::var_os(name).map(PathBuf::from))
    }

    /// Opens the store, creates it if needed, and removes what dead processes left in it.
    ///
    /// # Errors
    ///
    /// It cannot be created or written to, or its disk is full.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let about = |action: &str| {
            let action = action.to_owned();
            move |source: io::Error| StoreError { path: root.to_owned(), kind: store_error(root, action, source) }
        };
        fs::create_dir_all(root).map_err(about("it cannot be created"))?;
        // All paths handed out are below it.
        let root_path = root.canonicalize().map_err(about("it cannot be found"))?;
        for folder in ["recipes", "images", "builds", "downloads"] {
            fs::create_dir_all(root_path.join(folder)).map_err(about("it cannot be written to"))?;
        }
        let images = root_path.join("images").canonicalize().map_err(about("its images cannot be found"))?;
        let mut store = Self { root: root_path, images, swept: Vec::new() };
        // Also for existing folders: checks that we can write.
        let probe = tempfile::tempfile_in(store.builds()).and_then(|mut file| file.write_all(&[0; 4096]));
        probe.map_err(about("it cannot be written to"))?;
        let lock = store.lock().map_err(about("it cannot be locked"))?;
        store.swept = build_dir::sweep(&store.builds(), lock).map_err(about("it cannot be cleaned up"))?;
        store.forget_unreachable();
        Ok(store)
    }

    /// Its folder, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What was cleaned up when it was opened, a line each, for people; usually empty.
    pub fn swept(&self) -> &[String] {
        &self.swept
    }

    /// The image of this entry: from the store if it is there and correct, else built now.
    ///
    /// # Errors
    ///
    /// It cannot be built, what is in the store is damaged, or [`Control::cancel`] was set. A failed build leaves nothing.
    pub fn prepare(&self, entry: &Entry, control: &Control<'_>) -> Result<PreparedImage, PrepareError> {
        self.prepare_with(entry, control, &Makers { store: self })
    }

    /// The image of this entry without downloading or building. A disk on this machine is inspected.
    ///
    /// # Errors
    ///
    /// It is not in the store, or what is there is damaged.
    pub fn prepare_offline(&self, entry: &Entry, control: &Control<'_>) -> Result<PreparedImage, PrepareError> {
        if matches!(&entry.source, Source::Disk { file, .. } if matches!(file.origin, Origin::Path(_))) {
            return self.prepare(entry, control);
        }
        let usable = self.usable(build::recipe(entry));
        let usable = usable.and_then(|image| image.map_err(|_| PrepareErrorKind::Offline.into()));
        usable.map_err(|failure| failure.about(&entry.name))
    }

    /// The store's copy of an entry, not verified; `None`: nothing usable.
    pub fn look(&self, entry: &Entry) -> Option<PresentImage> {
        let (record, path, _lease) = self.find(build::recipe(entry)).ok()?;
        let packages = fs::read_to_string(path.join(PACKAGES)).unwrap_or_default();
        let packages = packages.lines().count();
        let bytes = record.files.iter().map(|file| file.bytes).sum();
        let disk = record.files.first()?.path(&path);
        Some(PresentImage { digest: record.content, path, disk, bytes, built_at: record.built_at, packages })
    }

    pub(crate) fn prepare_with(
        &self,
        entry: &Entry,
        control: &Control<'_>,
        builder: &dyn Build,
    ) -> Result<PreparedImage, PrepareError> {
        self.present_or_built(entry, control, builder).map_err(|failure| {
            let error = failure.about(&entry.name);
            if error.is_vanished() { error.with_copies(&self.copies(&entry.name)) } else { error }
        })
    }

    fn present_or_built(
        &self,
        entry: &Entry,
        control: &Control<'_>,
        builder: &dyn Build,
    ) -> Result<PreparedImage, Failure> {
        let digest = build::recipe(entry);
        if !control.refresh
            && let Ok(image) = self.usable(digest)?
        {
            return Ok(image);
        }
        let path = self.root.join("recipes").join(format!("{}.lock", digest.hex()));
        let waiting = |holder: Option<u32>| match holder {
            Some(process) => (control.progress)(&format!("waiting for process {process} building it")),
            None => (control.progress)("waiting for another process building it"),
        };
        let (_lock, waited) = loop {
            let mut lock = lock::open(&path).map_err(PrepareErrorKind::io("open", &path))?;
            let waited =
                lock::exclusive(&mut lock, control.cancel, &waiting).map_err(PrepareErrorKind::io("lock", &path))?;
            // It may have been cleaned up between the two calls.
            if waited == Waited::Cancelled || prepared::is_at(&lock, &path) {
                break (lock, waited);
            }
        };
        match waited {
            Waited::Cancelled => return Err(PrepareErrorKind::Cancelled.into()),
            // Another process built it just now, which is as good as a refresh.
            Waited::Got { after_another: true } if control.refresh => {
                if let Ok(image) = self.usable(digest)? {
                    return Ok(image);
                }
            }
            Waited::Got { .. } if control.refresh => {}
            Waited::Got { .. } => match self.usable(digest)? {
                Ok(image) => return Ok(image),
                Err(Some(reason)) => (control.progress)(&format!("rebuilding it: {reason}")),
                Err(None) => {}
            },
        }
        self.build(entry, digest, control, builder)
    }

    /// The image the recipe points to, checked. Inner error: it must be built, with the reason if there was one before.
    fn usable(&self, recipe: Digest) -> Result<Result<PreparedImage, Option<String>>, Failure> {
        let (record, folder, lease) = match self.find(recipe) {
            Ok(found) => found,
            Err(reason) => return Ok(Err(reason)),
        };
        match record.check(&folder, false) {
            Ok(()) => {
                // The garbage collection uses the time of last use.
                let pointer = File::open(self.pointer_path(recipe));
                let _ = pointer.and_then(|pointer| pointer.set_modified(SystemTime::now()));
                Ok(record.into_image(&folder, true, lease).map_err(Some))
            }
            Err(Unusable::Rebuild(reason)) => Ok(Err(Some(reason))),
            Err(Unusable::Damaged(kind)) => Err(kind.into()),
        }
    }

    /// Record, folder and lease of the image the recipe points to; else the reason, if there was one before.
    pub(crate) fn find(&self, recipe: Digest) -> Result<(Record, PathBuf, File), Option<String>> {
        let pointer = self.pointer(recipe)?;
        let folder = self.image(pointer.content);
        let lease = prepared::lease(&folder).ok_or_else(|| Some(format!("{} is gone", folder.display())))?;
        let record = Record::read(&folder).map_err(Some)?;
        if record.content != pointer.content || record.recipe != recipe {
            return Err(Some(format!("{} has other content", folder.display())));
        }
        Ok((record, folder, lease))
    }

    pub(crate) fn pointer(&self, recipe: Digest) -> Result<Pointer, Option<String>> {
        let path = self.pointer_path(recipe);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(None),
            Err(error) => return Err(Some(format!("{}: {error}", path.display()))),
        };
        serde_json::from_slice(&text).map_err(|error| Some(format!("{} cannot be read: {error}", path.display())))
    }

    /// Builds the image and puts it into the store. The caller holds the recipe's lock.
    fn build(
        &self,
        entry: &Entry,
        digest: Digest,
        control: &Control<'_>,
        builder: &dyn Build,
    ) -> Result<PreparedImage, Failure> {
        let build_dir = {
            let _lock = self.lock().map_err(PrepareErrorKind::io("lock", &self.root))?;
            BuildDir::create(&self.builds())?
        };
        let made = builder.build(entry, &build_dir, control)?;
        (control.progress)("digesting it");
        let record = Record::of(entry, digest, made, &build_dir.image())?;
        seal(&build_dir.image(), &record)?;
        let previous = self.pointer(digest).ok().map(|pointer| pointer.content);
        let lease = self.publish(&build_dir, &record)?;
        self.point(&build_dir, digest, &record)?;
        if let Some(previous) = previous.filter(|previous| *previous != record.content) {
            self.retire(&build_dir, previous);
        }
        let folder = self.image(record.content);
        let image = record.into_image(&folder, false, lease);
        Ok(image.map_err(|what| PrepareErrorKind::Incomplete { what })?)
    }

    /// Gives the finished folder its final name, and leases it before anybody can remove it.
    fn publish(&self, build_dir: &BuildDir, record: &Record) -> Result<File, PrepareErrorKind> {
        let folder = self.image(record.content);
        // An earlier build may have left the same; if it is correct, it may be in use. It is read completely, so this happens
        // before the lock, which others wait for only briefly.
        let intact = prepared::lease(&folder)
            .filter(|_| Record::read(&folder).is_ok_and(|known| known.check(&folder, true).is_ok()));
        let _lock = self.lock().map_err(PrepareErrorKind::io("lock", &self.root))?;
        if let Some(lease) = intact
            && prepared::is_at(&lease, &folder)
        {
            return Ok(lease);
        }
        if folder.exists() {
            // Users that have it open keep it; nobody finds it any more.
            let aside = build_dir.folder().join("replaced");
            fs::rename(&folder, &aside).map_err(PrepareErrorKind::io("move aside", &folder))?;
        }
        fs::rename(build_dir.image(), &folder).map_err(PrepareErrorKind::io("move into place", &folder))?;
        sync(&self.images)?;
        prepared::lease(&folder).ok_or_else(|| PrepareErrorKind::Incomplete { what: folder.display().to_string() })
    }

    /// Makes the recipe point to this content.
    fn point(&self, build_dir: &BuildDir, recipe: Digest, record: &Record) -> Result<(), PrepareErrorKind> {
        let pointer = Pointer { name: record.name.clone(), content: record.content };
        let text = serde_json::to_vec(&pointer).unwrap_or_default();
        let (fresh, path) = (build_dir.folder().join("pointer"), self.pointer_path(recipe));
        write_synced(&fresh, &text)?;
        fs::rename(&fresh, &path).map_err(PrepareErrorKind::io("write", &path))?;
        sync(&self.root.join("recipes"))
    }

    /// Removes content no recipe points to, unless a guest uses it: then it stays until the next time.
    fn retire(&self, build_dir: &BuildDir, content: Digest) {
        let Ok(_lock) = self.lock() else { return };
        let folder = self.image(content);
        let Ok(file) = File::open(&folder) else { return };
        if !lock::try_exclusive(&file).unwrap_or(false) || self.is_pointed_to(content) {
            return;
        }
        // Removed with the build directory.
        let _ = fs::rename(&folder, build_dir.folder().join(format!("retired-{}", content.hex())));
    }

    /// Removes content that no recipe points to and nobody uses: a build was killed before it could point to it, or a guest used
    /// it when it was replaced. Errors are ignored: garbage must not prevent the use of the store.
    fn forget_unreachable(&self) {
        let names = fs::read_dir(&self.images).into_iter().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let contents = names.filter_map(|name| format!("sha256:{name}").parse().ok());
        let unreachable: Vec<Digest> = contents.filter(|content| !self.is_pointed_to(*content)).collect();
        if unreachable.is_empty() {
            return;
        }
        let build_dir = {
            let Ok(_lock) = self.lock() else { return };
            BuildDir::create(&self.builds())
        };
        let Ok(build_dir) = build_dir else { return };
        unreachable.into_iter().for_each(|content| self.retire(&build_dir, content));
    }

    /// Disks in the store of images with this name, of any recipe.
    fn copies(&self, name: &str) -> Vec<PathBuf> {
        let pointers = fs::read_dir(self.root.join("recipes")).into_iter().flatten().flatten();
        let pointers =
            pointers.filter_map(|entry| serde_json::from_slice::<Pointer>(&fs::read(entry.path()).ok()?).ok());
        let folders = pointers.filter(|pointer| pointer.name == name).map(|pointer| self.image(pointer.content));
        folders.filter_map(|folder| Some(Record::read(&folder).ok()?.files.first()?.path(&folder))).collect()
    }

    /// True if a recipe was last built to this content. If unreadable, it counts as true, so the content stays.
    pub(crate) fn is_pointed_to(&self, content: Digest) -> bool {
        let Ok(pointers) = fs::read_dir(self.root.join("recipes")) else { return true };
        pointers.into_iter().any(|entry| {
            let Ok(path) = entry.map(|entry| entry.path()) else { return true };
            if path.extension().is_none_or(|extension| extension != "json") {
                return false;
            }
            match fs::read(&path) {
                Ok(text) => serde_json::from_slice::<Pointer>(&text).is_ok_and(|pointer| pointer.content == content),
                Err(error) => error.kind() != io::ErrorKind::NotFound,
            }
        })
    }

    /// The store's own lock, held briefly.
    fn lock(&self) -> io::Result<File> {
        self.own_lock().take()
    }

    pub(crate) fn own_lock(&self) -> StoreLock {
        StoreLock(self.root.join("lock"))
    }

    /// The path of an interrupted download for this recipe.
    pub(crate) fn part(&self, recipe: Digest) -> PathBuf {
        self.root.join("downloads").join(format!("{}.part", recipe.hex()))
    }

    pub(crate) fn builds(&self) -> PathBuf {
        self.root.join("builds")
    }

    pub(crate) fn image(&self, content: Digest) -> PathBuf {
        self.images.join(content.hex())
    }

    fn pointer_path(&self, recipe: Digest) -> PathBuf {
        self.root.join("recipes").join(format!("{}.json", recipe.hex()))
    }
}

/// The lock that is held while folders of the store are renamed.
#[derive(Clone, Debug)]
pub(crate) struct StoreLock(PathBuf);

impl StoreLock {
    /// Held until the file is dropped.
    pub(crate) fn take(&self) -> io::Result<File> {
        let file = lock::open(&self.0)?;
        if lock::exclusive_within(&file, LOCK_TIMEOUT)? {
            return Ok(file);
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "timeout: another process holds its lock"))
    }
}

fn default_root(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<PathBuf, StoreError> {
    let set = |name: &str| variable(name).filter(|value| !value.as_os_str().is_empty());
    // The XDG base directory specification: relative paths are ignored.
    let absolute = |name: &str| set(name).filter(|path| path.is_absolute());
    set("NESTMATRIX_STORE")
        .or_else(|| absolute("XDG_CACHE_HOME").map(|cache| cache.join("nestmatrix")))
        .or_else(|| absolute("HOME").map(|home| home.join(".cache/nestmatrix")))
        .ok_or_else(|| StoreError { path: PathBuf::from("?"), kind: StoreErrorKind::Nowhere })
}

fn store_error(root: &Path, action: String, source: io::Error) -> StoreErrorKind {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StoreErrorKind::DiskFull { free: space::free(root).unwrap_or(0) }
        }
        _ => StoreErrorKind::Io { action, source },
    }
}

/// Writes the record, makes every file read-only and the folder accessible, and syncs all of it.
fn seal(folder: &Path, record: &Record) -> Result<(), PrepareErrorKind> {
    let text = serde_json::to_vec_pretty(record).unwrap_or_default();
    write_synced(&folder.join(RECORD), &text)?;
    let ours = record.files.iter().filter(|file| file.at.is_none()).map(|file| file.name.as_str());
    for name in ours.chain([RECORD]) {
        let path = folder.join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).map_err(PrepareErrorKind::io("seal", &path))?;
        sync(&path)?;
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
        .map_err(PrepareErrorKind::io("set the mode of", folder))?;
    sync(folder)
}

fn write_synced(path: &Path, text: &[u8]) -> Result<(), PrepareErrorKind> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(text)?;
        file.sync_all()
    };
    write().map_err(PrepareErrorKind::io("write", path))
}

fn sync(path: &Path) -> Result<(), PrepareErrorKind> {
    File::open(path).and_then(|file| file.sync_all()).map_err(PrepareErrorKind::io("sync", path))
}

#[cfg(test)]
mod tests;
