//! Of a link, with another TCP stack as the guest, and with frames that no stack would send.

mod frames;
mod guest;
mod hostile;
mod limits;
mod serving;

use std::time::Duration;

use tokio::net::UnixStream;

use super::{Card, Connection, Limits, Link};
use guest::Guest;

const LIMITS: Limits = Limits { connections: 4, buffer: 128 * 1024, idle: Duration::from_secs(60) };

fn link(limits: Limits) -> (Link, UnixStream) {
    let (link, qemus, mut network) = link_of_a_network(limits);
    tokio::spawn(async move { tokio::io::copy(&mut network, &mut tokio::io::sink()).await });
    (link, qemus)
}

/// With what the guest's network receives. One socket is all that the guest sends and receives.
fn link_of_a_network(limits: Limits) -> (Link, UnixStream, UnixStream) {
    let (ours, qemus) = UnixStream::pair().unwrap();
    let (passed_on, network) = UnixStream::pair().unwrap();
    let ours = ours.into_std().unwrap();
    let from_guest = UnixStream::from_std(ours.try_clone().unwrap()).unwrap();
    let card = Card { from_guest, to_guest: UnixStream::from_std(ours).unwrap(), passed_on };
    (Link::new(card, limits), qemus, network)
}

fn link_and_guest(limits: Limits) -> (Link, Guest) {
    let (link, socket) = link(limits);
    (link, Guest::new(socket))
}

/// A connection of the guest, as both ends have it.
async fn connect(link: &mut Link, guest: &mut Guest) -> (Connection, smoltcp::iface::SocketHandle) {
    let socket = guest.connect(super::PORT);
    guest.until(|guest| guest.tcp(socket).may_send()).await;
    (link.accept().await.unwrap().unwrap(), socket)
}

/// Bytes of which no part looks like the next one.
fn pattern(size: usize) -> Vec<u8> {
    (0u64..).flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).take(size).collect()
}
