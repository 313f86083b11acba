//! What a subflow says in its IP headers.

use crate::options::SocketOptions;
use crate::wire::{IpOut, SeqNum};

/// What the application wants there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct IpOptions {
    /// Traffic class, ECN bits zero: those are TCP's (RFC 3168 §5, RFC 2474).
    tos: u8,
    hop_limit: u8,
    /// Flows have labels.
    labels: bool,
}

impl IpOptions {
    pub(crate) fn of(options: &SocketOptions) -> Self {
        Self { tos: options.tos & !0b11, hop_limit: options.hop_limit.max(1), labels: options.autoflowlabel }
    }

    /// The header of a packet with this label and ECN codepoint.
    pub(crate) fn out(self, flow_label: u32, codepoint: u8) -> IpOut {
        let flow_label = if self.labels { flow_label } else { 0 };
        IpOut { traffic_class: self.tos | codepoint, hop_limit: self.hop_limit, flow_label, ..IpOut::default() }
    }
}

/// A flow's label, 20 bits (RFC 6437 §3): nobody guesses it who could not guess the initial sequence number. Another one
/// comes of it when the path is in doubt: routers that spread flows by label send it another way then (RFC 6438; Linux
/// does so after each timeout). `last` is the label before, at first 0.
pub(crate) fn flow_label(iss: SeqNum, last: u32) -> u32 {
    // The finalizer of MurmurHash3.
    let mut x = iss.0 ^ last.wrapping_mul(0x9e37_79b9);
    x = (x ^ x >> 16).wrapping_mul(0x85eb_ca6b);
    x = (x ^ x >> 13).wrapping_mul(0xc2b2_ae35);
    let label = (x ^ x >> 16) & 0xf_ffff;
    if label == last { label ^ 1 } else { label }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn labels_differ_from_flow_to_flow_and_from_try_to_try() {
        let first: BTreeSet<u32> = (0..1000).map(|n| flow_label(SeqNum(n * 4096), 0)).collect();
        assert!(first.len() > 990 && first.iter().all(|label| *label < 1 << 20));
        let mut tried = BTreeSet::new();
        let mut label = 0;
        for _ in 0..100 {
            label = flow_label(SeqNum(77), label);
            tried.insert(label);
        }
        assert!(tried.len() > 95);
    }
}
