//! The messages to an agent, in order.

use std::{
    io::{self, BufRead as _},
    time::Duration,
};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::protocol::ToAgent;

/// An orchestrator on another machine that has said nothing for so long is gone.
const ORCHESTRATOR_SILENCE: Duration = Duration::from_secs(120);

/// Orders as they come.
#[derive(Debug)]
pub(crate) struct Orders {
    received: UnboundedReceiver<ToAgent>,
    silence: Option<Duration>,
}

impl Orders {
    /// From this queue.
    pub(super) const fn of(received: UnboundedReceiver<ToAgent>) -> Self {
        Self { received, silence: None }
    }

    /// From standard input, read on a thread. They end with it, or with a line that is no order.
    pub(super) fn from_stdin() -> io::Result<Self> {
        let (sender, received) = unbounded_channel();
        std::thread::Builder::new().name("orders".into()).spawn(move || {
            for line in io::stdin().lock().lines() {
                let Some(order) = line.ok().and_then(|line| serde_json::from_str(&line).ok()) else { return };
                if sender.send(order).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { received, silence: Some(ORCHESTRATOR_SILENCE) })
    }

    /// The next one; `None`: the orchestrator is gone.
    pub(crate) async fn next(&mut self) -> Option<ToAgent> {
        match self.silence {
            Some(silence) => tokio::time::timeout(silence, self.received.recv()).await.ok().flatten(),
            None => self.received.recv().await,
        }
    }
}
