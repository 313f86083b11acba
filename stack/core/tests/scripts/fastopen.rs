//! TCP Fast Open (RFC 7413).

use anabranch_core::config::{FastOpenConfig, FastOpenKeys, Handshake};
use anabranch_core::{Error, Event, ShardConfig};

use crate::harness::Script;

/// The cookie of 192.0.2.2 for 192.0.2.1 under [`KEY`].
const COOKIE: &str = "COOKIE";
const KEY: [u8; 16] = [7; 16];

fn with(edit: impl FnOnce(&mut FastOpenConfig)) -> ShardConfig {
    let mut fastopen = FastOpenConfig::default();
    fastopen.keys = Some(FastOpenKeys { primary: KEY, backup: None });
    edit(&mut fastopen);
    let mut handshake = Handshake::default();
    handshake.fastopen = fastopen;
    ShardConfig { handshake, ..ShardConfig::single(1) }
}

/// A listener that takes data in SYNs from `most` clients at once.
fn server(most: u32) -> Script {
    Script::with(with(|_| ()), |_| ()).options(|options| options.fastopen = most).listen()
}

fn client() -> Script {
    Script::with(with(|config| config.blackhole_timeout = std::time::Duration::from_secs(3600)), |_| ())
}

/// A client that has the cookie 01020304 of a server with an MSS of 1000.
fn client_with_cookie() -> Script {
    let mut script = client();
    script.run(
        "+0    connect 100 0
         +0    > S 0:0(0) win 65535 <mss 1460,sackOK,TS val 0,nop,wscale 8,kind 34,nop,nop>
         +0.05 < S. 0:0(0) ack 1 win 5840 <mss 1000,sackOK,nop,wscale 6,kind 34 01020304>
         +0    > . 1:1(0) ack 1
         +0    abort
         +0    > R. 1:1(0) ack 1",
    );
    script
}

/// §4.1.2, §4.2.1: a client asks once, and sends data in the SYN from then on, as much as the server's MSS leaves room
/// for.
#[test]
fn a_cookie_buys_a_round_trip() {
    let mut script = client_with_cookie();
    script.run(
        "+0    connect 5000 960
         +0    > S 0:960(960) win 65535 <mss 1460,sackOK,TS,nop,wscale 8,kind 34 01020304,nop,nop>
         +0.05 < S. 0:0(0) ack 961 win 5840 <mss 1000,sackOK,nop,wscale 6>
         +0    > . 961:961(0) ack 1
         +0    write 100
         +0    > P. 961:1061(100) ack 1
         +0.05 < . 1:1(0) ack 1061 win 100",
    );
    assert!(script.subflow().syn_data);
    assert_eq!(script.counters().tcp_fastopen_active, 1);
    // Two round trips: that of the SYN, and that of the segment behind it.
    assert_eq!(script.subflow().srtt.as_millis(), 50);
}

/// §4.2.1: what the SYN/ACK does not acknowledge goes again at once, in the segment that is the third ACK.
#[test]
fn data_that_was_not_taken_goes_again() {
    let mut script = client_with_cookie();
    script.run(
        "+0    connect 900 900
         +0    > S 0:900(900)
         +0.05 < S. 0:0(0) ack 1 win 5840 <mss 1000,sackOK,nop,wscale 6>
         +0    > P. 1:901(900) ack 1
         +0.05 < . 1:1(0) ack 901 win 100",
    );
    assert!(!script.subflow().syn_data);
    assert_eq!(script.counters().tcp_fastopen_active_fail, 1);
}

/// The same with a part of it.
#[test]
fn data_may_be_taken_in_part() {
    let mut script = client_with_cookie();
    script.run(
        "+0    connect 900 900
         +0    > S 0:900(900)
         +0.05 < S. 0:0(0) ack 101 win 5840 <mss 1000,sackOK,nop,wscale 6>
         +0    > P. 101:901(800) ack 1
         +0.05 < P. 1:101(100) ack 901 win 100
         +0    > . 901:901(0) ack 101
         +0    read 100",
    );
    assert!(!script.subflow().syn_data);
}

/// §4.2.1: neither data nor cookie is sent a second time.
#[test]
fn a_syn_is_repeated_without_data() {
    let mut script = client_with_cookie();
    script.run(
        "+0    connect 900 900
         +0    > S 0:900(900)
         +1    > S 0:0(0) win 65535 <mss 1460,sackOK,TS,nop,wscale 8>
         +0.05 < S. 0:0(0) ack 1 win 5840 <mss 1000,sackOK,nop,wscale 6>
         +0    > P. 1:901(900) ack 1",
    );
}

/// RFC 9293 §3.10.7.3: an acknowledgement of what was never sent is reset, whatever was in the SYN.
#[test]
fn more_than_the_syn_cannot_be_acknowledged() {
    let mut script = client_with_cookie();
    script.run(
        "+0    connect 900 900
         +0    > S 0:900(900)
         +0.05 < S. 0:0(0) ack 902 win 5840 <mss 1000>
         +0    > R 902:902(0)
         +0.05 < S. 0:0(0) ack 901 win 5840 <mss 1000>
         +0    > . 901:901(0) ack 1",
    );
}

/// A server that does not answer the option is asked with the experimental one next time, and then no more with that.
#[test]
fn the_experimental_option_is_tried_once() {
    let mut script = client();
    for option in ["kind 34,nop,nop", "kind 254 f989", "kind 34,nop,nop", "kind 34,nop,nop"] {
        script.run(&format!(
            "+0    connect 100 0
             +0    > S 0:0(0) win 65535 <mss 1460,sackOK,TS,nop,wscale 8,{option}>
             +0.05 < S. 0:0(0) ack 1 win 5840 <mss 1000>
             +0    > . 1:1(0) ack 1
             +0    abort
             +0    > R. 1:1(0) ack 1"
        ));
    }
}

/// A SYN that waits for data (`TCP_FASTOPEN_CONNECT`): the connection counts as established at once.
#[test]
fn a_deferred_syn_takes_the_first_data_along() {
    let mut script = client_with_cookie();
    script.options.fastopen_connect = true;
    script.restart();
    script.run(
        "+0    connect
         +5    quiet
         +0    write 500
         +0    > S 0:500(500) win 65535 <mss 1460,sackOK,TS,nop,wscale 8,kind 34 01020304,nop,nop>
         +0.05 < SF. 0:100(100) ack 501 win 5840 <mss 1000,sackOK,nop,wscale 6>
         +0    > . 501:501(0) ack 102
         +0    read 100
         +0    eof",
    );
    assert_eq!(script.seen(|event| matches!(event, Event::Connected(_))), 2);
    // What was taken is sent, even if the application lets go before there is an answer.
    script.restart();
    script.run(
        "+0    connect
         +0    write 500
         +0    > S 0:500(500)
         +0    close
         +0.05 < S. 0:0(0) ack 1 win 5840 <mss 1000,sackOK,nop,wscale 6>
         +0    > FP. 1:501(500) ack 1
         +0.05 < . 1:1(0) ack 502 win 100",
    );
}

/// §4.1.3.1: a server whose answers to SYNs with data get lost is left alone for a while.
#[test]
fn lost_syns_with_data_make_a_pause() {
    let mut script = client_with_cookie();
    for _ in 0..2 {
        script.run(
            "+0    connect 900 900
             +0    > S 0:900(900)
             +1    > S 0:0(0)
             +0.05 < S. 0:0(0) ack 1 win 5840 <mss 1000>
             +0    > P. 1:901(900) ack 1
             +0    abort
             +0    > R. 901:901(0) ack 1",
        );
    }
    script.run("+0 connect 900 0");
    script.run("+0 > S 0:0(0) win 65535 <mss 1460,sackOK,TS,nop,wscale 8>");
    script.run("+0 abort");
    script.run("+300 connect 900 900");
}

/// Linux's `tcp_fastopen_blackhole_timeout_sec`: when three SYNs in a row go unanswered, nobody is sent data for an hour.
#[test]
fn silence_makes_a_longer_pause() {
    let mut script = client_with_cookie();
    script.run(
        "+0    connect 900 900
         +0    > S 0:900(900)
         +1    > S 0:0(0)
         +1    > S 0:0(0)
         +1    > S 0:0(0)
         +0    abort
         +3000 connect 900 0
         +0    > S 0:0(0) win 65535 <mss 1460,sackOK,TS,nop,wscale 8>
         +0    abort
         +600  connect 900 900",
    );
    assert_eq!(script.counters().tcp_fastopen_blackhole, 1);
}

/// §4.2.2: the server gives out cookies, in the form that was asked for, and no option where none was asked for.
#[test]
fn a_server_gives_cookies_to_those_who_ask() {
    for (asked, given) in [
        (",kind 34", format!(",kind 34 {COOKIE},nop,nop")),
        (",kind 254 f989", format!(",kind 254 f989{COOKIE}")),
        (",kind 34 0102030405060708", format!(",kind 34 {COOKIE},nop,nop")),
        (",kind 34 010203", String::new()),
        ("", String::new()),
    ] {
        let mut script = server(1);
        let given = given.replace(COOKIE, &script.cookie(KEY));
        script.run(&format!(
            "+0    < S 0:10(10) win 10000 <mss 1000,sackOK{asked}>
             +0    > S. 0:0(0) ack 1 win 65535 <mss 1460,nop,nop,sackOK{given}>
             +0.1  < . 1:1(0) ack 1 win 10000
             +0    accept"
        ));
        assert!(!script.subflow().syn_data);
    }
}

/// §4.2.2: the application reads, and answers, before the handshake is finished.
#[test]
fn a_server_answers_before_the_third_ack() {
    let mut script = server(1);
    let cookie = script.cookie(KEY);
    script.run(&format!(
        "+0    < S 0:10(10) win 10000 <mss 1000,sackOK,kind 34 {cookie}>
         +0    > S. 0:0(0) ack 11 win 65535 <mss 1460,nop,nop,sackOK>
         +0    accept
         +0    read 10
         +0.01 write 1500
         +0    > P. 1:1501(1500) ack 11
         +0.09 < . 11:11(0) ack 1 win 10000
         +0.01 < . 11:11(0) ack 1501 win 10000"
    ));
    assert!(script.subflow().syn_data);
    assert_eq!(script.counters().tcp_fastopen_passive, 1);
}

/// The SYN/ACK goes again until it is acknowledged, and on a repeated SYN; then the connection is given up.
#[test]
fn the_syn_ack_of_a_fast_open_is_repeated() {
    let mut script = server(1);
    let cookie = script.cookie(KEY);
    script.run(&format!(
        "+0    < S 0:10(10) win 10000 <mss 1000,sackOK,kind 34 {cookie}>
         +0    > S. 0:0(0) ack 11
         +0    accept
         +1    > S. 0:0(0) ack 11
         +0.6  < S 0:0(0) win 10000 <mss 1000,sackOK>
         +0    > S. 0:0(0) ack 11
         +0    < S 0:0(0) win 10000 <mss 1000,sackOK>
         +0.1  quiet"
    ));
    let mut script = server(1);
    script.run(&format!("+0 < S 0:10(10) win 10000 <mss 1000,kind 34 {cookie}>\n+0 > S. 0:0(0) ack 11\n+0 accept"));
    for wait in [1, 2, 4, 8, 16, 32] {
        script.run(&format!("+{wait} > S. 0:0(0) ack 11"));
    }
    script.run("+65 quiet");
    assert!(script.saw(|event| matches!(event, Event::Closed(_, Some(Error::TimedOut)))));
}

/// RFC 9293 §3.10.7.4 in SYN-RECEIVED: a reset ends it, what it cannot acknowledge is reset.
#[test]
fn syn_received_is_checked() {
    let mut script = server(1);
    let cookie = script.cookie(KEY);
    script.run(&format!(
        "+0    < S 0:10(10) win 10000 <mss 1000,sackOK,kind 34 {cookie}>
         +0    > S. 0:0(0) ack 11
         +0    < . 11:11(0) ack 2 win 10000
         +0    > R 2:2(0)
         +0    < . 11:11(0) ack 0 win 10000
         +0    > R 0:0(0)
         +0    < R. 11:11(0) ack 1 win 0
         +0    accept
         +0    read 10"
    ));
    assert!(script.saw(|event| matches!(event, Event::Closed(_, Some(Error::Reset)))));
}

/// §5.1: connections that have not finished their handshake are limited, and those that were reset count for a minute.
#[test]
fn the_number_of_unfinished_handshakes_is_limited() {
    let mut script = server(1);
    let cookie = script.cookie(KEY);
    let syn = format!("+0 < S 0:10(10) win 10000 <mss 1000,sackOK,kind 34 {cookie}>");
    script.run(&syn);
    script.run("+0 > S. 0:0(0) ack 11");
    script.run("+0 < R 11:11(0) win 0");
    script.other_peer_port(40_001);
    script.run(&syn);
    script.run("+0 > S. 0:0(0) ack 1 win 65535 <mss 1460,nop,nop,sackOK>");
    assert_eq!(script.counters().tcp_fastopen_listen_overflow, 1);
    script.run("+0 < R 1:1(0) win 0");
    script.other_peer_port(40_002);
    script.run("+61 quiet");
    script.run(&syn);
    script.run("+0 > S. 0:0(0) ack 11");
}

/// A key can be changed without losing all cookies: those of the backup key are taken, and replaced.
#[test]
fn a_cookie_of_the_backup_key_is_replaced() {
    let fresh = [9; 16];
    let config = with(|config| config.keys = Some(FastOpenKeys { primary: fresh, backup: Some(KEY) }));
    let mut script = Script::with(config, |_| ()).options(|options| options.fastopen = 1).listen();
    let (old, new) = (script.cookie(KEY), script.cookie(fresh));
    script.run(&format!(
        "+0    < S 0:10(10) win 10000 <mss 1000,sackOK,kind 34 {old}>
         +0    > S. 0:0(0) ack 11 win 65535 <mss 1460,nop,nop,sackOK,kind 34 {new},nop,nop>"
    ));
    assert_eq!(script.counters().tcp_fastopen_passive_alt_key, 1);
}

/// RFC 2525 §2.17: data that nobody reads resets, in SYN-RECEIVED as elsewhere.
#[test]
fn unread_data_resets() {
    let mut script = server(1);
    let cookie = script.cookie(KEY);
    script.run(&format!(
        "+0    < S 0:10(10) win 10000 <mss 1000,sackOK,kind 34 {cookie}>
         +0    > S. 0:0(0) ack 11
         +0    accept
         +0    close
         +0    > R. 1:1(0) ack 11"
    ));
}

/// Where cookies are not wanted none are needed.
#[test]
fn data_is_taken_without_a_cookie_where_that_is_allowed() {
    let config = with(|config| config.server_no_cookie = true);
    let mut script = Script::with(config, |_| ()).options(|options| options.fastopen = 1).listen();
    script.run(
        "+0    < S 0:10(10) win 10000 <mss 1000,sackOK>
         +0    > S. 0:0(0) ack 11 win 65535 <mss 1460,nop,nop,sackOK>
         +0.1  < F. 11:11(0) ack 1 win 10000
         +0    > . 1:1(0) ack 12
         +0    accept
         +0    read 10
         +0    eof
         +0    close
         +0    > F. 1:1(0) ack 12
         +0.1  < . 12:12(0) ack 2 win 10000",
    );
}

/// Both open at once with data: only the SYNs are acknowledged, the data comes later.
#[test]
fn both_open_at_once_with_data() {
    let mut script = client_with_cookie();
    script.run(
        "+0    connect 900 900
         +0    > S 0:900(900)
         +0.02 < S 0:500(500) win 5840 <mss 1000,sackOK,nop,wscale 6,kind 34 01020304>
         +0    > S. 0:0(0) ack 1
         +0.02 < S. 0:0(0) ack 901 win 5840 <mss 1000,sackOK,nop,wscale 6>
         +0    > . 901:901(0) ack 1 win 1024 <nop,nop,sack 0:1>
         +0.02 < P. 1:501(500) ack 901 win 100
         +0    > . 901:901(0) ack 501
         +0    read 500",
    );
}

/// A SYN with data that is too big for the path goes again at once, without the data and with what fits (RFC 1191 §6.4;
/// Linux: `tcp_simple_retransmit`). The data follows as ever, and a partial segment of it holds nothing back.
#[test]
fn a_syn_that_was_too_big_is_repeated_at_once() {
    let mut script = client_with_cookie();
    script.run(
        "+0    connect 950 950
         +0    > S 0:950(950)
         +0.01 < [0:950(950)] icmp frag_needed mtu 800
         +0    > S 0:0(0) win 65535 <mss 760,sackOK,TS,nop,wscale 8>
         +0.02 < S. 0:0(0) ack 1 win 5840 <mss 1000,sackOK,nop,wscale 6>
         +0    > P. 1:951(950) ack 1
         +0    write 100
         +0    > P. 951:1051(100) ack 1",
    );
    assert_eq!(script.subflow().retrans, 2);
    script.run("+0.05 < . 1:1(0) ack 1051 win 100");
    assert_eq!(script.subflow().retrans, 0);
}

/// RFC 5461 §4.1: while nobody has accepted it an error about the SYN/ACK ends the connection. What came with the SYN can
/// be read.
#[test]
fn an_error_before_it_is_accepted_ends_a_fast_open() {
    let mut script = server(1);
    let cookie = script.cookie(KEY);
    script.run(&format!(
        "+0   < S 0:10(10) win 32792 <mss 1460,sackOK,nop,nop,kind 34 {cookie}>
         +0   > S. 0:0(0) ack 11
         +0.1 < [0:0(0)] icmp host_unreachable
         +0   accept
         +0   read 10"
    ));
    assert!(script.saw(|event| matches!(event, Event::Closed(_, Some(Error::Icmp(_))))));
    // Once it is accepted the application decides.
    let mut script = server(1);
    script.run(&format!(
        "+0   < S 0:10(10) win 32792 <mss 1460,sackOK,nop,nop,kind 34 {cookie}>
         +0   > S. 0:0(0) ack 11
         +0   accept
         +0.1 < [0:0(0)] icmp host_unreachable
         +0.1 < . 11:11(0) ack 1 win 32792
         +0   write 10
         +0   > P. 1:11(10) ack 11"
    ));
    assert!(!script.saw(|event| matches!(event, Event::Closed(..))));
}

/// Who waits to write gets to carry the third ACK, and the connection counts as interactive: the answer's acknowledgement
/// waits for the next request (Linux: `sk_write_pending`, `tcp_event_data_sent`).
#[test]
fn the_third_ack_waits_for_whoever_waits_to_write() {
    let mut script = client_with_cookie();
    script.run("+0 connect 2000 960\n +0 > S 0:960(960)");
    let conn = script.conn();
    assert_eq!(script.shard.write_room(conn), 0, "and somebody waits from now on");
    script.run(
        "+0.02 < S. 0:0(0) ack 961 win 5840 <mss 1000,sackOK,nop,wscale 6>
         +0.01 write 100
         +0    > P. 961:1061(100) ack 1
         +0.02 < P. 1:501(500) ack 1061 win 100
         +0.04 > . 1061:1061(0) ack 501",
    );
}
