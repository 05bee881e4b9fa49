//! `fork`: how much sooner a forked guest is ready than a booted one.

use serde_json::json;

use crate::failure::Failure;

use super::{
    Report,
    figures::Figures,
    workbench::{Ran, Workbench},
};

/// The ratios to reach. The first one is required until `true` has run: less is no reason to fork.
const GOALS: [f64; 2] = [10.0, 20.0];

const MATRIX: &str = r#"images = ["debian-12-minimal"]

[guest]
disk = "4GiB"

[[suite]]
name = "true"
inline = "true"
"#;

pub(super) fn measure(bench: &Workbench, pairs: usize) -> Result<Report, Failure> {
    let matrix = bench.matrix("fork", MATRIX)?;
    eprintln!("bench: fork: a first run that does not count; it makes the template if there is none");
    let first = bench.run(&matrix, "fork-first", &["--runner", "host"])?;
    let (mut until_true, mut whole, mut templates) = (Vec::new(), Vec::new(), first.journal.templates);
    for number in 1..=pairs {
        let warm = bench.run(&matrix, &format!("fork-{number}-warm"), &["--runner", "host"])?;
        let cold = bench.run(&matrix, &format!("fork-{number}-cold"), &["--runner", "host", "--cold"])?;
        let ([warm_true, warm_whole], [cold_true, cold_whole]) = (times(&warm, true)?, times(&cold, false)?);
        eprintln!("bench: fork: pair {number} of {pairs}: {cold_true:.2} s, {warm_true:.2} s until `true` had run");
        until_true.push([cold_true, warm_true]);
        // All of it is read and checked before the first fork, in every run.
        templates.extend(warm.journal.templates.iter().map(|line| format!("warm run {number}: {line}")));
        whole.push([cold_whole, warm_whole]);
    }
    Ok(report(&Figures(until_true), &Figures(whole), &templates))
}

/// Time until `true` over SSH had ended, and of the whole attempt, if the guest was started in the required way.
fn times(ran: &Ran, forked: bool) -> Result<[f64; 2], Failure> {
    let attempt = ran.only()?;
    if attempt.is_forked() != forked {
        return Err(ran.useless(&match &ran.journal.reasons()[..] {
            [] => "the guest was forked instead of booted, or the reverse".to_owned(),
            reasons => format!("the guest was booted: {}", reasons.join("; ")),
        }));
    }
    let times = attempt.until_true().zip(attempt.took());
    times.map(|(first, whole)| [first, whole]).ok_or_else(|| ran.useless("phases are missing"))
}

fn report(until_true: &Figures, whole: &Figures, templates: &[String]) -> Report {
    let goals = |figures: &Figures| {
        let goals = GOALS.map(|goal| {
            let reached = if figures.ratio() >= goal { "reached" } else { "NOT reached" };
            format!("{goal:.0} times as fast: {reached}")
        });
        format!("{}\n", goals.join("; "))
    };
    let mut text = String::new();
    for template in templates {
        text += &format!("{template}\n");
    }
    text += &format!("until `true` had run over SSH\n{until_true}{}", goals(until_true));
    text += &format!("the whole attempt\n{whole}{}", goals(whole));
    let reached = |figures: &Figures| GOALS.map(|goal| json!({ "goal": goal, "reached": figures.ratio() >= goal }));
    let json = |figures: &Figures| {
        let mut json = figures.json();
        json["goals"] = json!(reached(figures));
        json
    };
    let json = json!({ "until_true": json(until_true), "attempt": json(whole) });
    let (ratio, [least, _]) = (until_true.ratio(), GOALS);
    let broken = (ratio < least).then(|| format!("a fork is only {ratio:.1} times as fast, not {least:.0} times"));
    Report { text, json, broken: broken.into_iter().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_which_goals_are_reached() {
        let figures = |cold| Figures(vec![[cold, 1.0]]);
        let report = report(&figures(20.0), &figures(9.9), &["a template was there".to_owned()]);
        assert!(report.text.starts_with("a template was there\nuntil `true` had run over SSH\npair "));
        assert!(report.text.contains("\n10 times as fast: reached; 20 times as fast: reached\nthe whole attempt\n"));
        assert!(report.text.ends_with("\n10 times as fast: NOT reached; 20 times as fast: NOT reached\n"));
        assert_eq!(report.json["until_true"]["goals"][1]["reached"], true);
        assert_eq!(report.json["attempt"]["goals"][0]["reached"], false);
        assert_eq!(report.broken, Vec::<String>::new());
    }

    #[test]
    fn a_fork_that_is_hardly_faster_does_not_hold() {
        let figures = |cold| Figures(vec![[cold, 1.0]]);
        assert_eq!(
            report(&figures(9.4), &figures(20.0), &[]).broken,
            ["a fork is only 9.4 times as fast, not 10 times"]
        );
    }
}
