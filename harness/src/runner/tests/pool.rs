//! What becomes of cells when machines are lost, lie, or say nothing: without a machine, in milliseconds.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use matrix::Digest;
use reports::{Boot, Ending, EventKind, GuestFacts, Phase, Trouble, TroubleKind, Verdict};

use super::fake::{FakeAgent, FakeFeed, FakePlace, Next, Stage, opens, proofs, ready, skipped, stranger, trouble};
use crate::{
    agent::protocol::{FromAgent, GuestProof, Hello, ToAgent},
    fanout::{BootImage, ImageFacts},
    guest::{DiskFile, DiskFormat},
};

fn failed() -> Ending {
    Ending::Troubled(Trouble::new(TroubleKind::TestFailed, Phase::Test, "exit code 1"))
}

fn boot_timeout() -> Ending {
    Ending::Troubled(Trouble::new(TroubleKind::Timeout, Phase::Boot, "no SSH server"))
}

fn works() -> Next {
    opens(FakeAgent::does_its_work)
}

/// Its machine dies while its first cell runs.
fn dies(kind: TroubleKind) -> Next {
    opens(move |mut agent| async move {
        agent.ready().await;
        let cells = agent.cells().await;
        agent.start(&cells[0]).await;
        agent.dies(trouble(kind)).await;
    })
}

#[tokio::test(start_paused = true)]
async fn every_cell_is_reported_by_one_machine_that_works_and_that_is_closed() {
    let place = FakePlace::new([works()]);
    let (opened, closed) = (Arc::clone(&place.opened), Arc::clone(&place.closed));
    let played = Stage::new(3, 1).play(place).await;
    assert_eq!(played.verdicts(), "s0 skipped: no printer\ns1 skipped: no printer\ns2 skipped: no printer");
    assert_eq!((&*opened.lock().unwrap(), &*closed.lock().unwrap()), (&vec![1], &vec![1]));
    assert_eq!(played.run.contradictions, [""; 0]);
    assert!(played.run.runners[0].is_ready());
}

#[tokio::test(start_paused = true)]
async fn what_ran_on_a_lost_machine_is_tried_again_on_another_one_whatever_happened_to_it() {
    let lost = [
        TroubleKind::GuestPanicked,
        TroubleKind::GuestPoweredOff,
        TroubleKind::GuestRebooted,
        TroubleKind::GuestHalted,
        TroubleKind::QemuGone,
        TroubleKind::QemuSilent,
        TroubleKind::HostDiskFull,
        TroubleKind::HostDiskBroken,
        TroubleKind::ConnectionBroken,
        TroubleKind::RunnerLost,
        TroubleKind::Timeout,
        TroubleKind::Unexpected,
        TroubleKind::Host,
    ];
    for kind in lost {
        let played = Stage::new(2, 1).play(FakePlace::new([dies(kind), works()])).await;
        assert_eq!(played.verdicts(), "s0 skipped: no printer\ns1 skipped: no printer", "{kind:?}");
        assert_eq!(played.attempts(), [2, 1], "{kind:?}");
        let first = played.run.cells[0].attempts[0].trouble.as_ref().unwrap();
        assert_eq!((first.kind, first.phase), (TroubleKind::RunnerLost, Phase::Runner), "{kind:?}");
        assert_eq!(first.evidence, ["last words"], "{kind:?}");
        assert_eq!(played.losses()[0].kind, kind);
        assert_eq!(played.run.contradictions, [""; 0], "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cell_whose_machine_was_lost_as_often_as_it_may_be_tried_is_not_run() {
    let place = FakePlace::new([dies(TroubleKind::QemuGone), dies(TroubleKind::QemuGone), works()]);
    // The one that ran when the first was lost comes last, so each machine loses another cell.
    let played = Stage::new(2, 0).play(place).await;
    assert_eq!(played.verdicts(), "s0 not-run: it was never finished: why\ns1 not-run: it was never finished: why");
}

#[tokio::test(start_paused = true)]
async fn machines_that_are_lost_one_after_another_without_a_verdict_are_given_up() {
    let place = FakePlace::new((0..9).map(|_| Next::Fails(trouble(TroubleKind::Timeout))));
    let opened = Arc::clone(&place.opened);
    let played = Stage::new(1, 2).play(place).await;
    assert_eq!(played.verdicts(), "s0 error(runner): why");
    assert_eq!(*opened.lock().unwrap(), [1, 2, 3, 4], "the first, as many as there are retries, and one");
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_no_other_of_its_kind_replaces_is_refused_at_once() {
    for kind in [TroubleKind::RunnerUnusable, TroubleKind::Defect] {
        let played = Stage::new(1, 2).play(FakePlace::new([Next::Fails(trouble(kind))])).await;
        assert_eq!(played.verdicts(), "s0 error(runner): why", "{kind:?}");
        assert_eq!(played.losses().len(), 1, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_guests_do_not_run_another_kind_of_machine_is_tried_if_there_is_one() {
    let fails = || FakePlace::new([Next::Fails(trouble(TroubleKind::KvmUnusable))]);
    let played = Stage::new(1, 2).play_with(fails(), false, FakeFeed::all()).await;
    assert_eq!((played.next, played.run.cells[0].finished), (Some(2), false));
    let played = Stage::new(1, 2).play_with(fails(), true, FakeFeed::all()).await;
    assert_eq!((played.next, played.verdicts()), (None, "s0 error(runner): why".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn an_agent_says_that_guests_do_not_run_and_has_no_say_in_what_is_its_machines_fault() {
    let says = |kind| {
        FakePlace::new([
            opens(move |agent| async move {
                let claim = Trouble::new(kind, Phase::Test, "no").with_evidence(vec!["made up".into()]);
                agent.message(FromAgent::Failed { trouble: claim }).await;
                std::future::pending().await
            }),
            works(),
        ])
    };
    let played = Stage::new(1, 2).play_with(says(TroubleKind::KvmUnusable), false, FakeFeed::all()).await;
    assert_eq!(played.next, Some(2));
    let played = Stage::new(1, 2).play(says(TroubleKind::RunnerUnusable)).await;
    assert_eq!(played.verdicts(), "s0 error(runner): no");
    for kind in [TroubleKind::HostDiskFull, TroubleKind::TestFailed, TroubleKind::Defect, TroubleKind::Interrupted] {
        let played = Stage::new(1, 2).play(says(kind)).await;
        assert_eq!(played.verdicts(), "s0 skipped: no printer", "{kind:?}: another machine is tried");
        let lost = played.losses()[0];
        assert_eq!((&*lost.reason, lost.phase), ("the L1 was lost: no", Phase::Runner), "{kind:?}");
        assert_eq!(lost.evidence, ["last words"], "{kind:?}: not the agent's own");
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_says_nothing_is_given_up_before_and_after_it_is_ready() {
    let mute = opens(|_agent| std::future::pending());
    let played = Stage::new(1, 1).play(FakePlace::new([mute, works()])).await;
    assert_eq!(played.losses()[0].reason, "timeout: the agent made no progress for 300 s");
    assert_eq!(played.verdicts(), "s0 skipped: no printer");
    let mute = opens(|agent: FakeAgent| async move {
        agent.message(FromAgent::Ready(ready(2.5))).await;
        std::future::pending().await
    });
    let played = Stage::new(1, 1).play(FakePlace::new([mute, works()])).await;
    assert_eq!(played.losses()[0].reason, "timeout: the agent made no progress for 2500 s", "scaled");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_only_chatters_makes_no_progress() {
    let chatters = opens(|agent: FakeAgent| async move {
        agent.ready().await;
        loop {
            agent.message(FromAgent::Progress { message: "still here".into() }).await;
            agent.message(FromAgent::Heartbeat).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let played = Stage::new(1, 1).play(FakePlace::new([chatters, works()])).await;
    assert_eq!(played.losses()[0].reason, "timeout: the agent made no progress for 1000 s");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_floods_is_given_up() {
    let floods = opens(|agent: FakeAgent| async move {
        loop {
            agent.message(FromAgent::Hello(Hello::ours())).await;
        }
    });
    let played = Stage::new(1, 1).play(FakePlace::new([floods, works()])).await;
    assert!(played.losses()[0].reason.contains("belong to nothing it was asked to do"), "{:?}", played.losses());
    assert_eq!(played.verdicts(), "s0 skipped: no printer");
}

#[tokio::test(start_paused = true)]
async fn a_speed_that_no_machine_has_is_not_believed() {
    for speed in [0.0, 0.99, 101.0, f64::NAN, f64::INFINITY] {
        let lies = opens(move |agent: FakeAgent| async move {
            agent.message(FromAgent::Ready(ready(speed))).await;
            std::future::pending().await
        });
        let played = Stage::new(1, 1).play(FakePlace::new([lies, works()])).await;
        assert_eq!(played.losses()[0].reason, "the agent measured a speed that no machine has", "{speed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cell_that_the_agent_is_silent_about_is_not_green() {
    let forgets = opens(|mut agent: FakeAgent| async move {
        agent.ready().await;
        let cells = agent.cells().await;
        agent.attempt(&cells[0], skipped(), false).await;
        agent.message(FromAgent::Done).await;
        std::future::pending().await
    });
    let played = Stage::new(2, 1).play(FakePlace::new([forgets])).await;
    assert_eq!(
        played.verdicts(),
        "s0 skipped: no printer\ns1 not-run: the agent did not report it: a defect of nestmatrix"
    );
}

#[tokio::test(start_paused = true)]
async fn a_verdict_without_an_attempt_that_reached_it_is_not_believed() {
    let lies = opens(|mut agent: FakeAgent| async move {
        agent.ready().await;
        let cells = agent.cells().await;
        let cell = || cells[0].id.clone();
        agent.event(EventKind::CellFinished { cell: cell(), verdict: Verdict::Passed }).await;
        agent.event(EventKind::CellFinished { cell: stranger(), verdict: Verdict::Passed }).await;
        agent.event(EventKind::RunFinished { elapsed_ms: 0 }).await;
        let (ssh, stop) = ("rm -rf /".to_owned(), "rm -rf /".to_owned());
        agent.event(EventKind::GuestKept { cell: cell(), attempt: 1, ssh, stop }).await;
        agent.message(FromAgent::Done).await;
        std::future::pending().await
    });
    let played = Stage::new(1, 1).play(FakePlace::new([lies])).await;
    assert_eq!(played.verdicts(), "s0 not-run: the agent did not report it: a defect of nestmatrix");
    assert_eq!(played.warnings().len(), 4, "each is said: {:?}", played.warnings());
    assert!(!played.events.iter().any(|event| matches!(event, EventKind::GuestKept { .. })));
}

#[tokio::test(start_paused = true)]
async fn what_is_tried_again_follows_the_table_and_not_the_agent() {
    let retries = |ending: Ending| {
        opens(move |mut agent: FakeAgent| async move {
            agent.ready().await;
            let cells = agent.cells().await;
            agent.attempt(&cells[0], ending, true).await;
            agent.message(FromAgent::Done).await;
            std::future::pending().await
        })
    };
    let played = Stage::new(1, 3).play(FakePlace::new([retries(failed())])).await;
    assert_eq!(played.run.cells[0].attempts[0].outcome, None, "a failed test is not tried until it passes");
    assert_eq!(played.warnings().len(), 1);
    let played = Stage::new(1, 3).play(FakePlace::new([retries(boot_timeout())])).await;
    assert!(played.run.cells[0].attempts[0].retried);
}

#[tokio::test(start_paused = true)]
async fn after_a_drain_what_has_not_run_is_said_to_be_interrupted() {
    let stage = Stage::new(1, 1);
    stage.stop.drain.cancel();
    let played = stage.play(FakePlace::new([])).await;
    assert_eq!(played.verdicts(), "s0 not-run: interrupted before it started");

    let stage = Stage::new(2, 1);
    let drain = stage.stop.drain.clone();
    let obeys = opens(move |mut agent: FakeAgent| async move {
        agent.ready().await;
        let cells = agent.cells().await;
        agent.start(&cells[0]).await;
        drain.cancel();
        while !matches!(agent.orders.next().await, Some(ToAgent::Stop { kill: false })) {}
        let (cell, attempt) = (cells[0].id.clone(), 1);
        agent.event(EventKind::AttemptFinished { cell: cell.clone(), attempt, ending: failed(), retried: false }).await;
        agent.event(EventKind::CellFinished { cell, verdict: failed().verdict() }).await;
        agent.message(FromAgent::Done).await;
        std::future::pending().await
    });
    let played = stage.play(FakePlace::new([obeys])).await;
    assert_eq!(
        played.verdicts(),
        "s0 failed(test): exit code 1\ns1 not-run: interrupted before it started",
        "what ran comes to its end"
    );
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_to_end_everything_is_not_waited_for_for_long() {
    let stage = Stage::new(1, 1);
    let (drain, kill) = (stage.stop.drain.clone(), stage.stop.kill.clone());
    let deaf = opens(move |mut agent: FakeAgent| async move {
        agent.ready().await;
        let cells = agent.cells().await;
        agent.start(&cells[0]).await;
        drain.cancel();
        kill.cancel();
        std::future::pending().await
    });
    let (place, began) = (FakePlace::new([deaf]), tokio::time::Instant::now());
    let closed = Arc::clone(&place.closed);
    let played = stage.play(place).await;
    assert_eq!(played.verdicts(), "s0 not-run: interrupted before it was finished");
    assert_eq!(began.elapsed().as_secs(), 20);
    assert_eq!(*closed.lock().unwrap(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_interrupted_while_it_is_made_is_no_lost_one() {
    let stage = Stage::new(1, 1);
    let drain = stage.stop.drain.clone();
    let played = stage.play(FakePlace::new([Next::Interrupted(drain)])).await;
    assert_eq!(played.losses(), Vec::<&Trouble>::new());
    assert_eq!(played.verdicts(), "s0 not-run: interrupted before it started");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_ends_before_its_work_is_done_is_a_lost_machine() {
    for panics in [false, true] {
        let ends = opens(move |mut agent: FakeAgent| async move {
            agent.ready().await;
            let cells = agent.cells().await;
            agent.start(&cells[0]).await;
            assert!(!panics, "boom");
        });
        let played = Stage::new(1, 1).play(FakePlace::new([ends, works()])).await;
        assert_eq!(played.verdicts(), "s0 skipped: no printer");
        let reason = &played.losses()[0].reason;
        assert!(if panics { reason.contains("boom") } else { reason.contains("ended by itself") }, "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn files_of_an_attempt_that_runs_are_written_into_its_folder_and_no_others() {
    let sends = opens(|mut agent: FakeAgent| async move {
        agent.ready().await;
        let cells = agent.cells().await;
        let file = |path: &str, attempt| FromAgent::File {
            cell: cells[0].id.clone(),
            attempt,
            path: path.to_owned(),
            piece: STANDARD.encode("words"),
        };
        agent.message(file("early.log", 1)).await;
        agent.start(&cells[0]).await;
        agent.message(file("console.log", 1)).await;
        agent.message(file("../../../escaped", 1)).await;
        agent.message(file("late.log", 1)).await;
        let (cell, attempt) = (cells[0].id.clone(), 1);
        agent
            .event(EventKind::AttemptFinished { cell: cell.clone(), attempt, ending: skipped(), retried: false })
            .await;
        agent.event(EventKind::CellFinished { cell, verdict: skipped().verdict() }).await;
        agent.message(FromAgent::Done).await;
        std::future::pending().await
    });
    let stage = Stage::new(1, 1);
    let kept = Arc::clone(&stage.folder);
    let folder = kept.path().join(reports::attempt_folder(&stage.plan.cells[0].id, 1));
    let played = stage.play(FakePlace::new([sends])).await;
    let names = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let listed: Vec<_> = names.collect();
    assert!(!kept.path().join("escaped").exists());
    assert_eq!(listed, ["console.log"]);
    assert!(played.warnings().iter().any(|words| words.contains("leads out")), "{:?}", played.warnings());
}

#[tokio::test(start_paused = true)]
async fn cells_are_handed_out_when_their_image_is_in() {
    let (arrive, feed) = FakeFeed::later();
    let waits = opens(move |mut agent: FakeAgent| async move {
        agent.ready().await;
        let early = tokio::time::timeout(Duration::from_secs(60), agent.cells()).await;
        assert!(early.is_err(), "nothing is handed out before");
        arrive.send_replace(true);
        let cells = agent.cells().await;
        assert_eq!(cells.len(), 2);
        for work in &cells {
            agent.attempt(work, skipped(), false).await;
        }
        assert!(agent.cells().await.is_empty(), "there are no more");
        agent.message(FromAgent::Done).await;
        std::future::pending().await
    });
    let played = Stage::new(2, 1).play_with(FakePlace::new([waits]), true, feed).await;
    assert_eq!(played.verdicts(), "s0 skipped: no printer\ns1 skipped: no printer");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_waits_for_an_image_is_not_given_up() {
    const HOURS: Duration = Duration::from_secs(5 * 3600);
    for ready_first in [true, false] {
        let (arrive, feed) = FakeFeed::later();
        let waits = opens(move |mut agent: FakeAgent| async move {
            if ready_first {
                agent.ready().await;
            }
            tokio::time::sleep(HOURS).await;
            arrive.send_replace(true);
            if !ready_first {
                agent.ready().await;
            }
            for work in agent.cells().await {
                agent.attempt(&work, skipped(), false).await;
            }
            agent.message(FromAgent::Done).await;
            std::future::pending().await
        });
        let played = Stage::new(1, 1).play_with(FakePlace::new([waits]), true, feed).await;
        assert_eq!(played.verdicts(), "s0 skipped: no printer", "{ready_first}: {:?}", played.losses());
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_proved_is_remembered_where_guests_ran_and_forgotten_where_one_did_not_come_up() {
    let store = tempfile::tempdir().unwrap();
    let place = |next: Next| FakePlace { proofs: Some(proofs(store.path())), ..FakePlace::new([next, works()]) };
    let known = || proofs(store.path()).known();
    let proof = GuestProof { reason: "a guest ran".into(), speed: 1.0 };

    Stage::new(1, 1).play(place(works())).await;
    assert_eq!(known(), Some(proof.clone()));
    Stage::new(1, 1).play(place(dies(TroubleKind::QemuGone))).await;
    assert_eq!(known(), Some(proof.clone()), "forgotten with the first machine, proved by the second");
    let doubtful = opens(|mut agent: FakeAgent| async move {
        agent.ready().await;
        let cells = agent.cells().await;
        agent.attempt(&cells[0], boot_timeout(), false).await;
        agent.message(FromAgent::Done).await;
        std::future::pending().await
    });
    Stage::new(1, 1).play(place(doubtful)).await;
    assert_eq!(known(), None);
}

#[tokio::test(start_paused = true)]
async fn that_no_guest_can_run_is_not_believed_of_a_machine_on_which_guests_have_run() {
    let turns = opens(|mut agent: FakeAgent| async move {
        agent.ready().await;
        let cells = agent.cells().await;
        agent.start(&cells[0]).await;
        agent.message(FromAgent::Failed { trouble: trouble(TroubleKind::KvmUnusable) }).await;
        std::future::pending().await
    });
    let played = Stage::new(1, 1).play_with(FakePlace::new([turns, works()]), false, FakeFeed::all()).await;
    assert_eq!((played.next, played.verdicts()), (None, "s0 skipped: no printer".to_owned()));
    assert_eq!(played.losses()[0].kind, TroubleKind::RunnerLost);
}

#[tokio::test(start_paused = true)]
async fn what_an_agent_says_beyond_its_limit_did_not_happen() {
    let talks = opens(|mut agent: FakeAgent| async move {
        agent.ready().await;
        let cells = agent.cells().await;
        agent.start(&cells[0]).await;
        agent.message(FromAgent::Progress { message: "x".repeat(1 << 20) }).await;
        let (cell, attempt) = (cells[0].id.clone(), 1);
        agent.event(EventKind::AttemptFinished { cell, attempt, ending: skipped(), retried: false }).await;
        std::future::pending().await
    });
    let played = Stage::new(1, 1).play(FakePlace::new([talks, works()])).await;
    assert!(played.losses()[0].reason.contains("more events than the limit"), "{:?}", played.losses());
    assert_eq!((played.verdicts(), played.attempts()), ("s0 skipped: no printer".to_owned(), vec![2]));
    assert_eq!(played.run.contradictions, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_guest_is_not_believed_to_run_on_another_machine() {
    let strays = opens(|mut agent: FakeAgent| async move {
        agent.ready().await;
        let cells = agent.cells().await;
        agent.start(&cells[0]).await;
        let guest = GuestFacts {
            runner: 7,
            image: Digest::of(b"image"),
            accelerator: "kvm".into(),
            machine: "pc".into(),
            pid: 1,
            boot: Boot::default(),
        };
        agent.event(EventKind::GuestStarted { cell: cells[0].id.clone(), attempt: 1, guest }).await;
        agent.message(FromAgent::Done).await;
        std::future::pending().await
    });
    let played = Stage::new(1, 1).play(FakePlace::new([strays])).await;
    assert!(!played.events.iter().any(|event| matches!(event, EventKind::GuestStarted { .. })));
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_boot_casts_no_doubt_on_what_was_proved() {
    let store = tempfile::tempdir().unwrap();
    let interrupted = opens(|mut agent: FakeAgent| async move {
        agent.ready().await;
        let cells = agent.cells().await;
        let ending = Ending::Troubled(Trouble::new(TroubleKind::Interrupted, Phase::Boot, "interrupted"));
        agent.attempt(&cells[0], ending, false).await;
        agent.message(FromAgent::Done).await;
        std::future::pending().await
    });
    let place = FakePlace { proofs: Some(proofs(store.path())), ..FakePlace::new([interrupted]) };
    Stage::new(1, 1).play(place).await;
    assert!(proofs(store.path()).known().is_some());
}

#[tokio::test(start_paused = true)]
async fn an_agent_of_this_process_may_keep_guests_is_waited_for_and_its_silence_is_ours() {
    let stage = Stage::new(1, 1);
    let (drain, kill) = (stage.stop.drain.clone(), stage.stop.kill.clone());
    let keeps = opens(move |mut agent: FakeAgent| async move {
        agent.ready().await;
        let cells = agent.cells().await;
        tokio::time::sleep(Duration::from_secs(100_000)).await;
        agent.start(&cells[0]).await;
        drain.cancel();
        kill.cancel();
        tokio::time::sleep(Duration::from_secs(1000)).await;
        let (cell, attempt) = (cells[0].id.clone(), 1);
        let (ssh, stop) = ("ssh".to_owned(), "kill".to_owned());
        agent.event(EventKind::GuestKept { cell: cell.clone(), attempt, ssh, stop }).await;
        agent
            .event(EventKind::AttemptFinished { cell: cell.clone(), attempt, ending: skipped(), retried: false })
            .await;
        agent.event(EventKind::CellFinished { cell, verdict: skipped().verdict() }).await;
        agent.message(FromAgent::Done).await;
    });
    let played = stage.play(FakePlace { is_ours: true, ..FakePlace::new([keeps]) }).await;
    assert_eq!(played.verdicts(), "s0 skipped: no printer");
    assert!(played.events.iter().any(|event| matches!(event, EventKind::GuestKept { .. })));
}

#[tokio::test(start_paused = true)]
async fn an_agent_is_listened_to_while_an_image_is_on_its_way_and_gets_its_cells_when_it_is_there() {
    let (free, way) = tokio::sync::watch::channel(false);
    let mut place = FakePlace::new([opens(|mut agent| async move {
        agent.ready().await;
        // More than what waits for somebody who does not listen.
        for number in 0..100 {
            agent.message(FromAgent::Progress { message: format!("still here {number}") }).await;
        }
        free.send_replace(true);
        let told = agent.orders.next().await;
        assert!(matches!(told, Some(ToAgent::Heartbeat)), "what bringing it says comes before the cells: {told:?}");
        for work in agent.cells().await {
            agent.attempt(&work, skipped(), false).await;
        }
        agent.message(FromAgent::Done).await;
        std::future::pending::<()>().await;
    })]);
    place.way = way;
    let image = BootImage {
        facts: ImageFacts {
            digest: matrix::Digest::of(b"image"),
            arch: matrix::Arch::here(),
            family: None,
            bytes: matrix::ByteSize::from_mib(1),
            start: images::Start::Kernel(String::new()),
            login_user: "root".into(),
        },
        disk: DiskFile { file: "/disk".into(), format: DiskFormat::Raw },
        kernel: None,
        source: None,
        lease: None,
    };
    let played = Stage::new(1, 0).play_with(place, true, FakeFeed::of("a", image)).await;
    assert_eq!(played.verdicts(), "s0 skipped: no printer");
    let said = played.events.iter().filter(|event| matches!(event, EventKind::RunnerProgress { .. })).count();
    assert_eq!(said, 100);
}
