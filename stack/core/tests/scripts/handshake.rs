//! Opening connections: what is repeated, refused and remembered.

use std::time::Duration;

use anabranch_core::config::{Handshake, SynCookies};
use anabranch_core::{Error, Event, ShardConfig, SockOpt};

use crate::harness::Script;

fn with(edit: impl FnOnce(&mut Handshake)) -> Script {
    let mut config = ShardConfig::single(1);
    edit(&mut config.handshake);
    Script::with(config, |_| ())
}

/// RFC 6298 §2, and Linux's `tcp_syn_linear_timeouts`: four SYNs more, a second apart, then ever later; and no more when
/// as much time has passed as the others alone would have taken, 15 seconds.
#[test]
fn a_syn_is_repeated_each_second_then_ever_later() {
    let mut script = with(|handshake| handshake.syn_retries = 3);
    script.run("+0 connect\n+0 > S 0:0(0)");
    for wait in [1, 1, 1, 1, 1, 2, 4] {
        script.run(&format!("+{wait} > S 0:0(0)"));
    }
    script.run("+7.9 quiet");
    assert!(!script.saw(|event| matches!(event, Event::Closed(..))));
    script.run("+0.2 quiet");
    assert!(script.saw(|event| matches!(event, Event::Closed(_, Some(Error::TimedOut)))));
}

/// `TCP_SYNCNT` holds for a connection that is being opened already.
#[test]
fn a_socket_may_give_up_sooner() {
    let mut script = with(|handshake| handshake.syn_linear_timeouts = 0);
    script.run("+0 connect\n+0 > S 0:0(0)");
    let conn = script.conn();
    script.shard.set_option(script.now, conn, SockOpt::Syncnt(Some(1))).unwrap();
    script.run("+1 > S 0:0(0)\n+2.1 quiet");
    assert!(script.saw(|event| matches!(event, Event::Closed(_, Some(Error::TimedOut)))));
}

/// RFC 9293 §3.5, Linux's `tcp_synack_retries`: the SYN/ACK goes five times more, and on each SYN that is repeated, but not
/// more than twice a second.
#[test]
fn a_syn_ack_is_repeated() {
    let mut script = Script::new().listen();
    script.run(
        "+0    < S 0:0(0) win 65535 <mss 1000>
         +0    > S. 0:0(0) ack 1
         +0.6  < S 0:0(0) win 65535 <mss 1000>
         +0    > S. 0:0(0) ack 1
         +0.1  < S 0:0(0) win 65535 <mss 1000>
         +0.1  quiet",
    );
    assert_eq!(script.counters().tcp_ack_skipped_syn_recv, 1);
    let mut script = Script::new().listen();
    script.run("+0 < S 0:0(0) win 65535 <mss 1000>\n+0 > S. 0:0(0) ack 1");
    for wait in [1, 2, 4, 8, 16] {
        script.run(&format!("+{wait} > S. 0:0(0) ack 1"));
    }
    script.run("+40 < . 1:1(0) ack 1 win 65535\n+0 > R 1:1(0)");
}

/// Linux's `tcp_rto_max_ms` holds for a SYN/ACK, too.
#[test]
fn a_syn_ack_waits_no_longer_than_the_longest_timeout() {
    let mut config = ShardConfig::single(1);
    config.recovery.rto_max = Duration::from_secs(2);
    let mut script = Script::with(config, |_| ()).listen();
    script.run(
        "+0    < S 0:0(0) win 65535 <mss 1000>
         +0    > S. 0:0(0) ack 1
         +1    > S. 0:0(0) ack 1
         +2    > S. 0:0(0) ack 1
         +2    > S. 0:0(0) ack 1
         +0.1  < . 1:1(0) ack 1 win 65535
         +0    accept",
    );
}

/// RFC 9293 §3.10.7.4 in SYN-RECEIVED.
#[test]
fn syn_received_is_checked() {
    let mut script = Script::new().listen();
    script.run(
        "+0    < S 0:0(0) win 65535 <mss 1000,sackOK,TS val 700>
         +0    > S. 0:0(0) ack 1
         // Outside the window, and too old: an ACK tells where we stand.
         +1    > S. 0:0(0) ack 1
         +0    < . 70001:70001(0) ack 1 win 65535
         +0    > . 1:1(0) ack 1 <nop,nop,TS val 1000 ecr 700>
         +0.6  < . 1:1(0) ack 1 win 65535 <nop,nop,TS val 600 ecr 0>
         +0    > . 1:1(0) ack 1
         // A reset that does not hit exactly is questioned (RFC 5961).
         +0.6  < R 5:5(0) win 0
         +0    > . 1:1(0) ack 1
         // What was never sent cannot be acknowledged.
         +0    < . 1:1(0) ack 2 win 65535
         +0    > R 2:2(0)
         // No ACK flag: nothing.
         +0    < P 1:11(10) win 65535
         +0.01 < P. 1:11(10) ack 1 win 65535 <nop,nop,TS val 710 ecr 0>
         +0    > . 1:1(0) ack 11
         +0    accept
         +0    read 10",
    );
    let mut script = Script::new().listen();
    script.run(
        "+0    < S 0:0(0) win 65535 <mss 1000>
         +0    > S. 0:0(0) ack 1
         +0    < R 1:1(0) win 0
         +0    < . 1:1(0) ack 1 win 65535
         +0    > R 1:1(0)",
    );
    assert_eq!(script.counters().tcp_attempt_fails, 1);
}

/// RFC 9293 §3.5.1: a client that restarted and uses the same port again is not kept out.
#[test]
fn a_restarted_client_gets_through() {
    let mut script = Script::new().listen();
    script.run(
        "+0    < S 0:0(0) win 65535 <mss 1000>
         +0    > S. 0:0(0) ack 1
         +0.1  < S 1000:1000(0) win 65535 <mss 1000>
         +0    > S. 0:0(0) ack 1001
         +0.1  < . 1001:1001(0) ack 1 win 65535
         +0    accept",
    );
    // Half-open: we believe in a connection that the peer has forgotten. Our answer makes it reset, then its SYN counts.
    script.run(
        "+0.1  < S 90000:90000(0) win 65535 <mss 1000>
         +0    > . 1:1(0) ack 1001
         +0    < R 1001:1001(0) win 0
         +1    < S 90000:90000(0) win 65535 <mss 1000>
         +0    > S. 0:0(0) ack 90001",
    );
    assert!(script.saw(|event| matches!(event, Event::Closed(_, Some(Error::Reset)))));
    assert_eq!(script.counters().tcp_syn_challenge, 1);
}

/// RFC 9293 §3.10.7.3: in SYN-SENT what answers another SYN is reset, and a reset counts only if it answers ours.
#[test]
fn syn_sent_is_checked() {
    let mut script = Script::new();
    script.run(
        "+0    connect
         +0    > S 0:0(0)
         +0.01 < . 1:1(0) ack 5 win 65535
         +0    > R 5:5(0)
         +0    < R 1:1(0) win 0
         +0    < R. 0:0(0) ack 9 win 0
         +0    < F 1:1(0) win 65535
         +0    < P 1:101(100) win 65535
         // RFC 7323 §5.2: it echoes a timestamp that was never sent.
         +0    < S. 0:0(0) ack 1 win 65535 <mss 1000,TS val 5 ecr 77777>
         +0    > R 1:1(0)
         +0    < S. 0:0(0) ack 1 win 65535 <mss 1000,TS val 5 ecr 0>
         +0    > . 1:1(0) ack 1",
    );
    assert_eq!(script.counters().paws_active_rejected, 1);
    let mut script = Script::new();
    script.run("+0 connect\n+0 > S 0:0(0)\n+0.01 < R. 0:0(0) ack 1 win 0");
    assert!(script.saw(|event| matches!(event, Event::Closed(_, Some(Error::Refused)))));
}

/// RFC 9293 §3.5, figure 8, with data behind the handshake.
#[test]
fn both_open_at_once() {
    let mut script = Script::new();
    script.run(
        "+0    connect
         +0    > S 0:0(0) win 65535 <mss 1460,sackOK,TS val 0,nop,wscale 8>
         +0.01 < S 0:0(0) win 65535 <mss 1000,sackOK>
         +0    > S. 0:0(0) ack 1 win 65535 <mss 1460,nop,nop,sackOK>
         +0.01 < S. 0:0(0) ack 1 win 65535 <mss 1000,sackOK>
         +0    > . 1:1(0) ack 1 <nop,nop,sack 0:1>
         +0    write 100
         +0    > P. 1:101(100) ack 1
         +0.01 < P. 1:101(100) ack 101 win 65535
         +0    > . 101:101(0) ack 101
         +0    read 100",
    );
}

/// RFC 9293 §3.10.7.4: a segment that overtook others right after the handshake lies in the window that the SYN/ACK told.
#[test]
fn data_may_overtake_right_after_the_handshake() {
    let mut script = Script::new().accepted_with("mss 1000,sackOK", "");
    script.run(
        "+0    < P. 1001:2001(1000) ack 1 win 65535
         +0    > . 1:1(0) ack 1 <nop,nop,sack 1001:2001>
         +0    < P. 1:1001(1000) ack 1 win 65535
         +0    > . 1:1(0) ack 2001
         +0    read 2000",
    );
    assert_eq!(script.counters().tcp_challenge_ack, 0);
}

/// RFC 4987 §3.6: a cookie holds the MSS, and with timestamps window scale, SACK and ECN.
#[test]
fn a_syn_cookie_remembers_the_options() {
    let mut script = with(|handshake| handshake.syncookies = SynCookies::Always).listen();
    script.run(
        "+0    < SEW 0:0(0) win 65535 <mss 1460,sackOK,TS val 700,nop,wscale 7>
         +0    > SE. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,TS ecr 700,nop,wscale 8>",
    );
    assert_eq!(script.shard.sizes().half_open, 0, "nothing is remembered");
    // The peer echoes what the SYN/ACK had, which the script knows as its own zero.
    script.run(
        "+0.1  < . 1:1(0) ack 1 win 512 <nop,nop,TS val 800 ecr 0>
         +0    accept
         +0    write 1000
         +0    > P. 1:1001(1000) ack 1
         +0.05 < P. 1:1001(1000) ack 1001 win 512 <nop,nop,TS val 900 ecr 100>
         +0    > . 1001:1001(0) ack 1001",
    );
    let subflow = script.subflow();
    assert_eq!(subflow.snd_mss, 1460 - 12);
    assert!(subflow.ecn);
    assert_eq!((script.counters().syncookies_sent, script.counters().syncookies_recv), (1, 1));
    let conn = script.conn();
    assert_eq!(script.shard.info(conn).unwrap().send_window, 512 << 7, "scaled");
}

/// Without timestamps there is no room for options.
#[test]
fn a_syn_cookie_without_timestamps_is_a_plain_one() {
    let mut script = with(|handshake| handshake.syncookies = SynCookies::Always).listen();
    script.run(
        "+0    < S 0:0(0) win 65535 <mss 1400,sackOK,nop,wscale 7>
         +0    > S. 0:0(0) ack 1 win 65535 <mss 1460>
         +0.1  < P. 1:101(100) ack 1 win 30000
         +0    > . 1:1(0) ack 101
         +0    accept
         +0    read 100",
    );
    assert_eq!(script.subflow().snd_mss, 1300, "the next smaller one of the table");
}

/// An acknowledgement that brings no cookie, or an old one, is reset.
#[test]
fn a_forged_cookie_opens_nothing() {
    for (wait, ack) in [("+0.1", 2), ("+121", 1), ("+0.1", 70_000)] {
        let mut script = with(|handshake| handshake.syncookies = SynCookies::Always).listen();
        script.run(&format!(
            "+0    < S 0:0(0) win 65535 <mss 1460>
             +0    > S. 0:0(0) ack 1
             {wait} < . 1:1(0) ack {ack} win 65535
             +0    > R {ack}:{ack}(0)"
        ));
        assert_eq!(script.shard.sizes().connections, 0);
    }
}

/// Where cookies are not wanted a SYN beyond the queue is dropped; where they are, only the queue's are remembered.
#[test]
fn the_syn_queue_is_bounded() {
    for cookies in [SynCookies::Never, SynCookies::UnderLoad] {
        let mut config = ShardConfig::single(1);
        config.max_syn_queue = 1;
        config.handshake.syncookies = cookies;
        let mut script = Script::with(config, |_| ()).listen();
        script.run("+0 < S 0:0(0) win 65535 <mss 1460>\n+0 > S. 0:0(0) ack 1");
        script.other_peer_port(40_001);
        script.run("+0 < S 0:0(0) win 65535 <mss 1460>");
        if cookies == SynCookies::Never {
            script.run("+0 quiet");
            assert_eq!(script.counters().tcp_req_q_full_drop, 1);
        } else {
            script.run("+0 > S. 0:0(0) ack 1\n+0.1 < . 1:1(0) ack 1 win 65535\n+0 accept");
            assert_eq!(script.counters().tcp_req_q_full_do_cookies, 1);
        }
        assert_eq!(script.shard.sizes().half_open, 1);
    }
}

/// Linux's behaviour with a full backlog: the third ACK is dropped and the SYN/ACK repeated, unless `tcp_abort_on_overflow`.
#[test]
fn a_full_backlog_makes_clients_wait_or_fail() {
    for abort in [false, true] {
        let mut script = with(|handshake| handshake.abort_on_overflow = abort);
        script.backlog = 1;
        let mut script = script.listen();
        script.run("+0 < S 0:0(0) win 65535 <mss 1460>\n+0 > S. 0:0(0) ack 1");
        for port in [40_001, 40_002] {
            script.other_peer_port(port);
            script.run(
                "+0 < S 0:0(0) win 65535 <mss 1460>
                 +0 > S. 0:0(0) ack 1
                 +0 < . 1:1(0) ack 1 win 65535",
            );
        }
        // Nothing more is begun while the queue is full, and what had begun does not end.
        script.other_peer_port(40_003);
        script.run("+0 < S 0:0(0) win 65535 <mss 1460>\n+1 > S. 0:0(0) ack 1");
        script.other_peer_port(40_000);
        script.run("+0 < . 1:1(0) ack 1 win 65535");
        if abort {
            script.run("+0 > R 1:1(0)");
        } else {
            script.run("+2 > S. 0:0(0) ack 1");
            script.other_peer_port(40_001);
            script.run("+0 accept");
            script.other_peer_port(40_000);
            script.run("+0 < . 1:1(0) ack 1 win 65535");
            script.other_peer_port(40_002);
            script.run("+0 accept");
            script.other_peer_port(40_000);
            script.run("+0 accept");
        }
        assert_eq!((script.counters().listen_overflows, script.counters().listen_drops), (2, 1));
    }
}

/// RFC 6056 §3.3.4: ports to one destination do not repeat before all were used, and two destinations may share one.
#[test]
fn source_ports_are_chosen_by_double_hash() {
    let mut config = ShardConfig::single(1);
    config.ephemeral_ports = (50_000, 50_009);
    let mut script = Script::with(config, |_| ());
    let to = |port: u16| format!("192.0.2.2:{port}").parse().unwrap();
    let options = script.options.clone();
    let mut open = |port| {
        let conn = script.shard.connect(script.now, None, to(port), &options)?;
        Ok::<_, Error>(script.shard.info(conn).unwrap().local.port())
    };
    let mut ports: Vec<u16> = (0..10).map(|_| open(80).unwrap()).collect();
    ports.sort_unstable();
    assert_eq!(ports, (50_000..50_010).collect::<Vec<_>>());
    assert_eq!(open(80), Err(Error::NoFreePort(to(80))));
    // They are free for any other destination.
    assert!(open(81).is_ok());
}

/// RFC 6191: a tuple in TIME-WAIT is used again if timestamps tell the connections apart, and numbers go on.
#[test]
fn a_tuple_in_time_wait_is_used_again() {
    for reuse in [false, true] {
        let mut config = ShardConfig::single(1);
        config.ephemeral_ports = (50_000, 50_000);
        config.handshake.tw_reuse = reuse;
        let mut script = Script::with(config, |_| ());
        script.run(
            "+0    connect
             +0    > S 0:0(0)
             +0.01 < S. 0:0(0) ack 1 win 65535 <mss 1000,sackOK,TS val 10>
             +0    > . 1:1(0) ack 1
             +0    close
             +0    > F. 1:1(0) ack 1
             +0.01 < F. 1:1(0) ack 2 win 65535 <nop,nop,TS val 20 ecr 10>
             +0    > . 2:2(0) ack 2
             +0.5  quiet",
        );
        let options = script.options.clone();
        let peer = "192.0.2.2:40000".parse().unwrap();
        assert_eq!(script.shard.connect(script.now, None, peer, &options), Err(Error::NoFreePort(peer)), "too soon");
        script.run("+1 quiet");
        assert_eq!(script.shard.connect(script.now, None, peer, &options).is_ok(), reuse);
        assert_eq!(script.counters().tw_recycled, u64::from(reuse));
    }
}

/// RFC 9293 §3.9.1.1: who opens a connection may ask for an address and a port, and a port is listened on whatever
/// connections are being opened from it.
#[test]
fn an_address_and_a_port_can_be_asked_for() {
    let mut script = Script::new();
    let (local, peer) = ("192.0.2.1:80".parse().unwrap(), "192.0.2.2:40000".parse().unwrap());
    let options = script.options.clone();
    let conn = script.shard.connect(script.now, Some(local), peer, &options).unwrap();
    assert_eq!(script.shard.info(conn).unwrap().local, local);
    assert_eq!(script.shard.connect(script.now, Some(local), peer, &options), Err(Error::AddrInUse(local)));
    let stranger = "192.0.2.7:80".parse().unwrap();
    let refused = script.shard.connect(script.now, Some(stranger), peer, &options);
    assert_eq!(refused, Err(Error::AddrNotAvailable(stranger.ip())));

    let mut script = script.listen();
    script.run(
        "+0 quiet
         +0 > S 0:0(0)",
    );
    // A stranger's SYN is the listener's, that of the peer crosses ours.
    script.other_peer_port(40_001);
    script.run("+0 < S 0:0(0) win 65535 <mss 1000>\n+0 > S. 0:0(0) ack 1");
    assert_eq!(script.shard.sizes().half_open, 1);
    assert!(script.shard.info(conn).is_some());
}

/// RFC 9293 §3.9.1.1, §3.9.2.3: only single hosts are peers. Nobody else is connected to, and a SYN from or to anybody
/// else is dropped without a word.
#[test]
fn only_single_hosts_are_peers() {
    let mut script = Script::new().listen();
    let options = script.options.clone();
    let ip = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
    for nobody in ["0.0.0.0", "224.0.0.251", "255.255.255.255", "192.0.2.255", "::", "ff02::1", "::ffff:192.0.2.2"] {
        let refused = script.shard.connect(script.now, None, (ip(nobody), 80).into(), &options);
        assert_eq!(refused, Err(Error::NotUnicast(ip(nobody))));
    }
    let syn = "S 0:0(0) win 65535 <mss 1000>";
    for nobody in ["0.0.0.0", "224.0.0.251", "255.255.255.255", "192.0.2.255"] {
        script.inject_between(ip(nobody), ip("192.0.2.1"), syn);
        script.inject_between(ip("192.0.2.2"), ip(nobody), syn);
    }
    script.run("+2 quiet");
    assert_eq!(script.shard.sizes().half_open, 0);
    let counters = script.counters();
    assert_eq!((counters.ip_in_hdr_errors, counters.ip_in_addr_errors), (3, 5));
}
