//! The model against a path that is a rate, a delay and a queue, and the formulas against the draft.

use alloc::collections::VecDeque;
use alloc::vec;

use super::phases::State;
use super::*;

const MSS: u64 = 1000;
const ALONE: Group<'static> = Group { siblings: &[], me: 0 };

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A bottleneck with a queue, and a sender that always has data: every segment by itself, acknowledged by itself. What does
/// not fit into the queue is lost, and found to be when its turn would have come.
struct Path {
    now: Instant,
    /// Bytes per second.
    rate: u64,
    rtt: Duration,
    /// Bytes that wait at most.
    queue: u64,
    /// One of so many segments is lost by itself; 0: none.
    lossy: u64,
    /// Acknowledgements are marked while the queue is at least so long.
    mark_at: u64,
    free_at: Instant,
    next_send: Instant,
    packets: VecDeque<Packet>,
    sent: u64,
    delivered: u64,
    delivered_at: Instant,
    first_sent: Instant,
    lost: u64,
    newly_lost: u64,
    /// Recovery ends when so much was delivered.
    recovery: Option<u64>,
    round_end: u64,
}

#[derive(Clone, Copy)]
struct Packet {
    sent: Instant,
    heard: Instant,
    dropped: bool,
    marked: bool,
    delivered: u64,
    delivered_at: Instant,
    first_sent: Instant,
    tx_in_flight: u64,
    lost: u64,
}

impl Path {
    /// 1 MB/s, that is a segment a millisecond, and 50 ms: a bandwidth-delay product of 50 segments.
    fn new(queue_segments: u64) -> Self {
        let now = Instant::from_millis(1000);
        Self {
            now,
            rate: 1_000_000,
            rtt: ms(50),
            queue: queue_segments * MSS,
            lossy: 0,
            mark_at: u64::MAX,
            free_at: now,
            next_send: now,
            packets: VecDeque::new(),
            sent: 0,
            delivered: 0,
            delivered_at: now,
            first_sent: now,
            lost: 0,
            newly_lost: 0,
            recovery: None,
            round_end: 0,
        }
    }

    fn start(&self) -> Bbr {
        let mut bbr = Bbr::new(MSS);
        bbr.on_handshake(self.now, self.rtt);
        bbr
    }

    fn bdp(&self) -> u64 {
        (self.rate as f64 * self.rtt.as_secs_f64()) as u64
    }

    fn in_flight(&self) -> u64 {
        self.packets.len() as u64 * MSS
    }

    /// Bytes in the queue.
    fn queued(&self) -> u64 {
        (self.free_at.saturating_since(self.now).as_secs_f64() * self.rate as f64) as u64
    }

    /// The next thing that happens: something is sent, or heard of.
    fn step(&mut self, bbr: &mut Bbr) {
        let heard = self.packets.front().map(|packet| packet.heard);
        let open = self.in_flight() + MSS <= bbr.cwnd();
        if heard.is_none_or(|heard| open && self.next_send <= heard) {
            self.now = self.now.max(self.next_send);
            self.send(bbr);
        } else if let Some(packet) = self.packets.pop_front() {
            self.now = packet.heard;
            if packet.dropped { self.lose(bbr, &packet) } else { self.acknowledge(bbr, &packet) }
        }
    }

    fn send(&mut self, bbr: &Bbr) {
        if self.packets.is_empty() {
            (self.first_sent, self.delivered_at) = (self.now, self.now);
        }
        self.sent += 1;
        self.next_send = self.now + Duration::from_secs_f64(MSS as f64 / bbr.pacing_rate().unwrap() as f64);
        let random = self.lossy > 0 && self.sent.is_multiple_of(self.lossy);
        let dropped = random || self.queued() + MSS > self.queue + MSS;
        let marked = self.queued() >= self.mark_at;
        if !dropped {
            self.free_at = self.free_at.max(self.now) + Duration::from_secs_f64(MSS as f64 / self.rate as f64);
        }
        self.packets.push_back(Packet {
            sent: self.now,
            heard: self.free_at.max(self.now) + self.rtt,
            dropped,
            marked,
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent: self.first_sent,
            tx_in_flight: self.in_flight() + MSS,
            lost: self.lost,
        });
    }

    fn lose(&mut self, bbr: &mut Bbr, packet: &Packet) {
        self.lost += MSS;
        self.newly_lost += MSS;
        bbr.on_lost(&Loss {
            now: self.now,
            bytes: MSS,
            tx_in_flight: packet.tx_in_flight,
            lost: self.lost - packet.lost,
            total_delivered: self.delivered,
            app_limited: false,
        });
        if self.recovery.is_none() {
            bbr.on_congestion(self.now, self.in_flight(), ALONE);
            self.recovery = Some(self.delivered + self.in_flight());
        }
    }

    fn acknowledge(&mut self, bbr: &mut Bbr, packet: &Packet) {
        self.delivered += MSS;
        self.delivered_at = self.now;
        self.first_sent = packet.sent;
        let interval = (packet.sent - packet.first_sent).max(self.now - packet.delivered_at);
        let delivered = self.delivered - packet.delivered;
        let rtt = self.now - packet.sent;
        let delivery = Delivery {
            rate: (interval >= self.rtt).then(|| (delivered as f64 / interval.as_secs_f64()) as u64),
            delivered,
            prior_delivered: packet.delivered,
            tx_in_flight: packet.tx_in_flight,
            lost: self.lost - packet.lost,
            app_limited: false,
        };
        let round_start = packet.delivered >= self.round_end;
        if round_start {
            self.round_end = self.delivered;
        }
        let sample = AckSample {
            now: self.now,
            delivered: MSS,
            acked: MSS,
            rtt: Some(rtt),
            srtt: rtt,
            min_rtt: self.rtt,
            prior_in_flight: self.in_flight() + MSS,
            in_flight: self.in_flight(),
            lost: core::mem::take(&mut self.newly_lost),
            ce_bytes: if packet.marked { MSS } else { 0 },
            delivery: Some(delivery),
            cwnd_limited: self.in_flight() + 2 * MSS > bbr.cwnd(),
            round_start,
            in_recovery: self.recovery.is_some(),
            disordered: false,
        };
        bbr.on_ack(&sample, ALONE);
        if self.recovery.is_some_and(|end| self.delivered >= end) {
            self.recovery = None;
            bbr.on_recovered(self.now);
        }
    }

    fn run(&mut self, bbr: &mut Bbr, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step(bbr);
        }
    }

    /// Goes on until `state` is entered, for at most half a minute.
    fn until(&mut self, bbr: &mut Bbr, state: State) {
        let end = self.now + ms(30_000);
        while bbr.state != state {
            self.step(bbr);
            assert!(self.now < end, "never in {state:?} but in {:?}", bbr.state);
        }
    }

    /// The share of the rate that gets through in this time.
    fn share(&mut self, bbr: &mut Bbr, time: Duration) -> f64 {
        let (from, before) = (self.now, self.delivered);
        self.run(bbr, time);
        (self.delivered - before) as f64 / (self.rate as f64 * (self.now - from).as_secs_f64())
    }
}

fn close(got: u64, expected: f64, percent: f64) {
    let off = (got as f64 / expected - 1.0).abs() * 100.0;
    assert!(off <= percent, "{got}, expected {expected:.0}");
}

#[test]
fn the_first_window_goes_within_a_round_trip() {
    // §5.6.2: 2.77 × 10 segments / 50 ms, or / 1 ms as long as nothing is known.
    assert_eq!(Bbr::new(MSS).pacing_rate(), Some(27_700_000));
    let mut bbr = Path::new(50).start();
    assert_eq!(bbr.pacing_rate(), Some(554_000));
    bbr.set_mss(2 * MSS);
    assert_eq!((bbr.cwnd(), bbr.pacing_rate()), (20 * MSS, Some(1_108_000)));
}

#[test]
fn startup_doubles_finds_the_rate_and_drains_what_it_left_in_the_queue() {
    let mut path = Path::new(200);
    let mut bbr = path.start();
    let mut in_flight = vec![];
    while bbr.state == State::Startup {
        path.run(&mut bbr, ms(50));
        in_flight.push(path.in_flight());
    }
    assert!(in_flight[1] >= in_flight[0] * 17 / 10 && in_flight[2] >= in_flight[1] * 17 / 10, "{in_flight:?}");
    close(bbr.bandwidth.max(), 1e6, 3.0);
    assert!(*in_flight.iter().max().unwrap() <= 3 * path.bdp(), "{in_flight:?}");
    path.until(&mut bbr, State::ProbeDown);
    path.until(&mut bbr, State::ProbeCruise);
    path.run(&mut bbr, ms(100));
    assert!(path.queued() <= MSS, "{} bytes in the queue", path.queued());
    // The pace is 1 % below the rate, the window twice the product and what the hosts may hold.
    close(bbr.pacing_rate, 0.99e6, 2.0);
    assert!(bbr.cwnd >= 2 * path.bdp());
}

#[test]
fn startup_ends_when_a_round_of_recovery_loses_too_much() {
    // Given a queue of a fifth of the product,
    let mut path = Path::new(10);
    let mut bbr = path.start();
    path.until(&mut bbr, State::Drain);
    // then the rounds without growth were not waited for: losses ended it, and left a bound.
    assert!(bbr.full.reached && !bbr.full.now);
    assert!(bbr.volume.longterm >= path.bdp() * 9 / 10 && bbr.volume.longterm < 2 * path.bdp(), "{:?}", bbr.volume);
    // When all of it was a mistake, then it goes on where it was.
    bbr.on_spurious(path.now);
    assert_eq!((bbr.state, bbr.full.reached, bbr.volume.longterm), (State::Startup, false, u64::MAX));
}

#[test]
fn a_cycle_goes_down_cruises_refills_and_probes() {
    let mut path = Path::new(200);
    let mut bbr = path.start();
    path.until(&mut bbr, State::ProbeCruise);
    let cruise = path.now;
    path.until(&mut bbr, State::ProbeRefill);
    // T_probe is 2 to 3 s, or as many rounds as the product has segments: 50 of 50 ms (§5.3.3.5).
    let waited = path.now - cruise;
    assert!(waited >= ms(1900) && waited <= ms(3000), "{waited:?}");
    path.until(&mut bbr, State::ProbeUp);
    path.step(&mut bbr);
    close(bbr.pacing_rate, 1.25 * 0.99e6, 2.0);
    let up = path.now;
    path.until(&mut bbr, State::ProbeDown);
    // The queue of the probe is about a quarter of the product, and is gone when it is time to cruise.
    assert!(path.now - up >= path.rtt && path.queued() <= path.bdp() / 2, "{:?}, {}", path.now - up, path.queued());
    path.until(&mut bbr, State::ProbeCruise);
    path.run(&mut bbr, ms(50));
    assert!(path.queued() <= 2 * MSS, "{}", path.queued());
}

#[test]
fn the_path_is_used_whatever_the_queue() {
    for (queue, least) in [(13, 0.93), (50, 0.95), (200, 0.95)] {
        let mut path = Path::new(queue);
        let mut bbr = path.start();
        path.run(&mut bbr, ms(2000));
        let lost = path.lost;
        let share = path.share(&mut bbr, ms(20_000));
        assert!(share >= least, "{queue} segments: {share:.3}");
        assert!((path.lost - lost) as f64 <= 0.01 * 20e6, "{queue} segments: {} bytes lost", path.lost - lost);
    }
}

#[test]
fn what_a_path_loses_by_itself_costs_hardly_more_than_what_is_lost() {
    for (lossy, least) in [(100, 0.92), (33, 0.90)] {
        for queue in [13, 200] {
            let mut path = Path::new(queue);
            path.lossy = lossy;
            let mut bbr = path.start();
            path.run(&mut bbr, ms(3000));
            let share = path.share(&mut bbr, ms(20_000));
            assert!(share >= least, "one in {lossy}, queue of {queue}: {share:.3}");
        }
    }
}

#[test]
fn a_rate_that_became_ten_times_as_large_is_found() {
    let mut path = Path::new(500);
    let mut bbr = path.start();
    path.until(&mut bbr, State::ProbeCruise);
    path.rate *= 10;
    let start = path.now;
    while bbr.bandwidth.max() < 9_000_000 {
        path.step(&mut bbr);
        assert!(path.now - start < ms(20_000), "{} bytes/s", bbr.bandwidth.max());
    }
}

#[test]
fn a_rate_that_became_a_tenth_is_accepted_after_two_cycles() {
    let mut path = Path::new(200);
    let mut bbr = path.start();
    path.until(&mut bbr, State::ProbeCruise);
    path.rate /= 10;
    path.run(&mut bbr, ms(20_000));
    close(bbr.bandwidth.max(), 1e5, 10.0);
    // The queue that it left is gone, too: the round trip is 50 ms and a segment of 10 ms.
    assert!(bbr.min_rtt.get().unwrap() <= ms(70), "{:?}", bbr.min_rtt.get());
}

#[test]
fn losses_with_a_queue_bring_the_short_term_model_down_by_three_tenths_a_round_at_most() {
    let mut path = Path::new(30);
    let mut bbr = path.start();
    path.until(&mut bbr, State::ProbeCruise);
    let (bw, cwnd) = (bbr.bandwidth.max(), bbr.cwnd);
    // Given others who take half of the rate from now on,
    path.rate /= 2;
    while bbr.bandwidth.shortterm == u64::MAX {
        path.step(&mut bbr);
    }
    // then rate and volume come nearer to what is delivered.
    assert!(bbr.bandwidth.shortterm < bw && bbr.bandwidth.shortterm >= bw * 7 / 10 - 1, "{:?}", bbr.bandwidth);
    assert!(bbr.volume.shortterm <= cwnd && bbr.volume.shortterm >= cwnd * 7 / 10 - 1, "{:?}", bbr.volume);
    assert_eq!(bbr.state, State::ProbeCruise);
    // The next probe begins with a clean slate.
    path.until(&mut bbr, State::ProbeRefill);
    assert_eq!((bbr.bandwidth.shortterm, bbr.volume.shortterm), (u64::MAX, u64::MAX));
}

#[test]
fn a_probe_that_loses_too_much_ends_and_leaves_a_bound_with_headroom() {
    let mut path = Path::new(10);
    let mut bbr = path.start();
    path.until(&mut bbr, State::ProbeUp);
    path.until(&mut bbr, State::ProbeDown);
    let longterm = bbr.volume.longterm;
    assert!(longterm >= path.bdp() * 7 / 10 && longterm <= path.bdp() * 3 / 2, "{longterm}");
    path.until(&mut bbr, State::ProbeCruise);
    path.step(&mut bbr);
    assert!(bbr.cwnd <= longterm * 85 / 100 + MSS, "{} of {longterm}", bbr.cwnd);
}

#[test]
fn the_part_of_a_lost_burst_that_fitted_is_worked_out() {
    // §5.5.10.2: 90 in flight before a burst of 10, of which 1 was lost: (0.02 × 90 − 1) / 0.98 = 0.816 of it fits.
    let loss = Loss {
        now: Instant::ZERO,
        bytes: 10 * MSS,
        tx_in_flight: 100 * MSS,
        lost: 11 * MSS,
        total_delivered: 0,
        app_limited: false,
    };
    assert_eq!(congestion::inflight_at_loss(&loss), 90_816);
}

#[test]
fn probe_rtt_comes_every_five_seconds_for_a_fifth_of_one_with_half_the_product() {
    let mut path = Path::new(200);
    let mut bbr = path.start();
    path.until(&mut bbr, State::ProbeRtt);
    let entered = path.now;
    assert!(entered - Instant::from_millis(1000) > ms(5000));
    path.run(&mut bbr, ms(60));
    assert!(bbr.cwnd <= path.bdp() / 2 + MSS, "{}", bbr.cwnd);
    let max_bw = bbr.bandwidth.max();
    path.until(&mut bbr, State::ProbeCruise);
    let took = path.now - entered;
    assert!(took >= ms(200) && took <= ms(400), "{took:?}");
    assert!(bbr.cwnd > path.bdp(), "the window is back");
    path.run(&mut bbr, ms(100));
    assert_eq!(bbr.bandwidth.max(), max_bw, "the low rates in it are no measure");
}

#[test]
fn without_a_round_trip_from_the_handshake_the_first_sample_is_waited_for() {
    let mut path = Path::new(200);
    path.now += ms(60_000);
    (path.free_at, path.next_send) = (path.now, path.now);
    let mut bbr = Bbr::new(MSS);
    path.run(&mut bbr, ms(1000));
    assert!(bbr.min_rtt.get().unwrap() <= ms(52));
    assert_ne!(bbr.state, State::ProbeRtt);
    close(bbr.bandwidth.max(), 1e6, 3.0);
}

#[test]
fn idleness_stands_for_probe_rtt() {
    let mut path = Path::new(200);
    let mut bbr = path.start();
    path.until(&mut bbr, State::ProbeCruise);
    // Given six seconds of silence,
    while let Some(packet) = path.packets.pop_front() {
        path.now = packet.heard;
        path.acknowledge(&mut bbr, &packet);
    }
    let cwnd = bbr.cwnd;
    path.now += ms(6000);
    bbr.on_idle(path.now, ms(200), ms(6000));
    bbr.on_restart(path.now);
    assert_eq!(bbr.cwnd, cwnd);
    close(bbr.pacing_rate, 0.99e6, 2.0);
    // then the next round trip tells how short it is, and no pause is made for it.
    path.run(&mut bbr, ms(1000));
    assert_ne!(bbr.state, State::ProbeRtt);
}

#[test]
fn acknowledgements_that_come_in_heaps_widen_the_window() {
    let mut path = Path::new(200);
    let mut bbr = path.start();
    path.until(&mut bbr, State::ProbeCruise);
    path.run(&mut bbr, ms(600));
    let window = bbr.max_inflight();
    // Given 30 segments acknowledged at once: 30 more than the rate is good for in no time (§5.5.9),
    for _ in 0..30 {
        let mut packet = path.packets.pop_front().unwrap();
        (packet.sent, packet.heard) = (path.now - path.rtt, path.now);
        path.acknowledge(&mut bbr, &packet);
    }
    close(bbr.aggregation.extra_acked(), 30_000.0, 5.0);
    // then so much more may be in flight for ten rounds, but not forever.
    close(bbr.max_inflight(), (window + 29 * MSS) as f64, 3.0);
    path.run(&mut bbr, ms(700));
    assert!(bbr.aggregation.extra_acked() < 10 * MSS, "{}", bbr.aggregation.extra_acked());
}

#[test]
fn marks_end_startup_and_keep_the_queue_short() {
    let mut path = Path::new(200);
    path.mark_at = 10 * MSS;
    let mut bbr = path.start();
    path.until(&mut bbr, State::Drain);
    assert!(bbr.full.reached && !bbr.full.now, "it waited for three rounds");
    path.run(&mut bbr, ms(2000));
    let (mut longest, end) = (0, path.now + ms(10_000));
    let before = path.delivered;
    while path.now < end {
        path.step(&mut bbr);
        longest = longest.max(path.queued());
    }
    assert!(longest <= 30 * MSS, "{longest}");
    assert!(path.delivered - before >= 8_800_000, "{}", path.delivered - before);
}

#[test]
fn after_a_timeout_the_window_is_small_until_all_is_repaired() {
    let mut path = Path::new(200);
    let mut bbr = path.start();
    path.until(&mut bbr, State::ProbeCruise);
    let cwnd = bbr.cwnd;
    bbr.on_rto(path.now, 0, true);
    assert_eq!(bbr.cwnd, MSS);
    bbr.on_recovered(path.now);
    assert_eq!(bbr.cwnd, cwnd);
    // The same when it was a mistake.
    bbr.on_rto(path.now, 0, true);
    bbr.on_spurious(path.now);
    assert_eq!(bbr.cwnd, cwnd);
}

#[test]
fn a_product_of_less_than_a_segment_keeps_four_in_flight() {
    let mut path = Path::new(20);
    path.rate = 15_000;
    path.rtt = ms(10);
    let mut bbr = path.start();
    path.until(&mut bbr, State::ProbeCruise);
    assert!(bbr.cwnd >= 4 * MSS, "{}", bbr.cwnd);
    assert!(bbr.pacing_rate <= 16_000, "{}", bbr.pacing_rate);
}

proptest::proptest! {
    #[test]
    fn whatever_happens_the_outputs_are_sane(
        events in proptest::collection::vec((0u8..16, 0u64..3_000_000, 0u64..300_000_000, 0u64..2_000_000), 1..300),
    ) {
        let mut bbr = Bbr::new(MSS);
        let (mut now, mut delivered, mut lost) = (Instant::from_millis(1), 0, 0);
        for (event, bytes, gap, in_flight) in events {
            now += Duration::from_nanos(gap);
            match event {
                0 => bbr.on_rto(now, in_flight, true),
                1 => bbr.on_spurious(now),
                2 => bbr.on_recovered(now),
                3 => bbr.on_restart(now),
                4 => bbr.set_mss(1 + bytes % 9000),
                5 => bbr.penalise(now),
                6 => {
                    lost += bytes;
                    let loss = Loss { now, bytes, tx_in_flight: in_flight, lost: bytes, total_delivered: delivered, app_limited: false };
                    bbr.on_lost(&loss);
                    bbr.on_congestion(now, in_flight, ALONE);
                }
                _ => {
                    let prior_delivered = delivered - delivered.min(in_flight);
                    delivered += bytes;
                    let rtt = Duration::from_nanos(1 + gap % 100_000_000);
                    let sample = AckSample {
                        now,
                        delivered: bytes,
                        acked: bytes,
                        rtt: (event % 2 == 0).then_some(rtt),
                        srtt: rtt,
                        min_rtt: rtt,
                        prior_in_flight: in_flight + bytes,
                        in_flight,
                        lost: lost % 5000,
                        ce_bytes: if event == 15 { bytes } else { 0 },
                        delivery: (event != 14).then_some(Delivery {
                            rate: (event != 13).then_some(bytes * 1000),
                            delivered: delivered - prior_delivered,
                            prior_delivered,
                            tx_in_flight: in_flight,
                            lost: lost % 70_000,
                            app_limited: event == 12,
                        }),
                        cwnd_limited: event % 3 == 0,
                        round_start: false,
                        in_recovery: event % 5 == 0,
                        disordered: event % 7 == 0,
                    };
                    bbr.on_ack(&sample, ALONE);
                }
            }
            proptest::prop_assert!(bbr.cwnd() > 0 && bbr.cwnd() <= MAX_WINDOW, "a window of {}", bbr.cwnd());
            proptest::prop_assert!(bbr.pacing_rate().unwrap() > 0);
        }
    }
}
