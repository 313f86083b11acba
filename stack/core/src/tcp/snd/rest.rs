//! The sending half at rest: what it has to remember while nothing is outstanding.

use alloc::boxed::Box;

use anabranch_frame::Instant;

use super::pace::{Pace, Pacing};
use super::rack::RestingRack;
use super::rate::RestingRate;
use super::recovery::{Phase, Recovery};
use super::rtt::RestingRtt;
use super::scoreboard::Scoreboard;
use super::send::{Unused, Usage};
use super::stats::Stats;
use super::timer::{Timers, Tlp};
use super::{PeerWindow, Rules, Snd};
use crate::cc::CongestionControl;

/// A [`Snd`] without what is only of use while something is under way: a third of its size, and no tables.
#[derive(Debug)]
pub(crate) struct RestingSnd {
    pub(super) cc: Box<dyn CongestionControl>,
    una: u64,
    created: Instant,
    pub(super) rack: RestingRack,
    pub(super) rate: RestingRate,
    pub(super) rtt: RestingRtt,
    recovery_point: u64,
    rto_tx: u64,
    pub(super) peer: PeerWindow,
    pub(super) stats: Stats,
    unused: Unused,
    pub(super) mss: u16,
    cwr_due: bool,
    sack: bool,
    timestamps: bool,
    pub(super) rules: Rules,
    /// The last thing acknowledged was a tail loss probe, and what comes next tells whether it repaired a loss.
    probed: bool,
}

impl Snd {
    /// Whether nothing is outstanding, and nothing that was has to be remembered.
    pub(crate) fn may_rest(&self) -> bool {
        self.board.is_empty()
            && self.recovery.phase == Phase::Open
            && !self.tlp.due
            && !self.fin_sent
            && self.pace.deadline().is_none()
    }

    /// Shrinks to what has to be remembered. Only if it [may](Self::may_rest).
    pub(crate) fn rest(self) -> RestingSnd {
        RestingSnd {
            mss: self.mss(),
            una: self.una(),
            created: self.created,
            rack: self.rack.rest(),
            rate: self.rate.rest(),
            rtt: self.rtt.rest(),
            recovery_point: self.recovery.point,
            rto_tx: self.recovery.rto_tx,
            peer: self.peer,
            stats: self.stats,
            cwr_due: self.cwr_due,
            unused: self.usage.unused,
            sack: self.sack,
            timestamps: self.timestamps,
            rules: self.rules,
            probed: self.tlp.end.is_some(),
            cc: self.cc,
        }
    }
}

impl RestingSnd {
    pub(crate) fn resume(self, pacing: Pacing) -> Snd {
        let recovery = Recovery { point: self.recovery_point, rto_tx: self.rto_tx, ..Recovery::new() };
        let mut snd = Snd {
            cc: self.cc,
            mss: u64::from(self.mss),
            sack: self.sack,
            timestamps: self.timestamps,
            rules: self.rules,
            created: self.created,
            fin_sent: false,
            drained: true,
            mtu_probe: None,
            cwr_due: self.cwr_due,
            board: Scoreboard::new(self.una),
            rack: self.rack.resume(),
            rate: self.rate.resume(self.created),
            rtt: self.rtt.resume(),
            recovery,
            timers: Timers::default(),
            tlp: Tlp { end: self.probed.then_some(self.una), retrans: self.probed, due: false },
            usage: Usage::resume(self.unused),
            pace: Pace::default(),
            peer: self.peer,
            stats: self.stats,
        };
        snd.set_pacing(pacing);
        snd
    }

    /// Bytes of memory that it holds beside itself.
    pub(crate) fn memory(&self) -> usize {
        size_of_val(self.cc.as_ref())
    }
}
