//! The bytes that are sent: each place of the stream has its own, so that what arrives can be compared quickly.

use std::sync::OnceLock;

use anabranch_sim::Random;

/// Bytes of one read or write.
pub const CHUNK: usize = 256 << 10;
/// After so many bytes the stream repeats itself: a prime, which no size of a buffer or packet goes into.
const PERIOD: usize = 65_521;
/// Longest slice that is asked for at once.
const LONGEST: usize = 1 << 20;

/// The stream that is sent.
#[derive(Clone, Copy, Debug)]
pub struct Pattern(&'static [u8]);

impl Default for Pattern {
    fn default() -> Self {
        Self::new()
    }
}

impl Pattern {
    /// The only one there is.
    #[must_use]
    pub fn new() -> Self {
        static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
        Self(BYTES.get_or_init(|| {
            let mut period = vec![0; PERIOD];
            Random::new(1, 0).fill(&mut period);
            period.iter().copied().cycle().take(PERIOD + LONGEST).collect()
        }))
    }

    /// Bytes of the stream from one on; a mebibyte at most.
    ///
    /// # Panics
    /// If that is too much.
    #[must_use]
    pub fn slice(self, from: u64, bytes: usize) -> &'static [u8] {
        let from = (from % PERIOD as u64) as usize;
        &self.0[from..from + bytes]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_those_of_one_stream() {
        let pattern = Pattern::new();
        let whole = pattern.slice(0, LONGEST);
        for from in [1, 1448, 65_520, 65_521, 200_000] {
            assert_eq!(pattern.slice(from as u64, 5000), &whole[from..from + 5000], "from {from}");
        }
        assert_ne!(pattern.slice(0, 1448), pattern.slice(1448, 1448));
    }
}
