//! Packetisation-layer path MTU discovery (RFC 4821).

use std::time::Duration;

use anabranch_core::{MtuProbing, PmtuConfig, ShardConfig};

use crate::harness::Script;

fn probing(mtu_probing: MtuProbing) -> Script {
    let pmtu = PmtuConfig { mtu_probing, ..PmtuConfig::default() };
    Script::with(ShardConfig { pmtu, ..ShardConfig::single(1) }, |_| ())
        .options(|options| options.congestion = "reno".into())
        .accepted_with("mss 1460,sackOK", "")
}

/// §7.2: it begins with 1024 bytes of payload; once the window has room for eleven segments and there is enough to send,
/// the next one is larger: halfway to the largest that the path may take.
fn first_probe() -> Script {
    let mut script = probing(MtuProbing::Always);
    script.run(
        "+0   write 40000
         +0   > P. 1:10241(10240) ack 1
         +0.1 < . 1:1(0) ack 10241 win 65535
         +0   > . 10241:11483(1242) ack 1
         +0   > P. 11483:29915(18432) ack 1",
    );
    assert_eq!(script.counters().tcp_mtu_probes, 1);
    script
}

/// §7.6.1: what arrived is the new size.
#[test]
fn a_probe_that_arrives_is_the_new_size() {
    let mut script = first_probe();
    // The next probe follows at once.
    script.run(
        "+0.1 < . 1:1(0) ack 11483 win 65535
         +0   > . 29915:31266(1351) ack 1
         +0   > . 31266:32508(1242) ack 1",
    );
    assert_eq!((script.subflow().snd_mss, script.counters().tcp_mtup_success), (1242, 1));
}

/// §7.6.2, §7.5: if only the probe is lost it was too big, which is no congestion: it goes again in two pieces.
#[test]
fn a_probe_that_is_lost_is_no_congestion() {
    let mut script = first_probe();
    let cwnd = script.subflow().cwnd;
    script.run(
        "+0.1  < . 1:1(0) ack 10241 win 65535 <nop,nop,sack 11483:29915>
         +0    > P. 10241:11483(1242) ack 1
         +0    > P. 29915:40001(10086) ack 1",
    );
    let info = script.subflow();
    assert_eq!((info.snd_mss, info.ssthresh, script.counters().tcp_mtup_fail), (1024, u64::MAX, 1));
    assert!(info.cwnd >= cwnd);
    assert_eq!(script.counters().tcp_sack_recovery, 0);
}

/// §7.6.3: if more is lost with it, that is congestion, and says nothing of the probe.
#[test]
fn a_loss_of_more_than_the_probe_is_congestion() {
    let mut script = first_probe();
    script.run("+0.1  < . 1:1(0) ack 10241 win 65535 <nop,nop,sack 12507:29915>");
    assert!(script.subflow().ssthresh < u64::MAX);
    assert_eq!(script.counters().tcp_mtup_fail, 0);
}

/// §7.7: three seconds of timeouts without an answer, and smaller segments are tried; then half of that again.
#[test]
fn silence_makes_segments_smaller() {
    let mut script = probing(MtuProbing::BlackHole);
    script.run("+0 write 1460\n +0 > P. 1:1461(1460) ack 1");
    let mut sizes = Vec::new();
    while script.counters().tcp_mtu_black_holes < 3 {
        script.pass(Duration::from_secs(1));
        sizes.push(script.subflow().snd_mss);
    }
    sizes.dedup();
    assert_eq!(sizes, [1460, 1024, 512, 256]);
}

/// Off is the default: segments stay as large as the path says.
#[test]
fn without_probing_nothing_of_that_happens() {
    let mut script = probing(MtuProbing::Off);
    script.run("+0 write 1460\n +0 > P. 1:1461(1460) ack 1");
    script.pass(Duration::from_secs(60));
    assert_eq!((script.subflow().snd_mss, script.counters().tcp_mtu_black_holes), (1460, 0));
}
