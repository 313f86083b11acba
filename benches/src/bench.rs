//! The namespaces, the client, and one measure.

use std::fmt;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anabranch_tests::kernel::{self, Protocol};
use anabranch_tests::{Counters, Netns};
use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::cpu::Usage;
use crate::peer::{CHUNK, Server, Service};

/// Whose server it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub(crate) enum Peer {
    /// The kernel's.
    Kernel,
    /// Ours.
    Anabranch,
}

/// What the connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// TCP.
    Tcp,
    /// MPTCP with one subflow.
    One,
    /// MPTCP with two.
    Two,
}

/// One cell of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub(crate) struct Measure {
    pub(crate) kind: Kind,
    pub(crate) peer: Peer,
    pub(crate) service: Service,
}

impl Measure {
    /// Name of the row.
    pub(crate) fn row(self) -> String {
        let peer = if self.peer == Peer::Kernel { "kernel" } else { "anabranch" };
        let kind = match self.kind {
            Kind::Tcp => "tcp",
            Kind::One => "mptcp1",
            Kind::Two => "mptcp2",
        };
        format!("{peer} {kind}")
    }

    /// Name of the column: seen from the server.
    pub(crate) fn direction(self) -> &'static str {
        if self.service == Service::Discard { "into" } else { "out" }
    }

    /// Whether its name has one of the words, or there are none.
    pub(crate) fn wanted(self, only: &[String]) -> bool {
        let name = self.to_string();
        only.is_empty() || only.iter().any(|word| name.contains(word.as_str()))
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.row(), self.direction())
    }
}

/// What one transfer gave.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sample {
    /// Payload, from the connect to the last byte's arrival.
    pub(crate) gbps: f64,
    /// Cores that the client's process used.
    pub(crate) client_cores: f64,
    /// Cores that the server's process used.
    pub(crate) server_cores: f64,
    /// Cores that everybody else used.
    pub(crate) other_cores: f64,
}

/// Both namespaces with their servers.
#[derive(Debug)]
pub(crate) struct Bench {
    client: Netns,
    congestion: String,
    kernel: Server,
    anabranch: Option<Server>,
}

impl Bench {
    /// Sets everything up. Without `command` there is no anabranch.
    pub(crate) fn new(command: Option<&Path>, serve_args: &str, congestion: &str) -> Result<Self> {
        let client = Netns::new("client")?;
        let server = Netns::new("server")?;
        for path in 0..2 {
            client.ip(&format!("link add k{path} type veth peer name k{path} netns {}", server.path()))?;
            for (netns, host) in [(&client, 1), (&server, 2)] {
                netns.ip(&format!("addr add 10.8{path}.0.{host}/24 dev k{path}"))?;
                netns.ip(&format!("link set k{path} up"))?;
            }
        }
        server.ip("mptcp limits set subflows 8 add_addr_accepted 8")?;
        server.ip("mptcp endpoint add 10.81.0.2 dev k1 signal")?;
        let kernel = Server::kernel(&server, congestion)?;
        let paths = ["", ",signal"].map(str::to_owned);
        let path = |at: usize| format!("tun:ab{at},addr=10.9{at}.0.2/24,host=10.9{at}.0.1{}", paths[at]);
        let anabranch =
            command.map(|command| Server::anabranch(&client, command, [path(0), path(1)], serve_args)).transpose()?;
        Ok(Self { client, congestion: congestion.to_owned(), kernel, anabranch })
    }

    /// Everything that can be measured, the two peers beside each other.
    pub(crate) fn measures(&self) -> impl Iterator<Item = Measure> {
        let with_anabranch = self.anabranch.is_some();
        let kinds = [Kind::Tcp, Kind::One, Kind::Two];
        let services = [Service::Discard, Service::Chargen];
        let peers = [Peer::Kernel, Peer::Anabranch];
        kinds
            .into_iter()
            .flat_map(move |kind| services.map(move |service| (kind, service)))
            .flat_map(move |(kind, service)| peers.map(move |peer| Measure { kind, peer, service }))
            .filter(move |measure| with_anabranch || measure.peer == Peer::Kernel)
    }

    /// One transfer.
    pub(crate) fn run(&self, measure: Measure, time: Duration) -> Result<Sample> {
        let (server, network) = match measure.peer {
            Peer::Kernel => (&self.kernel, 8),
            Peer::Anabranch => (self.anabranch.as_ref().context("a server")?, 9),
        };
        // The limits of the client alone make the difference between one subflow and two.
        let subflows = if measure.kind == Kind::Two { 4 } else { 0 };
        self.client.ip(&format!("mptcp limits set subflows {subflows} add_addr_accepted {subflows}"))?;
        let protocol = if measure.kind == Kind::Tcp { Protocol::Tcp } else { Protocol::Mptcp };
        let listens = if measure.peer == Peer::Anabranch { Protocol::Mptcp } else { protocol };
        let remote = SocketAddr::from(([10, network * 10, 0, 2], measure.service.port(listens)));

        let before = Counters::read(&self.client)?;
        let mut stream = kernel::connect_with(&self.client, protocol, None, remote, &[&self.congestion])?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        warm_up(&mut stream, measure.service)?;
        self.check_subflows(measure, &before)?;
        let usage = Usage::now(server.pid())?;
        let start = Instant::now();
        let bytes = match measure.service {
            Service::Discard => send(&mut stream, start + time)?,
            Service::Chargen => receive(&mut stream, start + time)?,
        };
        let elapsed = start.elapsed().as_secs_f64();
        let usage = Usage::now(server.pid())?.since(usage);
        Ok(Sample {
            gbps: bytes as f64 * 8e-9 / elapsed,
            client_cores: usage.own / elapsed,
            server_cores: usage.process / elapsed,
            other_cores: usage.others() / elapsed,
        })
    }

    /// A table of two subflows must not be filled by connections with one, nor one of MPTCP by TCP.
    fn check_subflows(&self, measure: Measure, before: &Counters) -> Result<()> {
        let count = |name| Counters::read(&self.client).map(|now| now.since(before).get(name));
        let joins = u64::from(measure.kind == Kind::Two);
        let deadline = Instant::now() + Duration::from_secs(5);
        while count("MPTcpExtMPJoinSynAckRx")? < joins {
            ensure!(Instant::now() < deadline, "the second subflow did not come up");
            thread::sleep(Duration::from_millis(5));
        }
        ensure!(count("MPTcpExtMPJoinSynAckRx")? == joins, "more subflows than asked for");
        let capable = u64::from(measure.kind != Kind::Tcp);
        ensure!(count("MPTcpExtMPCapableSYNACKRX")? == capable, "the connection fell back to TCP");
        Ok(())
    }
}

/// Subflows are joined once data has gone over the first one. Not part of the time.
fn warm_up(stream: &mut TcpStream, service: Service) -> Result<()> {
    let mut chunk = vec![b'x'; CHUNK];
    match service {
        Service::Discard => stream.write_all(&chunk)?,
        Service::Chargen => stream.read_exact(&mut chunk)?,
    }
    Ok(())
}

/// Writes until `end`, then waits until the server has read it all and closed.
fn send(stream: &mut TcpStream, end: Instant) -> Result<u64> {
    let chunk = vec![b'x'; CHUNK];
    let mut bytes = 0;
    while Instant::now() < end {
        stream.write_all(&chunk).context("writing")?;
        bytes += chunk.len() as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    let rest = stream.read(&mut [0; 16]).context("waiting for the server to close")?;
    ensure!(rest == 0, "a discard server sent something");
    Ok(bytes)
}

/// Reads until `end`, then closes with data on its way.
fn receive(stream: &mut TcpStream, end: Instant) -> Result<u64> {
    let mut buffer = vec![0; CHUNK];
    let mut bytes = 0;
    while Instant::now() < end {
        let count = stream.read(&mut buffer).context("reading")?;
        ensure!(count > 0, "the server closed after {bytes} bytes");
        bytes += count as u64;
    }
    Ok(bytes)
}
