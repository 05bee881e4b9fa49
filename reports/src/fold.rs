//! Folds events into a [`Run`]: a plain function, one event at a time, used by the live terminal and by every report.
//!
//! The plan is trusted, the stream is not: an event that does not fit is kept as a contradiction (which makes the run not green)
//! instead of being dropped or believed. All text is cleaned and cut here, once.

mod cell;
pub(crate) mod clock;
mod machines;
mod network;
mod runners;
mod templates;

use std::path::{Component, Path};

use matrix::{CellId, Plan};

use crate::{
    Event, EventKind, Phase, Trouble, Verdict, clean,
    run::{CellRun, ImageRun, ImageState, PackageName, Run},
};

/// Maximum number of test cases of one attempt.
pub(crate) const MAX_CASES: usize = 50_000;
/// Maximum length of a test case's detail, in bytes.
pub(crate) const MAX_DETAIL: usize = 16 << 10;
/// Maximum number of warnings of one cell or run, contradictions, artifacts, and lines of a tail.
const MAX_LIST: usize = 1_000;
/// Separates the two signals of a run that was interrupted more than once.
pub(crate) const SIGNAL_SEPARATOR: &str = ", then ";
/// Maximum duration of a test case: a year. Prevents an overflow of sums by hostile numbers.
const MAX_ELAPSED_MS: u64 = 366 * 24 * 3_600 * 1_000;

impl Run {
    /// The run of a plan before any event.
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
            steps: cell.options.steps.clone(),
            install: cell.install_from,
            verdict: Verdict::NotRun { reason: "never reported".to_owned() },
            finished: false,
            started: None,
            ended: None,
            began: None,
            elapsed_ms: 0,
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
            clock: Default::default(),
            damage: Vec::new(),
            matrix: plan.matrix.clone(),
            host: plan.runner.host.clone(),
            gce: plan.runner.gce.clone(),
            package,
            resumed: 0,
            locked: None,
            runners: Vec::new(),
            templates: Vec::new(),
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

    /// The run of this plan after these events.
    pub fn fold(plan: &Plan, events: &[Event]) -> Self {
        let mut run = Self::new(plan);
        for event in events {
            run.fold_one(event);
        }
        run
    }

    /// Folds one more event.
    pub fn fold_one(&mut self, event: &Event) {
        let at = event.at;
        let moment = self.clock.read(event);
        if self.elapsed_ms.is_some() && !matches!(event.kind, EventKind::RunResumed { .. }) {
            self.contradict("an event after the end of the run".to_owned());
        }
        self.ended = Some(self.ended.map_or(at, |ended| ended.max(at)));
        match &event.kind {
            EventKind::RunStarted { run, plan, version, locked } => {
                if self.run.is_some() {
                    self.contradict("the run started twice".to_owned());
                }
                if *plan != self.plan {
                    self.contradict(format!("the journal belongs to plan {}, not {}", plan.short(), self.plan.short()));
                }
                self.started = Some(at);
                self.run = Some(clean::line(run));
                self.version = Some(clean::line(version));
                self.locked = *locked;
            }
            EventKind::RunResumed { version } => self.resume(version),
            EventKind::RunnerStarted { .. }
            | EventKind::RunnerProgress { .. }
            | EventKind::MachineCreated { .. }
            | EventKind::MachineDeleted { .. }
            | EventKind::RunnerReady { .. }
            | EventKind::RunnerLost { .. } => {
                if let Err(contradiction) = self.fold_runner(moment, &event.kind) {
                    self.contradict(contradiction);
                }
            }
            EventKind::TemplateStarted { .. }
            | EventKind::TemplateRequested { .. }
            | EventKind::TemplateReady { .. }
            | EventKind::TemplateFailed { .. } => {
                if let Err(contradiction) = self.fold_template(at, &event.kind) {
                    self.contradict(contradiction);
                }
            }
            EventKind::ImageStarted { image } => {
                self.set_image(image, ImageState::Preparing { message: None });
            }
            EventKind::ImageProgress { image, message } => {
                self.set_image(image, ImageState::Preparing { message: Some(clean::line(message)) });
            }
            EventKind::ImageReady { image, digest, cached, elapsed_ms } => {
                self.set_image(image, ImageState::Ready { digest: *digest, cached: *cached, elapsed_ms: *elapsed_ms });
            }
            EventKind::ImageFailed { image, trouble } => {
                self.set_image(image, ImageState::Failed(Trouble { phase: Phase::Image, ..clean_trouble(trouble) }));
            }
            EventKind::Warning { cell: None, message } => push(&mut self.warnings, clean::line(message)),
            EventKind::RunInterrupted { signal } => self.interrupt(&clean::line(signal)),
            EventKind::RunFinished { elapsed_ms } => self.elapsed_ms = Some(*elapsed_ms),
            EventKind::Warning { cell: Some(id), .. }
            | EventKind::AttemptStarted { cell: id, .. }
            | EventKind::PhaseStarted { cell: id, .. }
            | EventKind::PhaseFinished { cell: id, .. }
            | EventKind::GuestStarted { cell: id, .. }
            | EventKind::SystemSeen { cell: id, .. }
            | EventKind::PackagesInstalled { cell: id, .. }
            | EventKind::NetworkRequested { cell: id, .. }
            | EventKind::NetworkNotRecorded { cell: id, .. }
            | EventKind::TestStarted { cell: id, .. }
            | EventKind::TestFinished { cell: id, .. }
            | EventKind::ArtifactCollected { cell: id, .. }
            | EventKind::GuestKept { cell: id, .. }
            | EventKind::AttemptFinished { cell: id, .. }
            | EventKind::CellFinished { cell: id, .. } => {
                let Some(cell) = self.places.get(id).and_then(|place| self.cells.get_mut(*place)) else {
                    return self.contradict(format!("an event about {}, which is not in the plan", clean_id(id)));
                };
                let folded = cell.fold_one(moment, &event.kind);
                match folded
                    .and_then(|()| self.check_runner(&event.kind))
                    .and_then(|()| self.check_template(&event.kind))
                {
                    Ok(()) => self.note_guest(moment, &event.kind),
                    Err(contradiction) => self.contradict(format!("{}: {contradiction}", clean_id(id))),
                }
            }
        }
    }

    /// Another process continues: the end of the run, as the last one reported it, is void.
    fn resume(&mut self, version: &str) {
        if self.run.is_none() {
            self.contradict("the run was resumed before it started".to_owned());
        }
        self.resumed = self.resumed.saturating_add(1);
        self.version = Some(clean::line(version));
        self.elapsed_ms = None;
        self.interrupted = None;
        self.cells.iter_mut().for_each(CellRun::reopen);
    }

    /// An image that is not in the plan belongs to a runner.
    fn set_image(&mut self, from: &str, state: ImageState) {
        if !self.images.iter().any(|image| image.from == from) {
            let name = clean::line(from);
            if self.images.len() >= self.cells.len() + MAX_LIST {
                return self.contradict(format!("too many images: an event about {name}"));
            }
            self.images.push(ImageRun { name: name.clone(), from: name, state: ImageState::Unused });
        }
        for image in self.images.iter_mut().filter(|image| image.from == from) {
            image.state = state.clone();
        }
    }

    /// The first signal and the last.
    fn interrupt(&mut self, signal: &str) {
        let first = self.interrupted.take();
        self.interrupted =
            Some(match first.as_deref().map(|known| known.split_once(SIGNAL_SEPARATOR).unwrap_or((known, "")).0) {
                None => signal.to_owned(),
                Some(first) => format!("{first}{SIGNAL_SEPARATOR}{signal}"),
            });
    }

    /// Records damage of the journal.
    pub(crate) fn damage(&mut self, what: String) {
        push(&mut self.damage, what);
    }

    fn contradict(&mut self, contradiction: String) {
        push(&mut self.contradictions, contradiction);
    }
}

/// Appends to a bounded list.
fn push(list: &mut Vec<String>, line: String) {
    match list.len() {
        length if length < MAX_LIST => list.push(line),
        MAX_LIST => list.push("and more of this kind".to_owned()),
        _ => {}
    }
}

/// The last [`MAX_LIST`] lines; a line that contains line ends becomes several.
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

fn clean_trouble(trouble: &Trouble) -> Trouble {
    Trouble {
        reason: clean::line(&trouble.reason),
        evidence: clean_lines(&trouble.evidence),
        help: trouble.help.as_deref().map(clean::text),
        ..*trouble
    }
}

fn clean_id(id: &CellId) -> String {
    clean::line(id.as_str())
}

/// A relative path without `..`.
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
