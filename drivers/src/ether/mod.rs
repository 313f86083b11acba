//! What a host on an Ethernet does besides IP: it says which addresses are its own, and finds out whose the others
//! are (ARP, RFC 826; neighbour discovery, RFC 4861).
//!
//! A [`Station`] is one queue's part of it. The [table](table) of neighbours is shared by the queues of an interface,
//! because an answer arrives on one of them only. It is locked on the cold path alone: each station keeps what it
//! learned, for as long as the table says that it holds, and forgets it all when the table's generation changes.
//!
//! There are no timers: everything that is due is done when a packet wants to go there, and one that wants to is sent
//! again by TCP until it gets through.

mod message;
mod station;
mod table;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use anabranch_frame::{Instant, Payload, Transmit};
use rustix::time::{ClockId, clock_gettime};

pub(crate) use station::{Input, Lookup, Out, Station, solicited_node_mac};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Length of an Ethernet header without tags, in bytes.
pub const ETHERNET_HEADER: usize = 14;

pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(crate) const ETHERTYPE_ARP: u16 = 0x0806;
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;
const BROADCAST: Mac = [0xff; 6];

/// An Ethernet header.
pub(crate) fn header(destination: Mac, source: Mac, kind: u16) -> [u8; ETHERNET_HEADER] {
    let mut header = [0; ETHERNET_HEADER];
    header[..6].copy_from_slice(&destination);
    header[6..12].copy_from_slice(&source);
    header[12..].copy_from_slice(&kind.to_be_bytes());
    header
}

/// The EtherType of an IP packet that starts with the byte `first`.
pub(crate) fn kind_of(first: u8) -> u16 {
    if first >> 4 == 6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 }
}

/// Cuts off what Ethernet pads a packet with; whether it is as long as its header says.
pub(crate) fn trim(packet: &mut Payload) -> bool {
    let field = |at: usize| packet.get(at..at + 2).map(|field| usize::from(u16::from_be_bytes([field[0], field[1]])));
    let len = match packet.first().map(|first| first >> 4) {
        Some(4) => field(2),
        Some(6) => field(4).map(|len| len + 40),
        _ => None,
    };
    let Some(len) = len.filter(|&len| len <= packet.len()) else { return false };
    packet.truncate(len);
    true
}

/// Where a packet goes, by its IP header.
pub(crate) fn destination(packet: &Transmit) -> Option<IpAddr> {
    match packet.header.first()? >> 4 {
        4 => Some(IpAddr::from(*packet.header.get(16..)?.first_chunk::<4>()?)),
        6 => Some(IpAddr::from(*packet.header.get(24..)?.first_chunk::<16>()?)),
        _ => None,
    }
}

/// A clock that costs next to nothing and is a few milliseconds late.
pub(crate) fn now() -> Instant {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    Instant::from_nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}
