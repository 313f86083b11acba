//! One packet as text and as bytes. The encoder shares nothing with the stack's own, so the two check each other.

use std::fmt;
use std::net::IpAddr;

use anabranch_frame::checksum::{Sum, pseudo_header};

const TCP: u8 = 6;
const TCP_HEADER: usize = 20;
/// Letters of the control bits, in the order in which they are written.
const LETTERS: [(char, u8); 8] =
    [('S', 0x02), ('F', 0x01), ('R', 0x04), ('P', 0x08), ('U', 0x20), ('E', 0x40), ('W', 0x80), ('.', 0x10)];
/// Names of the ECN field.
const ECN: [&str; 4] = ["noecn", "ect1", "ect0", "ce"];

/// A TCP option. Sequence numbers are relative, timestamps are milliseconds of the script on our side.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Opt {
    Nop,
    End,
    Mss(u16),
    Wscale(u8),
    SackOk,
    Sack(Vec<(u32, u32)>),
    /// `TS val 1 ecr 2`; `TS val 1` with nothing to echo; `TS ecr 2` or `TS` where the script does not care.
    Ts {
        val: Option<u32>,
        ecr: Echo,
    },
    /// Any other: kind and bytes.
    Raw(u8, Vec<u8>),
}

/// What a timestamp option echoes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Echo {
    Any,
    Nothing,
    Of(u32),
}

/// A packet; what is `None` is not compared, and zero when sent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Packet {
    pub(crate) ecn: Option<u8>,
    pub(crate) flags: u8,
    pub(crate) seq: u32,
    pub(crate) len: u32,
    pub(crate) ack: Option<u32>,
    pub(crate) win: Option<u16>,
    pub(crate) options: Option<Vec<Opt>>,
}

/// What relative numbers are relative to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Base {
    /// The sender's initial sequence number, and the receiver's.
    pub(crate) isn: u32,
    pub(crate) peer_isn: u32,
    /// Added to the sender's TSval, and to its TSecr.
    pub(crate) ts: u32,
    pub(crate) peer_ts: u32,
}

impl Packet {
    pub(crate) fn has(&self, letter: char) -> bool {
        LETTERS.iter().any(|&(l, bit)| l == letter && self.flags & bit != 0)
    }

    /// The control bits as they are written.
    pub(crate) fn flags_text(&self) -> String {
        LETTERS.iter().filter(|(_, bit)| self.flags & bit != 0).map(|(letter, _)| *letter).collect()
    }

    /// `[ect0] P. 1:1001(1000) ack 1 win 257 <nop,nop,TS val 1 ecr 2>`
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut packet = Self::default();
        let (text, options) = match text.split_once('<') {
            Some((text, options)) => (text, Some(options.trim_end().trim_end_matches('>'))),
            None => (text, None),
        };
        let mut words = text.split_whitespace().peekable();
        if let Some(ecn) = words.peek().and_then(|word| word.strip_prefix('[')?.strip_suffix(']')) {
            packet.ecn = Some(ECN.iter().position(|name| *name == ecn).ok_or("unknown ECN field")? as u8);
            words.next();
        }
        for letter in words.next().ok_or("no flags")?.chars() {
            let (_, bit) = LETTERS.iter().find(|(l, _)| *l == letter).ok_or(format!("no control bit {letter:?}"))?;
            packet.flags |= bit;
        }
        let range = words.next().ok_or("no sequence numbers")?;
        let (seq, rest) = range.split_once(':').ok_or("expected SEQ:END(LEN)")?;
        let (end, len) = rest.split_once('(').ok_or("expected SEQ:END(LEN)")?;
        packet.seq = number(seq)?;
        packet.len = number(len.trim_end_matches(')'))?;
        if number(end)? != packet.seq.wrapping_add(packet.len) {
            return Err(format!("{range} does not add up"));
        }
        while let Some(word) = words.next() {
            let value = number(words.next().ok_or(format!("{word} without a value"))?)?;
            match word {
                "ack" => packet.ack = Some(value),
                "win" => packet.win = Some(value as u16),
                _ => return Err(format!("unknown word {word:?}")),
            }
        }
        packet.options = options.map(parse_options).transpose()?;
        Ok(packet)
    }

    /// The datagram from `from` to `to`.
    pub(crate) fn emit(&self, from: (IpAddr, u16), to: (IpAddr, u16), base: Base) -> Vec<u8> {
        let mut options = Vec::new();
        for option in self.options.iter().flatten() {
            option.emit(base, &mut options);
        }
        options.resize(options.len().next_multiple_of(4), 0);
        let tcp_len = TCP_HEADER + options.len() + self.len as usize;
        let (mut bytes, sum) = ip_header(from.0, to.0, self.ecn.unwrap_or(0), tcp_len);
        let start = bytes.len();
        bytes.extend(from.1.to_be_bytes());
        bytes.extend(to.1.to_be_bytes());
        bytes.extend(base.isn.wrapping_add(self.seq).to_be_bytes());
        bytes.extend(self.ack.map_or(0, |ack| base.peer_isn.wrapping_add(ack)).to_be_bytes());
        bytes.extend([(((TCP_HEADER + options.len()) / 4) << 4) as u8, self.flags]);
        bytes.extend(self.win.unwrap_or(0).to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(options);
        let first = self.seq.wrapping_add(u32::from(self.has('S')));
        bytes.extend((0..self.len).map(|i| byte_at(first.wrapping_add(i))));
        let checksum = sum.add(&bytes[start..]).finish();
        bytes[start + 16..start + 18].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    /// The packet in a datagram, if it is a TCP segment with right lengths.
    pub(crate) fn read(bytes: &[u8], base: Base) -> Option<Self> {
        let (ecn, start) = match bytes.first()? >> 4 {
            4 => (bytes[1] & 3, 20),
            _ => (bytes[1] >> 4 & 3, 40),
        };
        let tcp = &bytes[start..];
        let header = usize::from(tcp[12] >> 4) * 4;
        let be32 = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
        let flags = tcp[13];
        Some(Self {
            ecn: Some(ecn),
            flags,
            seq: be32(4).wrapping_sub(base.isn),
            len: (tcp.len() - header) as u32,
            ack: (flags & 0x10 != 0).then(|| be32(8).wrapping_sub(base.peer_isn)),
            win: Some(u16::from_be_bytes([tcp[14], tcp[15]])),
            options: Some(read_options(&tcp[TCP_HEADER..header], base)?),
        })
    }

    /// Whether this, which came out, is what the script `expected`.
    pub(crate) fn matches(&self, expected: &Self) -> bool {
        fn cares<T: PartialEq>(expected: &Option<T>, found: &Option<T>) -> bool {
            expected.is_none() || expected == found
        }
        let options = match (&expected.options, &self.options) {
            (Some(expected), Some(found)) => {
                expected.len() == found.len() && expected.iter().zip(found).all(|(e, f)| f.matches(e))
            }
            _ => true,
        };
        (self.flags, self.seq, self.len) == (expected.flags, expected.seq, expected.len)
            && cares(&expected.ecn, &self.ecn)
            && cares(&expected.ack, &self.ack)
            && cares(&expected.win, &self.win)
            && options
    }
}

/// Payload byte for a relative sequence number; the same in both directions.
pub(crate) fn byte_at(seq: u32) -> u8 {
    (seq.wrapping_mul(0x9e37_79b1) >> 24) as u8
}

fn ip_header(from: IpAddr, to: IpAddr, ecn: u8, len: usize) -> (Vec<u8>, Sum) {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut bytes = vec![0x45, ecn];
            bytes.extend(((20 + len) as u16).to_be_bytes());
            bytes.extend([0, 0, 0x40, 0, 64, TCP, 0, 0]);
            bytes.extend(from.octets());
            bytes.extend(to.octets());
            let checksum = Sum::new().add(&bytes).finish();
            bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
            (bytes, pseudo_header(&from.octets(), &to.octets(), TCP, len as u32))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut bytes = vec![0x60, ecn << 4, 0, 0];
            bytes.extend((len as u16).to_be_bytes());
            bytes.extend([TCP, 64]);
            bytes.extend(from.octets());
            bytes.extend(to.octets());
            (bytes, pseudo_header(&from.octets(), &to.octets(), TCP, len as u32))
        }
        _ => panic!("{from} and {to} are of two families"),
    }
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

fn parse_options(text: &str) -> Result<Vec<Opt>, String> {
    text.split(',').map(str::trim).filter(|option| !option.is_empty()).map(Opt::parse).collect()
}

fn read_options(mut bytes: &[u8], base: Base) -> Option<Vec<Opt>> {
    let mut options = Vec::new();
    while let [kind, rest @ ..] = bytes {
        if *kind <= 1 {
            options.push(if *kind == 0 { Opt::End } else { Opt::Nop });
            bytes = rest;
            continue;
        }
        let len = usize::from(*rest.first()?);
        options.push(Opt::read(*kind, bytes.get(2..len)?, base));
        bytes = &bytes[len..];
    }
    Some(options)
}

impl Opt {
    fn parse(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        Ok(match words[..] {
            ["nop"] => Self::Nop,
            ["eol"] => Self::End,
            ["sackOK"] => Self::SackOk,
            ["mss", mss] => Self::Mss(number(mss)? as u16),
            ["wscale", scale] => Self::Wscale(number(scale)? as u8),
            ["TS"] => Self::Ts { val: None, ecr: Echo::Any },
            ["TS", "ecr", ecr] => Self::Ts { val: None, ecr: Echo::Of(number(ecr)?) },
            ["TS", "val", val] => Self::Ts { val: Some(number(val)?), ecr: Echo::Nothing },
            ["TS", "val", val, "ecr", ecr] => Self::Ts { val: Some(number(val)?), ecr: Echo::Of(number(ecr)?) },
            ["sack", ref blocks @ ..] => Self::Sack(
                blocks
                    .iter()
                    .map(|block| {
                        let (start, end) = block.split_once(':').ok_or("a SACK block is START:END")?;
                        Ok::<_, String>((number(start)?, number(end)?))
                    })
                    .collect::<Result<_, _>>()?,
            ),
            ["kind", kind, ref hex @ ..] => Self::Raw(number(kind)? as u8, parse_hex(&hex.concat())?),
            _ => return Err(format!("unknown option {text:?}")),
        })
    }

    fn emit(&self, base: Base, out: &mut Vec<u8>) {
        match self {
            Self::Nop => out.push(1),
            Self::End => out.push(0),
            Self::Mss(mss) => {
                out.extend([2, 4]);
                out.extend(mss.to_be_bytes());
            }
            Self::Wscale(scale) => out.extend([3, 3, *scale]),
            Self::SackOk => out.extend([4, 2]),
            Self::Sack(blocks) => {
                out.extend([5, 2 + 8 * blocks.len() as u8]);
                for (start, end) in blocks {
                    out.extend(base.peer_isn.wrapping_add(*start).to_be_bytes());
                    out.extend(base.peer_isn.wrapping_add(*end).to_be_bytes());
                }
            }
            Self::Ts { val, ecr } => {
                out.extend([8, 10]);
                out.extend(base.ts.wrapping_add(val.unwrap_or(0)).to_be_bytes());
                let echo = match ecr {
                    Echo::Of(ecr) => base.peer_ts.wrapping_add(*ecr),
                    Echo::Any | Echo::Nothing => 0,
                };
                out.extend(echo.to_be_bytes());
            }
            Self::Raw(kind, bytes) => {
                out.extend([*kind, 2 + bytes.len() as u8]);
                out.extend(bytes);
            }
        }
    }

    fn read(kind: u8, bytes: &[u8], base: Base) -> Self {
        let be32 = |bytes: &[u8]| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        match (kind, bytes) {
            (2, [a, b]) => Self::Mss(u16::from_be_bytes([*a, *b])),
            (3, [scale]) => Self::Wscale(*scale),
            (4, []) => Self::SackOk,
            (5, blocks) if blocks.len() % 8 == 0 => {
                let relative = |bytes| be32(bytes).wrapping_sub(base.peer_isn);
                Self::Sack(blocks.chunks(8).map(|block| (relative(&block[..4]), relative(&block[4..]))).collect())
            }
            (8, [..]) if bytes.len() == 8 => {
                let ecr = match be32(&bytes[4..]) {
                    0 => Echo::Nothing,
                    echo => Echo::Of(echo.wrapping_sub(base.peer_ts)),
                };
                Self::Ts { val: Some(be32(bytes).wrapping_sub(base.ts)), ecr }
            }
            _ => Self::Raw(kind, bytes.to_vec()),
        }
    }

    fn matches(&self, expected: &Self) -> bool {
        match (self, expected) {
            (Self::Ts { val, ecr }, Self::Ts { val: expected_val, ecr: expected_ecr }) => {
                expected_val.is_none_or(|expected| *val == Some(expected))
                    && (*expected_ecr == Echo::Any || ecr == expected_ecr)
            }
            _ => self == expected,
        }
    }
}

fn parse_hex(text: &str) -> Result<Vec<u8>, String> {
    let digit = |c: char| c.to_digit(16).map(|d| d as u8).ok_or(format!("{text:?} is not hexadecimal"));
    let digits = text.chars().map(digit).collect::<Result<Vec<_>, _>>()?;
    Ok(digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| (byte << 4) | digit)).collect())
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(ecn) = self.ecn.filter(|ecn| *ecn != 0) {
            write!(f, "[{}] ", ECN[usize::from(ecn)])?;
        }
        for (letter, _) in LETTERS.iter().filter(|(_, bit)| self.flags & bit != 0) {
            write!(f, "{letter}")?;
        }
        write!(f, " {}:{}({})", self.seq, self.seq.wrapping_add(self.len), self.len)?;
        if let Some(ack) = self.ack {
            write!(f, " ack {ack}")?;
        }
        if let Some(win) = self.win {
            write!(f, " win {win}")?;
        }
        if let Some(options) = self.options.as_ref().filter(|options| !options.is_empty()) {
            let options: Vec<String> = options.iter().map(Opt::to_string).collect();
            write!(f, " <{}>", options.join(","))?;
        }
        Ok(())
    }
}

impl fmt::Display for Opt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nop => write!(f, "nop"),
            Self::End => write!(f, "eol"),
            Self::Mss(mss) => write!(f, "mss {mss}"),
            Self::Wscale(scale) => write!(f, "wscale {scale}"),
            Self::SackOk => write!(f, "sackOK"),
            Self::Sack(blocks) => {
                write!(f, "sack")?;
                blocks.iter().try_for_each(|(start, end)| write!(f, " {start}:{end}"))
            }
            Self::Ts { val, ecr } => {
                write!(f, "TS")?;
                val.map_or(Ok(()), |val| write!(f, " val {val}"))?;
                if let Echo::Of(ecr) = ecr { write!(f, " ecr {ecr}") } else { Ok(()) }
            }
            Self::Raw(kind, bytes) => {
                write!(f, "kind {kind} ")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}
