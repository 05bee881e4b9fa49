//! Opens regular files only: a pipe would block until it has a writer, a device may do anything.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use rustix::fs::OFlags;

/// How a symbolic link is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Links {
    /// It is followed.
    Follow,
    /// It is refused.
    Refuse,
}

/// Opens a regular file.
///
/// # Errors
///
/// It cannot be opened, or is not a regular file.
pub(crate) fn open(path: &Path, options: &mut OpenOptions, links: Links) -> io::Result<File> {
    let other = || io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
    // Checked first, because opening some devices has effects.
    let is_file = match links {
        Links::Follow => path.metadata()?.is_file(),
        Links::Refuse => path.symlink_metadata()?.is_file(),
    };
    if !is_file {
        return Err(other());
    }
    let follow = if links == Links::Refuse { OFlags::NOFOLLOW } else { OFlags::empty() };
    let file = options.custom_flags((follow | OFlags::NONBLOCK).bits().cast_signed()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(other()) }
}
