//! Delivery rate sampling and the counting of round trips
//! (draft-cheng-iccrg-delivery-rate-estimation).

use core::time::Duration;

use anabranch_frame::Instant;

use crate::cc::{Delivery, Loss};

/// What was known when something was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct TxStamp {
    /// Number of the transmission: later ones are larger, the pieces of one share it.
    pub(super) tx: u64,
    pub(super) sent_at: Instant,
    delivered: u64,
    delivered_at: Instant,
    first_sent_at: Instant,
    /// Bytes in flight, it included; windows are no larger.
    in_flight: u32,
    /// Bytes lost until then, of which only differences count.
    lost: u32,
    app_limited: bool,
}

/// What one acknowledgement says about the rate.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RateSample {
    pub(super) delivery: Option<Delivery>,
    pub(super) round_start: bool,
}

#[derive(Debug)]
pub(super) struct RateSampler {
    delivered: u64,
    delivered_at: Instant,
    first_sent_at: Instant,
    /// Samples are application limited until so much was delivered; 0: they are not.
    app_limited_until: u64,
    next_round: u64,
    last_tx: u64,
    /// Bytes presumed lost so far, modulo 2^32.
    lost: u32,
    /// Latest transmission among those delivered by the acknowledgement being handled.
    newest: Option<TxStamp>,
    rate: u64,
}

/// What is kept while nothing is in flight: what is sent next begins the times anew.
#[derive(Debug)]
pub(super) struct RestingRate {
    delivered: u64,
    app_limited_until: u64,
    next_round: u64,
    last_tx: u64,
    pub(super) rate: u64,
}

impl RestingRate {
    pub(super) fn resume(&self, now: Instant) -> RateSampler {
        let Self { delivered, app_limited_until, next_round, last_tx, rate } = *self;
        RateSampler { delivered, app_limited_until, next_round, last_tx, rate, ..RateSampler::new(now) }
    }
}

impl RateSampler {
    pub(super) fn rest(&self) -> RestingRate {
        let Self { delivered, app_limited_until, next_round, last_tx, rate, .. } = *self;
        RestingRate { delivered, app_limited_until, next_round, last_tx, rate }
    }

    pub(super) fn new(now: Instant) -> Self {
        Self {
            delivered: 0,
            delivered_at: now,
            first_sent_at: now,
            app_limited_until: 0,
            next_round: 0,
            last_tx: 0,
            lost: 0,
            newest: None,
            rate: 0,
        }
    }

    /// Bytes per second, 0 while unknown.
    pub(super) fn rate(&self) -> u64 {
        self.rate
    }

    /// The number of the last transmission.
    pub(super) fn last_tx(&self) -> u64 {
        self.last_tx
    }

    /// The application had nothing to send while the window had room: what is in flight measures it, not the path.
    pub(super) fn app_limited(&mut self, in_flight: u64) {
        self.app_limited_until = (self.delivered + in_flight).max(1);
    }

    /// Whether what is sent now is no measure of the path.
    pub(super) fn is_app_limited(&self) -> bool {
        self.app_limited_until != 0
    }

    /// `bytes` are sent now, with `in_flight` bytes before them.
    pub(super) fn stamp(&mut self, now: Instant, in_flight: u64, bytes: u64) -> TxStamp {
        if in_flight == 0 {
            self.first_sent_at = now;
            self.delivered_at = now;
        }
        self.last_tx += 1;
        TxStamp {
            tx: self.last_tx,
            sent_at: now,
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent_at: self.first_sent_at,
            in_flight: u32::try_from(in_flight + bytes).unwrap_or(u32::MAX),
            lost: self.lost,
            app_limited: self.is_app_limited(),
        }
    }

    /// `bytes` sent at `stamp` are presumed lost.
    pub(super) fn lose(&mut self, now: Instant, stamp: &TxStamp, bytes: u64) -> Loss {
        self.lost = self.lost.wrapping_add(bytes as u32);
        Loss {
            now,
            bytes,
            tx_in_flight: u64::from(stamp.in_flight),
            lost: u64::from(self.lost.wrapping_sub(stamp.lost)),
            total_delivered: self.delivered,
            app_limited: stamp.app_limited,
        }
    }

    /// `bytes` sent at `stamp` turn out to be delivered.
    pub(super) fn deliver(&mut self, now: Instant, stamp: &TxStamp, bytes: u64) {
        self.delivered += bytes;
        self.delivered_at = now;
        if self.newest.is_none_or(|newest| stamp.tx > newest.tx) {
            self.newest = Some(*stamp);
            self.first_sent_at = stamp.sent_at;
        }
    }

    /// Bytes delivered that no record stands for (duplicate ACKs without SACK); negative when it turns out there were fewer.
    pub(super) fn adjust(&mut self, now: Instant, bytes: i64) {
        self.delivered = self.delivered.saturating_add_signed(bytes);
        self.delivered_at = now;
    }

    /// All that an acknowledgement brought was counted.
    pub(super) fn finish(&mut self, min_rtt: Duration) -> RateSample {
        if self.app_limited_until != 0 && self.delivered > self.app_limited_until {
            self.app_limited_until = 0;
        }
        let Some(newest) = self.newest.take() else { return RateSample::default() };
        let round_start = newest.delivered >= self.next_round;
        if round_start {
            self.next_round = self.delivered;
        }
        // The slower of sending and acknowledging: ACKs may be compressed on their way.
        let sending = newest.sent_at - newest.first_sent_at;
        let acking = self.delivered_at - newest.delivered_at;
        let interval = sending.max(acking);
        let bytes = self.delivered.saturating_sub(newest.delivered);
        let rate = (interval >= min_rtt && !interval.is_zero()).then(|| per_second(bytes, interval));
        if let Some(rate) = rate
            && (!newest.app_limited || rate > self.rate)
        {
            self.rate = rate;
        }
        let delivery = Delivery {
            rate,
            delivered: bytes,
            prior_delivered: newest.delivered,
            tx_in_flight: u64::from(newest.in_flight),
            lost: u64::from(self.lost.wrapping_sub(newest.lost)),
            app_limited: newest.app_limited,
        };
        RateSample { delivery: Some(delivery), round_start }
    }
}

/// `bytes` per `interval` as bytes per second; the interval is taken for a nanosecond if it is zero.
pub(super) fn per_second(bytes: u64, interval: Duration) -> u64 {
    const SECOND: u64 = 1_000_000_000;
    let nanos = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(1);
    match bytes.checked_mul(SECOND) {
        Some(product) => product / nanos,
        None => u64::try_from(u128::from(bytes) * u128::from(SECOND) / u128::from(nanos)).unwrap_or(u64::MAX),
    }
}
