use anabranch_frame::Instant;

/// Bits at one bit per second in a nanosecond, inverted.
const NANOS: u128 = 1_000_000_000;

/// A policer: a token bucket that lets packets through as long as there is something in it, and drops
/// them otherwise. It has no queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Police {
    /// Bits per second that flow into the bucket. At least 1.
    pub rate: u64,
    /// Bytes that the bucket holds; it is full at first. No packet larger than that passes.
    pub burst: u32,
}

/// Its bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    police: Police,
    /// Bits times [`NANOS`]: exact for every rate.
    tokens: u128,
    at: Instant,
}

impl Bucket {
    pub(super) fn full(police: Police, now: Instant) -> Self {
        Self { police, tokens: Self::bits(police.burst as usize), at: now }
    }

    fn bits(bytes: usize) -> u128 {
        bytes as u128 * 8 * NANOS
    }

    /// Takes the tokens for a packet, if there are enough.
    pub(super) fn admits(&mut self, now: Instant, bytes: usize) -> bool {
        let flown = now.saturating_since(self.at).as_nanos() * u128::from(self.police.rate);
        self.at = self.at.max(now);
        self.tokens = (self.tokens + flown).min(Self::bits(self.police.burst as usize));
        let left = self.tokens.checked_sub(Self::bits(bytes));
        self.tokens = left.unwrap_or(self.tokens);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lets_its_burst_and_its_rate_through_and_not_a_bit_more() {
        // Given 8 Mbit/s, a kilobyte each millisecond, and room for three.
        let mut bucket = Bucket::full(Police { rate: 8_000_000, burst: 3000 }, Instant::ZERO);
        let mut admitted = |at| (0..10).filter(|_| bucket.admits(at, 1000)).count();
        assert_eq!(admitted(Instant::ZERO), 3);
        assert_eq!(admitted(Instant::from_nanos(999_999)), 0);
        assert_eq!(admitted(Instant::from_millis(1)), 1);
        assert_eq!(admitted(Instant::from_millis(3)), 2);
        assert_eq!(admitted(Instant::from_millis(2)), 0, "time does not go back");
        assert_eq!(admitted(Instant::from_millis(10_000)), 3);
        assert!(!bucket.admits(Instant::from_millis(20_000), 3001));
    }
}
