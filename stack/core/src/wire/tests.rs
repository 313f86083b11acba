//! The formats against what others write and read: the Linux kernel's segments, and tshark's dissector.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::string::{String, ToString};
use std::vec::Vec;
use std::{env, format, fs, io, process, vec, writeln};

use anabranch_frame::pcapng::{Direction, Encoder, Packet};
use anabranch_frame::{PathId, Payload, RxPacket, Transmit, gso};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use super::mptcp::tests::any_mptcp;
use super::*;

/// Datagrams that a kernel sent, each with a remark.
fn from_linux() -> Vec<(&'static str, Vec<u8>)> {
    let mut lines = include_str!("tests/linux-6.18.txt").lines().skip(1);
    let mut datagrams = vec![];
    while let (Some(remark), Some(hex)) = (lines.next(), lines.next()) {
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        datagrams.push((remark, (0..hex.len()).step_by(2).map(byte).collect()));
    }
    datagrams
}

/// One complete packet, as a device would send it.
fn send(segment: &SegmentOut<'_>, payload: Payload) -> Vec<u8> {
    let (header, transport_offset) = segment.emit();
    let path = PathId(0);
    let payload = [payload].into_iter().collect();
    let mut bytes = vec![];
    let transmit = Transmit { path, header, transport_offset, checksum_offset: 16, payload, segment_size: None };
    gso::complete(&transmit, &mut bytes);
    bytes
}

#[test]
fn what_linux_sends_is_read_and_written_the_same() {
    for (remark, datagram) in from_linux() {
        // Given a segment from the kernel, when it is read and written again,
        let segment = Segment::parse(RxPacket::new(PathId(0), Payload::from(datagram.as_slice())))
            .unwrap_or_else(|why| panic!("{remark}: {why:?}"));
        assert_eq!(segment.options.malformed, 0, "{remark}");
        let mut options = OptionWriter::new();
        let TcpOptions { mss, window_scale, sack_permitted, timestamps, .. } = segment.options;
        if let Some(mss) = mss {
            options.syn(mss, window_scale, sack_permitted, timestamps);
        } else if let Some(timestamps) = timestamps {
            assert!(options.timestamps(timestamps));
        }
        for option in &segment.options.mptcp {
            assert!(options.mptcp(option), "{remark}");
        }
        let again = SegmentOut {
            tuple: Tuple { local: segment.tuple.remote, remote: segment.tuple.local },
            seq: segment.seq,
            ack: segment.ack,
            flags: segment.flags,
            window: segment.window,
            ip: IpOut::default(),
            options: &options,
            payload_len: segment.payload.len() as u32,
        };
        let written = send(&again, segment.payload);

        // then TCP header, options in their order with their padding, payload and checksum are the kernel's.
        let tcp = if segment.tuple.local.is_ipv4() { 20 } else { 40 };
        assert_eq!(written[tcp..], datagram[tcp..], "{remark}");
    }
}

#[test]
fn the_samples_from_linux_have_every_subtype_but_mp_fail() {
    let mut subtypes = vec![];
    for (_, datagram) in from_linux() {
        let segment = Segment::parse(RxPacket::new(PathId(0), Payload::from(datagram.as_slice()))).unwrap();
        subtypes.extend(segment.options.mptcp.iter().map(subtype));
    }
    subtypes.sort_unstable();
    subtypes.dedup();
    assert_eq!(subtypes, [0, 1, 2, 3, 4, 5, 7, 8]);
}

fn subtype(option: &MptcpOption) -> u8 {
    match option {
        MptcpOption::Capable(_) => 0,
        MptcpOption::Join(_) => 1,
        MptcpOption::Dss(_) => 2,
        MptcpOption::AddAddr(_) => 3,
        MptcpOption::RemoveAddr(_) => 4,
        MptcpOption::Prio { .. } => 5,
        MptcpOption::Fail { .. } => 6,
        MptcpOption::Fastclose { .. } => 7,
        MptcpOption::Reset { .. } => 8,
    }
}

/// The segment that an option belongs on; tshark tells some forms apart by the flags.
fn flags(option: &MptcpOption) -> Flags {
    match option {
        MptcpOption::Capable(MpCapable { sender_key: None, .. }) | MptcpOption::Join(MpJoin::Syn { .. }) => Flags::SYN,
        MptcpOption::Capable(MpCapable { receiver_key: None, .. }) | MptcpOption::Join(MpJoin::SynAck { .. }) => {
            Flags::SYN.with(Flags::ACK)
        }
        MptcpOption::Reset { .. } | MptcpOption::Fastclose { .. } => Flags::RST.with(Flags::ACK),
        _ => Flags::ACK,
    }
}

#[test]
fn tshark_reads_every_mptcp_option() {
    // Given a few hundred options of every form, each on a segment of its own,
    let mut runner = TestRunner::deterministic();
    let mut file = vec![];
    let mut encoder = Encoder::new(0, &mut file);
    let interface = encoder.interface("test", &mut file);
    let mut expected = String::new();
    for number in 0..400u16 {
        let option = any_mptcp().new_tree(&mut runner).unwrap().current();
        let mut options = OptionWriter::new();
        assert!(options.mptcp(&option));
        let host = |last, port| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 9, 0, last)), port);
        let out = SegmentOut {
            tuple: Tuple { local: host(1, 1000 + number), remote: host(2, 5001) },
            seq: SeqNum(1),
            ack: SeqNum(1),
            flags: flags(&option),
            window: 500,
            ip: IpOut { id: number, ..IpOut::default() },
            options: &options,
            payload_len: 0,
        };
        let data = send(&out, Payload::EMPTY);
        let packet = Packet {
            interface,
            unix_nanos: u64::from(number),
            direction: Direction::Outbound,
            comment: None,
            data: &data,
        };
        encoder.packet(&packet, &mut file);
        let len = option.wire_len().unwrap();
        expected.push_str(&format!("{}|{len}||1|1\n", subtype(&option)));
    }

    // when tshark reads the file,
    let fields =
        ["tcp.options.mptcp.subtype", "tcp.option_len", "_ws.malformed", "ip.checksum.status", "tcp.checksum.status"];
    let Some(read) = tshark(&file, &fields) else {
        assert!(env::var_os("ANABRANCH_NO_SKIP").is_none(), "tshark is not installed: apt-get install tshark");
        // Past the test harness, which would keep a passing test's words to itself.
        let _ = writeln!(io::stderr(), "SKIPPED tshark_reads_every_mptcp_option: no tshark (apt-get install tshark)");
        return;
    };

    // then it finds each one, of its length, nothing malformed, and all checksums good.
    for (number, (read, expected)) in read.lines().zip(expected.lines()).enumerate() {
        assert_eq!(read, expected, "packet {number}");
    }
    assert_eq!(read.lines().count(), 400);
}

/// What tshark says of these fields of every packet of `file`, or `None` if it is not installed.
fn tshark(file: &[u8], fields: &[&str]) -> Option<String> {
    let installed = Command::new("tshark").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !installed.is_ok_and(|status| status.success()) {
        return None;
    }
    let path = env::temp_dir().join(["anabranch-wire-", &process::id().to_string(), ".pcapng"].concat());
    fs::write(&path, file).unwrap();
    let mut command = Command::new("tshark");
    command.arg("-n").arg("-r").arg(&path).args(["-T", "fields", "-E", "separator=|", "-E", "occurrence=f"]);
    command.args(["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command.output();
    fs::remove_file(&path).unwrap();
    let output = output.unwrap();
    assert!(output.status.success(), "tshark failed: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}
