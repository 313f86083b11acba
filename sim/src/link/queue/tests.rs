//! What the disciplines make of a stream that is too fast for their link.

use core::time::Duration;

use super::*;
use crate::{Link, seed_from_env};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// An IPv4 header and 980 bytes, with this ECN field.
fn packet(ecn: u8) -> Payload {
    let mut bytes = vec![0; 1000];
    bytes[..20].copy_from_slice(&[0x45, ecn, 0x03, 0xe8, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    Payload::from(bytes)
}

/// Offers a link of 8 Mbit/s (a packet each millisecond) one packet every `gap` for `time`, and drains it.
/// The packets that came out, and the link.
fn overload(aqm: Aqm, ecn: Option<u8>, gap: Duration, time: Duration) -> (Vec<Payload>, Link) {
    let config = LinkConfig::new(8, 0).queue_packets(1000).aqm(aqm, ecn.is_some());
    let mut link = Link::new(config, Random::new(seed_from_env(1), 1), Instant::ZERO);
    let mut out = Vec::new();
    let mut now = Instant::ZERO;
    while now < Instant::ZERO + time {
        link.enqueue(now, packet(ecn.unwrap_or(0)));
        out.extend(core::iter::from_fn(|| link.poll(now)));
        now += gap;
    }
    while let Some(at) = link.next() {
        out.extend(link.poll(at));
    }
    (out, link)
}

#[test]
fn a_queue_without_management_fills_up() {
    // Given a quarter more than the link carries, for ten seconds.
    let (_, link) = overload(Aqm::None, None, Duration::from_micros(800), ms(10_000));
    assert_eq!((link.stats().queue_max_packets, link.stats().dropped_aqm), (1000, 0));
    assert!(link.stats().dropped_queue > 1000);
    assert!(link.queue_delay().max() > ms(980), "{:?}", link.queue_delay().max());
}

#[test]
fn codel_leaves_short_bursts_alone() {
    // Given bursts of 60 ms of traffic, gone before the interval of 100 ms is over.
    let config = LinkConfig::new(8, 0).aqm(Aqm::Codel(Codel::default()), false);
    let mut link = Link::new(config, Random::new(seed_from_env(1), 1), Instant::ZERO);
    for burst in 0..20 {
        for _ in 0..60 {
            link.enqueue(Instant::from_millis(burst * 200), packet(0));
        }
    }
    while let Some(at) = link.next() {
        let _ = link.poll(at);
    }
    assert_eq!((link.stats().delivered_packets, link.stats().dropped()), (1200, 0));
}

#[test]
fn codel_ends_a_standing_queue_and_drops_ever_faster() {
    // Given 2 % more than the link carries, which is a standing queue that grows slowly.
    let (out, link) = overload(Aqm::Codel(Codel::default()), None, Duration::from_micros(980), ms(60_000));
    let stats = link.stats();
    assert_eq!(stats.dropped_queue, 0);
    assert_eq!(out.len() as u64 + stats.dropped_aqm, stats.offered_packets);
    // Then it drops what is too much, and not much more: the link is kept busy.
    let surplus = 60_000 * 2 / 98;
    assert!((surplus / 2..surplus * 2).contains(&stats.dropped_aqm), "{} of {surplus}", stats.dropped_aqm);
    assert!(link.queue_delay().percentile(50.0) < ms(60), "{:?}", link.queue_delay().percentile(50.0));
}

#[test]
fn codel_drops_its_first_packets_at_the_times_of_the_control_law() {
    // Given everything at once: the first packet beyond the target is that of 5 ms, so the first drop
    // comes at 105 ms and the next ones 100 ms / √n later, n = 1, 2, 3…
    let config = LinkConfig::new(8, 0).aqm(Aqm::Codel(Codel::default()), false);
    let mut link = Link::new(config, Random::new(seed_from_env(1), 1), Instant::ZERO);
    for _ in 0..1000 {
        link.enqueue(Instant::ZERO, packet(0));
    }
    let mut drops = Vec::new();
    while let Some(at) = link.next() {
        let _ = link.poll(at);
        for _ in drops.len() as u64..link.stats().dropped_aqm {
            drops.push(at.as_millis());
        }
    }
    // 105, 205, 275.7, 333.4, 383.4 rounded up to the millisecond in which a packet leaves.
    assert_eq!(drops[..5], [105, 205, 276, 334, 384]);
}

#[test]
fn red_drops_more_the_longer_the_queue_is_on_average() {
    // Given thresholds of 50 and 150 packets, 10 % at the upper one.
    let red = Red { min: 50_000, max: 150_000, probability: 0.1, weight: 0.02 };
    let run = |gap| overload(Aqm::Red(Some(red)), None, Duration::from_micros(gap), ms(30_000)).1;
    // When a little too much comes, then the average settles between the thresholds: 5 % are dropped.
    let little = run(950);
    let rate = little.stats().dropped_aqm as f64 / little.stats().offered_packets as f64;
    assert!((0.03..0.07).contains(&rate), "{rate}");
    let waiting = little.queue_delay().percentile(50.0);
    assert!(waiting > ms(60) && waiting < ms(140), "{waiting:?}");
    // When far too much comes, then more than the threshold's share is, and the queue is still not full.
    let much = run(500);
    let rate = much.stats().dropped_aqm as f64 / much.stats().offered_packets as f64;
    assert!((0.4..0.6).contains(&rate), "{rate}");
    assert_eq!(much.stats().dropped_queue, 0);
    // When nothing is too much, nothing is dropped.
    assert_eq!(run(1001).stats().dropped(), 0);
}

#[test]
fn red_forgets_a_queue_while_the_link_is_idle() {
    let red = Red { min: 5_000, max: 20_000, probability: 1.0, weight: 0.2 };
    let config = LinkConfig::new(8, 0).aqm(Aqm::Red(Some(red)), false);
    let mut link = Link::new(config, Random::new(seed_from_env(1), 1), Instant::ZERO);
    for burst in [0, 2_000] {
        // When ten packets come at once after an idle time, the average starts from nothing again.
        for _ in 0..8 {
            link.enqueue(Instant::from_millis(burst), packet(0));
        }
        assert_eq!(link.stats().dropped(), 0, "at {burst} ms");
        while link.poll(Instant::from_millis(burst + 1_000)).is_some() {}
    }
}

#[test]
fn with_ecn_packets_are_marked_instead_of_dropped() {
    let gap = Duration::from_micros(990);
    let red = Red { min: 20_000, max: 600_000, probability: 0.1, weight: 0.02 };
    for aqm in [Aqm::Codel(Codel::default()), Aqm::Red(Some(red))] {
        // Given a sender that can hear of it, ECT(0), every packet arrives and some with the mark.
        let (out, link) = overload(aqm, Some(2), gap, ms(20_000));
        let marked = out.iter().filter(|packet| packet[1] & 3 == 3).count() as u64;
        assert!(marked > 10, "{aqm:?}: {marked}");
        assert_eq!((marked, 0), (link.stats().marked, link.stats().dropped()), "{aqm:?}");
        // Given one that cannot, they are dropped all the same.
        let (out, link) = overload(aqm, Some(0), gap, ms(20_000));
        assert!(link.stats().dropped_aqm > 10 && link.stats().marked == 0, "{aqm:?}: {:?}", link.stats());
        assert!(out.iter().all(|packet| packet[1] & 3 == 0));
    }
}

#[test]
fn a_new_limit_holds_from_now_on() {
    let mut queue = DropTail::new(QueueLimit { packets: 10, bytes: usize::MAX });
    let mut tally = Tally::default();
    let one = || Queued { data: packet(0), bytes: 1000, since: Instant::ZERO };
    (0..8).for_each(|_| queue.push(one(), &mut tally));
    queue.set_limit(QueueLimit { packets: usize::MAX, bytes: 9_000 });
    (0..8).for_each(|_| queue.push(one(), &mut tally));
    assert_eq!((queue.packets(), tally.dropped_full), (9, 7));
}
