//! The neighbours that the queues of an interface know.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use anabranch_frame::{Instant, Transmit};

use super::Mac;

/// How long an answer is believed (RFC 4861 §10).
const REACHABLE_FOR: Duration = Duration::from_secs(30);
/// How long a neighbour that has not been heard of lately is used before it is asked (the same).
const DELAY: Duration = Duration::from_secs(5);
/// Time between two questions, and how many are asked (the same).
const RETRANS: Duration = Duration::from_secs(1);
const QUESTIONS: u8 = 3;
/// A neighbour that has just said where it is does not move.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// Most neighbours that are known.
pub(super) const NEIGHBOURS_MAX: usize = 1_024;
/// Most packets that wait for one neighbour to be found, and for all.
const PARKED_MAX: usize = 16;
const PARKED_MAX_ALL: usize = 256;

#[derive(Debug)]
enum State {
    /// Nobody has answered so far; `asked` is how often it was asked, `last` when.
    Incomplete { asked: u8, last: Instant },
    /// It has answered.
    Reachable { until: Instant },
    /// It is likely to be where it was.
    Stale,
    /// The same, and it is in use.
    Delay { until: Instant },
    /// The same, and it was asked.
    Probe { asked: u8, last: Instant },
}

#[derive(Debug)]
struct Neighbour {
    mac: Option<Mac>,
    state: State,
    /// When somebody last wanted to know.
    used: Instant,
    /// When it said where it is.
    moved: Instant,
    parked: VecDeque<Transmit>,
}

impl Neighbour {
    fn was_asked(&self) -> bool {
        matches!(self.state, State::Incomplete { .. } | State::Probe { .. })
    }
}

/// Whom to ask for a neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ask {
    Everybody,
    Itself(Mac),
}

/// What the table knows of a neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Known {
    /// Where it is, and until when one need not ask the table again.
    pub(super) at: Option<(Mac, Instant)>,
    /// The caller is to ask.
    pub(super) ask: Option<Ask>,
}

/// All neighbours of an interface.
#[derive(Debug, Default)]
pub(super) struct Table {
    neighbours: HashMap<IpAddr, Neighbour>,
    /// Packets that wait for any of them.
    parked: usize,
    /// Changes when what was known of a neighbour no longer holds.
    generation: u64,
    /// Packets that were dropped because nobody answered, or too many waited.
    unresolved: u64,
}

impl Table {
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Takes the number of packets that were dropped here since the last call.
    pub(super) fn take_unresolved(&mut self) -> u64 {
        std::mem::take(&mut self.unresolved)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.neighbours.len()
    }

    /// Somebody has a packet for `addr`.
    pub(super) fn want(&mut self, addr: IpAddr, now: Instant) -> Known {
        if !self.neighbours.contains_key(&addr) {
            self.make_room(|_| true);
            self.neighbours.insert(addr, incomplete(now));
        }
        let Some(neighbour) = self.neighbours.get_mut(&addr) else { return Known { at: None, ask: None } };
        neighbour.used = now;
        loop {
            let Some(mac) = neighbour.mac else {
                let State::Incomplete { asked, last } = &mut neighbour.state else {
                    neighbour.state = State::Incomplete { asked: 0, last: now };
                    continue;
                };
                let due = *asked == 0 || now >= *last + RETRANS;
                if due {
                    (*asked, *last) = (asked.saturating_add(1), now);
                }
                if *asked > QUESTIONS {
                    // Nobody has it. Who wants it again and again asks once a second; nothing waits any more.
                    self.parked -= neighbour.parked.len();
                    self.unresolved += neighbour.parked.len() as u64;
                    neighbour.parked.clear();
                }
                return Known { at: None, ask: due.then_some(Ask::Everybody) };
            };
            match &mut neighbour.state {
                State::Reachable { until } | State::Delay { until } if now < *until => {
                    return Known { at: Some((mac, *until)), ask: None };
                }
                State::Reachable { .. } | State::Stale => neighbour.state = State::Delay { until: now + DELAY },
                State::Delay { .. } => neighbour.state = State::Probe { asked: 0, last: now },
                State::Probe { asked, last } if *asked == 0 || now >= *last + RETRANS => {
                    if *asked < QUESTIONS {
                        (*asked, *last) = (*asked + 1, now);
                        return Known { at: Some((mac, now + RETRANS)), ask: Some(Ask::Itself(mac)) };
                    }
                    neighbour.mac = None;
                    self.generation += 1;
                }
                State::Probe { last, .. } => return Known { at: Some((mac, *last + RETRANS)), ask: None },
                State::Incomplete { .. } => neighbour.state = State::Stale,
            }
        }
    }

    /// Keeps a packet until `addr` is found.
    pub(super) fn park(&mut self, addr: IpAddr, packet: Transmit) {
        let waiting = self.neighbours.get_mut(&addr).filter(|neighbour| match neighbour.state {
            State::Incomplete { asked, .. } => asked <= QUESTIONS,
            _ => false,
        });
        let Some(neighbour) = waiting.filter(|_| self.parked < PARKED_MAX_ALL) else {
            self.unresolved += 1;
            return;
        };
        if neighbour.parked.len() >= PARKED_MAX {
            // The newest is worth the most.
            neighbour.parked.pop_front();
            self.parked -= 1;
            self.unresolved += 1;
        }
        neighbour.parked.push_back(packet);
        self.parked += 1;
    }

    /// `addr` is said to be at `mac`, or to be still there. Returns the packets that waited for it.
    pub(super) fn heard(
        &mut self,
        addr: IpAddr,
        mac: Option<Mac>,
        solicited: bool,
        overrides: bool,
        now: Instant,
    ) -> VecDeque<Transmit> {
        let Some(neighbour) = self.neighbours.get_mut(&addr) else { return VecDeque::new() };
        // An answer that nobody asked for says where it is, but not that it hears us.
        let reachable = solicited && neighbour.was_asked();
        let new_state = if reachable { State::Reachable { until: now + REACHABLE_FOR } } else { State::Stale };
        match (neighbour.mac, mac) {
            (None, None) => return VecDeque::new(),
            (None, Some(_)) => {
                (neighbour.mac, neighbour.state, neighbour.moved) = (mac, new_state, now);
            }
            (Some(old), Some(new)) if old != new => {
                let settled = now >= neighbour.moved + SETTLED_AFTER;
                if !overrides || !settled {
                    // Two who claim one address: ask again soon (RFC 4861 §7.2.5).
                    if matches!(neighbour.state, State::Reachable { .. }) {
                        neighbour.state = State::Stale;
                    }
                    return VecDeque::new();
                }
                (neighbour.mac, neighbour.state, neighbour.moved) = (mac, new_state, now);
                self.generation += 1;
            }
            (Some(_), _) if reachable => neighbour.state = new_state,
            (Some(_), _) => {}
        }
        self.parked -= neighbour.parked.len();
        std::mem::take(&mut neighbour.parked)
    }

    /// `addr` has asked for us: it is at `mac`, and will want an answer.
    pub(super) fn learn(&mut self, addr: IpAddr, mac: Mac, now: Instant) -> VecDeque<Transmit> {
        if !self.neighbours.contains_key(&addr) {
            // What is in use is not given up for somebody who just asks.
            if !self.make_room(|neighbour| matches!(neighbour.state, State::Stale)) {
                return VecDeque::new();
            }
            self.neighbours.insert(addr, incomplete(now));
        }
        self.heard(addr, Some(mac), false, true, now)
    }

    /// Forgets one neighbour if there are too many, of those that may be forgotten; whether there is room then.
    fn make_room(&mut self, may_go: impl Fn(&Neighbour) -> bool) -> bool {
        if self.neighbours.len() < NEIGHBOURS_MAX {
            return true;
        }
        let candidates = self.neighbours.iter().filter(|(_, neighbour)| may_go(neighbour));
        let Some(oldest) = candidates.min_by_key(|(_, neighbour)| neighbour.used).map(|(addr, _)| *addr) else {
            return false;
        };
        if let Some(gone) = self.neighbours.remove(&oldest) {
            self.parked -= gone.parked.len();
            self.unresolved += gone.parked.len() as u64;
            self.generation += 1;
        }
        true
    }

    /// Forgets everybody: the wire may be another one.
    pub(super) fn clear(&mut self) {
        self.unresolved += self.parked as u64;
        self.parked = 0;
        self.neighbours.clear();
        self.generation += 1;
    }
}

fn incomplete(now: Instant) -> Neighbour {
    let state = State::Incomplete { asked: 0, last: now };
    Neighbour { mac: None, state, used: now, moved: now, parked: VecDeque::new() }
}
