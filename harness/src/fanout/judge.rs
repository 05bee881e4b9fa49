//! From how a script ended, and from test cases, to verdicts. Pure.

use std::time::Duration;

use reports::{CaseVerdict, Phase, TestCase, Verdict};

use crate::payload::{SuiteOutcome, SuiteRun};

/// What the end of a script means.
pub(super) fn case_verdict(run: &SuiteRun, limit: Duration, speed: f64) -> CaseVerdict {
    let failed = |message: String| {
        let mut detail = tail_text(&run.stderr_tail);
        if detail.is_empty() {
            detail = tail_text(&run.stdout_tail);
        }
        CaseVerdict::Failed { message, detail }
    };
    match &run.outcome {
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
    }
}

/// The last 40 lines of a stream, cleaned.
fn tail_text(bytes: &[u8]) -> String {
    let text = reports::clean::text(&String::from_utf8_lossy(bytes));
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// A cell is as good as its worst test case.
pub(super) fn verdict_of(cases: &[TestCase]) -> Verdict {
    let failed: Vec<&TestCase> =
        cases.iter().filter(|case| matches!(case.verdict, CaseVerdict::Failed { .. })).collect();
    if let Some(CaseVerdict::Failed { message, .. }) = failed.first().map(|case| &case.verdict) {
        let reason = match failed.len() {
            1 => message.clone(),
            several => format!("{several} test cases failed; first: {}: {message}", failed[0].name),
        };
        return Verdict::Failed { phase: Phase::Test, reason };
    }
    if cases.iter().any(|case| case.verdict == CaseVerdict::Passed) {
        return Verdict::Passed;
    }
    match cases.first().map(|case| &case.verdict) {
        Some(CaseVerdict::Skipped { reason }) => Verdict::Skipped { reason: reason.clone() },
        _ => Verdict::Error { phase: Phase::Collect, reason: "the suite reported no test case".into() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let verdict = |outcome| case_verdict(&run(outcome, "", ""), Duration::from_secs(60), 2.0);
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
                CaseVerdict::Failed { detail, .. } => detail,
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
}
