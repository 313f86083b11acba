//! Pacing: when the next may go, and how much at once.

use super::*;

fn paced(cwnd: u64, always: bool, max_rate: Option<u64>) -> Trace {
    let mut t = Trace::new(cwnd);
    t.snd.set_pacing(Pacing { always, max_rate });
    t
}

fn us(n: u64) -> Duration {
    Duration::from_micros(n)
}

#[test]
fn nothing_is_held_back_unless_somebody_asks_for_it() {
    let mut t = Trace::new(10);
    t.send(4);
    assert_eq!(t.room(), 6);
    assert!(t.snd.deadline().unwrap() > t.now + ms(100), "no timer but those of loss recovery");
}

#[test]
fn segments_leave_at_the_largest_rate_that_the_socket_admits() {
    // Given a megabyte a second: a segment each millisecond.
    let mut t = paced(100, false, Some(1_000_000));
    // After silence there is nothing to make up for but half a millisecond.
    t.send(2);
    assert_eq!(t.room(), 0);
    assert_eq!(t.snd.deadline(), Some(t.now + us(1500)));
    // When the time comes, then the timer says nothing, and there is room.
    assert_eq!(t.fire(), None);
    assert_eq!(t.room(), 98);
    t.send(2);
    assert_eq!(t.snd.deadline(), Some(t.now + us(2000)));
}

#[test]
fn a_late_timer_is_made_up_for_up_to_half_a_millisecond() {
    for (late, next) in [(0, 2000), (300, 1700), (500, 1500), (5000, 1500)] {
        let mut t = paced(100, false, Some(1_000_000));
        t.send(2);
        t.now = t.snd.deadline().unwrap() + us(late);
        t.on_timer();
        t.send(2);
        assert_eq!(t.snd.deadline(), Some(t.now + us(next)), "{late} µs late");
    }
}

#[test]
fn a_window_is_paced_as_the_kernel_does_it() {
    // 10 segments in 100 ms are 100 kB/s: twice as much in slow start, a fifth more from half of the threshold on.
    let mut t = paced(10, true, None);
    t.burst(2);
    assert_eq!(t.snd.deadline(), Some(t.now + ms(10) - us(500)));
    t.snd.cc.on_congestion(t.now, 0, Group { siblings: &[], me: 0 });
    t.after(100).ack(2, &[]);
    t.burst(2);
    assert_eq!(t.snd.pacing_rate_estimate(), 60_000);
    assert_eq!(t.snd.deadline(), Some(t.now + Duration::from_nanos(33_333_333) - us(500)));
    // The smaller of both.
    let t = paced(10, true, Some(30_000));
    assert_eq!(t.snd.pacing_rate_estimate(), 30_000);
}

#[test]
fn what_goes_at_once_is_a_millisecond_s_worth() {
    for (rate, quantum) in
        [(50_000_000, 48_000), (5_000_000, 4000), (1_000_000, 2000), (150_000, 2000), (149_999, 1000)]
    {
        assert_eq!(paced(100_000, false, Some(rate)).snd.quantum(Instant::ZERO, 64_000), quantum, "at {rate} bytes/s");
    }
}

#[test]
fn who_is_not_paced_sends_as_much_at_once_and_near_peers_get_more() {
    // A thousand segments in 100 ms, twice as fast in slow start: 20 MB/s.
    let mut t = Trace::new(1000);
    assert_eq!(t.snd.quantum(t.now, 64_000), 19_000);
    assert_eq!(t.snd.quantum(t.now, 8000), 8000, "no more than the device takes");
    // Given a round trip of a millisecond, then half of the largest is added; the average is 87.625 ms.
    t.send(1).after(1).ack(1, &[]);
    assert_eq!(t.snd.quantum(t.now, 64_000), 22_000 + 32_000);
    // Within half a millisecond nothing but the device limits them.
    let mut t = Trace::new(1000);
    t.send(1);
    t.now += us(400);
    t.ack(1, &[]);
    assert_eq!(t.snd.quantum(t.now, 64_000), 64_000);
    // Two are under way at least, and a segment is the least.
    assert_eq!(Trace::new(10).snd.quantum(Instant::ZERO, 64_000), 2000);
    let mut t = Trace::new(9);
    t.send(1).after(1).ack(1, &[]);
    assert_eq!(t.snd.quantum(t.now, 64_000), 4000);
    assert_eq!(Trace::new(1).snd.quantum(Instant::ZERO, 64_000), 1000);
}

#[test]
fn what_was_lost_waits_for_its_time_too_but_a_probe_does_not() {
    let mut t = paced(100, false, Some(100_000));
    t.burst(10);
    // Sent at once, 10 segments take 100 ms; the ACK tells of a loss earlier.
    t.after(50).ack(0, &[(3, 10)]);
    assert_eq!(t.resend(), []);
    t.now = t.snd.deadline().unwrap();
    assert_eq!(t.on_timer(), None);
    assert_eq!(t.resend(), [0, 1, 2]);

    let mut t = paced(100, false, Some(1000));
    t.send(1);
    t.now += ms(300);
    assert_eq!(t.on_timer(), Some(Fired::Probe));
    assert_eq!(t.snd.room(t.now), 99 * MSS);
    assert!(t.snd.send_probe(t.now).is_some());
}

#[test]
fn pacing_can_be_switched_off() {
    let mut t = paced(100, false, Some(1000));
    t.send(1);
    assert_eq!(t.room(), 0);
    t.snd.set_pacing(Pacing::default());
    assert_eq!(t.room(), 99);
}

#[test]
fn congestion_control_hears_of_each_loss_and_what_was_in_flight() {
    // Given four segments in flight, and then four more in one super-segment,
    let mut t = Trace::new(100);
    t.send(4).after(10).burst(4);
    // when the second is lost, and then the first half of the super-segment,
    t.after(100).ack(1, &[(2, 4)]);
    t.after(10).ack(1, &[(2, 4), (6, 8)]);
    let losses = t.losses.lock().unwrap().clone();
    let told: Vec<_> = losses.iter().map(|loss| (loss.bytes, loss.tx_in_flight, loss.lost)).collect();
    // then both are told, with what was in flight when they left, and what was lost since.
    assert_eq!(told, [(MSS, 2 * MSS, MSS), (2 * MSS, 8 * MSS, 3 * MSS)]);
    assert_eq!(losses[1].total_delivered, 5 * MSS);
    // The sample of what arrived last knows of them.
    let delivery = t.samples.lock().unwrap().last().unwrap().delivery.unwrap();
    assert_eq!((delivery.tx_in_flight, delivery.lost), (8 * MSS, 3 * MSS));
    assert_eq!((delivery.prior_delivered, delivery.delivered), (0, 5 * MSS));
}
