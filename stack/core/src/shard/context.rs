//! What a connection may ask of the shard while it is at work.

use core::net::{IpAddr, SocketAddr};

use crate::mptcp::Cx;
use crate::tcp::{Subflow, SubflowStart};
use crate::wire::Tuple;

use super::{Mail, Slot, TimeWait};

/// Draws of a source port before it is taken to be hopeless, for each worker.
const PORT_DRAWS: u32 = 64;

impl Cx<'_> {
    /// A subflow whose handshake is done.
    pub(crate) fn subflow(&self, start: SubflowStart) -> Subflow {
        let mut subflow = Subflow::new(self.now, start, self.config.recovery);
        subflow.limit_mtu(self.pmtus.get(self.now, subflow.tuple.remote.ip()));
        subflow
    }

    /// A tuple from `local` to `remote` with a free source port (RFC 6056 §3.3.1), at home here.
    pub(crate) fn free_tuple(&mut self, local: IpAddr, remote: SocketAddr) -> Option<Tuple> {
        let (first, last) = self.config.ephemeral_ports;
        let count = u32::from(last.saturating_sub(first)) + 1;
        for _ in 0..PORT_DRAWS * self.crew.len() as u32 {
            let port = first + self.rng.below(count) as u16;
            let tuple = Tuple { local: SocketAddr::new(local, port), remote };
            if self.crew.home(&tuple) == self.crew.own() && self.table.find(&tuple).is_none() {
                return Some(tuple);
            }
        }
        None
    }

    /// A tuple is no longer in use; its home is told.
    pub(crate) fn release_tuple(&mut self, tuple: &Tuple, slot: Slot) {
        if self.table.remove(tuple, slot) {
            self.tell_home(tuple, Mail::Forget(*tuple));
        }
    }

    /// A tuple that is at home elsewhere lives here from now on.
    pub(crate) fn claim_tuple(&mut self, tuple: &Tuple) {
        let worker = self.crew.own();
        self.tell_home(tuple, Mail::Forward { tuple: *tuple, worker });
    }

    fn tell_home(&mut self, tuple: &Tuple, mail: Mail) {
        let home = self.crew.home(tuple);
        if home != self.crew.own() {
            self.mail.push_back((home, mail));
        }
    }

    /// A subflow's tuple goes into TIME-WAIT.
    pub(crate) fn enter_time_wait(&mut self, slot: Slot, entry: TimeWait) {
        let tuple = entry.tuple;
        self.table.remove(&tuple, slot);
        let (index, evicted) = self.time_waits.insert(self.now + self.config.time_wait, entry);
        if let Some((old, entry)) = evicted {
            self.release_tuple(&entry.tuple, Slot::TimeWait(old));
        }
        self.table.insert(tuple, Slot::TimeWait(index));
    }
}
