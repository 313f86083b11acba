//! Timeouts that come too early: F-RTO (RFC 5682), and what they do to segments that are not overdue.

use super::*;

#[test]
fn new_data_goes_before_retransmissions_to_judge_a_timeout() {
    // RFC 5682 §3.1 step 2b. Then the original of what was not sent again arrives: nothing was lost.
    let mut t = Trace::plain(8);
    t.send(4);
    while t.fire() != rto(1) {}
    assert_eq!(t.resend(), [0]);
    t.after(100).ack(1, &[]);
    assert!(t.snd.next_retransmit(t.now, 65_536, &mut t.counters).is_none(), "new data first");
    assert_eq!(t.room(), 2);
    t.send(2);
    assert!(t.snd.new_data_went_first());
    assert_eq!((t.resend(), t.room()), (Vec::new(), 0));
    let out = t.after(10).ack(2, &[]);
    assert!(out.spurious && !t.snd.in_rto());
    assert_eq!(t.told(), [Told::Rto { first: true }, Told::Spurious]);
    assert_eq!((t.counters.tcp_spurious_rtos, t.counters.tcp_loss_undo), (1, 1));
}

#[test]
fn new_data_that_arrives_beyond_a_hole_shows_that_the_loss_was_real() {
    // Step 3a.
    let mut t = Trace::plain(8);
    t.send(4);
    while t.fire() != rto(1) {}
    t.resend();
    t.after(100).ack(1, &[]);
    t.send(2);
    assert!(t.snd.new_data_went_first());
    assert!(!t.after(100).ack(1, &[(4, 5)]).spurious);
    assert_eq!(t.resend(), [1]);
    // What arrives late now is not taken for a proof any more.
    assert!(!t.after(1).ack(1, &[(2, 3), (4, 5)]).spurious);
    assert_eq!(t.counters.tcp_spurious_rtos, 0);
}

#[test]
fn without_new_data_recovery_goes_on_and_proves_nothing() {
    let mut t = Trace::plain(8);
    t.send(4);
    while t.fire() != rto(1) {}
    t.resend();
    t.after(100).ack(1, &[]);
    assert_eq!(t.resend(), [1, 2]);
    assert!(!t.after(100).ack(4, &[]).spurious);
}

#[test]
fn without_sack_the_second_ack_that_advances_tells() {
    let mut t = Trace::with(8, false);
    t.send(4);
    assert_eq!(t.fire(), rto(1));
    assert_eq!(t.resend(), [0]);
    assert!(!t.after(100).ack(1, &[]).spurious);
    t.send(2);
    assert!(t.snd.new_data_went_first());
    assert!(t.after(10).ack(2, &[]).spurious, "it was not sent again");
    assert_eq!(t.counters.tcp_spurious_rtos, 1);
}

#[test]
fn several_timeouts_are_taken_back_like_one_where_there_are_no_timestamps() {
    let lost_acks = |mut t: Trace| {
        t.send(4);
        while t.fire() != rto(2) {
            t.resend();
        }
        t.after(10).ack(0, &[(1, 4)]).spurious
    };
    assert!(lost_acks(Trace::plain(8)));
    assert!(!lost_acks(Trace::new(8)), "timestamps will tell, if it was the originals that were late");
}

#[test]
fn frto_can_be_switched_off() {
    let mut t = Trace::configured(8, true, false, Recovery { frto: false, ..Recovery::default() });
    t.send(4);
    while t.fire() != rto(1) {}
    t.resend();
    t.after(100).ack(1, &[]);
    assert_eq!(t.resend(), [1, 2]);
    assert!(!t.after(10).ack(1, &[(3, 4)]).spurious);
}

#[test]
fn what_left_within_a_round_trip_is_not_lost_by_a_timeout() {
    // RFC 8985 §6.3.
    let mut t = Trace::new(20);
    t.send(1).after(100).ack(1, &[]);
    t.send(6).after(100);
    t.ack(1, &[(2, 5)]);
    assert_eq!(t.resend(), [1]);
    t.after(250).send(3);
    while !matches!(t.fire(), Some(Fired::Rto { .. })) {}
    assert_eq!((t.snd.queued_lost(), t.in_flight()), (3000, 3), "1, 5 and 6 are lost, 7 to 9 under way");
    assert_eq!(t.resend(), [1], "the head goes whatever is under way");
    assert_eq!((t.counters.tcp_sack_recovery_fail, t.counters.tcp_lost_retransmit), (1, 1));
}

#[test]
fn a_retransmission_that_is_lost_after_a_timeout_is_another_congestion() {
    // RFC 5681 §4.3.
    let mut t = Trace::new(20);
    t.send(10);
    while t.fire() != rto(1) {}
    assert_eq!(t.resend(), [0]);
    t.after(100).ack(1, &[]);
    assert_eq!(t.resend(), [1, 2]);
    t.told();
    assert!(t.after(100).ack(1, &[(2, 3)]).entered_recovery);
    assert_eq!((t.counters.tcp_lost_retransmit, t.told()), (1, Vec::from([Told::Congestion])));
}

#[test]
fn a_thin_stream_may_repeat_its_timeouts_at_the_same_distance() {
    let thin = Recovery { thin_linear_timeouts: true, early_retrans: false, ..Recovery::default() };
    let waits = |recovery| {
        let mut t = Trace::configured(8, true, true, recovery);
        t.snd.cc.on_congestion(Instant::ZERO, 0, Group { siblings: &[], me: 0 });
        t.send(2);
        let mut waits = Vec::new();
        for _ in 0..9 {
            let before = t.now;
            t.fire();
            t.resend();
            waits.push((t.now - before).as_millis());
        }
        waits
    };
    assert_eq!(waits(thin), [300, 300, 300, 300, 300, 300, 300, 600, 1200]);
    assert_eq!(waits(Recovery { thin_linear_timeouts: false, ..thin })[..3], [300, 600, 1200]);
}
