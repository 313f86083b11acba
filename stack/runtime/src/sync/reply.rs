//! One answer from a worker to a thread that waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_queue::ArrayQueue;

use super::Gate;

struct Slot<T> {
    answer: ArrayQueue<T>,
    /// The answering side is gone, with or without an answer.
    done: AtomicBool,
    gate: Gate,
}

/// Where the worker puts its answer. Dropped without one, the waiting side gets `None`.
pub(crate) struct Reply<T>(Arc<Slot<T>>);

/// Where the answer is waited for.
pub(crate) struct Answer<T>(Arc<Slot<T>>);

/// The two ends of one answer.
pub(crate) fn reply<T>() -> (Reply<T>, Answer<T>) {
    let slot = Arc::new(Slot { answer: ArrayQueue::new(1), done: AtomicBool::new(false), gate: Gate::new() });
    (Reply(Arc::clone(&slot)), Answer(slot))
}

impl<T> Reply<T> {
    pub(crate) fn send(self, answer: T) {
        let _ = self.0.answer.push(answer);
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        self.0.done.store(true, Ordering::Release);
        self.0.gate.open();
    }
}

impl<T> Answer<T> {
    /// Blocks until the answer is there, or nobody is left to give it.
    pub(crate) fn wait(self) -> Option<T> {
        self.0.gate.wait(None, || self.0.done.load(Ordering::Acquire).then(|| self.0.answer.pop())).flatten()
    }
}

#[cfg(test)]
mod tests {

    #[test]
    fn an_answer_arrives_and_a_dropped_one_is_noticed() {
        let (reply, answer) = super::reply();
        let worker = std::thread::spawn(move || reply.send(7));
        assert_eq!(answer.wait(), Some(7));
        worker.join().unwrap();

        let (reply, answer) = super::reply::<u8>();
        drop(reply);
        assert_eq!(answer.wait(), None);
    }
}
