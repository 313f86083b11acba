//! Writes the first corpus of the targets `options` and `segment`: what a kernel really sends.
//!
//! `cargo run --example seed`, in this folder.

use std::path::Path;
use std::{fs, io};

const SAMPLES: &str = include_str!("../../stack/core/src/wire/tests/linux-6.18.txt");

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let (options, segments) = (corpus.join("options"), corpus.join("segment"));
    fs::create_dir_all(&options)?;
    fs::create_dir_all(&segments)?;
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
