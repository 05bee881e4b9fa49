//! What can be said on the command line.

use std::path::PathBuf;

use clap::{ArgAction, Args as Arguments, Parser, Subcommand, ValueEnum};

use super::gce_flags::GceFlags;
use crate::{fanout::Keep, run::MessageFormat};

/// Prove a software release on every operating system it claims to support.
#[derive(Debug, Parser)]
#[command(name = "nestmatrix", version, max_term_width = 110)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run a matrix: every cell on a virtual machine of its own.
    #[command(after_help = EXIT_CODES)]
    Run(Box<Run>),
    /// Show what a matrix would run, and run nothing.
    Plan(Plan),
    /// Check this machine: tools, size, virtualization, which runner `auto` chooses; say what to do about what is missing.
    Doctor(Doctor),
    /// Do the same work on this machine, in a guest on it, and in a guest inside a guest; show what each level costs. Takes
    /// minutes where the levels are emulated.
    #[command(after_help = BENCH_EXIT_CODES)]
    BenchNesting(BenchNesting),
    /// The work of `bench-nesting`, done here.
    #[command(hide = true)]
    BenchWork(BenchWork),
    /// Operating-system images: what there is, what is in the store.
    #[command(after_help = IMAGES_EXIT_CODES)]
    Images {
        #[command(subcommand)]
        verb: Images,
        #[command(flatten)]
        catalog: CatalogFile,
    },
    /// Compute Engine: what the runner `gce` has there, and what dead runs left.
    #[command(after_help = GCE_EXIT_CODES)]
    Gce {
        #[command(subcommand)]
        verb: Gce,
    },
    /// Rebuild the reports of a run from its journal.
    Report(Report),
    /// Boot a cell's guest, install the package, and give a shell in it.
    Shell(Shell),
    /// Run cells on this machine for an orchestrator elsewhere: what a runner's machine is started with.
    #[command(hide = true)]
    Agent(Agent),
    /// Take files from an orchestrator elsewhere.
    #[command(hide = true)]
    Receive {
        #[command(subcommand)]
        what: Receive,
    },
    /// Print the JSON Schema of the matrix file.
    Schema,
    /// Print completions for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

const EXIT_CODES: &str = "Exit codes: 0 all passed or skipped; 1 a test failed or the package does not install; 2 usage, matrix or \
                          configuration error, nothing was started; 3 no test failed, but not every cell got a verdict; 130 \
                          interrupted.";

const BENCH_EXIT_CODES: &str = "Exit codes: 0 the work was done in all three places; 2 usage or configuration error, nothing was \
                                started; 3 one place has no figures, and why is said; 130 interrupted.";

const GCE_EXIT_CODES: &str = "Exit codes: 0 done; 2 usage or configuration error; 3 Compute Engine could not be asked, or an instance was \
                              not deleted.";

const IMAGES_EXIT_CODES: &str = "Exit codes: 0 done; 1 `verify` found damage, or `update --check` a difference; 2 usage or \
                                 configuration error; 3 an image could not be had, or is not in the store; 130 interrupted.";

/// What can be done on Compute Engine.
#[derive(Debug, Subcommand)]
pub(super) enum Gce {
    /// Show the instances of nestmatrix in a project, and whether their runs live.
    List(GceProject),
    /// Make an image family with QEMU in it, from which L1s are ready in seconds: `image = "FAMILY"` in `[runner]`, or `--gce-image`.
    Bake(Bake),
    /// Delete the instances that dead runs of this machine left.
    Cleanup {
        #[command(flatten)]
        of: GceProject,
        /// Also those of other machines and stores, whose runs may live.
        #[arg(long)]
        all: bool,
    },
}

/// What an image for L1s is made from, and where.
#[derive(Debug, Arguments)]
pub(super) struct Bake {
    #[command(flatten)]
    pub(super) of: GceProject,
    /// The zone it is made in [default: that of `gcloud`: CLOUDSDK_COMPUTE_ZONE, or its configuration].
    #[arg(long, value_name = "ZONE", value_parser = matrix::gce_value::zone)]
    pub(super) zone: Option<String>,
    /// The family that the image joins.
    #[arg(long, value_name = "FAMILY", default_value = "nestmatrix-l1", value_parser = matrix::gce_value::family)]
    pub(super) family: String,
    /// The image family it is made from: `FAMILY` or `PROJECT/FAMILY`; it must have apt.
    #[arg(long, value_name = "FAMILY", default_value = "debian-cloud/debian-13")]
    pub(super) from: matrix::GceImage,
    /// The network of the machine it is made on; it must reach the package mirrors.
    #[arg(long, value_name = "NETWORK", value_parser = matrix::gce_value::network)]
    pub(super) network: Option<String>,
    /// Its subnet.
    #[arg(long, value_name = "SUBNET", value_parser = matrix::gce_value::subnet)]
    pub(super) subnet: Option<String>,
    /// Whether it has an external address.
    #[arg(long, value_name = "BOOL", default_value = "true", action = ArgAction::Set)]
    pub(super) external_ip: bool,
}

/// Which project.
#[derive(Debug, Arguments)]
pub(super) struct GceProject {
    /// The project [default: that of `gcloud`: CLOUDSDK_CORE_PROJECT, its configuration, or GOOGLE_CLOUD_PROJECT].
    #[arg(long, value_name = "ID", value_parser = matrix::gce_value::project)]
    pub(super) project: Option<String>,
    #[command(flatten)]
    pub(super) store: StoreRoot,
}

/// Images of one's own.
#[derive(Clone, Debug, Arguments)]
pub(super) struct CatalogFile {
    /// A catalog of your own: a TOML file with tables `[[image]]`, which add to the shipped catalog and replace its entries of the same
    /// name and architecture [default: `images.toml` beside the matrix file, or in this folder where there is no matrix].
    #[arg(long, value_name = "FILE", env = "NESTMATRIX_CATALOG", global = true)]
    pub(super) catalog: Option<PathBuf>,
}

/// Which matrix, and which of its cells.
#[derive(Debug, Arguments)]
pub(super) struct Which {
    /// A matrix file, or the name of a matrix that nestmatrix ships.
    #[arg(default_value = "release")]
    pub(super) matrix: PathBuf,
    /// Only the cells whose id matches; may be given several times.
    #[arg(long = "cell", value_name = "GLOB")]
    pub(super) cells: Vec<String>,
    #[command(flatten)]
    pub(super) catalog: CatalogFile,
    #[command(flatten)]
    pub(super) store: StoreRoot,
}

/// Where the store is.
#[derive(Clone, Debug, Arguments)]
pub(super) struct StoreRoot {
    /// Folder of the image store [default: `$XDG_CACHE_HOME/nestmatrix`].
    #[arg(long, value_name = "DIR", env = "NESTMATRIX_STORE")]
    pub(super) store: Option<PathBuf>,
}

/// How much room templates may take.
#[derive(Debug, Arguments)]
pub(super) struct TemplateLimit {
    /// What frozen guests may take in the store together; those not used for the longest time go first.
    #[arg(long = "template-limit", value_name = "SIZE", env = "NESTMATRIX_TEMPLATE_LIMIT", default_value = "16GiB")]
    pub(super) templates: matrix::ByteSize,
}

#[derive(Debug, Arguments)]
pub(super) struct Run {
    #[command(flatten)]
    pub(super) which: Which,
    #[command(flatten)]
    pub(super) limit: TemplateLimit,
    /// Where guests run: `host` (on this machine), `qemu` (in an L1 booted on it), `ssh:user@host:port` (on a machine you can log in to),
    /// `gce` (on an instance that is created on Google Compute Engine), or `auto` (choose `host` or `qemu` and say why) [default: what the matrix says, else `auto`].
    #[arg(long, value_name = "RUNNER")]
    pub(super) runner: Option<Runner>,
    /// The private key to log in to the machine of `--runner ssh:...` with [default: what the matrix says, else what `ssh` finds by itself].
    #[arg(long, value_name = "FILE", requires = "runner")]
    pub(super) identity: Option<PathBuf>,
    /// With the runner `gce`: show what would be created there, and create nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Continue a run that died or was interrupted: only cells without a verdict run. Its folder, its name, or `latest`.
    #[arg(long, value_name = "RUN", conflicts_with_all = ["matrix", "cells", "out", "runner", "dry_run", "lock", "locked", "GceFlags"])]
    pub(super) resume: Option<PathBuf>,
    /// Boot every guest; fork none from a frozen one.
    #[arg(long, env = "NESTMATRIX_COLD", value_parser = yes_or_no, action = ArgAction::SetTrue)]
    pub(super) cold: bool,
    /// Download and build nothing: use the images that are in the store, and of repositories what an earlier run got.
    #[arg(long)]
    pub(super) offline: bool,
    /// After the run, pin what its guests got from repositories: in `repositories.lock` beside the matrix file. Entries of other images
    /// stay.
    #[arg(long)]
    pub(super) lock: bool,
    /// Guests get the packages that `repositories.lock` pins, and no others: another one is an error of its cell that names both versions.
    #[arg(long, conflicts_with = "lock")]
    pub(super) locked: bool,
    /// At most so many guests at once [default: as many as memory and CPUs allow].
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) jobs: Option<u16>,
    /// Folder for the results; must be empty or new [default: .nestmatrix/runs/<time>-<id>].
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// Leave guests running after their cell, and print the command that enters them.
    #[arg(long, value_name = "WHICH", default_value = "never")]
    pub(super) keep: Keep,
    /// What is printed while it runs.
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub(super) message_format: MessageFormat,
    // Last: its heading holds for whatever follows.
    #[command(flatten)]
    pub(super) gce: GceFlags,
}

/// What an environment variable says that is a switch.
fn yes_or_no(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "" | "0" | "false" | "no" | "off" => Ok(false),
        _ => Err("set NESTMATRIX_COLD to 1 to boot every guest, to 0 or nothing to fork them".to_owned()),
    }
}

/// A runner, as it is named on the command line.
#[derive(Clone, Debug)]
pub(super) enum Runner {
    /// One of this machine.
    Here(matrix::RunnerKind),
    /// A machine one can log in to.
    Ssh(matrix::SshHost),
    /// One that is created on Compute Engine.
    Gce,
}

impl std::str::FromStr for Runner {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Here(matrix::RunnerKind::Auto)),
            "host" => Ok(Self::Here(matrix::RunnerKind::Host)),
            "qemu" => Ok(Self::Here(matrix::RunnerKind::Qemu)),
            "gce" => Ok(Self::Gce),
            _ => match text.strip_prefix("ssh:") {
                Some(host) => host.parse().map(Self::Ssh).map_err(|error| error.to_string()),
                None => Err("write `auto`, `host`, `qemu`, `gce` or `ssh:user@host:port`".to_owned()),
            },
        }
    }
}

#[derive(Debug, Arguments)]
pub(super) struct Agent {
    /// The folder with the unpacked bundle; with `--shared`, the name of the run.
    pub(super) bundle: PathBuf,
    /// The folder that this user's runs on this machine share.
    #[arg(long, value_name = "DIR")]
    pub(super) shared: Option<PathBuf>,
}

/// What is received over standard input from an orchestrator elsewhere.
#[derive(Debug, Subcommand)]
pub(super) enum Receive {
    /// The files of an image, into a folder of this name below the shared folder.
    Image { shared: PathBuf, name: String },
    /// Where an image is published: it is fetched, into a folder of this name below the shared folder.
    Fetch { shared: PathBuf, name: String },
    /// The bundle of a run, as an archive.
    Bundle { shared: PathBuf, run: String },
    /// Nothing: waits until the run has ended and removes what it left.
    End { shared: PathBuf, run: String },
}

#[derive(Debug, Arguments)]
pub(super) struct Plan {
    #[command(flatten)]
    pub(super) which: Which,
    /// For people, or for programs.
    #[arg(long, default_value = "table")]
    pub(super) format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Format {
    Table,
    Json,
}

#[derive(Debug, Arguments)]
pub(super) struct Doctor {
    #[command(flatten)]
    pub(super) store: StoreRoot,
    /// Prove the accelerator again, even if this machine's answer is known.
    #[arg(long)]
    pub(super) fresh: bool,
    /// Ask another machine instead: `ssh:user@host:port`.
    #[arg(long, value_name = "RUNNER", conflicts_with = "fresh")]
    pub(super) runner: Option<Runner>,
    /// The private key to log in there with, as `runner.identity` in a matrix. Default: what `ssh` finds by itself.
    #[arg(long, value_name = "FILE", requires = "runner")]
    pub(super) identity: Option<PathBuf>,
}

#[derive(Debug, Arguments)]
pub(super) struct BenchNesting {
    /// The catalog image of both guests.
    #[arg(long, value_name = "NAME", default_value = "debian-12-minimal")]
    pub(super) image: String,
    /// How often the work is done in each place; the medians are compared.
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(super) rounds: u16,
    /// For people, or for programs.
    #[arg(long, default_value = "table")]
    pub(super) format: Format,
    #[command(flatten)]
    pub(super) store: StoreRoot,
}

#[derive(Debug, Arguments)]
pub(super) struct BenchWork {
    /// How often.
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(super) rounds: u16,
}

#[derive(Debug, Subcommand)]
pub(super) enum Images {
    /// List the catalog and what of it is in the store.
    List {
        /// Also images for other architectures.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        store: StoreRoot,
    },
    /// Show everything that is known of an image.
    Show {
        /// Its name (`images list`); `NAME-aarch64` and `NAME-x86_64` mean a certain architecture.
        name: String,
        /// For people, or for programs.
        #[arg(long, default_value = "table")]
        format: Format,
        #[command(flatten)]
        store: StoreRoot,
    },
    /// Fetch or build images ahead of a run.
    Prepare {
        /// Names from the catalog (`images list`).
        #[arg(required_unless_present = "matrix")]
        names: Vec<String>,
        /// All images of this matrix file, as its `images.lock` has them.
        #[arg(long, value_name = "FILE", conflicts_with = "names")]
        matrix: Option<PathBuf>,
        /// Build again from today's packages even if the image is there.
        #[arg(long, conflicts_with = "offline")]
        refresh: bool,
        /// Download and build nothing: only look whether they are in the store.
        #[arg(long)]
        offline: bool,
        #[command(flatten)]
        store: StoreRoot,
    },
    /// Read every byte of images in the store, and compare it with what was put there.
    Verify {
        /// Names from the catalog [default: all that are in the store].
        names: Vec<String>,
        #[command(flatten)]
        store: StoreRoot,
    },
    /// Print where an image's disk lies in the store.
    Path {
        /// Its name (`images list`).
        name: String,
        #[command(flatten)]
        store: StoreRoot,
    },
    /// Remove what is too much in the store: images that neither the catalog nor `images.lock` names and nobody used for a while,
    /// interrupted downloads, unused lock files. What is in use stays.
    Gc {
        /// Keep images that were used in the last so many days.
        #[arg(long, value_name = "N", default_value = "30")]
        keep_days: u16,
        /// Only say what would go.
        #[arg(long)]
        dry_run: bool,
        /// Frozen guests, too; they are made again when they are needed.
        #[arg(long = "templates")]
        frozen: bool,
        #[command(flatten)]
        store: StoreRoot,
    },
    /// Ask the publishers of a matrix's images which files they mean today, and write that into `images.lock` beside the matrix file.
    Update {
        /// A matrix file, or the name of a matrix that nestmatrix ships.
        #[arg(default_value = "release")]
        matrix: PathBuf,
        /// Only these of its images.
        names: Vec<String>,
        /// Only say what would change; exit code 1 if anything would.
        #[arg(long)]
        check: bool,
        #[command(flatten)]
        store: StoreRoot,
    },
}

#[derive(Debug, Arguments)]
pub(super) struct Report {
    /// The run: its folder, its name, or `latest`.
    #[arg(default_value = "latest")]
    pub(super) run: PathBuf,
}

#[derive(Debug, Arguments)]
pub(super) struct Shell {
    /// The cell's id, as `plan` shows it; a glob that matches one cell will do.
    pub(super) cell: String,
    /// A matrix file, or the name of a matrix that nestmatrix ships.
    #[arg(default_value = "release")]
    pub(super) matrix: PathBuf,
    #[command(flatten)]
    pub(super) catalog: CatalogFile,
    #[command(flatten)]
    pub(super) store: StoreRoot,
    #[command(flatten)]
    pub(super) limit: TemplateLimit,
}

impl StoreRoot {
    /// The folder, or why there is none.
    pub(super) fn path(&self) -> Result<PathBuf, super::Failure> {
        match &self.store {
            Some(folder) => Ok(folder.clone()),
            None => images::Store::default_root().map_err(|error| super::Failure::message(2, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_in_the_environment_is_on_or_off_and_nothing_else() {
        assert!(["1", "true", "YES", "on"].iter().all(|text| yes_or_no(text) == Ok(true)));
        assert!(["", "0", "False", "no", "off"].iter().all(|text| yes_or_no(text) == Ok(false)));
        yes_or_no("maybe").expect_err("neither");
    }
}
