use super::*;

#[test]
fn sending_takes_positions_and_acks_give_them_back() {
    let mut t = Trace::new(10);
    assert_eq!((t.snd.una(), t.snd.nxt(), t.snd.deadline()), (1, 1, None));
    assert_eq!(t.room(), 10);

    assert_eq!(t.send_bytes(4 * MSS, false), 1);
    assert_eq!(t.send_bytes(500, true), seg(4));
    assert_eq!(t.snd.nxt(), seg(4) + 501, "a FIN takes a position");
    assert_eq!(t.snd.in_flight(), 4501);
    assert_eq!(t.room(), 5, "only whole segments");
    assert!(t.snd.fin_sent() && !t.snd.everything_acked());

    let out = t.after(100).ack(4, &[]);
    assert_eq!((out.acked, out.acked_bytes, out.delivered, out.fin_acked), (4000, 4000, 4000, false));
    assert_eq!(out.rtt, Some(ms(100)));
    let out = t.ack_positions(seg(4) + 501, &[]);
    assert_eq!((out.acked, out.acked_bytes, out.fin_acked), (501, 500, true));
    assert!(t.snd.everything_acked());
    assert_eq!((t.snd.deadline(), t.snd.in_flight()), (None, 0));
    assert_eq!((t.snd.bytes_sent(), t.snd.bytes_acked(), t.snd.bytes_retrans()), (4500, 4500, 0));
}

#[test]
fn partial_acks_advance_a_record_and_keep_its_mapping() {
    let mut t = Trace::new(100);
    let mapping = TxMapping { dsn: 77, ssn: 1, len: 5000, data_fin: false, capable: false, checksum: Some(9) };
    t.snd.on_send_new(t.now, Slices::from_iter([bytes(1..3001), bytes(3001..5001)]), Some(mapping), false);

    t.after(50).ack_positions(1234, &[]);

    assert_eq!(t.snd.unacked().collect::<Vec<_>>(), [(1234..5001, Some(mapping), false)]);
    assert_eq!(t.fire(), Some(Fired::Probe));
    let probe = t.snd.send_probe(t.now).unwrap();
    verify(&probe);
    assert_eq!((probe.range, probe.mapping), (4234..5001, Some(mapping)), "the short segment at the end");
}

#[test]
fn the_peers_window_bounds_the_room_and_never_shrinks() {
    let mut t = Trace::new(10);
    let window = |t: &mut Trace, window| {
        let ack = t.snd.una();
        t.hear(&AckIn { ack, window, seq: 1, sack: &[], ts_rtt: None, ece: false, pure: true, signal: false })
    };
    t.snd.peer.right_edge = 1;
    assert!(window(&mut t, 2500).window_opened);
    assert_eq!((t.snd.room(t.now), t.snd.peer_room(), t.snd.right_edge()), (2500, 2500, 2501));
    t.send(2);
    assert_eq!(t.snd.room(t.now), 500);
    assert!(!window(&mut t, 100).window_opened, "taking the window back is ignored");
    assert_eq!((t.snd.room(t.now), t.snd.right_edge()), (500, 2501));

    // An old segment, with a window from then.
    t.hear(&AckIn { ack: 1, window: 3000, seq: 9, sack: &[], ts_rtt: None, ece: false, pure: true, signal: false });
    let out =
        t.hear(&AckIn { ack: 1, window: 9000, seq: 5, sack: &[], ts_rtt: None, ece: false, pure: true, signal: false });
    assert_eq!((out.window_opened, t.snd.right_edge()), (false, 3001));
    // Old data sent again with a new acknowledgement is news.
    let out = t.hear(&AckIn {
        ack: 1001,
        window: 9000,
        seq: 5,
        sack: &[],
        ts_rtt: None,
        ece: false,
        pure: false,
        signal: false,
    });
    assert_eq!((out.window_opened, t.snd.right_edge()), (true, 10_001));
}

#[test]
fn positions_beyond_four_gigabytes_are_no_different() {
    let mut t = Trace::new(100);
    t.snd.set_right_edge(u64::MAX);
    let big = Payload::from(alloc::vec![0; 1 << 20]);
    for _ in 0..5000 {
        let at = t.snd.on_send_new(t.now, Slices::from_iter([big.clone()]), None, false);
        t.now += Duration::from_micros(100);
        t.ack_positions(at + (1 << 20), &[]);
    }
    assert_eq!(t.snd.una(), 1 + (5000 << 20));
    assert_eq!(t.snd.bytes_acked(), 5000 << 20);
    assert!(t.snd.rack.log_len() <= 1);
}

#[test]
fn idling_for_a_timeout_restarts_the_window() {
    let mut t = Trace::new(100);
    t.burst(50).after(100).ack(50, &[]);
    assert_eq!(t.room(), 100);
    t.after(10_000);
    assert_eq!(t.room(), 10, "the initial window");
    t.send(1);
    assert_eq!(t.told(), [Told::Idle]);
}

#[test]
fn delivery_rate_is_that_of_the_path_and_not_of_a_sender_with_little_to_say() {
    let mut t = Trace::new(1000);
    // 10 segments in each of 20 round trips of 100 ms, ACKs spread over 10 ms: 100 kB/s.
    for round in 0..20 {
        t.send(10);
        t.after(90);
        for n in 1..=10 {
            t.after(1).ack(round * 10 + n, &[]);
        }
    }
    let rate = t.snd.delivery_rate();
    assert!((90_000..=110_000).contains(&rate), "{rate} bytes/s");

    t.snd.set_drained(true);
    t.send(1).after(100).ack(201, &[]);
    assert_eq!(t.snd.delivery_rate(), rate, "10 kB/s are the application's");
}

#[test]
fn round_trips_start_when_what_was_sent_after_the_last_start_is_delivered() {
    let mut t = Trace::new(100);
    t.burst(4);
    t.after(100).ack(4, &[]);
    t.send(2).after(100);
    t.ack(5, &[]);
    t.ack(6, &[]);
    let starts: Vec<bool> = t.samples.lock().unwrap().iter().map(|sample| sample.round_start).collect();
    assert_eq!(starts, [true, true, false]);
}

#[test]
fn the_window_is_the_limit_only_when_it_was_filled() {
    let mut t = Trace::new(10);
    t.snd.cc.on_congestion(t.now, 0, Group { siblings: &[], me: 0 }); // out of slow start, window 5
    t.send(2).after(100).ack(2, &[]);
    t.send(5).after(100).ack(7, &[]);
    t.send(1).after(100).ack(8, &[]);
    let limited: Vec<bool> = t.samples.lock().unwrap().iter().map(|sample| sample.cwnd_limited).collect();
    assert_eq!(limited, [false, true, false]);
}

#[test]
fn pacing_estimate_leaves_room_to_grow() {
    let mut t = Trace::new(10);
    assert_eq!(t.snd.pacing_rate_estimate(), 200_000, "slow start: twice the window per round trip");
    t.snd.cc.on_congestion(t.now, 0, Group { siblings: &[], me: 0 });
    t.snd.repace();
    assert_eq!(t.snd.pacing_rate_estimate(), 60_000, "then 1.2 times");
}

#[test]
fn a_window_that_is_not_used_comes_half_way_down() {
    // RFC 2861 §3.1: twenty segments of a window of a hundred in each round trip.
    let rounds = |slow_start_after_idle: bool| {
        let recovery = Recovery { slow_start_after_idle, ..Recovery::default() };
        let mut t = Trace::configured(100, true, true, recovery);
        for round in 1..=10 {
            t.send(20).after(100).ack(20 * round, &[]);
        }
        t.told()
    };
    assert_eq!(rounds(true), [Told::AppLimited(20 * MSS); 3], "once a timeout");
    assert_eq!(rounds(false), []);
}

#[test]
fn a_dsack_for_more_than_was_sent_twice_is_dubious() {
    let mut t = Trace::new(10);
    t.send(6).after(100).ack(6, &[]);
    for _ in 0..10 {
        assert!(t.ack(6, &[(2, 3)]).dsack);
    }
    assert_eq!((t.counters.tcp_dsack_ignored_dubious, t.counters.tcp_dsack_recv_segs), (10, 0));
}
