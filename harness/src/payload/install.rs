//! Phase install: the package's artifacts, by the guest's own package manager, without a network.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead as _, Read as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use matrix::{Arch, PackageFamily};

use super::{
    family::{self, Adapter, UNUSABLE, reasons},
    guarded::{self, Ended, Guarded},
    installed::{self, Discrepancy, Installed},
    inventory::{self, ARTIFACTS, Id, Inventory, NoAnswer, PACKAGES},
    words,
};
use crate::ssh::{DEFAULT_CAP, End, Exit, Session, Sink, SshError};

/// Longest piece of the package manager's output that is taken for a line, in bytes.
const LINE: u64 = 64 * 1024;
/// Most bytes of a package manager's own words in such a line.
const CUT: usize = 4 * 1024;
/// How long a guest has, besides four times the grace, to say what is installed once the package manager is done.
const ANSWER: Duration = Duration::from_secs(30);

/// Name of the uploaded script that gets what the artifacts depend on.
pub(super) const DEPENDENCIES: &str = "dependencies";

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
        /// It misses a package that the artifacts depend on.
        is_of_dependencies: bool,
        /// That is all there is to it: nothing of the package has run.
        lacks_packages: bool,
    },
    /// It did not come to an end: the package's fault (a maintainer script hangs or waits for an answer).
    #[error("the package manager did not come to an end in time; it last said: {last}")]
    Timeout {
        /// Its last line.
        last: String,
    },
    /// No artifact of the package is for this system.
    #[error(
        "no artifact of the package can be installed on this system, which takes {takes} for {arch} or for any CPU{}",
        others(left_out)
    )]
    Nothing {
        /// What its package manager takes.
        takes: &'static str,
        /// Its CPU.
        arch: Arch,
        /// Artifacts for other CPUs, and for which.
        left_out: Vec<(String, String)>,
    },
    /// The package manager reports success, but a package of the same version with other content is installed: not the package's fault.
    #[error("{}; the package manager reports success", join(which))]
    OtherContent {
        /// Which artifacts are not what is installed.
        which: Vec<String>,
    },
    /// Another program held the package manager's lock, and nothing of the package has run: not the package's fault.
    #[error("the package manager is locked by another program of the guest: {line}")]
    Locked {
        /// The package manager's words.
        line: String,
    },
    /// What the package depends on was to come from the system's repositories, and they cannot be used: not the package's fault.
    #[error("the guest's repositories cannot be used: {}", join(words))]
    Repositories {
        /// The package manager's words, the lines that matter.
        words: Vec<String>,
    },
    /// The repository of the artifacts could not be made or opened; nothing of the package has run: not its fault.
    #[error("the artifacts cannot be installed from a repository of their own: {}", join(words))]
    NotServed {
        /// The failed command's last lines.
        words: Vec<String>,
    },
    /// What is installed is not known.
    #[error("cannot tell what is installed: {why}")]
    Unknown {
        /// Why not.
        why: String,
    },
    /// The connection or the cancellation.
    #[error(transparent)]
    Ssh(#[from] SshError),
}

impl InstallError {
    /// The package manager misses a package that the artifacts depend on.
    pub fn is_of_dependencies(&self) -> bool {
        matches!(self, Self::Refused { is_of_dependencies: true, .. })
    }

    /// What is missing can still be got, and the installation tried again: nothing of the package has run.
    pub fn lacks_packages(&self) -> bool {
        matches!(self, Self::Refused { lacks_packages: true, .. })
    }

    /// The same, once what is missing was got: if something still is, what was got is not what its repository's lists say.
    pub fn after_dependencies(self) -> Self {
        match self {
            Self::Refused { words, lacks_packages: true, .. } => Self::Repositories { words },
            other => other,
        }
    }

    /// The same, where the lists of the repositories are not the ones that were meant; `which`: in words.
    pub fn with_other_lists(self, which: String) -> Self {
        match self {
            Self::Refused { words, .. } => Self::Repositories { words: [vec![which], words].concat() },
            other => other,
        }
    }

    fn refused(adapter: &Adapter, words: Vec<String>, exit: &Exit) -> Self {
        let is_of_dependencies = adapter.misses_packages(&words);
        let whole = exit.stdout_bytes == exit.stdout_tail.len() as u64;
        let lacks_packages = whole && adapter.lacks_packages(&words::lines_in_full(&exit.stdout_tail));
        Self::Refused { words, is_of_dependencies, lacks_packages }
    }
}

impl From<NoAnswer> for InstallError {
    fn from(error: NoAnswer) -> Self {
        match error {
            NoAnswer::Unreadable(why) => {
                Self::Unknown { why: format!("the package manager's list of packages: {why}") }
            }
            NoAnswer::Ssh(error) => Self::Ssh(error),
        }
    }
}

/// What is installed before an installation, and what the uploaded artifacts are.
#[derive(Clone, Debug)]
pub struct Survey(Inventory);

impl Survey {
    /// No artifact is for this system: [`install`] says so.
    pub(super) fn finds_nothing(&self) -> bool {
        self.0.artifacts.is_empty() && self.0.unread.is_empty()
    }

    /// The package manager says nothing of an artifact.
    pub(super) fn is_unread(&self) -> bool {
        !self.0.unread.is_empty()
    }

    /// A package of which there are several versions, in words: by its name one of them would be installed.
    pub(super) fn versions(&self) -> Option<String> {
        let of = |id: &Id| (id.name.clone(), id.arch.clone());
        let mut all = BTreeMap::<_, Vec<_>>::new();
        self.0
            .artifacts
            .iter()
            .for_each(|artifact| all.entry(of(&artifact.id)).or_default().push(&*artifact.id.version));
        let ((name, _), versions) = all.into_iter().find(|(_, versions)| versions.len() > 1)?;
        Some(format!(
            "{name} is among the artifacts more than once ({}): name the file that is to be tested",
            versions.join(", ")
        ))
    }
}

/// Asks for it. Nothing of the package runs: what goes wrong here is not its fault.
///
/// # Errors
/// [`InstallError::Unknown`], the connection or the deadline.
pub async fn survey(session: &Session, family: PackageFamily, deadline: Instant) -> Result<Survey, InstallError> {
    let adapter = family::of(family);
    Ok(Survey(inventory::ask(session, adapter.functions, &[ARTIFACTS, PACKAGES], &[], deadline).await?))
}

/// Installs the uploaded artifacts, all at once, so that they may depend on each other.
///
/// # Errors
/// Whatever leaves an artifact not installed, in part or with other content, or leaves it unknown.
pub async fn install(session: &Session, install: &Install<'_>, survey: Survey) -> Result<Installed, InstallError> {
    let adapter = family::of(install.family);
    let nothing = survey.finds_nothing();
    let Survey(mut before) = survey;
    let left_out = before.left_out.iter().map(|(id, file)| (file.clone(), id.arch.clone())).collect();
    if nothing {
        return Err(InstallError::Nothing { takes: adapter.takes, arch: install.arch, left_out });
    }
    let ended = guarded::run(
        session,
        Guarded {
            run: None,
            script: "install",
            stdout: Sink::File { path: install.log.to_owned(), cap: DEFAULT_CAP, after: None },
            stderr: Sink::Tail,
            deadline: install.deadline,
            grace: install.grace,
            // A script of the package may have left a daemon with its output, and the package manager's last words decide.
            quiet: install.grace,
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
    if let Some(line) = locked(adapter, &exit) {
        return Err(InstallError::Locked { line });
    }
    check_end(adapter, &exit)?;
    check_scripts(adapter, &exit, install.log).await?;

    let deadline = install.deadline.max(Instant::now()) + install.grace * 4 + ANSWER;
    if !before.unread.is_empty() {
        // The package manager itself may have been among the artifacts.
        let Inventory { artifacts, unread, .. } =
            inventory::ask(session, adapter.functions, &[ARTIFACTS], &[], deadline).await?;
        if let Some(file) = unread.first() {
            return Err(InstallError::Unknown { why: format!("the package manager says nothing of {file}") });
        }
        before.artifacts = artifacts;
    }
    let after = inventory::ask(session, adapter.functions, &[PACKAGES], &before.artifacts, deadline).await?;
    match installed::compare(&before.artifacts, &before.packages, &after) {
        Ok(mut installed) => {
            let others =
                before.left_out.iter().filter(|(id, _)| before.artifacts.iter().all(|of| of.id.name != id.name));
            let said = others.map(|(id, file)| format!("{file} is not installed: it is for {}", id.arch));
            installed.warnings.splice(0..0, said.chain(exit.warnings));
            Ok(installed)
        }
        Err(Discrepancy::Missing(mut words)) => {
            words.extend(adapter.words(&exit.stdout_tail));
            words.truncate(reasons::MOST);
            Err(InstallError::refused(adapter, words, &exit))
        }
        Err(Discrepancy::OtherContent(which)) => Err(InstallError::OtherContent { which }),
    }
}

/// Gets what the uploaded artifacts depend on from the repositories of the guest's system, for [`install`] after it. Nothing of the
/// package runs.
///
/// # Errors
/// [`InstallError::Repositories`]; or [`InstallError::Refused`], if no repository has what is missing.
pub async fn get_dependencies(session: &Session, install: &Install<'_>) -> Result<(), InstallError> {
    let adapter = family::of(install.family);
    let ended = guarded::run(
        session,
        Guarded {
            run: None,
            script: DEPENDENCIES,
            stdout: Sink::File { path: install.log.to_owned(), cap: DEFAULT_CAP, after: None },
            stderr: Sink::Tail,
            deadline: install.deadline,
            grace: install.grace,
            quiet: Duration::ZERO,
        },
    )
    .await?;
    let exit = match ended {
        Ended::Itself(exit) => exit,
        Ended::TimedOut { exit, .. } => {
            let last = exit.and_then(|exit| words::last_lines(&exit.stdout_tail, 1).pop());
            let last = last.unwrap_or_else(|| "nothing".to_owned());
            return Err(InstallError::Repositories {
                words: vec![format!(
                    "timeout: what is missing was not downloaded in time; the package manager last said: {last}"
                )],
            });
        }
    };
    if exit.success() {
        return Ok(());
    }
    if let Some(line) = locked(adapter, &exit) {
        return Err(InstallError::Locked { line });
    }
    Err(not_got(adapter, &exit))
}

/// Whose fault it is that what the artifacts depend on was not got.
fn not_got(adapter: &Adapter, exit: &Exit) -> InstallError {
    let words = adapter.words(&exit.stdout_tail);
    let lines = words::lines_in_full(&exit.stdout_tail);
    match exit.end {
        // The lists are there and proved, and with all that is in them there is no way to install the artifacts.
        End::Exited(code) if code != UNUSABLE && adapter.is_unsolvable(&lines) => {
            InstallError::refused(adapter, words, exit)
        }
        _ => InstallError::Repositories { words },
    }
}

/// The line with which a package manager failed because another program held its lock, unless a script of a package ran into that.
fn locked(adapter: &Adapter, exit: &Exit) -> Option<String> {
    if exit.success() || exit.stdout_bytes > exit.stdout_tail.len() as u64 {
        return None;
    }
    adapter.locked(&words::lines_in_full(&exit.stdout_tail))
}

/// The package manager must exit with 0.
fn check_end(adapter: &Adapter, exit: &Exit) -> Result<(), InstallError> {
    if exit.success() {
        return Ok(());
    }
    let mut words = adapter.words(&exit.stdout_tail);
    match &exit.end {
        End::Killed(signal) => {
            words.push(format!("the package manager was killed by signal {}", reports::clean::line(signal)));
        }
        end if words.is_empty() => words.push(format!("the package manager ended without a word: {end}")),
        _ => {}
    }
    Err(InstallError::refused(adapter, words, exit))
}

/// No line of the package manager's output may say that a package's script failed, where it exits with 0 all the same: of the whole
/// output, for a package that is installed later may say more than is kept of its end.
async fn check_scripts(adapter: &'static Adapter, exit: &Exit, log: &Path) -> Result<(), InstallError> {
    let Some(unsaid) = adapter.unsaid else { return Ok(()) };
    let unknown = |why: String| InstallError::Unknown { why: format!("the package manager's output: {why}") };
    if exit.stdout_bytes > DEFAULT_CAP {
        return Err(unknown(format!("{} bytes, and {DEFAULT_CAP} are read", exit.stdout_bytes)));
    }
    if let Some(warning) = exit.warnings.first() {
        return Err(unknown(warning.clone()));
    }
    let failed = failed_scripts(unsaid, log).await.map_err(|error| unknown(error.to_string()))?;
    if failed.is_empty() {
        return Ok(());
    }
    let mut words = adapter.words(&exit.stdout_tail);
    if !words.iter().any(|word| unsaid(word)) {
        words = failed;
    }
    Err(InstallError::refused(adapter, words, exit))
}

/// The line of a package manager's output, which lies in this file, that says a package's script failed: some exit with 0 all the same.
///
/// # Errors
/// The file cannot be read.
pub async fn failed_script(family: PackageFamily, log: &Path) -> io::Result<Option<String>> {
    match family::of(family).unsaid {
        Some(unsaid) => Ok(failed_scripts(unsaid, log).await?.into_iter().next()),
        None => Ok(None),
    }
}

/// All such lines, up to a few.
async fn failed_scripts(unsaid: fn(&str) -> bool, log: &Path) -> io::Result<Vec<String>> {
    let log: PathBuf = log.to_owned();
    tokio::task::spawn_blocking(move || search(File::open(log)?, unsaid)).await.map_err(io::Error::other)?
}

fn search(output: impl io::Read, unsaid: fn(&str) -> bool) -> io::Result<Vec<String>> {
    let mut output = io::BufReader::new(output);
    let mut failed = Vec::new();
    let mut piece = Vec::new();
    while output.by_ref().take(LINE).read_until(b'\n', &mut piece)? > 0 {
        let found = words::lines_in_full(&piece).into_iter().filter(|line| unsaid(line));
        failed.extend(found.filter(|line| !failed.contains(line)).collect::<Vec<_>>());
        failed.truncate(reasons::MOST);
        // What is cut there is read once more with what follows it.
        let kept = if piece.ends_with(b"\n") { 0 } else { piece.len().min(CUT) };
        piece.drain(..piece.len() - kept);
    }
    Ok(failed)
}

/// Artifacts for other CPUs, in words.
fn others(left_out: &[(String, String)]) -> String {
    left_out.iter().take(5).map(|(file, arch)| format!("; {file} is for {arch}")).collect()
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
mod tests;
