//! A network card of a guest, as frames on a socket, becomes TCP connections.
//!
//! The guest has QEMU's user network, which gives it DHCP and the runner's SSH, and with `restrict=on` nothing else. What it sends there comes to
//! this link first (QEMU: net/filter-mirror.c): what is for the proxy, at [`ADDRESS`] in that network, is taken, everything else is passed on.
//!
//! ```text
//! guest -> from_guest -> serve -> filter -> stack (smoltcp) <- Connection <- proxy
//!                          |                  |
//!              passed_on <-'                  '-> to_guest
//! ```
//!
//! One task owns the sockets. It never waits while it could read: QEMU stands still until it has written a frame.

mod connection;
mod filter;
mod frames;
mod phy;
mod stack;
#[cfg(test)]
mod tests;

use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

pub(crate) use connection::Connection;
use frames::{FrameReader, FrameWriter};
use stack::Stack;

/// Our ends of the sockets of one guest's network card.
#[derive(Debug)]
pub struct Card {
    /// What the guest sends.
    pub from_guest: UnixStream,
    /// What it receives besides what its network sends.
    pub to_guest: UnixStream,
    /// What its network receives.
    pub passed_on: UnixStream,
}

/// Where a guest finds the proxy: free in QEMU's user network, whose own addresses are 10.0.2.2 and .3, and whose guest is .15.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);

/// The TCP port of the proxy at [`ADDRESS`].
pub(crate) const PORT: u16 = 3128;

/// What one guest can use up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections at once, at least 1, among them half-open ones and those that nobody accepted. Further ones are refused.
    pub(crate) connections: usize,
    /// Bytes that wait for the guest, per connection; at least one segment. What waits for the proxy is limited to this and 64 KiB.
    pub(crate) buffer: usize,
    /// A connection on which no byte gets anywhere, in either direction, is reset after this. Longer than any wait for an upstream server.
    pub(crate) idle: Duration,
}

/// Why a link ended although QEMU still runs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// Nothing after this can be understood.
    #[error("frame length {0} from QEMU is not in 1..={max}: the stream is out of step", max = frames::MAX_FRAME)]
    FrameLength(u32),
    /// Not for the end of QEMU, which is no error.
    #[error("read or write frames of the guest")]
    Socket(#[source] io::Error),
    /// A bug.
    #[error("run the network stack of the guest's link")]
    Stack(#[source] tokio::task::JoinError),
}

/// One guest's network card. Dropped, it ends its connections and closes the socket.
pub(crate) struct Link {
    arrivals: mpsc::Receiver<Connection>,
    task: JoinHandle<Result<(), LinkError>>,
    ended: bool,
}

impl Link {
    /// Serves it until QEMU is gone.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O and time.
    pub(crate) fn new(card: Card, limits: Limits) -> Self {
        let (arrived, arrivals) = mpsc::channel(limits.connections.max(1));
        let shared = Arc::new(Shared { stack: Mutex::new(Stack::new(limits)), work: Notify::new() });
        Self { arrivals, task: tokio::spawn(serve(card, limits, shared, arrived)), ended: false }
    }

    /// The next connection; `None` when QEMU is gone. Can be cancelled.
    ///
    /// # Errors
    /// Once, when the link ended for another reason.
    pub(crate) async fn accept(&mut self) -> Result<Option<Connection>, LinkError> {
        if let Some(connection) = self.arrivals.recv().await {
            return Ok(Some(connection));
        }
        if self.ended {
            return Ok(None);
        }
        let end = (&mut self.task).await;
        self.ended = true;
        end.map_err(LinkError::Stack)?.map(|()| None)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the task and the connections share.
struct Shared {
    stack: Mutex<Stack>,
    /// A connection did something that the task may have to send.
    work: Notify,
}

impl Shared {
    fn stack(&self) -> MutexGuard<'_, Stack> {
        // After a panic in smoltcp, the task ends, and `Stack::end` lets nobody use the sockets again.
        self.stack.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the connections however the task ends: returned, aborted, panicked.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.stack().end();
    }
}

async fn serve(
    Card { from_guest, to_guest, passed_on }: Card,
    limits: Limits,
    shared: Arc<Shared>,
    arrived: mpsc::Sender<Connection>,
) -> Result<(), LinkError> {
    let _ending = Ending(shared.clone());
    let mut input = FrameReader::new();
    let mut output = FrameWriter::new(limits.connections);
    let mut others = FrameWriter::new(limits.connections);
    loop {
        let turn = {
            let mut stack = shared.stack();
            let now = Instant::now();
            while let Some(frame) = input.next()? {
                match filter::is_for_link(frame) {
                    true => stack.receive(frame, &mut output, now),
                    // What does not fit is lost, as on any network.
                    false => others.push(frame.len(), |place| place.copy_from_slice(frame)),
                }
            }
            stack.turn(&mut output, now)
        };
        for slot in turn.arrivals {
            // Cannot be full: it has room for a connection per slot. Without a receiver the connection is dropped, which resets it; the
            // stack must not be locked here for that.
            let _ = arrived.try_send(Connection::new(shared.clone(), slot));
        }
        for (frames, socket) in [(&mut output, &to_guest), (&mut others, &passed_on)] {
            match frames.write(|bytes| socket.try_write(bytes)) {
                Err(e) if is_gone(&e) => return Ok(()),
                other => other.map_err(LinkError::Socket)?,
            }
        }
        let wake = async {
            match turn.wake {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ready = from_guest.readable() => ready.map_err(LinkError::Socket)?,
            ready = to_guest.writable(), if !output.is_empty() => ready.map_err(LinkError::Socket)?,
            ready = passed_on.writable(), if !others.is_empty() => ready.map_err(LinkError::Socket)?,
            () = shared.work.notified() => {}
            () = wake => {}
        }
        match input.read(|buffer| from_guest.try_read(buffer)) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(e) if is_gone(&e) => return Ok(()),
            Err(e) => return Err(LinkError::Socket(e)),
        }
        // A guest that always sends would otherwise keep a thread of the runtime to itself.
        tokio::task::consume_budget().await;
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}
