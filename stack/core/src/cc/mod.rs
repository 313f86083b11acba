//! Congestion control: one algorithm a file, made by name.

mod cubic;
mod hystart;
mod reno;
mod window;

use alloc::boxed::Box;
use core::fmt;
use core::time::Duration;

use anabranch_frame::Instant;

use crate::Error;

pub use cubic::Cubic;
pub use reno::Reno;

/// The names that [`by_name`] knows.
pub const NAMES: &str = "reno, cubic";

/// Initial window in segments (RFC 6928).
pub const INITIAL_WINDOW: u64 = 10;
/// Smallest window in segments.
pub const MIN_WINDOW: u64 = 2;

/// What one acknowledgement brought. Bytes are payload bytes.
#[derive(Clone, Copy, Debug)]
pub struct AckSample {
    /// When it came.
    pub now: Instant,
    /// Bytes newly delivered: acknowledged or selectively acknowledged for the first time.
    pub delivered: u64,
    /// Bytes by which the cumulative acknowledgement moved.
    pub acked: u64,
    /// Round-trip time of the newest segment that was never retransmitted, if there was one.
    pub rtt: Option<Duration>,
    /// Smoothed round-trip time after this sample.
    pub srtt: Duration,
    /// Smallest round-trip time lately.
    pub min_rtt: Duration,
    /// Bytes in flight before this acknowledgement.
    pub prior_in_flight: u64,
    /// Bytes in flight now.
    pub in_flight: u64,
    /// Delivery rate in bytes per second, if it could be measured.
    pub delivery_rate: Option<u64>,
    /// Whether the sender was limited by the window (and not by the application) before this
    /// acknowledgement: only then may the window grow (RFC 7661, RFC 9438 §5.8).
    pub cwnd_limited: bool,
    /// Whether this acknowledgement begins a new round trip.
    pub round_start: bool,
    /// Whether loss recovery goes on: the window stays as it is.
    pub in_recovery: bool,
}

/// One subflow of the connection, as its siblings' congestion control sees it.
#[derive(Clone, Copy, Debug)]
pub struct Sibling {
    /// Congestion window in bytes.
    pub cwnd: u64,
    /// Maximum segment size in bytes.
    pub mss: u64,
    /// Smoothed round-trip time; zero while unknown.
    pub srtt: Duration,
    /// Bytes acknowledged since the last loss.
    pub acked_since_loss: u64,
    /// Bytes acknowledged between the two losses before.
    pub acked_between_losses: u64,
}

/// A read-only view of all established subflows of the connection, what coupled control needs.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    /// All subflows, the asking one included.
    pub siblings: &'a [Sibling],
    /// Which of them is asking.
    pub me: usize,
}

/// What an algorithm shows of its state.
#[derive(Clone, Copy, Debug)]
pub struct Metrics {
    /// Congestion window in bytes.
    pub cwnd: u64,
    /// Slow-start threshold in bytes, `u64::MAX` while unset.
    pub ssthresh: u64,
    /// Pacing rate in bytes per second, if it paces.
    pub pacing_rate: Option<u64>,
}

/// A congestion control of one subflow. It never sees a sequence number: loss recovery tells it what
/// was delivered, and that congestion happened at most once a recovery episode.
///
/// Windows are bytes. The reduction after a loss is `on_congestion`'s; how fast the sender comes down
/// to it is loss recovery's business (PRR).
pub trait CongestionControl: fmt::Debug + Send {
    /// Its name in the registry.
    fn name(&self) -> &'static str;
    /// The maximum segment size became known or changed.
    fn set_mss(&mut self, mss: u64);
    /// `bytes` were sent; `in_flight` includes them.
    fn on_sent(&mut self, now: Instant, bytes: u64, in_flight: u64) {
        let _ = (now, bytes, in_flight);
    }
    /// An acknowledgement came.
    fn on_ack(&mut self, sample: &AckSample, group: Group<'_>);
    /// A recovery episode begins (loss or ECN): reduce the window. Remembers enough to undo it.
    fn on_congestion(&mut self, now: Instant, in_flight: u64, group: Group<'_>);
    /// The retransmission timer fired: the window collapses to one segment. Remembers enough to undo
    /// the first one of a series; `first` is false for the back-offs that follow.
    fn on_rto(&mut self, now: Instant, in_flight: u64, first: bool);
    /// The last reduction was a mistake: take it back.
    fn on_spurious(&mut self, now: Instant);
    /// Nothing was sent for a retransmission timeout or longer (RFC 9293 §3.8.1, RFC 2861).
    fn on_idle(&mut self, now: Instant, rto: Duration, idle: Duration);
    /// A packet scheduler asks for half the window (opportunistic retransmission with penalisation).
    fn penalise(&mut self, now: Instant) {
        let _ = now;
    }
    /// Congestion window in bytes.
    fn cwnd(&self) -> u64;
    /// Slow-start threshold in bytes, `u64::MAX` while unset.
    fn ssthresh(&self) -> u64;
    /// Whether the window is below the threshold.
    fn in_slow_start(&self) -> bool {
        self.cwnd() < self.ssthresh()
    }
    /// Pacing rate in bytes per second, if it paces.
    fn pacing_rate(&self) -> Option<u64> {
        None
    }
    /// What it shows of its state.
    fn metrics(&self) -> Metrics {
        Metrics { cwnd: self.cwnd(), ssthresh: self.ssthresh(), pacing_rate: self.pacing_rate() }
    }
}

/// Makes a congestion control by name.
///
/// # Errors
/// [`Error::UnknownName`] with the known names.
pub fn by_name(name: &str, mss: u64) -> Result<Box<dyn CongestionControl>, Error> {
    match name {
        "reno" => Ok(Box::new(Reno::new(mss))),
        "cubic" => Ok(Box::new(Cubic::new(mss))),
        _ => Err(Error::UnknownName { kind: "congestion control", known: NAMES }),
    }
}

#[cfg(test)]
mod tests;
