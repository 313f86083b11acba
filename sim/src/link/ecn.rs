//! Congestion marks in the IP header (RFC 3168 §5, §23.1).

use anabranch_frame::{Payload, checksum};

/// What packets begin with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Framing {
    /// The IP header.
    #[default]
    Ip,
    /// An Ethernet header, with or without VLAN tags.
    Ethernet,
}

/// Bytes of an Ethernet header without tags.
const ETHERNET: usize = 14;
const VLAN_TAG: usize = 4;

const ECN: u8 = 0b11;
const NOT_ECT: u8 = 0b00;
const CE: u8 = 0b11;

impl Framing {
    /// Bytes before what counts as the packet. VLAN tags count as the packet's, as with `tc`.
    #[must_use]
    pub fn header_len(self) -> usize {
        match self {
            Self::Ip => 0,
            Self::Ethernet => ETHERNET,
        }
    }

    /// Where the IP header starts and of which version it is.
    fn ip_header(self, packet: &[u8]) -> Option<(usize, u8)> {
        let at = match self {
            Self::Ip => 0,
            Self::Ethernet => ethernet_header_len(packet)?,
        };
        let version = packet.get(at)? >> 4;
        let len = match version {
            4 => 20,
            6 => 40,
            _ => return None,
        };
        (packet.len() >= at + len).then_some((at, version))
    }
}

/// Bytes of an Ethernet header with its tags, if IPv4 or IPv6 follows.
fn ethernet_header_len(frame: &[u8]) -> Option<usize> {
    let mut at = ETHERNET;
    // A service tag and a customer tag at most.
    for _ in 0..3 {
        match *frame.get(at - 2..at)? {
            [0x08, 0x00] | [0x86, 0xdd] => return Some(at),
            [0x81, 0x00] | [0x88, 0xa8] => at += VLAN_TAG,
            _ => return None,
        }
    }
    None
}

/// Sets "congestion experienced" in a packet whose sender can hear of it; false for any other. One that
/// has the mark already is fine.
pub(super) fn mark(packet: &mut Payload, framing: Framing) -> bool {
    let Some((at, version)) = framing.ip_header(packet) else { return false };
    let field = match version {
        4 => packet[at + 1] & ECN,
        _ => packet[at + 1] >> 4 & ECN,
    };
    match field {
        NOT_ECT => return false,
        CE => return true,
        _ => {}
    }
    let mut bytes = packet.to_vec();
    if version == 4 {
        bytes[at + 1] |= CE;
        patch_header_checksum(&mut bytes[at..], field);
    } else {
        bytes[at + 1] |= CE << 4;
    }
    *packet = Payload::from(bytes);
    true
}

/// Makes up for a changed ECN field (RFC 1624, equation 3), so that a wrong checksum stays wrong.
fn patch_header_checksum(header: &mut [u8], before: u8) {
    let old = u16::from_be_bytes([header[10], header[11]]);
    let sum = checksum::Sum::new().add_u16(!old).add_u16(!u16::from(before)).add_u16(u16::from(CE));
    header[10..12].copy_from_slice(&sum.finish().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 header with this ECN field and its checksum.
    fn v4(ecn: u8) -> Vec<u8> {
        let mut header = vec![0x45, 0x28 | ecn, 0, 20, 7, 7, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let sum = checksum::Sum::new().add(&header).finish();
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }

    fn marked(bytes: Vec<u8>, framing: Framing) -> Option<Vec<u8>> {
        let mut packet = Payload::from(bytes);
        mark(&mut packet, framing).then(|| packet.to_vec())
    }

    #[test]
    fn a_packet_that_can_be_marked_is_and_its_checksum_stays_right() {
        for ect in [1, 2, 3] {
            assert_eq!(marked(v4(ect), Framing::Ip), Some(v4(3)), "ECT {ect}");
        }
        let mut v6 = vec![0x60, 0x20, 0, 1];
        v6.resize(40, 0);
        let after = marked(v6.clone(), Framing::Ip).expect("ECT(0)");
        assert_eq!((after[1], &after[2..]), (0x30, &v6[2..]));
    }

    #[test]
    fn behind_ethernet_and_tags_too() {
        for (kind, tags) in [
            (&[0x08, 0x00][..], &[][..]),
            (&[0x08, 0x00], &[0x81, 0x00, 0, 7]),
            (&[0x08, 0x00], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 9]),
        ] {
            let mut frame = vec![0; 12];
            frame.extend_from_slice(tags);
            frame.extend_from_slice(kind);
            let header = frame.len();
            frame.extend(v4(2));
            let after = marked(frame, Framing::Ethernet).expect("IPv4");
            assert_eq!(after[header..], v4(3)[..]);
        }
    }

    #[test]
    fn what_cannot_be_marked_is_left_alone() {
        let mut arp = vec![0; 12];
        arp.extend_from_slice(&[0x08, 0x06]);
        arp.resize(42, 0xff);
        for (bytes, framing) in [
            (v4(0), Framing::Ip),
            (v4(2)[..19].to_vec(), Framing::Ip),
            (vec![], Framing::Ip),
            (arp, Framing::Ethernet),
            (vec![0x81; 200], Framing::Ethernet),
            (vec![0; 13], Framing::Ethernet),
        ] {
            assert_eq!(marked(bytes.clone(), framing), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_wrong_checksum_stays_wrong() {
        let mut packet = v4(1);
        packet[11] ^= 1;
        let after = marked(packet, Framing::Ip).expect("ECT(1)");
        assert_ne!(checksum::Sum::new().add(&after).finish(), 0);
    }
}
