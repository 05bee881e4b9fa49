//! The terminal: progress of a run, and its summary.
//!
//! It is a reader of events like all others. On a terminal it keeps a row for every running cell and prints one permanent line for every finished one; elsewhere (a CI log) it prints plain lines only. It draws on standard error: standard output belongs to `--message-format json`. Text from guests is cleaned when it enters the [`Run`], so nothing a guest prints can move the cursor or change a colour.

mod closing;
mod lines;
mod live;
mod paint;
mod parts;
mod runners;
mod templates;

use std::{
    fmt,
    io::{self, Write},
    path::{Path, PathBuf},
};

use indicatif::ProgressDrawTarget;
use matrix::Plan;

use self::{live::Live, paint::Paint};
use crate::{Event, Run};

/// Display options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalStyle {
    /// Standard error is a terminal: rows may be redrawn.
    pub live: bool,
    /// Colours are wanted (the caller has asked `NO_COLOR` and `--color`).
    pub color: bool,
    /// Columns of the terminal; only rows that are redrawn are cut to it.
    pub width: usize,
}

/// The view of one run.
pub struct Terminal {
    run: Run,
    paint: Paint,
    logs: Option<PathBuf>,
    screen: Screen,
}

enum Screen {
    Plain(Box<dyn Write + Send>),
    Live(Live),
}

impl Terminal {
    /// A view of this plan on standard error.
    pub fn new(plan: &Plan, style: TerminalStyle) -> Self {
        let target = ProgressDrawTarget::stderr();
        // A dumb terminal would swallow even the permanent lines.
        if style.live && !target.is_hidden() {
            Self::on(plan, style, Screen::Live(Live::new(target, style.width, Paint::new(style.color))))
        } else {
            Self::plain(plan, style, io::stderr())
        }
    }

    /// A view in plain lines on any writer.
    pub fn plain(plan: &Plan, style: TerminalStyle, sink: impl Write + Send + 'static) -> Self {
        Self::on(plan, style, Screen::Plain(Box::new(sink)))
    }

    fn on(plan: &Plan, style: TerminalStyle, screen: Screen) -> Self {
        Self { run: Run::new(plan), paint: Paint::new(style.color), logs: None, screen }
    }

    /// Also quotes the logs of failed cells (for example of the package manager) from the folder of the run.
    #[must_use]
    pub fn quoting_logs(mut self, run_dir: &Path) -> Self {
        self.logs = Some(run_dir.to_owned());
        self
    }

    /// Folds an event of an earlier process, without showing it.
    pub fn recall(&mut self, event: &Event) {
        self.run.fold_one(event);
    }

    /// Shows one event.
    pub fn event(&mut self, event: &Event) {
        self.run.fold_one(event);
        let live = matches!(self.screen, Screen::Live(_));
        let lines = lines::about(&self.run, event, self.paint, self.logs.as_deref(), live);
        if let Screen::Live(live) = &mut self.screen {
            live.update(&self.run, event);
        }
        self.print(&lines);
    }

    /// Shows the end of the run: its outcome, its reports, and how to retry the bad cells.
    pub fn finish(&mut self, run: &Run, run_dir: &Path) {
        let lines = closing::lines(run, run_dir, self.paint);
        if let Screen::Live(live) = &mut self.screen {
            live.end();
        }
        self.print(&lines);
    }

    /// A closed terminal does not end a run: errors are ignored.
    fn print(&mut self, lines: &[String]) {
        if lines.is_empty() {
            return;
        }
        match &mut self.screen {
            Screen::Live(live) => live.print(lines),
            Screen::Plain(sink) => {
                let _ = sink.write_all(format!("{}\n", lines.join("\n")).as_bytes());
                let _ = sink.flush();
            }
        }
    }
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminal").field("logs", &self.logs).finish_non_exhaustive()
    }
}
