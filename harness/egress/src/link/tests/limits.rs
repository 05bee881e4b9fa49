//! What a guest cannot use up.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::time::Duration;

use smoltcp::socket::tcp::State;
use smoltcp::wire::{EthernetAddress, TcpControl};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::frames::{arp_request_of, segment, tcp_from};
use super::guest::Guest;
use super::{LIMITS, connect, link_and_guest, pattern};
use crate::link::{ADDRESS, Limits, PORT};

/// An address that the guest uses, too, and at which it answers nothing.
const SILENT: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 16);
const SILENT_MAC: EthernetAddress = EthernetAddress([0x52, 0x54, 0, 0, 0, 16]);

const TWO: Limits = Limits { connections: 2, ..LIMITS };
const ONE: Limits = Limits { connections: 1, ..LIMITS };

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_above_the_limit_is_refused_until_another_has_ended() {
    let (mut link, mut guest) = link_and_guest(TWO);
    let (first, _) = connect(&mut link, &mut guest).await;
    let (_second, _) = connect(&mut link, &mut guest).await;

    let third = guest.connect(PORT);
    guest.until(|guest| guest.tcp(third).state() == State::Closed).await;

    drop(first);
    guest.settle().await;
    let (mut third, socket) = connect(&mut link, &mut guest).await;
    guest.tcp(socket).send_slice(b"x").unwrap();
    guest.until(|guest| guest.tcp(socket).send_queue() == 0).await;
    assert_eq!(third.read_u8().await.unwrap(), b'x');
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_another_port_is_refused() {
    let (_link, mut guest) = link_and_guest(LIMITS);
    let socket = guest.connect(PORT + 1);
    guest.until(|guest| guest.tcp(socket).state() == State::Closed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_attempts_do_not_stop_a_transfer() {
    let (mut link, mut guest) = link_and_guest(LIMITS);
    let (mut connection, socket) = connect(&mut link, &mut guest).await;
    let proxy = tokio::spawn(async move {
        connection.write_all(&pattern(4 * 1024 * 1024)).await.unwrap();
        connection.shutdown().await.unwrap();
    });
    let (mut received, mut port) = (Vec::new(), 10_000);
    guest.inject(&arp_request_of(SILENT, SILENT_MAC, ADDRESS));
    guest
        .until(|guest| {
            for _ in 0..50 {
                if port < 20_000 {
                    guest.inject(&tcp_from(SILENT, &segment(port, TcpControl::Syn, 1, None)));
                    port += 1;
                }
            }
            guest.take(socket, &mut received);
            !guest.tcp(socket).may_recv() && port == 20_000
        })
        .await;
    assert!(received == pattern(4 * 1024 * 1024));
    guest.during(proxy).await;
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_is_not_completed_frees_its_socket() {
    let (mut link, mut guest) = link_and_guest(ONE);
    guest.until(|_| true).await;
    guest.inject(&arp_request_of(SILENT, SILENT_MAC, ADDRESS));
    guest.inject(&tcp_from(SILENT, &segment(1000, TcpControl::Syn, 1, None)));
    let refused = guest.connect(PORT);
    guest.until(|guest| guest.tcp(refused).state() == State::Closed).await;

    let started = Instant::now();
    loop {
        let socket = guest.connect(PORT);
        guest.until(|guest| matches!(guest.tcp(socket).state(), State::Closed | State::Established)).await;
        if guest.tcp(socket).state() == State::Established {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "refused still");
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert!(link.accept().await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_connection_on_which_nothing_moves_is_reset() {
    let (mut link, mut guest) = link_and_guest(ONE);
    let (mut connection, socket) = connect(&mut link, &mut guest).await;
    let started = Instant::now();
    let read = tokio::spawn(async move { connection.read_u8().await });
    // It answers keep-alives all the while.
    guest.until(|guest| guest.tcp(socket).state() == State::Closed).await;
    assert!(started.elapsed() >= LIMITS.idle);
    assert_eq!(read.await.unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
    guest.settle().await;
    connect(&mut link, &mut guest).await;
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_takes_nothing_ends_the_write() {
    let (mut link, mut guest) = link_and_guest(ONE);
    let socket = guest.connect_with(PORT, 8 * 1024);
    guest.until(|guest| guest.tcp(socket).may_send()).await;
    let mut connection = link.accept().await.unwrap().unwrap();
    let write = tokio::spawn(async move { connection.write_all(&pattern(1024 * 1024)).await });
    // It answers window probes all the while.
    guest.until(|guest| guest.tcp(socket).state() == State::Closed).await;
    assert_eq!(write.await.unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_restarted_gets_its_sockets_back() {
    let (mut link, mut guest) = link_and_guest(ONE);
    let (mut stale, _) = connect(&mut link, &mut guest).await;
    // It remembers nothing, and its first answer to the old connection is a reset.
    let mut guest = Guest::new(guest.into_socket());
    let started = Instant::now();
    let read = tokio::spawn(async move { stale.read_u8().await });
    assert_eq!(guest.during(read).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(started.elapsed() < LIMITS.idle);
    guest.settle().await;
    connect(&mut link, &mut guest).await;
}
