//! Opening the devices of a path, as its specification says.

use std::net::IpAddr;

use anabranch_core::{IpCidr, PathConfig};
use anabranch_drivers::packet::{Packet, PacketConfig};
use anabranch_drivers::pcap::{Capture, Pcap};
#[cfg(feature = "pnet")]
use anabranch_drivers::pnet::Pnet;
#[cfg(feature = "tun-tap")]
use anabranch_drivers::tun_tap::TunTap;
use anabranch_drivers::{Device, Network, Tun, TunConfig};
use anabranch_frame::{HEADER_MAX, PathId};

use crate::{Driver, Error, PathSpec};

/// A path and its devices, one for each worker.
pub(crate) struct Opened {
    pub(crate) config: PathConfig,
    pub(crate) queues: Vec<Box<dyn Device>>,
}

/// Opens what a specification names. `also` are the addresses of the stack's other paths.
pub(crate) fn open_spec(path: PathId, spec: &PathSpec, workers: usize, also: Vec<IpAddr>) -> Result<Opened, Error> {
    let queues = match spec.driver {
        Driver::Tun => boxed(Tun::open(&tun_config(path, spec, workers))),
        Driver::Packet => boxed(Packet::open(&packet_config(path, spec, workers, also))),
        #[cfg(feature = "tun-tap")]
        Driver::TunTap => boxed(TunTap::open(&tun_config(path, spec, 1)).map(|queue| vec![queue])),
        #[cfg(feature = "pnet")]
        Driver::Pnet => boxed(Pnet::open(&packet_config(path, spec, 1, also)).map(|queue| vec![queue])),
        #[cfg(not(all(feature = "tun-tap", feature = "pnet")))]
        driver => {
            let problem = format!("the driver '{driver}' is not built in: build with `--features {driver}`");
            return Err(Error::Path { name: spec.name.clone(), problem });
        }
    };
    let queues = queues.map_err(|source| Error::Device { name: spec.name.clone(), source })?;
    let mut config = PathConfig::new(path, spec.addrs.clone());
    config.name.clone_from(&spec.name);
    config.gateways.clone_from(&spec.gateways);
    config.endpoint_id = spec.id.unwrap_or(0);
    config.flags = spec.flags;
    config.port = spec.port;
    config.cost = spec.cost;
    config.point_to_point = spec.driver.makes_interface();
    Ok(Opened { config, queues })
}

fn boxed<D, E>(opened: Result<Vec<D>, E>) -> std::io::Result<Vec<Box<dyn Device>>>
where
    D: Device + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    let queues = opened.map_err(std::io::Error::other)?;
    Ok(queues.into_iter().map(|queue| Box::new(queue) as Box<dyn Device>).collect())
}

fn tun_config(path: PathId, spec: &PathSpec, workers: usize) -> TunConfig {
    let host_of = |addr: IpAddr| spec.hosts.iter().copied().find(|host| host.is_ipv4() == addr.is_ipv4());
    let network = |cidr: &IpCidr| Network { address: cidr.addr, prefix: cidr.prefix, host: host_of(cidr.addr) };
    TunConfig {
        queues: workers,
        mtu: spec.mtu,
        offload: spec.offload,
        networks: spec.addrs.iter().map(network).collect(),
        ..TunConfig::new(&spec.name, path)
    }
}

fn packet_config(path: PathId, spec: &PathSpec, workers: usize, also: Vec<IpAddr>) -> PacketConfig {
    PacketConfig {
        queues: workers,
        mtu: spec.mtu,
        offload: spec.offload,
        addresses: spec.addrs.iter().map(|cidr| (cidr.addr, cidr.prefix)).collect(),
        gateways: spec.gateways.clone(),
        also,
        ..PacketConfig::new(&spec.name, path)
    }
}

/// Makes the configuration and the devices of a path fit each other.
pub(crate) fn fit(path: PathId, opened: Opened, workers: usize, capture: Option<&Capture>) -> Result<Opened, Error> {
    let Opened { mut config, mut queues } = opened;
    let problem = |config: &PathConfig, problem| Err(Error::Path { name: config.name.clone(), problem });
    let Some(capabilities) = queues.first().filter(|_| queues.len() == workers).map(Device::capabilities) else {
        return problem(&config, format!("{} devices for {workers} workers: give one for each", queues.len()));
    };
    if let Some(queue) = queues.iter().find(|queue| queue.path() != path) {
        return problem(&config, format!("its device says {}, but it is {path}", queue.path()));
    }
    config.id = path;
    config.mtu = capabilities.mtu;
    // A super-segment's payload is what its header leaves.
    let room = capabilities.max_len.saturating_sub(HEADER_MAX as u32);
    config.gso_max = if capabilities.max_len > u32::from(capabilities.mtu) { room } else { 0 };
    if let Some(capture) = capture {
        queues = queues.into_iter().map(|device| Box::new(Pcap::new(device, capture)) as Box<dyn Device>).collect();
    }
    Ok(Opened { config, queues })
}
