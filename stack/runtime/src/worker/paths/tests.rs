use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anabranch_drivers::Capabilities;
use anabranch_frame::{Header, Payload, Slices};
use parking_lot::Mutex;

use super::*;

/// What the test and its device share.
#[derive(Debug, Default)]
struct Script {
    /// Packets that the device takes before it is full.
    room: usize,
    state: Option<State>,
    sent: Vec<u8>,
    inbox: Vec<RxPacket>,
    flushes: usize,
}

struct Scripted(Arc<Mutex<Script>>);

impl Device for Scripted {
    fn name(&self) -> &str {
        "scripted"
    }
    fn path(&self) -> PathId {
        PathId(0)
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            mtu: 1500,
            max_len: 1500,
            segmentation_offload: false,
            checksum_offload: false,
            full_until: Readiness::Writable,
        }
    }
    fn state(&self) -> State {
        self.0.lock().state.unwrap_or(State::Up)
    }
    fn receive(&mut self, batch: &mut Vec<RxPacket>, max: usize) -> io::Result<usize> {
        let mut script = self.0.lock();
        let n = max.min(script.inbox.len());
        batch.extend(script.inbox.drain(..n));
        match script.state {
            Some(State::Gone) if n == 0 => Err(io::ErrorKind::BrokenPipe.into()),
            _ => Ok(n),
        }
    }
    fn transmit(&mut self, packet: &Transmit) -> Result<(), TransmitError> {
        let mut script = self.0.lock();
        match (script.state, script.room) {
            (Some(State::Down), _) => Err(TransmitError::Down),
            (Some(State::Gone), _) => Err(TransmitError::Gone(io::ErrorKind::BrokenPipe.into())),
            (_, 0) => Err(TransmitError::Full),
            _ => {
                script.room -= 1;
                script.sent.push(packet.payload[0][0]);
                Ok(())
            }
        }
    }
    fn flush(&mut self) {
        self.0.lock().flushes += 1;
    }
    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn counters(&self) -> Counters {
        Counters { tx_packets: self.0.lock().sent.len() as u64, ..Counters::default() }
    }
}

fn path(room: usize) -> (PathQueue, Arc<Mutex<Script>>, Stats) {
    let script = Arc::new(Mutex::new(Script { room, ..Script::default() }));
    (PathQueue::new(Box::new(Scripted(Arc::clone(&script))), None), script, Stats::default())
}

fn packet(mark: u8) -> Transmit {
    Transmit {
        path: PathId(0),
        header: Header::zeroed(40),
        transport_offset: 20,
        checksum_offset: 16,
        payload: Slices::from_iter([Payload::from(&[mark])]),
        segment_size: None,
    }
}

fn writable() -> Ready {
    Ready { token: Token::Path(PathId(0)), readable: false, writable: true, broken: false }
}

fn dropped(stats: &Stats) -> u64 {
    stats.transmit_dropped.load(Ordering::Relaxed)
}

const NOW: Instant = Instant::from_millis(1_000);

#[test]
fn what_a_full_device_refuses_goes_out_in_order_when_there_is_room() {
    let (mut path, script, stats) = path(2);
    for mark in 0..5 {
        path.send(NOW, packet(mark), &stats);
    }
    path.flush(NOW, &stats);
    assert_eq!(script.lock().sent, [0, 1]);
    assert_eq!(script.lock().flushes, 1);
    assert!(path.wants_out() && !path.is_blocked());

    script.lock().room = 2;
    path.flush(NOW, &stats);
    assert_eq!(script.lock().sent, [0, 1], "nobody said yet that there is room");

    path.ready(writable());
    path.flush(NOW, &stats);
    assert_eq!(script.lock().sent, [0, 1, 2, 3]);
    assert!(path.wants_out(), "one still waits");

    script.lock().room = 9;
    path.ready(writable());
    path.flush(NOW, &stats);
    path.send(NOW, packet(5), &stats);
    assert_eq!(script.lock().sent, [0, 1, 2, 3, 4, 5]);
    assert!(!path.wants_out());
    assert_eq!((path.next_look(), dropped(&stats)), (None, 0));
}

#[test]
fn a_device_that_stays_full_holds_the_others_up_for_ten_milliseconds() {
    let (mut path, _script, stats) = path(0);
    for mark in 0..STASH_MAX as u8 {
        assert!(!path.is_blocked());
        path.send(NOW, packet(mark), &stats);
    }
    path.flush(NOW, &stats);
    assert!(path.is_blocked());
    assert_eq!(path.next_look(), Some(NOW + STUCK_AFTER), "the worker wakes up for it");

    path.flush(NOW + STUCK_AFTER, &stats);
    assert!(!path.is_blocked(), "the others go on");
    assert_eq!(dropped(&stats), STASH_MAX as u64 / 2);
    assert_eq!(path.next_look(), None);
}

#[test]
fn a_path_goes_down_with_its_device_and_comes_back() {
    let (mut path, script, stats) = path(9);
    let poll = Poll::new().unwrap();
    script.lock().state = Some(State::Down);
    path.send(NOW, packet(0), &stats);
    assert!(!path.is_up());
    path.send(NOW, packet(1), &stats);
    assert_eq!(dropped(&stats), 2);

    path.look(NOW, &poll, &stats);
    assert_eq!(path.next_look(), Some(NOW + REFRESH_EVERY));
    script.lock().state = None;
    path.look(NOW, &poll, &stats);
    assert!(!path.is_up(), "it is not time yet");
    path.look(NOW + REFRESH_EVERY, &poll, &stats);
    assert!(path.is_up());
    assert_eq!(path.next_look(), None);
    path.send(NOW, packet(2), &stats);
    assert_eq!(script.lock().sent, [2]);

    path.want_up(false);
    assert!(!path.is_up());
    path.want_up(true);
    assert!(path.is_up());
}

#[test]
fn what_came_before_the_end_of_a_device_is_still_received() {
    let (mut path, script, stats) = path(9);
    let poll = Poll::new().unwrap();
    path.send(NOW, packet(0), &stats);
    script.lock().inbox.push(RxPacket::new(PathId(0), Payload::from(b"last")));
    script.lock().state = Some(State::Gone);

    let mut batch = Vec::new();
    path.receive(&mut batch, 9, 1000);
    assert_eq!(batch.len(), 1);
    path.ready(Ready { token: Token::Path(PathId(0)), readable: true, writable: false, broken: false });
    path.receive(&mut batch, 9, 1000);
    path.look(NOW, &poll, &stats);
    assert!(!path.is_up() && path.device.is_none());
    assert_eq!(path.counters().tx_packets, 1, "its counts are not forgotten");
    path.receive(&mut batch, 9, 1000);
    path.send(NOW, packet(1), &stats);
    assert_eq!((path.next_look(), dropped(&stats)), (None, 1));
}
