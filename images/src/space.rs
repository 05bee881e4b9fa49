//! Free room of a folder's file system.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// There is not enough room, or the room is unknown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoRoom {
    #[error("{}: {source}", path.display())]
    Unknown { path: PathBuf, source: io::Error },
    #[error("{} has {free} bytes free, up to {needed} are needed", path.display())]
    Full { path: PathBuf, free: u64, needed: u64 },
}

/// Bytes an ordinary user may still write below `path`; `None` if unknown.
pub(crate) fn free(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Fails unless every folder has the requested bytes; folders on one file system share its room.
pub(crate) fn require(wants: &[(&Path, u64)]) -> Result<(), NoRoom> {
    let mut by_device: Vec<(u64, &Path, u64)> = Vec::new();
    for &(path, bytes) in wants {
        let device = fs::metadata(path).map_err(|source| NoRoom::Unknown { path: path.to_owned(), source })?.dev();
        match by_device.iter_mut().find(|(known, ..)| *known == device) {
            Some((_, _, sum)) => *sum += bytes,
            None => by_device.push((device, path, bytes)),
        }
    }
    for (_, path, needed) in by_device {
        if let Some(free) = free(path)
            && free < needed
        {
            return Err(NoRoom::Full { path: path.to_owned(), free, needed });
        }
    }
    Ok(())
}

/// Size of a file, or of the files of a folder, on the disk, in bytes.
pub(crate) fn taken(path: &Path) -> u64 {
    let files: Vec<PathBuf> = match fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(_) => vec![path.to_owned()],
    };
    files.iter().filter_map(|file| fs::symlink_metadata(file).ok()).map(|found| found.blocks() * 512).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_enough_room_is_named_with_what_is_free_and_what_is_needed() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let error = require(&[(folder.path(), u64::MAX)]).expect_err("nobody has that much");
        assert!(matches!(error, NoRoom::Full { needed: u64::MAX, .. }), "{error}");
        assert!(error.to_string().contains(&folder.path().display().to_string()));
        require(&[(folder.path(), 1)]).expect("one byte");
    }

    #[test]
    fn two_folders_on_one_disk_have_to_share_it() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let free = free(folder.path()).expect("known");
        let most = free / 4 * 3;
        require(&[(folder.path(), most)]).expect("one fits");
        require(&[(folder.path(), most), (folder.path(), most)]).expect_err("two do not");
    }
}
