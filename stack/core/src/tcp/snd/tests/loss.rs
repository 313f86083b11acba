use super::*;

#[test]
fn three_sacked_segments_make_a_loss_and_congestion_is_told_once() {
    let mut t = Trace::new(10);
    t.send(10).after(100);
    assert_eq!(t.ack(0, &[(1, 2)]).lost, 0);
    assert_eq!(t.ack(0, &[(1, 3)]).lost, 0);
    let out = t.ack(0, &[(1, 4)]);
    assert_eq!((out.lost, out.entered_recovery, out.delivered), (1000, true, 1000));
    assert!(t.snd.in_recovery());
    assert_eq!((t.room(), t.snd.queued_lost()), (0, 1000), "lost data goes first");
    assert_eq!(t.resend(), [0]);
    assert_eq!(t.snd.queued_lost(), 0);

    // A second hole in the same window is no second episode.
    let out = t.ack(0, &[(5, 10), (1, 4)]);
    assert_eq!((out.lost, out.entered_recovery), (1000, false));
    t.after(100).ack(4, &[(5, 10)]);
    t.resend();
    let out = t.after(50).ack(10, &[]);
    assert!(out.left_recovery && !t.snd.in_recovery());
    assert_eq!(t.told(), [Told::Congestion]);
    assert_eq!((t.snd.total_retrans(), t.snd.bytes_retrans()), (2, 2000));
}

#[test]
fn new_data_goes_out_for_the_first_duplicate_acks() {
    // RFC 3042, which follows from the pipe.
    let mut t = Trace::new(10);
    t.send(10).after(100);
    assert_eq!(t.room(), 0);
    t.ack(0, &[(1, 2)]);
    assert_eq!(t.room(), 1);
    t.ack(0, &[(1, 3)]);
    assert_eq!(t.room(), 2);
}

#[test]
fn a_loss_of_the_last_but_one_is_found_by_time_alone() {
    // RFC 8985 §3.2: one SACKed segment and a quarter of the round-trip time are enough.
    let mut t = Trace::new(10);
    t.send(1).after(1).send(1);
    t.after(100);
    assert_eq!(t.ack(0, &[(1, 2)]).lost, 0);
    let at = t.now;
    assert_eq!(t.fire(), Some(Fired::Reordering));
    assert_eq!(t.now - at, ms(24 + 2), "it left a millisecond before, and a timer takes its time");
    assert_eq!(t.resend(), [0]);
    assert_eq!(t.told(), [Told::Congestion]);
    assert_eq!(t.on_timer(), None, "nothing is due twice");
}

#[test]
fn once_reordering_was_seen_three_sacks_prove_nothing() {
    let mut t = Trace::new(20);
    t.send(6).after(100);
    t.ack(0, &[(1, 3)]);
    let out = t.after(1).ack(6, &[]);
    assert_eq!(out.delivered, 4000, "0 was late, not lost");

    t.send(6).after(100);
    let out = t.ack(6, &[(7, 12)]);
    assert_eq!((out.lost, t.snd.in_recovery()), (0, false));
    assert_eq!(t.fire(), Some(Fired::Reordering));
    assert_eq!(t.resend(), [6]);
}

#[test]
fn dsacks_widen_the_reordering_window_once_a_round_trip() {
    let mut t = Trace::new(20);
    t.send(2);
    while t.fire() != rto(1) {}
    t.resend();
    t.after(100).ack(0, &[(1, 2)]);
    t.resend();
    t.after(100).ack(2, &[]);
    t.send(2).after(100).ack(4, &[]);
    t.send(4).after(100);
    // Reordering by 1, then DSACKs for what was sent twice long ago.
    t.ack(4, &[(5, 6)]);
    t.ack(6, &[]);
    assert!(t.ack(6, &[(0, 1)]).dsack);
    assert!(t.ack(6, &[(1, 2)]).dsack);
    t.ack(6, &[(7, 8)]);
    let at = t.now;
    assert_eq!(t.fire(), Some(Fired::Reordering));
    assert_eq!(t.now - at, ms(50 + 2), "two quarters of the round-trip time, not three");
}

#[test]
fn a_lost_retransmission_is_sent_again() {
    let mut t = Trace::new(10);
    t.send(10).after(100);
    t.ack(0, &[(1, 6)]);
    assert_eq!(t.resend(), [0]);
    t.send(1);
    // What was sent after the retransmission arrives, the retransmission does not.
    let out = t.after(100).ack(0, &[(10, 11), (1, 6)]);
    assert!(out.lost >= 1000);
    assert_eq!(t.resend()[0], 0);
    assert_eq!(t.told(), [Told::Congestion], "the same episode");
}

#[test]
fn a_super_segment_is_cut_where_sacks_say() {
    let mut t = Trace::new(100);
    t.burst(40).after(100);
    let out = t.ack(0, &[(10, 20)]);
    assert_eq!(out.delivered, 10_000);
    assert_eq!((out.lost, out.entered_recovery), (10_000, true), "only what was sent before");
    assert_eq!(t.resend_positions()[0].0, seg(0));
    let out = t.ack(0, &[(30, 40), (10, 20)]);
    assert_eq!((out.delivered, out.lost), (10_000, 10_000));
    assert_eq!(t.in_flight(), 20 - t.snd.queued_lost() / MSS);
}

#[test]
fn what_went_together_goes_together_again_as_far_as_admitted() {
    let mut t = Trace::new(100);
    let mapping = |dsn| TxMapping { dsn, ssn: 0, len: 1, data_fin: false, capable: false, checksum: None };
    for n in 0..3 {
        let range = segs(10 * n..10 * n + 10);
        t.snd.on_send_new(t.now, Slices::from_iter([bytes(range)]), Some(mapping(n)), false);
    }
    t.after(100).ack(0, &[(25, 30)]);
    assert_eq!(t.snd.queued_lost(), 25_000);
    t.snd.recovery.prr.cwnd = 1 << 20;

    let mut next = |max| {
        let sent = t.snd.next_retransmit(t.now, max, &mut t.counters).unwrap();
        verify(&sent);
        random::check(&t.snd);
        (sent.range, sent.mapping.unwrap().dsn)
    };
    assert_eq!(next(3_500), (segs(0..3), 0), "whole segments");
    assert_eq!(next(65_536), (segs(3..10), 0));
    assert_eq!(next(300), (seg(10)..seg(10) + 300, 1), "less than a segment if the caller has no room");
    assert_eq!(next(65_536), (seg(10) + 300..seg(20), 1));
    assert_eq!(next(65_536), (segs(20..25), 2));
    assert!(t.snd.next_retransmit(t.now, 65_536, &mut t.counters).is_none());

    // After a timeout each piece goes by itself.
    t.after(10_000).on_timer();
    t.fire();
    t.snd.recovery.phase = super::super::Phase::Recovery;
    assert_eq!(
        t.resend_positions(),
        [(seg(0), seg(3)), (seg(3), seg(10)), (seg(10), seg(10) + 300), (seg(10) + 300, seg(20)), (seg(20), seg(25))]
    );
}

#[test]
fn prr_sends_in_proportion_to_what_is_delivered() {
    // 20 in flight, down to 10: one out for two delivered.
    let mut t = Trace::new(20);
    t.send(20).after(100);
    for n in 2..=4 {
        t.ack(0, &[(1, n)]);
    }
    assert_eq!(t.told(), [Told::Congestion]);
    let mut out = t.resend().len() as u64;
    assert_eq!(out, 1, "the retransmission goes at once");
    for n in 5..=20 {
        t.ack(0, &[(1, n)]);
        let room = t.room();
        t.send(room);
        out += room;
        assert!(out <= (n - 3).div_ceil(2).max(1) + 1, "{out} out for {} delivered", n - 1);
    }
    assert_eq!(t.in_flight(), 10, "exactly the new window at the end");
}

#[test]
fn prr_keeps_the_clock_when_most_was_lost() {
    // 20 in flight of which 15 are lost: conservation, plus one segment for each ACK that advances.
    let mut t = Trace::new(20);
    t.send(20).after(100);
    t.ack(0, &[(15, 20)]);
    assert_eq!(t.in_flight(), 0);
    let first = t.resend().len();
    assert!((1..=6).contains(&first), "{first} at once for 5 delivered");
    let mut next = first as u64;
    t.after(100);
    for n in 1..=first as u64 {
        t.ack(n, &[(15, 20)]);
        let sent = t.resend().len() as u64;
        assert!(sent <= 2, "slow start at most");
        next += sent;
    }
    assert!(next > first as u64, "and it goes on");
    assert!(t.in_flight() <= 10);
}

#[test]
fn an_undo_by_dsack_restores_the_window() {
    let mut t = Trace::new(10);
    t.send(10).after(100).ack(0, &[(1, 4)]);
    assert_eq!(t.resend(), [0]);
    // The original arrives late, then the copy is reported as a duplicate.
    t.after(5).ack(10, &[]);
    assert_eq!(t.snd.cwnd(), 5 * MSS);
    let out = t.after(95).ack(10, &[(0, 1)]);
    assert!(out.dsack && out.spurious);
    assert_eq!(t.told(), [Told::Congestion, Told::Spurious]);
    assert_eq!(t.snd.cwnd(), 10 * MSS);
    assert!(!t.ack(10, &[(0, 1)]).spurious, "once");
}

#[test]
fn a_dsack_above_una_lies_within_the_second_block() {
    let mut t = Trace::new(10);
    t.send(10).after(100);
    assert!(!t.ack(0, &[(3, 5), (7, 9)]).dsack);
    let out = t.ack(0, &[(3, 4), (3, 5), (7, 9)]);
    assert_eq!((out.dsack, out.delivered, out.sack_discarded), (true, 0, 0));
}

#[test]
fn only_the_first_ack_after_the_first_retransmission_can_tell() {
    let mut t = Trace::new(10);
    t.send(10).after(100).ack(0, &[(2, 10)]);
    assert_eq!(t.snd.next_retransmit(t.now, MSS, &mut t.counters).unwrap().range, segs(0..1));
    // The ACK of the first one echoes it; what comes later was not sent for it.
    t.ts_rtt = Some(ms(100));
    t.after(100).ack(1, &[(2, 10)]);
    assert_eq!(t.resend(), [1]);
    t.ts_rtt = Some(ms(50));
    assert!(!t.after(1).ack(10, &[]).spurious);
    assert_eq!(t.told(), [Told::Congestion]);
}

#[test]
fn a_timestamp_proves_only_what_is_older_than_the_retransmission() {
    for (age, spurious) in [(101, true), (100, false)] {
        let mut t = Trace::new(10);
        t.send(10).after(100).ack(0, &[(1, 4)]);
        assert_eq!(t.resend(), [0]);
        t.ts_rtt = Some(ms(age));
        assert_eq!(t.after(100).ack(4, &[]).spurious, spurious, "an echo {age} ms old");
        assert_eq!(
            (t.counters.tcp_partial_undo, t.counters.tcp_ts_reorder),
            (u64::from(spurious), u64::from(spurious))
        );
    }
}

#[test]
fn the_echo_of_an_earlier_retransmission_is_none_of_the_original() {
    // Given an episode that is taken back while 5, which was really lost, is under way for the second time,
    let mut t = Trace::new(20);
    t.send(10).after(100).ack(0, &[(1, 5), (6, 10)]);
    assert_eq!(t.resend(), [0, 5]);
    let again = t.now;
    t.ts_rtt = Some(ms(102));
    assert!(t.after(2).ack(5, &[(6, 10)]).spurious);
    // when 5 is presumed lost once more, and sent a third time,
    t.send(4).after(100).ack(5, &[(6, 14)]);
    assert_eq!(t.fire(), Some(Fired::Reordering));
    assert_eq!(t.resend(), [5]);
    // then the acknowledgement of the second time is no sign that it was needless.
    t.now += ms(1);
    t.ts_rtt = Some(t.now - again);
    assert!(!t.ack(14, &[]).spurious);
}

#[test]
fn one_needed_retransmission_forbids_the_undo() {
    let mut t = Trace::new(10);
    t.send(10).after(100).ack(0, &[(2, 8)]);
    assert_eq!(t.resend(), [0, 1]);
    t.after(100);
    assert!(!t.ack(10, &[(0, 1)]).spurious);
    assert_eq!(t.told(), [Told::Congestion]);
}

#[test]
fn an_undo_by_timestamp_needs_no_dsack() {
    // Eifel: the ACK that ends the hole echoes the original.
    let mut t = Trace::new(10);
    t.send(10).after(100).ack(0, &[(1, 4)]);
    assert_eq!(t.resend(), [0]);
    t.ts_rtt = Some(ms(105));
    let out = t.after(5).ack(4, &[]);
    assert!(out.spurious && out.left_recovery && !t.snd.in_recovery());
    assert_eq!(t.told(), [Told::Congestion, Told::Spurious]);
}

#[test]
fn sacks_that_make_no_sense_are_counted_and_change_nothing() {
    let mut t = Trace::new(10);
    t.send(10).after(100).ack(2, &[]);
    let before = t.snd.in_flight();
    let cases = [
        ("empty", &[(4, 4)][..], 1),
        ("backwards", &[(5, 4)], 1),
        ("partly never sent", &[(9, 11)], 1),
        ("never sent", &[(20, 30), (30, 40)], 2),
        ("old, and not the first", &[(20, 30), (0, 1)], 2),
        ("partly acknowledged", &[(20, 30), (1, 3)], 2),
    ];
    for (what, sack, discarded) in cases {
        let out = t.ack(2, sack);
        assert_eq!((out.sack_discarded, out.delivered, out.dsack), (discarded, 0, false), "{what}");
        assert_eq!(t.snd.in_flight(), before, "{what}");
    }
    // An old ACK's blocks were right when it left.
    let out = t.ack(1, &[(4, 5)]);
    assert_eq!((out.sack_discarded, out.delivered), (0, 1000));
    assert_eq!(t.ack_positions(0, &[(0, 1)]).sack_discarded, 1, "nobody SACKs the SYN");
}

#[test]
fn hostile_sacks_do_not_make_records_explode() {
    let mut t = Trace::new(100_000);
    for _ in 0..4 {
        t.burst(64);
    }
    let end = t.snd.nxt();
    for round in 0..200 {
        for at in (1..end - 900).step_by(977) {
            t.ack_positions(1, &[(at + round, at + round + 1), (at, at + 3), (end - 2 - round, end - 1 - round)]);
        }
    }
    for at in (2..end - 501).step_by(502) {
        t.ack_positions(1, &[(at, at + 501)]);
    }
    let records = t.snd.unacked().count() as u64;
    assert!(records <= 4 * (end / MSS) + 8, "{records} records for {} segments", end / MSS);
}

#[test]
fn a_short_last_segment_can_be_sacked() {
    let mut t = Trace::new(100);
    t.send_bytes(4 * MSS + 10, false);
    let out = t.after(100).ack_positions(1, &[(seg(4), seg(4) + 10)]);
    assert_eq!(out.delivered, 10);
}

#[test]
fn segments_need_not_be_where_we_think() {
    // Options took 20 bytes of each segment: SACKs are not at multiples of the MSS.
    let mut t = Trace::new(100);
    t.burst(10).after(100);
    let out = t.ack_positions(1, &[(1 + 980, 1 + 5 * 980)]);
    assert_eq!((out.delivered, out.lost), (4 * 980, 980));
    assert_eq!(t.resend_positions(), [(1, 981)]);
}

#[test]
fn the_next_episode_reduces_again() {
    let mut t = Trace::new(8);
    t.send(8).after(100).ack(0, &[(1, 8)]);
    t.resend();
    let room = t.room();
    t.send(room.max(4)).after(100).ack(8, &[]);
    t.ack(8, &[(9, 12)]);
    assert_eq!(t.told(), [Told::Congestion, Told::Congestion]);
}

#[test]
fn loss_rate_is_remembered_and_ages() {
    let mut t = Trace::new(100);
    t.send(10).after(100).ack(0, &[(1, 10)]);
    assert_eq!((t.snd.lost_aged(), t.snd.delivered_aged()), (1000, 9000));
    t.resend();
    t.after(100).ack(10, &[]);
    for round in 1..1000 {
        t.burst(10).after(100).ack(10 + 10 * round, &[]);
    }
    assert!(t.snd.lost_aged() < 100 && t.snd.delivered_aged() > 500 * MSS);
}
