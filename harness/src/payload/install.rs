//! Phase install: the package's artifacts, by the guest's own package manager, without a network.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use super::{
    deb,
    guarded::{self, Ended, Guarded},
    quote, words,
};
use crate::ssh::{DEFAULT_CAP, Session, Sink, SshError};

/// A family script exits with this when there is nothing for this system among the artifacts.
const NOTHING: i32 = 90;

/// A family of package managers: what it can install, how, and which of its words matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackageFamily {
    /// dpkg and apt.
    Deb,
}

impl PackageFamily {
    /// Whether this family can install a file of this name.
    pub fn accepts(self, file_name: &str) -> bool {
        match self {
            Self::Deb => file_name.ends_with(".deb"),
        }
    }

    /// The script that installs everything in the folder `$root/artifacts`. It says everything on standard output, in order.
    pub(super) fn script(self) -> &'static str {
        match self {
            Self::Deb => deb::SCRIPT,
        }
    }

    fn words(self, output: &[u8]) -> Vec<String> {
        match self {
            Self::Deb => deb::words(output),
        }
    }
}

/// A script that installs packages by their names, from wherever the guest's package manager gets them.
pub fn install_by_name(family: PackageFamily, names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| quote::word(name)).collect();
    match family {
        PackageFamily::Deb => deb::by_name(&names.join(" ")),
    }
}

/// A script that does what a payload does, without doing anything: what it reads from the disk stays in the guest's memory, and what
/// the package manager works out for itself is worked out.
pub fn rehearsal(family: PackageFamily) -> &'static str {
    match family {
        PackageFamily::Deb => deb::REHEARSAL,
    }
}

/// How to install.
#[derive(Clone, Copy, Debug)]
pub struct Install<'a> {
    /// The guest's family; the same as at the upload.
    pub family: PackageFamily,
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
    /// The package manager said no: the package's fault.
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
    #[error("no artifact of the package can be installed on this system")]
    Nothing,
    /// The connection or the cancellation.
    #[error(transparent)]
    Ssh(#[from] SshError),
}

/// Installs the uploaded artifacts, all at once, so that they may depend on each other.
pub async fn install(session: &Session, install: &Install<'_>) -> Result<(), InstallError> {
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
            let last = words::last_lines(&exit.unwrap_or_default().stdout_tail, 1).pop();
            return Err(InstallError::Timeout { last: last.unwrap_or_else(|| "nothing".to_owned()) });
        }
    };
    let mut words = match (exit.code, exit.signal.is_some()) {
        (Some(0), false) => return Ok(()),
        (Some(NOTHING), false) => return Err(InstallError::Nothing),
        _ => install.family.words(&exit.stdout_tail),
    };
    if let Some(signal) = exit.signal {
        words.push(format!("the package manager was killed by signal {}", reports::clean::line(&signal)));
    } else if words.is_empty() {
        words.push(format!("the package manager exited with {} without a word", exit.code.unwrap_or(-1)));
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
    fn a_family_takes_only_its_own_kind_of_file() {
        assert!(PackageFamily::Deb.accepts("hello_2.10-3_amd64.deb"));
        assert!(!PackageFamily::Deb.accepts("hello-2.10.x86_64.rpm"));
    }
}
