//! Writes the first corpus of the targets `options` and `segment`, what a kernel really sends, and of `tools`, what people
//! write.
//!
//! `cargo run --example seed`, in this folder.

use std::path::Path;
use std::{fs, io};

const SAMPLES: &str = include_str!("../../stack/core/src/wire/tests/linux-6.18.txt");

/// Settings as lists and as a file, and a trace.
const WRITTEN: [&str; 5] = [
    "rate=50mbit,delay=20ms,jitter=5ms:normal,loss=1%,queue=1bdp",
    "loss=ge:1%:20%:50%,reorder=1%:0..20ms,duplicate=1%,corrupt=0.1%,overhead=-4",
    "rate=1gbit,queue=50ms,aqm=codel:5ms:100ms,ecn,police=10mbit:64kB",
    "rate = \"none\"\naqm = \"red:30kB:90kB:10%\"\necn = true\nqueue = \"100p\"\n",
    "0\n0\n5\n12\n",
];

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let [options, segments, tools] = ["options", "segment", "tools"].map(|target| corpus.join(target));
    for folder in [&options, &segments, &tools] {
        fs::create_dir_all(folder)?;
    }
    for (number, text) in WRITTEN.iter().enumerate() {
        fs::write(tools.join(format!("written-{number}")), text)?;
    }
    let lines = SAMPLES.lines().filter(|line| !line.starts_with('#'));
    for (number, line) in lines.enumerate() {
        let datagram = bytes(line);
        let tcp = if datagram[0] >> 4 == 4 { 20 } else { 40 };
        let header_len = usize::from(datagram[tcp + 12] >> 4) * 4;
        fs::write(options.join(format!("linux-{number}")), &datagram[tcp + 20..tcp + header_len])?;
        // Checksums mended and trusted, so that changes get through; segments of two bytes.
        fs::write(segments.join(format!("linux-{number}")), [&[3, 0, 2], datagram.as_slice()].concat())?;
    }
    Ok(())
}

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).expect("samples are hexadecimal") as u8;
    hex.as_bytes().chunks(2).map(|pair| digit(&pair[0]) << 4 | digit(&pair[1])).collect()
}
