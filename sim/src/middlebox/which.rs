use core::time::Duration;

use anabranch_core::wire::Flags;
use anabranch_frame::Instant;

use super::TcpPacket;

/// Which segments a box concerns itself with.
///
/// ```
/// use anabranch_sim::middlebox::{Which, option};
///
/// // Every tenth segment with data and an MPTCP option, but not the first three of them.
/// let which = Which::DATA.with_option(option::MPTCP).after(3).every(10);
/// # let _ = which;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Which {
    kind: Kind,
    option: Option<u8>,
    skip: u64,
    every: u64,
    from: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    All,
    Syn,
    SynAck,
    NoSyn,
    Data,
    PureAck,
}

impl Which {
    /// All segments.
    pub const ALL: Self = Self { kind: Kind::All, option: None, skip: 0, every: 1, from: Duration::ZERO };
    /// SYNs without ACK.
    pub const SYN: Self = Self { kind: Kind::Syn, ..Self::ALL };
    /// SYN/ACKs.
    pub const SYN_ACK: Self = Self { kind: Kind::SynAck, ..Self::ALL };
    /// Segments without SYN: everything behind the first two of a handshake.
    pub const NO_SYN: Self = Self { kind: Kind::NoSyn, ..Self::ALL };
    /// Segments with payload.
    pub const DATA: Self = Self { kind: Kind::Data, ..Self::ALL };
    /// Segments with neither payload nor SYN, FIN or RST.
    pub const PURE_ACK: Self = Self { kind: Kind::PureAck, ..Self::ALL };

    /// Of these, those with an option of a kind.
    #[must_use]
    pub const fn with_option(self, kind: u8) -> Self {
        Self { option: Some(kind), ..self }
    }

    /// Of these, not the first `n`.
    #[must_use]
    pub const fn after(self, n: u64) -> Self {
        Self { skip: n, ..self }
    }

    /// Of these, each `n`th.
    ///
    /// # Panics
    /// If `n` is 0.
    #[must_use]
    pub const fn every(self, n: u64) -> Self {
        assert!(n > 0, "each 0th segment is none");
        Self { every: n, ..self }
    }

    /// Of these, those that come at `time` on the world's clock or later.
    #[must_use]
    pub const fn from(self, time: Duration) -> Self {
        Self { from: time, ..self }
    }

    fn holds(&self, now: Instant, packet: &TcpPacket) -> bool {
        let flags = packet.flags();
        let (syn, ack) = (flags.has(Flags::SYN), flags.has(Flags::ACK));
        let kind = match self.kind {
            Kind::All => true,
            Kind::Syn => syn && !ack,
            Kind::SynAck => syn && ack,
            Kind::NoSyn => !syn,
            Kind::Data => !packet.payload().is_empty(),
            Kind::PureAck => packet.payload().is_empty() && !syn && !flags.has(Flags::FIN) && !flags.has(Flags::RST),
        };
        kind && now >= Instant::ZERO + self.from && self.option.is_none_or(|kind| packet.has_option(kind))
    }
}

/// A [`Which`] that counts.
#[derive(Clone, Debug)]
pub(super) struct Chosen {
    which: Which,
    seen: u64,
}

impl Chosen {
    pub(super) fn new(which: Which) -> Self {
        Self { which, seen: 0 }
    }

    /// Whether this segment is one of them.
    pub(super) fn picks(&mut self, now: Instant, packet: &TcpPacket) -> bool {
        if !self.which.holds(now, packet) {
            return false;
        }
        self.seen += 1;
        self.seen > self.which.skip && (self.seen - self.which.skip - 1).is_multiple_of(self.which.every)
    }
}
