//! The send buffer as the kernel counts it.
//!
//! Linux charges a socket not for bytes but for the buffers that hold them, and a write ends where a new one would not
//! be allowed. How much a write takes is something that scripts compare, so the same sums are done here. The stack
//! below has its own limits, in bytes, and takes what it is given.

use std::collections::VecDeque;

/// What a buffer costs beyond its bytes (`SKB_TRUESIZE` of an empty one, with `MAX_TCP_HEADER`).
const OVERHEAD: u64 = 960;
/// Most bytes in one buffer (`sk_gso_max_size`).
const GSO_MAX: u64 = 65_536 - 320;
/// Windows up to this are not halved to bound a buffer (`TCP_MSS_DEFAULT`).
const TINY_WINDOW: u64 = 536;
/// Least congestion window that the buffer is sized for (`TCP_INIT_CWND`).
const INIT_CWND: u64 = 10;
/// What the kernel adds to a segment's bytes when it sizes the buffer, before and after rounding up to a power of two.
const SEGMENT_HEADERS: u64 = 640;
const SEGMENT_STRUCT: u64 = 256;

/// What the stack says of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// Offset up to which the stream was sent.
    pub(crate) sent: u64,
    /// Offset up to which it was acknowledged.
    pub(crate) acked: u64,
    /// Largest segment, in bytes.
    pub(crate) mss: u64,
    /// Congestion window, and what of it is used, in segments.
    pub(crate) cwnd: u64,
    pub(crate) in_flight: u64,
    /// The peer's window now, in bytes.
    pub(crate) window: u64,
    /// The handshake is over.
    pub(crate) established: bool,
}

/// A buffer that takes no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Filled {
    /// It holds one segment.
    Segment,
    /// It holds several.
    Segments,
}

/// A socket's send buffer.
#[derive(Debug)]
pub(crate) struct SendBuffer {
    /// Bytes that may be charged (`sk_sndbuf`).
    limit: u64,
    /// How far it may grow; `None`: the user has settled it.
    limit_max: Option<u64>,
    /// Unsent bytes from which on nothing more is taken (`TCP_NOTSENT_LOWAT`).
    notsent_lowat: u64,
    /// Ends of the buffers not acknowledged, and the room that each has left.
    buffers: VecDeque<Buffer>,
    written: u64,
    progress: Progress,
    /// The largest window that the peer ever offered.
    window_max: u64,
    /// End of what was last written with PSH (`pushed_seq`).
    pushed: u64,
    /// Somebody found it full and waits (`SOCK_NOSPACE`).
    wanted: bool,
}

#[derive(Clone, Copy, Debug)]
struct Buffer {
    start: u64,
    end: u64,
    /// Nothing may be appended to it (`MSG_EOR`).
    closed: bool,
}

impl SendBuffer {
    /// One of `tcp_wmem`, or one whose size the user has settled.
    pub(crate) fn new(limit: u64, limit_max: Option<u64>, notsent_lowat: u64) -> Self {
        Self {
            limit,
            limit_max,
            notsent_lowat,
            buffers: VecDeque::new(),
            written: 0,
            progress: Progress::default(),
            window_max: 0,
            pushed: 0,
            wanted: false,
        }
    }

    /// An empty one for a connection that a listener accepts, with the listener's options.
    pub(crate) fn inherit(&self) -> Self {
        Self::new(self.limit, self.limit_max, self.notsent_lowat)
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// The user settles the size (`SO_SNDBUF`, doubled as the kernel does).
    pub(crate) fn settle(&mut self, limit: u64) {
        (self.limit, self.limit_max) = (limit, None);
    }

    pub(crate) fn set_notsent_lowat(&mut self, bytes: u64) {
        self.notsent_lowat = bytes;
    }

    /// Offset of the next byte to be written.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// What is charged now (`sk_wmem_queued`).
    pub(crate) fn charged(&self) -> u64 {
        let held = self.written - self.progress.acked.min(self.written);
        held + OVERHEAD * self.buffers.len() as u64
    }

    /// Takes note of what the stack did.
    pub(crate) fn update(&mut self, progress: Progress) {
        self.window_max = self.window_max.max(progress.window);
        while self.buffers.front().is_some_and(|buffer| buffer.end <= progress.acked) {
            self.buffers.pop_front();
        }
        // A buffer that was sent in part is two from then on.
        if let Some(at) =
            self.buffers.iter().position(|buffer| buffer.start < progress.sent && progress.sent < buffer.end)
        {
            let whole = self.buffers[at];
            self.buffers[at] = Buffer { end: progress.sent, closed: true, ..whole };
            self.buffers.insert(at + 1, Buffer { start: progress.sent, ..whole });
        }
        self.progress = progress;
        if progress.acked == 0 && self.buffers.is_empty() && progress.mss > 0 {
            self.grow();
        }
    }

    /// Sizes the buffer for the congestion window (`tcp_sndbuf_expand`).
    fn grow(&mut self) {
        let Some(max) = self.limit_max else { return };
        let segment = (self.progress.mss + SEGMENT_HEADERS).next_power_of_two() + SEGMENT_STRUCT;
        let wanted = 2 * self.progress.cwnd.max(INIT_CWND) * segment;
        self.limit = self.limit.max(wanted.min(max));
    }

    /// Most bytes that one buffer takes (`tcp_xmit_size_goal`): no more than half the peer's largest window.
    fn goal(&self) -> u64 {
        let mss = self.progress.mss.max(1);
        let bound = if self.window_max > TINY_WINDOW { self.window_max / 2 } else { self.window_max };
        let most = if bound == 0 { GSO_MAX } else { GSO_MAX.min(bound) };
        (most / mss).max(1) * mss
    }

    fn unsent(&self) -> u64 {
        self.written - self.progress.sent.min(self.written)
    }

    /// Whether a new buffer may be had (`sk_stream_memory_free`).
    fn is_free(&self) -> bool {
        self.charged() < self.limit && self.unsent() < self.notsent_lowat
    }

    /// Room in the buffer that is being filled, if it is not sent yet.
    fn room_in_last(&self) -> u64 {
        match self.buffers.back() {
            Some(last) if !last.closed && last.end > self.progress.sent => {
                self.goal().saturating_sub(last.end - last.start)
            }
            _ => 0,
        }
    }

    /// Takes up to `bytes` as far as the buffer that they go into has room, which may be a new one. Zero: it is full, and
    /// the caller waits.
    pub(crate) fn take(&mut self, bytes: u64) -> u64 {
        let room = self.room_in_last();
        let taken = if room > 0 {
            let taken = room.min(bytes);
            if let Some(last) = self.buffers.back_mut() {
                last.end += taken;
            }
            taken
        } else if self.is_free() {
            let taken = self.goal().min(bytes);
            self.buffers.push_back(Buffer { start: self.written, end: self.written + taken, closed: false });
            taken
        } else {
            self.wanted = true;
            0
        };
        self.written += taken;
        taken
    }

    /// Whether what was written last has filled its buffer.
    pub(crate) fn last_is_full(&self) -> Option<Filled> {
        let last = self.buffers.back()?;
        let len = last.end - last.start;
        let full = last.closed || len >= self.goal();
        full.then_some(if last.closed || len > self.progress.mss { Filled::Segments } else { Filled::Segment })
    }

    /// Whether so much was written without PSH that it is time for one (`forced_push`).
    pub(crate) fn is_push_due(&self) -> bool {
        self.written > self.pushed + self.window_max / 2
    }

    /// What was written last carries PSH.
    pub(crate) fn on_push(&mut self) {
        self.pushed = self.written;
    }

    /// Whether nothing more is taken.
    pub(crate) fn is_full(&self) -> bool {
        self.room_in_last() == 0 && !self.is_free()
    }

    /// Takes `bytes` whatever the limits say: they went out with the SYN.
    pub(crate) fn take_all(&mut self, bytes: u64) {
        self.buffers.push_back(Buffer { start: self.written, end: self.written + bytes, closed: true });
        self.written += bytes;
    }

    /// Nothing is to be appended to what was written last (`MSG_EOR`).
    pub(crate) fn close_last(&mut self) {
        if let Some(last) = self.buffers.back_mut() {
            last.closed = true;
        }
    }

    /// Whether `poll` calls the socket writable. If not, somebody waits from now on.
    pub(crate) fn is_writable(&mut self) -> bool {
        let writable = self.has_space() && self.unsent() < self.notsent_lowat;
        self.wanted |= !writable;
        writable
    }

    /// A third of the buffer is free (`sk_stream_min_wspace`).
    fn has_space(&self) -> bool {
        let charged = self.charged();
        self.limit.saturating_sub(charged) >= charged / 2
    }

    /// Whether who found it full still has to wait.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Something was acknowledged: whether who waits is to be woken (`tcp_new_space`, `sk_stream_write_space`).
    pub(crate) fn new_space(&mut self) -> bool {
        if !self.wanted {
            return false;
        }
        if self.progress.in_flight < self.progress.cwnd {
            self.grow();
        }
        // The kernel wakes when half of the low-water mark is free, so that whoever comes finds some room.
        let woken = self.has_space() && 2 * self.unsent() < self.notsent_lowat;
        self.wanted = !woken;
        woken
    }
}
