//! What the workers of a stack tell each other.

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use anabranch_frame::{Instant, RxPacket};

use crate::wire::Tuple;

use super::{Capability, Shard, Slot, WorkerId};

/// What one worker has to tell another.
#[derive(Clone, Debug)]
pub enum Mail {
    /// A packet of a connection that lives there.
    Packet(RxPacket),
    /// A joined subflow whose tuple is at home there lives on `worker`: send its packets on.
    Forward {
        /// The subflow's addresses.
        tuple: Tuple,
        /// Where its connection lives.
        worker: WorkerId,
    },
    /// That subflow is gone.
    Forget(Tuple),
    /// What a connection to a destination found out about MP_CAPABLE on the way there.
    Capability {
        /// The destination.
        destination: IpAddr,
        /// What it found.
        what: Capability,
    },
    /// That worker has ended before its time, with all its connections. Whoever drives the workers says so.
    Ended(WorkerId),
}

/// How much a worker's tables hold. All is zero once every connection is over, TIME-WAIT included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Sizes {
    /// Connections, those without a subflow included.
    pub connections: usize,
    /// Half-open connections of listeners, and joins.
    pub half_open: usize,
    /// Subflows in TIME-WAIT.
    pub time_waits: usize,
    /// Addresses and ports in use by what lives here: subflows in any state.
    pub tuples: usize,
    /// Those that are at home here and in use by another worker.
    pub forwards: usize,
    /// MPTCP tokens.
    pub tokens: usize,
    /// What waits to be handed to other workers.
    pub mail: usize,
}

impl Shard {
    /// Another worker has something for us.
    pub fn handle_mail(&mut self, now: Instant, mail: Mail) {
        match mail {
            Mail::Packet(packet) => self.receive_mail(now, packet),
            Mail::Forward { tuple, worker } => {
                if self.table.find(&tuple).is_none() {
                    self.table.insert(tuple, Slot::Forward(worker));
                }
            }
            Mail::Forget(tuple) => {
                if let Some(slot @ Slot::Forward(_)) = self.table.find(&tuple) {
                    self.table.remove(&tuple, slot);
                }
            }
            Mail::Capability { destination, what } => {
                self.blackholes.note(now, destination, what);
            }
            Mail::Ended(worker) => self.inherit(worker),
        }
    }

    /// Another worker is gone. What it was asked about the next one is asked from now on, so that one has to know
    /// which of our tuples are at home there.
    fn inherit(&mut self, worker: WorkerId) {
        let orphan = |tuple: &Tuple| self.crew.home(tuple) == worker;
        let orphans: Vec<Tuple> = self.table.living_here().filter(orphan).collect();
        if !self.crew.end(worker) {
            return;
        }
        self.table.forget_forwards_to(worker);
        let own = self.crew.own();
        for tuple in orphans {
            let home = self.crew.home(&tuple);
            if home != own {
                self.mail.push_back((home, Mail::Forward { tuple, worker: own }));
            }
        }
    }

    /// Something for another worker.
    pub fn poll_mail(&mut self) -> Option<(WorkerId, Mail)> {
        self.mail.pop_front()
    }

    /// The worker that has to open a connection with these addresses, because only it knows whether they are in use.
    /// Any worker may if the port is left to the stack.
    #[must_use]
    pub fn opener(&self, local: Option<SocketAddr>, remote: SocketAddr) -> WorkerId {
        let own = self.crew.own();
        let port = local.map_or(0, |local| local.port());
        match self.choose_address(local, remote) {
            Ok(addr) if port != 0 => self.crew.home(&Tuple { local: SocketAddr::new(addr, port), remote }),
            _ => own,
        }
    }

    /// How much this worker's tables hold.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        let forwards = self.table.forwards();
        Sizes {
            connections: self.conns.len(),
            half_open: self.syns.len(),
            time_waits: self.time_waits.len(),
            tuples: self.table.len() - forwards,
            forwards,
            tokens: self.tokens.len(),
            mail: self.mail.len(),
        }
    }
}
