use std::time::Duration;

use anabranch_frame::{Header, PathId, Payload, Transmit, gso};

use crate::ether::{self, ETHERNET_HEADER, Mac};
use crate::vnet;

/// Where the tag is put: behind both addresses.
const TAG_AT: usize = 12;
/// Where the checksum is in a UDP header, and how long that is.
const UDP_CHECKSUM: u16 = 6;
const UDP_HEADER: usize = 8;
/// TPID of a customer's tag (IEEE 802.1Q).
const TPID_DOT1Q: u16 = 0x8100;

/// A VLAN tag, which the kernel takes out of the frames that it hands over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VlanTag {
    /// Tag protocol identifier: 0x8100 (802.1Q) or 0x88a8 (802.1ad).
    pub tpid: u16,
    /// Priority, drop eligibility and, in the lower 12 bits, the VLAN's number.
    pub tci: u16,
}

impl VlanTag {
    /// Number of the VLAN; 0 for a frame that only has a priority.
    #[must_use]
    pub fn vid(self) -> u16 {
        self.tci & 0x0fff
    }

    /// What the `TP_STATUS_` bits and the fields beside them say.
    pub(super) fn from_status(status: u32, tpid: u16, tci: u16) -> Option<Self> {
        let known = status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
        (status & libc::TP_STATUS_VLAN_VALID != 0).then_some(Self { tpid: if known { tpid } else { TPID_DOT1Q }, tci })
    }
}

/// An Ethernet frame, or a super-segment that stands for several.
#[derive(Clone, Debug)]
pub struct WireFrame {
    /// From the destination address on, without VLAN tag and check sequence.
    pub data: Payload,
    /// The VLAN tag that belongs into it. Only with [`WireConfig::metadata`](super::WireConfig::metadata).
    pub vlan: Option<VlanTag>,
    /// When the kernel received it, since the Unix epoch. Only with the same.
    pub received: Option<Duration>,
    /// What is left to do before it can be sent.
    pub(super) vnet: [u8; vnet::LEN],
    /// The kernel says of a frame without virtio header that its checksum is good, or is left out.
    pub(super) trusted: bool,
}

impl WireFrame {
    /// A frame that is complete.
    #[must_use]
    pub fn new(data: Payload) -> Self {
        Self { data, vlan: None, received: None, vnet: [0; vnet::LEN], trusted: false }
    }

    /// The frame that carries an IP packet, or a super-segment, to `destination`.
    ///
    /// # Panics
    /// If its offsets point beyond its header.
    #[must_use]
    pub fn carrying(packet: &Transmit, destination: Mac, source: Mac) -> Self {
        let mut data = Vec::with_capacity(ETHERNET_HEADER + packet.len());
        data.extend_from_slice(&ether::header(destination, source, ether::kind_of(packet.header[0])));
        data.extend_from_slice(&packet.header);
        packet.payload.iter().for_each(|piece| data.extend_from_slice(piece));
        let vnet = vnet::build(packet, packet.payload_len(), ETHERNET_HEADER as u16);
        Self { vnet, ..Self::new(Payload::from(data)) }
    }

    /// For a super-segment, payload bytes of each segment that it stands for.
    #[must_use]
    pub fn segment_size(&self) -> Option<u16> {
        vnet::segment_size(&self.vnet)
    }

    /// How many frames this is on a wire.
    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.to_transmit().map_or(1, |transmit| transmit.segment_count())
    }

    /// Calls `f` with each frame that this is on a wire, in order: cut up, checksums complete, VLAN tag in its
    /// place. Each is put together in `scratch`, whose former content is lost.
    ///
    /// What makes no sense, such as headers that are not there, is handed over as it is.
    pub fn for_each_segment(&self, scratch: &mut Vec<u8>, mut f: impl FnMut(&[u8])) {
        let Some(transmit) = self.to_transmit() else {
            scratch.clear();
            self.put_link_header(scratch);
            scratch.extend_from_slice(self.data.get(ETHERNET_HEADER..).unwrap_or_default());
            return f(scratch);
        };
        let mut frame = Vec::with_capacity(self.data.len().min(2_048));
        gso::for_each_segment(&transmit, scratch, |packet| {
            frame.clear();
            self.put_link_header(&mut frame);
            frame.extend_from_slice(packet);
            f(&frame);
        });
    }

    /// Appends the Ethernet header with the tag.
    fn put_link_header(&self, out: &mut Vec<u8>) {
        let header = &self.data[..self.data.len().min(ETHERNET_HEADER)];
        let (addresses, kind) = header.split_at(header.len().min(TAG_AT));
        out.extend_from_slice(addresses);
        out.extend(self.vlan.into_iter().flat_map(tag_bytes));
        out.extend_from_slice(kind);
    }

    /// The IP packet with what is left to do about it, or `None` if there is nothing to do, or it makes no sense.
    fn to_transmit(&self) -> Option<Transmit> {
        let (start, offset) = vnet::partial_checksum(&self.vnet)?;
        let packet = self.data.get(ETHERNET_HEADER..)?;
        let transport = usize::from(start).checked_sub(ETHERNET_HEADER)?;
        let least = if packet.first()? >> 4 == 6 { 40 } else { 20 };
        let segment_size = self.segment_size();
        // A super-segment is TCP's, whose header says how long it is, or UDP's. Of others only the checksum counts.
        let transport_len = match segment_size {
            Some(_) if offset == UDP_CHECKSUM => UDP_HEADER,
            Some(_) => usize::from(packet.get(transport + 12)? >> 4) * 4,
            None => usize::from(offset) + 2,
        };
        let header_len = transport + transport_len;
        let fits = transport >= least && usize::from(offset) + 2 <= transport_len && header_len <= packet.len();
        if !fits || header_len > anabranch_frame::HEADER_MAX {
            return None;
        }
        // Within a tunnel there are more lengths to be set right than those of one header.
        if segment_size.is_some() && !self.is_bare(packet, transport) {
            return None;
        }
        let mut header = Header::zeroed(header_len);
        header.copy_from_slice(&packet[..header_len]);
        Some(Transmit {
            path: PathId::default(),
            header,
            transport_offset: u8::try_from(transport).ok()?,
            checksum_offset: u8::try_from(offset).ok()?,
            payload: [self.data.slice(ETHERNET_HEADER + header_len..)].into_iter().collect(),
            segment_size,
        })
    }

    /// Whether the IP header follows the Ethernet header, and the transport header that.
    fn is_bare(&self, packet: &[u8], transport: usize) -> bool {
        match (self.data.get(TAG_AT..ETHERNET_HEADER), packet.first()) {
            (Some([0x08, 0x00]), Some(first)) => usize::from(first & 0x0f) * 4 == transport,
            (Some([0x86, 0xdd]), Some(first)) => first >> 4 == 6,
            _ => false,
        }
    }
}

/// A tag as it is in a frame.
pub(super) fn tag_bytes(tag: VlanTag) -> [u8; 4] {
    let ([a, b], [c, d]) = (tag.tpid.to_be_bytes(), tag.tci.to_be_bytes());
    [a, b, c, d]
}

/// Where a tag goes in a frame of that length.
pub(super) fn tag_at(len: usize) -> usize {
    len.min(TAG_AT)
}

#[cfg(test)]
mod tests {
    use anabranch_frame::checksum::{Sum, pseudo_header};
    use proptest::prelude::*;

    use super::*;

    /// A virtio header: the checksum is unfinished, at `offset` behind `start`; segments of `size`.
    fn vnet(kind: u8, size: u16, start: u16, offset: u16) -> [u8; vnet::LEN] {
        let mut header = [1, kind, 0, 0, 0, 0, 0, 0, 0, 0];
        for (at, value) in [(4, size), (6, start), (8, offset)] {
            header[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        }
        header
    }

    /// A super-datagram of IPv4 with that much payload.
    fn datagram(payload: usize) -> Vec<u8> {
        let mut frame = vec![2; 12];
        frame.extend_from_slice(&[0x08, 0x00, 0x45]);
        frame.resize(14 + 28 + payload, 7);
        frame[14 + 9] = 17;
        frame[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        let sum = pseudo_header(&[10, 0, 0, 1], &[10, 0, 0, 2], 17, payload as u32 + 8).fold();
        frame[40..42].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    fn segments(frame: &WireFrame) -> Vec<Vec<u8>> {
        let mut segments = Vec::new();
        frame.for_each_segment(&mut Vec::new(), |segment| segments.push(segment.to_vec()));
        segments
    }

    #[test]
    fn a_super_datagram_is_cut_behind_its_tag() {
        let tag = Some(VlanTag { tpid: 0x8100, tci: 7 });
        let data = Payload::from(datagram(2_500));
        let frame = WireFrame { vlan: tag, vnet: vnet(5, 1_000, 34, 6), ..WireFrame::new(data) };
        let segments = segments(&frame);
        assert_eq!(segments.iter().map(|segment| segment.len() - 18 - 28).collect::<Vec<_>>(), [1_000, 1_000, 500]);
        for segment in &segments {
            let udp = &segment[18 + 20..];
            assert_eq!(
                (&segment[12..18], udp[4..6].to_vec()),
                (&[0x81, 0, 0, 7, 8, 0][..], (udp.len() as u16).to_be_bytes().to_vec())
            );
            let sum = pseudo_header(&[10, 0, 0, 1], &[10, 0, 0, 2], 17, udp.len() as u32);
            assert_eq!(sum.add(udp).fold(), 0xffff);
            assert_eq!(Sum::new().add(&segment[18..38]).fold(), 0xffff);
        }
    }

    #[test]
    fn what_is_in_a_tunnel_is_left_alone() {
        let data = datagram(2_500);
        // Given a transport header twenty bytes behind where the first IP header ends.
        let frame = WireFrame { vnet: vnet(5, 1_000, 54, 6), ..WireFrame::new(Payload::from(data.clone())) };
        assert_eq!(segments(&frame), [data]);
    }

    proptest! {
        #[test]
        fn garbage_is_survived(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            kind in 0u8..8,
            size in 0u16..50,
            start in 0u16..250,
            offset in prop_oneof![Just(6u16), Just(16), 0u16..60],
        ) {
            let frame = WireFrame { vnet: vnet(kind, size, start, offset), ..WireFrame::new(Payload::from(bytes)) };
            prop_assert!(!segments(&frame).is_empty());
        }
    }
}
