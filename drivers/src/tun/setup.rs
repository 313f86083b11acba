//! Making, adopting and configuring the interface.

use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netlink_packet_route::link::LinkAttribute;
use parking_lot::Mutex;
use rustix::io::Errno;

use super::error::{OpenError, is_not_permitted};
use super::{Network, TunConfig, TunQueue, sys};
use crate::netlink::{Link, Netlink, network};

/// Packets that wait for us in the kernel at least: a burst of ACKs is not to overflow it.
const TX_QUEUE_LEN: u32 = 1_000;
/// Longest wait for an address that was given to the kernel's side.
const LOCAL_WITHIN: Duration = Duration::from_secs(1);
/// Smallest MTU of IPv4 (RFC 791) and of IPv6 (RFC 8200 §5).
const MTU_LEAST: [u16; 2] = [68, 1_280];

pub(super) fn open(config: &TunConfig) -> Result<Vec<TunQueue>, OpenError> {
    check(config)?;
    let mut netlink = Netlink::open().map_err(|source| system(config, "opening a netlink socket", source))?;
    let existing = find(config, &mut netlink, &config.name)?;
    let (fds, name) = attach(config, existing.as_ref())?;
    let link = find(config, &mut netlink, &name)?
        .ok_or_else(|| system(config, "looking for the interface", Errno::NODEV.into()))?;
    let link = configure(config, &mut netlink, link, existing.is_some())?;
    let netlink = Arc::new(Mutex::new(netlink));
    Ok(fds.into_iter().map(|fd| TunQueue::new(fd, config, &link, Arc::clone(&netlink))).collect())
}

pub(crate) fn system(config: &TunConfig, doing: &'static str, source: io::Error) -> OpenError {
    OpenError::System { name: config.name.clone(), doing, source }
}

pub(crate) fn find(config: &TunConfig, netlink: &mut Netlink, name: &str) -> Result<Option<Link>, OpenError> {
    netlink.link_by_name(name).map_err(|source| system(config, "looking for the interface", source))
}

/// Refuses what the kernel would refuse with less to say.
pub(crate) fn check(config: &TunConfig) -> Result<(), OpenError> {
    let name = &config.name;
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c == '\0';
    if name.is_empty() || name.len() > 15 || name.chars().any(bad) || name == "." || name == ".." {
        return Err(OpenError::BadName { name: name.clone() });
    }
    for &Network { address, prefix, host } in &config.networks {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let fits = |host: IpAddr| host.is_ipv4() == address.is_ipv4() && host != address;
        if prefix > bits || !host.is_none_or(fits) {
            return Err(OpenError::BadNetwork { name: name.clone(), address, prefix, host });
        }
    }
    let least = MTU_LEAST[usize::from(config.networks.iter().any(|network| network.address.is_ipv6()))];
    match config.mtu {
        Some(mtu) if mtu < least => Err(OpenError::BadMtu { name: name.clone(), mtu, least }),
        _ => Ok(()),
    }
}

/// Opens all queues; returns them with the interface's name.
fn attach(config: &TunConfig, existing: Option<&Link>) -> Result<(Vec<OwnedFd>, String), OpenError> {
    if existing.is_some_and(|link| !link.is_tun) {
        return Err(OpenError::NotTun { name: config.name.clone() });
    }
    let queues = config.queues.max(1);
    let mut multi_queue = queues > 1;
    let mut first = sys::attach(&config.name, multi_queue, config.offload);
    if let Err(error) = &first
        && existing.is_some()
        && !multi_queue
        && error.raw_os_error() == Some(Errno::INVAL.raw_os_error())
    {
        // One queue of an interface that could have more.
        multi_queue = true;
        first = sys::attach(&config.name, multi_queue, config.offload);
    }
    let (fd, name) = first.map_err(|error| explain(config, existing, error))?;
    let mut fds = vec![fd];
    for _ in 1..queues {
        let (fd, _) =
            sys::attach(&name, multi_queue, config.offload).map_err(|error| explain(config, existing, error))?;
        fds.push(fd);
    }
    Ok((fds, name))
}

/// What an error of opening or attaching means.
pub(crate) fn explain(config: &TunConfig, existing: Option<&Link>, source: io::Error) -> OpenError {
    let name = config.name.clone();
    match source.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT | Errno::NODEV | Errno::NXIO) => OpenError::NoDriver { source },
        Some(Errno::PERM | Errno::ACCESS) => {
            let flags = if config.queues > 1 { " multi_queue" } else { "" };
            let mut more = String::new();
            for Network { prefix, host, .. } in &config.networks {
                if let Some(host) = host {
                    let _ = write!(more, ", `sudo ip addr add {host}/{prefix} dev {name}`");
                }
            }
            let _ = write!(more, " and `sudo ip link set dev {name} up`");
            OpenError::NoPermission { name, flags, more, source }
        }
        Some(Errno::BUSY) => OpenError::Busy { name },
        Some(Errno::INVAL) if existing.is_some() && config.queues > 1 => {
            OpenError::NotMultiQueue { name, queues: config.queues }
        }
        Some(Errno::TOOBIG) => OpenError::NotMultiQueue { name, queues: config.queues },
        Some(Errno::INVAL) if existing.is_some() => OpenError::NotTun { name },
        _ => OpenError::System { name, doing: "attaching to it", source },
    }
}

/// Sets what is not yet as it should be, and returns what the interface is like then.
pub(crate) fn configure(
    config: &TunConfig,
    netlink: &mut Netlink,
    mut link: Link,
    adopted: bool,
) -> Result<Link, OpenError> {
    let name = link.name.clone();
    let setting = |what: String, cure: String| {
        let name = name.clone();
        move |source| OpenError::Setting { what, name, cure, source }
    };

    if let Some(mtu) = config.mtu
        && u32::from(mtu) != link.mtu
    {
        netlink
            .set_attribute(link.index, LinkAttribute::Mtu(mtu.into()))
            .map_err(setting(format!("the MTU {mtu}"), format!("try `sudo ip link set dev {name} mtu {mtu}`")))?;
        link.mtu = mtu.into();
    }
    if link.tx_queue_len < TX_QUEUE_LEN {
        match netlink.set_attribute(link.index, LinkAttribute::TxQueueLen(TX_QUEUE_LEN)) {
            Err(error) if adopted && is_not_permitted(&error) => {}
            result => result.map_err(setting(
                format!("the transmit queue length {TX_QUEUE_LEN}"),
                format!("try `sudo ip link set dev {name} txqueuelen {TX_QUEUE_LEN}`"),
            ))?,
        }
    }
    if !adopted {
        // A kernel without IPv6 does not know how, and need not.
        let _ = netlink.no_link_local(link.index);
    }

    let present = netlink.addresses(link.index).map_err(|source| system(config, "listing its addresses", source))?;
    for network in &config.networks {
        if let Some(host) = network.host.filter(|&host| present.iter().all(|&(addr, _)| addr != host)) {
            netlink.add_address(link.index, host, network.prefix).map_err(setting(
                format!("the address {host}/{}", network.prefix),
                address_cure(&name, network, host),
            ))?;
        }
    }
    if !link.admin_up {
        netlink
            .set_up(link.index, true)
            .map_err(setting("the state `up`".into(), format!("try `sudo ip link set dev {name} up`")))?;
    }
    config.networks.iter().filter_map(|network| network.host).for_each(|host| wait_until_local(netlink, host));
    for network in config.networks.iter().filter(|network| needs_route(network)) {
        // Next to a host address with a full prefix only our own address is on this link.
        let destination = self::network(network.address, network.prefix);
        match netlink.add_route(link.index, destination, network.prefix) {
            // Who prepared the interface also saw to the routes.
            Err(error) if adopted && is_not_permitted(&error) => {}
            result => result.map_err(setting(
                format!("the route to {destination}/{}", network.prefix),
                format!("try `sudo ip route add {destination}/{} dev {name}`", network.prefix),
            ))?,
        }
    }
    Ok(link)
}

/// Waits until the kernel takes in what is sent to an address of its side: it sees to IPv6 addresses when it finds the time, and
/// until then it would forward our answers, or drop them. Not longer than that can take on a busy machine.
fn wait_until_local(netlink: &mut Netlink, host: IpAddr) {
    let deadline = Instant::now() + LOCAL_WITHIN;
    // Where it may not be asked there is nothing to wait for.
    while netlink.is_local(host).is_ok_and(|local| !local) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether the address of the kernel's side, by itself, does not make the kernel send to the stack's address.
fn needs_route(of: &Network) -> bool {
    of.host.is_none_or(|host| network(host, of.prefix) != network(of.address, of.prefix))
}

fn address_cure(name: &str, network: &Network, host: IpAddr) -> String {
    let cure = format!("try `sudo ip addr add {host}/{} dev {name}`", network.prefix);
    match host {
        IpAddr::V4(_) => cure,
        IpAddr::V6(_) => cure + "; if IPv6 is disabled here, `sudo sysctl net.ipv6.conf.all.disable_ipv6=0` first",
    }
}
