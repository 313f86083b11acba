//! `anabranch link` between namespaces: the kernel on both sides, and what it sees.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anabranch_drivers::packet::{VlanTag, Wire, WireConfig, WireFrame};
use anabranch_frame::{Instant as ModelInstant, Payload};
use anabranch_sim::{Jitter, Link, LinkConfig, Random, seed_from_env};
use anabranch_tests::kernel::{self, Protocol};
use anabranch_tests::transfer::{Stream, Transfer, greet};
use anabranch_tests::{
    Anabranch, Connection, Counters, Family, Finished, Join, LabBuilder, Layout, Netns, Process, Role, cable,
    cable_duct, permitted,
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

const COMMAND: &str = env!("CARGO_BIN_EXE_anabranch");
const PATIENCE: Duration = Duration::from_secs(30);
const HERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const PORT: u16 = 5001;
/// Bytes of a datagram: small, so that many fit into a socket's buffer.
const DATAGRAM: usize = 64;

/// Two hosts and the namespace between them, with the interfaces `left` and `right`.
struct Bed {
    here: Netns,
    middle: Netns,
    there: Netns,
}

impl Bed {
    /// `quiet` hosts say nothing by themselves: their neighbours are known, and there is no IPv6.
    fn new(quiet: bool) -> Result<Self> {
        let bed = Self { here: Netns::new("here")?, middle: cable_duct()?, there: Netns::new("there")? };
        for (host, end) in [(&bed.here, "left"), (&bed.there, "right")] {
            if quiet {
                host.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
            }
            cable(&bed.middle, end, host, "e0")?;
        }
        for (host, addr) in [(&bed.here, HERE), (&bed.there, THERE)] {
            host.ip(&format!("addr add {addr}/24 dev e0"))?;
            host.ip("link set dev e0 up")?;
        }
        if quiet {
            for (host, other, addr) in [(&bed.here, &bed.there, THERE), (&bed.there, &bed.here, HERE)] {
                let mac = mac_of(other)?;
                host.ip(&format!("neigh add {addr} lladdr {mac} dev e0 nud permanent"))?;
            }
        }
        Ok(bed)
    }

    /// The emulator, ready, and saying JSON.
    fn link(&self, words: &[&str]) -> Result<Process> {
        link(&self.middle, "left", "right", words)
    }

    /// Two sockets, of which the first one sends to the second one.
    fn sockets(&self) -> Result<(UdpSocket, UdpSocket)> {
        let receiver = self.there.run(|| UdpSocket::bind((THERE, PORT)))?;
        receiver.set_read_timeout(Some(PATIENCE))?;
        // As much as anybody may have: a receiver that is kept waiting must not lose what the link did not.
        socket2::SockRef::from(&receiver).set_recv_buffer_size(1 << 20)?;
        let sender = self.here.run(|| UdpSocket::bind((HERE, 0)))?;
        sender.connect((THERE, PORT))?;
        Ok((sender, receiver))
    }
}

fn mac_of(host: &Netns) -> Result<String> {
    let text = host.ip("-o link show dev e0")?;
    let mac = text.split_whitespace().skip_while(|&word| word != "link/ether").nth(1);
    Ok(mac.with_context(|| format!("no address in {text}"))?.to_owned())
}

fn link(middle: &Netns, a: &str, b: &str, words: &[&str]) -> Result<Process> {
    let mut process = Process::start(middle, COMMAND, &[&["link", a, b, "--json"], words].concat(), None)?;
    let event: Value = serde_json::from_str(&process.line(PATIENCE)?)?;
    ensure!(event["event"] == "ready", "the first event is {event}");
    Ok(process)
}

/// Ends an emulator, and gives its summary.
fn summary(mut process: Process) -> Result<Value> {
    process.interrupt()?;
    let finished = process.finish(PATIENCE)?;
    finished.code(0)?;
    last_event(&finished)
}

fn last_event(finished: &Finished) -> Result<Value> {
    let text = std::str::from_utf8(&finished.stdout)?;
    let event: Value = serde_json::from_str(text.lines().last().context("no line of output")?)?;
    ensure!(event["event"] == "summary", "the last event is {event}");
    Ok(event)
}

/// Runs a test if namespaces are permitted.
fn story(name: &str, test: fn() -> Result<()>) {
    if permitted(name) {
        test().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn send(sender: &UdpSocket, number: u32) -> Result<()> {
    let mut bytes = [0; DATAGRAM];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    sender.send(&bytes).with_context(|| format!("sending datagram {number}"))?;
    Ok(())
}

fn receive(receiver: &UdpSocket) -> Result<u32> {
    let mut bytes = [0; 2 * DATAGRAM];
    receiver.recv(&mut bytes).context("waiting for a datagram")?;
    Ok(u32::from_be_bytes(bytes[..4].try_into()?))
}

/// That nothing more comes, for a while.
fn ensure_silence(receiver: &UdpSocket) -> Result<()> {
    receiver.set_read_timeout(Some(Duration::from_millis(200)))?;
    match receiver.recv(&mut [0; 8]) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(()),
        other => anyhow::bail!("something came: {other:?}"),
    }
}

#[test]
fn a_seed_loses_the_datagrams_that_the_model_says() {
    story("a seed", || {
        // Given what the simulator's link does to so many packets with this seed, in bursts.
        const COUNT: u32 = 2_000;
        let seed = seed_from_env(11);
        let mut model =
            Link::new(LinkConfig::default().burst_loss(0.02, 0.2, 0.9), Random::new(seed, 1), ModelInstant::ZERO);
        let predicted: Vec<u32> = (0..COUNT)
            .filter(|_| {
                model.enqueue(ModelInstant::ZERO, Payload::from(&[0; 100]));
                model.poll(ModelInstant::ZERO).is_some()
            })
            .collect();

        // When the emulator does it with the same seed, to datagrams of the kernel's.
        let bed = Bed::new(true)?;
        let words = ["--loss", "ge:2%:20%:90%", "--seed", &seed.to_string()];
        let emulator = bed.link(&words)?;
        let (sender, receiver) = bed.sockets()?;
        let mut arrived = Vec::new();
        for number in 0..COUNT {
            send(&sender, number)?;
            // No more at once than a socket's buffer holds: what is to come of the earlier ones has come.
            if number % 100 == 99 {
                let due = predicted.iter().filter(|&&at| at <= number).count();
                while arrived.len() < due {
                    arrived.push(receive(&receiver)?);
                }
            }
        }

        // Then the same ones are lost.
        ensure!(arrived == predicted, "seed {seed}: {} arrived of {}", arrived.len(), predicted.len());
        ensure_silence(&receiver)?;
        let summary = summary(emulator)?;
        let of = |key: &str| summary["a_to_b"][key].as_u64();
        ensure!(of("dropped_loss") == Some(u64::from(COUNT) - predicted.len() as u64), "{summary}");
        ensure!((of("offered_packets"), of("missed")) == (Some(COUNT.into()), Some(0)), "{summary}");
        Ok(())
    });
}

#[test]
fn nothing_comes_before_its_time_or_faster_than_the_rate() {
    story("rate and delay", || {
        // Given 10 Mbit/s and 30 ms, and datagrams of 1250 bytes: one a millisecond.
        const COUNT: u32 = 100;
        let bed = Bed::new(true)?;
        let emulator = bed.link(&["--rate", "10mbit", "--delay", "30ms"])?;
        let (sender, receiver) = bed.sockets()?;
        // When many are sent at once, ...
        let start = Instant::now();
        for _ in 0..COUNT {
            sender.send(&[0; 1250 - 28])?;
        }
        let mut times = Vec::new();
        while times.len() < COUNT as usize {
            receiver.recv(&mut [0; 2000])?;
            times.push(start.elapsed());
        }
        // ... then each comes after those before it and after the delay.
        for (number, &time) in (1..).zip(&times) {
            let least = Duration::from_millis(30) + Duration::from_millis(1) * number;
            ensure!(time >= least, "datagram {number} came after {time:?}, before {least:?}");
        }
        let summary = summary(emulator)?;
        let of = |key: &str| summary["a_to_b"][key].as_f64().unwrap_or_default();
        ensure!(of("delivered_packets") as u32 == COUNT && of("queue_max_packets") as u32 <= COUNT, "{summary}");
        // No longer than if all had come at the same moment; the histogram has two digits.
        let waited = summary["a_to_b"]["queue_delay_ms"]["max"].as_f64().unwrap_or_default();
        ensure!(waited <= 99.0 * 1.01, "waited {waited} ms");
        Ok(())
    });
}

#[test]
fn each_datagram_has_the_delay_that_the_seed_gives_it() {
    story("jitter", || {
        // Given the delays that the model draws with this seed, of 60 ms give or take up to 50.
        const COUNT: u32 = 200;
        let seed = seed_from_env(5);
        let config = LinkConfig::default().delay(Duration::from_millis(60));
        let config = config.jitter(Jitter::Uniform(Duration::from_millis(50))).unordered();
        let mut model = Link::new(config, Random::new(seed, 1), ModelInstant::ZERO);
        let mut drawn = |_| -> Result<Duration> {
            model.enqueue(ModelInstant::ZERO, Payload::from(&[0; 100]));
            let (arrival, _) = model.poll_arrival(ModelInstant::MAX).context("nothing is lost")?;
            Ok(arrival - ModelInstant::ZERO)
        };
        let drawn: Vec<Duration> = (0..COUNT).map(&mut drawn).collect::<Result<_>>()?;
        // When so many datagrams are sent, then none comes before its own time is over.
        let bed = Bed::new(true)?;
        let words = ["--delay", "60ms", "--jitter", "50ms:unordered", "--seed", &seed.to_string()];
        let emulator = bed.link(&words)?;
        let (sender, receiver) = bed.sockets()?;
        let mut sent = Vec::new();
        for number in 0..COUNT {
            sent.push(Instant::now());
            send(&sender, number)?;
        }
        for _ in 0..COUNT {
            let number = receive(&receiver)? as usize;
            let took = sent[number].elapsed();
            ensure!(took >= drawn[number], "datagram {number} took {took:?}, before {:?}", drawn[number]);
        }
        ensure!(drawn.iter().min() < Some(&Duration::from_millis(15)), "{drawn:?}");
        ensure!(drawn.iter().max() > Some(&Duration::from_millis(105)), "{drawn:?}");
        let summary = summary(emulator)?;
        ensure!(summary["a_to_b"]["delivered_packets"] == COUNT, "{summary}");
        Ok(())
    });
}

#[test]
fn a_trace_is_replayed() {
    story("a trace", || {
        // Given a trace of an opportunity each 20 ms, in one direction.
        let bed = Bed::new(true)?;
        let trace = tempfile::NamedTempFile::new()?;
        std::fs::write(trace.path(), "20\n40\n60\n")?;
        let emulator = bed.link(&["--trace-up", &trace.path().display().to_string(), "--queue", "5p"])?;
        let (sender, receiver) = bed.sockets()?;
        // When twelve full packets are sent at once, ...
        let start = Instant::now();
        for _ in 0..12 {
            sender.send(&[0; 1472])?;
        }
        let mut times = Vec::new();
        for _ in 0..6 {
            receiver.recv(&mut [0; 2000])?;
            times.push(start.elapsed());
        }
        // ... then one leaves at each opportunity, and what does not fit in the queue meanwhile is dropped.
        let span = times[5].saturating_sub(times[0]);
        let summary = summary(emulator)?;
        let of = |key: &str| summary["a_to_b"][key].as_u64().unwrap_or_default();
        ensure!(of("delivered_packets") + of("dropped_queue") == 12 && of("queue_max_packets") == 5, "{summary}");
        let late = Duration::from_secs_f64(summary["a_to_b"]["late_us"]["max"].as_f64().unwrap_or_default() / 1e6);
        ensure!(span + late + Duration::from_millis(2) >= Duration::from_millis(100), "{span:?}, {late:?} late");
        Ok(())
    });
}

#[test]
fn an_outage_ends_when_the_schedule_says() {
    story("an outage", || {
        // Given a link that is down from the start, until it says otherwise.
        let bed = Bed::new(true)?;
        let mut emulator = bed.link(&["--at", "0s", "a-to-b:down", "--at", "2s", "up"])?;
        let (sender, receiver) = bed.sockets()?;
        let mut lost = 0;
        let mut changes = Vec::new();
        while changes.len() < 2 {
            // When datagrams are sent all the time until it is up, ...
            send(&sender, 0)?;
            lost += 1;
            if let Ok(line) = emulator.line(Duration::from_millis(50)) {
                let event: Value = serde_json::from_str(&line)?;
                changes.extend((event["event"] == "change").then(|| event["change"].clone()));
            }
        }
        ensure!(changes == ["a-to-b:down", "up"], "{changes:?}");
        for number in 1..=50 {
            send(&sender, number)?;
        }
        // ... then all those come that were sent after that, in order,
        let mut arrived = vec![receive(&receiver)?];
        while arrived.last() != Some(&50) {
            arrived.push(receive(&receiver)?);
        }
        let early = arrived.iter().filter(|&&number| number == 0).count() as u64;
        ensure!(arrived[early as usize..] == (1..=50).collect::<Vec<_>>(), "{arrived:?}");
        // and those sent before are counted, but for the few that came between the change and its event.
        let summary = summary(emulator)?;
        let outage = summary["a_to_b"]["dropped_outage"].as_u64();
        ensure!(
            outage == Some(lost - early) && lost > 2 * early,
            "{lost} sent, {early} too early to be lost: {summary}"
        );
        Ok(())
    });
}

#[test]
fn marks_are_seen_by_the_kernel() {
    story("marks", || {
        // Given a queue that marks what waits too long, and a sender that says it can hear of it.
        let bed = Bed::new(true)?;
        let words = ["--rate", "10mbit", "--aqm", "codel:1ms:10ms", "--ecn", "--a-to-b", "queue=1000p"];
        let emulator = bed.link(&words)?;
        let (sender, receiver) = bed.sockets()?;
        socket2::SockRef::from(&sender).set_tos_v4(0b10)?;
        let before = Counters::read(&bed.there)?;
        // When it sends much more than the link carries, ...
        for _ in 0..150 {
            sender.send(&[0; 1000])?;
        }
        for _ in 0..150 {
            receiver.recv(&mut [0; 2000])?;
        }
        // ... then nothing is lost, and the receiver counts as many marks as were made.
        let seen = Counters::read(&bed.there)?.since(&before);
        let summary = summary(emulator)?;
        let marked = summary["a_to_b"]["marked"].as_u64();
        ensure!(marked > Some(3) && marked == Some(seen.get("IpExtInCEPkts")), "{summary}");
        ensure!(seen.get("IpInHdrErrors") + seen.get("IpExtInCsumErrors") == 0, "a checksum was wrong");
        Ok(())
    });
}

/// Moves some bytes both ways between kernel sockets.
fn converse(bed: &Bed, at: SocketAddr, bytes: u64) -> Result<()> {
    let listener = kernel::listen(&bed.there, Protocol::Tcp, at)?;
    let client = kernel::connect(&bed.here, Protocol::Tcp, None, at)?;
    let (server, _) = listener.accept()?;
    greet(&client, &server)?;
    let streams: [&dyn Stream; 2] = [&client, &server];
    Transfer::both_ways(bytes).run(streams[0], streams[1]).intact()
}

#[test]
fn tcp_survives_whatever_the_link_does() {
    story("kernel to kernel", || {
        // Given a link that does a little of everything, between hosts whose super-segments come as they are. Their
        // neighbours are known: a turned bit in an answer about these would be believed for long.
        let bed = Bed::new(true)?;
        let words = [
            "--rate",
            "200mbit",
            "--delay",
            "3ms",
            "--jitter",
            "1ms:normal",
            "--loss",
            "0.2%",
            "--reorder",
            "1%:0..5ms",
            "--duplicate",
            "1%",
            "--corrupt",
            "0.2%",
            "--queue",
            "1bdp",
        ];
        let emulator = bed.link(&words)?;
        for (host, net, other, of_other) in [(&bed.here, 1, &bed.there, 2), (&bed.there, 2, &bed.here, 1)] {
            host.sysctl("net.ipv6.conf.e0.disable_ipv6", "0")?;
            host.ip(&format!("addr add fd00:77::{net}/64 dev e0 nodad"))?;
            host.ip(&format!("neigh add fd00:77::{of_other} lladdr {} dev e0 nud permanent", mac_of(other)?))?;
        }
        // When streams run over it, then they are whole.
        for addr in ["10.77.0.2", "fd00:77::2"] {
            converse(&bed, SocketAddr::new(addr.parse()?, PORT), 1_500_000).with_context(|| format!("to {addr}"))?;
        }
        let summary = summary(emulator)?;
        for way in ["a_to_b", "b_to_a"] {
            for key in ["dropped_loss", "reordered", "duplicated", "corrupted"] {
                ensure!(summary[way][key].as_u64() > Some(0), "{way} {key}: {summary}");
            }
        }
        Ok(())
    });
}

#[test]
fn frames_of_all_kinds_pass_unchanged() {
    story("all kinds", || {
        // Given a frame of a kind that no kernel knows, one with a VLAN tag, and one to a group.
        let bed = Bed::new(true)?;
        let emulator = bed.link(&["--delay", "1ms"])?;
        let open = |host: &Netns| -> Result<Wire> {
            let config = WireConfig { promiscuous: true, metadata: true, ..WireConfig::new("e0") };
            host.run(|| Wire::open(&config))?.pop().context("a wire")
        };
        let (mut here, mut there) = (open(&bed.here)?, open(&bed.there)?);
        let frame =
            |to: [u8; 6], kind: [u8; 2]| Payload::from([&to[..], &[2, 0, 0, 0, 0, 1], &kind, &[0xa5; 300]].concat());
        let kinds = [
            ([2, 0, 0, 0, 0, 9], [0x88, 0xb5]),
            ([2, 0, 0, 0, 0, 9], [0x08, 0x00]),
            ([1, 0x80, 0xc2, 0, 0, 0], [0x88, 0xcc]),
        ];
        let mut sent = kinds.map(|(to, kind)| WireFrame::new(frame(to, kind)));
        sent[1].vlan = Some(VlanTag { tpid: 0x8100, tci: 0x6007 });
        // When they are sent, then they come as they were.
        ensure!(here.send_many(&sent)? == sent.len());
        let mut came = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while came.len() < sent.len() {
            ensure!(Instant::now() < deadline, "only {came:?} came");
            there.receive(&mut came, 10)?;
            std::thread::sleep(Duration::from_millis(1));
        }
        for (sent, came) in sent.iter().zip(&came) {
            ensure!((&sent.data, sent.vlan) == (&came.data, came.vlan), "{sent:?} became {came:?}");
        }
        ensure!(summary(emulator)?["a_to_b"]["delivered_packets"] == 3);
        Ok(())
    });
}

#[test]
fn two_paths_through_two_emulators() {
    story("two paths", || {
        // Given anabranch and the kernel with two links between them, of which one fails on the way.
        let plan =
            LabBuilder { layout: Layout::Emulated, family: Family::V4, role: Role::Client, join: Join::ClientSubflow };
        let lab = plan.build(&Anabranch::start)?;
        let middle = lab.middle.as_ref().context("an emulated lab has a middle")?;
        let wifi = link(middle, "left0", "right0", &["--rate", "40mbit", "--delay", "5ms", "--queue", "100ms"])?;
        let words = ["--rate", "20mbit", "--delay", "20ms", "--queue", "100ms", "--loss", "0.1%"];
        let lte = link(middle, "left1", "right1", &words)?;
        let before = Counters::read(&lab.peer)?;
        let Connection { client, server, listener } = lab.open()?;
        greet(&*client, &*server)?;
        lab.wait_joined(&before)?;
        // When data flows both ways, then it is whole, and both carried their part at no more than their rate.
        Transfer::both_ways(8_000_000).run(&*client, &*server).intact()?;
        drop((client, server, listener));
        for (emulator, rate) in [(wifi, 40e6), (lte, 20e6)] {
            let summary = summary(emulator)?;
            for way in ["a_to_b", "b_to_a"] {
                let of = |key: &str| summary[way][key].as_f64().unwrap_or_default();
                ensure!(of("delivered_bytes") > 300_000.0 && of("bits_per_second") <= rate, "{way}: {summary}");
                ensure!(of("missed") + of("refused") == 0.0, "{way}: {summary}");
            }
        }
        Ok(())
    });
}

#[test]
fn it_ends_by_itself_or_when_an_interface_does() {
    story("the end", || {
        let bed = Bed::new(true)?;
        let finished = bed.link(&["--duration", "300ms"])?.finish(PATIENCE)?;
        finished.code(0)?;
        ensure!(last_event(&finished)?["seconds"].as_f64() >= Some(0.3), "{:?}", finished.stdout);

        let mut process = bed.link(&[])?;
        // When an interface is set down and up again, it goes on; when it is deleted, that is the end.
        bed.middle.ip("link set dev left down")?;
        bed.middle.ip("link set dev left up")?;
        let (sender, receiver) = bed.sockets()?;
        let arrived: BTreeSet<u32> = loop {
            send(&sender, 7)?;
            receiver.set_read_timeout(Some(Duration::from_millis(50)))?;
            if let Ok(number) = receive(&receiver) {
                break [number].into();
            }
            ensure!(process.running()?, "it ended when the interface went down");
        };
        ensure!(arrived == [7].into());
        bed.middle.ip("link del dev right")?;
        let finished = process.finish(PATIENCE)?;
        finished.code(1)?;
        finished.says(&["right", "gone"])?;
        last_event_of_failure(&finished)
    });
}

/// Even then there is a summary, before the error.
fn last_event_of_failure(finished: &Finished) -> Result<()> {
    let text = std::str::from_utf8(&finished.stdout)?;
    ensure!(text.lines().any(|line| line.contains("\"event\":\"summary\"")), "{text}");
    Ok(())
}

#[test]
fn what_is_not_there_is_named() {
    story("errors", || {
        let bed = Bed::new(true)?;
        let run = |words: &[&str]| -> Result<Finished> {
            Process::start(&bed.middle, COMMAND, &[&["link"], words].concat(), None)?.finish(PATIENCE)
        };
        let finished = run(&["left", "wrong"])?;
        finished.code(1)?;
        finished.says(&["wrong", "no interface"])?;
        let finished = run(&["left", "left"])?;
        finished.code(2)?;
        finished.says(&["give two interfaces"])?;
        Ok(())
    });
}
