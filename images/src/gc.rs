//! Finds what is no longer needed in a store, and removes it on request.
//!
//! What is in use stays: images are leased, downloads and builds hold the lock of their recipe, templates are leased too.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use matrix::{ByteSize, Digest};

use crate::{
    Entry, build,
    build_dir::BuildDir,
    lock, prepared, space,
    store::{Pointer, Store},
    templates::TemplateError,
};

/// What to keep.
#[derive(Clone, Debug)]
pub struct Keep {
    /// Images of these, pinned or not.
    pub entries: Vec<Entry>,
    /// Images used within this time.
    pub unused: Duration,
    /// Frozen guests.
    pub templates: bool,
}

/// Something that is no longer needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Garbage {
    /// What it is, for people.
    pub what: String,
    /// Where it is, or was.
    pub path: PathBuf,
    /// What it takes on the disk, in bytes.
    pub bytes: u64,
}

/// The result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// What is not needed; removed, unless it was a dry run.
    pub garbage: Vec<Garbage>,
    /// The same, but in use.
    pub in_use: Vec<Garbage>,
}

impl Collected {
    /// Size of all garbage on the disk, in bytes.
    pub fn bytes(&self) -> u64 {
        self.garbage.iter().map(|garbage| garbage.bytes).sum()
    }

    fn add(&mut self, gone: bool, garbage: Garbage) {
        if gone { self.garbage.push(garbage) } else { self.in_use.push(garbage) }
    }
}

impl Store {
    /// Removes garbage, or only lists it (`dry`).
    ///
    /// # Errors
    ///
    /// Templates are to be removed, and cannot be read.
    pub fn gc(&self, keep: &Keep, dry: bool) -> Result<Collected, TemplateError> {
        let mut collected = Collected::default();
        self.images(keep, dry, &mut collected);
        self.downloads(dry, &mut collected);
        self.locks(dry, &mut collected);
        if !keep.templates {
            let templates = self.templates(ByteSize::from_bytes(0))?;
            for (path, bytes, gone) in templates.clear(dry) {
                collected.add(gone, Garbage { what: "frozen guest".to_owned(), path, bytes });
            }
        }
        Ok(collected)
    }

    fn images(&self, keep: &Keep, dry: bool, collected: &mut Collected) {
        let named: HashSet<String> = keep.entries.iter().map(|entry| build::recipe(entry).hex()).collect();
        for (path, pointer) in self.pointers() {
            let is_named = path.file_stem().is_some_and(|stem| named.contains(&*stem.to_string_lossy()));
            if is_named || age(&path) < keep.unused {
                continue;
            }
            let days = age(&path).as_secs() / 86_400;
            let what = format!("image {}, unused for {days} days", pointer.name);
            let folder = self.image(pointer.content);
            let bytes = space::taken(&folder);
            let gone = self.remove_image(&path, pointer.content, dry);
            collected.add(gone, Garbage { what, path: folder, bytes });
        }
    }

    /// The content of each recipe, with its pointer file. A torn pointer is rebuilt on demand.
    pub(crate) fn pointers(&self) -> Vec<(PathBuf, Pointer)> {
        let paths = files(&self.root().join("recipes"), "json").into_iter();
        paths
            .filter_map(|path| Some((serde_json::from_slice(&fs::read(&path).ok()?).ok()?, path)))
            .map(|(pointer, path)| (path, pointer))
            .collect()
    }

    /// Removes a recipe's pointer, and its content if no other recipe has it. `false`: it is in use.
    fn remove_image(&self, pointer: &Path, content: Digest, dry: bool) -> bool {
        let Some(_making) = alone(&pointer.with_extension("lock")) else { return false };
        let folder = self.image(content);
        let build_dir = {
            let Ok(_lock) = self.own_lock().take() else { return false };
            // Held until it has lost its name, so that nobody starts to use it in between.
            let lease = File::open(&folder);
            if lease.as_ref().is_ok_and(|lease| !lock::try_exclusive(lease).unwrap_or(false)) {
                return false;
            }
            if dry {
                return true;
            }
            let Ok(build_dir) = BuildDir::create(&self.builds()) else { return false };
            if fs::remove_file(pointer).is_err() {
                return false;
            }
            if lease.is_ok() && !self.is_pointed_to(content) {
                let _ = fs::rename(&folder, build_dir.folder().join("discarded"));
            }
            build_dir
        };
        // Removed with the build directory, which takes time; the store's lock is free by then.
        drop(build_dir);
        true
    }

    fn downloads(&self, dry: bool, collected: &mut Collected) {
        let all = fs::read_dir(self.root().join("downloads")).into_iter().flatten().flatten();
        for path in all.map(|entry| entry.path()).filter(|path| path.is_file()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let recipe = name.split('.').next().unwrap_or_default();
            let making = alone(&self.root().join("recipes").join(format!("{recipe}.lock")));
            let bytes = space::taken(&path);
            let gone = making.is_some() && (dry || fs::remove_file(&path).is_ok());
            collected.add(gone, Garbage { what: "interrupted download".to_owned(), path, bytes });
        }
    }

    /// Lock files of recipes without a content that nobody builds.
    fn locks(&self, dry: bool, collected: &mut Collected) {
        for path in files(&self.root().join("recipes"), "lock") {
            if path.with_extension("json").exists() {
                continue;
            }
            let Some(Some(held)) = alone(&path) else { continue };
            if prepared::is_at(&held, &path) && (dry || fs::remove_file(&path).is_ok()) {
                collected.add(true, Garbage { what: "unused lock file".to_owned(), path, bytes: 0 });
            }
        }
    }
}

/// A lock file that nobody else holds, now held, or missing; `None`: it is in use.
fn alone(path: &Path) -> Option<Option<File>> {
    match File::open(path) {
        Ok(file) => lock::try_exclusive(&file).unwrap_or(false).then_some(Some(file)),
        Err(error) => (error.kind() == io::ErrorKind::NotFound).then_some(None),
    }
}

/// The files of a folder with this suffix, sorted.
pub(crate) fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    files.sort();
    files
}

/// Time since it was last used or written.
fn age(path: &Path) -> Duration {
    let modified = fs::metadata(path).and_then(|found| found.modified());
    modified.ok().and_then(|modified| SystemTime::now().duration_since(modified).ok()).unwrap_or_default()
}
