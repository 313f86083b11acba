//! Keys, tokens and HMACs (RFC 8684 §3.1, §3.2, §3.4.1).

use core::net::IpAddr;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// A key and what SHA-256 makes of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) key: u64,
    /// Most significant 32 bits of the hash.
    pub(crate) token: u32,
    /// Least significant 64 bits: the initial data sequence number.
    pub(crate) idsn: u64,
}

impl Key {
    pub(crate) fn new(key: u64) -> Self {
        let hash: [u8; 32] = Sha256::digest(key.to_be_bytes()).into();
        let mut token = [0; 4];
        token.copy_from_slice(&hash[..4]);
        let mut idsn = [0; 8];
        idsn.copy_from_slice(&hash[24..]);
        Self { key, token: u32::from_be_bytes(token), idsn: u64::from_be_bytes(idsn) }
    }

    /// Whether somebody told this key, compared in constant time.
    pub(crate) fn is(&self, told: u64) -> bool {
        self.key.ct_eq(&told).into()
    }
}

/// A key is a secret: it stays out of logs.
impl core::fmt::Debug for Key {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Key(token {:08x})", self.token)
    }
}

fn hmac(first: u64, second: u64, message: &[&[u8]]) -> [u8; 32] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&first.to_be_bytes());
    key[8..].copy_from_slice(&second.to_be_bytes());
    let Ok(mut mac) = <Hmac<Sha256> as KeyInit>::new_from_slice(&key) else {
        unreachable!("HMAC takes keys of any length");
    };
    for piece in message {
        mac.update(piece);
    }
    mac.finalize().into_bytes().into()
}

/// HMAC of MP_JOIN by the side whose key and nonce come first.
fn join(own: u64, peer: u64, own_nonce: u32, peer_nonce: u32) -> [u8; 32] {
    hmac(own, peer, &[&own_nonce.to_be_bytes(), &peer_nonce.to_be_bytes()])
}

/// The leftmost 64 bits, as on the SYN/ACK.
pub(crate) fn join_synack(own: u64, peer: u64, own_nonce: u32, peer_nonce: u32) -> u64 {
    let mac = join(own, peer, own_nonce, peer_nonce);
    let mut left = [0; 8];
    left.copy_from_slice(&mac[..8]);
    u64::from_be_bytes(left)
}

/// The leftmost 160 bits, as on the third ACK.
pub(crate) fn join_ack(own: u64, peer: u64, own_nonce: u32, peer_nonce: u32) -> [u8; 20] {
    let mac = join(own, peer, own_nonce, peer_nonce);
    let mut left = [0; 20];
    left.copy_from_slice(&mac[..20]);
    left
}

/// HMAC of ADD_ADDR by the side whose key comes first: the rightmost 64 bits.
pub(crate) fn add_addr(own: u64, peer: u64, id: u8, addr: IpAddr, port: u16) -> u64 {
    let port = port.to_be_bytes();
    let mac = match addr {
        IpAddr::V4(addr) => hmac(own, peer, &[&[id], &addr.octets(), &port]),
        IpAddr::V6(addr) => hmac(own, peer, &[&[id], &addr.octets(), &port]),
    };
    let mut right = [0; 8];
    right.copy_from_slice(&mac[24..]);
    u64::from_be_bytes(right)
}

/// Comparison in constant time.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of eight zero bytes, computed with coreutils' sha256sum:
    /// af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc
    #[test]
    fn token_and_idsn_are_the_ends_of_the_hash() {
        let key = Key::new(0);
        assert_eq!(key.token, 0xaf55_70f5);
        assert_eq!(key.idsn, 0xe5b2_328d_e0e8_3dfc);
    }

    #[test]
    fn a_key_is_known_by_all_its_bits() {
        let key = Key::new(0x0123_4567_89ab_cdef);
        assert!(key.is(0x0123_4567_89ab_cdef));
        assert!((0..64).all(|bit| !key.is(0x0123_4567_89ab_cdef ^ 1 << bit)));
    }

    #[test]
    fn the_two_sides_of_a_join_differ() {
        assert_ne!(join_synack(1, 2, 3, 4), join_synack(2, 1, 4, 3));
        assert_ne!(join_ack(1, 2, 3, 4), join_ack(1, 2, 4, 3));
        assert!(same(&join_ack(1, 2, 3, 4), &join_ack(1, 2, 3, 4)));
    }
}
