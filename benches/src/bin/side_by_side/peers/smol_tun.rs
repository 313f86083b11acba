//! A TUN device with virtio-net headers as a device of smoltcp.

use std::io::{self, IoSlice};
use std::num::{NonZeroU16, NonZeroUsize};
use std::os::fd::{AsRawFd, RawFd};

use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken};
use smoltcp::time::Instant;

use super::segment::pseudo_header;
use super::tun::{self, HEADER, LONGEST, Tun};

/// TCP's number in an IP header.
const TCP: u8 = 6;

/// Super-segments pass whole both ways.
pub(super) struct SmolTun {
    tun: Tun,
    rx: Vec<u8>,
    tx: Vec<u8>,
}

impl SmolTun {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { tun: Tun::open(true)?, rx: vec![0; LONGEST], tx: vec![0; LONGEST] })
    }
}

impl AsRawFd for SmolTun {
    fn as_raw_fd(&self) -> RawFd {
        self.tun.0.as_raw_fd()
    }
}

pub(super) struct Rx<'a>(&'a [u8]);

impl RxToken for Rx<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(self.0)
    }
}

pub(super) struct Tx<'a> {
    tun: &'a Tun,
    buffer: &'a mut [u8],
    meta: PacketMeta,
}

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        let packet = &mut self.buffer[..len];
        let result = fill(packet);
        let mut header = [0; HEADER];
        if packet[9] == TCP {
            let ip_len = usize::from(packet[0] & 15) * 4;
            let tcp_len = usize::from(packet[ip_len + 12] >> 4) * 4;
            // smoltcp leaves the checksum to the device; the kernel wants the pseudo-header's sum there.
            let sum = pseudo_header(&packet[12..20], len - ip_len);
            packet[ip_len + 16..ip_len + 18].copy_from_slice(&sum.to_be_bytes());
            let segment = self.meta.segmentation_offload_size.map_or(0, NonZeroU16::get);
            header = tun::header(ip_len, tcp_len, usize::from(segment));
        }
        // A packet that cannot be sent is lost.
        let _ = self.tun.write(&[IoSlice::new(&header), IoSlice::new(packet)]);
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.meta = meta;
    }
}

impl Device for SmolTun {
    type RxToken<'a> = Rx<'a>;
    type TxToken<'a> = Tx<'a>;

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1500;
        capabilities.checksum.tcp = Checksum::None;
        capabilities.segmentation.tcpv4 = NonZeroUsize::new(65_535);
        capabilities
    }

    fn receive(&mut self, _: Instant) -> Option<(Rx<'_>, Tx<'_>)> {
        let len = self.tun.read(&mut self.rx).ok()??;
        let packet = self.rx.get(HEADER..len)?;
        Some((Rx(packet), Tx { tun: &self.tun, buffer: &mut self.tx, meta: PacketMeta::default() }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Tx<'_>> {
        Some(Tx { tun: &self.tun, buffer: &mut self.tx, meta: PacketMeta::default() })
    }
}
