use std::net::IpAddr;
use std::time::Duration;

use anabranch_frame::{Instant, Transmit};
use proptest::prelude::*;

use super::table::NEIGHBOURS_MAX;
use super::*;
use crate::testing;

const MAC_A: Mac = [2, 0, 0, 0, 0, 0xa];
const MAC_B: Mac = [2, 0, 0, 0, 0, 0xb];
const MAC_C: Mac = [2, 0, 0, 0, 0, 0xc];
/// Addresses of A and B, in both families.
const PAIRS: [(&str, &str); 2] = [("10.9.0.2", "10.9.0.1"), ("fd09::2", "fd09::1")];

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(secs: u64) -> Instant {
    Instant::from_millis(1_000_000 + secs * 1_000)
}

fn stations(queues: usize, mac: Mac, v4: &str, v6: &str, gateways: &[&str]) -> Vec<Station> {
    let gateways: Vec<IpAddr> = gateways.iter().map(|gateway| addr(gateway)).collect();
    Station::for_queues(queues, mac, &[(addr(v4), 24), (addr(v6), 64)], &gateways).collect()
}

fn a() -> Station {
    stations(1, MAC_A, PAIRS[0].0, PAIRS[1].0, &[]).remove(0)
}

fn b() -> Station {
    stations(1, MAC_B, PAIRS[0].1, PAIRS[1].1, &[]).remove(0)
}

fn packet() -> Transmit {
    testing::tcp(b"hello", None)
}

/// The one frame that a station has to send.
fn frame(station: &mut Station) -> Vec<u8> {
    match (station.next_out(), station.next_out()) {
        (Some(Out::Frame(frame)), None) => frame,
        other => panic!("not one frame: {other:?}"),
    }
}

fn is_quiet(station: &mut Station) -> bool {
    station.next_out().is_none()
}

/// Where the packets go that a station lets go of now.
fn released(station: &mut Station) -> Vec<Mac> {
    std::iter::from_fn(|| station.next_out())
        .map(|out| match out {
            Out::Packet(_, mac) => mac,
            Out::Frame(frame) => panic!("a frame: {frame:02x?}"),
        })
        .collect()
}

/// A asks B, and gets its answer.
fn find(a: &mut Station, b: &mut Station, target: IpAddr, now: Instant) {
    assert_eq!(a.look_up(target, now), Lookup::Wait(target));
    assert_eq!(b.input(&frame(a), now), Input::Neighbours);
    assert_eq!(a.input(&frame(b), now), Input::Neighbours);
    assert_eq!(a.look_up(target, now), Lookup::Mac(MAC_B));
}

#[test]
fn a_packet_waits_until_its_neighbour_has_answered() {
    for (ours, theirs) in PAIRS.map(|(a, b)| (addr(a), addr(b))) {
        let (mut a, mut b) = (a(), b());

        assert_eq!(a.look_up(theirs, at(0)), Lookup::Wait(theirs));
        a.park(theirs, packet());
        let question = frame(&mut a);
        assert_eq!(question[..6], if theirs.is_ipv4() { BROADCAST } else { [0x33, 0x33, 0xff, 0, 0, 1] });
        assert_eq!(b.input(&question, at(0)), Input::Neighbours);
        let answer = frame(&mut b);
        assert_eq!((&answer[..6], &answer[6..12]), (&MAC_A[..], &MAC_B[..]));
        assert_eq!(a.input(&answer, at(0)), Input::Neighbours);

        assert_eq!(released(&mut a), [MAC_B]);
        assert_eq!(a.look_up(theirs, at(29)), Lookup::Mac(MAC_B));
        // Who was asked knows who asked.
        assert_eq!(b.look_up(ours, at(0)), Lookup::Mac(MAC_A));
        assert!(is_quiet(&mut a) && is_quiet(&mut b));
        assert_eq!(a.unresolved(), 0);
    }
}

#[test]
fn an_answer_on_another_queue_is_everybodys() {
    let mut queues = stations(2, MAC_A, PAIRS[0].0, PAIRS[1].0, &[]);
    let mut b = b();
    let target = addr(PAIRS[0].1);

    assert_eq!(queues[0].look_up(target, at(0)), Lookup::Wait(target));
    queues[0].park(target, packet());
    b.input(&frame(&mut queues[0]), at(0));
    queues[1].input(&frame(&mut b), at(0));

    assert_eq!(released(&mut queues[1]), [MAC_B]);
    assert_eq!(look_up_by_each(&mut queues, target, at(0)), [Lookup::Mac(MAC_B); 2]);
}

fn look_up_by_each(queues: &mut [Station], target: IpAddr, now: Instant) -> Vec<Lookup> {
    queues.iter_mut().map(|queue| queue.look_up(target, now)).collect()
}

#[test]
fn all_queues_hear_of_a_neighbour_that_moves() {
    for (_, theirs) in PAIRS.map(|(a, b)| (a, addr(b))) {
        let mut queues = stations(2, MAC_A, PAIRS[0].0, PAIRS[1].0, &[]);
        let mut b = b();
        queues[0].look_up(theirs, at(0));
        b.input(&frame(&mut queues[0]), at(0));
        queues[0].input(&frame(&mut b), at(0));
        assert_eq!(look_up_by_each(&mut queues, theirs, at(0)), [Lookup::Mac(MAC_B); 2]);

        // Too soon after it has said where it is: somebody else may be lying.
        b.set_mac(MAC_C);
        b.announce();
        let announcements: Vec<Out> = std::iter::from_fn(|| b.next_out()).collect();
        let hear = |queues: &mut Vec<Station>, now| {
            for out in &announcements {
                let Out::Frame(frame) = out else { panic!("{out:?}") };
                assert_eq!(queues[1].input(frame, now), Input::Neighbours);
            }
        };
        hear(&mut queues, at(0));
        assert_eq!(look_up_by_each(&mut queues, theirs, at(0)), [Lookup::Mac(MAC_B); 2]);

        hear(&mut queues, at(2));
        assert_eq!(look_up_by_each(&mut queues, theirs, at(2)), [Lookup::Mac(MAC_C); 2]);
    }
}

#[test]
fn nobody_answers() {
    let mut a = a();
    let target = addr(PAIRS[0].1);
    let mut asked = Vec::new();
    // Given somebody who tries every quarter of a second for six seconds, ...
    for quarter in 0..24 {
        let now = at(0) + Duration::from_millis(250 * quarter);
        assert_eq!(a.look_up(target, now), Lookup::Wait(target));
        a.park(target, packet());
        if !is_quiet(&mut a) {
            asked.push(quarter / 4);
        }
    }
    // ... then the question is asked once a second, and after the third in vain nothing waits any more.
    assert_eq!(asked, [0, 1, 2, 3, 4, 5]);
    assert_eq!(a.unresolved(), 24);
    // When it is there at last, it is found.
    let mut b = b();
    a.look_up(target, at(7));
    b.input(&frame(&mut a), at(7));
    a.input(&frame(&mut b), at(7));
    assert_eq!(a.look_up(target, at(7)), Lookup::Mac(MAC_B));
    assert!(released(&mut a).is_empty());
}

#[test]
fn a_neighbour_in_use_is_asked_whether_it_is_still_there() {
    for theirs in PAIRS.map(|(_, b)| addr(b)) {
        let (mut a, mut b) = (a(), b());
        find(&mut a, &mut b, theirs, at(0));

        // Used after its time, it is believed for a while, then asked itself, and still used.
        assert_eq!(a.look_up(theirs, at(31)), Lookup::Mac(MAC_B));
        assert!(is_quiet(&mut a));
        assert_eq!(a.look_up(theirs, at(37)), Lookup::Mac(MAC_B));
        let question = frame(&mut a);
        assert_eq!(question[..6], MAC_B);
        b.input(&question, at(37));
        a.input(&frame(&mut b), at(37));
        assert_eq!(a.look_up(theirs, at(66)), Lookup::Mac(MAC_B));
        assert!(is_quiet(&mut a), "it has just answered");

        // If it does not answer, everybody is asked.
        a.look_up(theirs, at(70));
        for second in 76..79 {
            assert_eq!(a.look_up(theirs, at(second)), Lookup::Mac(MAC_B));
            assert_eq!(frame(&mut a)[..6], MAC_B, "at {second} s");
        }
        assert_eq!(a.look_up(theirs, at(80)), Lookup::Wait(theirs));
        assert_ne!(frame(&mut a)[..6], MAC_B);
    }
}

#[test]
fn what_is_not_on_the_wire_goes_to_the_gateway() {
    let mut with = stations(1, MAC_A, PAIRS[0].0, PAIRS[1].0, &[PAIRS[0].1, "fe80::1"]).remove(0);
    let cases = [
        ("10.9.0.77", Lookup::Wait(addr("10.9.0.77"))),
        ("192.0.2.1", Lookup::Wait(addr(PAIRS[0].1))),
        ("2001:db8::1", Lookup::Wait(addr("fe80::1"))),
        ("fe80::77", Lookup::Wait(addr("fe80::77"))),
        ("224.0.0.1", Lookup::NoRoute),
        ("0.0.0.0", Lookup::NoRoute),
    ];
    for (destination, expected) in cases {
        assert_eq!(with.look_up(addr(destination), at(0)), expected, "{destination}");
    }
    for destination in ["192.0.2.1", "2001:db8::1"] {
        assert_eq!(a().look_up(addr(destination), at(0)), Lookup::NoRoute);
    }
}

#[test]
fn a_crowd_does_not_displace_who_is_in_use() {
    let mut ours = Station::for_queues(1, MAC_A, &[(addr("10.0.0.2"), 8)], &[]).next().unwrap();
    let mut peer = Station::for_queues(1, MAC_B, &[(addr("10.0.0.1"), 8)], &[]).next().unwrap();
    find(&mut ours, &mut peer, addr("10.0.0.1"), at(0));

    for n in 0..3 * NEIGHBOURS_MAX as u32 {
        let stranger = IpAddr::from((0x0a01_0000 + n).to_be_bytes());
        let mut stranger = Station::for_queues(1, MAC_C, &[(stranger, 8)], &[]).next().unwrap();
        stranger.look_up(addr("10.0.0.2"), at(1));
        ours.input(&frame(&mut stranger), at(1));
        // Each gets its answer.
        assert_eq!(stranger.input(&frame(&mut ours), at(1)), Input::Neighbours);
    }

    assert!(ours.neighbours() <= NEIGHBOURS_MAX, "{} are known", ours.neighbours());
    assert_eq!(ours.look_up(addr("10.0.0.1"), at(1)), Lookup::Mac(MAC_B));
    assert!(is_quiet(&mut ours));
}

#[test]
fn packets_do_not_pile_up() {
    let mut ours = Station::for_queues(1, MAC_A, &[(addr("10.0.0.2"), 8)], &[]).next().unwrap();
    for n in 0..100u32 {
        let nobody = IpAddr::from((0x0a01_0000 + n).to_be_bytes());
        for _ in 0..20 {
            ours.look_up(nobody, at(0));
            ours.park(nobody, packet());
        }
    }
    assert_eq!(2_000 - ours.unresolved(), 256, "packets wait");
}

#[test]
fn only_what_concerns_us_is_heard() {
    let (mut a, mut b) = (a(), b());
    let theirs = PAIRS.map(|(_, b)| addr(b));
    let questions: Vec<Vec<u8>> = theirs
        .iter()
        .map(|theirs| {
            a.look_up(*theirs, at(0));
            frame(&mut a)
        })
        .collect();
    let changed = |of: &[u8], at: usize, value: u8| {
        let mut frame = of.to_vec();
        frame[at] = value;
        frame
    };
    let [arp, ndp] = &questions[..] else { panic!() };
    let tcp = [&header(MAC_B, MAC_A, ETHERTYPE_IPV4)[..], &[0x45; 40]].concat();
    let cases = [
        ("to us", tcp.clone(), Input::Packet),
        ("to another host", changed(&tcp, 0, 4), Input::Foreign),
        ("to everybody", changed(&tcp, 0, 0xff), Input::Foreign),
        ("of another protocol", changed(&tcp, 12, 0x88), Input::Foreign),
        ("IPv6 that says it is IPv4", changed(&tcp, 14, 0x60), Input::Malformed),
        ("too short for a header", tcp[..13].to_vec(), Input::Malformed),
        ("without content", tcp[..14].to_vec(), Input::Malformed),
        ("ARP for somebody else", changed(arp, 41, 77), Input::Neighbours),
        ("ARP of another kind of hardware", changed(arp, 15, 2), Input::Malformed),
        ("ARP from a group", changed(arp, 22, 0xff), Input::Malformed),
        ("ARP cut off", arp[..41].to_vec(), Input::Malformed),
        ("NDP that was forwarded", changed(ndp, 21, 254), Input::Malformed),
        ("NDP with a wrong checksum", changed(ndp, 56, 1), Input::Malformed),
        ("NDP of another code", changed(ndp, 55, 1), Input::Malformed),
        ("NDP from a group", changed(ndp, 22, 0xff), Input::Malformed),
        ("NDP cut off", ndp[..77].to_vec(), Input::Malformed),
        ("a router's advertisement", changed(ndp, 54, 134), Input::Malformed),
        ("another ICMPv6 message to a group", changed(ndp, 54, 128), Input::Foreign),
    ];
    for (what, bytes, expected) in cases {
        assert_eq!(b.input(&bytes, at(0)), expected, "{what}");
        assert!(is_quiet(&mut b), "{what} is answered");
    }
}

proptest! {
    #[test]
    fn garbage_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        b().input(&bytes, at(0));
    }

    #[test]
    fn damaged_messages_are_survived(
        v6: bool,
        len in 0usize..120,
        damage in proptest::collection::vec((0usize..120, any::<u8>()), 0..4),
        fix_checksum: bool,
    ) {
        let (mut a, mut b) = (a(), b());
        a.look_up(addr(if v6 { PAIRS[1].1 } else { PAIRS[0].1 }), at(0));
        let mut bytes = frame(&mut a);
        bytes.truncate(len.max(ETHERNET_HEADER));
        for (at, value) in damage {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        if v6 && fix_checksum && bytes.len() > 58 {
            // So that what is behind the checksum is looked at, too.
            let mut packet = smoltcp::wire::Ipv6Packet::new_unchecked(&mut bytes[ETHERNET_HEADER..]);
            if packet.check_len().is_ok() {
                let (source, destination) = (packet.src_addr(), packet.dst_addr());
                smoltcp::wire::Icmpv6Packet::new_unchecked(packet.payload_mut()).fill_checksum(&source, &destination);
            }
        }
        b.input(&bytes, at(0));
        while let Some(out) = b.next_out() {
            prop_assert!(matches!(out, Out::Frame(_)));
        }
    }
}
