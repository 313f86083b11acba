use core::time::Duration;
use std::collections::BTreeMap;

use anabranch_core::wire::Flags;
use anabranch_frame::{Instant, Payload};

use super::{Ends, Heading, Hop, TcpPacket, TwoWay};

/// Lets a flow through from its SYN on until it was idle for too long. What comes then is dropped.
#[derive(Clone, Debug)]
pub struct Firewall {
    patience: Duration,
    resets: bool,
    /// By the ends of what goes out: when it was last used.
    flows: BTreeMap<Ends, Instant>,
}

impl Firewall {
    /// Forgets flows that were idle for `patience`.
    #[must_use]
    pub fn new(patience: Duration) -> Self {
        Self { patience, resets: false, flows: BTreeMap::new() }
    }

    /// Answers what it does not let through by a reset.
    #[must_use]
    pub fn resets(self) -> Self {
        Self { resets: true, ..self }
    }
}

impl TwoWay for Firewall {
    fn on_packet(&mut self, heading: Heading, hop: &mut Hop<'_>, packet: Payload) {
        let Some(segment) = TcpPacket::read(&packet) else { return hop.forward(packet) };
        let (source, destination) = segment.ends();
        let key = if heading == Heading::Out { (source, destination) } else { (destination, source) };
        let (now, patience) = (hop.now, self.patience);
        self.flows.retain(|_, used| now.saturating_since(*used) < patience);
        let opens = segment.is_syn() && !segment.flags().has(Flags::ACK);
        if opens || self.flows.contains_key(&key) {
            self.flows.insert(key, now);
            hop.forward(packet);
        } else if self.resets && !segment.flags().has(Flags::RST) {
            hop.reply(segment.answer(Flags::RST.with(Flags::ACK), segment.end()).finish());
        }
    }
}
