use super::*;
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

const MSS: u64 = 1000;

/// An idle subflow with ten segments of room. `srtt_ms` tells them apart.
fn subflow(id: SubflowId, srtt_ms: u64) -> SubflowView {
    let srtt = Duration::from_millis(srtt_ms);
    SubflowView {
        id,
        local_id: id,
        remote_id: 0,
        backup: false,
        stale: false,
        in_rto: false,
        in_recovery: false,
        in_slow_start: false,
        srtt,
        rttvar: srtt / 8,
        min_rtt: srtt,
        max_rtt: srtt,
        cwnd: 10 * MSS,
        ssthresh: u64::MAX,
        in_flight: 0,
        queued: 0,
        room: 10 * MSS,
        pacing_rate: 10 * MSS * 1000 / srtt_ms.max(1),
        delivery_rate: 0,
        mss: MSS,
        lost: 0,
        delivered: 0,
        last_activity: Instant::ZERO,
        cost: 0,
        carried_una: false,
        walked: 0,
    }
}

/// One whose window is full.
fn full(id: SubflowId, srtt_ms: u64) -> SubflowView {
    SubflowView { room: 0, in_flight: 10 * MSS, ..subflow(id, srtt_ms) }
}

/// A megabyte waits, 100 segments are outstanding, the window is wide open.
fn view(subflows: &[SubflowView]) -> SchedView<'_> {
    SchedView {
        now: Instant::from_millis(10_000),
        ask: Ask::NewData,
        subflows,
        data_una: 400 * MSS,
        data_nxt: 500 * MSS,
        unassigned: 1000 * MSS,
        window: 4000 * MSS,
        window_left: 3900 * MSS,
        send_buffer_full: false,
    }
}

fn send(subflow: SubflowId, max_bytes: u64) -> Choice {
    Decision::Send { subflow, skip: 0, max_bytes }.into()
}

fn reinject(subflow: SubflowId, range: Range<u64>) -> Choice {
    Decision::Reinject { subflow, range }.into()
}

fn select(name: &str, view: &SchedView<'_>) -> Choice {
    by_name(name).unwrap().select(view)
}

/// Which subflow new data goes to, `None` for "wait".
fn chosen(name: &str, subflows: &[SubflowView]) -> Option<SubflowId> {
    match select(name, &view(subflows)).decision {
        Decision::Send { subflow, skip: 0, max_bytes } if max_bytes > 0 => Some(subflow),
        Decision::Wait { until: None } => None,
        other => panic!("{name} said {other:?}"),
    }
}

const ALL: [&str; 5] = ["minrtt", "linux", "roundrobin", "redundant", "backup"];

#[test]
fn the_registry_knows_its_names() {
    for name in ALL {
        assert_eq!(by_name(name).unwrap().name(), name);
        assert!(NAMES.split(", ").any(|known| known == name));
    }
    assert!(by_name("fastest").is_err());
}

#[test]
fn every_scheduler_keeps_to_the_kinds_of_subflows() {
    let fast = subflow(1, 10);
    let slow = subflow(2, 50);
    let backup = |s| SubflowView { backup: true, ..s };
    let stale = |s| SubflowView { stale: true, ..s };
    let in_rto = |s| SubflowView { in_rto: true, ..s };
    let table: [(&str, Vec<SubflowView>, Option<SubflowId>); 10] = [
        ("a backup stands by, however fast", vec![backup(fast), slow], Some(2)),
        ("a backup stands by while the other is full", vec![backup(fast), full(2, 50)], None),
        ("a backup serves when it is alone", vec![backup(fast)], Some(1)),
        ("a backup serves when the other is stale", vec![backup(fast), stale(slow)], Some(1)),
        ("a stale one is passed over", vec![stale(fast), slow], Some(2)),
        ("a stale one is passed over while the other is full", vec![stale(fast), full(2, 50)], None),
        ("stale ones serve when all are", vec![stale(fast), backup(stale(slow))], Some(1)),
        ("one in RTO recovery is passed over", vec![in_rto(fast), slow], Some(2)),
        ("one in RTO recovery serves when it is alone", vec![in_rto(fast)], Some(1)),
        ("nobody has room", vec![full(1, 10), full(2, 50)], None),
    ];
    for (story, mut subflows, expected) in table {
        // All have walked the whole stream: for the redundant scheduler there is only new data.
        for subflow in &mut subflows {
            subflow.walked = 500 * MSS;
        }
        for name in ALL {
            assert_eq!(chosen(name, &subflows), expected, "{name}: {story}");
        }
    }
}

#[test]
fn a_timeout_brings_backups_in_except_for_handover() {
    let subflows = [SubflowView { in_rto: true, ..subflow(1, 10) }, SubflowView { backup: true, ..subflow(2, 50) }];
    assert_eq!(chosen("minrtt", &subflows), Some(2));
    assert_eq!(chosen("linux", &subflows), Some(2));
    assert_eq!(chosen("backup", &subflows), Some(1));
}

#[test]
fn no_slivers() {
    let busy = |room| SubflowView { room, in_flight: 5 * MSS, walked: 500 * MSS, ..subflow(1, 10) };
    let idle = |room| SubflowView { in_flight: 0, ..busy(room) };
    // Subflow, unassigned, window left, and how much may go.
    let table = [
        (busy(999), 5000, 9000, 0),
        (busy(1000), 5000, 9000, 1000),
        (busy(999), 700, 9000, 700),
        (busy(600), 700, 9000, 0),
        (idle(600), 5000, 9000, 600),
        (idle(0), 5000, 9000, 0),
        (busy(5000), 5000, 800, 0),
        (idle(5000), 5000, 800, 800),
        (busy(5000), 300, 800, 300),
        (busy(5000), 5000, 0, 0),
        (busy(5000), 0, 9000, 0),
    ];
    for (subflow, unassigned, window_left, expected) in table {
        let subflows = [subflow];
        let view = SchedView { unassigned, window_left, ..view(&subflows) };
        for name in ALL {
            let expected = if name == "roundrobin" { expected.min(MSS) } else { expected };
            let expected = if expected > 0 { send(1, expected) } else { Choice::WAIT };
            assert_eq!(select(name, &view), expected, "{name}: {subflow:?} of {unassigned}, window {window_left}");
            assert_eq!(select(name, &SchedView { ask: Ask::Blocked, ..view }), Choice::WAIT, "{name}: blocked");
        }
    }
}

#[test]
fn minrtt_takes_the_fastest_with_room() {
    let cheap = |s| SubflowView { cost: 1, ..s };
    let dear = |s| SubflowView { cost: 9, ..s };
    let table = [
        (vec![subflow(1, 50), subflow(2, 10)], Some(2)),
        (vec![subflow(1, 50), full(2, 10)], Some(1)),
        (vec![dear(subflow(1, 20)), cheap(subflow(2, 20))], Some(2)),
        (vec![dear(subflow(1, 10)), cheap(subflow(2, 20))], Some(1)),
        (vec![subflow(2, 20), subflow(1, 20)], Some(1)),
    ];
    for (subflows, expected) in table {
        assert_eq!(chosen("minrtt", &subflows), expected, "{subflows:?}");
    }
}

/// A fast idle subflow and a slow one that holds the byte at `data_una`.
fn held_up(fast_ms: u64, slow_ms: u64) -> [SubflowView; 2] {
    [subflow(1, fast_ms), SubflowView { carried_una: true, ..full(2, slow_ms) }]
}

#[test]
fn minrtt_repeats_what_the_window_waits_for() {
    let [fast, slow] = held_up(10, 100);
    let una = 400 * MSS;
    let penalised = |choice: Choice| Choice { penalise: Some(2), ..choice };
    let table = [
        ("five times slower: repeat and penalise", [fast, slow], penalised(reinject(1, una..una + 10 * MSS))),
        ("three times slower: penalise only", held_up(10, 30), penalised(Choice::WAIT)),
        ("as fast: nothing", held_up(30, 30), Choice::WAIT),
        (
            "a tiny window counts as slow",
            [fast, SubflowView { cwnd: 4 * MSS, srtt: Duration::from_millis(11), ..slow }],
            penalised(reinject(1, una..una + 10 * MSS)),
        ),
        ("carried by both: penalise only", [SubflowView { carried_una: true, ..fast }, slow], penalised(Choice::WAIT)),
        (
            "a holder in recovery was reduced already",
            [fast, SubflowView { in_recovery: true, ..slow }],
            reinject(1, una..una + 10 * MSS),
        ),
        ("a fast one without room", [SubflowView { room: 500, in_flight: 9 * MSS, ..fast }, slow], Choice::WAIT),
        ("nobody holds it", [fast, SubflowView { carried_una: false, ..slow }], Choice::WAIT),
    ];
    for (story, subflows, expected) in table {
        // The window is closed in front of waiting data, or the writer waits and all data is out.
        let closed = SchedView { window_left: 0, ..view(&subflows) };
        assert_eq!(select("minrtt", &closed), expected, "{story}");
        let waits = SchedView { ask: Ask::Blocked, unassigned: 0, send_buffer_full: true, ..view(&subflows) };
        assert_eq!(select("minrtt", &waits), expected, "{story}");
        // Without need nothing is repeated.
        let at_ease = SchedView { ask: Ask::Blocked, unassigned: 0, ..view(&subflows) };
        assert_eq!(select("minrtt", &at_ease), Choice::WAIT, "{story}");
    }
}

#[test]
fn minrtt_repeats_no_more_than_is_outstanding() {
    let subflows = held_up(10, 100).map(|s| SubflowView { room: s.room * 10, ..s });
    let blocked = SchedView { window_left: 0, ..view(&subflows) };
    let range = |choice: Choice| match choice.decision {
        Decision::Reinject { range, .. } => range,
        other => panic!("{other:?}"),
    };
    assert_eq!(range(select("minrtt", &blocked)), 400_000..400_000 + (16 << 10));
    assert_eq!(range(select("minrtt", &SchedView { data_nxt: 400_300, ..blocked })), 400_000..400_300);
}

#[test]
fn minrtt_penalises_once_a_round_trip() {
    let subflows = held_up(10, 100);
    let mut minrtt = MinRtt::default();
    let penalised = [0, 0, 5, 10, 11, 12, 21, 40].map(|ms| {
        let now = Instant::from_millis(1000 + ms);
        minrtt.select(&SchedView { now, window_left: 0, ..view(&subflows) }).penalise
    });
    assert_eq!(penalised, [Some(2), None, None, None, Some(2), None, None, Some(2)]);
}

#[test]
fn linux_takes_the_queue_that_empties_first() {
    let queue = |id, in_flight, pacing_rate| SubflowView { in_flight, pacing_rate, ..subflow(id, 20) };
    let table = [
        // 5 kB at 1 MB/s take 5 ms, 8 kB at 2 MB/s take 4.
        (vec![queue(1, 5000, 1_000_000), queue(2, 8000, 2_000_000)], Some(2)),
        (vec![queue(1, 5000, 1_000_000), SubflowView { queued: 3000, ..queue(2, 8000, 2_000_000) }], Some(1)),
        (vec![queue(1, 5000, 1_000_000), SubflowView { room: 0, ..queue(2, 8000, 2_000_000) }], Some(1)),
        // An unknown rate is no limit.
        (vec![queue(1, 5000, 1_000_000), queue(2, 8000, 0)], Some(2)),
        (vec![queue(1, 0, 1), queue(2, 0, 1_000_000)], Some(1)),
    ];
    for (subflows, expected) in table {
        assert_eq!(chosen("linux", &subflows), expected, "{subflows:?}");
    }
}

#[test]
fn linux_sends_bursts_and_averages_the_rate() {
    let mut linux = Linux::default();
    let wide = |pacing_rate| SubflowView { room: 1000 * MSS, in_flight: 64 << 10, pacing_rate, ..subflow(1, 20) };
    assert_eq!(linux.select(&view(&[wide(1_000_000)])), send(1, 64 << 10));
    assert_eq!(linux.pacing(&wide(1)), 1_000_000);
    // As much queued as added: the average of the old rate and the new one.
    linux.select(&view(&[wide(3_000_000)]));
    assert_eq!(linux.pacing(&wide(1)), 2_000_000);
    linux.on_event(&SchedEvent::Down(1));
    assert_eq!(linux.pacing(&wide(1)), 1);
}

#[test]
fn roundrobin_takes_turns() {
    let mut roundrobin = RoundRobin::default();
    let mut turns = |subflows: &[SubflowView], count: usize| -> Vec<SubflowId> {
        let turn = |_| match roundrobin.select(&view(subflows)).decision {
            Decision::Send { subflow, max_bytes: MSS, .. } => subflow,
            other => panic!("{other:?}"),
        };
        (0..count).map(turn).collect()
    };
    assert_eq!(turns(&[subflow(3, 10), subflow(0, 90), subflow(7, 50)], 7), [0, 3, 7, 0, 3, 7, 0]);
    assert_eq!(turns(&[full(3, 10), subflow(0, 90), subflow(7, 50)], 3), [7, 0, 7]);
    assert_eq!(turns(&[subflow(3, 10)], 2), [3, 3]);
}

#[test]
fn redundant_walks_the_stream_on_each_subflow() {
    let nxt = 500 * MSS;
    let at = |walked, s| SubflowView { walked, ..s };
    let table = [
        ("who is at the end takes new data", vec![at(nxt, subflow(1, 10)), at(nxt, subflow(2, 50))], send(1, 10 * MSS)),
        (
            "who is behind comes after",
            vec![at(nxt, full(1, 10)), at(nxt - 30 * MSS, subflow(2, 50))],
            reinject(2, nxt - 30 * MSS..nxt - 20 * MSS),
        ),
        ("up to the end", vec![at(nxt, full(1, 10)), at(nxt - 300, subflow(2, 50))], reinject(2, nxt - 300..nxt)),
        ("the other is full, too", vec![at(nxt, full(1, 10)), at(0, full(2, 50))], Choice::WAIT),
        (
            "backups share the load",
            [subflow(1, 50), subflow(2, 10)].map(|s| SubflowView { backup: true, ..s }).to_vec(),
            send(2, 10 * MSS),
        ),
        ("alone it carries new data only", vec![at(0, subflow(1, 10))], send(1, 10 * MSS)),
    ];
    for (story, subflows, expected) in table {
        assert_eq!(select("redundant", &view(&subflows)), expected, "{story}");
    }
}

#[test]
fn redundant_repeats_also_when_there_is_nothing_new() {
    let subflows =
        [SubflowView { walked: 500 * MSS, ..subflow(1, 10) }, SubflowView { walked: 495 * MSS, ..subflow(2, 50) }];
    let view = SchedView { ask: Ask::Blocked, unassigned: 0, ..view(&subflows) };
    assert_eq!(select("redundant", &view), reinject(2, 495 * MSS..500 * MSS));
}

#[test]
fn backup_uses_the_cheapest_class_that_works() {
    let cost = |cost, s| SubflowView { cost, ..s };
    let stale = |s| SubflowView { stale: true, ..s };
    let table = [
        ("equals share, the fastest first", vec![subflow(1, 50), subflow(2, 10)], Some(2)),
        ("equals share", vec![subflow(1, 50), full(2, 10)], Some(1)),
        ("the cheap one carries all", vec![cost(1, subflow(1, 50)), cost(5, subflow(2, 10))], Some(1)),
        ("even if it is full", vec![cost(1, full(1, 50)), cost(5, subflow(2, 10))], None),
        ("until it is stale", vec![cost(1, stale(subflow(1, 50))), cost(5, subflow(2, 10))], Some(2)),
        (
            "a cheap backup comes after a dear regular one",
            vec![SubflowView { backup: true, ..subflow(1, 10) }, cost(5, subflow(2, 50))],
            Some(2),
        ),
    ];
    for (story, subflows, expected) in table {
        assert_eq!(chosen("backup", &subflows), expected, "{story}");
    }
}

fn any_subflow(id: SubflowId) -> impl Strategy<Value = SubflowView> {
    let flags = [any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()];
    (flags, 0u64..300, 0u64..30_000, 0u64..30_000, 0u64..10_000_000, 0u64..200_000).prop_map(
        move |([backup, stale, in_rto, in_recovery, carried_una], srtt, room, in_flight, pacing_rate, walked)| {
            SubflowView {
                backup,
                stale,
                in_rto,
                in_recovery,
                carried_una,
                room,
                in_flight,
                pacing_rate,
                walked: 400_000 + walked,
                ..subflow(id, srtt)
            }
        },
    )
}

proptest! {
    /// Whatever the view, a decision names a subflow with room and bytes that exist.
    #[test]
    fn decisions_can_be_carried_out(
        subflows in prop::collection::vec(Just(()), 1..5)
            .prop_flat_map(|n| (0..n.len() as SubflowId).map(any_subflow).collect::<Vec<_>>()),
        (outstanding, unassigned, window_left) in (0u64..200_000, 0u64..3000, 0u64..3000),
        (blocked, send_buffer_full) in any::<(bool, bool)>(),
    ) {
        let data_nxt = 400_000 + outstanding;
        let subflows: Vec<_> =
            subflows.into_iter().map(|s| SubflowView { walked: s.walked.min(data_nxt), ..s }).collect();
        let ask = if blocked { Ask::Blocked } else { Ask::NewData };
        let view = SchedView { ask, data_nxt, unassigned, window_left, send_buffer_full, ..view(&subflows) };
        for name in ALL {
            let choice = select(name, &view);
            let room = |id| subflows.iter().find(|s| s.id == id).unwrap().room;
            match choice.decision {
                Decision::Send { subflow, skip, max_bytes } => {
                    prop_assert_eq!(view.ask, Ask::NewData);
                    prop_assert!(max_bytes > 0 && max_bytes <= room(subflow).min(unassigned).min(window_left));
                    prop_assert_eq!(skip, 0);
                }
                Decision::Reinject { subflow, range } => {
                    prop_assert!(!range.is_empty() && range.end - range.start <= room(subflow));
                    prop_assert!(range.start >= view.data_una && range.end <= view.data_nxt);
                }
                Decision::Wait { until } => prop_assert_eq!(until, None),
            }
            prop_assert!(choice.penalise.is_none_or(|id| subflows.iter().any(|s| s.id == id && s.carried_una)));
        }
    }
}
