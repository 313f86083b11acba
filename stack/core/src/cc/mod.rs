//! Congestion control: one algorithm a file, made by name.

mod bbr;
mod cubic;
mod dctcp;
mod hystart;
mod reno;
mod window;

use alloc::boxed::Box;
use core::fmt;
use core::time::Duration;

use anabranch_frame::Instant;

use crate::Error;

pub use bbr::Bbr;
pub use cubic::Cubic;
pub use dctcp::Dctcp;
pub use reno::Reno;

/// The names that [`by_name`] knows.
pub const NAMES: &str = "reno, cubic, bbr, dctcp";

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
    /// Bytes newly presumed lost.
    pub lost: u64,
    /// Bytes newly delivered under an acknowledgement that echoes congestion (RFC 3168 §6.1.2, RFC 8257 §3.3).
    pub ce_bytes: u64,
    /// What the newest segment that was delivered tells of the path; `None` if nothing was.
    pub delivery: Option<Delivery>,
    /// Whether the sender was limited by the window (and not by the application) before this
    /// acknowledgement: only then may the window grow (RFC 7661, RFC 9438 §5.8).
    pub cwnd_limited: bool,
    /// Whether this acknowledgement begins a new round trip.
    pub round_start: bool,
    /// Whether loss recovery goes on: the window stays as it is.
    pub in_recovery: bool,
    /// Segments arrived beyond a hole, on a path where they are not known to change places: a loss is likely, and the window
    /// does not grow for that (RFC 5681 §3.1).
    pub disordered: bool,
}

/// A delivery rate sample (draft-ietf-ccwg-bbr §4.1): what happened between the sending of a segment and its delivery. Of
/// the segments that an acknowledgement delivers it is about the one sent last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// Bytes per second; `None` if the time is too short to tell.
    pub rate: Option<u64>,
    /// Bytes delivered in that time.
    pub delivered: u64,
    /// Bytes delivered, in the life of the subflow, when the segment was sent. With `delivered` it makes those delivered by now.
    pub prior_delivered: u64,
    /// Bytes in flight when it was sent, it included.
    pub tx_in_flight: u64,
    /// Bytes presumed lost in that time.
    pub lost: u64,
    /// The application, not the path, limited what was sent.
    pub app_limited: bool,
}

/// A piece of data that is presumed lost: one segment, or a super-segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Loss {
    /// When it is noticed.
    pub now: Instant,
    /// Its length in bytes.
    pub bytes: u64,
    /// Bytes in flight when it was sent, it included.
    pub tx_in_flight: u64,
    /// Bytes presumed lost since it was sent, it included.
    pub lost: u64,
    /// Bytes delivered in the life of the subflow.
    pub total_delivered: u64,
    /// The application, not the path, limited what was sent with it.
    pub app_limited: bool,
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
    /// The handshake took `rtt`: there is no other sample yet.
    fn on_handshake(&mut self, now: Instant, rtt: Duration) {
        let _ = (now, rtt);
    }
    /// Something is about to be sent while nothing is in flight, because the application had nothing to send.
    fn on_restart(&mut self, now: Instant) {
        let _ = now;
    }
    /// An acknowledgement came. Its losses were told before.
    fn on_ack(&mut self, sample: &AckSample, group: Group<'_>);
    /// Something is presumed lost. For who wants to know how much and when; the reduction is `on_congestion`'s.
    fn on_lost(&mut self, loss: &Loss) {
        let _ = loss;
    }
    /// A recovery episode begins (loss or ECN): reduce the window. Remembers enough to undo it.
    fn on_congestion(&mut self, now: Instant, in_flight: u64, group: Group<'_>);
    /// The retransmission timer fired: the window collapses to one segment beyond the `in_flight` bytes that are not
    /// presumed lost. Remembers enough to undo the first one of a series; `first` is false for the back-offs that follow.
    fn on_rto(&mut self, now: Instant, in_flight: u64, first: bool);
    /// The last reduction was a mistake: take it back.
    fn on_spurious(&mut self, now: Instant);
    /// All that was outstanding when the last episode began, of fast recovery or after a timeout, is delivered.
    fn on_recovered(&mut self, now: Instant) {
        let _ = now;
    }
    /// Nothing was sent for a retransmission timeout or longer (RFC 9293 §3.8.1, RFC 2861).
    fn on_idle(&mut self, now: Instant, rto: Duration, idle: Duration);
    /// For a retransmission timeout or longer no more than `used` bytes of the window were used (RFC 2861 §3.1, RFC 7661
    /// §4.4; Linux: `tcp_cwnd_application_limited`).
    fn on_app_limited(&mut self, used: u64) {
        let _ = used;
    }
    /// A packet scheduler asks for half the window (opportunistic retransmission with penalisation).
    fn penalise(&mut self, now: Instant) {
        let _ = now;
    }
    /// It takes the place of another one, which left this behind. One that has no window of its own starts afresh.
    fn adopt(&mut self, before: Metrics) {
        let _ = before;
    }
    /// Congestion window in bytes.
    fn cwnd(&self) -> u64;
    /// Slow-start threshold in bytes, `u64::MAX` while unset.
    fn ssthresh(&self) -> u64;
    /// Whether the window is below the threshold.
    fn in_slow_start(&self) -> bool {
        self.cwnd() < self.ssthresh()
    }
    /// Pacing rate in bytes per second. Either always there, or never: an algorithm paces or does not.
    fn pacing_rate(&self) -> Option<u64> {
        None
    }
    /// Whether proportional rate reduction leads down to the new window in fast recovery (RFC 6937). Otherwise `cwnd` says
    /// at each moment what may be in flight.
    fn uses_prr(&self) -> bool {
        true
    }
    /// Whether it lives on marks: ECN is asked for even if the socket does not, the receiver of the data echoes each
    /// mark as it came (RFC 8257 §3.2), and what is made of them is the algorithm's, by [`AckSample::ce_bytes`]:
    /// `on_congestion` is for losses only.
    fn needs_ecn(&self) -> bool {
        false
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
        "bbr" => Ok(Box::new(Bbr::new(mss))),
        "dctcp" => Ok(Box::new(Dctcp::new(mss))),
        _ => Err(Error::UnknownName { kind: "congestion control", known: NAMES }),
    }
}

#[cfg(test)]
mod tests;
