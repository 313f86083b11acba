use super::*;
use crate::tcp::snd::rtt::Rtt;

const RTO_MAX: Duration = Duration::from_secs(120);

#[test]
fn the_timeout_follows_rfc_6298_with_the_kernels_bounds() {
    let mut rtt = Rtt::new(&Recovery::default());
    let mut now = Instant::ZERO;
    assert_eq!(rtt.rto(), Duration::from_secs(3), "after a handshake that measured nothing");
    rtt.sample(now, ms(100), 1, 1);
    assert_eq!((rtt.srtt(), rtt.rttvar(), rtt.rto()), (Some(ms(100)), ms(50), ms(300)));
    rtt.sample(now, ms(180), 1, 1);
    assert_eq!((rtt.srtt(), rtt.rttvar()), (Some(ms(110)), Duration::from_micros(57_500)));
    assert_eq!(rtt.rto(), ms(110 + 230));

    // A steady path: the allowance for variation goes down to 200 ms and no further.
    for round in 0..200 {
        now += ms(100);
        rtt.sample(now, ms(100), round * 10 + 2, round * 10 + 3);
    }
    assert!((ms(300)..ms(302)).contains(&rtt.rto()), "{:?}", rtt.rto());
    for (backoff, expected) in [(1, 600), (2, 1200), (3, 2400)] {
        rtt.back_off();
        assert_eq!(rtt.backoff(), backoff);
        assert!((ms(expected)..ms(expected + 10)).contains(&rtt.rto()));
    }
    for _ in 0..100 {
        rtt.back_off();
    }
    assert_eq!(rtt.rto(), RTO_MAX);
    rtt.clear_backoff();
    assert!(rtt.rto() < ms(310));
}

#[test]
fn extremes_are_forgotten_in_time() {
    let mut rtt = Rtt::new(&Recovery::default());
    let at = |seconds: u64| Instant::from_millis(seconds * 1000);
    rtt.sample(at(0), ms(10), 1, 1);
    rtt.sample(at(1), ms(500), 1, 1);
    for second in 2..600 {
        rtt.sample(at(second), ms(50 + second % 3), 1, 1);
        assert_eq!(rtt.max() == ms(500), second <= 11, "after {second} s: {:?}", rtt.max());
        assert_eq!(rtt.min() == ms(10), second <= 300, "after {second} s: {:?}", rtt.min());
    }
    assert_eq!((rtt.min(), rtt.max()), (ms(50), ms(52)));
}

#[test]
fn after_a_timeout_everything_is_lost_and_slow_start_begins() {
    let mut t = Trace::new(8);
    t.send(8);
    t.fire();
    t.snd.send_probe(t.now);
    assert_eq!(t.fire(), rto(1));
    assert!(t.snd.in_rto());
    assert_eq!((t.in_flight(), t.snd.queued_lost()), (0, 8000));
    assert_eq!(t.resend(), [0]);
    assert_eq!(t.told(), [Told::Rto { first: true }]);
    t.after(100).ack(1, &[]);
    assert_eq!(t.resend(), [1, 2]);
    t.after(100).ack(3, &[]);
    assert_eq!(t.resend().len(), 4);
    t.after(100).ack(7, &[]);
    assert_eq!(t.resend(), [7]);
    assert!(t.after(100).ack(8, &[]).left_recovery);
    assert!(!t.snd.in_rto());
    assert_eq!(t.told(), [], "one reduction");
}

#[test]
fn back_off_doubles_until_something_new_is_acknowledged() {
    let mut t = Trace::new(2);
    t.send(2);
    t.fire();
    t.snd.send_probe(t.now);
    let mut last = Duration::ZERO;
    for n in 1..=12 {
        let before = t.now;
        assert_eq!(t.fire(), rto(n));
        let waited = t.now - before;
        assert!(waited == RTO_MAX || n == 1 || waited == last * 2, "{waited:?} after {last:?}");
        last = waited;
        t.resend();
    }
    assert_eq!(last, RTO_MAX);
    assert_eq!(t.told()[..2], [Told::Rto { first: true }, Told::Rto { first: false }]);
    t.after(10).ack(1, &[]);
    assert_eq!(t.snd.timeouts(), 0);
    assert_eq!(t.snd.rto(), RTO_MAX, "but the sample of a retransmission is no sample (Karn), so the timeout stays");
    t.after(10).ack(2, &[]);
    t.send(1).after(100).ack(3, &[]);
    assert_eq!(t.snd.rto(), ms(300));
}

#[test]
fn timestamps_measure_retransmissions_too() {
    let mut t = Trace::new(2);
    t.send(1);
    t.fire();
    t.snd.send_probe(t.now);
    t.ts_rtt = Some(ms(180));
    assert_eq!(t.after(200).ack(1, &[]).rtt, Some(ms(180)));
    assert_eq!(t.snd.srtt(), ms(110));
}

#[test]
fn sacked_data_is_not_sent_again_after_a_timeout() {
    let mut t = Trace::new(8);
    t.send(8).after(100).ack(0, &[(4, 6)]);
    while t.fire() != rto(1) {}
    t.snd.recovery.phase = super::super::Phase::Recovery;
    t.snd.recovery.prr.cwnd = 100 * MSS;
    assert_eq!(t.resend(), [0, 1, 2, 3, 6, 7]);
}

#[test]
fn a_peer_that_takes_sacks_back_is_not_believed() {
    let mut t = Trace::new(8);
    t.send(8).after(100).ack(0, &[(2, 8)]);
    t.resend();
    // It dropped what it had: the cumulative ACK stops at something that it had SACKed.
    t.after(100).ack(2, &[]);
    assert_eq!(t.in_flight(), 0);
    let due = t.now + ms(50);
    assert_eq!((t.fire(), t.now, t.counters.tcp_sack_reneging), (rto(1), due, 1), "it has half a round trip to think");
    assert_eq!(t.snd.queued_lost(), 6000);
    assert_eq!(t.resend(), [2]);
}

#[test]
fn late_originals_take_the_timeout_back() {
    // The path froze for a second. Then the ACKs come as if nothing had happened (F-RTO with SACK).
    let mut t = Trace::new(8);
    t.send(8);
    t.fire();
    t.send(1);
    assert_eq!(t.fire(), rto(1));
    assert_eq!(t.resend(), [0]);
    t.after(5).ack(1, &[]);
    let out = t.ack(2, &[]);
    assert!(out.spurious && out.left_recovery && !t.snd.in_rto());
    assert_eq!(t.told(), [Told::Rto { first: true }, Told::Spurious]);
    assert_eq!((t.snd.queued_lost(), t.snd.cwnd()), (0, 8000));
    t.ack(9, &[(0, 1)]);
    assert_eq!((t.in_flight(), t.told()), (0, Vec::new()));
}

#[test]
fn a_timeout_in_fast_recovery_is_no_second_reduction() {
    let mut t = Trace::new(8);
    t.send(8).after(100).ack(0, &[(1, 4)]);
    t.resend();
    while !matches!(t.fire(), Some(Fired::Rto { .. })) {}
    assert_eq!(t.told(), [Told::Congestion, Told::Rto { first: false }]);
}

#[test]
fn the_timer_starts_anew_with_each_acknowledgement() {
    let mut t = Trace::with(8, false);
    t.send(1);
    t.after(50).send(1);
    assert_eq!(t.snd.deadline(), Some(t.now + ms(250)), "it covers the oldest");
    t.after(50).ack(1, &[]);
    assert_eq!(t.snd.deadline(), Some(t.now + t.snd.rto()));
}

#[test]
fn without_sack_late_originals_prove_nothing() {
    // The receiver may have had them all along, behind a hole.
    let mut t = Trace::with(8, false);
    t.send(8);
    assert_eq!(t.fire(), rto(1));
    assert_eq!(t.resend(), [0]);
    assert!(!t.after(100).ack(8, &[]).spurious);
}

#[test]
fn data_in_flight_says_nothing_about_a_timeout_in_fast_recovery() {
    let mut t = Trace::new(8);
    t.send(8).after(100).ack(0, &[(1, 4)]);
    t.resend();
    while !matches!(t.fire(), Some(Fired::Rto { .. })) {}
    assert!(!t.after(1).ack(0, &[(1, 6)]).spurious, "the loss that began it was real");
    assert!(t.snd.in_rto());
}

#[test]
fn absurd_timestamps_are_no_measurement() {
    let mut t = Trace::new(2);
    t.send(1);
    t.fire();
    t.snd.send_probe(t.now);
    t.ts_rtt = Some(Duration::MAX);
    assert_eq!(t.after(100).ack(1, &[]).rtt, None);
}

/// Three segments sent, and the acknowledgement of them lost with the path: three timeouts later.
fn cut_off() -> Trace {
    let mut t = Trace::new(8);
    t.send(3);
    while t.snd.rtt.backoff() < 3 {
        t.fire();
        t.resend();
    }
    t
}

#[test]
fn what_arrived_before_an_outage_measures_nothing_after_it() {
    let mut t = cut_off();
    let before = (t.snd.srtt(), t.snd.cwnd());
    t.told();
    let out = t.ack(0, &[(1, 3)]);
    assert_eq!((out.rtt, out.spurious, t.told()), (None, false, Vec::new()), "nor does it show a needless timeout");
    assert_eq!((t.snd.srtt(), t.snd.max_rtt()), (before.0, ms(100)));
}

#[test]
fn a_path_that_comes_up_is_tried_at_once() {
    let mut t = cut_off();
    t.told();
    t.after(1);
    assert_eq!(t.resend(), []);
    t.snd.on_path_up(t.now);
    random::check(&t.snd);
    assert_eq!(t.resend(), [0]);
    assert_eq!((t.snd.deadline(), t.told()), (Some(t.now + ms(600)), Vec::new()), "no new reduction");
    assert_eq!(t.fire(), rto(2), "patience begins anew");

    let mut t = Trace::new(8);
    t.send(3);
    t.snd.on_path_up(t.now);
    assert_eq!(t.in_flight(), 3, "nothing happens where no timer fired");
}
