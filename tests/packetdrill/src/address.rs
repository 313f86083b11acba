//! Socket addresses between C and Rust.
//!
//! Inside, an IPv4 address is an IPv4 address: what comes as `::ffff:a.b.c.d` is unmapped here, and mapped again
//! for sockets of the other family.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::errno::{Errno, Result};

/// The family that a socket was made with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) fn from_c(domain: i32) -> Result<Self> {
        match domain {
            libc::AF_INET => Ok(Self::V4),
            libc::AF_INET6 => Ok(Self::V6),
            _ => Err(Errno(libc::EAFNOSUPPORT)),
        }
    }

    pub(crate) fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Self::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }
}

/// An address as a call passes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Address {
    /// `AF_UNSPEC`: none.
    None,
    Inet(SocketAddr),
}

/// Reads a `sockaddr`.
///
/// # Safety
/// `addr` points to `len` readable bytes.
pub(crate) unsafe fn read(addr: *const libc::sockaddr, len: libc::socklen_t) -> Result<Address> {
    if addr.is_null() {
        return Err(Errno::FAULT);
    }
    let fits = |size: usize| len as usize >= size;
    if !fits(size_of::<libc::sa_family_t>()) {
        return Err(Errno::INVALID);
    }
    // SAFETY: `len` covers the family; the C library's structs may be read unaligned.
    let family = unsafe { (&raw const (*addr).sa_family).read_unaligned() };
    match i32::from(family) {
        libc::AF_UNSPEC => Ok(Address::None),
        libc::AF_INET if fits(size_of::<libc::sockaddr_in>()) => {
            // SAFETY: `len` covers it.
            let inet = unsafe { addr.cast::<libc::sockaddr_in>().read_unaligned() };
            let ip = Ipv4Addr::from(u32::from_be(inet.sin_addr.s_addr));
            Ok(Address::Inet(SocketAddr::new(ip.into(), u16::from_be(inet.sin_port))))
        }
        libc::AF_INET6 if fits(size_of::<libc::sockaddr_in6>()) => {
            // SAFETY: `len` covers it.
            let inet = unsafe { addr.cast::<libc::sockaddr_in6>().read_unaligned() };
            let ip = IpAddr::V6(Ipv6Addr::from(inet.sin6_addr.s6_addr)).to_canonical();
            Ok(Address::Inet(SocketAddr::new(ip, u16::from_be(inet.sin6_port))))
        }
        libc::AF_INET | libc::AF_INET6 => Err(Errno::INVALID),
        _ => Err(Errno(libc::EAFNOSUPPORT)),
    }
}

/// Writes `addr` as a socket of `family` sees it; nothing when there is no room at all (`out` is null).
///
/// # Safety
/// `len` is null or points to the number of bytes at `out`, which may be written.
pub(crate) unsafe fn write(family: Family, addr: SocketAddr, out: *mut libc::sockaddr, len: *mut libc::socklen_t) {
    if out.is_null() || len.is_null() {
        return;
    }
    // SAFETY: all-zero bytes are a valid value of these structs.
    let (mut v4, mut v6): (libc::sockaddr_in, libc::sockaddr_in6) =
        unsafe { (core::mem::zeroed(), core::mem::zeroed()) };
    let port = addr.port().to_be();
    let (from, size) = match (family, addr.ip()) {
        (Family::V4, IpAddr::V4(ip)) => {
            v4.sin_family = libc::AF_INET as libc::sa_family_t;
            v4.sin_port = port;
            v4.sin_addr.s_addr = u32::from(ip).to_be();
            ((&raw const v4).cast::<u8>(), size_of_val(&v4))
        }
        (_, ip) => {
            v6.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            v6.sin6_port = port;
            let ip = match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            v6.sin6_addr.s6_addr = ip.octets();
            ((&raw const v6).cast::<u8>(), size_of_val(&v6))
        }
    };
    // SAFETY: `from` is one of the structs above; no more than the room at `out` is written there.
    unsafe {
        core::ptr::copy_nonoverlapping(from, out.cast::<u8>(), size.min(*len as usize));
        *len = size as libc::socklen_t;
    }
}
