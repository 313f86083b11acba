//! A world with the real stack in it: the clock, captures, independence of what is random.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use anabranch_core::PathConfig;
use anabranch_core::{IpCidr, SocketOptions};
use anabranch_frame::PathId;
use anabranch_sim::{
    AppId, Aqm, Codel, HostConfig, LinkConfig, LinkStats, Opportunities, Pair, Police, Red, Transfer, Verdict,
};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Two lossy paths and a transfer of 2 MB each way.
fn lossy(seed: u64) -> (Pair, AppId<Transfer>, AppId<Transfer>) {
    let link = |mbits, delay| LinkConfig::new(mbits, delay).queue_time(ms(60)).loss(0.01);
    let mut net = Pair::seeded(seed).path(link(50, 10)).path(link(20, 30)).build();
    let (client, server) = talk(&mut net);
    (net, client, server)
}

fn talk(net: &mut Pair) -> (AppId<Transfer>, AppId<Transfer>) {
    let server = net.spawn(Pair::SERVER, Transfer::listen(Pair::server_addr(0)).sends(2_000_000));
    let client = net.spawn(Pair::CLIENT, Transfer::connect(Pair::server_addr(0)).sends(2_000_000).hashed());
    (client, server)
}

fn stats(net: &Pair) -> Vec<LinkStats> {
    (0..2).flat_map(|path| [*net.up_stats(path), *net.down_stats(path)]).collect()
}

fn finish(net: &mut Pair, client: AppId<Transfer>, server: AppId<Transfer>) {
    assert!(net.run_until(secs(60), |world| world.app(client).completed(1) && world.app(server).completed(1)));
}

#[test]
fn another_link_changes_nothing_for_the_ones_there_are() {
    let (mut net, client, server) = lossy(1);
    finish(&mut net, client, server);
    // When there are a third host and a link with randomness of its own, and traffic on it,
    let (mut other, client, server) = lossy(1);
    let path = |addr: &str| PathConfig::new(PathId(7), vec![addr.parse::<IpCidr>().unwrap()]);
    let third = other.add_host(HostConfig::new("third").path(path("10.9.0.1/24")));
    let fourth = other.add_host(HostConfig::new("fourth").path(path("10.9.0.2/24")));
    let link = LinkConfig::new(100, 1).loss(0.02);
    other.connect((third, PathId(7)), (fourth, PathId(7)), link.clone(), link);
    let remote = "10.9.0.2:80".parse().unwrap();
    let sink = other.spawn(fourth, Transfer::listen(remote));
    other.spawn(third, Transfer::connect(remote).sends(1_000_000));
    finish(&mut other, client, server);
    assert!(other.app(sink).completed(1));
    // then the first two hosts do to the nanosecond what they did before.
    assert_eq!(other.elapsed(), net.elapsed());
    assert_eq!(stats(&other), stats(&net));
}

#[test]
fn real_time_is_the_same_run() {
    let (mut fast, client, server) = lossy(2);
    finish(&mut fast, client, server);
    // Given a clock that is late now and then, as clocks are,
    let (mut paced, client, server) = lossy(2);
    let mut waits = Vec::new();
    let mut pacer = |at: Duration| waits.push(at);
    paced.run_paced(&mut pacer, ms(20), secs(60), |world| {
        !(world.app(client).completed(1) && world.app(server).completed(1))
    });
    // then it waited for every slice, and both runs are one.
    assert_eq!(waits[..3], [ms(20), ms(40), ms(60)]);
    assert!(paced.elapsed() - fast.elapsed() < ms(20), "{:?} and {:?}", paced.elapsed(), fast.elapsed());
    fast.run_to(secs(2));
    paced.run_to(secs(2));
    assert_eq!(stats(&paced), stats(&fast));
    assert_eq!(paced.trace(), fast.trace());
}

#[test]
fn a_device_that_is_down_neither_sends_nor_receives() {
    let mut net = Pair::seeded(3).path(LinkConfig::new(50, 10)).build();
    let (_, server) = talk(&mut net);
    net.run_to(ms(200));
    let before = net.app(server).flow().received.bytes;
    net.set_path_up(Pair::SERVER, PathId(0), false).unwrap();
    net.run_to(ms(600));
    assert_eq!(net.app(server).flow().received.bytes, before);
    assert!(net.up_stats(0).delivered_packets > 0);
    net.set_path_up(Pair::SERVER, PathId(0), true).unwrap();
    assert!(net.run_until(secs(10), |world| world.app(server).completed(1)));
}

#[test]
fn a_middlebox_sees_every_packet() {
    let mut net = Pair::seeded(4).path(LinkConfig::new(50, 10)).build();
    let (sender, seen) = std::sync::mpsc::channel();
    let link = net.up_link(0);
    let mut count = 0;
    net.set_middlebox(link, move |now, packet| {
        let _ = sender.send(now);
        count += 1;
        // Every hundredth packet is swallowed: the stream is intact all the same.
        if count % 100 == 0 { Verdict::Drop } else { Verdict::Pass(packet) }
    });
    let (client, server) = talk(&mut net);
    finish(&mut net, client, server);
    let (seen, passed) = (seen.try_iter().count() as u64, net.up_stats(0).offered_packets);
    assert_eq!(passed, seen - seen / 100);
}

#[test]
fn a_hash_is_that_of_the_pattern() {
    let (mut net, client, server) = lossy(5);
    finish(&mut net, client, server);
    let mut bytes = vec![0; 2_000_000];
    anabranch_sim::Pattern::new(2).fill(&mut bytes);
    let expected: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(&bytes).into();
    assert_eq!(net.app(client).flow().received.sha256(), Some(expected));
    assert_eq!(net.app(server).flow().received.sha256(), None, "it was not asked to");
}

/// Lines that tshark prints of a capture for a display filter; `None` if it is not installed.
fn tshark(file: &std::path::Path, filter: &str) -> Option<Vec<String>> {
    let installed = Command::new("tshark").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !installed.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("ANABRANCH_NO_SKIP").is_none(), "tshark is not installed: apt-get install tshark");
        let _ = writeln!(std::io::stderr(), "SKIPPED: tshark is not installed (apt-get install tshark)");
        return None;
    }
    let preferences = ["tcp.check_checksum:TRUE", "ip.check_checksum:TRUE", "mptcp.analyze_mptcp:TRUE"];
    let output = Command::new("tshark")
        .args(["-2", "-r"])
        .arg(file)
        .args(preferences.iter().flat_map(|preference| ["-o", preference]))
        .args(["-Y", filter])
        .output()
        .unwrap();
    assert!(output.status.success(), "tshark failed: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

#[test]
fn tshark_finds_nothing_wrong_with_a_capture() {
    // Given a capture of both sides of a lossy conversation over two paths,
    let (mut net, client, server) = lossy(6);
    let dir = std::env::temp_dir();
    let files = [Pair::CLIENT, Pair::SERVER].map(|host| {
        let file = dir.join(format!("anabranch-sim-{}-{host:?}.pcapng", std::process::id()));
        net.capture(host, std::io::BufWriter::new(std::fs::File::create(&file).unwrap()));
        file
    });
    finish(&mut net, client, server);
    net.run_for(secs(1));
    for (host, file) in [Pair::CLIENT, Pair::SERVER].into_iter().zip(&files) {
        net.end_capture(host).unwrap();
        // then tshark sees packets of TCP and MPTCP only, and nothing that is malformed or wrong.
        let wrong =
            "_ws.malformed || tcp.checksum.status == 0 || ip.checksum.status == 0 || _ws.expert.severity == error";
        let found = ["!mptcp", wrong, "mptcp"].map(|filter| tshark(file, filter));
        std::fs::remove_file(file).unwrap();
        let [Some(others), Some(wrong), Some(all)] = found else { return };
        assert_eq!(wrong, Vec::<String>::new());
        assert!(others.len() < 200, "{} packets without MPTCP, such as {}", others.len(), others[0]);
        assert!(all.len() > 3000, "{} packets", all.len());
    }
}

/// A transfer over 20 Mbit/s and 10 ms with a queue of two seconds, managed like this; the median waiting time there.
fn bloated(aqm: Aqm) -> Duration {
    let link = LinkConfig::new(20, 10).queue_time(secs(2)).aqm(aqm, false);
    let mut net = Pair::seeded(3).path(link).build();
    let server = net.spawn(Pair::SERVER, Transfer::listen(Pair::server_addr(0)));
    // Reno, which fills whatever queue there is: CUBIC leaves slow start when the round trips get longer.
    let reno = SocketOptions { congestion: "reno".into(), ..SocketOptions::default() };
    net.spawn(Pair::CLIENT, Transfer::connect(Pair::server_addr(0)).options(reno).sends(8_000_000));
    assert!(net.run_until(secs(20), |world| world.app(server).completed(1)), "{aqm:?}");
    net.link(net.up_link(0)).queue_delay().percentile(50.0)
}

#[test]
fn managed_queues_stay_short_below_a_transfer() {
    let tail = bloated(Aqm::None);
    assert!(tail > ms(200), "{tail:?}");
    for aqm in [Aqm::Codel(Codel::default()), Aqm::Red(Some(Red::between(30_000, 90_000)))] {
        let managed = bloated(aqm);
        assert!(managed < tail / 3, "{aqm:?}: {managed:?} instead of {tail:?}");
    }
}

#[test]
fn a_transfer_runs_over_a_trace_and_past_a_policer() {
    // Given 12 Mbit/s in opportunities of a millisecond with a pause of 200 ms in each second.
    let lines: String = (1..=800).chain([1000]).map(|ms| format!("{ms}\n")).collect();
    let trace = std::sync::Arc::new(Opportunities::parse(&lines).unwrap());
    let up = LinkConfig::default().delay(ms(20)).trace(trace).queue_packets(200);
    // And a policer of 4 Mbit/s for what comes back.
    let down = LinkConfig::default().delay(ms(20)).police(Police { rate: 4_000_000, burst: 30_000 });
    let mut net = Pair::seeded(4).path_with(up, down).build();
    let (client, server) = talk(&mut net);
    finish(&mut net, client, server);
    assert!(net.up_stats(0).dropped_police == 0 && net.down_stats(0).dropped_police > 0);
    // What came back cannot have come faster than that.
    assert!(net.elapsed() > ms(3_900), "{:?}", net.elapsed());
}
