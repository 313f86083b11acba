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
