use core::time::Duration;
use std::sync::Arc;

use super::{Aqm, Framing, Opportunities, Police};

/// How a link spreads its delay.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub enum Jitter {
    /// Not at all.
    #[default]
    None,
    /// Uniformly within this much more or less than the delay.
    Uniform(Duration),
    /// Normally, with this standard deviation, cut off at four of them and at zero delay.
    Normal(Duration),
}

/// How a link loses packets at random, whatever their size.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub enum Loss {
    /// Not at all.
    #[default]
    None,
    /// Each packet by itself with this probability, 0 to 1.
    Random(f64),
    /// Each packet whose number is a multiple of this, counted from 1. At least 1.
    Every(u64),
    /// In bursts (Gilbert 1960, Elliott 1963): a link that is in one of two states.
    Burst {
        /// Probability that a packet turns the good state into the bad one.
        enter: f64,
        /// Probability that a packet turns the bad state into the good one.
        leave: f64,
        /// Probability of loss in the bad state.
        loss: f64,
        /// Probability of loss in the good state.
        good_loss: f64,
    },
}

/// How a link holds packets back.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Reorder {
    /// Probability that it does, for each packet.
    pub probability: f64,
    /// For at least so long.
    pub least: Duration,
    /// For at most so long, uniformly.
    pub most: Duration,
}

/// What a queue holds at most. What does not fit is dropped from the tail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueLimit {
    /// Packets.
    pub packets: usize,
    /// Bytes.
    pub bytes: usize,
}

impl Default for QueueLimit {
    /// 1000 packets, as a Linux interface has.
    fn default() -> Self {
        Self { packets: 1000, bytes: usize::MAX }
    }
}

/// A change of a link in the middle of a run.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum LinkChange {
    /// It goes silent: what is sent from now on is lost, nobody is told. What is under way arrives.
    Down,
    /// It works again.
    Up,
    /// A new rate in bits per second, for the packet half out of the door too; `None` is infinite.
    /// Delivery opportunities have had their day then.
    Rate(Option<u64>),
    /// A new one-way delay for packets that leave from now on.
    Delay(Duration),
    /// A new jitter.
    Jitter(Jitter),
    /// A new kind of loss.
    Loss(Loss),
    /// A new probability of duplicates.
    Duplicate(f64),
    /// A new probability of corruption.
    Corrupt(f64),
    /// Other packets are held back.
    Reorder(Reorder),
    /// Another limit of the queue. What waits already stays.
    Queue(QueueLimit),
    /// Another policer, its bucket full, or none.
    Police(Option<Police>),
}

/// One direction of a link. The default is perfect: infinitely fast, without delay and loss.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// Bits per second of IP packets, headers included; `None` is infinite. At least 1.
    pub rate: Option<u64>,
    /// When packets may leave, instead of a rate.
    pub trace: Option<Arc<Opportunities>>,
    /// What the packets handed to it begin with.
    pub framing: Framing,
    /// Bytes that each packet counts more (or less) than its IP packet has, at the transmitter, in the
    /// queue and in the statistics: 14 counts Ethernet frames as `tc` does.
    pub overhead: i32,
    /// What is dropped before it comes to the queue.
    pub police: Option<Police>,
    /// One-way delay, from the last bit sent to the packet received.
    pub delay: Duration,
    /// Its spread.
    pub jitter: Jitter,
    /// Jitter does not make packets overtake each other.
    pub keep_order: bool,
    /// What waits at most for its turn; the packet that is being sent does not count.
    pub queue: QueueLimit,
    /// Which packets the queue drops before it is full.
    pub aqm: Aqm,
    /// The queue's management marks packets that can be marked (RFC 3168) instead of dropping them.
    pub ecn: bool,
    /// Bytes of memory that packets on the wire may take; more are dropped.
    pub wire_memory: usize,
    /// Random loss.
    pub loss: Loss,
    /// Probability that a packet arrives twice.
    pub duplicate: f64,
    /// Probability that one bit of a packet is turned over.
    pub corrupt: f64,
    /// Which packets are held back, so that later ones overtake them.
    pub reorder: Reorder,
    /// What changes when, counted from the start of the run.
    pub schedule: Vec<(Duration, LinkChange)>,
    /// Interval of the time series of delivered bytes; `None` keeps none.
    pub series: Option<Duration>,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            rate: None,
            trace: None,
            framing: Framing::Ip,
            overhead: 0,
            police: None,
            delay: Duration::ZERO,
            jitter: Jitter::None,
            keep_order: true,
            queue: QueueLimit::default(),
            aqm: Aqm::None,
            ecn: false,
            wire_memory: usize::MAX,
            loss: Loss::None,
            duplicate: 0.0,
            corrupt: 0.0,
            reorder: Reorder::default(),
            schedule: Vec::new(),
            series: None,
        }
    }
}

/// Setting one thing after another.
impl LinkConfig {
    /// A link of `mbits` Mbit/s and `delay_ms` milliseconds one way.
    #[must_use]
    pub fn new(mbits: u64, delay_ms: u64) -> Self {
        Self { rate: Some(mbits * 1_000_000), delay: Duration::from_millis(delay_ms), ..Self::default() }
    }

    /// Sets the rate in bits per second.
    #[must_use]
    pub fn rate(mut self, bits_per_second: u64) -> Self {
        self.rate = Some(bits_per_second);
        self
    }

    /// Sets when packets may leave, instead of a rate.
    #[must_use]
    pub fn trace(mut self, opportunities: Arc<Opportunities>) -> Self {
        self.trace = Some(opportunities);
        self
    }

    /// Sets a policer in front of the queue.
    #[must_use]
    pub fn police(mut self, police: Police) -> Self {
        self.police = Some(police);
        self
    }

    /// Sets the queue's management, and whether it marks rather than drops.
    #[must_use]
    pub fn aqm(mut self, aqm: Aqm, ecn: bool) -> Self {
        self.aqm = aqm;
        self.ecn = ecn;
        self
    }

    /// Sets the one-way delay.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Sets the jitter.
    #[must_use]
    pub fn jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// Lets jitter reorder packets.
    #[must_use]
    pub fn unordered(mut self) -> Self {
        self.keep_order = false;
        self
    }

    /// Limits the queue to `packets` packets.
    #[must_use]
    pub fn queue_packets(mut self, packets: usize) -> Self {
        self.queue = QueueLimit { packets, bytes: usize::MAX };
        self
    }

    /// Limits the queue to `bytes` bytes.
    #[must_use]
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.queue = QueueLimit { packets: usize::MAX, bytes };
        self
    }

    /// Limits the queue to what the link's rate, which has to be set before, sends in `time`, but no
    /// less than three packets of 1500 bytes.
    #[must_use]
    pub fn queue_time(self, time: Duration) -> Self {
        let rate = self.mean_rate();
        let bytes = rate.map_or(usize::MAX, |rate| (u128::from(rate) * time.as_nanos() / 8_000_000_000) as usize);
        self.queue_bytes(bytes.max(4500))
    }

    /// The rate in bits per second, or the mean of a trace; `None` is infinite.
    #[must_use]
    pub fn mean_rate(&self) -> Option<u64> {
        self.trace.as_ref().map(|trace| trace.mean_rate()).or(self.rate)
    }

    /// Sets random loss: each packet with probability `p`.
    #[must_use]
    pub fn loss(mut self, p: f64) -> Self {
        self.loss = Loss::Random(p);
        self
    }

    /// Sets bursty loss, see [`Loss::Burst`].
    #[must_use]
    pub fn burst_loss(mut self, enter: f64, leave: f64, loss: f64) -> Self {
        self.loss = Loss::Burst { enter, leave, loss, good_loss: 0.0 };
        self
    }

    /// Sets the probability of duplicates.
    #[must_use]
    pub fn duplicate(mut self, p: f64) -> Self {
        self.duplicate = p;
        self
    }

    /// Sets the probability of corruption.
    #[must_use]
    pub fn corrupt(mut self, p: f64) -> Self {
        self.corrupt = p;
        self
    }

    /// Holds packets back for `by` with probability `p`.
    #[must_use]
    pub fn reorder(self, p: f64, by: Duration) -> Self {
        self.reorder_within(p, by, by)
    }

    /// Holds packets back for a time between `least` and `most` with probability `p`.
    #[must_use]
    pub fn reorder_within(mut self, p: f64, least: Duration, most: Duration) -> Self {
        self.reorder = Reorder { probability: p, least, most };
        self
    }

    /// Schedules a change.
    #[must_use]
    pub fn at(mut self, time: Duration, change: LinkChange) -> Self {
        self.schedule.push((time, change));
        self
    }

    /// Schedules an outage.
    #[must_use]
    pub fn outage(self, from: Duration, to: Duration) -> Self {
        self.at(from, LinkChange::Down).at(to, LinkChange::Up)
    }

    /// Keeps a time series of delivered bytes per `interval`.
    #[must_use]
    pub fn series(mut self, interval: Duration) -> Self {
        self.series = Some(interval);
        self
    }
}
