//! Path MTU discovery (RFC 1191, RFC 8201).

use anabranch_core::ShardConfig;

use crate::harness::Script;

/// RFC 1191 §6.4: what was too big goes again at once, each super-segment in segments that fit, and the window stays as it
/// is: ten of them.
#[test]
fn segments_that_were_too_big_go_again_in_smaller_ones() {
    let mut script = Script::new().accepted_with("mss 1460,sackOK", "");
    script.run(
        "+0    write 14600
         +0    > P. 1:14601(14600) ack 1
         +0.01 < [1:1461(1460)] icmp frag_needed mtu 1200
         +0    > P. 1:11081(11080) ack 1
         +0.09 < . 1:1(0) ack 11081 win 65535
         +0    > P. 11081:14601(3520) ack 1
         +0.1  < . 1:1(0) ack 14601 win 65535
         +0    write 2000
         +0    > P. 14601:16601(2000) ack 1",
    );
    let info = script.subflow();
    assert_eq!((info.pmtu, info.snd_mss), (1200, 1160));
    assert!(info.cwnd >= 11_600 && info.ssthresh == u64::MAX, "no congestion: {info:?}");
    assert_eq!(script.counters().tcp_timeouts, 0);
}

/// RFC 8201: the same over IPv6, whose headers are 20 bytes more. §4: no link takes less than 1280 bytes.
#[test]
fn over_ipv6_too() {
    let mut script = Script::v6().accepted_with("mss 1440,sackOK", "");
    script.run(
        "+0    write 2880
         +0    > P. 1:2881(2880) ack 1
         +0.01 < [1:1441(1440)] icmp packet_too_big mtu 1279
         +0    < [1:1441(1440)] icmp packet_too_big mtu 1400
         +0    > . 1:1341(1340) ack 1
         +0    > P. 1341:2881(1540) ack 1",
    );
    assert_eq!(script.subflow().pmtu, 1400);
}

/// RFC 1191 §3: a message never makes packets larger, and the same news again sends nothing again.
#[test]
fn only_news_count() {
    let mut script = Script::new().accepted_with("mss 1460,sackOK", "");
    script.run(
        "+0    write 1460
         +0    > P. 1:1461(1460) ack 1
         +0.01 < [1:1461(1460)] icmp frag_needed mtu 1400
         +0    > . 1:1361(1360) ack 1
         +0    > P. 1361:1461(100) ack 1
         +0.01 < [1:1461(1460)] icmp frag_needed mtu 1400
         +0    < [1:1461(1460)] icmp frag_needed mtu 1500
         +0    < [1:1461(1460)] icmp frag_needed mtu 9000
         +0.1  quiet",
    );
    assert_eq!(script.subflow().pmtu, 1400);
}

/// Linux `min_pmtu`: a router that does not say, or says hardly anything, gets small packets that may be cut.
#[test]
fn below_the_least_pmtu_packets_may_be_cut() {
    for mtu in [0, 68, 551] {
        let mut script = Script::new().accepted_with("mss 1460,sackOK", "");
        script.run(&format!(
            "+0    write 512
             +0    > P. 1:513(512) ack 1
             +0.01 < . 1:1(0) ack 513 win 65535
             +0    write 1024
             +0    > P. 513:1537(1024) ack 1
             +0.01 < [513:1537(1024)] icmp frag_needed mtu {mtu}
             +0    > . 513:1025(512) ack 1
             +0    > P. 1025:1537(512) ack 1"
        ));
        assert_eq!(script.subflow().pmtu, 552);
        assert!(!script.last_ip().dont_fragment);
    }
}

/// RFC 1191 §6.3: after ten minutes the path may take more again. Until then other connections there know, too.
#[test]
fn what_was_learnt_is_shared_and_forgotten() {
    let mut script = Script::new().accepted_with("mss 1460,sackOK", "");
    script.run(
        "+0    write 1460
         +0    > P. 1:1461(1460) ack 1
         +0.01 < [1:1461(1460)] icmp frag_needed mtu 1400
         +0    > . 1:1361(1360) ack 1
         +0    > P. 1361:1461(100) ack 1
         +0.01 < . 1:1(0) ack 1461 win 65535
         +300  write 1460
         +0    > . 1461:2821(1360) ack 1
         +0    > P. 2821:2921(100) ack 1
         +0.01 < . 1:1(0) ack 2921 win 65535
         +300  write 1460
         +0    > P. 2921:4381(1460) ack 1
         +0.01 < . 1:1(0) ack 4381 win 65535",
    );
    // A second connection, while it is known: it asks for less, and sends less.
    let mut script = Script::new().accepted_with("mss 1460,sackOK", "");
    script.run(
        "+0    write 1460
         +0    > P. 1:1461(1460) ack 1
         +0.01 < [1:1461(1460)] icmp frag_needed mtu 1400
         +0    > . 1:1361(1360) ack 1
         +0    > P. 1361:1461(100) ack 1
         +0.01 < . 1:1(0) ack 1461 win 65535",
    );
    script.restart();
    script.other_peer_port(40_001);
    script.run(
        "+0    < S 0:0(0) win 65535 <mss 1460>
         +0    > S. 0:0(0) ack 1 win 65535 <mss 1360>
         +0.1  < . 1:1(0) ack 1 win 65535
         +0    accept
         +0    write 1460
         +0    > . 1:1361(1360) ack 1
         +0    > P. 1361:1461(100) ack 1",
    );
}

/// In recovery from a timeout already, the message is what shows that waiting is no use.
#[test]
fn after_a_timeout_a_message_still_helps() {
    let mut script = Script::with(ShardConfig::single(1), |path| path.mtu = 9000).accepted_with("mss 8960,sackOK", "");
    script.run(
        "+0    write 8960
         +0    > P. 1:8961(8960) ack 1
         *     > P. 1:8961(8960) ack 1
         +0.01 < [1:8961(8960)] icmp frag_needed mtu 1500
         +0    > P. 1:8961(8960) ack 1
         +0.01 < . 1:1(0) ack 8961 win 65535
         +5    quiet",
    );
    assert_eq!(script.subflow().snd_mss, 1460);
}
