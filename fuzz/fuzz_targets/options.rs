//! TCP options from arbitrary bytes: never a panic, and what was read can be written and reads the same.
#![no_main]

use anabranch_core::wire::{OPTIONS_MAX, OptionWriter, TcpOptions};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // A header has no room for more.
    let bytes = &bytes[..bytes.len().min(OPTIONS_MAX)];
    let options = TcpOptions::parse(bytes);
    assert!(usize::from(options.malformed) <= bytes.len());

    for option in &options.mptcp {
        let mut writer = OptionWriter::new();
        assert!(writer.mptcp(option), "{option:?} was read but cannot be written");
        assert_eq!(writer.as_slice().len(), OptionWriter::mptcp_len(option));
        let again = TcpOptions::parse(writer.as_slice());
        assert_eq!((again.mptcp.as_slice(), again.malformed), (std::slice::from_ref(option), 0));
    }

    // The budget holds whatever is asked for, and what was written reads as what it was.
    let mut writer = OptionWriter::new();
    let timestamps = options.timestamps.filter(|&ts| writer.timestamps(ts));
    let blocks = writer.sack(&options.sack, options.mptcp.first().map_or(0, OptionWriter::mptcp_len));
    let written: Vec<_> = options.mptcp.iter().filter(|option| writer.mptcp(option)).cloned().collect();
    assert!(writer.as_slice().len() <= OPTIONS_MAX && writer.as_slice().len().is_multiple_of(4));
    let again = TcpOptions::parse(writer.as_slice());
    assert_eq!(again.timestamps, timestamps);
    assert_eq!(again.sack[..], options.sack[..blocks]);
    assert_eq!((again.mptcp[..].to_vec(), again.malformed), (written, 0));
});
