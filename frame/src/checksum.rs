//! The Internet checksum (RFC 1071): ones' complement sums in four lanes of 64 bits.

/// A running ones' complement sum. Bytes may come in any number of pieces of any length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    sum: u64,
    odd: bool,
}

impl Sum {
    /// The empty sum.
    #[must_use]
    pub const fn new() -> Self {
        Self { sum: 0, odd: false }
    }

    /// Adds `bytes`, continuing at an odd position if the pieces before had an odd length.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "a sum of bytes at a position, not of two sums")]
    pub fn add(mut self, bytes: &[u8]) -> Self {
        let piece = u64::from(sum_be(bytes));
        // A piece at an odd position contributes its byte-swapped sum (RFC 1071 §2 B).
        let piece = if self.odd { u64::from((piece as u16).swap_bytes()) } else { piece };
        self.sum += piece;
        self.odd ^= bytes.len() % 2 == 1;
        self
    }

    /// Adds a 16-bit word at an even position.
    #[must_use]
    pub fn add_u16(mut self, word: u16) -> Self {
        self.sum += u64::from(word);
        self
    }

    /// Adds a 32-bit word at an even position.
    #[must_use]
    pub fn add_u32(self, word: u32) -> Self {
        self.add_u16((word >> 16) as u16).add_u16(word as u16)
    }

    /// The sum folded to 16 bits, not complemented.
    #[must_use]
    pub fn fold(self) -> u16 {
        fold(self.sum)
    }

    /// The checksum: the folded sum, complemented.
    #[must_use]
    pub fn finish(self) -> u16 {
        !self.fold()
    }
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Folded ones' complement sum of `bytes` as big-endian 16-bit words, padded with a zero byte.
#[must_use]
pub fn sum_be(bytes: &[u8]) -> u16 {
    // The sum does not care about byte order until it is folded: add native words and swap once.
    let mut lanes = [0u64; 4];
    let mut carries = [0u64; 4];
    let mut chunks = bytes.chunks_exact(32);
    for chunk in &mut chunks {
        for lane in 0..4 {
            let mut word = [0; 8];
            word.copy_from_slice(&chunk[lane * 8..lane * 8 + 8]);
            let (sum, carry) = lanes[lane].overflowing_add(u64::from_ne_bytes(word));
            lanes[lane] = sum;
            carries[lane] += u64::from(carry);
        }
    }
    let mut total = 0u64;
    for lane in 0..4 {
        total += u64::from(fold(lanes[lane])) + u64::from(fold(carries[lane]));
    }
    let mut words = chunks.remainder().chunks_exact(2);
    for word in &mut words {
        total += u64::from(u16::from_ne_bytes([word[0], word[1]]));
    }
    if let [last] = words.remainder() {
        total += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    u16::from_be(fold(total))
}

/// Sum of the pseudo-header of TCP over IPv4 or IPv6 (RFC 9293 §3.1, RFC 8200 §8.1). `source` and
/// `destination` are the 4 or 16 bytes of each address, `len` the transport header and payload.
#[must_use]
pub fn pseudo_header(source: &[u8], destination: &[u8], protocol: u8, len: u32) -> Sum {
    Sum::new().add(source).add(destination).add_u32(len).add_u16(u16::from(protocol))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn by_the_book(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    /// Zero has two forms in ones' complement; a sum of non-zero words never folds to 0.
    fn same(a: u16, b: u16) -> bool {
        a == b || (a == 0 && b == 0xffff) || (a == 0xffff && b == 0)
    }

    #[test]
    fn rfc_1071_example() {
        assert_eq!(sum_be(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    }

    proptest! {
        #[test]
        fn equals_the_definition(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(same(sum_be(&bytes), by_the_book(&bytes)));
        }

        #[test]
        fn pieces_add_up(bytes in proptest::collection::vec(any::<u8>(), 0..300), cuts in proptest::collection::vec(0usize..300, 0..6)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut sum = Sum::new();
            let mut at = 0;
            for cut in cuts {
                sum = sum.add(&bytes[at..cut]);
                at = cut;
            }
            sum = sum.add(&bytes[at..]);
            prop_assert!(same(sum.fold(), by_the_book(&bytes)));
        }
    }
}
