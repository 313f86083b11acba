use anabranch_frame::Payload;

use super::which::Chosen;
use super::{Hop, Middlebox, TcpPacket, Which};

/// Inverts the last byte of the payload, and mends the checksum.
#[derive(Clone, Debug)]
pub struct Alter {
    chosen: Chosen,
}

impl Alter {
    /// Of some segments with payload.
    #[must_use]
    pub fn new(which: Which) -> Self {
        Self { chosen: Chosen::new(which) }
    }
}

impl Middlebox for Alter {
    fn on_packet(&mut self, hop: &mut Hop<'_>, packet: Payload) {
        match TcpPacket::read(&packet) {
            Some(mut segment) if !segment.payload().is_empty() && self.chosen.picks(hop.now, &segment) => {
                if let Some(last) = segment.payload_mut().last_mut() {
                    *last = !*last;
                }
                hop.forward(segment.finish());
            }
            _ => hop.forward(packet),
        }
    }
}

/// Replaces words that stand whole in a segment by others of the same length, as application gateways do.
#[derive(Clone, Debug)]
pub struct Gateway {
    words: Vec<(String, String)>,
}

impl Gateway {
    /// The first of each pair by the second.
    ///
    /// # Panics
    /// If the two differ in length.
    #[must_use]
    pub fn replacing<'a>(words: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let words: Vec<_> = words.into_iter().map(|(what, by)| (what.to_owned(), by.to_owned())).collect();
        assert!(words.iter().all(|(what, by)| what.len() == by.len()), "{words:?} differ in length");
        Self { words }
    }
}

impl Middlebox for Gateway {
    fn on_packet(&mut self, hop: &mut Hop<'_>, packet: Payload) {
        let Some(mut segment) = TcpPacket::read(&packet) else { return hop.forward(packet) };
        for (what, by) in &self.words {
            segment.replace(what.as_bytes(), by.as_bytes());
        }
        hop.forward(segment.finish());
    }
}
