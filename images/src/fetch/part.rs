//! The bytes of an incomplete download, kept for the next try and for the next process.
//!
//! ```text
//! <key>.part        the bytes
//! <key>.part.json   their origin; written before the first of them
//! ```

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    mem,
    path::{Path, PathBuf},
};

use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::{
    FetchError, Want,
    client::{Head, Request, shown},
    digests::{Digester, Digests},
    watch::{Stop, Watch},
};
use matrix::Checksum;

/// Bytes per read when kept bytes are digested again.
const CHUNK: usize = 256 << 10;

/// The origin of the bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Origin {
    /// The requested address, without a password.
    pub(super) url: String,
    pub(super) etag: Option<String>,
    pub(super) last_modified: Option<String>,
    /// Size of the whole file in bytes, if stated by the server.
    pub(super) bytes: Option<u64>,
    expects: Option<Checksum>,
    /// The boot in which they were written: bytes written before a power loss may not have reached the disk.
    boot: String,
}

impl Origin {
    pub(super) fn of(url: &Url, head: &Head, bytes: Option<u64>, want: &Want) -> Self {
        Self {
            url: shown(url),
            etag: head.etag.clone(),
            last_modified: head.last_modified.clone(),
            bytes,
            expects: want.digest,
            boot: boot(),
        }
    }

    /// What identifies this version of the file for the server. RFC 9110, 13.1.5: weak entity tags do not suffice.
    fn validator(&self) -> Option<&str> {
        let strong = self.etag.as_deref().filter(|tag| tag.starts_with('"'));
        strong.or(self.last_modified.as_deref())
    }
}

/// An incomplete file; the caller ensures exclusive use.
#[derive(Debug)]
pub(super) struct Part {
    path: PathBuf,
    file: File,
    length: u64,
    digester: Digester,
    expects: Option<Checksum>,
    origin: Option<Origin>,
    /// The bytes came in several answers.
    is_joined: bool,
    /// The most bytes that ever were there.
    most: u64,
    was_rejected: bool,
}

impl Part {
    /// Opens what was kept, if it is useful for `want`, and digests it; else begins empty.
    pub(super) fn open(path: &Path, want: &Want, watch: &Watch<'_>) -> Result<Self, Stop> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(FetchError::io("open", path))?;
        let length = file.metadata().map_err(FetchError::io("inspect", path))?.len();
        let digester = Digester::start(matches!(want.digest, Some(Checksum::Sha512(_))));
        let mut part = Self {
            path: path.to_owned(),
            file,
            length,
            digester,
            expects: want.digest,
            origin: None,
            is_joined: false,
            most: 0,
            was_rejected: false,
        };
        let kept = fs::read(part.notes()).ok().and_then(|text| serde_json::from_slice::<Origin>(&text).ok());
        let of_use = kept.filter(|origin| {
            // Without a checksum, lost bytes would go unnoticed.
            let is_sure = want.digest.is_some() || (origin.validator().is_some() && origin.boot == boot());
            length > 0 && is_sure && origin.expects == want.digest && origin.bytes.is_none_or(|bytes| length <= bytes)
        });
        match of_use {
            Some(origin) => {
                watch.report(&format!("checking {} MiB kept from before", length >> 20));
                part.digest_again(watch)?;
                part.origin = Some(origin);
                part.is_joined = true;
                part.most = length;
            }
            None => part.empty()?,
        }
        Ok(part)
    }

    fn digest_again(&mut self, watch: &Watch<'_>) -> Result<(), Stop> {
        let mut left = self.length;
        while left > 0 {
            watch.check()?;
            let mut chunk = vec![0; CHUNK.min(usize::try_from(left).unwrap_or(CHUNK))];
            self.file.read_exact(&mut chunk).map_err(FetchError::io("read", &self.path))?;
            left -= chunk.len() as u64;
            self.digester.update(chunk);
        }
        Ok(())
    }

    /// Where it is kept.
    pub(super) fn folder(&self) -> &Path {
        self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// Bytes that are there.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// The most bytes that ever were there: a restarted download brings nothing new up to there.
    pub(super) fn most(&self) -> u64 {
        self.most
    }

    /// Their origin; `None`: there are none.
    pub(super) fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// Discards wrong bytes; returns whether the same server may do better: bytes from several answers may be a mixture, once.
    pub(super) fn reject(&mut self) -> Result<bool, FetchError> {
        let may_be_mixed = self.is_joined && !self.was_rejected;
        self.empty()?;
        self.was_rejected = true;
        self.most = 0;
        Ok(may_be_mixed)
    }

    /// The request for the missing bytes at that address.
    pub(super) fn request(&self, url: &Url) -> Request {
        let whole = Request { url: url.clone(), offset: 0, validator: None };
        let Some(origin) = &self.origin else { return whole };
        // Another address has other entity tags; only a checksum shows whether it has the same file.
        let validator = if origin.url == shown(url) { origin.validator() } else { None };
        if validator.is_none() && self.expects.is_none() {
            return whole;
        }
        Request { url: url.clone(), offset: self.length, validator: validator.map(str::to_owned) }
    }

    /// Restarts with this origin.
    pub(super) fn begin(&mut self, origin: Origin) -> Result<(), FetchError> {
        self.empty()?;
        let notes = self.notes();
        let written = serde_json::to_vec(&origin).map_err(io::Error::other).and_then(|text| {
            let mut file = tempfile::NamedTempFile::new_in(self.folder())?;
            file.write_all(&text)?;
            file.persist(&notes)?;
            Ok(())
        });
        written.map_err(FetchError::io("write", &notes))?;
        self.origin = Some(origin);
        Ok(())
    }

    /// Continues at the end: the following bytes come in another answer.
    pub(super) fn go_on(&mut self) -> Result<(), FetchError> {
        self.is_joined = true;
        self.file.seek(SeekFrom::Start(self.length)).map_err(FetchError::io("read", &self.path))?;
        Ok(())
    }

    /// Appends bytes.
    pub(super) fn append(&mut self, chunk: Vec<u8>) -> Result<(), FetchError> {
        self.file.write_all(&chunk).map_err(FetchError::io("write", &self.path))?;
        self.length += chunk.len() as u64;
        self.most = self.most.max(self.length);
        self.digester.update(chunk);
        Ok(())
    }

    /// The digests of the bytes. Nothing can be appended any more.
    pub(super) fn digests(&mut self) -> Digests {
        let next = self.new_digester();
        mem::replace(&mut self.digester, next).finish()
    }

    fn new_digester(&self) -> Digester {
        Digester::start(matches!(self.expects, Some(Checksum::Sha512(_))))
    }

    /// Discards all bytes.
    pub(super) fn empty(&mut self) -> Result<(), FetchError> {
        let emptied = match self.length {
            0 => Ok(()),
            _ => self.file.set_len(0).and_then(|()| self.file.rewind()),
        };
        emptied.map_err(FetchError::io("empty", &self.path))?;
        let _ = fs::remove_file(self.notes());
        self.length = 0;
        self.digester = self.new_digester();
        self.origin = None;
        self.is_joined = false;
        Ok(())
    }

    /// For reading, from its beginning.
    pub(super) fn reader(&self) -> Result<File, FetchError> {
        File::open(&self.path).map_err(FetchError::io("open", &self.path))
    }

    /// Renames it, synced to the disk.
    pub(super) fn become_file(&self, path: &Path) -> Result<(), FetchError> {
        self.file.sync_all().map_err(FetchError::io("sync", &self.path))?;
        fs::rename(&self.path, path).map_err(FetchError::io("move", &self.path))
    }

    /// Removes it.
    pub(super) fn remove(self) {
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(self.notes());
    }

    /// Keeps what a later try can resume, and nothing else.
    pub(super) fn keep(self) {
        let is_of_use =
            self.origin.as_ref().is_some_and(|origin| self.expects.is_some() || origin.validator().is_some());
        if self.length > 0 && is_of_use {
            let _ = self.file.sync_all();
        } else {
            self.remove();
        }
    }

    fn notes(&self) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(".json");
        path.into()
    }
}

/// The id of this boot.
fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use matrix::Digest;

    use super::*;
    use crate::{Control, fetch::Limits};

    /// Keeps `bytes` of a file with that entity tag, changes the notes, and returns how the rest is requested later.
    fn asked_later(digest: Option<Checksum>, etag: &str, change: impl Fn(String) -> String) -> Request {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("key.part");
        let (limits, cancel) = (Limits::default(), AtomicBool::new(false));
        let control = Control { refresh: false, cancel: &cancel, progress: &|_| {} };
        let watch = Watch::start(&limits, &control);
        let url = Url::parse("http://mirror.test/file").expect("address");
        let want = Want { urls: vec![url.to_string()], digest, bytes: None };
        let head = Head { etag: Some(etag.to_owned()), ..Head::default() };
        let mut part = Part::open(&path, &want, &watch).expect("part");
        part.begin(Origin::of(&url, &head, Some(10), &want)).expect("begun");
        part.append(b"abc".to_vec()).expect("room");
        part.keep();
        let notes = folder.path().join("key.part.json");
        if let Ok(text) = fs::read_to_string(&notes) {
            fs::write(&notes, change(text)).expect("notes");
        }
        Part::open(&path, &want, &watch).expect("part").request(&url)
    }

    fn any_checksum() -> Option<Checksum> {
        Some(Digest::of(b"").into())
    }

    #[test]
    fn the_rest_is_asked_for_of_the_same_file_only() {
        let request = asked_later(any_checksum(), "\"v1\"", |notes| notes);
        assert_eq!((request.offset, request.validator.as_deref()), (3, Some("\"v1\"")));
        let request = asked_later(None, "\"v1\"", |notes| notes);
        assert_eq!((request.offset, request.validator.as_deref()), (3, Some("\"v1\"")));
    }

    #[test]
    fn a_weak_tag_proves_nothing_where_there_is_no_checksum() {
        let request = asked_later(any_checksum(), "W/\"v1\"", |notes| notes);
        assert_eq!((request.offset, request.validator), (3, None));
        assert_eq!(asked_later(None, "W/\"v1\"", |notes| notes).offset, 0);
    }

    #[test]
    fn without_a_checksum_what_a_power_cut_may_have_spoiled_is_not_used() {
        let other_boot = |notes: String| notes.replace(&boot(), "another");
        assert_eq!(asked_later(None, "\"v1\"", other_boot).offset, 0);
        assert_eq!(asked_later(any_checksum(), "\"v1\"", other_boot).offset, 3);
    }

    #[test]
    fn what_is_of_another_file_or_of_no_known_one_is_not_used() {
        let other = Digest::of(b"other").to_string();
        let wanted = Digest::of(b"").to_string();
        assert_eq!(asked_later(any_checksum(), "\"v1\"", |notes| notes.replace(&wanted, &other)).offset, 0);
        assert_eq!(asked_later(any_checksum(), "\"v1\"", |_| "{".to_owned()).offset, 0);
        assert_eq!(asked_later(any_checksum(), "\"v1\"", |notes| notes.replace("10", "2")).offset, 0, "too long");
    }
}
