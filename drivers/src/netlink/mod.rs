//! Talking to the kernel about interfaces: addresses, routes, MTU, up and down (rtnetlink(7)).

mod monitor;

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily as SocketFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::State;

pub use monitor::{LinkChange, LinkEvent, LinkMonitor};

/// Room for what the kernel puts into one datagram (it uses at most 32 KiB for dumps).
const DATAGRAM_MAX: usize = 64 * 1024;

/// What is worth knowing of an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// Set up by the administrator, and with a carrier.
    pub(crate) up: bool,
    /// Set up by the administrator.
    pub(crate) admin_up: bool,
    pub(crate) mtu: u32,
    pub(crate) tx_queue_len: u32,
    /// A TUN or TAP device.
    pub(crate) is_tun: bool,
    /// Its address, if its frames are Ethernet's.
    pub(crate) mac: Option<[u8; 6]>,
}

impl Link {
    /// The state of a device on it.
    pub(crate) fn state(&self) -> State {
        if self.up { State::Up } else { State::Down }
    }

    /// Its MTU, as far as an IP packet can use it.
    pub(crate) fn datagram_max(&self) -> u16 {
        u16::try_from(self.mtu).unwrap_or(u16::MAX)
    }

    fn from_message(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            up: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
            admin_up: flags.contains(LinkFlags::Up),
            mtu: 0,
            tx_queue_len: 0,
            is_tun: false,
            mac: None,
        };
        let is_ethernet = message.header.link_layer_type == LinkLayerType::Ether;
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Address(bytes) if is_ethernet => link.mac = bytes[..].try_into().ok(),
                LinkAttribute::TxQueueLen(packets) => link.tx_queue_len = *packets,
                LinkAttribute::LinkInfo(infos) => {
                    link.is_tun |= infos.iter().any(|info| matches!(info, LinkInfo::Kind(InfoKind::Tun)));
                }
                _ => {}
            }
        }
        link
    }
}

/// A socket for requests, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self { socket: open_socket(0)?, sequence: 0 })
    }

    /// Sends a request, waits for the kernel's answer and returns what it holds.
    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        rustix::net::sendto(&self.socket, &bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;

        let mut answers = Vec::new();
        let mut buffer = vec![0; DATAGRAM_MAX];
        loop {
            let (_, len) = retry_on_intr(|| rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty()))?;
            for answer in Messages(&buffer[..len]) {
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(answers),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                    _ => {}
                }
            }
        }
    }

    /// All interfaces of the namespace.
    pub(crate) fn links(&mut self) -> io::Result<Vec<Link>> {
        let answers = self.request(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
        Ok(answers.iter().filter_map(link_of).collect())
    }

    /// The interface called `name`, or `None`.
    pub(crate) fn link_by_name(&mut self, name: &str) -> io::Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.one_link(message)
    }

    /// The interface with that index, or `None`.
    pub(crate) fn link_by_index(&mut self, index: u32) -> io::Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.one_link(message)
    }

    fn one_link(&mut self, message: LinkMessage) -> io::Result<Option<Link>> {
        match self.request(RouteNetlinkMessage::GetLink(message), NLM_F_ACK) {
            Ok(answers) => Ok(answers.iter().find_map(link_of)),
            Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets an interface up or down.
    pub(crate) fn set_up(&mut self, index: u32, up: bool) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        message.header.change_mask = LinkFlags::Up;
        self.set_link(index, message)
    }

    /// Sets one of an interface's attributes.
    pub(crate) fn set_attribute(&mut self, index: u32, attribute: LinkAttribute) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.attributes.push(attribute);
        self.set_link(index, message)
    }

    /// Keeps the kernel from making a link-local address of its own for the interface, and so from
    /// soliciting routers there.
    pub(crate) fn no_link_local(&mut self, index: u32) -> io::Result<()> {
        let inet6 = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        self.set_attribute(index, LinkAttribute::AfSpecUnspec(vec![inet6]))
    }

    fn set_link(&mut self, index: u32, mut message: LinkMessage) -> io::Result<()> {
        message.header.index = index;
        self.request(RouteNetlinkMessage::SetLink(message), NLM_F_ACK).map(|_| ())
    }

    /// The addresses of an interface, with their prefix lengths.
    pub(crate) fn addresses(&mut self, index: u32) -> io::Result<Vec<(IpAddr, u8)>> {
        let all = self.all_addresses()?;
        Ok(all.into_iter().filter(|(of, _, _)| *of == index).map(|(_, addr, prefix)| (addr, prefix)).collect())
    }

    /// The addresses of all interfaces: index, address, prefix length.
    pub(crate) fn all_addresses(&mut self) -> io::Result<Vec<(u32, IpAddr, u8)>> {
        let answers = self.request(RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP)?;
        Ok(answers.iter().filter_map(address_of).collect())
    }

    /// Gives an interface an address. That it has it already is no error. An IPv6 address can be sent from at once, but what is
    /// sent to it is taken in a little later: see [`is_local`](Self::is_local).
    pub(crate) fn add_address(&mut self, index: u32, addr: IpAddr, prefix: u8) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = family(addr);
        message.header.prefix_len = prefix;
        message.header.index = index;
        message.header.scope = AddressScope::Universe;
        message.attributes.push(AddressAttribute::Local(addr));
        message.attributes.push(AddressAttribute::Address(addr));
        if addr.is_ipv6() {
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        exists_is_fine(self.request(RouteNetlinkMessage::NewAddress(message), flags))
    }

    /// Whether the kernel takes in what is sent to this address.
    pub(crate) fn is_local(&mut self, addr: IpAddr) -> io::Result<bool> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(addr);
        message.header.destination_prefix_length = if addr.is_ipv4() { 32 } else { 128 };
        message.attributes.push(RouteAttribute::Destination(RouteAddress::from(addr)));
        let answers = match self.request(RouteNetlinkMessage::GetRoute(message), NLM_F_ACK) {
            Err(error) if error.raw_os_error() == Some(Errno::NETUNREACH.raw_os_error()) => return Ok(false),
            result => result?,
        };
        let local = |answer: &RouteNetlinkMessage| matches!(answer, RouteNetlinkMessage::NewRoute(route) if route.header.kind == RouteType::Local);
        Ok(answers.iter().any(local))
    }

    /// Routes a network to an interface. That there is such a route already is no error.
    pub(crate) fn add_route(&mut self, index: u32, addr: IpAddr, prefix: u8) -> io::Result<()> {
        let mut message = RouteMessage::default();
        message.header = RouteHeader {
            address_family: family(addr),
            destination_prefix_length: prefix,
            table: RouteHeader::RT_TABLE_MAIN,
            protocol: RouteProtocol::Static,
            scope: if addr.is_ipv4() { RouteScope::Link } else { RouteScope::Universe },
            kind: RouteType::Unicast,
            ..RouteHeader::default()
        };
        message.attributes.push(RouteAttribute::Destination(RouteAddress::from(network(addr, prefix))));
        message.attributes.push(RouteAttribute::Oif(index));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        exists_is_fine(self.request(RouteNetlinkMessage::NewRoute(message), flags))
    }
}

fn exists_is_fine<T>(result: io::Result<T>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result.map(|_| ()),
    }
}

/// A route socket that hears of the multicast `groups`.
fn open_socket(groups: u32) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        SocketFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        // NETLINK_ROUTE is protocol 0, which is spelt None.
        None,
    )?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

/// What a message says of an interface. The bridge code reports its ports with messages that look
/// alike: only those without a family are about interfaces as such.
fn link_of(message: &RouteNetlinkMessage) -> Option<Link> {
    match message {
        RouteNetlinkMessage::NewLink(message) if message.header.interface_family == AddressFamily::Unspec => {
            Some(Link::from_message(message))
        }
        _ => None,
    }
}

/// What a message says of an interface's address: index, address, prefix length.
fn address_of(message: &RouteNetlinkMessage) -> Option<(u32, IpAddr, u8)> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    // On a point-to-point interface LOCAL is ours and ADDRESS the peer's.
    let find = |local: bool| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(addr) if local => Some(*addr),
            AddressAttribute::Address(addr) if !local => Some(*addr),
            _ => None,
        })
    };
    Some((message.header.index, find(true).or_else(|| find(false))?, message.header.prefix_len))
}

fn family(addr: IpAddr) -> AddressFamily {
    match addr {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// `addr` with the bits behind the prefix cleared.
pub(crate) fn network(addr: IpAddr, prefix: u8) -> IpAddr {
    match addr {
        IpAddr::V4(addr) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            IpAddr::V4((addr.to_bits() & mask).into())
        }
        IpAddr::V6(addr) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            IpAddr::V6((addr.to_bits() & mask).into())
        }
    }
}

/// The messages of a datagram. One that cannot be understood is skipped.
struct Messages<'a>(&'a [u8]);

impl Iterator for Messages<'_> {
    type Item = NetlinkMessage<RouteNetlinkMessage>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let len = u32::from_ne_bytes(*self.0.first_chunk::<4>()?) as usize;
            if len < 16 || len > self.0.len() {
                return None;
            }
            let (message, rest) = self.0.split_at(len);
            self.0 = &rest[(len.next_multiple_of(4) - len).min(rest.len())..];
            if let Ok(message) = NetlinkMessage::deserialize(message) {
                return Some(message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_clears_what_is_behind_the_prefix() {
        let cases = [
            ("10.9.7.2", 24, "10.9.7.0"),
            ("10.9.7.2", 0, "0.0.0.0"),
            ("10.9.7.2", 32, "10.9.7.2"),
            ("fd09::17:2", 64, "fd09::"),
            ("fd09::17:2", 128, "fd09::17:2"),
        ];
        for (addr, prefix, expected) in cases {
            assert_eq!(network(addr.parse().unwrap(), prefix).to_string(), expected);
        }
    }

    #[test]
    fn a_broken_datagram_ends_the_iteration() {
        let cases: [&[u8]; 4] = [b"", b"\x10\0", &[0; 16], &[255; 40]];
        for datagram in cases {
            assert_eq!(Messages(datagram).count(), 0);
        }
    }

    #[test]
    fn loopback_is_there() {
        let mut netlink = Netlink::open().unwrap();

        let lo = netlink.link_by_name("lo").unwrap().expect("every namespace has a loopback interface");

        assert_eq!(netlink.link_by_index(lo.index).unwrap().map(|link| link.name), Some("lo".to_owned()));
        assert!(netlink.links().unwrap().contains(&lo));
        assert_eq!(netlink.link_by_name("no-such-link").unwrap(), None);
    }
}
