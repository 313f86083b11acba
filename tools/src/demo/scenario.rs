//! What is simulated: a laptop with two ways to a server, from which it fetches a file.

use std::time::Duration;

use anabranch::SocketOptions;
use anabranch_sim::{AppId, Flow, LinkConfig, Pacer, Pair, Transfer};

/// A simulated way to the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Link {
    pub(super) name: &'static str,
    pub(super) mbits: u64,
    /// One way.
    pub(super) delay_ms: u64,
}

pub(super) const LINKS: [Link; 2] =
    [Link { name: "Wi-Fi", mbits: 50, delay_ms: 10 }, Link { name: "LTE", mbits: 20, delay_ms: 40 }];

/// The file's size.
pub(super) const BYTES: u64 = 64_000_000;
/// When Wi-Fi goes silent, and when it is back.
pub(super) const CUT: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(7));
/// A transfer that is not over by then has failed.
pub(super) const LIMIT: Duration = Duration::from_millis(18_500);
/// One point of the chart.
pub(super) const SAMPLE: Duration = Duration::from_millis(100);

/// How long a comparison runs, in virtual time.
const COMPARISON: Duration = Duration::from_secs(6);
/// What waits before a link, in time of its rate.
const QUEUE: Duration = Duration::from_millis(100);

/// Which links a host has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Using {
    Only(usize),
    Both,
}

/// A run of the simulation.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) seed: u64,
    pub(super) options: SocketOptions,
}

/// What one more [`SAMPLE`] brought, in bits per second of IP packets that came out of each link.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Sample {
    /// Its end.
    pub(super) at: Duration,
    pub(super) rates: [f64; 2],
    /// Bytes of the file that the application has.
    pub(super) received: u64,
}

impl Sample {
    pub(super) fn sum(&self) -> f64 {
        self.rates.iter().sum()
    }
}

/// How the transfer ended.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// Time from the first to the last byte at the application; `None` if it did not end in time.
    pub(super) took: Option<Duration>,
    pub(super) received: u64,
    /// Bits per second that the application saw, over the whole transfer.
    pub(super) rate: f64,
    pub(super) longest_gap: Duration,
    /// SHA-256 of what the server sent and of what the application received.
    pub(super) hashes: [[u8; 32]; 2],
    pub(super) samples: Vec<Sample>,
}

impl Outcome {
    /// The whole file arrived as it was sent.
    pub(super) fn is_intact(&self) -> bool {
        self.took.is_some() && self.received == BYTES && self.hashes[0] == self.hashes[1]
    }

    /// Mean rate of the samples that end in `from..=to`, in bits per second.
    pub(super) fn rate_between(&self, from: Duration, to: Duration) -> f64 {
        let rates: Vec<_> =
            self.samples.iter().filter(|sample| sample.at > from && sample.at <= to).map(Sample::sum).collect();
        if rates.is_empty() { 0.0 } else { rates.iter().sum::<f64>() / rates.len() as f64 }
    }
}

impl Scenario {
    /// What the application gets in the first seconds of a transfer that nothing disturbs, in bits per
    /// second. In virtual time, so it takes only a moment.
    pub(super) fn compare(&self, using: Using) -> f64 {
        let mut pair = match using {
            Using::Only(link) => Pair::seeded(self.seed).path(config(link)),
            Using::Both => Pair::seeded(self.seed).path(config(0)).path(config(1)),
        }
        .build();
        let (_, client) = self.spawn(&mut pair, u64::MAX);
        pair.run_to(COMPARISON);
        pair.app(client).flows().first().map_or(0.0, |flow| bits_per_second(flow.received.bytes, COMPARISON))
    }

    /// The transfer, with Wi-Fi cut in the middle, at the speed of `pacer`. `on_sample` sees it happen.
    pub(super) fn run(&self, pacer: &mut impl Pacer, mut on_sample: impl FnMut(&Sample)) -> Outcome {
        let wifi = config(0).outage(CUT.0, CUT.1);
        let mut pair = Pair::seeded(self.seed).path(wifi).path(config(1)).build();
        let (server, client) = self.spawn(&mut pair, BYTES);
        let downs = [pair.down_link(0), pair.down_link(1)];
        let mut delivered = [0; 2];
        let mut samples = Vec::new();
        pair.run_paced(pacer, SAMPLE, LIMIT, |world| {
            let now = downs.map(|down| world.link(down).stats().delivered_bytes);
            let rates = [0, 1].map(|link| bits_per_second(now[link] - delivered[link], SAMPLE));
            delivered = now;
            let flow = world.app(client).flows().first();
            let sample = Sample { at: world.elapsed(), rates, received: flow.map_or(0, |flow| flow.received.bytes) };
            on_sample(&sample);
            samples.push(sample);
            !(world.app(client).completed(1) && world.app(server).completed(1))
        });
        outcome(pair.app(client).flows().first(), pair.app(server).flows().first(), samples)
    }

    fn spawn(&self, pair: &mut Pair, bytes: u64) -> (AppId<Transfer>, AppId<Transfer>) {
        let at = Pair::server_addr(0);
        let server = Transfer::listen(at).options(self.options.clone()).sends(bytes).hashed();
        let client = Transfer::connect(at).options(self.options.clone()).hashed();
        (pair.spawn(Pair::SERVER, server), pair.spawn(Pair::CLIENT, client))
    }
}

fn config(link: usize) -> LinkConfig {
    LinkConfig::new(LINKS[link].mbits, LINKS[link].delay_ms).queue_time(QUEUE)
}

fn outcome(client: Option<&Flow>, server: Option<&Flow>, samples: Vec<Sample>) -> Outcome {
    let received = client.map(|flow| &flow.received);
    let ended = client.is_some_and(Flow::is_complete) && server.is_some_and(Flow::is_complete);
    let span = received.and_then(|received| Some(received.last_at? - received.first_at?));
    let sent_hash = server.and_then(Flow::sent_sha256).unwrap_or_default();
    Outcome {
        took: span.filter(|_| ended),
        received: received.map_or(0, |received| received.bytes),
        rate: received.map_or(0.0, anabranch_sim::Received::rate),
        longest_gap: received.map_or(Duration::ZERO, |received| received.longest_gap),
        hashes: [sent_hash, received.and_then(anabranch_sim::Received::sha256).unwrap_or_default()],
        samples,
    }
}

fn bits_per_second(bytes: u64, time: Duration) -> f64 {
    bytes as f64 * 8.0 / time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario() -> Scenario {
        Scenario { seed: anabranch_sim::seed_from_env(1), options: SocketOptions::default() }
    }

    #[test]
    fn the_transfer_survives_the_cut_and_the_application_hardly_notices() {
        // Given two links of which one goes silent for three seconds.
        let scenario = scenario();

        // When the file is fetched, in virtual time.
        let mut seen = 0;
        let outcome = scenario.run(&mut |_| {}, |_| seen += 1);

        // Then every byte arrives, in time, and never was there nothing to read for long.
        assert!(outcome.is_intact(), "{:?} {}", outcome.took, outcome.received);
        assert!(outcome.took.unwrap() < Duration::from_secs(14), "{:?}", outcome.took);
        assert!(outcome.longest_gap < Duration::from_secs(1), "{:?}", outcome.longest_gap);
        assert_eq!(seen, outcome.samples.len());
        // And during the cut LTE carried on alone, and before and after both carried.
        let during = outcome.samples.iter().filter(|sample| sample.at > CUT.0 + SAMPLE * 5 && sample.at <= CUT.1);
        assert!(during.clone().all(|sample| sample.rates[0] == 0.0));
        assert!(during.map(|sample| sample.rates[1]).sum::<f64>() > 0.0);
        let after = outcome.samples.iter().filter(|sample| sample.at > CUT.1);
        assert!(after.clone().any(|sample| sample.rates[0] > 10e6), "Wi-Fi came back");
        assert!(outcome.rate_between(Duration::from_secs(2), CUT.0) > 55e6);
    }

    #[test]
    fn both_links_together_are_faster_than_each_alone() {
        let scenario = scenario();
        let [wifi, lte, both] = [Using::Only(0), Using::Only(1), Using::Both].map(|using| scenario.compare(using));
        assert!(wifi > 35e6 && wifi < 50e6, "{wifi}");
        assert!(lte > 12e6 && lte < 20e6, "{lte}");
        assert!(both > wifi * 1.2 && both < 70e6, "{both}");
    }

    #[test]
    fn the_same_seed_runs_the_same_way() {
        let scenario = scenario();
        let runs = [0, 1].map(|_| scenario.run(&mut |_| {}, |_| {}));
        assert_eq!(runs[0].samples, runs[1].samples);
    }
}
