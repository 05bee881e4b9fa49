//! The TPM of a guest: a program of its own, `swtpm`, that QEMU speaks to over a socket.

use std::{
    fs::{DirBuilder, File},
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    os::unix::{fs::DirBuilderExt as _, net::UnixStream},
    path::Path,
    process::Stdio,
};

use super::process::{Process, Spawner};

/// Starts it with its state in the folder `state`, which is made, its messages in `logs`. It ends when QEMU's end of its socket, which is
/// returned, is closed.
pub(super) async fn start(
    swtpm: &Path,
    spawner: &Spawner,
    dies_with_us: bool,
    (state, logs): (&Path, &Path),
) -> io::Result<(Process, OwnedFd)> {
    DirBuilder::new().recursive(true).mode(0o700).create(state)?;
    let (ours, qemus) = UnixStream::pair()?;
    let ours = OwnedFd::from(ours);
    let log = File::create(logs.join("swtpm.log"))?;
    let mut command = std::process::Command::new(swtpm);
    command
        .args(["socket", "--tpm2", "--terminate", "--ctrl"])
        .arg(format!("type=unixio,clientfd={}", ours.as_raw_fd()))
        // Not as an option: a comma in the path would end it.
        .env("TPM_PATH", state)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    Ok((spawner.spawn(command, vec![ours], dies_with_us).await?, qemus.into()))
}
