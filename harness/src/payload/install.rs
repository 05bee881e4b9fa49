//! Phase install: the package's artifacts, by the guest's own package manager, without a network.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use matrix::{Arch, PackageFamily};
use reports::InstalledPackage;

use super::{
    family,
    guarded::{self, Ended, Guarded},
    installed, words,
};
use crate::ssh::{DEFAULT_CAP, End, Session, Sink, SshError};

/// A family script exits with this when there is nothing for this system among the artifacts.
pub(super) const NOTHING: i32 = 90;

/// How to install.
#[derive(Clone, Copy, Debug)]
pub struct Install<'a> {
    /// The guest's family; the same as at the upload.
    pub family: PackageFamily,
    /// The guest's CPU; the same as at the upload.
    pub arch: Arch,
    /// Where the complete output of the package manager goes, on this machine.
    pub log: &'a Path,
    /// When it must be over.
    pub deadline: Instant,
    /// How long processes have between TERM and KILL at the deadline (already scaled).
    pub grace: Duration,
}

/// The package is not installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The package manager said no, or a script of the package failed: the package's fault.
    #[error("{}", join(words))]
    Refused {
        /// Its own words, the lines that matter.
        words: Vec<String>,
    },
    /// It did not come to an end: the package's fault (a maintainer script hangs or waits for an answer).
    #[error("the package manager did not come to an end in time; it last said: {last}")]
    Timeout {
        /// Its last line.
        last: String,
    },
    /// No artifact of the package is for this system.
    #[error(
        "no artifact of the package can be installed on this system, which takes {takes} for {arch} or for any CPU"
    )]
    Nothing {
        /// What its package manager takes.
        takes: &'static str,
        /// Its CPU.
        arch: Arch,
    },
    /// The connection or the cancellation.
    #[error(transparent)]
    Ssh(#[from] SshError),
}

/// Installs the uploaded artifacts, all at once, so that they may depend on each other; what is there then, as the guest says.
pub async fn install(session: &Session, install: &Install<'_>) -> Result<Vec<InstalledPackage>, InstallError> {
    let ended = guarded::run(
        session,
        Guarded {
            script: "install",
            stdout: Sink::File { path: install.log.to_owned(), cap: DEFAULT_CAP },
            stderr: Sink::Tail,
            deadline: install.deadline,
            grace: install.grace,
        },
    )
    .await?;
    let exit = match ended {
        Ended::Itself(exit) => exit,
        Ended::TimedOut { exit, .. } => {
            let last = exit.and_then(|exit| words::last_lines(&exit.stdout_tail, 1).pop());
            return Err(InstallError::Timeout { last: last.unwrap_or_else(|| "nothing".to_owned()) });
        }
    };
    let adapter = family::of(install.family);
    let said = &exit.stdout_tail;
    let mut words = match exit.end {
        End::Exited(0) if !words::lines(said).iter().any(|line| (adapter.unsaid)(line)) => {
            return Ok(installed::installed_packages(install.family, said));
        }
        End::Exited(NOTHING) => return Err(InstallError::Nothing { takes: adapter.takes, arch: install.arch }),
        _ => (adapter.words)(said),
    };
    match exit.end {
        End::Killed(signal) => {
            words.push(format!("the package manager was killed by signal {}", reports::clean::line(&signal)));
        }
        end if words.is_empty() => words.push(format!("the package manager ended without a word: {end}")),
        _ => {}
    }
    Err(InstallError::Refused { words })
}

/// Lines as one line; what follows a colon at the end of a line belongs to it.
fn join(words: &[String]) -> String {
    let mut line = String::new();
    for word in words {
        if !line.is_empty() {
            line += if line.ends_with(':') { " " } else { "; " };
        }
        line += word.trim();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_reads_as_one_line() {
        let words = [
            "The following packages have unmet dependencies:",
            " hello : Depends: libc6 (>= 2.34) but 2.31-13+deb11u14 is to be installed",
            "E: Unable to correct problems, you have held broken packages.",
        ];
        let error = InstallError::Refused { words: words.map(str::to_owned).to_vec() };
        insta::assert_snapshot!(error, @"The following packages have unmet dependencies: hello : Depends: libc6 (>= 2.34) but 2.31-13+deb11u14 is to be installed; E: Unable to correct problems, you have held broken packages.");
    }

    #[test]
    fn a_system_that_nothing_is_for_says_what_it_takes() {
        let error = InstallError::Nothing { takes: family::of(PackageFamily::Rpm).takes, arch: Arch::Aarch64 };
        insta::assert_snapshot!(error, @"no artifact of the package can be installed on this system, which takes RPM packages (.rpm) for aarch64 or for any CPU");
    }
}
