//! What the line to an agent on another machine goes over: a way in, pieces of output, and an end with words.

use std::{
    fmt,
    io::{self, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, task::JoinHandle};

use super::broken::Broken;
use crate::ssh::{Exec, Session, Sink, Until};

/// Pieces of output that wait for us.
pub(crate) const PIECES: usize = 64;
/// Longest run.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// The standard input and output of a program on another machine. Dropping it ends the program's input, and with that the agent.
pub(crate) struct Wire {
    /// Sends these bytes without waiting. Whether anybody reads them shows in what comes back.
    pub(crate) send: Box<dyn Fn(Vec<u8>) + Send + Sync>,
    /// Its output as it comes; none: it has ended.
    pub(crate) pieces: mpsc::Receiver<Vec<u8>>,
    /// How it ended.
    pub(crate) over: JoinHandle<Broken>,
}

impl Wire {
    /// What sends bytes into this, however slowly it takes them: a thread writes them in order.
    pub(crate) fn sending(mut into: impl Write + Send + 'static) -> io::Result<Box<dyn Fn(Vec<u8>) + Send + Sync>> {
        let (send, queue) = std::sync::mpsc::channel::<Vec<u8>>();
        std::thread::Builder::new().name("to an agent".into()).spawn(move || {
            for bytes in queue {
                if into.write_all(&bytes).and_then(|()| into.flush()).is_err() {
                    return;
                }
            }
        })?;
        Ok(Box::new(move |bytes| drop(send.send(bytes))))
    }

    /// Over a session of our own with a guest.
    pub(crate) fn over_session(session: Arc<Session>, command: String) -> io::Result<Self> {
        let (writer, stdin) = session.stdin_stream();
        let (sender, pieces) = mpsc::channel(PIECES);
        let exec = Exec {
            command,
            stdin,
            stdout: Sink::Pieces(sender),
            stderr: Sink::Tail,
            deadline: Instant::now() + FOR_EVER,
            until: Until::Silent,
        };
        let over = tokio::spawn(async move {
            match session.exec(exec).await {
                Ok(exit) => Broken::ended(&exit.end, &exit.stderr_tail),
                Err(error) => Broken::Connection(error.to_string()),
            }
        });
        Ok(Self { send: Self::sending(writer)?, pieces, over })
    }

    /// Why nothing more comes.
    pub(super) async fn how_it_ended(&mut self) -> Broken {
        match (&mut self.over).await {
            Ok(broken) => broken,
            Err(error) => Broken::Ended(error.to_string()),
        }
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").finish_non_exhaustive()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.over.abort();
    }
}
