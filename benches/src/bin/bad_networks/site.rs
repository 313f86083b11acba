//! Two hosts with the emulator between them.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anabranch::Stack;
use anabranch_benches::{Listener, Stream};
use anabranch_tests::{Netns, Process, cable, cable_duct};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::case::Case;

/// How long the emulator may take to start and to sum up.
const PATIENCE: Duration = Duration::from_secs(30);
/// It ends by itself so long after the measurement should have, should nobody tell it to.
const ORPHAN: Duration = Duration::from_secs(180);

/// One of the two hosts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    /// Connects.
    Left,
    /// Listens.
    Right,
}

/// A host: a namespace where the kernel has an address, and our stack another one if it is asked for.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) netns: Netns,
    side: Side,
    congestion: String,
    ours: Option<Stack>,
}

/// A network with its two hosts. Its namespaces and processes end with it.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) left: Host,
    pub(crate) right: Host,
    link: Process,
}

/// What is the same for all measurements of a round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How<'a> {
    /// Congestion control of both stacks.
    pub(crate) congestion: &'a str,
    /// Of the emulator: which packets it loses.
    pub(crate) seed: u64,
}

/// What the emulator saw of the way from left to right.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Packets that came to it.
    pub(crate) offered: u64,
    /// Bytes of them, headers of IP and TCP included.
    pub(crate) offered_bytes: u64,
    /// Packets that its queue had no room for.
    pub(crate) dropped_queue: u64,
    /// Packets that it lost on purpose.
    pub(crate) lost: u64,
    /// Waiting in its queue, in milliseconds: the median.
    pub(crate) queue_p50: f64,
    /// The same, 95 of 100.
    pub(crate) queue_p95: f64,
    /// How late it sent, in microseconds: 99 of 100 packets.
    pub(crate) late_p99: f64,
    /// Packets that it was too slow for, in either direction.
    pub(crate) missed: u64,
}

impl Site {
    /// Builds it, and starts the emulator. `ours`: on which sides our stack is needed, too.
    pub(crate) fn new(case: &Case, ours: &[Side], how: How<'_>, time: Duration) -> Result<Self> {
        let middle = cable_duct()?;
        let [left, right] = [(Side::Left, "a"), (Side::Right, "b")].map(|(side, end)| {
            Host::new(side, &middle, end, case).with_context(|| format!("making the {side:?} host"))
        });
        let (mut left, mut right) = (left?, right?);
        let link = emulator(&middle, case, how.seed, time + ORPHAN)?;
        for host in [&mut left, &mut right] {
            how.congestion.clone_into(&mut host.congestion);
            if ours.contains(&host.side) {
                host.start(case, how.congestion)?;
            }
        }
        Ok(Self { left, right, link })
    }

    /// Stops the emulator, and gives what it saw.
    pub(crate) fn finish(mut self) -> Result<Seen> {
        self.link.interrupt()?;
        let finished = self.link.finish(PATIENCE)?;
        finished.code(0)?;
        let text = String::from_utf8_lossy(&finished.stdout);
        let last: Value = serde_json::from_str(text.lines().last().context("the emulator said nothing")?)?;
        ensure!(last["event"] == "summary", "the emulator's last word is {last}");
        seen(&last)
    }
}

fn emulator(middle: &Netns, case: &Case, seed: u64, time: Duration) -> Result<Process> {
    let program = std::env::current_exe()?.with_file_name("anabranch");
    ensure!(
        program.exists(),
        "{} is not there: build it with the same profile, cargo build --release -p anabranch-tools",
        program.display()
    );
    // Slow links share the processors with others: none of them may keep one busy.
    let busy_wait = if case.alone { "auto" } else { "off" };
    let duration = format!("{}s", time.as_secs());
    let seed = seed.to_string();
    let mut words =
        vec!["link", "a", "b", "--json", "--seed", &seed, "--busy-wait", busy_wait, "--duration", &duration];
    words.extend(case.link.iter().map(String::as_str));
    let mut process = Process::start(middle, &program.to_string_lossy(), &words, None)?;
    let event: Value = serde_json::from_str(&process.line(PATIENCE)?)?;
    ensure!(event["event"] == "ready", "the emulator's first word is {event}");
    Ok(process)
}

fn seen(summary: &Value) -> Result<Seen> {
    let way = &summary["a_to_b"];
    let number = |name: &str| way[name].as_u64().with_context(|| format!("no {name} in {summary}"));
    let time = |of: &str, name: &str| way[of][name].as_f64().with_context(|| format!("no {of}.{name} in {summary}"));
    let missed = ["a_to_b", "b_to_a"]
        .iter()
        .flat_map(|way| ["missed", "refused", "dropped_memory"].map(|name| summary[way][name].as_u64()));
    Ok(Seen {
        offered: number("offered_packets")?,
        offered_bytes: number("offered_bytes")?,
        dropped_queue: number("dropped_queue")?,
        lost: number("dropped_loss")? + number("dropped_outage")? + number("dropped_police")?,
        queue_p50: time("queue_delay_ms", "p50")?,
        queue_p95: time("queue_delay_ms", "p95")?,
        late_p99: time("late_us", "p99")?,
        missed: missed.flatten().sum(),
    })
}

impl Host {
    fn new(side: Side, middle: &Netns, end: &str, case: &Case) -> Result<Self> {
        let netns = Netns::new(&format!("{side:?}"))?;
        netns.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        // Autotuning takes it from there. The kernel counts what a packet takes in memory, which is up to twice its payload.
        let most = u64::from(case.buffer) * 2;
        netns.sysctl("net.ipv4.tcp_rmem", &format!("4096 131072 {most}"))?;
        netns.sysctl("net.ipv4.tcp_wmem", &format!("4096 65536 {most}"))?;
        cable(middle, end, &netns, "e0")?;
        netns.ip(&format!("addr add {}/24 dev e0", Self::kernel_addr(side)))?;
        netns.ip("link set dev e0 up")?;
        Ok(Self { netns, side, congestion: String::new(), ours: None })
    }

    fn start(&mut self, case: &Case, congestion: &str) -> Result<()> {
        let path = format!("packet:e0,addr={}/24", Self::our_addr(self.side)).parse()?;
        let builder = Stack::builder()
            .mptcp(false)
            .congestion(congestion)
            .send_buffer(case.buffer)
            .recv_buffer(case.buffer)
            .linger(Duration::ZERO)
            .path(path);
        self.ours = Some(self.netns.run(|| builder.build()).context("starting our stack")?);
        Ok(())
    }

    fn kernel_addr(side: Side) -> Ipv4Addr {
        Ipv4Addr::new(10, 9, 0, 1 + side as u8)
    }

    fn our_addr(side: Side) -> Ipv4Addr {
        Ipv4Addr::new(10, 9, 0, 11 + side as u8)
    }

    /// Where this host is reached.
    pub(crate) fn addr(&self, ours: bool, port: u16) -> SocketAddr {
        let addr = if ours { Self::our_addr(self.side) } else { Self::kernel_addr(self.side) };
        SocketAddr::from((addr, port))
    }

    fn stack(&self) -> Result<&Stack> {
        self.ours.as_ref().context("a host without our stack")
    }

    pub(crate) fn listen(&self, ours: bool, port: u16) -> Result<Listener> {
        match ours {
            true => Listener::anabranch(port, self.stack()?),
            false => self.netns.run(|| Listener::kernel(port, false, &self.congestion)),
        }
    }

    pub(crate) fn connect(&self, ours: bool, remote: SocketAddr) -> Result<Stream> {
        let stream = match ours {
            true => Stream::Anabranch(self.stack()?.connect(remote)?),
            false => self.netns.run(|| Stream::connect_kernel(remote, false, &self.congestion))?,
        };
        stream.set_nodelay()?;
        Ok(stream)
    }
}
