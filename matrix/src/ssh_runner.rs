//! The key of the runner `ssh` that it cannot do without: which machine.

use crate::{SshHost, error::Mistakes, file::RunnerTable};

/// Checks and returns the machine that the file names.
pub(crate) fn check(table: &RunnerTable, mistakes: &mut Mistakes) -> Option<SshHost> {
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
