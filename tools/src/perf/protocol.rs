//! The few bytes with which two ends of `anabranch perf` agree on a measurement.
//!
//! All numbers are big-endian. Each connection begins with a [`Request`] of the client, which the
//! server answers with a [`Reply`]; then one of them sends data and ends its direction of the
//! stream. If that was the client, the server ends the other direction with a [`Verdict`].
//!
//! ```text
//! Request  "ABPF" | version 1 | direction 1 | stream 2 | streams 2 | zero 2 | test 8 | bytes 8 | millis 4
//! Reply    "ABPR" | version 1 | status 1 | zero 2
//! Verdict  "ABPV" | zero 4 | bytes 8 | nanos 8
//! ```

use std::fmt;

#[cfg(test)]
mod tests;

/// The version that is spoken here.
pub(super) const VERSION: u8 = 1;
/// Parallel connections of a test.
pub(super) const STREAMS_MAX: u16 = 128;
/// Longest test: a day.
pub(super) const MILLIS_MAX: u32 = 24 * 3600 * 1000;

const REQUEST_MAGIC: &[u8; 4] = b"ABPF";
const REPLY_MAGIC: &[u8; 4] = b"ABPR";
const VERDICT_MAGIC: &[u8; 4] = b"ABPV";

/// Which way the data goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Direction {
    /// From the client to the server.
    Upload,
    /// From the server to the client (`--reverse`).
    Download,
}

/// When the sender ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Until {
    /// After so many bytes, at least one.
    Bytes(u64),
    /// After so many milliseconds, 1 to [`MILLIS_MAX`].
    Millis(u32),
}

/// What the client wants on this connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Request {
    /// Which way the data goes.
    pub(super) direction: Direction,
    /// When the sender ends.
    pub(super) until: Until,
    /// Number of this connection, below `streams`.
    pub(super) stream: u16,
    /// Parallel connections of the test, 1 to [`STREAMS_MAX`].
    pub(super) streams: u16,
    /// The same for all connections of a test; for logs.
    pub(super) test: u64,
}

/// What the server says to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reply {
    /// Go.
    Go,
    /// The server speaks another version: this one.
    OtherVersion(u8),
    /// The server does not understand the request.
    BadRequest,
}

/// What the server received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Verdict {
    /// Bytes of data.
    pub(super) bytes: u64,
    /// From the request to the end of the data.
    pub(super) nanos: u64,
}

/// What is wrong with a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Malformed {
    /// It is none of ours.
    Magic,
    /// A version that is not spoken here.
    Version(u8),
    /// A field has a value that makes no sense; the field's name.
    Field(&'static str),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => f.write_str("this is not the protocol of anabranch perf"),
            Self::Version(version) => {
                write!(
                    f,
                    "protocol version {version}; version {VERSION} is spoken here: use the same anabranch at both ends"
                )
            }
            Self::Field(field) => write!(f, "the field '{field}' makes no sense"),
        }
    }
}

impl std::error::Error for Malformed {}

impl Request {
    pub(super) const LEN: usize = 32;

    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let (bytes, millis) = match self.until {
            Until::Bytes(bytes) => (bytes, 0),
            Until::Millis(millis) => (0, millis),
        };
        let mut out = Writer::new();
        out.put(REQUEST_MAGIC);
        out.put(&[VERSION, matches!(self.direction, Direction::Download).into()]);
        out.put(&self.stream.to_be_bytes());
        out.put(&self.streams.to_be_bytes());
        out.put(&[0; 2]);
        out.put(&self.test.to_be_bytes());
        out.put(&bytes.to_be_bytes());
        out.put(&millis.to_be_bytes());
        out.done()
    }

    pub(super) fn parse(bytes: &[u8; Self::LEN]) -> Result<Self, Malformed> {
        let mut from = Reader(bytes);
        from.magic(REQUEST_MAGIC)?;
        from.version()?;
        let direction = match from.u8() {
            0 => Direction::Upload,
            1 => Direction::Download,
            _ => return Err(Malformed::Field("direction")),
        };
        let (stream, streams) = (from.u16(), from.u16());
        from.zero(2)?;
        let (test, bytes, millis) = (from.u64(), from.u64(), from.u32());
        let until = match (bytes, millis) {
            (1.., 0) => Until::Bytes(bytes),
            (0, 1..=MILLIS_MAX) => Until::Millis(millis),
            (0, _) => return Err(Malformed::Field("millis")),
            _ => return Err(Malformed::Field("bytes")),
        };
        if !(1..=STREAMS_MAX).contains(&streams) {
            return Err(Malformed::Field("streams"));
        }
        if stream >= streams {
            return Err(Malformed::Field("stream"));
        }
        Ok(Self { direction, until, stream, streams, test })
    }
}

impl Reply {
    pub(super) const LEN: usize = 8;

    /// The answer to a request that could not be parsed.
    pub(super) fn answer_to(malformed: Malformed) -> Self {
        match malformed {
            Malformed::Version(_) => Self::OtherVersion(VERSION),
            Malformed::Magic | Malformed::Field(_) => Self::BadRequest,
        }
    }

    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let (version, status) = match self {
            Self::Go => (VERSION, 0),
            Self::OtherVersion(version) => (version, 1),
            Self::BadRequest => (VERSION, 2),
        };
        let mut out = Writer::new();
        out.put(REPLY_MAGIC);
        out.put(&[version, status, 0, 0]);
        out.done()
    }

    pub(super) fn parse(bytes: &[u8; Self::LEN]) -> Result<Self, Malformed> {
        let mut from = Reader(bytes);
        from.magic(REPLY_MAGIC)?;
        let (version, status) = (from.u8(), from.u8());
        from.zero(2)?;
        match (version, status) {
            (VERSION, 0) => Ok(Self::Go),
            (VERSION, 2) => Ok(Self::BadRequest),
            (VERSION, _) => Err(Malformed::Field("status")),
            (version, _) => Ok(Self::OtherVersion(version)),
        }
    }
}

impl Verdict {
    pub(super) const LEN: usize = 24;

    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut out = Writer::new();
        out.put(VERDICT_MAGIC);
        out.put(&[0; 4]);
        out.put(&self.bytes.to_be_bytes());
        out.put(&self.nanos.to_be_bytes());
        out.done()
    }

    pub(super) fn parse(bytes: &[u8; Self::LEN]) -> Result<Self, Malformed> {
        let mut from = Reader(bytes);
        from.magic(VERDICT_MAGIC)?;
        from.zero(4)?;
        Ok(Self { bytes: from.u64(), nanos: from.u64() })
    }
}

/// Fills a message of `N` bytes from the front.
struct Writer<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Writer<N> {
    fn new() -> Self {
        Self { bytes: [0; N], at: 0 }
    }

    fn put(&mut self, piece: &[u8]) {
        self.bytes[self.at..self.at + piece.len()].copy_from_slice(piece);
        self.at += piece.len();
    }

    fn done(self) -> [u8; N] {
        debug_assert_eq!(self.at, N, "the message is full");
        self.bytes
    }
}

/// Takes a message apart from the front. Messages have a fixed length, so it never runs out.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk() {
            Some((piece, rest)) => {
                self.0 = rest;
                *piece
            }
            None => [0; N],
        }
    }

    fn magic(&mut self, magic: &[u8; 4]) -> Result<(), Malformed> {
        if self.take() == *magic { Ok(()) } else { Err(Malformed::Magic) }
    }

    fn version(&mut self) -> Result<(), Malformed> {
        match self.u8() {
            VERSION => Ok(()),
            other => Err(Malformed::Version(other)),
        }
    }

    fn zero(&mut self, bytes: usize) -> Result<(), Malformed> {
        if (0..bytes).all(|_| self.u8() == 0) { Ok(()) } else { Err(Malformed::Field("zero")) }
    }

    fn u8(&mut self) -> u8 {
        u8::from_be_bytes(self.take())
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take())
    }
}
