//! Connections that were told the same share what they were told: most of a server's millions do.

use alloc::borrow::Cow;
use alloc::sync::Arc;

use arrayvec::ArrayVec;

use super::SocketOptions;

/// Sets of options that are looked through.
const KNOWN_MAX: usize = 8;

/// The sets of options that were asked for last.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    known: ArrayVec<Arc<SocketOptions>, KNOWN_MAX>,
}

impl Shared {
    /// A set that equals `options`: one that somebody has already, if it was in use lately.
    pub(crate) fn get(&mut self, options: Cow<'_, SocketOptions>) -> Arc<SocketOptions> {
        if let Some(at) = self.known.iter().position(|known| **known == *options) {
            // The front is for those in use.
            self.known[..=at].rotate_right(1);
            return Arc::clone(&self.known[0]);
        }
        if self.known.is_full() {
            self.known.pop();
        }
        let shared = Arc::new(options.into_owned());
        self.known.insert(0, Arc::clone(&shared));
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clamped(bytes: u32) -> SocketOptions {
        SocketOptions { window_clamp: Some(bytes), ..SocketOptions::default() }
    }

    #[test]
    fn equal_options_are_one_set_as_long_as_it_is_in_use() {
        let mut shared = Shared::default();
        let first = shared.get(Cow::Owned(clamped(0)));
        for bytes in 1..=20 {
            assert!(!Arc::ptr_eq(&first, &shared.get(Cow::Owned(clamped(bytes)))));
            assert!(Arc::ptr_eq(&first, &shared.get(Cow::Owned(clamped(0)))));
        }
        assert_eq!(shared.known.len(), KNOWN_MAX);
    }
}
