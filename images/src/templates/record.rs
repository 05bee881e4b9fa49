//! The record of a template's files, and its verification.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::Path,
};

use matrix::Digest;
use rayon::prelude::*;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Raised when the layout of a template changes.
const FORMAT: u32 = 1;
pub(super) const RECORD: &str = "template.json";
/// Files are digested in pieces of this size; pieces of zeros are skipped, and holes are not even read.
const PIECE: u64 = 1 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record<T> {
    format: u32,
    key: Digest,
    files: Vec<FileRecord>,
    note: T,
    /// Digest of all fields above.
    seal: Digest,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRecord {
    name: String,
    bytes: u64,
    digest: Digest,
}

/// Records the files in the folder, and `note`.
pub(super) fn write<T: Serialize>(folder: &Path, key: Digest, note: &T) -> io::Result<()> {
    let files = record_files(folder)?;
    let seal = seal(key, &files, note);
    let record = Record { format: FORMAT, key, files, note, seal };
    fs::write(folder.join(RECORD), serde_json::to_vec_pretty(&record)?)
}

/// The maker's note, if every file is unchanged.
pub(super) fn check<T: DeserializeOwned + Serialize>(folder: &Path, key: Digest, trusting: bool) -> Result<T, String> {
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

fn seal<T: Serialize>(key: Digest, files: &[FileRecord], note: &T) -> Digest {
    Digest::of(&serde_json::to_vec(&(FORMAT, key, files, note)).unwrap_or_default())
}

fn record_files(folder: &Path) -> io::Result<Vec<FileRecord>> {
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

/// Digest of a file with holes: of the positions and digests of its pieces that are not all zeros.
fn digest(path: &Path, bytes: u64) -> io::Result<Digest> {
    let pieces = written(&File::open(path)?, bytes)?;
    let lines = pieces
        .into_par_iter()
        .map(|start| {
            let mut piece = vec![0; usize::try_from(PIECE.min(bytes - start)).unwrap_or_default()];
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(start))?;
            file.read_exact(&mut piece)?;
            // The first byte is zero, and each equals the one before: a comparison of two slices is `memcmp`, even in unoptimized
            // builds.
            let zero = piece.split_last().is_none_or(|(_, but_last)| piece[0] == 0 && piece[1..] == *but_last);
            Ok(if zero { String::new() } else { format!("{start} {}\n", Digest::of(&piece)) })
        })
        .collect::<io::Result<Vec<String>>>()?;
    Ok(Digest::of(format!("{bytes}\n{}", lines.concat()).as_bytes()))
}

/// Start of each piece that is not completely a hole.
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
            // Only a hole until the end.
            Err(rustix::io::Errno::NXIO) => break,
            // A file system without support for holes.
            Err(rustix::io::Errno::INVAL) => {
                pieces.push(offset);
                offset += PIECE;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(pieces)
}
