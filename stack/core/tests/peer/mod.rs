//! One stack, and a peer made by hand that says at segment level whatever it likes in well-formed MPTCP.
//!
//! Either of them opens the connection. Positions and offsets are relative: position 1 is the first byte behind
//! the SYN, offset 0 the first byte of a stream, which has DSN IDSN + 1.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anabranch_core::shard::{Read, Shutdown};
use anabranch_core::wire::{
    AddAddr, DataAck, Dss, Flags, IpOut, Mapping, MpCapable, MpJoin, MptcpOption, OptionWriter, Segment, SegmentOut,
    SeqNum, Tuple,
};
use anabranch_core::{ConnId, ConnInfo, EndpointFlags, Event, IpCidr, PathConfig, Shard, ShardConfig, SocketOptions};
use anabranch_frame::{Instant, PathId, Payload, RxPacket, Slices, Transmit, gso};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// The peer's initial sequence number on each subflow: it wraps soon.
const ISN: u32 = 0xffff_f000;
/// The stack's clock when it begins.
const START: Instant = Instant::from_nanos(1_000_000_000);

/// A stack and its peer.
pub(crate) struct Peer {
    pub(crate) shard: Shard,
    pub(crate) now: Instant,
    conn: Option<ConnId>,
    pub(crate) flows: Vec<Flow>,
    /// The path that each subflow's segments come in by: that of its addresses, if nobody changes it.
    pub(crate) ways: [usize; 3],
    /// The peer's key and the stack's.
    keys: [u64; 2],
    /// What it tells in handshakes.
    window: u16,
    /// What went out, by path.
    out: VecDeque<(usize, Segment)>,
}

/// A subflow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    peer: SocketAddr,
    stack: SocketAddr,
    /// The stack's initial sequence number.
    isn: u32,
}

/// A segment of the peer to be. Everything counts from the initial numbers.
#[derive(Clone, Debug)]
pub(crate) struct Say<'a> {
    pub(crate) flags: Flags,
    /// Position of its first byte.
    pub(crate) pos: u32,
    /// Position of the stack's that it acknowledges.
    pub(crate) ack: u32,
    /// Window, as it stands in the header: its scale is 0.
    pub(crate) window: u16,
    pub(crate) options: Vec<MptcpOption>,
    pub(crate) payload: &'a [u8],
}

impl Default for Say<'_> {
    fn default() -> Self {
        Self { flags: Flags::ACK, pos: 1, ack: 1, window: u16::MAX, options: Vec::new(), payload: &[] }
    }
}

/// SHA-256 of a key: the token and the initial data sequence number.
pub(crate) fn token_and_idsn(key: u64) -> (u32, u64) {
    let hash: [u8; 32] = Sha256::digest(key.to_be_bytes()).into();
    let token = [hash[0], hash[1], hash[2], hash[3]];
    let idsn = hash[24..].iter().fold(0, |idsn, &byte| idsn << 8 | u64::from(byte));
    (u32::from_be_bytes(token), idsn)
}

/// `len` bytes of a stream from `off` on.
pub(crate) fn bytes_at(off: u64, len: usize) -> Vec<u8> {
    (off..off + len as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

impl Peer {
    /// A connection over 10.0.0.0/24 that was accepted; the peer's key is `key`. Subflows 1 and 2 may join over 10.0.1.0/24
    /// and 10.0.2.0/24.
    pub(crate) fn connected(key: u64, options: &SocketOptions) -> Self {
        Self::narrow(key, options, u16::MAX)
    }

    /// The same with another window of the peer's in all handshakes.
    pub(crate) fn narrow(key: u64, options: &SocketOptions, window: u16) -> Self {
        let mut peer = Self::new(key, window, EndpointFlags::default());
        peer.listen(options);
        peer.open(options.checksum);
        assert_ne!(peer.keys[1], 0, "a SYN/ACK without MP_CAPABLE");
        peer.finish_open(options.checksum);
        peer
    }

    /// A stack that listens. Nothing has been said yet.
    pub(crate) fn listening(key: u64, options: &SocketOptions) -> Self {
        let mut peer = Self::new(key, u16::MAX, EndpointFlags::default());
        peer.listen(options);
        peer
    }

    /// A stack that opens a connection to the peer over 10.0.0.0/24, and may join it from its other addresses if
    /// `flags` say so; and its SYN.
    pub(crate) fn called(key: u64, options: &SocketOptions, flags: EndpointFlags) -> (Self, Segment) {
        let mut peer = Self::new(key, u16::MAX, flags);
        peer.conn = Some(peer.shard.connect(peer.now, None, addr(0, 1), options).expect("a path to the peer"));
        peer.settle();
        let syn = peer.heard(0).pop().expect("a SYN");
        (peer, syn)
    }

    /// The peer answers the SYN of a subflow.
    pub(crate) fn answer(&mut self, syn: &Segment, option: Option<MptcpOption>) {
        let flow = self.flows.len();
        self.flows.push(Flow { peer: syn.tuple.local, stack: syn.tuple.remote, isn: syn.seq.0 });
        let flags = Flags::SYN.with(Flags::ACK);
        self.say(flow, &Say { flags, pos: 0, options: option.into_iter().collect(), ..Say::default() });
    }

    /// The peer answers the first SYN as it should; the third ACK.
    pub(crate) fn accept(&mut self, syn: &Segment) -> Segment {
        self.answer(syn, Some(MptcpOption::Capable(MpCapable::offer(Some(self.keys[0]), None, None))));
        let third = self.heard(0).pop().expect("a third ACK");
        let capable = third.options.mptcp.iter().find_map(|option| match option {
            MptcpOption::Capable(capable) => capable.sender_key,
            _ => None,
        });
        self.keys[1] = capable.expect("a third ACK with MP_CAPABLE");
        third
    }

    /// What the peer proves with in a join: the HMAC of both keys and both random numbers, its own first.
    pub(crate) fn proof(&self, own: u32, theirs: u32) -> [u8; 32] {
        self.hmac(&[&own.to_be_bytes(), &theirs.to_be_bytes()])
    }

    fn hmac(&self, message: &[&[u8]]) -> [u8; 32] {
        let key = [self.keys[0].to_be_bytes(), self.keys[1].to_be_bytes()].concat();
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&key).expect("a key of any length");
        message.iter().for_each(|piece| mac.update(piece));
        mac.finalize().into_bytes().into()
    }

    /// An announcement that the peer can prove.
    pub(crate) fn announces(&self, id: u8, addr: Ipv4Addr) -> MptcpOption {
        let proof = self.hmac(&[&[id], &addr.octets(), &[0, 0]]);
        let hmac = proof[24..].iter().fold(0, |hmac, &byte| hmac << 8 | u64::from(byte));
        MptcpOption::AddAddr(AddAddr { echo: false, id, addr: addr.into(), port: None, hmac: Some(hmac) })
    }

    /// The stack's key.
    pub(crate) fn stack_key(&self) -> u64 {
        self.keys[1]
    }

    fn listen(&mut self, options: &SocketOptions) {
        let any = SocketAddr::from(([0, 0, 0, 0], 80));
        self.shard.listen(any, 16, options.clone()).expect("a free port");
    }

    fn new(key: u64, window: u16, flags: EndpointFlags) -> Self {
        let mut shard = Shard::new(ShardConfig::single(1));
        for path in 0..3u16 {
            let cidr = IpCidr::new(addr(path, 2).ip(), 24).expect("a prefix of IPv4");
            let config = PathConfig { flags, ..PathConfig::new(PathId(path), vec![cidr]) };
            shard.add_path(START, config).expect("a new path");
        }
        Self {
            shard,
            now: START,
            conn: None,
            flows: Vec::new(),
            ways: [0, 1, 2],
            keys: [key, 0],
            window,
            out: VecDeque::new(),
        }
    }

    /// SYN and SYN/ACK of the first subflow.
    pub(crate) fn open(&mut self, checksum_required: bool) {
        let syn = MpCapable { checksum_required, ..MpCapable::offer(None, None, None) };
        let synack = self.handshake(0, Some(MptcpOption::Capable(syn)));
        let capable = synack.options.mptcp.iter().find_map(|option| match option {
            MptcpOption::Capable(capable) => capable.sender_key,
            _ => None,
        });
        self.keys[1] = capable.unwrap_or(0);
    }

    /// The third ACK of the first subflow; without MP_CAPABLE if the SYN/ACK had none.
    pub(crate) fn finish_open(&mut self, checksum_required: bool) {
        let [own, theirs] = self.keys;
        let third = MpCapable { checksum_required, ..MpCapable::offer(Some(own), Some(theirs), None) };
        let options = if theirs == 0 { Vec::new() } else { vec![MptcpOption::Capable(third)] };
        self.say(0, &Say { window: self.window, options, ..Say::default() });
    }

    /// Subflow number `flow` joins and is answered.
    pub(crate) fn join(&mut self, flow: u8) {
        self.join_unheard(flow);
        self.heard(flow.into());
    }

    /// The same; what answers the third ACK waits to be [heard](Self::heard).
    pub(crate) fn join_unheard(&mut self, flow: u8) {
        const NONCE: u32 = 77;
        let (token, _) = token_and_idsn(self.keys[1]);
        let syn = MpJoin::Syn { backup: false, addr_id: flow, token, nonce: NONCE };
        let synack = self.handshake(flow.into(), Some(MptcpOption::Join(syn)));
        let theirs = synack.options.mptcp.iter().find_map(|option| match option {
            MptcpOption::Join(MpJoin::SynAck { nonce, .. }) => Some(*nonce),
            _ => None,
        });
        let theirs = theirs.expect("a SYN/ACK with MP_JOIN");
        let mut hmac = [0; 20];
        hmac.copy_from_slice(&self.proof(NONCE, theirs)[..20]);
        let third = MptcpOption::Join(MpJoin::Ack { hmac });
        self.say(flow.into(), &Say { window: self.window, options: vec![third], ..Say::default() });
    }

    /// A SYN, with an option or without, and the SYN/ACK to it.
    pub(crate) fn handshake(&mut self, flow: usize, option: Option<MptcpOption>) -> Segment {
        let synack = self.ask(flow, option).expect("a SYN/ACK");
        assert!(synack.flags.has(Flags::SYN.with(Flags::ACK)), "{synack:?}");
        self.flows[flow].isn = synack.seq.0;
        synack
    }

    /// A SYN, and whatever answers it.
    pub(crate) fn ask(&mut self, flow: usize, option: Option<MptcpOption>) -> Option<Segment> {
        assert_eq!(flow, self.flows.len(), "subflows join in order");
        self.flows.push(Flow { peer: addr(flow as u16, 1), stack: addr(flow as u16, 2), isn: 0 });
        let options = option.into_iter().collect();
        self.say(flow, &Say { flags: Flags::SYN, pos: 0, window: self.window, options, ..Say::default() });
        self.heard(flow).pop()
    }

    /// The peer says something on a subflow.
    pub(crate) fn say(&mut self, flow: usize, say: &Say<'_>) {
        let packet = self.packet(flow, say);
        self.hear(PathId(self.ways[flow] as u16), packet);
    }

    /// A segment of the peer's as it stands on the wire.
    pub(crate) fn packet(&self, flow: usize, say: &Say<'_>) -> Payload {
        let mut options = OptionWriter::new();
        if say.flags.has(Flags::SYN) {
            options.syn(1460, Some(0), false, None);
        }
        for option in &say.options {
            assert!(options.mptcp(option), "no room for {option:?}");
        }
        let Flow { peer, stack, isn } = self.flows[flow];
        let (header, transport_offset) = SegmentOut {
            tuple: Tuple { local: peer, remote: stack },
            seq: SeqNum(ISN.wrapping_add(say.pos)),
            ack: SeqNum(isn.wrapping_add(say.ack)),
            flags: say.flags,
            window: say.window,
            ip: IpOut::default(),
            options: &options,
            payload_len: say.payload.len() as u32,
        }
        .emit();
        let payload = Slices::from_iter([Payload::from(say.payload)]);
        let (path, segment_size) = (PathId(flow as u16), None);
        let mut bytes = Vec::new();
        gso::complete(
            &Transmit { path, header, transport_offset, checksum_offset: 16, payload, segment_size },
            &mut bytes,
        );
        Payload::from(bytes)
    }

    /// A packet reaches the stack.
    pub(crate) fn hear(&mut self, path: PathId, packet: Payload) {
        self.shard.handle_packet(self.now, RxPacket::new(path, packet));
        self.settle();
    }

    /// Time passes.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.shard.poll_timeout().filter(|&due| due <= end) {
            self.now = self.now.max(due);
            self.shard.handle_timeout(self.now);
            self.settle();
        }
        self.now = end;
        self.settle();
    }

    fn settle(&mut self) {
        while let Some(transmit) = self.shard.poll_transmit(self.now) {
            gso::for_each_segment(&transmit, &mut Vec::new(), |bytes| {
                let segment = Segment::parse(RxPacket::new(transmit.path, Payload::from(bytes)));
                let segment = segment.expect("the stack sends what is well formed");
                self.out.push_back((transmit.path.0.into(), segment));
            });
        }
        while let Some(event) = self.shard.poll_event() {
            if let Event::Acceptable(listener) = event {
                self.conn = self.shard.accept(listener).map(|(conn, _)| conn);
            }
        }
    }

    /// What went out on a subflow's path since the last call.
    pub(crate) fn heard(&mut self, flow: usize) -> Vec<Segment> {
        let way = self.ways[flow];
        let (mine, others) = self.out.drain(..).partition(|(at, _)| *at == way);
        self.out = others;
        let mine: VecDeque<_> = mine;
        mine.into_iter().map(|(_, segment)| segment).collect()
    }

    /// The connection that was accepted.
    pub(crate) fn conn(&self) -> ConnId {
        self.conn.expect("an accepted connection")
    }

    /// The application writes.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.shard.write(self.now, self.conn(), Payload::from(bytes)).expect("a connection that is open");
        self.settle();
    }

    /// The application ends its stream.
    pub(crate) fn shutdown(&mut self) {
        self.shard.shutdown(self.now, self.conn(), Shutdown::Write).expect("a connection");
        self.settle();
    }

    /// The application reads all there is.
    pub(crate) fn read(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let conn = self.conn();
        while let Read::Data(data) = self.shard.read(conn, usize::MAX) {
            self.shard.consumed(self.now, conn, data.len());
            all.extend_from_slice(&data);
        }
        self.settle();
        all
    }

    pub(crate) fn info(&self) -> ConnInfo {
        self.shard.info(self.conn()).expect("a connection")
    }

    /// DSN of an offset of the peer's stream.
    pub(crate) fn dsn(&self, off: u64) -> u64 {
        token_and_idsn(self.keys[0]).1.wrapping_add(1).wrapping_add(off)
    }

    /// A mapping of `len` bytes at `pos` to the peer's stream from `off` on.
    pub(crate) fn maps(&self, pos: u32, off: u64, len: u16) -> MptcpOption {
        let mapping = Mapping { dsn: self.dsn(off), dsn_long: true, ssn: pos, len, checksum: None };
        MptcpOption::Dss(Dss { ack: Some(self.data_ack(0)), mapping: Some(mapping), data_fin: false })
    }

    /// Acknowledges the stack's stream up to `off`.
    pub(crate) fn acks(&self, off: u64) -> MptcpOption {
        MptcpOption::Dss(Dss { ack: Some(self.data_ack(off)), mapping: None, data_fin: false })
    }

    fn data_ack(&self, off: u64) -> DataAck {
        DataAck::Long(token_and_idsn(self.keys[1]).1.wrapping_add(1).wrapping_add(off))
    }

    /// The offset of the peer's stream up to which a segment acknowledges, if it does.
    pub(crate) fn acked(&self, segment: &Segment) -> Option<u64> {
        segment.options.mptcp.iter().find_map(|option| match option {
            MptcpOption::Dss(Dss { ack: Some(DataAck::Long(ack)), .. }) => Some(ack.wrapping_sub(self.dsn(0))),
            MptcpOption::Dss(Dss { ack: Some(DataAck::Short(ack)), .. }) => {
                Some(u64::from(ack.wrapping_sub(self.dsn(0) as u32)))
            }
            _ => None,
        })
    }

    /// The offset of the stack's stream at which a segment's mapping starts, if it has one.
    pub(crate) fn mapped(&self, segment: &Segment) -> Option<u64> {
        let base = token_and_idsn(self.keys[1]).1.wrapping_add(1);
        segment.options.mptcp.iter().find_map(|option| match option {
            MptcpOption::Dss(Dss { mapping: Some(mapping), .. }) if mapping.dsn_long => {
                Some(mapping.dsn.wrapping_sub(base))
            }
            _ => None,
        })
    }

    /// Position behind a segment of the stack's on its subflow.
    pub(crate) fn end(&self, flow: usize, segment: &Segment) -> u32 {
        segment.seq.add(segment.seq_len()).0.wrapping_sub(self.flows[flow].isn)
    }
}

fn addr(path: u16, host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, path as u8, host], if host == 1 { 40_000 } else { 80 }))
}
