//! The one reader of the event stream: writes the journal first, then calls the terminal.

use std::{
    io::{IsTerminal as _, Write as _},
    path::Path,
};

use matrix::Plan;
use reports::{Event, EventKind, Journal, JsonLines, Run, Terminal, TerminalStyle};
use tokio::sync::mpsc;

use crate::fanout::Stop;

/// What is printed while a run runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum MessageFormat {
    /// For people, on standard error.
    #[default]
    Human,
    /// Every event as one line of JSON on standard output.
    Json,
}

enum Watcher {
    Human(Box<Terminal>),
    Json(JsonLines<std::io::Stdout>),
}

/// Writes the journal and shows the run.
pub struct Recorder {
    journal: Journal,
    watcher: Watcher,
}

impl Recorder {
    /// A new journal in `folder`.
    pub fn create(folder: &Path, plan: &Plan, format: MessageFormat) -> Result<Self, reports::JournalError> {
        Ok(Self { journal: Journal::create(folder)?, watcher: watcher(folder, plan, format) })
    }

    /// The journal that is in `folder`, continued.
    pub fn resume(folder: &Path, plan: &Plan, format: MessageFormat) -> Result<Self, reports::JournalError> {
        let journal = Journal::resume(folder)?;
        let mut watcher = watcher(folder, plan, format);
        if let Watcher::Human(terminal) = &mut watcher {
            reports::journal::for_each(folder, |event| terminal.recall(&event))?;
        }
        Ok(Self { journal, watcher })
    }

    /// Records until the run has finished; on a thread, because disks block.
    ///
    /// A journal that cannot be written ends the run through `broken`: results that are not on record are none.
    pub fn record(
        mut self,
        mut events: mpsc::UnboundedReceiver<Event>,
        broken: &Stop,
    ) -> (Self, Result<(), reports::JournalError>) {
        // Should this thread panic, nobody records any more: the same as a broken journal.
        let guards = [broken.drain.clone().drop_guard(), broken.kill.clone().drop_guard()];
        let mut result = Ok(());
        while let Some(event) = events.blocking_recv() {
            if result.is_ok() {
                result = self.journal.append(&event);
                if result.is_err() {
                    broken.drain.cancel();
                    broken.kill.cancel();
                }
            }
            match &mut self.watcher {
                Watcher::Human(terminal) => terminal.event(&event),
                // Nobody reads our output any more: the journal still does.
                Watcher::Json(lines) => drop(lines.event(&event)),
            }
            if matches!(event.kind, EventKind::RunFinished { .. }) {
                break;
            }
        }
        for guard in guards {
            guard.disarm();
        }
        (self, result)
    }

    /// The last words, after the reports are written.
    pub fn finish(mut self, run: &Run, folder: &Path) {
        match &mut self.watcher {
            Watcher::Human(terminal) => terminal.finish(run, folder),
            Watcher::Json(_) => drop(std::io::stdout().flush()),
        }
    }
}

fn watcher(folder: &Path, plan: &Plan, format: MessageFormat) -> Watcher {
    match format {
        MessageFormat::Human => Watcher::Human(Box::new(Terminal::new(plan, style()).quoting_logs(folder))),
        MessageFormat::Json => Watcher::Json(JsonLines::new(std::io::stdout())),
    }
}

/// How this process's standard error wants to be written to.
pub fn style() -> TerminalStyle {
    let terminal = std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
    let color = match std::env::var_os("NO_COLOR").filter(|value| !value.is_empty()) {
        Some(_) => false,
        None => terminal || std::env::var_os("CLICOLOR_FORCE").is_some_and(|value| value != "0"),
    };
    let width = rustix::termios::tcgetwinsize(std::io::stderr()).map_or(100, |size| usize::from(size.ws_col).max(40));
    TerminalStyle { live: terminal && std::env::var_os("CI").is_none(), color, width }
}
