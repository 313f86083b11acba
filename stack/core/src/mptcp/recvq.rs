//! The connection's receive buffer: what came, what was read, and the window that follows from it.
//!
//! The buffer grows with the rate at which the application reads (dynamic right-sizing, Fisk and Feng 2001), as in Linux:
//! room for twice what one round trip brings, and for as much more as it brings more than the one before.
//! The window grows behind it by two bytes for each that comes (Linux: `rcv_ssthresh`). Told at once, the room would go out
//! in one burst, which queues on the way cannot hold; and a peer that sends tiny segments does not widen it by much.

use core::time::Duration;

use anabranch_frame::{Instant, Payload};

use crate::options::SocketOptions;

use super::Copies;
use super::reorder::{Inserted, Reorder};

/// Receive buffer of a new connection, in bytes.
const INITIAL: u64 = 256 * 1024;
/// Bytes that the first round trip is expected to bring: ten segments.
const SPACE: u64 = 14_600;
/// No more than this is offered anew while memory is tight.
const TIGHT: u64 = 32 * 1024;
/// Storage that received bytes may pin beyond their own number before it is gone through.
const WASTE_MAX: u64 = 16 * 1024;

/// Offsets from 0. The window's right edge is `consumed + buffer` and never moves left.
#[derive(Debug)]
pub(crate) struct RecvQueue {
    reorder: Reorder,
    /// Offset of the end of the stream, once the peer told it.
    fin: Option<u64>,
    /// Handed to the application.
    read: u64,
    /// Given back by the application.
    consumed: u64,
    /// Right edge that the peer was told.
    edge: u64,
    buffer: u64,
    max: u64,
    /// The window is no larger than this.
    clamp: u64,
    /// Memory is tight: the window grows no more than it must.
    tight: bool,
    /// Receive buffer tuning: when this round trip began, and what had been consumed by then.
    round: (Instant, u64),
    /// The most that one of them brought.
    space: u64,
    /// The window is no larger than this, which grows with what comes.
    threshold: u64,
    /// Windows that would have been closed, had the peer not been told of more before.
    wanted_zero: u64,
}

/// A [`RecvQueue`] of which the application has read everything. It need not have given everything back: sockets say so
/// when it is worth a segment.
#[derive(Debug)]
pub(crate) struct RestingRecvQueue {
    nxt: u64,
    consumed: u64,
    edge: u64,
    buffer: u64,
    max: u64,
    clamp: u64,
    round: (Instant, u64),
    space: u64,
    threshold: u64,
}

impl RestingRecvQueue {
    pub(crate) fn resume(self) -> RecvQueue {
        let Self { nxt, consumed, edge, buffer, max, clamp, round, space, threshold } = self;
        RecvQueue {
            reorder: Reorder::starting_at(nxt),
            fin: None,
            read: nxt,
            consumed,
            edge,
            buffer,
            max,
            clamp,
            tight: false,
            round,
            space,
            threshold,
            wanted_zero: 0,
        }
    }

    pub(crate) fn nxt(&self) -> u64 {
        self.nxt
    }

    /// Bytes that the application has taken and not given back.
    pub(crate) fn taken(&self) -> u64 {
        self.nxt - self.consumed
    }

    pub(crate) fn buffer(&self) -> u64 {
        self.buffer
    }

    /// As [`RecvQueue::space`].
    pub(crate) fn space(&self) -> u64 {
        self.space
    }

    /// As [`RecvQueue::room`], of a worker that has memory.
    pub(crate) fn room(&self) -> u64 {
        self.buffer.min(self.clamp).min(self.threshold)
    }
}

impl RecvQueue {
    /// Whether everything that came was read, and more may come.
    pub(crate) fn may_rest(&self) -> bool {
        self.readable() == 0 && self.out_of_order() == 0 && self.fin.is_none()
    }

    /// Shrinks to what has to be remembered. Only if it [may](Self::may_rest).
    pub(crate) fn rest(self) -> RestingRecvQueue {
        let Self { consumed, edge, buffer, max, clamp, round, space, threshold, .. } = self;
        RestingRecvQueue { nxt: self.reorder.nxt(), consumed, edge, buffer, max, clamp, round, space, threshold }
    }

    pub(crate) fn new(now: Instant, options: &SocketOptions) -> Self {
        let max = options.recv_max();
        let (buffer, clamp) = (initial_buffer(options), clamp_of(options));
        Self {
            reorder: Reorder::new(),
            fin: None,
            read: 0,
            consumed: 0,
            edge: buffer.min(clamp),
            buffer,
            max,
            clamp,
            tight: false,
            round: (now, 0),
            space: SPACE,
            threshold: buffer,
            wanted_zero: 0,
        }
    }

    /// First offset that has not come in order.
    pub(crate) fn nxt(&self) -> u64 {
        self.reorder.nxt()
    }

    /// What DATA_ACK acknowledges, the end of the stream counted as one.
    pub(crate) fn ack(&self) -> u64 {
        self.nxt() + u64::from(self.at_fin())
    }

    /// First offset that is refused. With several subflows the peer may rightly send beyond the edge:
    /// it adds the window that it remembers of one subflow, which a smaller one does not replace
    /// without a newer acknowledgement (RFC 9293 §3.10.7.4), to a DATA_ACK that has moved on since.
    pub(crate) fn limit(&self, several: bool) -> u64 {
        self.edge + if several { self.buffer } else { 0 }
    }

    /// Window in bytes.
    pub(crate) fn window(&self) -> u64 {
        self.edge.saturating_sub(self.nxt())
    }

    /// Stores what lies within the window. The caller trims to the edge.
    pub(crate) fn insert(&mut self, off: u64, payload: Payload, copies: &Copies) -> Inserted {
        let inserted = self.reorder.insert(off, payload, copies);
        self.threshold = (self.threshold + 2 * inserted.new_bytes).min(self.max);
        inserted
    }

    /// The peer's stream ends at `off`. False if that contradicts what is known.
    pub(crate) fn note_fin(&mut self, off: u64) -> bool {
        if off < self.nxt() && self.fin != Some(off) {
            return false;
        }
        match self.fin {
            Some(fin) => fin == off,
            None => {
                self.fin = Some(off);
                true
            }
        }
    }

    /// Whether everything up to the end of the peer's stream came.
    pub(crate) fn at_fin(&self) -> bool {
        self.fin == Some(self.nxt())
    }

    /// Whether the application has read everything there will ever be.
    pub(crate) fn at_eof(&self) -> bool {
        self.at_fin() && self.reorder.readable() == 0
    }

    pub(crate) fn read(&mut self, max: usize) -> Option<Payload> {
        let piece = self.reorder.read(max)?;
        self.read += piece.len() as u64;
        Some(piece)
    }

    /// Bytes that wait to be read.
    pub(crate) fn readable(&self) -> u64 {
        self.reorder.readable()
    }

    /// Whether the peer may send no more before something is read.
    pub(crate) fn is_full(&self) -> bool {
        self.window() == 0 && self.readable() > 0
    }

    /// Bytes beyond a hole.
    pub(crate) fn out_of_order(&self) -> u64 {
        self.reorder.out_of_order()
    }

    /// Whether storage out of proportion to the buffer is pinned, as by a peer that sends single bytes; `beside` is
    /// what waits elsewhere to be verified.
    pub(crate) fn is_overloaded(&self, beside: usize) -> bool {
        (self.reorder.memory() + beside) as u64 > 1024 * 1024 + 4 * self.buffer
    }

    /// Bytes of memory that it holds, those included that the application has taken and not given back.
    pub(crate) fn memory(&self) -> u64 {
        self.reorder.memory() as u64 + (self.read - self.consumed)
    }

    /// Bytes that came in order and that the application has not given back.
    pub(crate) fn unread(&self) -> u64 {
        self.nxt() - self.consumed
    }

    /// Whether memory is tight.
    pub(crate) fn set_tight(&mut self, tight: bool) {
        self.tight = tight;
    }

    /// Gives back storage that is filled badly, if there is much of it. Returns how many pieces were copied.
    pub(crate) fn collapse(&mut self) -> Option<u64> {
        let held = self.reorder.readable() + self.reorder.out_of_order();
        (self.reorder.memory() as u64 > 2 * held + WASTE_MAX).then(|| self.reorder.collapse())
    }

    /// Most bytes that one round trip brought the application.
    pub(crate) fn space(&self) -> u64 {
        self.space
    }

    /// Bytes that may wait now.
    pub(crate) fn room(&self) -> u64 {
        let room = self.buffer.min(self.clamp).min(self.threshold);
        if self.tight { room.min(TIGHT) } else { room }
    }

    /// The application wants another buffer. What the peer was told holds.
    pub(crate) fn resize(&mut self, options: &SocketOptions) {
        self.max = options.recv_max();
        self.clamp = clamp_of(options);
        self.buffer = options.rcvbuf.map_or(self.buffer.min(self.max), u64::from);
        self.threshold = self.threshold.max(initial_window(options));
    }

    /// Current size of the buffer.
    pub(crate) fn buffer(&self) -> u64 {
        self.buffer
    }

    /// Size that the buffer may grow to.
    pub(crate) fn max(&self) -> u64 {
        self.max
    }

    /// The application is done with bytes that it read. Returns whether the peer should hear of the
    /// wider window: little of it is left, it at least doubles, and grows by two segments (RFC 9293 §3.8.6.2.2).
    pub(crate) fn consume(&mut self, now: Instant, bytes: u64, rtt: Duration, segment: u64) -> bool {
        self.consumed = (self.consumed + bytes).min(self.read);
        self.tune(now, rtt, segment);
        // What the peer does not know yet adds up over many small reads.
        let grown = self.next_edge() - self.edge;
        let left = self.window();
        grown >= (2 * segment).min(self.room() / 2) && left < self.room() / 8 && grown >= left
    }

    /// Where the edge may be moved to.
    fn next_edge(&self) -> u64 {
        (self.consumed + self.room()).max(self.edge)
    }

    /// Window that the next segment may tell.
    pub(crate) fn next_window(&self) -> u64 {
        self.next_edge().saturating_sub(self.nxt())
    }

    /// A segment goes out: the edge that it tells moves along, by a segment at least.
    pub(crate) fn refresh_edge(&mut self, segment: u64) {
        if self.next_edge() - self.edge >= segment.min(self.room() / 2) {
            self.edge = self.next_edge();
        } else if self.window() > 0 && self.consumed + self.room() <= self.nxt() {
            self.wanted_zero += 1;
        }
    }

    /// How often the window would have been closed, had the peer not been told of more, since the last call.
    pub(crate) fn take_wanted_zero(&mut self) -> u64 {
        core::mem::take(&mut self.wanted_zero)
    }

    /// A round trip may be over (Linux: `tcp_rcv_space_adjust`).
    fn tune(&mut self, now: Instant, rtt: Duration, segment: u64) {
        let (since, consumed) = self.round;
        if now.saturating_since(since) < rtt.max(Duration::from_micros(100)) {
            return;
        }
        let brought = self.consumed - consumed;
        self.round = (now, self.consumed);
        if brought <= self.space || self.tight {
            return;
        }
        let wanted = 2 * brought + 16 * segment;
        let grows = u128::from(wanted) * u128::from(brought - self.space) / u128::from(self.space);
        let wanted = wanted.saturating_add(u64::try_from(2 * grows).unwrap_or(u64::MAX));
        self.space = brought;
        self.buffer = self.buffer.max(wanted.min(self.max));
    }

    /// Throws away what waits, and all that still comes.
    pub(crate) fn discard(&mut self) -> u64 {
        let mut thrown = 0;
        while let Some(piece) = self.reorder.read(usize::MAX) {
            thrown += piece.len() as u64;
        }
        self.read += thrown;
        self.consumed += thrown;
        thrown
    }
}

fn initial_buffer(options: &SocketOptions) -> u64 {
    options.rcvbuf.map_or(INITIAL.min(options.recv_max()), u64::from)
}

/// Window that a new connection offers.
pub(crate) fn initial_window(options: &SocketOptions) -> u64 {
    initial_buffer(options).min(clamp_of(options))
}

fn clamp_of(options: &SocketOptions) -> u64 {
    options.window_clamp.map_or(u64::MAX, u64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 1460;
    const RTT: Duration = Duration::from_millis(100);

    /// A queue into which the peer sent all that the window allows but `left` bytes, all read, nothing given back.
    fn filled_but(left: u64) -> RecvQueue {
        let mut queue = RecvQueue::new(
            Instant::ZERO,
            &SocketOptions { recv_buffer_max: INITIAL as u32, ..SocketOptions::default() },
        );
        let payload = Payload::from(alloc::vec![0; (INITIAL - left) as usize]);
        queue.insert(0, payload, &super::super::copies());
        while queue.read(usize::MAX).is_some() {}
        assert_eq!(queue.window(), left);
        queue
    }

    /// Bytes given back, `step` at a time, until the peer is to be told.
    fn consumed_until_told(queue: &mut RecvQueue, step: u64) -> u64 {
        (1..).map(|n| n * step).find(|_| queue.consume(Instant::ZERO, step, RTT, SEGMENT)).unwrap()
    }

    #[test]
    fn many_small_reads_open_a_closed_window() {
        assert_eq!(consumed_until_told(&mut filled_but(0), 100), 3000);
    }

    #[test]
    fn many_small_reads_double_a_narrow_window() {
        // The peer may be waiting for more than it sees: it must hear before it has used up what is left.
        assert_eq!(consumed_until_told(&mut filled_but(30_000), 1000), 30_000);
    }

    #[test]
    fn the_edge_moves_by_whole_segments() {
        let mut queue = filled_but(0);
        queue.consume(Instant::ZERO, 1000, RTT, SEGMENT);
        queue.refresh_edge(SEGMENT);
        assert_eq!(queue.window(), 0);
        queue.consume(Instant::ZERO, 1000, RTT, SEGMENT);
        queue.refresh_edge(SEGMENT);
        assert_eq!(queue.window(), 2000);
    }
}
