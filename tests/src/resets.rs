//! Resets that say nothing about a connection: those of a port where it was, and is no more.
//!
//! Who closes second is gone once the FIN is acknowledged (RFC 9293 §3.10.7.4, LAST-ACK). If that FIN went twice, as it does
//! when the first acknowledgement takes long on a busy machine, the other side, in TIME-WAIT, acknowledges it twice, and the
//! second acknowledgement finds nobody: it is answered with a reset (§3.10.7.1), by the kernel and by us.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};

use crate::tshark::rows;

const FIELDS: [&str; 9] = [
    "frame.number",
    "tcp.stream",
    "ip.src",
    "ipv6.src",
    "tcp.srcport",
    "tcp.flags",
    "tcp.seq_raw",
    "tcp.ack_raw",
    "tcp.len",
];

const FIN: u16 = 0x01;
const SYN: u16 = 0x02;
const RST: u16 = 0x04;
const ACK: u16 = 0x10;

/// What of a segment matters here.
#[derive(Clone, Debug)]
struct Segment {
    frame: u64,
    stream: u32,
    from: String,
    flags: u16,
    seq: u32,
    ack: u32,
    len: u32,
}

impl Segment {
    fn of(row: &[String]) -> Option<Self> {
        let [frame, stream, v4, v6, port, flags, seq, ack, len] = row else { return None };
        Some(Self {
            frame: frame.parse().ok()?,
            stream: stream.parse().ok()?,
            from: format!("{v4}{v6} {port}"),
            flags: u16::from_str_radix(flags.strip_prefix("0x")?, 16).ok()?,
            seq: seq.parse().ok()?,
            ack: ack.parse().ok()?,
            len: len.parse().ok()?,
        })
    }

    fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// What one side has said of its end.
#[derive(Clone, Debug, Default)]
struct End {
    from: String,
    /// The number behind its FIN.
    fin: Option<u32>,
    fin_acked: bool,
    /// What it acknowledged when both FINs were acknowledged already, each time.
    belated: Vec<u32>,
}

/// Both ends of a stream.
#[derive(Clone, Debug, Default)]
struct Ends([End; 2]);

impl Ends {
    /// Takes a segment in; whether it is a reset that answers a belated acknowledgement.
    fn on_segment(&mut self, segment: &Segment) -> bool {
        let first = &mut self.0[0];
        if segment.has(SYN) || first.from.is_empty() {
            // Another connection on the same tuple knows nothing of the old one.
            *self = Self([End { from: segment.from.clone(), ..End::default() }, End::default()]);
        }
        let at = usize::from(self.0[0].from != segment.from);
        let other = &mut self.0[1 - at];
        if segment.has(RST) {
            let answers = other.belated.iter().position(|ack| *ack == segment.seq);
            return !segment.has(ACK) && answers.map(|at| other.belated.swap_remove(at)).is_some();
        }
        let over = self.0.iter().all(|end| end.fin_acked);
        if over && segment.has(ACK) {
            self.0[at].belated.push(segment.ack);
        }
        if segment.has(FIN) {
            self.0[at].fin = Some(segment.seq.wrapping_add(segment.len).wrapping_add(1));
        }
        let other = &mut self.0[1 - at];
        other.fin_acked |= segment.has(ACK) && other.fin == Some(segment.ack);
        false
    }
}

/// The frames of a capture with a reset that does nothing but answer an acknowledgement that came when the stream was over:
/// both FINs acknowledged before.
///
/// # Errors
/// When tshark is missing or fails.
pub(crate) fn belated(capture: &Path) -> Result<Vec<u64>> {
    let rows = rows(capture, "tcp", &FIELDS)?;
    let segments = rows.iter().map(|row| Segment::of(row).with_context(|| format!("tshark said {row:?}")));
    Ok(find(&segments.collect::<Result<Vec<_>>>()?))
}

fn find(segments: &[Segment]) -> Vec<u64> {
    let mut streams = HashMap::<u32, Ends>::new();
    let belated = |segment: &&Segment| streams.entry(segment.stream).or_default().on_segment(segment);
    segments.iter().filter(belated).map(|segment| segment.frame).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of one stream, numbered from 1: who, flags, number, acknowledgement, bytes.
    fn resets(segments: &[(&str, u16, u32, u32, u32)]) -> Vec<u64> {
        let segment = |(at, &(from, flags, seq, ack, len)): (usize, &(&str, u16, u32, u32, u32))| {
            let from = from.to_owned();
            Segment { frame: at as u64 + 1, stream: 0, from, flags, seq, ack, len }
        };
        find(&segments.iter().enumerate().map(segment).collect::<Vec<_>>())
    }

    /// The kernel closes, then we; our FIN goes twice and is acknowledged twice.
    const CLOSED: [(&str, u16, u32, u32, u32); 6] = [
        ("kernel", SYN, 99, 0, 0),
        ("kernel", FIN | ACK, 100, 499, 0),
        ("us", FIN | ACK, 499, 101, 1),
        ("us", FIN | ACK, 499, 101, 1),
        ("kernel", ACK, 101, 501, 0),
        ("kernel", ACK, 101, 501, 0),
    ];

    #[test]
    fn the_second_acknowledgement_of_a_fin_may_be_reset() {
        let mut segments = CLOSED.to_vec();
        segments.push(("us", RST, 501, 0, 0));
        assert_eq!(resets(&segments), [7]);
    }

    #[test]
    fn one_acknowledgement_is_reset_once() {
        let mut segments = CLOSED.to_vec();
        segments.extend([("us", RST, 501, 0, 0); 2]);
        assert_eq!(resets(&segments), [7]);
    }

    #[test]
    fn the_first_acknowledgement_of_a_fin_may_not_be_reset() {
        let mut segments = CLOSED[..5].to_vec();
        segments.push(("us", RST, 501, 0, 0));
        assert_eq!(resets(&segments), [0; 0]);
    }

    #[test]
    fn what_resets_a_connection_is_none_of_these() {
        let others = [("us", RST | ACK, 501, 101, 0), ("us", RST, 500, 0, 0), ("kernel", RST, 101, 0, 0)];
        for other in others {
            let mut segments = CLOSED.to_vec();
            segments.push(other);
            assert_eq!(resets(&segments), [0; 0], "{other:?}");
        }
    }

    #[test]
    fn one_fin_does_not_end_a_stream() {
        let segments = [
            ("kernel", FIN | ACK, 100, 499, 0),
            ("us", ACK, 499, 101, 0),
            ("kernel", ACK, 101, 499, 0),
            ("kernel", ACK, 101, 499, 0),
            ("us", RST, 499, 0, 0),
        ];
        assert_eq!(resets(&segments), [0; 0]);
    }

    #[test]
    fn a_new_connection_begins_anew() {
        let mut segments = CLOSED.to_vec();
        segments.extend([("kernel", SYN, 900, 0, 0), ("us", RST, 501, 0, 0)]);
        assert_eq!(resets(&segments), [0; 0]);
    }
}
