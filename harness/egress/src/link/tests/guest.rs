//! A guest: a second smoltcp at the other end of the socket.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::wire::{EthernetAddress, IpCidr};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::frames::arp_request;
use crate::link::ADDRESS;

pub(super) const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
pub(super) const GUEST_MAC: EthernetAddress = EthernetAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

/// Longer than any test waits, and than any deadline of the link.
const PATIENCE: Duration = Duration::from_secs(100);

pub(super) struct Guest {
    socket: UnixStream,
    started: Instant,
    interface: Interface,
    sockets: SocketSet<'static>,
    card: Queues,
    received: Vec<u8>,
    unsent: Vec<u8>,
    next_port: u16,
}

impl Guest {
    pub(super) fn new(socket: UnixStream) -> Self {
        let mut card = Queues::default();
        let mut interface = Interface::new(Config::new(GUEST_MAC.into()), &mut card, smoltcp::time::Instant::ZERO);
        interface.update_ip_addrs(|addresses| addresses.push(IpCidr::new(GUEST.into(), 24)).unwrap());
        Self {
            socket,
            started: Instant::now(),
            interface,
            sockets: SocketSet::new(Vec::new()),
            card,
            received: Vec::new(),
            unsent: Vec::new(),
            next_port: 49152,
        }
    }

    /// Starts to connect to the proxy's address.
    pub(super) fn connect(&mut self, port: u16) -> SocketHandle {
        self.connect_with(port, 256 * 1024)
    }

    /// With a buffer of that many bytes for what the proxy sends.
    pub(super) fn connect_with(&mut self, port: u16, receive: usize) -> SocketHandle {
        let mut socket =
            tcp::Socket::new(tcp::SocketBuffer::new(vec![0; receive]), tcp::SocketBuffer::new(vec![0; 256 * 1024]));
        socket.set_ack_delay(None);
        self.next_port += 1;
        socket.connect(self.interface.context(), (ADDRESS, port), self.next_port).unwrap();
        self.sockets.add(socket)
    }

    pub(super) fn tcp(&mut self, socket: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(socket)
    }

    /// Until the link has done all that it was asked for so far: it answers the question about its address that the guest asks now.
    pub(super) async fn settle(&mut self) {
        self.inject(&arp_request(ADDRESS));
        let answers = self.card.arp_answers;
        self.until(|guest| guest.card.arp_answers > answers).await;
    }

    /// The socket, without the stack.
    pub(super) fn into_socket(self) -> UnixStream {
        self.socket
    }

    /// Sends a frame that the guest's own stack knows nothing of.
    pub(super) fn inject(&mut self, frame: &[u8]) {
        self.card.sent.push(frame.to_vec());
    }

    /// The guest runs until it is as the test wants it.
    pub(super) async fn until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        tokio::time::timeout(PATIENCE, async {
            loop {
                let now = smoltcp::time::Instant::from_micros(self.started.elapsed().as_micros() as i64);
                self.interface.poll(now, &mut self.card, &mut self.sockets);
                if done(self) {
                    self.interface.poll(now, &mut self.card, &mut self.sockets);
                    self.write();
                    return;
                }
                self.write();
                let delay = self.interface.poll_delay(now, &self.sockets).map_or(PATIENCE * 2, Duration::from);
                let interest =
                    if self.unsent.is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
                tokio::select! {
                    ready = self.socket.ready(interest) => { ready.unwrap(); }
                    () = sleep(delay) => {}
                }
                self.read();
            }
        })
        .await
        .expect("the guest gets where the test wants it");
    }

    /// The guest runs until the proxy's task is done.
    pub(super) async fn during<T>(&mut self, task: JoinHandle<T>) -> T {
        tokio::select! {
            result = task => result.unwrap(),
            () = self.until(|_| false) => unreachable!(),
        }
    }

    /// Takes what the proxy sent.
    pub(super) fn take(&mut self, socket: SocketHandle, into: &mut Vec<u8>) {
        let tcp = self.tcp(socket);
        while tcp.can_recv() {
            let taken = tcp.recv(|bytes| {
                into.extend_from_slice(bytes);
                (bytes.len(), ())
            });
            taken.unwrap();
        }
    }

    fn write(&mut self) {
        for frame in self.card.sent.drain(..) {
            self.unsent.extend_from_slice(&(frame.len() as u32).to_be_bytes());
            self.unsent.extend_from_slice(&frame);
        }
        let mut written = 0;
        while let Ok(n @ 1..) = self.socket.try_write(&self.unsent[written..]) {
            written += n;
        }
        self.unsent.drain(..written);
    }

    fn read(&mut self) {
        let _ = self.socket.try_read_buf(&mut self.received);
        let mut rest = &self.received[..];
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let Some((frame, after)) = after.split_at_checked(u32::from_be_bytes(*length) as usize) else { break };
            self.card.received.push_back(frame.to_vec());
            rest = after;
        }
        self.received = rest.to_vec();
        self.received.reserve(64 * 1024);
    }
}

#[derive(Default)]
struct Queues {
    received: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    arp_answers: u64,
}

struct Received(Vec<u8>);

struct Sending<'a>(&'a mut Vec<Vec<u8>>);

impl Device for Queues {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Received, Sending<'_>)> {
        let frame = self.received.pop_front()?;
        self.arp_answers += u64::from(frame[12..14] == [0x08, 0x06]);
        Some((Received(frame), Sending(&mut self.sent)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push(frame);
        result
    }
}
