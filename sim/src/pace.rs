//! The same world on the wall clock.

use core::time::Duration;

use crate::World;

/// A clock that can be waited for. Whoever wants a world to run in real time brings one.
pub trait Pacer {
    /// Waits until `at` after the start, or not at all if that has passed.
    fn wait_until(&mut self, at: Duration);
}

impl<F: FnMut(Duration)> Pacer for F {
    fn wait_until(&mut self, at: Duration) {
        self(at);
    }
}

impl World {
    /// Runs the world at the speed of `pacer`, in slices of `tick`, until the world's clock shows
    /// `until` or `on_tick`, which is called after each slice, says `false`.
    ///
    /// What happens within a slice happens at its own virtual time: how late the wall clock was does
    /// not change the run, so it is the same as one by [`run_until`](Self::run_until).
    pub fn run_paced(
        &mut self,
        pacer: &mut impl Pacer,
        tick: Duration,
        until: Duration,
        mut on_tick: impl FnMut(&mut World) -> bool,
    ) {
        let tick = tick.max(Duration::from_micros(100));
        while self.elapsed() < until {
            let next = (self.elapsed() + tick).min(until);
            pacer.wait_until(next);
            self.run_to(next);
            if !on_tick(self) {
                return;
            }
        }
    }
}
