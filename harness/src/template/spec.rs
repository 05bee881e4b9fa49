//! What a template is to be, and what came of it.

use std::{collections::BTreeMap, path::Path, pin::Pin, sync::Arc, time::Duration};

use images::Templates;
use matrix::{ByteSize, Digest, HostPattern, Network, PackageFamily, Repository};
use reports::{Phase, Trouble, TroubleKind};
use tokio_util::sync::CancellationToken;

use crate::{
    guest::{DiskFile, DiskFormat, Launch, Spawner},
    host::Qemu,
    ssh::Session,
};

/// What templates are made with.
pub struct TemplateBuilder<'a> {
    /// Where they are kept.
    pub templates: &'a Templates,
    /// QEMU.
    pub qemu: &'a Qemu,
    /// Starts guests.
    pub spawner: &'a Spawner,
    /// What time limits are multiplied by.
    pub speed: f64,
    /// A folder for what does not stay.
    pub scratch: &'a Path,
    /// A folder for the logs of the guest that is frozen.
    pub logs: &'a Path,
    /// Ends it at once.
    pub cancel: &'a CancellationToken,
}

/// A guest's way to repositories.
#[derive(Clone, Copy)]
pub struct Outbound<'a> {
    /// Serves the guest with this network card.
    pub serve: &'a (dyn Fn(egress::Card) -> Result<egress::Guest, String> + Sync),
    /// What it may reach, by the hosts of its system's repositories.
    pub policy: &'a (dyn Fn(Vec<HostPattern>) -> egress::Policy + Sync),
    /// Its packages are pinned.
    pub is_pinned: bool,
    /// The first package that it was refused because another one is pinned, in words.
    pub differs: &'a (dyn Fn() -> Option<String> + Sync),
}

/// What a template is to be.
pub struct TemplateSpec<'a> {
    /// Its key, see [`super::key`].
    pub key: Digest,
    /// The guest, without its disks and its identity.
    pub launch: Launch,
    /// The disk of its image.
    pub image: &'a DiskFile,
    /// Disks that exist, by serial number.
    pub given: &'a BTreeMap<String, DiskFile>,
    /// What writes the content of a disk that is made with it, by serial number.
    pub written: BTreeMap<&'a str, Arc<Writer>>,
    /// What kind of packages it installs; `None`: it is asked.
    pub family: Option<PackageFamily>,
    /// Who logs in.
    pub login_user: &'a str,
    /// What it is called.
    pub hostname: String,
    /// Time limit of its boot, scaled.
    pub boot: Duration,
    /// What it may reach until it is frozen.
    pub network: Network,
    /// Its way to repositories until it is frozen; `None`: it has none.
    pub outbound: Option<Outbound<'a>>,
    /// What its files may take besides its memory: what it writes to its disks until it is frozen.
    pub room: ByteSize,
    /// What is done in it.
    pub work: Work<'a>,
}

impl TemplateSpec<'_> {
    /// Whether it can be frozen, and not only prepared; else why not.
    pub(super) fn can_be_frozen(&self) -> Result<(), String> {
        self.launch.spec.can_be_frozen()?;
        // QEMU says that of these formats when it is asked to save the state of a guest.
        match self.image.format {
            DiskFormat::Qcow2 | DiskFormat::Raw => Ok(()),
            format => Err(format!("QEMU freezes no guest whose image is {}", format.name())),
        }
    }

    /// Something is prepared in it that its disk alone has, too.
    pub(super) fn prepares(&self) -> bool {
        matches!(self.work, Work::Preparation(Some(_)))
    }
}

/// Writes the content of a disk into a file.
pub type Writer = dyn Fn(&Path) -> Result<(), Trouble> + Send + Sync;

/// What is done in a guest before it is frozen.
pub enum Work<'a> {
    /// What the matrix asks for, if it does.
    Preparation(Option<Preparation<'a>>),
    /// What the caller does in it, and how long that takes at the most, scaled.
    Own(&'a OwnWork<'a>, Duration),
}

/// Is given a session with the guest.
pub type OwnWork<'a> =
    dyn Fn(Arc<Session>) -> Pin<Box<dyn Future<Output = Result<(), Trouble>> + Send + 'a>> + Send + Sync + 'a;

/// What a matrix asks for.
pub struct Preparation<'a> {
    /// The script.
    pub script: Option<&'a str>,
    /// Repositories that it is given first.
    pub repositories: Vec<&'a Repository>,
    /// Names for its package manager.
    pub packages: &'a [String],
    /// How long it may take, scaled.
    pub limit: Duration,
}

/// Progress while a template is obtained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateProgress {
    /// What is done now.
    Step(String),
    /// Which process it waits for.
    Waiting(String),
    /// Which other templates were evicted to make room.
    Room(String),
    /// What was in the store is damaged, and why: it is replaced.
    Damaged(String),
}

/// There is no template, for this reason.
pub fn no_template(reason: impl Into<String>) -> Trouble {
    Trouble::new(TroubleKind::NoTemplate, Phase::Prepare, reason)
}

/// There is no template because the run was stopped.
pub(super) fn interrupted() -> Trouble {
    Trouble::new(TroubleKind::Interrupted, Phase::Prepare, "interrupted")
}

/// An error in what was done, as the reason why there is none.
pub(super) fn because<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> Trouble {
    move |error| no_template(format!("{what}: {error}"))
}
