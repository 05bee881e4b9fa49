//! Damaged journals: whatever is dropped, duplicated, moved, cut off or changed, no cell that was not green becomes green, and a
//! run with a changed journal is not green and gives the reason.
//!
//! A journal with checksums is not green after any change at all. For one without (of an earlier version) the events must agree:
//! a good verdict is confirmed by a cell, its last attempt and its test cases, so no single change makes one.

use std::fs;

use matrix::Plan;
use proptest::prelude::*;
use reports::{CaseVerdict, Event, EventKind, Journal, Phase, Run, Verdict, journal, render};
use serde_json::Value;

use crate::fixture::{self, Story};

/// A run with a cell of every kind, completely recorded.
struct Recorded {
    plan: Plan,
    dir: tempfile::TempDir,
    lines: Vec<String>,
    run: Run,
}

fn record(plan: Plan, events: &[Event]) -> Recorded {
    let dir = tempfile::tempdir().expect("temporary folder");
    plan.write(&dir.path().join("plan.json")).expect("writable");
    let mut journal = Journal::create(dir.path()).expect("a new journal");
    events.iter().for_each(|event| journal.append(event).expect("writable"));
    let text = fs::read_to_string(dir.path().join(journal::FILE_NAME)).expect("readable");
    let run = render::fold(dir.path()).expect("readable");
    Recorded { plan, dir, lines: text.lines().map(str::to_owned).collect(), run }
}

fn mixed() -> Recorded {
    let plan = fixture::plan();
    let events = fixture::story(&plan).events;
    record(plan, &events)
}

/// A plan of three cells; the results hold for larger ones.
fn small() -> Plan {
    let image = |name: &str| format!("[[image]]\nname = \"{name}\"\n");
    let images = ["debian-11-minimal", "debian-12-minimal", "debian-13-minimal"].map(image).concat();
    fixture::plan_of(&format!("{images}[[suite]]\nname = \"smoke\"\ninline = \"true\"\n"))
}

/// One in which every cell is good.
fn green() -> Recorded {
    let plan = small();
    let mut story = Story::new();
    story.start(&plan);
    plan.cells[1..].iter().for_each(|cell| story.pass(&cell.id));
    story.skip(&plan.cells[0].id, "not here");
    story.finish();
    let recorded = record(plan, &story.events);
    assert_eq!((recorded.run.exit_code(), &recorded.run.problems()[..]), (0, &[][..]));
    recorded
}

/// One that was interrupted and resumed, in which a cell failed late.
fn resumed() -> Recorded {
    let plan = small();
    let mut story = Story::new();
    story.start(&plan);
    story.pass(&plan.cells[0].id);
    story.emit(EventKind::RunInterrupted { signal: "SIGINT".to_owned() });
    for cell in &plan.cells[1..] {
        story.end(&cell.id, Verdict::NotRun { reason: "interrupted before it started".to_owned() });
    }
    story.finish();
    story.emit(EventKind::RunResumed { version: "0.1.0".to_owned() });
    story.boot_runner(2);
    plan.cells[2..].iter().for_each(|cell| story.pass(&cell.id));
    let cell = &plan.cells[1].id;
    story.boot(cell, 1);
    story.case(cell, 1, "smoke", CaseVerdict::Passed, 1);
    // Its script passed, and then its results could not be fetched: only two events show that.
    story.conclude(cell, 1, Verdict::Error { phase: Phase::Collect, reason: "lost".to_owned() });
    story.finish();
    record(plan, &story.events)
}

impl Recorded {
    /// The run with these lines as its journal.
    fn with(&self, lines: &[String]) -> Run {
        self.with_bytes(lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect::<Vec<u8>>().as_slice())
    }

    fn with_bytes(&self, bytes: &[u8]) -> Run {
        fs::write(self.dir.path().join(journal::FILE_NAME), bytes).expect("writable");
        render::fold(self.dir.path()).expect("readable")
    }

    /// The same without checksums.
    fn bare(mut self) -> Self {
        for line in &mut self.lines {
            let end = line.rfind(",\"sum\":").expect("a checksum");
            line.replace_range(end.., "}");
        }
        assert_eq!(self.with(&self.lines), self.run);
        self
    }

    /// Fails if a cell is green in this run and was not.
    fn assert_no_greener(&self, run: &Run, what: &str) {
        assert_eq!(run.cells.len(), self.plan.cells.len());
        for (cell, was) in run.cells.iter().zip(&self.run.cells) {
            let turned = was.outcome().is_bad() && !cell.outcome().is_bad();
            assert!(!turned, "{} was {:?} and is {:?} after {what}", cell.id, was.verdict, cell.verdict);
        }
        if self.run.exit_code() != 0 {
            assert_ne!(run.exit_code(), 0, "after {what}: {:?}", run.problems());
        }
    }

    /// Fails if a change is not noticed.
    fn assert_noticed(&self, lines: &[String], what: &str) {
        let run = self.with(lines);
        self.assert_no_greener(&run, what);
        if lines != self.lines {
            // A run that was interrupted and resumed is an interrupted one if all that came later is cut off.
            assert_ne!(run.exit_code(), 0, "not noticed: {what}");
            assert!(run.exit_code() == 130 || !run.problems().is_empty(), "not said: {what}");
        }
    }
}

/// All single changes of a JSON value: other words, other numbers, missing fields.
fn changes(value: &Value, words: &[&str]) -> Vec<Value> {
    match value {
        Value::Object(fields) => {
            let without = fields.keys().map(|gone| {
                let mut fields = fields.clone();
                fields.remove(gone);
                Value::Object(fields)
            });
            let changed = fields.iter().flat_map(|(key, inner)| {
                changes(inner, words).into_iter().map(|inner| {
                    let mut fields = fields.clone();
                    fields.insert(key.clone(), inner);
                    Value::Object(fields)
                })
            });
            without.chain(changed).collect()
        }
        Value::String(known) => {
            let others = words.iter().filter(|word| *word != known);
            others.map(|word| Value::String((*word).to_owned())).collect()
        }
        Value::Bool(known) => vec![Value::Bool(!known)],
        Value::Number(_) => [0, 1, 2].map(Value::from).into(),
        _ => vec![],
    }
}

#[test]
fn no_single_change_of_a_journal_without_checksums_turns_a_cell_green() {
    for recorded in [mixed().bare(), resumed().bare()] {
        let lines = &recorded.lines;
        for at in 0..lines.len() {
            let mut dropped = lines.clone();
            dropped.remove(at);
            recorded.assert_no_greener(&recorded.with(&dropped), &format!("dropping {}", lines[at]));
            let mut doubled = lines.clone();
            doubled.insert(at, lines[at].clone());
            recorded.assert_no_greener(&recorded.with(&doubled), &format!("doubling {}", lines[at]));
            recorded.assert_no_greener(&recorded.with(&lines[..at]), &format!("cutting off {}", lines[at]));
        }
        // Folded without a file: there are thousands of them.
        let events: Vec<Event> = lines.iter().map(|line| serde_json::from_str(line).expect("an event")).collect();
        let cells: Vec<&str> = recorded.plan.cells.iter().map(|cell| cell.id.as_str()).collect();
        let words = ["passed", "skipped", cells[0], cells[1], cells[cells.len() - 1]];
        let mut changed = 0;
        for (at, line) in lines.iter().enumerate() {
            let value: Value = serde_json::from_str(line).expect("JSON");
            for change in changes(&value, &words) {
                // A line that is no event any more is equivalent to a dropped one.
                let Ok(event) = serde_json::from_value::<Event>(change.clone()) else { continue };
                let mut events = events.clone();
                events[at] = event;
                recorded.assert_no_greener(&Run::fold(&recorded.plan, &events), &format!("{line} became {change}"));
                changed += 1;
            }
        }
        assert!(changed > 200, "{changed}");
    }
}

#[test]
fn every_change_of_a_journal_is_noticed() {
    for recorded in [green(), resumed()] {
        let lines = &recorded.lines;
        for at in 0..lines.len() {
            let with = |change: &dyn Fn(&mut Vec<String>), what: &str| {
                let mut lines = lines.clone();
                change(&mut lines);
                recorded.assert_noticed(&lines, &format!("{what} line {at}"));
            };
            with(&|lines| drop(lines.remove(at)), "dropping");
            with(&|lines| lines.insert(at, lines[at].clone()), "doubling");
            with(&|lines| lines.truncate(at), "cutting off");
            let (next, middle) = ((at + 1) % lines.len(), lines[at].len() / 2);
            with(&|lines| lines.swap(at, next), "moving");
            with(&|lines| lines[at].clear(), "emptying");
            with(&|lines| lines[at] = lines[at].replacen("\"cell\"", "\"cel\"", 1), "renaming a field of");
            with(&|lines| lines[at] = lines[at].replacen("2026", "2027", 1), "changing the time of");
            with(&|lines| lines[at].insert(middle, '0'), "adding a digit to");
            let mut bytes = lines.join("\n").into_bytes();
            bytes.truncate(bytes.len() * at / lines.len());
            let run = recorded.with_bytes(&bytes);
            recorded.assert_no_greener(&run, "cutting off");
            assert_ne!(run.exit_code(), 0);
        }
    }
}

/// A change of a journal's lines.
#[derive(Clone, Debug)]
enum Accident {
    Drop(prop::sample::Index),
    Double(prop::sample::Index, prop::sample::Index),
    Swap(prop::sample::Index, prop::sample::Index),
    Cut(prop::sample::Index),
    Flip(prop::sample::Index, prop::sample::Index, u8),
    Insert(prop::sample::Index, String),
}

fn accident() -> impl Strategy<Value = Accident> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        at().prop_map(Accident::Drop),
        (at(), at()).prop_map(|(from, to)| Accident::Double(from, to)),
        (at(), at()).prop_map(|(one, other)| Accident::Swap(one, other)),
        at().prop_map(Accident::Cut),
        (at(), at(), 0_u8..7).prop_map(|(line, byte, bit)| Accident::Flip(line, byte, bit)),
        (at(), "\\PC{0,40}").prop_map(|(line, text)| Accident::Insert(line, text)),
    ]
}

fn happen(accident: &Accident, lines: &mut Vec<String>) {
    if lines.is_empty() {
        return;
    }
    let length = lines.len();
    match accident {
        Accident::Drop(at) => drop(lines.remove(at.index(length))),
        Accident::Double(from, to) => lines.insert(to.index(length), lines[from.index(length)].clone()),
        Accident::Swap(one, other) => lines.swap(one.index(length), other.index(length)),
        Accident::Cut(at) => lines.truncate(at.index(length)),
        Accident::Flip(line, byte, bit) => {
            let line = &mut lines[line.index(length)];
            let mut bytes = std::mem::take(line).into_bytes();
            if !bytes.is_empty() {
                let at = byte.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            *line = String::from_utf8_lossy(&bytes).replace('\n', " ");
        }
        Accident::Insert(line, text) => lines.insert(line.index(length), text.clone()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_to_a_journal_is_noticed(accidents in prop::collection::vec(accident(), 1..4), which in 0..3) {
        let recorded = [mixed, green, resumed][which as usize]();
        let mut lines = recorded.lines.clone();
        accidents.iter().for_each(|accident| happen(accident, &mut lines));
        recorded.assert_noticed(&lines, &format!("{accidents:?}"));
    }

    #[test]
    fn any_bytes_are_read_as_a_journal_of_which_nothing_is_good(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let recorded = green();
        let run = recorded.with_bytes(&bytes);
        prop_assert_ne!(run.exit_code(), 0);
        prop_assert!(run.cells.iter().all(|cell| cell.outcome().is_bad()));
    }
}

#[test]
fn every_report_says_what_was_not_understood() {
    let recorded = green();
    let mut lines = recorded.lines.clone();
    let at = lines.iter().position(|line| line.contains("\"runner-ready\"")).expect("one") + 1;
    lines.insert(at, r#"{"at":"2026-11-22T10:30:00Z","event":"cell-weighed","cell":"x","grams":3}"#.to_owned());
    let run = recorded.with(&lines);
    // Verdicts are unchanged; whether they can be trusted is another question.
    assert_eq!(run.counts().cells, recorded.run.counts().cells);
    assert_eq!(run.exit_code(), 3);
    assert_eq!(run.conclusion(), "no test failed, but the event log cannot be trusted");
    let said = format!(
        "events.jsonl: line {} was not understood: not an event of this version of nestmatrix: unknown variant",
        at + 1
    );
    assert!(run.problems()[0].starts_with(&said), "{:?}", run.problems());
    let rendered = render::all(recorded.dir.path()).expect("rendered");
    for report in [&rendered.run_json, &rendered.junit_xml, &rendered.report_html, &rendered.summary_md] {
        let text = fs::read_to_string(report).expect("written").replace("\\_", "_");
        assert!(text.contains("was not understood"), "{}: {text}", report.display());
    }
    let junit = fs::read(&rendered.junit_xml).expect("written");
    let suites = junit_parser::from_reader(&*junit).expect("readable");
    assert_eq!((suites.suites.last().map(|suite| suite.errors), suites.errors), (Some(1), 1));
    let sink = crate::terminal::Sink::default();
    let style = reports::TerminalStyle { live: false, color: false, width: 100 };
    reports::Terminal::plain(&recorded.plan, style, sink.clone()).finish(&run, recorded.dir.path());
    let text = sink.text();
    assert!(text.contains("NOT GREEN") && text.contains(&format!("problem  {said}")), "{text}");
}
