//! A guest made of a template.

use std::{collections::BTreeMap, os::fd::OwnedFd, path::Path, time::Duration};

use reports::{Phase, Trouble, TroubleKind};
use tokio::net::UnixStream;

use super::{RAM, STATE, Template, resume_agent};
use crate::{
    guest::{self, Below, DiskError, DiskFile, Guest, Launch, MigrationError, Ram, Spawner, StartError},
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
    Disk(#[from] DiskError),
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
    #[error("another process has replaced the template")]
    Replaced,
    /// The guest did not wake.
    #[error("the fork did not wake: {0}")]
    Wake(#[from] resume_agent::ResumeAgentError),
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

/// Makes a guest of a template from the store; its disks go into `scratch`, its logs into `logs`. `launch` has no disks yet; `given`: those
/// that exist.
pub async fn fork(
    template: &Template,
    with: &With<'_>,
    launch: Launch,
    given: &BTreeMap<String, DiskFile>,
    places: (&Path, &Path),
) -> Result<Forked, ForkError> {
    if !template.is_in_place() {
        return Err(ForkError::Replaced);
    }
    let forked = of_frozen(template.folder(), with, launch, given, places).await?;
    // All of its files are open by now. What was moved away does not come back, so all of them were those of one template.
    if template.is_in_place() {
        return Ok(forked);
    }
    forked.guest.kill().await;
    Err(ForkError::Replaced)
}

/// Makes a guest of what was frozen in the folder `frozen`.
pub(super) async fn of_frozen(
    frozen: &Path,
    with: &With<'_>,
    launch: Launch,
    given: &BTreeMap<String, DiskFile>,
    (scratch, logs): (&Path, &Path),
) -> Result<Forked, ForkError> {
    let below = Below { root: &super::disk(frozen), others: Some(frozen), given };
    let disks = guest::make_disks(&with.qemu.img, &launch.spec, &below, scratch).await?;
    let launch = Launch { ram: Ram::Forked(frozen.join(RAM)), disks, folder: frozen.to_owned(), port: true, ..launch };
    let mut guest = Guest::start(with.spawner, launch, with.dies_with_us, logs).await?;
    let woken = async {
        if let Err(error) = guest.thaw(&frozen.join(STATE)).await {
            let words = guest.last_message().await;
            return Err(ForkError::Thaw { error, words, refused: guest.has_refused() });
        }
        let mut port = port(&mut guest)?;
        resume_agent::wake(&mut port, WAKING.mul_f64(with.speed)).await?;
        Ok(port.into_std().map_err(resume_agent::ResumeAgentError::from)?)
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
pub(super) fn port(guest: &mut Guest) -> Result<UnixStream, resume_agent::ResumeAgentError> {
    let gone = || std::io::Error::other("it was taken");
    let port = std::os::unix::net::UnixStream::from(guest.take_port().ok_or_else(gone)?);
    port.set_nonblocking(true)?;
    Ok(UnixStream::from_std(port)?)
}
