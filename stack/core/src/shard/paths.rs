//! The stack's paths: which addresses are ours, and which path leads where.

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::num::NonZeroU16;

use anabranch_frame::PathId;

use crate::Error;
use crate::config::{Endpoint, EndpointFlags, IpCidr, NewEndpoint, PathConfig};
use crate::tcp::Link;

#[derive(Debug)]
struct Path {
    config: PathConfig,
    /// Our addresses on it.
    addrs: Vec<Addr>,
    up: bool,
}

/// An address of ours, as the path manager may use it.
#[derive(Clone, Copy, Debug)]
struct Addr {
    cidr: IpCidr,
    id: u8,
    flags: EndpointFlags,
    port: Option<NonZeroU16>,
}

impl Path {
    fn endpoint(&self, addr: &Addr) -> Endpoint {
        Endpoint {
            id: addr.id,
            addr: addr.cidr.addr,
            prefix: addr.cidr.prefix,
            path: self.config.id,
            flags: addr.flags,
            port: addr.port,
            up: self.up,
        }
    }
}

/// What is ours no more: a path and its addresses, or one address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gone<'a> {
    pub(crate) path: Option<PathId>,
    pub(crate) endpoints: &'a [Endpoint],
}

impl Gone<'_> {
    /// Whether it takes along what goes by `path` and has the address `local`: the two need not belong together.
    pub(crate) fn takes(&self, path: PathId, local: IpAddr) -> bool {
        self.path == Some(path) || self.endpoints.iter().any(|endpoint| endpoint.addr == local)
    }
}

/// All paths of this worker's stack.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    paths: Vec<Path>,
}

/// Smallest MTU that a path may have (RFC 791).
const MTU_MIN: u16 = 576;
const NO_ENDPOINT: Error = Error::BadOption { option: "endpoint id", problem: "there is no such endpoint" };

impl Paths {
    pub(crate) fn add(&mut self, mut config: PathConfig) -> Result<(), Error> {
        if self.paths.iter().any(|path| path.config.id == config.id) {
            return Err(Error::BadPath);
        }
        config.mtu = config.mtu.max(MTU_MIN);
        let (flags, port) = (config.flags, config.port);
        let cidrs = core::mem::take(&mut config.addrs);
        let mut addrs: Vec<Addr> = Vec::with_capacity(cidrs.len());
        for cidr in cidrs {
            let wanted = if addrs.is_empty() { config.endpoint_id } else { 0 };
            let id = self.free_id(wanted, &addrs).ok_or(Error::BadPath)?;
            addrs.push(Addr { cidr, id, flags, port });
        }
        self.paths.push(Path { config, addrs, up: true });
        Ok(())
    }

    /// Removes a path. Returns what its endpoints were.
    pub(crate) fn remove(&mut self, id: PathId) -> Result<Vec<Endpoint>, Error> {
        let at = self.paths.iter().position(|path| path.config.id == id).ok_or(Error::BadPath)?;
        let gone = self.paths.remove(at);
        Ok(gone.addrs.iter().map(|addr| Endpoint { up: false, ..gone.endpoint(addr) }).collect())
    }

    /// `wanted` if no endpoint has it, else the first identifier that is free.
    fn free_id(&self, wanted: u8, also: &[Addr]) -> Option<u8> {
        let taken = |id: u8| self.all_addrs().map(|(_, addr)| addr).chain(also).any(|addr| addr.id == id);
        if wanted != 0 && !taken(wanted) { Some(wanted) } else { (1..=u8::MAX).find(|&id| !taken(id)) }
    }

    /// Adds an address to a path.
    pub(crate) fn add_endpoint(&mut self, new: &NewEndpoint) -> Result<Endpoint, Error> {
        let at = self.paths.iter().position(|path| path.config.id == new.path).ok_or(Error::BadPath)?;
        let NewEndpoint { addr: cidr, id, flags, port, .. } = *new;
        if self.owns(cidr.addr) {
            return Err(Error::AddrInUse(SocketAddr::new(cidr.addr, port.map_or(0, NonZeroU16::get))));
        }
        flags.check(port).map_err(|problem| Error::BadOption { option: "endpoint", problem })?;
        let free = self.free_id(id, &[]).filter(|&free| id == 0 || free == id);
        let id = free.ok_or(Error::BadOption { option: "endpoint id", problem: "it is taken: give another, or 0" })?;
        let path = &mut self.paths[at];
        let addr = Addr { cidr, id, flags, port };
        path.addrs.push(addr);
        Ok(path.endpoint(&addr))
    }

    /// Takes an address away from its path.
    pub(crate) fn remove_endpoint(&mut self, id: u8) -> Result<Endpoint, Error> {
        for path in &mut self.paths {
            if let Some(at) = path.addrs.iter().position(|addr| addr.id == id) {
                let gone = path.addrs.remove(at);
                return Ok(path.endpoint(&gone));
            }
        }
        Err(NO_ENDPOINT)
    }

    /// Changes what may be done with an address. Returns what was, and what is now.
    pub(crate) fn change_endpoint(
        &mut self,
        id: u8,
        flags: EndpointFlags,
        port: Option<NonZeroU16>,
    ) -> Result<(Endpoint, Endpoint), Error> {
        flags.check(port).map_err(|problem| Error::BadOption { option: "endpoint", problem })?;
        for path in &mut self.paths {
            if let Some(at) = path.addrs.iter().position(|addr| addr.id == id) {
                let before = path.endpoint(&path.addrs[at]);
                (path.addrs[at].flags, path.addrs[at].port) = (flags, port);
                return Ok((before, path.endpoint(&path.addrs[at])));
            }
        }
        Err(NO_ENDPOINT)
    }

    /// Sets a path up or down; whether that was a change.
    pub(crate) fn set_up(&mut self, id: PathId, up: bool) -> Result<bool, Error> {
        let path = self.paths.iter_mut().find(|path| path.config.id == id).ok_or(Error::BadPath)?;
        let changed = path.up != up;
        path.up = up;
        Ok(changed)
    }

    /// Sets a path's MTU; what it is then, if that is a change.
    pub(crate) fn set_mtu(&mut self, id: PathId, mtu: u16) -> Result<Option<u16>, Error> {
        let path = self.paths.iter_mut().find(|path| path.config.id == id).ok_or(Error::BadPath)?;
        let mtu = mtu.max(MTU_MIN);
        let before = core::mem::replace(&mut path.config.mtu, mtu);
        Ok((before != mtu).then_some(mtu))
    }

    fn all_addrs(&self) -> impl Iterator<Item = (&Path, &Addr)> {
        self.paths.iter().flat_map(|path| path.addrs.iter().map(move |addr| (path, addr)))
    }

    /// Whether an address is ours, on whatever path (the weak host model).
    pub(crate) fn owns(&self, addr: IpAddr) -> bool {
        self.all_addrs().any(|(_, ours)| ours.cidr.addr == addr)
    }

    /// Whether an address can be that of a single host elsewhere, which alone can be a peer (RFC 9293 §3.9.1.1, §3.9.2.3):
    /// not the unspecified one, no multicast, no broadcast, that of one of our networks included.
    pub(crate) fn may_be_peer(&self, addr: IpAddr) -> bool {
        let nobody = match addr {
            IpAddr::V4(addr) => addr.is_broadcast(),
            IpAddr::V6(addr) => addr.to_ipv4_mapped().is_some(),
        };
        let single = !(nobody || addr.is_unspecified() || addr.is_multicast());
        single && !self.all_addrs().any(|(_, ours)| ours.cidr.is_broadcast(addr))
    }

    /// Whether an address is ours, on a path that is up.
    pub(crate) fn is_up(&self, addr: IpAddr) -> bool {
        self.all_addrs().any(|(path, ours)| path.up && ours.cidr.addr == addr)
    }

    /// The path that owns an address.
    pub(crate) fn owner(&self, addr: IpAddr) -> Option<PathId> {
        self.all_addrs().find(|(_, ours)| ours.cidr.addr == addr).map(|(path, _)| path.config.id)
    }

    /// Endpoint identifier of an address of ours.
    pub(crate) fn endpoint_id(&self, addr: IpAddr) -> Option<u8> {
        self.all_addrs().find(|(_, ours)| ours.cidr.addr == addr).map(|(_, ours)| ours.id)
    }

    /// Whether subflows on an address of ours are to be used as backups.
    pub(crate) fn wants_backup(&self, addr: IpAddr) -> bool {
        let found = self.all_addrs().find(|(_, ours)| ours.cidr.addr == addr);
        found.is_some_and(|(path, ours)| path.endpoint(ours).flags.backup)
    }

    /// Everything that the path manager may use.
    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        self.all_addrs().map(|(path, addr)| path.endpoint(addr)).collect()
    }

    /// The endpoints of one path.
    pub(crate) fn endpoints_of(&self, id: PathId) -> Vec<Endpoint> {
        let mut endpoints = self.endpoints();
        endpoints.retain(|endpoint| endpoint.path == id);
        endpoints
    }

    /// Whether an address of another can be joined: neither ours, nor where nobody or everybody is (RFC 8684 §5). Those of
    /// one link (RFC 3927, RFC 4291 §2.5.6) mean something else on each, and an announcement does not say which is meant.
    pub(crate) fn may_join(&self, addr: IpAddr) -> bool {
        let local = match addr {
            IpAddr::V4(addr) => addr.is_loopback() || addr.is_link_local() || matches!(addr.octets()[0], 0 | 240..),
            IpAddr::V6(addr) => addr.is_loopback() || addr.is_unicast_link_local(),
        };
        self.may_be_peer(addr) && !local && !self.owns(addr)
    }

    /// What a subflow on this path has to know of it.
    pub(crate) fn link(&self, id: PathId) -> Option<Link> {
        self.paths.iter().find(|path| path.config.id == id).map(|path| Link {
            path: id,
            mtu: path.config.mtu,
            gso_max: path.config.gso_max,
            cost: path.config.cost,
        })
    }

    /// Path and source address towards `remote`: the longest prefix, then paths with a gateway or
    /// point-to-point, then cost, then order.
    pub(crate) fn route(&self, remote: IpAddr) -> Option<(PathId, IpAddr)> {
        let candidates = self.paths.iter().filter(|path| path.up).flat_map(|path| {
            let family = move |ours: &&Addr| ours.cidr.addr.is_ipv4() == remote.is_ipv4();
            path.addrs.iter().filter(family).map(move |ours| {
                let on_link = ours.cidr.contains(remote).then_some(ours.cidr.prefix);
                let beyond = path.config.point_to_point
                    || path.config.gateways.iter().any(|gateway| gateway.is_ipv4() == remote.is_ipv4());
                (path, ours, on_link, beyond)
            })
        });
        candidates
            .filter(|(_, _, on_link, beyond)| on_link.is_some() || *beyond)
            // A flag that keeps a path for backup keeps the first subflow off it, too.
            .min_by_key(|(path, ours, on_link, _)| {
                (core::cmp::Reverse(on_link.unwrap_or(0)), ours.flags.backup, path.config.cost)
            })
            .map(|(path, ours, _, _)| (path.config.id, ours.cidr.addr))
    }
}
