//! Phase collect: what a suite left in its guest, its own results among it.

use std::path::Path;

use matrix::Results;
use reports::{CaseVerdict, EventKind, Phase, TestCase, Verdict};

use super::attempt::{Attempt, Outcome, Stopped, deadline};
use crate::{
    guest::Guest,
    payload::{self, Limits, ResultFiles},
    ssh::Session,
};

impl Attempt<'_> {
    /// Fetches what the suite left. All test cases of the cell, already reported.
    ///
    /// `exit` is the script's exit code as a test case. Where a suite has results of its own it counts only if they do not tell
    /// of the failure it tells of.
    pub(super) async fn collect(
        &self,
        guest: &Guest,
        session: &Session,
        exit: TestCase,
        logs: &Path,
    ) -> Outcome<Vec<TestCase>> {
        let cell = self.cell;
        let good = exit.verdict == CaseVerdict::Passed;
        let red = matches!(exit.verdict, CaseVerdict::Failed { .. });
        if cell.results.is_none() && cell.artifacts.is_empty() {
            self.finished(exit.clone());
            return Ok(vec![exit]);
        }
        let limit = self.scaled(cell.timeouts.collect);
        let until = deadline(limit);
        let folder = logs.join("artifacts");
        let collecting = async {
            let collection = if cell.artifacts.is_empty() {
                payload::Collection::default()
            } else {
                payload::collect(session, &cell.artifacts, &folder, &Limits::default(), until).await?
            };
            let results = match &cell.results {
                Some(Results::Junit { glob }) => Some(payload::collect_results(session, glob, until).await?),
                None => None,
            };
            Ok::<_, payload::CollectError>((results, collection))
        };
        let collected = match self.phase(Phase::Collect, Some(guest), Some(limit), collecting).await {
            Ok(collected) => {
                let lost = |error: &payload::CollectError| (error.to_string(), lost_collect(error));
                self.explained(guest, Phase::Collect, collected, lost).await
            }
            Err(stopped) => Err(stopped),
        };
        let (results, collection) = match collected {
            Ok(collected) => collected,
            // A red test is not made any redder by files that could not be fetched, and its verdict must not be lost.
            Err(stopped) if red => {
                let why = stopped.verdict.reason().unwrap_or_default().to_owned();
                self.warn(format!("results and artifacts could not be fetched: {why}"));
                self.finished(exit.clone());
                return Ok(vec![exit]);
            }
            Err(stopped) => {
                self.finished(exit);
                return Err(stopped);
            }
        };
        for warning in collection.warnings {
            self.warn(warning);
        }
        for file in collection.files {
            let path = format!("artifacts/{}", file.path);
            self.send(|cell, attempt| EventKind::ArtifactCollected { cell, attempt, path, bytes: file.bytes });
        }
        let Some(results) = results else {
            self.finished(exit.clone());
            return Ok(vec![exit]);
        };
        for warning in &results.warnings {
            self.warn(warning.clone());
        }
        match self.imported(&results) {
            Ok(mut cases) => {
                let told = cases.iter().any(|case| matches!(case.verdict, CaseVerdict::Failed { .. }));
                if !good && !told {
                    self.finished(exit.clone());
                    cases.push(exit);
                }
                Ok(cases)
            }
            // A skip does not speak for results that are there and cannot be read: they may tell of a failure.
            Err(stopped) if red || !good && results.files.is_empty() => {
                let why = stopped.verdict.reason().unwrap_or_default();
                self.warn(format!("{why}; the exit code of the suite is its only result"));
                self.finished(exit.clone());
                Ok(vec![exit])
            }
            Err(stopped) => {
                self.finished(exit);
                Err(stopped)
            }
        }
    }

    /// The suite's own results, reported case by case.
    fn imported(&self, results: &ResultFiles) -> Outcome<Vec<TestCase>> {
        let bad = |reason: String| {
            let help = "the suite declares `results`: it must leave JUnit XML there even when a test fails";
            Stopped { verdict: Verdict::Failed { phase: Phase::Collect, reason }, help: Some(help.into()) }
        };
        if results.files.is_empty() {
            return Err(bad("the suite left no results where the matrix says they are".into()));
        }
        let mut cases: Vec<TestCase> = Vec::new();
        for (path, xml) in &results.files {
            let imported = reports::junit_import::parse(xml)
                .map_err(|error| bad(format!("the results in {path} cannot be read: {error}")))?;
            for warning in imported.warnings {
                self.warn(format!("results in {path}: {warning}"));
            }
            cases.extend(imported.cases);
        }
        if cases.is_empty() {
            return Err(bad("the results the suite left name no test case".into()));
        }
        let mut names = reports::UniqueNames::default();
        names.take(self.cell.suite.clone());
        for case in &mut cases {
            case.name = names.take(std::mem::take(&mut case.name));
        }
        for case in &cases {
            self.finished(case.clone());
        }
        // The failure may stand in what did not come.
        if !results.complete && !cases.iter().any(|case| matches!(case.verdict, CaseVerdict::Failed { .. })) {
            let why = results.warnings.first().map_or("", String::as_str);
            return Err(bad(format!("not all of the suite's results could be fetched: {why}")));
        }
        Ok(cases)
    }
}

fn lost_collect(error: &payload::CollectError) -> bool {
    matches!(error, payload::CollectError::Ssh(error) if error.is_connection_lost())
}
