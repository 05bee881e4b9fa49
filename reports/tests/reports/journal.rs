//! The journal: what survives a crash, and what is refused.

use std::{fs, path::Path};

use reports::{Damage, Event, EventKind, Journal, JournalError, JournalErrorKind, JsonLines, journal};

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
    assert_eq!(read(dir.path()), events);
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
    {"at":"2026-11-22T10:31:41.4Z","clock_ms":101412,"event":"attempt-finished","cell":"debian-11-minimal.smoke","attempt":1,"verdict":"failed","kind":"test-failed","phase":"install","reason":"hello 2.12 does not install: dpkg exited with 1","evidence":[],"help":"install.log has every word of it; the package asks for more than this system has","retried":false}
    {"at":"2026-11-22T10:30:00.3Z","clock_ms":312,"event":"image-ready","image":"debian-11-minimal","digest":"sha256:b8720b7fd44531a8811a9a34a17c79993179ede5a68c8bd6bef608da5f0f9dd4","cached":true,"elapsed_ms":300}
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
        let (read, damage) = with_damage(dir.path()).expect("readable");
        assert_eq!(read, events[..events.len() - 1], "cut at {cut}");
        assert!(damage.len() == 1 && damage[0].to_string().contains("cut off while it was written"), "{damage:?}");
    }
    // Complete except for its line end: nothing is lost.
    fs::write(&path, &whole[..whole.len() - 1]).expect("writable");
    assert_eq!(read(dir.path()), events);
}

#[test]
fn a_line_that_is_no_event_is_passed_by_and_named() {
    let (dir, events) = written();
    let path = dir.path().join(journal::FILE_NAME);
    let text = fs::read_to_string(&path).expect("readable");
    let at = text.lines().position(|line| line.contains("\"phase-started\"")).expect("one");
    fs::write(&path, text.replacen("\"phase-started\"", "\"phase-st\"", 1)).expect("writable");
    let (read, damage) = with_damage(dir.path()).expect("readable");
    assert_eq!(read, [&events[..at], &events[at + 1..]].concat());
    let [damage] = &damage[..] else { panic!("{damage:?}") };
    assert_eq!(damage.line, at as u64 + 1);
    assert!(
        damage.reason.contains("not an event of this version of nestmatrix: unknown variant `phase-st`"),
        "{damage}"
    );
    for noise in ["", "null", "[]", "\0\0\0", "{\"event\":\"run-finished\"}"] {
        let mut lines: Vec<_> = text.lines().collect();
        lines.insert(at, noise);
        fs::write(&path, format!("{}\n", lines.join("\n"))).expect("writable");
        let (read, damage) = with_damage(dir.path()).expect("readable");
        assert_eq!((read.len(), damage.len(), damage[0].line), (events.len(), 1, at as u64 + 1), "{noise}");
    }
}

#[test]
fn a_line_that_does_not_follow_from_the_one_before_it_is_read_and_named() {
    let (dir, events) = written();
    let path = dir.path().join(journal::FILE_NAME);
    let text = fs::read_to_string(&path).expect("readable");
    let (at, line) = text.lines().enumerate().find(|(_, line)| line.contains("\"cell-finished\"")).expect("one");
    let changed = line.replace("dpkg exited with 1", "dpkg exited with 2");
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let with = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines = lines.clone();
        change(&mut lines);
        fs::write(&path, format!("{}\n", lines.join("\n"))).expect("writable");
        let (read, damage) = with_damage(dir.path()).expect("readable");
        let damage: Vec<_> = damage.into_iter().map(|damage| damage.line - 1).collect();
        (read.len(), damage)
    };
    assert_eq!(with(&|_| {}), (events.len(), vec![]));
    assert_eq!(with(&|lines| lines[at].clone_from(&changed)), (events.len(), vec![at as u64]));
    assert_eq!(with(&|lines| drop(lines.remove(at))), (events.len() - 1, vec![at as u64]));
    assert_eq!(with(&|lines| lines.insert(at, line.to_owned())), (events.len() + 1, vec![at as u64 + 1]));
    let moved = (0..3).map(|line| at as u64 + line).collect();
    assert_eq!(with(&|lines| lines.swap(at, at + 1)), (events.len(), moved));
    assert_eq!(with(&|lines| drop(lines.remove(0))), (events.len() - 1, vec![0]));
    let bare = r#"{"at":"2026-11-22T10:31:41.4Z","event":"warning","cell":null,"message":"by hand"}"#;
    assert_eq!(with(&|lines| lines.insert(at, bare.to_owned())), (events.len() + 1, vec![at as u64]));
}

#[test]
fn a_journal_without_checksums_is_read_and_continued_without() {
    let (dir, mut events) = written();
    let path = dir.path().join(journal::FILE_NAME);
    let lines: Vec<String> = events.iter().map(|event| serde_json::to_string(event).expect("JSON")).collect();
    fs::write(&path, format!("{}\n", lines.join("\n"))).expect("writable");
    assert_eq!(read(dir.path()), events);
    Journal::resume(dir.path()).expect("nobody writes it").append(&resumed()).expect("writable");
    events.push(resumed());
    assert_eq!(read(dir.path()), events);
    let checked = r#","sum":"0123456789abcdef"}"#;
    fs::write(&path, format!("{}\n{}{checked}\n", lines[0], lines[1].trim_end_matches('}'))).expect("writable");
    let (_, damage) = with_damage(dir.path()).expect("readable");
    assert_eq!(damage.len(), 1, "{damage:?}");
}

#[test]
fn a_pipe_or_a_device_in_the_place_of_a_journal_is_refused_at_once() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join(journal::FILE_NAME);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a pipe");
    let refused = |what: &str| {
        for error in [with_damage(dir.path()).map(drop), Journal::resume(dir.path()).map(drop)] {
            let kind = error.expect_err(what).kind.to_string();
            assert!(kind.contains("not a regular file"), "{what}: {kind}");
        }
    };
    refused("a pipe");
    fs::remove_file(&path).expect("removable");
    std::os::unix::fs::symlink("/dev/zero", &path).expect("a link");
    refused("a device");
    fs::remove_file(&path).expect("removable");
    fs::create_dir(&path).expect("writable");
    refused("a folder");
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
    assert_eq!(read(dir.path()), events);
}

#[test]
fn a_torn_last_line_is_cut_off_before_the_journal_is_continued() {
    let (dir, events) = written();
    let path = dir.path().join(journal::FILE_NAME);
    let whole = fs::read(&path).expect("readable");
    let last_line = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').expect("many lines") + 1;
    let kept = &events[..events.len() - 1];
    // The written part, and blocks that the file system had reserved but not yet filled.
    for torn in [&whole[last_line..=last_line], &whole[last_line..whole.len() - 2], &[0; 600], &[0, b'\n']] {
        fs::write(&path, [&whole[..last_line], torn].concat()).expect("writable");
        let mut journal = Journal::resume(dir.path()).expect("nobody writes it");
        assert_eq!(fs::read(&path).expect("readable"), &whole[..last_line]);
        journal.append(&resumed()).expect("writable");
        assert_eq!(read(dir.path()), [kept, &[resumed()]].concat());
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
    assert_eq!(read(dir.path()), events);
}

#[test]
fn a_journal_that_is_being_written_is_not_continued_but_can_be_read() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let mut writing = Journal::create(dir.path()).expect("a new journal");
    writing.append(&resumed()).expect("writable");
    let error = Journal::resume(dir.path()).expect_err("in use");
    assert!(matches!(error.kind, JournalErrorKind::InUse));
    assert_eq!(error.kind.to_string(), "another process is writing it: is that run still in progress?");
    assert_eq!(read(dir.path()), [resumed()]);
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
    assert!(matches!(error.kind, JournalErrorKind::Damaged { .. }), "{error:?}");
    assert_eq!(fs::read_to_string(&path).expect("readable"), damaged);
    fs::remove_file(&path).expect("removable");
    assert!(Journal::resume(dir.path()).is_err() && !path.exists());
}

/// The events of a journal without damage.
fn read(dir: &Path) -> Vec<Event> {
    let (events, damage) = with_damage(dir).expect("readable");
    assert_eq!(damage, []);
    events
}

/// The events and the damage of a journal.
fn with_damage(dir: &Path) -> Result<(Vec<Event>, Vec<Damage>), JournalError> {
    let mut events = Vec::new();
    let damage = journal::for_each(dir, |event| events.push(event))?;
    Ok((events, damage))
}

fn resumed() -> Event {
    let version = "0.1.0".to_owned();
    Event {
        at: "2026-11-23T08:00:00Z".parse().expect("a time"),
        clock_ms: Some(3),
        kind: EventKind::RunResumed { version },
    }
}
