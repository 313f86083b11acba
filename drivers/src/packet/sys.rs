//! What packet(7) sockets need of the kernel and rustix has no call for.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::io::{self, IoSlice};
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use anabranch_frame::BufferMut;
use arrayvec::ArrayVec;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::VlanTag;
use crate::ether::Mac;
use crate::vnet;

/// Most frames that one system call takes in or sends.
pub(super) const BATCH: usize = 32;

/// Room for the control messages of one frame: auxiliary data and a time stamp.
const CONTROL_WORDS: usize = 12;

/// A socket that hears nothing until it is [bound](bind).
pub(crate) fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?)
}

/// Binds a socket to an interface; it hears its frames if it shall `listen`.
pub(super) fn bind(fd: &OwnedFd, index: u32, listen: bool) -> io::Result<()> {
    let mut address = address_of(index);
    address.sll_protocol = if listen { (libc::ETH_P_ALL as u16).to_be() } else { 0 };
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: `address` is a sockaddr_ll of that length, and outlives the call.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) })
}

fn address_of(index: u32) -> libc::sockaddr_ll {
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: index as c_int,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    }
}

/// Index of the interface that a socket is bound to; none once that was deleted.
pub(super) fn bound_to(fd: &OwnedFd) -> io::Result<Option<u32>> {
    let mut address = address_of(0);
    let mut len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `address`, which is that long.
    check(unsafe { libc::getsockname(fd.as_raw_fd(), (&raw mut address).cast(), &raw mut len) })?;
    Ok(u32::try_from(address.sll_ifindex).ok().filter(|&index| index != 0))
}

/// Plain data that the kernel reads as the value of a socket option.
///
/// # Safety
/// A value has no padding that is not initialised, and no pointer that the kernel follows but to what it may read.
pub(crate) unsafe trait OptionValue: Sized {}
// SAFETY: plain numbers.
unsafe impl OptionValue for c_int {}
// SAFETY: as above.
unsafe impl OptionValue for libc::packet_mreq {}
// SAFETY: as above.
unsafe impl OptionValue for libc::tpacket_req3 {}

/// Sets an option of the packet level.
pub(crate) fn set<T: OptionValue>(fd: &OwnedFd, option: c_int, value: &T) -> io::Result<()> {
    set_at(fd, libc::SOL_PACKET, option, value)
}

/// Sets an option of the socket level.
pub(super) fn set_socket(fd: &OwnedFd, option: c_int, value: c_int) -> io::Result<()> {
    set_at(fd, libc::SOL_SOCKET, option, &value)
}

fn set_at<T: OptionValue>(fd: &OwnedFd, level: c_int, option: c_int, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is readable for `len` bytes during the call.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), len) })
}

/// Has the kernel drop what the classic BPF `program` answers with zero.
pub(super) fn attach_filter(fd: &OwnedFd, program: &mut [libc::sock_filter]) -> io::Result<()> {
    let value = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    let len = size_of::<libc::sock_fprog>() as libc::socklen_t;
    // SAFETY: `value` points to `len` instructions; the kernel copies them during the call.
    check(unsafe {
        let value = (&raw const value).cast();
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, value, len)
    })
}

/// A membership of the interface: `PACKET_MR_PROMISC`, `PACKET_MR_MULTICAST` and so on. It ends with the socket.
pub(super) fn join(fd: &OwnedFd, index: u32, kind: c_int, mac: Mac) -> io::Result<()> {
    let mut mr_address = [0; 8];
    mr_address[..6].copy_from_slice(&mac);
    let request =
        libc::packet_mreq { mr_ifindex: index as c_int, mr_type: kind as u16, mr_alen: mac.len() as u16, mr_address };
    set(fd, libc::PACKET_ADD_MEMBERSHIP, &request)
}

/// Joins the fanout group `id`, or makes one; the group's number.
pub(super) fn fanout(fd: &OwnedFd, id: Option<u16>) -> io::Result<u16> {
    let fresh = if id.is_none() { libc::PACKET_FANOUT_FLAG_UNIQUEID } else { 0 };
    let kind = libc::PACKET_FANOUT_HASH | fresh;
    set(fd, libc::PACKET_FANOUT, &((kind << 16 | u32::from(id.unwrap_or(0))) as c_int))?;
    Ok(read::<c_int>(fd, libc::SOL_PACKET, libc::PACKET_FANOUT)? as u16)
}

fn read<T: OptionValue>(fd: &OwnedFd, level: c_int, option: c_int) -> io::Result<T> {
    // SAFETY: all zeroes are a value of every `OptionValue`, which are plain numbers.
    let mut value: T = unsafe { zeroed() };
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `value`, which is that long.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, option, (&raw mut value).cast(), &raw mut len) })?;
    Ok(value)
}

// SAFETY: plain numbers.
unsafe impl OptionValue for libc::tpacket_stats {}

/// Frames that the kernel had no room for, since the last call.
pub(super) fn take_drops(fd: &OwnedFd) -> u64 {
    // A ring's statistics have one more field behind these.
    let stats = read::<libc::tpacket_stats>(fd, libc::SOL_PACKET, libc::PACKET_STATISTICS);
    stats.map_or(0, |stats| stats.tp_drops.into())
}

/// The error that waits at a socket, which is taken away by this.
pub(crate) fn take_error(fd: &OwnedFd) -> Option<Errno> {
    let code = read::<c_int>(fd, libc::SOL_SOCKET, libc::SO_ERROR).unwrap_or(0);
    (code != 0).then(|| Errno::from_raw_os_error(code))
}

fn check(result: c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What one received frame is written to.
pub(super) struct Slot {
    /// The frame, from its first byte on.
    pub(super) buffer: BufferMut,
    /// The header before it, zero if there is none.
    pub(super) vnet: [u8; vnet::LEN],
    /// Bytes of the frame.
    pub(super) len: usize,
    /// It was longer than the buffer.
    pub(super) truncated: bool,
    pub(super) about: About,
}

impl Slot {
    pub(super) fn new(buffer: BufferMut) -> Self {
        Self { buffer, vnet: [0; vnet::LEN], len: 0, truncated: false, about: About::default() }
    }
}

/// What the kernel says about a frame beside its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct About {
    /// `TP_STATUS_` bits.
    pub(super) status: u32,
    pub(super) vlan: Option<VlanTag>,
    /// Since the Unix epoch.
    pub(super) received: Option<Duration>,
}

/// Receives up to one frame for each slot, of which there are at most [`BATCH`]. Without `metadata` nothing is
/// said [about](About) them.
pub(super) fn receive(fd: &OwnedFd, slots: &mut [Slot], with_vnet: bool, metadata: bool) -> Result<usize, Errno> {
    let mut control = [[0_u64; CONTROL_WORDS]; BATCH];
    let mut vectors = ArrayVec::<[libc::iovec; 2], BATCH>::new();
    let mut messages = ArrayVec::<libc::mmsghdr, BATCH>::new();
    for slot in slots.iter_mut() {
        let body = slot.buffer.as_mut_slice();
        vectors.push([
            libc::iovec { iov_base: slot.vnet.as_mut_ptr().cast(), iov_len: slot.vnet.len() },
            libc::iovec { iov_base: body.as_mut_ptr().cast(), iov_len: body.len() },
        ]);
    }
    let skipped = usize::from(!with_vnet);
    for (vectors, control) in vectors.iter_mut().zip(&mut control) {
        // SAFETY: all zeroes are a message header without buffers.
        let mut message: libc::mmsghdr = unsafe { zeroed() };
        message.msg_hdr.msg_iov = vectors[skipped..].as_mut_ptr();
        message.msg_hdr.msg_iovlen = vectors.len() - skipped;
        if metadata {
            message.msg_hdr.msg_control = control.as_mut_ptr().cast();
            message.msg_hdr.msg_controllen = size_of_val(control);
        }
        messages.push(message);
    }
    let (flags, timeout) = (libc::MSG_DONTWAIT | libc::MSG_TRUNC, std::ptr::null_mut());
    // SAFETY: each message points to vectors, and those to buffers, that live until the end of this function, are
    // not used otherwise meanwhile, and are as long as is said.
    let count =
        unsafe { libc::recvmmsg(fd.as_raw_fd(), messages.as_mut_ptr(), messages.len() as u32, flags as _, timeout) };
    if count < 0 {
        return Err(last_errno());
    }
    let header_len = if with_vnet { vnet::LEN } else { 0 };
    for (slot, message) in slots.iter_mut().zip(&messages).take(count as usize) {
        slot.len = (message.msg_len as usize).saturating_sub(header_len);
        slot.truncated = message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 || slot.len > slot.buffer.capacity();
        slot.about = if metadata { about(&message.msg_hdr) } else { About::default() };
    }
    Ok(count as usize)
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Reads the control messages of a frame.
fn about(message: &libc::msghdr) -> About {
    let mut about = About::default();
    // SAFETY: the kernel has filled in `message`, whose control buffer is still alive.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !next.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return only whole headers within the control buffer.
        let (header, data) = unsafe { (&*next, libc::CMSG_DATA(next)) };
        // SAFETY: CMSG_LEN only computes.
        let has = |len: usize| header.cmsg_len >= unsafe { libc::CMSG_LEN(len as u32) } as usize;
        match (header.cmsg_level, header.cmsg_type) {
            (libc::SOL_PACKET, libc::PACKET_AUXDATA) if has(size_of::<libc::tpacket_auxdata>()) => {
                // SAFETY: that many bytes are there, of a structure of plain numbers.
                let aux = unsafe { data.cast::<libc::tpacket_auxdata>().read_unaligned() };
                about.status = aux.tp_status;
                about.vlan = VlanTag::from_status(aux.tp_status, aux.tp_vlan_tpid, aux.tp_vlan_tci);
            }
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) if has(size_of::<libc::timespec>()) => {
                // SAFETY: that many bytes are there, of a structure of plain numbers.
                let time = unsafe { data.cast::<libc::timespec>().read_unaligned() };
                about.received = Some(Duration::new(time.tv_sec as u64, time.tv_nsec as u32));
            }
            _ => {}
        }
        // SAFETY: `next` is a header within the control buffer of `message`.
        next = unsafe { libc::CMSG_NXTHDR(message, next) };
    }
    about
}

/// Sends a frame for each of `frames`, of which the first [`BATCH`] are looked at; how many were sent.
pub(super) fn send_many(fd: &OwnedFd, frames: &[&[IoSlice<'_>]]) -> Result<usize, Errno> {
    let mut messages = ArrayVec::<libc::mmsghdr, BATCH>::new();
    for pieces in frames.iter().take(BATCH) {
        // SAFETY: all zeroes are a message header without buffers.
        let mut message: libc::mmsghdr = unsafe { zeroed() };
        // An IoSlice is laid out as an iovec (std guarantees it); the kernel only reads.
        message.msg_hdr.msg_iov = pieces.as_ptr().cast_mut().cast();
        message.msg_hdr.msg_iovlen = pieces.len();
        messages.push(message);
    }
    let flags = libc::MSG_DONTWAIT;
    // SAFETY: each message points to vectors and those to buffers that `frames` borrows for longer than the call.
    let count =
        unsafe { libc::sendmmsg(fd.as_fd().as_raw_fd(), messages.as_mut_ptr(), messages.len() as u32, flags as _) };
    if count < 0 { Err(last_errno()) } else { Ok(count as usize) }
}
