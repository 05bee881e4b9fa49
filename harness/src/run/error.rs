//! Why a run could not be started, or its results not recorded.

use matrix::{Arch, ByteSize, Firmware};

use crate::{host::ToolError, scratch::ScratchError};

/// The run could not be started, or its results could not be recorded.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A program is missing.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// A guest of the plan is larger than what guests may take.
    #[error(
        "cell {cell} needs {} MiB with QEMU's own, but all guests together may take {} MiB: lower the guest's `memory`, or \
         raise `runner.memory` (this machine can spare {} MiB)",
        needed.mib(), budget.mib(), spare.mib()
    )]
    TooLarge {
        /// The cell.
        cell: String,
        /// What it needs.
        needed: ByteSize,
        /// What there is.
        budget: ByteSize,
        /// What the machine could give.
        spare: ByteSize,
    },
    /// The matrix asks for more memory than there is.
    #[error("`runner.memory` asks for {} MiB, but this machine can spare {} MiB", asked.mib(), spare.mib())]
    Budget {
        /// What the matrix says.
        asked: ByteSize,
        /// What there is.
        spare: ByteSize,
    },
    /// The matrix asks for a larger L1 than this machine can carry.
    #[error(
        "`runner.memory` asks for an L1 of {} MiB with what it needs itself, but this machine can spare {} MiB: lower \
         `runner.memory`, or leave it out",
        asked.mib(), spare.mib()
    )]
    L1Memory {
        /// What the L1 would have.
        asked: ByteSize,
        /// What there is.
        spare: ByteSize,
    },
    /// The matrix names an image for its L1 that none can be booted from.
    #[error(
        "`runner.image` names {0}, and an L1 is booted from a system that is built here, for this machine's kind of CPU: leave it \
         out, or name one of these (`nestmatrix images list`)"
    )]
    L1Image(String),
    /// A guest of the plan does not fit into any L1 this machine can carry.
    #[error(
        "cell {cell} needs an L1 of {} MiB, but `runner.memory` or this machine allows less ({} MiB can be spared here): lower \
         the guest's `memory`, or raise `runner.memory`",
        needed.mib(), spare.mib()
    )]
    L1Cell {
        /// The cell.
        cell: String,
        /// What the L1 would need.
        needed: ByteSize,
        /// What there is.
        spare: ByteSize,
    },
    /// A guest inside an L1 goes when the L1 goes.
    #[error("guests in an L1 cannot be kept, they end with it: add `--runner host`, or leave out `--keep`")]
    KeepInL1,
    /// What runs guests in an L1 is KVM, which has one kind of CPU.
    #[error(
        "an L1 has no emulator for {arch} guests, which these cells need: {cells}; add `--runner host`, or leave them out"
    )]
    ForeignInL1 {
        /// Their names.
        cells: String,
        /// The kind of CPU that the first of them needs.
        arch: matrix::Arch,
    },
    /// A machine that is not booted here has none of this.
    #[error(
        "the matrix describes an L1 that is booted here, and guests are to run elsewhere: leave out `runner.image`, `runner.kernel_args` \
         and `runner.disk`"
    )]
    BootedElsewhere,
    /// No instance can be created from what was said.
    #[error("{0}")]
    Gce(String),
    /// There is no such run.
    #[error("{}", no_such_run(.0))]
    NoSuchRun(std::path::PathBuf),
    /// Nothing to resume.
    #[error(
        "nothing to resume: every cell of the run in {} has a result; errors are tried again by a new run", .0.display()
    )]
    NothingToResume(std::path::PathBuf),
    /// What the run tests is not what it began with.
    #[error("{} has changed since the run began or is gone: restore it, or start a new run", .0.display())]
    ChangedSince(std::path::PathBuf),
    /// A guest's disk would cut its image short.
    #[error(
        "cell {cell} gives its guest a disk of {asked}, but the image itself has {least}: raise `disk`, or leave it out"
    )]
    SmallDisk {
        /// The cell.
        cell: String,
        /// What the matrix says.
        asked: ByteSize,
        /// Size of the image's disk.
        least: ByteSize,
    },
    /// Firmware is to start a cell's guest, whose image has no boot loader.
    #[error(
        "cell {cell} asks for the firmware `{firmware}`, but guests of its image have no boot loader: they are booted with a kernel from \
         outside of their disk; remove `guest.firmware`, or exclude the image from this suite"
    )]
    NoBootLoader {
        /// The cell.
        cell: String,
        /// What the matrix says.
        firmware: Firmware,
    },
    /// There is no such firmware for a cell's guest.
    #[error(
        "cell {cell} asks for the firmware `{firmware}`, which {arch} machines do not have: write `guest.firmware = \"uefi\"`, or remove it"
    )]
    NoSuchFirmware {
        /// The cell.
        cell: String,
        /// What the matrix says.
        firmware: Firmware,
        /// What its image is made for.
        arch: Arch,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] images::StoreError),
    /// The scratch folder cannot be created or locked.
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    /// The run's folder cannot be created or locked.
    #[error("results folder: {0}")]
    Folder(std::io::Error),
    /// The journal cannot be written.
    #[error(transparent)]
    Journal(#[from] reports::JournalError),
    /// The plan cannot be written.
    #[error(transparent)]
    Plan(#[from] matrix::PlanFileError),
    /// The reports cannot be written.
    #[error(transparent)]
    Render(#[from] reports::render::RenderError),
    /// A run that is to be resumed cannot be read.
    #[error("the run cannot be resumed")]
    Unreadable(#[source] reports::render::RenderError),
    /// Keys, threads, signals: something of the machine that never fails.
    #[error("could not {what}: {why}")]
    Machine {
        /// What.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// Guests were started, but what became of them is not on record or not reported.
    #[error("could not {what}: {why}; `nestmatrix report` may still rebuild the reports")]
    Lost {
        /// What.
        what: &'static str,
        /// Why.
        why: String,
    },
}

fn no_such_run(run: &std::path::Path) -> String {
    if run == std::path::Path::new("latest") {
        return "no run in this folder yet: start one with `nestmatrix run`, or name the folder of a run".to_owned();
    }
    let run = reports::clean::line(&run.display().to_string());
    format!("no run {run}: name its folder (it holds a plan.json), its name below .nestmatrix/runs, or `latest`")
}

impl RunError {
    /// 2 where nothing was started, 3 where verdicts were lost.
    pub fn exit_code(&self) -> u8 {
        match self {
            // That it is in use is known before anything starts.
            Self::Journal(reports::JournalError { kind: reports::JournalErrorKind::InUse, .. }) => 2,
            Self::Journal(_) | Self::Render(_) | Self::Lost { .. } => 3,
            _ => 2,
        }
    }
}
