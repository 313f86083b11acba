//! The error queue: what became of bytes that were written (`MSG_ZEROCOPY`, `SO_TIMESTAMPING`).

use std::collections::VecDeque;
use std::time::Duration;

use crate::address::Family;
use crate::control::{Control, scm_timestamping};

/// Origins and codes of `linux/errqueue.h`.
const ORIGIN_TIMESTAMPING: u8 = 4;
const ORIGIN_ZEROCOPY: u8 = 5;
const CODE_ZEROCOPY_COPIED: u8 = 1;

/// Flags of `linux/net_tstamp.h`.
const TX_SOFTWARE: u32 = 1 << 1;
const SOFTWARE: u32 = 1 << 4;
const OPT_ID: u32 = 1 << 7;
const TX_SCHED: u32 = 1 << 8;
const TX_ACK: u32 = 1 << 9;
const OPT_TSONLY: u32 = 1 << 11;
const OPT_ID_TCP: u32 = 1 << 16;
const TX_ANY: u32 = TX_SOFTWARE | TX_SCHED | TX_ACK;

/// What a time stamp is of (`SCM_TSTAMP_…`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Moment {
    Sent = 0,
    Scheduled = 1,
    Acked = 2,
}

/// Something to be read from the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Note {
    /// These calls are done with their buffers.
    Zerocopy {
        first: u32,
        last: u32,
    },
    Timestamp {
        of: Moment,
        id: u32,
        at: Duration,
        payload: usize,
    },
}

/// A call whose bytes are under way.
#[derive(Clone, Copy, Debug)]
struct Call {
    /// Offset after its last byte.
    end: u64,
    /// Its number among the calls with `MSG_ZEROCOPY`.
    zerocopy: Option<u32>,
    /// Time stamps asked for.
    stamps: u32,
    payload: usize,
    sent: bool,
}

/// A socket's error queue, and what will go there.
#[derive(Debug, Default)]
pub(crate) struct ErrorQueue {
    notes: VecDeque<Note>,
    calls: VecDeque<Call>,
    /// `SO_ZEROCOPY`.
    pub(crate) zerocopy: bool,
    next_zerocopy: u32,
    /// `SO_TIMESTAMPING`.
    pub(crate) timestamping: u32,
    /// Offset that identifiers of time stamps count from.
    base: u64,
}

/// What `recvmsg` gets from the queue.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) control: Control,
    /// The packet that the note is of was longer than the room for it.
    pub(crate) truncated: bool,
}

impl ErrorQueue {
    /// An empty one for a connection that a listener accepts, with the listener's options.
    pub(crate) fn inherit(&self) -> Self {
        Self { zerocopy: self.zerocopy, timestamping: self.timestamping, ..Self::default() }
    }

    /// `SO_TIMESTAMPING` is set: identifiers count from here.
    pub(crate) fn set_timestamping(&mut self, flags: u32, written: u64, acked: u64) {
        if flags & OPT_ID != 0 && self.timestamping & OPT_ID == 0 {
            self.base = if flags & OPT_ID_TCP != 0 { written } else { acked };
        }
        self.timestamping = flags;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }

    /// A call has written the bytes from `start` to `end`.
    pub(crate) fn on_write(&mut self, start: u64, end: u64, zerocopy: bool) {
        let zerocopy = (zerocopy && self.zerocopy).then(|| {
            self.next_zerocopy = self.next_zerocopy.wrapping_add(1);
            self.next_zerocopy.wrapping_sub(1)
        });
        let stamps = self.timestamping & TX_ANY;
        if zerocopy.is_some() || stamps != 0 {
            self.calls.push_back(Call { end, zerocopy, stamps, payload: (end - start) as usize, sent: false });
        }
    }

    /// The stream was sent and acknowledged up to these offsets; `over` says that nothing more will be. Whether there is
    /// anything new to read.
    pub(crate) fn on_progress(&mut self, sent: u64, acked: u64, over: bool, now: Duration) -> bool {
        let report = self.timestamping & SOFTWARE != 0;
        let base = self.base;
        let stamp = |call: &Call, of| {
            let id = (call.end - 1).wrapping_sub(base) as u32;
            Note::Timestamp { of, id, at: now, payload: call.payload }
        };
        let mut new = Vec::new();
        for call in self.calls.iter_mut().filter(|call| call.end <= sent && !call.sent) {
            call.sent = true;
            for (flag, of) in [(TX_SCHED, Moment::Scheduled), (TX_SOFTWARE, Moment::Sent)] {
                if call.stamps & flag != 0 && report {
                    new.push(stamp(call, of));
                }
            }
        }
        while let Some(call) = self.calls.front().copied().filter(|call| call.end <= acked || over) {
            self.calls.pop_front();
            if call.stamps & TX_ACK != 0 && report && call.end <= acked {
                new.push(stamp(&call, Moment::Acked));
            }
            new.extend(call.zerocopy.map(|id| Note::Zerocopy { first: id, last: id }));
        }
        let any = !new.is_empty();
        for note in new {
            self.note(note);
        }
        any
    }

    /// Appends to the queue. Calls in a row that are done with their buffers are told together.
    fn note(&mut self, note: Note) {
        match (self.notes.back_mut(), note) {
            (Some(Note::Zerocopy { last, .. }), Note::Zerocopy { first, last: new })
                if last.wrapping_add(1) == first =>
            {
                *last = new;
            }
            _ => self.notes.push_back(note),
        }
    }

    /// The oldest note, as a control message of `family`.
    pub(crate) fn take(&mut self, family: Family) -> Option<Taken> {
        let note = self.notes.pop_front()?;
        let mut control = Control::default();
        let mut truncated = false;
        let error = match note {
            Note::Zerocopy { first, last } => extended_error(0, ORIGIN_ZEROCOPY, CODE_ZEROCOPY_COPIED, first, last),
            Note::Timestamp { of, id, at, payload } => {
                control.push(libc::SOL_SOCKET, libc::SCM_TIMESTAMPING, &scm_timestamping(at));
                truncated = self.timestamping & OPT_TSONLY == 0 && payload > 0;
                let id = if self.timestamping & OPT_ID != 0 { id } else { 0 };
                extended_error(libc::ENOMSG as u32, ORIGIN_TIMESTAMPING, 0, of as u32, id)
            }
        };
        let (level, kind, offender) = match family {
            Family::V4 => (libc::SOL_IP, libc::IP_RECVERR, size_of::<libc::sockaddr_in>()),
            Family::V6 => (libc::SOL_IPV6, libc::IPV6_RECVERR, size_of::<libc::sockaddr_in6>()),
        };
        let mut data = error.to_vec();
        // Nobody offended.
        data.resize(data.len() + offender, 0);
        control.push(level, kind, &data);
        Some(Taken { control, truncated })
    }
}

/// A `struct sock_extended_err`.
fn extended_error(errno: u32, origin: u8, code: u8, info: u32, data: u32) -> [u8; 16] {
    let mut out = [0; 16];
    out[..4].copy_from_slice(&errno.to_ne_bytes());
    (out[4], out[6]) = (origin, code);
    out[8..12].copy_from_slice(&info.to_ne_bytes());
    out[12..].copy_from_slice(&data.to_ne_bytes());
    out
}
