use std::collections::BTreeMap;

use anabranch_frame::Payload;

use super::{Ends, Heading, Hop, TcpPacket, TwoWay};

/// Makes initial sequence numbers random in both directions, as firewalls do that distrust those of hosts.
#[derive(Clone, Debug, Default)]
pub struct Renumber {
    /// By the ends of what goes out: how far the numbers of what goes out and of what comes in are moved.
    flows: BTreeMap<Ends, [u32; 2]>,
}

impl TwoWay for Renumber {
    fn on_packet(&mut self, heading: Heading, hop: &mut Hop<'_>, packet: Payload) {
        let Some(mut segment) = TcpPacket::read(&packet) else { return hop.forward(packet) };
        let (source, destination) = segment.ends();
        let key = if heading == Heading::Out { (source, destination) } else { (destination, source) };
        let offsets = self.flows.entry(key).or_insert_with(|| [(); 2].map(|()| hop.random.bits() as u32));
        let [own, others] = if heading == Heading::Out { *offsets } else { [offsets[1], offsets[0]] };
        segment.add_seq(own);
        segment.add_ack(others.wrapping_neg());
        hop.forward(segment.finish());
    }
}
