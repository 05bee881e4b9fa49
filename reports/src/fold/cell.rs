//! Folds the events of a cell.

use matrix::CellId;

use super::{
    MAX_CASES, MAX_DETAIL, MAX_ELAPSED_MS, MAX_LIST, clean_trouble, clock::EventTime, percent_encode, push,
    stays_inside,
};
use crate::{
    Boot, CaseVerdict, EventKind, InstalledPackage, NetworkRun, Phase, TestCase, Verdict, clean,
    run::{Artifact, Attempt, CellRun, KeptGuest, PhaseRun, attempt_folder},
};

impl CellRun {
    /// Folds an event about this cell; the error is its contradiction to what is known.
    pub(super) fn fold_one(&mut self, now: EventTime, event: &EventKind) -> Result<(), String> {
        if let EventKind::Warning { message, .. } = event {
            push(&mut self.warnings, clean::line(message));
            return Ok(());
        }
        if self.finished {
            return Err(match event {
                EventKind::CellFinished { .. } => "it reported twice".to_owned(),
                _ => "an event after it reported".to_owned(),
            });
        }
        match event {
            EventKind::AttemptStarted { attempt, .. } => self.start_attempt(now, *attempt),
            EventKind::CellFinished { verdict, .. } => self.finish(now, clean_verdict(verdict)),
            EventKind::PhaseStarted { attempt, phase, timeout_ms, .. } => {
                self.set_interrupted(format!("interrupted in phase {phase}"));
                let attempt = self.attempt(*attempt)?;
                if attempt.phases.len() >= MAX_LIST {
                    return Err("it entered too many phases".to_owned());
                }
                attempt.phases.push(PhaseRun {
                    phase: *phase,
                    started: now.at,
                    after_ms: now.ms.saturating_sub(attempt.began),
                    timeout_ms: *timeout_ms,
                    elapsed_ms: None,
                });
                Ok(())
            }
            EventKind::PhaseFinished { attempt, phase, elapsed_ms, .. } => {
                self.set_interrupted(format!("interrupted after phase {phase}"));
                let mut phases = self.attempt(*attempt)?.phases.iter_mut().rev();
                let open = phases.find(|run| run.phase == *phase && run.elapsed_ms.is_none());
                open.ok_or_else(|| format!("phase {phase} ended without having started"))?.elapsed_ms =
                    Some((*elapsed_ms).min(MAX_ELAPSED_MS));
                Ok(())
            }
            EventKind::GuestStarted { attempt, guest, .. } => {
                let mut guest = guest.clone();
                guest.accelerator = clean::line(&guest.accelerator);
                guest.machine = clean::line(&guest.machine);
                guest.boot = clean_boot(&guest.boot);
                self.attempt(*attempt)?.guest = Some(guest);
                Ok(())
            }
            EventKind::SystemSeen { attempt, facts, .. } => {
                let facts = facts.cleaned();
                self.attempt(*attempt)?.system = (!facts.is_empty()).then_some(facts);
                Ok(())
            }
            EventKind::PackagesInstalled { attempt, packages, .. } => {
                let cleaned = packages.iter().take(MAX_LIST).map(|InstalledPackage { name, version }| {
                    InstalledPackage { name: clean::line(name), version: clean::line(version) }
                });
                self.attempt(*attempt)?.installed = cleaned.collect();
                Ok(())
            }
            EventKind::NetworkRequested { attempt, phase, request, .. } => {
                self.attempt(*attempt)?.network.record(*phase, request);
                Ok(())
            }
            EventKind::NetworkNotRecorded { attempt, phase, count, .. } => {
                self.attempt(*attempt)?.network.count(*phase, *count);
                Ok(())
            }
            EventKind::TestStarted { attempt, name, .. } => {
                self.attempt(*attempt)?.running = Some(clean::line(name));
                Ok(())
            }
            EventKind::TestFinished { attempt, case, .. } => {
                let attempt = self.attempt(*attempt)?;
                if attempt.cases.len() >= MAX_CASES {
                    return Err(format!("more than {MAX_CASES} test cases: the rest is not counted"));
                }
                let case = clean_case(case);
                if attempt.running.as_ref() == Some(&case.name) {
                    attempt.running = None;
                }
                attempt.cases.push(case);
                Ok(())
            }
            EventKind::ArtifactCollected { attempt, path, bytes, .. } => {
                let href = artifact_href(&self.id, *attempt, path);
                let artifact = Artifact { path: clean::line(path), href, bytes: *bytes };
                let artifacts = &mut self.attempt(*attempt)?.artifacts;
                if artifacts.len() < MAX_LIST {
                    artifacts.push(artifact);
                }
                Ok(())
            }
            EventKind::GuestKept { attempt, ssh, stop, .. } => {
                self.attempt(*attempt)?.kept = Some(KeptGuest { ssh: clean::line(ssh), stop: clean::line(stop) });
                Ok(())
            }
            EventKind::AttemptFinished { attempt, ending, retried, .. } => {
                self.set_interrupted("interrupted before its verdict was written".to_owned());
                self.take_time(now);
                let attempt = self.attempt(*attempt)?;
                attempt.ended = Some(now.at);
                attempt.elapsed_ms = Some(now.ms.saturating_sub(attempt.began));
                attempt.outcome = Some(clean_verdict(&ending.verdict()));
                attempt.trouble = ending.trouble().map(clean_trouble);
                attempt.retried = *retried;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Reopens a cell without a verdict; its facts stay. Its time starts again: nobody worked on it between the processes.
    pub(super) fn reopen(&mut self) {
        if matches!(self.verdict, Verdict::NotRun { .. }) {
            self.finished = false;
            self.started = None;
            self.ended = None;
            (self.began, self.elapsed_ms) = (None, 0);
        }
    }

    fn start_attempt(&mut self, now: EventTime, number: u32) -> Result<(), String> {
        self.set_interrupted("interrupted before its first phase".to_owned());
        let last = self.attempts.last().map_or(0, |attempt| attempt.number);
        let in_order = last.checked_add(1) == Some(number);
        if self.attempts.len() >= MAX_LIST {
            return Err("too many attempts".to_owned());
        }
        self.started.get_or_insert(now.at);
        self.began.get_or_insert(now.ms);
        self.take_time(now);
        self.attempts.push(Attempt {
            number,
            started: now.at,
            began: now.ms,
            ended: None,
            elapsed_ms: None,
            outcome: None,
            retried: false,
            phases: Vec::new(),
            guest: None,
            system: None,
            installed: Vec::new(),
            network: NetworkRun::default(),
            running: None,
            cases: Vec::new(),
            trouble: None,
            artifacts: Vec::new(),
            kept: None,
        });
        if in_order { Ok(()) } else { Err(format!("attempt {number} started after attempt {last}")) }
    }

    fn attempt(&mut self, number: u32) -> Result<&mut Attempt, String> {
        let known = self.attempts.iter_mut().rev().find(|attempt| attempt.number == number);
        match known {
            None => Err(format!("an event of attempt {number}, which has not started")),
            Some(attempt) if attempt.outcome.is_some() => Err(format!("an event of attempt {number} after it ended")),
            Some(attempt) => Ok(attempt),
        }
    }

    /// The verdict of this cell if no more events come.
    fn set_interrupted(&mut self, reason: String) {
        self.verdict = Verdict::NotRun { reason };
    }

    /// Its duration so far.
    fn take_time(&mut self, now: EventTime) {
        self.elapsed_ms = self.began.map_or(0, |began| now.ms.saturating_sub(began));
    }

    fn finish(&mut self, now: EventTime, verdict: Verdict) -> Result<(), String> {
        let contradiction = self.contradiction(&verdict);
        // The truth is unknown then, but it must not count as good.
        self.verdict = match &contradiction {
            Some(why) if matches!(verdict, Verdict::Passed | Verdict::Skipped { .. }) => {
                let failed = self.attempts.last().is_some_and(|attempt| failing(attempt) > 0);
                let reason = format!("its events contradict each other: {why}");
                match failed {
                    true => Verdict::Failed { phase: Phase::Test, reason },
                    false => Verdict::Error { phase: Phase::Collect, reason },
                }
            }
            _ => verdict,
        };
        self.finished = true;
        self.ended = Some(now.at);
        self.take_time(now);
        contradiction.map_or(Ok(()), Err)
    }

    /// The contradiction between a verdict and the events before it. A good verdict must be confirmed by the cell, by its last
    /// attempt and by its test cases.
    fn contradiction(&self, verdict: &Verdict) -> Option<String> {
        let last = self.attempts.last();
        let said = match verdict {
            Verdict::NotRun { .. } => return None,
            Verdict::Failed { .. } | Verdict::Error { .. } => {
                return match last.and_then(|attempt| attempt.outcome.as_ref()) {
                    Some(outcome) if outcome.name() != verdict.name() => {
                        Some(format!("it is {} but its last attempt is {}", verdict.name(), outcome.name()))
                    }
                    _ => None,
                };
            }
            Verdict::Skipped { reason } if reason.is_empty() => {
                return Some("it was skipped without a reason".to_owned());
            }
            Verdict::Skipped { .. } => "it was skipped",
            Verdict::Passed => "it passed",
        };
        let passing = |attempt: &Attempt| attempt.cases.iter().any(|case| case.verdict == CaseVerdict::Passed);
        let but = match last {
            None => "without an attempt".to_owned(),
            Some(attempt) if failing(attempt) > 0 => {
                format!("with {} failed test cases", failing(attempt))
            }
            Some(Attempt { outcome: None, .. }) => "but its last attempt never ended".to_owned(),
            Some(Attempt { outcome: Some(outcome), .. }) if outcome.name() != verdict.name() => {
                format!("but its last attempt is {}", outcome.name())
            }
            Some(attempt) if attempt.retried => "but its last attempt was to be tried again".to_owned(),
            Some(attempt) if attempt.current_phase().is_some() => {
                let phase = attempt.current_phase().map_or("", |run| run.phase.name());
                format!("but its phase {phase} never ended")
            }
            Some(attempt) if *verdict == Verdict::Passed && !passing(attempt) => {
                "without a test case that passed".to_owned()
            }
            Some(attempt)
                if *verdict == Verdict::Passed && !attempt.phases.iter().any(|run| run.phase == Phase::Test) =>
            {
                "without its phase test".to_owned()
            }
            Some(Attempt { guest: None, .. }) if *verdict == Verdict::Passed => "without a guest".to_owned(),
            Some(attempt) if *verdict != Verdict::Passed && passing(attempt) => {
                "with a test case that passed".to_owned()
            }
            Some(_) => return None,
        };
        Some(format!("{said} {but}"))
    }
}

fn failing(attempt: &Attempt) -> usize {
    attempt.cases.iter().filter(|case| matches!(case.verdict, CaseVerdict::Failed { .. })).count()
}

fn clean_verdict(verdict: &Verdict) -> Verdict {
    match verdict {
        Verdict::Passed => Verdict::Passed,
        Verdict::Failed { phase, reason } => Verdict::Failed { phase: *phase, reason: clean::line(reason) },
        Verdict::Skipped { reason } => Verdict::Skipped { reason: clean::line(reason) },
        Verdict::Error { phase, reason } => Verdict::Error { phase: *phase, reason: clean::line(reason) },
        Verdict::NotRun { reason } => Verdict::NotRun { reason: clean::line(reason) },
    }
}

fn clean_boot(boot: &Boot) -> Boot {
    match boot {
        // An empty reason counts as none.
        Boot::Cold { reason } => {
            Boot::Cold { reason: reason.as_deref().map(clean::line).filter(|reason| !reason.is_empty()) }
        }
        Boot::Forked { template } => Boot::Forked { template: *template },
    }
}

fn clean_case(case: &TestCase) -> TestCase {
    let verdict = match &case.verdict {
        CaseVerdict::Passed => CaseVerdict::Passed,
        CaseVerdict::Failed { message, detail } => {
            CaseVerdict::Failed { message: clean::line(message), detail: clean::excerpt(detail, MAX_DETAIL) }
        }
        CaseVerdict::Skipped { reason } => CaseVerdict::Skipped { reason: clean::line(reason) },
    };
    TestCase {
        name: clean::line(&case.name),
        verdict,
        elapsed_ms: case.elapsed_ms.min(MAX_ELAPSED_MS),
        file: case.file.as_deref().map(clean::line),
        line: case.line,
    }
}

/// A relative URL to a file in the attempt's folder, every unusual byte escaped; `None` for a path that leads out of it.
fn artifact_href(cell: &CellId, attempt: u32, path: &str) -> Option<String> {
    stays_inside(path).then(|| percent_encode(&format!("{}/{path}", attempt_folder(cell, attempt))))
}
