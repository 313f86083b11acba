//! Boxes that tell senders of errors by ICMP.

use anabranch_core::wire::SeqNum;
use anabranch_frame::Payload;
use anabranch_frame::checksum::{Sum, pseudo_header};

use super::which::Chosen;
use super::{Hop, Middlebox, TcpPacket, Which};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// What is shown of the packet that the message is about, in bytes (RFC 792: 64 bits of it; RFC 4443: all that fits).
const SHOWN_V4: usize = 28;
const SHOWN_V6: usize = 1232;

/// What is told: type and code of ICMP, type and code of ICMPv6, and the word behind the checksum.
#[derive(Clone, Copy, Debug)]
struct Said {
    v4: (u8, u8),
    v6: (u8, u8),
    word: u32,
}

/// The host behind the last router does not answer.
const HOST_UNREACHABLE: Said = Said { v4: (3, 1), v6: (1, 3), word: 0 };

fn too_big(mtu: u16) -> Said {
    Said { v4: (3, 4), v6: (2, 0), word: mtu.into() }
}

/// A message about a packet, in the name of its destination: nobody asks.
fn message(said: Said, packet: &[u8]) -> Payload {
    let v4 = packet[0] >> 4 == 4;
    let ((kind, code), shown) = if v4 { (said.v4, SHOWN_V4) } else { (said.v6, SHOWN_V6) };
    let mut message = vec![kind, code, 0, 0];
    message.extend(said.word.to_be_bytes());
    message.extend(&packet[..shown.min(packet.len())]);
    let len = message.len() as u16;
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
    Payload::from([header, message].concat())
}

/// A router before a link that takes less than the ones before it: it drops what is too big.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Router {
    /// Largest packet that the link takes, in bytes.
    pub mtu: u16,
    /// It says so by ICMP (RFC 1191, RFC 8201); otherwise it is a black hole.
    pub tells: bool,
}

impl Middlebox for Router {
    fn on_packet(&mut self, hop: &mut Hop<'_>, packet: Payload) {
        if packet.len() <= usize::from(self.mtu) {
            hop.forward(packet);
        } else if self.tells {
            hop.reply(message(too_big(self.mtu), &packet));
        }
    }
}

/// A router that does not know the way any more: it drops segments and says that their host is unreachable.
#[derive(Clone, Debug)]
pub struct Unreachable {
    chosen: Chosen,
}

impl Unreachable {
    /// For some segments.
    #[must_use]
    pub fn new(which: Which) -> Self {
        Self { chosen: Chosen::new(which) }
    }
}

impl Middlebox for Unreachable {
    fn on_packet(&mut self, hop: &mut Hop<'_>, packet: Payload) {
        let refused = TcpPacket::read(&packet).is_some_and(|segment| self.chosen.picks(hop.now, &segment));
        if refused {
            hop.reply(message(HOST_UNREACHABLE, &packet));
        } else {
            hop.forward(packet);
        }
    }
}

/// Somebody beside the path who knows its flows but not their sequence numbers (RFC 5927): for some segments it tells
/// the sender that another one found its host unreachable and that yet another was too big.
#[derive(Clone, Debug)]
pub struct Forger {
    chosen: Chosen,
}

impl Forger {
    /// For some segments.
    #[must_use]
    pub fn new(which: Which) -> Self {
        Self { chosen: Chosen::new(which) }
    }
}

impl Middlebox for Forger {
    fn on_packet(&mut self, hop: &mut Hop<'_>, packet: Payload) {
        if let Some(mut segment) = TcpPacket::read(&packet)
            && self.chosen.picks(hop.now, &segment)
        {
            for said in [HOST_UNREACHABLE, too_big(600)] {
                segment.set_seq(SeqNum(hop.random.bits() as u32));
                hop.reply(message(said, segment.as_slice()));
            }
        }
        hop.forward(packet);
    }
}
