//! What failures have in common: the shortest conditions over what is known of the guests that hold for every cell in which a test failed and
//! for no cell in which it passed.
//!
//! A condition is said only if it holds for all cells of the run that tell anything of the test. Where it may be true or not, because a guest did
//! not say, it is not considered. It is an observation with its counts, and no proof of a cause.

mod features;
mod version;

use std::cmp::Reverse;

use indexmap::IndexMap;
use serde::Serialize;

use self::features::{Column, Seen};
use crate::{CaseVerdict, CellRun, Outcome, Phase, Run, Verdict, human};

/// With fewer cells than this, too much separates them for any of it to mean something.
const LEAST_CELLS: usize = 3;
/// Most conditions named in a sentence beside the first one, all equally short.
const MOST_OTHERS: usize = 3;
/// Most tests named in a sentence.
const MOST_TESTS: usize = 3;
/// Most cells that are looked at, each as often as tests failed in different ones: it takes time.
const MOST_LOOKS: usize = 200_000;

/// A condition that separates the cells where tests failed from those where they passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Correlation {
    /// The tests, as `SUITE: TEST`; a suite's exit code is a test with its name, `installation` that of the package.
    pub tests: Vec<String>,
    /// Cells in which they failed. All meet the condition.
    pub failed: usize,
    /// Cells in which they passed. None meets it.
    pub passed: usize,
    /// Cells of the suite in which they did neither.
    pub untold: usize,
    /// The condition, for example `` `glibc` < 2.36 ``.
    pub condition: String,
    /// Other conditions, as short, of which the same is true.
    pub others: Vec<String>,
}

/// One sentence without a full stop.
impl std::fmt::Display for Correlation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { tests, failed, passed, untold, condition, others } = self;
        let (named, left) = (tests.iter().take(MOST_TESTS), tests.len().saturating_sub(MOST_TESTS));
        let mut named: Vec<_> = named.map(|test| features::quoted(test)).collect();
        named.extend((left > 0).then(|| human::count(left, "more test")));
        let (fails, passes) = if tests.len() == 1 { ("fails", "passes") } else { ("fail", "pass") };
        let guests = human::count(*failed, "guest");
        let named = named.join(", ");
        write!(f, "{named} {fails} on {failed} of {guests} with {condition}, {passes} on {passed} of {passed} others")?;
        if *untold > 0 {
            write!(f, "; {} told nothing", human::count(*untold, "more guest"))?;
        }
        let more = others.len().saturating_sub(MOST_OTHERS);
        let mut same: Vec<_> = others.iter().take(MOST_OTHERS).cloned().collect();
        same.extend((more > 0).then(|| human::count(more, "more condition")));
        if same.is_empty() {
            return Ok(());
        }
        write!(f, " (also true: {})", same.join("; "))
    }
}

impl Run {
    /// What its failures have in common, those of most cells first.
    pub fn correlations(&self) -> Vec<Correlation> {
        if !self.cells.iter().any(|cell| cell.outcome() == Outcome::Failed) {
            return Vec::new();
        }
        // Tests of a suite that failed and passed in the same cells share an answer.
        let mut by_cells = IndexMap::<(&str, Told), Vec<String>>::new();
        for ((suite, test), told) in told(self) {
            if !told.failed.is_empty()
                && !told.passed.is_empty()
                && told.failed.len() + told.passed.len() >= LEAST_CELLS
            {
                let test = match test {
                    Test::Case(name) if name == suite => suite.to_owned(),
                    Test::Case(name) => format!("{suite}: {name}"),
                    Test::Installation => format!("{suite}: installation"),
                };
                by_cells.entry((suite, told)).or_default().push(test);
            }
        }
        if by_cells.is_empty() {
            return Vec::new();
        }
        by_cells.sort_by(|(_, left), _, (_, right), _| Reverse(left.failed.len()).cmp(&Reverse(right.failed.len())));
        by_cells.truncate((MOST_LOOKS / self.cells.len().max(1)).max(1));
        let columns = features::columns(self);
        let found = by_cells.into_iter().filter_map(|((suite, told), tests)| {
            let (condition, others) = separating(&columns, &told)?;
            let cells = self.cells.iter().filter(|cell| cell.suite == suite).count();
            let (failed, passed) = (told.failed.len(), told.passed.len());
            Some(Correlation { tests, failed, passed, untold: cells - failed - passed, condition, others })
        });
        found.collect()
    }
}

/// What may fail in a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Test<'a> {
    /// A test case of its suite.
    Case(&'a str),
    /// The package does not install.
    Installation,
}

/// Cells in which a test failed, and in which it passed; ascending, each once.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
struct Told {
    failed: Vec<usize>,
    passed: Vec<usize>,
}

/// Of each test of each suite that failed in a cell, what the cells tell. Errors tell nothing of the package.
fn told(run: &Run) -> IndexMap<(&str, Test<'_>), Told> {
    let mut told = IndexMap::<(&str, Test<'_>), Told>::new();
    for (index, suite, test, _) in results(run).filter(|(.., passes)| !passes) {
        push(&mut told.entry((suite, test)).or_default().failed, index);
    }
    for (index, suite, test, _) in results(run).filter(|(.., passes)| *passes) {
        if let Some(told) = told.get_mut(&(suite, test)).filter(|told| told.failed.binary_search(&index).is_err()) {
            push(&mut told.passed, index);
        }
    }
    told
}

/// Nothing keeps a suite from naming two tests alike.
fn push(cells: &mut Vec<usize>, index: usize) {
    if cells.last() != Some(&index) {
        cells.push(index);
    }
}

/// Every test of every cell that tells something: the cell, its suite, the test, and whether it passes.
fn results(run: &Run) -> impl Iterator<Item = (usize, &str, Test<'_>, bool)> {
    let telling = |(_, cell): &(usize, &CellRun)| matches!(cell.outcome(), Outcome::Failed | Outcome::Passed);
    run.cells.iter().enumerate().filter(telling).flat_map(|(index, cell)| {
        let installs = installs(cell).map(|installs| (Test::Installation, installs));
        let cases = cell.last_attempt().into_iter().flat_map(|attempt| &attempt.cases);
        let cases = cases.filter_map(|case| match case.verdict {
            CaseVerdict::Passed => Some((Test::Case(&case.name), true)),
            CaseVerdict::Failed { .. } => Some((Test::Case(&case.name), false)),
            CaseVerdict::Skipped { .. } => None,
        });
        installs.into_iter().chain(cases).map(move |(test, passes)| (index, cell.suite.as_str(), test, passes))
    })
}

/// Whether the package installs; `None`: it is not known.
fn installs(cell: &CellRun) -> Option<bool> {
    let attempt = cell.last_attempt()?;
    match &cell.verdict {
        _ if cell.asked_for_what_it_must_not() => None,
        Verdict::Failed { phase: Phase::Install, .. } => Some(false),
        Verdict::Passed | Verdict::Failed { .. } => {
            attempt.phases.iter().any(|run| run.phase == Phase::Install && run.elapsed_ms.is_some()).then_some(true)
        }
        Verdict::Skipped { .. } | Verdict::Error { .. } | Verdict::NotRun { .. } => None,
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

/// The first condition of the shortest length that separates them, and others of one fact each; `None`: none does.
fn separating(columns: &[Column], told: &Told) -> Option<(String, Vec<String>)> {
    let conditions = conditions(columns, told);
    let mut single: Vec<_> =
        conditions.iter().filter(|condition| condition.also.iter().all(|bits| *bits == 0)).collect();
    single.dedup_by_key(|condition| condition.fact);
    // What is there says more than what is not.
    single.sort_by_key(|condition| condition.is_negative);
    let mut single = single.into_iter().map(|condition| condition.text.clone());
    if let Some(first) = single.next() {
        return Some((first, single.collect()));
    }
    conditions.iter().enumerate().find_map(|(index, first)| {
        let second = conditions
            .iter()
            .skip(index + 1)
            .find(|second| first.also.iter().zip(&second.also).all(|(first, second)| first & second == 0))?;
        Some((format!("{} and {}", first.text, second.text), Vec::new()))
    })
}

fn conditions(columns: &[Column], Told { failed, passed }: &Told) -> Vec<Condition> {
    let mut conditions = Vec::new();
    for (fact, Column { name, negated, versions, cells }) in columns.iter().enumerate() {
        let (in_failed, others) = (Extent::of(cells, failed), Extent::of(cells, passed));
        if in_failed.is_unknown || others.is_unknown {
            continue;
        }
        let mut add = |is_negative: bool, text: String, holds: &dyn Fn(Seen) -> bool| {
            let mut also = vec![0_u64; passed.len().div_ceil(64)];
            for (chunk, bits) in passed.chunks(64).zip(&mut also) {
                for (place, cell) in chunk.iter().enumerate() {
                    *bits |= u64::from(cells.get(*cell).copied().is_some_and(holds)) << place;
                }
            }
            conditions.push(Condition { fact, is_negative, text, also });
        };
        if !in_failed.is_there() {
            // Where the other cells lack it as well, that separates nothing.
            if let (Some(negated), true) = (negated, others.is_there()) {
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
        let text = |place: usize| versions.get(place).map(String::as_str).unwrap_or_default();
        let (lowest, highest) = others.versions.unwrap_or((least, most));
        let in_passed = passed.iter().filter_map(|cell| cells.get(*cell)?.version());
        if let Some(from) = in_passed.filter(|place| *place > most).min() {
            add(false, format!("{name} < {}", text(from)), &|seen| seen.version().is_some_and(|place| place < from));
        }
        if lowest < least {
            let holds = |seen: Seen| seen.version().is_some_and(|place| place >= least);
            add(false, format!("{name} >= {}", text(least)), &holds);
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
    /// One of them has it without a version.
    is_unversioned: bool,
    /// The lowest and the highest.
    versions: Option<(usize, usize)>,
}

impl Extent {
    /// Of these cells, by their places.
    fn of(cells: &[Seen], places: &[usize]) -> Self {
        let mut extent = Self::default();
        for place in places {
            match cells.get(*place).unwrap_or(&Seen::Unknown) {
                Seen::Unknown => extent.is_unknown = true,
                Seen::Absent => extent.is_absent = true,
                Seen::Present => extent.is_unversioned = true,
                Seen::Version(place) => {
                    let (least, most) = extent.versions.unwrap_or((*place, *place));
                    extent.versions = Some((least.min(*place), most.max(*place)));
                }
            }
        }
        extent
    }

    const fn is_there(&self) -> bool {
        self.is_unversioned || self.versions.is_some()
    }
}
