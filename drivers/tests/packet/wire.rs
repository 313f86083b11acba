//! Frames as they are.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::netns::{in_namespace, run, succeeds, tcp_segment};
use anabranch_drivers::State;
use anabranch_drivers::packet::{OpenError, Reception, VlanTag, Wire, WireConfig, WireFrame};
use anabranch_frame::{PathId, Payload};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const BOTH: [Reception; 2] = [Reception::Queue, Reception::Ring];
const FAMILIES: [(&str, &str); 2] = [("10.9.1.2", "10.9.1.3"), ("fd09:1::2", "fd09:1::3")];

/// Two ends of a wire, without a host that talks on them by itself.
fn make_pair() {
    run("ip link add va type veth peer name vb");
    for end in ["va", "vb"] {
        run(&format!("sysctl -qw net.ipv6.conf.{end}.disable_ipv6=1"));
        run(&format!("ip link set {end} arp off up"));
    }
}

fn config(name: &str) -> WireConfig {
    WireConfig { metadata: true, ..WireConfig::new(name) }
}

fn open(config: &WireConfig) -> Wire {
    let mut wires = Wire::open(config).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(wires.len(), 1);
    wires.remove(0)
}

/// A super-segment from `from` to `to`.
fn super_segment(from: &Wire, to: &Wire, (source, destination): (&str, &str), data: &[u8]) -> WireFrame {
    WireFrame::carrying(&tcp_segment(PathId(0), source, destination, &[data], Some(1_400)), to.mac(), from.mac())
}

/// The next `count` frames. Fails after five seconds.
fn receive(wire: &mut Wire, count: usize) -> Vec<WireFrame> {
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut frames = Vec::new();
    while frames.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} frames came", frames.len());
        wait(wire);
        let missing = count - frames.len();
        wire.receive(&mut frames, missing).unwrap();
    }
    frames
}

/// Waits up to 50 ms for something to receive; whether there is.
fn wait(wire: &Wire) -> bool {
    let fd = wire.poll_fd();
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 50_000_000 })).unwrap() > 0
}

#[test]
fn a_super_segment_passes_whole() {
    for reception in BOTH {
        in_namespace(move || {
            make_pair();
            let mut sender = open(&config("va"));
            let mut receiver = open(&WireConfig { reception, ..config("vb") });
            assert_eq!((receiver.reception(), receiver.offload()), (reception, true));
            let data: Vec<u8> = (0..60_000u32).map(|n| (n * 7) as u8).collect();

            for family in FAMILIES {
                let sent = super_segment(&sender, &receiver, family, &data);
                sender.send(&sent).unwrap();

                let received = receive(&mut receiver, 1).remove(0);

                assert_eq!(received.data, sent.data);
                assert_eq!((received.segment_size(), received.segment_count()), (Some(1_400), 43));
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
                let age = now.saturating_sub(received.received.expect("a time stamp"));
                assert!(age < Duration::from_secs(5), "received {age:?} ago");
            }
            assert_eq!(sender.counters().tx_rejected, 0);
        });
    }
}

#[test]
fn without_virtio_headers_segments_are_cut_here() {
    in_namespace(|| {
        make_pair();
        let mut sender = open(&WireConfig { offload: false, ..config("va") });
        let mut receiver = open(&config("vb"));
        for family in FAMILIES {
            let sent = super_segment(&sender, &receiver, family, &[5; 3_000]);
            let mut expected = Vec::new();
            sent.for_each_segment(&mut Vec::new(), |segment| expected.push(segment.to_vec()));

            sender.send(&sent).unwrap();

            let received: Vec<Vec<u8>> = receive(&mut receiver, 3).iter().map(|frame| frame.data.to_vec()).collect();
            assert_eq!(received, expected);
        }
    });
}

#[test]
fn what_was_received_can_be_sent_on_with_its_tag() {
    for reception in BOTH {
        in_namespace(move || {
            make_pair();
            let mut sender = open(&config("va"));
            let mut receiver = open(&WireConfig { reception, ..config("vb") });
            let tag = VlanTag { tpid: 0x8100, tci: 0x2007 };
            let mut sent = super_segment(&sender, &receiver, FAMILIES[0], &[5; 20_000]);
            sent.vlan = Some(tag);
            sender.send(&sent).unwrap();
            let there = receive(&mut receiver, 1).remove(0);
            assert_eq!((there.vlan, there.segment_size()), (Some(tag), Some(1_400)));

            assert_eq!(receiver.send_many(&[there.clone(), there]).unwrap(), 2);

            for back in receive(&mut sender, 2) {
                assert_eq!((back.vlan, back.segment_size(), &back.data), (Some(tag), Some(1_400), &sent.data));
            }
        });
    }
}

#[test]
fn an_interface_that_cannot_cut_segments_gets_them_through_the_qdisc() {
    in_namespace(|| {
        make_pair();
        if !succeeds("ethtool -K va tso off") {
            eprintln!("SKIPPED: no ethtool");
            return;
        }
        let mut sender = open(&config("va"));
        let mut receiver = open(&config("vb"));
        let sent = super_segment(&sender, &receiver, FAMILIES[0], &[5; 3_000]);

        sender.send(&sent).unwrap();

        assert_eq!(receive(&mut receiver, 3).len(), 3);
        assert_eq!(sender.counters().tx_rejected, 0);
    });
}

#[test]
fn a_frame_that_is_too_long_is_counted_and_the_next_one_passes() {
    in_namespace(|| {
        make_pair();
        let mut sender = open(&config("va"));
        let mut receiver = open(&config("vb"));
        let mut long = vec![0x5a; 2_000];
        long[12..14].copy_from_slice(&[0x08, 0x00]);
        let short = Payload::from(&long[..200]);
        let frames = [WireFrame::new(Payload::from(long)), WireFrame::new(short.clone())];

        assert_eq!(sender.send_many(&frames).unwrap(), 2);

        assert_eq!(receive(&mut receiver, 1)[0].data, short);
        assert_eq!(sender.counters().tx_rejected, 1);
    });
}

#[test]
fn an_overflow_is_counted_and_over_when_there_is_room() {
    for reception in BOTH {
        in_namespace(move || {
            make_pair();
            let mut sender = open(&config("va"));
            let mut receiver = open(&WireConfig { reception, buffer_bytes: 1, ..config("vb") });
            let sent = super_segment(&sender, &receiver, FAMILIES[0], &[5; 50_000]);

            (0..100).for_each(|_| sender.send(&sent).unwrap());

            std::thread::sleep(Duration::from_millis(20));
            let mut frames = Vec::new();
            while wait(&receiver) {
                receiver.receive(&mut frames, 100).unwrap();
            }
            let dropped = receiver.counters().rx_overflow;
            assert!(dropped > 0, "{} of 100 frames came", frames.len());
            assert_eq!(frames.len() as u64 + dropped, 100);
            assert_eq!(receiver.counters().rx_overflow, dropped, "asking twice counts twice");

            sender.send(&sent).unwrap();
            assert_eq!(receive(&mut receiver, 1)[0].data, sent.data);
        });
    }
}

#[test]
fn a_fanout_keeps_each_flow_on_one_queue() {
    for reception in BOTH {
        in_namespace(move || {
            make_pair();
            let mut sender = open(&config("va"));
            let mut queues = Wire::open(&WireConfig { reception, queues: 2, ..config("vb") }).unwrap();
            assert_eq!(queues.len(), 2);
            for host in 0..32u8 {
                let (source, destination) = (format!("10.9.1.{}", 100 + host), FAMILIES[0].1);
                let frame = super_segment(&sender, &queues[0], (&source, destination), &[host; 2_000]);
                (0..4).for_each(|_| sender.send(&frame).unwrap());
            }

            let flows: Vec<BTreeSet<u8>> = queues
                .iter_mut()
                .map(|queue| {
                    let mut frames = Vec::new();
                    while wait(queue) {
                        queue.receive(&mut frames, 64).unwrap();
                    }
                    assert_eq!(frames.len() % 4, 0, "a flow is torn apart");
                    frames.iter().map(|frame| frame.data[frame.data.len() - 1]).collect()
                })
                .collect();

            assert!(flows.iter().all(|flows| !flows.is_empty()), "one queue got all: {flows:?}");
            assert!(flows[0].is_disjoint(&flows[1]), "a flow is on both queues: {flows:?}");
            assert_eq!(flows[0].len() + flows[1].len(), 32);
        });
    }
}

#[test]
fn down_up_and_gone_are_noticed() {
    for reception in BOTH {
        in_namespace(move || {
            make_pair();
            let mut wire = open(&WireConfig { reception, ..config("vb") });
            let mut other = open(&config("va"));
            let frame = super_segment(&wire, &other, FAMILIES[0], &[1; 100]);
            assert_eq!(wire.state(), State::Up);

            run("ip link set vb down");
            assert!(wire.send(&frame).is_err());
            assert_eq!(wire.receive(&mut Vec::new(), 8).unwrap(), 0);
            assert_eq!((wire.refresh(), other.refresh()), (State::Down, State::Down), "va has no carrier then");
            assert!(!wait(&wire), "a wire that is down and known to be is quiet");

            run("ip link set vb up");
            assert_eq!((wire.refresh(), other.refresh()), (State::Up, State::Up));
            wire.send(&frame).unwrap();
            assert_eq!(receive(&mut other, 1)[0].data, frame.data);
            other.send(&frame).unwrap();
            assert_eq!(receive(&mut wire, 1)[0].data, frame.data);

            run("ip link set vb mtu 1300");
            wire.refresh();
            assert_eq!(wire.mtu(), 1_300);

            run("ip link del va");
            assert_eq!(wire.refresh(), State::Gone);
            assert!(wire.send(&frame).is_err());
        });
    }
}

#[test]
fn what_cannot_be_opened_says_why() {
    in_namespace(|| {
        let error = Wire::open(&config("nothere")).unwrap_err();
        assert!(matches!(error, OpenError::NoInterface { .. }), "{error}");
        let error = Wire::open(&config("lo")).unwrap_err();
        assert!(matches!(error, OpenError::NotEthernet { .. }), "{error}");
    });
}
