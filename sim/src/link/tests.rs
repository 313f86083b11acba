use core::time::Duration;

use anabranch_frame::{Instant, Payload};

use super::*;
use crate::seed_from_env;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn packet(len: usize) -> Payload {
    Payload::from(vec![0x45; len])
}

fn link(config: LinkConfig) -> Link {
    link_of_seed(config, seed_from_env(1))
}

fn link_of_seed(config: LinkConfig, seed: u64) -> Link {
    Link::new(config, Random::new(seed, 1), Instant::ZERO)
}

fn at_micros(micros: u64) -> Instant {
    Instant::from_micros(micros)
}

/// Everything that is still to come, with its time.
fn drain(link: &mut Link) -> Vec<(Instant, Payload)> {
    let mut arrivals = Vec::new();
    while let Some(now) = link.next() {
        while let Some(packet) = link.poll(now) {
            arrivals.push((now, packet));
        }
    }
    arrivals
}

fn times(link: &mut Link) -> Vec<Instant> {
    drain(link).into_iter().map(|(at, _)| at).collect()
}

/// Sends `count` packets of 1000 bytes, one every `gap`, and collects what arrives.
fn stream(link: &mut Link, count: u64, gap: Duration) -> Vec<(Instant, Payload)> {
    let mut arrivals = Vec::new();
    for n in 0..count {
        let now = Instant::ZERO + gap * n as u32;
        while let Some(next) = link.next().filter(|&next| next <= now) {
            while let Some(packet) = link.poll(next) {
                arrivals.push((next, packet));
            }
        }
        let mut bytes = vec![0x45; 1000];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        link.enqueue(now, Payload::from(bytes));
    }
    arrivals.extend(drain(link));
    arrivals
}

fn numbers(arrivals: &[(Instant, Payload)]) -> Vec<u64> {
    arrivals.iter().map(|(_, packet)| u64::from_be_bytes(packet[..8].try_into().unwrap())).collect()
}

#[test]
fn a_perfect_link_delivers_at_once() {
    let mut link = link(LinkConfig::default());
    link.enqueue(at(3), packet(100));
    assert_eq!(link.next(), Some(at(3)));
    assert_eq!(link.poll(at(3)).map(|packet| packet.len()), Some(100));
    assert_eq!(link.next(), None);
}

#[test]
fn a_packet_takes_its_sending_time_and_the_delay() {
    // Given 1 Mbit/s and 20 ms, 1250 bytes take 10 ms to send.
    let mut link = link(LinkConfig::new(1, 20));
    link.enqueue(at(0), packet(1250));
    link.enqueue(at(0), packet(1250));
    assert_eq!(times(&mut link), [at(30), at(40)]);
}

#[test]
fn the_rate_is_exact_over_a_second_even_if_a_packet_takes_a_fraction_of_a_nanosecond() {
    // Given 7 Mbit/s, of which no nanosecond is a multiple, and a queue that never runs dry.
    for rate in [7_000_000u64, 13_333_333, 999_999_937] {
        let mut link = link(LinkConfig::default().rate(rate).queue_packets(1_000_000).series(ms(1000)));
        for _ in 0..rate / 8000 + 10 {
            link.enqueue(at(0), packet(1000));
        }
        // When a second has passed, then a second's worth of packets has come out, no packet more or less.
        while link.poll(at(1000)).is_some() {}
        assert_eq!(link.stats().delivered_packets, rate / 8000, "at {rate} bit/s");
    }
}

#[test]
fn an_idle_link_saves_nothing_up() {
    let mut link = link(LinkConfig::new(8, 0));
    link.enqueue(at(0), packet(1000));
    link.enqueue(at(500), packet(1000));
    link.enqueue(at(500), packet(1000));
    assert_eq!(times(&mut link), [at(1), at(501), at(502)]);
}

#[test]
fn the_queue_drops_what_does_not_fit_and_counts_it() {
    // Given room for 5 packets beside the one being sent, when 10 come at once, 4 are dropped.
    let mut by_packets = link(LinkConfig::new(8, 0).queue_packets(5));
    let mut by_bytes = link(LinkConfig::new(8, 0).queue_bytes(5999));
    for _ in 0..10 {
        by_packets.enqueue(at(0), packet(1000));
        by_bytes.enqueue(at(0), packet(1000));
    }
    for link in [&mut by_packets, &mut by_bytes] {
        assert_eq!(drain(link).len(), 6);
        let stats = link.stats();
        assert_eq!((stats.offered_packets, stats.dropped_queue, stats.dropped()), (10, 4, 4));
        assert_eq!((stats.queue_max_packets, stats.queue_max_bytes), (5, 5000));
    }
}

#[test]
fn a_queue_measured_in_time_holds_that_much() {
    let mut link = link(LinkConfig::new(8, 0).queue_time(ms(50)));
    for _ in 0..100 {
        link.enqueue(at(0), packet(1000));
    }
    assert_eq!(link.queued(), (50, 50_000));
}

#[test]
fn uniform_jitter_stays_within_its_bounds_and_fills_them() {
    let config = LinkConfig::default().delay(ms(50)).jitter(Jitter::Uniform(ms(10))).unordered();
    let mut link = link(config);
    for _ in 0..10_000 {
        link.enqueue(at(0), packet(100));
    }
    let times = times(&mut link);
    assert_eq!(times.len(), 10_000);
    assert!(times[0] >= at(40) && times[0] < at(41), "{:?}", times[0]);
    assert!(times[9_999] <= at(60) && times[9_999] > at(59), "{:?}", times[9_999]);
    assert!(times[5_000] > at(49) && times[5_000] < at(51), "median {:?}", times[5_000]);
}

#[test]
fn normal_jitter_has_its_deviation() {
    let config = LinkConfig::default().delay(ms(50)).jitter(Jitter::Normal(ms(5))).unordered();
    let mut link = link(config);
    for _ in 0..10_000 {
        link.enqueue(at(0), packet(100));
    }
    let times = times(&mut link);
    // 68.3 % lie within one deviation, 99.7 % within three, all within four.
    let within = |from, to| times.iter().filter(|&&time| time >= at(from) && time <= at(to)).count();
    assert!((6_650..7_000).contains(&within(45, 55)), "{}", within(45, 55));
    assert!((9_930..9_999).contains(&within(35, 65)), "{}", within(35, 65));
    assert_eq!(within(30, 70), 10_000);
}

#[test]
fn jitter_keeps_the_order_unless_it_is_told_not_to() {
    let jittery = LinkConfig::new(100, 20).jitter(Jitter::Uniform(ms(15)));
    let ordered = numbers(&stream(&mut link(jittery.clone()), 1000, ms(1)));
    assert!(ordered.is_sorted());
    let unordered = numbers(&stream(&mut link(jittery.unordered()), 1000, ms(1)));
    assert!(!unordered.is_sorted());
    assert_eq!(unordered.len(), 1000);
}

#[test]
fn random_loss_has_its_rate_and_is_counted() {
    let mut link = link(LinkConfig::new(100, 5).loss(0.03));
    let arrivals = stream(&mut link, 20_000, ms(1));
    let lost = link.stats().dropped_loss;
    assert!((500..700).contains(&lost), "{lost} of 20000 lost at 3 %");
    assert_eq!(arrivals.len() as u64, 20_000 - lost);
}

#[test]
fn bursty_loss_comes_in_bursts() {
    // Given bad spells of 20 packets on average, one in 200, in which everything is lost.
    let mut link = link(LinkConfig::new(100, 5).burst_loss(0.005, 0.05, 1.0));
    let arrived = numbers(&stream(&mut link, 50_000, ms(1)));
    let holes: Vec<u64> = arrived.windows(2).map(|pair| pair[1] - pair[0] - 1).filter(|&hole| hole > 0).collect();
    let lost = link.stats().dropped_loss;
    // A tenth of the time is bad: 0.005 / (0.005 + 0.05), give or take the luck of 230 spells.
    assert!((3_500..5_600).contains(&lost), "{lost} of 50000 lost");
    let mean = lost as f64 / holes.len() as f64;
    assert!((14.0..27.0).contains(&mean), "bursts of {mean} packets");
}

#[test]
fn an_outage_swallows_what_is_sent_and_nothing_else() {
    // Given packets 10 ms apart, 5 ms under way, when the link is down from 100 to 200 ms.
    let mut link = link(LinkConfig::default().delay(ms(5)).outage(ms(100), ms(200)));
    let arrived = numbers(&stream(&mut link, 30, ms(10)));
    // Then what was sent before has arrived, and what was sent after.
    assert_eq!(arrived, (0..10).chain(20..30).collect::<Vec<_>>());
    assert_eq!(link.stats().dropped_down, 10);
    assert!(link.is_up());
}

#[test]
fn a_change_of_rate_applies_to_the_packet_half_out() {
    // Given 1250 bytes, 10 ms at 1 Mbit/s, when the rate rises tenfold after 5 ms, the rest takes 0.5 ms.
    let change = LinkChange::Rate(Some(10_000_000));
    let mut scheduled = link(LinkConfig::new(1, 0).at(ms(5), change));
    scheduled.enqueue(at(0), packet(1250));
    scheduled.enqueue(at(0), packet(1250));
    assert_eq!(times(&mut scheduled), [Instant::from_micros(5_500), Instant::from_micros(6_500)]);
    // Then a change by hand does the same.
    let mut by_hand = link(LinkConfig::new(1, 0));
    by_hand.enqueue(at(0), packet(1250));
    by_hand.change(at(5), change);
    assert_eq!(times(&mut by_hand), [Instant::from_micros(5_500)]);
}

#[test]
fn a_change_of_delay_applies_to_what_leaves_later() {
    let mut link = link(LinkConfig::default().delay(ms(50)).at(ms(10), LinkChange::Delay(ms(5))).unordered());
    let arrivals = stream(&mut link, 2, ms(20));
    assert_eq!(numbers(&arrivals), [1, 0]);
    assert_eq!(arrivals.iter().map(|&(at, _)| at).collect::<Vec<_>>(), [at(25), at(50)]);
}

#[test]
fn duplicates_corruption_and_reordering_happen_as_often_as_told() {
    let config = LinkConfig::new(100, 5).duplicate(0.1).corrupt(0.1).reorder(0.1, ms(3));
    let mut link = link(config);
    let arrivals = stream(&mut link, 10_000, ms(1));
    let stats = *link.stats();
    for (what, count) in
        [("duplicated", stats.duplicated), ("corrupted", stats.corrupted), ("reordered", stats.reordered)]
    {
        assert!((850..1_250).contains(&count), "{what}: {count} of 10000 at 10 %");
    }
    assert_eq!(arrivals.len() as u64, 10_000 + stats.duplicated);
    assert_eq!(stats.delivered_packets, arrivals.len() as u64);
    assert!(!numbers(&arrivals).is_sorted());
}

#[test]
fn corruption_turns_exactly_one_bit() {
    let mut link = link(LinkConfig::default().corrupt(1.0));
    link.enqueue(at(0), packet(500));
    let arrived = link.poll(at(0)).unwrap();
    let turned: u32 = arrived.iter().map(|byte| (byte ^ 0x45).count_ones()).sum();
    assert_eq!(turned, 1);
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_one_another() {
    let run = |seed| {
        let config = LinkConfig::new(20, 15).jitter(Jitter::Normal(ms(4))).loss(0.02).duplicate(0.01).corrupt(0.01);
        let mut link = link_of_seed(config, seed);
        let arrivals = stream(&mut link, 2_000, ms(1));
        (arrivals, *link.stats())
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn the_series_adds_up_to_what_was_delivered() {
    let mut link = link(LinkConfig::new(8, 0).series(ms(100)));
    for _ in 0..500 {
        link.enqueue(at(0), packet(1000));
    }
    drain(&mut link);
    let series = link.series().unwrap();
    assert_eq!(series.bytes().iter().sum::<u64>(), 500_000);
    // A packet a millisecond; the one that ends at 100 ms falls into the second interval.
    assert_eq!(series.bytes(), [99_000, 100_000, 100_000, 100_000, 100_000, 1_000]);
    assert_eq!(series.rates().nth(1), Some(8e6));
}

#[test]
fn polling_late_changes_nothing() {
    // The wall clock is never on time; what arrives, and the statistics, must not depend on it.
    let config =
        LinkConfig::new(10, 10).jitter(Jitter::Uniform(ms(5))).loss(0.05).series(ms(10)).outage(ms(50), ms(80));
    let (mut eager, mut lazy) = (link(config.clone()), link(config));
    let on_time = stream(&mut eager, 200, ms(1));
    for n in 0..200u64 {
        let mut bytes = vec![0x45; 1000];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        lazy.enqueue(at(n), Payload::from(bytes));
    }
    let mut late = Vec::new();
    while let Some(packet) = lazy.poll(at(10_000)) {
        late.push((at(10_000), packet));
    }
    assert_eq!(numbers(&late), numbers(&on_time));
    assert_eq!(lazy.series(), eager.series());
    assert_eq!(lazy.stats(), eager.stats());
}

#[test]
fn packets_that_are_told_of_late_leave_when_they_would_have() {
    // Given a link of 8 Mbit/s that is asked at 10 ms, before it hears of what came since 1 ms.
    for rate in [8_000_000, 7_777_777] {
        let config = LinkConfig::default().rate(rate).delay(ms(20));
        let (mut punctual, mut late) = (link(config.clone()), link(config));
        let came: Vec<u64> = vec![1000, 1000, 1500, 4000, 4100, 5200, 9999, 12_000];
        for &micros in &came {
            punctual.enqueue(at_micros(micros), packet(1000));
        }
        for batch in came.chunks(3) {
            assert_eq!(late.poll(at_micros(batch.last().unwrap() + 900)), None);
            for &micros in batch {
                late.enqueue(at_micros(micros), packet(1000));
            }
        }
        assert_eq!(times(&mut late), times(&mut punctual), "at {rate} bit/s");
    }
}

#[test]
fn a_packet_that_arrived_has_its_time() {
    let mut link = link(LinkConfig::new(8, 20));
    link.enqueue(at(0), packet(1000));
    assert_eq!(link.poll_arrival(at(500)).map(|(arrival, _)| arrival), Some(at(21)));
}

#[test]
fn periodic_loss_takes_every_nth_packet() {
    let config = LinkConfig { loss: Loss::Every(4), ..LinkConfig::default() };
    let arrived = numbers(&stream(&mut link(config), 12, ms(1)));
    assert_eq!(arrived, [0, 1, 2, 4, 5, 6, 8, 9, 10]);
}

#[test]
fn packets_are_held_back_for_a_time_in_between() {
    let config = LinkConfig::default().delay(ms(5)).reorder_within(0.5, ms(2), ms(20));
    let arrivals = stream(&mut link(config), 4_000, ms(100));
    let delays: Vec<u64> = arrivals.iter().map(|&(at, _)| at.as_micros() % 100_000).collect();
    let held: Vec<u64> = delays.iter().copied().filter(|&delay| delay != 5_000).collect();
    assert!((1_800..2_200).contains(&held.len()), "{}", held.len());
    assert!(held.iter().all(|delay| (7_000..=25_000).contains(delay)));
    let mean = held.iter().sum::<u64>() / held.len() as u64;
    assert!((15_500..16_500).contains(&mean), "{mean} µs");
}

#[test]
fn ethernet_frames_count_their_ip_packets_and_what_one_wants() {
    // Given 8 Mbit/s, a byte each microsecond: the header of 14 bytes does not count, 24 more do.
    for (overhead, micros) in [(0, 1_000), (14, 1_014), (-100, 900), (-2_000, 0)] {
        let config = LinkConfig { framing: Framing::Ethernet, overhead, ..LinkConfig::new(8, 0) };
        let mut link = link(config);
        link.enqueue(at(0), packet(1_014));
        assert_eq!(times(&mut link), [at_micros(micros)], "overhead {overhead}");
        assert_eq!(link.stats().delivered_bytes, micros);
    }
}

#[test]
fn corruption_spares_the_ethernet_header() {
    let config = LinkConfig { framing: Framing::Ethernet, ..LinkConfig::default().corrupt(1.0) };
    let mut link = link(config);
    for _ in 0..200 {
        link.enqueue(at(0), packet(20));
        let arrived = link.poll(at(0)).unwrap();
        assert_eq!(arrived[..14], [0x45; 14]);
        assert_ne!(arrived[14..], [0x45; 6]);
    }
    // A frame that is nothing but a header passes as it is.
    link.enqueue(at(0), packet(14));
    assert_eq!(link.poll(at(0)).map(|frame| frame.to_vec()), Some(vec![0x45; 14]));
}

#[test]
fn a_trace_says_when_packets_leave_and_a_new_rate_ends_it() {
    let trace = std::sync::Arc::new(Opportunities::parse("2\n4\n6\n").unwrap());
    let config = LinkConfig::default().trace(trace).delay(ms(10)).at(ms(9), LinkChange::Rate(Some(8_000_000)));
    let mut link = link(config);
    for _ in 0..6 {
        link.enqueue(at(0), packet(1_500));
    }
    // The fifth packet waits for its opportunity at 10 ms when the rate comes: it starts then.
    let micros: Vec<u64> = times(&mut link).iter().map(|at| at.as_micros()).collect();
    assert_eq!(micros, [12_000, 14_000, 16_000, 18_000, 20_500, 22_000]);
}

#[test]
fn a_policer_drops_what_is_above_its_rate_and_delays_nothing() {
    let mut link = link(LinkConfig::default().police(Police { rate: 4_000_000, burst: 5_000 }));
    let arrivals = stream(&mut link, 1_000, ms(1));
    // A kilobyte a millisecond comes, half of that flows into the bucket: 500 and the burst, less what is left.
    assert_eq!((arrivals.len(), link.stats().dropped_police), (504, 496));
    assert!(arrivals.iter().all(|(arrival, _)| arrival.as_micros() % 1_000 == 0));
}

#[test]
fn the_memory_of_the_wire_is_bounded() {
    let config = LinkConfig { wire_memory: 10_000, ..LinkConfig::default().delay(ms(100)) };
    let mut link = link(config);
    for round in 0..2 {
        for _ in 0..15 {
            link.enqueue(at(round * 200), packet(1_000));
        }
        while link.poll(at(round * 200 + 100)).is_some() {}
    }
    assert_eq!((link.stats().delivered_packets, link.stats().dropped_memory), (20, 10));
}

#[test]
fn waiting_times_are_known() {
    let mut link = link(LinkConfig::new(8, 50));
    for _ in 0..101 {
        link.enqueue(at(0), packet(1_000));
    }
    drain(&mut link);
    let delay = link.queue_delay();
    assert_eq!(delay.count(), 101);
    for (percent, millis) in [(50.0, 50.0), (99.0, 99.0), (100.0, 100.0)] {
        let it = delay.percentile(percent).as_secs_f64() * 1e3;
        assert!((it - millis).abs() <= millis * 0.01 + 0.01, "{percent} %: {it} ms");
    }
}

#[test]
fn everything_can_change_on_the_way() {
    let mut link = link(LinkConfig::default());
    let hold = Reorder { probability: 1.0, least: ms(1), most: ms(1) };
    let bucket = Police { rate: 1, burst: 0 };
    let mut one_after = |change| {
        link.change(at(0), change);
        link.enqueue(at(0), packet(100));
        drain(&mut link).len()
    };
    assert_eq!(one_after(LinkChange::Duplicate(1.0)), 2);
    assert_eq!(one_after(LinkChange::Duplicate(0.0)), 1);
    assert_eq!(one_after(LinkChange::Loss(Loss::Every(1))), 0);
    assert_eq!(one_after(LinkChange::Loss(Loss::None)), 1);
    assert_eq!(one_after(LinkChange::Police(Some(bucket))), 0);
    assert_eq!(one_after(LinkChange::Police(None)), 1);
    assert_eq!(one_after(LinkChange::Corrupt(1.0)), 1);
    assert_eq!(one_after(LinkChange::Reorder(hold)), 1);
    let stats = link.stats();
    assert_eq!((stats.corrupted, stats.reordered, stats.duplicated), (2, 1, 1));
    // The queue, too: one packet is being sent, one waits.
    link.change(at(10), LinkChange::Rate(Some(8_000_000)));
    link.change(at(10), LinkChange::Queue(QueueLimit { packets: 1, bytes: usize::MAX }));
    (0..5).for_each(|_| link.enqueue(at(10), packet(100)));
    assert_eq!(link.stats().dropped_queue, 3);
}
