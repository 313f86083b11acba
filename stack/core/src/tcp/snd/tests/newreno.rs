use super::*;

fn newreno(cwnd: u64) -> Trace {
    Trace::with(cwnd, false)
}

#[test]
fn the_third_duplicate_ack_makes_a_loss() {
    let mut t = newreno(10);
    t.send(10).after(100);
    for _ in 0..2 {
        assert!(!t.ack(0, &[]).entered_recovery);
    }
    assert_eq!(t.room(), 2, "limited transmit");
    let out = t.ack(0, &[]);
    assert_eq!((out.entered_recovery, out.lost), (true, 1000));
    assert_eq!(t.resend(), [0]);
    assert_eq!(t.told(), [Told::Congestion]);
}

#[test]
fn a_super_segment_loses_one_segment_at_a_time() {
    let mut t = newreno(40);
    t.burst(40).after(100);
    for _ in 0..3 {
        t.ack(0, &[]);
    }
    assert_eq!(t.resend(), [0]);
}

#[test]
fn partial_acks_retransmit_the_next_hole_and_the_full_ack_ends_it() {
    let mut t = newreno(10);
    t.send(10).after(100);
    for _ in 0..7 {
        t.ack(0, &[]);
    }
    assert_eq!(t.resend(), [0]);
    assert_eq!(t.after(100).ack(4, &[]).lost, 1000);
    assert_eq!(t.resend(), [4]);
    assert_eq!(t.after(100).ack(7, &[]).lost, 1000);
    assert_eq!(t.resend(), [7]);
    assert!(t.after(100).ack(10, &[]).left_recovery);
    assert_eq!(t.told(), [Told::Congestion]);
}

#[test]
fn what_a_recovery_retransmitted_does_not_start_the_next() {
    // RFC 6582: duplicate ACKs for data up to `recover` come from needless retransmissions.
    let mut t = newreno(10);
    t.send(10).after(100);
    for _ in 0..3 {
        t.ack(0, &[]);
    }
    t.resend();
    t.ack(10, &[]);
    t.send(5);
    for _ in 0..4 {
        assert!(!t.ack(10, &[]).entered_recovery);
    }
    t.ack(11, &[]);
    for _ in 0..2 {
        t.ack(11, &[]);
    }
    assert!(t.ack(11, &[]).entered_recovery, "beyond it they count again");
}

#[test]
fn only_pure_acks_that_change_nothing_are_duplicates() {
    let mut t = newreno(10);
    t.send(10).after(100);
    let ack = AckIn { ack: 1, window: 1 << 30, seq: 1, sack: &[], ts_rtt: None, ece: false, pure: true, signal: false };
    for _ in 0..5 {
        t.hear(&AckIn { pure: false, ..ack });
        t.hear(&AckIn { signal: true, ..ack });
        t.hear(&AckIn { window: 1 << 29, ..ack });
        t.hear(&AckIn { window: 1 << 30, ..ack });
    }
    assert!(!t.snd.in_recovery());
    assert_eq!(t.in_flight(), 10);
    for _ in 0..3 {
        t.hear(&ack);
    }
    assert!(t.snd.in_recovery());
}

#[test]
fn sack_blocks_that_were_not_agreed_on_are_ignored() {
    let mut t = newreno(10);
    t.send(10).after(100);
    assert_eq!(t.ack(0, &[(1, 10)]).sack_discarded, 1);
    assert_eq!(t.snd.unacked().filter(|(_, _, sacked)| *sacked).count(), 0);
}

#[test]
fn more_duplicate_acks_than_segments_do_not_underflow() {
    let mut t = newreno(4);
    t.send(4).after(100);
    for _ in 0..50 {
        t.ack(0, &[]);
    }
    assert!(t.in_flight() <= 4);
    t.resend();
    t.ack(4, &[]);
    assert_eq!((t.in_flight(), t.snd.deadline()), (0, None));
}

#[test]
fn there_is_no_probe_without_sack() {
    let mut t = newreno(10);
    t.send(3);
    assert_eq!(t.fire(), rto(1));
    assert_eq!(t.resend(), [0], "one segment of window");
}
