//! Reads a run's journal, `events.jsonl`, for benchmarks.
//!
//! The events are defined in `reports/src/event.rs`, which this crate must not depend on: building it takes too long.

use std::collections::BTreeMap;

use serde_json::Value;

/// A run as far as its journal goes. Times of day are seconds since 1970, all durations seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Journal {
    /// In the order they started.
    pub(super) attempts: Vec<Attempt>,
    /// Cell -> verdict, with its phase where it has one: `failed(test)`.
    pub(super) verdicts: BTreeMap<String, String>,
    /// The limits of all guests together: bytes and CPUs.
    pub(super) budget: Option<(u64, u64)>,
    /// The templates, one line each.
    pub(super) templates: Vec<String>,
}

/// A cell tried on a guest.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Attempt {
    pub(super) cell: String,
    /// From 1.
    pub(super) number: u64,
    pub(super) started: f64,
    /// `None`: not yet.
    pub(super) finished: Option<f64>,
    pub(super) phases: Vec<Phase>,
    pub(super) guest: Option<Guest>,
}

/// A phase of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Phase {
    pub(super) name: String,
    pub(super) started: f64,
    /// `None`: not yet.
    pub(super) finished: Option<f64>,
    /// As nestmatrix measured it.
    took: Option<f64>,
}

/// The guest of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Guest {
    /// Of its QEMU.
    pub(super) pid: u32,
    /// Forked; else booted.
    pub(super) forked: bool,
    /// Why it was booted, if a fork was wanted.
    pub(super) reason: Option<String>,
}

#[cfg(test)]
impl Phase {
    /// One that is over.
    pub(super) fn over(name: &str, started: f64, finished: f64) -> Self {
        Self { name: name.to_owned(), started, finished: Some(finished), took: Some(finished - started) }
    }
}

impl Attempt {
    /// From the start of the fork, or of QEMU, to the end of a first `true` over SSH.
    pub(super) fn until_true(&self) -> Option<f64> {
        let took = |name| self.phase(name)?.took;
        // A fork does not boot.
        Some(took("runner")? + took("boot").unwrap_or(0.0) + took("connect")?)
    }

    /// All of it.
    pub(super) fn took(&self) -> Option<f64> {
        Some(self.finished? - self.started)
    }

    /// A phase it entered.
    pub(super) fn phase(&self, name: &str) -> Option<&Phase> {
        self.phases.iter().find(|phase| phase.name == name)
    }

    /// Its guest was forked.
    pub(super) fn is_forked(&self) -> bool {
        self.guest.as_ref().is_some_and(|guest| guest.forked)
    }
}

impl Journal {
    /// The journal of a run, possibly in progress: a last line without its end is ignored. Errors name the line.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let mut journal = Self::default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for (number, line) in whole.lines().enumerate() {
            let bad = |what: &str| format!("line {}: {what}", number + 1);
            let event: Value = serde_json::from_str(line).map_err(|error| bad(&error.to_string()))?;
            journal.enter(&event).ok_or_else(|| bad("an event that lacks something"))?;
        }
        Ok(journal)
    }

    /// `None`: the event, or an earlier one, lacks something.
    fn enter(&mut self, event: &Value) -> Option<()> {
        let at = moment(event["at"].as_str()?)?;
        match event["event"].as_str()? {
            "runner-ready" => {
                let runner = &event["runner"];
                self.budget = Some((runner["memory"].as_u64()?, runner["cpus"].as_u64()?));
            }
            "template-ready" => {
                let (how, took) = (event["cached"].as_bool()?, seconds(&event["elapsed_ms"])?);
                let cost = mib(event["cost"].as_u64()?);
                let how = if how { "was there" } else { "was made" };
                self.templates
                    .push(format!("a template {how} after {took:.1} s; a fork is expected to take {cost} MiB"));
            }
            "template-failed" => self.templates.push(format!("no template: {}", event["reason"].as_str()?)),
            "attempt-started" => self.attempts.push(Attempt {
                cell: event["cell"].as_str()?.to_owned(),
                number: event["attempt"].as_u64()?,
                started: at,
                finished: None,
                phases: Vec::new(),
                guest: None,
            }),
            "attempt-finished" => self.attempt(event)?.finished = Some(at),
            "phase-started" => {
                let name = event["phase"].as_str()?.to_owned();
                self.attempt(event)?.phases.push(Phase { name, started: at, finished: None, took: None });
            }
            "phase-finished" => {
                let name = event["phase"].as_str()?;
                let phase = self.attempt(event)?.phases.iter_mut().rfind(|phase| phase.name == name)?;
                (phase.finished, phase.took) = (Some(at), Some(seconds(&event["elapsed_ms"])?));
            }
            "guest-started" => {
                let (pid, boot) = (event["guest"]["pid"].as_u64()?, &event["guest"]["boot"]);
                let guest = Guest {
                    pid: pid.try_into().ok()?,
                    forked: boot["how"].as_str()? == "forked",
                    reason: boot["reason"].as_str().map(str::to_owned),
                };
                self.attempt(event)?.guest = Some(guest);
            }
            "cell-finished" => {
                let mut verdict = event["verdict"].as_str()?.to_owned();
                if let Some(phase) = event["phase"].as_str() {
                    verdict = format!("{verdict}({phase})");
                }
                self.verdicts.insert(event["cell"].as_str()?.to_owned(), verdict);
            }
            _ => {}
        }
        Some(())
    }

    fn attempt(&mut self, event: &Value) -> Option<&mut Attempt> {
        let (cell, number) = (event["cell"].as_str()?, event["attempt"].as_u64()?);
        self.attempts.iter_mut().rfind(|attempt| (attempt.cell.as_str(), attempt.number) == (cell, number))
    }

    /// Attempts whose suite is running at the end of the journal.
    pub(super) fn in_suite(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().filter(|attempt| attempt.phase("test").is_some_and(|phase| phase.finished.is_none()))
    }

    /// Maximum number of suites that ran at the same time.
    pub(super) fn most_in_suite(&self) -> usize {
        let suites = self.attempts.iter().filter_map(|attempt| attempt.phase("test"));
        let mut changes: Vec<(f64, i32)> =
            suites.flat_map(|phase| [(phase.started, 1), (phase.finished.unwrap_or(f64::INFINITY), -1)]).collect();
        // At equal times the end comes first.
        changes.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        let running = changes.iter().scan(0, |running, (_, change)| {
            *running += change;
            Some(*running)
        });
        running.max().and_then(|most| most.try_into().ok()).unwrap_or(0)
    }

    /// Why guests were booted, each reason once.
    pub(super) fn reasons(&self) -> Vec<&str> {
        let mut reasons: Vec<&str> =
            self.attempts.iter().filter_map(|attempt| attempt.guest.as_ref()?.reason.as_deref()).collect();
        reasons.sort_unstable();
        reasons.dedup();
        reasons
    }
}

/// Bytes as mebibytes, rounded.
pub(super) const fn mib(bytes: u64) -> u64 {
    (bytes + (1 << 19)) >> 20
}

fn seconds(ms: &Value) -> Option<f64> {
    Some(ms.as_f64()? / 1000.0)
}

/// Seconds since 1970 of `2026-11-24T18:33:15.361135722Z`; the fraction may be absent.
fn moment(text: &str) -> Option<f64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.splitn(3, ':').map(|part| part.parse::<f64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    // Days since 1970 in the Gregorian calendar; the year begins in March, so that a leap day is its last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let day = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some(day as f64 * 86_400.0 + hour * 3600.0 + minute * 60.0 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORK: &str = r#"{"at":"2026-11-24T18:33:15Z","event":"runner-ready","runner":{"memory":8589934592,"cpus":32}}
{"at":"2026-11-24T18:33:15.1Z","event":"template-ready","runner":1,"template":"sha256:1","cached":true,"elapsed_ms":90,"cost":73400320}
{"at":"2026-11-24T18:33:15.25Z","event":"attempt-started","cell":"a","attempt":1}
{"at":"2026-11-24T18:33:15.25Z","event":"phase-started","cell":"a","attempt":1,"phase":"runner","timeout_ms":null}
{"at":"2026-11-24T18:33:15.5Z","event":"guest-started","cell":"a","attempt":1,"guest":{"pid":7,"boot":{"how":"forked","template":"sha256:1"}}}
{"at":"2026-11-24T18:33:15.5Z","event":"phase-finished","cell":"a","attempt":1,"phase":"runner","elapsed_ms":250}
{"at":"2026-11-24T18:33:15.5Z","event":"phase-started","cell":"a","attempt":1,"phase":"connect","timeout_ms":1}
{"at":"2026-11-24T18:33:16Z","event":"phase-finished","cell":"a","attempt":1,"phase":"connect","elapsed_ms":500}
{"at":"2026-11-24T18:33:16Z","event":"phase-started","cell":"a","attempt":1,"phase":"test","timeout_ms":1}
{"at":"2026-11-24T18:33:17Z","event":"phase-finished","cell":"a","attempt":1,"phase":"test","elapsed_ms":1000}
{"at":"2026-11-24T18:33:17.25Z","event":"attempt-finished","cell":"a","attempt":1,"verdict":"passed","retried":false}
{"at":"2026-11-24T18:33:17.25Z","event":"cell-finished","cell":"a","verdict":"passed"}
{"at":"2026-11-24T18:33:17.25Z","event":"something-new"}
"#;

    #[test]
    fn a_fork_is_there_when_a_first_command_has_ended() {
        let journal = Journal::read(FORK).expect("it is a journal");
        let [attempt] = &journal.attempts[..] else { panic!("{journal:?}") };
        assert!(attempt.is_forked());
        assert_eq!(attempt.until_true(), Some(0.75));
        assert_eq!(attempt.took(), Some(2.0));
        assert_eq!(journal.budget, Some((8 << 30, 32)));
        assert_eq!(journal.verdicts["a"], "passed");
        assert_eq!(journal.templates, ["a template was there after 0.1 s; a fork is expected to take 70 MiB"]);
    }

    #[test]
    fn a_booted_guest_boots_before_it_is_connected_to_and_says_why_it_did() {
        let cold = FORK
            .replace(r#""how":"forked","template":"sha256:1""#, r#""how":"cold","reason":"no room""#)
            .replace(r#""phase":"test""#, r#""phase":"boot""#);
        let journal = Journal::read(&cold).expect("it is a journal");
        assert_eq!(journal.attempts[0].until_true(), Some(1.75));
        assert!(!journal.attempts[0].is_forked());
        assert_eq!(journal.reasons(), ["no room"]);
    }

    #[test]
    fn of_a_run_that_goes_on_only_whole_lines_count() {
        let end =
            FORK.find(r#""event":"phase-finished","cell":"a","attempt":1,"phase":"test""#).expect("it is in there");
        let journal = Journal::read(&FORK[..end]).expect("it is a journal");
        assert_eq!(journal.in_suite().count(), 1);
        assert_eq!(journal.attempts[0].took(), None);
        assert_eq!(Journal::read(FORK).expect("it is a journal").in_suite().count(), 0);
        assert_eq!(Journal::read("{\"at\":"), Ok(Journal::default()));
        assert!(Journal::read("nonsense\n").is_err_and(|error| error.starts_with("line 1: ")));
        assert!(Journal::read("{\"at\":\"2026-11-24T18:33:15Z\",\"event\":\"attempt-started\"}\n").is_err());
    }

    #[test]
    fn suites_that_follow_each_other_do_not_overlap() {
        let suites = |spans: &[(f64, Option<f64>)]| {
            let mut journal = Journal::read(FORK).expect("it is a journal");
            let model = journal.attempts.remove(0);
            for (started, finished) in spans {
                let phase = Phase { name: "test".into(), started: *started, finished: *finished, took: None };
                journal.attempts.push(Attempt { phases: vec![phase], ..model.clone() });
            }
            journal.most_in_suite()
        };
        assert_eq!(suites(&[]), 0);
        assert_eq!(suites(&[(1.0, Some(2.0)), (2.0, Some(3.0))]), 1);
        assert_eq!(suites(&[(1.0, Some(2.5)), (2.0, Some(3.0)), (2.6, None)]), 2);
        assert_eq!(suites(&[(1.0, None), (2.0, None), (0.0, Some(9.0))]), 3);
    }

    #[test]
    fn moments_are_those_of_the_calendar() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0.0),
            ("2000-02-29T12:00:00Z", 951_825_600.0),
            ("2024-03-01T00:00:00.5Z", 1_709_251_200.5),
            ("2026-11-24T18:33:29.25Z", 1_795_545_209.25),
        ] {
            assert_eq!(moment(text), Some(expected), "{text}");
        }
        assert_eq!(moment("2026-11-24"), None);
        assert_eq!(moment("yesterdayTnoonZ"), None);
    }
}
