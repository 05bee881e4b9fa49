//! What an agent may say, and how often: whatever else it says brings it nothing, and in the end its loss. Pure.
//!
//! An L1 runs guests whose packages are not trusted, so its agent is not either. Only what takes a cell, an attempt or a template on
//! counts as progress; each step counts once, or a known number of times, so that no agent can delay its limit forever by repeating itself.

use std::collections::HashMap;

use matrix::{CellId, Digest};
use reports::{EventKind, Phase, Trouble, TroubleKind};

use crate::agent::protocol::FromAgent;

/// Messages that belong to nothing the agent was asked to do. (Files of an attempt that our side has given up are among them.)
const MOST_UNEXPECTED: u32 = 1000;
/// Phases of one attempt, started or finished: six, and those of a guest that boots again, as often as a suite and its steps may reboot it.
const MOST_PHASES: u32 = 1024;
/// Events about one template: begun, ready or failed, and failed again when its forks do.
const MOST_OF_A_TEMPLATE: u32 = 4;
/// Templates that may be spoken of.
const MOST_TEMPLATES: usize = 10_000;

/// What a message is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worth {
    /// The work goes on.
    Progress,
    /// It may be said, and shows nothing.
    Talk,
    /// No agent has reason to say it.
    Unexpected,
}

/// Keeps count.
#[derive(Debug, Default)]
pub(super) struct Conduct {
    ready: bool,
    phases: HashMap<(CellId, u32), u32>,
    templates: HashMap<Digest, u32>,
    unexpected: u32,
}

impl Conduct {
    /// Judges one message. `fits`: its event, or its file, belongs to what runs.
    pub(super) fn judge(&mut self, message: &FromAgent, fits: bool) -> Worth {
        let worth = self.worth(message, fits);
        self.unexpected += u32::from(worth == Worth::Unexpected);
        worth
    }

    /// It says what no agent says, again and again.
    pub(super) fn is_bad(&self) -> bool {
        self.unexpected > MOST_UNEXPECTED
    }

    fn worth(&mut self, message: &FromAgent, fits: bool) -> Worth {
        match message {
            FromAgent::Ready(_) if !std::mem::replace(&mut self.ready, true) => Worth::Progress,
            FromAgent::Hello(_) | FromAgent::Ready(_) => Worth::Unexpected,
            FromAgent::Done | FromAgent::Failed { .. } => Worth::Progress,
            FromAgent::Heartbeat | FromAgent::Progress { .. } => Worth::Talk,
            FromAgent::File { .. } | FromAgent::Event { .. } if !fits => Worth::Unexpected,
            // How many bytes of them are taken has a limit; nothing at all would have none.
            FromAgent::File { piece, .. } if piece.is_empty() => Worth::Talk,
            FromAgent::File { .. } => Worth::Progress,
            FromAgent::Event { event } => self.event(event),
        }
    }

    fn event(&mut self, event: &EventKind) -> Worth {
        let worth = |within: bool| if within { Worth::Progress } else { Worth::Unexpected };
        match event {
            EventKind::PhaseStarted { cell, attempt, .. } | EventKind::PhaseFinished { cell, attempt, .. } => {
                let phases = self.phases.entry((cell.clone(), *attempt)).or_default();
                *phases = phases.saturating_add(1);
                worth(*phases <= MOST_PHASES)
            }
            EventKind::AttemptStarted { .. } => Worth::Progress,
            EventKind::AttemptFinished { cell, attempt, .. } => {
                self.phases.remove(&(cell.clone(), *attempt));
                Worth::Progress
            }
            EventKind::CellFinished { .. } => Worth::Progress,
            EventKind::TemplateStarted { template, .. }
            | EventKind::TemplateReady { template, .. }
            | EventKind::TemplateFailed { template, .. } => {
                if self.templates.len() >= MOST_TEMPLATES && !self.templates.contains_key(template) {
                    return Worth::Unexpected;
                }
                let said = self.templates.entry(*template).or_default();
                *said = said.saturating_add(1);
                worth(*said <= MOST_OF_A_TEMPLATE)
            }
            _ => Worth::Talk,
        }
    }
}

/// What an agent says of its machine. It is not trusted: it has a say in these kinds only, and on whether guests run at all only before it
/// said that they do.
pub(super) fn told(trouble: Trouble, was_ready: bool) -> Trouble {
    let (reason, help) = (reports::clean::line(&trouble.reason), trouble.help.as_deref().map(reports::clean::line));
    let trouble = Trouble { phase: Phase::Runner, evidence: Vec::new(), reason, help, ..trouble };
    match trouble.kind {
        TroubleKind::KvmUnusable | TroubleKind::RunnerUnusable if !was_ready => trouble,
        TroubleKind::HostDiskFull => trouble.within("the L1 was lost"),
        _ => Trouble { kind: TroubleKind::RunnerLost, ..trouble }.within("the L1 was lost"),
    }
}

#[cfg(test)]
mod tests {
    use reports::Verdict;

    use super::*;
    use crate::agent::protocol::Hello;

    fn id() -> CellId {
        serde_json::from_str("\"image.suite\"").unwrap()
    }

    fn event(event: EventKind) -> FromAgent {
        FromAgent::Event { event }
    }

    fn file(piece: &str) -> FromAgent {
        FromAgent::File { cell: id(), attempt: 1, path: "log".into(), piece: piece.into() }
    }

    /// How often it is progress when it is said so often.
    fn progress(conduct: &mut Conduct, message: &FromAgent, fits: bool, times: u32) -> u32 {
        (0..times).map(|_| u32::from(conduct.judge(message, fits) == Worth::Progress)).sum()
    }

    #[test]
    fn an_agent_that_greets_again_and_again_makes_no_progress_and_is_given_up() {
        let mut conduct = Conduct::default();
        let hello = FromAgent::Hello(Hello::ours());
        assert_eq!(progress(&mut conduct, &hello, true, MOST_UNEXPECTED), 0);
        assert!(!conduct.is_bad());
        conduct.judge(&hello, true);
        assert!(conduct.is_bad());
    }

    #[test]
    fn files_and_events_of_cells_that_do_not_run_are_no_progress_and_count_against_it() {
        let mut conduct = Conduct::default();
        assert_eq!(progress(&mut conduct, &file("aaaa"), false, MOST_UNEXPECTED), 0);
        let finished = event(EventKind::CellFinished { cell: id(), verdict: Verdict::Passed });
        assert_eq!(conduct.judge(&finished, false), Worth::Unexpected);
        assert!(conduct.is_bad());
    }

    #[test]
    fn what_it_says_without_end_is_progress_so_often_and_no_more() {
        let phase = event(EventKind::PhaseStarted { cell: id(), attempt: 1, phase: Phase::Test, timeout_ms: None });
        let template = event(EventKind::TemplateStarted { runner: 1, template: Digest::of(b"t"), image: "a".into() });
        let warning = event(EventKind::Warning { cell: None, message: "hm".into() });
        let mut conduct = Conduct::default();
        assert_eq!(progress(&mut conduct, &phase, true, 2 * MOST_PHASES), MOST_PHASES);
        assert_eq!(progress(&mut conduct, &template, true, 200), MOST_OF_A_TEMPLATE);
        assert_eq!(progress(&mut conduct, &warning, true, 200), 0);
        assert_eq!(progress(&mut conduct, &FromAgent::Progress { message: "hm".into() }, true, 200), 0);
        assert_eq!(progress(&mut conduct, &file(""), true, 200), 0, "pieces of nothing");
        assert_eq!(progress(&mut conduct, &FromAgent::Heartbeat, true, 200), 0);
    }

    #[test]
    fn an_agent_that_does_its_work_makes_progress_with_each_step() {
        let mut conduct = Conduct::default();
        let verdict = Verdict::Passed;
        for message in [
            event(EventKind::AttemptStarted { cell: id(), attempt: 1 }),
            event(EventKind::PhaseStarted { cell: id(), attempt: 1, phase: Phase::Test, timeout_ms: None }),
            event(EventKind::PhaseFinished { cell: id(), attempt: 1, phase: Phase::Test, elapsed_ms: 1 }),
            file("aaaa"),
            event(EventKind::CellFinished { cell: id(), verdict }),
            FromAgent::Done,
        ] {
            assert_eq!(conduct.judge(&message, true), Worth::Progress, "{message:?}");
        }
        assert!(!conduct.is_bad());
    }
}
