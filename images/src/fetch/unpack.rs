//! From the file as it is published to the disk that is in it.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek as _},
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

/// How much is read and unpacked at once, in bytes.
const CHUNK: usize = 256 << 10;

/// The most memory xz may ask for, in bytes; `xz -9` needs 65 MiB, and a file can name any amount.
const XZ_MEMORY: u64 = 1 << 30;

/// In what a published disk is packed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Format {
    Xz,
    Zstd,
    Gzip,
    Bzip2,
}

impl Format {
    /// Told by how the file begins; its name does not matter.
    pub(super) fn of(beginning: &[u8]) -> Option<Self> {
        match beginning {
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            // The second is a frame to be skipped, with which the output of parallel compressors begins.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            [0x1f, 0x8b, 8, ..] => Some(Self::Gzip),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some(Self::Bzip2),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
        }
    }

    /// Reads all members of the file, one after the other.
    fn reader<'a>(self, packed: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::Xz => {
                let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(packed, stream))
            }
            Self::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(packed)?),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(packed)),
        })
    }
}

/// In what the file is packed; `None`: it is the disk itself.
pub(super) fn format(packed: &mut File) -> io::Result<Option<Format>> {
    let mut beginning = Vec::new();
    packed.take(8).read_to_end(&mut beginning)?;
    packed.rewind()?;
    Ok(Format::of(&beginning))
}

/// Unpacks it into the empty file `disk`, named `path`, and sees it onto its disk; returns the digest of what was in it.
pub(super) fn unpack(
    packed: File,
    format: Format,
    (disk, path): (&File, &Path),
    watch: &Watch<'_>,
) -> Result<Digest, Stop> {
    watch.tell(&format!("unpacking {}", format.name()));
    let broken = |error: io::Error| Trouble::Packed { format: format.name(), reason: error.to_string() };
    let mut reader = format.reader(BufReader::with_capacity(CHUNK, packed)).map_err(broken)?;
    let digester = Digester::start(false);
    let mut sparse = SparseFile::new(disk);
    loop {
        watch.look()?;
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
