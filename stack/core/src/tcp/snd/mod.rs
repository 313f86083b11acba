//! The sending half of a subflow: what is outstanding, what was lost, what may go.
//!
//! Positions are 64 bits wide and never wrap: 0 is the SYN, 1 the first byte, and a FIN takes one after the last byte.

mod ack;
mod info;
mod learnt;
mod mtu;
mod pace;
mod rack;
mod rate;
mod record;
mod recovery;
mod rest;
mod rtt;
mod scoreboard;
mod send;
mod stats;
#[cfg(test)]
mod tests;
mod timer;

use alloc::boxed::Box;
use core::ops::Range;
use core::time::Duration;

use anabranch_frame::{Instant, Slices};

pub(crate) use learnt::Learnt;
pub(crate) use mtu::Probed;
pub(crate) use pace::Pacing;
pub(crate) use record::TxMapping;
pub(crate) use rest::RestingSnd;

use crate::cc::{CongestionControl, Sibling};
use crate::config;
use mtu::MtuProbe;
use pace::Pace;
use rack::Rack;
use rate::RateSampler;
use recovery::{Phase, Recovery};
use rtt::Rtt;
use scoreboard::Scoreboard;
use send::Usage;
use stats::Stats;
use timer::{Timers, Tlp};

/// What the handshake settled.
#[derive(Debug)]
pub(crate) struct SndConfig {
    /// Payload bytes per segment.
    pub(crate) mss: u16,
    /// Whether the peer sends SACK.
    pub(crate) sack: bool,
    /// Whether segments carry timestamps.
    pub(crate) timestamps: bool,
    /// Congestion control, fresh.
    pub(crate) cc: Box<dyn CongestionControl>,
    /// What the socket wants of pacing.
    pub(crate) pacing: Pacing,
    /// How losses are found.
    pub(crate) recovery: config::Recovery,
    /// How much goes at once.
    pub(crate) sizes: config::PacingConfig,
}

/// The acknowledging part of a segment.
#[derive(Debug)]
pub(crate) struct AckIn<'a> {
    /// Acknowledged position, not beyond `nxt`.
    pub(crate) ack: u64,
    /// Window in bytes, scaled.
    pub(crate) window: u64,
    /// The segment's own position, among the peer's.
    pub(crate) seq: u64,
    /// SACK blocks as they came: the first may be a DSACK.
    pub(crate) sack: &'a [Range<u64>],
    /// Round-trip time by the echoed timestamp.
    pub(crate) ts_rtt: Option<Duration>,
    /// It echoes congestion (RFC 3168 §6.1.2).
    pub(crate) ece: bool,
    /// No payload, SYN or FIN: may be a duplicate ACK.
    pub(crate) pure: bool,
    /// Carries an MPTCP option other than DSS: never a duplicate ACK (RFC 8684 §3.4).
    pub(crate) signal: bool,
}

/// What an acknowledgement did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct AckOut {
    /// Positions by which `una` moved.
    pub(crate) acked: u64,
    /// The same without the FIN.
    pub(crate) acked_bytes: u64,
    /// Positions acknowledged or SACKed for the first time.
    pub(crate) delivered: u64,
    /// Positions newly presumed lost.
    pub(crate) lost: u64,
    /// Our FIN was acknowledged.
    pub(crate) fin_acked: bool,
    /// The window's right edge moved.
    pub(crate) window_opened: bool,
    /// There was a DSACK.
    pub(crate) dsack: bool,
    /// SACK blocks that made no sense.
    pub(crate) sack_discarded: u32,
    /// Fast recovery began.
    pub(crate) entered_recovery: bool,
    /// Recovery, fast or from a timeout, ended.
    pub(crate) left_recovery: bool,
    /// The last reduction of the window was taken back.
    pub(crate) spurious: bool,
    /// Round-trip time for the timeout.
    pub(crate) rtt: Option<Duration>,
}

/// Data to be sent again.
#[derive(Debug)]
pub(crate) struct Retransmit {
    /// Where it lies.
    pub(crate) range: Range<u64>,
    /// Its bytes.
    pub(crate) payload: Slices,
    /// Its mapping, as it was first sent.
    pub(crate) mapping: Option<TxMapping>,
    /// A FIN follows the bytes.
    pub(crate) fin: bool,
    /// It was first sent with PSH.
    pub(crate) push: bool,
}

/// Which timer fired.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fired {
    /// The retransmission timeout, the `consecutive`th without progress.
    Rto {
        /// From 1.
        consecutive: u32,
    },
    /// A tail loss probe is due: send new data, or [`Snd::send_probe`].
    Probe,
    /// RACK waited long enough for reordered segments and presumes them lost.
    Reordering,
}

/// The peer's window.
#[derive(Debug, Default)]
struct PeerWindow {
    /// Right-most edge ever offered; taking it back is ignored.
    right_edge: u64,
    /// Last advertised window, and the segment it came in (RFC 9293's SND.WND, SND.WL1, SND.WL2).
    window: u32,
    /// Largest window ever advertised (RFC 5961's MAX.SND.WND).
    widest: u32,
    wl1: u64,
    wl2: u64,
}

/// What a segment did to the peer's window.
struct WindowChange {
    opened: bool,
    changed: bool,
}

impl PeerWindow {
    /// A field of 16 bits and a scale of 14 make 30.
    fn tell(&mut self, window: u64) {
        self.window = u32::try_from(window).unwrap_or(u32::MAX);
        self.widest = self.widest.max(self.window);
    }

    fn update(&mut self, ack: &AckIn<'_>) -> WindowChange {
        // An older segment than the one that told last (RFC 9293 §3.10.7.4). What the peer sends again is old by its
        // position, but new by its acknowledgement.
        if (ack.ack, ack.seq) < (self.wl2, self.wl1) {
            return WindowChange { opened: false, changed: false };
        }
        let edge = ack.ack.saturating_add(ack.window);
        let change = WindowChange { opened: edge > self.right_edge, changed: ack.window != u64::from(self.window) };
        self.right_edge = self.right_edge.max(edge);
        self.tell(ack.window);
        self.wl1 = ack.seq;
        self.wl2 = ack.ack;
        change
    }
}

/// What the configuration says, as far as it is asked for all the time.
#[derive(Clone, Copy, Debug)]
struct Rules {
    reordering: u16,
    max_reordering: u16,
    early_retrans: bool,
    frto: bool,
    static_reo_wnd: bool,
    no_dupthresh: bool,
    slow_start_after_idle: bool,
    thin_linear_timeouts: bool,
    pacing: config::PacingConfig,
}

impl Rules {
    fn new(recovery: &config::Recovery, pacing: config::PacingConfig) -> Self {
        let config::Recovery {
            reordering,
            max_reordering,
            early_retrans,
            frto,
            static_reo_wnd,
            no_dupthresh,
            slow_start_after_idle,
            thin_linear_timeouts,
            ..
        } = *recovery;
        Self {
            reordering,
            max_reordering,
            early_retrans,
            frto,
            static_reo_wnd,
            no_dupthresh,
            slow_start_after_idle,
            thin_linear_timeouts,
            pacing,
        }
    }
}

/// The sending half of a subflow, from the end of the handshake on.
#[derive(Debug)]
pub(crate) struct Snd {
    cc: Box<dyn CongestionControl>,
    mss: u64,
    sack: bool,
    timestamps: bool,
    rules: Rules,
    created: Instant,
    fin_sent: bool,
    /// All that the application gave was sent.
    drained: bool,
    /// A segment larger than the others, to see whether it gets through.
    mtu_probe: Option<MtuProbe>,
    /// The window was reduced, and the peer is to be told by CWR.
    cwr_due: bool,
    board: Scoreboard,
    rack: Rack,
    rate: RateSampler,
    rtt: Rtt,
    recovery: Recovery,
    timers: Timers,
    tlp: Tlp,
    usage: Usage,
    pace: Pace,
    peer: PeerWindow,
    stats: Stats,
}

impl Snd {
    /// After the handshake: the SYN is acknowledged, nothing else was sent.
    pub(crate) fn new(now: Instant, config: SndConfig) -> Self {
        let recovery = config.recovery.bounded();
        let mut snd = Self {
            cc: config.cc,
            mss: 1,
            sack: config.sack,
            timestamps: config.timestamps,
            rules: Rules::new(&recovery, config.sizes),
            created: now,
            fin_sent: false,
            drained: true,
            mtu_probe: None,
            cwr_due: false,
            board: Scoreboard::new(1),
            rack: Rack::new(recovery.reordering),
            rate: RateSampler::new(now),
            rtt: Rtt::new(&recovery),
            recovery: Recovery::new(),
            timers: Timers::default(),
            tlp: Tlp::default(),
            usage: Usage::new(now),
            pace: Pace::default(),
            peer: PeerWindow { right_edge: 1, ..PeerWindow::default() },
            stats: Stats::default(),
        };
        snd.set_mss(config.mss);
        snd.set_pacing(config.pacing);
        snd
    }

    /// Data went with the SYN and is acknowledged with it: what is sent now begins at `first`.
    pub(crate) fn start_at(&mut self, first: u64) {
        self.board = Scoreboard::new(first);
        self.peer.right_edge = self.peer.right_edge.max(first);
    }

    /// The handshake's round-trip time.
    pub(crate) fn seed_rtt(&mut self, rtt: Duration) {
        self.rtt.sample(self.created, rtt, self.una(), self.nxt());
        self.cc.on_handshake(self.created, rtt);
        self.repace();
    }

    /// Bytes of memory that it holds beside itself and the payload of what is outstanding.
    pub(crate) fn memory(&self) -> usize {
        size_of_val(self.cc.as_ref()) + self.board.memory() + self.rack.memory()
    }

    /// Bytes that are outstanding.
    pub(crate) fn outstanding(&self) -> u64 {
        self.board.outstanding()
    }

    /// First position not acknowledged.
    pub(crate) fn una(&self) -> u64 {
        self.board.una()
    }

    /// First position not sent.
    pub(crate) fn nxt(&self) -> u64 {
        self.board.nxt()
    }

    /// Right-most edge of the peer's window ever seen.
    pub(crate) fn right_edge(&self) -> u64 {
        self.peer.right_edge
    }

    /// The window from the handshake.
    pub(crate) fn set_right_edge(&mut self, position: u64) {
        self.peer.right_edge = self.peer.right_edge.max(position);
        self.peer.tell(position.saturating_sub(self.una()));
    }

    /// Largest window that the peer ever told.
    pub(crate) fn widest_window(&self) -> u64 {
        self.peer.widest.into()
    }

    /// The window that the peer told last.
    pub(crate) fn peer_window(&self) -> u64 {
        self.peer.window.into()
    }

    /// Retransmission timeouts since anything was acknowledged.
    pub(crate) fn timeouts(&self) -> u32 {
        self.recovery.timeouts
    }

    /// Positions in flight: sent, neither SACKed nor presumed lost, and sent again (RFC 6675's pipe).
    pub(crate) fn in_flight(&self) -> u64 {
        self.board.in_flight()
    }

    /// Positions presumed lost and not sent again.
    pub(crate) fn queued_lost(&self) -> u64 {
        self.board.tally().waiting
    }

    /// Payload bytes per segment.
    pub(crate) fn mss(&self) -> u16 {
        self.mss_u16()
    }

    fn mss_u16(&self) -> u16 {
        u16::try_from(self.mss).unwrap_or(u16::MAX)
    }

    /// Changes the payload bytes per segment of what is sent from now on.
    pub(crate) fn set_mss(&mut self, mss: u16) {
        self.mss = u64::from(mss.max(1));
        self.cc.set_mss(self.mss);
    }

    /// Goes on under another congestion control, with the window that there is.
    pub(crate) fn set_congestion(&mut self, mut cc: Box<dyn CongestionControl>) {
        cc.adopt(self.cc.metrics());
        self.cc = cc;
        self.set_pacing(self.pace.socket());
    }

    /// What was sent last carried PSH, and will so when it is sent again.
    pub(crate) fn mark_pushed(&mut self) {
        self.board.mark_pushed();
    }

    /// Congestion window in bytes; in fast recovery the one that leads down to the new window.
    pub(crate) fn cwnd(&self) -> u64 {
        self.window()
    }

    /// Slow-start threshold in bytes.
    pub(crate) fn ssthresh(&self) -> u64 {
        self.cc.ssthresh()
    }

    /// In fast recovery.
    pub(crate) fn in_recovery(&self) -> bool {
        self.recovery.phase == Phase::Recovery
    }

    /// Recovering from a retransmission timeout.
    pub(crate) fn in_rto(&self) -> bool {
        self.recovery.phase == Phase::Loss
    }

    /// Smoothed round-trip time; zero before the first sample.
    pub(crate) fn srtt(&self) -> Duration {
        self.rtt.srtt().unwrap_or(Duration::ZERO)
    }

    /// Mean deviation of the round-trip time.
    pub(crate) fn rttvar(&self) -> Duration {
        self.rtt.rttvar()
    }

    /// Smallest round-trip time of the last five minutes; zero before the first sample.
    pub(crate) fn min_rtt(&self) -> Duration {
        self.rtt.min()
    }

    /// Largest round-trip time of the last ten seconds; zero before the first sample.
    pub(crate) fn max_rtt(&self) -> Duration {
        self.rtt.max()
    }

    /// Back-off goes no further than this.
    pub(crate) fn set_longest_rto(&mut self, longest: Duration) {
        self.rtt.set_longest(longest);
    }

    /// Retransmission timeout, back-off included.
    pub(crate) fn rto(&self) -> Duration {
        self.rtt.rto()
    }

    /// Measured delivery rate in bytes per second, 0 while unknown.
    pub(crate) fn delivery_rate(&self) -> u64 {
        self.rate.rate()
    }

    /// A packet scheduler asks for half the window.
    pub(crate) fn penalise(&mut self, now: Instant) {
        self.cc.penalise(now);
        self.repace();
    }

    /// What siblings' congestion control may know of this subflow.
    pub(crate) fn sibling(&self) -> Sibling {
        Sibling {
            cwnd: self.cc.cwnd(),
            mss: self.mss,
            srtt: self.srtt(),
            acked_since_loss: self.stats.acked_since_loss,
            acked_between_losses: self.stats.acked_between_losses,
        }
    }

    /// Positions lost, exponentially aged.
    pub(crate) fn lost_aged(&self) -> u64 {
        self.stats.lost_aged
    }

    /// Positions delivered, exponentially aged.
    pub(crate) fn delivered_aged(&self) -> u64 {
        self.stats.delivered_aged
    }

    /// Whether the peer is to be told that the window was reduced (RFC 3168 §6.1.2). It counts as told.
    pub(crate) fn take_cwr(&mut self) -> bool {
        core::mem::take(&mut self.cwr_due)
    }

    /// Positions delivered under acknowledgements that echo congestion.
    pub(crate) fn delivered_ce(&self) -> u64 {
        self.stats.delivered_ce
    }

    /// Payload bytes sent, retransmissions included.
    pub(crate) fn bytes_sent(&self) -> u64 {
        self.stats.bytes_sent
    }

    /// Payload bytes acknowledged.
    pub(crate) fn bytes_acked(&self) -> u64 {
        self.stats.bytes_acked
    }

    /// Payload bytes sent again.
    pub(crate) fn bytes_retrans(&self) -> u64 {
        self.stats.bytes_retrans
    }

    /// Segments sent again.
    pub(crate) fn total_retrans(&self) -> u32 {
        self.stats.total_retrans
    }

    /// Whether a FIN was sent.
    pub(crate) fn fin_sent(&self) -> bool {
        self.fin_sent
    }

    /// Whether nothing is outstanding.
    pub(crate) fn everything_acked(&self) -> bool {
        self.board.is_empty()
    }

    /// Whether all that the application gave was sent.
    pub(crate) fn set_drained(&mut self, drained: bool) {
        self.drained = drained;
    }

    /// If the application, and not a window, is what limits sending, delivery rates are no measure of the path
    /// (draft-ietf-ccwg-bbr §4.1.2.4). To be asked before anything is acknowledged or sent.
    fn check_app_limited(&mut self) {
        let in_flight = self.in_flight();
        if self.drained && in_flight < self.cc.cwnd() && self.board.tally().waiting == 0 {
            self.rate.app_limited(in_flight);
        }
    }

    /// What is outstanding, in order: where, with which mapping, and whether it was SACKed.
    pub(crate) fn unacked(&self) -> impl Iterator<Item = (Range<u64>, Option<TxMapping>, bool)> {
        self.board.records().iter().map(|record| (record.range(), record.mapping, record.sacked))
    }
}
