//! The TCP of a link: smoltcp's interface and a fixed number of sockets, each of which listens, belongs to a connection, or ends.
//!
//! smoltcp has retransmission, windows and the state machine. Added here against hostile guests: timeouts that empty segments do not
//! extend, a limit on the work of one turn, and a new socket for each connection.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{self, State};
use smoltcp::wire::{IpCidr, IpEndpoint};
use tokio::io::ReadBuf;
use tokio::time::Instant;

use super::filter::{self, Frame};
use super::frames::{FrameWriter, MTU};
use super::phy::Phy;
use super::{Limits, PORT};

/// From the guest's SYN until the connection is open.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// From the end of a connection that was shut down, until the guest ends its side, too.
const LINGER: Duration = Duration::from_secs(10);

/// How often a quiet connection is probed: a guest that has restarted answers with a reset. Shorter than the minute for which smoltcp
/// remembers a neighbour, so that it need not ask for one.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// The shortest wait between turns that are due to time alone. smoltcp 0.14 has states in which it is always due, as an expired window probe
/// after the guest acknowledged all.
const MIN_WAIT: Duration = Duration::from_millis(5);

/// The most that is received and not read. With more, smoltcp 0.14 scales its window, but not in the SYN|ACK, takes the guest at its word
/// for up to 65535 << scale bytes, and panics when they do not fit.
const MAX_RECEIVE: usize = 65535;

/// See the module.
pub(super) struct Stack {
    limits: Limits,
    started: Instant,
    interface: Interface,
    sockets: SocketSet<'static>,
    slots: Vec<Slot>,
    /// Slots whose connection is open and was not reported.
    arrivals: Vec<usize>,
    ended: bool,
}

struct Slot {
    socket: SocketHandle,
    phase: Phase,
}

enum Phase {
    Listening,
    HalfOpen {
        since: Instant,
    },
    /// A connection has it.
    Held(Use),
    /// No connection has it any more.
    Released {
        since: Instant,
    },
}

/// What became of a connection.
struct Use {
    /// Bytes that were read and written.
    read: u64,
    written: u64,
    /// Bytes that came from the guest and that it acknowledged, when last counted, and since when it is that many.
    moved: (u64, u64),
    since: Instant,
    timed_out: bool,
}

/// What follows from a turn.
pub(super) struct Turn {
    /// Slots that are to become connections.
    pub(super) arrivals: Vec<usize>,
    /// When the next turn is due, should nothing else happen.
    pub(super) wake: Option<Instant>,
}

impl Stack {
    pub(super) fn new(limits: Limits) -> Self {
        let started = Instant::now();
        let mut config = Config::new(filter::MAC.into());
        config.random_seed = RandomState::new().build_hasher().finish();
        let mut unused = FrameWriter::new(0);
        let mut card = Phy::new(None, &mut unused);
        let mut interface = Interface::new(config, &mut card, smoltcp::time::Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // Room for two, and it is the first.
            let _ = addresses.push(IpCidr::Ipv4(filter::NETWORK));
        });
        let mut sockets = SocketSet::new(Vec::new());
        let slots = (0..limits.connections.max(1))
            .map(|_| Slot { socket: sockets.add(listening(&limits)), phase: Phase::Listening })
            .collect();
        Self { limits, started, interface, sockets, slots, arrivals: Vec::new(), ended: false }
    }

    /// Takes a frame from the guest; answers to it go to `output`.
    pub(super) fn receive(&mut self, frame: &[u8], output: &mut FrameWriter, now: Instant) {
        match filter::classify(frame) {
            None => return,
            // Sent again: smoltcp would give it the first socket that listens, besides the one it has.
            Some(Frame::Syn(from)) if self.is_half_open(from) => return,
            Some(_) => {}
        }
        let mut card = Phy::new(Some(frame), output);
        self.interface.poll_ingress_single(self.clock(now), &mut card, &mut self.sockets);
        self.open(now);
    }

    /// Does what time and the connections demand; to be called after any of their calls, and when the last turn said so.
    pub(super) fn turn(&mut self, output: &mut FrameWriter, now: Instant) -> Turn {
        self.expire(now);
        self.send(output, now);
        let wake = if output.is_full() {
            // All that smoltcp wants is to send; it continues when the batch is written.
            self.next_deadline()
        } else {
            // Now that resets and last acknowledgements are out.
            self.recycle();
            let clock = self.clock(now);
            let due = self.interface.poll_delay(clock, &self.sockets).map(|delay| now + MIN_WAIT.max(delay.into()));
            [due, self.next_deadline()].into_iter().flatten().min()
        };
        Turn { arrivals: std::mem::take(&mut self.arrivals), wake }
    }

    /// Fails all that connections do from now on.
    pub(super) fn end(&mut self) {
        self.ended = true;
        for slot in &self.slots {
            // Wakes tasks that wait for the socket.
            self.sockets.get_mut::<tcp::Socket<'_>>(slot.socket).abort();
        }
    }

    fn clock(&self, now: Instant) -> smoltcp::time::Instant {
        let micros = now.saturating_duration_since(self.started).as_micros();
        smoltcp::time::Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }

    fn is_half_open(&self, from: IpEndpoint) -> bool {
        self.slots.iter().any(|slot| {
            matches!(slot.phase, Phase::HalfOpen { .. })
                && self.sockets.get::<tcp::Socket<'_>>(slot.socket).remote_endpoint() == Some(from)
        })
    }

    /// Follows the handshakes. After each frame, for a socket may start two with two frames, and smoltcp 0.14 keeps, when a reset ends the
    /// first, sequence numbers of it.
    fn open(&mut self, now: Instant) {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let half_open = match slot.phase {
                Phase::Listening => false,
                Phase::HalfOpen { .. } => true,
                Phase::Held(_) | Phase::Released { .. } => continue,
            };
            match self.sockets.get::<tcp::Socket<'_>>(slot.socket).state() {
                State::Listen if !half_open => {}
                State::SynReceived if half_open => {}
                State::SynReceived => slot.phase = Phase::HalfOpen { since: now },
                State::Established | State::CloseWait => {
                    slot.phase = Phase::Held(Use { read: 0, written: 0, moved: (0, 0), since: now, timed_out: false });
                    self.arrivals.push(index);
                }
                _ => slot.listen(&mut self.sockets, &self.limits),
            }
        }
    }

    /// Aborts what its deadline has passed for.
    fn expire(&mut self, now: Instant) {
        for slot in &mut self.slots {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(slot.socket);
            match &mut slot.phase {
                Phase::Listening => {}
                Phase::HalfOpen { since } => {
                    if now >= *since + HANDSHAKE {
                        socket.abort();
                        slot.phase = Phase::Released { since: now };
                    }
                }
                Phase::Held(used) => {
                    let moved = (used.read + socket.recv_queue() as u64, used.written - socket.send_queue() as u64);
                    if used.moved != moved {
                        (used.moved, used.since) = (moved, now);
                    } else if socket.is_active() && now >= used.since + self.limits.idle {
                        socket.abort();
                        used.timed_out = true;
                    }
                }
                Phase::Released { since } => {
                    // It was shut down. Nobody reads what else the guest sends.
                    if socket.is_active() && (socket.can_recv() || now >= *since + LINGER) {
                        socket.abort();
                    }
                }
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let deadline = |slot: &Slot| match slot.phase {
            Phase::Listening => None,
            Phase::HalfOpen { since } => Some(since + HANDSHAKE),
            Phase::Held(ref used) => self.is_active(slot).then(|| used.since + self.limits.idle),
            Phase::Released { since } => self.is_active(slot).then(|| since + LINGER),
        };
        self.slots.iter().filter_map(deadline).min()
    }

    fn is_active(&self, slot: &Slot) -> bool {
        self.sockets.get::<tcp::Socket<'_>>(slot.socket).is_active()
    }

    /// Sends what may be sent, until the batch is full.
    fn send(&mut self, output: &mut FrameWriter, now: Instant) {
        let clock = self.clock(now);
        while !output.is_full() {
            let mut card = Phy::new(None, output);
            self.interface.poll_egress(clock, &mut card, &mut self.sockets);
            // After an empty segment there is nothing more to send, though smoltcp might repeat it forever (see `MIN_WAIT`).
            if !card.sent_data() {
                break;
            }
        }
    }

    /// Lets those listen that are done. A time-wait is not waited for: nothing on this link arrives late.
    fn recycle(&mut self) {
        for slot in &mut self.slots {
            if matches!(slot.phase, Phase::Released { .. })
                && !self.sockets.get::<tcp::Socket<'_>>(slot.socket).is_open()
            {
                slot.listen(&mut self.sockets, &self.limits);
            }
        }
    }

    pub(super) fn read(&mut self, index: usize, buffer: &mut ReadBuf<'_>, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let (socket, used) = self.held(index)?;
        let room = buffer.remaining();
        // Twice: the bytes may continue at the start of the ring.
        for _ in 0..2 {
            let taken = socket.recv(|bytes| {
                let n = bytes.len().min(buffer.remaining());
                buffer.put_slice(&bytes[..n]);
                (n, n)
            });
            match taken {
                Ok(n) => used.read += n as u64,
                Err(_) if buffer.remaining() < room => {}
                Err(tcp::RecvError::Finished) => return Poll::Ready(Ok(())),
                Err(tcp::RecvError::InvalidState) => return Poll::Ready(Err(used.lost())),
            }
        }
        if room > 0 && buffer.remaining() == room {
            socket.register_recv_waker(cx.waker());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn write(&mut self, index: usize, bytes: &[u8], cx: &Context<'_>) -> Poll<io::Result<usize>> {
        let (socket, used) = self.held(index)?;
        match socket.send_slice(bytes) {
            Ok(0) if !bytes.is_empty() => {
                socket.register_send_waker(cx.waker());
                Poll::Pending
            }
            Ok(n) => {
                used.written += n as u64;
                Poll::Ready(Ok(n))
            }
            Err(tcp::SendError::InvalidState) if socket.state() == State::Closed => Poll::Ready(Err(used.lost())),
            Err(tcp::SendError::InvalidState) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    pub(super) fn shutdown(&mut self, index: usize, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let (socket, used) = self.held(index)?;
        socket.close();
        match socket.state() {
            State::FinWait2 | State::TimeWait => Poll::Ready(Ok(())),
            // The guest ended its side first, and then acknowledged ours.
            State::Closed if socket.send_queue() == 0 && !used.timed_out => Poll::Ready(Ok(())),
            State::Closed => Poll::Ready(Err(used.lost())),
            _ => {
                socket.register_send_waker(cx.waker());
                Poll::Pending
            }
        }
    }

    /// The connection of the slot is gone.
    pub(super) fn release(&mut self, index: usize) {
        if self.ended {
            return;
        }
        let slot = &mut self.slots[index];
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(slot.socket);
        let complete = matches!(socket.state(), State::FinWait2 | State::TimeWait | State::Closed);
        if !complete || socket.can_recv() {
            socket.abort();
        }
        slot.phase = Phase::Released { since: Instant::now() };
    }

    fn held(&mut self, index: usize) -> io::Result<(&mut tcp::Socket<'static>, &mut Use)> {
        let slot = &mut self.slots[index];
        match &mut slot.phase {
            Phase::Held(used) if !self.ended => Ok((self.sockets.get_mut(slot.socket), used)),
            _ => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the guest's network card is gone")),
        }
    }
}

impl Slot {
    /// Listens with a new socket, which has none of the state of the old one, nor its memory.
    fn listen(&mut self, sockets: &mut SocketSet<'static>, limits: &Limits) {
        sockets.remove(self.socket);
        *self = Self { socket: sockets.add(listening(limits)), phase: Phase::Listening };
    }
}

fn listening(limits: &Limits) -> tcp::Socket<'static> {
    let size = limits.buffer.max(MTU);
    let mut socket =
        tcp::Socket::new(tcp::SocketBuffer::new(vec![0; size.min(MAX_RECEIVE)]), tcp::SocketBuffer::new(vec![0; size]));
    // Frames come and go in batches as it is. Waiting only adds the guest's delays to each small answer.
    socket.set_nagle_enabled(false);
    socket.set_ack_delay(None);
    socket.set_keep_alive(Some(KEEP_ALIVE.into()));
    // Fails for port 0, and for a socket that is in use.
    let _ = socket.listen(PORT);
    socket
}

impl Use {
    fn lost(&self) -> io::Error {
        if self.timed_out {
            io::Error::new(io::ErrorKind::TimedOut, "the guest moved no byte of this connection for too long")
        } else {
            io::Error::new(io::ErrorKind::ConnectionReset, "the guest reset this connection")
        }
    }
}
