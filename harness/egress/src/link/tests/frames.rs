//! The framing, and which frames are answered.

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpAddress,
    IpProtocol, Ipv4Address, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::guest::{GUEST, GUEST_MAC};
use super::{LIMITS, connect, link, link_and_guest};
use crate::link::filter::MAC;
use crate::link::frames::MAX_FRAME;
use crate::link::{ADDRESS, LinkError, PORT};

fn ethernet(to: EthernetAddress, ethertype: EthernetProtocol, size: usize) -> Vec<u8> {
    let mut frame = vec![0; 14 + size];
    EthernetRepr { src_addr: GUEST_MAC, dst_addr: to, ethertype }.emit(&mut EthernetFrame::new_unchecked(&mut frame));
    frame
}

pub(super) fn arp_request(target: Ipv4Address) -> Vec<u8> {
    arp_request_of(GUEST, GUEST_MAC, target)
}

pub(super) fn arp_request_of(from: Ipv4Address, mac: EthernetAddress, target: Ipv4Address) -> Vec<u8> {
    let mut frame = ethernet(EthernetAddress::BROADCAST, EthernetProtocol::Arp, 28);
    ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: mac,
        source_protocol_addr: from,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: target,
    }
    .emit(&mut ArpPacket::new_unchecked(&mut frame[14..]));
    frame
}

pub(super) fn ipv4(from: Ipv4Address, to: Ipv4Address, protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let mut frame = ethernet(MAC, EthernetProtocol::Ipv4, 20 + payload.len());
    Ipv4Repr { src_addr: from, dst_addr: to, next_header: protocol, payload_len: payload.len(), hop_limit: 64 }
        .emit(&mut Ipv4Packet::new_unchecked(&mut frame[14..]), &Default::default());
    frame[34..].copy_from_slice(payload);
    frame
}

/// A segment from the guest to the proxy's port, without options.
pub(super) fn segment(from_port: u16, control: TcpControl, seq: i32, ack: Option<i32>) -> TcpRepr<'static> {
    TcpRepr {
        src_port: from_port,
        dst_port: PORT,
        control,
        seq_number: TcpSeqNumber(seq),
        ack_number: ack.map(TcpSeqNumber),
        window_len: 65535,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    }
}

pub(super) fn tcp_from(from: Ipv4Address, repr: &TcpRepr<'_>) -> Vec<u8> {
    let mut payload = vec![0; repr.buffer_len()];
    let (source, target) = (IpAddress::Ipv4(from), IpAddress::Ipv4(ADDRESS));
    repr.emit(&mut TcpPacket::new_unchecked(&mut payload), &source, &target, &Default::default());
    ipv4(from, ADDRESS, IpProtocol::Tcp, &payload)
}

async fn send(socket: &mut UnixStream, frame: &[u8]) {
    socket.write_all(&(frame.len() as u32).to_be_bytes()).await.unwrap();
    socket.write_all(frame).await.unwrap();
}

async fn next_frame(socket: &mut UnixStream) -> Vec<u8> {
    let mut frame = vec![0; socket.read_u32().await.unwrap() as usize];
    socket.read_exact(&mut frame).await.unwrap();
    frame
}

/// That the link says nothing to `frame`: the first answer is to what was asked after it.
async fn assert_silent(socket: &mut UnixStream, frame: &[u8], why: &str) {
    send(socket, frame).await;
    send(socket, &arp_request(ADDRESS)).await;
    let answer = next_frame(socket).await;
    assert_eq!(answer[12..14], [0x08, 0x06], "no answer to {why}, but: {answer:02x?}");
}

#[tokio::test]
async fn arp_is_answered_for_the_proxy_with_an_address_of_its_own() {
    let (_link, mut socket) = link(LIMITS);
    send(&mut socket, &arp_request(ADDRESS)).await;
    let answer = next_frame(&mut socket).await;
    assert_eq!(answer[..6], GUEST_MAC.0);
    assert_eq!(answer[6..12], MAC.0);
    assert_eq!(
        ArpRepr::parse(&ArpPacket::new_checked(&answer[14..]).unwrap()).unwrap(),
        ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: MAC,
            source_protocol_addr: ADDRESS,
            target_hardware_addr: GUEST_MAC,
            target_protocol_addr: GUEST,
        }
    );
    assert!(MAC.is_unicast());
    assert_eq!(MAC.0[0] & 2, 2, "locally administered");
}

#[tokio::test]
async fn what_is_not_for_the_proxy_is_not_answered() {
    let (_link, mut socket) = link(LIMITS);
    let syn = segment(1000, TcpControl::Syn, 1, None);
    let of_slirp = |mut frame: Vec<u8>| {
        frame[..6].copy_from_slice(&[0x52, 0x55, 0x0a, 0, 2, 2]);
        frame
    };
    let mut fragment = tcp_from(GUEST, &syn);
    Ipv4Packet::new_unchecked(&mut fragment[14..]).set_more_frags(true);
    let mut broadcast = tcp_from(GUEST, &syn);
    broadcast[..6].copy_from_slice(&[0xff; 6]);

    let other_arp = arp_request(Ipv4Address::new(10, 0, 2, 7));
    assert_silent(&mut socket, &other_arp, "ARP for another address").await;
    assert_silent(&mut socket, &of_slirp(tcp_from(GUEST, &syn)), "a frame to slirp").await;
    assert_silent(&mut socket, &broadcast, "TCP to everybody").await;
    assert_silent(&mut socket, &fragment, "a fragment").await;
    let (own, far) = (ADDRESS, Ipv4Address::new(192, 0, 2, 1));
    assert_silent(&mut socket, &tcp_from(own, &syn), "the proxy's own address as the source").await;
    assert_silent(&mut socket, &tcp_from(far, &syn), "a source that is no neighbour").await;
    assert_silent(&mut socket, &ipv4(GUEST, ADDRESS, IpProtocol::Udp, &[0; 8]), "UDP").await;
    assert_silent(&mut socket, &ipv4(GUEST, ADDRESS, IpProtocol::Icmp, &[8, 0, 0, 0, 0, 0, 0, 0]), "a ping").await;
    assert_silent(&mut socket, &ipv4(GUEST, ADDRESS, IpProtocol::Unknown(200), &[0; 8]), "an unknown protocol").await;
    assert_silent(&mut socket, &ipv4(GUEST, Ipv4Address::new(10, 0, 2, 3), IpProtocol::Tcp, &[0; 20]), "slirp's IP")
        .await;
}

#[tokio::test]
async fn frames_may_come_in_any_pieces() {
    let (_link, mut socket) = link(LIMITS);
    let mut stream = Vec::new();
    // As long as QEMU sends them: padding after the packet.
    let mut longest = arp_request(ADDRESS);
    longest.resize(MAX_FRAME, 0);
    for frame in [longest, vec![0], arp_request(ADDRESS)] {
        stream.extend((frame.len() as u32).to_be_bytes());
        stream.extend(frame);
    }
    let (start, end) = stream.split_at(stream.len() - 60);
    for piece in start.chunks(5000).chain(end.chunks(1)) {
        socket.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    for _ in 0..2 {
        assert_eq!(next_frame(&mut socket).await[12..14], [0x08, 0x06]);
    }
}

#[tokio::test]
async fn a_length_that_no_frame_has_ends_the_link() {
    for length in [0, MAX_FRAME as u32 + 1, u32::MAX] {
        let (mut link, mut guest) = link_and_guest(LIMITS);
        let (mut connection, _) = connect(&mut link, &mut guest).await;
        let mut socket = guest.into_socket();
        socket.write_all(&length.to_be_bytes()).await.unwrap();

        match link.accept().await {
            Err(LinkError::FrameLength(l)) => assert_eq!(l, length),
            other => panic!("{:?}", other.map(|c| c.is_some())),
        }
        assert!(link.accept().await.unwrap().is_none(), "it says so once");
        assert!(connection.read_u8().await.is_err(), "connections fail");
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest).await;
    }
}
