use std::io::Write as _;
use std::process::{Command, Stdio};
use std::string::{String, ToString};
use std::vec;
use std::{env, fs, io, process, writeln};

use super::*;

/// An IPv4 UDP datagram from 10.9.0.1 to 10.9.0.2, port 1 to 2, with 4 bytes in it and no checksum.
#[rustfmt::skip]
const UDP: [u8; 32] = [
    0x45, 0, 0, 32, 0, 0, 0x40, 0, 64, 17, 0x26, 0xb9, 10, 9, 0, 1, 10, 9, 0, 2,
    0, 1, 0, 2, 0, 12, 0, 0, 1, 2, 3, 4,
];

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Blocks of a file as (type, body), their two lengths compared.
fn blocks(mut file: &[u8]) -> Vec<(u32, &[u8])> {
    let mut blocks = vec![];
    while !file.is_empty() {
        let len = u32_at(file, 4) as usize;
        assert_eq!(len % 4, 0);
        let (block, rest) = file.split_at(len);
        assert_eq!(u32_at(block, len - 4) as usize, len, "the length behind the block");
        blocks.push((u32_at(block, 0), &block[8..len - 4]));
        file = rest;
    }
    blocks
}

/// Options as (code, value) up to the end mark, which must be there and be the last.
fn options(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut options = vec![];
    loop {
        let code = u16::from_le_bytes([bytes[0], bytes[1]]);
        let len = usize::from(u16::from_le_bytes([bytes[2], bytes[3]]));
        if code == 0 {
            assert_eq!(bytes, [0; 4]);
            return options;
        }
        options.push((code, &bytes[4..4 + len]));
        bytes = &bytes[4 + len.next_multiple_of(4)..];
    }
}

fn packet(interface: InterfaceId, direction: Direction, data: &[u8]) -> Packet<'_> {
    Packet { interface, unix_nanos: 0x1876_5432_1234_5678, direction, comment: None, data }
}

#[test]
fn a_file_read_back_by_hand() {
    // Given a file of two interfaces and a packet on each, one with a remark,
    let mut file = vec![];
    let mut encoder = Encoder::new(0, &mut file);
    let wifi = encoder.interface("wifi", &mut file);
    let lte = encoder.interface("lte0a", &mut file);
    encoder.packet(&packet(wifi, Direction::Inbound, &UDP[..29]), &mut file);
    let remark = Packet { comment: Some("reinjected"), ..packet(lte, Direction::Outbound, &UDP) };
    encoder.packet(&remark, &mut file);

    // when it is read back,
    let blocks = blocks(&file);
    let kinds: Vec<u32> = blocks.iter().map(|block| block.0).collect();
    assert_eq!(kinds, [0x0a0d_0d0a, 1, 1, 6, 6]);

    // then everything is there.
    let section = blocks[0].1;
    assert_eq!(section[..16], [0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
    let application = ["anabranch ", env!("CARGO_PKG_VERSION")].concat();
    assert_eq!(options(&section[16..]), [(4, application.as_bytes())]);

    assert_eq!(blocks[1].1[..8], [101, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(options(&blocks[1].1[8..]), [(2, &b"wifi"[..]), (9, &[9])]);
    assert_eq!(options(&blocks[2].1[8..]), [(2, &b"lte0a"[..]), (9, &[9])]);

    let first = blocks[3].1;
    assert_eq!([0, 4, 8, 12, 16].map(|at| u32_at(first, at)), [0, 0x1876_5432, 0x1234_5678, 29, 29]);
    assert_eq!(first[20..52], [&UDP[..29], &[0; 3]].concat());
    assert_eq!(options(&first[52..]), [(2, &[1u8, 0, 0, 0][..])]);
    let second = blocks[4].1;
    assert_eq!([0, 12, 16].map(|at| u32_at(second, at)), [1, 32, 32]);
    assert_eq!(options(&second[52..]), [(2, &[2, 0, 0, 0][..]), (1, b"reinjected")]);
}

#[test]
fn long_packets_are_cut_to_the_snaplen() {
    let mut file = vec![];
    let mut encoder = Encoder::new(21, &mut file);
    let interface = encoder.interface("a", &mut file);
    encoder.packet(&packet(interface, Direction::Inbound, &UDP), &mut file);
    encoder.packet(&packet(interface, Direction::Inbound, &UDP[..20]), &mut file);
    let blocks = blocks(&file);
    assert_eq!(u32_at(blocks[1].1, 4), 21);
    assert_eq!([12, 16].map(|at| u32_at(blocks[2].1, at)), [21, 32]);
    assert_eq!([12, 16].map(|at| u32_at(blocks[3].1, at)), [20, 20]);
}

#[test]
fn a_text_that_no_option_holds_is_cut_between_characters() {
    let mut file = vec![];
    let mut encoder = Encoder::new(0, &mut file);
    let interface = encoder.interface("a", &mut file);
    let comment = "é".repeat(40_000);
    let long = Packet { comment: Some(&comment), ..packet(interface, Direction::Inbound, &UDP) };
    encoder.packet(&long, &mut file);
    let blocks = blocks(&file);
    let options = options(&blocks[2].1[52..]);
    assert_eq!(core::str::from_utf8(options[1].1).map(str::len), Ok(65_534));
}

/// What tshark says of these fields of every packet of `file`, or `None` if it is not installed.
fn tshark(file: &[u8], fields: &[&str]) -> Option<String> {
    let installed = Command::new("tshark").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !installed.is_ok_and(|status| status.success()) {
        return None;
    }
    let path = env::temp_dir().join(["anabranch-", &process::id().to_string(), ".pcapng"].concat());
    fs::write(&path, file).unwrap();
    let mut command = Command::new("tshark");
    command.arg("-n").arg("-r").arg(&path).args(["-T", "fields", "-E", "separator=|"]);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command.output();
    fs::remove_file(&path).unwrap();
    let output = output.unwrap();
    assert!(output.status.success(), "tshark failed: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn tshark_reads_it() {
    let mut file = vec![];
    let mut encoder = Encoder::new(262_144, &mut file);
    let wifi = encoder.interface("wifi", &mut file);
    let lte = encoder.interface("lte", &mut file);
    let at = 1_795_334_400_123_456_789;
    let inbound = Packet { unix_nanos: at, ..packet(wifi, Direction::Inbound, &UDP) };
    encoder.packet(&inbound, &mut file);
    let outbound = Packet { unix_nanos: at + 1, comment: Some("wie neu"), ..packet(lte, Direction::Outbound, &UDP) };
    encoder.packet(&outbound, &mut file);

    let fields = [
        "frame.time_epoch",
        "frame.interface_name",
        "frame.packet_flags_direction",
        "frame.comment",
        "ip.src",
        "udp.dstport",
        "_ws.malformed",
    ];
    let Some(read) = tshark(&file, &fields) else {
        // Where skipping is not allowed, a missing tshark is a failure.
        assert!(env::var_os("ANABRANCH_NO_SKIP").is_none(), "tshark is not installed: apt-get install tshark");
        // Past the test harness, which would keep a passing test's words to itself.
        let _ = writeln!(io::stderr(), "SKIPPED tshark_reads_it: tshark is not installed (apt-get install tshark)");
        return;
    };
    let expected = "1795334400.123456789|wifi|0x00000001||10.9.0.1|2|\n\
                    1795334400.123456790|lte|0x00000002|wie neu|10.9.0.1|2|\n";
    assert_eq!(read, expected);
}
