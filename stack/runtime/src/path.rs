//! What a path is: `DRIVER:IFNAME,addr=CIDR[,…]` on a command line, `[[path]]` in a file.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::str::FromStr;

use anabranch_core::{EndpointFlags, IpCidr};

#[cfg(feature = "serde")]
mod file;
#[cfg(test)]
mod tests;

/// A right specification, shown with every complaint about a wrong one.
const EXAMPLE: &str = "tun:ab0,addr=10.9.0.2/24,host=10.9.0.1";
const KEYS: &str = "addr, host, gw, mtu, id, cost, offload, port, signal, subflow, backup, fullmesh, laminar";
const DRIVERS: &str = "tun, packet, tun-tap, pnet";
/// `IFNAMSIZ` without its final zero.
const IFNAME_MAX: usize = 15;
/// Every host must take 576 bytes (RFC 791) or, on IPv6, 1280 (RFC 8200 §5).
const MTU_MIN: u16 = 576;
const MTU_MIN_V6: u16 = 1280;

/// What moves a path's packets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Driver {
    /// A TUN device: created with `host` on the kernel's side, or adopted if it exists.
    Tun,
    /// An existing interface's wire, with an address of our own on it.
    Packet,
    /// As [`Tun`](Self::Tun), through the crate `tun-tap`: one worker, slow. Needs the feature of that name.
    TunTap,
    /// As [`Packet`](Self::Packet), through the crate `pnet_datalink`: one worker, slow. Needs the feature `pnet`.
    Pnet,
}

impl Driver {
    /// The word on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tun => "tun",
            Self::Packet => "packet",
            Self::TunTap => "tun-tap",
            Self::Pnet => "pnet",
        }
    }
}

impl Driver {
    /// Whether the kernel is at the other end of the interface, which the driver makes.
    pub(crate) fn makes_interface(self) -> bool {
        matches!(self, Self::Tun | Self::TunTap)
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One path of a stack, as a person writes it:
/// `DRIVER:IFNAME,addr=CIDR[,host=IP][,gw=IP][,mtu=N][,id=N][,port=N][,signal][,subflow][,backup][,fullmesh][,laminar][,cost=N][,offload=on|off]`.
///
/// `addr`, `host` and `gw` may be given twice, once for IPv4 and once for IPv6. [`FromStr`] reads
/// this form, [`Display`](fmt::Display) writes it, and with the feature `serde` the same words are the
/// keys of a table in a file:
///
/// ```toml
/// [[path]]
/// driver = "tun"
/// name = "ab0"
/// addr = ["10.9.0.2/24", "fd00:9::2/64"]
/// host = ["10.9.0.1", "fd00:9::1"]
/// signal = true
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathSpec {
    /// What moves the packets.
    pub driver: Driver,
    /// Name of the interface, 1 to 15 bytes.
    pub name: String,
    /// Our addresses with their networks: one or two, of different families.
    pub addrs: Vec<IpCidr>,
    /// Addresses for the kernel's side of a TUN device, at most one a family.
    pub hosts: Vec<IpAddr>,
    /// Gateways to everything else, at most one a family.
    pub gateways: Vec<IpAddr>,
    /// Largest IP packet in bytes, at least 576, with IPv6 at least 1280; `None` for the device's own.
    pub mtu: Option<u16>,
    /// MPTCP address identifier, 1 to 255; `None` lets the stack choose.
    pub id: Option<u8>,
    /// What the path manager may do with the addresses, in the words of `ip mptcp endpoint`.
    pub flags: EndpointFlags,
    /// The port that is announced with the addresses; `None` for that of each connection.
    pub port: Option<NonZeroU16>,
    /// Preference among paths that lead to the same place: lower first.
    pub cost: u32,
    /// Whether the device may carry super-segments and unfinished checksums, where it can. On, unless the plain
    /// device is to be tested.
    pub offload: bool,
}

/// What is wrong with a path specification.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("path '{spec}': {problem}; a right one is {EXAMPLE}")]
pub struct PathSpecError {
    spec: String,
    problem: String,
}

impl PathSpec {
    /// A right specification, to be shown with complaints.
    pub const EXAMPLE: &str = EXAMPLE;

    /// A TUN path with one address and nothing else.
    #[must_use]
    pub fn tun(name: impl Into<String>, addr: IpCidr) -> Self {
        Self::new(Driver::Tun, name.into(), vec![addr])
    }

    fn new(driver: Driver, name: String, addrs: Vec<IpCidr>) -> Self {
        Self {
            driver,
            name,
            addrs,
            hosts: Vec::new(),
            gateways: Vec::new(),
            mtu: None,
            id: None,
            flags: EndpointFlags::default(),
            port: None,
            cost: 0,
            offload: true,
        }
    }

    /// Takes one `key` or `key=value` of the specification.
    fn set(&mut self, part: &str) -> Result<(), String> {
        let (key, value) = match part.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (part, None),
        };
        match (key, value) {
            (word, None) if self.flags.set(word, true) => {}
            ("signal" | "subflow" | "backup" | "fullmesh" | "laminar", Some(_)) => {
                return Err(format!("'{part}': {key} is a flag and takes no value"));
            }
            ("addr" | "host" | "gw" | "mtu" | "id" | "port" | "cost" | "offload", None | Some("")) => {
                return Err(format!("'{part}': {key} needs a value: {key}={}", example_of(key)));
            }
            ("addr", Some(value)) => self.addrs.push(parse(part, value, "an address with its prefix length", key)?),
            ("host", Some(value)) => self.hosts.push(parse(part, value, "an address", key)?),
            ("gw", Some(value)) => self.gateways.push(parse(part, value, "an address", key)?),
            ("mtu", Some(value)) => set_once(&mut self.mtu, part, parse(part, value, "a number of bytes", key)?)?,
            ("id", Some(value)) => set_once(&mut self.id, part, parse(part, value, "a number from 1 to 255", key)?)?,
            ("port", Some(value)) => {
                set_once(&mut self.port, part, parse(part, value, "a number from 1 to 65535", key)?)?;
            }
            ("cost", Some(value)) => self.cost = parse(part, value, "a number", key)?,
            ("offload", Some("on")) => self.offload = true,
            ("offload", Some("off")) => self.offload = false,
            ("offload", Some(_)) => return Err(format!("'{part}': give offload=on or offload=off")),
            ("", _) => return Err("there is an empty part between two commas".into()),
            _ => return Err(format!("unknown key '{key}'; known are {KEYS}")),
        }
        Ok(())
    }

    /// What must hold of a specification whatever it was read from.
    fn check(&self) -> Result<(), String> {
        check_name(&self.name)?;
        if self.addrs.is_empty() {
            return Err(format!("no address of ours: add addr={}", example_of("addr")));
        }
        one_per_family("addr", self.addrs.iter().map(|cidr| cidr.addr))?;
        one_per_family("host", self.hosts.iter().copied())?;
        one_per_family("gw", self.gateways.iter().copied())?;
        for cidr in &self.addrs {
            if cidr.addr.is_unspecified() || cidr.addr.is_multicast() || cidr.addr.is_loopback() {
                return Err(format!("addr={cidr} cannot be the address of a host"));
            }
        }
        for (key, addr) in self.hosts.iter().map(|addr| ("host", addr)).chain(self.gateways.iter().map(|a| ("gw", a))) {
            if !self.addrs.iter().any(|cidr| cidr.addr.is_ipv4() == addr.is_ipv4()) {
                return Err(format!("{key}={addr} has no addr= of its family beside it"));
            }
            if self.addrs.iter().any(|cidr| cidr.addr == *addr) {
                return Err(format!("{key}={addr} is the same as addr=: the other side needs its own address"));
            }
        }
        if let Some(host) = self.hosts.first().filter(|_| !self.driver.makes_interface()) {
            return Err(format!("host={host} is for tun: {} leaves the interface's addresses alone", self.driver));
        }
        self.flags.check(self.port)?;
        let v6 = self.addrs.iter().any(|cidr| cidr.addr.is_ipv6());
        let least = if v6 { MTU_MIN_V6 } else { MTU_MIN };
        match self.mtu {
            Some(mtu) if mtu < least => Err(format!("mtu={mtu} is less than {least} bytes")),
            _ if self.id == Some(0) => Err("id=0 is the initial subflow's: give 1 to 255".into()),
            _ => Ok(()),
        }
    }
}

fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("no interface name after the driver".into());
    }
    if name.len() > IFNAME_MAX {
        return Err(format!("interface name '{name}' has {} bytes; the limit is {IFNAME_MAX}", name.len()));
    }
    if name == "." || name == ".." || name.contains(|c: char| c == '/' || c == ':' || c == '%' || c.is_whitespace()) {
        return Err(format!("'{name}' cannot be the name of an interface"));
    }
    Ok(())
}

fn one_per_family(key: &str, addrs: impl Iterator<Item = IpAddr> + Clone) -> Result<(), String> {
    let v4 = addrs.clone().filter(IpAddr::is_ipv4).count();
    let v6 = addrs.filter(IpAddr::is_ipv6).count();
    match (v4, v6) {
        (2.., _) => Err(format!("{v4} IPv4 addresses in {key}=: give one, and another path for the next")),
        (_, 2..) => Err(format!("{v6} IPv6 addresses in {key}=: give one, and another path for the next")),
        _ => Ok(()),
    }
}

fn set_once<T>(slot: &mut Option<T>, part: &str, value: T) -> Result<(), String> {
    if slot.replace(value).is_some() {
        return Err(format!("'{part}' is there twice"));
    }
    Ok(())
}

fn parse<T: FromStr>(part: &str, value: &str, wanted: &str, key: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("'{part}': '{value}' is not {wanted} such as {key}={}", example_of(key)))
}

fn example_of(key: &str) -> &'static str {
    match key {
        "addr" => "10.9.0.2/24",
        "host" | "gw" => "10.9.0.1",
        "mtu" => "1500",
        "id" => "1",
        "port" => "10080",
        "offload" => "off",
        _ => "0",
    }
}

fn driver_by_name(name: &str) -> Result<Driver, String> {
    match name {
        "tun" => Ok(Driver::Tun),
        "packet" => Ok(Driver::Packet),
        "tun-tap" => Ok(Driver::TunTap),
        "pnet" => Ok(Driver::Pnet),
        _ => Err(format!("unknown driver '{name}'; known are {DRIVERS}")),
    }
}

impl FromStr for PathSpec {
    type Err = PathSpecError;

    fn from_str(text: &str) -> Result<Self, PathSpecError> {
        let read = || {
            let mut parts = text.split(',');
            let head = parts.next().unwrap_or_default();
            let Some((driver, name)) = head.split_once(':') else {
                return Err(format!("'{head}' is not DRIVER:IFNAME"));
            };
            let mut spec = Self::new(driver_by_name(driver)?, name.into(), Vec::new());
            check_name(name)?;
            for part in parts {
                spec.set(part)?;
            }
            spec.check()?;
            Ok(spec)
        };
        read().map_err(|problem| PathSpecError { spec: text.into(), problem })
    }
}

impl fmt::Display for PathSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.driver, self.name)?;
        for cidr in &self.addrs {
            write!(f, ",addr={cidr}")?;
        }
        for host in &self.hosts {
            write!(f, ",host={host}")?;
        }
        for gateway in &self.gateways {
            write!(f, ",gw={gateway}")?;
        }
        if let Some(mtu) = self.mtu {
            write!(f, ",mtu={mtu}")?;
        }
        if let Some(id) = self.id {
            write!(f, ",id={id}")?;
        }
        if let Some(port) = self.port {
            write!(f, ",port={port}")?;
        }
        for word in self.flags.words() {
            write!(f, ",{word}")?;
        }
        if self.cost != 0 {
            write!(f, ",cost={}", self.cost)?;
        }
        if !self.offload {
            f.write_str(",offload=off")?;
        }
        Ok(())
    }
}
