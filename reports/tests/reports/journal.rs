//! The journal is the truth: what survives a crash, and what is refused.

use std::fs;

use reports::{Event, EventKind, Journal, JournalErrorKind, JsonLines, journal};

use crate::fixture;

fn written() -> (tempfile::TempDir, Vec<Event>) {
    let dir = tempfile::tempdir().expect("temporary folder");
    let events = fixture::story(&fixture::plan()).events;
    let mut journal = Journal::create(dir.path()).expect("a new journal");
    events.iter().for_each(|event| journal.append(event).expect("writable"));
    (dir, events)
}

#[test]
fn every_kind_of_event_is_read_back_as_it_was_written() {
    let (dir, events) = written();
    assert_eq!(journal::read(dir.path()).expect("readable"), events);
}

#[test]
fn an_event_is_one_line_of_snake_case_json() {
    let plan = fixture::plan();
    let events = fixture::story(&plan).events;
    let finished = events.iter().find(|event| matches!(event.kind, EventKind::AttemptFinished { .. })).expect("one");
    let ready = events.iter().find(|event| matches!(event.kind, EventKind::ImageReady { .. })).expect("one");
    let mut out = Vec::new();
    let mut lines = JsonLines::new(&mut out);
    lines.event(finished).expect("writable");
    lines.event(ready).expect("writable");
    insta::assert_snapshot!(String::from_utf8(out).expect("UTF-8"), @r#"
    {"at":"2026-11-22T10:31:41.4Z","event":"attempt-finished","cell":"debian-11-minimal.smoke","attempt":1,"verdict":"failed","phase":"install","reason":"hello 2.12 does not install: dpkg exited with 1","retried":false,"console_tail":[],"help":"install.log has every word of it; the package asks for more than this system has"}
    {"at":"2026-11-22T10:30:00.3Z","event":"image-ready","image":"debian-11-minimal","digest":"sha256:b8720b7fd44531a8811a9a34a17c79993179ede5a68c8bd6bef608da5f0f9dd4","cached":true,"elapsed_ms":300}
    "#);
}

#[test]
fn a_torn_last_line_is_left_out() {
    let (dir, events) = written();
    let path = dir.path().join(journal::FILE_NAME);
    let whole = fs::read(&path).expect("readable");
    let last_line = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').expect("many lines") + 1;
    for cut in [last_line + 1, last_line + 20, whole.len() - 2] {
        fs::write(&path, &whole[..cut]).expect("writable");
        assert_eq!(journal::read(dir.path()).expect("readable"), events[..events.len() - 1], "cut at {cut}");
    }
    // Whole but for its line end: nothing is lost.
    fs::write(&path, &whole[..whole.len() - 1]).expect("writable");
    assert_eq!(journal::read(dir.path()).expect("readable"), events);
}

#[test]
fn a_bad_line_in_the_middle_is_named() {
    let (dir, _) = written();
    let path = dir.path().join(journal::FILE_NAME);
    let text = fs::read_to_string(&path).expect("readable");
    fs::write(&path, text.replacen("\"phase-started\"", "\"phase-st", 1)).expect("writable");
    let line = text.lines().position(|line| line.contains("\"phase-started\"")).expect("one") + 1;
    let error = journal::read(dir.path()).expect_err("a bad line");
    let source = std::error::Error::source(&error).expect("a cause").to_string();
    assert!(source.contains(&format!("events.jsonl:{line}: not an event")), "{source}");
}

#[test]
fn a_journal_is_never_overwritten() {
    let (dir, _) = written();
    assert!(Journal::create(dir.path()).is_err());
}

#[test]
fn a_complete_journal_is_continued_after_its_last_event() {
    let (dir, mut events) = written();
    let path = dir.path().join(journal::FILE_NAME);
    let whole = fs::read(&path).expect("readable");
    let mut journal = Journal::resume(dir.path()).expect("nobody writes it");
    assert_eq!(fs::read(&path).expect("readable"), whole);
    events.push(resumed());
    journal.append(&events[events.len() - 1]).expect("writable");
    assert!(fs::read(&path).expect("readable").starts_with(&whole));
    assert_eq!(journal::read(dir.path()).expect("readable"), events);
}

#[test]
fn a_torn_last_line_is_cut_off_before_the_journal_is_continued() {
    let (dir, events) = written();
    let path = dir.path().join(journal::FILE_NAME);
    let whole = fs::read(&path).expect("readable");
    let last_line = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').expect("many lines") + 1;
    let kept = &events[..events.len() - 1];
    // What was written of it, and blocks that the file system had set aside but not yet filled.
    for torn in [&whole[last_line..=last_line], &whole[last_line..whole.len() - 2], &[0; 600], &[0, b'\n']] {
        fs::write(&path, [&whole[..last_line], torn].concat()).expect("writable");
        let mut journal = Journal::resume(dir.path()).expect("nobody writes it");
        assert_eq!(fs::read(&path).expect("readable"), &whole[..last_line]);
        journal.append(&resumed()).expect("writable");
        assert_eq!(journal::read(dir.path()).expect("readable"), [kept, &[resumed()]].concat());
    }
}

#[test]
fn a_last_event_that_lacks_only_its_line_end_is_kept() {
    let (dir, mut events) = written();
    let path = dir.path().join(journal::FILE_NAME);
    let whole = fs::read(&path).expect("readable");
    fs::write(&path, &whole[..whole.len() - 1]).expect("writable");
    let mut journal = Journal::resume(dir.path()).expect("nobody writes it");
    assert_eq!(fs::read(&path).expect("readable"), whole);
    events.push(resumed());
    journal.append(&events[events.len() - 1]).expect("writable");
    assert_eq!(journal::read(dir.path()).expect("readable"), events);
}

#[test]
fn a_journal_that_is_being_written_is_not_continued_but_can_be_read() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let mut writing = Journal::create(dir.path()).expect("a new journal");
    writing.append(&resumed()).expect("writable");
    let error = Journal::resume(dir.path()).expect_err("in use");
    assert!(matches!(error.kind, JournalErrorKind::InUse));
    assert_eq!(error.kind.to_string(), "another process is writing it: is that run still going on?");
    assert_eq!(journal::read(dir.path()).expect("readable"), [resumed()]);
    drop(writing);
    let resumed = Journal::resume(dir.path()).expect("nobody writes it any more");
    assert!(matches!(Journal::resume(dir.path()).expect_err("in use").kind, JournalErrorKind::InUse));
    drop(resumed);
}

#[test]
fn a_damaged_journal_is_not_continued_and_a_missing_one_not_made() {
    let (dir, _) = written();
    let path = dir.path().join(journal::FILE_NAME);
    let damaged = fs::read_to_string(&path).expect("readable").replacen("\"phase-started\"", "\"phase-st", 1);
    fs::write(&path, &damaged).expect("writable");
    let error = Journal::resume(dir.path()).expect_err("a bad line");
    assert!(matches!(error.kind, JournalErrorKind::Line { .. }));
    assert_eq!(fs::read_to_string(&path).expect("readable"), damaged);
    fs::remove_file(&path).expect("removable");
    assert!(Journal::resume(dir.path()).is_err() && !path.exists());
}

fn resumed() -> Event {
    let version = "0.1.0".to_owned();
    Event { at: "2026-11-23T08:00:00Z".parse().expect("a time"), kind: EventKind::RunResumed { version } }
}
