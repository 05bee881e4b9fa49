//! When a machine is forked, when it is booted instead, and what is said of it: without a machine.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use reports::{Trouble, TroubleKind};

use super::fake::{FakeAgent, FakeEngine, FakePlace, Next, Stage, about, opens, trouble};
use crate::{
    runner::{
        frozen::{Forked, Freezable, Frozen},
        place::{About, Opened, Opening, Place},
        qemu::Steps,
    },
    template::no_template,
};

/// Notes why frozen machines were given up.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Frozen for Notes {
    fn give_up(&self, reason: &str) {
        self.0.lock().unwrap().push(reason.to_owned());
    }
}

/// Machines that are frozen as the test says.
struct FakeFreezable {
    booted: FakePlace,
    forked: FakePlace,
    frozen: Mutex<VecDeque<Result<bool, Trouble>>>,
    given_up: Notes,
}

impl Place for FakeFreezable {
    type Engine = FakeEngine;

    fn about(&self) -> About<'_> {
        about(None)
    }

    async fn open(&self, opening: Opening<'_>) -> Result<Opened<FakeEngine>, Trouble> {
        self.booted.take(opening.number)
    }
}

impl Freezable for FakeFreezable {
    type Frozen = Notes;

    async fn frozen(&self, _opening: &Opening<'_>) -> Result<(Notes, bool), Trouble> {
        let found = self.frozen.lock().unwrap().pop_front().expect("one more frozen machine");
        found.map(|was_there| (self.given_up.clone(), was_there))
    }

    async fn fork(&self, _frozen: &Notes, opening: &Opening<'_>, _steps: Steps) -> Result<Opened<FakeEngine>, Trouble> {
        self.forked.take(opening.number)
    }
}

fn works() -> Next {
    opens(FakeAgent::does_its_work)
}

/// What became of two cells: warnings, numbers of machines that were forked and booted, why frozen ones were given up, and verdicts.
async fn played(
    frozen: impl IntoIterator<Item = Result<bool, Trouble>>,
    forked: impl IntoIterator<Item = Next>,
    booted: impl IntoIterator<Item = Next>,
) -> (Vec<String>, (Vec<u32>, Vec<u32>), Vec<String>, String) {
    let (booted, forked, given_up) = (FakePlace::new(booted), FakePlace::new(forked), Notes::default());
    let (boots, forks) = (Arc::clone(&booted.opened), Arc::clone(&forked.opened));
    let frozen = Mutex::new(frozen.into_iter().collect());
    let place = FakeFreezable { booted, forked, frozen, given_up: given_up.clone() };
    let played = Stage::new(1, 1).play(Forked(place)).await;
    let warnings = played.warnings().into_iter().map(str::to_owned).collect();
    let (forks, boots, given_up) = (forks.lock().unwrap(), boots.lock().unwrap(), given_up.0.lock().unwrap());
    (warnings, (forks.clone(), boots.clone()), given_up.clone(), played.verdicts())
}

const GREEN: &str = "s0 skipped: no printer";

#[tokio::test(start_paused = true)]
async fn a_machine_is_forked_where_it_can_be_and_nothing_is_said_of_it() {
    for was_there in [true, false] {
        let (warnings, (forks, boots), given_up, verdict) = played([Ok(was_there)], [works()], []).await;
        assert_eq!((warnings.len(), &forks[..], boots.len(), given_up.len()), (0, &[1][..], 0, 0));
        assert_eq!(verdict, GREEN);
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_frozen_is_booted_and_why_is_said_with_the_remedy() {
    let none = no_template("the disk is full").with_help("make room");
    let (warnings, (forks, boots), _, verdict) = played([Err(none)], [], [works()]).await;
    assert_eq!(warnings, ["L1 1 is booted, not forked from a frozen one: the disk is full (make room)"]);
    assert_eq!((forks.len(), &boots[..], &*verdict), (0, &[1][..], GREEN));
}

#[tokio::test(start_paused = true)]
async fn a_fork_that_does_not_run_is_replaced_by_a_booted_machine_and_only_a_broken_one_is_given_up() {
    for kind in [TroubleKind::TemplateBroken, TroubleKind::ForkFailed, TroubleKind::Host, TroubleKind::Unexpected] {
        let (warnings, (forks, boots), given_up, verdict) =
            played([Ok(true)], [Next::Fails(trouble(kind))], [works()]).await;
        assert_eq!((warnings.len(), &forks[..], &boots[..], &*verdict), (1, &[1][..], &[1][..], GREEN), "{kind:?}");
        let expected: &[&str] = if kind == TroubleKind::TemplateBroken { &["why"] } else { &[] };
        assert_eq!(given_up, expected, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_booted_machine_would_fail_with_too_is_not_tried_there() {
    let changed = Next::Fails(trouble(TroubleKind::RunnerUnusable));
    let (_, (_, boots), _, verdict) = played([Ok(true)], [changed], []).await;
    assert_eq!((boots.len(), &*verdict), (0, "s0 error(runner): why"));
}

#[tokio::test(start_paused = true)]
async fn after_a_loss_the_next_machine_is_booted_and_a_fork_that_did_nothing_costs_the_frozen_one_its_place() {
    let dies = opens(|agent: FakeAgent| async move {
        agent.ready().await;
        agent.dies(trouble(TroubleKind::GuestPanicked)).await;
    });
    let (warnings, (forks, boots), given_up, verdict) = played([Ok(true)], [dies], [works()]).await;
    assert_eq!(warnings, ["L1 2 is booted, not forked from a frozen one: the one before it was lost"]);
    assert_eq!((&forks[..], &boots[..], &*verdict), (&[1][..], &[2][..], GREEN));
    assert_eq!(given_up, ["why"]);
}
