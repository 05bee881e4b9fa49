//! `many`: many guests at the same time, forked from one template, in far less memory than they have.

use std::time::Duration;

use serde_json::json;

use crate::failure::Failure;

use super::{
    Report,
    figures::{median, rounded},
    journal::{Journal, mib},
    memory::{self, Memory},
    workbench::{Ran, Workbench},
};

/// Memory of all guests together.
const BUDGET: &str = "8GiB";
/// Minimum time that all of them run together.
const STAY: Duration = Duration::from_secs(20);
/// Reading a process's memory makes the kernel walk all pages of the guest, so it is done seldom.
const LOOKS: u32 = 8;

pub(super) fn measure(bench: &Workbench, guests: usize) -> Result<Report, Failure> {
    eprintln!("bench: many: a first guest; it makes the template if there is none");
    let one = bench.run(&bench.matrix("many-first", &matrix(1, 0))?, "many-first", &["--runner", "host"])?;
    let alone = one.only()?.took().unwrap_or_default();
    // They start one after the other if one needs all CPUs; the first waits for the last.
    let sleep = (STAY + Duration::from_secs_f64(alone * guests as f64)).as_secs();
    eprintln!("bench: many: {guests} guests that stay up {sleep} s");
    let (mut memory, mut looks) = (Vec::new(), 0_u32);
    let path = bench.matrix("many", &matrix(guests, sleep))?;
    let ran = bench.run_watched(&path, "many", &["--runner", "host"], |journal| {
        if looks.is_multiple_of(LOOKS) {
            let now: Vec<Memory> =
                journal.in_suite().filter_map(|attempt| memory::of(attempt.guest.as_ref()?.pid)).collect();
            // The last sample with the most guests: they have touched the most memory by then.
            if now.len() >= memory.len() {
                memory = now;
            }
        }
        looks = looks.wrapping_add(1);
    })?;
    Ok(report(guests, &ran, &memory))
}

fn matrix(guests: usize, sleep: u64) -> String {
    let numbers = super::workbench::numbers(guests);
    format!(
        r#"images = ["debian-12-minimal"]

[runner]
memory = "{BUDGET}"
cpus = {guests}

[guest]
cpus = 1
memory = "512MiB"
disk = "4GiB"

[axes]
guest = [{numbers}]

[[suite]]
name = "stay"
inline = "sleep {sleep}"
"#
    )
}

fn report(guests: usize, ran: &Ran, memory: &[Memory]) -> Report {
    let journal = &ran.journal;
    let at_once = journal.most_in_suite();
    let kib = |of: fn(&Memory) -> u64| memory.iter().map(move |memory| of(memory) as f64 / 1024.0);
    let (anonymous, pss, sum) = (
        median(kib(|memory| memory.anonymous)),
        median(kib(|memory| memory.pss)),
        kib(|memory| memory.pss).sum::<f64>(),
    );
    let passed = journal.verdicts.values().filter(|verdict| *verdict == "passed").count();
    let forked = journal.attempts.iter().filter(|attempt| attempt.is_forked()).count();
    let (budget, cpus) = journal.budget.unwrap_or_default();
    let text = format!(
        "guests at once      {at_once} of {guests}\n\
         passed              {passed}\n\
         forked              {forked} of {}\n\
         budget              {} MiB, {cpus} CPUs\n\
         per further guest   {anonymous:.0} MiB of its own (Anonymous), {pss:.0} MiB with its share (Pss); medians of {}\n\
         all of them         {sum:.0} MiB (sum of Pss)\n\
         wall time           {:.1} s\n",
        journal.attempts.len(),
        mib(budget),
        memory.len(),
        ran.wall,
    );
    let json = json!({
        "guests": guests, "at_once": at_once, "passed": passed, "forked": forked,
        "budget_mib": mib(budget), "budget_cpus": cpus,
        "measured": memory.len(), "anonymous_mib": rounded(anonymous), "pss_mib": rounded(pss), "pss_sum_mib": rounded(sum),
        "wall": rounded(ran.wall),
    });
    Report { text, json, broken: broken(guests, journal, passed, memory.len()) }
}

fn broken(guests: usize, journal: &Journal, passed: usize, measured: usize) -> Vec<String> {
    let mut broken = Vec::new();
    if journal.most_in_suite() != guests {
        broken.push(format!("only {} of {guests} guests were up at once", journal.most_in_suite()));
        broken.extend(journal.reasons().into_iter().map(|reason| format!("a guest was booted: {reason}")));
    }
    let forked = journal.attempts.iter().filter(|attempt| attempt.is_forked()).count();
    if forked != guests {
        broken.push(format!("{forked} of {guests} guests were forked"));
    }
    if passed != guests {
        broken.push(format!("only {passed} of {guests} cells passed"));
    }
    if measured != guests {
        broken.push(format!("the memory of only {measured} of {guests} guests was seen"));
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::journal::{Attempt, Guest, Phase};

    fn ran(spans: &[(f64, f64)]) -> Ran {
        let attempts = spans.iter().enumerate().map(|(number, (started, finished))| Attempt {
            cell: number.to_string(),
            number: 1,
            started: 0.0,
            finished: Some(*finished),
            phases: vec![Phase::over("test", *started, *finished)],
            guest: Some(Guest { pid: 1, forked: true, reason: None }),
        });
        let verdicts = (0..spans.len()).map(|number| (number.to_string(), "passed".to_owned())).collect();
        let journal =
            Journal { attempts: attempts.collect(), verdicts, budget: Some((8 << 30, 32)), ..Journal::default() };
        Ran { folder: "run".into(), wall: 65.25, journal }
    }

    #[test]
    fn all_are_up_at_once_or_it_does_not_hold() {
        let memory = [Memory { anonymous: 90 << 10, pss: 100 << 10 }, Memory { anonymous: 92 << 10, pss: 104 << 10 }];
        let good = report(2, &ran(&[(1.0, 5.0), (4.0, 9.0)]), &memory);
        assert_eq!(good.broken, Vec::<String>::new());
        assert_eq!(
            good.text,
            "guests at once      2 of 2\n\
             passed              2\n\
             forked              2 of 2\n\
             budget              8192 MiB, 32 CPUs\n\
             per further guest   91 MiB of its own (Anonymous), 102 MiB with its share (Pss); medians of 2\n\
             all of them         204 MiB (sum of Pss)\n\
             wall time           65.2 s\n"
        );
        assert_eq!(good.json["pss_sum_mib"], 204.0);
        let bad = report(2, &ran(&[(1.0, 4.0), (4.0, 9.0)]), &memory[..1]);
        assert_eq!(bad.broken, ["only 1 of 2 guests were up at once", "the memory of only 1 of 2 guests was seen"]);
        let two = report(3, &ran(&[(1.0, 5.0), (4.0, 9.0)]), &memory);
        assert_eq!(two.broken[1..3], ["2 of 3 guests were forked", "only 2 of 3 cells passed"]);
    }
}
