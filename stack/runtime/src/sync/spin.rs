//! Waiting without sleeping, for those who can afford it.

use std::time::{Duration, Instant};

/// Looks again and again until `ready` gives something or `budget` is spent (`None`). Others that want the processor
/// run in between: what is waited for may be theirs to do.
pub(crate) fn spin<T>(budget: Duration, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    if budget.is_zero() {
        return None;
    }
    let begin = Instant::now();
    loop {
        std::thread::yield_now();
        let found = ready();
        if found.is_some() || begin.elapsed() >= budget {
            return found;
        }
    }
}
