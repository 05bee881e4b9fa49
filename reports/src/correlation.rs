//! What failures have in common: the shortest conditions over what is known of the guests that hold for every cell in which a test failed and
//! for no cell in which it passed.
//!
//! A condition is said only if it holds for all cells of the run that tell anything of the test. Where it may be true or not, because a guest did
//! not say, it is not considered. It is an observation with its counts, and no proof of a cause.

mod features;
mod version;

use std::borrow::Cow;

use indexmap::IndexMap;
use serde::Serialize;

use self::features::{Column, Seen};
use crate::{CellRun, Outcome, Phase, Run, Verdict, human};

/// With fewer cells than this, too much separates them for any of it to mean something.
const LEAST_CELLS: usize = 3;
/// Most sets of failed cells that are looked at, the largest ones: it takes time for each.
const MOST_SETS: usize = 200;
/// Most conditions named beside the first one, all equally short.
const MOST_OTHERS: usize = 3;
/// Most tests named in a sentence.
const MOST_TESTS: usize = 3;

/// A condition that separates the cells where tests failed from those where they passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Correlation {
    /// The tests, as `SUITE: TEST`; a suite's exit code is a test with its name.
    pub tests: Vec<String>,
    /// Cells in which they failed: all that meet the condition.
    pub failed: usize,
    /// Cells in which they passed: all others.
    pub passed: usize,
    /// The condition, for example `glibc < 2.36`.
    pub condition: String,
    /// Other conditions, as short, of which the same is true; at most 3.
    pub others: Vec<String>,
    /// How many more there are.
    pub more: usize,
}

/// One sentence without a full stop.
impl std::fmt::Display for Correlation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { tests, failed, passed, condition, others, more } = self;
        let (named, left) = (tests.iter().take(MOST_TESTS), tests.len().saturating_sub(MOST_TESTS));
        let mut named: Vec<_> = named.map(|test| format!("`{test}`")).collect();
        named.extend((left > 0).then(|| human::count(left, "more test")));
        let (fails, passes) = if tests.len() == 1 { ("fails", "passes") } else { ("fail", "pass") };
        let guests = human::count(*failed, "guest");
        let named = named.join(", ");
        write!(f, "{named} {fails} on {failed} of {guests} with {condition}, {passes} on {passed} of {passed} others")?;
        let mut same: Vec<_> = others.clone();
        same.extend((*more > 0).then(|| human::count(*more, "more condition")));
        if same.is_empty() {
            return Ok(());
        }
        write!(f, " (as true: {})", same.join("; "))
    }
}

impl Run {
    /// What its failures have in common, those of most cells first.
    pub fn correlations(&self) -> Vec<Correlation> {
        // Tests that failed and passed in the same cells share an answer.
        let mut by_cells = IndexMap::<(Vec<usize>, Vec<usize>), Vec<String>>::new();
        for ((suite, test), Told { failed, passed }) in told(self) {
            if !failed.is_empty() && !passed.is_empty() && failed.len() + passed.len() >= LEAST_CELLS {
                let name = if suite == test { test.into_owned() } else { format!("{suite}: {test}") };
                by_cells.entry((failed, passed)).or_default().push(name);
            }
        }
        if by_cells.is_empty() {
            return Vec::new();
        }
        by_cells.sort_by_key(|(failed, _), _| std::cmp::Reverse(failed.len()));
        by_cells.truncate(MOST_SETS);
        let columns = features::columns(self);
        let mut by_condition = IndexMap::<Vec<String>, Common>::new();
        for ((failed, passed), tests) in by_cells {
            let conditions = separating(&columns, &failed, &passed);
            if !conditions.is_empty() {
                let common = by_condition.entry(conditions).or_default();
                common.tests.extend(tests);
                common.failed.extend(failed);
                common.passed.extend(passed);
            }
        }
        let found = by_condition.into_iter().filter_map(|(conditions, common)| common.told(conditions));
        let mut found: Vec<_> = found.collect();
        found.sort_by_key(|found| std::cmp::Reverse(found.failed));
        found
    }
}

/// Cells in which a test failed, and in which it passed.
#[derive(Default)]
struct Told {
    failed: Vec<usize>,
    passed: Vec<usize>,
}

/// Of each test of each suite, what the cells tell. Errors tell nothing of the package.
fn told(run: &Run) -> IndexMap<(&str, Cow<'_, str>), Told> {
    let mut told = IndexMap::<(&str, Cow<'_, str>), Told>::new();
    for (index, cell) in run.cells.iter().enumerate() {
        if matches!(cell.outcome(), Outcome::Error | Outcome::NotRun) {
            continue;
        }
        for case in cell.reported_cases() {
            let told = told.entry((&cell.suite, case.name)).or_default();
            match case.outcome {
                Outcome::Failed => told.failed.push(index),
                Outcome::Passed => told.passed.push(index),
                _ => {}
            }
        }
    }
    // A phase that a cell failed in has no test case where it went well.
    for ((suite, name), told) in &mut told {
        let phase = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let Some(phase) = phase.and_then(|name| Phase::ALL.into_iter().find(|phase| phase.name() == name)) else {
            continue;
        };
        let past = run.cells.iter().enumerate().filter(|(_, cell)| cell.suite == *suite && got_past(cell, phase));
        told.passed.extend(past.map(|(index, _)| index));
    }
    told
}

fn got_past(cell: &CellRun, phase: Phase) -> bool {
    match &cell.verdict {
        Verdict::Passed => true,
        Verdict::Failed { phase: failed, .. } => *failed > phase,
        Verdict::Skipped { .. } | Verdict::Error { .. } | Verdict::NotRun { .. } => false,
    }
}

/// Tests for which the same conditions hold.
#[derive(Default)]
struct Common {
    tests: Vec<String>,
    failed: Vec<usize>,
    passed: Vec<usize>,
}

impl Common {
    fn told(mut self, conditions: Vec<String>) -> Option<Correlation> {
        for cells in [&mut self.failed, &mut self.passed] {
            cells.sort_unstable();
            cells.dedup();
        }
        let mut conditions = conditions.into_iter();
        let condition = conditions.next()?;
        let others: Vec<_> = conditions.by_ref().take(MOST_OTHERS).collect();
        let (failed, passed, more) = (self.failed.len(), self.passed.len(), conditions.count());
        Some(Correlation { tests: self.tests, failed, passed, condition, others, more })
    }
}

/// Something that is true of all cells where a test failed.
struct Condition {
    /// The fact that it is about.
    fact: usize,
    /// It says that something is not there.
    is_negative: bool,
    text: String,
    /// The cells where it passed of which it is true, too: one bit each.
    also: Vec<u64>,
}

/// The conditions of the shortest length that separate them, one for each fact, the most telling first; empty: none does.
fn separating(columns: &[Column], failed: &[usize], passed: &[usize]) -> Vec<String> {
    let conditions = conditions(columns, failed, passed);
    let mut single: Vec<_> =
        conditions.iter().filter(|condition| condition.also.iter().all(|bits| *bits == 0)).collect();
    single.dedup_by_key(|condition| condition.fact);
    // What is there says more than what is not.
    single.sort_by_key(|condition| condition.is_negative);
    if !single.is_empty() {
        return single.into_iter().map(|condition| condition.text.clone()).collect();
    }
    let mut pairs = Vec::new();
    for (index, first) in conditions.iter().enumerate() {
        for second in conditions.iter().skip(index + 1) {
            if first.also.iter().zip(&second.also).all(|(first, second)| first & second == 0) {
                pairs.push(((first.fact, second.fact), format!("{} and {}", first.text, second.text)));
            }
        }
    }
    pairs.dedup_by_key(|(facts, _)| *facts);
    pairs.into_iter().map(|(_, text)| text).collect()
}

fn conditions(columns: &[Column], failed: &[usize], passed: &[usize]) -> Vec<Condition> {
    let mut conditions = Vec::new();
    for (fact, Column { name, negated, versions, cells }) in columns.iter().enumerate() {
        let of = |at: &[usize]| at.iter().filter_map(|cell| cells.get(*cell)).copied().collect::<Vec<_>>();
        let (in_failed, in_passed) = (Extent::of(&of(failed)), of(passed));
        let others = Extent::of(&in_passed);
        if in_failed.is_unknown || others.is_unknown {
            continue;
        }
        let mut add = |is_negative: bool, text: String, holds: &dyn Fn(Seen) -> bool| {
            let mut also = vec![0_u64; in_passed.len().div_ceil(64)];
            for (seen, bits) in in_passed.chunks(64).zip(&mut also) {
                for (place, seen) in seen.iter().enumerate() {
                    *bits |= u64::from(holds(*seen)) << place;
                }
            }
            conditions.push(Condition { fact, is_negative, text, also });
        };
        if !in_failed.is_there {
            // Where it is nowhere else either, that separates nothing.
            if let (Some(negated), true) = (negated, others.is_there) {
                add(true, format!("{negated} {name}"), &|seen| !seen.is_there());
            }
            continue;
        }
        if in_failed.is_absent {
            continue;
        }
        if others.is_absent {
            add(false, name.clone(), &Seen::is_there);
        }
        let (Some((least, most)), false) = (in_failed.versions, in_failed.is_unversioned || others.is_unversioned)
        else {
            continue;
        };
        let text = |place: usize| versions.get(place).map(ToString::to_string).unwrap_or_default();
        let (lowest, highest) = others.versions.unwrap_or((least, most));
        if highest > most {
            let above = in_passed.iter().filter_map(|seen| seen.version()).filter(|place| *place > most).min();
            let from = above.unwrap_or(highest);
            add(false, format!("{name} < {}", text(from)), &|seen| seen.version().is_some_and(|place| place < from));
        }
        if lowest < least {
            add(false, format!("{name} >= {}", text(least)), &|seen| {
                seen.version().is_some_and(|place| place >= least)
            });
        }
        if least == most && lowest < least && least < highest {
            add(false, format!("{name} {}", text(least)), &|seen| seen == Seen::Version(least));
        }
    }
    conditions
}

/// What is seen of one fact in some cells.
#[derive(Default)]
struct Extent {
    is_unknown: bool,
    is_absent: bool,
    is_there: bool,
    /// Somewhere it has no version.
    is_unversioned: bool,
    /// The lowest and the highest.
    versions: Option<(usize, usize)>,
}

impl Extent {
    fn of(cells: &[Seen]) -> Self {
        let mut extent = Self::default();
        for seen in cells {
            match seen {
                Seen::Unknown => extent.is_unknown = true,
                Seen::Absent => extent.is_absent = true,
                Seen::Present => extent.is_unversioned = true,
                Seen::Version(place) => {
                    let (least, most) = extent.versions.unwrap_or((*place, *place));
                    extent.versions = Some((least.min(*place), most.max(*place)));
                }
            }
        }
        extent.is_there = extent.is_unversioned || extent.versions.is_some();
        extent
    }
}
