//! Packets as lines for people.

use core::fmt::{self, Write as _};
use core::net::SocketAddr;
use std::collections::{BTreeMap, VecDeque};

use anabranch_core::wire::{DataAck, Flags, MpJoin, MptcpOption, Segment, SeqNum, TcpOptions};
use anabranch_frame::pcapng::Direction;
use anabranch_frame::{Instant, PathId, Payload, RxPacket};

/// Packets that are kept for when something goes wrong.
const KEPT: usize = 300;

#[derive(Clone, Debug)]
struct Record {
    at: Instant,
    host: String,
    path: PathId,
    direction: Direction,
    packet: Payload,
}

/// The latest packets of a world.
#[derive(Debug)]
pub(crate) struct Trace {
    live: bool,
    records: VecDeque<Record>,
    /// First sequence number from one address to another.
    isn: Isns,
}

type Isns = BTreeMap<(SocketAddr, SocketAddr), SeqNum>;

impl Trace {
    /// Prints every packet at once if `ANABRANCH_TRACE` is set to something but `0`.
    pub(crate) fn from_env() -> Self {
        let live = std::env::var("ANABRANCH_TRACE").is_ok_and(|value| !value.is_empty() && value != "0");
        Self { live, records: VecDeque::new(), isn: BTreeMap::new() }
    }

    pub(crate) fn packet(&mut self, at: Instant, host: &str, path: PathId, direction: Direction, packet: &Payload) {
        if is_syn(packet)
            && let Ok(segment) = Segment::parse(RxPacket::new(path, packet.clone()))
        {
            self.isn.insert((segment.tuple.remote, segment.tuple.local), segment.seq);
        }
        let record = Record { at, host: host.into(), path, direction, packet: packet.clone() };
        if self.live {
            eprintln!("{}", Line(&record, &self.isn));
        }
        if self.records.len() == KEPT {
            self.records.pop_front();
        }
        self.records.push_back(record);
    }

    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        for record in &self.records {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}", Line(record, &self.isn));
        }
        text
    }
}

/// Whether this is a TCP segment with SYN; a guess that costs nothing.
fn is_syn(packet: &[u8]) -> bool {
    let transport = match packet.first().map(|byte| byte >> 4) {
        Some(4) => usize::from(packet[0] & 15) * 4,
        Some(6) => 40,
        _ => return false,
    };
    packet.get(transport + 13).is_some_and(|&flags| flags & Flags::SYN.0 != 0)
}

/// One IP packet as one line: addresses, flags, sequence numbers as they stand there, window, options.
#[must_use]
pub fn describe(packet: &Payload) -> String {
    let record = Record {
        at: Instant::ZERO,
        host: String::new(),
        path: PathId(0),
        direction: Direction::Outbound,
        packet: packet.clone(),
    };
    Body(&record, &BTreeMap::new()).to_string()
}

struct Line<'a>(&'a Record, &'a Isns);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(record, _) = self;
        let arrow = if record.direction == Direction::Outbound { '>' } else { '<' };
        let micros = record.at.as_micros();
        write!(f, "{:4}.{:06} ", micros / 1_000_000, micros % 1_000_000)?;
        write!(f, "{:8}{arrow}{} {}", record.host, record.path.0, Body(self.0, self.1))
    }
}

struct Body<'a>(&'a Record, &'a Isns);

impl fmt::Display for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(record, isns) = *self;
        let segment = match Segment::parse(RxPacket::new(record.path, record.packet.clone())) {
            Ok(segment) => segment,
            Err(reason) => return write!(f, "{} bytes, no good segment: {reason:?}", record.packet.len()),
        };
        let (from, to) = (segment.tuple.remote, segment.tuple.local);
        let relative = |number: SeqNum, from, to| match isns.get(&(from, to)) {
            Some(&isn) => number.0.wrapping_sub(isn.0),
            None => number.0,
        };
        write!(f, "{from} {to} {:?} seq {}", segment.flags, relative(segment.seq, from, to))?;
        if !segment.payload.is_empty() {
            write!(f, "+{}", segment.payload.len())?;
        }
        if segment.flags.has(Flags::ACK) {
            write!(f, " ack {}", relative(segment.ack, to, from))?;
        }
        write!(f, " win {}", segment.window)?;
        options(f, &segment.options, |number| relative(number, to, from))
    }
}

fn options(f: &mut fmt::Formatter<'_>, options: &TcpOptions, relative: impl Fn(SeqNum) -> u32) -> fmt::Result {
    if let Some(mss) = options.mss {
        write!(f, " mss {mss}")?;
    }
    if let Some(scale) = options.window_scale {
        write!(f, " wscale {scale}")?;
    }
    if options.sack_permitted {
        write!(f, " sackOK")?;
    }
    if let Some(ts) = options.timestamps {
        write!(f, " ts {} {}", ts.value, ts.echo)?;
    }
    for &(start, end) in &options.sack {
        write!(f, " sack {}:{}", relative(start), relative(end))?;
    }
    for option in &options.mptcp {
        mptcp(f, option)?;
    }
    if options.malformed > 0 {
        write!(f, " malformed {}", options.malformed)?;
    }
    Ok(())
}

fn mptcp(f: &mut fmt::Formatter<'_>, option: &MptcpOption) -> fmt::Result {
    match option {
        MptcpOption::Capable(capable) => {
            write!(f, " capable v{}", capable.version)?;
            if let Some(key) = capable.sender_key {
                write!(f, " key {key:x}")?;
            }
            if let Some(key) = capable.receiver_key {
                write!(f, " peer {key:x}")?;
            }
            if let Some(len) = capable.data_len {
                write!(f, " data {len}")?;
            }
            Ok(())
        }
        MptcpOption::Join(MpJoin::Syn { backup, addr_id, token, .. }) => {
            write!(f, " join id {addr_id} token {token:x}{}", if *backup { " backup" } else { "" })
        }
        MptcpOption::Join(MpJoin::SynAck { backup, addr_id, .. }) => {
            write!(f, " join id {addr_id}{}", if *backup { " backup" } else { "" })
        }
        MptcpOption::Join(MpJoin::Ack { .. }) => write!(f, " join hmac"),
        MptcpOption::Dss(dss) => {
            write!(f, " dss")?;
            match dss.ack {
                Some(DataAck::Short(ack)) => write!(f, " ack {ack}")?,
                Some(DataAck::Long(ack)) => write!(f, " ack8 {ack}")?,
                None => {}
            }
            if let Some(mapping) = dss.mapping {
                write!(f, " dsn {} ssn {} len {}", mapping.dsn, mapping.ssn, mapping.len)?;
            }
            write!(f, "{}", if dss.data_fin { " fin" } else { "" })
        }
        MptcpOption::AddAddr(add) => {
            write!(f, " add-addr{} id {} {}", if add.echo { " echo" } else { "" }, add.id, add.addr)
        }
        MptcpOption::RemoveAddr(remove) => write!(f, " remove-addr {:?}", remove.ids),
        MptcpOption::Prio { backup } => write!(f, " prio{}", if *backup { " backup" } else { "" }),
        MptcpOption::Fail { dsn } => write!(f, " fail {dsn}"),
        MptcpOption::Fastclose { .. } => write!(f, " fastclose"),
        MptcpOption::Reset { reason, .. } => write!(f, " tcprst {reason:?}"),
    }
}

#[cfg(test)]
mod tests {
    use anabranch_core::wire::{IpOut, MpCapable, OptionWriter, SegmentOut, Timestamps, Tuple};
    use anabranch_frame::{Slices, Transmit, gso};

    use super::*;

    #[test]
    fn a_packet_is_one_line_with_all_that_matters() {
        let mut options = OptionWriter::new();
        options.syn(1460, Some(7), true, Some(Timestamps { value: 9, echo: 0 }));
        let capable = MpCapable::offer(None, None, None);
        assert!(options.mptcp(&MptcpOption::Capable(capable)));
        let tuple = Tuple { local: "10.0.0.1:4000".parse().unwrap(), remote: "10.0.0.2:80".parse().unwrap() };
        let (header, offset) = SegmentOut {
            tuple,
            seq: SeqNum(1000),
            ack: SeqNum(0),
            flags: Flags::SYN,
            window: 64240,
            ip: IpOut::default(),
            options: &options,
            payload_len: 0,
        }
        .emit();
        let transmit = Transmit {
            path: PathId(0),
            header,
            transport_offset: offset,
            checksum_offset: 16,
            payload: Slices::new(),
            segment_size: None,
        };
        let mut bytes = Vec::new();
        gso::complete(&transmit, &mut bytes);
        let line = "10.0.0.1:4000 10.0.0.2:80 S seq 1000 win 64240 mss 1460 wscale 7 sackOK ts 9 0 capable v1";
        assert_eq!(describe(&Payload::from(bytes.clone())), line);
        // Inside a world numbers are relative, and a bad packet is a line too.
        let mut trace = Trace { live: false, records: VecDeque::new(), isn: BTreeMap::new() };
        trace.packet(Instant::from_millis(7), "client", PathId(0), Direction::Outbound, &Payload::from(bytes.clone()));
        bytes[30] ^= 1;
        trace.packet(Instant::from_millis(8), "server", PathId(0), Direction::Inbound, &Payload::from(bytes));
        let lines = trace.render();
        assert!(lines.starts_with(&format!("   0.007000 client  >0 {}", line.replace("1000", "0"))), "{lines}");
        assert!(lines.contains("   0.008000 server  <0 64 bytes, no good segment: Checksum"), "{lines}");
    }
}
