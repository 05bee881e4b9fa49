//! Reads files that a user named, without hanging: pipes, devices and the kernel's own files may never answer or never end.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use sha2::Digest as _;

use crate::Digest;

/// Reads a file of at most `limit` bytes.
///
/// # Errors
///
/// [`io::ErrorKind::FileTooLarge`] if it is longer; [`io::ErrorKind::Unsupported`] for anything that is not a file on a disk, or
/// is being changed; any other error of reading it.
pub(crate) fn read_file(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    each_piece(path, limit, |piece| bytes.extend_from_slice(piece))?;
    Ok(bytes)
}

/// Size in bytes and digest of a file of at most `limit` bytes. Errors as of [`read_file`].
pub(crate) fn hash_file(path: &Path, limit: u64) -> io::Result<(u64, Digest)> {
    let mut hasher = sha2::Sha256::new();
    let bytes = each_piece(path, limit, |piece| hasher.update(piece))?;
    Ok((bytes, Digest::from_bytes(hasher.finalize().into())))
}

/// Calls with every piece of a file; returns its size in bytes.
fn each_piece(path: &Path, limit: u64, mut call: impl FnMut(&[u8])) -> io::Result<u64> {
    let (file, size) = open(path)?;
    if size > limit {
        let words = format!("too large: {size} bytes, the limit is {limit}");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, words));
    }
    // One byte more: detects a file that is longer than its size.
    let (mut file, mut buffer, mut read) = (file.take(size + 1), vec![0; 256 << 10], 0);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                call(&buffer[..length]);
                read += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // `/proc/kmsg` claims to be a file, and would block its reader forever.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(no_file("not a file on a disk: reading it does not end"));
            }
            Err(error) => return Err(error),
        }
    }
    if read == size {
        return Ok(read);
    }
    let words = format!("not a file on a disk, or it is being changed: its size is {size} bytes, {read} were read");
    Err(no_file(&words))
}

/// Opens a regular file; says its size in bytes.
fn open(path: &Path) -> io::Result<(File, u64)> {
    // Checked before opening: opening a pipe waits for its other end, opening some devices has effects.
    if !path.metadata()?.is_file() {
        return Err(no_file("not a file"));
    }
    let waits_not = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(waits_not.bits().cast_signed()).open(path)?;
    let found = file.metadata()?;
    if found.is_file() { Ok((file, found.len())) } else { Err(no_file("not a file")) }
}

fn no_file(words: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_on_a_disk_is_refused_and_never_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        let socket = folder.path().join("socket");
        let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let nothing_ends =
            ["/dev/zero", "/dev/tty", "/proc/kmsg", "/proc/self/maps", "/sys/kernel/mm/transparent_hugepage/enabled"];
        for path in nothing_ends.map(Path::new).into_iter().chain([folder.path(), &pipe, &socket]) {
            let error = read_file(path, 1 << 20).expect_err("no file");
            assert!(hash_file(path, 1 << 40).is_err(), "{}", path.display());
            if path.exists() && error.raw_os_error().is_none() {
                assert!(error.to_string().starts_with("not a file"), "{}: {error}", path.display());
            }
        }
    }

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(read_file(file.path(), 0).unwrap(), b"");
        std::fs::write(file.path(), b"12345").unwrap();
        assert_eq!(read_file(file.path(), 5).unwrap(), b"12345");
        assert_eq!(hash_file(file.path(), 5).unwrap(), (5, Digest::of(b"12345")));
        let error = read_file(file.path(), 4).expect_err("too long");
        assert_eq!(
            (error.kind(), error.to_string().contains("5 bytes, the limit is 4")),
            (io::ErrorKind::FileTooLarge, true)
        );
        // Of a sparse file, too, nothing is read.
        file.as_file().set_len(1 << 43).unwrap();
        assert_eq!(hash_file(file.path(), 1 << 40).expect_err("too large").kind(), io::ErrorKind::FileTooLarge);
    }
}
