//! Phase collect: what a suite left in its guest, its own results among it.

use std::path::Path;

use matrix::Results;
use reports::{CaseVerdict, EventKind, Phase, TestCase, Trouble, TroubleKind};

use super::{
    attempt::{Attempt, Outcome, deadline},
    judge::{self, Told},
};
use crate::{
    guest::Guest,
    payload::{self, CollectError, Collection, Limits, ResultFiles},
    ssh::Session,
};

impl Attempt<'_> {
    /// Fetches what the suite left: its results, then its artifacts. All test cases of the cell, already reported.
    ///
    /// `exit` is the script's exit code as a test case. Where a suite has results of its own it counts only if they do not tell
    /// of the failure it tells of. Artifacts are evidence: what of them is missing is said, and changes no verdict.
    pub(super) async fn collect(
        &self,
        guest: &Guest,
        session: &Session,
        exit: TestCase,
        logs: &Path,
    ) -> Outcome<Vec<TestCase>> {
        let cell = self.cell;
        if cell.results.is_none() && cell.artifacts.is_empty() {
            self.finished(exit.clone());
            return Ok(vec![exit]);
        }
        let limit = self.scaled(cell.timeouts.collect);
        let until = deadline(limit);
        let folder = logs.join("artifacts");
        let collecting = async {
            let results = match &cell.results {
                Some(Results::Junit { glob }) => Some(self.results(session, glob, until).await),
                None => None,
            };
            let artifacts = payload::collect(session, &cell.artifacts, &folder, &Limits::default(), until).await;
            (results, artifacts)
        };
        let collected = match self.phase(Phase::Collect, Some(guest), Some(limit), collecting).await {
            Ok((results, artifacts)) => {
                let gone = self.fetched(artifacts);
                let is_red = |told: &Option<Told>| {
                    told.as_ref().is_some_and(Told::is_red) || matches!(exit.verdict, CaseVerdict::Failed { .. })
                };
                let collected = match (results.transpose(), gone) {
                    (Ok(told), Err(error)) if !is_red(&told) => Err(error),
                    // A failure that was told stands, whatever became of its guest.
                    (Ok(told), Err(error)) => {
                        self.warn(format!("artifacts could not be fetched: {error}"));
                        Ok(told)
                    }
                    (results, _) => results,
                };
                self.explained(guest, Phase::Collect, collected).await
            }
            Err(trouble) => Err(trouble),
        };
        let mut told = match collected {
            Ok(None) => {
                self.finished(exit.clone());
                return Ok(vec![exit]);
            }
            Ok(Some(told)) => told,
            // A red test is not made any redder by files that could not be fetched, and its verdict must not be lost.
            Err(trouble) if matches!(exit.verdict, CaseVerdict::Failed { .. }) => {
                self.warn(format!("results and artifacts could not be fetched: {trouble}"));
                self.finished(exit.clone());
                return Ok(vec![exit]);
            }
            Err(trouble) => {
                self.finished(exit);
                return Err(trouble);
            }
        };
        let mut names = reports::UniqueNames::default();
        names.take(cell.suite.clone());
        for case in &mut told.cases {
            case.name = names.take(std::mem::take(&mut case.name));
        }
        let judged = judge::with_results(exit, told);
        for case in &judged.cases {
            self.finished(case.clone());
        }
        if let Some(warning) = judged.warning {
            self.warn(warning);
        }
        judged.instead.map_or(Ok(judged.cases), Err)
    }

    /// The suite's own results, read.
    async fn results(&self, session: &Session, glob: &str, until: std::time::Instant) -> Result<Told, CollectError> {
        let ResultFiles { files, warnings, missing } = payload::collect_results(session, glob, until).await?;
        for warning in warnings {
            self.warn(warning);
        }
        let read = tokio::task::spawn_blocking(move || {
            files.iter().map(|(path, xml)| (path.clone(), reports::junit_import::parse(xml))).collect::<Vec<_>>()
        });
        let read = read.await.map_err(|error| CollectError::Local {
            what: "results of the suite are read".to_owned(),
            source: std::io::Error::other(error),
        })?;
        let mut told = Told { files: read.len(), missing, ..Told::default() };
        for (path, imported) in read {
            match imported {
                Ok(imported) => {
                    for warning in imported.warnings {
                        self.warn(format!("results in {path}: {warning}"));
                    }
                    if imported.cases.is_empty() {
                        self.warn(format!("results in {path}: no test case"));
                    }
                    told.cases.extend(imported.cases);
                }
                Err(error) => {
                    told.unreadable.get_or_insert_with(|| format!("the results in {path} cannot be read: {error}"));
                }
            }
        }
        Ok(told)
    }

    /// Reports artifacts. An error only if the guest is gone.
    fn fetched(&self, artifacts: Result<Collection, CollectError>) -> Result<(), CollectError> {
        let collection = match artifacts {
            Ok(collection) => collection,
            Err(error) => {
                self.warn(format!("artifacts could not be fetched: {error}"));
                return Ok(());
            }
        };
        for warning in collection.warnings {
            self.warn(warning);
        }
        for file in collection.files {
            let path = format!("artifacts/{}", file.path);
            self.send(|cell, attempt| EventKind::ArtifactCollected { cell, attempt, path, bytes: file.bytes });
        }
        match collection.cut_off {
            Some(error) if error.is_connection_lost() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Removes what lies where the suite is to leave its results: what is there afterwards is its own.
    pub(super) async fn remove_old_results(&self, guest: &Guest, session: &Session) -> Outcome<()> {
        let Some(Results::Junit { glob }) = &self.cell.results else { return Ok(()) };
        // Not the suite's time. A guest that goes down meanwhile is the package's doing, if that is in it already.
        let phase = if self.installs() { Phase::Test } else { Phase::Prepare };
        let limit = self.scaled(self.cell.timeouts.prepare);
        let removing = payload::remove_results(session, glob, deadline(limit));
        let removed = self.phase(phase, Some(guest), Some(limit), removing).await?;
        match self.explained(guest, phase, removed).await? {
            Ok(removed) => removed.into_iter().for_each(|line| self.warn(line)),
            Err(left) => {
                let reason = format!("results from before the suite started cannot be removed: {left}");
                let help = "remove them in the image's `prepare`, or name another folder in `results`";
                return Err(Trouble::new(TroubleKind::Unexpected, phase, reason).with_help(help));
            }
        }
        Ok(())
    }
}
