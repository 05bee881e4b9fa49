//! Events into a [`Run`]: a plain function, one event at a time, used alike by the live terminal and by every report.
//!
//! It believes the plan, not the stream: an event that does not fit is kept as a contradiction (which makes the run not
//! green) instead of being dropped or believed. All text is cleaned and cut here, once.

use std::path::{Component, Path};

use jiff::Timestamp;
use matrix::{CellId, Plan};

use crate::{
    CaseVerdict, Event, EventKind, TestCase, Verdict, clean,
    run::{Artifact, Attempt, CellRun, ImageRun, ImageState, KeptGuest, PackageName, PhaseRun, Run, attempt_folder},
};

/// Most test cases of one attempt.
pub(crate) const MAX_CASES: usize = 50_000;
/// Longest detail of a test case, in bytes.
pub(crate) const MAX_DETAIL: usize = 16 << 10;
/// Most warnings of one cell or run, contradictions, artifacts, and lines of a tail.
const MAX_LIST: usize = 1_000;
/// Stands between the two signals of a run that was interrupted more than once.
pub(crate) const THEN: &str = ", then ";
/// Longest time a test case is believed to have taken: a year. Keeps hostile numbers from overflowing a sum.
const MAX_ELAPSED_MS: u64 = 366 * 24 * 3_600 * 1_000;

impl Run {
    /// The run of a plan in which nothing has happened yet.
    pub fn new(plan: &Plan) -> Self {
        let package = plan.package.as_ref().map(|package| PackageName {
            name: clean::line(&package.name),
            version: package.version.as_deref().map(clean::line),
        });
        let cells = plan.cells.iter().map(|cell| CellRun {
            id: cell.id.clone(),
            image: cell.image.clone(),
            suite: cell.suite.clone(),
            axes: cell.axes.iter().map(|(axis, value)| (clean::line(axis), clean::line(value))).collect(),
            verdict: Verdict::NotRun { reason: "never reported".to_owned() },
            finished: false,
            started: None,
            ended: None,
            warnings: Vec::new(),
            attempts: Vec::new(),
        });
        let images = plan.images.iter().map(|image| ImageRun {
            name: image.name.clone(),
            from: image.from.clone(),
            state: ImageState::Unused,
        });
        Self {
            run: None,
            version: None,
            plan: plan.digest,
            matrix: plan.matrix.clone(),
            package,
            runner: None,
            started: None,
            ended: None,
            elapsed_ms: None,
            interrupted: None,
            warnings: Vec::new(),
            contradictions: Vec::new(),
            images: images.collect(),
            cells: cells.collect(),
            places: plan.cells.iter().enumerate().map(|(place, cell)| (cell.id.clone(), place)).collect(),
        }
    }

    /// What these events say about this plan.
    pub fn fold(plan: &Plan, events: &[Event]) -> Self {
        let mut run = Self::new(plan);
        for event in events {
            run.fold_one(event);
        }
        run
    }

    /// Enters one more event.
    pub fn fold_one(&mut self, event: &Event) {
        let at = event.at;
        if self.elapsed_ms.is_some() {
            self.contradict("an event after the end of the run".to_owned());
        }
        self.ended = Some(self.ended.map_or(at, |ended| ended.max(at)));
        match &event.kind {
            EventKind::RunStarted { run, plan, version } => {
                if self.run.is_some() {
                    self.contradict("the run started twice".to_owned());
                }
                if *plan != self.plan {
                    self.contradict(format!("the journal belongs to plan {}, not {}", plan.short(), self.plan.short()));
                }
                self.started = Some(at);
                self.run = Some(clean::line(run));
                self.version = Some(clean::line(version));
            }
            EventKind::RunnerReady { runner } => self.runner = Some(clean_runner(runner)),
            EventKind::ImageStarted { image } => {
                self.set_image(image, ImageState::Preparing { message: None });
            }
            EventKind::ImageProgress { image, message } => {
                self.set_image(image, ImageState::Preparing { message: Some(clean::line(message)) });
            }
            EventKind::ImageReady { image, digest, cached, elapsed_ms } => {
                self.set_image(image, ImageState::Ready { digest: *digest, cached: *cached, elapsed_ms: *elapsed_ms });
            }
            EventKind::ImageFailed { image, reason, tail } => {
                self.set_image(image, ImageState::Failed { reason: clean::line(reason), tail: clean_lines(tail) });
            }
            EventKind::Warning { cell: None, message } => push(&mut self.warnings, clean::line(message)),
            EventKind::RunInterrupted { signal } => self.interrupt(&clean::line(signal)),
            EventKind::RunFinished { elapsed_ms } => self.elapsed_ms = Some(*elapsed_ms),
            EventKind::Warning { cell: Some(id), .. }
            | EventKind::AttemptStarted { cell: id, .. }
            | EventKind::PhaseStarted { cell: id, .. }
            | EventKind::PhaseFinished { cell: id, .. }
            | EventKind::GuestStarted { cell: id, .. }
            | EventKind::TestStarted { cell: id, .. }
            | EventKind::TestFinished { cell: id, .. }
            | EventKind::ArtifactCollected { cell: id, .. }
            | EventKind::GuestKept { cell: id, .. }
            | EventKind::AttemptFinished { cell: id, .. }
            | EventKind::CellFinished { cell: id, .. } => {
                let Some(cell) = self.places.get(id).and_then(|place| self.cells.get_mut(*place)) else {
                    return self.contradict(format!("an event about {}, which is not in the plan", clean_id(id)));
                };
                if let Err(contradiction) = cell.fold_one(at, &event.kind) {
                    self.contradict(format!("{}: {contradiction}", clean_id(id)));
                }
            }
        }
    }

    fn set_image(&mut self, from: &str, state: ImageState) {
        let mut known = false;
        for image in self.images.iter_mut().filter(|image| image.from == from) {
            known = true;
            image.state = state.clone();
        }
        if !known {
            self.contradict(format!("an event about image {}, which is not in the plan", clean::line(from)));
        }
    }

    /// The first signal and the last: who stopped it, and whether it was told to hurry.
    fn interrupt(&mut self, signal: &str) {
        let first = self.interrupted.take();
        self.interrupted = Some(match first.as_deref().map(|known| known.split_once(THEN).unwrap_or((known, "")).0) {
            None => signal.to_owned(),
            Some(first) => format!("{first}{THEN}{signal}"),
        });
    }

    fn contradict(&mut self, contradiction: String) {
        push(&mut self.contradictions, contradiction);
    }
}

impl CellRun {
    /// Enters an event about this cell; the error says how it contradicts what is known.
    fn fold_one(&mut self, at: Timestamp, event: &EventKind) -> Result<(), String> {
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
            EventKind::AttemptStarted { attempt, .. } => self.start_attempt(at, *attempt),
            EventKind::CellFinished { verdict, .. } => self.finish(at, clean_verdict(verdict)),
            EventKind::PhaseStarted { attempt, phase, timeout_ms, .. } => {
                self.set_interrupted(format!("interrupted in phase {phase}"));
                let run = PhaseRun { phase: *phase, started: at, timeout_ms: *timeout_ms, elapsed_ms: None };
                let phases = &mut self.attempt(*attempt)?.phases;
                if phases.len() >= MAX_LIST {
                    return Err("it entered too many phases".to_owned());
                }
                phases.push(run);
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
                self.attempt(*attempt)?.guest = Some(guest);
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
            EventKind::AttemptFinished { attempt, verdict, retried, console_tail, help, .. } => {
                self.set_interrupted("interrupted before its verdict was written".to_owned());
                let attempt = self.attempt(*attempt)?;
                attempt.ended = Some(at);
                attempt.outcome = Some(clean_verdict(verdict));
                attempt.retried = *retried;
                attempt.console_tail = clean_lines(console_tail);
                attempt.help = help.as_deref().map(clean::text);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn start_attempt(&mut self, at: Timestamp, number: u32) -> Result<(), String> {
        self.set_interrupted("interrupted before its first phase".to_owned());
        let last = self.attempts.last().map_or(0, |attempt| attempt.number);
        let in_order = last.checked_add(1) == Some(number);
        if self.attempts.len() >= MAX_LIST {
            return Err("too many attempts".to_owned());
        }
        self.started.get_or_insert(at);
        self.attempts.push(Attempt {
            number,
            started: at,
            ended: None,
            outcome: None,
            retried: false,
            phases: Vec::new(),
            guest: None,
            running: None,
            cases: Vec::new(),
            console_tail: Vec::new(),
            help: None,
            artifacts: Vec::new(),
            kept: None,
        });
        if in_order { Ok(()) } else { Err(format!("attempt {number} started after attempt {last}")) }
    }

    fn attempt(&mut self, number: u32) -> Result<&mut Attempt, String> {
        let known = self.attempts.iter_mut().rev().find(|attempt| attempt.number == number);
        known.ok_or_else(|| format!("an event of attempt {number}, which has not started"))
    }

    /// What will be said of this cell if nothing more is heard of it.
    fn set_interrupted(&mut self, reason: String) {
        self.verdict = Verdict::NotRun { reason };
    }

    fn finish(&mut self, at: Timestamp, verdict: Verdict) -> Result<(), String> {
        let contradiction = self.contradiction(&verdict);
        self.verdict = verdict;
        self.finished = true;
        self.ended = Some(at);
        contradiction.map_or(Ok(()), Err)
    }

    /// How a verdict contradicts the events before it. No green by silence, and none by saying so either.
    fn contradiction(&self, verdict: &Verdict) -> Option<String> {
        let last = self.attempts.last();
        let cases = last.map_or(&[][..], |attempt| &attempt.cases);
        let failing = cases.iter().filter(|case| matches!(case.verdict, CaseVerdict::Failed { .. })).count();
        match verdict {
            Verdict::Passed if failing > 0 => Some(format!("it passed with {failing} failed test cases")),
            Verdict::Passed if !cases.iter().any(|case| case.verdict == CaseVerdict::Passed) => {
                Some("it passed without a test case that passed".to_owned())
            }
            Verdict::Skipped { reason } if reason.is_empty() => Some("it was skipped without a reason".to_owned()),
            Verdict::NotRun { .. } | Verdict::Skipped { .. } => None,
            _ => match last.and_then(|attempt| attempt.outcome.as_ref()) {
                Some(outcome) if outcome.name() != verdict.name() => {
                    Some(format!("it is {} but its last attempt is {}", verdict.name(), outcome.name()))
                }
                _ => None,
            },
        }
    }
}

/// Appends to a list that stays bounded.
fn push(list: &mut Vec<String>, line: String) {
    match list.len() {
        length if length < MAX_LIST => list.push(line),
        MAX_LIST => list.push("and more of this kind".to_owned()),
        _ => {}
    }
}

/// The last [`MAX_LIST`] lines; a line that turns out to hold line ends becomes several.
fn clean_lines(lines: &[String]) -> Vec<String> {
    let recent = &lines[lines.len().saturating_sub(MAX_LIST)..];
    let clean: Vec<String> = recent
        .iter()
        .flat_map(|line| {
            clean::text(line).lines().map(|line| clean::prefix(line, 4_096).to_owned()).collect::<Vec<_>>()
        })
        .collect();
    clean[clean.len().saturating_sub(MAX_LIST)..].to_vec()
}

fn clean_id(id: &CellId) -> String {
    clean::line(id.as_str())
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

fn clean_runner(runner: &crate::RunnerFacts) -> crate::RunnerFacts {
    crate::RunnerFacts {
        kind: clean::line(&runner.kind),
        reason: clean::line(&runner.reason),
        accelerator: clean::line(&runner.accelerator),
        accelerator_reason: clean::line(&runner.accelerator_reason),
        qemu: clean::line(&runner.qemu),
        kernel: clean::line(&runner.kernel),
        ..runner.clone()
    }
}

/// A relative URL to a file in the attempt's folder, every unusual byte escaped; `None` for a path that leads out of it.
fn artifact_href(cell: &CellId, attempt: u32, path: &str) -> Option<String> {
    stays_inside(path).then(|| percent_encode(&format!("{}/{path}", attempt_folder(cell, attempt))))
}

/// A relative path that leads nowhere but down.
pub(crate) fn stays_inside(path: &str) -> bool {
    Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// A relative path as a relative URL.
pub(crate) fn percent_encode(path: &str) -> String {
    path.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
