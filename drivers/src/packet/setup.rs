//! Checking what is asked for, and opening the queues.

use std::net::IpAddr;

use super::error::OpenError;
use super::queue::PacketQueue;
use super::wire::{Selection, Wire, WireConfig};
use super::{PacketConfig, filter};
use crate::ether::{Mac, Station, solicited_node_mac};
use crate::netlink::{Netlink, network};

/// Smallest MTU of IPv4 (RFC 791) and of IPv6 (RFC 8200 §5).
const MTU_LEAST: [u16; 2] = [68, 1_280];

/// What is settled about a device before its wire is opened.
pub(crate) struct Prepared {
    /// The Ethernet address to take instead of the interface's.
    pub(crate) private: Option<Mac>,
    /// What the wire is to receive.
    pub(super) selection: Selection,
}

/// Checks what is asked for.
pub(crate) fn prepare(config: &PacketConfig) -> Result<Prepared, OpenError> {
    check(config)?;
    let mut netlink = Netlink::open().map_err(system(config, "opening a netlink socket"))?;
    check_owner(config, &mut netlink)?;
    let private = forwards(config).then(|| private_mac(config));
    let mut memberships: Vec<Mac> = private.into_iter().collect();
    memberships.extend(config.addresses.iter().filter_map(|(addr, _)| match addr {
        IpAddr::V4(_) => None,
        IpAddr::V6(addr) => Some(solicited_node_mac(*addr)),
    }));
    let accepted = config.addresses.iter().map(|(addr, _)| *addr).chain(config.also.iter().copied());
    let filter = filter::program(&accepted.collect::<Vec<_>>());
    Ok(Prepared { private, selection: Selection { memberships, filter } })
}

/// Checks the MTU that is asked for against the interface's.
pub(crate) fn check_mtu(config: &PacketConfig, mtu: u32) -> Result<(), OpenError> {
    let least = MTU_LEAST[usize::from(config.addresses.iter().any(|(addr, _)| addr.is_ipv6()))];
    match config.mtu {
        Some(asked) if asked < least || u32::from(asked) > mtu => {
            Err(OpenError::BadMtu { name: config.name.clone(), asked, mtu, least })
        }
        _ => Ok(()),
    }
}

pub(super) fn open(config: &PacketConfig) -> Result<Vec<PacketQueue>, OpenError> {
    let Prepared { private, selection } = prepare(config)?;
    let wire = WireConfig {
        queues: config.queues,
        reception: config.reception,
        buffer_bytes: config.buffer_bytes,
        offload: config.offload,
        qdisc_bypass: config.qdisc_bypass,
        ..WireConfig::new(&config.name)
    };
    let wires = Wire::open_selected(&wire, &selection)?;
    check_mtu(config, wires[0].mtu())?;
    let mac = private.unwrap_or(wires[0].mac());
    let stations = Station::for_queues(wires.len(), mac, &config.addresses, &config.gateways);
    let queues = wires.into_iter().zip(stations).enumerate();
    Ok(queues
        .map(|(at, (wire, station))| PacketQueue::new(wire, station, config, private.is_some(), at == 0))
        .collect())
}

fn system(config: &PacketConfig, doing: &'static str) -> impl FnOnce(std::io::Error) -> OpenError {
    let name = config.name.clone();
    move |source| OpenError::System { name, doing, source }
}

fn check(config: &PacketConfig) -> Result<(), OpenError> {
    let name = || config.name.clone();
    for &(address, prefix) in &config.addresses {
        if prefix > if address.is_ipv4() { 32 } else { 128 } {
            return Err(OpenError::BadPrefix { name: name(), address, prefix });
        }
    }
    for &gateway in &config.gateways {
        let near = |&(ours, prefix): &(IpAddr, u8)| {
            ours.is_ipv4() == gateway.is_ipv4() && network(ours, prefix) == network(gateway, prefix)
        };
        let link_local = matches!(gateway, IpAddr::V6(gateway) if gateway.is_unicast_link_local());
        if !link_local && !config.addresses.iter().any(near) {
            return Err(OpenError::BadGateway { name: name(), gateway });
        }
    }
    Ok(())
}

/// Refuses addresses that the kernel has, on whatever interface: it answers for all of them on all.
fn check_owner(config: &PacketConfig, netlink: &mut Netlink) -> Result<(), OpenError> {
    let owned = netlink.all_addresses().map_err(system(config, "listing the host's addresses"))?;
    for &(address, _) in &config.addresses {
        if let Some(&(index, _, prefix)) = owned.iter().find(|(_, addr, _)| *addr == address) {
            let owner = netlink.link_by_index(index).ok().flatten().map_or_else(|| "?".into(), |link| link.name);
            return Err(OpenError::KernelOwns { name: config.name.clone(), address, prefix, owner });
        }
    }
    Ok(())
}

/// Whether the kernel forwards what comes in on the interface: then it must not believe that our packets are
/// for it to forward.
fn forwards(config: &PacketConfig) -> bool {
    ["ipv4", "ipv6"].into_iter().any(|family| {
        let file = format!("/proc/sys/net/{family}/conf/{}/forwarding", config.name);
        std::fs::read_to_string(file).is_ok_and(|text| text.trim() == "1")
    })
}

/// A locally administered address that is the same for the same addresses on every start.
fn private_mac(config: &PacketConfig) -> Mac {
    // FNV-1a: it has to be even, not secret.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        bytes.iter().for_each(|byte| hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    };
    add(config.name.as_bytes());
    for (addr, _) in &config.addresses {
        match addr {
            IpAddr::V4(addr) => add(&addr.octets()),
            IpAddr::V6(addr) => add(&addr.octets()),
        }
    }
    let [a, b, c, d, e, ..] = hash.to_le_bytes();
    [0x02, a, b, c, d, e]
}
