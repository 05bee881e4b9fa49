//! Panics of tasks: the task's cell is an error with the panic's message, and cells that wait for its template learn that there is none.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use matrix::{CellId, Digest};
use reports::{Ending, EventKind, Phase, Trouble, TroubleKind};
use tokio::task::JoinError;

/// What a task does.
#[derive(Clone, Debug)]
pub(super) enum What {
    /// It runs a cell.
    Cell {
        id: CellId,
        /// The attempt that runs; 0: none.
        attempt: Arc<AtomicU32>,
    },
    /// It makes a template.
    Template {
        key: Digest,
        /// Without it no guest of its image may run.
        needed: bool,
    },
}

/// In the panic's own words.
pub(crate) fn words(error: JoinError) -> String {
    let Ok(payload) = error.try_into_panic() else { return "its task was cancelled".to_owned() };
    format!("nestmatrix panicked: {}", said(&*payload))
}

fn said(payload: &(dyn Any + Send)) -> String {
    let said = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
    reports::clean::line(said.unwrap_or("it did not say why"))
}

/// What is to be reported.
pub(super) fn reported(what: &What, runner: u32, words: &str) -> Vec<EventKind> {
    let trouble = Trouble::new(TroubleKind::Defect, Phase::Runner, words);
    match what {
        What::Cell { id, attempt } => {
            let verdict = trouble.verdict();
            let attempt = Some(attempt.load(Ordering::Relaxed)).filter(|number| *number > 0);
            let ended = attempt.map(|attempt| EventKind::AttemptFinished {
                cell: id.clone(),
                attempt,
                ending: Ending::Troubled(trouble),
                retried: false,
            });
            ended.into_iter().chain([EventKind::CellFinished { cell: id.clone(), verdict }]).collect()
        }
        What::Template { key, needed } => {
            vec![EventKind::TemplateFailed { runner, template: *key, trouble, elapsed_ms: 0, bootable: !needed }]
        }
    }
}

#[cfg(test)]
mod tests {
    use reports::Verdict;

    use super::*;

    fn id() -> CellId {
        serde_json::from_str("\"image.suite\"").unwrap()
    }

    async fn panicked(with: fn()) -> String {
        words(tokio::spawn(async move { with() }).await.unwrap_err())
    }

    #[tokio::test]
    async fn a_panic_is_reported_in_its_own_words() {
        let formatted = panicked(|| panic!("index {} is out of bounds", std::hint::black_box(7))).await;
        assert_eq!(formatted, "nestmatrix panicked: index 7 is out of bounds");
        assert_eq!(panicked(|| panic!("no")).await, "nestmatrix panicked: no");
        let odd = panicked(|| std::panic::panic_any(7)).await;
        assert_eq!(odd, "nestmatrix panicked: it did not say why");
    }

    #[test]
    fn the_cell_of_a_task_that_panicked_is_an_error_with_its_words() {
        let said = reported(&What::Cell { id: id(), attempt: Arc::new(2.into()) }, 1, "nestmatrix panicked: no");
        let [
            EventKind::AttemptFinished { attempt: 2, retried: false, ending, .. },
            EventKind::CellFinished { verdict: last, .. },
        ] = &said[..]
        else {
            panic!("{said:?}")
        };
        assert_eq!(ending.verdict(), *last);
        assert_eq!(*last, Verdict::Error { phase: Phase::Runner, reason: "nestmatrix panicked: no".into() });
        let between = reported(&What::Cell { id: id(), attempt: Arc::default() }, 1, "no");
        assert!(
            matches!(&between[..], [EventKind::CellFinished { verdict: Verdict::Error { .. }, .. }]),
            "{between:?}"
        );
    }

    #[test]
    fn cells_that_wait_for_a_template_whose_task_panicked_learn_that_there_is_none() {
        let said = |needed| reported(&What::Template { key: Digest::of(b"t"), needed }, 3, "no");
        assert!(
            matches!(&said(true)[..], [EventKind::TemplateFailed { runner: 3, bootable: false, trouble, .. }] if trouble.reason == "no")
        );
        assert!(matches!(&said(false)[..], [EventKind::TemplateFailed { bootable: true, .. }]));
    }
}
