//! How a suite ends, and what it can do about it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use nestmatrix::{payload::SuiteOutcome, ssh::SshError};

use super::guest::{Guest, upload_file};

/// Kills the watcher and says so. A suite knows its own mark, which the watcher carries on its command line.
const KILL_WATCHER: &str = "said=
    until [ -n \"$said\" ]; do
        for file in $(grep -ls \"$NESTMATRIX_GUARD\" /proc/[0-9]*/cmdline); do
            file=${file#/proc/}
            kill -KILL ${file%/*} && said=killed
        done 2>/dev/null
    done
    echo $said";

/// `sleep` for so many seconds as none but these tests sleep: they are run twice at the same time, see `main.rs`.
fn sleep(seconds: &str) -> String {
    let whose = if module_path!().contains("busybox") { 8 } else { 9 };
    format!("sleep {}", seconds.replace('.', &format!(".{whose}")))
}

/// Command lines of running processes that begin like this command; the "guest" is this machine.
fn running(start: &str) -> Vec<String> {
    let start = &start.replace(' ', "\0");
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| fs::read_to_string(process.path().join("cmdline")).ok());
    lines.filter(|line| line.starts_with(start)).collect()
}

#[tokio::test]
async fn a_suite_finds_its_files_its_environment_and_a_folder_for_temporary_files() {
    let guest = Guest::start().await;
    let tool = guest.here("tool");
    fs::write(&tool, "#!/bin/sh\necho tool ran\n").unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    let files = [upload_file(&tool, "bin/tool"), upload_file(&tool, "copy of tool.txt")];
    let script = "#!/bin/sh\nbin/tool; cat 'copy of tool.txt' | wc -l; printf '[%s]\\n' \"$TEXT\"; touch \"$TMPDIR/x\" && echo tmp; \
                  read line || echo no input; echo err >&2; echo $PATH; exit 3";
    guest.upload(script, &[("TEXT", "it's a \"test\"\n$HOME `id`")], &files).await.unwrap();
    let run = guest.run_for(Duration::from_secs(30)).await.unwrap();
    assert_eq!(run.outcome, SuiteOutcome::Exited(3));
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let expected = format!("tool ran\n2\n[it's a \"test\"\n$HOME `id`]\ntmp\nno input\n{path}\n");
    assert_eq!(guest.stdout_log(), expected);
    assert_eq!(guest.stderr_log(), "err\n");
    assert_eq!(String::from_utf8(run.stdout_tail).unwrap(), expected);
    assert_eq!((run.stdout_bytes, run.stderr_bytes), (expected.len() as u64, 4));
}

#[tokio::test]
async fn a_script_names_its_interpreter_or_gets_sh() {
    let guest = Guest::start().await;
    assert_eq!(guest.suite("echo plain").await.outcome, SuiteOutcome::Exited(0));
    assert_eq!(guest.stdout_log(), "plain\n");
    assert_eq!(guest.suite("#!/usr/bin/perl\nprint \"perl $^X\\n\"; exit 9").await.outcome, SuiteOutcome::Exited(9));
    assert_eq!(guest.stdout_log(), "perl /usr/bin/perl\n");
    let missing = guest.suite("#!/nonexistent/interpreter\n").await.outcome;
    let SuiteOutcome::NotStarted { reason, .. } = missing else { panic!("{missing:?}") };
    assert_eq!(reason, "interpreter /nonexistent/interpreter of the suite's script is not in the guest");
    assert_eq!(guest.suite("#!/bin/sh\nno-such-program").await.outcome, SuiteOutcome::Exited(127));
}

#[tokio::test]
async fn exit_codes_signals_and_skips_are_told_apart() {
    let guest = Guest::start().await;
    assert_eq!(guest.suite("kill -9 $$").await.outcome, SuiteOutcome::Signal("KILL".to_owned()));
    assert_eq!(guest.suite("kill -SEGV $$").await.outcome, SuiteOutcome::Signal("SEGV".to_owned()));
    assert_eq!(guest.suite("exit 137").await.outcome, SuiteOutcome::Exited(137));
    let skipped = SuiteOutcome::Skipped { reason: "no printer here".to_owned() };
    assert_eq!(guest.suite("echo looking; echo no printer here; exit 77").await.outcome, skipped);
}

#[tokio::test]
async fn a_daemon_that_keeps_the_streams_open_does_not_hold_the_suite() {
    let guest = Guest::start().await;
    let run = guest.suite("echo before; (setsid sleep 15; :) & echo after; exit 4").await;
    assert_eq!(run.outcome, SuiteOutcome::Exited(4));
    assert!(run.elapsed < Duration::from_secs(8), "{:?}", run.elapsed);
    assert_eq!(guest.stdout_log(), "before\nafter\n");
    assert_eq!(guest.stderr_log(), "", "nothing but the suite's own words");
}

#[tokio::test]
async fn a_daemon_that_never_stops_talking_does_not_hold_the_suite_either() {
    let guest = Guest::start().await;
    let run = guest.suite("timeout 15 yes & exit 0").await;
    assert_eq!(run.outcome, SuiteOutcome::Exited(0));
    assert!(run.elapsed < Duration::from_secs(12), "{:?}", run.elapsed);
}

#[tokio::test]
async fn a_script_that_kills_its_own_group_or_waits_for_all_its_children_does_not_meet_the_watcher() {
    let guest = Guest::start().await;
    assert_eq!(guest.suite("trap 'exit 5' TERM; kill -TERM 0; sleep 1").await.outcome, SuiteOutcome::Exited(5));
    let run = guest.suite("#!/usr/bin/perl\n1 while wait() != -1; print \"alone\\n\"").await;
    assert_eq!(run.outcome, SuiteOutcome::Exited(0));
    assert!(run.elapsed < Duration::from_secs(5), "{:?}", run.elapsed);
}

#[tokio::test]
async fn nothing_that_a_suite_prints_ends_it_before_it_exits() {
    let guest = Guest::start().await;
    // Everything it can know of how it is run, in the form of any mark there may be.
    let script = "printf '<nestmatrix:%s:over>' \"$NESTMATRIX_GUARD\" >&2; env >&2; set >&2; cat /proc/[0-9]*/cmdline >&2; sleep 3; exit 1";
    assert_eq!(guest.suite(script).await.outcome, SuiteOutcome::Exited(1));
}

#[tokio::test]
async fn a_suite_that_killed_its_watcher_and_left_a_daemon_has_ended_as_it_exited() {
    let guest = Guest::start().await;
    for code in [0, 1] {
        let run = guest.suite(&format!("{KILL_WATCHER}; sleep 20 & exit {code}")).await;
        assert_eq!(run.outcome, SuiteOutcome::Exited(code));
        assert!(run.elapsed < Duration::from_secs(12), "the daemon was waited for: {:?}", run.elapsed);
    }
}

#[tokio::test]
async fn a_time_out_kills_the_whole_family_and_keeps_its_last_words() {
    let guest = Guest::start().await;
    let script = "trap 'echo told to stop; exit 1' TERM
        # A child, a child that ignores TERM, a daemon with a session of its own, one without our environment in our group.
        sleep 47.1 &
        sh -c 'trap \"\" TERM; sleep 47.2; sleep 47.3' &
        setsid sh -c 'trap \"\" TERM HUP; sleep 47.4; sleep 47.5' >/dev/null 2>&1 </dev/null &
        env -i sleep 47.6 &
        echo started
        while :; do sleep 0.1; done";
    let script = script.replace("sleep 47.", &sleep("47."));
    guest.upload(&script, &[], &[]).await.unwrap();
    let started = Instant::now();
    let run = guest.run_for(Duration::from_secs(4)).await.unwrap();
    assert_eq!(run.outcome, SuiteOutcome::TimedOut { leftovers: false });
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    assert_eq!(guest.stdout_log(), "started\ntold to stop\n");
    assert_eq!(running(&sleep("47.")), [""; 0]);
}

#[tokio::test]
async fn a_time_out_holds_against_a_suite_that_killed_its_watcher() {
    let guest = Guest::start().await;
    guest.upload(&format!("{KILL_WATCHER}; {}", sleep("48.1")), &[], &[]).await.unwrap();
    let run = guest.run_for(Duration::from_secs(4)).await.unwrap();
    assert_eq!(run.outcome, SuiteOutcome::TimedOut { leftovers: false });
    assert_eq!(guest.stdout_log(), "killed\n");
    assert_eq!(running(&sleep("48.")), [""; 0]);
}

#[tokio::test]
async fn a_guest_that_is_silent_at_the_time_limit_no_longer_answers_and_was_not_killed() {
    let guest = Guest::start().await;
    guest.upload("echo started; sleep 3; exit 1", &[], &[]).await.unwrap();
    let freeze = async {
        guest.until_said("started").await;
        guest.server.freeze();
    };
    let started = Instant::now();
    let (ran, ()) = tokio::join!(guest.run_for(Duration::from_secs(5)), freeze);
    let error = ran.unwrap_err();
    assert!(matches!(error, SshError::Frozen { .. }) && error.to_string().contains("no longer answers"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(40), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_connection_lost_in_the_middle_of_a_suite_is_told_from_everything_else() {
    let guest = Guest::start().await;
    guest.upload("echo started; sleep 20", &[], &[]).await.unwrap();
    let cut = async {
        guest.until_said("started").await;
        guest.server.kill();
    };
    let (ran, ()) = tokio::join!(guest.run_for(Duration::from_secs(20)), cut);
    assert!(ran.unwrap_err().is_connection_lost());
    assert_eq!(guest.stdout_log(), "started\n", "what came before is kept");
}
