//! Which of the guest's frames concern the link.
//!
//! Others never reach smoltcp, which would answer some of them: an ICMP error for UDP, a reset for what looks like a segment and is a fragment.

use std::net::Ipv4Addr;

use smoltcp::wire::{
    ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, IpEndpoint, IpProtocol, Ipv4Cidr, Ipv4Packet,
    TcpPacket,
};

use super::ADDRESS;

/// Locally administered, as QEMU's own 52:54:00 and 52:55:0a are, and none of theirs.
pub(super) const MAC: EthernetAddress = EthernetAddress([0x52, 0x56, 0x0a, 0x00, 0x02, 0x64]);

/// QEMU's user network.
pub(super) const NETWORK: Ipv4Cidr = Ipv4Cidr::new(ADDRESS, 24);

/// What a frame is to the link.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// ARP about [`ADDRESS`].
    Arp,
    /// The guest wants to open a connection from there.
    Syn(IpEndpoint),
    /// Any other TCP segment.
    Segment,
}

/// Whether the link takes the frame; others are its guest's network's.
pub(super) fn is_for_link(frame: &[u8]) -> bool {
    frame.starts_with(&MAC.0) || classify(frame).is_some()
}

/// `None` for a frame that is not for the link, malformed, or claims to be from an address no neighbour can have.
pub(super) fn classify(frame: &[u8]) -> Option<Frame> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    let (to, payload) = (ethernet.dst_addr(), ethernet.payload());
    match ethernet.ethertype() {
        EthernetProtocol::Arp if to == MAC || to.is_broadcast() => {
            let ArpRepr::EthernetIpv4 { source_hardware_addr, source_protocol_addr, target_protocol_addr, .. } =
                ArpRepr::parse(&ArpPacket::new_checked(payload).ok()?).ok()?
            else {
                return None;
            };
            (target_protocol_addr == ADDRESS
                && is_neighbour(source_protocol_addr)
                && source_hardware_addr.is_unicast()
                && source_hardware_addr != MAC)
                .then_some(Frame::Arp)
        }
        EthernetProtocol::Ipv4 if to == MAC => {
            let ip = Ipv4Packet::new_checked(payload).ok()?;
            let whole = !ip.more_frags() && ip.frag_offset() == 0;
            if ip.dst_addr() != ADDRESS || ip.next_header() != IpProtocol::Tcp || !whole || !is_neighbour(ip.src_addr())
            {
                return None;
            }
            let tcp = TcpPacket::new_checked(ip.payload()).ok()?;
            if tcp.syn() && !tcp.ack() {
                return Some(Frame::Syn(IpEndpoint::new(ip.src_addr().into(), tcp.src_port())));
            }
            Some(Frame::Segment)
        }
        _ => None,
    }
}

fn is_neighbour(address: Ipv4Addr) -> bool {
    let own = [Some(ADDRESS), Some(NETWORK.network().address()), NETWORK.broadcast()];
    NETWORK.contains_addr(&address) && !own.contains(&Some(address))
}
