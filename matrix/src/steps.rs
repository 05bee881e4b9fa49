//! The steps of a suite, from the matrix file or by default.

use crate::{
    error::Mistakes,
    file::SuiteTable,
    step::{Fault, Step, fault},
};

/// The steps of a suite. `installable`: the package has artifacts.
pub(crate) fn check(table: &SuiteTable, installable: bool, mistakes: &mut Mistakes) -> Vec<Step> {
    let collects = table.results.is_some() || !table.artifacts.is_empty();
    let Some(list) = &table.steps else {
        let installs = table.install.as_ref().and_then(|install| install.get().whether());
        if let (Some(install), false) = (&table.install, installable)
            && installs != Some(false)
        {
            nothing_to_install(install.span(), mistakes);
        }
        return Step::usual(installs.unwrap_or(installable), collects);
    };
    let steps: Vec<Step> = list.get().iter().map(|at| *at.get()).collect();
    let place = |step: Step| list.get().iter().find(|at| *at.get() == step).map(|at| at.span());
    if let Some(install) = table.install.as_ref().filter(|install| install.get().whether().is_some()) {
        mistakes.push(
            mistakes
                .at(install.span(), "`install` and `steps` both say whether the package is installed", "said here")
                .with_label(list.span(), "and here")
                .with_help("remove `install`"),
        );
    }
    if let Some(Fault { at, message, label, help }) = fault(&steps) {
        let span = at.map_or_else(|| list.span(), |index| list.get()[index].span());
        mistakes.push(mistakes.at(span, message, label).with_help(help));
    } else if let (Some(span), false) = (place(Step::Install), installable) {
        nothing_to_install(span, mistakes);
    } else if let (None, true) = (place(Step::Collect), collects) {
        let what = if table.results.is_some() { "results" } else { "artifacts" };
        let message = format!("the step `collect` is missing: the suite's `{what}` would not be fetched");
        let help = format!("add `collect` at the end, or remove `{what}`");
        mistakes.push(mistakes.at(list.span(), message, "without `collect`").with_help(help));
    } else if let (Some(span), false) = (place(Step::Collect), collects) {
        let message = "there is nothing to collect: the suite names neither `results` nor `artifacts`";
        mistakes.push(mistakes.at(span, message, "cannot be done").with_help("name them, or remove this step"));
    }
    steps
}

/// Refuses results and artifacts that a reboot before `collect` would remove.
pub(crate) fn check_survival(table: &SuiteTable, steps: &[Step], mistakes: &mut Mistakes) {
    const VOLATILE: [&str; 4] = ["/tmp/", "/run/", "/var/run/", "/dev/shm/"];
    let after_run = steps.iter().skip_while(|step| **step != Step::Run);
    if !table.reboot && !after_run.into_iter().any(|step| *step == Step::Reboot) {
        return;
    }
    let results = table.results.iter().map(|at| (at, at.text().strip_prefix("junit:").unwrap_or_default()));
    let named = results.chain(table.artifacts.iter().map(|at| (at, at.text())));
    for (at, path) in named.filter(|(_, path)| VOLATILE.iter().any(|folder| path.starts_with(folder))) {
        let message = format!("`{path}` does not survive the reboot of this suite's guest");
        let problem = mistakes.at(at.span(), message, "removed by the reboot");
        mistakes.push(problem.with_help("name a folder on the disk, for example below /var/lib or /var/tmp"));
    }
}

fn nothing_to_install(span: std::ops::Range<usize>, mistakes: &mut Mistakes) {
    let message = "there is nothing to install: the matrix names no package artifacts";
    let help = "add `artifacts` to `[package]`, or remove this";
    mistakes.push(mistakes.at(span, message, "cannot be done").with_help(help));
}
