use core::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// A seeded generator. The same seed and stream give the same numbers on every machine, for ever.
///
/// Whatever needs randomness takes a stream of its own from the one seed, so that one more user does
/// not change what the others draw.
#[derive(Clone, Debug)]
pub struct Random {
    rng: ChaCha8Rng,
}

impl Random {
    /// Stream number `stream` of `seed`.
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self { rng }
    }

    /// A generator of its own that follows from this one.
    #[must_use]
    pub fn split(&mut self) -> Self {
        Self::new(self.bits(), 0)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.rng.fill_bytes(bytes);
    }

    /// A number of `0..1`, uniform.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with probability `p`. Draws nothing if `p` is 0 or less.
    pub fn chance(&mut self, p: f64) -> bool {
        p > 0.0 && self.unit() < p
    }

    /// A number of `0..n`, uniform; 0 if `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(n)) >> 64) as u64
    }

    /// A normal deviate of mean 0 and standard deviation 1 (Box and Muller 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - self.unit()));
        radius * libm::cos(core::f64::consts::TAU * self.unit())
    }

    /// A duration of `0..max`, uniform.
    pub fn duration(&mut self, max: Duration) -> Duration {
        Duration::from_nanos(self.below(u64::try_from(max.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// The seed of a run: that of the environment variable `ANABRANCH_SEED` if it is a number, or `default`.
#[must_use]
pub fn seed_from_env(default: u64) -> u64 {
    std::env::var("ANABRANCH_SEED").ok().and_then(|text| text.trim().parse().ok()).unwrap_or(default)
}

/// A pseudo-random byte stream to be sent and, by whoever knows its seed, to be checked.
#[derive(Clone, Debug)]
pub struct Pattern {
    random: Random,
    block: Box<[u8; 4096]>,
    used: usize,
}

impl Pattern {
    /// The stream of `seed`, from its first byte.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { random: Random::new(seed, u64::MAX), block: Box::new([0; 4096]), used: 4096 }
    }

    /// The next bytes of the stream, at least one and at most `max`, for `max` above 0.
    pub fn next(&mut self, max: usize) -> &[u8] {
        if self.used == self.block.len() {
            self.random.fill(&mut self.block[..]);
            self.used = 0;
        }
        let end = self.block.len().min(self.used + max);
        let start = core::mem::replace(&mut self.used, end);
        &self.block[start..end]
    }

    /// Fills `bytes` with the next of the stream.
    pub fn fill(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let piece = self.next(bytes.len());
            bytes[..piece.len()].copy_from_slice(piece);
            bytes = &mut bytes[piece.len()..];
        }
    }

    /// Compares `bytes` with the next of the stream: where they first differ, if they do.
    pub fn mismatch(&mut self, mut bytes: &[u8]) -> Option<usize> {
        let len = bytes.len();
        while !bytes.is_empty() {
            let piece = self.next(bytes.len());
            if *piece != bytes[..piece.len()] {
                let at = piece.iter().zip(bytes).position(|(a, b)| a != b).unwrap_or(0);
                return Some(len - bytes.len() + at);
            }
            bytes = &bytes[piece.len()..];
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_one_seed_are_independent_and_repeatable() {
        let draw = |seed, stream| Random::new(seed, stream).bits();
        assert_eq!(draw(1, 0), draw(1, 0));
        assert_ne!(draw(1, 0), draw(1, 1));
        assert_ne!(draw(1, 0), draw(2, 0));
    }

    #[test]
    fn normal_deviates_have_the_moments_of_the_normal_distribution() {
        let mut random = Random::new(7, 0);
        let draws: Vec<f64> = (0..100_000).map(|_| random.normal()).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / draws.len() as f64;
        assert!(mean.abs() < 0.02, "mean {mean}");
        assert!((variance - 1.0).abs() < 0.03, "variance {variance}");
    }

    #[test]
    fn a_pattern_does_not_depend_on_how_it_is_cut() {
        let mut whole = vec![0; 20_000];
        Pattern::new(3).fill(&mut whole);
        let mut pattern = Pattern::new(3);
        for piece in whole.chunks(777) {
            assert_eq!(pattern.mismatch(piece), None);
        }
        whole[9_999] ^= 1;
        assert_eq!(Pattern::new(3).mismatch(&whole), Some(9_999));
    }
}
