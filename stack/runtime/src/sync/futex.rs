//! Sleeping on a word of memory (futex(2)).

use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rustix::thread::{Timespec, futex};

/// Sleeps while the word has this value, for at most `timeout`. May return early for any reason.
pub(crate) fn wait(word: &AtomicU32, value: u32, timeout: Option<Duration>) {
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    let _ = futex::wait(word, futex::Flags::PRIVATE, value, timeout.as_ref());
}

/// Wakes every thread that sleeps on the word.
pub(crate) fn wake_all(word: &AtomicU32) {
    let _ = futex::wake(word, futex::Flags::PRIVATE, i32::MAX as u32);
}
