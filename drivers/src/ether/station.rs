use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anabranch_frame::{Instant, Transmit};
use parking_lot::Mutex;

use super::message::{self, Icmpv6, Said, Speaker};
use super::table::{Ask, NEIGHBOURS_MAX, Table};
use super::{ETHERNET_HEADER, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Mac};
use crate::netlink::network;

/// What a received frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Input {
    /// An IP packet for the stack.
    Packet,
    /// About neighbours: it was dealt with.
    Neighbours,
    /// For somebody else, or of a protocol that is not spoken here.
    Foreign,
    /// It makes no sense.
    Malformed,
}

/// Where a packet is to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lookup {
    /// To this neighbour.
    Mac(Mac),
    /// To a neighbour that has to be found first: [`Station::park`] the packet.
    Wait(IpAddr),
    /// Nowhere: it is for no network of ours, and there is no gateway.
    NoRoute,
}

/// What a station has to send.
#[derive(Debug)]
pub(crate) enum Out {
    /// A complete frame.
    Frame(Vec<u8>),
    /// A packet whose neighbour was found.
    Packet(Transmit, Mac),
}

/// What the queues of an interface share.
#[derive(Debug)]
struct Shared {
    /// Our addresses with their prefix lengths.
    addresses: Vec<(IpAddr, u8)>,
    gateways: Vec<IpAddr>,
    table: Mutex<Table>,
    /// The table's, to be compared without its lock.
    generation: AtomicU64,
    /// Packets that were dropped because their neighbour was not found.
    unresolved: AtomicU64,
}

impl Shared {
    /// Does something with the table.
    fn with_table<T>(&self, act: impl FnOnce(&mut Table) -> T) -> T {
        let mut table = self.table.lock();
        let result = act(&mut table);
        self.generation.store(table.generation(), Ordering::Release);
        self.unresolved.fetch_add(table.take_unresolved(), Ordering::Relaxed);
        result
    }

    fn owns(&self, addr: IpAddr) -> bool {
        self.addresses.iter().any(|(ours, _)| *ours == addr)
    }

    /// Whether `addr` is a host on this wire, and not we.
    fn is_neighbour(&self, addr: IpAddr) -> bool {
        let link_local = matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local());
        !self.owns(addr) && (link_local || self.gateways.contains(&addr) || self.has_network_of(addr))
    }

    fn has_network_of(&self, addr: IpAddr) -> bool {
        let in_network = |&(ours, prefix): &(IpAddr, u8)| {
            ours.is_ipv4() == addr.is_ipv4() && network(ours, prefix) == network(addr, prefix)
        };
        self.addresses.iter().any(in_network)
    }

    /// The neighbour that packets for `addr` go to.
    fn hop(&self, addr: IpAddr) -> Option<IpAddr> {
        if addr.is_multicast() || addr.is_unspecified() {
            return None;
        }
        if self.is_neighbour(addr) {
            return Some(addr);
        }
        self.gateways.iter().copied().find(|gateway| gateway.is_ipv4() == addr.is_ipv4())
    }
}

/// One queue's view of the neighbours.
#[derive(Debug)]
pub(crate) struct Station {
    shared: Arc<Shared>,
    mac: Mac,
    /// Neighbours by the addresses that packets are for, until when that holds, as of `generation`.
    cache: HashMap<IpAddr, (Mac, Instant)>,
    /// The one that was used last.
    last: Option<(IpAddr, Mac, Instant)>,
    generation: u64,
    out: VecDeque<Out>,
}

impl Station {
    /// The stations of an interface's queues.
    pub(crate) fn for_queues(
        queues: usize,
        mac: Mac,
        addresses: &[(IpAddr, u8)],
        gateways: &[IpAddr],
    ) -> impl Iterator<Item = Self> + use<> {
        let shared = Arc::new(Shared {
            addresses: addresses.to_vec(),
            gateways: gateways.to_vec(),
            table: Mutex::default(),
            generation: AtomicU64::new(0),
            unresolved: AtomicU64::new(0),
        });
        (0..queues).map(move |_| Self {
            shared: Arc::clone(&shared),
            mac,
            cache: HashMap::new(),
            last: None,
            generation: 0,
            out: VecDeque::new(),
        })
    }

    pub(crate) fn mac(&self) -> Mac {
        self.mac
    }

    pub(crate) fn set_mac(&mut self, mac: Mac) {
        self.mac = mac;
    }

    /// Packets that were dropped because their neighbour was not found, of all queues.
    pub(crate) fn unresolved(&self) -> u64 {
        self.shared.unresolved.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(super) fn neighbours(&self) -> usize {
        self.shared.with_table(|table| table.len())
    }

    /// The next thing to send, which comes of the calls before.
    pub(crate) fn next_out(&mut self) -> Option<Out> {
        self.out.pop_front()
    }

    /// Where a packet for `destination` goes.
    pub(crate) fn look_up(&mut self, destination: IpAddr, now: Instant) -> Lookup {
        let generation = self.shared.generation.load(Ordering::Acquire);
        if generation != self.generation {
            self.generation = generation;
            self.cache.clear();
            self.last = None;
        }
        match self.last {
            Some((addr, mac, until)) if addr == destination && now < until => Lookup::Mac(mac),
            _ => self.look_further(destination, now),
        }
    }

    fn look_further(&mut self, destination: IpAddr, now: Instant) -> Lookup {
        if let Some(&(mac, until)) = self.cache.get(&destination).filter(|(_, until)| now < *until) {
            self.last = Some((destination, mac, until));
            return Lookup::Mac(mac);
        }
        let Some(hop) = self.shared.hop(destination) else { return Lookup::NoRoute };
        let known = self.shared.with_table(|table| table.want(hop, now));
        if let Some(ask) = known.ask {
            self.ask(hop, ask);
        }
        let Some((mac, until)) = known.at else { return Lookup::Wait(hop) };
        if self.cache.len() >= NEIGHBOURS_MAX {
            self.cache.clear();
        }
        self.cache.insert(destination, (mac, until));
        self.last = Some((destination, mac, until));
        Lookup::Mac(mac)
    }

    /// Keeps a packet until its neighbour is found.
    pub(crate) fn park(&mut self, hop: IpAddr, packet: Transmit) {
        self.shared.with_table(|table| table.park(hop, packet));
    }

    fn ask(&mut self, target: IpAddr, whom: Ask) {
        let known = match whom {
            Ask::Everybody => None,
            Ask::Itself(mac) => Some(mac),
        };
        let frame = match (target, self.source_for(target)) {
            (IpAddr::V4(target), Some(IpAddr::V4(addr))) => {
                message::question_v4(Speaker { addr, mac: self.mac }, target, known)
            }
            (IpAddr::V6(target), Some(IpAddr::V6(addr))) => {
                message::question_v6(Speaker { addr, mac: self.mac }, target, known)
            }
            _ => return,
        };
        self.out.push_back(Out::Frame(frame));
    }

    /// Our address to ask for `target` with: the one in its network, or any of its family.
    fn source_for(&self, target: IpAddr) -> Option<IpAddr> {
        let of_family = self.shared.addresses.iter().filter(|(ours, _)| ours.is_ipv4() == target.is_ipv4());
        let near = |&&(ours, prefix): &&(IpAddr, u8)| network(ours, prefix) == network(target, prefix);
        of_family.clone().find(near).or(of_family.clone().next()).map(|(ours, _)| *ours)
    }

    /// Tells everybody where we are: when the interface comes up, others may remember somebody else.
    pub(crate) fn announce(&mut self) {
        self.shared.with_table(Table::clear);
        for &(addr, _) in &self.shared.addresses {
            self.out.push_back(Out::Frame(match addr {
                IpAddr::V4(addr) => message::announcement_v4(Speaker { addr, mac: self.mac }),
                IpAddr::V6(addr) => message::announcement_v6(Speaker { addr, mac: self.mac }),
            }));
        }
    }

    /// Looks at a received frame, and answers it if it is about neighbours.
    pub(crate) fn input(&mut self, frame: &[u8], now: Instant) -> Input {
        let Some((header, packet)) = frame.split_at_checked(ETHERNET_HEADER) else { return Input::Malformed };
        let to_us = header[..6] == self.mac;
        let to_group = header[0] & 1 == 1;
        match u16::from_be_bytes([header[12], header[13]]) {
            ETHERTYPE_IPV4 if to_us => version(packet, 4),
            ETHERTYPE_IPV6 if is_icmpv6(packet) && (to_us || to_group) => match message::read_icmpv6(packet) {
                Icmpv6::Neighbour(said) => self.hear(said, now),
                Icmpv6::Malformed => Input::Malformed,
                Icmpv6::Other if to_us => version(packet, 6),
                Icmpv6::Other => Input::Foreign,
            },
            ETHERTYPE_IPV6 if to_us => version(packet, 6),
            ETHERTYPE_ARP if to_us || to_group => match message::read_arp(packet) {
                Some(said) => self.hear(said, now),
                None => Input::Malformed,
            },
            _ => Input::Foreign,
        }
    }

    fn hear(&mut self, said: Said, now: Instant) -> Input {
        let (addr, mac, released) = match said {
            Said::Question { target, asker } if self.shared.owns(target) => {
                self.answer(target, asker);
                let Some((addr, mac)) = asker.filter(|(addr, _)| self.shared.is_neighbour(*addr)) else {
                    return Input::Neighbours;
                };
                (addr, Some(mac), self.shared.with_table(|table| table.learn(addr, mac, now)))
            }
            // Who asks others says where it is, too.
            Said::Question { asker: Some((addr, mac)), .. } => {
                (addr, Some(mac), self.shared.with_table(|table| table.heard(addr, Some(mac), false, true, now)))
            }
            Said::Question { asker: None, .. } => return Input::Foreign,
            Said::Answer { addr, mac, solicited, overrides } => {
                (addr, mac, self.shared.with_table(|table| table.heard(addr, mac, solicited, overrides, now)))
            }
        };
        if let Some(mac) = mac.filter(|_| self.shared.is_neighbour(addr)) {
            self.out.extend(released.into_iter().map(|packet| Out::Packet(packet, mac)));
        }
        Input::Neighbours
    }

    fn answer(&mut self, target: IpAddr, asker: Option<(IpAddr, Mac)>) {
        let frame = match (target, asker) {
            (IpAddr::V4(addr), Some((IpAddr::V4(asker), mac))) => {
                message::answer_v4(Speaker { addr, mac: self.mac }, (asker, mac))
            }
            (IpAddr::V6(addr), Some((IpAddr::V6(asker), mac))) => {
                message::answer_v6(Speaker { addr, mac: self.mac }, (asker, mac))
            }
            // Somebody is about to take our address: everybody is to hear that it is taken.
            (IpAddr::V6(addr), None) => message::announcement_v6(Speaker { addr, mac: self.mac }),
            (IpAddr::V4(addr), None) => message::announcement_v4(Speaker { addr, mac: self.mac }),
            _ => return,
        };
        self.out.push_back(Out::Frame(frame));
    }
}

fn is_icmpv6(packet: &[u8]) -> bool {
    const ICMPV6: u8 = 58;
    packet.get(6) == Some(&ICMPV6)
}

fn version(packet: &[u8], expected: u8) -> Input {
    match packet.first() {
        Some(first) if first >> 4 == expected => Input::Packet,
        _ => Input::Malformed,
    }
}

/// The Ethernet address of the group in which others ask for `addr`.
pub(crate) fn solicited_node_mac(addr: Ipv6Addr) -> Mac {
    message::group_mac(message::solicited_node(addr))
}
