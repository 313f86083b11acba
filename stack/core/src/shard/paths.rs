//! The stack's paths: which addresses are ours, and which path leads where.

use alloc::vec::Vec;
use core::net::IpAddr;

use anabranch_frame::PathId;

use crate::Error;
use crate::config::{Endpoint, EndpointFlags, PathConfig};
use crate::tcp::Link;

#[derive(Debug)]
struct Path {
    config: PathConfig,
    /// Endpoint identifiers of `config.addrs`.
    ids: Vec<u8>,
    up: bool,
}

/// All paths of this worker's stack.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    paths: Vec<Path>,
}

/// Smallest MTU that a path may have (RFC 791).
const MTU_MIN: u16 = 576;

impl Paths {
    pub(crate) fn add(&mut self, mut config: PathConfig) -> Result<(), Error> {
        if self.paths.iter().any(|path| path.config.id == config.id) {
            return Err(Error::BadPath);
        }
        config.mtu = config.mtu.max(MTU_MIN);
        let mut ids = Vec::with_capacity(config.addrs.len());
        for index in 0..config.addrs.len() {
            let wanted = if index == 0 { config.endpoint_id } else { 0 };
            let taken = |id: u8| ids.contains(&id) || self.paths.iter().any(|path| path.ids.contains(&id));
            let id = if wanted != 0 && !taken(wanted) { Some(wanted) } else { (1..=u8::MAX).find(|&id| !taken(id)) };
            ids.push(id.ok_or(Error::BadPath)?);
        }
        self.paths.push(Path { config, ids, up: true });
        Ok(())
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

    fn all_addrs(&self) -> impl Iterator<Item = (&Path, usize, IpAddr)> {
        self.paths
            .iter()
            .flat_map(|path| path.config.addrs.iter().enumerate().map(move |(index, cidr)| (path, index, cidr.addr)))
    }

    /// Whether an address is ours, on whatever path (the weak host model).
    pub(crate) fn owns(&self, addr: IpAddr) -> bool {
        self.all_addrs().any(|(_, _, ours)| ours == addr)
    }

    /// The path that owns an address.
    pub(crate) fn owner(&self, addr: IpAddr) -> Option<PathId> {
        self.all_addrs().find(|(_, _, ours)| *ours == addr).map(|(path, _, _)| path.config.id)
    }

    /// Endpoint identifier of an address of ours.
    pub(crate) fn endpoint_id(&self, addr: IpAddr) -> Option<u8> {
        self.all_addrs().find(|(_, _, ours)| *ours == addr).map(|(path, index, _)| path.ids[index])
    }

    /// Everything that the path manager may use.
    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        self.all_addrs()
            .map(|(path, index, addr)| Endpoint {
                id: path.ids[index],
                addr,
                prefix: path.config.addrs[index].prefix,
                path: path.config.id,
                flags: path.config.flags,
                up: path.up,
            })
            .collect()
    }

    /// The endpoints of one path.
    pub(crate) fn endpoints_of(&self, id: PathId) -> Vec<Endpoint> {
        let mut endpoints = self.endpoints();
        endpoints.retain(|endpoint| endpoint.path == id);
        endpoints
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
            path.config.addrs.iter().filter(move |cidr| cidr.addr.is_ipv4() == remote.is_ipv4()).map(move |cidr| {
                let on_link = cidr.contains(remote).then_some(cidr.prefix);
                let beyond = path.config.point_to_point
                    || path.config.gateways.iter().any(|gateway| gateway.is_ipv4() == remote.is_ipv4());
                (path, cidr.addr, on_link, beyond)
            })
        });
        candidates
            .filter(|(_, _, on_link, beyond)| on_link.is_some() || *beyond)
            // A flag that keeps a path for backup keeps the first subflow off it, too.
            .min_by_key(|(path, _, on_link, _)| {
                let EndpointFlags { backup, .. } = path.config.flags;
                (core::cmp::Reverse(on_link.unwrap_or(0)), backup, path.config.cost)
            })
            .map(|(path, addr, _, _)| (path.config.id, addr))
    }
}
