//! The permanent lines of templates.

use matrix::Digest;

use super::{
    paint::Paint,
    parts::{help, label},
};
use crate::{Run, Trouble, human, run::TemplateState};

/// A template is needed. Whether it exists is not known yet.
pub(super) fn started(run: &Run, runner: u32, template: Digest, paint: Paint) -> Vec<String> {
    let Some(template) = run.template(runner, template) else { return Vec::new() };
    vec![line(&format!("{}: checking for a template, creating one if missing", template.image), paint)]
}

/// A template is ready: whether it was made, and the memory of a fork.
pub(super) fn ready(run: &Run, runner: u32, template: Digest, paint: Paint) -> Vec<String> {
    let Some(template) = run.template(runner, template) else { return Vec::new() };
    let TemplateState::Ready { cached, elapsed_ms, cost } = &template.state else { return Vec::new() };
    let how = if *cached { "from the store" } else { "frozen" };
    let (took, cost) = (human::duration(*elapsed_ms), human::bytes(*cost));
    let digest = template.template.short();
    vec![line(&format!("{}: {how}, {took}, a fork takes {cost}  {digest}", template.image), paint)]
}

/// Why there is none, and the next step. Each guest's line says whether it was booted instead.
pub(super) fn failed(run: &Run, runner: u32, template: Digest, paint: Paint) -> Vec<String> {
    let Some(template) = run.template(runner, template) else { return Vec::new() };
    let TemplateState::Failed { trouble: Trouble { reason, help: what_to_do, .. }, elapsed_ms } = &template.state
    else {
        return Vec::new();
    };
    // After Ctrl-C this is expected, so nothing is printed.
    if run.interrupted.is_some() {
        return Vec::new();
    }
    let took = human::duration(*elapsed_ms);
    let text = format!("no template of `{}` to fork guests from: {reason} (after {took})", template.image);
    let mut lines = vec![label("WARN", paint.notice("WARN"), &text)];
    lines.extend(what_to_do.as_deref().map(help).unwrap_or_default());
    lines
}

fn line(text: &str, paint: Paint) -> String {
    label("TEMPLATE", paint.dim("TEMPLATE"), text)
}
