//! The shape of the matrix file: which keys there are, and what they mean.
//!
//! Only the shape is checked here; every value keeps its place, so that [`crate::validate`] can point at it. The comments on
//! these types are the descriptions in the JSON Schema: write them for authors of matrix files.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    Arch, Boot, Dependencies, Firmware, Identity, InstallFrom, Network, PackageFamily, RunnerKind, Step, Unexpected,
    located::At,
    scalar::{DiskEntry, DurationText, OneOrMany, Scalar, SizeText, SuiteInstall},
};

/// A matrix file of nestmatrix: which operating systems, which package, which tests.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "nestmatrix matrix file")]
pub(crate) struct MatrixFile {
    /// The package under test.
    pub(crate) package: Option<PackageTable>,
    /// Where the guests run, and how many at once.
    #[serde(default)]
    pub(crate) runner: RunnerTable,
    /// Size and connectivity of every guest, unless an image or a suite says otherwise.
    #[serde(default)]
    pub(crate) guest: GuestTable,
    /// What guests with the network `repositories` may reach beyond the repositories of their system, and what is done about other
    /// requests.
    #[serde(default)]
    pub(crate) network: NetworkTable,
    /// Third-party repositories that guests are given, at most 32.
    #[serde(default)]
    pub(crate) repository: Vec<RepositoryTable>,
    /// Time limits by phase, unless a suite says otherwise. They are multiplied by the measured speed of the machine.
    #[serde(default)]
    pub(crate) timeout: TimeoutTable,
    /// Names of catalog images: the short form of `[[image]]` tables that have only a name.
    #[serde(default)]
    pub(crate) images: Vec<At<String>>,
    /// The operating systems.
    #[serde(default)]
    pub(crate) image: Vec<ImageTable>,
    /// Free dimensions of the matrix: name = list of values. Every cell has one value of each.
    #[serde(default)]
    pub(crate) axes: IndexMap<At<String>, At<Vec<At<Scalar>>>>,
    /// Cells to leave out: those that match every key (`image`, `suite` or an axis) of one table. Values may be globs or
    /// lists of globs.
    #[serde(default)]
    pub(crate) exclude: Vec<At<IndexMap<At<String>, At<OneOrMany>>>>,
    /// Cells to add, after the excludes: each names `image`, `suite` and a value of every axis. The value need not be in
    /// the axis's list.
    #[serde(default)]
    pub(crate) include: Vec<At<IndexMap<At<String>, At<Scalar>>>>,
    /// What to run in every guest.
    #[serde(default)]
    pub(crate) suite: Vec<SuiteTable>,
}

/// The package under test.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PackageTable {
    /// Its name, for templates and reports.
    pub(crate) name: At<String>,
    /// Its version, for templates and reports.
    pub(crate) version: Option<At<String>>,
    /// Its files: globs relative to this matrix file. They are sent to the guests whose package manager can use them, and
    /// installed.
    pub(crate) artifacts: Option<At<Vec<At<String>>>>,
    /// How they are installed; default: `file`. An image and a suite may say otherwise.
    pub(crate) install: Option<InstallFrom>,
    /// Where what they depend on comes from, if it is neither installed nor among them; default: `repositories`, those of the guest's
    /// system. An image and a suite may say otherwise.
    pub(crate) dependencies: Option<Dependencies>,
}

impl PackageTable {
    /// The globs of its files.
    pub(crate) fn artifacts(&self) -> &[At<String>] {
        self.artifacts.as_ref().map_or(&[], |at| at.get())
    }
}

/// Where the guests run, and how many at once.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunnerTable {
    /// The machine that runs the guests; default: `auto`.
    pub(crate) kind: Option<At<RunnerKind>>,
    /// The machine of kind `ssh`: `user@host:port`; user and port may be left out.
    pub(crate) host: Option<At<String>>,
    /// The file with the private key for it, relative to this matrix file; default: what `ssh` uses (an agent, its
    /// configuration).
    pub(crate) identity: Option<At<String>>,
    /// Memory of all guests together; default: what the machine can spare, for an L1 what the plan can use at once.
    pub(crate) memory: Option<At<SizeText>>,
    /// Virtual CPUs of all guests together; default: as many as the machine has.
    #[schemars(with = "Option<u32>", range(min = 1, max = 4096))]
    pub(crate) cpus: Option<At<i64>>,
    /// How often a failure of the infrastructure (never of a test) is retried on a fresh guest, 0 to 10; default: 2.
    #[schemars(with = "Option<u32>", range(min = 0, max = 10))]
    pub(crate) retries: Option<At<i64>>,
    /// What an L1 is made from. Kind `qemu`: a catalog entry; default: `debian-13-runner`. Kind `gce`: an image family, `FAMILY` or
    /// `PROJECT/FAMILY`; default: `debian-cloud/debian-13`.
    pub(crate) image: Option<At<String>>,
    /// Words to add to an L1 kernel's command line.
    pub(crate) kernel_args: Option<At<String>>,
    /// Kind `qemu`: size of an L1's scratch disk, which holds the guests' overlays; default: 64GiB. It takes only the room that is written
    /// to. Kind `gce`: size of the instance's boot disk, whole gibibytes, at least 10GiB.
    pub(crate) disk: Option<At<SizeText>>,
    /// Kind `gce`: id of the project that the instance belongs to; default: that of the credentials.
    pub(crate) project: Option<At<String>>,
    /// Kind `gce`: the zones to create the instance in, such as `us-central1-a`, in the order they are tried; at most 32, each once.
    pub(crate) zones: Option<At<Vec<At<String>>>>,
    /// Kind `gce`: the machine type of the instance, such as `n2-standard-8`. Its series must have nested virtualization.
    pub(crate) machine_type: Option<At<String>>,
    /// Kind `gce`: create a Spot VM, which is cheaper and may be taken back at any time; default: no.
    pub(crate) spot: Option<At<bool>>,
    /// Kind `gce`: the network of the instance: a name, or `projects/P/global/networks/N`.
    pub(crate) network: Option<At<String>>,
    /// Kind `gce`: the subnet of the instance: a name, or `projects/P/regions/R/subnetworks/S`.
    pub(crate) subnet: Option<At<String>>,
    /// Kind `gce`: the instance has an address of its own on the internet; default: yes.
    pub(crate) external_ip: Option<At<bool>>,
    /// Kind `gce`: the command that connects to the instance's SSH server, as `ProxyCommand` of ssh_config; default: `ssh` connects by
    /// itself.
    pub(crate) proxy_command: Option<At<String>>,
    /// Kind `gce`: labels of the instance, at most 50; keys that begin with `nestmatrix` are reserved.
    pub(crate) labels: Option<At<IndexMap<At<String>, At<String>>>>,
    /// Kind `gce`: name of a persistent disk that keeps images and templates between runs; default: none.
    pub(crate) cache_disk: Option<At<String>>,
    /// Kind `gce`: Compute Engine deletes the instance after so long, whatever happens; from `10m` to `7d`, default: 4h.
    pub(crate) max_duration: Option<At<DurationText>>,
}

/// Size and connectivity of a guest.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GuestTable {
    /// Virtual CPUs, 1 to 64; default: 1.
    #[schemars(with = "Option<u32>", range(min = 1, max = 64))]
    pub(crate) cpus: Option<At<i64>>,
    /// Memory, at least 128MiB; default: 512MiB.
    pub(crate) memory: Option<At<SizeText>>,
    /// Size of the root disk as the guest sees it; default: 4GiB.
    pub(crate) disk: Option<At<SizeText>>,
    /// More disks, at most 16: empty, each given by its size or by a table; default: none.
    pub(crate) disks: Option<At<Vec<At<DiskEntry>>>>,
    /// Network cards, 1 to 8; default: 1. Those besides the first one are not configured, and reach nothing.
    #[schemars(with = "Option<u32>", range(min = 1, max = 8))]
    pub(crate) nics: Option<At<i64>>,
    /// What it may reach; default: nothing.
    pub(crate) network: Option<Network>,
    /// What starts the boot loader of its disk; default: what the image is made for. Only for images with a boot loader.
    pub(crate) firmware: Option<At<Firmware>>,
    /// It has a TPM 2.0 of its own; default: no.
    pub(crate) tpm: Option<bool>,
}

/// What guests with the network `repositories` may reach beyond the repositories of their system.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NetworkTable {
    /// What is done about a request that was refused; default: a warning.
    pub(crate) unexpected: Option<Unexpected>,
    /// More hosts, at most 64: `example.com`, `*.example.com` (all names below it, not itself) or an IP address, each also with
    /// `:port`. Without a port only 80 for http and 443 for https are allowed; default: none.
    pub(crate) allow: Option<At<Vec<At<String>>>>,
    /// Hosts whose addresses may be private ones (RFC 1918, ULA, loopback), which are otherwise never reached: at most 64, without
    /// wildcards, each also with `:port`. They need not be in `allow`, too; default: none.
    pub(crate) private: Option<At<Vec<At<String>>>>,
}

/// A third-party repository. Guests of the matching images are given it, and may reach the hosts that its descriptions name.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RepositoryTable {
    /// Its name: letters, digits and `-`, at most 40; unique.
    pub(crate) name: At<String>,
    /// The images whose guests are given it: names or globs; default: every image.
    pub(crate) images: Option<At<Vec<At<String>>>>,
    /// The file with the public key that signs it, armored or binary, at most 64KiB, relative to this matrix file; default: none.
    pub(crate) key: Option<At<String>>,
    /// Its description for apt: a deb822 stanza, or a line such as `deb http://apt.example.com/debian stable main`. Without `Signed-By`
    /// if there is a `key`.
    pub(crate) deb: Option<At<String>>,
    /// Its description for dnf, yum and zypper: a `.repo` file.
    pub(crate) rpm: Option<At<String>>,
    /// Its description for apk: the line for `/etc/apk/repositories`.
    pub(crate) apk: Option<At<String>>,
    /// Its description for pacman: a section of `pacman.conf`.
    pub(crate) pacman: Option<At<String>>,
    /// Its description for pkg: a repository configuration.
    pub(crate) pkg: Option<At<String>>,
}

/// Time limits by phase, such as `90s`, `3m` or `1h30m`; more than zero, at most a day.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TimeoutTable {
    /// From power-on to an answer over SSH; default: 1m.
    pub(crate) boot: Option<At<DurationText>>,
    /// Uploading the payload and asking what is installed; again for removing old results; default: 2m.
    pub(crate) prepare: Option<At<DurationText>>,
    /// Installing the package; default: 5m.
    pub(crate) install: Option<At<DurationText>>,
    /// Running the suite; default: 10m.
    pub(crate) suite: Option<At<DurationText>>,
    /// Fetching results and artifacts; default: 2m.
    pub(crate) collect: Option<At<DurationText>>,
}

/// One operating system.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImageTable {
    /// Its name in this matrix.
    pub(crate) name: At<String>,
    /// The catalog entry it comes from; default: its name.
    pub(crate) from: Option<At<String>>,
    /// Address of a disk image to download, or several mirrors of the same file, in the order they are tried. Needs `digest`.
    pub(crate) url: Option<At<OneOrMany>>,
    /// A disk image on this machine, relative to this matrix file: qcow2, raw, vmdk, vhdx, vdi (used where it lies), or ova.
    pub(crate) path: Option<At<String>>,
    /// A tarball with a root file system, such as an exported container: a path relative to this matrix file, or an address
    /// (which needs `digest`). nestmatrix boots it with its own kernel.
    pub(crate) rootfs: Option<At<String>>,
    /// Digest of the file that `url`, `path` or `rootfs` names: `sha256:` or `sha512:` and hex digits.
    pub(crate) digest: Option<At<String>>,
    /// The kind of CPU that the image of `url`, `path` or `rootfs` is made for; default: this machine's.
    pub(crate) arch: Option<Arch>,
    /// What starts the boot loader of the disk; default: `uefi` for aarch64; for x86_64 it is read from the disk.
    pub(crate) firmware: Option<At<Firmware>>,
    /// The kind of packages it installs; default: found out in the guest.
    pub(crate) family: Option<PackageFamily>,
    /// The user who logs in over SSH; default: root. Other users need `sudo` without a password.
    pub(crate) login: Option<At<String>>,
    /// Words to add to the guest kernel's command line.
    pub(crate) kernel_args: Option<At<String>>,
    /// How the package's artifacts are installed in its guests; wins over the package's.
    pub(crate) install: Option<InstallFrom>,
    /// Where its guests get the dependencies that the package's artifacts lack; wins over the package's.
    pub(crate) dependencies: Option<Dependencies>,
    /// Size and connectivity of its guests, where they differ from `[guest]`.
    #[serde(default)]
    pub(crate) guest: GuestTable,
    /// What to do to its guests before any suite: once per template, if they are forked.
    pub(crate) prepare: Option<At<PrepareTable>>,
}

/// What to do to an image's guests before any suite: packages, a script, or both (the packages first).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PrepareTable {
    /// The script: a file, relative to this matrix file. Sent as it is, not a template. (Or `inline`.)
    pub(crate) run: Option<At<String>>,
    /// The script itself, a template over package and image. (Or `run`.)
    pub(crate) inline: Option<At<String>>,
    /// Names of packages that the guest's package manager installs, such as `gcc`.
    #[serde(default)]
    pub(crate) packages: Vec<At<String>>,
    /// What the guest may reach during the preparation only; default: `repositories` if it names packages, otherwise nothing.
    pub(crate) network: Option<Network>,
    /// Time limit of the whole preparation; default: 10m.
    pub(crate) timeout: Option<At<DurationText>>,
}

/// What to run in every guest: a script, and what belongs to it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SuiteTable {
    /// Its name.
    pub(crate) name: At<String>,
    /// The script: a file, relative to this matrix file. Sent as it is, not a template. (Or `inline`.)
    pub(crate) run: Option<At<String>>,
    /// The script itself, a template over package, image, axes and suite. (Or `run`.) `{#` begins no comment in it, because
    /// `${#name}` is shell.
    pub(crate) inline: Option<At<String>>,
    /// Environment of the script; values are templates over package, image, axes and suite. Besides these the script sees
    /// NESTMATRIX_CELL, NESTMATRIX_IMAGE, NESTMATRIX_SUITE, NESTMATRIX_PACKAGE_NAME, NESTMATRIX_PACKAGE_VERSION and, for every
    /// axis, NESTMATRIX_AXIS_<NAME>.
    #[serde(default)]
    pub(crate) env: IndexMap<At<String>, At<String>>,
    /// More files that the script needs: globs relative to this matrix file, inside its folder.
    #[serde(default)]
    pub(crate) files: Vec<At<String>>,
    /// Results that the suite writes: `junit:` and an absolute glob in the guest, such as `junit:/tmp/results/*.xml`. Without it
    /// the script's exit code is the one test case.
    pub(crate) results: Option<At<String>>,
    /// What to fetch from the guest afterwards: absolute paths or globs.
    #[serde(default)]
    pub(crate) artifacts: Vec<At<String>>,
    /// Install the package before the suite runs (`true`, `false`), or how (`file`, `repository`; wins over the image's); default: yes, if
    /// there are package artifacts.
    pub(crate) install: Option<At<SuiteInstall>>,
    /// Where its guests get the dependencies that the package's artifacts lack; wins over the image's.
    pub(crate) dependencies: Option<Dependencies>,
    /// What is done with a guest, in this order: `prepare`, `install`, `run`, `collect`, and `reboot` anywhere between the first and the
    /// last; default: all but `reboot`, as far as there is something to install and to collect.
    pub(crate) steps: Option<At<Vec<At<Step>>>>,
    /// The suite may reboot its guest; default: no, a reboot is a failure of the package. After a reboot the script runs again,
    /// with NESTMATRIX_REBOOT one higher (0 at first); at most 10 times. NESTMATRIX_MARK is the path of a file that survives the
    /// reboot: the script announces a reboot by writing to it. The time limit of the suite covers all runs together, without the
    /// boots between them.
    #[serde(default)]
    pub(crate) reboot: bool,
    /// How its guests start; default: forked from a template.
    pub(crate) boot: Option<Boot>,
    /// Whose machine-id, SSH host key and host name its guests have; default: those of their template.
    pub(crate) identity: Option<Identity>,
    /// Size and connectivity of this suite's guests; wins over the image's.
    #[serde(default)]
    pub(crate) guest: GuestTable,
    /// Time limits of this suite, where they differ from `[timeout]`.
    #[serde(default)]
    pub(crate) timeout: TimeoutTable,
}
