//! Runs nestmatrix for benchmarks.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{command, failure::Failure};

use super::journal::{Attempt, Journal};

/// Sample interval of a watched run.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(500);

/// Shared by all benchmarks of a session.
pub(super) struct Workbench {
    pub(super) nestmatrix: PathBuf,
    /// Removed on success; otherwise kept as evidence.
    pub(super) folder: PathBuf,
    pub(super) store: Option<PathBuf>,
}

/// A finished run.
pub(super) struct Ran {
    /// The run's folder.
    pub(super) folder: PathBuf,
    /// From the start of the process to its end, in seconds.
    pub(super) wall: f64,
    pub(super) journal: Journal,
}

impl Workbench {
    /// Writes a matrix file.
    pub(super) fn matrix(&self, name: &str, text: &str) -> Result<PathBuf, Failure> {
        let path = self.folder.join(name).with_extension("toml");
        fs::write(&path, text).map_err(Failure::at(&path))?;
        Ok(path)
    }

    /// Runs a matrix to its end. `name` becomes the name of the run's folder.
    pub(super) fn run(&self, matrix: &Path, name: &str, args: &[&str]) -> Result<Ran, Failure> {
        self.start(matrix, name, args, |child, _| child.wait())
    }

    /// The same, and calls `watch` with the journal repeatedly meanwhile.
    pub(super) fn run_watched(
        &self,
        matrix: &Path,
        name: &str,
        args: &[&str],
        mut watch: impl FnMut(&Journal),
    ) -> Result<Ran, Failure> {
        self.start(matrix, name, args, |child, folder| {
            loop {
                if let Some(status) = child.try_wait()? {
                    return Ok(status);
                }
                // Missing at first. The final journal is read after the end.
                if let Ok(journal) = journal(folder) {
                    watch(&journal);
                }
                thread::sleep(SAMPLE_INTERVAL);
            }
        })
    }

    fn start(
        &self,
        matrix: &Path,
        name: &str,
        args: &[&str],
        end: impl FnOnce(&mut std::process::Child, &Path) -> io::Result<std::process::ExitStatus>,
    ) -> Result<Ran, Failure> {
        let folder = self.folder.join(name);
        let out = File::create(folder.with_extension("out")).map_err(Failure::at(&folder))?;
        let mut command = Command::new(&self.nestmatrix);
        command.arg("run").arg(matrix).args(args).arg("--out").arg(&folder).args(["--message-format", "json"]);
        command.args(self.store.iter().flat_map(|store| [OsStr::new("--store"), store.as_os_str()]));
        let failed = |source| Failure::Start { command: "nestmatrix run".into(), source };
        let began = Instant::now();
        let mut child = command.stdin(Stdio::null()).stdout(out).spawn().map_err(failed)?;
        let status = end(&mut child, &folder).map_err(failed)?;
        let wall = began.elapsed().as_secs_f64();
        match status.code() {
            // A benchmark may expect red cells.
            Some(0 | 1 | 3) => Ok(Ran { wall, journal: journal(&folder)?, folder }),
            _ => Err(Failure::Command { command: command::typed(&command), status }),
        }
    }
}

impl Ran {
    /// The attempt at the only cell, if it passed.
    pub(super) fn only(&self) -> Result<&Attempt, Failure> {
        let attempt = self.journal.attempts.last().filter(|attempt| attempt.finished.is_some());
        let attempt = attempt.ok_or_else(|| self.useless("no attempt in it has ended"))?;
        if attempt.number > 1 {
            eprintln!("bench: {} needed a second guest: its time is not that of one", self.folder.display());
        }
        match self.journal.verdicts.values().find(|verdict| *verdict != "passed") {
            None => Ok(attempt),
            Some(verdict) => Err(self.useless(&format!("its cell is `{verdict}`"))),
        }
    }

    /// Why it cannot be used.
    pub(super) fn useless(&self, why: &str) -> Failure {
        Failure::Journal { path: self.folder.join("events.jsonl"), why: why.to_owned() }
    }
}

fn journal(folder: &Path) -> Result<Journal, Failure> {
    let path = folder.join("events.jsonl");
    let text = fs::read_to_string(&path).map_err(Failure::at(&path))?;
    Journal::read(&text).map_err(|why| Failure::Journal { path, why })
}

/// The values of an axis: `1, 2, 3`.
pub(super) fn numbers(last: usize) -> String {
    (1..=last).map(|number| number.to_string()).collect::<Vec<_>>().join(", ")
}
