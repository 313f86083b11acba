//! ICMP errors as text: `[SEQ:END(LEN)] icmp WHAT [mtu N]`, about a segment that the stack sent.

use std::net::IpAddr;

use anabranch_frame::checksum::{Sum, pseudo_header};

use super::packet::{Base, Packet};

/// Type and code.
type Kind = Option<(u8, u8)>;

/// Names of errors, with what they are for IPv4 and for IPv6.
const KINDS: [(&str, Kind, Kind); 10] = [
    ("net_unreachable", Some((3, 0)), Some((1, 0))),
    ("host_unreachable", Some((3, 1)), Some((1, 3))),
    ("protocol_unreachable", Some((3, 2)), None),
    ("port_unreachable", Some((3, 3)), Some((1, 4))),
    ("frag_needed", Some((3, 4)), None),
    ("packet_too_big", None, Some((2, 0))),
    ("prohibited", Some((3, 13)), Some((1, 1))),
    ("source_quench", Some((4, 0)), None),
    ("time_exceeded", Some((11, 0)), Some((3, 0))),
    ("parameter_problem", Some((12, 0)), Some((4, 0))),
];

/// The datagram to `ours` about a segment from there to `peer`. It comes from the peer, which no one checks.
pub(super) fn parse(text: &str, ours: (IpAddr, u16), peer: (IpAddr, u16), base: Base) -> Result<Vec<u8>, String> {
    let (range, what) = text.trim().split_once(" icmp ").ok_or("expected [SEQ:END(LEN)] icmp WHAT")?;
    let range = range.trim_start_matches('[').trim_end_matches(']');
    let about = Packet::parse(&format!(". {range} ack 1"))?.emit(ours, peer, base);
    let words: Vec<&str> = what.split_whitespace().collect();
    let (name, mtu) = match words[..] {
        [name] => (name, 0),
        [name, "mtu", mtu] => (name, mtu.parse::<u32>().map_err(|_| format!("{mtu:?} is no number"))?),
        _ => return Err(format!("expected WHAT [mtu N], not {what:?}")),
    };
    let (_, v4, v6) = KINDS.iter().find(|(known, ..)| *known == name).ok_or(format!("unknown error {name:?}"))?;
    let (kind, code) = if ours.0.is_ipv4() { v4 } else { v6 }.ok_or(format!("no {name} in this family"))?;
    let mut message = vec![kind, code, 0, 0];
    message.extend(mtu.to_be_bytes());
    // No more of it than the least that a router shows.
    message.extend(&about[..if ours.0.is_ipv4() { 28 } else { 48 }]);
    Ok(datagram(peer.0, ours.0, &mut message))
}

fn datagram(from: IpAddr, to: IpAddr, message: &mut [u8]) -> Vec<u8> {
    let len = message.len() as u16;
    let (header, sum) = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = vec![0x45, 0];
            header.extend((20 + len).to_be_bytes());
            header.extend([0, 0, 0, 0, 64, 1, 0, 0]);
            header.extend([from.octets(), to.octets()].concat());
            let checksum = Sum::new().add(&header).finish();
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            (header, Sum::new())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(len.to_be_bytes());
            header.extend([58, 64]);
            header.extend([from.octets(), to.octets()].concat());
            (header, pseudo_header(&from.octets(), &to.octets(), 58, u32::from(len)))
        }
        _ => panic!("{from} and {to} are of two families"),
    };
    let checksum = sum.add(message).finish();
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    [header, message.to_vec()].concat()
}
