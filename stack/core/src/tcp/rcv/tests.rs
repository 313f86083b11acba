use super::*;
use std::vec::Vec;

const SEGMENT: u64 = 1000;

fn rcv() -> Rcv {
    let mut rcv = Rcv::new(SeqNum(0), None, Instant::ZERO);
    rcv.on_ack_sent(1 << 30);
    rcv
}

/// However many islands there are, every hole between them may be filled: first to last, last to first, from the middle.
#[test]
fn with_as_many_islands_as_there_may_be_any_hole_can_be_filled() {
    let mut rcv = rcv();
    let island = |n: u64| 1 + (2 * n + 1) * SEGMENT..1 + (2 * n + 2) * SEGMENT;
    let hole = |n: u64| 1 + 2 * n * SEGMENT..1 + (2 * n + 1) * SEGMENT;
    let most = ISLANDS_MAX as u64;
    for n in 0..most {
        assert!(rcv.admits(&island(n)));
        rcv.record(island(n));
    }
    assert!(!rcv.admits(&island(most + 1)), "one more island, far from the others");
    for n in [most / 2, most - 1, 1, 7] {
        assert!(rcv.admits(&hole(n)), "hole {n}");
        rcv.record(hole(n));
    }
    assert!(rcv.admits(&island(most + 1)), "islands were joined: there is room for another");
    assert!(rcv.admits(&hole(0)));
    assert_eq!(rcv.record(hole(0)), 4 * SEGMENT, "the first hole, and what follows up to hole 2");
}

/// Linux's `tcp_grow_window`: as long as segments earn more of the window, each is acknowledged at once.
#[test]
fn every_segment_is_acknowledged_until_the_window_is_earned() {
    // Given a window of as much as a hundred segments earn, beyond what nobody has to,
    const WINDOW: u64 = 65_535 + 100 * 2 * SEGMENT;
    let mut rcv = Rcv::new(SeqNum(0), None, Instant::ZERO);
    rcv.on_ack_sent(WINDOW);
    let (rtt, rto) = (Duration::from_millis(10), Duration::from_millis(210));
    let arrival = Arrival { len: SEGMENT, segment: SEGMENT, push: false, sack: true, rtt, rto };
    // when 200 come in order,
    let mut at_once = Vec::new();
    for n in 0..200 {
        let now = Instant::from_millis(n);
        rcv.record(1 + n * SEGMENT..1 + (n + 1) * SEGMENT);
        rcv.on_data(now, &arrival, false);
        if rcv.acks.due() == AckDue::Now {
            at_once.push(n);
            rcv.on_ack_sent(WINDOW);
        }
    }
    // then a hundred of them are acknowledged one by one, and of the rest every second.
    assert_eq!(at_once[..100], (0..100).collect::<Vec<_>>()[..]);
    assert_eq!(at_once[101..].len(), 49, "{at_once:?}");
}
