use arrayvec::ArrayVec;

use super::{MptcpOption, SeqNum};

/// Bytes of options that a TCP header can hold.
pub const OPTIONS_MAX: usize = 40;

/// Timestamps option (RFC 7323 §3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timestamps {
    /// TSval.
    pub value: u32,
    /// TSecr.
    pub echo: u32,
}

/// One SACK block: first sequence number, and the one after the last.
pub type SackBlock = (SeqNum, SeqNum);

/// The options of a received segment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TcpOptions {
    /// Maximum segment size.
    pub mss: Option<u16>,
    /// Window scale, as it stood there (values above 14 mean 14).
    pub window_scale: Option<u8>,
    /// SACK permitted.
    pub sack_permitted: bool,
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
    /// SACK blocks in their order.
    pub sack: ArrayVec<SackBlock, 4>,
    /// Fast Open cookie (RFC 7413); empty is a request.
    pub fast_open: Option<ArrayVec<u8, 16>>,
    /// User timeout (RFC 5482), raw: granularity bit and 15 bits.
    pub user_timeout: Option<u16>,
    /// An MD5 signature (RFC 2385) or TCP-AO (RFC 5925) was there.
    pub authenticated: bool,
    /// MPTCP options in their order; what does not fit is counted as malformed.
    pub mptcp: ArrayVec<MptcpOption, 4>,
    /// Options that were malformed and left out.
    pub malformed: u8,
}

/// Options of an outgoing segment, within a budget of 40 bytes, in Linux's order and with its NOPs.
#[derive(Clone, Debug, Default)]
pub struct OptionWriter {
    bytes: ArrayVec<u8, OPTIONS_MAX>,
}
impl OptionWriter {
    /// No options yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// The bytes so far, a multiple of four.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }
    /// Bytes left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        OPTIONS_MAX - self.bytes.len()
    }
    /// What a SYN carries, as Linux lays it out: `mss, sackOK, TS, nop, wscale`, without timestamps
    /// `mss, nop, nop, sackOK, nop, wscale`, and so on for every combination, padded to four bytes.
    pub fn syn(
        &mut self,
        _mss: u16,
        _window_scale: Option<u8>,
        _sack_permitted: bool,
        _timestamps: Option<Timestamps>,
    ) {
        todo!()
    }
    /// `nop, nop, TS`. False if there is no room.
    pub fn timestamps(&mut self, _ts: Timestamps) -> bool {
        todo!()
    }
    /// `nop, nop, SACK`: as many of the blocks as fit while `reserve` bytes stay free; how many those were.
    pub fn sack(&mut self, _blocks: &[SackBlock], _reserve: usize) -> usize {
        todo!()
    }
    /// An MPTCP option padded to four bytes. False, and nothing written, if it does not fit.
    pub fn mptcp(&mut self, _option: &MptcpOption) -> bool {
        todo!()
    }
    /// Bytes that `mptcp` would take for this option, padding included.
    #[must_use]
    pub fn mptcp_len(_option: &MptcpOption) -> usize {
        todo!()
    }
}
