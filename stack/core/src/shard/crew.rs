//! Which worker is asked about what.

use alloc::vec;
use alloc::vec::Vec;

use crate::config::ShardConfig;
use crate::tcp::home_hash;
use crate::wire::Tuple;

use super::WorkerId;

/// The workers that share a stack's tuples and tokens.
///
/// When one of them ends before the others, what it was responsible for falls to the next one that is left.
#[derive(Debug)]
pub(crate) struct Crew {
    own: WorkerId,
    key: [u8; 16],
    /// Whether a worker has ended; one entry for each.
    ended: Vec<bool>,
}

/// Which of so many workers, one at least, is asked about the connection that a token of ours names.
///
/// While all of them live that is where the connection is.
#[must_use]
pub fn worker_of_token(token: u32, workers: usize) -> usize {
    token as usize % workers.max(1)
}

impl Crew {
    pub(crate) fn new(config: &ShardConfig) -> Self {
        Self { own: config.worker, key: config.hash_key, ended: vec![false; usize::from(config.workers.max(1))] }
    }

    /// Which one this is.
    pub(crate) fn own(&self) -> WorkerId {
        self.own
    }

    /// Whether there is only one.
    pub(crate) fn is_alone(&self) -> bool {
        self.ended.len() == 1
    }

    /// All others that have not ended.
    pub(crate) fn others(&self) -> impl Iterator<Item = WorkerId> + '_ {
        let own = self.own;
        let living = self.ended.iter().enumerate().filter(|(_, ended)| !**ended);
        living.map(|(worker, _)| worker as WorkerId).filter(move |worker| *worker != own)
    }

    /// How many there were at the start.
    pub(crate) fn len(&self) -> usize {
        self.ended.len()
    }

    /// The worker on which a tuple is at home: the only one that may answer it as a stranger.
    pub(crate) fn home(&self, tuple: &Tuple) -> WorkerId {
        if self.is_alone() {
            return self.own;
        }
        self.living((home_hash(&self.key, tuple) % self.len() as u64) as usize)
    }

    /// The worker of the connection that a token names.
    pub(crate) fn of_token(&self, token: u32) -> WorkerId {
        self.living(worker_of_token(token, self.len()))
    }

    /// Whether a token that we give to a connection names this worker.
    pub(crate) fn may_give(&self, token: u32) -> bool {
        worker_of_token(token, self.len()) == usize::from(self.own)
    }

    /// A worker has ended. `false` if that is known.
    pub(crate) fn end(&mut self, worker: WorkerId) -> bool {
        let ended = self.ended.get_mut(usize::from(worker));
        worker != self.own && ended.is_some_and(|ended| !core::mem::replace(ended, true))
    }

    /// That worker, or the next one that has not ended. We have not.
    fn living(&self, worker: usize) -> WorkerId {
        let all = self.len();
        let next = (worker..worker + all).map(|at| at % all).find(|at| !self.ended[*at]);
        next.map_or(self.own, |at| at as WorkerId)
    }
}
