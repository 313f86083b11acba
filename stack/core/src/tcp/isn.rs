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

/// Hashes of SYN cookies: one of the addresses, and one of them and the time.
pub(crate) fn syn_cookie_hash(key: &[u8; 16], tuple: &Tuple, minute: Option<u32>) -> u64 {
    let Some(minute) = minute else { return hash(key, tuple, 5) };
    let mut hasher = SipHasher24::new_with_key(key);
    hasher.write_u8(6);
    hasher.write_u32(minute);
    add_address(&mut hasher, tuple.local);
    add_address(&mut hasher, tuple.remote);
    hasher.finish()
}

/// The MPTCP key of a connection whose SYN/ACK has the cookie `iss`: nobody else can name it. Of several, the one with a
/// free token is taken.
pub(crate) fn syn_cookie_key(key: &[u8; 16], tuple: &Tuple, iss: SeqNum, attempt: u16) -> u64 {
    let mut hasher = SipHasher24::new_with_key(key);
    hasher.write_u8(9);
    hasher.write_u32(iss.0);
    hasher.write_u16(attempt);
    add_address(&mut hasher, tuple.local);
    add_address(&mut hasher, tuple.remote);
    hasher.finish()
}

/// Hash of where a connection goes, for the choice of its source port (RFC 6056 §3.3.4).
pub(crate) fn port_hash(key: &[u8; 16], local: IpAddr, remote: SocketAddr) -> u64 {
    hash(key, &Tuple { local: SocketAddr::new(local, 0), remote }, 4)
}

/// The key of Fast Open cookies where none was set: the same on all workers, as the stack's secret is.
pub(crate) fn fast_open_key(key: &[u8; 16]) -> [u8; 16] {
    let mut made = [0; 16];
    for (half, domain) in made.chunks_exact_mut(8).zip([2, 3]) {
        let mut hasher = SipHasher24::new_with_key(key);
        hasher.write_u8(domain);
        half.copy_from_slice(&hasher.finish().to_le_bytes());
    }
    made
}

/// A server's Fast Open cookie for a client (RFC 7413 §4.1.2): SipHash-2-4 of the client's and the server's address, as
/// the kernel makes it, so that both may serve one address with one key.
pub(crate) fn fast_open_cookie(key: &[u8; 16], tuple: &Tuple) -> [u8; 8] {
    let mut hasher = SipHasher24::new_with_key(key);
    for addr in [tuple.remote.ip(), tuple.local.ip()] {
        match addr {
            IpAddr::V4(ip) => hasher.write(&ip.octets()),
            IpAddr::V6(ip) => hasher.write(&ip.octets()),
        }
    }
    hasher.finish().to_le_bytes()
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

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    /// RFC 9293 §3.4.1, RFC 6528 §3: a clock of 4 µs, and for each tuple another place to start that nobody can tell who
    /// does not know the key.
    #[test]
    fn initial_numbers_follow_a_clock_from_a_secret_place() {
        let tuple = |port: u16| Tuple {
            local: "192.0.2.1:80".parse().unwrap(),
            remote: SocketAddr::new("192.0.2.2".parse().unwrap(), port),
        };
        let start = Instant::ZERO + Duration::from_secs(77);
        let at = |key: u8, port, now| initial_seq(&[key; 16], &tuple(port), now).0;
        assert_eq!(at(1, 4000, start + Duration::from_micros(4)).wrapping_sub(at(1, 4000, start)), 1);
        assert_eq!(at(1, 4000, start + Duration::from_secs(1)).wrapping_sub(at(1, 4000, start)), 250_000);
        let far = |a: u32, b: u32| (a.wrapping_sub(b) as i32).unsigned_abs() > 1000;
        assert!((4001..4100).all(|port| far(at(1, port, start), at(1, 4000, start))), "other tuples start elsewhere");
        assert!((2..100).all(|key| far(at(key, 4000, start), at(1, 4000, start))), "and so do other keys");
    }

    /// What a 6.18 kernel with `tcp_fastopen_key` = a0bf63f7-ed803d81-cd641d30-cebc4a90 gives 10.248.0.2.
    #[test]
    fn cookies_are_the_kernels() {
        let key = 0xa0bf_63f7u32.to_le_bytes().into_iter().chain(0xed80_3d81u32.to_le_bytes());
        let key = key.chain(0xcd64_1d30u32.to_le_bytes()).chain(0xcebc_4a90u32.to_le_bytes());
        let key: std::vec::Vec<u8> = key.collect();
        let tuple = Tuple { local: "192.168.0.2:8080".parse().unwrap(), remote: "10.248.0.2:4000".parse().unwrap() };
        let cookie = fast_open_cookie(key.as_slice().try_into().unwrap(), &tuple);
        assert_eq!(u64::from_be_bytes(cookie), 0x00ab_aaab_e8e9_54c2);
    }
}
