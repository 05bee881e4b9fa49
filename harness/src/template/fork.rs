//! A guest made of a template.

use std::{os::fd::OwnedFd, path::Path, time::Duration};

use matrix::ByteSize;
use reports::{Phase, Trouble, TroubleKind};
use tokio::net::UnixStream;

use super::{DISK, Frozen, NotedDisk, RAM, STATE, Template, waker};
use crate::{
    guest::{self, Command, Disk, DiskFormat, Guest, MigrationError, OverlayError, Port, Ram, Spawner, StartError},
    host::Qemu,
    ssh::BannerStream,
};

/// How long a fork may take to wake once it runs, before scaling.
const WAKING: Duration = Duration::from_secs(10);

impl ForkError {
    /// What failed: the template, this machine, or one of the two.
    const fn kind(&self) -> TroubleKind {
        match self {
            Self::Thaw { refused: true, .. } => TroubleKind::TemplateBroken,
            Self::Thaw { .. } | Self::Wake(_) => TroubleKind::ForkFailed,
            Self::Disk(_) | Self::Start(_) | Self::Replaced => TroubleKind::Host,
        }
    }
}

impl From<ForkError> for Trouble {
    fn from(error: ForkError) -> Self {
        Self::new(error.kind(), Phase::Runner, error.to_string())
    }
}

/// A fork that is awake: its clock is right, its randomness its own, and nothing else has happened in it.
#[derive(Debug)]
pub struct Forked {
    /// The guest.
    pub guest: Guest,
    /// A connection to an SSH server that is about to say its first words.
    pub connection: BannerStream,
}

/// No fork came of it.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// Its disk.
    #[error(transparent)]
    Disk(#[from] OverlayError),
    /// QEMU did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// QEMU did not take the state.
    #[error("{error}; QEMU's last words: {words}")]
    Thaw {
        /// Why.
        error: MigrationError,
        /// The end of its messages.
        words: String,
        /// It ended because of that, and nobody killed it.
        refused: bool,
    },
    /// Its files are not what they were.
    #[error("another process has made the template anew meanwhile")]
    Replaced,
    /// The guest did not wake.
    #[error("the fork did not wake: {0}")]
    Wake(#[from] waker::WakerError),
}

/// What forks are made with.
pub struct With<'a> {
    /// QEMU.
    pub qemu: &'a Qemu,
    /// Starts guests.
    pub spawner: &'a Spawner,
    /// What time limits are multiplied by.
    pub speed: f64,
    /// The fork is killed when this process ends, however.
    pub dies_with_us: bool,
}

/// Makes a guest that `command` describes of a template from the store; its disk goes into `scratch`, its logs into `logs`.
pub async fn fork(
    template: &Template,
    with: &With<'_>,
    command: &Command,
    disk: ByteSize,
    places: (&Path, &Path),
) -> Result<Forked, ForkError> {
    if !template.is_in_place() {
        return Err(ForkError::Replaced);
    }
    let forked = of_frozen(&template.frozen, with, command, disk, places).await?;
    // All of its files are open by now. What was moved away does not come back, so all of them were those of one template.
    if template.is_in_place() {
        return Ok(forked);
    }
    forked.guest.kill().await;
    Err(ForkError::Replaced)
}

/// Makes a guest that `command` describes of what was frozen; its disk goes into `scratch`, its logs into `logs`.
pub(super) async fn of_frozen(
    frozen: &Frozen,
    with: &With<'_>,
    command: &Command,
    disk: ByteSize,
    (scratch, logs): (&Path, &Path),
) -> Result<Forked, ForkError> {
    let overlay = scratch.join("disk.qcow2");
    let below = (frozen.folder.join(DISK), DiskFormat::Qcow2);
    guest::create_overlay(&with.qemu.img, (&below.0, below.1), Some(disk), &overlay).await?;
    let mut disks = Vec::new();
    for NotedDisk { serial, file, writable } in &frozen.disks {
        let (mut file, mut format, below) = (frozen.folder.join(file), DiskFormat::Raw, DiskFormat::Raw);
        if *writable {
            let overlay = scratch.join(format!("{serial}.qcow2"));
            guest::create_overlay(&with.qemu.img, (&file, below), None, &overlay).await?;
            (file, format) = (overlay, DiskFormat::Qcow2);
        }
        disks.push(Disk { file, format, serial: serial.clone(), writable: *writable });
    }
    disks.extend(command.more_disks.iter().cloned());
    let command = Command {
        more_disks: disks,
        ram: Ram::Forked(frozen.folder.join(RAM)),
        disk: Some(overlay),
        firmware: frozen.firmware.clone(),
        port: Port::Open,
        ..command.clone()
    };
    let mut guest = Guest::start(with.spawner, command, with.dies_with_us, logs).await?;
    let woken = async {
        if let Err(error) = guest.thaw(&frozen.folder.join(STATE)).await {
            let words = guest.last_message().await;
            return Err(ForkError::Thaw { error, words, refused: guest.has_refused() });
        }
        let mut port = port(&mut guest)?;
        waker::wake(&mut port, WAKING.mul_f64(with.speed)).await?;
        Ok(port.into_std().map_err(waker::WakerError::from)?)
    };
    match woken.await {
        Ok(port) => Ok(Forked { guest, connection: BannerStream::over(OwnedFd::from(port)) }),
        Err(error) => {
            guest.kill().await;
            Err(error)
        }
    }
}

/// Our end of the guest's port.
pub(super) fn port(guest: &mut Guest) -> Result<UnixStream, waker::WakerError> {
    let gone = || std::io::Error::other("it was taken");
    let port = std::os::unix::net::UnixStream::from(guest.take_port().ok_or_else(gone)?);
    port.set_nonblocking(true)?;
    Ok(UnixStream::from_std(port)?)
}
