//! The TUN device's own ioctls, as far as tun-rs does not make them (linux/if_tun.h).
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, FromRawFd, IntoRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::ioctl::{Getter, IntegerSetter, Opcode, Setter, ioctl, opcode};
use tun_rs::{DeviceBuilder, SyncDevice};

use crate::vnet;

const TUNSETOFFLOAD: Opcode = opcode::write::<u32>(b'T', 208);
const TUNGETIFF: Opcode = opcode::read::<u32>(b'T', 210);
const TUNSETVNETHDRSZ: Opcode = opcode::write::<c_int>(b'T', 216);

/// Partial checksums and TCP super-segments, v4 and v6, also those that carry CWR. Not UDP's.
const OFFLOADS: usize = (libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN) as usize;

/// Makes the interface `name` or attaches to it: one queue, and the name that it got.
pub(super) fn attach(name: &str, multi_queue: bool, offload: bool) -> io::Result<(OwnedFd, String)> {
    let device = DeviceBuilder::new()
        .name(name)
        .multi_queue(multi_queue)
        .offload(offload)
        .inherit_enable_state()
        .build_sync()?;
    let name = device.name()?;
    let fd = into_fd(device);
    if has_header(&fd)? != offload {
        // As long as somebody else has another queue the interface stays what that one made it.
        return Err(Errno::BUSY.into());
    }
    rustix::io::ioctl_fionbio(&fd, true)?;
    if offload {
        set_header_len(&fd, vnet::LEN)?;
        set_offloads(&fd, OFFLOADS)?;
    }
    Ok((fd, name))
}

fn into_fd(device: SyncDevice) -> OwnedFd {
    // SAFETY: into_raw_fd gives up the only owner of an open descriptor.
    unsafe { OwnedFd::from_raw_fd(device.into_raw_fd()) }
}

/// Whether there is a virtio-net header before each packet of the interface.
fn has_header(fd: impl AsFd) -> io::Result<bool> {
    // SAFETY: TUNGETIFF writes a whole ifreq, which is plain old data, whatever size its number names.
    let request = unsafe { ioctl(fd, Getter::<TUNGETIFF, libc::ifreq>::new()) }?;
    // SAFETY: the kernel wrote the flags into the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(c_int::from(flags) & libc::IFF_VNET_HDR != 0)
}

fn set_offloads(fd: impl AsFd, offloads: usize) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value, and changes nothing in this process.
    unsafe { ioctl(fd, IntegerSetter::<TUNSETOFFLOAD>::new_usize(offloads)) }?;
    Ok(())
}

/// How long the virtio-net header before each packet is.
fn set_header_len(fd: impl AsFd, len: usize) -> io::Result<()> {
    let len = len as c_int;
    // SAFETY: TUNSETVNETHDRSZ reads one int through the pointer that Setter makes.
    unsafe { ioctl(fd, Setter::<TUNSETVNETHDRSZ, c_int>::new(len)) }?;
    Ok(())
}
