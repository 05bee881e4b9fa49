//! What a connection is to the proxy.

use std::io::ErrorKind;

use smoltcp::socket::tcp::{RecvError, State};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, split};

use super::{LIMITS, connect, link_and_guest, pattern};
use crate::link::{Limits, PORT};

#[tokio::test(flavor = "multi_thread")]
async fn megabytes_arrive_intact_in_both_directions_at_once() {
    let (mut link, mut guest) = link_and_guest(LIMITS);
    let (connection, socket) = connect(&mut link, &mut guest).await;
    let echo = tokio::spawn(async move {
        let (mut reader, mut writer) = split(connection);
        copy(&mut reader, &mut writer).await.unwrap();
        writer.shutdown().await.unwrap();
    });

    let sent = pattern(6 * 1024 * 1024);
    let (mut rest, mut received) = (&sent[..], Vec::new());
    guest
        .until(|guest| {
            guest.take(socket, &mut received);
            let tcp = guest.tcp(socket);
            if tcp.may_send() {
                rest = &rest[tcp.send_slice(rest).unwrap()..];
                if rest.is_empty() {
                    tcp.close();
                }
            }
            tcp.state() == State::TimeWait
        })
        .await;
    assert!(received == sent, "{} of {} bytes, or others", received.len(), sent.len());
    guest.during(echo).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_can_follow_the_end_of_the_request() {
    let (mut link, mut guest) = link_and_guest(LIMITS);
    let (mut connection, socket) = connect(&mut link, &mut guest).await;
    let proxy = tokio::spawn(async move {
        let mut request = String::new();
        connection.read_to_string(&mut request).await.unwrap();
        connection.write_all(request.to_uppercase().as_bytes()).await.unwrap();
        connection.shutdown().await.unwrap();
        assert_eq!(connection.write_u8(0).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });

    guest.tcp(socket).send_slice(b"request").unwrap();
    guest.tcp(socket).close();
    guest.during(proxy).await;
    let mut answer = [0; 16];
    assert_eq!(guest.tcp(socket).recv_slice(&mut answer), Ok(7));
    assert_eq!(&answer[..7], b"REQUEST");
    assert_eq!(guest.tcp(socket).recv_slice(&mut answer), Err(RecvError::Finished));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_may_end_first_and_its_socket_is_free_at_once() {
    let (mut link, mut guest) = link_and_guest(Limits { connections: 1, ..LIMITS });
    for _ in 0..20 {
        let (mut connection, socket) = connect(&mut link, &mut guest).await;
        let proxy = tokio::spawn(async move {
            connection.write_all(b"bye").await.unwrap();
            connection.shutdown().await.unwrap();
            assert_eq!(connection.write(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
            assert_eq!(connection.read(&mut [0]).await.unwrap(), 0);
        });
        guest.until(|guest| guest.tcp(socket).state() == State::CloseWait).await;
        let mut answer = [0; 8];
        assert_eq!(guest.tcp(socket).recv_slice(&mut answer), Ok(3));
        guest.tcp(socket).close();
        guest.until(|guest| guest.tcp(socket).state() == State::Closed).await;
        assert_eq!(guest.tcp(socket).recv_slice(&mut answer), Err(RecvError::Finished), "no reset");
        guest.during(proxy).await;
        // That the link has seen the end of the connection, too.
        guest.settle().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_connection_is_reset() {
    let (mut link, mut guest) = link_and_guest(LIMITS);
    let (mut connection, socket) = connect(&mut link, &mut guest).await;
    connection.write_all(b"the start of an answer").await.unwrap();
    drop(connection);
    guest.until(|guest| !guest.tcp(socket).is_active()).await;
    assert_eq!(guest.tcp(socket).state(), State::Closed);
    guest.take(socket, &mut Vec::new());
    assert_eq!(guest.tcp(socket).recv_slice(&mut [0]), Err(RecvError::InvalidState), "not as if it were all");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_not_read_loses_nothing_and_delays_nobody() {
    let (mut link, mut guest) = link_and_guest(LIMITS);
    let (mut unread, slow) = connect(&mut link, &mut guest).await;
    let sent = pattern(300_000);
    let mut rest = &sent[..];
    guest
        .until(|guest| {
            rest = &rest[guest.tcp(slow).send_slice(rest).unwrap()..];
            rest.is_empty()
        })
        .await;

    let (mut other, quick) = connect(&mut link, &mut guest).await;
    guest.tcp(quick).send_slice(b"ping").unwrap();
    let proxy = tokio::spawn(async move {
        let mut ping = [0; 4];
        other.read_exact(&mut ping).await.unwrap();
        let mut all = vec![0; 300_000];
        unread.read_exact(&mut all).await.unwrap();
        (all, other, unread)
    });
    assert!(guest.during(proxy).await.0 == sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_does_not_read_one_connection_gets_another() {
    let (mut link, mut guest) = link_and_guest(LIMITS);
    let blocked = guest.connect_with(PORT, 8 * 1024);
    guest.until(|guest| guest.tcp(blocked).may_send()).await;
    let mut connection = link.accept().await.unwrap().unwrap();
    let blocked = tokio::spawn(async move { connection.write_all(&pattern(1024 * 1024)).await });

    let (mut connection, socket) = connect(&mut link, &mut guest).await;
    let proxy = tokio::spawn(async move {
        connection.write_all(&pattern(1024 * 1024)).await.unwrap();
        connection.shutdown().await.unwrap();
    });
    let mut received = Vec::new();
    guest
        .until(|guest| {
            guest.take(socket, &mut received);
            !guest.tcp(socket).may_recv()
        })
        .await;
    assert!(received == pattern(1024 * 1024));
    guest.during(proxy).await;
    assert!(!blocked.is_finished(), "it waits for the guest");
    blocked.abort();
}

#[tokio::test]
async fn a_reset_by_the_guest_fails_reads_and_writes() {
    let (mut link, mut guest) = link_and_guest(LIMITS);
    let (mut connection, socket) = connect(&mut link, &mut guest).await;
    guest.tcp(socket).abort();
    guest.until(|_| true).await;
    assert_eq!(connection.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(connection.write_u8(0).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn the_end_of_qemu_is_no_error_and_ends_the_connections() {
    let (mut link, mut guest) = link_and_guest(LIMITS);
    let (mut connection, _) = connect(&mut link, &mut guest).await;
    let read = tokio::spawn(async move { connection.read_u8().await });
    tokio::task::yield_now().await;
    drop(guest);
    assert!(link.accept().await.unwrap().is_none());
    assert!(link.accept().await.unwrap().is_none());
    assert_eq!(read.await.unwrap().unwrap_err().kind(), ErrorKind::ConnectionAborted);
}

#[tokio::test]
async fn a_dropped_link_ends_its_connections_and_its_socket() {
    let (mut link, mut guest) = link_and_guest(LIMITS);
    let (mut connection, _) = connect(&mut link, &mut guest).await;
    drop(link);
    assert_eq!(connection.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionAborted);
    let mut rest = Vec::new();
    guest.into_socket().read_to_end(&mut rest).await.unwrap();
}
