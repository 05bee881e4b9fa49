//! A tarball as a stream of bytes, decompressed by its first bytes, not by its name.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek as _},
    path::Path,
};

use crate::packed::Format;

/// Opens it; fails after `most` bytes.
pub(super) fn open(path: &Path, most: u64) -> io::Result<Bounded<Box<dyn Read>>> {
    let mut file = File::open(path)?;
    let mut head = Vec::new();
    (&mut file).take(8).read_to_end(&mut head)?;
    file.rewind()?;
    let packed = BufReader::with_capacity(1 << 18, file);
    let stream = match Format::of(&head) {
        Some(format) => format.reader(packed)?,
        None => Box::new(packed),
    };
    Ok(Bounded { stream, left: most, has_ended: false })
}

/// A stream with a size limit.
pub(super) struct Bounded<R> {
    stream: R,
    left: u64,
    has_ended: bool,
}

impl<R> Bounded<R> {
    /// True if the end of the stream was reached.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer)?;
        self.has_ended |= read == 0 && !buffer.is_empty();
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| io::Error::other("it exceeds the size limit"))?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, process::Command};

    use super::*;
    use crate::alone::alone;

    #[test]
    fn every_usual_compression_is_read_whatever_the_file_is_called() {
        let _alone = alone();
        let folder = tempfile::tempdir().expect("temporary folder");
        let plain = folder.path().join("plain");
        std::fs::write(&plain, "hello".repeat(1000)).expect("file");
        for tool in ["cat", "gzip -c", "xz -c", "zstd -qc", "bzip2 -c"] {
            let packed = Command::new("sh").args(["-c", &format!("{tool} <plain")]).current_dir(folder.path()).output();
            let path = folder.path().join("packed");
            File::create(&path).expect("file").write_all(&packed.expect("it runs").stdout).expect("write");
            let mut text = String::new();
            open(&path, 5000).expect("open").read_to_string(&mut text).expect(tool);
            assert_eq!(text, "hello".repeat(1000), "{tool}");
        }
    }

    #[test]
    fn what_never_ends_is_given_up() {
        let endless = Bounded { stream: io::repeat(0), left: 1 << 20, has_ended: false };
        let error = io::copy(&mut { endless }, &mut io::sink()).expect_err("it has no end");
        assert!(error.to_string().contains("size limit"), "{error}");
    }
}
