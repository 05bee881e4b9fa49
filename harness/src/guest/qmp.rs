//! QMP, QEMU's control protocol, over one connected socket.
//!
//! What a command is comes from the `qapi` crate, the few that are used from `commands`; the transport is ours. Every command
//! carries an id, so one that was given up does not disturb the next; an event we do not know is an event we do not know; and
//! whatever the reader cannot understand is passed over. The end of the stream is the end of QEMU.

pub(super) mod commands;

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use qapi::{Command, Execute};
use serde_json::Value;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixStream, unix::OwnedWriteHalf},
    sync::{mpsc, oneshot},
};

/// Longest message taken from QEMU; a longer one ends the connection.
const MESSAGE_LIMIT: usize = 4 << 20;
/// QEMU's main loop may stall while the host is overloaded, but not for longer than this.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// A command was not answered as hoped.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// QEMU said no.
    #[error("QEMU refused {command}: {words}")]
    Refused {
        /// Name of the command.
        command: &'static str,
        /// QEMU's words.
        words: String,
    },
    /// QEMU said nothing.
    #[error("QEMU did not answer {command} within {} s", ANSWER_LIMIT.as_secs())]
    Silent {
        /// Name of the command.
        command: &'static str,
    },
    /// QEMU is gone.
    #[error("QEMU closed its control channel")]
    Closed,
    /// The answer does not have the documented shape.
    #[error("QEMU's answer to {command} was not understood: {source}")]
    Shape {
        /// Name of the command.
        command: &'static str,
        /// Why.
        source: serde_json::Error,
    },
}

/// An event, with its data as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct QmpEvent {
    /// For example `SHUTDOWN`.
    pub name: String,
    /// Its `data`, or null.
    pub data: Value,
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Result<Value, String>>>>>;

/// The client's end.
#[derive(Debug)]
pub struct Qmp {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    waiting: Waiting,
    next: AtomicU64,
}

impl Qmp {
    /// Takes the socket, negotiates, and hands back the stream of events; it ends when QEMU does.
    pub async fn connect(socket: UnixStream) -> Result<(Self, mpsc::UnboundedReceiver<QmpEvent>), QmpError> {
        let (reader, writer) = socket.into_split();
        let waiting = Waiting::default();
        let (events, received) = mpsc::unbounded_channel();
        tokio::spawn(read(BufReader::new(reader), Arc::clone(&waiting), events));
        let qmp = Self { writer: tokio::sync::Mutex::new(writer), waiting, next: AtomicU64::new(1) };
        qmp.execute(commands::Capabilities {}).await?;
        Ok((qmp, received))
    }

    /// Executes one command. May be dropped at any time without harm to other commands.
    pub async fn execute<C: Command>(&self, command: C) -> Result<C::Ok, QmpError> {
        let closed = |_| QmpError::Closed;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        let mut line = serde_json::to_vec(&Execute::with_id(command, id))
            .map_err(|source| QmpError::Shape { command: C::NAME, source })?;
        line.push(b'\n');
        let _given_up = Forget { id, waiting: &self.waiting };
        lock(&self.waiting).insert(id, answer);
        let exchange = async {
            self.writer.lock().await.write_all(&line).await.map_err(|_: io::Error| QmpError::Closed)?;
            answered.await.map_err(closed)
        };
        let value = tokio::time::timeout(ANSWER_LIMIT, exchange)
            .await
            .map_err(|_| QmpError::Silent { command: C::NAME })??
            .map_err(|words| QmpError::Refused { command: C::NAME, words })?;
        serde_json::from_value(value).map_err(|source| QmpError::Shape { command: C::NAME, source })
    }
}

/// Removes a command's entry when its future ends, answered or not.
struct Forget<'a> {
    id: u64,
    waiting: &'a Waiting,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(self.waiting).remove(&self.id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read(mut reader: impl AsyncBufRead + Unpin, waiting: Waiting, events: mpsc::UnboundedSender<QmpEvent>) {
    let mut line = Vec::new();
    while let Ok(1..) = read_line(&mut reader, &mut line).await {
        let Ok(mut message) = serde_json::from_slice::<Value>(&line) else { continue };
        if let Some(name) = message["event"].as_str() {
            let event = QmpEvent { name: name.to_owned(), data: message["data"].take() };
            // Nobody listens any more: answers are still delivered.
            let _ = events.send(event);
        } else if let Some(answer) = message["id"].as_u64().and_then(|id| lock(&waiting).remove(&id)) {
            let result = match message.get("error") {
                Some(error) => Err(error["desc"].as_str().unwrap_or("no reason given").to_owned()),
                None => Ok(message["return"].take()),
            };
            let _ = answer.send(result);
        }
    }
    // Dropping the senders tells everyone who still waits.
    lock(&waiting).clear();
}

async fn read_line(reader: &mut (impl AsyncBufRead + Unpin), line: &mut Vec<u8>) -> io::Result<usize> {
    line.clear();
    loop {
        let available = reader.fill_buf().await?;
        let (taken, done) = match available.iter().position(|&byte| byte == b'\n') {
            Some(end) => (end + 1, true),
            None => (available.len(), available.is_empty()),
        };
        line.extend_from_slice(&available[..taken]);
        reader.consume(taken);
        if line.len() > MESSAGE_LIMIT {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if done {
            return Ok(line.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, DuplexStream};

    use super::*;

    /// QEMU's side of the socket, as lines.
    async fn scripted(answers: &'static [&'static str]) -> (Qmp, mpsc::UnboundedReceiver<QmpEvent>, UnixStream) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let connect = tokio::spawn(Qmp::connect(ours));
        theirs.write_all(b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\n").await.unwrap();
        let mut buffer = [0; 1024];
        let read = theirs.read(&mut buffer).await.unwrap();
        assert!(String::from_utf8_lossy(&buffer[..read]).contains("qmp_capabilities"));
        theirs.write_all(b"{\"return\": {}, \"id\": 1}\n").await.unwrap();
        let (qmp, events) = connect.await.unwrap().unwrap();
        for answer in answers {
            theirs.write_all(answer.as_bytes()).await.unwrap();
            theirs.write_all(b"\n").await.unwrap();
        }
        (qmp, events, theirs)
    }

    #[tokio::test]
    async fn an_unknown_event_and_a_bad_timestamp_are_passed_on_and_end_nothing() {
        let (_qmp, mut events, _theirs) = scripted(&[
            r#"{"event": "NEW_IN_QEMU_99", "data": {"x": 1}, "timestamp": {"seconds": -1, "microseconds": -1}}"#,
            "this is not JSON",
            r#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}"#,
        ])
        .await;
        assert_eq!(events.recv().await.unwrap().name, "NEW_IN_QEMU_99");
        assert_eq!(events.recv().await.unwrap().data["reason"], "guest-shutdown");
    }

    #[tokio::test]
    async fn a_command_that_was_given_up_does_not_take_the_next_ones_answer() {
        let (qmp, _events, mut theirs) = scripted(&[]).await;
        let status = || qmp.execute(commands::QueryStatus {});
        assert!(tokio::time::timeout(Duration::from_millis(20), status()).await.is_err());
        theirs.write_all(b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"late\"}, \"id\": 2}\n").await.unwrap();
        let answer = b"{\"return\": {\"running\": true, \"status\": \"running\"}, \"id\": 3}\n";
        let (result, written) = tokio::join!(status(), theirs.write_all(answer));
        written.unwrap();
        assert_eq!(result.unwrap().status, commands::RunState::Other);
    }

    #[tokio::test]
    async fn the_end_of_the_stream_ends_every_wait() {
        let (qmp, mut events, theirs) = scripted(&[]).await;
        let (result, ()) = tokio::join!(qmp.execute(commands::QueryStatus {}), async { drop(theirs) });
        assert!(matches!(result, Err(QmpError::Closed)), "{result:?}");
        assert!(events.recv().await.is_none());
    }

    #[tokio::test]
    async fn a_message_without_end_is_refused() {
        let (mut theirs, ours): (DuplexStream, DuplexStream) = tokio::io::duplex(1 << 16);
        tokio::spawn(async move { while theirs.write_all(&[b'x'; 1 << 16]).await.is_ok() {} });
        let mut line = Vec::new();
        let result = read_line(&mut BufReader::new(ours), &mut line).await;
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
