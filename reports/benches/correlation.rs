//! How long it takes to find out what failures have in common: `cargo bench -p reports`.
//!
//! Half of the tests fail below a version of the C library, the others at random; of each guest 30 facts are known.

#[path = "../tests/reports/fixture.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod fixture;

use std::time::Instant;

use fixture::{Story, plan_of};
use reports::{CaseVerdict, EventKind, InstalledPackage, Phase, Run, SystemFacts, Verdict};

const TESTS: usize = 20;
const FACTS: usize = 30;
const TIMES: usize = 9;

fn run_of(cells: usize) -> Run {
    let image = |number| format!("[[image]]\nname = 'g{number}'\nfrom = 'debian-12-minimal'\n");
    let images: String = (0..cells).map(image).collect();
    let plan = plan_of(&format!("{images}[[suite]]\nname = 'full'\ninline = ':'\n"));
    let mut story = Story::new();
    story.start(&plan);
    // A linear congruential generator: the same run each time.
    let mut state = 1_u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state >> 33
    };
    for cell in plan.cells.iter().map(|cell| &cell.id) {
        let libc = 28 + random() % 14;
        story.attempt(cell, 1);
        let facts = SystemFacts {
            libc: Some(format!("glibc 2.{libc}")),
            init: Some(format!("systemd {}", 245 + random() % 13)),
            kernel: Some(format!("6.{}", random() % 13)),
            ..SystemFacts::default()
        };
        story.emit(EventKind::SystemSeen { cell: cell.clone(), attempt: 1, facts });
        let package = |number| InstalledPackage { name: format!("p{number}"), version: format!("1.{}", random() % 5) };
        let packages = (0..FACTS - 3).map(package).collect();
        story.emit(EventKind::PackagesInstalled { cell: cell.clone(), attempt: 1, packages });
        let mut verdict = Verdict::Passed;
        for test in 0..TESTS {
            let fails = if test % 2 == 0 { libc < 30 + test as u64 % 10 } else { random() % 3 == 0 };
            let case = match fails {
                true => CaseVerdict::Failed { message: "no".to_owned(), detail: String::new() },
                false => CaseVerdict::Passed,
            };
            if fails {
                verdict = Verdict::Failed { phase: Phase::Test, reason: "at least one test failed".to_owned() };
            }
            story.case(cell, 1, &format!("t{test}"), case, 1);
        }
        story.conclude(cell, 1, verdict);
    }
    story.finish();
    Run::fold(&plan, &story.events)
}

fn main() {
    println!("{FACTS} facts, {TESTS} tests, median of {TIMES}\n  cells      time   found");
    for cells in [100, 300, 1_000] {
        let run = run_of(cells);
        let mut times: Vec<_> = (0..TIMES)
            .map(|_| {
                let start = Instant::now();
                let found = run.correlations().len();
                (start.elapsed(), found)
            })
            .collect();
        times.sort();
        let (time, found) = times[TIMES / 2];
        println!("{cells:>7} {:>6.1} ms {found:>7}", time.as_secs_f64() * 1e3);
    }
}
