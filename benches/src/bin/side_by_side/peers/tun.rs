//! The TUN device of the bare loop and of smoltcp, with virtio-net headers.

use std::io::{self, IoSlice};

use rustix::io::Errno;
use tun_rs::{DeviceBuilder, SyncDevice};

/// The interface, which must be there.
pub(super) const NAME: &str = "tun0";
/// Length of the header before each packet, in bytes: `struct virtio_net_hdr`.
pub(super) const HEADER: usize = 10;
/// The longest packet with its header, in bytes.
pub(super) const LONGEST: usize = HEADER + 65_535;

const NEEDS_CSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;

/// One queue. Packets come and go whole, up to 64 KiB, with unfinished checksums.
pub(super) struct Tun(pub(super) SyncDevice);

impl Tun {
    /// Attaches to the interface.
    pub(super) fn open(nonblocking: bool) -> io::Result<Self> {
        let device = DeviceBuilder::new().name(NAME).offload(true).inherit_enable_state().build_sync()?;
        device.set_nonblocking(nonblocking)?;
        Ok(Self(device))
    }

    /// A packet behind its header, and its length with it; `None` when there is none now.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match rustix::io::read(&self.0, buffer) {
            Ok(len) => Ok(Some(len)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a packet in pieces, the first of which is its header. One that the kernel has no room for is
    /// lost.
    pub(super) fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        match rustix::io::writev(&self.0, pieces) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The header of a TCP packet over IPv4 whose checksum field holds the sum of the pseudo-header. `segment` is
/// the payload of each segment that the kernel shall make of it, or 0.
pub(super) fn header(ip_len: usize, tcp_len: usize, segment: usize) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[0] = NEEDS_CSUM;
    if segment > 0 {
        header[1] = GSO_TCPV4;
        header[2..4].copy_from_slice(&((ip_len + tcp_len) as u16).to_ne_bytes());
        header[4..6].copy_from_slice(&(segment as u16).to_ne_bytes());
    }
    header[6..8].copy_from_slice(&(ip_len as u16).to_ne_bytes());
    header[8..10].copy_from_slice(&16_u16.to_ne_bytes());
    header
}
