//! The files of a machine's disks: overlays above what is not ours to write to, and disks with nothing in them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use images::DiskFormat;
use matrix::ByteSize;

use super::spec::{Disk, MachineSpec};

/// The file of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFile {
    /// The file.
    pub file: PathBuf,
    /// How the disk's content is stored in it.
    pub format: DiskFormat,
}

/// Name of the overlay that is a machine's root disk.
pub const ROOT: &str = "disk.qcow2";

/// The file in a machine's folder that is made for its disk of this serial number, but for the root disk.
pub fn raw(folder: &Path, serial: &str) -> DiskFile {
    DiskFile { file: folder.join(format!("{serial}.raw")), format: DiskFormat::Raw }
}

/// What the disks of a machine are made of.
#[derive(Debug)]
pub struct Below<'a> {
    /// What the root disk is an overlay of.
    pub root: &'a DiskFile,
    /// The folder of a template: what is in its other disks is in these, too.
    pub others: Option<&'a Path>,
    /// Other disks that exist, by serial number; they are only read.
    pub given: &'a BTreeMap<String, DiskFile>,
}

/// A disk could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// `qemu-img` could not be started.
    #[error("could not start {program}: {source}")]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// `qemu-img` failed.
    #[error("qemu-img could not create the overlay {}: {words}", overlay.display())]
    Failed {
        /// The file that was to be.
        overlay: PathBuf,
        /// What it said.
        words: String,
    },
    /// A file could not be written.
    #[error("could not create the disk {}: {source}", file.display())]
    Empty {
        /// The file that was to be.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Makes the files of a machine's disks in `folder`, and says which they are. A disk that is only read, and not given, somebody else
/// has written there.
pub async fn make(
    qemu_img: &Path,
    spec: &MachineSpec,
    below: &Below<'_>,
    folder: &Path,
) -> Result<Vec<DiskFile>, DiskError> {
    let mut files = Vec::new();
    for (index, Disk { serial, size, writable, .. }) in spec.disks.iter().enumerate() {
        let other = below.others.map(|others| raw(others, serial));
        files.push(match (index, below.given.get(serial), other) {
            (0, ..) => overlay(qemu_img, below.root, *size, folder.join(ROOT)).await?,
            (_, Some(given), _) => given.clone(),
            (_, None, Some(other)) if !writable => other,
            // Its own name has no full stop in it: this one is no other disk's.
            (_, None, Some(other)) => {
                overlay(qemu_img, &other, None, folder.join(format!("{serial}.of.qcow2"))).await?
            }
            (_, None, None) => {
                let disk = raw(folder, serial);
                if let Some(size) = size {
                    // Sparse: what is never written takes no room.
                    let made = std::fs::File::create(&disk.file).and_then(|file| file.set_len(size.bytes()));
                    made.map_err(|source| DiskError::Empty { file: disk.file.clone(), source })?;
                }
                disk
            }
        });
    }
    Ok(files)
}

/// Creates the file `overlay` (qcow2) above `image`, as large as `size` for the guest, or as the image.
async fn overlay(
    qemu_img: &Path,
    image: &DiskFile,
    size: Option<ByteSize>,
    overlay: PathBuf,
) -> Result<DiskFile, DiskError> {
    let failed = |words: String| DiskError::Failed { overlay: overlay.clone(), words };
    let child = tokio::process::Command::new(qemu_img)
        .args(["create", "-q", "-f", "qcow2", "-F", image.format.name(), "-b"])
        .args([&image.file, &overlay])
        .args(size.map(|size| size.bytes().to_string()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| DiskError::Start { program: qemu_img.to_owned(), source })?;
    // It writes 200 KB; a disk that needs longer than this for it is broken.
    let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output())
        .await
        .map_err(|_| failed("no answer within 60 s".into()))?
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(DiskFile { file: overlay, format: DiskFormat::Qcow2 });
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
