//! Failover at the speed of evidence: what a silent subflow holds goes elsewhere long before its retransmission timeout.
//!
//! While data is outstanding acknowledgements come all the time, or a round trip after the first byte. A subflow that had
//! none for `srtt + max(4·rttvar, srtt/4)` becomes *suspect* if another one can take over: new data goes elsewhere, what it
//! holds is sent once more there (the *rescue*), and it is probed. Its first acknowledgement ends all that, and takes back
//! what was not sent yet. Its congestion window is left alone: only loss recovery knows of losses.
//!
//! A false alarm costs duplicates, so each makes the next one take twice the silence, until the timeout comes first. When
//! nobody else was heard meanwhile it may be the peer that is silent, or ourselves: that takes twice the time as well.

use core::ops::Range;
use core::time::Duration;

use anabranch_frame::Instant;
use smallvec::SmallVec;

use crate::ranges::RangeSet;
use crate::sched::SubflowId;
use crate::tcp::Subflow;

use super::conn::{Conn, Cx};

/// False alarms are forgotten after this.
const FORGIVEN: Duration = Duration::from_secs(60);
/// More than so many in a row change nothing any more.
const ALARMS_MAX: u8 = 6;

/// Since when nothing was acknowledged on a subflow, and what is thought of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Silence {
    /// The last acknowledgement of something new, or when the first byte of what is outstanding was sent.
    since: Instant,
    /// Not judged before.
    not_before: Instant,
    suspect: bool,
    record: AlarmRecord,
}

/// The false alarms of a subflow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct AlarmRecord {
    last: Instant,
    in_a_row: u8,
}

impl Silence {
    pub(crate) fn new(record: AlarmRecord) -> Self {
        Self { since: Instant::ZERO, not_before: Instant::ZERO, suspect: false, record }
    }

    /// Something new was acknowledged, or the first byte went out.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.since = now;
        self.not_before = Instant::ZERO;
    }

    /// Whether its data goes elsewhere until it answers.
    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// What has to be remembered while nothing is outstanding.
    pub(crate) fn record(&self) -> AlarmRecord {
        self.record
    }

    fn doublings(&self) -> u32 {
        let forgiven = self.since.saturating_since(self.record.last) >= FORGIVEN;
        if forgiven { 0 } else { self.record.in_a_row.into() }
    }

    fn note_false_alarm(&mut self, now: Instant) {
        let before = self.doublings() as u8;
        self.record = AlarmRecord { last: now, in_a_row: (before + 1).min(ALARMS_MAX) };
    }

    /// The timeout came: it was right to suspect it.
    pub(super) fn confirm(&mut self) -> bool {
        self.record = AlarmRecord::default();
        core::mem::take(&mut self.suspect)
    }
}

impl Subflow {
    /// Whether it is better to use another one: no progress for a while, or for a suspicious while.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.stale || self.silence.suspect
    }

    /// Silence that makes it suspect.
    fn patience(&self) -> Option<Duration> {
        Some(self.snd.patience()? * (1 << self.silence.doublings()))
    }

    /// When its silence is to be judged.
    fn silence_due(&self) -> Option<Instant> {
        if self.snd.everything_acked() || self.is_doubtful() || self.synack.is_some() {
            return None;
        }
        Some((self.silence.since + self.patience()?).max(self.silence.not_before))
    }

    /// Whether it is not itself silent for too long.
    fn is_sound(&self, now: Instant) -> bool {
        let due = self.patience().map(|patience| self.silence.since + patience);
        self.usable() && !self.is_doubtful() && (self.snd.everything_acked() || due.is_none_or(|due| due > now))
    }
}

impl Conn {
    /// When the first of the subflows has been silent for too long.
    pub(super) fn silence_deadline(&self) -> Option<Instant> {
        if self.subflows.len() < 2 || self.mp().is_none() {
            return None;
        }
        let others = |id| move |other: &&Subflow| other.id != id && other.usable() && !other.is_doubtful();
        self.subflows
            .iter()
            .filter(|subflow| self.subflows.iter().any(|other| others(subflow.id)(&other)))
            .filter_map(Subflow::silence_due)
            .min()
    }

    /// Time passed: judges the silence of a subflow.
    pub(super) fn on_silence_timer(&mut self, cx: &mut Cx<'_>, id: SubflowId) {
        let now = cx.now;
        if self.subflows.len() < 2 {
            return;
        }
        let Some(at) = self.index_of(id) else { return };
        let Some(base) = self.mp().map(|mp| mp.dsn(0)) else { return };
        let subflow = &self.subflows[at];
        let (Some(due), Some(patience)) = (subflow.silence_due(), subflow.patience()) else { return };
        if due > now {
            return;
        }
        let since = subflow.silence.since;
        let una = self.tx.una();
        let holds = subflow.outstanding(base).any(|range| range.end > una);
        let refuges = || self.subflows.iter().filter(|other| other.id != id && other.is_sound(now));
        let witnessed = refuges().any(|other| other.last_rx > since);
        let certain = witnessed || (now >= since + patience * 2 && refuges().next().is_some());
        if holds && certain {
            self.suspect(cx, at, base);
        } else {
            self.subflows[at].silence.not_before =
                if witnessed { now + patience } else { (since + patience * 2).max(now + patience / 4) };
        }
    }

    /// Sends what a subflow holds elsewhere as well, and asks whether it is still there.
    fn suspect(&mut self, cx: &mut Cx<'_>, at: usize, base: u64) {
        cx.counters.subflow_suspect += 1;
        for range in self.subflows[at].outstanding(base) {
            self.tx.rescue(range);
        }
        let subflow = &mut self.subflows[at];
        subflow.silence.suspect = true;
        if subflow.snd.hasten_probe(cx.now) {
            cx.counters.tcp_loss_probes += 1;
            subflow.probe = true;
        } else {
            subflow.ping = true;
        }
    }

    /// Something new was acknowledged on a subflow that was suspect: what it holds is its own business again.
    pub(super) fn on_answer(&mut self, cx: &mut Cx<'_>, at: usize) {
        cx.counters.subflow_false_alarm += 1;
        let silence = &mut self.subflows[at].silence;
        silence.suspect = false;
        silence.note_false_alarm(cx.now);
        let Some(base) = self.mp().map(|mp| mp.dsn(0)) else { return };
        let suspects = self.subflows.iter().filter(|subflow| subflow.silence.suspect);
        self.tx.end_rescue(suspects.flat_map(|subflow| subflow.outstanding(base)));
    }

    /// What a subflow has under way although something is to be sent once more, elsewhere perhaps.
    pub(super) fn under_way_again(&self, at: usize) -> SmallVec<[Range<u64>; 4]> {
        match self.mp() {
            Some(mp) if self.tx.reinjections().next().is_some() => self.subflows[at].outstanding(mp.dsn(0)).collect(),
            _ => SmallVec::new(),
        }
    }

    /// What of that has arrived by now is not sent once more: without another subflow it would go the same way again, and be
    /// new bytes to a peer that has fallen back unheard. If no DATA_ACK comes the data-level timer sees to it.
    pub(super) fn spare_delivered(&mut self, at: usize, again: &[Range<u64>]) {
        let Some(base) = self.mp().map(|mp| mp.dsn(0)) else { return };
        let mut still = RangeSet::new();
        for range in self.subflows[at].outstanding(base) {
            still.insert(range);
        }
        for range in again {
            still.gaps(range.clone()).for_each(|delivered| self.tx.reinjected(delivered));
        }
    }
}
