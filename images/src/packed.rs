//! Compressed files, identified by their first bytes, not by their names.

use std::io::{self, BufRead, Read};

/// Memory limit of xz, in bytes; `xz -9` needs 65 MiB, and a file can ask for any amount.
const XZ_MEMORY: u64 = 1 << 30;

/// A compression.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Format {
    Xz,
    Zstd,
    Gzip,
    Bzip2,
}

impl Format {
    /// Identified by its first bytes; its name does not matter.
    pub(crate) fn of(beginning: &[u8]) -> Option<Self> {
        match beginning {
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            // The second is a skippable frame, with which the output of parallel compressors begins.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            [0x1f, 0x8b, 8, ..] => Some(Self::Gzip),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some(Self::Bzip2),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
        }
    }

    /// Reads all members of the file, one after the other.
    pub(crate) fn reader<'a>(self, packed: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
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
