//! A hierarchical timing wheel (Varghese and Lauck, SOSP 1987, scheme 7): one timer a key, O(1) to
//! arm, re-arm and cancel. Pushing a deadline out, what every acknowledgement does, writes one number.

use alloc::vec::Vec;
use core::fmt;

use anabranch_frame::Instant;

/// A tick is 2^16 ns, about 66 µs.
const TICK_BITS: u32 = 16;
/// Slots a level, as a power of two: as many as a bitmap has bits.
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// Eight levels of six bits are the 48 bits of a tick number: there is nothing beyond the wheel.
const LEVELS: usize = 8;
const TICK_MAX: u64 = (1 << (64 - TICK_BITS)) - 1;

/// No key; also the head of an empty slot.
const NONE: u32 = u32::MAX;
/// The slot of a timer that is not armed.
const UNARMED: u64 = (1 << TICK_BITS) - 1;
/// Timers of a far slot that [`Wheel::next`] looks at to be exact.
const LOOK_AT: usize = 4;

/// Neighbours in the slot's circular list, tick of the deadline and slot, in 16 bytes.
#[derive(Clone, Copy)]
struct Timer {
    prev: u32,
    next: u32,
    /// Tick in the low 48 bits, slot (level × 64 + slot of the level) above.
    place: u64,
}

impl Timer {
    const IDLE: Self = Self { prev: NONE, next: NONE, place: UNARMED << (64 - TICK_BITS) };

    fn tick(self) -> u64 {
        self.place & TICK_MAX
    }

    /// The same timer with another deadline.
    fn due(self, tick: u64) -> Self {
        Self { place: self.place & !TICK_MAX | tick, ..self }
    }

    fn slot(self) -> Option<usize> {
        let slot = self.place >> (64 - TICK_BITS);
        (slot != UNARMED).then_some(slot as usize)
    }
}

/// The timers of a slab: each key, a small index, has at most one.
///
/// A timer fires at the first tick at or after its deadline, so at most one tick late and never
/// early. Timers of one tick fire in an order that depends on nothing but the calls made before.
///
/// A timer whose deadline is pushed out stays in its slot, and moves on when the time of that slot comes. So the
/// slot of a timer begins at its deadline or earlier, and most timers, which never fire, hardly ever move.
pub(crate) struct Wheel {
    /// Every tick before this one has been expired; the slots of this one may hold timers.
    now: u64,
    /// Which slots of a level hold timers.
    occupied: [u64; LEVELS],
    /// First timer of each slot; its `prev` is the last.
    heads: [u32; SLOTS * LEVELS],
    timers: Vec<Timer>,
    /// How often a timer was put into a slot.
    #[cfg(test)]
    links: u64,
}

impl Wheel {
    /// A wheel at the origin of time, without timers.
    pub(crate) fn new() -> Self {
        Self {
            now: 0,
            occupied: [0; LEVELS],
            heads: [NONE; SLOTS * LEVELS],
            timers: Vec::new(),
            #[cfg(test)]
            links: 0,
        }
    }

    /// Sets the timer of `key` to `at`, whatever it was set to. A deadline in the past fires at the
    /// next [`expire`](Self::expire), one in the last tick of all time never.
    pub(crate) fn arm(&mut self, key: u32, at: Instant) {
        let tick = at.as_nanos().div_ceil(1 << TICK_BITS);
        if tick > TICK_MAX {
            return self.cancel(key);
        }
        let index = key as usize;
        if index >= self.timers.len() {
            self.timers.resize(index + 1, Timer::IDLE);
        }
        let tick = tick.max(self.now);
        let timer = self.timers[index];
        if let Some(slot) = timer.slot() {
            if self.start_of(slot) <= tick {
                self.timers[index] = timer.due(tick);
                return;
            }
            self.unlink(key, slot);
        }
        self.link(key, tick);
    }

    /// Disarms the timer of `key`, if it is armed.
    pub(crate) fn cancel(&mut self, key: u32) {
        if let Some(slot) = self.timers.get(key as usize).and_then(|timer| timer.slot()) {
            self.unlink(key, slot);
        }
    }

    /// Whether the timer of `key` is armed.
    pub(crate) fn is_armed(&self, key: u32) -> bool {
        self.timers.get(key as usize).is_some_and(|timer| timer.slot().is_some())
    }

    /// When to call [`expire`](Self::expire) next. For a far timer among many, and for one that was pushed out, it
    /// may be too early; expiring then brings the timer nearer.
    pub(crate) fn next(&self) -> Option<Instant> {
        let (slot, start) = self.first_slot()?;
        let tick = if slot < SLOTS { start } else { self.earliest_of(slot).unwrap_or(start) };
        // Those that were pushed out may be later than what is in the slots after this one.
        let tick = tick.min(start + (1 << (SLOT_BITS * (slot / SLOTS) as u32)));
        Some(Instant::from_nanos(tick << TICK_BITS))
    }

    /// Disarms every timer whose deadline has come and appends their keys to `fired`, by tick.
    pub(crate) fn expire(&mut self, now: Instant, fired: &mut Vec<u32>) {
        let target = now.as_nanos() >> TICK_BITS;
        while let Some((slot, start)) = self.first_slot()
            && start <= target
        {
            self.now = start;
            // A timer that leaves a far slot goes to a nearer one, so this ends.
            while self.heads[slot] != NONE {
                let key = self.heads[slot];
                self.unlink(key, slot);
                let tick = self.timers[key as usize].tick();
                if slot < SLOTS && tick <= start {
                    fired.push(key);
                } else {
                    self.link(key, tick);
                }
            }
        }
        self.now = self.now.max(target);
    }

    /// The occupied slot whose time comes first, and the tick at which it does.
    ///
    /// A timer is on the level of the highest six bits in which its tick differed from `now` when it was put
    /// there, so everything on a level comes before everything on the levels above, and no slot before the
    /// current one is ever occupied.
    fn first_slot(&self) -> Option<(usize, u64)> {
        let level = self.occupied.iter().position(|&bits| bits != 0)?;
        let slot = level * SLOTS + self.occupied[level].trailing_zeros() as usize;
        Some((slot, self.start_of(slot)))
    }

    /// The tick at which the time of an occupied slot comes.
    fn start_of(&self, slot: usize) -> u64 {
        let shift = SLOT_BITS * (slot / SLOTS) as u32;
        let above = self.now >> shift >> SLOT_BITS;
        (above << SLOT_BITS | (slot % SLOTS) as u64) << shift
    }

    /// The earliest tick in a slot, unless that would take long to find.
    fn earliest_of(&self, slot: usize) -> Option<u64> {
        let head = self.heads[slot];
        let mut key = head;
        let mut earliest = TICK_MAX;
        for _ in 0..LOOK_AT {
            let timer = self.timers[key as usize];
            earliest = earliest.min(timer.tick());
            key = timer.next;
            if key == head {
                return Some(earliest);
            }
        }
        None
    }

    fn link(&mut self, key: u32, tick: u64) {
        #[cfg(test)]
        {
            self.links += 1;
        }
        let differs = (tick ^ self.now) | 1;
        let level = (differs.ilog2() / SLOT_BITS) as usize;
        let bit = (tick >> (SLOT_BITS * level as u32)) as usize % SLOTS;
        let slot = level * SLOTS + bit;
        let head = self.heads[slot];
        let (prev, next) = if head == NONE { (key, key) } else { (self.timers[head as usize].prev, head) };
        self.timers[key as usize] = Timer { prev, next, place: (slot as u64) << (64 - TICK_BITS) | tick };
        if head == NONE {
            self.heads[slot] = key;
            self.occupied[level] |= 1 << bit;
        } else {
            self.timers[prev as usize].next = key;
            self.timers[head as usize].prev = key;
        }
    }

    /// Takes `key` out of its slot. Its tick stays readable.
    fn unlink(&mut self, key: u32, slot: usize) {
        let Timer { prev, next, .. } = self.timers[key as usize];
        if next == key {
            self.heads[slot] = NONE;
            self.occupied[slot / SLOTS] &= !(1 << (slot % SLOTS));
        } else {
            self.timers[prev as usize].next = next;
            self.timers[next as usize].prev = prev;
            if self.heads[slot] == key {
                self.heads[slot] = next;
            }
        }
        self.timers[key as usize].place |= UNARMED << (64 - TICK_BITS);
    }
}

impl fmt::Debug for Wheel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wheel").field("keys", &self.timers.len()).field("next", &self.next()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::vec;

    const TICK: u64 = 1 << TICK_BITS;

    /// What the wheel must do, in a map from key to deadline in nanoseconds.
    #[derive(Default)]
    struct Model {
        deadlines: BTreeMap<u32, u64>,
        /// Ticks up to here have been expired.
        now: u64,
    }

    impl Model {
        fn due_tick(&self, deadline: u64) -> u64 {
            deadline.div_ceil(TICK).max(self.now)
        }

        fn earliest(&self) -> Option<u64> {
            self.deadlines.values().map(|&at| self.due_tick(at)).min()
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Arm(u32, u64),
        Cancel(u32),
        Advance(u64),
        AdvanceToNext,
    }

    /// Spans of every order of magnitude, up to two years.
    fn any_span() -> impl Strategy<Value = u64> {
        (0u32..56, any::<u64>()).prop_map(|(bits, noise)| noise >> (63 - bits))
    }

    fn any_op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => (0u32..40, any_span()).prop_map(|(key, span)| Op::Arm(key, span)),
            2 => (0u32..45).prop_map(Op::Cancel),
            2 => any_span().prop_map(Op::Advance),
            3 => Just(Op::AdvanceToNext),
        ]
    }

    /// Expires at `now` and checks what fires against the model.
    fn expire_both(wheel: &mut Wheel, model: &mut Model, now: u64) -> Result<(), TestCaseError> {
        let mut fired = vec![];
        wheel.expire(Instant::from_nanos(now), &mut fired);
        let tick = now / TICK;
        let expected: Vec<u32> =
            model.deadlines.iter().filter(|&(_, &at)| model.due_tick(at) <= tick).map(|(&key, _)| key).collect();
        let order: Vec<u64> = fired.iter().map(|key| model.due_tick(model.deadlines[key])).collect();
        prop_assert!(order.is_sorted(), "fired out of order: {:?}", order);
        for key in &fired {
            prop_assert!(model.deadlines[key] <= now, "key {} fired early", key);
        }
        fired.sort_unstable();
        prop_assert_eq!(&fired, &expected);
        model.deadlines.retain(|key, _| !fired.contains(key));
        model.now = model.now.max(tick);
        Ok(())
    }

    proptest! {
        #[test]
        fn behaves_as_a_map(start in any_span(), ops in prop::collection::vec(any_op(), 1..120)) {
            let (mut wheel, mut model) = (Wheel::new(), Model::default());
            let mut now = start;
            expire_both(&mut wheel, &mut model, now)?;
            for op in ops {
                match op {
                    // Half of the spans reach back from a moment ahead, some of them into the past.
                    Op::Arm(key, span) => {
                        let at = if span % 2 == 0 { now + span } else { (now + 5 * TICK).saturating_sub(span) };
                        wheel.arm(key, Instant::from_nanos(at));
                        model.deadlines.insert(key, at);
                    }
                    Op::Cancel(key) => {
                        wheel.cancel(key);
                        model.deadlines.remove(&key);
                    }
                    Op::Advance(span) => {
                        now += span;
                        expire_both(&mut wheel, &mut model, now)?;
                    }
                    // Following `next` reaches the earliest timer in a few steps, and each that was pushed out
                    // costs a few more.
                    Op::AdvanceToNext => {
                        let count = model.deadlines.len();
                        for step in 0.. {
                            if model.deadlines.len() < count || count == 0 {
                                break;
                            }
                            prop_assert!(step < LEVELS * count, "no progress");
                            now = now.max(wheel.next().unwrap().as_nanos());
                            expire_both(&mut wheel, &mut model, now)?;
                        }
                    }
                }
                let next = wheel.next().map(|at| at.as_nanos() / TICK);
                prop_assert_eq!(next.is_some(), !model.deadlines.is_empty());
                prop_assert!(next <= model.earliest(), "{:?} is after {:?}", next, model.earliest());
            }
        }
    }

    #[test]
    fn fires_within_a_tick_and_never_early() {
        let mut wheel = Wheel::new();
        let deadline = Instant::from_millis(200) + Duration::from_nanos(1);
        wheel.arm(7, deadline);
        let mut fired = vec![];
        wheel.expire(deadline - Duration::from_nanos(1), &mut fired);
        assert!(fired.is_empty());
        let next = wheel.next().unwrap();
        assert!(next >= deadline && next < deadline + Duration::from_nanos(TICK));
        wheel.expire(next, &mut fired);
        assert_eq!(fired, [7]);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn one_tick_fires_in_the_order_of_arming() {
        let mut wheel = Wheel::new();
        let at = Instant::from_millis(40);
        for key in [3, 1, 4, 5, 9, 2, 6] {
            wheel.arm(key, at);
        }
        wheel.cancel(1);
        wheel.arm(1, at);
        let mut fired = vec![];
        wheel.expire(at + Duration::from_millis(1), &mut fired);
        assert_eq!(fired, [3, 4, 5, 9, 2, 6, 1]);
    }

    #[test]
    fn a_lone_timer_is_met_exactly() {
        let mut wheel = Wheel::new();
        for at in [Instant::from_millis(40), Instant::from_millis(200), Instant::from_millis(7_200_000)] {
            wheel.arm(0, at);
            let next = wheel.next().unwrap();
            assert!(next >= at && next < at + Duration::from_nanos(TICK), "{next:?} for {at:?}");
            wheel.cancel(0);
        }
    }

    /// What a million connections do to the wheel: each pushes its timeout out with every acknowledgement, and some
    /// come to rest. Counted is how often a timer changes its slot.
    #[test]
    fn a_million_timers_hardly_ever_move() {
        const TIMERS: u32 = 1_000_000;
        const ROUNDS: u64 = 20;
        let rto = Duration::from_millis(200);
        let mut wheel = Wheel::new();
        let mut fired = vec![];
        let start = |key: u32| Instant::from_nanos(u64::from(key) * 100);

        for round in 0..ROUNDS {
            for key in 0..TIMERS {
                wheel.arm(key, start(key) + Duration::from_millis(10) * round as u32 + rto);
            }
            assert_eq!(wheel.links, u64::from(TIMERS), "round {round}: pushing out moved a timer");
        }
        assert_eq!(size_of::<Timer>(), 16);

        // Time passes: each timer fires once, when it should, after a few moves.
        let mut now = Instant::ZERO;
        let mut last = vec![Instant::ZERO; TIMERS as usize];
        while let Some(next) = wheel.next() {
            now = now.max(next);
            let before = fired.len();
            wheel.expire(now, &mut fired);
            fired[before..].iter().for_each(|&key| last[key as usize] = now);
        }
        assert_eq!(fired.len(), TIMERS as usize);
        for key in 0..TIMERS {
            let due = start(key) + Duration::from_millis(10) * (ROUNDS as u32 - 1) + rto;
            let late = last[key as usize].saturating_since(due);
            assert!(last[key as usize] >= due && late <= Duration::from_nanos(2 * TICK), "{key}: {late:?} late");
        }
        assert!(wheel.links <= 6 * u64::from(TIMERS), "{} moves", wheel.links);
    }

    #[test]
    fn a_deadline_in_the_past_fires_at_once() {
        let mut wheel = Wheel::new();
        let mut fired = vec![];
        let now = Instant::from_millis(5000);
        wheel.expire(now, &mut fired);
        wheel.arm(0, Instant::from_millis(1));
        assert!(wheel.next().unwrap() <= now);
        wheel.expire(now, &mut fired);
        assert_eq!(fired, [0]);
    }

    #[test]
    fn the_end_of_time_never_comes() {
        let mut wheel = Wheel::new();
        wheel.arm(0, Instant::from_millis(1));
        wheel.arm(0, Instant::MAX);
        assert_eq!(wheel.next(), None);
        let last = Instant::from_nanos(TICK_MAX << TICK_BITS);
        wheel.arm(1, last);
        let mut fired = vec![];
        wheel.expire(last - Duration::from_nanos(1), &mut fired);
        assert!(fired.is_empty());
        wheel.expire(Instant::MAX, &mut fired);
        assert_eq!(fired, [1]);
    }
}
