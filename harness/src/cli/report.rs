//! `report`: everything again from the journal.

use reports::{Terminal, TerminalStyle};

use super::{Failure, Outcome, args};

pub(super) fn report(args: &args::Report) -> Outcome {
    let folder = crate::run::locate(&args.run)
        .ok_or_else(|| Failure::caused(2, crate::run::RunError::NoSuchRun(args.run.clone())))?;
    let rendered = reports::render::all(&folder).map_err(|error| Failure::caused(3, error))?;
    let plan = matrix::Plan::read(&folder.join("plan.json")).map_err(|error| Failure::caused(3, error))?;
    let style = TerminalStyle { live: false, ..crate::run::terminal_style() };
    Terminal::new(&plan, style).quoting_logs(&folder).finish(&rendered.run, &folder);
    Ok(rendered.run.exit_code())
}
