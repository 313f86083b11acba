//! A router before a link that takes less than the ones before it.

use anabranch_frame::Payload;
use anabranch_frame::checksum::{Sum, pseudo_header};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// What it shows of the packet that it complains of, in bytes (RFC 792: 64 bits of it; RFC 4443: all that fits).
const SHOWN_V4: usize = 28;
const SHOWN_V6: usize = 1232;

/// What a router does with packets that are too big for its next link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Router {
    /// Largest packet that the link takes, in bytes.
    pub mtu: u16,
    /// It says so by ICMP (RFC 1191, RFC 8201); otherwise it is a black hole.
    pub tells: bool,
}

impl Router {
    /// Whether a packet has to be dropped.
    pub(crate) fn refuses(&self, packet: &[u8]) -> bool {
        packet.len() > usize::from(self.mtu)
    }

    /// What it tells the sender of a packet that it dropped.
    pub(crate) fn complaint(&self, packet: &[u8]) -> Option<Payload> {
        if !self.tells {
            return None;
        }
        let v4 = packet[0] >> 4 == 4;
        let (kind, code, shown) = if v4 { (3, 4, SHOWN_V4) } else { (2, 0, SHOWN_V6) };
        let mut message = vec![kind, code, 0, 0, 0, 0];
        message.extend(self.mtu.to_be_bytes());
        message.extend(&packet[..shown.min(packet.len())]);
        let len = message.len() as u16;
        // It speaks in the name of the destination: nobody asks.
        let (header, sum) = if v4 {
            let mut header = vec![0x45, 0];
            header.extend((20 + len).to_be_bytes());
            header.extend([0, 0, 0, 0, 64, ICMP, 0, 0]);
            header.extend(&packet[16..20]);
            header.extend(&packet[12..16]);
            let checksum = Sum::new().add(&header).finish();
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            (header, Sum::new())
        } else {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(len.to_be_bytes());
            header.extend([ICMPV6, 64]);
            header.extend(&packet[24..40]);
            header.extend(&packet[8..24]);
            (header, pseudo_header(&packet[24..40], &packet[8..24], ICMPV6, u32::from(len)))
        };
        let checksum = sum.add(&message).finish();
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        Some(Payload::from([header, message].concat()))
    }
}
