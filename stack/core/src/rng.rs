//! The stack's generator: seeded once, the same draws on every machine.

use rand_chacha::ChaCha12Rng;
use rand_core::{Rng as _, SeedableRng};

/// A cryptographic generator with a seed handed in by the caller.
#[derive(Debug)]
pub(crate) struct Rng(ChaCha12Rng);

impl Rng {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self(ChaCha12Rng::from_seed(seed))
    }

    pub(crate) fn u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    pub(crate) fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `n`; the bias of the modulo is below 2^-32 for every `n` in use here.
    pub(crate) fn below(&mut self, n: u32) -> u32 {
        (self.u64() % u64::from(n.max(1))) as u32
    }
}
