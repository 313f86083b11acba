//! The topology of most experiments: a client, a server, and some links between them.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::ops::{Deref, DerefMut};

use anabranch_core::{EndpointFlags, IpCidr, PathConfig};
use anabranch_frame::PathId;

use crate::middlebox::{Middlebox, TwoWay};
use crate::{HostConfig, HostId, LinkConfig, LinkId, LinkStats, World};

/// The port on which servers of a [`Pair`] listen.
pub const PORT: u16 = 5001;

/// Largest super-segment that hosts of a [`Pair`] send, in bytes of payload.
const GSO_MAX: u32 = 60_000;

/// A client and a server with as many links between them as wanted; a [`World`] with names.
///
/// Path `i` has the networks `10.0.i.0/24` and `fd00:0:0:i::/64`; the client is `.1`, the server `.2`
/// on it. Without further words the client joins from its other paths (`subflow`).
#[derive(Debug)]
pub struct Pair {
    world: World,
    links: Vec<(LinkId, LinkId)>,
}

/// A [`Pair`] to be.
#[derive(Clone, Debug)]
pub struct PairBuilder {
    seed: u64,
    client: HostConfig,
    server: HostConfig,
    links: Vec<(LinkConfig, LinkConfig)>,
}

impl Pair {
    /// The client.
    pub const CLIENT: HostId = HostId(0);
    /// The server.
    pub const SERVER: HostId = HostId(1);

    /// Begins with two hosts and no link. The environment variable `ANABRANCH_SEED` overrules `seed`.
    #[must_use]
    pub fn seeded(seed: u64) -> PairBuilder {
        PairBuilder {
            seed: crate::seed_from_env(seed),
            client: HostConfig::new("client"),
            server: HostConfig::new("server"),
            links: Vec::new(),
        }
    }

    /// The client's IPv4 address on path `path`.
    #[must_use]
    pub fn client_addr(path: u16) -> IpAddr {
        v4(path, 1)
    }

    /// Where a server of the server host is reached by IPv4 on path `path`.
    #[must_use]
    pub fn server_addr(path: u16) -> SocketAddr {
        SocketAddr::new(v4(path, 2), PORT)
    }

    /// Where a server of the server host is reached by IPv6 on path `path`.
    #[must_use]
    pub fn server_addr_v6(path: u16) -> SocketAddr {
        SocketAddr::new(v6(path, 2), PORT)
    }

    /// The link from client to server of a path.
    ///
    /// # Panics
    /// If there is no such path.
    #[must_use]
    pub fn up_link(&self, path: u16) -> LinkId {
        self.links[usize::from(path)].0
    }

    /// The link from server to client of a path.
    ///
    /// # Panics
    /// If there is no such path.
    #[must_use]
    pub fn down_link(&self, path: u16) -> LinkId {
        self.links[usize::from(path)].1
    }

    /// Puts a box on the way from client to server of a path, behind those that are there.
    pub fn box_up(&mut self, path: u16, middlebox: impl Middlebox + 'static) {
        self.world.add_middlebox(self.up_link(path), middlebox);
    }

    /// Puts a box on the way from server to client of a path, behind those that are there.
    pub fn box_down(&mut self, path: u16, middlebox: impl Middlebox + 'static) {
        self.world.add_middlebox(self.down_link(path), middlebox);
    }

    /// Puts a box on a path that serves the client, behind those that are there.
    pub fn box_both(&mut self, path: u16, both: impl TwoWay + 'static) {
        let (up, down) = self.links[usize::from(path)];
        self.world.add_two_way(up, down, both);
    }

    /// What the link from client to server of a path did so far.
    #[must_use]
    pub fn up_stats(&self, path: u16) -> &LinkStats {
        self.world.link(self.up_link(path)).stats()
    }

    /// What the link from server to client of a path did so far.
    #[must_use]
    pub fn down_stats(&self, path: u16) -> &LinkStats {
        self.world.link(self.down_link(path)).stats()
    }
}

impl Deref for Pair {
    type Target = World;
    fn deref(&self) -> &World {
        &self.world
    }
}

impl DerefMut for Pair {
    fn deref_mut(&mut self) -> &mut World {
        &mut self.world
    }
}

impl PairBuilder {
    /// Adds a path with the same link each way.
    #[must_use]
    pub fn path(self, link: LinkConfig) -> Self {
        self.path_with(link.clone(), link)
    }

    /// Adds a path with one link from client to server, `up`, and another one back, `down`.
    #[must_use]
    pub fn path_with(mut self, up: LinkConfig, down: LinkConfig) -> Self {
        let path = self.links.len() as u16;
        let flags = EndpointFlags { subflow: true, ..EndpointFlags::default() };
        self.client.paths.push(PathConfig { flags, ..path_config(path, 1) });
        self.server.paths.push(path_config(path, 2));
        self.links.push((up, down));
        self
    }

    /// The server announces its addresses (`signal`) instead of the client joining by itself.
    #[must_use]
    pub fn announced(mut self) -> Self {
        for path in &mut self.client.paths {
            path.flags.subflow = false;
        }
        for path in &mut self.server.paths {
            path.flags.signal = true;
        }
        self
    }

    /// Marks a path as a backup on the client's side.
    ///
    /// # Panics
    /// If there is no such path.
    #[must_use]
    pub fn backup(mut self, path: u16) -> Self {
        self.client.paths[usize::from(path)].flags.backup = true;
        self
    }

    /// Changes the client's configuration.
    #[must_use]
    pub fn client(mut self, change: impl FnOnce(&mut HostConfig)) -> Self {
        change(&mut self.client);
        self
    }

    /// Changes the server's configuration.
    #[must_use]
    pub fn server(mut self, change: impl FnOnce(&mut HostConfig)) -> Self {
        change(&mut self.server);
        self
    }

    /// Builds the two hosts and connects them.
    #[must_use]
    pub fn build(self) -> Pair {
        let mut world = World::new(self.seed);
        let client = world.add_host(self.client);
        let server = world.add_host(self.server);
        let mut links = Vec::new();
        for (path, (up, down)) in self.links.into_iter().enumerate() {
            let path = PathId(path as u16);
            links.push(world.connect((client, path), (server, path), up, down));
        }
        Pair { world, links }
    }
}

fn v4(path: u16, host: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, (path >> 8) as u8, path as u8, host))
}

fn v6(path: u16, host: u8) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, path, 0, 0, 0, u16::from(host)))
}

fn path_config(path: u16, host: u8) -> PathConfig {
    let addrs = vec![IpCidr { addr: v4(path, host), prefix: 24 }, IpCidr { addr: v6(path, host), prefix: 64 }];
    PathConfig { gso_max: GSO_MAX, ..PathConfig::new(PathId(path), addrs) }
}
