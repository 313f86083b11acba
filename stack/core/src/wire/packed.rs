//! Tuples in fewer bytes, for what is kept in great numbers.

use alloc::boxed::Box;
use core::net::{Ipv4Addr, SocketAddr};

use super::Tuple;

/// A [`Tuple`] in 16 bytes if its addresses are IPv4. Flow labels and scopes of IPv6 have no place in a tuple.
#[derive(Clone, Debug)]
pub(crate) enum PackedTuple {
    V4 { local: u32, remote: u32, local_port: u16, remote_port: u16 },
    V6(Box<Tuple>),
}

impl PackedTuple {
    pub(crate) fn new(tuple: &Tuple) -> Self {
        match (tuple.local, tuple.remote) {
            (SocketAddr::V4(local), SocketAddr::V4(remote)) => Self::V4 {
                local: local.ip().to_bits(),
                remote: remote.ip().to_bits(),
                local_port: local.port(),
                remote_port: remote.port(),
            },
            _ => Self::V6(Box::new(*tuple)),
        }
    }

    pub(crate) fn unpack(&self) -> Tuple {
        match self {
            Self::V4 { local, remote, local_port, remote_port } => Tuple {
                local: SocketAddr::new(Ipv4Addr::from_bits(*local).into(), *local_port),
                remote: SocketAddr::new(Ipv4Addr::from_bits(*remote).into(), *remote_port),
            },
            Self::V6(tuple) => **tuple,
        }
    }
}
