//! An interface's wire through the crate `pnet_datalink`: one frame for two system calls, no offload, one queue. It is
//! the baseline for [`Packet`](crate::packet::Packet), with which it shares what it does about neighbours.
//!
//! The crate does not tell which checksums the kernel left unfinished: where the other end is on the same host, offload
//! has to be turned off there (`ethtool -K DEV tx off tso off gso off`), and `gro` here.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};

use anabranch_frame::{RxPacket, Transmit, gso};
use pnet_datalink::{Channel, Config, DataLinkReceiver, DataLinkSender};

use crate::buffers::Buffers;
use crate::ether::{self, ETHERNET_HEADER, Input, Lookup, Mac, Out, Station, destination, now};
use crate::netlink::{Link, Netlink};
use crate::packet::setup::{Prepared, check_mtu, prepare};
use crate::packet::{OpenError, PacketConfig, sys};
use crate::{Capabilities, Counters, Device, Readiness, State, TransmitError};

/// Room for a frame, in bytes.
const ROOM: usize = 65_536 + ETHERNET_HEADER;

/// The only queue of an interface's wire that `pnet_datalink` opened.
pub struct Pnet {
    sender: Box<dyn DataLinkSender>,
    receiver: Box<dyn DataLinkReceiver>,
    fd: OwnedFd,
    station: Station,
    netlink: Netlink,
    link: Link,
    config: PacketConfig,
    state: State,
    buffers: Buffers,
    segment: Vec<u8>,
    counters: Counters,
}

impl std::fmt::Debug for Pnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pnet").field("config", &self.config).field("state", &self.state).finish_non_exhaustive()
    }
}

impl Pnet {
    /// Opens the wire of an interface as [`Packet::open`](crate::packet::Packet::open) does, but with one queue and
    /// without offload whatever `config` says.
    ///
    /// # Errors
    /// See [`OpenError`], each of which names the cure.
    pub fn open(config: &PacketConfig) -> Result<Self, OpenError> {
        let name = || config.name.clone();
        let system = |doing| move |source| OpenError::System { name: name(), doing, source };
        let Prepared { private, .. } = prepare(config)?;
        let mut netlink = Netlink::open().map_err(system("opening a netlink socket"))?;
        let link = netlink.link_by_name(&config.name).map_err(system("looking for the interface"))?;
        let link = link.ok_or_else(|| OpenError::NoInterface { name: name() })?;
        let mac = private.or(link.mac).ok_or_else(|| OpenError::NotEthernet { name: name() })?;
        check_mtu(config, link.mtu)?;
        // The crate does not lend its socket: it gets one of ours, of which we keep a copy.
        let fd = sys::socket().map_err(|source| OpenError::NoPermission { name: name(), source })?;
        sys::set(&fd, libc::PACKET_IGNORE_OUTGOING, &1_i32).map_err(system("leaving out what the host sends"))?;
        let theirs = fd.try_clone().map_err(system("copying the socket"))?;
        let interface = pnet_datalink::interfaces().into_iter().find(|interface| interface.name == config.name);
        let interface = interface.ok_or_else(|| OpenError::NoInterface { name: name() })?;
        let options = Config {
            read_buffer_size: ROOM,
            read_timeout: Some(std::time::Duration::ZERO),
            write_timeout: Some(std::time::Duration::ZERO),
            // Groups of IPv6 and a private address need it: the crate knows no other way.
            promiscuous: true,
            socket_fd: Some(theirs.into_raw_fd()),
            ..Config::default()
        };
        let Channel::Ethernet(sender, receiver) =
            pnet_datalink::channel(&interface, options).map_err(system("binding to it"))?
        else {
            return Err(OpenError::NotEthernet { name: name() });
        };
        let mut stations = Station::for_queues(1, mac, &config.addresses, &config.gateways);
        let Some(station) = stations.next() else { unreachable!("one was asked for") };
        let config = config.clone();
        let state = link.state();
        let (buffers, segment, counters) = (Buffers::new(ROOM), Vec::new(), Counters::default());
        let mut queue =
            Self { sender, receiver, fd, station, netlink, link, config, state, buffers, segment, counters };
        queue.station.announce();
        queue.send_out();
        Ok(queue)
    }

    fn send_out(&mut self) {
        while let Some(out) = self.station.next_out() {
            // What cannot be sent is asked for again.
            let _ = match out {
                Out::Frame(frame) => send(&mut *self.sender, &frame),
                Out::Packet(packet, mac) => self.send_to(mac, &packet),
            };
        }
    }

    fn send_to(&mut self, mac: Mac, packet: &Transmit) -> io::Result<()> {
        let header = ether::header(mac, self.station.mac(), ether::kind_of(packet.header[0]));
        let (sender, mut result, mut frame) = (&mut *self.sender, Ok(()), Vec::new());
        gso::for_each_segment(packet, &mut self.segment, |segment| {
            frame.clear();
            frame.extend_from_slice(&header);
            frame.extend_from_slice(segment);
            if result.is_ok() {
                result = send(sender, &frame);
            }
        });
        if result.is_ok() {
            self.counters.sent(packet);
        }
        result
    }
}

fn send(sender: &mut dyn DataLinkSender, frame: &[u8]) -> io::Result<()> {
    sender.send_to(frame, None).unwrap_or_else(|| Err(io::ErrorKind::WriteZero.into()))
}

impl Device for Pnet {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn path(&self) -> anabranch_frame::PathId {
        self.config.path
    }

    fn interface_index(&self) -> Option<u32> {
        Some(self.link.index)
    }

    fn capabilities(&self) -> Capabilities {
        let mtu = self.link.datagram_max().min(self.config.mtu.unwrap_or(u16::MAX));
        Capabilities {
            mtu,
            max_len: mtu.into(),
            segmentation_offload: false,
            checksum_offload: false,
            full_until: Readiness::Writable,
        }
    }

    fn state(&self) -> State {
        self.state
    }

    fn refresh(&mut self) -> State {
        let _ = sys::take_error(&self.fd);
        if let Ok(link) = self.netlink.link_by_index(self.link.index) {
            self.state = link.as_ref().map_or(State::Gone, Link::state);
            self.link = link.unwrap_or_else(|| self.link.clone());
        }
        self.state
    }

    fn receive(&mut self, batch: &mut Vec<RxPacket>, max: usize) -> io::Result<usize> {
        let before = batch.len();
        while batch.len() - before < max {
            // It times out when there is nothing, and fails while the interface is down.
            let Ok(frame) = self.receiver.next() else { break };
            match self.station.input(frame, now()) {
                Input::Packet => {
                    let packet = &frame[ETHERNET_HEADER..];
                    let mut data = self.buffers.gather(packet.len(), std::iter::once(packet));
                    if !ether::trim(&mut data) {
                        self.counters.rx_malformed += 1;
                        continue;
                    }
                    batch.push(RxPacket::new(self.config.path, data));
                    self.counters.received(&batch[batch.len() - 1]);
                }
                Input::Neighbours => {}
                Input::Foreign => self.counters.rx_foreign += 1,
                Input::Malformed => self.counters.rx_malformed += 1,
            }
        }
        self.send_out();
        Ok(batch.len() - before)
    }

    fn transmit(&mut self, packet: &Transmit) -> Result<(), TransmitError> {
        let lookup = destination(packet).map_or(Lookup::NoRoute, |addr| self.station.look_up(addr, now()));
        let result = match lookup {
            Lookup::Mac(mac) => self.send_to(mac, packet),
            Lookup::Wait(hop) => {
                self.station.park(hop, packet.clone());
                Ok(())
            }
            Lookup::NoRoute => {
                self.counters.tx_unresolved += 1;
                Ok(())
            }
        };
        self.send_out();
        match result {
            Ok(()) => Ok(()),
            Err(error) if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) => {
                self.counters.tx_full += 1;
                Err(TransmitError::Full)
            }
            Err(error) => {
                self.counters.tx_down += 1;
                match self.refresh() {
                    State::Gone => Err(TransmitError::Gone(error)),
                    _ => Err(TransmitError::Down),
                }
            }
        }
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }

    fn counters(&self) -> Counters {
        Counters { tx_unresolved: self.counters.tx_unresolved + self.station.unresolved(), ..self.counters }
    }
}
