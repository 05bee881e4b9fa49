//! An image in the store: its files, its record, and a lease that keeps it there.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use matrix::{Arch, Digest, Firmware, PackageFamily};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    DISK_BYTES, Entry,
    disk::DiskFormat,
    error::{Mismatch, PrepareErrorKind},
    lock,
    recipe::FORMAT,
};

pub(crate) const DISK: &str = "disk.qcow2";
pub(crate) const KERNEL: &str = "vmlinuz";
pub(crate) const INITRD: &str = "initrd.img";
pub(crate) const PACKAGES: &str = "packages.tsv";
pub(crate) const RECORD: &str = "image.json";

/// What a build left in [`crate::build_dir::BuildDir::image`], and how it is used.
#[derive(Debug)]
pub(crate) struct Made {
    /// The files of the image, in the order they are digested in; the disk is the first.
    pub(crate) files: Vec<MadeFile>,
    /// The format of the disk.
    pub(crate) format: DiskFormat,
    /// Its size as a guest sees it, in bytes.
    pub(crate) bytes: u64,
    /// What starts a guest of it.
    pub(crate) start: Start,
}

/// A file of an image.
#[derive(Debug)]
pub(crate) struct MadeFile {
    /// Its name in the image.
    pub(crate) name: String,
    /// Its path, if it is a user's file that stays where it is.
    pub(crate) at: Option<PathBuf>,
    /// Its digest, if already known.
    pub(crate) digest: Option<Digest>,
}

/// What starts a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// An external kernel with this command line; words of one run are appended.
    Kernel(String),
    /// The boot loader on its disk, started by this firmware.
    Firmware(Firmware),
}

impl Start {
    /// The same with more words for the kernel, if we set its command line.
    #[must_use]
    pub fn with_words<'a>(mut self, words: impl IntoIterator<Item = &'a str>) -> Self {
        if let Self::Kernel(cmdline) = &mut self {
            for word in words {
                cmdline.push(' ');
                cmdline.push_str(word);
            }
        }
        self
    }
}

impl Made {
    /// The files of an image that is built from packages.
    pub(crate) fn with_kernel(cmdline: &str) -> Self {
        let ours = |name: &str| MadeFile { name: name.to_owned(), at: None, digest: None };
        Self {
            files: [DISK, KERNEL, INITRD, PACKAGES].map(ours).into(),
            format: DiskFormat::Qcow2,
            bytes: DISK_BYTES,
            start: Start::Kernel(cmdline.to_owned()),
        }
    }
}

/// A verified image. While this value lives, nothing removes it from the store.
#[derive(Debug)]
pub struct PreparedImage {
    /// Its catalog name.
    pub name: String,
    /// Its architecture.
    pub arch: Arch,
    /// The kind of packages it installs; `None`: found out in the guest.
    pub family: Option<PackageFamily>,
    /// Identity of its content: of its disk, and of its kernel, initial RAM disk and list of packages if it has them.
    pub digest: Digest,
    /// Digest of the recipe it was built from.
    pub recipe: Digest,
    /// The root disk, read-only. Boot an overlay of it.
    pub disk: PathBuf,
    /// The format of the disk.
    pub format: DiskFormat,
    /// Its size as a guest sees it, in bytes: an overlay must not be smaller.
    pub bytes: u64,
    /// What starts a guest of it, and how the guest gets its identity (see [`crate::seed`]).
    pub start: Start,
    /// The files of the kernel that starts a guest; `None`: its boot loader has one.
    pub kernel: Option<Kernel>,
    /// The user who logs in over SSH; users other than root work through `sudo`.
    pub login_user: String,
    /// It was in the store already.
    pub cached: bool,
    /// Locks the image's folder, shared with other users of it.
    #[expect(dead_code, reason = "it is held, not read")]
    pub(crate) lease: File,
}

/// The files of a kernel to start a guest with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    /// The kernel (`-kernel`).
    pub kernel: PathBuf,
    /// Its initial RAM disk (`-initrd`).
    pub initrd: PathBuf,
}

/// The record of an image in the store (`image.json`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) format: u32,
    pub(crate) name: String,
    pub(crate) arch: Arch,
    pub(crate) family: Option<PackageFamily>,
    pub(crate) recipe: Digest,
    pub(crate) content: Digest,
    pub(crate) disk: DiskFormat,
    /// Size of the disk as a guest sees it.
    pub(crate) bytes: u64,
    pub(crate) start: Start,
    pub(crate) login_user: String,
    pub(crate) built_at: jiff::Timestamp,
    pub(crate) files: Vec<FileRecord>,
    /// Digest of all other fields: how an image is used is recorded only here. Records of earlier versions lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seal: Option<Digest>,
}

/// The record of one file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileRecord {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    /// Nanoseconds since 1970: a file of the recorded size and time is assumed to be unchanged.
    pub(crate) modified: i128,
    pub(crate) digest: Digest,
    /// Its path, if it is a user's file that stays where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) at: Option<PathBuf>,
}

impl FileRecord {
    /// Where it lies.
    pub(crate) fn path(&self, folder: &Path) -> PathBuf {
        self.at.clone().unwrap_or_else(|| folder.join(&self.name))
    }
}

/// Why an image cannot be used.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// It is incomplete, and can be rebuilt.
    Rebuild(String),
    /// It is damaged.
    Damaged(PrepareErrorKind),
}

impl Record {
    /// Records the files that a build left in `folder`.
    pub(crate) fn of(entry: &Entry, recipe: Digest, made: Made, folder: &Path) -> Result<Self, PrepareErrorKind> {
        let files: Vec<FileRecord> = made
            .files
            .into_par_iter()
            .map(|MadeFile { name, at, digest: known }| {
                let path = at.clone().unwrap_or_else(|| folder.join(&name));
                let take = || {
                    // Inspected before it is read, so that a concurrent change is noticed the next time.
                    let found = fs::symlink_metadata(&path)?;
                    let (bytes, modified) = (found.len(), modified(&found));
                    let digest = known.map_or_else(|| Digest::of_file(&path), Ok)?;
                    Ok(FileRecord { name, bytes, modified, digest, at })
                };
                take().map_err(PrepareErrorKind::io("read", &path))
            })
            .collect::<Result<_, _>>()?;
        let mut record = Self {
            format: FORMAT,
            name: entry.name.clone(),
            arch: entry.arch,
            family: entry.family,
            recipe,
            content: content(recipe, &files),
            disk: made.format,
            bytes: made.bytes,
            start: made.start,
            login_user: entry.login_user.clone(),
            // Whole seconds: it is for people.
            built_at: jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap_or_default(),
            files,
            seal: None,
        };
        record.seal = record.sealed();
        Ok(record)
    }

    /// The expected seal.
    fn sealed(&self) -> Option<Digest> {
        let unsealed = Self { seal: None, ..self.clone() };
        serde_json::to_vec(&unsealed).ok().map(|text| Digest::of(&text))
    }

    /// Reads the record in an image's folder.
    pub(crate) fn read(folder: &Path) -> Result<Self, String> {
        let path = folder.join(RECORD);
        let text = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let record: Self = serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        let plain = record.files.iter().all(|file| !file.name.is_empty() && !file.name.contains('/'));
        if record.format != FORMAT
            || !plain
            || record.files.is_empty()
            || record.content != content(record.recipe, &record.files)
            || (record.seal.is_some() && record.seal != record.sealed())
        {
            return Err(format!("{} is inconsistent", path.display()));
        }
        Ok(record)
    }

    /// Checks the files against the record: by size and time of change, and by content if these differ or if `fully`.
    pub(crate) fn check(&self, folder: &Path, fully: bool) -> Result<(), Unusable> {
        self.files.par_iter().try_for_each(|file| {
            let path = file.path(folder);
            let rebuild = |error: io::Error| Unusable::Rebuild(format!("{}: {error}", path.display()));
            let found = fs::symlink_metadata(&path).map_err(rebuild)?;
            if !found.is_file() {
                return Err(Unusable::Rebuild(format!("{} is not a file", path.display())));
            }
            let unchanged = found.len() == file.bytes && modified(&found) == file.modified;
            if unchanged && !fully {
                return Ok(());
            }
            let now = Digest::of_file(&path).map_err(rebuild)?;
            if now != file.digest && file.at.is_some() {
                return Err(Unusable::Rebuild(format!("{} has changed", path.display())));
            }
            if now != file.digest {
                let digests = Box::new(Mismatch { recorded: file.digest, found: now });
                return Err(Unusable::Damaged(PrepareErrorKind::Damaged { path, digests }));
            }
            if !unchanged && file.at.is_none() {
                remember_time(&path, file.modified);
            }
            Ok(())
        })
    }

    /// The image as its users see it.
    pub(crate) fn into_image(self, folder: &Path, cached: bool, lease: File) -> Result<PreparedImage, String> {
        let disk = self.files.first().ok_or_else(|| format!("{} names no disk", folder.display()))?.path(folder);
        let kernel = || Kernel { kernel: folder.join(KERNEL), initrd: folder.join(INITRD) };
        Ok(PreparedImage {
            name: self.name,
            arch: self.arch,
            family: self.family,
            digest: self.content,
            recipe: self.recipe,
            disk,
            format: self.disk,
            bytes: self.bytes,
            kernel: matches!(self.start, Start::Kernel(_)).then(kernel),
            start: self.start,
            login_user: self.login_user,
            cached,
            lease,
        })
    }
}

/// Locks an image's folder, shared with its other users; `None` if it is missing or being removed.
pub(crate) fn lease(folder: &Path) -> Option<File> {
    let file = File::open(folder).ok()?;
    if !lock::try_shared(&file).ok()? {
        return None;
    }
    // It may have been moved between the two calls.
    is_at(&file, folder).then_some(file)
}

/// True if an open file or folder still has this name: another may have replaced it.
pub(crate) fn is_at(file: &File, name: &Path) -> bool {
    let found = file.metadata().and_then(|here| Ok((here, fs::metadata(name)?)));
    found.is_ok_and(|(here, there)| here.dev() == there.dev() && here.ino() == there.ino())
}

/// Identity of an image: of its recipe and use, and of all its files' names, sizes and digests.
fn content(recipe: Digest, files: &[FileRecord]) -> Digest {
    let lines: Vec<String> =
        files.iter().map(|file| format!("{} {} {}\n", file.name, file.bytes, file.digest)).collect();
    Digest::of(format!("nestmatrix image {FORMAT}\n{recipe}\n{}", lines.concat()).as_bytes())
}

fn modified(found: &fs::Metadata) -> i128 {
    i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec())
}

/// Resets a file with correct content to its recorded time, so that the next check is fast. This may fail for lack of permission;
/// then the next check is slow, too.
fn remember_time(path: &Path, modified: i128) {
    let second = 1_000_000_000;
    let time = |nanoseconds: i128| {
        let seconds = u64::try_from(nanoseconds.div_euclid(second)).ok()?;
        let rest = u32::try_from(nanoseconds.rem_euclid(second)).ok()?;
        std::time::UNIX_EPOCH.checked_add(std::time::Duration::new(seconds, rest))
    };
    if let (Some(time), Ok(file)) = (time(modified), File::open(path)) {
        let _ = file.set_modified(time);
    }
}
