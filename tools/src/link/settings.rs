//! The settings of one direction: as options, in a list of `key=value`, and in a file.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anabranch_sim::{Aqm, Framing, LinkChange, LinkConfig, Loss, Opportunities, QueueLimit, Reorder};
use serde::de::value::MapDeserializer;
use serde::{Deserialize, Deserializer};

use super::values::{Held, Lost, Managed, Overhead, Percent, Policed, Queue, Rate, Spread, Time};
use crate::usage::Usage;

/// A queue measured in time or in the pipe holds at least two packets of 1500 bytes.
const QUEUE_LEAST: u64 = 3_000;

/// Memory that frames on the wire may take in each direction.
const WIRE_MEMORY: usize = 1 << 30;

const LOSS_HELP: &str = "Lost packets: 1% at random; ge:P:R[:1-H[:1-K]] in bursts (Gilbert and Elliott, as \
tc-netem's gemodel); every:100 for each hundredth";

const AQM_HELP: &str =
    "How the queue is managed: tail, red[:MIN:MAX[:PERCENT]], codel[:TARGET[:INTERVAL]] [default: tail]";

/// What a link is like. The same words do on the command line, in lists of KEY=VALUE and in a file.
#[derive(clap::Args, Deserialize, Clone, Copy, Debug, Default, PartialEq)]
#[command(next_help_heading = "Link options")]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Settings {
    /// Bits per second, such as 50mbit: a packet counts the bytes of its IP packet and --overhead. Or none.
    #[arg(long, value_name = "RATE")]
    #[serde(deserialize_with = "text")]
    pub(super) rate: Option<Rate>,
    /// One-way delay, such as 20ms.
    #[arg(long, value_name = "TIME")]
    #[serde(deserialize_with = "text")]
    pub(super) delay: Option<Time>,
    /// Spread of the delay, such as 5ms, 5ms:normal, 5ms:unordered: uniformly so much more or less, or with so much
    /// standard deviation. Packets stay in order unless told.
    #[arg(long, value_name = "TIME")]
    #[serde(deserialize_with = "text")]
    pub(super) jitter: Option<Spread>,
    /// Lost packets.
    #[arg(long, value_name = "LOSS", help = LOSS_HELP)]
    #[serde(deserialize_with = "text")]
    pub(super) loss: Option<Lost>,
    /// Packets that are held back, so that others overtake them: 1%:5ms, or 1%:0..20ms for a time in between.
    #[arg(long, value_name = "PERCENT:TIME")]
    #[serde(deserialize_with = "text")]
    pub(super) reorder: Option<Held>,
    /// Packets that arrive twice.
    #[arg(long, value_name = "PERCENT")]
    #[serde(deserialize_with = "text")]
    pub(super) duplicate: Option<Percent>,
    /// Packets of which one bit is turned over, behind the Ethernet header.
    #[arg(long, value_name = "PERCENT")]
    #[serde(deserialize_with = "text")]
    pub(super) corrupt: Option<Percent>,
    /// What waits at most for its turn: 100p, 64kB, 50ms at the rate, or 1bdp (rate times round-trip time)
    /// [default: 1000p].
    #[arg(long, value_name = "SIZE")]
    #[serde(deserialize_with = "text")]
    pub(super) queue: Option<Queue>,
    /// How the queue is managed.
    #[arg(long, value_name = "NAME", help = AQM_HELP)]
    #[serde(deserialize_with = "text")]
    pub(super) aqm: Option<Managed>,
    /// RED and CoDel mark packets that say they can be marked, instead of dropping them.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[serde(deserialize_with = "switch")]
    pub(super) ecn: Option<bool>,
    /// A policer before the queue: what exceeds the rate and a burst (64kB) is dropped.
    #[arg(long, value_name = "RATE[:BURST]")]
    #[serde(deserialize_with = "text")]
    pub(super) police: Option<Policed>,
    /// Bytes that a packet counts beside its IP packet: 14 counts Ethernet frames as tc does, 38 all that a wire is
    /// busy with [default: 0].
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    #[serde(deserialize_with = "text")]
    pub(super) overhead: Option<Overhead>,
}

/// Reads a setting from a string, wherever that is.
fn text<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(from: D) -> Result<Option<T>, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map(Some).map_err(|error| serde::de::Error::custom(format_args!("'{text}': {error}")))
}

/// Reads a truth value: a file has one, a list has its text.
fn switch<'de, D: Deserializer<'de>>(from: D) -> Result<Option<bool>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Switch {
        Value(bool),
        Text(String),
    }
    match Switch::deserialize(from)? {
        Switch::Value(value) => Ok(Some(value)),
        Switch::Text(text) => match text.as_str() {
            "true" => Ok(Some(true)),
            "false" => Ok(Some(false)),
            _ => Err(serde::de::Error::custom(format_args!("'{text}': give true or false"))),
        },
    }
}

impl Settings {
    /// Reads `key=value,key=value,…`; `ecn` alone is `ecn=true`.
    ///
    /// # Errors
    /// Names the pair that is wrong, and what is wrong with it.
    pub(super) fn from_list(list: &str) -> anyhow::Result<Self> {
        let mut all = Self::default();
        for pair in list.split(',').map(str::trim) {
            let (key, value) = match pair.split_once('=') {
                Some((key, value)) => (key.trim(), value.trim()),
                None if pair == "ecn" => (pair, "true"),
                None => return Err(Usage::error(format!("'{pair}' is no KEY=VALUE such as rate=5mbit"))),
            };
            let one: Result<Self, serde::de::value::Error> =
                Self::deserialize(MapDeserializer::new(std::iter::once((key, value))));
            let one = one.map_err(|error| Usage::error(format!("{key}: {error}")))?;
            all = one.or(all);
        }
        Ok(all)
    }

    /// These, and for what they leave open the others.
    pub(super) fn or(self, others: Self) -> Self {
        Self {
            rate: self.rate.or(others.rate),
            delay: self.delay.or(others.delay),
            jitter: self.jitter.or(others.jitter),
            loss: self.loss.or(others.loss),
            reorder: self.reorder.or(others.reorder),
            duplicate: self.duplicate.or(others.duplicate),
            corrupt: self.corrupt.or(others.corrupt),
            queue: self.queue.or(others.queue),
            aqm: self.aqm.or(others.aqm),
            ecn: self.ecn.or(others.ecn),
            police: self.police.or(others.police),
            overhead: self.overhead.or(others.overhead),
        }
    }

    /// One-way delay.
    pub(super) fn delay(&self) -> Duration {
        self.delay.map_or(Duration::ZERO, |Time(delay)| delay)
    }

    /// The model's configuration. `round_trip` is the delay both ways.
    ///
    /// # Errors
    /// Settings that do not go together.
    pub(super) fn config(&self, round_trip: Duration, trace: Option<Arc<Opportunities>>) -> anyhow::Result<LinkConfig> {
        if trace.is_some() && self.rate.is_some() {
            return Err(Usage::error(
                "a trace says when packets leave, so --rate has nothing to say: give one of them",
            ));
        }
        let spread = self.jitter.unwrap_or(Spread { jitter: Default::default(), unordered: false });
        let mut config = LinkConfig {
            rate: self.rate.and_then(|Rate(rate)| rate),
            trace,
            framing: Framing::Ethernet,
            overhead: self.overhead.map_or(0, |Overhead(bytes)| bytes),
            police: self.police.and_then(|Policed(police)| police),
            delay: self.delay(),
            jitter: spread.jitter,
            keep_order: !spread.unordered,
            loss: self.loss.map_or(Loss::None, |Lost(loss)| loss),
            duplicate: self.duplicate.map_or(0.0, |Percent(p)| p),
            corrupt: self.corrupt.map_or(0.0, |Percent(p)| p),
            reorder: self.reorder.map_or(Reorder::default(), |Held(reorder)| reorder),
            aqm: self.aqm.map_or(Aqm::None, |Managed(aqm)| aqm),
            ecn: self.ecn.unwrap_or(false),
            wire_memory: WIRE_MEMORY,
            ..LinkConfig::default()
        };
        if config.ecn && config.aqm == Aqm::None {
            return Err(Usage::error(
                "--ecn: a queue that only drops what does not fit marks nothing: add --aqm red or codel",
            ));
        }
        config.queue = self.queue_limit(config.mean_rate(), round_trip)?;
        Ok(config)
    }

    fn queue_limit(&self, rate: Option<u64>, round_trip: Duration) -> anyhow::Result<QueueLimit> {
        let time = match self.queue {
            None => return Ok(QueueLimit::default()),
            Some(Queue::Limit(limit)) => return Ok(limit),
            Some(Queue::Time(time)) => time,
            Some(Queue::Bdp(_)) if round_trip.is_zero() => {
                return Err(Usage::error("--queue in bdp is rate times round-trip time: give --delay, too"));
            }
            Some(Queue::Bdp(times)) => round_trip.mul_f64(times),
        };
        let Some(rate) = rate else {
            return Err(Usage::error("--queue in time or bdp depends on the rate: give --rate or a trace, too"));
        };
        let bytes = (u128::from(rate) * time.as_nanos() / 8_000_000_000).max(QUEUE_LEAST.into());
        Ok(QueueLimit { packets: usize::MAX, bytes: usize::try_from(bytes).unwrap_or(usize::MAX) })
    }

    /// What a link has to be told to become like this on the way.
    ///
    /// # Errors
    /// Names what cannot change on the way.
    pub(super) fn changes(&self) -> anyhow::Result<Vec<LinkChange>> {
        let fixed = [("aqm", self.aqm.is_some()), ("ecn", self.ecn.is_some()), ("overhead", self.overhead.is_some())];
        if let Some((key, _)) = fixed.into_iter().find(|&(_, given)| given) {
            return Err(Usage::error(format!("{key} cannot change on the way: give it from the start")));
        }
        let queue = match self.queue {
            None => None,
            Some(Queue::Limit(limit)) => Some(LinkChange::Queue(limit)),
            Some(Queue::Bdp(_) | Queue::Time(_)) => {
                return Err(Usage::error("queue: on the way, give it in packets or bytes"));
            }
        };
        if self.jitter.is_some_and(|spread| spread.unordered) {
            return Err(Usage::error("jitter: whether it keeps the order cannot change on the way"));
        }
        let changes = [
            self.rate.map(|Rate(rate)| LinkChange::Rate(rate)),
            self.delay.map(|Time(delay)| LinkChange::Delay(delay)),
            self.jitter.map(|spread| LinkChange::Jitter(spread.jitter)),
            self.loss.map(|Lost(loss)| LinkChange::Loss(loss)),
            self.reorder.map(|Held(reorder)| LinkChange::Reorder(reorder)),
            self.duplicate.map(|Percent(p)| LinkChange::Duplicate(p)),
            self.corrupt.map(|Percent(p)| LinkChange::Corrupt(p)),
            queue,
            self.police.map(|Policed(police)| LinkChange::Police(police)),
        ];
        Ok(changes.into_iter().flatten().collect())
    }
}
