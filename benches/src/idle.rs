//! Many connections that are established and have nothing to do, between two shards in memory.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anabranch_core::{EndpointFlags, Event, IpCidr, PathConfig, Shard, ShardConfig, SocketOptions};
use anabranch_frame::{Instant, PathId, Payload, RxChecksum, RxPacket, Transmit};
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

/// Connections to one port of the server; the ports of the client must suffice for them twice.
pub const PER_PORT: usize = 12_000;
/// First port of the server.
const FIRST_PORT: u16 = 5001;

/// What a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Kind {
    /// Plain TCP.
    Tcp,
    /// MPTCP with one subflow.
    Mptcp1,
    /// MPTCP with two subflows.
    Mptcp2,
}

impl Kind {
    /// Its paths, and so its subflows.
    #[must_use]
    pub fn paths(self) -> u16 {
        if self == Self::Mptcp2 { 2 } else { 1 }
    }

    /// What its ends are opened with.
    #[must_use]
    pub fn options(self) -> SocketOptions {
        SocketOptions { mptcp: self != Self::Tcp, ..SocketOptions::default() }
    }
}

/// A path of the client (host 1) or the server (host 2).
#[must_use]
pub fn path_config(path: u16, host: u8) -> PathConfig {
    let id = PathId(path);
    let addr = IpCidr { addr: addr(path, host), prefix: 24 };
    let flags = EndpointFlags { subflow: host == 1 && path > 0, ..EndpointFlags::default() };
    PathConfig { flags, ..PathConfig::new(id, vec![addr]) }
}

fn addr(path: u16, host: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, path as u8, host))
}

/// Where a connection goes to.
#[must_use]
pub fn server(connection: usize) -> SocketAddr {
    SocketAddr::new(addr(0, 2), FIRST_PORT + (connection / PER_PORT) as u16)
}

/// Ports that the server must listen on.
#[must_use]
pub fn ports(connections: usize) -> usize {
    connections.div_ceil(PER_PORT)
}

/// Two shards, the client first, and the time.
struct Net {
    hosts: [Shard; 2],
    now: Instant,
    closed: usize,
    subflows_up: usize,
}

impl Net {
    fn new(paths: u16, connections: usize) -> Result<Self> {
        let host = |number: u8| {
            let mut config = ShardConfig::single(u64::from(number));
            config.max_connections = connections;
            let mut shard = Shard::new(config);
            for path in 0..paths {
                shard.add_path(Instant::ZERO, path_config(path, number))?;
            }
            Ok::<_, anabranch_core::Error>(shard)
        };
        Ok(Self { hosts: [host(1)?, host(2)?], now: Instant::from_millis(1), closed: 0, subflows_up: 0 })
    }

    /// Passes packets until nobody has anything to say.
    fn settle(&mut self) {
        loop {
            let mut said = false;
            for from in [0, 1] {
                while let Some(packet) = self.hosts[from].poll_transmit(self.now) {
                    said = true;
                    self.hosts[1 - from].handle_packet(self.now, received(&packet));
                }
                while let Some(event) = self.hosts[from].poll_event() {
                    self.closed += usize::from(matches!(event, Event::Closed(..)));
                    self.subflows_up += usize::from(matches!(event, Event::SubflowUp(..)));
                }
            }
            if !said {
                break;
            }
        }
    }

    /// Lets time pass: whatever waits for it happens.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.hosts.iter().filter_map(Shard::poll_timeout).min().filter(|&next| next <= end) {
            self.now = self.now.max(next);
            for host in &mut self.hosts {
                host.handle_timeout(self.now);
            }
            self.settle();
        }
        self.now = end;
    }
}

fn received(packet: &Transmit) -> RxPacket {
    let mut bytes = packet.header.to_vec();
    packet.payload.iter().for_each(|piece| bytes.extend_from_slice(piece));
    RxPacket { checksum: RxChecksum::Trusted, ..RxPacket::new(packet.path, Payload::from(bytes)) }
}

/// Opens connections and lets them rest. `used`: a byte goes each way on each of them before. `measure` is called
/// before the first one and when all are idle.
///
/// # Errors
/// When a connection breaks, or one has fewer subflows than it should have.
pub fn rest<T>(kind: Kind, connections: usize, used: bool, measure: impl Fn() -> T) -> Result<[T; 2]> {
    let mut net = Net::new(kind.paths(), connections)?;
    let options = kind.options();
    let listeners: Vec<_> = (0..ports(connections))
        .map(|port| net.hosts[1].listen(server(port * PER_PORT), PER_PORT, options.clone()))
        .collect::<Result<_, _>>()?;
    let before = measure();
    for connection in 0..connections {
        let ours = net.hosts[0].connect(net.now, None, server(connection), &options)?;
        net.settle();
        let (theirs, _) = net.hosts[1].accept(listeners[connection / PER_PORT]).context("nothing to accept")?;
        if used {
            for (host, id) in [(0, ours), (1, theirs)] {
                net.hosts[host].write(net.now, id, Payload::from(b"x"))?;
                net.settle();
                let other = if host == 0 { theirs } else { ours };
                net.hosts[1 - host].read(other, 1);
                net.hosts[1 - host].consumed(net.now, other, 1);
            }
        }
        // Five thousand a second: the first ones rest when the last ones come.
        if connection % 100 == 99 {
            net.pass(Duration::from_millis(20));
        }
    }
    net.pass(Duration::from_secs(10));
    let after = measure();
    let expected = 2 * connections * usize::from(kind.paths() - 1);
    ensure!(net.closed == 0, "{} connections broke", net.closed);
    ensure!(net.subflows_up == expected, "{} subflows joined, not {expected}", net.subflows_up);
    Ok([before, after])
}
