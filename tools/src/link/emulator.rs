//! Two links between two ports: the emulator without its clock and without its sockets.

use anabranch_sim::{Durations, Link, LinkConfig, LinkStats, Random};
use anyhow::Context as _;

use super::Way;
use super::port::{Frame, Instant, Port};

/// Frames that are sent by one call.
const BATCH: usize = 64;

/// Both directions.
#[derive(Debug)]
pub(super) struct Emulator<P> {
    /// A and B.
    ports: [P; 2],
    directions: [Direction; 2],
    batch: Vec<Frame>,
}

#[derive(Debug)]
struct Direction {
    link: Link,
    /// How late frames were sent.
    late: Durations,
    /// Arrival of the latest frame: the model's time does not go back.
    latest: Instant,
}

/// What a direction did.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) link: LinkStats,
    pub(super) queue_delay: Durations,
    pub(super) late: Durations,
    /// Frames that came by the port that leads in, but were lost before they were read.
    pub(super) missed: u64,
    /// Frames that the port that leads out did not take.
    pub(super) refused: u64,
}

impl<P: Port> Emulator<P> {
    /// Starts at `start` with a model each for [`Way::AToB`] and [`Way::BToA`].
    pub(super) fn new(ports: [P; 2], configs: [LinkConfig; 2], seed: u64, start: Instant) -> Self {
        let mut stream = 0;
        let directions = configs.map(|config| {
            stream += 1;
            let link = Link::new(config, Random::new(seed, stream), start);
            Direction { link, late: Durations::default(), latest: start }
        });
        Self { ports, directions, batch: Vec::with_capacity(BATCH) }
    }

    /// Takes in what has come by `now` and sends on what is due then.
    ///
    /// # Errors
    /// A port is gone.
    pub(super) fn step(&mut self, now: Instant, clock: impl Fn() -> Instant) -> anyhow::Result<()> {
        for way in Way::BOTH {
            let Direction { link, latest, .. } = &mut self.directions[way.index()];
            let horizon = self.ports[way.source()].receive(now, &mut |at, frame| {
                *latest = at.max(*latest);
                link.enqueue(*latest, frame);
            });
            let horizon = horizon.with_context(|| format!("receiving for {way}"))?;
            // Frames that were not taken in yet came later than the horizon, and may matter from then on.
            self.send_due(way, horizon.min(now), &clock).with_context(|| format!("sending {way}"))?;
        }
        Ok(())
    }

    fn send_due(&mut self, way: Way, now: Instant, clock: &impl Fn() -> Instant) -> anyhow::Result<()> {
        let Direction { link, late, .. } = &mut self.directions[way.index()];
        let port = &mut self.ports[way.destination()];
        loop {
            let mut due = [Instant::ZERO; BATCH];
            self.batch.clear();
            while self.batch.len() < BATCH
                && let Some((at, frame)) = link.poll_arrival(now)
            {
                due[self.batch.len()] = at;
                self.batch.push(Frame::new(frame));
            }
            if self.batch.is_empty() {
                return Ok(());
            }
            port.send(&self.batch)?;
            let sent = clock();
            for &at in &due[..self.batch.len()] {
                late.record(sent.saturating_since(at));
            }
        }
    }

    /// When the next frame is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.directions.iter().filter_map(|direction| direction.link.next()).min()
    }

    /// The ports A and B.
    pub(super) fn ports(&self) -> &[P; 2] {
        &self.ports
    }

    /// What the links did until now.
    pub(super) fn stats(&mut self, now: Instant) -> [LinkStats; 2] {
        self.directions.each_mut().map(|direction| {
            direction.link.advance(now);
            *direction.link.stats()
        })
    }

    /// All that is known of each direction.
    pub(super) fn report(&self) -> [Report; 2] {
        Way::BOTH.map(|way| {
            let direction = &self.directions[way.index()];
            Report {
                link: *direction.link.stats(),
                queue_delay: direction.link.queue_delay().clone(),
                late: direction.late.clone(),
                missed: self.ports[way.source()].missed(),
                refused: self.ports[way.destination()].refused(),
            }
        })
    }
}
