//! Addresses, MTU and MPTCP's endpoints: the stack's paths.
//!
//! They are those of `tun0` in the calling process's namespace, before them those that the tool was told. Each address
//! is a path of its own, so that each can have its own flags.

use std::env;
use std::ffi::CStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anabranch_core::{EndpointFlags, IpCidr, Limits, PathConfig, Shard};
use anabranch_frame::{Instant, PathId};

use crate::netlink::{self, MptcpEndpoint};

/// The device whose addresses are ours.
const DEVICE: &CStr = c"tun0";
/// Its MTU when nobody says otherwise.
const MTU: u16 = 1500;

/// What the stack has for a network.
#[derive(Debug, Default)]
pub(crate) struct Network {
    told: Told,
    addrs: Vec<IpAddr>,
    endpoints: Vec<MptcpEndpoint>,
    limits: Limits,
    mtu: u16,
    /// The MTU of `tun0` in the beginning, if there is such a device.
    device_mtu: Option<u16>,
    paths: Vec<Path>,
}

/// What the tool was told on its command line.
#[derive(Debug, Default)]
struct Told {
    local: Vec<IpAddr>,
    mtu: Option<u16>,
}

#[derive(Debug)]
struct Path {
    id: PathId,
    addr: IpAddr,
    up: bool,
}

impl Network {
    /// From the text of `--so_flags`, `name=value` with anything between them, and the tool's own options.
    pub(crate) fn from_flags(flags: &str) -> Self {
        let mut told = Told::default();
        let args: Vec<String> = env::args().skip(1).take_while(|arg| arg.starts_with('-')).collect();
        for word in flags.split([' ', ',', ';', '\n']).chain(args.iter().map(String::as_str)) {
            let Some((name, value)) = word.trim_start_matches('-').split_once('=') else { continue };
            match name {
                "local_ip" => told.local.extend(value.split('/').next().and_then(|ip| ip.parse::<IpAddr>().ok())),
                "mtu" => told.mtu = told.mtu.or(value.parse().ok()),
                _ => {}
            }
        }
        Self { told, device_mtu: device_mtu(), ..Self::default() }
    }

    /// Reads the namespace again.
    pub(crate) fn refresh(&mut self) {
        let mut addrs = self.told.local.clone();
        addrs.extend(device_addresses());
        let mut seen = Vec::new();
        addrs.retain(|addr| {
            let new = !seen.contains(addr);
            seen.push(*addr);
            new
        });
        self.addrs = addrs;
        (self.endpoints, self.limits) = netlink::mptcp().unwrap_or_default();
        // The kernel announces an endpoint whether the address is a device's or not.
        for endpoint in &self.endpoints {
            if !self.addrs.contains(&endpoint.addr) {
                self.addrs.push(endpoint.addr);
            }
        }
        // A script that gives the device another MTU means it.
        let device = device_mtu();
        let told = self.told.mtu.filter(|_| device == self.device_mtu);
        self.mtu = told.or(device).unwrap_or(MTU);
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// The stack is a new one.
    pub(crate) fn forget_paths(&mut self) {
        self.paths.clear();
    }

    /// Makes the stack's paths what the network is.
    pub(crate) fn tell(&mut self, now: Instant, shard: &mut Shard) {
        for path in &mut self.paths {
            let up = self.addrs.contains(&path.addr);
            if core::mem::replace(&mut path.up, up) != up {
                // The path exists, so this cannot fail.
                let _ = shard.set_path_up(now, path.id, up);
            }
            let _ = shard.set_path_mtu(path.id, self.mtu);
        }
        for addr in self.addrs.clone() {
            self.add(now, shard, addr);
        }
    }

    fn add(&mut self, now: Instant, shard: &mut Shard, addr: IpAddr) {
        if self.paths.iter().any(|path| path.addr == addr) {
            return;
        }
        let id = PathId(self.paths.len() as u16);
        let endpoint = self.endpoints.iter().find(|endpoint| endpoint.addr == addr);
        let config = PathConfig {
            name: format!("tun0/{addr}"),
            mtu: self.mtu,
            // Super-segments are cut up again on the way out, but decide, as in the kernel, where PSH is.
            gso_max: 65_535,
            // An address that is no endpoint has an identifier, too, far from those that scripts expect.
            endpoint_id: endpoint.map_or(u8::MAX - id.0 as u8, |endpoint| endpoint.id),
            flags: endpoint.map_or(EndpointFlags::default(), |endpoint| endpoint.flags),
            cost: u32::from(id.0),
            ..PathConfig::new(id, IpCidr::new(addr, if addr.is_ipv4() { 32 } else { 128 }).into_iter().collect())
        };
        if shard.add_path(now, config).is_ok() {
            self.paths.push(Path { id, addr, up: true });
        }
    }

    /// A packet came in for an address, or a socket is bound to one: ours, if we have not heard of any of its family.
    pub(crate) fn adopt(&mut self, now: Instant, shard: &mut Shard, addr: IpAddr) {
        let stranger = !addr.is_unspecified() && !self.addrs.iter().any(|ours| ours.is_ipv4() == addr.is_ipv4());
        if stranger {
            self.told.local.push(addr);
            self.addrs.push(addr);
            self.add(now, shard, addr);
        }
    }

    pub(crate) fn adopt_destination(&mut self, now: Instant, shard: &mut Shard, packet: &[u8]) {
        if let Some(addr) = destination(packet) {
            self.adopt(now, shard, addr);
        }
    }

    /// The path that a packet comes in on: that of its destination.
    pub(crate) fn path_of_packet(&self, packet: &[u8]) -> PathId {
        let addr = destination(packet);
        self.paths.iter().find(|path| Some(path.addr) == addr).map_or(PathId(0), |path| path.id)
    }
}

fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(16..20)?).ok()?))),
        6 => Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(24..40)?).ok()?))),
        _ => None,
    }
}

/// The device's addresses, without those that only hold on a link.
fn device_addresses() -> Vec<IpAddr> {
    let mut list = core::ptr::null_mut();
    // SAFETY: writes a list that is given back below.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Vec::new();
    }
    let (mut addrs, mut next) = (Vec::new(), list);
    // SAFETY: the C library's list ends in a null pointer; its names are strings, its addresses are null or complete.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        // SAFETY: as above.
        if unsafe { CStr::from_ptr(entry.ifa_name) } != DEVICE || entry.ifa_addr.is_null() {
            continue;
        }
        // SAFETY: as above, and the family says how long the address is.
        match i32::from(unsafe { (*entry.ifa_addr).sa_family }) {
            libc::AF_INET => {
                // SAFETY: as above.
                let addr = unsafe { (*entry.ifa_addr.cast::<libc::sockaddr_in>()).sin_addr.s_addr };
                addrs.push(IpAddr::V4(Ipv4Addr::from(u32::from_be(addr))));
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let addr = unsafe { (*entry.ifa_addr.cast::<libc::sockaddr_in6>()).sin6_addr.s6_addr };
                addrs.push(IpAddr::V6(Ipv6Addr::from(addr)));
            }
            _ => {}
        }
    }
    // SAFETY: from `getifaddrs`, and not used any more.
    unsafe { libc::freeifaddrs(list) };
    addrs.retain(|addr| !matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local()));
    addrs
}

/// The device's MTU, if there is such a device.
fn device_mtu() -> Option<u16> {
    // SAFETY: takes numbers only.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return None;
    }
    // SAFETY: all-zero bytes are a valid value.
    let mut request: libc::ifreq = unsafe { core::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(DEVICE.to_bytes()) {
        *to = *from as libc::c_char;
    }
    // SAFETY: the request is what this call reads and fills in.
    let done = unsafe { libc::ioctl(socket, libc::SIOCGIFMTU, &raw mut request) } == 0;
    crate::handle::close_descriptor(socket).ok()?;
    // SAFETY: a number, whatever it is.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    done.then_some(mtu as u16)
}
