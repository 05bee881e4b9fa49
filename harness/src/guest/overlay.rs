//! The disk a guest writes to: a qcow2 overlay above a read-only image.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use images::DiskFormat;
use matrix::ByteSize;

/// The overlay could not be made.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
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
}

/// Creates `overlay` (qcow2) above `image`, as large as `size` for the guest, or as the image.
pub async fn create(
    qemu_img: &Path,
    (image, format): (&Path, DiskFormat),
    size: Option<ByteSize>,
    overlay: &Path,
) -> Result<(), OverlayError> {
    let failed = |words: String| OverlayError::Failed { overlay: overlay.to_owned(), words };
    let child = tokio::process::Command::new(qemu_img)
        .args(["create", "-q", "-f", "qcow2", "-F", format.name(), "-b"])
        .args([image, overlay])
        .args(size.map(|size| size.bytes().to_string()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| OverlayError::Start { program: qemu_img.to_owned(), source })?;
    // It writes 200 KB; a disk that needs longer than this for it is broken.
    let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output())
        .await
        .map_err(|_| failed("no answer within 60 s".into()))?
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
