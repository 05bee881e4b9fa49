//! `forks`: forks of one template are independent.
//!
//! Each prints its time and random bytes, which were equal for all when the template was frozen. Each also looks for traces of
//! another one on its disk and in its memory, and leaves some.

use std::{collections::BTreeSet, fs};

use serde_json::json;

use crate::failure::Failure;

use super::{
    Report,
    figures::{median, rounded},
    journal::Phase,
    workbench::{Ran, Workbench},
};

const SUITE: &str = r#"date +%s.%N
od -An -N16 -tx1 /dev/urandom
for mark in /var/tmp/bench-mark /run/bench-mark; do
    test ! -e "$mark" || { echo "fork $(cat "$mark") was here"; exit 1; }
    echo {{ axes.fork }} >"$mark"
done
"#;
/// Maximum error of a guest's clock, in seconds.
const WRONG: f64 = 1.0;

pub(super) fn measure(bench: &Workbench, forks: usize) -> Result<Report, Failure> {
    eprintln!("bench: forks: {forks} forks in a row");
    let ran = bench.run(&bench.matrix("forks", &matrix(forks))?, "forks", &["--runner", "host", "--jobs", "1"])?;
    let mut told = Vec::new();
    for attempt in &ran.journal.attempts {
        let folder = format!("cells/{}/attempt-{}", attempt.cell, attempt.number);
        // A guest that never got so far has no output.
        let text = fs::read_to_string(ran.folder.join(folder).join("stdout.log")).unwrap_or_default();
        told.extend(attempt.phase("test").zip(Output::read(&text)).map(|(suite, told)| (suite.clone(), told)));
    }
    Ok(report(forks, &ran, &told))
}

fn matrix(forks: usize) -> String {
    let numbers = super::workbench::numbers(forks);
    format!(
        r#"images = ["debian-12-minimal"]

[guest]
disk = "4GiB"

[axes]
fork = [{numbers}]

[[suite]]
name = "twins"
inline = '''
{SUITE}'''
"#
    )
}

/// The output of a fork.
#[derive(Clone, Debug, PartialEq)]
struct Output {
    /// Seconds since 1970.
    clock: f64,
    random: String,
}

impl Output {
    fn read(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let clock = lines.next()?.trim().parse().ok()?;
        let random: String = lines.next()?.split_whitespace().collect();
        (random.len() == 32).then_some(Self { clock, random })
    }
}

/// Minimum error of its clock: it showed a time before the suite began, or after it had ended.
fn min_clock_error(suite: &Phase, clock: f64) -> f64 {
    let end = suite.finished.unwrap_or(f64::INFINITY);
    (suite.started - clock).max(clock - end).max(0.0)
}

/// Maximum error of a clock that showed `clock` while a suite ran.
fn off(suite: &Phase, clock: f64) -> f64 {
    let end = suite.finished.unwrap_or(f64::INFINITY);
    (clock - suite.started).abs().max((end - clock).abs())
}

fn report(forks: usize, ran: &Ran, told: &[(Phase, Output)]) -> Report {
    let journal = &ran.journal;
    let passed = journal.verdicts.values().filter(|verdict| *verdict == "passed").count();
    let forked = journal.attempts.iter().filter(|attempt| attempt.is_forked()).count();
    let worst = told.iter().map(|(suite, told)| off(suite, told.clock)).fold(0.0, f64::max);
    let surely = told.iter().map(|(suite, told)| min_clock_error(suite, told.clock)).fold(0.0, f64::max);
    let distinct = told.iter().map(|(_, told)| told.random.as_str()).collect::<BTreeSet<_>>().len();
    let failures = forks.saturating_sub(passed);
    let cell = median(journal.attempts.iter().filter_map(super::journal::Attempt::took));
    let text = format!(
        "failures            {failures} of {forks}\n\
         forked              {forked} of {} guests\n\
         clocks              off by at most {worst:.2} s, one surely by {surely:.2} s\n\
         random numbers      {distinct} different ones of {}\n\
         wall time           {:.1} s, {cell:.2} s per cell (median)\n",
        journal.attempts.len(),
        told.len(),
        ran.wall,
    );
    let json = json!({
        "forks": forks, "failures": failures, "forked": forked, "guests": journal.attempts.len(),
        "clock_off_at_most": rounded(worst), "clock_off_at_least": rounded(surely), "distinct_random": distinct, "told": told.len(),
        "wall": rounded(ran.wall), "cell": rounded(cell),
    });
    let mut broken = Vec::new();
    let mut must = |holds: bool, else_: String| broken.extend((!holds).then_some(else_));
    must(failures == 0, format!("{failures} of {forks} cells did not pass"));
    must(forked >= forks, format!("only {forked} of {forks} guests were forked: {}", journal.reasons().join("; ")));
    must(distinct >= forks, format!("only {distinct} different random numbers of {forks}"));
    must(surely < WRONG, format!("a clock is off by {surely:.2} s at least"));
    let undecided = surely < WRONG && worst >= WRONG;
    must(!undecided, format!("a clock may be off by {worst:.2} s: its suite took too long to tell (a busy machine?)"));
    Report { text, json, broken }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::journal::{Attempt, Guest, Journal};

    fn ran(forks: usize) -> Ran {
        let attempts = (0..forks).map(|number| Attempt {
            cell: number.to_string(),
            number: 1,
            started: 0.0,
            finished: Some(2.5),
            phases: Vec::new(),
            guest: Some(Guest { pid: 1, forked: true, reason: None }),
        });
        let verdicts = (0..forks).map(|number| (number.to_string(), "passed".to_owned())).collect();
        let journal = Journal { attempts: attempts.collect(), verdicts, ..Journal::default() };
        Ran { folder: "run".into(), wall: 6.0, journal }
    }

    fn told(clock: f64, random: &str) -> (Phase, Output) {
        (Phase::over("test", 100.0, 100.25), Output { clock, random: random.to_owned() })
    }

    #[test]
    fn a_fork_tells_its_time_and_a_random_number_of_sixteen_bytes() {
        let random = " 9c 00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee";
        assert_eq!(
            Output::read(&format!("1795545208.5\n{random}\n")),
            Some(Output { clock: 1_795_545_208.5, random: random.replace(' ', "") })
        );
        for text in ["", "1795545208.5\n", "1795545208.5\n 9c 00\n", &format!("noon\n{random}\n")] {
            assert_eq!(Output::read(text), None, "{text}");
        }
    }

    #[test]
    fn the_same_number_twice_or_a_wrong_clock_or_a_failure_does_not_hold() {
        let good = report(2, &ran(2), &[told(100.125, "a"), told(100.0, "b")]);
        assert_eq!(good.broken, Vec::<String>::new());
        assert_eq!(
            good.text,
            "failures            0 of 2\n\
             forked              2 of 2 guests\n\
             clocks              off by at most 0.25 s, one surely by 0.00 s\n\
             random numbers      2 different ones of 2\n\
             wall time           6.0 s, 2.50 s per cell (median)\n"
        );
        let broken = |forks, told: &[_]| report(forks, &ran(2), told).broken.join("\n");
        assert_eq!(broken(2, &[told(100.0, "a"), told(100.0, "a")]), "only 1 different random numbers of 2");
        assert!(broken(2, &[told(99.2, "a"), told(100.0, "b")]).starts_with("a clock may be off by 1.05 s"));
        assert_eq!(broken(2, &[told(98.5, "a"), told(100.0, "b")]), "a clock is off by 1.50 s at least");
        assert!(broken(3, &[told(100.0, "a"), told(100.0, "b")]).starts_with("1 of 3 cells did not pass\nonly 2 of 3"));
    }

    #[test]
    fn the_matrix_is_one_axis_of_numbers() {
        assert!(matrix(3).contains("\nfork = [1, 2, 3]\n"));
    }
}
