//! A TUN interface through the crate `tun-tap`: one packet for each system call, no offload, one queue. It is what
//! a program has that takes the first crate at hand, and the baseline for [`Tun`](crate::Tun).
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use anabranch_frame::{PathId, RxPacket, Transmit, gso};
use rustix::io::Errno;
use tun_tap::{Iface, Mode};

use crate::buffers::Buffers;
use crate::netlink::{Link, Netlink};
use crate::tun::setup;
use crate::{Capabilities, Counters, Device, OpenError, Readiness, State, TransmitError, TunConfig};

/// The only queue of a TUN interface that `tun-tap` made.
#[derive(Debug)]
pub struct TunTap {
    iface: Iface,
    index: u32,
    path: PathId,
    mtu: u16,
    state: State,
    netlink: Netlink,
    buffers: Buffers,
    read: Vec<u8>,
    segment: Vec<u8>,
    counters: Counters,
}

impl TunTap {
    /// Makes the interface, or adopts one, as [`Tun::open`](crate::Tun::open) does, but with one queue and without
    /// offload whatever `config` says.
    ///
    /// # Errors
    /// See [`OpenError`], each of which names the cure.
    pub fn open(config: &TunConfig) -> Result<Self, OpenError> {
        setup::check(config)?;
        let system = |doing| move |source| setup::system(config, doing, source);
        let mut netlink = Netlink::open().map_err(system("opening a netlink socket"))?;
        let existing = setup::find(config, &mut netlink, &config.name)?;
        let iface = Iface::without_packet_info(&config.name, Mode::Tun)
            .map_err(|error| setup::explain(config, existing.as_ref(), error))?;
        rustix::io::ioctl_fionbio(borrow(&iface), true)
            .map_err(|errno| system("making it non-blocking")(errno.into()))?;
        let link = setup::find(config, &mut netlink, iface.name())?
            .ok_or_else(|| system("looking for the interface")(Errno::NODEV.into()))?;
        let link = setup::configure(config, &mut netlink, link, existing.is_some())?;
        Ok(Self {
            iface,
            index: link.index,
            path: config.path,
            mtu: link.datagram_max(),
            state: State::Up,
            netlink,
            buffers: Buffers::new(usize::from(u16::MAX)),
            read: vec![0; usize::from(u16::MAX)],
            segment: Vec::new(),
            counters: Counters::default(),
        })
    }
}

fn borrow(iface: &Iface) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open for as long as the interface, which is borrowed for as long.
    unsafe { BorrowedFd::borrow_raw(iface.as_raw_fd()) }
}

impl Device for TunTap {
    fn name(&self) -> &str {
        self.iface.name()
    }

    fn path(&self) -> PathId {
        self.path
    }

    fn interface_index(&self) -> Option<u32> {
        Some(self.index)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            mtu: self.mtu,
            max_len: self.mtu.into(),
            segmentation_offload: false,
            checksum_offload: false,
            full_until: Readiness::Writable,
        }
    }

    fn state(&self) -> State {
        self.state
    }

    fn refresh(&mut self) -> State {
        if let Ok(link) = self.netlink.link_by_index(self.index) {
            self.mtu = link.as_ref().map_or(self.mtu, Link::datagram_max);
            self.state = link.as_ref().map_or(State::Gone, Link::state);
        }
        self.state
    }

    fn receive(&mut self, batch: &mut Vec<RxPacket>, max: usize) -> io::Result<usize> {
        for count in 0..max {
            match self.iface.recv(&mut self.read) {
                Ok(len) => {
                    let data = self.buffers.gather(len, std::iter::once(&self.read[..len]));
                    batch.push(RxPacket::new(self.path, data));
                    self.counters.received(&batch[batch.len() - 1]);
                }
                Err(error) if count > 0 || error.kind() == io::ErrorKind::WouldBlock => return Ok(count),
                Err(error) => {
                    self.state = State::Gone;
                    return Err(error);
                }
            }
        }
        Ok(max)
    }

    fn transmit(&mut self, packet: &Transmit) -> Result<(), TransmitError> {
        let mut result = Ok(());
        gso::for_each_segment(packet, &mut self.segment, |segment| {
            if result.is_ok() {
                result = self.iface.send(segment).map(|_| ());
            }
        });
        match result {
            Ok(()) => {
                self.counters.sent(packet);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
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
        Some(borrow(&self.iface))
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}
