//! Initial sequence numbers and timestamp offsets (RFC 6528, RFC 7323 §5.4).

use core::hash::Hasher;
use core::net::{IpAddr, SocketAddr};

use anabranch_frame::Instant;
use siphasher::sip::{SipHasher13, SipHasher24};

use crate::wire::{SeqNum, Tuple};

fn add_address(hasher: &mut impl Hasher, addr: SocketAddr) {
    match addr.ip() {
        IpAddr::V4(ip) => hasher.write(&ip.octets()),
        IpAddr::V6(ip) => hasher.write(&ip.octets()),
    }
    hasher.write_u16(addr.port());
}

fn hash(key: &[u8; 16], tuple: &Tuple, domain: u8) -> u64 {
    let mut hasher = SipHasher24::new_with_key(key);
    hasher.write_u8(domain);
    add_address(&mut hasher, tuple.local);
    add_address(&mut hasher, tuple.remote);
    hasher.finish()
}

/// ISN = M + F(tuple, secret): M is a clock of 4 µs ticks.
pub(crate) fn initial_seq(key: &[u8; 16], tuple: &Tuple, now: Instant) -> SeqNum {
    SeqNum((hash(key, tuple, 0) as u32).wrapping_add((now.as_micros() / 4) as u32))
}

/// What is added to the millisecond clock to make TSval, so that it tells nothing of the uptime.
pub(crate) fn timestamp_offset(key: &[u8; 16], tuple: &Tuple) -> u32 {
    hash(key, tuple, 1) as u32
}

/// Hash that decides on which worker a tuple is at home: the same for both directions.
pub(crate) fn home_hash(key: &[u8; 16], tuple: &Tuple) -> u64 {
    let one = |addr: SocketAddr| {
        let mut hasher = SipHasher13::new_with_key(key);
        add_address(&mut hasher, addr);
        hasher.finish()
    };
    one(tuple.local) ^ one(tuple.remote)
}
