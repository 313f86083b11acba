use std::net::IpAddr;

use anabranch_core::ResetReason;
use anabranch_core::wire::{
    AddAddr, DataAck, Dss, Flags, IpOut, Mapping, MpCapable, MpJoin, MptcpOption, OptionWriter, RemoveAddr, Segment,
    SegmentOut, SeqNum, Timestamps, Tuple,
};
use anabranch_frame::checksum::{Sum, pseudo_header};
use anabranch_frame::{PathId, Payload, RxChecksum, RxPacket, Transmit, gso};

use super::program::Program;

const TCP: u8 = 6;
const NOP: u8 = 1;
const MPTCP: u8 = 30;

/// Where the TCP header of one of our packets is.
fn tcp_offset(bytes: &[u8]) -> usize {
    if bytes[0] >> 4 == 4 { 20 } else { 40 }
}

pub(crate) fn parse(bytes: &[u8]) -> Option<Segment> {
    let mut packet = RxPacket::new(PathId(0), Payload::from(bytes));
    packet.checksum = RxChecksum::Trusted;
    Segment::parse(packet).ok()
}

pub(crate) fn is_syn(bytes: &[u8]) -> bool {
    bytes[tcp_offset(bytes) + 13] & Flags::SYN.0 != 0
}

/// A packet in a line.
pub(crate) fn describe(bytes: &[u8]) -> String {
    let Some(segment) = parse(bytes) else { return format!("{bytes:02x?}") };
    let Segment { tuple, seq, ack, flags, window, options, payload, .. } = &segment;
    let ports = (tuple.remote.port(), tuple.local.port());
    format!("{ports:?} {flags:?} {seq:?}+{} {ack:?} win {window} {:?} {:?}", payload.len(), options.sack, options.mptcp)
}

/// Makes both checksums of a packet right.
fn mend(bytes: &mut [u8]) {
    let tcp = tcp_offset(bytes);
    if tcp == 20 {
        bytes[10..12].fill(0);
        let checksum = Sum::new().add(&bytes[..20]).finish();
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
    bytes[tcp + 16..tcp + 18].fill(0);
    let addresses = if tcp == 20 { &bytes[12..20] } else { &bytes[8..40] };
    let (source, destination) = addresses.split_at(addresses.len() / 2);
    let sum = pseudo_header(source, destination, TCP, (bytes.len() - tcp) as u32);
    let checksum = sum.add(&bytes[tcp..]).finish();
    bytes[tcp + 16..tcp + 18].copy_from_slice(&checksum.to_be_bytes());
}

/// Changes one byte, which a checksum catches.
pub(crate) fn damage(bytes: &mut [u8], program: &mut Program<'_>) {
    let tcp = tcp_offset(bytes);
    let at = tcp + usize::from(program.word()) % (bytes.len() - tcp);
    bytes[at] ^= program.byte().max(1);
}

/// Changes up to four bytes of TCP header, options or payload, checksums mended.
pub(crate) fn alter(bytes: &mut [u8], program: &mut Program<'_>) {
    let tcp = tcp_offset(bytes);
    for _ in 0..=program.below(4) {
        // Mostly in the header and the options, where it matters.
        let range = if program.byte() < 200 { 60.min(bytes.len() - tcp) } else { bytes.len() - tcp };
        let at = tcp + usize::from(program.word()) % range;
        bytes[at] = program.byte();
    }
    mend(bytes);
}

/// Overwrites every MPTCP option with NOPs, as some middleboxes do.
pub(crate) fn strip(bytes: &mut [u8]) {
    let tcp = tcp_offset(bytes);
    let end = (tcp + usize::from(bytes[tcp + 12] >> 4) * 4).min(bytes.len());
    let mut at = tcp + 20;
    while at < end {
        let len = match bytes[at..end] {
            [NOP, ..] => 1,
            [1..=255, len @ 2..=255, ..] if at + usize::from(len) <= end => usize::from(len),
            _ => break,
        };
        if bytes[at] == MPTCP {
            bytes[at..at + len].fill(NOP);
        }
        at += len;
    }
    mend(bytes);
}

/// What somebody who saw the connection from its start knows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Secrets {
    /// Keys that went over the wire.
    pub(crate) keys: [u64; 2],
    /// Token of the last connection.
    pub(crate) token: u32,
}

/// Near `value`, or anywhere.
fn about(value: u32, program: &mut Program<'_>) -> u32 {
    let delta = program.word() as i16;
    match program.below(4) {
        0 => value,
        1 => value.wrapping_add_signed(i32::from(delta) >> 8),
        2 => value.wrapping_add_signed(i32::from(delta)),
        _ => value.wrapping_add_signed(i32::from(delta) << 16),
    }
}

fn about64(value: u64, program: &mut Program<'_>) -> u64 {
    match program.below(4) {
        0 => value,
        1 => value.wrapping_add_signed(i64::from(program.byte() as i8)),
        2 => value.wrapping_add_signed(i64::from(program.word() as i16) << 4),
        _ => value.wrapping_add_signed(i64::from(program.word() as i16) << 40),
    }
}

/// A segment of the same connection and direction as `like`, made up.
pub(crate) fn segment(like: &Segment, secrets: &Secrets, program: &mut Program<'_>) -> Vec<u8> {
    let mut options = OptionWriter::new();
    let syn = program.byte() < 24;
    if syn {
        options.syn(program.word(), Some(program.byte() & 0x0f), program.byte() & 1 != 0, like.options.timestamps);
    } else if let Some(ts) = like.options.timestamps.filter(|_| program.byte() < 240) {
        options.timestamps(Timestamps { value: about(ts.value, program), echo: about(ts.echo, program) });
    }
    for _ in 0..program.below(3) {
        let start = about(like.ack.0, program);
        options.sack(&[(SeqNum(start), SeqNum(about(start, program)))], 0);
    }
    for _ in 0..program.below(3) {
        options.mptcp(&option(like, secrets, program));
    }
    let mut tuple = Tuple { local: like.tuple.remote, remote: like.tuple.local };
    if syn {
        tuple.local.set_port(about(u32::from(tuple.local.port()), program) as u16 | 1);
    }
    let flags = match program.below(8) {
        _ if syn => Flags::SYN,
        0 => Flags(program.byte()),
        1 => Flags::RST,
        2 => Flags::FIN.with(Flags::ACK),
        3 => Flags::SYN.with(Flags::ACK),
        _ => Flags::ACK.with(Flags::PSH),
    };
    let payload = vec![program.byte(); if program.byte() & 1 == 0 { 0 } else { program.size().min(60_000) }];
    let out = SegmentOut {
        tuple,
        seq: SeqNum(about(like.seq.0, program)),
        ack: SeqNum(about(like.ack.0, program)),
        flags,
        window: program.word(),
        ip: IpOut::default(),
        options: &options,
        payload_len: payload.len() as u32,
    };
    let (header, transport_offset) = out.emit();
    let payload = [Payload::from(payload)].into_iter().collect();
    let (path, segment_size) = (PathId(0), None);
    let mut bytes = Vec::new();
    gso::complete(&Transmit { path, header, transport_offset, checksum_offset: 16, payload, segment_size }, &mut bytes);
    bytes
}

/// A made-up MPTCP option, often close to one that `like` carries.
fn option(like: &Segment, secrets: &Secrets, program: &mut Program<'_>) -> MptcpOption {
    let dss = like.options.mptcp.iter().find_map(|option| match option {
        MptcpOption::Dss(dss) => Some(*dss),
        _ => None,
    });
    let key = secrets.keys[program.below(2)];
    match program.below(12) {
        0..=3 => MptcpOption::Dss(self::dss(dss.unwrap_or_default(), like, program)),
        4 => MptcpOption::AddAddr(AddAddr {
            echo: false,
            id: program.byte(),
            addr: address(like, program),
            port: (program.byte() & 1 == 0).then(|| program.word()),
            hmac: Some(key),
        }),
        5 => {
            let addr = address(like, program);
            MptcpOption::AddAddr(AddAddr { echo: true, id: program.byte() & 7, addr, port: None, hmac: None })
        }
        6 => MptcpOption::RemoveAddr(RemoveAddr { ids: (0..=program.below(8)).map(|_| program.byte() & 7).collect() }),
        7 => MptcpOption::Prio { backup: program.byte() & 1 == 0 },
        8 => {
            let dsn = dss.and_then(|dss| dss.mapping).map_or(0, |mapping| mapping.dsn);
            MptcpOption::Fail { dsn: about64(dsn, program) }
        }
        9 => MptcpOption::Fastclose { receiver_key: about64(key, program) },
        10 => MptcpOption::Reset {
            transient: program.byte() & 1 == 0,
            reason: ResetReason::from_code(program.byte() & 7),
        },
        _ => handshake(like, secrets, program),
    }
}

fn dss(seen: Dss, like: &Segment, program: &mut Program<'_>) -> Dss {
    let ack = match (program.below(4), seen.ack) {
        (0, _) => None,
        (1, Some(DataAck::Long(ack))) => Some(DataAck::Short(about(ack as u32, program))),
        (_, Some(DataAck::Long(ack))) => Some(DataAck::Long(about64(ack, program))),
        (_, Some(DataAck::Short(ack))) => Some(DataAck::Short(about(ack, program))),
        (_, None) => Some(DataAck::Long(u64::from(program.word()))),
    };
    let base = seen.mapping.unwrap_or(Mapping { dsn: 1, dsn_long: true, ssn: 1, len: 1, checksum: None });
    let mapping = (program.below(4) != 0).then(|| Mapping {
        dsn: about64(base.dsn, program),
        dsn_long: program.byte() < 160,
        ssn: about(base.ssn, program),
        len: match program.below(3) {
            0 => base.len,
            1 => like.payload.len() as u16,
            _ => program.word(),
        },
        checksum: (program.byte() < 32).then(|| program.word()),
    });
    Dss { ack, mapping, data_fin: program.byte() < 48 }
}

fn handshake(like: &Segment, secrets: &Secrets, program: &mut Program<'_>) -> MptcpOption {
    let [sender, receiver] = if program.byte() & 1 == 0 { secrets.keys } else { [secrets.keys[1], secrets.keys[0]] };
    match program.below(5) {
        0 => MptcpOption::Join(MpJoin::Syn {
            backup: program.byte() & 1 == 0,
            addr_id: program.byte() & 7,
            token: about(secrets.token, program),
            nonce: 7,
        }),
        1 => MptcpOption::Join(MpJoin::SynAck { backup: false, addr_id: program.byte(), hmac: sender, nonce: 7 }),
        2 => MptcpOption::Join(MpJoin::Ack { hmac: [program.byte(); 20] }),
        form => {
            let (version, flags) = (1 + u8::from(program.byte() < 16), program.byte());
            let len = like.payload.len() as u16;
            MptcpOption::Capable(MpCapable {
                version,
                checksum_required: flags & 0x80 != 0,
                extensibility: flags & 0xc0 == 0xc0,
                deny_join_initial: flags & 0x20 != 0,
                hmac_sha256: flags & 0x0f != 0,
                sender_key: (form == 3).then_some(sender),
                receiver_key: (form == 3).then_some(receiver),
                data_len: (form == 3 && flags & 1 == 0).then_some(len),
                checksum: None,
            })
        }
    }
}

fn address(like: &Segment, program: &mut Program<'_>) -> IpAddr {
    let addr = if program.byte() & 1 == 0 { like.tuple.local.ip() } else { like.tuple.remote.ip() };
    match addr {
        IpAddr::V4(addr) => IpAddr::V4((addr.to_bits() ^ u32::from(program.byte() & 3)).into()),
        IpAddr::V6(addr) => IpAddr::V6((addr.to_bits() ^ u128::from(program.byte() & 3)).into()),
    }
}
