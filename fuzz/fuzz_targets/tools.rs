//! What the command reads: settings of links from lists and files, traces of links, messages of `perf`. Never a panic, and
//! messages that were read are written the same. The very files of the command.
#![no_main]

#[path = "../../tools/src/perf/protocol.rs"]
#[rustfmt::skip]
mod protocol;
#[path = "../../tools/src/link/settings.rs"]
mod settings;
#[path = "../../tools/src/usage.rs"]
mod usage;
#[path = "../../tools/src/link/values.rs"]
mod values;

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use protocol::{Reply, Request, Verdict};
use settings::Settings;

/// Messages of `perf`: what was read reads the same when it was written.
fn read_messages(bytes: &[u8]) {
    if let Some(Ok(request)) = bytes.first_chunk().map(Request::parse) {
        assert_eq!(Request::parse(&request.to_bytes()).ok(), Some(request));
    }
    if let Some(Ok(reply)) = bytes.first_chunk().map(Reply::parse) {
        assert_eq!(Reply::parse(&reply.to_bytes()).ok(), Some(reply));
    }
    if let Some(Ok(verdict)) = bytes.first_chunk().map(Verdict::parse) {
        assert_eq!(Verdict::parse(&verdict.to_bytes()).ok(), Some(verdict));
    }
}

/// Settings of a link from a list and from a file, and what becomes of them.
fn read_settings(text: &str) {
    for settings in [Settings::from_list(text).ok(), toml::from_str(text).ok()].into_iter().flatten() {
        let _ = (settings.config(Duration::ZERO, None), settings.config(Duration::from_millis(40), None));
        let _ = settings.changes();
    }
}

fuzz_target!(|input: &[u8]| {
    read_messages(input);
    let Ok(text) = std::str::from_utf8(input) else { return };
    read_settings(text);
    if let Ok(trace) = anabranch_sim::Opportunities::parse(text) {
        assert!(!trace.period().is_zero());
        let _ = trace.mean_rate();
    }
});
