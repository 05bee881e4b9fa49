//! Ctrl-C: once drains, twice kills, four times leaves at once.

use reports::EventKind;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{events::Events, fanout::Stop};

/// Listens for the rest of the process's life.
///
/// SIGINT: start nothing new and let running cells finish; again: end them. SIGTERM and SIGHUP end them at once, because what
/// sends those (a service manager, a closed terminal) does not wait long.
pub fn listen(stop: Stop, events: Events) -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        let mut count = 0;
        loop {
            let name = tokio::select! {
                () = next(&mut interrupt) => "SIGINT",
                () = next(&mut terminate) => "SIGTERM",
                () = next(&mut hangup) => "SIGHUP",
            };
            count += if name == "SIGINT" { 1 } else { 2 };
            events.send(EventKind::RunInterrupted { signal: name.to_owned() });
            stop.drain.cancel();
            if count >= 2 {
                stop.kill.cancel();
            }
            if count >= 4 {
                // Whatever holds us up, the journal is on disk, and the guests die with us; those that were to be
                // kept are ended by the next start.
                std::process::exit(130);
            }
        }
    });
    Ok(())
}

async fn next(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}
