//! Errors. Every message ends with the next step.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    process::ExitStatus,
};

/// The exit code of nearly every [`Failure`]: as nestmatrix's for "nothing was started".
pub(crate) const NOT_STARTED: u8 = 2;
/// That of [`Failure::Violated`]: as nestmatrix's for a failed test.
const BROKEN: u8 = 1;

/// Why nothing was started.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line is invalid.
    Usage(String),
    /// The machine lacks something that was not installed; the commands have been printed.
    NotReady(String),
    /// A command failed. It has printed its reason.
    Command {
        /// The command, as a person would type it.
        command: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// A command could not even be started.
    Start {
        /// The command, as a person would type it.
        command: String,
        /// Why not.
        source: io::Error,
    },
    /// A file that was just built does not exist.
    NotBuilt(PathBuf),
    /// The binary needs libraries of the system it runs on.
    NotStatic(PathBuf),
    /// A run left a journal that a benchmark cannot use.
    Journal {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A requirement of a benchmark is violated.
    Violated {
        /// A line for each.
        what: Vec<String>,
        /// The folder with the runs.
        evidence: PathBuf,
    },
    /// A file could not be read or written.
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Failure {
    /// An error of this file.
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::File { path, source }
    }

    /// The exit code.
    pub(crate) const fn code(&self) -> u8 {
        if matches!(self, Self::Violated { .. }) { BROKEN } else { NOT_STARTED }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(what) => write!(f, "{what}; `cargo xtask help` lists what there is"),
            Self::NotReady(what) => f.write_str(what),
            Self::Command { command, status } => {
                write!(
                    f,
                    "`{command}` failed ({status}); its output is above: fix that, then run the same command again"
                )
            }
            Self::Start { command, source } => {
                write!(f, "could not start `{command}`: {source}; is it installed and on the PATH?")
            }
            Self::NotBuilt(path) => write!(
                f,
                "the build succeeded but {} does not exist; is another build target or profile set in a cargo configuration file?",
                path.display()
            ),
            Self::NotStatic(path) => write!(
                f,
                "{} is not linked statically: is RUSTFLAGS set? It replaces the flags in .cargo/config.toml: unset it",
                path.display()
            ),
            Self::Journal { path, why } => {
                write!(f, "cannot use {}: {why}; the run's report is beside it", path.display())
            }
            Self::Violated { what, evidence } => {
                write!(f, "this does not hold: {}; the runs are in {}", what.join("; "), evidence.display())
            }
            Self::File { path, source } => {
                write!(f, "could not use {}: {source}; check its owner and the free space", path.display())
            }
        }
    }
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Self {
        Self::Usage(error.to_string())
    }
}
