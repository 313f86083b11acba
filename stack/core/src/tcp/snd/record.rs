//! What was sent and not yet acknowledged.

use core::ops::Range;

use anabranch_frame::Slices;

use super::Retransmit;
use super::rate::TxStamp;

/// A data sequence mapping, opaque to the sender and fixed once given: all pieces of a record carry it verbatim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TxMapping {
    /// Data sequence number of its first byte.
    pub(crate) dsn: u64,
    /// Relative subflow sequence number of its first byte.
    pub(crate) ssn: u32,
    /// Its length, as on the wire.
    pub(crate) len: u16,
    /// Whether its last data sequence number is a DATA_FIN.
    pub(crate) data_fin: bool,
    /// Whether it goes out in an MP_CAPABLE option (the first data of a connection).
    pub(crate) capable: bool,
    /// The DSS checksum, if they are in use.
    pub(crate) checksum: Option<u16>,
}

/// A range of positions that was sent in one go and shares one fate: one segment or a super-segment.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) payload: Slices,
    pub(super) mapping: Option<TxMapping>,
    /// The last position is the FIN.
    pub(super) fin: bool,
    /// Its last segment carries PSH.
    pub(super) push: bool,
    /// Its end is the end of what was first sent, hence perhaps of a short segment.
    pub(super) tail: bool,
    /// Payload bytes of the wire segments it was cut into.
    pub(super) mss: u16,
    /// Selectively acknowledged.
    pub(super) sacked: bool,
    /// Presumed lost. Never together with `sacked`.
    pub(super) lost: bool,
    /// Sent again, and that copy is presumed in flight.
    pub(super) retrans: bool,
    /// Was ever sent again (Karn).
    pub(super) retransmitted: bool,
    /// Its last transmission.
    pub(super) stamp: TxStamp,
}

impl Record {
    pub(super) fn len(&self) -> u64 {
        self.end - self.start
    }

    pub(super) fn range(&self) -> Range<u64> {
        self.start..self.end
    }

    pub(super) fn payload_len(&self) -> u64 {
        self.len() - u64::from(self.fin)
    }

    pub(super) fn segments(&self) -> u64 {
        segments(self.payload_len(), u64::from(self.mss))
    }

    /// Lost, and to be sent again.
    pub(super) fn waits(&self) -> bool {
        self.lost && !self.retrans
    }

    /// Neither known to be delivered nor presumed lost.
    pub(super) fn in_flight(&self) -> bool {
        !self.sacked && !self.waits()
    }

    /// Cuts the record at `at`, strictly inside of it, and returns what follows.
    pub(super) fn split_off(&mut self, at: u64) -> Self {
        let payload = split_slices(&mut self.payload, at - self.start);
        let rest = Self { start: at, payload, mapping: self.mapping, stamp: self.stamp, ..*self };
        self.end = at;
        self.fin = false;
        self.push = false;
        self.tail = false;
        rest
    }

    /// The whole of it once more.
    pub(super) fn again(&self) -> Retransmit {
        Retransmit {
            range: self.range(),
            payload: self.payload.clone(),
            mapping: self.mapping,
            fin: self.fin,
            push: self.push,
        }
    }

    /// Drops what lies before `at`, strictly inside of the record.
    pub(super) fn advance_to(&mut self, at: u64) {
        self.payload = split_slices(&mut self.payload, at - self.start);
        self.start = at;
    }
}

/// How many segments of `mss` bytes `bytes` make; a bare FIN is one.
pub(super) fn segments(bytes: u64, mss: u64) -> u64 {
    bytes.div_ceil(mss.max(1)).max(1)
}

/// Leaves the first `n` bytes in `slices` and returns the rest. Copies no bytes.
fn split_slices(slices: &mut Slices, n: u64) -> Slices {
    let mut left = n as usize;
    let Some(cut) = slices.iter().position(|slice| {
        let inside = left < slice.len();
        if !inside {
            left -= slice.len();
        }
        inside
    }) else {
        return Slices::new();
    };
    let mut rest: Slices = slices.drain(cut..).collect();
    if left > 0 {
        slices.push(rest[0].split_to(left));
    }
    rest
}
