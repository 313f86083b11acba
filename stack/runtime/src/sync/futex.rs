//! Sleeping on a word of memory (futex(2)).

use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rustix::thread::{Timespec, futex};

/// Sleeps while the word has this value, for at most `timeout`. May return early for any reason.
pub(crate) fn wait(word: &AtomicU32, value: u32, timeout: Option<Duration>) {
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    let _ = futex::wait(word, futex::Flags::PRIVATE, value, timeout.as_ref());
}

/// Wakes at most `most` of the threads that sleep on the word.
pub(crate) fn wake(word: &AtomicU32, most: u32) {
    let _ = futex::wake(word, futex::Flags::PRIVATE, most.min(i32::MAX as u32));
}
