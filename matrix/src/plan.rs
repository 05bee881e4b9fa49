//! The [`Plan`]: the expanded, ordered, digest-stamped list of everything that must report.
//!
//! These are plain data. They are only made by expanding a valid matrix file (or read back from a `plan.json` of the same
//! version), so they need no further check.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::{
    Arch, ByteSize, Checksum, Digest, DiskInterface, Firmware, GceOverrides, GceRunner, GceValueError, Network,
    NetworkRules, PackageFamily, Repository, SshHost, Step,
};

/// Everything a run needs to know of the matrix file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Digest of everything that decides the work: equal digests mean the same work. Paths on this machine (`matrix`, the paths,
    /// the origins of scripts) are not part of it.
    pub digest: Digest,
    /// The matrix file, as the user named it. Not part of the digest.
    pub matrix: PathBuf,
    /// The package under test, if the matrix names one.
    pub package: Option<Package>,
    /// Where the guests run, and how many at once.
    pub runner: Runner,
    /// What guests with the network [`Network::Repositories`] may reach beyond the repositories of their system.
    pub network: NetworkRules,
    /// Every third-party repository that is given to guests of at least one image, in the order of the matrix file.
    pub repositories: Vec<Repository>,
    /// Every image that at least one cell uses, in the order of the matrix file.
    pub images: Vec<Image>,
    /// Scripts by the digest of their text; [`Cell::script`] and [`Prepare::script`] point here. Equal scripts are shared.
    pub scripts: BTreeMap<Digest, String>,
    /// Every cell, in the order of the matrix file: image by image, then suite, then axes (the last one changing fastest);
    /// cells added by `[[include]]` follow the others of their image and suite.
    pub cells: Vec<Cell>,
}

impl Plan {
    /// The image of a cell's guest; `None`: the cell is not part of this plan.
    pub fn image(&self, cell: &Cell) -> Option<&Image> {
        self.images.iter().find(|image| image.name == cell.image)
    }

    /// The same plan for another kind of runner, under its own digest.
    pub fn on(mut self, kind: RunnerKind) -> Self {
        self.runner.kind = kind;
        if kind != RunnerKind::Ssh {
            (self.runner.host, self.runner.identity) = (None, None);
        }
        self.runner.gce = (kind == RunnerKind::Gce).then(|| self.runner.gce.unwrap_or_default());
        self.digest = self.fingerprint();
        self
    }

    /// The same plan for this SSH host, under its own digest; with this file's private key, else that of the matrix.
    pub fn on_host(mut self, host: SshHost, identity: Option<PathBuf>) -> Self {
        self.runner.host = Some(host);
        self.runner.identity = identity.or(self.runner.identity);
        self.on(RunnerKind::Ssh)
    }

    /// The same plan for a machine on Compute Engine, under its own digest: that of the matrix, but for these values.
    ///
    /// # Errors
    ///
    /// A value, or all zones or labels together, are not what Compute Engine takes.
    pub fn on_gce(mut self, overrides: GceOverrides) -> Result<Self, GceValueError> {
        self.runner.gce = Some(self.runner.gce.unwrap_or_default().with(overrides)?);
        Ok(self.on(RunnerKind::Gce))
    }
}

/// The package under test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Package {
    /// Its name, for templates and reports.
    pub name: String,
    /// Its version, for templates and reports.
    pub version: Option<String>,
    /// The files to install, in a fixed order (by file name), each file name once.
    pub artifacts: Vec<Artifact>,
}

/// One file of the package.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Artifact {
    /// Where it is on this machine (absolute). Not part of the plan's digest.
    pub path: PathBuf,
    /// Its last path component, which is its name in the guest.
    pub file_name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Digest of its content.
    pub digest: Digest,
}

/// The runner, and its budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Runner {
    /// The kind asked for.
    pub kind: RunnerKind,
    /// The machine of kind `ssh`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<SshHost>,
    /// The file with the private key for it (absolute); `None`: what `ssh` uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<PathBuf>,
    /// Memory of all guests together; `None`: what the machine can spare, or what the plan can use at once.
    pub memory: Option<ByteSize>,
    /// Virtual CPUs of all guests together; `None`: as many as the machine has.
    pub cpus: Option<u32>,
    /// Catalog entry that an L1 of kind `qemu` is booted from; `None`: `debian-13-runner`.
    pub image: Option<String>,
    /// Words added to an L1 kernel's command line.
    pub kernel_args: Vec<String>,
    /// Size of an L1's scratch disk, which holds the guests' overlays; `None`: the default.
    pub disk: Option<ByteSize>,
    /// How often a failure of an infrastructure phase is retried on a fresh guest.
    pub retries: u32,
    /// The machine of kind `gce`; `Some` exactly then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gce: Option<GceRunner>,
}

/// The kinds of runner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RunnerKind {
    /// Chooses one, and reports the reason.
    #[default]
    Auto,
    /// This machine is the L1.
    Host,
    /// Boot an L1 on this machine with QEMU.
    Qemu,
    /// The L1 is a machine that is reached with `ssh`.
    Ssh,
    /// The L1 is an instance that is created on Compute Engine.
    Gce,
}

impl RunnerKind {
    /// Guests run on another machine than this one.
    pub const fn is_elsewhere(self) -> bool {
        matches!(self, Self::Ssh | Self::Gce)
    }
}

/// One operating system of the matrix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// Its name in this matrix.
    pub name: String,
    /// Name of its source: the catalog entry (often the same as `name`), else `name`. Images of one plan with equal `from` have
    /// equal sources.
    pub from: String,
    /// Where it comes from.
    pub source: ImageSource,
    /// Words added to the guest kernel's command line.
    pub kernel_args: Vec<String>,
    /// What is done to its guests before any cell; `None`: nothing.
    pub prepare: Option<Prepare>,
}

impl Image {
    /// The same image, with this file on this machine as its location, if it comes from a file.
    pub(crate) fn at(mut self, file: Option<PathBuf>) -> Self {
        if let (Some(file), ImageSource::Disk { location, .. } | ImageSource::Rootfs { location, .. }) =
            (file, &mut self.source)
        {
            *location = Location::Path(file);
        }
        self
    }
}

/// Where an image comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageSource {
    /// The catalog, under [`Image::from`].
    Catalog,
    /// A disk with a boot loader of its own.
    Disk {
        /// Where it is.
        location: Location,
        /// Digest of the file there, if it was stated; always for what is downloaded.
        digest: Option<Checksum>,
        /// The kind of CPU it is made for.
        arch: Arch,
        /// What starts its boot loader; `None`: read from the disk.
        firmware: Option<Firmware>,
        /// What kind of packages it installs; `None`: found out in the guest.
        family: Option<PackageFamily>,
        /// The user who logs in over SSH.
        login_user: String,
    },
    /// A tarball with a root file system.
    Rootfs {
        /// Where it is.
        location: Location,
        /// Digest of the file there, if it was stated; always for what is downloaded.
        digest: Option<Checksum>,
        /// The kind of CPU it is made for.
        arch: Arch,
        /// What kind of packages it installs; `None`: found out in the guest.
        family: Option<PackageFamily>,
    },
}

/// Where a file is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Location {
    /// At any of these addresses (http or https), tried in this order; at least one.
    Urls(Vec<String>),
    /// On this machine (absolute). Not part of the plan's digest.
    Path(PathBuf),
}

/// What is done to a guest before any cell: once per template.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prepare {
    /// The script to run: a key of [`Plan::scripts`]; `None`: packages only.
    pub script: Option<Digest>,
    /// Where the script's text came from, for people: a path relative to the matrix file, or `inline`.
    pub script_origin: Option<String>,
    /// What the guest's package manager installs before the script runs, in the order of the matrix file.
    pub packages: Vec<String>,
    /// What the guest may reach during the preparation; the cells' own network is [`Guest::network`].
    pub network: Network,
    /// Time limit of the whole preparation, before scaling by the measured speed.
    pub timeout: Duration,
}

/// One image x one value of every axis x one suite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Its identity: stable, readable, safe as a file name, unique in the plan.
    pub id: CellId,
    /// [`Image::name`] of its image.
    pub image: String,
    /// Name of its suite.
    pub suite: String,
    /// Axis name -> value, in the order of the matrix file.
    pub axes: IndexMap<String, String>,
    /// The virtual machine to run it in.
    pub guest: Guest,
    /// How the package's artifacts are installed.
    pub install_from: InstallFrom,
    /// Where it gets the dependencies that the package's artifacts lack.
    pub dependencies: Dependencies,
    /// Time limits, before scaling by the measured speed.
    pub timeouts: Timeouts,
    /// The script to run: a key of [`Plan::scripts`].
    pub script: Digest,
    /// Where the script's text came from, for people: a path relative to the matrix file, or `inline`.
    pub script_origin: String,
    /// Environment of the script, templates already rendered.
    pub env: IndexMap<String, String>,
    /// More files the script wants beside it.
    pub files: Vec<UploadFile>,
    /// What its suite says of it beyond that.
    #[serde(flatten)]
    pub options: SuiteOptions,
}

/// What a suite says of its cells, the same for each; all of it decides their work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SuiteOptions {
    /// How the guest is started.
    pub boot: Boot,
    /// Whose machine-id and host key it has.
    pub identity: Identity,
    /// What is done with the guest, in this order.
    pub steps: Vec<Step>,
    /// The suite may reboot its guest; it is then run again.
    pub reboot: bool,
    /// Where the suite writes results; `None`: its exit code is the one test case.
    pub results: Option<Results>,
    /// Absolute paths or globs in the guest to fetch afterwards.
    pub artifacts: Vec<String>,
}

impl Cell {
    /// True if the package is installed in its guest.
    pub fn installs(&self) -> bool {
        self.options.steps.contains(&Step::Install)
    }

    /// Its steps for people, `prepare, install, reboot, run`; `None`: they are the default. `installable`: the plan has
    /// artifacts.
    pub fn unusual_steps(&self, installable: bool) -> Option<String> {
        let SuiteOptions { steps, reboot, results, artifacts, .. } = &self.options;
        let collects = results.is_some() || !artifacts.is_empty();
        let word = |step: &Step| match step {
            Step::Run if *reboot => "run (may reboot)",
            step => step.name(),
        };
        let is_usual = !reboot && *steps == Step::usual(installable, collects);
        (!is_usual).then(|| steps.iter().map(word).collect::<Vec<_>>().join(", "))
    }
}

/// A file that is uploaded beside the script.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UploadFile {
    /// Where it is on this machine (absolute). Not part of the plan's digest.
    pub path: PathBuf,
    /// Its path relative to the script's working directory in the guest; never absolute, never with `..`.
    pub relative: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Digest of its content.
    pub digest: Digest,
}

/// Location of a suite's own results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "format", rename_all = "kebab-case")]
pub enum Results {
    /// JUnit XML files matching this absolute glob in the guest.
    Junit {
        /// For example `/tmp/results/*.xml`.
        glob: String,
    },
}

/// Size and connectivity of one guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guest {
    /// Virtual CPUs, at least 1.
    pub cpus: u32,
    /// Memory, at least 128 MiB.
    pub memory: ByteSize,
    /// Size of the root disk as the guest sees it, at least as large as the image's.
    pub disk: ByteSize,
    /// More disks, each serial number once.
    pub disks: Vec<DataDisk>,
    /// Network cards, 1 to 8. The first one carries SSH and reaches what `network` says, the others reach nothing.
    pub nics: u32,
    /// What it may reach.
    pub network: Network,
    /// What starts the boot loader of its disk; `None`: what the image is made for.
    pub firmware: Option<Firmware>,
    /// It has a TPM 2.0 of its own.
    pub tpm: bool,
}

/// The default guest.
impl Default for Guest {
    fn default() -> Self {
        Self {
            cpus: 1,
            memory: ByteSize::from_mib(512),
            disk: Self::DEFAULT_DISK,
            disks: Vec::new(),
            nics: 1,
            network: Network::Isolated,
            firmware: None,
            tpm: false,
        }
    }
}

/// A disk besides the root disk: empty, the guest's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataDisk {
    /// What the guest recognizes it by: 1 to 20 letters, digits, `-` and `_`.
    pub serial: String,
    /// Its size, whole mebibytes.
    pub size: ByteSize,
    /// What it is attached to.
    pub interface: DiskInterface,
}

impl Guest {
    /// Default size of the root disk.
    pub const DEFAULT_DISK: ByteSize = ByteSize::from_mib(4 << 10);
}

/// How the package's artifacts are installed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum InstallFrom {
    /// As files, all at once.
    #[default]
    File,
    /// By name, from a signed repository of these files in the guest: as users of a vendor's repository do.
    Repository,
}

/// Where that comes from what the package's artifacts depend on, and what is neither installed in the guest nor among the artifacts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Dependencies {
    /// Nowhere: the artifacts must be complete.
    Artifacts,
    /// The repositories of its system, through the proxy on its runner: the guest's package manager gets it from there. They are
    /// asked only if something is missing.
    #[default]
    Repositories,
}

/// How a guest is started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Boot {
    /// Forked from a template (a guest that was booted and frozen once), if there is one; otherwise booted.
    #[default]
    Warm,
    /// Booted: for tests of the boot itself and of what happens at the first one.
    Cold,
}

/// Whose identity a guest has: machine-id, SSH host key and host name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Identity {
    /// Guests forked from one template have the same one.
    #[default]
    Shared,
    /// Each guest gets its own after the fork, before the payload. (A booted guest has a machine-id and a host key of its own
    /// anyway.)
    Unique,
}

/// Time limits by phase, before scaling by the measured speed of this machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timeouts {
    /// From power-on to the first sign of an SSH server (the phases boot and connect together).
    pub boot: Duration,
    /// Uploading the payload.
    pub prepare: Duration,
    /// Installing the package.
    pub install: Duration,
    /// Running the suite.
    pub suite: Duration,
    /// Fetching results and artifacts.
    pub collect: Duration,
}

/// Identity of a cell: `<image>.<suite>`, then `.<axis>=<value>` for every axis.
///
/// Only `A-Z a-z 0-9 . _ = + -`, not beginning with `.` or `-`, at most 120 characters; changed text carries a short digest of
/// the original, so two cells never share an id. It is checked again when read back, so it is safe to join a `CellId` to a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CellId(pub(crate) String);

impl CellId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
