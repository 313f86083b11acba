//! Packets from people who guess, and packets that make no sense.

use std::net::SocketAddr;

use anabranch_core::SocketOptions;
use anabranch_core::config::SynCookies;
use anabranch_core::wire::{
    Flags, IpOut, MpCapable, MpJoin, MptcpOption, OptionWriter, Segment, SegmentOut, SeqNum, Tuple,
};
use anabranch_frame::{PathId, Payload, RxPacket, Slices, Transmit, gso};
use anabranch_sim::middlebox::{Strip, TcpPacket, Which};
use anabranch_sim::{Action, Chatter, Note, Pair, Pattern, Random, Verdict};

use crate::support::*;

/// A segment without options as it stands on the wire.
fn forge(from: SocketAddr, to: SocketAddr, seq: u32, ack: u32, flags: Flags, payload: &[u8]) -> Payload {
    let (header, transport_offset) = SegmentOut {
        tuple: Tuple { local: from, remote: to },
        seq: SeqNum(seq),
        ack: SeqNum(ack),
        flags,
        window: 1000,
        ip: IpOut::default(),
        options: &OptionWriter::new(),
        payload_len: payload.len() as u32,
    }
    .emit();
    let transmit = Transmit {
        path: PathId(0),
        header,
        transport_offset,
        checksum_offset: 16,
        payload: Slices::from_iter([Payload::from(payload)]),
        segment_size: None,
    };
    let mut bytes = Vec::new();
    gso::complete(&transmit, &mut bytes);
    Payload::from(bytes)
}

/// An idle connection: the network, the client's address, and the next sequence numbers of client and server.
fn established(seed: u64, mptcp: bool) -> (Pair, anabranch_sim::AppId<Chatter>, SocketAddr, u32, u32) {
    let mut net = Pair::seeded(seed).path(wifi()).build();
    let options = SocketOptions { mptcp, ..SocketOptions::default() };
    let server = net.spawn(Pair::SERVER, Chatter::listen(Pair::server_addr(0)).options(options.clone()));
    let talk = Chatter::connect(Pair::server_addr(0))
        .options(options)
        .at(ms(100), Action::Write(b"hello".to_vec()))
        .at(secs(2), Action::Write(b" world".to_vec()));
    let (sender, numbers) = std::sync::mpsc::channel();
    let link = net.up_link(0);
    net.set_middlebox(link, move |_, packet| {
        if let Ok(segment) = Segment::parse(RxPacket::new(PathId(0), packet.clone())) {
            let _ = sender.send((segment.tuple.remote, segment.seq.add(segment.seq_len()).0, segment.ack.0));
        }
        anabranch_sim::Verdict::Pass(packet)
    });
    net.spawn(Pair::CLIENT, talk);
    net.run_to(secs(1));
    let (client, seq, ack) = numbers.try_iter().last().expect("the client sent something");
    (net, server, client, seq, ack)
}

#[test]
fn a_blind_reset_is_challenged() {
    // RFC 5961 §3: a reset that is in the window but not exactly at its left edge is not believed.
    for mptcp in [true, false] {
        let (mut net, server, client, seq, _) = established(1101, mptcp);
        for offset in [1u32, 1000, 30_000] {
            let forged = forge(client, Pair::server_addr(0), seq.wrapping_add(offset), 0, Flags::RST, &[]);
            net.inject(Pair::SERVER, PathId(0), forged);
        }
        net.run_to(secs(3));
        assert_eq!(net.app(server).heard(), b"hello world", "mptcp {mptcp}");
        assert!(net.counters(Pair::SERVER).tcp_challenge_ack > 0);
    }
}

#[test]
fn a_reset_outside_the_window_is_ignored() {
    let (mut net, server, client, seq, _) = established(1102, false);
    let forged = forge(client, Pair::server_addr(0), seq.wrapping_sub(100_000), 0, Flags::RST, &[]);
    net.inject(Pair::SERVER, PathId(0), forged);
    net.run_to(secs(3));
    assert_eq!(net.app(server).heard(), b"hello world");
}

#[test]
fn an_exact_reset_ends_plain_tcp() {
    let (mut net, server, client, seq, _) = established(1103, false);
    net.inject(Pair::SERVER, PathId(0), forge(client, Pair::server_addr(0), seq, 0, Flags::RST, &[]));
    net.run_to(ms(1100));
    assert_eq!(net.app(server).closed(), Some(Some(anabranch_core::Error::Reset)));
}

#[test]
fn a_blind_syn_is_challenged() {
    // RFC 5961 §4.
    for mptcp in [true, false] {
        let (mut net, server, client, seq, _) = established(1104, mptcp);
        let forged = forge(client, Pair::server_addr(0), seq.wrapping_add(10), 0, Flags::SYN, &[]);
        net.inject(Pair::SERVER, PathId(0), forged);
        net.run_to(secs(3));
        assert_eq!(net.app(server).heard(), b"hello world", "mptcp {mptcp}");
        assert!(net.counters(Pair::SERVER).tcp_syn_challenge > 0);
    }
}

#[test]
fn forged_data_with_a_far_acknowledgement_is_dropped() {
    // RFC 5961 §5: neither beyond what was sent nor older than the largest window.
    let (mut net, server, client, seq, ack) = established(1105, false);
    let flags = Flags::ACK.with(Flags::PSH);
    for ack in [ack.wrapping_add(1_000_000), ack.wrapping_sub(1_000_000_000)] {
        net.inject(Pair::SERVER, PathId(0), forge(client, Pair::server_addr(0), seq, ack, flags, b" evil"));
    }
    net.run_to(secs(3));
    assert_eq!(net.app(server).heard(), b"hello world");
}

#[test]
fn stray_segments_are_answered_by_a_reset_and_resets_are_not() {
    let mut net = Pair::seeded(1106).path(wifi()).build();
    let (from, to) = (SocketAddr::new(Pair::client_addr(0), 99), Pair::server_addr(0));
    net.inject(Pair::SERVER, PathId(0), forge(from, to, 1, 1, Flags::ACK, b"x"));
    assert_eq!(net.counters(Pair::SERVER).tcp_out_rsts, 1);
    net.inject(Pair::SERVER, PathId(0), forge(from, to, 1, 1, Flags::RST, &[]));
    net.inject(Pair::SERVER, PathId(0), forge(from, to, 1, 1, Flags::RST.with(Flags::ACK), &[]));
    assert_eq!(net.counters(Pair::SERVER).tcp_out_rsts, 1);
}

#[test]
fn a_syn_flood_fills_the_queue_and_no_more() {
    let mut net = Pair::seeded(1107)
        .path(wifi())
        .server(|host| {
            host.shard.max_syn_queue = 64;
            host.shard.handshake.syncookies = SynCookies::Never;
        })
        .build();
    let server = net.spawn(Pair::SERVER, Chatter::listen(Pair::server_addr(0)));
    for n in 0..5_000u32 {
        let from = SocketAddr::from(([10, 0, 0, 77], 1024 + n as u16));
        net.inject(Pair::SERVER, PathId(0), forge(from, Pair::server_addr(0), n, 0, Flags::SYN, &[]));
    }
    let counters = net.counters(Pair::SERVER);
    assert!(counters.listen_drops >= 5_000 - 64, "{} dropped", counters.listen_drops);
    // When nobody answers, the half-open ones go away and others can come.
    net.run_to(secs(200));
    net.spawn(Pair::CLIENT, Chatter::connect(Pair::server_addr(0)).at(ms(100), Action::Write(b"hello".to_vec())));
    net.run_to(secs(202));
    assert_eq!(net.app(server).heard(), b"hello");
}

#[test]
fn a_syn_flood_keeps_nobody_out() {
    for mptcp in [true, false] {
        let net = Pair::seeded(1108).path(wifi()).path(lte()).server(|host| host.shard.max_syn_queue = 64);
        let mut net = net.build();
        let options = SocketOptions { mptcp, ..SocketOptions::default() };
        // A connection that lives through it…
        let long = start(&mut net, 0, 20 * MEGABYTE, &options);
        net.run_to(ms(500));
        let before = net.app(long.0).flow().received.bytes;
        let mut flood = 0u32;
        let mut newcomers = Vec::new();
        for tick in 1..=100u64 {
            for _ in 0..200 {
                flood += 1;
                let from = SocketAddr::from(([10, 9, (flood >> 12) as u8, (flood >> 4) as u8], 1024 + flood as u16));
                net.inject(Pair::SERVER, PathId(0), forge(from, Pair::server_addr(0), flood, 0, Flags::SYN, &[]));
            }
            if tick % 10 == 0 {
                // …and others that come in the midst of it.
                let hello = Action::Write(b"hello".to_vec());
                let one = Chatter::connect(Pair::server_addr(0)).options(options.clone()).at(ms(1), hello);
                newcomers.push(net.spawn(Pair::CLIENT, one));
            }
            net.run_to(ms(500 + 10 * tick));
        }
        net.run_to(ms(2500));
        let (sizes, _) = net.sizes(Pair::SERVER);
        assert!(sizes[0].half_open <= 64 + 8, "{sizes:?}");
        let counters = net.counters(Pair::SERVER);
        assert!(counters.syncookies_sent > 19_000, "{} cookies", counters.syncookies_sent);
        assert!(counters.syncookies_recv >= 9, "{} came back", counters.syncookies_recv);
        let got = net.app(long.0).flow().received.bytes - before;
        assert!(got > MEGABYTE, "the old connection got {got} bytes in two seconds, beside the new ones");
        for one in newcomers {
            assert!(net.app(one).saw(&Note::Connected));
            assert_eq!(net.app(one).closed(), None);
        }
    }
}

#[test]
fn noise_is_survived() {
    // Random bytes, and packets of a real conversation with several random bytes changed.
    let mut net = two_paths(1108);
    let apps = start(&mut net, MEGABYTE, MEGABYTE, &SocketOptions::default());
    let mut random = Random::new(net.seed(), 1 << 40);
    let (sender, packets) = std::sync::mpsc::channel();
    let link = net.up_link(0);
    net.set_middlebox(link, move |_, packet| {
        let _ = sender.send(packet.clone());
        anabranch_sim::Verdict::Pass(packet)
    });
    let mut noise = Pattern::new(net.seed());
    for step in 0..200u64 {
        net.run_to(ms(5 * step));
        for packet in packets.try_iter().take(20) {
            let mut bytes = packet.to_vec();
            for _ in 0..1 + random.below(6) {
                let at = random.below(bytes.len().min(100) as u64) as usize;
                bytes[at] = random.bits() as u8;
            }
            net.inject(Pair::SERVER, PathId(0), Payload::from(bytes));
            let mut bytes = vec![0; random.below(100) as usize];
            noise.fill(&mut bytes);
            if let Some(first) = bytes.first_mut() {
                *first = if random.chance(0.5) { 0x45 } else { 0x60 };
            }
            net.inject(Pair::SERVER, PathId(0), Payload::from(bytes));
        }
    }
    finish(&mut net, apps, secs(30));
}

#[test]
fn what_is_signed_is_dropped_for_want_of_a_key() {
    for (kind, len) in [(19, 18), (29, 20)] {
        // Given somebody on the way who signs the first two SYNs with a key that the server does not have,
        let mut net = Pair::seeded(1112).path(wifi()).build();
        let (link, mut signed) = (net.up_link(0), 0);
        net.set_middlebox(link, move |_, packet| {
            let Some(mut tcp) = TcpPacket::read(&packet).filter(|tcp| tcp.is_syn() && signed < 2) else {
                return Verdict::Pass(packet);
            };
            signed += 1;
            let mut options = vec![0; len];
            (options[0], options[1]) = (kind, len as u8);
            options.extend(tcp.option_bytes().iter().take(40 - len));
            tcp.set_options(&options);
            Verdict::Pass(tcp.finish())
        });
        // then the server does as if they had not come, and the third one opens an MPTCP connection.
        let apps = start(&mut net, 1000, 1000, &SocketOptions::default());
        let took = finish(&mut net, apps, secs(10));
        assert!(took > secs(2), "{took:?}");
        assert!(net.app(apps.1).flow().info.as_ref().unwrap().mptcp);
        let counters = net.counters(Pair::SERVER);
        let counts = (counters.tcp_md5_unexpected, counters.tcp_ao_key_not_found);
        assert_eq!(counts, if kind == 19 { (2, 0) } else { (0, 2) });
        assert_no_reset(&net);
    }
}

/// A segment from a stranger to the server, with an MPTCP option.
fn forge_mptcp(from: SocketAddr, seq: u32, ack: u32, flags: Flags, option: &MptcpOption) -> Payload {
    let mut options = OptionWriter::new();
    if flags.has(Flags::SYN) {
        options.syn(1460, None, false, None);
    }
    assert!(options.mptcp(option));
    let (header, transport_offset) = SegmentOut {
        tuple: Tuple { local: from, remote: Pair::server_addr(0) },
        seq: SeqNum(seq),
        ack: SeqNum(ack),
        flags,
        window: 1000,
        ip: IpOut::default(),
        options: &options,
        payload_len: 0,
    }
    .emit();
    let payload = Slices::new();
    let transmit =
        Transmit { path: PathId(0), header, transport_offset, checksum_offset: 16, payload, segment_size: None };
    let mut bytes = Vec::new();
    gso::complete(&transmit, &mut bytes);
    Payload::from(bytes)
}

#[test]
fn with_syn_cookies_nobody_chooses_our_key() {
    // Given a server that remembers nothing of SYNs, and two clients that got its SYN/ACK,
    for honest in [true, false] {
        let always = |host: &mut anabranch_sim::HostConfig| host.shard.handshake.syncookies = SynCookies::Always;
        let mut net = Pair::seeded(1120).path(wifi()).server(always).build();
        net.spawn(Pair::SERVER, Chatter::listen(Pair::server_addr(0)));
        let (sender, answers) = std::sync::mpsc::channel();
        let link = net.down_link(0);
        net.set_middlebox(link, move |_, packet| {
            let _ = sender.send(Segment::parse(RxPacket::new(PathId(0), packet)));
            anabranch_sim::Verdict::Drop
        });
        let from = SocketAddr::new(Pair::client_addr(0), 4000);
        let offer = MptcpOption::Capable(MpCapable::offer(None, None, None));
        net.inject(Pair::SERVER, PathId(0), forge_mptcp(from, 99, 0, Flags::SYN, &offer));
        net.run_for(ms(50));
        let synack = answers.try_iter().next().expect("a SYN/ACK").expect("whole");
        let MptcpOption::Capable(answer) = synack.options.mptcp[0] else { panic!("{:?}", synack.options) };
        // when one repeats the key and the other one makes one up,
        let key = answer.sender_key.expect("our key");
        let key = if honest { key } else { key ^ 1 };
        let ack = MptcpOption::Capable(MpCapable::offer(Some(77), Some(key), None));
        let acked = synack.seq.add(1).0;
        net.inject(Pair::SERVER, PathId(0), forge_mptcp(from, 100, acked, Flags::ACK, &ack));
        net.run_for(ms(50));
        // then only the first has an MPTCP connection.
        let counters = net.counters(Pair::SERVER);
        assert_eq!(counters.syncookies_recv, 1);
        assert_eq!(counters.mp_capable_ack_rx, u64::from(honest));
        assert_eq!(counters.mp_fallback_token_init, u64::from(!honest));
    }
}

#[test]
fn who_knows_one_token_takes_no_room_from_others() {
    // Given somebody who knows the token of one connection and begins a hundred joins to it,
    let (mut net, server, ..) = established(1121, true);
    let conn = net.app(server).conn().expect("accepted");
    let token = net.shard(Pair::SERVER, 0).info(conn).expect("it lives").token;
    for n in 0..100u16 {
        let from = SocketAddr::new(Pair::client_addr(0), 5000 + n);
        let join = MptcpOption::Join(MpJoin::Syn { backup: false, addr_id: 1, token, nonce: n.into() });
        net.inject(Pair::SERVER, PathId(0), forge_mptcp(from, 1, 0, Flags::SYN, &join));
    }
    // then eight of them are remembered, and the others are told that there is no room now.
    let counters = net.counters(Pair::SERVER);
    assert_eq!((counters.mp_join_syn_rx, counters.mp_join_rejected, counters.mp_rst_tx), (100, 92, 92));
    assert_eq!(net.sizes(Pair::SERVER).0[0].half_open, 8);
    // A minute later they are forgotten.
    net.run_for(secs(70));
    assert_eq!(net.sizes(Pair::SERVER).0[0].half_open, 0);
}

#[test]
fn a_join_that_lost_its_option_is_reset() {
    // Given a network that strips the option of the third ACK on the second path,
    let mut net = two_paths(1122);
    net.box_up(1, Strip::mptcp(Which::NO_SYN));
    let apps = start(&mut net, MEGABYTE, 0, &SocketOptions::default());
    finish(&mut net, apps, secs(5));
    // then the server resets it, for good, and the client goes on with one path.
    let (client, server) = (net.counters(Pair::CLIENT), net.counters(Pair::SERVER));
    assert_eq!((server.mp_join_ack_no_mpjoin, server.mp_join_ack_rx, server.mp_rst_tx), (1, 0, 1));
    assert_eq!((client.mp_rst_rx, client.mp_join_syn_tx), (1, 1));
    net.run_for(secs(10));
    assert_eq!(net.counters(Pair::CLIENT).mp_join_syn_tx, 1, "it is not tried again");
}
