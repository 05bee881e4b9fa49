//! From how a script ended, and from test cases, to verdicts. Pure.

use std::time::Duration;

use reports::{CaseVerdict, Ending, Phase, TestCase, Trouble, TroubleKind};

use crate::payload::{SuiteOutcome, SuiteRun};

/// A suite that could not be started says nothing about what it tests.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotStarted {
    /// What was in the way.
    pub(super) reason: String,
    /// What to do about it.
    pub(super) help: &'static str,
}

/// What the end of a script means.
pub(super) fn case_verdict(run: &SuiteRun, limit: Duration, speed: f64) -> Result<CaseVerdict, NotStarted> {
    let failed = |message: String| {
        let mut detail = tail_text(&run.stderr_tail);
        if detail.is_empty() {
            detail = tail_text(&run.stdout_tail);
        }
        CaseVerdict::Failed { message, detail }
    };
    Ok(match &run.outcome {
        SuiteOutcome::NotStarted { reason, help } => return Err(NotStarted { reason: reason.clone(), help }),
        SuiteOutcome::Exited(0) => CaseVerdict::Passed,
        SuiteOutcome::Exited(code) => failed(format!("the script exited with {code}")),
        SuiteOutcome::Skipped { reason } => CaseVerdict::Skipped { reason: reason.clone() },
        SuiteOutcome::Signal(name) => failed(format!("the script was killed by SIG{name}")),
        SuiteOutcome::TimedOut { leftovers } => {
            let scale = if speed > 1.0 { format!(" (scaled by {speed} on this machine)") } else { String::new() };
            let rest = if *leftovers { "; processes it started could not be ended" } else { "" };
            failed(format!(
                "the script ran past its time limit of {:.0} s{scale} and was killed{rest}",
                limit.as_secs_f64()
            ))
        }
    })
}

/// The last 40 lines of a stream, cleaned.
fn tail_text(bytes: &[u8]) -> String {
    let text = reports::clean::text(&String::from_utf8_lossy(bytes));
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// What a suite's own results tell.
#[derive(Debug, Default)]
pub(super) struct ImportedResults {
    /// How many files of results there are.
    pub(super) files: usize,
    /// The test cases of those that can be read.
    pub(super) cases: Vec<TestCase>,
    /// Why one of them cannot be read.
    pub(super) unreadable: Option<String>,
    /// What of them did not come, or not whole.
    pub(super) missing: Option<String>,
}

impl ImportedResults {
    /// One of the test cases has failed.
    pub(super) fn is_red(&self) -> bool {
        self.cases.iter().any(is_red)
    }
}

/// It has failed.
pub(super) fn is_red(case: &TestCase) -> bool {
    matches!(case.verdict, CaseVerdict::Failed { .. })
}

/// What a suite with results of its own came to.
#[derive(Debug, PartialEq)]
pub(super) struct Judged {
    /// Its test cases.
    pub(super) cases: Vec<TestCase>,
    /// What is said of the cell instead of what its cases tell.
    pub(super) instead: Option<Trouble>,
    /// What is wrong with the results of a cell that its cases tell enough of.
    pub(super) warning: Option<String>,
}

/// What a suite came to. Test cases of its own have names of their own beside it.
pub(super) fn judged(suite: &str, exit: TestCase, told: Option<ImportedResults>) -> Judged {
    let Some(mut told) = told else { return Judged { cases: vec![exit], instead: None, warning: None } };
    let mut names = reports::UniqueNames::default();
    names.take(suite.to_owned());
    for case in &mut told.cases {
        case.name = names.take(std::mem::take(&mut case.name));
    }
    with_results(exit, told)
}

/// Puts the exit code of a suite beside its results.
///
/// A failure counts wherever it is reported. What cannot be read or did not come may tell of a failure: without another one it is no pass and no
/// skip.
fn with_results(exit: TestCase, told: ImportedResults) -> Judged {
    let found = told.is_red();
    let ImportedResults { files, mut cases, unreadable, missing } = told;
    let is_skip = matches!(exit.verdict, CaseVerdict::Skipped { .. });
    let failed = |reason: &str| {
        Trouble::new(TroubleKind::ResultsMissing, Phase::Collect, reason)
            .with_help("the suite declares `results`: it must leave JUnit XML there even when a test fails")
    };
    // A suite that chose not to run leaves none.
    let mut no_wonder = false;
    let trouble = match (missing, unreadable) {
        (Some(why), _) => Some(Trouble::new(
            TroubleKind::ResultsUnreadable,
            Phase::Collect,
            format!("not all of the suite's results could be fetched: {why}"),
        )),
        (None, Some(why)) => Some(failed(&why)),
        (None, None) if cases.is_empty() => {
            no_wonder = is_skip;
            Some(failed(match files {
                0 => "the suite left no results where the matrix says they are",
                _ => "the results the suite left name no test case",
            }))
        }
        (None, None) => None,
    };
    // Where the results tell of a failure, or of all that went well, the exit code adds nothing.
    let adds = !found && (exit.verdict != CaseVerdict::Passed || trouble.is_some());
    let decided = found || is_red(&exit) || no_wonder;
    if adds {
        cases.push(exit);
    }
    match trouble {
        Some(trouble) if !decided => Judged { cases, instead: Some(trouble), warning: None },
        trouble => Judged { cases, instead: None, warning: trouble.map(|trouble| trouble.reason) },
    }
}

/// A cell is as good as its worst test case.
pub(super) fn ending_of(cases: &[TestCase]) -> Ending {
    let failed: Vec<&TestCase> = cases.iter().filter(|case| is_red(case)).collect();
    if let Some(CaseVerdict::Failed { message, .. }) = failed.first().map(|case| &case.verdict) {
        let reason = match failed.len() {
            1 => message.clone(),
            several => format!("{several} test cases failed; first: {}: {message}", failed[0].name),
        };
        return Ending::Troubled(Trouble::new(TroubleKind::TestFailed, Phase::Test, reason));
    }
    if cases.iter().any(|case| case.verdict == CaseVerdict::Passed) {
        return Ending::Passed;
    }
    match cases.first().map(|case| &case.verdict) {
        Some(CaseVerdict::Skipped { reason }) => Ending::Skipped { reason: reason.clone() },
        _ => {
            let reason = "the suite reported no test case";
            Ending::Troubled(Trouble::new(TroubleKind::ResultsUnreadable, Phase::Collect, reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use reports::Verdict;

    use super::*;

    fn verdict_of(cases: &[TestCase]) -> Verdict {
        ending_of(cases).verdict()
    }

    fn run(outcome: SuiteOutcome, stdout: &str, stderr: &str) -> SuiteRun {
        SuiteRun {
            outcome,
            elapsed: Duration::ZERO,
            stdout_tail: stdout.into(),
            stderr_tail: stderr.into(),
            stdout_bytes: 0,
            stderr_bytes: 0,
            warnings: Vec::new(),
        }
    }

    fn case(verdict: CaseVerdict) -> TestCase {
        TestCase { name: "case".into(), verdict, elapsed_ms: 0, file: None, line: None }
    }

    fn failed(message: &str) -> CaseVerdict {
        CaseVerdict::Failed { message: message.into(), detail: String::new() }
    }

    #[test]
    fn only_exit_code_0_is_a_pass() {
        let verdict = |outcome| case_verdict(&run(outcome, "", ""), Duration::from_secs(60), 2.0).unwrap();
        assert_eq!(verdict(SuiteOutcome::Exited(0)), CaseVerdict::Passed);
        assert_eq!(verdict(SuiteOutcome::Exited(-1)), failed("the script exited with -1"));
        assert_eq!(verdict(SuiteOutcome::Signal("SEGV".into())), failed("the script was killed by SIGSEGV"));
        assert_eq!(
            verdict(SuiteOutcome::TimedOut { leftovers: true }),
            failed(
                "the script ran past its time limit of 60 s (scaled by 2 on this machine) and was killed; processes it \
                 started could not be ended"
            )
        );
        let skipped = CaseVerdict::Skipped { reason: "no such hardware".into() };
        assert_eq!(verdict(SuiteOutcome::Skipped { reason: "no such hardware".into() }), skipped);
    }

    #[test]
    fn a_failure_shows_what_was_said_on_stderr_or_else_on_stdout() {
        let detail =
            |stdout, stderr| match case_verdict(&run(SuiteOutcome::Exited(1), stdout, stderr), Duration::ZERO, 1.0) {
                Ok(CaseVerdict::Failed { detail, .. }) => detail,
                other => panic!("{other:?}"),
            };
        assert_eq!(detail("out", "\u{1b}[31merr\u{1b}[0m\n"), "err");
        assert_eq!(detail("out\n", ""), "out");
    }

    #[test]
    fn a_cell_is_as_good_as_its_worst_case_and_skipped_only_if_nothing_ran() {
        let skipped = || case(CaseVerdict::Skipped { reason: "why".into() });
        let passed = || case(CaseVerdict::Passed);
        let red = Verdict::Failed { phase: Phase::Test, reason: "boom".into() };
        assert_eq!(verdict_of(&[passed(), case(failed("boom")), skipped()]), red);
        assert_eq!(verdict_of(&[passed(), skipped()]), Verdict::Passed);
        assert_eq!(verdict_of(&[skipped()]), Verdict::Skipped { reason: "why".into() });
        let several = verdict_of(&[case(failed("boom")), case(failed("bang"))]);
        assert_eq!(several.reason(), Some("2 test cases failed; first: case: boom"));
        assert!(matches!(verdict_of(&[]), Verdict::Error { .. }), "silence is not green");
    }

    fn told(cases: Vec<TestCase>) -> ImportedResults {
        ImportedResults { files: 1, cases, ..ImportedResults::default() }
    }

    fn skip() -> TestCase {
        case(CaseVerdict::Skipped { reason: "no printer".into() })
    }

    #[test]
    fn results_speak_for_the_suite_and_its_exit_code_adds_what_they_do_not_tell() {
        let names = |exit, cases: &[CaseVerdict]| {
            let cases =
                cases.iter().map(|verdict| TestCase { name: "result".into(), ..case(verdict.clone()) }).collect();
            let exit = TestCase { name: "exit".into(), ..case(exit) };
            let judged = with_results(exit, told(cases));
            assert_eq!((judged.instead, judged.warning), (None, None));
            (judged.cases.iter().map(|case| case.name.clone()).collect::<Vec<_>>().join(" "), verdict_of(&judged.cases))
        };
        let red = |message: &str| Verdict::Failed { phase: Phase::Test, reason: message.to_owned() };
        let passed = || CaseVerdict::Passed;
        assert_eq!(names(passed(), &[passed()]), ("result".into(), Verdict::Passed));
        assert_eq!(names(passed(), &[failed("boom")]), ("result".into(), red("boom")));
        assert_eq!(names(failed("exited with 1"), &[failed("boom")]), ("result".into(), red("boom")));
        assert_eq!(names(failed("exited with 1"), &[passed()]), ("result exit".into(), red("exited with 1")));
        assert_eq!(names(skip().verdict, &[failed("boom")]), ("result".into(), red("boom")));
        let skipped = Verdict::Skipped { reason: "no printer".into() };
        assert_eq!(names(passed(), &[skip().verdict]), ("result".into(), skipped));
    }

    #[test]
    fn a_suite_that_chose_not_to_run_needs_no_results() {
        for files in [0, 1] {
            let judged = with_results(skip(), ImportedResults { files, ..ImportedResults::default() });
            assert_eq!((judged.cases, judged.instead), (vec![skip()], None));
        }
    }

    #[test]
    fn only_results_that_are_there_whole_and_good_make_a_cell_green() {
        let some = |is: bool| is.then(|| "why".to_owned());
        let cases = [
            vec![],
            vec![case(CaseVerdict::Passed)],
            vec![skip()],
            vec![case(CaseVerdict::Passed), case(failed("boom"))],
        ];
        for exit in [CaseVerdict::Passed, skip().verdict, failed("exited with 1")] {
            for cases in &cases {
                for (files, unreadable, missing) in [
                    (0, false, false),
                    (0, false, true),
                    (1, false, false),
                    (2, true, false),
                    (2, false, true),
                    (2, true, true),
                ] {
                    if files == 0 && !cases.is_empty() || files == 1 && unreadable {
                        continue;
                    }
                    let all = ImportedResults {
                        files,
                        cases: cases.clone(),
                        unreadable: some(unreadable),
                        missing: some(missing),
                    };
                    let what = format!("{exit:?} {all:?}");
                    let judged = with_results(case(exit.clone()), all);
                    let verdict = judged.instead.as_ref().map_or_else(|| verdict_of(&judged.cases), Trouble::verdict);
                    let is_red = |verdict: &CaseVerdict| matches!(verdict, CaseVerdict::Failed { .. });
                    let bad = is_red(&exit) || cases.iter().any(|case| is_red(&case.verdict));
                    let unknown = unreadable || missing || cases.is_empty() && exit == CaseVerdict::Passed;
                    let green = matches!(verdict, Verdict::Passed | Verdict::Skipped { .. });
                    assert_eq!(green, !bad && !unknown, "{what}: {verdict:?}");
                    assert_eq!(matches!(verdict, Verdict::Error { .. }), !bad && missing, "{what}: {verdict:?}");
                    assert!(
                        judged.instead.is_some() || judged.warning.is_some() || !unknown,
                        "{what}: nothing is said"
                    );
                }
            }
        }
    }

    #[test]
    fn a_suite_that_could_not_be_started_is_neither_a_pass_nor_a_failure() {
        let outcome =
            SuiteOutcome::NotStarted { reason: "interpreter x is not in the guest".into(), help: "install it" };
        let judged = case_verdict(&run(outcome, "", ""), Duration::from_secs(60), 1.0);
        assert_eq!(judged.unwrap_err().reason, "interpreter x is not in the guest");
    }
}
