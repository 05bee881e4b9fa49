//! Unpacks a published file to the disk in it.

use std::{
    fs::File,
    io::{self, BufReader, Read as _, Seek as _},
    path::Path,
};

use matrix::Digest;

use super::{
    FetchError,
    digests::Digester,
    sparse::SparseFile,
    trouble::Trouble,
    watch::{Stop, Watch},
};
use crate::packed::Format;

/// How much is read and unpacked at once, in bytes.
const CHUNK: usize = 256 << 10;

/// The compression; `None`: it is the disk itself.
pub(super) fn format(packed: &mut File) -> io::Result<Option<Format>> {
    let mut beginning = Vec::new();
    packed.take(8).read_to_end(&mut beginning)?;
    packed.rewind()?;
    Ok(Format::of(&beginning))
}

/// Unpacks it into the empty file `disk`, named `path`, and syncs it; returns the digest of its content.
pub(super) fn unpack(
    packed: File,
    format: Format,
    (disk, path): (&File, &Path),
    watch: &Watch<'_>,
) -> Result<Digest, Stop> {
    watch.report(&format!("unpacking {}", format.name()));
    let broken = |error: io::Error| Trouble::Packed { format: format.name(), reason: error.to_string() };
    let mut reader = format.reader(BufReader::with_capacity(CHUNK, packed)).map_err(broken)?;
    let digester = Digester::start(false);
    let mut sparse = SparseFile::new(disk);
    loop {
        watch.check()?;
        let mut chunk = Vec::with_capacity(CHUNK);
        reader.by_ref().take(CHUNK as u64).read_to_end(&mut chunk).map_err(broken)?;
        if chunk.is_empty() {
            break;
        }
        if sparse.length() + chunk.len() as u64 > watch.limits.unpacked_bytes {
            return Err(Trouble::TooLarge { most: watch.limits.unpacked_bytes }.into());
        }
        sparse.append(&chunk).map_err(FetchError::io("write", path))?;
        digester.update(chunk);
    }
    if sparse.length() == 0 {
        return Err(Trouble::Empty.into());
    }
    sparse.finish().and_then(|()| disk.sync_all()).map_err(FetchError::io("write", path))?;
    Ok(digester.finish().sha256)
}

#[cfg(test)]
#[path = "unpack/tests.rs"]
mod tests;
