//! A guest that sends what no TCP stack would.

use std::collections::HashMap;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;
use smoltcp::wire::{Ipv4Packet, TcpControl, TcpPacket, TcpRepr};
use tokio::io::ReadBuf;
use tokio::time::Instant;

use super::frames::{arp_request, segment, tcp_from};
use super::guest::GUEST;
use super::{LIMITS, connect, link_and_guest};
use crate::link::frames::{FrameReader, FrameWriter};
use crate::link::stack::{Stack, Turn};
use crate::link::{ADDRESS, Limits};

const SMALL: Limits = Limits { connections: 2, buffer: 8 * 1024, idle: Duration::from_secs(60) };

/// A stack without a socket and a task, the time of which is the test's.
struct Bench {
    stack: Stack,
    output: FrameWriter,
    now: Instant,
    held: Vec<usize>,
    last: Turn,
    /// The last acknowledgement and the end of the last segment of the stack, by the guest's port.
    seen: HashMap<u16, (i32, i32)>,
    sent: usize,
}

impl Bench {
    fn new(limits: Limits) -> Self {
        let mut bench = Self {
            stack: Stack::new(limits),
            output: FrameWriter::new(limits.connections),
            now: Instant::now(),
            held: Vec::new(),
            last: Turn { arrivals: Vec::new(), wake: None },
            seen: HashMap::new(),
            sent: 0,
        };
        bench.receive(&arp_request(ADDRESS));
        bench.turn();
        bench
    }

    fn receive(&mut self, frame: &[u8]) {
        self.stack.receive(frame, &mut self.output, self.now);
    }

    /// A turn, and QEMU takes all that was sent.
    fn turn(&mut self) {
        self.last = self.stack.turn(&mut self.output, self.now);
        self.held.append(&mut self.last.arrivals);
        let mut stream = Vec::new();
        self.output
            .write(|bytes| {
                stream.extend_from_slice(bytes);
                Ok(bytes.len())
            })
            .unwrap();
        let mut reader = FrameReader::new();
        let mut rest = &stream[..];
        while !rest.is_empty() {
            reader.read(|buffer| std::io::Read::read(&mut rest, buffer)).unwrap();
            while let Some(frame) = reader.next().unwrap() {
                self.sent += 1;
                if frame[12..14] == [0x08, 0x00] {
                    let ip = Ipv4Packet::new_checked(&frame[14..]).unwrap();
                    let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
                    let end = tcp.seq_number() + tcp.segment_len();
                    self.seen.insert(tcp.dst_port(), (tcp.ack_number().0, end.0));
                }
            }
        }
    }

    /// A connection from that port, with the guest's sequence numbers starting at 0. Returns the stack's next one.
    fn open(&mut self, port: u16, window_scale: Option<u8>, window: u16) -> (usize, i32) {
        let syn = TcpRepr { window_scale, window_len: window, ..segment(port, TcpControl::Syn, -1, None) };
        self.receive(&tcp_from(GUEST, &syn));
        self.turn();
        let (ack, seq) = self.seen[&port];
        assert_eq!(ack, 0, "SYN|ACK");
        self.receive(&tcp_from(
            GUEST,
            &TcpRepr { window_len: window, ..segment(port, TcpControl::None, 0, Some(seq)) },
        ));
        self.turn();
        (self.held.pop().unwrap(), seq)
    }

    fn read(&mut self, slot: usize, size: usize) -> Poll<std::io::Result<Vec<u8>>> {
        let mut bytes = vec![0; size];
        let mut buffer = ReadBuf::new(&mut bytes);
        self.stack.read(slot, &mut buffer, &Context::from_waker(Waker::noop())).map_ok(|()| buffer.filled().to_vec())
    }

    fn write(&mut self, slot: usize, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.stack.write(slot, bytes, &Context::from_waker(Waker::noop()))
    }

    fn shutdown(&mut self, slot: usize) -> Poll<std::io::Result<()>> {
        self.stack.shutdown(slot, &Context::from_waker(Waker::noop()))
    }
}

#[test]
fn bytes_beyond_the_window_are_not_taken() {
    let mut bench = Bench::new(LIMITS);
    let (slot, seq) = bench.open(1000, Some(7), 65535);
    // Backwards from the end of the window that a scaled 65535 would be, so that each is out of order and kept until the first is there.
    for start in (0..261_000).step_by(1000).rev() {
        let repr = TcpRepr { payload: &[7; 1000], ..segment(1000, TcpControl::None, start, Some(seq)) };
        bench.receive(&tcp_from(GUEST, &repr));
        bench.turn();
    }
    let Poll::Ready(Ok(bytes)) = bench.read(slot, 1024 * 1024) else { panic!() };
    assert!(!bytes.is_empty() && bytes.len() <= 65535 && bytes.iter().all(|b| *b == 7));
}

#[test]
fn a_window_probe_that_is_due_forever_is_not_sent_forever() {
    let mut bench = Bench::new(SMALL);
    let (slot, seq) = bench.open(1000, None, 0);
    assert!(matches!(bench.write(slot, b"x"), Poll::Ready(Ok(1))));
    assert!(bench.shutdown(slot).is_pending());
    bench.turn();
    // The byte and the FIN, of which one was a probe; the window stays closed.
    let all = TcpRepr { window_len: 0, ..segment(1000, TcpControl::None, 0, Some(seq + 2)) };
    bench.receive(&tcp_from(GUEST, &all));
    bench.turn();
    assert!(matches!(bench.shutdown(slot), Poll::Ready(Ok(()))));

    let (before, until) = (bench.sent, bench.now + Duration::from_secs(10));
    let mut turns = 0;
    while let Some(wake) = bench.last.wake.filter(|at| *at < until) {
        bench.now = wake;
        bench.turn();
        turns += 1;
    }
    assert!(turns <= 2100 && bench.sent - before <= 2100, "{turns} turns, {} frames", bench.sent - before);
}

#[test]
fn a_handshake_after_a_reset_has_a_deadline_of_its_own() {
    let mut bench = Bench::new(Limits { connections: 1, ..SMALL });
    bench.receive(&tcp_from(GUEST, &segment(1000, TcpControl::Syn, 76, None)));
    bench.turn();
    bench.receive(&tcp_from(GUEST, &segment(1000, TcpControl::Rst, 77, None)));
    bench.now += Duration::from_secs(9);
    bench.receive(&tcp_from(GUEST, &segment(1001, TcpControl::Syn, -1, None)));
    bench.turn();
    let (_, seq) = bench.seen[&1001];
    bench.now += Duration::from_secs(9);
    bench.turn();
    bench.receive(&tcp_from(GUEST, &segment(1001, TcpControl::None, 0, Some(seq))));
    bench.turn();
    assert_eq!(bench.held, [0]);
}

#[test]
fn a_syn_that_is_sent_again_takes_no_second_socket() {
    let mut bench = Bench::new(SMALL);
    let (first, _) = bench.open(1000, None, 65535);
    let syn = tcp_from(GUEST, &segment(1001, TcpControl::Syn, -1, None));
    bench.receive(&syn);
    bench.turn();
    let (_, seq) = bench.seen[&1001];
    // A socket listens that comes before the one that has the handshake.
    bench.stack.release(first);
    bench.turn();
    bench.receive(&syn);
    bench.turn();
    bench.receive(&tcp_from(GUEST, &segment(1001, TcpControl::None, 0, Some(seq))));
    bench.turn();
    assert_eq!(bench.held, [1]);
    bench.open(1002, None, 65535);
}

/// What the guest, the proxy and the clock do.
#[derive(Clone, Debug)]
enum Step {
    Raw(Vec<u8>),
    /// To the proxy's address, with numbers relative to those that the stack expects.
    Segment {
        port: u16,
        control: u8,
        seq: i32,
        ack: Option<i32>,
        window: u16,
        options: u8,
        size: usize,
        cut: usize,
    },
    Read {
        connection: usize,
        size: usize,
    },
    Write {
        connection: usize,
        size: usize,
    },
    Shutdown(usize),
    Release(usize),
    Turn,
    Wait(u64),
    /// Until it is due.
    WaitForTurn,
}

/// Often what is expected, or almost.
fn near() -> impl Strategy<Value = i32> {
    prop_oneof![6 => Just(0), 3 => -3..4i32, 2 => -10_000..10_000i32, 1 => any::<i32>()]
}

fn step() -> impl Strategy<Value = Step> {
    let segment = (
        (1u16..4, 0u8..6),
        (near(), prop_oneof![1 => Just(None), 8 => near().prop_map(Some)]),
        prop_oneof![Just(0u16), Just(65535), any::<u16>()],
        (any::<u8>(), prop_oneof![4 => Just(0usize), 3 => 1..2000usize, 1 => 0..60_000usize]),
        prop_oneof![30 => Just(0usize), 1 => 1..60usize],
    )
        .prop_map(|((port, control), (seq, ack), window, (options, size), cut)| Step::Segment {
            port,
            control,
            seq,
            ack,
            window,
            options,
            size,
            cut,
        });
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..100).prop_map(Step::Raw),
        20 => segment,
        3 => (0..2usize, 0..20_000usize).prop_map(|(connection, size)| Step::Read { connection, size }),
        3 => (0..2usize, 0..20_000usize).prop_map(|(connection, size)| Step::Write { connection, size }),
        1 => (0..2usize).prop_map(Step::Shutdown),
        1 => (0..2usize).prop_map(Step::Release),
        6 => Just(Step::Turn),
        1 => (0..30_000u64).prop_map(Step::Wait),
        3 => Just(Step::WaitForTurn),
    ]
}

impl Bench {
    fn step(&mut self, step: Step) {
        match step {
            Step::Raw(bytes) => {
                self.receive(&bytes);
                let mut to_the_proxy = tcp_from(GUEST, &segment(1, TcpControl::None, 0, Some(0)));
                for (byte, noise) in to_the_proxy[34..].iter_mut().zip(&bytes) {
                    *byte ^= noise;
                }
                self.receive(&to_the_proxy);
            }
            Step::Segment { port, control, seq, ack, window, options, size, cut } => {
                let (expected, next) = self.seen.get(&port).copied().unwrap_or_default();
                let controls = [
                    TcpControl::None,
                    TcpControl::None,
                    TcpControl::Syn,
                    TcpControl::Psh,
                    TcpControl::Fin,
                    TcpControl::Rst,
                ];
                let payload = vec![options; size];
                let repr = TcpRepr {
                    window_len: window,
                    window_scale: (options & 1 == 1).then_some(options >> 4),
                    max_seg_size: (options & 2 == 2).then_some(u16::from(options)),
                    sack_permitted: options & 4 == 4,
                    payload: &payload,
                    ..segment(
                        port,
                        controls[usize::from(control)],
                        expected.wrapping_add(seq),
                        ack.map(|ack| next.wrapping_add(ack)),
                    )
                };
                let frame = tcp_from(GUEST, &repr);
                self.receive(&frame[..frame.len() - cut.min(frame.len())]);
            }
            Step::Read { connection, size } => {
                if let Some(slot) = self.held.get(connection).copied() {
                    let _ = self.read(slot, size);
                }
            }
            Step::Write { connection, size } => {
                if let Some(slot) = self.held.get(connection).copied() {
                    let _ = self.write(slot, &vec![1; size]);
                }
            }
            Step::Shutdown(connection) => {
                if let Some(slot) = self.held.get(connection).copied() {
                    let _ = self.shutdown(slot);
                }
            }
            Step::Release(connection) => {
                if connection < self.held.len() {
                    self.stack.release(self.held.swap_remove(connection));
                }
            }
            Step::Turn => self.turn(),
            Step::Wait(millis) => {
                self.now += Duration::from_millis(millis);
                self.turn();
            }
            Step::WaitForTurn => {
                if let Some(wake) = self.last.wake {
                    self.now = self.now.max(wake);
                    self.turn();
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_frames_stop_the_stack(steps in prop::collection::vec(step(), 0..300)) {
        let mut bench = Bench::new(SMALL);
        for step in steps {
            bench.step(step);
        }
        // Whatever it was: without connections of the proxy, all sockets listen again when their deadlines have passed.
        for slot in std::mem::take(&mut bench.held) {
            bench.stack.release(slot);
        }
        for _ in 0..4 {
            bench.now += Duration::from_secs(61);
            bench.receive(&arp_request(ADDRESS));
            bench.turn();
            for slot in std::mem::take(&mut bench.held) {
                bench.stack.release(slot);
            }
        }
        bench.open(50_000, None, 65535);
        bench.open(50_001, Some(7), 65535);
    }
}

#[tokio::test]
async fn after_garbage_the_link_serves() {
    let (mut link, mut guest) = link_and_guest(LIMITS);
    for size in 1..2000 {
        guest.inject(&super::pattern(size));
        let mut to_the_proxy = tcp_from(GUEST, &segment(1, TcpControl::None, 0, Some(0)));
        to_the_proxy.truncate(size);
        guest.inject(&to_the_proxy);
    }
    connect(&mut link, &mut guest).await;
}
