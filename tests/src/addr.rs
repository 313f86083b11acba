//! The one address plan of all tests.
//!
//! | path | subject | kernel's end of the first hop | second hop, router | second hop, peer |
//! |---|---|---|---|---|
//! | 0 | 10.90.9.2 | 10.90.9.1 | 10.90.8.1 | 10.90.8.2 |
//! | 1 | 10.91.9.2 | 10.91.9.1 | 10.91.8.1 | 10.91.8.2 |
//!
//! IPv6 alike: fd00:90:9::2 and so on. The subject's prefix (/16, /32) covers its whole path, so that it
//! picks the right path for an address that the peer announces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv4 or IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    fn addr(self, path: u8, hop: u8, host: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(10, 90 + path, hop, host).into(),
            Self::V6 => {
                Ipv6Addr::new(0xfd00, 0x90 + u16::from(path), u16::from(hop), 0, 0, 0, 0, u16::from(host)).into()
            }
        }
    }

    /// The subject's address on a path.
    #[must_use]
    pub fn subject(self, path: u8) -> IpAddr {
        self.addr(path, 9, 2)
    }

    /// The kernel's address at the other end of the subject's device.
    #[must_use]
    pub fn host(self, path: u8) -> IpAddr {
        self.addr(path, 9, 1)
    }

    /// The router's address on the second hop.
    #[must_use]
    pub fn router(self, path: u8) -> IpAddr {
        self.addr(path, 8, 1)
    }

    /// The peer's address on the second hop.
    #[must_use]
    pub fn far(self, path: u8) -> IpAddr {
        self.addr(path, 8, 2)
    }

    /// All of a path, as a network.
    #[must_use]
    pub fn network(self, path: u8) -> String {
        format!("{}/{}", self.addr(path, 0, 0), self.network_prefix())
    }

    /// Length of [`network`](Self::network)'s prefix.
    #[must_use]
    pub fn network_prefix(self) -> u8 {
        match self {
            Self::V4 => 16,
            Self::V6 => 32,
        }
    }

    /// Length of the prefix of one hop.
    #[must_use]
    pub fn hop_prefix(self) -> u8 {
        match self {
            Self::V4 => 24,
            Self::V6 => 48,
        }
    }

    /// The address that stands for all of them.
    #[must_use]
    pub fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Self::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    /// `-4` or `-6`.
    #[must_use]
    pub fn option(self) -> &'static str {
        match self {
            Self::V4 => "-4",
            Self::V6 => "-6",
        }
    }
}
