//! Writes a file with holes in place of zeros.

use std::{fs::File, io, os::unix::fs::FileExt as _};

/// Minimum size and alignment of a hole, in bytes.
const UNIT: usize = 64 << 10;

static ZEROS: [u8; UNIT] = [0; UNIT];

/// Writes a file from its beginning to its end.
#[derive(Debug)]
pub(super) struct SparseFile<'a> {
    file: &'a File,
    length: u64,
}

impl<'a> SparseFile<'a> {
    /// Begins; the file must be empty.
    pub(super) fn new(file: &'a File) -> Self {
        Self { file, length: 0 }
    }

    /// Bytes so far.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Adds bytes.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let to_boundary = UNIT - (self.length % UNIT as u64) as usize;
            let mut end = to_boundary.min(rest.len());
            // A comparison of two slices is `memcmp`, even in unoptimized builds.
            let is_hole = |unit: &[u8]| *unit == ZEROS[..unit.len()];
            let hole = is_hole(&rest[..end]);
            while end < rest.len() {
                let next = (end + UNIT).min(rest.len());
                if is_hole(&rest[end..next]) != hole {
                    break;
                }
                end = next;
            }
            if !hole {
                self.file.write_all_at(&rest[..end], self.length)?;
            }
            self.length += end as u64;
            rest = &rest[end..];
        }
        Ok(())
    }

    /// Sets the length of the file, in case it ends in a hole.
    pub(super) fn finish(self) -> io::Result<()> {
        self.file.set_len(self.length)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt as _};

    use proptest::prelude::*;

    use super::*;

    fn written(chunks: &[Vec<u8>]) -> (Vec<u8>, u64) {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        let mut sparse = SparseFile::new(file.as_file());
        for chunk in chunks {
            sparse.append(chunk).expect("room");
        }
        sparse.finish().expect("room");
        let taken = file.as_file().metadata().expect("metadata").blocks() * 512;
        (fs::read(file.path()).expect("file"), taken)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_mixture_of_zeros_and_others_is_read_as_it_was_written(
            chunks in proptest::collection::vec((any::<bool>(), 0..200_000_usize), 0..8)
        ) {
            let chunks: Vec<Vec<u8>> = chunks.iter().map(|&(zero, length)| vec![u8::from(!zero); length]).collect();
            prop_assert!(written(&chunks).0 == chunks.concat());
        }
    }

    #[test]
    fn zeros_take_no_room_also_at_the_end() {
        let chunks = [vec![1; UNIT], vec![0; 16 * UNIT], vec![1; UNIT], vec![0; 16 * UNIT]];
        let (bytes, taken) = written(&chunks);
        assert_eq!(bytes.len(), 34 * UNIT);
        assert!(taken <= 4 * UNIT as u64, "{taken} bytes are taken");
    }
}
