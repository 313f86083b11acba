//! A network namespace for each test: on a thread of its own, so that it vanishes with the thread.

use std::io::{self, Write as _};
use std::process::Command;
use std::time::{Duration, Instant};

use anabranch_drivers::Device;
use anabranch_frame::{Header, PathId, Payload, RxPacket, Transmit, checksum};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Runs `test` in a network namespace of its own. Without the permission for one it is skipped, unless
/// `ANABRANCH_NO_SKIP=1` says that this is a failure.
pub(crate) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        // SAFETY: only this thread's network namespace changes; no file descriptor is affected.
        if let Err(error) = unsafe { unshare_unsafe(UnshareFlags::NEWNET) } {
            let required = std::env::var_os("ANABRANCH_NO_SKIP").is_some_and(|value| value == "1");
            assert!(!required, "no permission for a network namespace: {error}; run the tests as root");
            // Not by a macro: the test harness would swallow it.
            let _ = writeln!(
                io::stderr(),
                "SKIPPED: no permission for a network namespace ({error}); run the tests as root"
            );
            return;
        }
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a command, given as one line, and fails if it fails.
pub(crate) fn run(line: &str) {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a command");
    let output = Command::new(program).args(words).output().unwrap_or_else(|error| panic!("`{line}`: {error}"));
    assert!(output.status.success(), "`{line}`: {}", String::from_utf8_lossy(&output.stderr));
}

/// Whether a command succeeds.
pub(crate) fn succeeds(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a command");
    Command::new(program).args(words).output().is_ok_and(|output| output.status.success())
}

/// Gives `packet` all that `device` receives until it is satisfied. Fails after five seconds.
pub(crate) fn receive_until(device: &mut dyn Device, mut satisfied: impl FnMut(&mut dyn Device, RxPacket) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut batch = Vec::new();
    loop {
        assert!(Instant::now() < deadline, "{}: what was waited for did not come", device.name());
        wait(device, PollFlags::IN);
        device.receive(&mut batch, 64).unwrap();
        for packet in batch.drain(..) {
            if satisfied(device, packet) {
                return;
            }
        }
    }
}

/// Waits up to 100 ms for the device's descriptor; what it shows.
pub(crate) fn wait(device: &dyn Device, what: PollFlags) -> PollFlags {
    let fd = device.poll_fd().expect("a descriptor");
    let mut fds = [PollFd::new(&fd, what)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 100_000_000 })).unwrap();
    fds[0].revents()
}

/// A TCP data segment from one address to another, its checksum left to the device.
pub(crate) fn tcp_segment(
    path: PathId,
    source: &str,
    destination: &str,
    payload: &[&[u8]],
    size: Option<u16>,
) -> Transmit {
    let parse = |text: &str| match text.parse().unwrap() {
        std::net::IpAddr::V4(addr) => addr.octets().to_vec(),
        std::net::IpAddr::V6(addr) => addr.octets().to_vec(),
    };
    let (source, destination) = (parse(source), parse(destination));
    let payload_len: usize = payload.iter().map(|piece| piece.len()).sum();
    let ip_len = if source.len() == 4 { 20 } else { 40 };
    let tcp_len = 20 + payload_len;
    let mut header = Header::zeroed(ip_len + 20);
    if ip_len == 20 {
        header[0] = 0x45;
        header[2..4].copy_from_slice(&((ip_len + tcp_len) as u16).to_be_bytes());
        header[8..10].copy_from_slice(&[64, 6]);
        header[12..16].copy_from_slice(&source);
        header[16..20].copy_from_slice(&destination);
        let sum = checksum::Sum::new().add(&header[..20]).finish();
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        header[0] = 0x60;
        header[4..6].copy_from_slice(&(tcp_len as u16).to_be_bytes());
        header[6..8].copy_from_slice(&[6, 64]);
        header[8..24].copy_from_slice(&source);
        header[24..40].copy_from_slice(&destination);
    }
    let pseudo = checksum::pseudo_header(&source, &destination, 6, tcp_len as u32).fold();
    let tcp = &mut header[ip_len..];
    tcp[..4].copy_from_slice(&[0x13, 0x88, 0x13, 0x89]);
    tcp[12..14].copy_from_slice(&[0x50, 0x18]);
    tcp[16..18].copy_from_slice(&pseudo.to_be_bytes());
    Transmit {
        path,
        header,
        transport_offset: ip_len as u8,
        checksum_offset: 16,
        payload: payload.iter().map(|&piece| Payload::from(piece)).collect(),
        segment_size: size,
    }
}

/// The TCP header and payload of a packet without options, or `None` for anything else.
pub(crate) fn tcp_of(packet: &RxPacket) -> Option<&[u8]> {
    match packet.data.first()? >> 4 {
        4 if packet.data.get(9) == Some(&6) => packet.data.get(20..),
        6 if packet.data.get(6) == Some(&6) => packet.data.get(40..),
        _ => None,
    }
}

/// Whether a packet's TCP checksum is right.
pub(crate) fn checksum_is_right(packet: &RxPacket) -> bool {
    let addresses = if packet.data[0] >> 4 == 4 { &packet.data[12..20] } else { &packet.data[8..40] };
    let (source, destination) = addresses.split_at(addresses.len() / 2);
    let tcp = tcp_of(packet).expect("a TCP packet");
    checksum::pseudo_header(source, destination, 6, tcp.len() as u32).add(tcp).finish() == 0
}
