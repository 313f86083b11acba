//! The subject, two paths and a kernel peer.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::addr::Family;
use crate::kernel::{self, Protocol};
use crate::subject::{Accept, PathOptions, Start, Subject, add_address, crossed_routes};
use crate::transfer::Stream;
use crate::{Counters, Netns};

/// The port that servers listen on.
pub const PORT: u16 = 5001;

/// Where the kernel peer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// Right behind the subject's devices.
    SameNamespace,
    /// In another namespace: behind the devices a router, and from there one veth pair a path.
    Routed,
    /// The same, but each of these wires is cut in the middle: its ends are `left0` and `right0`, `left1` and `right1` in
    /// [`Lab::middle`], for an emulator to join.
    Emulated,
}

impl Layout {
    /// Whether the peer is behind a router.
    fn is_routed(self) -> bool {
        self != Self::SameNamespace
    }
}

/// What the subject is; the kernel is the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It connects.
    Client,
    /// It listens.
    Server,
}

/// How the connection gets its subflows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Join {
    /// Plain TCP: the kernel does not speak MPTCP.
    PlainTcp,
    /// MPTCP, the first subflow only.
    Single,
    /// The client has a `subflow` endpoint on the second path.
    ClientSubflow,
    /// The server announces its address on the second path.
    ServerSignal,
}

impl Join {
    /// Whether there is a second subflow.
    #[must_use]
    pub fn joins(self) -> bool {
        matches!(self, Self::ClientSubflow | Self::ServerSignal)
    }

    /// What the kernel's sockets speak.
    #[must_use]
    pub fn protocol(self) -> Protocol {
        if self == Self::PlainTcp { Protocol::Tcp } else { Protocol::Mptcp }
    }

    /// Allows a kernel the most subflows.
    ///
    /// # Errors
    /// When `ip mptcp` is not there.
    pub fn limits(netns: &Netns) -> Result<()> {
        netns.ip("mptcp limits set subflows 8 add_addr_accepted 8")?;
        Ok(())
    }

    /// Endpoint flags of (client, server) on the second path.
    fn options(self) -> (PathOptions, PathOptions) {
        let none = PathOptions::default();
        match self {
            Self::PlainTcp | Self::Single => (none, none),
            Self::ClientSubflow => (PathOptions { subflow: true, ..none }, none),
            Self::ServerSignal => (none, PathOptions { signal: true, ..none }),
        }
    }
}

/// What a [`Lab`] is made from.
#[derive(Clone, Copy, Debug)]
pub struct LabBuilder {
    /// Where the peer is.
    pub layout: Layout,
    /// IPv4 or IPv6.
    pub family: Family,
    /// What the subject is.
    pub role: Role,
    /// How the second subflow comes about.
    pub join: Join,
}

/// A subject, two paths and a kernel peer. All of it is gone when this is dropped.
pub struct Lab {
    /// Where the subject's devices `ab0` and `ab1` are.
    pub wires: Netns,
    /// Where the kernel peer's sockets are; the same in [`Layout::SameNamespace`].
    pub peer: Netns,
    /// Where the wires between router and peer are cut, in [`Layout::Emulated`].
    pub middle: Option<Netns>,
    /// The side under test.
    pub subject: Box<dyn Subject>,
    /// What it was made from.
    pub plan: LabBuilder,
}

impl std::fmt::Debug for Lab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lab").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl LabBuilder {
    /// Sets up namespaces, devices, routes and endpoints.
    ///
    /// # Errors
    /// When one of them cannot be made.
    pub fn build(self, start: Start<'_>) -> Result<Lab> {
        let (client, server) = self.join.options();
        let (ours, theirs) = if self.role == Role::Client { (client, server) } else { (server, client) };
        let wires = Netns::new("wires")?;
        let subject =
            start(&wires, self.family, &[PathOptions::default(), ours]).context("starting the subject under test")?;
        let middle = (self.layout == Layout::Emulated).then(cable_duct).transpose()?;
        let peer = match self.layout {
            Layout::SameNamespace => {
                crossed_routes(&wires, self.family, "ab", 2, Family::subject)?;
                wires.clone()
            }
            Layout::Routed | Layout::Emulated => self.routed(&wires, middle.as_ref())?,
        };
        Join::limits(&peer)?;
        let lab = Lab { wires, peer, middle, subject, plan: self };
        let words = theirs.words().join(" ");
        if !words.is_empty() {
            lab.peer.ip(&format!("mptcp endpoint add {} dev {} {words}", lab.peer_addr(1), lab.peer_device(1)))?;
        }
        Ok(lab)
    }

    /// Two independent wires through a router: what comes in by `ab0` leaves by `va0` and back, whatever
    /// its addresses.
    fn routed(self, router: &Netns, middle: Option<&Netns>) -> Result<Netns> {
        let family = self.family;
        let peer = Netns::new("peer")?;
        router.sysctl("net.ipv4.ip_forward", "1")?;
        router.sysctl("net.ipv6.conf.all.forwarding", "1")?;
        for path in 0..2 {
            match middle {
                None => router.ip(&format!("link add va{path} type veth peer name vb{path} netns {}", peer.path()))?,
                Some(middle) => {
                    cable(middle, &format!("left{path}"), router, &format!("va{path}"))?;
                    cable(middle, &format!("right{path}"), &peer, &format!("vb{path}"))?
                }
            };
            add_address(router, &format!("va{path}"), family.router(path), family.hop_prefix())?;
            add_address(&peer, &format!("vb{path}"), family.far(path), family.hop_prefix())?;
            let directions = [("ab", "va", family.far(path)), ("va", "ab", family.subject(path))];
            for (table, (from, to, via)) in (100 + 2 * u32::from(path)..).zip(directions) {
                let option = family.option();
                router.ip(&format!("{option} rule add iif {from}{path} lookup {table} pref {table}"))?;
                router.ip(&format!("{option} route add default via {via} dev {to}{path} table {table}"))?;
            }
        }
        crossed_routes(&peer, family, "vb", 2, Family::router)?;
        Ok(peer)
    }
}

/// A namespace for interfaces that somebody else speaks through: the kernel says nothing on them.
///
/// # Errors
/// When it cannot be made.
pub fn cable_duct() -> Result<Netns> {
    let netns = Netns::new("middle")?;
    for name in ["all", "default"] {
        netns.sysctl(&format!("net.ipv6.conf.{name}.disable_ipv6"), "1")?;
    }
    Ok(netns)
}

/// A veth pair from a [`cable_duct`], where its end is up, to another namespace.
///
/// # Errors
/// With what `ip` said.
pub fn cable(middle: &Netns, end: &str, to: &Netns, device: &str) -> Result<String> {
    middle.ip(&format!("link add name {end} type veth peer name {device} netns {}", to.path()))?;
    middle.ip(&format!("link set dev {end} up"))
}

/// Both ends of a connection.
pub struct Connection {
    /// The end that connected.
    pub client: Box<dyn Stream>,
    /// The end that was accepted.
    pub server: Box<dyn Stream>,
    /// Joins are accepted as long as this is open.
    pub listener: Box<dyn Accept>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Lab {
    /// The kernel peer's address on a path.
    #[must_use]
    pub fn peer_addr(&self, path: u8) -> IpAddr {
        match self.plan.layout {
            Layout::SameNamespace => self.plan.family.host(path),
            Layout::Routed | Layout::Emulated => self.plan.family.far(path),
        }
    }

    /// The kernel peer's device on a path.
    #[must_use]
    pub fn peer_device(&self, path: u8) -> String {
        match self.plan.layout {
            Layout::SameNamespace => format!("ab{path}"),
            Layout::Routed | Layout::Emulated => format!("vb{path}"),
        }
    }

    /// Opens one connection between the subject and the kernel.
    ///
    /// # Errors
    /// When either side fails.
    pub fn open(&self) -> Result<Connection> {
        let listener = self.listen()?;
        let (client, server) = self.connect(&*listener)?;
        Ok(Connection { client, server, listener })
    }

    /// Listens on the server's side, on all its addresses: the kernel's joins to others need that.
    ///
    /// # Errors
    /// When it refuses.
    pub fn listen(&self) -> Result<Box<dyn Accept>> {
        let anywhere = SocketAddr::new(self.plan.family.unspecified(), PORT);
        match self.plan.role {
            Role::Client => Ok(Box::new(kernel::listen(&self.peer, self.plan.join.protocol(), anywhere)?)),
            Role::Server => self.subject.listen(Protocol::Mptcp, anywhere).context("listening with the subject"),
        }
    }

    /// Connects from the client's side: (client, server).
    ///
    /// # Errors
    /// When either side fails.
    pub fn connect(&self, listener: &dyn Accept) -> Result<(Box<dyn Stream>, Box<dyn Stream>)> {
        let client = match self.plan.role {
            Role::Client => {
                let remote = SocketAddr::new(self.peer_addr(0), PORT);
                self.subject.connect(Protocol::Mptcp, remote).context("the subject connecting to the kernel")?
            }
            Role::Server => {
                let remote = SocketAddr::new(self.plan.family.subject(0), PORT);
                let client = kernel::connect(&self.peer, self.plan.join.protocol(), None, remote);
                Box::new(client.context("the kernel connecting to the subject")?)
            }
        };
        Ok((client, listener.accept().context("accepting")?))
    }

    /// Waits until the kernel has counted the join of the second subflow, if there is to be one.
    ///
    /// # Errors
    /// When it has not after 10 s.
    pub fn wait_joined(&self, before: &Counters) -> Result<()> {
        if !self.plan.join.joins() {
            return Ok(());
        }
        let counter = match self.plan.role {
            Role::Client => "MPTcpExtMPJoinAckRx",
            Role::Server => "MPTcpExtMPJoinSynAckRx",
        };
        self.wait_for(before, Duration::from_secs(10), &format!("{counter} to reach 1"), |grown| {
            grown.get(counter) >= 1
        })
    }

    /// Waits until the kernel peer has no connection left but in TIME-WAIT.
    ///
    /// # Errors
    /// When it still has one after 10 s.
    pub fn wait_closed(&self, before: &Counters) -> Result<()> {
        let gauges = ["TcpCurrEstab", "MPTcpExtMPCurrEstab"];
        self.wait_for(before, Duration::from_secs(10), "the kernel's connections to close", |grown| {
            grown.nonzero(&gauges).is_empty()
        })
    }

    fn wait_for(
        &self,
        before: &Counters,
        patience: Duration,
        what: &str,
        done: impl Fn(&Counters) -> bool,
    ) -> Result<()> {
        let start = Instant::now();
        loop {
            let grown = Counters::read(&self.peer)?.since(before);
            if done(&grown) {
                return Ok(());
            }
            ensure!(start.elapsed() < patience, "waited {patience:?} in vain for {what}; the kernel counted {grown:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Limits each path to so many Mbit/s: to the subject, and with a router also from it.
    ///
    /// # Errors
    /// When `tc` fails.
    pub fn shape(&self, mbit: u32) -> Result<()> {
        let routed = self.plan.layout.is_routed();
        for device in if routed { &["ab0", "ab1", "va0", "va1"][..] } else { &["ab0", "ab1"] } {
            let bucket = format!("tbf rate {mbit}mbit burst 256kb limit 1mb");
            self.wires.command("tc", &format!("qdisc replace dev {device} root {bucket}"))?;
        }
        Ok(())
    }

    /// Bytes that the subject's device on a path has carried: (from the subject, to the subject).
    ///
    /// # Errors
    /// When the device is not there.
    pub fn carried(&self, path: u8) -> Result<(u64, u64)> {
        let text = self.wires.read("/proc/thread-self/net/dev")?;
        let name = format!("ab{path}:");
        let line = text.lines().find_map(|line| line.trim_start().strip_prefix(&name));
        let columns: Vec<u64> = line
            .with_context(|| format!("no device ab{path}"))?
            .split_whitespace()
            .map(|word| word.parse().unwrap_or(0))
            .collect();
        Ok((columns[0], columns[8]))
    }
}
