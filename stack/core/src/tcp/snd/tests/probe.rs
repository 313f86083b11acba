use super::*;

#[test]
fn a_lost_tail_is_probed_after_two_round_trips() {
    let mut t = Trace::new(10);
    t.send(5);
    let sent = t.now;
    assert_eq!(t.fire(), Some(Fired::Probe));
    assert_eq!(t.now - sent, ms(202));
    assert_eq!(t.on_timer(), None);
    let probe = t.snd.send_probe(t.now).unwrap();
    verify(&probe);
    assert_eq!(probe.range, segs(4..5));
    assert_eq!(t.told(), []);

    // Its SACK shows what was lost.
    t.after(100);
    let out = t.ack(0, &[(4, 5)]);
    assert_eq!((out.lost, out.entered_recovery), (4000, true));
    assert_eq!(t.told(), [Told::Congestion]);
}

#[test]
fn a_lone_segment_may_wait_for_a_delayed_ack() {
    let mut t = Trace::new(10);
    t.send(1);
    let sent = t.now;
    assert_eq!(t.fire(), Some(Fired::Probe));
    assert_eq!(t.now - sent, ms(300), "not later than the timeout, which is less than 400 ms");
}

#[test]
fn each_segment_sent_or_acked_postpones_the_probe_up_to_the_timeout() {
    let mut t = Trace::new(100);
    t.send(2);
    let first = t.now;
    t.after(50).send(2);
    assert_eq!(t.snd.deadline(), Some(first + ms(252)));
    t.after(50).ack(2, &[]);
    assert_eq!(t.snd.deadline(), Some(first + ms(100) + 2 * t.snd.srtt() + ms(2)));
    for _ in 0..20 {
        t.after(50).send(1);
        assert!(t.snd.deadline().unwrap() <= first + ms(100) + t.snd.rto());
    }
}

#[test]
fn a_probe_may_be_new_data_beyond_the_window() {
    let mut t = Trace::new(5);
    t.send(5);
    assert_eq!(t.room(), 0);
    assert_eq!(t.fire(), Some(Fired::Probe));
    assert_eq!(t.room(), 1);
    t.send(1);
    assert_eq!(t.room(), 0);
    assert!(t.snd.send_probe(t.now).is_none(), "one probe is enough");
    t.after(100).ack(6, &[]);
    assert_eq!(t.told(), [], "no loss, no reduction");
}

#[test]
fn the_peers_window_holds_for_probes_too() {
    let mut t = Trace::new(5);
    t.snd.peer.right_edge = seg(5);
    t.send(5);
    assert_eq!(t.fire(), Some(Fired::Probe));
    assert_eq!(t.room(), 0);
    assert!(t.snd.send_probe(t.now).is_some());
}

/// Sends 3, probes, and returns after the ACK for all three.
fn probed() -> Trace {
    let mut t = Trace::new(10);
    t.send(3);
    t.fire();
    t.snd.send_probe(t.now).unwrap();
    t.after(100).ack(3, &[]);
    t
}

#[test]
fn a_loss_that_the_probe_repaired_reduces_the_window() {
    // No second ACK for the original: RFC 8985 §7.4.
    let mut t = probed();
    assert_eq!(t.told(), []);
    t.send(1).after(100).ack(4, &[]);
    assert_eq!(t.told(), [Told::Congestion]);
    assert!(!t.snd.in_recovery());
}

#[test]
fn a_duplicate_ack_or_a_dsack_clears_the_probe() {
    for dsack in [&[][..], &[(2, 3)]] {
        let mut t = probed();
        t.after(1).ack(3, dsack);
        t.send(1).after(100).ack(4, &[]);
        assert_eq!(t.told(), [], "with {dsack:?}");
    }
}

#[test]
fn there_is_one_probe_and_then_the_timeout() {
    let mut t = Trace::new(10);
    t.send(3);
    t.fire();
    t.snd.send_probe(t.now).unwrap();
    let probed = t.now;
    assert_eq!(t.fire(), rto(1));
    assert_eq!(t.now - probed, t.snd.rto() / 2);
}

#[test]
fn a_probe_of_a_super_segment_is_its_last_segment() {
    let mut t = Trace::new(100);
    t.send_bytes(10 * MSS, true);
    t.fire();
    let probe = t.snd.send_probe(t.now).unwrap();
    verify(&probe);
    assert_eq!((probe.range, probe.fin), (seg(9)..seg(10) + 1, true));
}

#[test]
fn an_ack_makes_a_probe_needless() {
    let mut t = Trace::new(10);
    t.send(3);
    assert_eq!(t.fire(), Some(Fired::Probe));
    t.ack(1, &[]);
    assert!(t.snd.send_probe(t.now).is_none());
}

#[test]
fn a_bare_fin_is_probed() {
    let mut t = Trace::new(10);
    t.send_bytes(0, true);
    assert_eq!(t.fire(), Some(Fired::Probe));
    let probe = t.snd.send_probe(t.now).unwrap();
    assert_eq!((probe.range, probe.fin, probe.payload.len()), (1..2, true, 0));
}
