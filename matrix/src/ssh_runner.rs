//! Keys of the runner `ssh` only: which machine, with which key.

use crate::{RunnerKind, SshHost, error::Mistakes, file::RunnerTable, text};

/// Checks and returns the machine that the file names.
pub(crate) fn check(table: &RunnerTable, mistakes: &mut Mistakes) -> Option<SshHost> {
    let kind = table.kind.as_ref().map(|kind| *kind.get()).unwrap_or_default();
    if let Some(at) = &table.identity {
        text::check_no_nul(at, mistakes);
    }
    if kind != RunnerKind::Ssh {
        for (at, key) in [(&table.host, "host"), (&table.identity, "identity")] {
            if let Some(at) = at {
                let message = format!("`{key}` applies to the runner `ssh` only");
                let help = format!("write `kind = \"ssh\"`, or remove `{key}`");
                mistakes.push(mistakes.at(at.span(), message, "no effect").with_help(help));
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
            let message = format!("`{key}` applies to the runner `qemu` only");
            mistakes.push(mistakes.at(span, message, "no effect").with_help("remove it"));
        }
    }
    match &table.host {
        Some(at) => match at.text().parse() {
            Ok(host) => return Some(host),
            Err(error) => {
                let message = format!("`{}` is not an SSH host", at.text());
                mistakes.push(mistakes.at(at.span(), message, "invalid").with_help(error.to_string()));
            }
        },
        None => {
            if let Some(kind) = &table.kind {
                let help = "add `host = \"user@host:port\"` to `[runner]`";
                let message = "the runner `ssh` has no `host`";
                mistakes.push(mistakes.at(kind.span(), message, "`host` is missing").with_help(help));
            }
        }
    }
    None
}
