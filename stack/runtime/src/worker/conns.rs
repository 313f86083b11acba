//! The worker's side of connections: bytes between the shard and the rings.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anabranch_core::shard::{Read, Shutdown};
use anabranch_core::{ConnId, Error, SocketOptions};
use anabranch_frame::Instant;

use super::seat::{Wake, Woken};
use super::{Handle, Worker};
use crate::conn::{Conn, NO_SLOT, RING_LIMIT, cost, order, state};

/// With more connections than this the worker's own thread does all its turns.
const CROWD: usize = 32;

/// A connection that the application holds.
pub(super) struct Slot {
    pub(super) id: ConnId,
    pub(super) conn: Arc<Conn>,
    /// Cost of what went into the read ring and came out of the write ring so far.
    rx_given: u64,
    tx_taken: u64,
    /// Bytes given to the reader, and bytes that the shard knows to be consumed.
    rx_bytes: u64,
    rx_reported: u64,
    /// Nothing more comes from the shard.
    rx_ended: bool,
    /// Nothing more goes to the shard.
    tx_ended: bool,
    read_shut: bool,
    aborted: bool,
    /// It is in the list of those whose waiting threads are to be told at the end of the turn…
    touched: bool,
    /// …that there is something to read, or room to write.
    wake_rx: bool,
    wake_tx: bool,
}

/// A connection on its way to the worker that shall open it. Dropped on the way, the connection fails.
pub(crate) struct Opening(Option<Arc<Conn>>);

impl Opening {
    pub(crate) fn new(conn: Arc<Conn>) -> Self {
        Self(Some(conn))
    }

    pub(crate) fn open(
        mut self,
        worker: &mut Worker,
        local: Option<SocketAddr>,
        remote: SocketAddr,
        options: &SocketOptions,
    ) {
        if let Some(conn) = self.0.take() {
            worker.connect(&conn, local, remote, options);
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(conn) = self.0.take() {
            conn.end(Error::Aborted);
        }
    }
}

impl Worker {
    /// Gives a connection of the shard a slot, so that the application can use it.
    pub(super) fn adopt(&mut self, id: ConnId, conn: Arc<Conn>) -> u32 {
        let at = self.conns.insert(Slot {
            id,
            conn,
            rx_given: 0,
            tx_taken: 0,
            rx_bytes: 0,
            rx_reported: 0,
            rx_ended: false,
            tx_ended: false,
            read_shut: false,
            aborted: false,
            touched: false,
            wake_rx: false,
            wake_tx: false,
        }) as u32;
        self.conns[at as usize].conn.slot.store(at, Ordering::Relaxed);
        self.by_id.insert(id, at);
        self.note_crowd();
        at
    }

    /// The worker that has to open a connection from `local`.
    pub(crate) fn opener(&self, local: SocketAddr, remote: SocketAddr) -> Arc<Handle> {
        let opener = self.shard.opener(Some(local), remote);
        Arc::clone(self.peers.get(usize::from(opener)).unwrap_or(&self.handle))
    }

    /// With many connections a thread that does turns mostly works for others, and many threads contend for the seat.
    fn note_crowd(&self) {
        let crowded = self.conns.len() > CROWD;
        if self.handle.crowded.load(Ordering::Relaxed) != crowded {
            self.handle.crowded.store(crowded, Ordering::Relaxed);
        }
    }

    /// Opens a connection for `conn`. What comes of it the application learns from its state.
    fn connect(&mut self, conn: &Arc<Conn>, local: Option<SocketAddr>, remote: SocketAddr, options: &SocketOptions) {
        let now = self.clock.now();
        if !self.is_running() {
            return conn.end(Error::Aborted);
        }
        match self.shard.connect(now, local, remote, options) {
            Ok(id) => {
                self.adopt(id, Arc::clone(conn));
                // It may have been let go of already, while it had no slot.
                self.serve(now, conn);
            }
            Err(error) => {
                conn.end(error);
                self.handle.poke_driver();
            }
        }
    }

    pub(super) fn connected(&mut self, at: u32) {
        let slot = &mut self.conns[at as usize];
        if let Some(info) = self.shard.info(slot.id) {
            slot.conn.set_addrs(info.local, info.remote);
        }
        slot.conn.set_state(state::CONNECTED);
        self.touch(at, false, true);
    }

    /// The application asked for service, or at least rang.
    pub(super) fn serve(&mut self, now: Instant, conn: &Arc<Conn>) {
        let at = conn.slot.load(Ordering::Relaxed);
        if at == NO_SLOT {
            return;
        }
        // Before the ring: what was written before an order is in the ring when the order is seen.
        let orders = conn.orders();
        if orders & order::ABORT != 0 {
            self.abort(now, at);
        }
        if orders & order::RELEASE != 0 {
            return self.release(now, at);
        }
        self.pump_tx(now, at);
        let slot = &mut self.conns[at as usize];
        if orders & order::SHUT_READ != 0 && !slot.read_shut {
            slot.read_shut = true;
            let _ = self.shard.shutdown(now, slot.id, Shutdown::Read);
        }
        self.pump_rx(now, at);
    }

    /// Moves bytes from the write ring into the shard, as many as it has room for.
    pub(super) fn pump_tx(&mut self, now: Instant, at: u32) {
        let slot = &mut self.conns[at as usize];
        let orders = slot.conn.orders();
        let before = slot.tx_taken;
        while !slot.tx_ended && !slot.conn.tx.is_empty() && self.shard.write_room(slot.id) > 0 {
            let Some(payload) = slot.conn.tx.pop() else { break };
            slot.tx_taken += cost(&payload);
            // An error ends the connection, which an event says as well.
            let _ = self.shard.write(now, slot.id, payload);
        }
        if orders & order::SHUT_WRITE != 0 && !slot.tx_ended && slot.conn.tx.is_empty() {
            slot.tx_ended = true;
            let _ = self.shard.shutdown(now, slot.id, Shutdown::Write);
        }
        if slot.tx_taken != before {
            slot.conn.tx_taken.store(slot.tx_taken, Ordering::Release);
            // Writers that found the ring full wait until half of it is free. `tx_given` may be old, that is less
            // than it is: then they are woken too early, never too late.
            let waiting = slot.conn.tx_given.load(Ordering::Relaxed).saturating_sub(slot.tx_taken);
            if waiting <= RING_LIMIT / 2 {
                self.touch(at, false, true);
            }
        }
    }

    /// Moves what can be read into the read ring, as much as fits, and tells the shard what was consumed.
    pub(super) fn pump_rx(&mut self, now: Instant, at: u32) {
        let slot = &mut self.conns[at as usize];
        let done = &slot.conn.rx_done;
        let consumed = done.bytes.load(Ordering::Acquire);
        if consumed > slot.rx_reported {
            self.shard.consumed(now, slot.id, (consumed - slot.rx_reported) as usize);
            slot.rx_reported = consumed;
        }
        let before = slot.rx_given;
        while !slot.rx_ended {
            if slot.rx_given - done.cost.load(Ordering::Acquire) >= RING_LIMIT {
                slot.conn.rx_stalled.announce();
                if slot.rx_given - done.cost.load(Ordering::Acquire) >= RING_LIMIT {
                    break;
                }
            }
            slot.conn.rx_stalled.withdraw();
            match self.shard.read(slot.id, RING_LIMIT as usize) {
                Read::Data(payload) => {
                    slot.rx_given += cost(&payload);
                    slot.rx_bytes += payload.len() as u64;
                    slot.conn.rx_given.store(slot.rx_given, Ordering::Relaxed);
                    slot.conn.rx.push(payload);
                }
                Read::Empty => break,
                Read::Eof => {
                    slot.rx_ended = true;
                    slot.conn.set_state(state::RX_END);
                }
                Read::Failed(error) => {
                    slot.rx_ended = true;
                    slot.conn.set_error(error);
                    slot.conn.set_state(state::RX_END | state::TX_END);
                    slot.wake_tx = true;
                }
            }
        }
        if slot.rx_given != before || slot.rx_ended {
            self.touch(at, true, false);
        }
    }

    /// All that was written is acknowledged.
    pub(super) fn drained(&mut self, at: u32) {
        self.conns[at as usize].conn.set_state(state::TX_ACKED);
        self.touch(at, false, true);
    }

    /// The shard is done with the connection; what came before may still be read.
    pub(super) fn closed(&mut self, now: Instant, at: u32, error: Option<Error>) {
        let slot = &mut self.conns[at as usize];
        slot.tx_ended = true;
        if let Some(error) = error {
            slot.conn.set_error(error);
        }
        slot.conn.set_state(state::TX_END | state::CLOSED);
        while slot.conn.tx.pop().is_some() {}
        self.pump_rx(now, at);
        self.touch(at, true, true);
    }

    /// Resets the connection. The application may still read what is in its ring, then the error.
    pub(super) fn abort(&mut self, now: Instant, at: u32) {
        let slot = &mut self.conns[at as usize];
        if std::mem::replace(&mut slot.aborted, true) {
            return;
        }
        slot.tx_ended = true;
        slot.rx_ended = true;
        while slot.conn.tx.pop().is_some() {}
        self.shard.abort(now, slot.id);
        slot.conn.end(Error::Aborted);
        self.handle.poke_driver();
    }

    /// The application let go of the connection: what it wrote is still sent, and the rest is the shard's.
    fn release(&mut self, now: Instant, at: u32) {
        let mut slot = self.conns.remove(at as usize);
        self.note_crowd();
        slot.conn.slot.store(NO_SLOT, Ordering::Relaxed);
        self.by_id.remove(&slot.id);
        while !slot.tx_ended {
            let Some(payload) = slot.conn.tx.pop() else { break };
            slot.tx_ended = self.shard.write(now, slot.id, payload).is_err();
        }
        // The shard knows of what it still holds. What is in the ring is unread, too (RFC 2525 §2.17).
        let read = slot.conn.rx_done.bytes.load(Ordering::Acquire);
        if !slot.aborted && slot.rx_bytes > read && !slot.read_shut && !slot.conn.is_closed() {
            self.shard.abort(now, slot.id);
        } else if read > slot.rx_reported {
            self.shard.consumed(now, slot.id, (read - slot.rx_reported) as usize);
        }
        self.shard.release(now, slot.id);
        self.remember_released(slot.id);
    }

    /// Notes that waiting threads are to be told at the end of the turn.
    fn touch(&mut self, at: u32, rx: bool, tx: bool) {
        let slot = &mut self.conns[at as usize];
        if !std::mem::replace(&mut slot.touched, true) {
            self.touched.push(at);
        }
        slot.wake_rx |= rx;
        slot.wake_tx |= tx;
    }

    /// Hands out whom to wake: the threads and tasks that wait for what was done since the last time, each at most once.
    pub(super) fn hand_out_woken(&mut self, woken: &mut Woken) {
        woken.append(&mut self.woken);
        while let Some(at) = self.touched.pop() {
            let Some(slot) = self.conns.get_mut(at as usize) else { continue };
            slot.touched = false;
            let (rx, tx) = (std::mem::take(&mut slot.wake_rx), std::mem::take(&mut slot.wake_tx));
            woken.push(Wake::Conn { conn: Arc::clone(&slot.conn), rx, tx });
        }
    }

    /// Wakes them, while there is more to do.
    pub(super) fn wake_waiting(&mut self) {
        let mut woken = Woken::new();
        self.hand_out_woken(&mut woken);
        if !woken.is_empty() {
            woken.into_iter().for_each(|wake| wake.open(None));
            self.handle.poke_driver();
        }
    }

    /// The shard's name for a connection that the application holds.
    pub(crate) fn id_of(&self, conn: &Conn) -> Option<ConnId> {
        let at = conn.slot.load(Ordering::Relaxed);
        (at != NO_SLOT).then(|| self.conns[at as usize].id)
    }
}
