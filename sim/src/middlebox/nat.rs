use core::time::Duration;
use std::collections::BTreeMap;

use anabranch_core::wire::Flags;
use anabranch_frame::{Instant, Payload};

use super::{Endpoint, Ends, Heading, Hop, TcpPacket, TwoWay};

/// Ports that it gives away.
const PORTS: core::ops::Range<u16> = 20_000..60_000;

/// Translates the addresses of whoever is inside into one of its own, with a port for each flow.
///
/// A flow that was idle for too long is forgotten: what comes in for it is dropped or answered by a reset, what goes
/// out makes a new one with another port.
#[derive(Clone, Debug)]
pub struct Nat {
    host: u8,
    timeout: Duration,
    resets: bool,
    rebinds: Vec<Instant>,
    flows: BTreeMap<Ends, Translation>,
}

#[derive(Clone, Copy, Debug)]
struct Translation {
    outside: Endpoint,
    used: Instant,
}

impl Nat {
    /// Its own address is that of whoever is inside with another last byte, `host`. It never forgets.
    #[must_use]
    pub fn new(host: u8) -> Self {
        Self { host, timeout: Duration::MAX, resets: false, rebinds: Vec::new(), flows: BTreeMap::new() }
    }

    /// Forgets flows that were idle for so long.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Forgets all flows at `time` on the world's clock, as one that is restarted.
    #[must_use]
    pub fn rebinds_at(mut self, time: Duration) -> Self {
        self.rebinds.push(Instant::ZERO + time);
        self
    }

    /// Answers what comes in for a flow that it does not know by a reset.
    #[must_use]
    pub fn resets(self) -> Self {
        Self { resets: true, ..self }
    }

    fn forget(&mut self, now: Instant) {
        if self.rebinds.iter().any(|&at| at <= now) {
            self.rebinds.retain(|&at| at > now);
            self.flows.clear();
        }
        let timeout = self.timeout;
        self.flows.retain(|_, flow| now.saturating_since(flow.used) < timeout);
    }

    fn outside_of(&mut self, hop: &mut Hop<'_>, ends: Ends) -> Endpoint {
        let host = self.host;
        if let Some(flow) = self.flows.get_mut(&ends) {
            flow.used = hop.now;
            return flow.outside;
        }
        let outside = loop {
            let mut outside = ends.0.neighbour(host);
            outside.port = PORTS.start + hop.random.below(PORTS.len() as u64) as u16;
            if self.flows.values().all(|flow| flow.outside != outside) {
                break outside;
            }
        };
        self.flows.insert(ends, Translation { outside, used: hop.now });
        outside
    }
}

impl TwoWay for Nat {
    fn on_packet(&mut self, heading: Heading, hop: &mut Hop<'_>, packet: Payload) {
        let Some(mut segment) = TcpPacket::read(&packet) else { return hop.forward(packet) };
        self.forget(hop.now);
        let (source, destination) = segment.ends();
        if heading == Heading::Out {
            let outside = self.outside_of(hop, (source, destination));
            segment.set_source(outside);
            return hop.forward(segment.finish());
        }
        let mut flows = self.flows.iter_mut();
        match flows.find(|((_, remote), flow)| flow.outside == destination && *remote == source) {
            Some(((inside, _), flow)) => {
                flow.used = hop.now;
                segment.set_destination(*inside);
                hop.forward(segment.finish());
            }
            None if self.resets && !segment.flags().has(Flags::RST) => {
                hop.reply(segment.answer(Flags::RST.with(Flags::ACK), segment.end()).finish());
            }
            None => {}
        }
    }
}
