//! Packets for this crate's own tests.

use anabranch_frame::checksum::{Sum, pseudo_header};
use anabranch_frame::{Header, PathId, Payload, Transmit};

const SOURCE: [u8; 4] = [10, 9, 0, 2];
const DESTINATION: [u8; 4] = [10, 9, 0, 1];

/// A TCP segment over IPv4, or a super-segment, whose checksum is left to the device.
pub(crate) fn tcp(payload: &[u8], segment_size: Option<u16>) -> Transmit {
    let mut header = Header::zeroed(40);
    header[0] = 0x45;
    header[2..4].copy_from_slice(&((40 + payload.len()) as u16).to_be_bytes());
    header[8..10].copy_from_slice(&[64, 6]);
    header[12..16].copy_from_slice(&SOURCE);
    header[16..20].copy_from_slice(&DESTINATION);
    let sum = Sum::new().add(&header[..20]).finish();
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header[20..24].copy_from_slice(&[0x13, 0x88, 0x13, 0x89]);
    header[32..34].copy_from_slice(&[0x50, 0x18]);
    let sum = pseudo_header(&SOURCE, &DESTINATION, 6, (20 + payload.len()) as u32).fold();
    header[36..38].copy_from_slice(&sum.to_be_bytes());
    Transmit {
        path: PathId(1),
        header,
        transport_offset: 20,
        checksum_offset: 16,
        payload: payload.chunks(1_000).map(Payload::from).collect(),
        segment_size,
    }
}

/// Whether the TCP checksum of a packet over IPv4 without options is right.
pub(crate) fn checksum_is_right(packet: &[u8]) -> bool {
    let tcp = &packet[20..];
    pseudo_header(&packet[12..16], &packet[16..20], 6, tcp.len() as u32).add(tcp).finish() == 0
}
