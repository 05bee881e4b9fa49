//! The step collect: what a suite left in its guest, its own results among it.

use std::path::Path;

use matrix::Results;
use reports::{EventKind, Phase, TestCase, Trouble, TroubleKind};

use super::{
    attempt::{Attempt, deadline},
    verdict::{self, ImportedResults},
    world::{Outcome, Talk as _, Talker, World},
};
use crate::payload::{CollectError, Collection, ResultFiles};

impl<W: World> Attempt<'_, W> {
    /// Fetches what the suite left: its results, then its artifacts. What its results tell, if it has any.
    ///
    /// `exit` is the script's exit code as a test case. Artifacts are evidence: what of them is missing is said, and changes no verdict.
    pub(super) async fn collect(
        &self,
        guest: &W::Guest,
        session: &Talker<W>,
        exit: Option<&TestCase>,
        logs: &Path,
    ) -> Outcome<Option<ImportedResults>> {
        let cell = self.cell;
        let limit = self.scaled(cell.timeouts.collect);
        let until = deadline(limit);
        let folder = logs.join("artifacts");
        let collecting = async {
            let results = match &cell.options.results {
                Some(Results::Junit { glob }) => Some(self.results(session, glob, until).await),
                None => None,
            };
            let artifacts = session.artifacts(&cell.options.artifacts, &folder, until).await;
            (results, artifacts)
        };
        let (results, artifacts) = self.phase(Phase::Collect, Some(guest), Some(limit), collecting).await?;
        let gone = self.fetched(artifacts);
        let is_red = |told: &Option<ImportedResults>| {
            told.as_ref().is_some_and(ImportedResults::is_red) || exit.is_some_and(verdict::is_red)
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

    /// The suite's own results, read.
    async fn results(
        &self,
        session: &Talker<W>,
        glob: &str,
        until: std::time::Instant,
    ) -> Result<ImportedResults, CollectError> {
        let ResultFiles { files, warnings, missing } = session.results(glob, until).await?;
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
        let mut told = ImportedResults { files: read.len(), missing, ..ImportedResults::default() };
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
    pub(super) async fn remove_old_results(&self, guest: &W::Guest, session: &Talker<W>) -> Outcome<()> {
        let Some(Results::Junit { glob }) = &self.cell.options.results else { return Ok(()) };
        // Not the suite's time. A guest that goes down meanwhile is the package's doing, if that is in it already.
        let phase = if self.cell.installs() { Phase::Test } else { Phase::Prepare };
        let limit = self.scaled(self.cell.timeouts.prepare);
        let removing = session.remove_results(glob, deadline(limit));
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
