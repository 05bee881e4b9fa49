//! Which cells still have to report, and what must be said of them when the machine they ran on is lost. Pure.
//!
//! Every event of an agent passes through here: what does not fit what is known of a cell is not passed on, so that each cell
//! is reported once however many machines it was tried on.

use indexmap::IndexMap;
use matrix::{Cell, CellId, Plan};
use reports::{CellRun, Ending, EventKind, Phase, Trouble, TroubleKind, Verdict};

use crate::fanout::QueuedCell;

#[derive(Debug)]
struct Entry {
    cell: Cell,
    next: u32,
    last: u32,
    /// One attempt on each machine may come on top of them: after a fork that failed.
    spare: bool,
    running: Option<u32>,
    /// An attempt of it has begun.
    has_run: bool,
    /// The verdict of its last attempt: all that is missing is the event that the cell has finished.
    decided: Option<Verdict>,
    /// Why its last attempt was lost, if its machine was.
    lost: Option<String>,
    finished: bool,
}

/// Every cell that is to be run.
#[derive(Debug)]
pub(crate) struct Ledger(IndexMap<CellId, Entry>);

impl Ledger {
    /// All cells of a plan, none of which has run.
    pub(crate) fn new(plan: &Plan) -> Self {
        let entries = plan.cells.iter().map(|cell| (cell.id.clone(), Entry::new(cell, 1, plan.runner.retries)));
        Self(entries.collect())
    }

    /// The cells of a run that died, and what must be said of those that ran when it did. Those that have a verdict keep it.
    pub(crate) fn resume(plan: &Plan, run: &reports::Run) -> (Self, Vec<EventKind>) {
        let mut entries = IndexMap::new();
        for cell in &plan.cells {
            let known = run.cell(&cell.id);
            if known.is_some_and(|known| known.finished && !matches!(known.verdict, Verdict::NotRun { .. })) {
                continue;
            }
            let last = known.and_then(CellRun::last_attempt);
            let mut entry = Entry::new(cell, last.map_or(1, |attempt| attempt.number + 1), plan.runner.retries);
            if let (Some(known), Some(attempt)) = (known, last)
                && !known.finished
            {
                match &attempt.outcome {
                    None => (entry.running, entry.next) = (Some(attempt.number), attempt.number),
                    Some(Verdict::NotRun { .. }) => {}
                    Some(_) if attempt.retried => {}
                    Some(verdict) => entry.decided = Some(verdict.clone()),
                }
            }
            entries.insert(cell.id.clone(), entry);
        }
        let mut ledger = Self(entries);
        let reason = "nestmatrix itself ended while it ran; the run was resumed";
        let said = ledger.lost(&Trouble::new(TroubleKind::RunnerLost, Phase::Runner, reason));
        (ledger, said)
    }

    /// What is still to be run. Cells that ran when a machine was lost come last: if one of them was to blame, the others have
    /// their verdicts before it is tried again.
    pub(crate) fn todo(&self) -> Vec<QueuedCell> {
        let open = self.0.values().filter(|entry| !entry.finished);
        let mut todo: Vec<QueuedCell> =
            open.map(|entry| QueuedCell { cell: entry.cell.clone(), next: entry.next, last: entry.last }).collect();
        todo.sort_by_key(|todo| todo.next > 1);
        todo
    }

    /// How many cells have reported.
    pub(crate) fn finished(&self) -> usize {
        self.0.values().filter(|entry| entry.finished).count()
    }

    /// Whether this attempt runs now.
    pub(crate) fn runs(&self, cell: &CellId, attempt: u32) -> bool {
        self.0.get(cell).is_some_and(|entry| entry.running == Some(attempt))
    }

    /// Enters an event of an agent; false: it does not fit, and is not to be passed on.
    pub(crate) fn see(&mut self, event: &EventKind) -> bool {
        let (id, attempt) = match event {
            EventKind::Warning { cell: None, .. }
            | EventKind::TemplateStarted { .. }
            | EventKind::TemplateRequested { .. }
            | EventKind::TemplateReady { .. }
            | EventKind::TemplateFailed { .. } => return true,
            EventKind::Warning { cell: Some(id), .. } => return self.0.get(id).is_some_and(|entry| !entry.finished),
            EventKind::AttemptStarted { cell, attempt }
            | EventKind::PhaseStarted { cell, attempt, .. }
            | EventKind::PhaseFinished { cell, attempt, .. }
            | EventKind::GuestStarted { cell, attempt, .. }
            | EventKind::SystemSeen { cell, attempt, .. }
            | EventKind::PackagesInstalled { cell, attempt, .. }
            | EventKind::NetworkRequested { cell, attempt, .. }
            | EventKind::NetworkNotRecorded { cell, attempt, .. }
            | EventKind::TestStarted { cell, attempt, .. }
            | EventKind::TestFinished { cell, attempt, .. }
            | EventKind::ArtifactCollected { cell, attempt, .. }
            | EventKind::AttemptFinished { cell, attempt, .. } => (cell, Some(*attempt)),
            EventKind::CellFinished { cell, .. } => (cell, None),
            // What an agent has no say in.
            EventKind::RunStarted { .. }
            | EventKind::RunResumed { .. }
            | EventKind::RunnerStarted { .. }
            | EventKind::RunnerProgress { .. }
            | EventKind::MachineCreated { .. }
            | EventKind::MachineDeleted { .. }
            | EventKind::RunnerReady { .. }
            | EventKind::RunnerLost { .. }
            | EventKind::ImageStarted { .. }
            | EventKind::ImageProgress { .. }
            | EventKind::ImageReady { .. }
            | EventKind::ImageFailed { .. }
            | EventKind::GuestKept { .. }
            | EventKind::RunInterrupted { .. }
            | EventKind::RunFinished { .. } => return false,
        };
        let Some(entry) = self.0.get_mut(id).filter(|entry| !entry.finished) else { return false };
        match event {
            EventKind::AttemptStarted { attempt, .. } => {
                let fits = entry.running.is_none() && *attempt == entry.next && *attempt <= entry.last;
                if fits {
                    (entry.running, entry.decided, entry.lost) = (Some(*attempt), None, None);
                    entry.has_run = true;
                }
                fits
            }
            EventKind::AttemptFinished { attempt, ending, retried, .. } => {
                // What is tried again is not for the agent to choose.
                let retried_rightly = !retried || ending.trouble().is_some_and(Trouble::may_pass);
                let fits = entry.running == Some(*attempt) && retried_rightly;
                if fits {
                    (entry.running, entry.next) = (None, *attempt + 1);
                    entry.decided = (!retried).then(|| ending.verdict());
                    if *retried && *attempt == entry.last && std::mem::take(&mut entry.spare) {
                        entry.last += 1;
                    }
                }
                fits
            }
            EventKind::CellFinished { verdict, .. } => {
                // Its last attempt says the same; without one there is nothing to say but that it came to no verdict.
                let no_verdict = matches!(verdict, Verdict::NotRun { .. } | Verdict::Error { .. });
                let fits =
                    entry.running.is_none() && entry.decided.as_ref().map_or(no_verdict, |decided| decided == verdict);
                entry.finished = fits;
                fits
            }
            _ => entry.running == attempt,
        }
    }

    /// The machine is lost: what is to be said of the cells that ran on it.
    pub(crate) fn lost(&mut self, trouble: &Trouble) -> Vec<EventKind> {
        let mut said = Vec::new();
        for (id, entry) in self.0.iter_mut().filter(|(_, entry)| !entry.finished) {
            if let Some(verdict) = entry.decided.take() {
                entry.finished = true;
                said.push(EventKind::CellFinished { cell: id.clone(), verdict });
                continue;
            }
            let Some(attempt) = entry.running.take() else { continue };
            (entry.next, entry.spare, entry.lost) = (attempt + 1, true, Some(trouble.reason.clone()));
            // Whatever happened to the machine: for its guests it is lost.
            let lost = Trouble { kind: TroubleKind::RunnerLost, phase: Phase::Runner, ..trouble.clone() };
            let retried = lost.may_pass() && attempt < entry.last;
            let ending = Ending::Troubled(lost);
            said.push(EventKind::AttemptFinished { cell: id.clone(), attempt, ending, retried });
            if !retried {
                entry.finished = true;
                let reason = format!("it was never finished: {trouble}");
                said.push(EventKind::CellFinished { cell: id.clone(), verdict: Verdict::NotRun { reason } });
            }
        }
        said
    }

    /// No machine is available at all: every cell that has not reported is an error of phase runner.
    pub(crate) fn refuse(&mut self, trouble: &Trouble) -> Vec<EventKind> {
        let mut said = self.lost(trouble);
        for (id, entry) in self.0.iter_mut().filter(|(_, entry)| !entry.finished) {
            entry.finished = true;
            said.extend(failed(id, entry.next, trouble));
        }
        said
    }

    /// One cell cannot be run: what is to be said of it.
    pub(crate) fn fail(&mut self, id: &CellId, trouble: &Trouble) -> Vec<EventKind> {
        let Some(entry) = self.0.get_mut(id).filter(|entry| !entry.finished) else { return Vec::new() };
        entry.finished = true;
        failed(id, entry.next, trouble).into()
    }

    /// The run was interrupted: what is to be said of every cell that has not reported.
    pub(crate) fn interrupt(&mut self) -> Vec<EventKind> {
        self.leave(|entry| match entry.running {
            Some(_) => "interrupted before it was finished",
            None if entry.has_run => "interrupted before it was tried again",
            None => "interrupted before it started",
        })
    }

    /// Nothing more is to run: what is to be said of every cell that has not reported.
    pub(crate) fn abandon(&mut self, reason: &str) -> Vec<EventKind> {
        self.leave(|_| reason)
    }

    fn leave<'a>(&mut self, why: impl Fn(&Entry) -> &'a str) -> Vec<EventKind> {
        let mut said = Vec::new();
        for (id, entry) in self.0.iter_mut().filter(|(_, entry)| !entry.finished) {
            entry.finished = true;
            let reason = why(entry);
            let why = match entry.lost.take() {
                Some(lost) => format!("{reason}, after its machine was lost: {lost}"),
                None => reason.to_owned(),
            };
            let verdict = entry.decided.take().unwrap_or(Verdict::NotRun { reason: why });
            said.push(EventKind::CellFinished { cell: id.clone(), verdict });
        }
        said
    }
}

impl Entry {
    fn new(cell: &Cell, next: u32, retries: u32) -> Self {
        let last = next.saturating_add(retries);
        Self {
            cell: cell.clone(),
            next,
            last,
            spare: true,
            running: None,
            has_run: next > 1,
            decided: None,
            lost: None,
            finished: false,
        }
    }
}

/// A cell without a guest: an attempt that ends before it begins.
fn failed(id: &CellId, attempt: u32, trouble: &Trouble) -> [EventKind; 3] {
    let ending = Ending::Troubled(trouble.clone());
    [
        EventKind::AttemptStarted { cell: id.clone(), attempt },
        EventKind::AttemptFinished { cell: id.clone(), attempt, ending, retried: false },
        EventKind::CellFinished { cell: id.clone(), verdict: trouble.verdict() },
    ]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reports::{Event, Run};

    use super::*;

    fn plan(cells: usize) -> Plan {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("m.toml");
        let suites: String =
            (0..cells).map(|number| format!("[[suite]]\nname = 's{number}'\ninline = 'true'\n")).collect();
        std::fs::write(&file, format!("images = ['a']\nrunner = {{ retries = 1 }}\n{suites}")).unwrap();
        matrix::load(&file, &["a"]).unwrap().plan
    }

    fn started(plan: &Plan, cell: usize, attempt: u32) -> EventKind {
        EventKind::AttemptStarted { cell: plan.cells[cell].id.clone(), attempt }
    }

    fn ended(plan: &Plan, cell: usize, attempt: u32, verdict: Verdict, retried: bool) -> EventKind {
        let (kind, phase, reason) = match verdict {
            Verdict::Passed => return attempt_ended(plan, cell, attempt, Ending::Passed, retried),
            Verdict::Skipped { reason } => {
                return attempt_ended(plan, cell, attempt, Ending::Skipped { reason }, retried);
            }
            Verdict::Failed { phase, reason } => (TroubleKind::TestFailed, phase, reason),
            Verdict::Error { phase, reason } => (TroubleKind::Host, phase, reason),
            Verdict::NotRun { reason } => (TroubleKind::Interrupted, Phase::Test, reason),
        };
        attempt_ended(plan, cell, attempt, Ending::Troubled(Trouble::new(kind, phase, reason)), retried)
    }

    fn attempt_ended(plan: &Plan, cell: usize, attempt: u32, ending: Ending, retried: bool) -> EventKind {
        EventKind::AttemptFinished { cell: plan.cells[cell].id.clone(), attempt, ending, retried }
    }

    fn reported(plan: &Plan, cell: usize, verdict: Verdict) -> EventKind {
        EventKind::CellFinished { cell: plan.cells[cell].id.clone(), verdict }
    }

    fn loss() -> Trouble {
        Trouble::new(TroubleKind::GuestPanicked, Phase::Runner, "the L1 was lost")
            .with_evidence(vec!["last words".into()])
    }

    fn fold(plan: &Plan, events: &[EventKind]) -> Run {
        let at = |kind: &EventKind| Event { at: jiff::Timestamp::UNIX_EPOCH, clock_ms: None, kind: kind.clone() };
        Run::fold(plan, &events.iter().map(at).collect::<Vec<_>>())
    }

    fn begin(plan: &Plan) -> EventKind {
        EventKind::RunStarted { run: "r".into(), plan: plan.digest, version: "0".into(), locked: None }
    }

    #[test]
    fn cells_that_ran_on_a_lost_machine_are_tried_again_and_in_the_end_not_run() {
        let plan = plan(2);
        let mut ledger = Ledger::new(&plan);
        assert!(ledger.see(&started(&plan, 0, 1)));
        let said = ledger.lost(&loss());
        assert!(
            matches!(&said[..], [EventKind::AttemptFinished { attempt: 1, retried: true, ending: Ending::Troubled(trouble), .. }]
                if trouble.kind == TroubleKind::RunnerLost && trouble.evidence == ["last words"]),
            "{said:?}"
        );
        let next: Vec<_> = ledger.todo().iter().map(|todo| (todo.cell.suite.clone(), todo.next, todo.last)).collect();
        assert_eq!(next, [("s1".into(), 1, 2), ("s0".into(), 2, 2)], "who may be to blame comes last");
        assert!(ledger.see(&started(&plan, 0, 2)));
        let said = ledger.lost(&loss());
        assert!(
            matches!(
                &said[..],
                [
                    EventKind::AttemptFinished { attempt: 2, retried: false, .. },
                    EventKind::CellFinished { verdict: Verdict::NotRun { .. }, .. }
                ]
            ),
            "{said:?}"
        );
        assert_eq!(ledger.todo().len(), 1);
    }

    #[test]
    fn one_attempt_on_a_machine_may_come_on_top() {
        let plan = plan(1);
        let mut ledger = Ledger::new(&plan);
        let error = || Verdict::Error { phase: Phase::Connect, reason: "e".into() };
        let mut fails =
            |attempt| ledger.see(&started(&plan, 0, attempt)) && ledger.see(&ended(&plan, 0, attempt, error(), true));
        assert!(fails(1) && fails(2), "as many as there may be");
        assert!(fails(3), "the one on top");
        assert!(!fails(4));
    }

    #[test]
    fn a_verdict_that_was_reached_is_kept_even_if_the_machine_went_before_it_said_so() {
        let plan = plan(1);
        let mut ledger = Ledger::new(&plan);
        assert!(ledger.see(&started(&plan, 0, 1)) && ledger.see(&ended(&plan, 0, 1, Verdict::Passed, false)));
        assert_eq!(ledger.lost(&loss()), [reported(&plan, 0, Verdict::Passed)]);
        assert!(ledger.todo().is_empty());
    }

    #[test]
    fn nor_is_it_lost_when_nothing_more_is_to_run() {
        let plan = plan(1);
        let mut ledger = Ledger::new(&plan);
        assert!(ledger.see(&started(&plan, 0, 1)) && ledger.see(&ended(&plan, 0, 1, Verdict::Passed, false)));
        assert_eq!(ledger.abandon("interrupted"), [reported(&plan, 0, Verdict::Passed)]);
    }

    #[test]
    fn why_a_machine_was_lost_is_not_forgotten_when_the_run_is_interrupted_meanwhile() {
        let plan = plan(2);
        let mut ledger = Ledger::new(&plan);
        assert!(ledger.see(&started(&plan, 0, 1)));
        ledger.lost(&loss());
        let said = ledger.abandon("interrupted");
        let reason = |event: &EventKind| match event {
            EventKind::CellFinished { verdict: Verdict::NotRun { reason }, .. } => reason.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(reason(&said[0]), "interrupted, after its machine was lost: the L1 was lost");
        assert_eq!(reason(&said[1]), "interrupted", "it had not run there");
    }

    #[test]
    fn what_does_not_fit_is_not_passed_on() {
        let plan = plan(1);
        let mut ledger = Ledger::new(&plan);
        assert!(!ledger.see(&started(&plan, 0, 2)), "the first attempt is number 1");
        assert!(!ledger.see(&ended(&plan, 0, 1, Verdict::Passed, false)), "it has not started");
        assert!(!ledger.see(&EventKind::RunFinished { elapsed_ms: 0 }), "that is ours to say");
        let stranger: CellId = serde_json::from_str("\"other.cell\"").unwrap();
        assert!(!ledger.see(&EventKind::CellFinished { cell: stranger, verdict: Verdict::Passed }));
        assert!(!ledger.see(&reported(&plan, 0, Verdict::Passed)), "no attempt has passed");
        assert!(ledger.see(&started(&plan, 0, 1)) && ledger.see(&ended(&plan, 0, 1, Verdict::Passed, false)));
        assert!(ledger.see(&reported(&plan, 0, Verdict::Passed)));
        assert!(!ledger.see(&reported(&plan, 0, Verdict::Passed)), "once");
    }

    #[test]
    fn what_a_guest_fetched_is_passed_on_while_its_attempt_runs() {
        let plan = plan(1);
        let mut ledger = Ledger::new(&plan);
        let cell = plan.cells[0].id.clone();
        let counted = EventKind::NetworkNotRecorded { cell, attempt: 1, phase: Phase::Test, count: 1 };
        assert!(!ledger.see(&counted), "it has not started");
        assert!(ledger.see(&started(&plan, 0, 1)) && ledger.see(&counted));
        assert!(ledger.see(&ended(&plan, 0, 1, Verdict::Passed, false)));
        assert!(!ledger.see(&counted), "it has ended");
    }

    #[test]
    fn a_cell_is_reported_as_its_last_attempt_ended_and_not_better() {
        let plan = plan(1);
        let failed = || Verdict::Failed { phase: Phase::Test, reason: "exit code 1".into() };
        let mut ledger = Ledger::new(&plan);
        assert!(ledger.see(&started(&plan, 0, 1)) && ledger.see(&ended(&plan, 0, 1, failed(), false)));
        assert!(!ledger.see(&reported(&plan, 0, Verdict::Passed)));
        assert!(ledger.see(&reported(&plan, 0, failed())));
        let mut ledger = Ledger::new(&plan);
        let error = || Verdict::Error { phase: Phase::Runner, reason: "QEMU was killed".into() };
        assert!(ledger.see(&started(&plan, 0, 1)) && ledger.see(&ended(&plan, 0, 1, error(), true)));
        assert!(!ledger.see(&reported(&plan, 0, Verdict::Passed)), "nothing has passed, its next attempt is to come");
    }

    #[test]
    fn a_resumed_run_keeps_verdicts_and_goes_on_with_the_next_attempt() {
        let plan = plan(4);
        let not_run = || Verdict::NotRun { reason: "interrupted".into() };
        let events = [
            begin(&plan),
            started(&plan, 0, 1),
            ended(&plan, 0, 1, Verdict::Skipped { reason: "no".into() }, false),
            reported(&plan, 0, Verdict::Skipped { reason: "no".into() }),
            started(&plan, 1, 1),
            started(&plan, 2, 1),
            ended(&plan, 2, 1, Verdict::Skipped { reason: "no".into() }, false),
            reported(&plan, 3, not_run()),
        ];
        let (ledger, said) = Ledger::resume(&plan, &fold(&plan, &events));
        let next: Vec<_> = ledger.todo().iter().map(|todo| (todo.cell.suite.clone(), todo.next, todo.last)).collect();
        assert_eq!(next, [("s3".into(), 1, 2), ("s1".into(), 2, 3)], "with as many retries as a new run has");
        assert!(matches!(&said[0], EventKind::AttemptFinished { attempt: 1, retried: true, .. }), "{said:?}");
        assert!(matches!(&said[1], EventKind::CellFinished { verdict: Verdict::Skipped { .. }, .. }), "{said:?}");

        let mut all = events.to_vec();
        all.push(EventKind::RunResumed { version: "0".into() });
        all.extend(said);
        let run = fold(&plan, &all);
        assert!(run.contradictions.is_empty(), "{:?}", run.contradictions);
    }

    proptest! {
        /// Whatever an agent says and whenever its machine is lost, every cell is reported exactly once and nothing contradicts.
        #[test]
        fn every_cell_is_reported_once(steps in prop::collection::vec((0..3_usize, 0..7_u8), 0..60)) {
            let plan = plan(3);
            let mut ledger = Ledger::new(&plan);
            let mut events = vec![begin(&plan)];
            let mut attempts = [1_u32; 3];
            for (cell, step) in steps {
                let attempt = attempts[cell];
                let skipped = || Verdict::Skipped { reason: "no".into() };
                let error = Verdict::Error { phase: Phase::Boot, reason: "e".into() };
                let event = match step {
                    0 | 1 => started(&plan, cell, attempt),
                    2 => ended(&plan, cell, attempt, skipped(), false),
                    3 => ended(&plan, cell, attempt, error, true),
                    4 | 5 => reported(&plan, cell, skipped()),
                    _ => {
                        events.extend(ledger.lost(&loss()));
                        for (cell, attempt) in attempts.iter_mut().enumerate() {
                            if let Some(todo) = ledger.todo().iter().find(|todo| todo.cell.id == plan.cells[cell].id) {
                                *attempt = todo.next;
                            }
                        }
                        continue;
                    }
                };
                if ledger.see(&event) {
                    if let EventKind::AttemptFinished { .. } = &event {
                        attempts[cell] += 1;
                    }
                    events.push(event);
                }
            }
            events.extend(ledger.abandon("the end"));
            prop_assert!(ledger.todo().is_empty());
            let run = fold(&plan, &events);
            prop_assert!(run.cells.iter().all(|cell| cell.finished));
            let twice = run.contradictions.iter().any(|words| words.contains("twice") || words.contains("after"));
            prop_assert!(!twice, "{:?}", run.contradictions);
        }
    }
}
