//! What is to be reached, as ratios within one run.

use crate::plan::{Case, Kind, Link, MANY, Measure, Place, Row};
use crate::task::Quantity;

/// One line of the table of aims.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Aim {
    /// What is compared.
    pub(crate) name: &'static str,
    /// Ours.
    pub(crate) ours: Case,
    /// What it is divided by; nothing for a figure that stands for itself.
    pub(crate) theirs: Option<Case>,
    /// Which figure.
    pub(crate) quantity: Quantity,
    /// What must be reached.
    pub(crate) least: f64,
    /// What is wished for.
    pub(crate) aim: f64,
}

/// How far it is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    Reached,
    AtLeast,
    Missed,
}

impl Aim {
    pub(crate) fn verdict(&self, value: f64) -> Verdict {
        let meets = |limit: f64| if self.quantity.is_cost() { value <= limit } else { value >= limit };
        match (meets(self.aim), meets(self.least)) {
            (true, _) => Verdict::Reached,
            (false, true) => Verdict::AtLeast,
            (false, false) => Verdict::Missed,
        }
    }

    /// The cases that it needs.
    pub(crate) fn cases(&self) -> impl Iterator<Item = Case> {
        [Some(self.ours), self.theirs].into_iter().flatten()
    }
}

const TUN: Link = Link::Tun;
const RECEIVE: Measure = Measure::Receive(1);
const SEND: Measure = Measure::Send(1);
const ECHO_ONE: Measure = Measure::Echo(1, Place::One);
const CONNECT: Measure = Measure::Connect(1);

/// All of them.
pub(crate) fn all() -> Vec<Aim> {
    [bulk(), round_trips(), memory()].concat()
}

fn bulk() -> Vec<Aim> {
    let [tcp, one, two] = [Kind::Tcp, Kind::One, Kind::Two].map(|kind| Row::ours(TUN, kind));
    let kernel_two = Row::kernel(Kind::Two);
    let mut aims = Vec::new();
    // Both directions of one comparison: (at least, aim) of receiving and of sending.
    let mut add = |names: [&'static str; 2], ours: Row, theirs: Row, limits: [(f64, f64); 2]| {
        for ((name, measure), (least, aim)) in names.into_iter().zip([RECEIVE, SEND]).zip(limits) {
            aims.push(rate(name, Case::new(ours, measure), Case::new(theirs, measure), least, aim));
        }
    };
    let names = ["TCP over TUN / bare loop, receive", "TCP over TUN / bare loop, send"];
    add(names, tcp, Row::BARE, [(0.78, 0.95), (0.78, 0.9)]);
    let names = ["MPTCP, one subflow, over TUN / bare loop, receive", "MPTCP, one subflow, over TUN / bare loop, send"];
    add(names, one, Row::BARE, [(0.78, 0.95), (0.78, 0.9)]);
    let names = ["MPTCP, one subflow / kernel MPTCP, two, receive", "MPTCP, one subflow / kernel MPTCP, two, send"];
    add(names, one, kernel_two, [(1.0, 1.3), (1.0, 1.1)]);
    let names = ["MPTCP, two subflows / kernel MPTCP, two, receive", "MPTCP, two subflows / kernel MPTCP, two, send"];
    add(names, two, kernel_two, [(1.0, 1.3), (1.0, 1.1)]);
    let names = ["MPTCP, one subflow / own TCP, receive", "MPTCP, one subflow / own TCP, send"];
    add(names, one, tcp, [(0.95, 1.0), (0.95, 1.0)]);
    let names = ["TCP over TUN / smoltcp over TUN, receive", "TCP over TUN / smoltcp over TUN, send"];
    add(names, tcp, Row::SMOLTCP, [(0.85, 1.0), (1.0, 1.15)]);
    let names =
        ["without offload / smoltcp without offload, receive", "without offload / smoltcp without offload, send"];
    add(names, Row::ours(Link::PlainTun, Kind::Tcp), Row::SMOLTCP_PLAIN, [(1.3, 2.0), (1.3, 2.0)]);
    let names = ["packet driver on veth / kernel TCP, receive", "packet driver on veth / kernel TCP, send"];
    add(names, Row::ours(Link::Packet, Kind::Tcp), Row::kernel(Kind::Tcp), [(0.6, 1.0), (0.6, 1.0)]);
    for (name, measure) in [
        ("four connections / bare loop with four, receive", Measure::Receive(4)),
        ("four connections / bare loop with four, send", Measure::Send(4)),
    ] {
        aims.push(rate(name, Case::new(tcp, measure), Case::new(Row::BARE, measure), 0.7, 0.9));
    }
    aims
}

fn round_trips() -> Vec<Aim> {
    let [tcp, one] = [Kind::Tcp, Kind::One].map(|kind| Row::ours(TUN, kind));
    let [kernel_tcp, kernel_one] = [Kind::Tcp, Kind::One].map(Row::kernel);
    let busy = Measure::Echo(1, Place::Busy);
    let two = Measure::Echo(1, Place::Two);
    let echo = |name, ours, theirs, least, aim| Aim {
        name,
        ours,
        theirs: Some(theirs),
        quantity: Quantity::P50Us,
        least,
        aim,
    };
    let connect = |name, ours, theirs, aim| Aim {
        quantity: Quantity::PerSecond,
        ..rate(name, Case::new(ours, CONNECT), Case::new(theirs, CONNECT), 1.1, aim)
    };
    let cost = |name, row| Aim {
        name,
        ours: Case::new(row, CONNECT),
        theirs: None,
        quantity: Quantity::ServerUs,
        least: 20.0,
        aim: 20.0,
    };
    vec![
        echo(
            "echo of 1 byte, one CPU, TCP / kernel TCP",
            Case::new(tcp, ECHO_ONE),
            Case::new(kernel_tcp, ECHO_ONE),
            1.1,
            0.95,
        ),
        echo(
            "echo of 1 byte, one CPU, MPTCP / kernel MPTCP",
            Case::new(one, ECHO_ONE),
            Case::new(kernel_one, ECHO_ONE),
            0.95,
            0.8,
        ),
        echo(
            "echo of 1 byte, two CPUs, busy-poll / kernel TCP",
            Case::new(tcp, busy),
            Case::new(kernel_tcp, two),
            0.75,
            0.55,
        ),
        connect("connections/s, one CPU, TCP / kernel TCP", tcp, kernel_tcp, 1.4),
        connect("connections/s, one CPU, MPTCP / kernel MPTCP", one, kernel_one, 1.3),
        cost("our CPU for a connection, TCP, µs", tcp),
        cost("our CPU for a connection, MPTCP, µs", one),
    ]
}

fn memory() -> Vec<Aim> {
    let (one, two) = (Row::MEMORY, Row::MEMORY_TWO);
    let own = |name, measure, least, aim| Aim {
        name,
        ours: Case::new(one, measure),
        theirs: None,
        quantity: Quantity::Gbps,
        least,
        aim,
    };
    let scale = |name, measure| rate(name, Case::new(one.workers(2), measure), Case::new(one, measure), 1.7, 1.9);
    let idle = |name, row, quantity, least, aim| Aim {
        name,
        ours: Case::new(row, Measure::Idle(100_000)),
        theirs: None,
        quantity,
        least,
        aim,
    };
    vec![
        idle("idle connection, TCP, bytes of the heap", one, Quantity::HeapPerEnd, 2048.0, 1024.0),
        idle("idle connection, TCP, bytes of the process", one, Quantity::ResidentPerEnd, 2048.0, 1024.0),
        idle("idle connection, MPTCP, two subflows, bytes of the heap", two, Quantity::HeapPerEnd, 4096.0, 2048.0),
        idle(
            "idle connection, MPTCP, two subflows, bytes of the process",
            two,
            Quantity::ResidentPerEnd,
            4096.0,
            2048.0,
        ),
        scale("two workers / one, in memory, super-segments", Measure::Whole(MANY)),
        scale("two workers / one, in memory, segments of 1460 bytes", Measure::Segments(MANY)),
        own("in memory, super-segments, Gbit/s of one core", Measure::Whole(1), 20.0, 40.0),
        own("in memory, segments of 1460 bytes, Gbit/s of one core", Measure::Segments(1), 4.0, 8.0),
    ]
}

fn rate(name: &'static str, ours: Case, theirs: Case, least: f64, aim: f64) -> Aim {
    Aim { name, ours, theirs: Some(theirs), quantity: Quantity::Gbps, least, aim }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_is_better_for_costs_only() {
        let aims = all();
        let rate = aims.iter().find(|aim| aim.quantity == Quantity::Gbps).expect("a rate");
        let cost = aims.iter().find(|aim| aim.quantity == Quantity::P50Us).expect("a cost");
        for (aim, better) in [(rate, 0.01), (cost, -0.01)] {
            assert_eq!(aim.verdict(aim.aim + better), Verdict::Reached, "{}", aim.name);
            assert_eq!(aim.verdict(aim.aim - better), Verdict::AtLeast, "{}", aim.name);
            assert_eq!(aim.verdict(aim.least - better), Verdict::Missed, "{}", aim.name);
        }
    }

    #[test]
    fn each_aim_is_at_least_what_must_be_reached() {
        for aim in all() {
            let further = if aim.quantity.is_cost() { aim.aim <= aim.least } else { aim.aim >= aim.least };
            assert!(further, "{}", aim.name);
        }
    }
}
