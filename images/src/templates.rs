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

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    time::SystemTime,
};

use matrix::{ByteSize, Digest};
use rayon::prelude::*;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    lock::{self, Waited},
    prepared,
    site::{self, Site},
    space,
    store::{Store, StoreLock},
};

/// Raised when the layout of a template changes.
const FORMAT: u32 = 1;
const RECORD: &str = "template.json";
const USED: &str = "used";
/// It is of no use and waits until those who use it nevertheless are done.
const BAD: &str = "bad";
/// Files are digested in pieces of this size; those of nothing but zeros are passed over, and holes are not even read.
const PIECE: u64 = 1 << 20;

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
    site: Site,
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

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record<T> {
    format: u32,
    key: Digest,
    files: Vec<FileRecord>,
    note: T,
    /// Digest of all that stands above.
    seal: Digest,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRecord {
    name: String,
    bytes: u64,
    digest: Digest,
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
        let made = fs::create_dir_all(&folder).and_then(|()| site::only_ours(&folder));
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
        match check(&folder, key, self.trusting) {
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
        if let Err(error) = space::require(&[(&self.folder, bytes)]) {
            let (taken, free) = (self.bytes(), space::free(&self.folder).unwrap_or(0));
            let missing = bytes.saturating_sub(free);
            // What would not help is not thrown away.
            if taken >= missing {
                self.evict(taken - missing, None);
            }
            space::require(&[(&self.folder, bytes)])
                .map_err(|_| at(&self.folder)(io::Error::new(io::ErrorKind::StorageFull, error.to_string())))?;
        }
        let site = {
            let _lock = self.lock.take().map_err(at(&self.folder))?;
            Site::create(&self.builds).map_err(|error| at(&self.builds)(io::Error::other(error.to_string())))?
        };
        Ok(Begun::Free(Unfinished { key, site, _making: making }))
    }

    /// Puts a finished template into the store. Others that were not used for the longest time go, until all fit again.
    ///
    /// # Errors
    ///
    /// It cannot be read, or not be moved.
    pub fn publish<T: Serialize>(&self, unfinished: Unfinished, note: T) -> Result<Template<T>, TemplateError> {
        let Unfinished { key, site, _making } = unfinished;
        let (from, to) = (site.image(), self.place(key));
        let files = take_down(&from).map_err(at(&from))?;
        let seal = seal(key, &files, &note);
        let record = Record { format: FORMAT, key, files, note, seal };
        let text = serde_json::to_vec_pretty(&record).map_err(|error| at(&from)(error.into()))?;
        for (name, text) in [(RECORD, text.as_slice()), (USED, &[])] {
            let path = from.join(name);
            File::create(&path).and_then(|mut file| file.write_all(text)).map_err(at(&path))?;
        }
        let lease = {
            let _lock = self.lock.take().map_err(at(&self.folder))?;
            if to.exists() {
                fs::rename(&to, site.folder().join("replaced")).map_err(at(&to))?;
            }
            fs::rename(&from, &to).map_err(at(&to))?;
            prepared::lease(&to).ok_or_else(|| at(&to)(io::ErrorKind::NotFound.into()))?
        };
        self.evict(self.limit.bytes(), Some(&to));
        self.sweep_locks();
        Ok(Template { folder: to, note: record.note, lease })
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
            let files = fs::read_dir(&folder).into_iter().flatten().flatten();
            let bytes = files.filter_map(|file| file.metadata().ok()).map(|found| found.blocks() * 512).sum();
            (folder, used.unwrap_or(SystemTime::UNIX_EPOCH), bytes)
        });
        known.collect()
    }

    /// Removes the least recently used that nobody uses now, until the rest takes no more than `limit`.
    fn evict(&self, limit: u64, spared: Option<&Path>) {
        let mut all = self.all();
        all.sort_by_key(|(_, used, _)| *used);
        let mut sum: u64 = all.iter().map(|(_, _, bytes)| bytes).sum();
        for (folder, _, bytes) in all {
            if sum <= limit {
                return;
            }
            if Some(folder.as_path()) == spared {
                continue;
            }
            let Ok(file) = File::open(&folder) else { continue };
            // Held until it has lost its name: nobody begins to use it in between.
            if lock::try_exclusive(&file).unwrap_or(false) && self.remove(&folder, &file) {
                sum -= bytes;
            }
        }
    }

    /// Removes a folder that is locked, as `held`, for us alone.
    fn remove(&self, folder: &Path, held: &File) -> bool {
        let site = {
            let Ok(_lock) = self.lock.take() else { return false };
            if !is_at(held, folder) {
                return false;
            }
            let Ok(site) = Site::create(&self.builds) else { return false };
            if fs::rename(folder, site.folder().join("discarded")).is_err() {
                return false;
            }
            site
        };
        // With the site it is removed, which takes its time; the store's lock is free by then.
        drop(site);
        true
    }
}

impl Unfinished {
    /// Where its files go: no folders, no links.
    pub fn folder(&self) -> PathBuf {
        self.site.image()
    }
}

/// What its maker noted, if every file is what it was.
fn check<T: DeserializeOwned + Serialize>(folder: &Path, key: Digest, trusting: bool) -> Result<T, String> {
    if folder.join(BAD).exists() {
        return Err(format!("{} was given up", folder.display()));
    }
    let path = folder.join(RECORD);
    let text = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let record: Record<T> = serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    if record.format != FORMAT || record.key != key {
        return Err(format!("{} is the record of another template", path.display()));
    }
    if record.seal != seal(key, &record.files, &record.note) {
        return Err(format!("{} is damaged", path.display()));
    }
    record.files.par_iter().try_for_each(|file| {
        let path = folder.join(&file.name);
        if trusting && fs::symlink_metadata(&path).is_ok_and(|found| found.is_file() && found.len() == file.bytes) {
            return Ok(());
        }
        let found = FileRecord::of(&path, &file.name).map_err(|error| format!("{}: {error}", path.display()))?;
        if found == *file {
            return Ok(());
        }
        let what = if found.bytes == file.bytes {
            format!("its content is {}, not {}", found.digest.short(), file.digest.short())
        } else {
            format!("it has {} bytes, not {}", found.bytes, file.bytes)
        };
        Err(format!("{} is damaged: {what}", path.display()))
    })?;
    Ok(record.note)
}

impl<T> Template<T> {
    /// Whether its files are still what its folder's name stands for: whoever found it damaged has made it anew meanwhile.
    pub fn is_in_place(&self) -> bool {
        is_at(&self.lease, &self.folder)
    }
}

/// Whether the folder still has this name: another may have been put in its place.
fn is_at(folder: &File, name: &Path) -> bool {
    let found = folder.metadata().and_then(|here| Ok((here, fs::metadata(name)?)));
    found.is_ok_and(|(here, there)| here.dev() == there.dev() && here.ino() == there.ino())
}

fn seal<T: Serialize>(key: Digest, files: &[FileRecord], note: &T) -> Digest {
    Digest::of(&serde_json::to_vec(&(FORMAT, key, files, note)).unwrap_or_default())
}

fn take_down(folder: &Path) -> io::Result<Vec<FileRecord>> {
    let mut files = fs::read_dir(folder)?
        .map(|entry| {
            let entry = entry?;
            FileRecord::of(&entry.path(), &entry.file_name().to_string_lossy())
        })
        .collect::<io::Result<Vec<_>>>()?;
    files.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(files)
}

impl FileRecord {
    fn of(path: &Path, name: &str) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        if !found.is_file() {
            return Err(io::Error::other("not a file"));
        }
        let bytes = found.len();
        Ok(Self { name: name.to_owned(), bytes, digest: digest(path, bytes)? })
    }
}

/// Digest of a file that may be mostly holes: of the places and digests of its pieces that are not all zeros.
fn digest(path: &Path, bytes: u64) -> io::Result<Digest> {
    let pieces = written(&File::open(path)?, bytes)?;
    let lines = pieces
        .into_par_iter()
        .map(|start| {
            let mut piece = vec![0; usize::try_from(PIECE.min(bytes - start)).unwrap_or_default()];
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(start))?;
            file.read_exact(&mut piece)?;
            let zero = piece.iter().all(|&byte| byte == 0);
            Ok(if zero { String::new() } else { format!("{start} {}\n", Digest::of(&piece)) })
        })
        .collect::<io::Result<Vec<String>>>()?;
    Ok(Digest::of(format!("{bytes}\n{}", lines.concat()).as_bytes()))
}

/// Where the pieces begin that are not holes altogether.
fn written(file: &File, bytes: u64) -> io::Result<Vec<u64>> {
    let mut pieces = Vec::new();
    let mut offset = 0;
    while offset < bytes {
        match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(offset)) {
            Ok(data) => {
                let start = data - data % PIECE;
                pieces.push(start);
                offset = start + PIECE;
            }
            // Nothing but a hole until the end.
            Err(rustix::io::Errno::NXIO) => break,
            // A file system that knows no holes.
            Err(rustix::io::Errno::INVAL) => {
                pieces.push(offset);
                offset += PIECE;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicBool, time::Duration};

    use super::*;
    use crate::alone::{Alone, alone};

    struct Fixture {
        store: tempfile::TempDir,
        _alone: Alone,
    }

    impl Fixture {
        fn new() -> Self {
            Self { _alone: alone(), store: tempfile::tempdir().expect("temporary folder") }
        }

        fn templates(&self, limit: u64) -> Templates {
            let store = Store::open(self.store.path()).expect("store");
            store.templates(ByteSize::from_bytes(limit)).expect("templates")
        }

        fn begin(&self, key: Digest) -> Begun<u32> {
            self.templates(1 << 30).begin(key, 0, &AtomicBool::new(false), &|_| {}).expect("begun")
        }

        /// Makes one with a memory of 8 MiB that is mostly a hole.
        fn make(&self, templates: &Templates, name: &str) -> Digest {
            let key = Digest::of(name.as_bytes());
            let Begun::Free(unfinished) = self.begin(key) else { panic!("it is there") };
            let ram = File::create(unfinished.folder().join("ram")).expect("file");
            ram.set_len(8 << 20).expect("length");
            std::os::unix::fs::FileExt::write_all_at(&ram, &[7; 300_000], 3 << 20).expect("content");
            fs::write(unfinished.folder().join("state"), name).expect("file");
            templates.publish(unfinished, 7_u32).expect("published");
            key
        }
    }

    #[test]
    fn what_was_put_there_is_found_with_what_was_noted() {
        let fixture = Fixture::new();
        let templates = fixture.templates(1 << 30);
        assert!(templates.find::<u32>(Digest::of(b"a")).expect("nothing wrong").is_none());
        let key = fixture.make(&templates, "a");
        let found = templates.find::<u32>(key).expect("sound").expect("there");
        assert_eq!(found.note, 7);
        assert_eq!(fs::read(found.folder.join("state")).expect("file"), b"a");
        assert!(matches!(fixture.begin(key), Begun::Found(_)));
    }

    #[test]
    fn what_was_cut_short_flipped_grown_or_swapped_is_not_used_and_gone() {
        type Harm = fn(&Path);
        let harms: [(&str, Harm); 7] = [
            ("has 3 bytes", |folder| fs::write(folder.join("ram"), "cut").expect("file")),
            ("content", |folder| {
                let ram = File::options().write(true).open(folder.join("ram")).expect("file");
                let before = ram.metadata().expect("metadata").modified().expect("time");
                std::os::unix::fs::FileExt::write_all_at(&ram, &[6], (3 << 20) + 5).expect("one byte");
                ram.set_modified(before).expect("time");
            }),
            // In what was a hole.
            ("content", |folder| {
                let ram = File::options().write(true).open(folder.join("ram")).expect("file");
                std::os::unix::fs::FileExt::write_all_at(&ram, &[1], 7 << 20).expect("one byte");
            }),
            ("No such file", |folder| fs::remove_file(folder.join("state")).expect("removed")),
            ("not a file", |folder| {
                fs::rename(folder.join("state"), folder.join("elsewhere")).expect("moved");
                std::os::unix::fs::symlink("elsewhere", folder.join("state")).expect("link");
            }),
            ("template.json is damaged", |folder| {
                let text = fs::read_to_string(folder.join(RECORD)).expect("record");
                fs::write(folder.join(RECORD), text.replace("\"note\": 7", "\"note\": 8")).expect("record");
            }),
            ("another template", |folder| {
                let text = fs::read_to_string(folder.join(RECORD)).expect("record");
                let key = folder.file_name().expect("name").to_string_lossy().into_owned();
                fs::write(folder.join(RECORD), text.replace(&key, &Digest::of(b"other").hex())).expect("record");
            }),
        ];
        for (words, harm) in harms {
            let fixture = Fixture::new();
            let templates = fixture.templates(1 << 30);
            let key = fixture.make(&templates, "a");
            harm(&templates.place(key));
            let said = templates.find::<u32>(key).expect_err(words);
            assert!(said.contains(words), "{said}");
            assert!(!templates.place(key).exists());
            assert!(matches!(fixture.begin(key), Begun::Free(_)), "it can be made again");
        }
    }

    #[test]
    fn who_trusts_looks_at_sizes_alone() {
        let fixture = Fixture::new();
        let templates = fixture.templates(1 << 30).trusting();
        let key = fixture.make(&templates, "a");
        let ram = templates.place(key).join("ram");
        std::os::unix::fs::FileExt::write_all_at(&File::options().write(true).open(&ram).expect("file"), &[6], 3 << 20)
            .expect("one byte");
        templates.find::<u32>(key).expect("taken as it is").expect("there");
        fs::write(&ram, "cut").expect("file");
        templates.find::<u32>(key).expect_err("cut short");
    }

    #[test]
    fn a_template_that_is_not_published_leaves_nothing() {
        let fixture = Fixture::new();
        let templates = fixture.templates(1 << 30);
        let Begun::Free(unfinished) = fixture.begin(Digest::of(b"a")) else { panic!("it is there") };
        fs::write(unfinished.folder().join("ram"), "half").expect("file");
        drop(unfinished);
        assert_eq!(fs::read_dir(fixture.store.path().join("builds")).expect("folder").count(), 0);
        assert!(templates.find::<u32>(Digest::of(b"a")).expect("nothing wrong").is_none());
    }

    #[test]
    fn one_template_is_made_by_one_at_a_time() {
        let fixture = Fixture::new();
        let key = Digest::of(b"a");
        let Begun::Free(first) = fixture.begin(key) else { panic!("it is there") };
        let waits = std::sync::atomic::AtomicU32::new(0);
        let (templates, cancel) = (fixture.templates(1 << 30), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let second = scope.spawn(|| {
                let waiting = |holder: Option<u32>| {
                    assert_eq!(holder, Some(std::process::id()));
                    waits.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                };
                templates.begin::<u32>(key, 0, &cancel, &waiting).expect("begun")
            });
            while waits.load(std::sync::atomic::Ordering::Relaxed) == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
            fixture.templates(1 << 30).publish(first, 1_u32).expect("published");
            assert!(matches!(second.join().expect("no panic"), Begun::Found(template) if template.note == 1));
        });
    }

    #[test]
    fn the_least_recently_used_goes_first_and_nothing_that_is_in_use() {
        let fixture = Fixture::new();
        // Each takes some 300 KiB: two fit.
        let templates = fixture.templates(800_000);
        let (a, b) = (fixture.make(&templates, "a"), fixture.make(&templates, "b"));
        let long_ago = SystemTime::now() - Duration::from_secs(1000);
        File::open(templates.place(b).join(USED)).and_then(|file| file.set_modified(long_ago)).expect("time");
        let c = fixture.make(&templates, "c");
        let there = |key| templates.place(key).exists();
        assert_eq!((there(a), there(b), there(c)), (true, false, true));
        let held = templates.find::<u32>(a).expect("sound").expect("there");
        File::open(held.folder.join(USED)).and_then(|file| file.set_modified(long_ago)).expect("time");
        let d = fixture.make(&templates, "d");
        assert_eq!((there(a), there(c), there(d)), (true, false, true), "the oldest is in use");
        assert!(templates.bytes() <= 800_000);
    }

    #[test]
    fn what_is_given_up_while_others_use_it_is_found_by_nobody_and_keeps_its_place_until_it_is_made_anew() {
        let fixture = Fixture::new();
        let templates = fixture.templates(1 << 30);
        let key = fixture.make(&templates, "a");
        let find = || templates.find::<u32>(key);
        let (used, bad) = (find().expect("sound").expect("there"), find().expect("sound").expect("there"));
        templates.discard(&bad);
        drop(bad);
        assert!(used.folder.join("state").exists() && used.is_in_place(), "it is used");
        assert!(find().expect_err("given up").contains("given up"));
        fixture.make(&templates, "a");
        find().expect("sound").expect("made anew");
        assert!(!used.is_in_place(), "another one has its name");
        // The late word of somebody who used the old one takes nothing from those who use the new one.
        templates.discard(&used);
        find().expect("sound").expect("still there");
    }

    #[test]
    fn locks_of_templates_that_are_gone_go_as_well_but_none_that_is_held() {
        let fixture = Fixture::new();
        let templates = fixture.templates(1 << 30);
        let lock = |name: &str| templates.folder.join(format!("{}.lock", Digest::of(name.as_bytes()).hex()));
        let gone = fixture.make(&templates, "gone");
        let held = fixture.begin(Digest::of(b"held"));
        fs::remove_dir_all(templates.place(gone)).expect("removed");
        fixture.make(&templates, "new");
        assert_eq!((lock("gone").exists(), lock("held").exists(), lock("new").exists()), (false, true, true));
        drop(held);
        assert!(matches!(fixture.begin(gone), Begun::Free(_)), "it can be made again");
    }

    #[test]
    fn where_there_is_no_room_it_is_said() {
        let fixture = Fixture::new();
        let templates = fixture.templates(1 << 30);
        let key = fixture.make(&templates, "a");
        let wants = templates.begin::<u32>(Digest::of(b"b"), u64::MAX, &AtomicBool::new(false), &|_| {});
        assert!(wants.expect_err("nobody has that much").to_string().contains("bytes"));
        assert!(templates.place(key).exists(), "what would not help is not thrown away");
    }
}
