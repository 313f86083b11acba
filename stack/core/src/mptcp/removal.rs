//! REMOVE_ADDR (RFC 8684 §3.4.2): withdrawing addresses of ours, and doubting what the peer is said to withdraw.

use core::time::Duration;

use anabranch_frame::Instant;
use smallvec::SmallVec;

use crate::ResetReason;
use crate::pm::{Notice, PmEvent};
use crate::sched::SubflowId;
use crate::wire::{MptcpOption, RemoveAddr};

use super::conn::{Conn, Cx};

/// Questions that a subflow whose address was withdrawn may leave without an answer.
const QUESTIONS: u8 = 2;

/// A subflow whose address the peer is said to have withdrawn. Whoever can send one segment can say so: the path is asked
/// first, and what answers stays.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doubt {
    subflow: SubflowId,
    /// What is heard from then on is an answer.
    answer_from: Instant,
    /// When to ask again, or to believe it.
    due: Instant,
    asked: u8,
}

impl Conn {
    /// Tells the peer that an address of ours is gone.
    pub(super) fn withdraw(&mut self, cx: &mut Cx<'_>, id: u8) {
        self.retract(id);
        self.send_withdrawn(cx);
    }

    /// The same with the next [`send_withdrawn`](Self::send_withdrawn).
    pub(super) fn retract(&mut self, id: u8) {
        let Some(mp) = self.mp_mut() else { return };
        mp.announcements.retain(|one| one.id != id);
        mp.initial_withdrawn |= id == 0;
        if !mp.withdrawn.contains(&id) {
            mp.withdrawn.push(id);
        }
    }

    /// Sends REMOVE_ADDR for what was withdrawn, if there is a subflow to send it on.
    pub(super) fn send_withdrawn(&mut self, cx: &mut Cx<'_>) {
        let Some(mp) = self.mp_mut() else { return };
        if mp.withdrawn.is_empty() {
            return;
        }
        let ids = mp.withdrawn.iter().copied().take(8).collect();
        if self.signal_somewhere(MptcpOption::RemoveAddr(RemoveAddr { ids })) {
            cx.counters.rm_addr_tx += 1;
            if let Some(mp) = self.mp_mut() {
                let told = mp.withdrawn.len().min(8);
                mp.withdrawn.drain(..told);
            }
        } else {
            cx.counters.rm_addr_tx_drop += 1;
        }
    }

    /// The peer withdraws addresses. They are used no more for new subflows; those that exist are asked.
    pub(super) fn on_remove_addr(&mut self, cx: &mut Cx<'_>, ids: &[u8]) {
        for &id in ids {
            cx.counters.rm_addr += 1;
            let Some(mp) = self.mp_mut() else { return };
            let token = mp.local.token;
            let before = mp.remotes.len();
            mp.remotes.retain(|one| one.id != id);
            let gone = before - mp.remotes.len();
            if id != 0 {
                mp.add_addr_accepted = mp.add_addr_accepted.saturating_sub(gone as u8);
            }
            let using = |subflow: &&crate::tcp::Subflow| subflow.remote_id == id;
            let using: SmallVec<[SubflowId; 4]> =
                self.subflows.iter().filter(using).map(|subflow| subflow.id).collect();
            cx.counters.rm_addr_drop += u64::from(gone == 0 && using.is_empty());
            cx.reports.tell(token, || Notice::Removed(id));
            for id in using {
                self.doubt(cx, id);
            }
            self.manage_paths(cx, &PmEvent::RemoveAddr(id));
        }
    }

    /// Asks whether a subflow is still there. Meanwhile the others have its work.
    fn doubt(&mut self, cx: &Cx<'_>, id: SubflowId) {
        let Some(at) = self.index_of(id) else { return };
        let others = self.subflows.iter().any(|subflow| subflow.id != id && subflow.usable());
        let subflow = &mut self.subflows[at];
        let doubt = Doubt {
            subflow: id,
            // What was under way when the peer said so proves nothing.
            answer_from: cx.now + subflow.snd.min_rtt() * 7 / 8,
            due: cx.now + patience(subflow.snd.rto()),
            asked: 1,
        };
        let Some(base) = self.mp().map(|mp| mp.dsn(0)) else { return };
        let subflow = &mut self.subflows[at];
        subflow.ping = true;
        if others {
            subflow.stale = true;
            let stuck: SmallVec<[core::ops::Range<u64>; 8]> = subflow.outstanding(base).collect();
            for range in stuck {
                self.tx.reinject(range);
            }
        }
        if let Some(mp) = self.mp_mut()
            && !mp.doubts.iter().any(|known| known.subflow == id)
        {
            mp.doubts.push(doubt);
        }
    }

    /// When a withdrawn address is next to be asked, or believed to be gone.
    pub(super) fn doubt_deadline(&self) -> Option<Instant> {
        self.mp()?.doubts.iter().map(|doubt| doubt.due).min()
    }

    /// Ends what gave no answer.
    pub(super) fn on_doubt_timer(&mut self, cx: &mut Cx<'_>) {
        let Some(mp) = self.mp_mut() else { return };
        let due: SmallVec<[Doubt; 4]> = mp.doubts.iter().copied().filter(|doubt| doubt.due <= cx.now).collect();
        mp.doubts.retain(|doubt| doubt.due > cx.now);
        for mut doubt in due {
            let Some(at) = self.index_of(doubt.subflow) else { continue };
            let subflow = &mut self.subflows[at];
            if subflow.last_rx >= doubt.answer_from {
                subflow.stale = false;
                // The peer may have closed its side, and be gone for what we still send.
                subflow.wants_fin |= subflow.rcv.fin_received();
            } else if doubt.asked < QUESTIONS {
                doubt.asked += 1;
                doubt.due = cx.now + patience(subflow.snd.rto()) * 2;
                subflow.ping = true;
                if let Some(mp) = self.mp_mut() {
                    mp.doubts.push(doubt);
                }
            } else {
                cx.counters.rm_subflow += 1;
                self.reset_subflow(cx, at, ResetReason::Unspecified);
            }
        }
    }
}

/// How long an answer may take.
fn patience(rto: Duration) -> Duration {
    rto.clamp(Duration::from_millis(200), Duration::from_secs(2))
}
