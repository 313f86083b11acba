use super::*;
use crate::memory::{MemoryConfig, MemoryDevice, pair};
use crate::testing::{checksum_is_right, tcp};
use proptest::prelude::*;

fn link() -> (MemoryDevice, MemoryDevice) {
    let config = MemoryConfig { offload: false, queue_len: 10_000, ..MemoryConfig::default() };
    pair([PathId(0), PathId(1)], config).unwrap()
}

/// Sends `count` numbered packets through faults in one direction, in turns of `turn`; returns the numbers in the order in
/// which they came, the packets themselves, and how many the wrapper says that it dropped.
fn through(config: FaultConfig, count: u32, turn: usize) -> (Vec<u32>, Vec<RxPacket>, u64) {
    let (a, b) = link();
    let (mut a, mut b) = (Faults::new(a, config).unwrap(), Faults::new(b, config).unwrap());
    let numbers: Vec<u32> = (0..count).collect();
    let mut batch = Vec::new();
    for turn in numbers.chunks(turn) {
        for number in turn {
            a.transmit(&tcp(&number.to_be_bytes(), None)).unwrap();
        }
        a.flush();
        while b.receive(&mut batch, 1_000).unwrap() > 0 {}
    }
    let numbers = batch.iter().map(|packet| u32::from_be_bytes(*packet.data[40..].first_chunk().unwrap())).collect();
    (numbers, batch, a.counters().tx_dropped + b.counters().rx_dropped)
}

fn tx(tx: Probabilities) -> FaultConfig {
    FaultConfig { seed: 1, tx, ..FaultConfig::default() }
}

fn rx(rx: Probabilities) -> FaultConfig {
    FaultConfig { seed: 1, rx, ..FaultConfig::default() }
}

#[test]
fn without_faults_nothing_changes() {
    let (numbers, packets, dropped) = through(FaultConfig::default(), 100, 7);

    assert_eq!((numbers, dropped), ((0..100).collect(), 0));
    assert!(packets.iter().all(|packet| checksum_is_right(&packet.data)));
}

#[test]
fn each_fault_is_as_frequent_as_asked_for() {
    let tenth = |make: fn(f64) -> Probabilities| [tx(make(0.1)), rx(make(0.1))];
    for config in tenth(|drop| Probabilities { drop, ..Probabilities::default() }) {
        let (numbers, _, dropped) = through(config, 10_000, 100);
        assert_eq!(numbers.len() as u64 + dropped, 10_000);
        assert!((900..1_100).contains(&dropped), "{dropped} dropped");
    }
    for config in tenth(|duplicate| Probabilities { duplicate, ..Probabilities::default() }) {
        let (numbers, ..) = through(config, 10_000, 100);
        assert!((10_900..11_100).contains(&numbers.len()), "{} arrived", numbers.len());
    }
    for config in tenth(|reorder| Probabilities { reorder, ..Probabilities::default() }) {
        let (numbers, ..) = through(config, 10_000, 100);
        let late = numbers.windows(2).filter(|pair| pair[1] < pair[0]).count();
        assert!((800..1_100).contains(&late), "{late} came late");
        assert_eq!(numbers.len(), 10_000);
    }
    for config in tenth(|corrupt| Probabilities { corrupt, ..Probabilities::default() }) {
        let (_, packets, _) = through(config, 10_000, 100);
        let damaged = packets.iter().filter(|packet| !checksum_is_right(&packet.data)).count();
        // A bit of the IP header may be hit instead, where TCP's checksum does not look.
        assert!((600..1_100).contains(&damaged), "{damaged} damaged");
    }
}

#[test]
fn damage_is_seen_by_the_checksum_only() {
    let (numbers, packets, _) = through(tx(Probabilities { corrupt: 1.0, ..Probabilities::default() }), 1_000, 10);

    assert_eq!(numbers.len(), 1_000);
    for packet in &packets {
        assert!(!checksum_is_right(&packet.data), "damage that the checksum does not show: {:?}", &packet.data[..]);
        assert_eq!(packet.data.len(), 44);
    }
    assert!(numbers.iter().zip(0..).any(|(&came, sent)| came != sent), "payload is hit, too");
}

#[test]
fn a_packet_is_overtaken_by_the_next_or_leaves_with_the_turn() {
    for config in [Probabilities { reorder: 1.0, ..Probabilities::default() }].into_iter().flat_map(|p| [tx(p), rx(p)])
    {
        assert_eq!(through(config, 4, 4).0, [1, 0, 3, 2]);
        assert_eq!(through(config, 3, 3).0, [1, 0, 2]);
        assert_eq!(through(config, 3, 1).0, [0, 1, 2]);
    }
}

#[test]
fn a_turn_in_which_all_is_dropped_ends() {
    let (a, b) = link();
    let mut a = a;
    let mut b = Faults::new(b, rx(Probabilities { drop: 1.0, ..Probabilities::default() })).unwrap();
    for _ in 0..100 {
        a.transmit(&tcp(b"data", None)).unwrap();
    }

    let count = b.receive(&mut Vec::new(), 10).unwrap();

    assert_eq!((count, b.counters().rx_dropped, b.counters().rx_packets), (0, 100, 100));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let (a, _b) = pair([PathId(0), PathId(1)], MemoryConfig::default()).unwrap();
    let half = Probabilities { corrupt: 0.5, ..Probabilities::default() };
    let error = Faults::new(a, tx(half)).unwrap_err();
    assert!(error.to_string().contains("memory leaves checksums out"), "{error}");

    for value in [-0.1, 1.1, f64::NAN] {
        let error = Faults::new(link().0, rx(Probabilities { reorder: value, ..half })).unwrap_err();
        assert!(error.to_string().contains("`reorder` (rx)"), "{error}");
    }
}

fn probabilities() -> impl Strategy<Value = Probabilities> {
    (0.0..1.0, 0.0..1.0, 0.0..1.0).prop_map(|(drop, duplicate, reorder)| Probabilities {
        drop,
        duplicate,
        reorder,
        corrupt: 0.0,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn packets_are_kept_or_counted(seed: u64, rx in probabilities(), tx in probabilities(), turn in 1usize..50) {
        let config = FaultConfig { seed, rx, tx };
        let (numbers, _, dropped) = through(config, 200, turn);

        let mut copies = [0u32; 200];
        for &number in &numbers {
            copies[number as usize] += 1;
        }
        let lost = copies.iter().filter(|&&copies| copies == 0).count() as u64;
        // Of two copies one may be dropped, and both may be.
        prop_assert!(lost <= dropped && dropped <= 400, "{lost} lost, {dropped} dropped");
        prop_assert!(copies.iter().all(|&copies| copies <= 4));
        prop_assert_eq!(numbers, through(config, 200, turn).0, "the same seed, another run");
    }
}
