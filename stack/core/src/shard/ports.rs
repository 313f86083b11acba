//! Choice of source ports (RFC 6056).

use core::net::{IpAddr, SocketAddr};

use crate::rng::Rng;
use crate::tcp::port_hash;

/// Counts that connections to different destinations share: few, so that nobody can tell whose count goes on.
const TABLE: usize = 256;

/// Where the search for a source port goes on: RFC 6056's algorithm 4, double-hash port selection.
#[derive(Debug)]
pub(crate) struct Ports {
    counts: [u16; TABLE],
}

impl Default for Ports {
    fn default() -> Self {
        Self { counts: [0; TABLE] }
    }
}

impl Ports {
    /// First port to be looked at, counted from the first ephemeral one.
    pub(crate) fn start(&self, key: &[u8; 16], local: IpAddr, remote: SocketAddr, rng: &mut Rng) -> u32 {
        let hash = port_hash(key, local, remote);
        // Linux adds a little noise to the count.
        (hash as u32 >> 1).wrapping_add(u32::from(self.counts[index(hash)])) & !1 | (rng.u32() & 1)
    }

    /// `steps` ports were looked at until one was found.
    pub(crate) fn used(&mut self, key: &[u8; 16], local: IpAddr, remote: SocketAddr, steps: u32) {
        let count = &mut self.counts[index(port_hash(key, local, remote))];
        *count = count.wrapping_add(steps as u16);
    }
}

fn index(hash: u64) -> usize {
    (hash >> 32) as usize % TABLE
}
