//! Packet schedulers: which subflow carries which bytes. One algorithm a file, made by name.

mod backup;
mod linux;
mod minrtt;
mod pick;
mod redundant;
mod roundrobin;

use alloc::boxed::Box;
use core::fmt;
use core::ops::Range;
use core::time::Duration;

use anabranch_frame::Instant;

use crate::Error;

pub use backup::Backup;
pub use linux::Linux;
pub use minrtt::MinRtt;
pub use redundant::Redundant;
pub use roundrobin::RoundRobin;

/// The names that [`by_name`] knows.
pub const NAMES: &str = "minrtt, linux, roundrobin, redundant, backup";

/// A subflow's identifier within its connection: small, never reused.
pub type SubflowId = u8;

/// Why the scheduler is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// There is unassigned data.
    NewData,
    /// There is none (or the window is closed): only reinjections make sense.
    Blocked,
}

/// One subflow at the moment of the decision. Byte counts are payload bytes.
#[derive(Clone, Copy, Debug)]
pub struct SubflowView {
    /// Its identifier.
    pub id: SubflowId,
    /// Our address identifier.
    pub local_id: u8,
    /// The peer's address identifier.
    pub remote_id: u8,
    /// To be used only when no other works.
    pub backup: bool,
    /// No progress for a while.
    pub stale: bool,
    /// Recovering from a retransmission timeout.
    pub in_rto: bool,
    /// In fast recovery.
    pub in_recovery: bool,
    /// In slow start.
    pub in_slow_start: bool,
    /// Smoothed round-trip time; zero while unknown.
    pub srtt: Duration,
    /// Its variation.
    pub rttvar: Duration,
    /// Smallest lately.
    pub min_rtt: Duration,
    /// Largest lately.
    pub max_rtt: Duration,
    /// Congestion window.
    pub cwnd: u64,
    /// Slow-start threshold, `u64::MAX` while unset.
    pub ssthresh: u64,
    /// Bytes in flight.
    pub in_flight: u64,
    /// Bytes lost and waiting to be sent again.
    pub queued: u64,
    /// Bytes that may be sent now: congestion window, peer's window and pacing taken together.
    pub room: u64,
    /// Pacing rate in bytes per second; an estimate from cwnd and srtt where it does not pace.
    pub pacing_rate: u64,
    /// Measured delivery rate in bytes per second, 0 while unknown.
    pub delivery_rate: u64,
    /// Maximum segment size.
    pub mss: u64,
    /// Bytes lost and bytes delivered, exponentially aged: `lost / (lost + delivered)` is the loss rate.
    pub lost: u64,
    /// See `lost`.
    pub delivered: u64,
    /// When it last sent or received.
    pub last_activity: Instant,
    /// Cost of its path: lower is preferred.
    pub cost: u32,
    /// Whether the byte at `data_una` went on this subflow.
    pub carried_una: bool,
    /// First offset at or after `data_una` that never went on this subflow.
    pub walked: u64,
}

/// The connection at the moment of the decision. Data is counted in offsets: bytes since the start
/// of the stream, the same on plain TCP and MPTCP.
#[derive(Clone, Copy, Debug)]
pub struct SchedView<'a> {
    /// Now.
    pub now: Instant,
    /// Why it is asked.
    pub ask: Ask,
    /// Usable subflows: established and not closing. Never empty.
    pub subflows: &'a [SubflowView],
    /// First offset not acknowledged at data level.
    pub data_una: u64,
    /// First offset not assigned to any subflow.
    pub data_nxt: u64,
    /// Bytes written and not assigned.
    pub unassigned: u64,
    /// The peer's whole data-level window in bytes, counted from `data_una`.
    pub window: u64,
    /// What is left of it beyond `data_nxt`.
    pub window_left: u64,
    /// The application waits for room in the send buffer.
    pub send_buffer_full: bool,
}

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Send up to `max_bytes` of unassigned data on `subflow`, from `skip` bytes past its first byte.
    Send {
        /// On which subflow.
        subflow: SubflowId,
        /// How many unassigned bytes to leave out before.
        skip: u64,
        /// At most this many; the stack sends less if cwnd or window say so.
        max_bytes: u64,
    },
    /// Send these offsets, which went out before, once more on `subflow`.
    Reinject {
        /// On which subflow.
        subflow: SubflowId,
        /// Which offsets; clipped to what is still unacknowledged.
        range: Range<u64>,
    },
    /// Send nothing now. Asked again at `until`, or when something changes.
    Wait {
        /// When to ask again at the latest.
        until: Option<Instant>,
    },
}

/// A decision and, possibly, a subflow whose congestion window should be halved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice {
    /// What to do.
    pub decision: Decision,
    /// The subflow that held the others up (Raiciu et al., NSDI 2012).
    pub penalise: Option<SubflowId>,
}

impl From<Decision> for Choice {
    fn from(decision: Decision) -> Self {
        Self { decision, penalise: None }
    }
}

impl Choice {
    /// Send nothing until something changes.
    pub const WAIT: Self = Self { decision: Decision::Wait { until: None }, penalise: None };
}

/// What happened to data that a scheduler placed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SchedEvent {
    /// Bytes went out on a subflow.
    Sent {
        /// Which.
        subflow: SubflowId,
        /// How many.
        bytes: u64,
    },
    /// Bytes were delivered on a subflow.
    Acked {
        /// Which.
        subflow: SubflowId,
        /// How many.
        bytes: u64,
    },
    /// Bytes were lost on a subflow.
    Lost {
        /// Which.
        subflow: SubflowId,
        /// How many.
        bytes: u64,
    },
    /// A subflow became usable.
    Up(SubflowId),
    /// A subflow is gone.
    Down(SubflowId),
    /// A subflow makes no progress.
    Stale(SubflowId),
}

/// A packet scheduler: a decision over a snapshot, and its own state of this connection.
pub trait Scheduler: fmt::Debug + Send {
    /// Its name in the registry.
    fn name(&self) -> &'static str;
    /// What to send next, and where. Asked until it says wait or nothing can be sent. A choice of a
    /// subflow without room counts as "wait".
    fn select(&mut self, view: &SchedView<'_>) -> Choice;
    /// Something happened.
    fn on_event(&mut self, event: &SchedEvent) {
        let _ = event;
    }
}

/// Makes a scheduler by name.
///
/// # Errors
/// [`Error::UnknownName`] with the known names.
pub fn by_name(name: &str) -> Result<Box<dyn Scheduler>, Error> {
    match name {
        "minrtt" => Ok(Box::new(MinRtt::default())),
        "linux" => Ok(Box::new(Linux::default())),
        "roundrobin" => Ok(Box::new(RoundRobin::default())),
        "redundant" => Ok(Box::new(Redundant::default())),
        "backup" => Ok(Box::new(Backup::default())),
        _ => Err(Error::UnknownName { kind: "scheduler", known: NAMES }),
    }
}

#[cfg(test)]
mod tests;
