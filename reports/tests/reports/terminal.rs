//! The terminal output during and after a run.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use matrix::Plan;
use reports::{
    Boot, CaseVerdict, Event, EventKind, Phase, Run, Terminal, TerminalStyle, Trouble, TroubleKind, Verdict,
};

use crate::fixture::{self, Story};

#[derive(Clone, Default)]
pub(crate) struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    pub(crate) fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        String::from_utf8(bytes).expect("UTF-8")
    }
}

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The plain output for these events.
pub(crate) fn shown(plan: &Plan, events: &[Event], run_dir: &Path) -> String {
    let sink = Sink::default();
    let style = TerminalStyle { live: false, color: false, width: 100 };
    let mut terminal = Terminal::plain(plan, style, sink.clone()).quoting_logs(run_dir);
    events.iter().for_each(|event| terminal.event(event));
    terminal.finish(&Run::fold(plan, events), Path::new("runs/latest"));
    sink.text()
}

#[test]
fn what_qemu_itself_says_of_an_accelerator_is_for_those_who_ask() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let plan = fixture::write(dir.path());
    let mut events = fixture::story(&plan).events;
    for event in &mut events {
        if let EventKind::RunnerReady { runner } = &mut event.kind {
            runner.accelerator_reason =
                "KVM is unusable here: QEMU ends at once: signal: 6; kvm.c:3849: assertion".into();
        }
    }
    let shown = shown(&plan, &events, dir.path());
    assert!(
        shown.contains("KVM is unusable here: QEMU ends at once: signal: 6; details: `nestmatrix doctor`\n"),
        "{shown}"
    );
}

#[test]
fn a_run_that_keeps_to_a_lock_says_so_and_so_does_the_command_that_tries_it_again() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let plan = fixture::write(dir.path());
    let mut events = fixture::story(&plan).events;
    let is_said = |events: &[Event]| {
        let shown = shown(&plan, events, dir.path());
        let title = shown.contains("NOT GREEN hello 2.12 with the packages of repositories.lock (");
        let again = shown.contains("again    nestmatrix run hello.toml --runner qemu --locked --cell");
        (title, again)
    };
    assert_eq!(is_said(&events), (false, false));
    for event in &mut events {
        if let EventKind::RunStarted { locked, .. } = &mut event.kind {
            *locked = Some(matrix::Digest::of(b"pins"));
        }
    }
    assert_eq!(is_said(&events), (true, true));
}

#[test]
fn a_run_reads_as_plain_lines_in_a_ci_log() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let plan = fixture::write(dir.path());
    insta::assert_snapshot!(shown(&plan, &fixture::story(&plan).events, dir.path()), @"
    nestmatrix 0.1.0: hello 2.12, 8 cells on 4 images
       IMAGE  debian-11-minimal: from the store, 0.3s  b8720b7fd445
       IMAGE  debian-12-minimal: from the store, 0.4s  742e192ef6eb
       IMAGE  debian-13-minimal: built, 41.2s  f212df2e4f45
       IMAGE  debian-sid-minimal: unpacking 112 packages
       IMAGE  debian-sid-minimal: built, 9.0s  34b36454cab2
      runner  qemu: the matrix asks for a virtual machine of its own
              booting debian-13-runner under tcg
              uploading nestmatrix
              proving that guests run on it
      l1      image debian-13-runner, 1 CPU, 4.0 GiB, tcg (emulated SVM), QEMU 10.0.2; ready after 24.7s: boot 14.5s, upload 1.2s, proof 9.0s
      guests  kvm: a guest under it came up in 3.1s
              QEMU 10.0.2 in the L1, 1 CPU and 3.0 GiB for all guests; time limits are 4.5 times longer: this machine is slower than the reference
              nesting depth 2: guests in the L1, the L1 on bare metal
       START  debian-11-minimal.smoke
        FAIL  debian-11-minimal.smoke       25.8s  install: hello 2.12 does not install: dpkg exited with 1
              install.log:
              | Selecting previously unselected package hello.
              | (Reading database ... 9241 files and directories currently installed.)
              | Preparing to unpack .../hello_2.12-1_amd64.deb ...
              | Unpacking hello (2.12-1) ...
              | dpkg: dependency problems prevent configuration of hello:
              |  hello depends on libc6 (>= 2.34); however:
              |   Version of libc6:amd64 on system is 2.31-13+deb11u13.
              |
              | dpkg: error processing package hello (--install):
              |  dependency problems - leaving unconfigured
              | Errors were encountered while processing:
              |  hello
              help: install.log has every word of it; the package asks for more than this system has
       START  debian-11-minimal.service
        FAIL  debian-11-minimal.service     25.8s  install: hello 2.12 does not install: dpkg exited with 1
              install.log:
              | Selecting previously unselected package hello.
              | (Reading database ... 9241 files and directories currently installed.)
              | Preparing to unpack .../hello_2.12-1_amd64.deb ...
              | Unpacking hello (2.12-1) ...
              | dpkg: dependency problems prevent configuration of hello:
              |  hello depends on libc6 (>= 2.34); however:
              |   Version of libc6:amd64 on system is 2.31-13+deb11u13.
              |
              | dpkg: error processing package hello (--install):
              |  dependency problems - leaving unconfigured
              | Errors were encountered while processing:
              |  hello
              help: install.log has every word of it; the package asks for more than this system has
    TEMPLATE  debian-12-minimal: checking for a template, creating one if missing
    TEMPLATE  debian-12-minimal: frozen, 24.6s, a fork takes 61.0 MiB  e3378bc6e2be
       START  debian-12-minimal.smoke
        PASS  debian-12-minimal.smoke       28.0s
       START  debian-12-minimal.service
        FAIL  debian-12-minimal.service     27.7s  test: service: exit code 3
              service:
              | $ systemctl is-active hello
              | failed
              | hello.service: Failed with result 'exit-code'.
    TEMPLATE  debian-13-minimal: checking for a template, creating one if missing
        WARN  no template of `debian-13-minimal` to fork guests from: the guest did not answer over SSH in 1m 00s (after 1m 00s)
              help: raise timeout.boot in the matrix file
       START  debian-13-minimal.smoke
        PASS  debian-13-minimal.smoke       27.7s
       START  debian-13-minimal.service
        LOST  runner 1 (qemu): it no longer answers: no heartbeat for 30s
              | [  131.402] Out of memory: Killed process 812 (qemu-system-x86)
              | [  131.911] EXT4-fs error
              help: give it more memory: runner.memory in the matrix file
       RETRY  debian-13-minimal.service   attempt 1: error in runner: runner 1 was lost; tried again on a fresh guest
      runner  qemu (number 2): the matrix asks for a virtual machine of its own
              booting debian-13-runner under tcg
              uploading nestmatrix
              proving that guests run on it
      l1      image debian-13-runner, 1 CPU, 4.0 GiB, tcg (emulated SVM), QEMU 10.0.2; ready after 24.7s: boot 14.5s, upload 1.2s, proof 9.0s
      guests  kvm: a guest under it came up in 3.1s
              QEMU 10.0.2 in the L1, 1 CPU and 3.0 GiB for all guests; time limits are 4.5 times longer: this machine is slower than the reference
              nesting depth 2: guests in the L1, the L1 on bare metal
       START  debian-13-minimal.service  attempt 2
       ERROR  debian-13-minimal.service     50.7s  attempt 2  boot: the guest's kernel panicked
              console:
              | [    1.902] VFS: Unable to mount root fs on unknown-block(0,0)
              | [    1.903] Kernel panic - not syncing: VFS
              help: boot it by hand: nestmatrix shell debian-13-minimal.service
       START  debian-sid-minimal.smoke
        SKIP  debian-sid-minimal.smoke       0.1s  sid is only tried at night
        WARN  little disk space left: 1.2 GiB
     NOT RUN  debian-sid-minimal.service           the run's time was up

      NOT GREEN hello 2.12 in 5m 46s
      cells    8: 2 passed, 3 failed, 1 error, 1 not-run, 1 skipped
      tests    10: 3 passed, 3 failed, 1 error, 1 not-run, 2 skipped
      guests   2 forked, 4 cold, 1 cold (no template of debian-13-minimal: the guest did not answer over SSH in 1m 00s)
      network  3 files (3.0 MiB) fetched, 2 of them from the cache; refused: telemetry.example.com:443 (2 attempts in 1 cell)
      warning  little disk space left: 1.2 GiB
      time     boot 81% (2m 11s), install 9% (13.8s), connect 7% (11.4s), test 2% (3.0s), prepare 1% (1.8s)
      slowest  debian-13-minimal.service 50.7s, debian-12-minimal.smoke 28.0s, debian-12-minimal.service 27.7s
               debian-11-minimal.smoke failed in install: hello 2.12 does not install: dpkg exited with 1
               debian-11-minimal.service failed in install: hello 2.12 does not install: dpkg exited with 1
               debian-12-minimal.service failed in test: service: exit code 3
               debian-13-minimal.service error in boot: the guest's kernel panicked
               debian-sid-minimal.service not-run: the run's time was up
      report   runs/latest/report.html
      junit    runs/latest/junit.xml
      again    nestmatrix run hello.toml --runner qemu --cell debian-11-minimal.smoke --cell debian-11-minimal.service --cell debian-12-minimal.service --cell debian-13-minimal.service --cell debian-sid-minimal.service
      exit     1: does not install on 1 of 4 systems; tests fail on 1 of 4 systems
    ");
}

#[test]
fn an_interrupted_run_counts_what_never_ran_instead_of_listing_it() {
    let plan = fixture::plan();
    let mut story = Story::new();
    story.start(&plan);
    story.pass(&plan.cells[0].id);
    story.emit(EventKind::RunInterrupted { signal: "SIGINT".to_owned() });
    for cell in &plan.cells[1..] {
        story.end(&cell.id, Verdict::NotRun { reason: "interrupted".to_owned() });
    }
    story.finish();
    let text = shown(&plan, &story.events, Path::new("/nowhere"));
    assert!(!text.contains("NOT RUN"), "{text}");
    assert!(text.contains("cells    8: 1 passed, 7 not-run"), "{text}");
    assert!(text.contains("exit     130: interrupted"), "{text}");
}

#[test]
fn nothing_a_guest_prints_reaches_the_terminal_as_a_control_character() {
    let evil = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\r\u{8}\0\u{202e}evil\nsecond";
    let plan = fixture::plan();
    let cell = &plan.cells[0].id;
    let mut story = Story::new();
    story.start(&plan);
    let image = "debian-11-minimal".to_owned();
    story.emit(EventKind::ImageProgress { image: image.clone(), message: evil.to_owned() });
    story.emit(EventKind::ImageFailed {
        image,
        trouble: Trouble::new(TroubleKind::ImageMissing, Phase::Image, evil).with_evidence(vec![evil.to_owned()]),
    });
    story.emit(EventKind::Warning { cell: Some(cell.clone()), message: evil.to_owned() });
    story.boot(cell, 1);
    story.case(cell, 1, evil, CaseVerdict::Failed { message: evil.to_owned(), detail: evil.to_owned() }, 1);
    story.emit(EventKind::GuestKept { cell: cell.clone(), attempt: 1, ssh: evil.to_owned(), stop: evil.to_owned() });
    let verdict = Verdict::Failed { phase: Phase::Test, reason: evil.to_owned() };
    story.end_attempt(cell, &verdict, &[evil], Some(evil));
    story.end(cell, verdict);
    story.emit(EventKind::RunInterrupted { signal: evil.to_owned() });
    let text = shown(&plan, &story.events, Path::new("/nowhere"));
    assert!(text.contains("evil"));
    let bad: Vec<char> = text.chars().filter(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}').collect();
    assert!(bad.is_empty(), "{text:?}");
}

#[test]
fn colour_is_only_used_when_it_is_wanted() {
    let plan = fixture::plan();
    let sink = Sink::default();
    let style = TerminalStyle { live: false, color: true, width: 100 };
    let mut terminal = Terminal::plain(&plan, style, sink.clone());
    fixture::story(&plan).events.iter().for_each(|event| terminal.event(event));
    assert!(sink.text().contains("\u{1b}[1;32mPASS\u{1b}[0m"));
    assert!(sink.text().contains("\u{1b}[1;31mLOST\u{1b}[0m"));
}

#[test]
fn whoever_interrupts_a_run_is_told_what_becomes_of_what_runs() {
    let plan = fixture::plan();
    let mut story = Story::new();
    story.start(&plan);
    for _ in 0..3 {
        story.emit(EventKind::RunInterrupted { signal: "SIGINT".to_owned() });
    }
    assert_eq!(Run::fold(&plan, &story.events).interrupted.as_deref(), Some("SIGINT, then SIGINT"));
    let text = shown(&plan, &story.events, Path::new("nowhere"));
    let told: Vec<_> = text.lines().filter(|line| line.contains("interrupted by")).map(str::trim_start).collect();
    let first =
        "STOP  interrupted by SIGINT: no new cells start, running cells finish; interrupt again to end them now";
    let again = "STOP  interrupted by SIGINT: running cells are ended";
    assert_eq!(told, [first, again, again]);
}

#[test]
fn what_retries_bad_cells_retries_them_where_they_were_bad_and_booted_if_that_was_asked_for() {
    let mut plan = fixture::plan();
    plan.runner.host = Some("me@lab:22".parse().unwrap());
    let mut story = fixture::story(&plan);
    let again = |story: &Story| {
        let text = shown(&plan, &story.events, Path::new("nowhere"));
        text.lines().find(|line| line.trim_start().starts_with("again ")).unwrap().to_owned()
    };
    let line = again(&story);
    assert!(line.contains("--runner ssh:me@lab:22 --cell"), "{line}");
    for event in &mut story.events {
        if let EventKind::GuestStarted { guest, .. } = &mut event.kind {
            guest.boot = Boot::Cold { reason: Some("--cold".to_owned()) };
        }
    }
    let line = again(&story);
    assert!(line.contains("--runner ssh:me@lab:22 --cold --cell"), "{line}");
}
