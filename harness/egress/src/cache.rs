//! What was fetched, by its digest: for all guests and runs, of all processes that use one store.
//!
//! ```text
//! content/<digest>   one file's content, never changed
//! index/<digest>     what a URL (the digest is that of its text) had when it was last asked, as JSON
//! new/               downloads in progress
//! ```
//!
//! Nothing half-written has a final name. What is over the limit goes, least recently used first; a file that is being read keeps
//! its content until it is closed.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use matrix::Digest;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

/// A file counts as used at most this often, so that reading it need not write.
const TOUCH: Duration = Duration::from_secs(60);
/// Downloads that nobody wrote to for so long belong to a process that is gone.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);
/// What an eviction leaves, of the limit: otherwise each file that comes would look through all of them.
const KEPT: (u64, u64) = (9, 10);
/// What an entry of the index takes of the limit, in bytes: a block of a disk. A guest can make many of one content.
const ENTRY: u64 = 4096;
/// Largest entry of the index that is read.
const LONGEST_ENTRY: u64 = 64 * 1024;

/// The cache.
#[derive(Debug)]
pub(crate) struct Cache {
    root: PathBuf,
    limit: u64,
    /// Bytes of content and index, as far as this process knows; counted when something is first put there.
    size: Mutex<Option<u64>>,
    /// Bytes of this process's downloads in progress, which have the same limit.
    coming: Arc<AtomicU64>,
}

/// A download in progress. Dropped: its file is gone.
pub(crate) struct Download {
    file: NamedTempFile,
    limit: u64,
    share: Share,
}

/// What a download has of what all downloads may have.
struct Share {
    bytes: u64,
    of: Arc<AtomicU64>,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Download {
    /// Writes what comes next.
    ///
    /// # Errors
    ///
    /// It cannot be written, or the downloads in progress have as many bytes as the cache may have.
    pub(crate) fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        let size = piece.len() as u64;
        self.share.bytes += size;
        if self.share.of.fetch_add(size, Ordering::Relaxed) + size > self.limit {
            return Err(io::Error::other(format!("the limit of all downloads in progress is {} bytes", self.limit)));
        }
        self.file.write_all(piece)
    }

    /// What was written, for others.
    ///
    /// # Errors
    ///
    /// It cannot be opened.
    pub(crate) fn reader(&self) -> io::Result<File> {
        self.file.reopen()
    }
}

/// What a URL had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The URL.
    pub(crate) url: String,
    /// Digest of the content.
    pub(crate) digest: Digest,
    /// Its size in bytes.
    pub(crate) bytes: u64,
    /// The server's own words for it, with which it can be asked whether it is still the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) etag: Option<String>,
    /// When the server says that it was last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_modified: Option<String>,
    /// Its media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) content_type: Option<String>,
    /// When the server last said that this is what it has.
    pub(crate) checked: jiff::Timestamp,
}

fn content_file(root: &Path, digest: Digest) -> PathBuf {
    root.join("content").join(digest.hex())
}

/// What the cache in this folder has of this digest, if that is right and has no more bytes than this.
pub fn cached(root: &Path, digest: Digest, largest: u64) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    File::open(content_file(root, digest)).ok()?.take(largest + 1).read_to_end(&mut content).ok()?;
    (content.len() as u64 <= largest && Digest::of(&content) == digest).then_some(content)
}

impl Cache {
    /// The cache in this folder, which is created if needed; `limit`: of its content, in bytes.
    ///
    /// # Errors
    ///
    /// It cannot be created.
    pub(crate) fn open(root: &Path, limit: u64) -> io::Result<Self> {
        for folder in ["content", "index", "new"] {
            fs::create_dir_all(root.join(folder))?;
        }
        Ok(Self { root: root.to_owned(), limit, size: Mutex::new(None), coming: Arc::default() })
    }

    /// What is known of this URL, if its content is there.
    pub(crate) fn look(&self, url: &str) -> Option<Entry> {
        let path = self.entry(url);
        if fs::metadata(&path).ok()?.len() > LONGEST_ENTRY {
            return None;
        }
        let entry: Entry = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let there = fs::metadata(self.content(entry.digest)).is_ok_and(|file| file.len() == entry.bytes);
        (there && entry.url == url).then_some(entry)
    }

    /// Size of this content in bytes, if it is there, whatever URL it was got from.
    pub(crate) fn size(&self, digest: Digest) -> Option<u64> {
        fs::metadata(self.content(digest)).ok().map(|file| file.len())
    }

    /// The content; it counts as used now.
    ///
    /// # Errors
    ///
    /// It is gone.
    pub(crate) fn read(&self, digest: Digest) -> io::Result<File> {
        let file = File::open(self.content(digest))?;
        let age = file.metadata()?.modified()?.elapsed().unwrap_or(TOUCH);
        if age >= TOUCH {
            // Only the order of eviction depends on it.
            let _ = file.set_modified(SystemTime::now());
        }
        Ok(file)
    }

    /// A file to download into.
    ///
    /// # Errors
    ///
    /// It cannot be created.
    pub(crate) fn download(&self) -> io::Result<Download> {
        let share = Share { bytes: 0, of: Arc::clone(&self.coming) };
        Ok(Download { file: self.new_file()?, limit: self.limit, share })
    }

    fn new_file(&self) -> io::Result<NamedTempFile> {
        NamedTempFile::new_in(self.root.join("new"))
    }

    /// Keeps what was downloaded: under its digest, and as what the URL of the entry has.
    ///
    /// # Errors
    ///
    /// It cannot be written. Nothing half-written is found then.
    pub(crate) fn keep(&self, download: Download, entry: &Entry) -> io::Result<()> {
        let path = self.content(entry.digest);
        let is_known = || fs::metadata(&path).is_ok_and(|file| file.len() == entry.bytes);
        let content = if is_known() { 0 } else { entry.bytes };
        let noted = if self.entry(&entry.url).exists() { 0 } else { ENTRY };
        if content + noted > 0 {
            self.make_room(content + noted)?;
        }
        // Making room may have removed it.
        if !is_known() {
            download.file.as_file().sync_data()?;
            download.file.persist(&path).map_err(|error| error.error)?;
        }
        self.note(entry)
    }

    /// What the URL has, or still has.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub(crate) fn note(&self, entry: &Entry) -> io::Result<()> {
        let file = self.new_file()?;
        serde_json::to_writer(&file, entry)?;
        file.persist(self.entry(&entry.url)).map_err(|error| error.error)?;
        Ok(())
    }

    /// Removes content that is not what its name says.
    pub(crate) fn discard(&self, digest: Digest) {
        let _ = fs::remove_file(self.content(digest));
        *self.size.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Counts what comes, and removes what was not used for the longest time if it is too much.
    fn make_room(&self, bytes: u64) -> io::Result<()> {
        let mut size = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match *size {
            Some(known) => known,
            None => {
                let content: u64 = files(&self.root.join("content"))?.iter().map(|(.., bytes)| bytes).sum();
                content + ENTRY * files(&self.root.join("index"))?.len() as u64
            }
        };
        let wanted = known.saturating_add(bytes);
        *size = Some(if wanted <= self.limit { wanted } else { self.evict(bytes)?.saturating_add(bytes) });
        Ok(())
    }

    /// Removes until there is room for this much; what is left.
    fn evict(&self, bytes: u64) -> io::Result<u64> {
        let mut entries: HashMap<PathBuf, Vec<PathBuf>> = HashMap::new();
        for (_, path, _) in files(&self.root.join("index"))? {
            let entry = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Entry>(&text).ok());
            match entry.map(|entry| self.content(entry.digest)).filter(|content| content.exists()) {
                Some(content) => entries.entry(content).or_default().push(path),
                None => drop(fs::remove_file(path)),
            }
        }
        let mut contents = files(&self.root.join("content"))?;
        contents.sort();
        let with_entries = |path: &PathBuf, bytes: u64| bytes + ENTRY * entries.get(path).map_or(0, Vec::len) as u64;
        let mut left: u64 = contents.iter().map(|(_, path, bytes)| with_entries(path, *bytes)).sum();
        let most = (self.limit / KEPT.1 * KEPT.0).saturating_sub(bytes);
        for (_, path, bytes) in contents {
            if left <= most {
                break;
            }
            if fs::remove_file(&path).is_ok() {
                left = left.saturating_sub(with_entries(&path, bytes));
                entries.get(&path).into_iter().flatten().for_each(|entry| drop(fs::remove_file(entry)));
            }
        }
        for (used, path, _) in files(&self.root.join("new"))? {
            if used.elapsed().is_ok_and(|age| age > ABANDONED) {
                let _ = fs::remove_file(path);
            }
        }
        Ok(left)
    }

    fn content(&self, digest: Digest) -> PathBuf {
        content_file(&self.root, digest)
    }

    fn entry(&self, url: &str) -> PathBuf {
        self.root.join("index").join(Digest::of(url.as_bytes()).hex())
    }
}

/// The files of a folder: when each was last used, its path, its size.
fn files(folder: &Path) -> io::Result<Vec<(SystemTime, PathBuf, u64)>> {
    let listed = fs::read_dir(folder)?.flatten().filter_map(|entry| {
        let file = entry.metadata().ok()?;
        file.is_file().then(|| (file.modified().unwrap_or(SystemTime::UNIX_EPOCH), entry.path(), file.len()))
    });
    Ok(listed.collect())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    const K: usize = 1024;
    const LIMIT: u64 = 1 << 20;

    fn entry(url: &str, content: &[u8]) -> Entry {
        Entry {
            url: url.to_owned(),
            digest: Digest::of(content),
            bytes: content.len() as u64,
            etag: Some("\"1\"".to_owned()),
            last_modified: None,
            content_type: None,
            checked: "2026-11-29T00:00:00Z".parse().expect("a time"),
        }
    }

    fn downloaded(cache: &Cache, content: &[u8]) -> Download {
        let mut download = cache.download().expect("a file");
        for piece in content.chunks(50) {
            download.write(piece).expect("written");
        }
        download
    }

    fn keep(cache: &Cache, url: &str, content: &[u8]) {
        cache.keep(downloaded(cache, content), &entry(url, content)).expect("kept");
    }

    /// As if it was last used so long ago.
    fn age(cache: &Cache, content: &[u8], seconds: u64) {
        let file = File::open(cache.content(Digest::of(content))).expect("there");
        file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).expect("set");
    }

    #[test]
    fn what_was_kept_is_found_by_its_url_in_another_process_too() {
        let folder = tempfile::tempdir().expect("a folder");
        keep(&Cache::open(folder.path(), LIMIT).expect("opened"), "http://a/x", b"content");
        let again = Cache::open(folder.path(), LIMIT).expect("opened");
        assert_eq!(again.look("http://a/x"), Some(entry("http://a/x", b"content")));
        assert_eq!(again.look("http://a/y"), None);
        let mut text = String::new();
        again.read(Digest::of(b"content")).expect("there").read_to_string(&mut text).expect("read");
        assert_eq!(text, "content");
    }

    #[test]
    fn a_damaged_or_missing_content_is_not_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path(), LIMIT).expect("opened");
        keep(&cache, "http://a/x", b"content");
        fs::write(cache.content(Digest::of(b"content")), b"cont").expect("cut");
        assert_eq!(cache.look("http://a/x"), None);
        keep(&cache, "http://a/x", b"content");
        assert!(cache.look("http://a/x").is_some(), "it is fetched again");
        cache.discard(Digest::of(b"content"));
        assert_eq!(cache.look("http://a/x"), None);
        keep(&cache, "http://a/x", b"content");
        fs::write(cache.entry("http://a/x"), b"{").expect("damaged");
        assert_eq!(cache.look("http://a/x"), None);
    }

    #[test]
    fn what_was_not_used_for_the_longest_time_makes_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path(), 126 * K as u64).expect("opened");
        for (at, content) in [[b'1'; 30 * K], [b'2'; 30 * K], [b'3'; 30 * K]].iter().enumerate() {
            keep(&cache, &format!("http://a/{at}"), content);
            age(&cache, content, 1000 - 100 * at as u64);
        }
        cache.read(Digest::of(&[b'1'; 30 * K])).expect("there");
        keep(&cache, "http://a/3", &[b'4'; 30 * K]);
        let found = |at: usize| cache.look(&format!("http://a/{at}")).is_some();
        assert_eq!([0, 1, 2, 3].map(found), [true, false, true, true]);
        assert_eq!(
            fs::read_dir(folder.path().join("index")).expect("a folder").count(),
            3,
            "nothing points to nothing"
        );
        // As large as everything may be: it is kept alone, and goes with the next one.
        keep(&cache, "http://a/4", &[b'5'; 100 * K]);
        assert_eq!([0, 1, 2, 3, 4].map(found), [false, false, false, false, true]);
        keep(&cache, "http://a/5", &[b'6'; 30 * K]);
        assert_eq!([4, 5].map(found), [false, true]);
    }

    #[test]
    fn many_addresses_of_one_content_have_a_limit_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path(), 10 * ENTRY).expect("opened");
        for at in 0..100 {
            keep(&cache, &format!("http://a/{at}"), b"content");
            keep(&cache, &format!("http://a/{at}"), b"content");
        }
        let entries = fs::read_dir(folder.path().join("index")).expect("a folder").count();
        assert!((1..=10).contains(&entries), "{entries}");
        assert!(cache.look("http://a/99").is_some());
        let again = Cache::open(folder.path(), 10 * ENTRY).expect("opened");
        (100..110).for_each(|at| keep(&again, &format!("http://a/{at}"), b"content"));
        assert!(fs::read_dir(folder.path().join("index")).expect("a folder").count() <= 10);
    }

    #[test]
    fn what_is_being_read_stays_readable_when_it_is_evicted() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path(), 50 * K as u64).expect("opened");
        keep(&cache, "http://a/1", &[b'1'; 40 * K]);
        let mut reading = cache.read(Digest::of(&[b'1'; 40 * K])).expect("there");
        keep(&cache, "http://a/2", &[b'2'; 40 * K]);
        let mut content = Vec::new();
        reading.read_to_end(&mut content).expect("read");
        assert_eq!((content, cache.look("http://a/1")), (vec![b'1'; 40 * K], None));
    }
}
