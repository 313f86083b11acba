//! The worker's side of listeners.

use std::net::SocketAddr;
use std::sync::Arc;

use anabranch_core::{Error, ListenerId};
use anabranch_frame::Instant;

use super::Worker;
use super::seat::Wake;
use crate::conn::{Conn, state};
use crate::listener::{ACCEPT_AHEAD, Accepting};

impl Worker {
    /// Listens on this worker's part of the stack.
    pub(crate) fn listen(&mut self, local: SocketAddr, accepting: Arc<Accepting>) -> Result<ListenerId, Error> {
        if !self.is_running() {
            return Err(Error::Aborted);
        }
        let backlog = accepting.backlog_of_a_worker(self.peers.len());
        let id = self.shard.listen(local, backlog, accepting.options().clone())?;
        self.listeners.insert(id, accepting);
        Ok(id)
    }

    /// Stops listening.
    pub(crate) fn close_listener(&mut self, id: ListenerId) {
        if self.listeners.remove(&id).is_some() {
            let now = self.clock.now();
            self.shard.close_listener(now, id);
        }
    }

    /// The application has taken connections and there is room for more.
    pub(crate) fn refill_accepting(&mut self, id: ListenerId) {
        let now = self.clock.now();
        self.fill_accepting(now, id);
    }

    /// Hands connections to the application, a few ahead of its `accept`. The others wait in the shard, which minds
    /// the backlog.
    pub(super) fn fill_accepting(&mut self, now: Instant, id: ListenerId) {
        let Some(accepting) = self.listeners.get(&id).map(Arc::clone) else { return };
        let mut count = 0;
        loop {
            if accepting.queue.len() >= ACCEPT_AHEAD {
                accepting.starved.announce();
                if accepting.queue.len() >= ACCEPT_AHEAD {
                    break;
                }
            }
            let Some((conn_id, remote)) = self.shard.accept(id) else { break };
            let Some(options) = self.shard.listener_options(id) else { break };
            let conn = Conn::new(Arc::clone(&self.handle), options);
            let local = self.shard.info(conn_id).map_or(accepting.local(), |info| info.local);
            conn.set_addrs(local, remote);
            conn.set_state(state::CONNECTED);
            let at = self.adopt(conn_id, Arc::clone(&conn));
            self.pump_rx(now, at);
            accepting.queue.push(conn);
            count += 1;
        }
        if count > 0 {
            self.woken.push(Wake::Accepting(accepting, count));
        }
    }
}
