//! What an application's threads and a worker share of one connection.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anabranch_core::{Error, SocketOptions};
use anabranch_frame::Payload;
use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use crate::buffers::WriteBuffers;
use crate::error::to_io;
use crate::sync::{Announcement, Gate, Request, Ring};
use crate::worker::Handle;

#[cfg(test)]
mod tests;

/// What may wait between the application and the worker in each direction, in bytes of [`cost`]. One
/// payload more may be on top.
pub(crate) const RING_LIMIT: u64 = 1 << 20;
/// The same for writers while the worker is short of memory.
const RING_LIMIT_TIGHT: u64 = 64 << 10;
/// What a payload costs beside its bytes: its bookkeeping, so that a ring of single bytes is bounded, too.
const PIECE_COST: u64 = 128;
/// The worker is not woken for less than this many consumed bytes, or a quarter of the receive buffer if that
/// is less: a window that opens by so little is not worth a packet.
const REPORT_MIN: u64 = 16 << 10;

/// Whoever has written this many bytes more than one in a nanosecond leaves sending them to the worker's thread: sending costs
/// several times what copying does, and another processor can do it meanwhile. Below that, a thread that does both
/// has nobody to wake.
const BULK: u64 = 256 << 10;

/// Payloads on their way between the application and the worker. [`RING_LIMIT`] admits 16 large ones: those are kept
/// in place.
type Payloads = Ring<Payload, 24>;

/// No slot: the worker does not know the connection yet, or any more.
pub(crate) const NO_SLOT: u32 = u32::MAX;

/// What a payload counts for in its ring. One that fills little of its storage counts for a part of that.
pub(crate) fn cost(payload: &Payload) -> u64 {
    payload.len().max(payload.storage_len() / 4) as u64 + PIECE_COST
}

/// What the worker says of the connection, as bits.
pub(crate) mod state {
    /// The handshake is done.
    pub(crate) const CONNECTED: u32 = 1;
    /// Nothing more will be put into the read ring.
    pub(crate) const RX_END: u32 = 2;
    /// Nothing more will be taken from the write ring.
    pub(crate) const TX_END: u32 = 4;
    /// The connection is over.
    pub(crate) const CLOSED: u32 = 8;
    /// All that was written is acknowledged, and the end of the stream.
    pub(crate) const TX_ACKED: u32 = 16;
}

/// What the application wants of the connection, as bits. Once set they stay.
pub(crate) mod order {
    /// Shut down writing once the ring is empty.
    pub(crate) const SHUT_WRITE: u32 = 1;
    /// Shut down reading.
    pub(crate) const SHUT_READ: u32 = 2;
    /// Reset.
    pub(crate) const ABORT: u32 = 4;
    /// The last handle was dropped.
    pub(crate) const RELEASE: u32 = 8;
}

/// One connection, shared by its handles and its worker.
///
/// The rings are lock-free queues of payloads with a single user on either side: the worker at one end, at the
/// other whoever holds the end's mutex, which the worker never takes.
#[derive(Debug)]
pub(crate) struct Conn {
    worker: Arc<Handle>,
    /// The worker's own note of where it keeps the connection.
    pub(crate) slot: AtomicU32,
    /// It stands in the worker's queue of connections that want service.
    pub(crate) service: Request,
    /// Bits of [`state`], set by the worker.
    state: AtomicU32,
    /// Bits of [`order`], set by the application.
    orders: AtomicU32,
    error: OnceLock<Error>,
    error_told: AtomicBool,
    addrs: OnceLock<(SocketAddr, SocketAddr)>,

    /// Held by whoever puts something into `tx`.
    write_end: Mutex<WriteEnd>,
    pub(crate) tx: Payloads,
    /// Cost of what was put into `tx` so far.
    pub(crate) tx_given: CachePadded<AtomicU64>,
    /// Cost of what the worker took from `tx` so far.
    pub(crate) tx_taken: CachePadded<AtomicU64>,
    pub(crate) tx_gate: Gate,

    read_end: Mutex<ReadEnd>,
    pub(crate) rx: Payloads,
    /// Cost of what the worker put into `rx` so far.
    pub(crate) rx_given: CachePadded<AtomicU64>,
    /// What the application has done with it.
    pub(crate) rx_done: CachePadded<ReadProgress>,
    /// The worker waits for room in `rx`.
    pub(crate) rx_stalled: Announcement,
    pub(crate) rx_gate: Gate,
    report_min: u64,

    pub(crate) settings: Settings,
}

/// How far the application has read.
#[derive(Debug, Default)]
pub(crate) struct ReadProgress {
    /// Bytes copied out.
    pub(crate) bytes: AtomicU64,
    /// Cost of payloads that were taken from the ring.
    pub(crate) cost: AtomicU64,
}

/// Settings that only the application side looks at.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    pub(crate) nonblocking: AtomicBool,
    /// Nanoseconds; 0 is none.
    read_timeout: AtomicU64,
    write_timeout: AtomicU64,
    /// Bytes that may wait in the ring: the worker has none of them yet, so none of them is sent.
    unsent_max: AtomicU64,
    /// Nanoseconds; `u64::MAX` is none.
    linger: AtomicU64,
}

/// How fast the application writes.
#[derive(Debug, Default)]
struct WriteEnd {
    /// Bytes written of late: one is forgotten every nanosecond.
    late: u64,
    last: Option<Instant>,
}

#[derive(Debug, Default)]
struct ReadEnd {
    /// The payload that is being read.
    head: Payload,
    bytes: u64,
    cost: u64,
    /// `bytes` when the worker was last told.
    reported: u64,
}

impl Conn {
    pub(crate) fn new(worker: Arc<Handle>, options: &SocketOptions) -> Arc<Self> {
        let settings = Settings::new(options);
        Arc::new(Self {
            worker,
            slot: AtomicU32::new(NO_SLOT),
            service: Request::new(),
            state: AtomicU32::new(0),
            orders: AtomicU32::new(0),
            error: OnceLock::new(),
            error_told: AtomicBool::new(false),
            addrs: OnceLock::new(),
            write_end: Mutex::default(),
            tx: Ring::new(),
            tx_given: CachePadded::new(AtomicU64::new(0)),
            tx_taken: CachePadded::new(AtomicU64::new(0)),
            tx_gate: Gate::new(),
            read_end: Mutex::new(ReadEnd::default()),
            rx: Ring::new(),
            rx_given: CachePadded::new(AtomicU64::new(0)),
            rx_done: CachePadded::new(ReadProgress::default()),
            rx_stalled: Announcement::new(),
            rx_gate: Gate::new(),
            report_min: REPORT_MIN.min(u64::from(options.rcvbuf.unwrap_or(options.recv_buffer_max)) / 4),
            settings,
        })
    }

    pub(crate) fn worker(&self) -> &Arc<Handle> {
        &self.worker
    }

    // --- the worker's side -----------------------------------------------------------------------

    /// Sets bits of [`state`]. Whoever sees them sees what was put into the ring before.
    pub(crate) fn set_state(&self, bits: u32) {
        self.state.fetch_or(bits, Ordering::Release);
    }

    /// The first error counts.
    pub(crate) fn set_error(&self, error: Error) {
        let _ = self.error.set(error);
    }

    pub(crate) fn set_addrs(&self, local: SocketAddr, remote: SocketAddr) {
        let _ = self.addrs.set((local, remote));
    }

    pub(crate) fn orders(&self) -> u32 {
        self.orders.load(Ordering::Acquire)
    }

    /// The connection is over and will never be looked at again.
    pub(crate) fn end(&self, error: Error) {
        self.set_error(error);
        self.set_state(state::RX_END | state::TX_END | state::CLOSED);
        self.rx_gate.open();
        self.tx_gate.open();
    }

    // --- the application's side ------------------------------------------------------------------

    pub(crate) fn addrs(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.addrs.get().copied()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.load(Ordering::Acquire) & state::CLOSED != 0
    }

    /// Has the worker look at this connection, on this thread if nobody does the worker's turns.
    fn call_worker(self: &Arc<Self>) {
        if self.service.ask() {
            self.worker.ready.push(Arc::clone(self));
        }
        self.worker.call();
    }

    /// Has the worker's thread look at this connection.
    fn leave_to_worker(self: &Arc<Self>) {
        if self.service.ask() {
            self.worker.ready.push(Arc::clone(self));
        }
        self.worker.leave();
    }

    /// Gives an order and wakes whoever it concerns on this side.
    pub(crate) fn order(self: &Arc<Self>, bits: u32) {
        self.orders.fetch_or(bits, Ordering::AcqRel);
        self.call_worker();
        self.rx_gate.open();
        self.tx_gate.open();
    }

    /// Orders the end of writing, after what was written before by other threads.
    pub(crate) fn order_shut_write(self: &Arc<Self>) {
        let end = self.write_end.lock();
        self.orders.fetch_or(order::SHUT_WRITE, Ordering::AcqRel);
        drop(end);
        self.order(0);
    }

    /// The last handle is about to be dropped: waits until all that was written is acknowledged, if the socket lingers and
    /// nothing that came is left unread.
    pub(crate) fn linger(self: &Arc<Self>) {
        let nanos = self.settings.linger.load(Ordering::Relaxed);
        let unread = || !self.rx.is_empty() || !self.read_end.lock().head.is_empty();
        if nanos == 0 || nanos == u64::MAX || self.is_closed() || unread() {
            return;
        }
        self.order_shut_write();
        let deadline = Instant::now().checked_add(Duration::from_nanos(nanos));
        let over = || (self.state.load(Ordering::Acquire) & (state::TX_ACKED | state::CLOSED) != 0).then_some(());
        let _ = self.worker.wait(&self.tx_gate, deadline, over);
    }

    /// The connection's error, to the first who asks.
    pub(crate) fn take_error(&self) -> Option<io::Error> {
        let error = *self.error.get()?;
        (!self.error_told.swap(true, Ordering::AcqRel)).then(|| to_io(error))
    }

    /// Whether the handshake has ended, and how.
    pub(crate) fn connect_result(&self) -> Option<io::Result<()>> {
        let state = self.state.load(Ordering::Acquire);
        if state & state::CONNECTED != 0 {
            return Some(Ok(()));
        }
        let gone = || Err(self.take_error().unwrap_or_else(|| to_io(Error::Aborted)));
        (state & state::CLOSED != 0).then(gone)
    }

    /// Takes bytes into the ring, as many as there is room for.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; `BrokenPipe`, or what the connection broke of.
    pub(crate) fn try_write(self: &Arc<Self>, mut bytes: &[u8], buffers: &WriteBuffers) -> io::Result<usize> {
        let mut end = self.write_end.lock();
        if self.state.load(Ordering::Acquire) & state::TX_END != 0 {
            return Err(self.take_error().unwrap_or_else(|| to_io(Error::ShutDown)));
        }
        if self.orders() & (order::SHUT_WRITE | order::ABORT) != 0 {
            return Err(to_io(Error::ShutDown));
        }
        let whole = bytes.len();
        let limit = if self.worker.is_tight() { RING_LIMIT_TIGHT } else { RING_LIMIT };
        let limit = limit.min(self.settings.unsent_max.load(Ordering::Relaxed));
        let mut given = self.tx_given.load(Ordering::Relaxed);
        while !bytes.is_empty() && given - self.tx_taken.load(Ordering::Acquire) < limit {
            let payload = buffers.copy_prefix(bytes);
            bytes = &bytes[payload.len()..];
            given += cost(&payload);
            self.tx_given.store(given, Ordering::Relaxed);
            self.tx.push(payload);
        }
        let taken = whole - bytes.len();
        let bulk = end.is_bulk(taken, Instant::now());
        drop(end);
        match taken {
            0 if whole > 0 => return Err(io::ErrorKind::WouldBlock.into()),
            0 => {}
            _ if bulk => self.leave_to_worker(),
            _ => self.call_worker(),
        }
        Ok(taken)
    }

    /// Copies out what is there.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there yet; what the connection broke of.
    pub(crate) fn try_read(self: &Arc<Self>, bufs: &mut [&mut [u8]]) -> io::Result<usize> {
        let mut end = self.read_end.lock();
        // Before the ring is looked at: what came before the end is in the ring when the end is seen.
        let ended = self.state.load(Ordering::Acquire) & state::RX_END != 0;
        let mut taken = 0;
        for buf in bufs.iter_mut() {
            let copied = end.fill(buf, &self.rx);
            taken += copied;
            if copied < buf.len() {
                break;
            }
        }
        if taken > 0 {
            self.report_read(&mut end);
            return Ok(taken);
        }
        self.nothing_read(ended || bufs.iter().all(|buf| buf.is_empty()))
    }

    /// Copies what is there and leaves it.
    ///
    /// # Errors
    /// As [`try_read`](Self::try_read).
    pub(crate) fn try_peek(self: &Arc<Self>, buf: &mut [u8]) -> io::Result<usize> {
        let mut end = self.read_end.lock();
        let ended = self.state.load(Ordering::Acquire) & state::RX_END != 0;
        if !end.has_head(&self.rx) {
            return self.nothing_read(ended || buf.is_empty());
        }
        let shown = buf.len().min(end.head.len());
        buf[..shown].copy_from_slice(&end.head[..shown]);
        Ok(shown)
    }

    fn nothing_read(&self, ended: bool) -> io::Result<usize> {
        if ended {
            return self.take_error().map_or(Ok(0), Err);
        }
        if self.orders() & order::SHUT_READ != 0 {
            return Ok(0);
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Tells the worker how far we have read; wakes it if that is worth its while: a window that opens
    /// noticeably, or room in a ring that was full.
    fn report_read(self: &Arc<Self>, end: &mut ReadEnd) {
        self.rx_done.bytes.store(end.bytes, Ordering::Release);
        self.rx_done.cost.store(end.cost, Ordering::Release);
        let stalled = self.rx_stalled.stands();
        let waiting = self.rx_given.load(Ordering::Relaxed).saturating_sub(end.cost);
        let stalled = stalled && waiting <= RING_LIMIT / 2;
        if stalled || end.bytes - end.reported >= self.report_min.max(waiting / 4) {
            end.reported = end.bytes;
            self.call_worker();
        }
    }

    /// Runs `attempt` to read until it does something else than `WouldBlock`, waiting in between as the settings say.
    pub(crate) fn block_on_read<T>(&self, attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let wait = |deadline, ready: &mut dyn FnMut() -> _| self.worker.wait(&self.rx_gate, deadline, ready);
        self.block_on(&self.settings.read_timeout(), wait, attempt)
    }

    /// The same to write. Who waits for room has written a lot: to send it is the worker's thread's.
    pub(crate) fn block_on_write<T>(&self, attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let wait = |deadline, ready: &mut dyn FnMut() -> _| self.worker.wait_aside(&self.tx_gate, deadline, ready);
        self.block_on(&self.settings.write_timeout(), wait, attempt)
    }

    fn block_on<T>(
        &self,
        timeout: &Timeout<'_>,
        wait: impl FnOnce(Option<Instant>, &mut dyn FnMut() -> Option<io::Result<T>>) -> Option<io::Result<T>>,
        mut attempt: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        let would_block = |result: &io::Result<T>| matches!(result, Err(e) if e.kind() == io::ErrorKind::WouldBlock);
        let result = attempt();
        if !would_block(&result) || self.settings.nonblocking.load(Ordering::Relaxed) {
            return result;
        }
        let deadline = timeout.load().and_then(|timeout| Instant::now().checked_add(timeout));
        wait(deadline, &mut || Some(attempt()).filter(|result| !would_block(result))).unwrap_or(result)
    }
}

impl WriteEnd {
    /// Notes that so many bytes were written. Whether it is so many, so fast, that this thread is better left to copying.
    fn is_bulk(&mut self, bytes: usize, now: Instant) -> bool {
        let since = self.last.replace(now).map_or(0, |last| now.saturating_duration_since(last).as_nanos() as u64);
        // Whoever stops is soon forgiven.
        self.late = (self.late.saturating_sub(since) + bytes as u64).min(2 * BULK);
        self.late > BULK
    }
}

impl ReadEnd {
    /// Makes sure that `head` has bytes, if there are any.
    fn has_head(&mut self, ring: &Payloads) -> bool {
        if self.head.is_empty() {
            let Some(payload) = ring.pop() else { return false };
            self.cost += cost(&payload);
            self.head = payload;
        }
        true
    }

    fn fill(&mut self, buf: &mut [u8], ring: &Payloads) -> usize {
        let mut at = 0;
        while at < buf.len() && self.has_head(ring) {
            let n = self.head.len().min(buf.len() - at);
            buf[at..at + n].copy_from_slice(&self.head[..n]);
            at += n;
            match n == self.head.len() {
                // Given back at once: the worker may want the buffer.
                true => self.head = Payload::EMPTY,
                false => self.head.advance(n),
            }
        }
        self.bytes += at as u64;
        at
    }
}

/// A timeout that can be changed by any thread.
pub(crate) struct Timeout<'a>(&'a AtomicU64);

impl Timeout<'_> {
    pub(crate) fn load(&self) -> Option<Duration> {
        let nanos = self.0.load(Ordering::Relaxed);
        (nanos != 0).then(|| Duration::from_nanos(nanos))
    }

    /// # Errors
    /// `InvalidInput` for zero, as in std.
    pub(crate) fn store(&self, timeout: Option<Duration>) -> io::Result<()> {
        if timeout == Some(Duration::ZERO) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "cannot set a timeout of zero"));
        }
        let nanos = timeout.map_or(0, |timeout| u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX));
        self.0.store(nanos, Ordering::Relaxed);
        Ok(())
    }
}

impl Settings {
    fn new(options: &SocketOptions) -> Self {
        let settings = Self::default();
        settings.note(options);
        settings
    }

    /// Options are these from now on, of which some concern this side, too.
    pub(crate) fn note(&self, options: &SocketOptions) {
        let unsent = options.sndbuf.unwrap_or(u32::MAX).min(options.notsent_lowat);
        self.unsent_max.store(unsent.into(), Ordering::Relaxed);
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.linger.store(options.linger.map_or(u64::MAX, nanos), Ordering::Relaxed);
    }

    pub(crate) fn read_timeout(&self) -> Timeout<'_> {
        Timeout(&self.read_timeout)
    }

    pub(crate) fn write_timeout(&self) -> Timeout<'_> {
        Timeout(&self.write_timeout)
    }
}
