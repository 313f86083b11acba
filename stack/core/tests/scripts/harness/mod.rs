//! Scripts in the spirit of packetdrill: one stack, a peer made of text, virtual time.
//!
//! A script is lines of `TIME WHAT`. The time is `+SECONDS` after the line before. What happens then is one of
//!
//! * `< PACKET`: the peer's packet comes in;
//! * `< [SEQ:END(LEN)] icmp WHAT [mtu N]`: an ICMP error about a segment of ours comes in;
//! * `> PACKET`: this is the next packet that goes out, at this time to the millisecond (`* > PACKET`: whenever within
//!   two minutes). A super-segment is seen as the segments it stands for; one line may expect several of them at once;
//! * `quiet`: nothing went out until now;
//! * a command of the application: `accept`, `connect`, `write N [more|boundary]`, `read N`, `eof`, `shutdown`, `close`,
//!   `abort`, `set OPTION VALUE`;
//!   `connect N TAKEN` offers N bytes for the SYN, of which TAKEN are taken (the others are not written).
//!
//! Before `<` and before a command everything that went out must have been expected: a script is the whole trace.
//! Sequence numbers, and timestamps of the stack in milliseconds of the script, are relative. What `PACKET` leaves out
//! (window, options, ECN field) is not compared.

mod icmp;
mod packet;

use std::collections::VecDeque;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anabranch_core::shard::{Read, Shutdown};
use anabranch_core::{
    ConnId, Counters, Event, Follows, IpCidr, ListenerId, PathConfig, Shard, ShardConfig, SockOpt, SocketOptions,
    SubflowInfo,
};
use anabranch_frame::{Instant, PathId, Payload, RxPacket, gso};

use anabranch_core::info::TcpState;
pub(crate) use packet::Packet;
use packet::{Base, byte_at};

/// The peer's initial sequence number: it wraps soon.
const PEER_ISN: u32 = 0xffff_f000;
/// How far from its time an expected packet may be.
const TOLERANCE: Duration = Duration::from_millis(1);
/// How long `*` waits.
const PATIENCE: Duration = Duration::from_secs(150);
/// Where the stack's clock stands when a script begins.
const START: Instant = Instant::from_nanos(1_000_000_000);

/// A stack, its application and its peer.
pub(crate) struct Script {
    pub(crate) shard: Shard,
    pub(crate) options: SocketOptions,
    /// The time, for commands of the shard.
    pub(crate) now: Instant,
    /// Of the listener.
    pub(crate) backlog: usize,
    v6: bool,
    listener: Option<ListenerId>,
    conn: Option<ConnId>,
    events: Vec<Event>,
    /// What went out and was not expected yet.
    out: VecDeque<(Instant, Packet)>,
    ours: SocketAddr,
    peer: SocketAddr,
    isn: Option<u32>,
    ts_base: Option<u32>,
    written: u32,
    read: u32,
    last_ip: IpSeen,
    last_ecn: u8,
    trace: String,
}

/// What an IP header says that packets of text do not show.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct IpSeen {
    /// Without the ECN bits.
    pub(crate) tos: u8,
    pub(crate) hop_limit: u8,
    pub(crate) dont_fragment: bool,
    pub(crate) flow_label: u32,
}

impl IpSeen {
    fn of(datagram: &[u8]) -> Self {
        if datagram[0] >> 4 == 4 {
            let dont_fragment = datagram[6] & 0x40 != 0;
            return Self { tos: datagram[1] & !3, hop_limit: datagram[8], dont_fragment, flow_label: 0 };
        }
        let first = u32::from_be_bytes([datagram[0], datagram[1], datagram[2], datagram[3]]);
        let tos = (first >> 20) as u8 & !3;
        Self { tos, hop_limit: datagram[7], dont_fragment: true, flow_label: first & 0xf_ffff }
    }
}

impl Script {
    /// Plain TCP over IPv4 on a path with an MTU of 1500, super-segments allowed.
    pub(crate) fn new() -> Self {
        Self::with(ShardConfig::single(1), |_| ())
    }

    /// The same over IPv6.
    pub(crate) fn v6() -> Self {
        Self::build(ShardConfig::single(1), true, |_| ())
    }

    /// With another configuration of the stack and of the path.
    pub(crate) fn with(config: ShardConfig, path: impl FnOnce(&mut PathConfig)) -> Self {
        Self::build(config, false, path)
    }

    fn build(config: ShardConfig, v6: bool, edit: impl FnOnce(&mut PathConfig)) -> Self {
        let addr = |host: u8| -> IpAddr {
            if v6 {
                Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(host)).into()
            } else {
                Ipv4Addr::new(192, 0, 2, host).into()
            }
        };
        let cidr = IpCidr::new(addr(1), 24).expect("a prefix of that family");
        let mut path = PathConfig::new(PathId(0), vec![cidr]);
        path.gso_max = 65_535;
        edit(&mut path);
        let mut shard = Shard::new(config);
        shard.add_path(START, path).expect("a new path");
        Self {
            shard,
            options: SocketOptions { mptcp: false, ..SocketOptions::default() },
            now: START,
            backlog: 16,
            v6,
            listener: None,
            conn: None,
            events: Vec::new(),
            out: VecDeque::new(),
            ours: SocketAddr::new(addr(1), 80),
            peer: SocketAddr::new(addr(2), 40_000),
            isn: None,
            ts_base: None,
            written: 0,
            read: 0,
            last_ip: IpSeen::default(),
            last_ecn: 0,
            trace: String::new(),
        }
    }

    /// Listens with `self.options`.
    pub(crate) fn listen(mut self) -> Self {
        self.listener = Some(self.shard.listen(self.ours, self.backlog, self.options.clone()).expect("a free port"));
        self
    }

    /// Options of the socket.
    pub(crate) fn options(mut self, edit: impl FnOnce(&mut SocketOptions)) -> Self {
        edit(&mut self.options);
        self
    }

    /// A server whose handshake is done and accepted: the peer's MSS is 1000, its window 65535, no other options.
    pub(crate) fn accepted(self) -> Self {
        self.accepted_with("mss 1000", "")
    }

    /// The same, with the peer's options on its SYN and on its third ACK.
    pub(crate) fn accepted_with(self, syn: &str, ack: &str) -> Self {
        let ack = if ack.is_empty() { String::new() } else { format!("<{ack}>") };
        let mut script = self.listen();
        script.run(&format!(
            "+0 < S 0:0(0) win 65535 <{syn}>
             +0 > S. 0:0(0) ack 1
             +0.1 < . 1:1(0) ack 1 win 65535 {ack}
             +0 accept"
        ));
        script
    }

    /// Plays lines.
    #[track_caller]
    pub(crate) fn run(&mut self, script: &str) {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")) {
            if let Err(problem) = self.play(line) {
                let seen: String = self.out.iter().fold(String::new(), |mut text, (at, packet)| {
                    let _ = writeln!(text, "   {} > {packet}", self.clock(*at));
                    text
                });
                panic!("{}-> {line}\n   {problem}\nwent out and was not expected:\n{seen}", self.trace);
            }
            let clock = self.clock(self.now);
            let _ = writeln!(self.trace, "   {clock} {}", line.split_once(' ').map_or(line, |(_, what)| what));
        }
    }

    /// The accepted or opened connection's only subflow.
    #[track_caller]
    pub(crate) fn subflow(&self) -> SubflowInfo {
        let conn = self.conn.expect("a connection");
        self.shard.subflows(conn).and_then(|subflows| subflows.first().cloned()).expect("a subflow")
    }

    /// The connection, for commands of the shard.
    #[track_caller]
    pub(crate) fn conn(&self) -> ConnId {
        self.conn.expect("a connection")
    }

    /// The listener, for commands of the shard.
    #[track_caller]
    pub(crate) fn listener(&self) -> ListenerId {
        self.listener.expect("a listener")
    }

    pub(crate) fn counters(&self) -> &Counters {
        self.shard.counters()
    }

    /// From now on another connection of the same application.
    pub(crate) fn restart(&mut self) {
        (self.written, self.read) = (0, 0);
    }

    /// From now on the peer's packets come from another port.
    pub(crate) fn other_peer_port(&mut self, port: u16) {
        self.peer.set_port(port);
    }

    /// The peer's Fast Open cookie under a key, in hexadecimal.
    pub(crate) fn cookie(&self, key: [u8; 16]) -> String {
        use std::hash::Hasher;
        let mut hasher = siphasher::sip::SipHasher24::new_with_key(&key);
        for addr in [self.peer.ip(), self.ours.ip()] {
            match addr {
                IpAddr::V4(addr) => hasher.write(&addr.octets()),
                IpAddr::V6(addr) => hasher.write(&addr.octets()),
            }
        }
        hasher.finish().to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Time passes without an answer until nothing is tried any more, half an hour at most.
    pub(crate) fn give_up(&mut self) {
        self.pass(Duration::from_secs(1800));
    }

    /// Time passes; whatever goes out does.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.advance(self.now + time);
        self.out.clear();
    }

    /// The ECN field of the last packet that went out.
    pub(crate) fn last_ecn(&self) -> u8 {
        self.last_ecn
    }

    /// The IP header of the last packet that went out.
    pub(crate) fn last_ip(&self) -> IpSeen {
        self.last_ip
    }

    /// A packet comes in, whatever went out before.
    pub(crate) fn inject_text(&mut self, packet: &str) {
        let (ours, peer) = self.ends();
        let datagram = Packet::parse(packet).expect("a packet").emit(peer, ours, self.base(true));
        self.inject(&datagram);
    }

    /// Packets come in, all of them before anything can go out.
    pub(crate) fn together(&mut self, packets: &[&str]) {
        let (ours, peer) = self.ends();
        for packet in packets {
            let datagram = Packet::parse(packet).expect("a packet").emit(peer, ours, self.base(true));
            self.shard.handle_packet(self.now, RxPacket::new(PathId(0), Payload::from(&datagram[..])));
        }
        self.settle();
    }

    /// A packet comes in with other addresses than those of the script's ends.
    pub(crate) fn inject_between(&mut self, from: IpAddr, to: IpAddr, packet: &str) {
        let (ours, peer) = self.ends();
        let packet = Packet::parse(packet).expect("a packet");
        let datagram = packet.emit((from, peer.1), (to, ours.1), self.base(true));
        self.inject(&datagram);
    }

    /// The same with all reserved bits set.
    pub(crate) fn inject_reserved(&mut self, packet: &str) {
        let (ours, peer) = self.ends();
        let mut datagram = Packet::parse(packet).expect("a packet").emit(peer, ours, self.base(true));
        let tcp = if self.v6 { 40 } else { 20 };
        // The checksum follows by RFC 1624.
        let at = tcp + 16;
        let checksum = u32::from(!u16::from_be_bytes([datagram[at], datagram[at + 1]])) + 0x0e00;
        datagram[tcp + 12] |= 0x0e;
        let folded = (checksum & 0xffff) + (checksum >> 16);
        datagram[at..at + 2].copy_from_slice(&(!(folded as u16)).to_be_bytes());
        self.inject(&datagram);
    }

    /// All that went out and was not expected.
    pub(crate) fn take_out(&mut self) -> Vec<Packet> {
        self.out.drain(..).map(|(_, packet)| packet).collect()
    }

    /// Accepts a connection if there is one.
    pub(crate) fn try_accept(&mut self) {
        if let Some((conn, _)) = self.listener.and_then(|listener| self.shard.accept(listener)) {
            self.conn = Some(conn);
        }
    }

    /// State of the connection's only subflow.
    pub(crate) fn state(&self) -> Option<TcpState> {
        self.shard.subflows(self.conn?)?.first().map(|subflow| subflow.state)
    }

    /// Whether the connection is in its handshake.
    pub(crate) fn is_opening(&self) -> bool {
        let closed = self.saw(|event| matches!(event, Event::Closed(..)));
        self.conn.is_some() && !closed && self.state().is_none()
    }

    /// Whether there was a connection.
    pub(crate) fn was_accepted(&self) -> bool {
        self.conn.is_some()
    }

    pub(crate) fn listens(&self) -> bool {
        self.listener.is_some()
    }

    /// How often this was told.
    pub(crate) fn seen(&self, event: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|told| event(told)).count()
    }

    /// Whether this was told, ever.
    pub(crate) fn saw(&self, event: impl Fn(&Event) -> bool) -> bool {
        self.events.iter().any(event)
    }

    /// A datagram as it is comes in.
    pub(crate) fn inject(&mut self, datagram: &[u8]) {
        self.shard.handle_packet(self.now, RxPacket::new(PathId(0), Payload::from(datagram)));
        self.settle();
    }

    fn ends(&self) -> ((IpAddr, u16), (IpAddr, u16)) {
        ((self.ours.ip(), self.ours.port()), (self.peer.ip(), self.peer.port()))
    }

    /// Takes all that the stack has to send and to tell.
    fn settle(&mut self) {
        while let Some(transmit) = self.shard.poll_transmit(self.now) {
            let mut scratch = Vec::new();
            let mut datagrams = Vec::new();
            gso::for_each_segment(&transmit, &mut scratch, |datagram| datagrams.push(datagram.to_vec()));
            for datagram in datagrams {
                self.went_out(&datagram);
            }
        }
        while let Some(event) = self.shard.poll_event() {
            self.events.push(event);
        }
    }

    fn went_out(&mut self, datagram: &[u8]) {
        let raw = Packet::read(datagram, Base::default()).expect("a TCP segment");
        self.last_ip = IpSeen::of(datagram);
        self.last_ecn = raw.ecn.unwrap_or(0);
        if raw.has('S') {
            let ports = if self.v6 { &datagram[40..42] } else { &datagram[20..22] };
            self.ours.set_port(u16::from_be_bytes([ports[0], ports[1]]));
            self.isn = Some(raw.seq);
        }
        if self.ts_base.is_none() {
            let val = raw.options.iter().flatten().find_map(|option| match option {
                packet::Opt::Ts { val, .. } => *val,
                _ => None,
            });
            self.ts_base = val.map(|val| val.wrapping_sub(self.millis(self.now)));
        }
        let packet = Packet::read(datagram, self.base(false)).expect("a TCP segment");
        let start = datagram.len() - packet.len as usize;
        let first = packet.seq.wrapping_add(u32::from(packet.has('S')));
        for (i, byte) in (0u32..).zip(&datagram[start..]) {
            assert_eq!(*byte, byte_at(first.wrapping_add(i)), "payload of {packet} is not what was written");
        }
        self.out.push_back((self.now, packet));
    }

    fn base(&self, from_peer: bool) -> Base {
        let (isn, ts) = (self.isn.unwrap_or(0), self.ts_base.unwrap_or(0));
        if from_peer {
            Base { isn: PEER_ISN, peer_isn: isn, ts: 0, peer_ts: ts }
        } else {
            Base { isn, peer_isn: PEER_ISN, ts, peer_ts: 0 }
        }
    }

    fn millis(&self, at: Instant) -> u32 {
        at.saturating_since(START).as_millis() as u32
    }

    fn clock(&self, at: Instant) -> String {
        format!("{:.3}", at.saturating_since(START).as_secs_f64())
    }

    // --- lines -----------------------------------------------------------------------------------

    fn play(&mut self, line: &str) -> Result<(), String> {
        let line = line.split("//").next().unwrap_or(line).trim_end();
        let (time, what) = line.split_once(' ').ok_or("expected TIME WHAT")?;
        let what = what.trim_start();
        if let Some(expected) = what.strip_prefix('>') {
            return self.expect(time, &Packet::parse(expected)?);
        }
        let at = self.now + seconds(time)?;
        self.advance(at);
        if let Some((_, packet)) = self.out.front() {
            return Err(format!("{packet} went out before"));
        }
        match what.strip_prefix('<') {
            Some(error) if error.contains(" icmp ") => {
                let (ours, peer) = self.ends();
                self.inject(&icmp::parse(error, ours, peer, self.base(false))?);
                Ok(())
            }
            Some(packet) => {
                let (ours, peer) = self.ends();
                self.inject(&Packet::parse(packet)?.emit(peer, ours, self.base(true)));
                Ok(())
            }
            None => self.command(what),
        }
    }

    /// Lets time pass; timers go off when they are due.
    fn advance(&mut self, to: Instant) {
        while let Some(due) = self.shard.poll_timeout().filter(|due| *due <= to) {
            self.now = self.now.max(due);
            self.shard.handle_timeout(self.now);
            self.settle();
        }
        self.now = self.now.max(to);
    }

    /// Takes one expected packet, which may be several segments, from what goes out.
    fn expect(&mut self, time: &str, expected: &Packet) -> Result<(), String> {
        let due = if time == "*" { None } else { Some(self.now + seconds(time)?) };
        let latest = due.map_or(self.now + PATIENCE, |due| due + TOLERANCE);
        while self.out.is_empty() {
            match self.shard.poll_timeout().filter(|at| *at <= latest) {
                Some(at) => self.advance(at),
                None => break,
            }
        }
        let Some((at, mut found)) = self.out.pop_front() else {
            return Err(format!("nothing goes out until {}", self.clock(latest)));
        };
        while found.len < expected.len && self.out.front().is_some_and(|(_, next)| follows(&found, next)) {
            let (_, next) = self.out.pop_front().expect("looked at");
            found = Packet { seq: found.seq, len: found.len + next.len, ..next };
        }
        if !found.matches(expected) {
            let message = format!("{} > {found} instead", self.clock(at));
            return Err(message);
        }
        if let Some(due) = due {
            let off = if at > due { at - due } else { due - at };
            if off > TOLERANCE {
                return Err(format!("{found} goes out at {} instead of {}", self.clock(at), self.clock(due)));
            }
        }
        // The next line counts from here.
        self.now = self.now.max(at);
        Ok(())
    }

    fn command(&mut self, what: &str) -> Result<(), String> {
        let words: Vec<&str> = what.split_whitespace().collect();
        let size = |text: &str| text.parse::<usize>().map_err(|_| format!("{text:?} is no number"));
        match words[..] {
            ["quiet"] => {}
            ["accept"] => {
                let listener = self.listener.ok_or("nobody listens")?;
                let (conn, remote) = self.shard.accept(listener).ok_or("nothing to accept")?;
                if remote != self.peer {
                    return Err(format!("accepted {remote}"));
                }
                self.conn = Some(conn);
            }
            ["connect"] => {
                let conn = self.shard.connect(self.now, None, self.peer, &self.options);
                self.conn = Some(conn.map_err(|error| error.to_string())?);
            }
            ["connect", n, taken] => self.connect_with(size(n)?, size(taken)?)?,
            ["write", n] => self.write(size(n)?, Follows::Nothing)?,
            ["write", n, "more"] => self.write(size(n)?, Follows::More)?,
            ["write", n, "boundary"] => self.write(size(n)?, Follows::Boundary)?,
            ["set", name, value] => {
                let option = option(name, value)?;
                self.shard.set_option(self.now, self.conn(), option).map_err(|error| error.to_string())?;
            }
            ["read", n] => self.read(size(n)?)?,
            ["eof"] => match self.shard.read(self.conn(), 1) {
                Read::Eof => {}
                other => return Err(format!("{other:?} instead of the end of the stream")),
            },
            ["shutdown"] => {
                self.shard.shutdown(self.now, self.conn(), Shutdown::Write).map_err(|error| error.to_string())?;
            }
            ["close"] => self.shard.release(self.now, self.conn()),
            ["abort"] => self.shard.abort(self.now, self.conn()),
            _ => return Err("unknown command".into()),
        }
        self.settle();
        Ok(())
    }

    fn connect_with(&mut self, len: usize, expected: usize) -> Result<(), String> {
        (self.written, self.read) = (0, 0);
        let data = Payload::from(self.to_write(len));
        let (conn, taken) = self
            .shard
            .connect_with(self.now, None, self.peer, &self.options, data)
            .map_err(|error| error.to_string())?;
        self.conn = Some(conn);
        self.written = taken as u32;
        if taken == expected { Ok(()) } else { Err(format!("{taken} bytes were taken")) }
    }

    fn to_write(&self, len: usize) -> Vec<u8> {
        (0..len as u32).map(|i| byte_at(1 + self.written + i)).collect()
    }

    fn write(&mut self, len: usize, follows: Follows) -> Result<(), String> {
        let bytes = self.to_write(len);
        self.written += len as u32;
        let written = self.shard.write_with(self.now, self.conn(), Payload::from(bytes), follows);
        written.map_err(|error| error.to_string())
    }

    fn read(&mut self, len: usize) -> Result<(), String> {
        let mut missing = len;
        while missing > 0 {
            match self.shard.read(self.conn(), missing) {
                Read::Data(piece) => {
                    for byte in piece.as_slice() {
                        if *byte != byte_at(1 + self.read) {
                            return Err(format!("byte {} of the stream is wrong", self.read));
                        }
                        self.read += 1;
                    }
                    missing -= piece.len();
                }
                other => return Err(format!("{other:?} with {missing} bytes missing")),
            }
        }
        self.shard.consumed(self.now, self.conn(), len);
        Ok(())
    }
}

/// A socket option as a script has it.
fn option(name: &str, value: &str) -> Result<SockOpt, String> {
    let on = || match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{value:?} is neither on nor off")),
    };
    match name {
        "nodelay" => on().map(SockOpt::Nodelay),
        "cork" => on().map(SockOpt::Cork),
        "quickack" => on().map(SockOpt::Quickack),
        "rcvbuf" => {
            value.parse().map(|bytes| SockOpt::Rcvbuf(Some(bytes))).map_err(|_| format!("{value:?} is no number"))
        }
        _ => Err(format!("unknown option {name:?}")),
    }
}

/// Whether `next` goes on where `first` ends, as the segments of one super-segment do.
fn follows(first: &Packet, next: &Packet) -> bool {
    next.seq == first.seq.wrapping_add(first.len)
        && next.len > 0
        && (next.ack, next.win, &next.options) == (first.ack, first.win, &first.options)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_prefix('+').ok_or("a time is +SECONDS")?;
    let seconds: f64 = number.parse().map_err(|_| format!("{text:?} is no time"))?;
    Ok(Duration::from_secs_f64(seconds))
}
