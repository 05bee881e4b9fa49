//! An image in the store: its files, what is recorded of them, and a lease that keeps it there.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use matrix::{Digest, PackageFamily};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::{
    Entry,
    error::{Mismatch, PrepareErrorKind},
    lock,
    recipe::{CMDLINE, FORMAT},
};

pub(crate) const DISK: &str = "disk.qcow2";
pub(crate) const KERNEL: &str = "vmlinuz";
pub(crate) const INITRD: &str = "initrd.img";
pub(crate) const PACKAGES: &str = "packages.tsv";
pub(crate) const RECORD: &str = "image.json";

/// The files that are the image, in the order they are digested in.
pub(crate) const FILES: [&str; 4] = [DISK, KERNEL, INITRD, PACKAGES];

/// A verified image. For as long as this value lives, nothing removes it from the store.
#[derive(Debug)]
pub struct PreparedImage {
    /// Its catalog name.
    pub name: String,
    /// What kind of packages it installs.
    pub family: PackageFamily,
    /// Identity of its content: of its disk, kernel, initial RAM disk and list of packages.
    pub digest: Digest,
    /// Digest of the recipe it was built from.
    pub recipe: Digest,
    /// The root disk: qcow2, read-only. Boot an overlay of it.
    pub disk: PathBuf,
    /// The kernel to boot with (`-kernel`).
    pub kernel: PathBuf,
    /// Its initial RAM disk (`-initrd`).
    pub initrd: PathBuf,
    /// The kernel's command line; what one run wants goes after it.
    pub cmdline: String,
    /// Who logs in over SSH.
    pub login_user: String,
    /// Installed packages with their versions.
    pub packages: Vec<(String, String)>,
    /// When it was built.
    pub built_at: jiff::Timestamp,
    /// It was in the store already.
    pub cached: bool,
    /// Keeps the image's folder locked, together with others who use it.
    #[expect(dead_code, reason = "it is held, not read")]
    pub(crate) lease: File,
}

/// What is written down of an image when it is put into the store (`image.json`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) format: u32,
    pub(crate) name: String,
    pub(crate) family: PackageFamily,
    pub(crate) release: String,
    pub(crate) recipe: Digest,
    pub(crate) content: Digest,
    pub(crate) cmdline: String,
    pub(crate) login_user: String,
    pub(crate) built_at: jiff::Timestamp,
    pub(crate) files: Vec<FileRecord>,
}

/// What is written down of one file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileRecord {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    /// Nanoseconds since 1970: a file whose size and time are as recorded is taken to be as recorded.
    pub(crate) modified: i128,
    pub(crate) digest: Digest,
}

/// Why an image cannot be used as it is.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// It is not all there, or was never finished: it can be built anew.
    Rebuild(String),
    /// It is not what was put there.
    Damaged(PrepareErrorKind),
}

impl Record {
    /// Takes down the files that a build left in `folder`.
    pub(crate) fn of(entry: &Entry, recipe: Digest, folder: &Path) -> Result<Self, PrepareErrorKind> {
        let files: Vec<FileRecord> = FILES
            .par_iter()
            .map(|name| {
                let path = folder.join(name);
                let take = || {
                    let found = fs::symlink_metadata(&path)?;
                    Ok(FileRecord {
                        name: (*name).to_owned(),
                        bytes: found.len(),
                        modified: modified(&found),
                        digest: digest(&path)?,
                    })
                };
                take().map_err(PrepareErrorKind::io("read", &path))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            format: FORMAT,
            name: entry.name.clone(),
            family: entry.family,
            release: entry.release.clone(),
            recipe,
            content: content(&files),
            cmdline: CMDLINE.to_owned(),
            login_user: "root".to_owned(),
            // Whole seconds: it is for people.
            built_at: jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap_or_default(),
            files,
        })
    }

    /// Reads the record in an image's folder.
    pub(crate) fn read(folder: &Path) -> Result<Self, String> {
        let path = folder.join(RECORD);
        let text = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let record: Self = serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        let named: Vec<&str> = record.files.iter().map(|file| file.name.as_str()).collect();
        if record.format != FORMAT || named != FILES || record.content != content(&record.files) {
            return Err(format!("{} contradicts itself", path.display()));
        }
        Ok(record)
    }

    /// Checks the files against the record: by size and time of change, and by content where these differ or `fully`.
    pub(crate) fn check(&self, folder: &Path, fully: bool) -> Result<(), Unusable> {
        self.files.par_iter().try_for_each(|file| {
            let path = folder.join(&file.name);
            let rebuild = |error: io::Error| Unusable::Rebuild(format!("{}: {error}", path.display()));
            let found = fs::symlink_metadata(&path).map_err(rebuild)?;
            if !found.is_file() {
                return Err(Unusable::Rebuild(format!("{} is not a file", path.display())));
            }
            let unchanged = found.len() == file.bytes && modified(&found) == file.modified;
            if unchanged && !fully {
                return Ok(());
            }
            let now = digest(&path).map_err(rebuild)?;
            if now != file.digest {
                let digests = Box::new(Mismatch { recorded: file.digest, found: now });
                return Err(Unusable::Damaged(PrepareErrorKind::Damaged { path, digests }));
            }
            if !unchanged {
                remember_time(&path, file.modified);
            }
            Ok(())
        })
    }

    /// The image as its users see it.
    pub(crate) fn into_image(self, folder: &Path, cached: bool, lease: File) -> Result<PreparedImage, String> {
        let path = folder.join(PACKAGES);
        let packages = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(PreparedImage {
            name: self.name,
            family: self.family,
            digest: self.content,
            recipe: self.recipe,
            disk: folder.join(DISK),
            kernel: folder.join(KERNEL),
            initrd: folder.join(INITRD),
            cmdline: self.cmdline,
            login_user: self.login_user,
            packages: parse_packages(&packages),
            built_at: self.built_at,
            cached,
            lease,
        })
    }
}

/// Locks an image's folder together with its other users; `None` if it is not there or being removed.
pub(crate) fn lease(folder: &Path) -> Option<File> {
    let file = File::open(folder).ok()?;
    if !lock::try_shared(&file).ok()? {
        return None;
    }
    // It may have been moved away between the two.
    let (here, there) = (file.metadata().ok()?, fs::metadata(folder).ok()?);
    (here.dev() == there.dev() && here.ino() == there.ino()).then_some(file)
}

/// `name<TAB>version`, one per line.
pub(crate) fn parse_packages(text: &str) -> Vec<(String, String)> {
    let pairs = text.lines().filter_map(|line| line.split_once('\t'));
    pairs.map(|(name, version)| (name.to_owned(), version.to_owned())).collect()
}

/// Digest of a file's content.
fn digest(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest::from_bytes(hasher.finalize().into())),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// Identity of an image: of all its files' names, sizes and digests.
fn content(files: &[FileRecord]) -> Digest {
    let lines: Vec<String> =
        files.iter().map(|file| format!("{} {} {}\n", file.name, file.bytes, file.digest)).collect();
    Digest::of(format!("nestmatrix image {FORMAT}\n{}", lines.concat()).as_bytes())
}

fn modified(found: &fs::Metadata) -> i128 {
    i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec())
}

/// Sets a file whose content proved right back to its recorded time, so that the next look is quick again. It may not be
/// ours to set; then the next look is slow too.
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
