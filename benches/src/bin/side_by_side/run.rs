//! One run of one case.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use anabranch_tests::Counters;
use anyhow::{Result, bail, ensure};

use crate::plan::{Case, Kind, Link, Measure, Peer, Place, Row};
use crate::process::{self, Server};
use crate::site::{self, FAR_SERVER, SERVER, Site};
use crate::task::{Anabranch, ClientStack, Load, Memory, Quantity, Sample, Serve, ServerStack, Task};
use anabranch_benches::cpu::{self, Accounts};

/// Beyond its time, how long a client may take.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long a million connections may take to be opened.
const PATIENCE_IDLE: Duration = Duration::from_secs(600);
/// How long workers look for work before they sleep, where they do: longer than a round trip.
const BUSY_POLL_US: u64 = 200;

/// How all runs are made.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Length of a run, without its warm-up.
    pub(crate) seconds: f64,
    /// Congestion control of the kernel's sockets.
    pub(crate) congestion: String,
}

/// Runs cases. The networks are made once.
#[derive(Debug)]
pub(crate) struct Runner {
    settings: Settings,
    sites: BTreeMap<Row, Site>,
}

impl Runner {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings, sites: BTreeMap::new() }
    }

    /// One run. Others' part of the machine during it is in the sample.
    pub(crate) fn run(&mut self, case: Case) -> Result<Sample> {
        let site = match self.sites.entry(case.row) {
            Entry::Occupied(there) => there.get().clone(),
            Entry::Vacant(place) => place.insert(Site::new(case.row)?).clone(),
        };
        if case.row.link == Link::Memory {
            return self.in_memory(case, &site);
        }
        let server = Server::start(&site.server, &Task::Serve(self.serve(case)))?;
        let before = Counters::read(&site.client)?;
        let accounts = Accounts::open(Some(server.pid()))?;
        let load = Task::Load(self.load(case));
        let mut sample = process::measure(&site.client, &load, self.patience())?;
        let shares = accounts.close()?;
        check(case, &Counters::read(&site.client)?.since(&before))?;
        if let Some(per_second) = sample.get(&Quantity::PerSecond) {
            // The server's accounts cover the warm-up, too.
            let rounds = per_second * shares.elapsed;
            sample.insert(Quantity::ServerUs, shares.server.total() * 1e6 / rounds);
            sample.insert(Quantity::ServerUserUs, shares.server.user * 1e6 / rounds);
        }
        sample.insert(Quantity::ServerCores, shares.server.total() / shares.elapsed);
        sample.insert(Quantity::ClientCores, shares.client / shares.elapsed);
        sample.insert(Quantity::Others, shares.others);
        Ok(sample)
    }

    fn patience(&self) -> Duration {
        Duration::from_secs_f64(self.settings.seconds) + PATIENCE
    }

    fn in_memory(&self, case: Case, site: &Site) -> Result<Sample> {
        let threads = case.row.workers;
        let connections = case.measure.connections();
        let moves = |offload| {
            let seconds = self.settings.seconds;
            let memory = Memory { threads, connections: connections / threads, offload, seconds };
            process::measure(&site.client, &Task::Memory(memory), self.patience())
        };
        let accounts = Accounts::open(None)?;
        let mut sample = match case.measure {
            Measure::Whole(_) => moves(true)?,
            Measure::Segments(_) => moves(false)?,
            Measure::Idle(_) => {
                let kind = if case.row.kind.mptcp() { "mptcp2" } else { "tcp" };
                process::rest(&site.client, connections, kind, PATIENCE_IDLE)?
            }
            _ => bail!("{case} is nothing that can be done in memory"),
        };
        let shares = accounts.close()?;
        sample.insert(Quantity::ClientCores, shares.client / shares.elapsed);
        sample.insert(Quantity::Others, shares.others);
        Ok(sample)
    }

    fn serve(&self, case: Case) -> Serve {
        let Row { peer, link, kind, workers } = case.row;
        let stack = match peer {
            Peer::Kernel => ServerStack::Kernel { mptcp: kind.mptcp(), congestion: self.settings.congestion.clone() },
            Peer::Smoltcp => ServerStack::Smoltcp { offload: link == Link::Tun },
            Peer::Bare => ServerStack::Bare { reads: matches!(case.measure, Measure::Receive(_)) },
            Peer::Anabranch => ServerStack::Anabranch(Anabranch {
                paths: site::server_paths(link, kind),
                workers,
                busy_poll_us: if case.measure.place() == Place::Busy { BUSY_POLL_US } else { 0 },
                mptcp: kind.mptcp(),
            }),
        };
        Serve { stack, connections: case.measure.connections(), cpus: cpus(case.measure.place()).1 }
    }

    fn load(&self, case: Case) -> Load {
        let Row { link, kind, .. } = case.row;
        let routed = link == Link::Routed;
        let stack = if routed {
            let ours = Anabranch { paths: site::client_paths(kind), workers: 1, busy_poll_us: 0, mptcp: kind.mptcp() };
            ClientStack::Anabranch(ours, usize::from(kind.paths()))
        } else {
            ClientStack::Kernel { mptcp: kind.mptcp(), congestion: self.settings.congestion.clone() }
        };
        let (what, _) = case.measure.traffic().expect("a measure with a client");
        Load {
            stack,
            what,
            connections: case.measure.connections(),
            seconds: self.settings.seconds,
            remote: if routed { FAR_SERVER } else { SERVER },
            cpus: cpus(case.measure.place()).0,
        }
    }
}

/// Processors of client and server: the last ones, the first is the busiest.
fn cpus(place: Place) -> (Vec<usize>, Vec<usize>) {
    let last = cpu::count() - 1;
    match place {
        Place::Free => (Vec::new(), Vec::new()),
        Place::One => (vec![last], vec![last]),
        Place::Two | Place::Busy => (vec![last.saturating_sub(1)], vec![last]),
    }
}

/// A line of two subflows must not be filled by connections with one, nor one of MPTCP by TCP.
fn check(case: Case, grown: &Counters) -> Result<()> {
    let Row { link, kind, .. } = case.row;
    if link == Link::Routed {
        return Ok(());
    }
    let connections = case.measure.connections() as u64;
    let fallbacks = grown.get("MPTcpExtMPCapableFallbackSYNACK") + grown.get("MPTcpExtMPCapableFallbackACK");
    ensure!(fallbacks == 0, "{fallbacks} connections fell back to TCP");
    let capable = grown.get("MPTcpExtMPCapableSYNACKRX");
    let joins = grown.get("MPTcpExtMPJoinSynAckRx");
    match kind {
        Kind::Tcp => ensure!(capable == 0, "{capable} connections were MPTCP"),
        Kind::One => ensure!(capable >= connections && joins == 0, "{capable} MPTCP connections, {joins} joins"),
        // A short connection may be over before its join.
        Kind::Two if matches!(case.measure, Measure::Connect(_)) => {
            ensure!(capable >= connections, "{capable} MPTCP connections");
        }
        Kind::Two => ensure!(joins == connections, "{joins} joins on {connections} connections"),
    }
    Ok(())
}
