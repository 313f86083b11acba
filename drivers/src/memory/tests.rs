use super::*;
use crate::testing::{checksum_is_right, tcp};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

fn link(offload: bool, queue_len: usize) -> (MemoryDevice, MemoryDevice) {
    pair([PathId(1), PathId(2)], MemoryConfig { offload, queue_len, ..MemoryConfig::default() }).unwrap()
}

/// Whether the device's descriptor is readable, without waiting.
fn readable(device: &MemoryDevice) -> bool {
    let fd = device.poll_fd().unwrap();
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap();
    fds[0].revents().contains(PollFlags::IN)
}

fn receive(device: &mut MemoryDevice, max: usize) -> Vec<RxPacket> {
    let mut batch = Vec::new();
    let count = device.receive(&mut batch, max).unwrap();
    assert_eq!(count, batch.len());
    batch
}

#[test]
fn with_offload_a_super_segment_passes_whole() {
    let (mut a, mut b) = link(true, 10);
    let data: Vec<u8> = (0..60_000u32).map(|n| n as u8).collect();

    a.transmit(&tcp(&data, Some(1_460))).unwrap();
    a.transmit(&tcp(&data[..1_460], Some(1_460))).unwrap();

    let batch = receive(&mut b, 10);
    assert_eq!(batch.len(), 2);
    assert_eq!((batch[0].path, batch[0].checksum), (PathId(2), RxChecksum::Trusted));
    assert_eq!((batch[0].segment_size, batch[1].segment_size), (Some(1_460), None));
    assert_eq!(batch[0].data[40..], data);
    assert_eq!((a.counters().tx_packets, a.counters().tx_segments), (2, 43));
    assert_eq!((b.counters().rx_packets, b.counters().rx_segments), (2, 43));
}

#[test]
fn without_offload_segments_pass_as_on_a_wire() {
    let (mut a, mut b) = link(false, 10);

    a.transmit(&tcp(&[7; 3_000], Some(1_460))).unwrap();

    let batch = receive(&mut b, 10);
    let lens: Vec<usize> = batch.iter().map(|packet| packet.data.len()).collect();
    assert_eq!(lens, [1_500, 1_500, 120]);
    assert!(batch.iter().all(|packet| packet.checksum == RxChecksum::Unverified && packet.segment_size.is_none()));
    assert!(batch.iter().all(|packet| checksum_is_right(&packet.data)));
}

#[test]
fn the_descriptor_is_readable_while_there_is_something() {
    let (mut a, mut b) = link(true, 10);
    assert!(!readable(&b));

    for _ in 0..3 {
        a.transmit(&tcp(b"data", None)).unwrap();
    }

    assert!(readable(&b) && !readable(&a));
    assert_eq!(receive(&mut b, 2).len(), 2);
    assert!(readable(&b), "one is left");
    assert_eq!(receive(&mut b, 2).len(), 1);
    assert!(!readable(&b), "none is left");
    assert_eq!(receive(&mut b, 2).len(), 0);
}

#[test]
fn a_full_device_hears_of_room() {
    for offload in [true, false] {
        let (mut a, mut b) = link(offload, 2);
        a.transmit(&tcp(b"one", None)).unwrap();
        a.transmit(&tcp(b"two", None)).unwrap();

        assert!(matches!(a.transmit(&tcp(b"three", None)), Err(TransmitError::Full)));
        assert!(!readable(&a));
        assert_eq!(receive(&mut b, 1).len(), 1);
        assert!(readable(&a), "there is room");
        assert_eq!(receive(&mut a, 10).len(), 0);
        assert!(readable(&a), "who receives first still hears of the room");
        a.transmit(&tcp(b"three", None)).unwrap();
        assert_eq!(receive(&mut a, 10).len(), 0);
        assert!(!readable(&a), "that is old news");

        assert_eq!(a.counters().tx_full, 1);
        assert_eq!(
            receive(&mut b, 10).iter().map(|packet| &packet.data[40..]).collect::<Vec<_>>(),
            [&b"two"[..], b"three"]
        );
    }
}

#[test]
fn a_super_segment_of_more_segments_than_the_queue_holds_is_cut_short() {
    let (mut a, mut b) = link(false, 2);

    a.transmit(&tcp(&[7; 5_000], Some(1_000))).unwrap();

    assert_eq!((receive(&mut b, 10).len(), a.counters().tx_rejected), (2, 3));
}

#[test]
fn what_was_sent_before_the_end_still_arrives() {
    let (mut a, mut b) = link(true, 2);
    a.transmit(&tcp(b"last words", None)).unwrap();

    drop(a);

    assert!(readable(&b));
    assert_eq!(b.state(), State::Gone);
    assert_eq!(receive(&mut b, 10).len(), 1);
    assert!(b.receive(&mut Vec::new(), 10).is_err());
    assert!(matches!(b.transmit(&tcp(b"anybody?", None)), Err(TransmitError::Gone(_))));
}

/// Two threads that sleep when there is nothing to do: a lost wake-up would hang one of them.
#[test]
fn no_wake_up_is_lost_between_threads() {
    const PACKETS: usize = 20_000;
    let (mut a, mut b) = link(true, 3);
    let sender = std::thread::spawn(move || {
        let data = tcp(b"data", None);
        for _ in 0..PACKETS {
            while let Err(error) = a.transmit(&data) {
                assert!(matches!(error, TransmitError::Full), "{error}");
                wait_readable(&a);
                let _ = receive(&mut a, 10);
            }
        }
        a.counters()
    });

    let mut received = 0;
    while received < PACKETS {
        wait_readable(&b);
        received += receive(&mut b, 2).len();
    }

    let counters = sender.join().unwrap();
    assert_eq!((counters.tx_packets as usize, received), (PACKETS, PACKETS));
}

fn wait_readable(device: &MemoryDevice) {
    let fd = device.poll_fd().unwrap();
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let ready = poll(&mut fds, Some(&Timespec { tv_sec: 5, tv_nsec: 0 })).unwrap();
    assert_eq!(ready, 1, "a lost wake-up");
}
