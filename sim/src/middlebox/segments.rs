use core::time::Duration;

use anabranch_core::wire::Flags;
use anabranch_frame::{Instant, Payload};

use super::{Ends, Hop, Middlebox, TcpPacket, option};

/// Largest payload of what is put together, so that it fits an IP packet.
const PAYLOAD_MAX: usize = 65_000;

/// What becomes of options when segments are cut up or put together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// All pieces have them; only what has the same options is put together. So do network cards.
    All,
    /// The first piece has the MPTCP options, the others only the rest; of what is put together the first one's stay.
    First,
    /// The other way round: the last one's.
    Last,
}

/// Cuts up long segments.
#[derive(Clone, Debug)]
pub struct Split {
    longest: usize,
    keep: Keep,
}

impl Split {
    /// Into pieces of at most `longest` bytes of payload.
    ///
    /// # Panics
    /// If that is none.
    #[must_use]
    pub fn pieces_of(longest: usize) -> Self {
        assert!(longest > 0, "pieces without payload");
        Self { longest, keep: Keep::All }
    }

    /// Says who gets the MPTCP options.
    #[must_use]
    pub fn keep(self, keep: Keep) -> Self {
        Self { keep, ..self }
    }
}

impl Middlebox for Split {
    fn on_packet(&mut self, hop: &mut Hop<'_>, packet: Payload) {
        let Some(mut rest) = TcpPacket::read(&packet) else { return hop.forward(packet) };
        let mut pieces = Vec::new();
        while rest.payload().len() > self.longest {
            let [piece, behind] = rest.split(self.longest);
            pieces.push(piece);
            rest = behind;
        }
        pieces.push(rest);
        let last = pieces.len() - 1;
        for (at, mut piece) in pieces.into_iter().enumerate() {
            if (self.keep == Keep::First && at > 0) || (self.keep == Keep::Last && at < last) {
                piece.strip(option::MPTCP);
            }
            hop.forward(piece.finish());
        }
    }
}

/// Puts segments together that follow each other.
///
/// A segment waits for the next one for as long as it is told. A segment that does not continue it lets it go.
#[derive(Debug)]
pub struct Coalesce {
    hold: Duration,
    most: usize,
    keep: Keep,
    held: Vec<(Ends, TcpPacket, Instant)>,
}

impl Coalesce {
    /// Up to `most` bytes of payload, if the next one comes within `hold`.
    #[must_use]
    pub fn new(hold: Duration, most: usize, keep: Keep) -> Self {
        Self { hold, most: most.min(PAYLOAD_MAX), keep, held: Vec::new() }
    }

    /// Whether `next` continues `held`, and may be put together with it.
    fn fits(&self, held: &TcpPacket, next: &TcpPacket) -> bool {
        let alike = self.keep != Keep::All || held.option_bytes() == next.option_bytes();
        let short = held.payload().len() + next.payload().len() <= self.most;
        alike && short && held.end() == next.seq() && !held.flags().has(Flags::FIN) && is_plain_data(next)
    }

    fn join(&self, held: &mut TcpPacket, next: &TcpPacket) {
        if self.keep == Keep::Last {
            let mut joined = next.clone();
            joined.truncate(0);
            joined.set_seq(held.seq());
            joined.append(held.payload());
            joined.append(next.payload());
            *held = joined;
            return;
        }
        held.append(next.payload());
        held.set_ack(next.ack());
        held.set_window(next.window());
        held.set_flags(held.flags().with(next.flags()));
    }
}

/// Payload, ACK, and nothing else but PSH and FIN.
fn is_plain_data(segment: &TcpPacket) -> bool {
    let flags = segment.flags();
    !segment.payload().is_empty() && flags.0 & !(Flags::ACK.0 | Flags::PSH.0 | Flags::FIN.0) == 0
}

impl Middlebox for Coalesce {
    fn on_packet(&mut self, hop: &mut Hop<'_>, packet: Payload) {
        let Some(segment) = TcpPacket::read(&packet) else { return hop.forward(packet) };
        let ends = segment.ends();
        if let Some(at) = self.held.iter().position(|(held, ..)| *held == ends) {
            let (_, mut held, until) = self.held.remove(at);
            if self.fits(&held, &segment) {
                self.join(&mut held, &segment);
                self.held.insert(at, (ends, held, until));
                return;
            }
            hop.forward(held.finish());
        }
        if is_plain_data(&segment) && segment.payload().len() < self.most {
            self.held.push((ends, segment, hop.now + self.hold));
        } else {
            hop.forward(packet);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.held.iter().map(|&(_, _, until)| until).min()
    }

    fn on_timeout(&mut self, hop: &mut Hop<'_>) {
        let now = hop.now;
        for (_, held, _) in self.held.extract_if(.., |&mut (_, _, until)| until <= now) {
            hop.forward(held.finish());
        }
    }
}
