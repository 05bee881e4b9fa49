//! The journal is the truth: what survives a crash, and what is refused.

use std::fs;

use reports::{Event, EventKind, Journal, JsonLines, journal};

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
    {"at":"2026-11-22T10:31:16.7Z","event":"attempt-finished","cell":"debian-11-minimal.smoke","attempt":1,"verdict":"failed","phase":"install","reason":"hello 2.12 does not install: dpkg exited with 1","retried":false,"console_tail":[],"help":"install.log has every word of it; the package asks for more than this system has"}
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
