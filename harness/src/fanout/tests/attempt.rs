//! Every way an attempt can go, with a guest that is none, in milliseconds: time passes as soon as everybody waits.

use std::{sync::Arc, time::Duration};

use reports::{Ending, Phase, Trouble, TroubleKind};

use super::{
    fake::{
        Does::{self, *},
        FakeTemplate,
    },
    stage::{Played, Stage},
};
use crate::{guest::Ended, payload::SuiteOutcome};

/// A suite with every step that has something to do.
const WHOLE: &str = "results = 'junit:/tmp/*.xml'\nartifacts = ['/var/log/x']";
const REBOOTS: &str = "reboot = true";

/// Each exchange of such a suite with a guest, and the phase it belongs to.
const EXCHANGES: [(&str, Phase); 10] = [
    ("open", Phase::Connect),
    ("boot-over", Phase::Boot),
    ("family", Phase::Prepare),
    ("upload", Phase::Prepare),
    ("survey", Phase::Prepare),
    ("install", Phase::Install),
    ("remove-results", Phase::Test),
    ("run", Phase::Test),
    ("results", Phase::Collect),
    ("artifacts", Phase::Collect),
];

const RED: &str = "<testsuite name='x'><testcase name='bad'><failure message='2 is not 3'/></testcase></testsuite>";

fn exits(code: i32) -> Does {
    Ends(SuiteOutcome::Exited(code), Duration::from_secs(1))
}

fn killed() -> Does {
    Ends(SuiteOutcome::Signal("TERM".to_owned()), Duration::from_secs(1))
}

fn ends() -> [Ended; 7] {
    [
        Ended::Panicked { words: Some("Fatal exception".to_owned()) },
        Ended::PoweredOff,
        Ended::Reset,
        Ended::Halted,
        Ended::HostDisk { full: true },
        Ended::HostDisk { full: false },
        Ended::QemuGone { how: "signal: 9".to_owned() },
    ]
}

/// It ended with what the table says of this end in this phase.
fn assert_row(ending: &Ending, ended: &Ended, phase: Phase, what: &str) {
    let trouble = ending.trouble().unwrap_or_else(|| panic!("{what}: {ending:?}"));
    let expected = Trouble::new(ended.kind(), phase, format!("{ended} in phase {phase}"));
    assert_eq!((trouble.kind, trouble.phase, &trouble.reason), (expected.kind, phase, &expected.reason), "{what}");
    assert_eq!((ending.verdict(), trouble.may_pass()), (expected.verdict(), expected.may_pass()), "{what}");
}

#[tokio::test(start_paused = true)]
async fn a_cell_goes_through_its_steps_on_a_fork_or_on_a_guest_that_boots() {
    let played = Stage::forked(WHOLE).play().await;
    assert_eq!(played.told(), "passed");
    assert_eq!(played.phases(), "runner connect prepare install test test collect");
    assert_eq!(
        (played.cases(), played.warnings()),
        ("good passed".to_owned(), "the guest did not say what system it is".to_owned())
    );
    assert_eq!(played.count("killed"), 1);
    let played = Stage::booted("install = false").play().await;
    assert_eq!(
        (played.told(), played.phases()),
        ("passed".to_owned(), "runner boot connect boot prepare test".to_owned())
    );
    assert_eq!(played.cases(), "s passed");
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_ends_in_a_step_ends_its_attempt_as_the_table_says() {
    for (exchange, phase) in EXCHANGES {
        for ended in ends() {
            // Noticed by itself, or because the session is lost first.
            for does in [Dies(ended.clone()), Loses(Some((ended.clone(), Duration::from_secs(1))))] {
                // A boot survives some reboots.
                if matches!(exchange, "open" | "boot-over") && ended == Ended::Reset {
                    continue;
                }
                let what = format!("{exchange}: {does:?}");
                let played = Stage::booted(WHOLE).with(exchange, [does]).play().await;
                assert_row(&played.ending, &ended, phase, &what);
                assert_eq!(played.phases().rsplit(' ').next(), Some(phase.name()), "{what}");
                assert_eq!(played.disk_full, ended == Ended::HostDisk { full: true }, "{what}");
                // A test that had begun is named where the package took its guest down, and not lost where it had ended well.
                let failed = matches!(played.ending.verdict(), reports::Verdict::Failed { phase: Phase::Test, .. });
                let cases = match exchange {
                    "run" if failed => format!("s failed: {ended} in phase test"),
                    "results" | "artifacts" => "s passed".to_owned(),
                    _ => String::new(),
                };
                assert_eq!(played.cases(), cases, "{what}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_red_while_the_host_has_no_room_for_an_nvme_disk_does_not_blame_the_package() {
    const NVME: &str = "guest = { disks = [{ size = '1GiB', interface = 'nvme' }] }";
    let full = Stage::booted(NVME).short().with("run", [exits(1)]).play().await;
    let trouble = full.ending.trouble().unwrap();
    assert_eq!((trouble.kind, trouble.phase), (TroubleKind::HostDiskFull, Phase::Test), "{trouble}");
    assert!(trouble.reason.contains("1MiB free below"), "{trouble}");
    assert!(full.disk_full);
    // What is green needed none; other disks stop their guest, and with room it is the package's.
    assert_eq!(Stage::booted(NVME).short().play().await.told(), "passed");
    for stage in [Stage::booted("").short(), Stage::booted(NVME)] {
        let played = stage.with("run", [exits(1)]).play().await;
        assert!(played.told().starts_with("failed(test)"), "{}", played.told());
    }
}

#[tokio::test(start_paused = true)]
async fn a_time_limit_of_any_exchange_is_an_error_that_says_which_one_to_raise() {
    for (exchange, phase) in EXCHANGES {
        let key = if phase == Phase::Test { "suite" } else { phase.name() };
        let played = Stage::booted(WHOLE).with(exchange, [TimesOut]).play().await;
        // Artifacts are evidence alone.
        if exchange == "artifacts" {
            assert_eq!(played.told(), "passed", "{:?}", played.events);
            continue;
        }
        let trouble = played.ending.trouble().unwrap();
        // Its server answers, so what is in the way of a session is not known.
        let kind = if exchange == "open" { TroubleKind::Unexpected } else { TroubleKind::Timeout };
        let expected = Trouble::new(kind, phase, "timeout while running a command");
        assert_eq!(
            (trouble.kind, trouble.phase, &trouble.reason),
            (expected.kind, phase, &expected.reason),
            "{exchange}"
        );
        assert_eq!(trouble.may_pass(), expected.may_pass(), "{exchange}");
        let help = (phase != Phase::Connect).then(|| format!("raise `timeout.{key}` if the guest is only slow"));
        assert_eq!(trouble.help, help, "{exchange}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_hangs_past_its_limit_is_ended_with_its_phase() {
    for (exchange, phase) in EXCHANGES {
        let played = Stage::booted(WHOLE).with(exchange, [Hangs]).play().await;
        let limit = match phase {
            Phase::Connect => 30,
            Phase::Boot => 120,
            Phase::Prepare => 50,
            Phase::Install => 40,
            Phase::Test if exchange == "run" => 30,
            Phase::Test => 50,
            _ => 20,
        } + 72;
        let trouble = played.ending.trouble().unwrap();
        assert_eq!(trouble.reason, format!("timeout: phase {phase} was not over within {limit} s"), "{exchange}");
        assert_eq!((trouble.kind, trouble.phase), (TroubleKind::Timeout, phase), "{exchange}");
        assert!(played.took < Duration::from_secs(limit + 20), "{exchange}: {:?}", played.took);
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_is_cancelled_in_every_step_and_its_guest_is_gone() {
    let exchanges = EXCHANGES.into_iter().chain([("served", Phase::Boot)]);
    for (exchange, phase) in exchanges {
        let played = Stage::booted(WHOLE).with(exchange, [IsCancelled]).play().await;
        assert_eq!(played.told(), format!("not-run never Interrupted: interrupted in phase {phase}"), "{exchange}");
        assert_eq!(played.count("killed"), 1, "{exchange}");
        assert!(played.took < Duration::from_secs(5), "{exchange}: {:?}", played.took);
    }
}

#[tokio::test(start_paused = true)]
async fn a_fork_whose_memory_is_wanted_is_tried_again_whatever_it_did() {
    for (exchange, phase) in EXCHANGES.into_iter().filter(|(exchange, _)| *exchange != "boot-over") {
        let played = Stage::forked(WHOLE).with(exchange, [IsReclaimed]).play().await;
        let reason =
            format!("out of memory: its fork was ended in phase {phase}, together forks took more than guests may");
        assert_eq!(played.told(), format!("error(runner) again MemoryReclaimed: {reason}"), "{exchange}");
    }
    let played = Stage::booted(WHOLE).with("run", [IsReclaimed]).play().await;
    assert!(played.told().contains("Timeout"), "a booted guest counts with all it has: {}", played.told());
}

#[tokio::test(start_paused = true)]
async fn a_lost_session_means_what_qemu_or_the_ssh_server_say_of_it() {
    let told = async |stage: Stage, does: Does| stage.with("run", [does]).play().await.told();
    let booted = || Stage::booted("");
    let lost = "the SSH connection was lost while running a command: end of file; in phase test";
    assert_eq!(
        told(booted(), Loses(None)).await,
        format!(
            "failed(test) never GuestUnreachable: {lost} the guest lost that session, and its SSH server takes new ones"
        )
    );
    assert_eq!(told(booted().mute(), Loses(None)).await, "error(boot) again Timeout: no SSH server answered in time");
    let mute = || booted().with("served", [Well, TimesOut, TimesOut]);
    assert_eq!(
        told(mute(), Loses(None)).await,
        format!("failed(test) never GuestUnreachable: {lost} the guest no longer answers, its machine still runs")
    );
    assert_eq!(
        told(mute().silent_qemu(), Loses(None)).await,
        "error(test) again QemuSilent: QEMU no longer answers in phase test"
    );
    let late = Loses(Some((Ended::PoweredOff, Duration::from_secs(9))));
    assert_eq!(
        told(mute(), late).await,
        "failed(test) never GuestPoweredOff: the guest powered itself off in phase test"
    );
}

#[tokio::test(start_paused = true)]
async fn a_broken_or_silent_connection_is_told_apart_from_a_lost_one() {
    let told = async |stage: Stage, does: Does| stage.with("run", [does]).play().await.told();
    let booted = || Stage::booted("");
    assert_eq!(
        told(booted(), Breaks).await,
        "error(test) again ConnectionBroken: the SSH connection can no longer be used, it broke while running a command: no SSH"
    );
    let frozen = "the guest no longer answers: it was silent for 60 s while running a command; in phase test";
    assert_eq!(
        told(booted(), Freezes).await,
        format!(
            "failed(test) never GuestUnreachable: {frozen} the guest lost that session, and its SSH server takes new ones"
        )
    );
    assert_eq!(
        told(booted().with("served", [Well, TimesOut, TimesOut]), Freezes).await,
        format!("failed(test) never GuestUnreachable: {frozen} the guest no longer answers, its machine still runs")
    );
}

#[tokio::test(start_paused = true)]
async fn a_fork_that_comes_to_nothing_is_booted_instead_and_its_template_given_up_if_it_is_to_blame() {
    for (does, given_up) in [(Fails, 0), (Breaks, 1), (Loses(None), 0)] {
        let played = Stage::forked("").with("fork", [does.clone()]).play().await;
        assert_eq!(played.told(), "passed", "{does:?}");
        assert_eq!(played.phases(), "runner runner boot connect boot prepare install test", "{does:?}");
        assert_eq!(played.count("template given up"), given_up, "{does:?}");
        let boot = played.events.iter().find_map(|event| match event {
            reports::EventKind::GuestStarted { guest, .. } => Some(guest.boot.clone()),
            _ => None,
        });
        assert_eq!(boot, Some(reports::Boot::Cold { reason: Some("no fork".to_owned()) }), "{does:?}");
    }
    let played = Stage::forked("").with("fork", [Fails]).with("boot", [Fails]).play().await;
    assert_eq!(played.told(), "error(runner) again Host: no disk");
}

#[tokio::test(start_paused = true)]
async fn three_forks_that_cannot_be_entered_give_their_template_up_and_what_nobody_tried_does_not_count() {
    let template = Arc::<FakeTemplate>::default();
    let mut given_up = Vec::new();
    for does in [IsCancelled, Breaks, IsReclaimed, Breaks, Dies(Ended::Halted)] {
        let played = Stage::forked("").of(&template).with("open", [does]).play().await;
        given_up.push(played.count("template given up"));
    }
    // A fork that gave its memory away was entered by nobody, too.
    assert_eq!(given_up, [0, 0, 0, 1, 1]);
    let template = Arc::<FakeTemplate>::default();
    Stage::forked("").of(&template).play().await;
    for _ in 0..4 {
        let played = Stage::forked("").of(&template).with("open", [Breaks]).play().await;
        assert_eq!(played.count("template given up"), 0, "others of it have worked");
    }
}

#[tokio::test(start_paused = true)]
async fn a_suite_that_may_reboot_is_run_again_until_it_ends_in_whatever_way_it_goes_down() {
    let reset = || Loses(Some((Ended::Reset, Duration::from_secs(50))));
    for stage in [Stage::forked(REBOOTS), Stage::booted(REBOOTS)] {
        // It waits for its end; its session is lost long before; it is killed, and then the guest goes down; it goes on to its own end.
        let runs = [Dies(Ended::Reset), reset(), killed(), exits(0), exits(143), exits(0)];
        let booted = usize::from(!stage.is_forked());
        // While it goes down its SSH server answers nobody.
        let served = std::iter::repeat_n(Well, booted + 1).chain([TimesOut]);
        let stage = stage.with("run", runs).with("served", served);
        // Asked after each run that may have been a reboot, and after each boot.
        let down = || [GoesDown(Ended::Reset), Well];
        let announced = [Well, Well].into_iter().chain([down(), down(), down()].into_iter().flatten());
        let played = stage.with("announced", announced).play().await;
        assert_eq!(played.told(), "passed", "{:?} {:?}", played.asked, played.events);
        let counted: Vec<_> =
            played.asked.iter().filter_map(|asked| asked.strip_prefix("NESTMATRIX_REBOOT=")).collect();
        assert_eq!(counted, ["0", "1", "2", "3", "4", "5"]);
        assert_eq!((played.cases(), played.count("boot-again"), played.count("upload")), ("s passed".to_owned(), 5, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_suite_that_reboots_too_often_or_may_not_has_failed() {
    let played = Stage::forked(REBOOTS).with("run", vec![Dies(Ended::Reset); 11]).play().await;
    let reason = "the suite rebooted its guest 11 times, at most 10 are allowed";
    assert_eq!(played.told(), format!("failed(test) never RebootLoop: {reason}"));
    assert_eq!((played.cases(), played.count("boot-again")), (format!("s failed: {reason}"), 10));
    let played = Stage::forked(REBOOTS).with("run", vec![Dies(Ended::Reset); 10]).play().await;
    assert_eq!(played.told(), "passed");
    let played = Stage::forked("").with("run", [Dies(Ended::Reset)]).play().await;
    assert_eq!(played.told(), "failed(test) never GuestRebooted: the guest rebooted itself in phase test");
    assert_eq!(played.count("boot-again"), 0);
    let played = Stage::forked(REBOOTS).with("run", [Dies(Ended::PoweredOff)]).play().await;
    assert!(played.told().starts_with("failed(test) never GuestPoweredOff"), "{}", played.told());
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_a_suite_tells_before_it_reboots_stands() {
    for code in [1, 134, 139, 255] {
        let stage = Stage::forked(REBOOTS).with("run", [exits(code)]).with("announced", [GoesDown(Ended::Reset)]);
        let played = stage.play().await;
        assert_eq!(played.told(), format!("failed(test) never TestFailed: the script exited with {code}"));
        assert_eq!((played.count("announced"), played.count("boot-again")), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_reboot_that_the_suite_did_not_announce_is_the_packages_failure_however_it_looks() {
    let reason = "the guest rebooted itself in phase test, and the suite had not announced it";
    let lost = Loses(Some((Ended::Reset, Duration::from_secs(5))));
    for run in [Dies(Ended::Reset), lost] {
        // While it goes down its SSH server answers nobody.
        let stage = Stage::forked(REBOOTS).with("run", [run.clone()]).with("announced", [Fails]);
        let served = if matches!(run, Dies(_)) { vec![] } else { vec![TimesOut] };
        let played = stage.with("served", served).play().await;
        assert_eq!(played.told(), format!("failed(test) never GuestRebooted: {reason}"));
        assert_eq!(played.cases(), format!("s failed: {reason}"));
    }
    // It goes down while it is asked.
    let stage = Stage::forked(REBOOTS).with("run", [exits(0)]).with("announced", [Dies(Ended::Reset), Fails]);
    assert_eq!(stage.play().await.told(), format!("failed(test) never GuestRebooted: {reason}"));
    // `reboot` does not wait: the script has ended well before its guest goes down.
    let stage = Stage::forked(REBOOTS).with("run", [exits(0)]).with("announced", [Fails, Fails]);
    let played = stage.with("boot-over", [GoesDown(Ended::Reset)]).play().await;
    assert_eq!(played.told(), format!("failed(test) never GuestRebooted: {reason}"));
}

#[tokio::test(start_paused = true)]
async fn an_announced_reboot_that_does_not_come_is_no_pass() {
    let stage = Stage::forked(REBOOTS)
        .with("run", [exits(0)])
        .with("announced", [Ends(SuiteOutcome::Exited(0), Duration::ZERO)]);
    let told = stage.play().await.told();
    assert_eq!(
        told,
        "error(reboot) never Timeout: timeout: the suite ended after it had announced a reboot (it wrote to NESTMATRIX_MARK), and its guest was still up 60 s later"
    );
}

#[tokio::test(start_paused = true)]
async fn the_time_limit_of_a_suite_is_for_all_its_runs_and_not_for_the_boots_between() {
    let goes = |seconds| Ends(SuiteOutcome::Exited(0), Duration::from_secs(seconds));
    let down = || [GoesDown(Ended::Reset), Well];
    let stage = |last| {
        let runs = [goes(10), goes(10), goes(last)];
        Stage::forked(REBOOTS).with("run", runs).with("announced", [down(), down()].into_iter().flatten())
    };
    assert_eq!(stage(9).play().await.told(), "passed");
    let told = stage(11).play().await.told();
    assert_eq!(told, "failed(test) never TestFailed: the script ran past its time limit of 30 s and was killed");
}

#[tokio::test(start_paused = true)]
async fn a_fork_that_reboots_moves_to_the_network_and_gets_its_own_identity_and_its_payload_back() {
    let stage = || Stage::forked("reboot = true\nidentity = 'unique'").with("run", [Dies(Ended::Reset)]);
    let played = stage().with("survives", [Fails]).play().await;
    assert_eq!(played.told(), "passed");
    let asked: Vec<_> = played.asked.iter().map(String::as_str).collect();
    let expected = [
        "fork",
        "pinned told",
        "open",
        "unique",
        "family",
        "upload",
        "survey",
        "install",
        "NESTMATRIX_REBOOT=0",
        "run",
        // Its firmware tells it the keys of its template again, and nothing else is trusted.
        "boot-again",
        "served",
        "pinned told",
        "open",
        "boot-over",
        "unique",
        "survives",
        "family",
        "upload",
        "survey",
        "announced",
        "NESTMATRIX_REBOOT=1",
        "run",
        "announced",
        "boot-over",
        "killed",
    ];
    assert_eq!(asked, expected);
    assert_eq!(
        played.phases(),
        "runner connect connect prepare install test reboot reboot reboot reboot reboot reboot test reboot reboot"
    );
    let played = stage().with("unique", [Well, Fails]).play().await;
    assert_eq!(played.told(), "error(reboot) never Unexpected: the guest could not be made unique: no room");
}

#[tokio::test(start_paused = true)]
async fn who_is_to_blame_for_a_guest_that_does_not_come_back_depends_on_what_was_in_it() {
    let before = "steps = ['prepare', 'reboot', 'install', 'run']";
    let after = "steps = ['prepare', 'install', 'reboot', 'run']";
    let told = async |suite, does: &[(&'static str, Does)]| {
        let stage = Stage::forked(suite).with("reboot", [Dies(Ended::Reset)]);
        does.iter().fold(stage, |stage, (what, does)| stage.with(what, [does.clone()])).play().await.told()
    };
    assert_eq!(told(before, &[]).await, "passed");
    assert_eq!(told(after, &[]).await, "passed");
    let mute = "no SSH server answered in time; in phase reboot the guest no longer answers, its machine still runs";
    assert_eq!(told(before, &[("served", TimesOut)]).await, format!("error(boot) again GuestUnreachable: {mute}"));
    assert_eq!(told(after, &[("served", TimesOut)]).await, format!("failed(reboot) never GuestUnreachable: {mute}"));
    let panics = [("served", Dies(Ended::Panicked { words: None }))];
    assert!(told(before, &panics).await.starts_with("error(boot) again GuestPanicked"));
    assert!(told(after, &panics).await.starts_with("failed(reboot) never GuestPanicked"));
    let gone = [("served", Dies(Ended::QemuGone { how: "signal: 9".to_owned() }))];
    assert!(told(after, &gone).await.starts_with("error(reboot) again QemuGone"));
    assert_eq!(
        told(after, &[("boot-again", Fails)]).await,
        "error(reboot) again QemuSilent: the guest cannot be rebooted: QEMU says no"
    );
    // The firmware and the kernel reset it over and over.
    let resets = vec![("served", Dies(Ended::Reset)); 4];
    let reason = "before its boot was over the guest rebooted itself 2 times, at most 1 are allowed";
    assert_eq!(told(before, &resets).await, format!("error(boot) never RebootLoop: {reason}"));
    assert_eq!(told(after, &resets).await, format!("failed(reboot) never RebootLoop: {reason}"));
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_does_not_reboot_when_it_is_told_to_is_an_error() {
    let suite = "steps = ['prepare', 'install', 'reboot', 'run']";
    let told = async |does| Stage::forked(suite).with("reboot", [does]).play().await.told();
    assert_eq!(
        told(Fails).await,
        "error(reboot) never Unexpected: the guest cannot be told to reboot: reboot: not found"
    );
    assert_eq!(
        told(Well).await,
        "error(reboot) never Timeout: timeout: the guest was about to go down, and did not within 60 s"
    );
    assert_eq!(told(Loses(Some((Ended::Reset, Duration::from_secs(40))))).await, "passed");
    assert!(told(Dies(Ended::PoweredOff)).await.starts_with("failed(reboot) never GuestPoweredOff"));
    assert_eq!(told(IsCancelled).await, "not-run never Interrupted: interrupted in phase reboot");
}

#[tokio::test(start_paused = true)]
async fn an_image_that_reboots_at_its_first_boot_is_waited_for_and_one_that_does_not_stop_is_an_error() {
    let played = Stage::booted("").with("boot-over", [GoesDown(Ended::Reset), Dies(Ended::Reset), Well]).play().await;
    assert_eq!(played.told(), "passed");
    assert_eq!(played.count("boot-again"), 2);
    assert!(played.warnings().contains("(2 of at most 3)"), "{}", played.warnings());
    let played = Stage::booted("").with("served", vec![Dies(Ended::Reset); 4]).play().await;
    let reason = "before its boot was over the guest rebooted itself 4 times, at most 3 are allowed";
    assert_eq!(played.told(), format!("error(boot) never RebootLoop: {reason}"));
}

#[tokio::test(start_paused = true)]
async fn a_red_test_stays_red_whatever_becomes_of_its_guest_and_a_green_one_is_nothing_without_its_results() {
    let stage = |code| Stage::forked(WHOLE).with("run", [exits(code)]);
    let gone = || Dies(Ended::Halted);
    let played = stage(1).with("results", [gone()]).play().await;
    assert_eq!(
        (played.told(), played.cases()),
        ("failed(test) never TestFailed: the script exited with 1".into(), "s failed: the script exited with 1".into())
    );
    assert!(
        played.warnings().contains("results and artifacts could not be fetched: the guest halted itself"),
        "{}",
        played.warnings()
    );
    let played = stage(0).with("results", [gone()]).play().await;
    assert_eq!(played.cases(), "s passed");
    assert!(played.told().starts_with("error(collect) never GuestHalted"), "{}", played.told());
    // The results tell of a failure, and then the guest is lost.
    let played = stage(0).with("results", [Finds(Some(RED))]).with("artifacts", [Loses(None)]).play().await;
    assert_eq!(
        (played.told(), played.cases()),
        ("failed(test) never TestFailed: 2 is not 3".into(), "bad failed: 2 is not 3".into())
    );
    let played = stage(0).with("results", [Finds(None)]).play().await;
    assert!(played.told().starts_with("failed(collect) never ResultsMissing"), "{}", played.told());
    let played = stage(0).with("results", [Fails]).play().await;
    assert!(played.told().starts_with("error(collect) never ResultsUnreadable"), "{}", played.told());
    let played = stage(0).with("remove-results", [Fails]).play().await;
    assert!(
        played.told().starts_with("error(test) never Unexpected: results from before the suite started"),
        "{}",
        played.told()
    );
    let played = Stage::forked("steps = ['prepare', 'run', 'reboot']")
        .with("run", [exits(1)])
        .with("reboot", [gone()])
        .play()
        .await;
    assert_eq!(
        (played.told(), played.cases()),
        ("failed(test) never TestFailed: the script exited with 1".into(), "s failed: the script exited with 1".into())
    );
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_sent_or_installed_is_told_in_its_phase() {
    let told = async |what, does| Stage::forked("").with(what, [does]).play().await.told();
    assert_eq!(
        told("upload", Fails).await,
        "error(prepare) never Unexpected: the guest could not unpack the payload: no room"
    );
    assert!(told("install", Fails).await.starts_with("error(install) never InstallUnknown"));
    assert!(
        told("family", Fails).await.starts_with("error(install) never InstallUnknown: the package cannot be installed")
    );
}

#[tokio::test(start_paused = true)]
async fn a_booted_guest_that_answers_nothing_after_the_time_limit_of_its_suite_is_not_asked_for_long() {
    let played = Stage::booted("").with("run", [Hangs]).with("served", [Well, TimesOut]).play().await;
    let reason = "the guest no longer answers in phase test, its machine still runs: no SSH server answered after the time limit of 30 s";
    assert_eq!(played.told(), format!("failed(test) never GuestUnreachable: {reason}"));
    // What a fork says comes over a port of its own.
    let played = Stage::forked("").with("run", [Hangs]).with("served", [TimesOut]).play().await;
    assert!(played.told().starts_with("error(test) never Timeout"), "{}", played.told());
    // Once it has rebooted it is reached like any other.
    let runs = [Dies(Ended::Reset), Hangs];
    let played = Stage::forked(REBOOTS).with("run", runs).with("served", [Well, TimesOut]).play().await;
    assert!(played.told().starts_with("failed(test) never GuestUnreachable"), "{}", played.told());
}

#[tokio::test(start_paused = true)]
async fn what_a_package_lacks_is_got_from_repositories_before_it_is_installed_again() {
    let exchanges = |played: &Played| {
        let of = ["add-repository", "repositories", "install", "get-dependencies", "run"];
        played.asked.iter().filter(|asked| of.contains(&&***asked)).cloned().collect::<Vec<_>>().join(" ")
    };
    let played = Stage::forked("").reaching().play().await;
    assert_eq!((&*played.told(), &*exchanges(&played)), ("passed", "install run"), "nothing is missing");
    let played = Stage::forked("").reaching().with("install", [Lacks]).play().await;
    let asked = "install repositories get-dependencies install run";
    assert_eq!((&*played.told(), &*exchanges(&played)), ("passed", asked));
    assert_eq!(played.phases(), "runner connect prepare install test");
    let played = Stage::forked("").reaching().with("install", [Lacks, Fails]).play().await;
    assert!(played.told().starts_with("error(install) never InstallUnknown"), "{}", played.told());
    // Neither do they have it.
    let missing = "failed(install) never NotInstalled: p : Depends: q but it is not installable";
    let played = Stage::forked("").reaching().with("install", [Lacks]).with("get-dependencies", [Lacks]).play().await;
    assert_eq!((&*played.told(), played.count("install")), (missing, 1));
    let played = Stage::forked("dependencies = 'artifacts'").reaching().with("install", [Lacks]).play().await;
    assert_eq!((&*played.told(), played.count("get-dependencies")), (missing, 0));
    // They are not the package's.
    let played = Stage::forked("").reaching().with("install", [Lacks]).with("get-dependencies", [Fails]).play().await;
    let unusable = "the guest's repositories cannot be used: E: the list has expired";
    assert_eq!(played.told(), format!("error(install) never RepositoryFailed: {unusable}"));
}

#[tokio::test(start_paused = true)]
async fn artifacts_are_served_before_they_are_installed_by_name_and_if_they_cannot_be_it_is_an_error() {
    const BY_NAME: &str = "install = 'repository'";
    let exchanges = |played: &Played| {
        let of = ["serve", "install", "get-dependencies"];
        played.asked.iter().filter(|asked| of.contains(&&***asked)).cloned().collect::<Vec<_>>().join(" ")
    };
    let played = Stage::forked(BY_NAME).reaching().with("install", [Lacks]).play().await;
    assert_eq!((&*played.told(), &*exchanges(&played)), ("passed", "serve install get-dependencies install"));
    let played = Stage::booted("").play().await;
    assert_eq!((&*played.told(), played.count("serve")), ("passed", 0));
    let played = Stage::forked(BY_NAME).with("serve", [Fails]).play().await;
    let reason = "the artifacts cannot be installed from a repository of their own: E: no room";
    assert_eq!(played.told(), format!("error(install) never RepositoryFailed: {reason}"));
    assert_eq!(played.count("install"), 0);
}
