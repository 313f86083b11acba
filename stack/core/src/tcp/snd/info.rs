//! What the sending half adds to `tcp_info`.

use core::time::Duration;

use crate::info::{CaState, SubflowInfo};

use super::pace::rate_of_window;
use super::recovery::Phase;
use super::{RestingSnd, Snd};

impl Snd {
    pub(crate) fn inform(&self, info: &mut SubflowInfo) {
        let tally = self.board.tally();
        let segments = |positions: u64| u32::try_from(positions.div_ceil(self.mss)).unwrap_or(u32::MAX);
        let unacked: u64 = self.board.records().iter().map(super::record::Record::segments).sum();
        info.ca_state = match self.recovery.phase {
            Phase::Open if tally.sacked > 0 || self.recovery.dup_acks > 0 => CaState::Disorder,
            Phase::Open => CaState::Open,
            Phase::Cwr => CaState::Cwr,
            Phase::Recovery => CaState::Recovery,
            Phase::Loss => CaState::Loss,
        };
        info.retransmits = self.timeouts();
        info.backoff = info.backoff.max(self.rtt.backoff());
        info.rto = self.rto();
        info.snd_mss = self.mss();
        info.unacked = u32::try_from(unacked).unwrap_or(u32::MAX);
        info.sacked = u32::try_from(tally.sacked_segments).unwrap_or(u32::MAX) + segments(self.board.reno_sacked());
        info.lost = segments(tally.lost);
        info.retrans = segments(tally.retrans);
        info.reordering = self.rack.reordering().into();
        info.reord_seen = self.rack.reord_seen();
        info.in_flight = self.in_flight();
        info.last_data_sent = self.stats.last_sent;
        info.srtt = self.srtt();
        info.rttvar = self.rttvar();
        info.min_rtt = self.min_rtt();
        info.cwnd = self.cwnd();
        info.ssthresh = self.ssthresh();
        info.pacing_rate = self.pacing_rate_estimate();
        info.delivery_rate = self.delivery_rate();
        info.snd_wnd = self.peer.window.into();
        info.delivered_ce = self.delivered_ce();
        info.bytes_sent = self.bytes_sent();
        info.bytes_acked = self.bytes_acked();
        info.bytes_retrans = self.bytes_retrans();
        info.total_retrans = self.total_retrans();
    }
}

impl RestingSnd {
    /// As [`Snd::inform`].
    pub(crate) fn inform(&self, info: &mut SubflowInfo) {
        info.rto = self.rtt.resume().rto();
        info.snd_mss = self.mss;
        info.reordering = self.rack.reordering.into();
        info.reord_seen = self.rack.reord_seen;
        info.last_data_sent = self.stats.last_sent;
        info.srtt = self.rtt.srtt();
        info.rttvar = self.rtt.rttvar();
        info.min_rtt = self.rtt.min();
        info.cwnd = self.cc.cwnd();
        info.ssthresh = self.cc.ssthresh();
        info.pacing_rate = self.cc.pacing_rate().unwrap_or_else(|| match self.rtt.srtt() {
            Duration::ZERO => 0,
            srtt => rate_of_window(self.cc.as_ref(), 0, srtt, &self.rules.pacing),
        });
        info.delivery_rate = self.rate.rate;
        info.snd_wnd = self.peer.window.into();
        info.delivered_ce = self.stats.delivered_ce;
        info.bytes_sent = self.stats.bytes_sent;
        info.bytes_acked = self.stats.bytes_acked;
        info.bytes_retrans = self.stats.bytes_retrans;
        info.total_retrans = self.stats.total_retrans;
    }
}
