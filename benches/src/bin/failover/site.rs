//! Two hosts with two emulated paths between them, one of which dies.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anabranch::Stack;
use anabranch_benches::{Listener, Stream};
use anabranch_tests::{Netns, Process, cable, cable_duct};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::Link;

/// How long an emulator may take to start and to sum up.
const PATIENCE: Duration = Duration::from_secs(30);
/// An emulator ends by itself after this, should nobody tell it to.
const ORPHAN: &str = "120s";

/// A host: a namespace where the kernel has an address on each path, or our stack does.
#[derive(Debug)]
pub(crate) struct Host {
    netns: Netns,
    number: u8,
    ours: Option<Stack>,
    congestion: String,
}

/// The network. Its namespaces and processes end with it.
#[derive(Debug)]
pub(crate) struct Site {
    /// Connects and writes.
    pub(crate) left: Host,
    /// Listens and reads.
    pub(crate) right: Host,
    links: Vec<Process>,
    /// When the path dies.
    pub(crate) death: Instant,
}

/// Who is ours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ours {
    pub(crate) left: bool,
    pub(crate) right: bool,
}

impl Site {
    /// Builds it. Path `dead` goes silent `after` that.
    pub(crate) fn new(link: &Link, ours: Ours, dead: u8, after: Duration) -> Result<Self> {
        let middle = cable_duct()?;
        let mut left = Host::new(&middle, "left", 1, link)?;
        let mut right = Host::new(&middle, "right", 2, link)?;
        for (host, ours) in [(&mut left, ours.left), (&mut right, ours.right)] {
            if ours { host.start(link)? } else { host.start_kernel()? }
        }
        let mut links = Vec::new();
        for path in (0..2).filter(|&path| path != dead) {
            links.push(emulator(&middle, link, path, None)?);
        }
        links.push(emulator(&middle, link, dead, Some(after))?);
        Ok(Self { left, right, links, death: Instant::now() + after })
    }

    /// Stops the emulators; an error if one of them was too slow for what came.
    pub(crate) fn finish(mut self) -> Result<()> {
        for link in &mut self.links {
            link.interrupt()?;
            let finished = link.finish(PATIENCE)?;
            finished.code(0)?;
            let text = String::from_utf8_lossy(&finished.stdout);
            let last: Value = serde_json::from_str(text.lines().last().context("an emulator said nothing")?)?;
            for way in ["a_to_b", "b_to_a"] {
                let missed = last[way]["missed"].as_u64().with_context(|| format!("no {way}.missed in {last}"))?;
                ensure!(missed == 0, "an emulator was too slow for {missed} packets");
            }
        }
        Ok(())
    }
}

fn emulator(middle: &Netns, link: &Link, path: u8, dies_after: Option<Duration>) -> Result<Process> {
    let program = std::env::current_exe()?.with_file_name("anabranch");
    ensure!(
        program.exists(),
        "{} is not there: build it with the same profile, cargo build --release -p anabranch-tools",
        program.display()
    );
    let [a, b] = ["left", "right"].map(|side| format!("{side}{path}"));
    let (rate, delay) = (format!("{}mbit", link.mbits), format!("{}us", link.rtt_ms * 500));
    let queue = format!("{}bdp", link.queue_bdp);
    let death = dies_after.map(|after| format!("{}ms", after.as_millis()));
    let mut words = vec!["link", &a, &b, "--json", "--busy-wait", "off", "--duration", ORPHAN];
    words.extend(["--rate", &rate, "--delay", &delay, "--queue", &queue]);
    if let Some(death) = &death {
        words.extend(["--at", death, "down"]);
    }
    let mut process = Process::start(middle, &program.to_string_lossy(), &words, None)?;
    let event: Value = serde_json::from_str(&process.line(PATIENCE)?)?;
    ensure!(event["event"] == "ready", "the emulator's first word is {event}");
    Ok(process)
}

impl Host {
    fn new(middle: &Netns, side: &str, number: u8, link: &Link) -> Result<Self> {
        let netns = Netns::new(side)?;
        netns.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        for path in 0..2 {
            cable(middle, &format!("{side}{path}"), &netns, &format!("e{path}"))?;
            netns.ip(&format!("link set dev e{path} up"))?;
        }
        Ok(Self { netns, number, ours: None, congestion: link.congestion.clone() })
    }

    fn listens(&self) -> bool {
        self.number == 2
    }

    fn addr(&self, path: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 9, path, self.number)
    }

    /// Whoever listens tells of the second address, and whoever connects joins it.
    fn start_kernel(&self) -> Result<()> {
        for path in 0..2 {
            self.netns.ip(&format!("addr add {}/24 dev e{path}", self.addr(path)))?;
        }
        self.netns.ip("mptcp limits set subflows 2 add_addr_accepted 2")?;
        if self.listens() {
            self.netns.ip(&format!("mptcp endpoint add {} dev e1 signal", self.addr(1)))?;
        }
        Ok(())
    }

    fn start(&mut self, link: &Link) -> Result<()> {
        let mut builder = Stack::builder().congestion(&link.congestion).linger(Duration::ZERO);
        for path in 0..2 {
            let signal = if path > 0 && self.listens() { ",signal" } else { "" };
            builder = builder.path(format!("packet:e{path},addr={}/24{signal}", self.addr(path)).parse()?);
        }
        self.ours = Some(self.netns.run(|| builder.build()).context("starting our stack")?);
        Ok(())
    }

    /// Where this host is reached.
    pub(crate) fn socket_addr(&self, port: u16) -> SocketAddr {
        SocketAddr::from((self.addr(0), port))
    }

    pub(crate) fn listen(&self, port: u16) -> Result<Listener> {
        match &self.ours {
            Some(stack) => Listener::anabranch(port, stack),
            None => self.netns.run(|| Listener::kernel(port, true, &self.congestion)),
        }
    }

    pub(crate) fn connect(&self, remote: SocketAddr) -> Result<Stream> {
        match &self.ours {
            Some(stack) => Ok(Stream::Anabranch(stack.connect(remote)?)),
            None => self.netns.run(|| Stream::connect_kernel(remote, true, &self.congestion)),
        }
    }

    /// How often our stack suspected a path, and how often for nothing.
    pub(crate) fn suspicions(&self) -> (u64, u64) {
        let counters = self.ours.as_ref().map(Stack::counters).unwrap_or_default();
        (counters.subflow_suspect, counters.subflow_false_alarm)
    }

    /// Bytes that came in by each path so far.
    pub(crate) fn received(&self) -> Result<[u64; 2]> {
        let text = self.netns.read("/proc/thread-self/net/dev")?;
        let of = |path: u8| {
            let name = format!("e{path}:");
            let line = text.lines().find_map(|line| line.trim_start().strip_prefix(&name));
            let bytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            bytes.with_context(|| format!("no device e{path}"))
        };
        Ok([of(0)?, of(1)?])
    }
}
