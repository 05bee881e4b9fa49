//! Reads a tarball into a tree; the contents of its files become numbered blobs in a folder of ours.
//!
//! A tarball may be hostile: endless, with an endless file, or with arbitrary headers. Every amount has a limit, and headers that
//! continue in the next member are assembled here, because the crate would read one of any size into memory.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use tar::EntryType;

use super::{
    packed,
    tree::{Kind, Node, Rights, Tree, steps},
};
use crate::{
    error::{Failure, PrepareErrorKind},
    published, space,
};

/// Limits of a tarball.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes of all files.
    pub(super) bytes: u64,
    /// Files.
    pub(super) files: usize,
    /// Bytes that must stay free on the disk it is unpacked to.
    pub(super) reserve: u64,
}

/// The largest published systems have some GiB and some 200,000 files.
pub(super) const LIMITS: Limits = Limits { bytes: 16 << 30, files: 1_000_000, reserve: 1 << 30 };

/// Maximum length of a header that continues in a member of its own, in bytes.
const MAX_HEADER_BYTES: u64 = 1 << 20;
/// Maximum number of headers before one file, of all kinds.
const MAX_HEADERS: usize = 8;
/// Each member has a header and padding; empty members count, too.
const BYTES_PER_FILE: u64 = 4096;

/// What was read.
pub(super) struct Unpacked {
    pub(super) tree: Tree,
    /// Bytes of all blobs.
    pub(super) bytes: u64,
    blobs: PathBuf,
}

impl Unpacked {
    /// The path of a blob.
    pub(super) fn blob(&self, number: usize) -> PathBuf {
        blob(&self.blobs, number)
    }
}

fn blob(folder: &Path, number: usize) -> PathBuf {
    folder.join(number.to_string())
}

/// The headers before a member.
#[derive(Default)]
struct PendingHeaders {
    count: usize,
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    uid: Option<u32>,
    gid: Option<u32>,
    modified: Option<u32>,
    attributes: Vec<(String, Vec<u8>)>,
}

/// Reads it; `blobs` is an empty private folder.
pub(super) fn read(tarball: &Path, blobs: &Path, limits: Limits, cancel: &AtomicBool) -> Result<Unpacked, Failure> {
    let refused = |why: String| Failure::from(PrepareErrorKind::Refused { path: tarball.to_owned(), why });
    let broken = |error: io::Error| refused(format!("not a tarball, or damaged: {error}"));
    let most = limits.bytes.saturating_add(limits.files as u64 * BYTES_PER_FILE);
    let stream = packed::open(tarball, most).map_err(PrepareErrorKind::io("read", tarball))?;
    let mut archive = tar::Archive::new(stream);
    let mut reader = Reader { tree: Tree::new(), blobs, count: 0, bytes: 0, limits };
    let mut pending = PendingHeaders::default();
    for (index, member) in archive.entries().map_err(broken)?.raw(true).enumerate() {
        if cancel.load(Ordering::Relaxed) {
            return Err(PrepareErrorKind::Cancelled.into());
        }
        if index >= limits.files {
            return Err(refused(format!("it has more than {} files", limits.files)));
        }
        let mut member = member.map_err(broken)?;
        let kind = member.header().entry_type();
        if kind.is_pax_global_extensions() {
            continue;
        }
        if kind.is_gnu_longname() || kind.is_gnu_longlink() || kind.is_pax_local_extensions() {
            pending.count += 1;
            if member.size() > MAX_HEADER_BYTES || pending.count > MAX_HEADERS {
                return Err(refused("its headers are too long".to_owned()));
            }
            let mut text = Vec::new();
            member.read_to_end(&mut text).map_err(broken)?;
            pending.take(kind, text).map_err(refused)?;
            continue;
        }
        reader.member(&mut member, std::mem::take(&mut pending), cancel).map_err(|fault| match fault {
            Fault::Tarball(why) => refused(why),
            Fault::Ours(failure) => failure,
        })?;
    }
    if reader.count == 0 {
        return Err(refused("it is empty, or not a tarball".to_owned()));
    }
    // A tarball cut off between two files looks complete, except for the end marker.
    if archive.into_inner().has_ended() {
        return Err(refused(
            "it is truncated: its end marker (two zero blocks) is missing; download it again".to_owned(),
        ));
    }
    Ok(Unpacked { tree: reader.tree, bytes: reader.bytes, blobs: blobs.to_owned() })
}

impl PendingHeaders {
    fn take(&mut self, kind: EntryType, mut text: Vec<u8>) -> Result<(), String> {
        if kind.is_gnu_longname() || kind.is_gnu_longlink() {
            while text.last() == Some(&0) {
                text.pop();
            }
            *(if kind.is_gnu_longname() { &mut self.path } else { &mut self.target }) = Some(text);
            return Ok(());
        }
        for record in tar::PaxExtensions::new(&text) {
            let record = record.map_err(|error| format!("a header in it is damaged: {error}"))?;
            let value = record.value_bytes();
            // Seconds may have fractions.
            let number = || {
                let text = str::from_utf8(value).ok()?;
                text.split('.').next()?.parse::<i64>().ok().map(|n| u32::try_from(n.max(0)).unwrap_or(u32::MAX))
            };
            match record.key_bytes() {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.target = Some(value.to_vec()),
                b"uid" => self.uid = number(),
                b"gid" => self.gid = number(),
                b"mtime" => self.modified = number(),
                b"size" => return Err("it has a file of more than 8 GiB".to_owned()),
                key if key.starts_with(b"GNU.sparse.") => return Err(SPARSE.to_owned()),
                key => {
                    let name = key.strip_prefix(b"SCHILY.xattr.").and_then(|name| str::from_utf8(name).ok());
                    if let Some(name) = name.filter(|name| is_kept(name)) {
                        self.attributes.push((name.to_owned(), value.to_vec()));
                    }
                }
            }
        }
        Ok(())
    }
}

const SPARSE: &str = "it has sparse files: pack it without --sparse";

/// Attributes that a system needs. (SELinux labels are useless to a kernel without their policy.)
fn is_kept(name: &str) -> bool {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    plain && (name == "security.capability" || name.starts_with("user."))
}

enum Fault {
    Tarball(String),
    Ours(Failure),
}

impl<T: Into<Failure>> From<T> for Fault {
    fn from(failure: T) -> Self {
        Self::Ours(failure.into())
    }
}

struct Reader<'a> {
    tree: Tree,
    blobs: &'a Path,
    /// Blobs, and members without one.
    count: usize,
    bytes: u64,
    limits: Limits,
}

impl Reader<'_> {
    fn member(
        &mut self,
        member: &mut tar::Entry<'_, impl Read>,
        pending: PendingHeaders,
        cancel: &AtomicBool,
    ) -> Result<(), Fault> {
        let header = member.header();
        let broken = |error: io::Error| Fault::Tarball(format!("a header in it is damaged: {error}"));
        let path = steps(&pending.path.unwrap_or_else(|| header.path_bytes().into_owned())).map_err(Fault::Tarball)?;
        // The kernel fills these folders; mke2fs makes the other.
        let made_elsewhere =
            path.len() > 1 && path[0] == "dev" || path.first().is_some_and(|name| name == "lost+found");
        let target = pending.target.or_else(|| header.link_name_bytes().map(|name| name.into_owned()));
        let kind = header.entry_type();
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let mut rights = Rights {
            mode: header.mode().map_err(broken)? & 0o7777,
            uid: pending.uid.map_or_else(|| header.uid().map(small), Ok).map_err(broken)?,
            gid: pending.gid.map_or_else(|| header.gid().map(small), Ok).map_err(broken)?,
            modified: pending.modified.map_or_else(|| header.mtime().map(small), Ok).map_err(broken)?,
            attributes: Vec::new(),
        };
        let device = |block| -> Result<Kind, Fault> {
            let number = |number: io::Result<Option<u32>>| number.map(Option::unwrap_or_default).map_err(broken);
            Ok(Kind::Device { block, major: number(header.device_major())?, minor: number(header.device_minor())? })
        };
        self.count += 1;
        let kind = match kind {
            _ if made_elsewhere => return Ok(()),
            EntryType::Regular | EntryType::Continuous => Kind::File(usize::MAX),
            EntryType::Directory => Kind::Folder(BTreeMap::new()),
            EntryType::Symlink => {
                let target = String::from_utf8(target.unwrap_or_default()).ok();
                let fit = |text: &String| {
                    !text.is_empty() && text.len() <= super::tree::MAX_PATH_LEN && !text.chars().any(char::is_control)
                };
                let target = target.filter(fit);
                Kind::Link(target.ok_or_else(|| Fault::Tarball(format!("`{}` in it has no target", path.join("/"))))?)
            }
            EntryType::Link => {
                let target = steps(&target.unwrap_or_default()).map_err(Fault::Tarball)?;
                return self.tree.link(&path, &target).map_err(Fault::Tarball);
            }
            EntryType::Char => device(false)?,
            EntryType::Block => device(true)?,
            EntryType::Fifo => Kind::Pipe,
            EntryType::GNUSparse => return Err(Fault::Tarball(SPARSE.to_owned())),
            // A volume name.
            other if other.as_byte() == b'V' => return Ok(()),
            // Skipping it would leave it missing in the guest.
            other => {
                let kind = char::from(other.as_byte()).escape_default();
                return Err(Fault::Tarball(format!("`{}` in it has an unknown type: `{kind}`", path.join("/"))));
            }
        };
        let kind = match kind {
            // In archives of the oldest kind, a name with this suffix is a folder.
            Kind::File(_) if member.path_bytes().ends_with(b"/") => Kind::Folder(BTreeMap::new()),
            Kind::File(_) => Kind::File(self.blob(member.size(), member, cancel)?),
            other => other,
        };
        for (name, value) in pending.attributes {
            let blob = self.blob(value.len() as u64, &mut value.as_slice(), cancel)?;
            rights.attributes.push((name, blob));
        }
        self.tree.put(&path, Node { kind, rights }).map_err(Fault::Tarball)?;
        // Folders that appear only in paths count, too.
        if self.tree.len() > self.limits.files {
            return Err(Fault::Tarball(format!("it has more than {} files and folders", self.limits.files)));
        }
        Ok(())
    }

    /// Writes the next blob.
    fn blob(&mut self, bytes: u64, content: &mut dyn Read, cancel: &AtomicBool) -> Result<usize, Fault> {
        // Before a byte is written: a header can claim any size.
        let whole = self.bytes.checked_add(bytes).filter(|whole| *whole <= self.limits.bytes);
        self.bytes = whole
            .ok_or_else(|| Fault::Tarball(format!("what is in it takes more than {} MiB", self.limits.bytes >> 20)))?;
        // The blobs are copied into a disk, and that again.
        let needed = self.bytes.saturating_mul(2).saturating_add(bytes).saturating_add(self.limits.reserve);
        space::require(&[(self.blobs, needed)]).map_err(PrepareErrorKind::from)?;
        let number = self.count;
        let path = blob(self.blobs, number);
        self.count += 1;
        let mut file = File::create_new(&path).map_err(PrepareErrorKind::io("create", &path))?;
        let mut failed = None;
        let copied = published::copy(
            content,
            &mut file,
            cancel,
            |error| {
                failed = Some(format!("it is damaged: {error}"));
                PrepareErrorKind::Cancelled.into()
            },
            PrepareErrorKind::io("write", &path),
        );
        if let Some(why) = failed {
            return Err(Fault::Tarball(why));
        }
        copied?;
        let written = fs::metadata(&path).map_err(PrepareErrorKind::io("inspect", &path))?.len();
        if written != bytes {
            return Err(Fault::Tarball("it ends in the middle of a file".to_owned()));
        }
        Ok(number)
    }
}

#[cfg(test)]
#[path = "tarball_tests.rs"]
mod tests;
