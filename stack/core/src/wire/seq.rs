use core::fmt;

/// A 32-bit sequence number as it stands on the wire. It has no order: numbers wrap. Inside the
/// stack, positions are 64-bit and do not wrap; [`unwrap`](Self::unwrap) leads from here to there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SeqNum(pub u32);

impl SeqNum {
    /// Signed distance from `other` to `self`, modulo 2^32 (RFC 9293 §3.4).
    #[must_use]
    pub fn distance(self, other: Self) -> i32 {
        self.0.wrapping_sub(other.0) as i32
    }

    /// Whether `self` comes before `other`.
    #[must_use]
    pub fn before(self, other: Self) -> bool {
        self.distance(other) < 0
    }

    /// Whether `self` comes after `other`.
    #[must_use]
    pub fn after(self, other: Self) -> bool {
        self.distance(other) > 0
    }

    /// `self` moved on by `n`.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "`+` would hide that it wraps")]
    pub fn add(self, n: u32) -> Self {
        Self(self.0.wrapping_add(n))
    }

    /// The sequence number of position `pos` when `self` is that of position 0.
    #[must_use]
    pub fn at(self, pos: u64) -> Self {
        Self(self.0.wrapping_add(pos as u32))
    }

    /// The position nearest to `near` whose sequence number is `wire`, when `self` is that of
    /// position 0. `None` if it lies before position 0.
    #[must_use]
    pub fn unwrap(self, wire: Self, near: u64) -> Option<u64> {
        near.checked_add_signed(i64::from(wire.distance(self.at(near))))
    }
}

impl fmt::Debug for SeqNum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn order_goes_round_the_corner() {
        let last = SeqNum(u32::MAX);
        assert!(last.before(last.add(1)) && last.add(1).after(last));
        assert_eq!(last.add(1), SeqNum(0));
        assert_eq!(SeqNum(5).distance(last), 6);
        assert_eq!(last.at((1 << 32) + 3), SeqNum(2));
        assert!(!last.before(last) && !last.after(last));
    }

    #[test]
    fn what_lies_before_the_start_has_no_position() {
        assert_eq!(SeqNum(100).unwrap(SeqNum(99), 0), None);
        assert_eq!(SeqNum(100).unwrap(SeqNum(99), 5), None);
        assert_eq!(SeqNum(100).unwrap(SeqNum(99), 1 << 32), Some((1 << 32) - 1));
    }

    proptest! {
        #[test]
        fn a_position_near_by_is_found_again(start: u32, near in 1u64 << 31..u64::MAX >> 1, delta in -0x8000_0000i64..0x8000_0000) {
            let position = near.wrapping_add_signed(delta);
            let start = SeqNum(start);
            prop_assert_eq!(start.unwrap(start.at(position), near), Some(position));
        }
    }
}
