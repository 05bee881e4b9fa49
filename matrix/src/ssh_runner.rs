//! What a matrix file may say of the runner `ssh`, and of no other: which machine, with which key.

use crate::{RunnerKind, SshHost, error::Mistakes, file::RunnerTable, text};

/// The machine that the file names.
pub(crate) fn check(table: &RunnerTable, mistakes: &mut Mistakes) -> Option<SshHost> {
    let kind = table.kind.as_ref().map(|kind| *kind.get()).unwrap_or_default();
    if let Some(at) = &table.identity {
        text::check_no_nul(at, mistakes);
    }
    if kind != RunnerKind::Ssh {
        for (at, key) in [(&table.host, "host"), (&table.identity, "identity")] {
            if let Some(at) = at {
                let message = format!("only a runner of kind `ssh` has a `{key}`");
                let help = format!("write `kind = \"ssh\"`, or leave `{key}` out");
                mistakes.push(mistakes.at(at.span(), message, "of no use").with_help(help));
            }
        }
        return None;
    }
    let of_an_l1 = [
        (table.image.as_ref().map(|at| at.span()), "image"),
        (table.kernel_args.as_ref().map(|at| at.span()), "kernel_args"),
        (table.disk.as_ref().map(|at| at.span()), "disk"),
    ];
    for (span, key) in of_an_l1 {
        if let Some(span) = span {
            let message = format!("a runner of kind `ssh` is not booted here: it has no `{key}`");
            mistakes.push(mistakes.at(span, message, "only for kind `qemu`").with_help("leave it out"));
        }
    }
    match &table.host {
        Some(at) => match at.text().parse() {
            Ok(host) => return Some(host),
            Err(error) => {
                let message = format!("`{}` is no machine to log in to", at.text());
                mistakes.push(mistakes.at(at.span(), message, "no such machine").with_help(error.to_string()));
            }
        },
        None => {
            if let Some(kind) = &table.kind {
                let help = "add `host = \"user@host:port\"` to `[runner]`";
                let message = "which machine is not said: the runner `ssh` has no `host`";
                mistakes.push(mistakes.at(kind.span(), message, "which one?").with_help(help));
            }
        }
    }
    None
}
