use arrayvec::ArrayVec;

use super::SeqNum;
use super::bytes::{be16, be32};
use super::mptcp::{self, MptcpOption};

// Option kinds, from the IANA registry "TCP Option Kind Numbers".
const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;
const MD5_SIGNATURE: u8 = 19;
const USER_TIMEOUT: u8 = 28;
const TCP_AO: u8 = 29;
const FAST_OPEN: u8 = 34;
const EXPERIMENT: u8 = 254;
/// Fast Open before it had a kind of its own (RFC 6994; draft-ietf-tcpm-fastopen-02).
const FAST_OPEN_MAGIC: [u8; 2] = [0xf9, 0x89];

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

/// A Fast Open option (RFC 7413 §2): a cookie, or the request for one.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct FastOpen {
    bytes: [u8; 16],
    len: u8,
    /// It stands in the experimental option that was used before the RFC.
    pub experimental: bool,
}

impl FastOpen {
    /// The request for a cookie.
    pub const REQUEST: Self = Self { bytes: [0; 16], len: 0, experimental: false };

    /// A cookie of an even number of bytes from 4 to 16 (RFC 7413 §4.1.1); `None` if it is not that, nor empty.
    #[must_use]
    pub fn new(cookie: &[u8], experimental: bool) -> Option<Self> {
        let mut bytes = [0; 16];
        let good = matches!(cookie.len(), 0 | 4 | 6 | 8 | 10 | 12 | 14 | 16);
        good.then(|| {
            bytes[..cookie.len()].copy_from_slice(cookie);
            Self { bytes, len: cookie.len() as u8, experimental }
        })
    }

    /// The cookie; empty is a request.
    #[must_use]
    pub fn cookie(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Whether it asks for a cookie.
    #[must_use]
    pub fn is_request(&self) -> bool {
        self.len == 0
    }

    /// The same cookie in the other form of the option, or in the same.
    #[must_use]
    pub fn in_form(self, experimental: bool) -> Self {
        Self { experimental, ..self }
    }

    fn lead(&self) -> ArrayVec<u8, 4> {
        let mut lead = ArrayVec::new();
        if self.experimental {
            lead.extend([EXPERIMENT, 4 + self.len, FAST_OPEN_MAGIC[0], FAST_OPEN_MAGIC[1]]);
        } else {
            lead.extend([FAST_OPEN, 2 + self.len]);
        }
        lead
    }

    /// Bytes that it takes in a header, padding included.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        (self.lead().len() + usize::from(self.len)).next_multiple_of(4)
    }
}

/// A cookie is a secret of client and server: it stays out of logs.
impl core::fmt::Debug for FastOpen {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "FastOpen({} bytes{})", self.len, if self.experimental { ", experimental" } else { "" })
    }
}

/// What a segment is signed with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signature {
    /// MD5 (RFC 2385).
    Md5,
    /// The TCP authentication option (RFC 5925).
    Ao,
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
    /// Fast Open cookie, or the request for one (RFC 7413).
    pub fast_open: Option<FastOpen>,
    /// User timeout (RFC 5482), raw: granularity bit and 15 bits.
    pub user_timeout: Option<u16>,
    /// A signature was there. We have no keys for any.
    pub signature: Option<Signature>,
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
    /// It takes 20 bytes at most and is written first.
    pub fn syn(&mut self, mss: u16, window_scale: Option<u8>, sack_permitted: bool, timestamps: Option<Timestamps>) {
        let [high, low] = mss.to_be_bytes();
        self.put(&[MSS, 4, high, low]);
        match (timestamps, sack_permitted) {
            // SACK-permitted takes the place of the two NOPs that align the timestamps.
            (Some(ts), true) => self.put(&ts.emit([SACK_PERMITTED, 2])),
            (Some(ts), false) => self.put(&ts.emit([NOP, NOP])),
            (None, true) => self.put(&[NOP, NOP, SACK_PERMITTED, 2]),
            (None, false) => {}
        }
        if let Some(scale) = window_scale {
            self.put(&[NOP, WINDOW_SCALE, 3, scale]);
        }
    }

    /// A Fast Open cookie or request, followed by NOPs up to a multiple of four. False if there is no room.
    pub fn fast_open(&mut self, option: &FastOpen) -> bool {
        let fits = option.wire_len() <= self.remaining();
        if fits {
            let lead = option.lead();
            self.put(&lead);
            self.put(option.cookie());
            let len = lead.len() + option.cookie().len();
            self.put(&[NOP; 3][..option.wire_len() - len]);
        }
        fits
    }

    /// `nop, nop, TS`. False if there is no room.
    pub fn timestamps(&mut self, ts: Timestamps) -> bool {
        let fits = self.remaining() >= 12;
        if fits {
            self.put(&ts.emit([NOP, NOP]));
        }
        fits
    }

    /// `nop, nop, SACK`: as many of the blocks as fit while `reserve` bytes stay free; how many those were.
    pub fn sack(&mut self, blocks: &[SackBlock], reserve: usize) -> usize {
        let count = (self.remaining().saturating_sub(reserve.saturating_add(4)) / 8).min(blocks.len());
        if count == 0 {
            return 0;
        }
        self.put(&[NOP, NOP, SACK, 2 + 8 * count as u8]);
        for (start, end) in &blocks[..count] {
            self.put(&start.0.to_be_bytes());
            self.put(&end.0.to_be_bytes());
        }
        count
    }

    /// An MPTCP option, followed by NOPs up to a multiple of four. False, and nothing written, if it
    /// does not fit or its fields make no form that the RFC has (an ADD_ADDR without HMAC, say).
    pub fn mptcp(&mut self, option: &MptcpOption) -> bool {
        let Some(len) = option.wire_len() else { return false };
        if len.next_multiple_of(4) > self.remaining() {
            return false;
        }
        self.put(&option.emit(len));
        self.put(&[NOP; 3][..len.next_multiple_of(4) - len]);
        true
    }

    /// Bytes that [`mptcp`](Self::mptcp) would take for this option, padding included; more than
    /// [`OPTIONS_MAX`] if its fields make no form that the RFC has.
    #[must_use]
    pub fn mptcp_len(option: &MptcpOption) -> usize {
        option.wire_len().map_or(OPTIONS_MAX + 1, |len| len.next_multiple_of(4))
    }

    /// Every caller has made sure of the room.
    fn put(&mut self, bytes: &[u8]) {
        let fits = bytes.len().min(self.remaining());
        debug_assert_eq!(fits, bytes.len());
        self.bytes.extend(bytes[..fits].iter().copied());
    }
}

impl Timestamps {
    /// The option behind the two bytes that align it.
    fn emit(self, lead: [u8; 2]) -> [u8; 12] {
        let mut out = [0; 12];
        out[..2].copy_from_slice(&lead);
        out[2..4].copy_from_slice(&[TIMESTAMPS, 10]);
        out[4..8].copy_from_slice(&self.value.to_be_bytes());
        out[8..].copy_from_slice(&self.echo.to_be_bytes());
        out
    }
}

impl TcpOptions {
    /// Parses the options of a TCP header. This cannot fail: what is malformed is counted and left
    /// out, what is unknown is passed over, and its neighbours are read all the same. Only a length
    /// below 2 or beyond the header ends the walk, for nobody knows where the next option starts.
    ///
    /// Of an option that must stand there once, the first counts and the others are malformed.
    #[must_use]
    pub fn parse(mut bytes: &[u8]) -> Self {
        let mut options = Self::default();
        loop {
            match *bytes {
                [] | [END, ..] => return options,
                [NOP, ..] => bytes = &bytes[1..],
                [_, len, ..] if len >= 2 && usize::from(len) <= bytes.len() => {
                    let (option, rest) = bytes.split_at(usize::from(len));
                    if options.take(option).is_none() {
                        options.malformed += 1;
                    }
                    bytes = rest;
                }
                _ => {
                    options.malformed += 1;
                    return options;
                }
            }
        }
    }

    /// Takes in one option; `None` if it is malformed, or one too many.
    fn take(&mut self, option: &[u8]) -> Option<()> {
        match (option[0], option.len()) {
            // As in Linux, an MSS of 0 is no MSS.
            (MSS, 4) => Some(be16(option, 2)).filter(|&mss| mss != 0).and_then(|mss| first(&mut self.mss, mss)),
            (WINDOW_SCALE, 3) => first(&mut self.window_scale, option[2]),
            (SACK_PERMITTED, 2) => (!core::mem::replace(&mut self.sack_permitted, true)).then_some(()),
            (SACK, 10 | 18 | 26 | 34) if self.sack.is_empty() => {
                let blocks = option[2..].chunks_exact(8);
                self.sack.extend(blocks.map(|block| (SeqNum(be32(block, 0)), SeqNum(be32(block, 4)))));
                Some(())
            }
            (TIMESTAMPS, 10) => {
                first(&mut self.timestamps, Timestamps { value: be32(option, 2), echo: be32(option, 6) })
            }
            (FAST_OPEN, _) => FastOpen::new(&option[2..], false).and_then(|cookie| first(&mut self.fast_open, cookie)),
            (EXPERIMENT, 4..) if option[2..4] == FAST_OPEN_MAGIC => {
                FastOpen::new(&option[4..], true).and_then(|cookie| first(&mut self.fast_open, cookie))
            }
            (USER_TIMEOUT, 4) => first(&mut self.user_timeout, be16(option, 2)),
            (MD5_SIGNATURE, 18) => first(&mut self.signature, Signature::Md5),
            (TCP_AO, 4..) => first(&mut self.signature, Signature::Ao),
            (mptcp::KIND, _) => match MptcpOption::parse(option) {
                Ok(Some(option)) => self.mptcp.try_push(option).ok(),
                Ok(None) => Some(()),
                Err(mptcp::Malformed) => None,
            },
            (MSS | WINDOW_SCALE | SACK_PERMITTED | SACK | TIMESTAMPS | USER_TIMEOUT | MD5_SIGNATURE | TCP_AO, _) => {
                None
            }
            _ => Some(()),
        }
    }
}

/// Fills `slot` if it is empty.
fn first<T>(slot: &mut Option<T>, value: T) -> Option<()> {
    if slot.is_some() {
        return None;
    }
    *slot = Some(value);
    Some(())
}

#[cfg(test)]
mod tests;
