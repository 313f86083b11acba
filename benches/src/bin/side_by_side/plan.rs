//! What is measured.

use std::fmt;

use crate::task::{Quantity, Service, Traffic};

/// Whose server it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Peer {
    /// Nobody's: the bare loop.
    Bare,
    /// The kernel's.
    Kernel,
    /// smoltcp's.
    Smoltcp,
    /// Ours.
    Anabranch,
}

impl Peer {
    /// Whether it attaches to a TUN device that is there.
    pub(crate) fn needs_tun(self) -> bool {
        matches!(self, Self::Bare | Self::Smoltcp)
    }
}

/// What lies between client and server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Link {
    /// A TUN device with offload.
    Tun,
    /// One without: a system call for each packet of 1500 bytes.
    PlainTun,
    /// A veth pair, kernel sockets at both ends.
    Veth,
    /// A veth pair, ours by AF_PACKET.
    Packet,
    /// A TUN device, ours by the crate tun-tap.
    TunTap,
    /// A veth pair, ours by the crate pnet.
    Pnet,
    /// Two TUN devices, ours at both ends, and a veth pair between two routers.
    Routed,
    /// Nothing but memory.
    Memory,
}

/// What a connection is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    /// TCP.
    Tcp,
    /// MPTCP with one subflow.
    One,
    /// MPTCP with two.
    Two,
}

impl Kind {
    pub(crate) fn mptcp(self) -> bool {
        self != Self::Tcp
    }

    pub(crate) fn paths(self) -> u8 {
        if self == Self::Two { 2 } else { 1 }
    }
}

/// Who is measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Row {
    pub(crate) peer: Peer,
    pub(crate) link: Link,
    pub(crate) kind: Kind,
    /// Worker threads of our stack.
    pub(crate) workers: usize,
}

impl Row {
    const fn new(peer: Peer, link: Link, kind: Kind) -> Self {
        Self { peer, link, kind, workers: 1 }
    }

    /// The bare TUN loop with one copy.
    pub(crate) const BARE: Self = Self::new(Peer::Bare, Link::Tun, Kind::Tcp);
    /// smoltcp with the same offload as we have.
    pub(crate) const SMOLTCP: Self = Self::new(Peer::Smoltcp, Link::Tun, Kind::Tcp);
    /// smoltcp on the device it comes with.
    pub(crate) const SMOLTCP_PLAIN: Self = Self::new(Peer::Smoltcp, Link::PlainTun, Kind::Tcp);
    /// Ours in memory, one thread.
    pub(crate) const MEMORY: Self = Self::new(Peer::Anabranch, Link::Memory, Kind::Tcp);
    /// The same with MPTCP and two subflows.
    pub(crate) const MEMORY_TWO: Self = Self::new(Peer::Anabranch, Link::Memory, Kind::Two);

    /// The kernel's own, over veth.
    pub(crate) const fn kernel(kind: Kind) -> Self {
        Self::new(Peer::Kernel, Link::Veth, kind)
    }

    /// Ours.
    pub(crate) const fn ours(link: Link, kind: Kind) -> Self {
        Self::new(Peer::Anabranch, link, kind)
    }

    pub(crate) const fn workers(self, workers: usize) -> Self {
        Self { workers, ..self }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = match self.peer {
            Peer::Bare => "bare loop",
            Peer::Kernel => "kernel",
            Peer::Smoltcp => "smoltcp",
            Peer::Anabranch => "anabranch",
        };
        let link = match self.link {
            Link::Tun => "tun",
            Link::PlainTun => "plain-tun",
            Link::Veth => "veth",
            Link::Packet => "packet",
            Link::TunTap => "tun-tap",
            Link::Pnet => "pnet",
            Link::Routed => "two-tuns",
            Link::Memory => "memory",
        };
        let kind = match self.kind {
            Kind::Tcp => "tcp",
            Kind::One => "mptcp1",
            Kind::Two => "mptcp2",
        };
        write!(f, "{peer} {link} {kind}")?;
        if self.workers > 1 { write!(f, " workers-{}", self.workers) } else { Ok(()) }
    }
}

/// Which processors client and server have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Place {
    /// All, as the scheduler likes.
    Free,
    /// Both have the same one.
    One,
    /// Each has its own.
    Two,
    /// Each has its own, and our workers look for work before they sleep.
    Busy,
}

/// What is done. Seen from the server, so that "receive" means that the peer under test receives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Measure {
    /// Bulk into the server, over so many connections.
    Receive(usize),
    /// Bulk out of it.
    Send(usize),
    /// Ping-pong of so many bytes.
    Echo(usize, Place),
    /// Connect, transfer the end of the stream, close; so many loops at once, on one processor.
    Connect(usize),
    /// Super-segments between two stacks in memory, so many connections in all.
    Whole(usize),
    /// The same in segments of 1460 bytes.
    Segments(usize),
    /// Memory of so many idle connections between two stacks.
    Idle(usize),
}

impl Measure {
    /// What the client does, on which service; `None` in memory.
    pub(crate) fn traffic(self) -> Option<(Traffic, Service)> {
        match self {
            Self::Receive(_) => Some((Traffic::Send, Service::Discard)),
            Self::Send(_) => Some((Traffic::Receive, Service::Chargen)),
            Self::Echo(bytes, _) => Some((Traffic::Echo(bytes), Service::Echo)),
            Self::Connect(_) => Some((Traffic::Connect, Service::Echo)),
            Self::Whole(_) | Self::Segments(_) | Self::Idle(_) => None,
        }
    }

    /// Connections or loops at once.
    pub(crate) fn connections(self) -> usize {
        match self {
            Self::Echo(..) => 1,
            Self::Receive(n)
            | Self::Send(n)
            | Self::Connect(n)
            | Self::Whole(n)
            | Self::Segments(n)
            | Self::Idle(n) => n,
        }
    }

    pub(crate) fn place(self) -> Place {
        match self {
            Self::Echo(_, place) => place,
            Self::Connect(_) => Place::One,
            _ => Place::Free,
        }
    }

    /// Whether one round is not like the other.
    pub(crate) fn varies(self) -> bool {
        !matches!(self, Self::Idle(_))
    }

    /// What the table shows of it.
    pub(crate) fn quantities(self) -> &'static [Quantity] {
        match self {
            Self::Echo(..) => &[Quantity::P50Us, Quantity::P99Us],
            Self::Connect(_) => &[Quantity::PerSecond, Quantity::ServerUs],
            Self::Idle(_) => &[Quantity::HeapPerEnd, Quantity::ResidentPerEnd],
            _ => &[Quantity::Gbps],
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Receive(n) => write!(f, "receive-{n}"),
            Self::Send(n) => write!(f, "send-{n}"),
            Self::Echo(bytes, place) => {
                let place = match place {
                    Place::Free => "free",
                    Place::One => "one-cpu",
                    Place::Two => "two-cpus",
                    Place::Busy => "busy-poll",
                };
                write!(f, "echo-{bytes} {place}")
            }
            Self::Connect(n) => write!(f, "connect-{n}"),
            Self::Whole(n) => write!(f, "super-segments-{n}"),
            Self::Segments(n) => write!(f, "segments-{n}"),
            Self::Idle(n) => write!(f, "idle-{n}"),
        }
    }
}

/// One line of the report. Cases are run in their order: by measure, the peers beside each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Case {
    pub(crate) measure: Measure,
    pub(crate) row: Row,
}

impl Case {
    pub(crate) const fn new(row: Row, measure: Measure) -> Self {
        Self { measure, row }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.row, self.measure)
    }
}

const KINDS: [Kind; 3] = [Kind::Tcp, Kind::One, Kind::Two];

/// Everything that can be measured, in order.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |rows: &[Row], measures: &[Measure]| {
        for &measure in measures {
            cases.extend(rows.iter().map(|&row| Case::new(row, measure)));
        }
    };
    let kernel = KINDS.map(Row::kernel);
    let tun = KINDS.map(|kind| Row::ours(Link::Tun, kind));
    let packet = KINDS.map(|kind| Row::ours(Link::Packet, kind));
    let routed = KINDS.map(|kind| Row::ours(Link::Routed, kind));
    let plain = Row::ours(Link::PlainTun, Kind::Tcp);

    let bulk = [Measure::Receive(1), Measure::Send(1)];
    add(&[Row::BARE, Row::SMOLTCP, Row::SMOLTCP_PLAIN, plain], &bulk);
    add(&[kernel, tun, packet, routed].concat(), &bulk);
    add(&[Row::ours(Link::TunTap, Kind::Tcp), Row::ours(Link::Pnet, Kind::Tcp)], &bulk);

    let more = [4, 10, 100, 1000].map(|n| [Measure::Receive(n), Measure::Send(n)]).concat();
    add(&[Row::BARE], &more[..2]);
    add(&[kernel[0], kernel[1], tun[0], tun[0].workers(2), tun[1], tun[1].workers(2)], &more);

    for bytes in [1, 128] {
        let places = [Place::One, Place::Two].map(|place| Measure::Echo(bytes, place));
        add(&[&kernel[..2], &tun[..2], &packet[..2], &[Row::SMOLTCP, Row::SMOLTCP_PLAIN]].concat(), &places);
        add(&[&tun[..2], &packet[..2]].concat(), &[Measure::Echo(bytes, Place::Busy)]);
    }
    let rows = [&kernel[..], &tun[..], &packet[..2], &[Row::SMOLTCP, Row::SMOLTCP_PLAIN]].concat();
    add(&rows, &[Measure::Connect(1), Measure::Connect(8)]);

    add(&[Row::MEMORY], &[Measure::Whole(1), Measure::Segments(1)]);
    add(&[Row::MEMORY, Row::MEMORY.workers(2)], &[Measure::Whole(MANY), Measure::Segments(MANY)]);
    add(&[Row::MEMORY, Row::MEMORY_TWO], &[Measure::Idle(100_000), Measure::Idle(1_000_000)]);
    cases.sort();
    cases.dedup();
    cases
}

/// Connections in memory that two workers share.
pub(crate) const MANY: usize = 64;
