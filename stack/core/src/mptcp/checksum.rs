//! DSS checksums (RFC 8684 §3.3.1): a byte counts when its whole mapping is there and sums up. And what happens when
//! one does not (§3.7).

use core::time::Duration;

use alloc::vec::Vec;

use anabranch_frame::{Instant, Payload, Slices};

use crate::wire::{Dss, Mapping, MptcpOption};
use crate::{Error, FallbackReason, ResetReason};

use super::conn::{Conn, Cx};
use super::mapping::{Check, Piece, PseudoHeader, RxMapping};
use super::state::Mp;

/// How long the peer may take to answer MP_FAIL (RFC 8684 §3.7: the maximum retransmission timeout).
const FAIL_TIMEOUT: Duration = Duration::from_secs(120);

/// What is left to do of falling back after a bad checksum.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Failing {
    /// We told the peer and wait for its answer until then.
    pub(super) answer_due: Option<Instant>,
    /// The infinite mapping that our next data carries, and the position past the segment that it went out with.
    infinite: Option<(Mapping, Option<u64>)>,
}

impl Failing {
    /// Whether nothing is left to do.
    pub(super) fn is_over(&self) -> bool {
        self.answer_due.is_none() && self.infinite.is_none()
    }
}

/// The checksum of a mapping that we send.
pub(super) fn of_payload(dsn: u64, ssn: u32, len: u16, payload: &Slices) -> u16 {
    PseudoHeader { dsn, ssn, len }.checksum(payload.iter().map(Payload::as_slice))
}

impl Conn {
    /// Takes a piece of a mapping that has a checksum. False if the subflow is gone.
    pub(super) fn place_checked(&mut self, cx: &mut Cx<'_>, at: usize, mapping: &RxMapping, piece: Piece) -> bool {
        let Some(check) = mapping.check else { return true };
        let Some(pieces) = self.subflows[at].mappings.hold(mapping, piece, cx.copies) else { return true };
        let sum = check.header.checksum(pieces.iter().map(|(_, payload)| payload.as_slice()));
        if sum != check.checksum {
            return self.on_bad_checksum(cx, at, mapping, pieces);
        }
        if let Some(mp) = self.mp_mut() {
            mp.checksum_seen = true;
        }
        for (pos, payload) in pieces {
            self.insert(cx, at, mapping.offset(pos), payload);
        }
        true
    }

    /// Somebody changed the bytes of a mapping. False if the subflow is gone.
    ///
    /// With other subflows they come again there. The only subflow goes on as plain TCP, with what came: it was
    /// acknowledged and will not come again. The peer is told, unless no checksum was ever right: then it learns as from
    /// any other fallback at the start, from our silence about MPTCP (Linux: `valid_csum_seen`).
    fn on_bad_checksum(&mut self, cx: &mut Cx<'_>, at: usize, mapping: &RxMapping, pieces: Vec<Piece>) -> bool {
        cx.counters.data_csum_err += 1;
        let Some(mp) = self.mp() else { return true };
        let seen = mp.checksum_seen;
        let fail = MptcpOption::Fail { dsn: mp.remote_dsn(mapping.off) };
        let in_order = mapping.pos < self.subflows[at].rcv.nxt();
        if !self.may_fall_back_holding(at, if in_order { mapping.len } else { 0 }) {
            cx.counters.fallback_failed += 1;
            self.fail_subflow(cx, at, fail);
            return false;
        }
        self.fall_back(cx, FallbackReason::Checksum);
        for (pos, payload) in pieces {
            self.insert(cx, at, pos - 1, payload);
        }
        if seen {
            cx.counters.mp_fail_tx += 1;
            let _ = self.subflows[at].signal(fail);
            self.failing.answer_due = Some(cx.now + FAIL_TIMEOUT);
        }
        true
    }

    /// Bytes that wait for the rest of their mapping are the stream's as they are, now that it is plain TCP.
    pub(super) fn release_held(&mut self, cx: &mut Cx<'_>) {
        for at in 0..self.subflows.len() {
            let pieces: Vec<Piece> = self.subflows[at].mappings.release().collect();
            for (pos, payload) in pieces {
                self.insert(cx, at, pos - 1, payload);
            }
        }
    }

    /// MP_FAIL: data of ours arrived changed (RFC 8684 §3.7). With several subflows the peer resets the one it came on.
    pub(super) fn on_fail(&mut self, cx: &mut Cx<'_>, at: usize) {
        cx.counters.mp_fail_rx += 1;
        let Some(mp) = self.mp() else { return };
        if !self.may_fall_back(at) {
            return;
        }
        // Retroactive: from the first byte on that is not known to be whole.
        let una = self.tx.una();
        let checksum = mp.checksum.then_some(0);
        let infinite = Mapping { dsn: mp.dsn(una), dsn_long: true, ssn: (una + 1) as u32, len: 0, checksum };
        let answer = MptcpOption::Fail { dsn: mp.remote_dsn(self.rx.nxt()) };
        self.fall_back(cx, FallbackReason::Checksum);
        self.failing.infinite = Some((infinite, None));
        cx.counters.mp_fail_tx += 1;
        let _ = self.subflows[at].signal(answer);
    }

    /// What still is said of MPTCP after a bad checksum: the answer to our MP_FAIL.
    pub(super) fn hear_answer(&mut self, cx: &mut Cx<'_>, option: &MptcpOption) {
        let answered = match option {
            MptcpOption::Fail { .. } => {
                cx.counters.mp_fail_rx += 1;
                true
            }
            MptcpOption::Dss(Dss { mapping: Some(Mapping { len: 0, .. }), .. }) => {
                cx.counters.infinite_map_rx += 1;
                true
            }
            _ => false,
        };
        if answered {
            self.failing.answer_due = None;
        }
    }

    /// The peer never answered our MP_FAIL.
    pub(super) fn on_fail_timeout(&mut self, cx: &mut Cx<'_>) {
        self.failing.answer_due = None;
        self.fail(cx, Error::Reset, Some(ResetReason::Middlebox));
    }

    /// The infinite mapping on data that ends at `end`, until that was acknowledged.
    pub(super) fn infinite_option(&mut self, cx: &mut Cx<'_>, at: usize, end: u64) -> Option<MptcpOption> {
        let (mapping, sent) = self.failing.infinite?;
        let una = self.subflows.get(at)?.snd.una();
        match sent {
            Some(sent) if una >= sent => {
                self.failing.infinite = None;
                return None;
            }
            Some(_) => {}
            None => {
                cx.counters.infinite_map_tx += 1;
                self.failing.infinite = Some((mapping, Some(end)));
            }
        }
        Some(MptcpOption::Dss(Dss { ack: None, mapping: Some(mapping), data_fin: false }))
    }

    /// Resets a subflow whose bytes were changed, and says which.
    fn fail_subflow(&mut self, cx: &mut Cx<'_>, at: usize, fail: MptcpOption) {
        cx.counters.mp_fail_tx += 1;
        cx.counters.mp_rst_tx += 1;
        let reset = MptcpOption::Reset { transient: false, reason: ResetReason::Middlebox };
        self.send_reset(cx, at, &[fail, reset]);
        self.drop_subflow(cx, at, None);
    }
}

impl Mp {
    /// What the bytes of a mapping at `off` have to sum up to, if checksums are in use: without one the mapping is none
    /// then. Where they are not, one that is there says nothing (RFC 8684 §3.3.1).
    pub(super) fn check(&self, wire: &Mapping, off: u64) -> Result<Option<Check>, NoChecksum> {
        if !self.checksum {
            return Ok(None);
        }
        let header = PseudoHeader { dsn: self.remote_dsn(off), ssn: wire.ssn, len: wire.len };
        wire.checksum.map(|checksum| Some(Check { header, checksum })).ok_or(NoChecksum)
    }
}

/// A mapping has no checksum although they are in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NoChecksum;
