use super::*;
use crate::memory::{MemoryConfig, pair};
use crate::testing::{checksum_is_right, tcp};
use std::process::Command;

/// The packets of a capture file, and how many interfaces it has. Fails if its blocks do not add up.
fn read(path: &Path) -> (usize, Vec<Vec<u8>>) {
    let bytes = std::fs::read(path).unwrap();
    let word = |at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().unwrap()) as usize;
    let (mut at, mut interfaces, mut packets) = (0, 0, Vec::new());
    while at < bytes.len() {
        let len = word(at + 4);
        assert_eq!(word(at + len - 4), len, "a block at {at} whose lengths differ");
        match word(at) {
            1 => interfaces += 1,
            6 => packets.push(bytes[at + 28..at + 28 + word(at + 20)].to_vec()),
            _ => {}
        }
        at += len;
    }
    (interfaces, packets)
}

/// Two recorded devices that have exchanged something: a super-segment one way, a segment the other way.
fn exchange(capture: &Capture) -> Vec<u8> {
    let (a, b) = pair([PathId(0), PathId(1)], MemoryConfig::default()).unwrap();
    let (mut a, mut b) = (Pcap::new(a, capture), Pcap::new(b, capture));
    let data: Vec<u8> = (0..10_001u32).map(|n| n as u8).collect();
    let mut batch = Vec::new();
    a.transmit(&tcp(&data, Some(1_460))).unwrap();
    b.receive(&mut batch, 10).unwrap();
    b.transmit(&tcp(b"answer", None)).unwrap();
    a.receive(&mut batch, 10).unwrap();
    assert_eq!(batch.len(), 2);
    assert!(!checksum_is_right(&batch[0].data), "the device leaves the checksum as it is");
    data
}

#[test]
fn what_passes_is_recorded_with_its_checksum() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("two.pcapng");
    let capture = Capture::create(&path).unwrap();

    let data = exchange(&capture);

    capture.flush().unwrap();
    let (interfaces, packets) = read(&path);
    assert_eq!((interfaces, packets.len(), capture.lost()), (2, 4, 0));
    assert!(packets.iter().all(|packet| checksum_is_right(packet)));
    assert_eq!((&packets[0][40..], &packets[1][40..]), (&data[..], &data[..]));
    assert_eq!((&packets[2][40..], &packets[3][40..]), (&b"answer"[..], &b"answer"[..]));
}

#[test]
fn tshark_reads_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("two.pcapng");
    exchange(&Capture::create(&path).unwrap());

    let fields = ["frame.interface_name", "frame.packet_flags_direction", "tcp.len", "tcp.checksum.status"];
    let mut tshark = Command::new("tshark");
    tshark.args(["-o", "tcp.check_checksum:TRUE", "-T", "fields", "-r"]).arg(&path);
    let Ok(output) = tshark.args(fields.iter().flat_map(|field| ["-e", field])).output() else {
        // Not by a macro: the test harness would swallow it.
        let _ = writeln!(io::stderr(), "SKIPPED: tshark is not installed");
        return;
    };

    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Directions are 1 for in and 2 for out, a checksum status of 1 is good.
    let expected = "memory\t0x00000002\t10001\t1\nmemory\t0x00000001\t10001\t1\n\
                    memory\t0x00000002\t6\t1\nmemory\t0x00000001\t6\t1\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
}

#[test]
fn queues_of_one_device_share_an_interface() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queues.pcapng");
    let capture = Capture::create(&path).unwrap();

    let ids = [(0, "ab0"), (0, "ab0"), (1, "ab1"), (0, "ab0")].map(|(id, name)| capture.interface(PathId(id), name));

    assert_eq!((ids[0], ids[0]), (ids[1], ids[3]));
    assert_ne!(ids[0], ids[2]);
    drop(capture);
    assert_eq!(read(&path).0, 2);
}

#[test]
fn the_file_is_written_without_being_asked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("idle.pcapng");
    let capture = Capture::create(&path).unwrap();

    exchange(&capture);

    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while read(&path).1.len() < 4 {
        assert!(std::time::Instant::now() < deadline, "nothing was written");
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(capture);
}

#[test]
fn a_file_that_cannot_be_written_is_an_error() {
    let capture = Capture::create(Path::new("/dev/full"));
    assert!(capture.is_err(), "not even the header fits");
    assert!(Capture::create(Path::new("/no/such/directory/file.pcapng")).is_err());
}
