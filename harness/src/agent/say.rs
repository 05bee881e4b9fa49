//! What an agent says: one queue, so that messages never mix.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

use super::protocol::FromAgent;

/// Messages that wait for the orchestrator; more, and whoever has something to say waits too.
pub(super) const OUTBOX: usize = 16;
/// How long the last messages may take to be written.
const FLUSH: Duration = Duration::from_secs(10);

/// A clonable sender.
#[derive(Clone, Debug)]
pub(crate) struct Say(mpsc::Sender<FromAgent>);

/// What writes to standard output.
#[derive(Debug)]
pub(super) struct Writer(oneshot::Receiver<()>);

impl Say {
    /// Into this queue.
    pub(super) const fn into(outbox: mpsc::Sender<FromAgent>) -> Self {
        Self(outbox)
    }

    /// To standard output, as JSON, one message a line.
    pub(super) fn to_stdout() -> io::Result<(Self, Writer)> {
        let (outbox, mut messages) = mpsc::channel::<FromAgent>(OUTBOX);
        let (done, written) = oneshot::channel();
        std::thread::Builder::new().name("say".into()).spawn(move || {
            // Dropped when the last message is written, which is how others know.
            let _done: oneshot::Sender<()> = done;
            let mut stdout = io::stdout().lock();
            while let Some(message) = messages.blocking_recv() {
                let Ok(mut line) = serde_json::to_vec(&message) else { continue };
                line.push(b'\n');
                if stdout.write_all(&line).and_then(|()| stdout.flush()).is_err() {
                    return;
                }
            }
        })?;
        Ok((Self(outbox), Writer(written)))
    }

    /// Says it, waiting while there is much to say; false: nobody listens.
    pub(crate) async fn message(&self, message: FromAgent) -> bool {
        self.0.send(message).await.is_ok()
    }

    /// The same on a thread that may block.
    pub(super) fn message_blocking(&self, message: FromAgent) -> bool {
        self.0.blocking_send(message).is_ok()
    }

    /// A sign of life; whatever waits in the outbox is one as well.
    pub(super) fn beat(&self) {
        let _ = self.0.try_send(FromAgent::Heartbeat);
    }
}

impl Writer {
    /// Waits until everything is written (all senders must be gone), or not for long.
    pub(super) async fn flush(self) {
        let _ = tokio::time::timeout(FLUSH, self.0).await;
    }
}
