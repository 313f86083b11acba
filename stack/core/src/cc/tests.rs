use super::*;
use proptest::prelude::*;
use std::vec::Vec;

pub(super) const MSS: u64 = 1000;
pub(super) const ALONE: Group<'static> = Group { siblings: &[], me: 0 };

pub(super) fn sample(now: Instant, delivered: u64, rtt: Duration) -> AckSample {
    AckSample {
        now,
        delivered,
        acked: delivered,
        rtt: Some(rtt),
        srtt: rtt,
        min_rtt: rtt,
        prior_in_flight: delivered,
        in_flight: 0,
        lost: 0,
        ce_bytes: 0,
        delivery: None,
        cwnd_limited: true,
        round_start: false,
        in_recovery: false,
        disordered: false,
    }
}

/// A path whose round trip can change, and a sender that always fills its window.
struct Path {
    now: Instant,
    rtt: Duration,
}

impl Path {
    fn new(rtt_ms: u64) -> Self {
        Self { now: Instant::from_millis(1000), rtt: Duration::from_millis(rtt_ms) }
    }

    /// One round trip: a window of bytes is acknowledged two segments at a time, in a quarter of its time.
    fn round(&mut self, cc: &mut dyn CongestionControl) {
        self.round_within(cc, self.rtt / 4);
    }

    /// The same, with acknowledgements that take so much of its time.
    fn round_within(&mut self, cc: &mut dyn CongestionControl, train: Duration) {
        let acks = (cc.cwnd() / (2 * MSS)).max(1);
        let start = self.now + (self.rtt - train);
        for n in 1..=acks {
            self.now = start + train * n as u32 / acks as u32;
            let sample = AckSample { round_start: n == 1, ..sample(self.now, 2 * MSS, self.rtt) };
            cc.on_ack(&sample, ALONE);
        }
    }

    fn rounds_for(&mut self, cc: &mut dyn CongestionControl, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.round(cc);
        }
    }
}

/// Out of slow start at a window of `segments`, without a loss that the algorithm remembers.
fn grown(name: &str, segments: u64, path: &mut Path) -> Box<dyn CongestionControl> {
    let mut cc = by_name(name, MSS).unwrap();
    while cc.cwnd() < segments * MSS {
        let missing = segments * MSS - cc.cwnd();
        cc.on_ack(&sample(path.now, missing, path.rtt), ALONE);
    }
    assert_eq!(cc.cwnd(), segments * MSS);
    cc
}

fn close_to(cc: &dyn CongestionControl, segments: f64) {
    let got = cc.cwnd() as f64 / MSS as f64;
    assert!((got - segments).abs() <= 0.02 * segments + 0.6, "the window is {got} segments, expected {segments}");
}

#[test]
fn slow_start_doubles_each_round() {
    for name in ["reno", "cubic"] {
        let mut path = Path::new(50);
        let mut cc = by_name(name, MSS).unwrap();
        assert_eq!(cc.cwnd(), 10 * MSS);
        for round in 1..=5 {
            path.round(&mut *cc);
            assert_eq!(cc.cwnd(), (10 << round) * MSS, "{name}, round {round}");
        }
    }
}

#[test]
fn an_unused_window_does_not_grow() {
    for name in ["reno", "cubic"] {
        let path = Path::new(50);
        for mut cc in [by_name(name, MSS).unwrap(), grown(name, 40, &mut Path::new(50))] {
            let before = cc.cwnd();
            cc.on_ack(&AckSample { cwnd_limited: false, ..sample(path.now, 5 * MSS, path.rtt) }, ALONE);
            cc.on_ack(&AckSample { in_recovery: true, ..sample(path.now, 5 * MSS, path.rtt) }, ALONE);
            assert_eq!(cc.cwnd(), before);
        }
    }
}

#[test]
fn reno_halves_and_adds_a_segment_a_round() {
    let mut path = Path::new(50);
    let mut reno = grown("reno", 100, &mut path);
    reno.on_congestion(path.now, 100 * MSS, ALONE);
    assert_eq!((reno.cwnd(), reno.ssthresh()), (50 * MSS, 50 * MSS));
    for _ in 0..20 {
        path.round(&mut *reno);
    }
    close_to(&*reno, 70.0);
}

#[test]
fn a_timeout_leaves_one_segment_and_slow_start_ends_at_the_threshold() {
    for (name, left) in [("reno", 50), ("cubic", 70)] {
        let mut path = Path::new(50);
        let mut cc = grown(name, 100, &mut path);
        cc.on_rto(path.now, 0, true);
        cc.on_rto(path.now, 0, false);
        assert_eq!((cc.cwnd(), cc.ssthresh()), (MSS, left * MSS), "{name}");
        let mut windows = Vec::new();
        while cc.in_slow_start() {
            path.round(&mut *cc);
            windows.push(cc.cwnd() / MSS);
        }
        assert_eq!(windows[..3], [3, 5, 9], "{name}"); // the first acknowledgement of one segment is for two
        assert!(*windows.last().unwrap() < left + 2, "{name}: {windows:?}");
    }
}

#[test]
fn a_spurious_reduction_is_taken_back() {
    for name in ["reno", "cubic"] {
        let mut path = Path::new(50);
        let mut cc = grown(name, 100, &mut path);
        cc.on_congestion(path.now, 100 * MSS, ALONE);
        cc.on_spurious(path.now);
        assert_eq!((cc.cwnd(), cc.ssthresh()), (100 * MSS, u64::MAX), "{name}");
        // Given a series of timeouts, when the first was spurious, then all of it is taken back, once.
        for first in [true, false, false] {
            cc.on_rto(path.now, 0, first);
        }
        cc.on_spurious(path.now);
        assert_eq!((cc.cwnd(), cc.ssthresh()), (100 * MSS, u64::MAX), "{name}");
        cc.on_spurious(path.now);
        assert_eq!(cc.cwnd(), 100 * MSS, "{name}");
    }
}

#[test]
fn idleness_halves_the_window_each_timeout() {
    for name in ["reno", "cubic"] {
        let rto = Duration::from_millis(200);
        for (idle_ms, segments) in
            [(100, 100), (200, 100), (300, 50), (500, 25), (700, 12), (800, 12), (1000, 10), (9000, 10)]
        {
            let mut path = Path::new(50);
            let mut cc = grown(name, 100, &mut path);
            cc.on_congestion(path.now, 0, ALONE);
            cc.on_spurious(path.now);
            cc.on_idle(path.now + Duration::from_millis(idle_ms), rto, Duration::from_millis(idle_ms));
            assert_eq!(cc.cwnd() / MSS, segments, "{name} after {idle_ms} ms");
        }
        // A window below the initial one is not raised.
        let path = Path::new(50);
        let mut cc = by_name(name, MSS).unwrap();
        cc.on_rto(path.now, 0, true);
        cc.on_idle(path.now + rto * 10, rto, rto * 10);
        assert_eq!(cc.cwnd(), MSS);
        assert!(cc.in_slow_start());
    }
}

#[test]
fn a_penalty_halves_down_to_two_segments() {
    for name in ["reno", "cubic"] {
        let path = Path::new(50);
        let mut cc = grown(name, 100, &mut Path::new(50));
        cc.penalise(path.now);
        assert_eq!((cc.cwnd(), cc.ssthresh()), (50 * MSS, u64::MAX), "{name}: in slow start");
        cc.on_congestion(path.now, 0, ALONE);
        let threshold = cc.ssthresh();
        cc.penalise(path.now);
        assert_eq!((cc.cwnd(), cc.ssthresh()), (threshold / 2, threshold / 2), "{name}");
        for _ in 0..20 {
            cc.penalise(path.now);
        }
        assert_eq!(cc.cwnd(), 2 * MSS);
        assert!(cc.ssthresh() >= 2 * MSS);
    }
}

#[test]
fn the_initial_window_follows_the_segment_size() {
    for name in ["reno", "cubic"] {
        let mut cc = by_name(name, 536).unwrap();
        cc.set_mss(1448);
        assert_eq!(cc.cwnd(), 14480, "{name}");
        cc.on_congestion(Instant::ZERO, 0, ALONE);
        let reduced = cc.cwnd();
        cc.set_mss(1300);
        assert_eq!(cc.cwnd(), reduced, "{name}");
    }
}

#[test]
fn cubic_follows_the_cubic_function() {
    // Given a window of 1000 segments and a round trip long enough that Reno would be slower,
    let mut path = Path::new(100);
    let mut cubic = grown("cubic", 1000, &mut path);
    cubic.on_congestion(path.now, 1000 * MSS, ALONE);
    close_to(&*cubic, 700.0);
    // then W(t) = 0.4 (t - K)^3 + 1000 with K = cbrt(300 / 0.4) = 9.0856 s; the window is to be
    // there one round trip ahead (RFC 9438 equation 1 and §4.4).
    let w = |t: f64| 0.4 * (t + 0.1 - 9.0856_f64).powi(3) + 1000.0;
    for second in 1..=14 {
        path.rounds_for(&mut *cubic, Duration::from_secs(1));
        close_to(&*cubic, w(f64::from(second)));
    }
}

#[test]
fn cubic_is_as_fast_as_reno_on_short_round_trips() {
    // K is 4.2 s for 100 segments, but with 5 ms Reno grows faster: alpha = 0.529 segments a round
    // up to the window of the loss, then one (RFC 9438 §4.3).
    let mut path = Path::new(5);
    let mut cubic = grown("cubic", 100, &mut path);
    cubic.on_congestion(path.now, 100 * MSS, ALONE);
    for _ in 0..40 {
        path.round(&mut *cubic);
    }
    close_to(&*cubic, 70.0 + 40.0 * 0.9 / 1.7);
    while cubic.cwnd() < 100 * MSS {
        path.round(&mut *cubic);
    }
    for _ in 0..40 {
        path.round(&mut *cubic);
    }
    close_to(&*cubic, 140.0);
}

#[test]
fn cubic_makes_room_when_it_loses_below_its_plateau() {
    let mut path = Path::new(100);
    let mut cubic = grown("cubic", 1000, &mut path);
    cubic.on_congestion(path.now, 0, ALONE);
    // Lost at 700, below the plateau of 1000: the new one is 700 × 0.85 = 595, not 700.
    cubic.on_congestion(path.now, 0, ALONE);
    close_to(&*cubic, 490.0);
    // K = cbrt(105 / 0.4) = 6.404 s
    path.rounds_for(&mut *cubic, Duration::from_millis(6400));
    close_to(&*cubic, 595.0);
}

#[test]
fn cubic_starts_anew_after_a_timeout() {
    // RFC 9438 §4.8: K is 0, so growth is convex at once, from the threshold.
    let mut path = Path::new(100);
    let mut cubic = grown("cubic", 1000, &mut path);
    cubic.on_rto(path.now, 0, true);
    while cubic.in_slow_start() {
        path.round(&mut *cubic);
    }
    let threshold = cubic.cwnd() as f64 / MSS as f64;
    path.rounds_for(&mut *cubic, Duration::from_secs(5));
    close_to(&*cubic, threshold + 0.4 * 5.1_f64.powi(3));
}

#[test]
fn cubic_time_stands_still_while_the_window_is_unused() {
    let mut path = Path::new(100);
    let mut cubic = grown("cubic", 1000, &mut path);
    cubic.on_congestion(path.now, 0, ALONE);
    path.rounds_for(&mut *cubic, Duration::from_secs(2));
    let before = cubic.cwnd();
    // Given twenty seconds in which little is sent, and then five in which nothing is,
    for _ in 0..200 {
        path.now += path.rtt;
        cubic.on_ack(&AckSample { cwnd_limited: false, ..sample(path.now, MSS, path.rtt) }, ALONE);
    }
    path.now += Duration::from_secs(5);
    cubic.on_idle(path.now, Duration::from_secs(6), Duration::from_secs(5));
    assert_eq!(cubic.cwnd(), before);
    // when the window is used again, then growth goes on where it stood at two seconds.
    path.rounds_for(&mut *cubic, Duration::from_secs(3));
    close_to(&*cubic, 0.4 * (5.1_f64 - 9.0856).powi(3) + 1000.0);
}

/// Slow start on a path whose round trip grows by `step_ms` a round from round `from` until `to`.
fn slow_start_with_delay(
    step_ms: u64,
    from: usize,
    to: usize,
    rounds: usize,
) -> (Box<dyn CongestionControl>, Vec<u64>) {
    let mut path = Path::new(80);
    let mut cubic = by_name("cubic", MSS).unwrap();
    let mut windows = Vec::new();
    for round in 0..rounds {
        if (from..to).contains(&round) {
            path.rtt += Duration::from_millis(step_ms);
        }
        path.round(&mut *cubic);
        windows.push(cubic.cwnd() / MSS);
    }
    (cubic, windows)
}

#[test]
fn hystart_leaves_slow_start_when_round_trips_get_longer() {
    // Given a delay that rises by more than an eighth, 80 ms to 100 ms, from the fourth round on,
    let (cubic, windows) = slow_start_with_delay(20, 3, 20, 12);
    // then the window doubles until then, grows by about a quarter for five rounds, and hardly at all after.
    assert_eq!(windows[..3], [20, 40, 80]);
    let ratio = |n: usize| windows[n] as f64 / windows[n - 1] as f64;
    for round in 4..8 {
        assert!((1.2..1.3).contains(&ratio(round)), "{windows:?}");
    }
    assert!(!cubic.in_slow_start());
    assert!(ratio(10) < 1.05, "{windows:?}");
    assert!(cubic.ssthresh() < 500 * MSS, "{windows:?}");
}

#[test]
fn hystart_goes_on_when_the_delay_was_a_moment_s() {
    // Given one slow round among quick ones,
    let mut path = Path::new(80);
    let mut cubic = by_name("cubic", MSS).unwrap();
    for round in 0..8 {
        path.rtt = Duration::from_millis(if round == 3 { 120 } else { 80 });
        path.round(&mut *cubic);
    }
    // then the window still doubles in the end.
    assert!(cubic.in_slow_start());
    let before = cubic.cwnd();
    path.round(&mut *cubic);
    assert_eq!(cubic.cwnd(), 2 * before);
}

#[test]
fn hystart_ignores_small_changes() {
    let (cubic, windows) = slow_start_with_delay(3, 2, 8, 8);
    assert_eq!(windows, [20, 40, 80, 160, 320, 640, 1280, 2560]);
    assert!(cubic.in_slow_start());
}

#[test]
fn hystart_leaves_slow_start_when_acknowledgements_come_without_a_pause() {
    // Given acknowledgements of 128 segments that arrive within 60 of 80 ms, less than a millisecond apart,
    let mut path = Path::new(80);
    let mut cubic = by_name("cubic", MSS).unwrap();
    for train in [5, 10, 20, 40] {
        path.round_within(&mut *cubic, Duration::from_millis(train));
        assert!(cubic.in_slow_start(), "a train of {train} ms");
    }
    path.round_within(&mut *cubic, Duration::from_millis(60));
    // then slow start ends where they have taken half a round trip, at the window that there was.
    assert!(!cubic.in_slow_start());
    assert!((160 * MSS..300 * MSS).contains(&cubic.ssthresh()), "{}", cubic.ssthresh());
    assert!(cubic.cwnd() < cubic.ssthresh() * 11 / 10);
}

#[test]
fn hystart_takes_pauses_out_of_a_train() {
    // Given a round trip of 80 ms with acknowledgements of one segment each, a millisecond apart but for a pause of 10 ms
    // after every fifteenth,
    let mut cubic = by_name("cubic", MSS).unwrap();
    let mut path = Path::new(80);
    path.round(&mut *cubic);
    let mut left_after = None;
    for n in 1..=60 {
        path.now += Duration::from_millis(if n % 15 == 0 { 10 } else { 1 });
        let sample = AckSample { round_start: n == 1, ..sample(path.now, MSS, path.rtt) };
        cubic.on_ack(&sample, ALONE);
        if !cubic.in_slow_start() {
            left_after.get_or_insert(n);
        }
    }
    // then slow start ends when those without a pause come to half a round trip.
    assert_eq!(left_after, Some(44));
}

#[test]
fn hystart_knows_that_a_delayed_acknowledgement_stands_for_two_segments() {
    // Given acknowledgements of every second segment of 10 Mbit/s, 2.4 ms apart, or of each one with such a pause,
    let ends = |segments: u64| {
        let mut cubic = by_name("cubic", MSS).unwrap();
        let mut path = Path::new(80);
        path.round(&mut *cubic);
        for n in 0..20 {
            path.now += Duration::from_micros(2400);
            let sample = AckSample { round_start: n == 0, ..sample(path.now, segments * MSS, path.rtt) };
            cubic.on_ack(&sample, ALONE);
        }
        !cubic.in_slow_start()
    };
    // then the former are a train, and the latter are none.
    assert_eq!([ends(2), ends(1)], [true, false]);
}

#[test]
fn hystart_sees_no_train_in_pauses_nor_in_a_small_window() {
    // Given acknowledgements of two segments each that fill the round trip, but 6 ms apart,
    let mut path = Path::new(80);
    let mut cubic = by_name("cubic", MSS).unwrap();
    path.round(&mut *cubic);
    path.round_within(&mut *cubic, Duration::from_millis(60));
    assert!(cubic.in_slow_start());
    // or a window of ten segments whose acknowledgements come without a pause, then slow start goes on.
    let mut cubic = by_name("cubic", MSS).unwrap();
    for ms in 0..8 {
        let now = path.now + Duration::from_millis(ms);
        let sample = AckSample { round_start: ms == 0, ..sample(now, MSS / 10, Duration::from_millis(8)) };
        cubic.on_ack(&sample, ALONE);
    }
    assert!(cubic.in_slow_start());
}

#[derive(Clone, Debug)]
enum Op {
    Ack { delivered: u64, rtt_us: u64, limited: bool, recovery: bool, round: bool },
    Congestion,
    Rto(bool),
    Spurious,
    Idle(u64),
    Penalise,
    SetMss(u64),
}

fn any_op() -> impl Strategy<Value = Op> {
    let delivered = prop_oneof![0u64..3000, 0u64..70_000, Just(1 << 31)];
    let ack =
        (delivered, 1u64..10_000_000, prop::bool::weighted(0.8), prop::bool::weighted(0.1), any::<bool>()).prop_map(
            |(delivered, rtt_us, limited, recovery, round)| Op::Ack { delivered, rtt_us, limited, recovery, round },
        );
    prop_oneof![
        12 => ack,
        2 => Just(Op::Congestion),
        1 => any::<bool>().prop_map(Op::Rto),
        1 => Just(Op::Spurious),
        1 => (0u64..100_000_000).prop_map(Op::Idle),
        1 => Just(Op::Penalise),
        1 => (1u64..70_000).prop_map(Op::SetMss),
    ]
}

proptest! {
    #[test]
    fn the_window_stays_sane(
        name in prop_oneof![Just("reno"), Just("cubic")],
        ops in prop::collection::vec((any_op(), 0u64..1_000_000_000), 1..200),
    ) {
        let mut mss = MSS;
        let mut cc = by_name(name, mss).unwrap();
        let mut now = Instant::ZERO;
        for (op, gap) in ops {
            now += Duration::from_nanos(gap);
            let before = cc.metrics();
            match op {
                Op::Ack { delivered, rtt_us, limited, recovery, round } => {
                    let rtt = Duration::from_micros(rtt_us);
                    let sample = AckSample { cwnd_limited: limited, in_recovery: recovery, round_start: round, ..sample(now, delivered, rtt) };
                    cc.on_ack(&sample, ALONE);
                    prop_assert!(cc.cwnd() >= before.cwnd, "an acknowledgement shrank the window");
                    prop_assert!(cc.cwnd() <= before.cwnd + delivered.max(mss * delivered.div_ceil(before.cwnd)), "it grew by more than was delivered");
                }
                Op::Congestion => {
                    cc.on_congestion(now, before.cwnd, ALONE);
                    prop_assert!(cc.cwnd() <= before.cwnd.max(2 * mss));
                    prop_assert_eq!(cc.cwnd(), cc.ssthresh());
                }
                Op::Rto(first) => {
                    cc.on_rto(now, before.cwnd / 4, first);
                    prop_assert_eq!(cc.cwnd(), before.cwnd / 4 + mss);
                }
                Op::Spurious => {
                    cc.on_spurious(now);
                    prop_assert!(cc.cwnd() >= before.cwnd && cc.ssthresh() >= before.ssthresh);
                }
                Op::Idle(idle_us) => {
                    now += Duration::from_micros(idle_us);
                    cc.on_idle(now, Duration::from_millis(200), Duration::from_micros(idle_us));
                    prop_assert!(cc.cwnd() <= before.cwnd);
                }
                Op::Penalise => {
                    cc.penalise(now);
                    prop_assert!(cc.cwnd() <= before.cwnd);
                }
                Op::SetMss(new) => {
                    mss = new;
                    cc.set_mss(mss);
                }
            }
            prop_assert!(cc.cwnd() >= mss, "less than a segment");
            prop_assert!(cc.cwnd() <= 1 << 33, "{} bytes", cc.cwnd());
            prop_assert!(cc.ssthresh() > 0);
        }
    }
}
