//! Ctrl-C: once drains, twice kills, four times leaves at once.

use std::time::Duration;

use reports::EventKind;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{events::Events, fanout::Stop, runner::still_held};

/// How long the last words may take: nobody may read them.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What tells the process to end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Name of the next one.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            () = next(&mut self.interrupt) => "SIGINT",
            () = next(&mut self.terminate) => "SIGTERM",
            () = next(&mut self.hangup) => "SIGHUP",
        }
    }
}

/// Cancelled when the process is told to end; told on and on, it leaves at once, as in a run.
pub(crate) fn interruption() -> std::io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let told = stop.clone();
    count(Signals::new()?, move |_, _| told.cancel());
    Ok(stop)
}

/// Listens for the rest of the process's life.
///
/// SIGINT: start nothing new and let running cells finish; again: end them. SIGTERM and SIGHUP end them at once, because what
/// sends those (a service manager, a closed terminal) does not wait long.
pub fn listen(stop: Stop, events: Events) -> std::io::Result<()> {
    count(Signals::new()?, move |name, count| {
        events.send(EventKind::RunInterrupted { signal: name.to_owned() });
        stop.drain.cancel();
        if count >= 2 {
            stop.kill.cancel();
        }
    });
    Ok(())
}

/// Says each signal, and how often Ctrl-C was pressed or meant; after four times the process ends.
fn count(mut signals: Signals, told: impl Fn(&str, u32) + Send + 'static) {
    tokio::spawn(async move {
        let mut count = 0;
        loop {
            let name = signals.next().await;
            count += if name == "SIGINT" { 1 } else { 2 };
            told(name, count);
            if count >= 4 {
                // Whatever holds us up, the journal is on disk, and the guests die with us; those that were to be
                // kept are ended by the next start.
                let words = tokio::task::spawn_blocking(|| still_held().iter().for_each(|left| say!("{left}")));
                let _ = tokio::time::timeout(LAST_WORDS, words).await;
                std::process::exit(130);
            }
        }
    });
}

async fn next(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}
