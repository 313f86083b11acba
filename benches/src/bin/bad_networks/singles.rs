//! Networks that have something the grid has not, one at a time.

use crate::case::{Case, buffer, path_words, seconds};

/// All of them, on 50 Mbit/s and 40 ms with a queue of one bandwidth-delay product.
pub(crate) fn all() -> Vec<Case> {
    [
        single("ack-loss", "three of ten acknowledgements lost", &["--b-to-a", "loss=30%"], None),
        single(
            "ack-compression",
            "acknowledgements in bunches, up to 40 ms late",
            &["--b-to-a", "delay=40ms,jitter=20ms"],
            None,
        ),
        single(
            "delay-jump",
            "40 ms, 240 ms from 3 s on, 40 ms from 7 s on",
            &["--at", "3s", "delay=120ms", "--at", "7s", "delay=20ms"],
            Some(10.0),
        ),
        single(
            "rate-jumps",
            "50 Mbit/s, 5 from 3 s on, 50 from 7 s on",
            &["--at", "3s", "rate=5mbit", "--at", "7s", "rate=50mbit"],
            Some(11.0),
        ),
        single("duplicates", "one of a hundred packets comes twice", &["--duplicate", "1%"], None),
        single("corruption", "one of two hundred packets has a wrong bit", &["--corrupt", "0.5%"], None),
        single("outage", "silence from 3 s to 8 s", &["--at", "3s", "down", "--at", "8s", "up"], Some(15.0)),
        single("policer", "what exceeds 20 Mbit/s by 64 kB is dropped", &["--police", "20mbit:64kB"], None),
    ]
    .into()
}

const RATE: u32 = 50;
const RTT: u32 = 40;
const QUEUE: f64 = 1.0;
/// The delay jumps: buffers are for the longest round trip.
const RTT_LONGEST: u32 = 240;

fn single(name: &str, about: &str, words: &[&str], time: Option<f64>) -> Case {
    let mut link = path_words(RATE, RTT, QUEUE);
    link.extend(words.iter().copied().map(String::from));
    Case {
        name: name.into(),
        about: about.into(),
        rate: RATE,
        rtt: RTT,
        link,
        seconds: time.unwrap_or(seconds(RTT) + 1.0),
        buffer: buffer(RATE, RTT_LONGEST, QUEUE),
        alone: false,
    }
}
