use anabranch_frame::Payload;

use super::which::Chosen;
use super::{Hop, Middlebox, TcpPacket, Which, option};

/// Overwrites options with NOPs, as some firewalls do with what they do not know.
#[derive(Clone, Debug)]
pub struct Strip {
    kinds: Vec<u8>,
    chosen: Chosen,
}

impl Strip {
    /// Of some segments the MPTCP options.
    #[must_use]
    pub fn mptcp(which: Which) -> Self {
        Self::options(&[option::MPTCP], which)
    }

    /// Of some segments the options of some kinds.
    #[must_use]
    pub fn options(kinds: &[u8], which: Which) -> Self {
        Self { kinds: kinds.into(), chosen: Chosen::new(which) }
    }
}

impl Middlebox for Strip {
    fn on_packet(&mut self, hop: &mut Hop<'_>, packet: Payload) {
        match TcpPacket::read(&packet) {
            Some(mut segment) if self.chosen.picks(hop.now, &segment) => {
                self.kinds.iter().for_each(|&kind| segment.strip(kind));
                hop.forward(segment.finish());
            }
            _ => hop.forward(packet),
        }
    }
}

/// Drops segments without a word.
#[derive(Clone, Debug)]
pub struct Discard {
    chosen: Chosen,
}

impl Discard {
    /// Some segments.
    #[must_use]
    pub fn new(which: Which) -> Self {
        Self { chosen: Chosen::new(which) }
    }
}

impl Middlebox for Discard {
    fn on_packet(&mut self, hop: &mut Hop<'_>, packet: Payload) {
        let drop = TcpPacket::read(&packet).is_some_and(|segment| self.chosen.picks(hop.now, &segment));
        if !drop {
            hop.forward(packet);
        }
    }
}
