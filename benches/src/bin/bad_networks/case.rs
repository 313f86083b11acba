//! What is measured: a network, and what happens on it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Least bytes of a buffer. A path of 2 ms that holds packets back for 20 needs more than its pipe.
const BUFFER_LEAST: u64 = 1 << 20;
/// Most bytes of a buffer: what the kernel's accounts and a small machine allow.
const BUFFER_MOST: u64 = 320 << 20;
/// Packets are held back for so long at most, in milliseconds.
pub(crate) const HELD_MS: u32 = 20;
/// Part of the packets that ends a burst of losses: four are lost in a row on average.
const BURST_END: f64 = 0.25;

/// From this rate on, in Mbit/s, a network may take all that processors have,
const FAST: u32 = 1000;
/// unless it loses so many per cent.
const MUCH: f64 = 1.0;

/// How a path loses packets.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Loss {
    /// Only where its queue is full.
    None,
    /// This many per cent, each by itself.
    Random(f64),
    /// This many per cent, in bursts.
    Bursts(f64),
}

impl Loss {
    fn percent(self) -> f64 {
        match self {
            Self::None => 0.0,
            Self::Random(percent) | Self::Bursts(percent) => percent,
        }
    }
}

/// A point of the grid.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Point {
    /// Mbit/s.
    pub(crate) rate: u32,
    /// Round-trip time in milliseconds.
    pub(crate) rtt: u32,
    pub(crate) loss: Loss,
    /// Per cent of the packets that are held back.
    pub(crate) reorder: u32,
    /// Bandwidth-delay products that its queue holds.
    pub(crate) queue: f64,
}

/// A network.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Case {
    /// Short, and its own.
    pub(crate) name: String,
    /// What the table says of it.
    pub(crate) about: String,
    /// Mbit/s, the most that it ever has.
    pub(crate) rate: u32,
    /// Round-trip time in milliseconds without its queue.
    pub(crate) rtt: u32,
    /// The options of `anabranch link`.
    pub(crate) link: Vec<String>,
    /// How long a bulk transfer takes.
    pub(crate) seconds: f64,
    /// Buffers of both ends, in bytes of payload.
    pub(crate) buffer: u32,
    /// So many bytes pass that it needs the machine to itself.
    pub(crate) alone: bool,
}

/// Whose the two ends are. The first one connects; in a bulk transfer it sends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Pairing {
    /// The kernel at both ends.
    Kernel,
    /// Ours sends to the kernel.
    Sends,
    /// Ours receives from the kernel.
    Receives,
}

impl Pairing {
    pub(crate) const ALL: [Self; 3] = [Self::Kernel, Self::Sends, Self::Receives];
    /// What is compared with the kernel.
    pub(crate) const OURS: [Self; 2] = [Self::Sends, Self::Receives];
}

impl fmt::Display for Pairing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel to kernel",
            Self::Sends => "ours sends",
            Self::Receives => "ours receives",
        })
    }
}

impl Point {
    fn name(&self) -> String {
        let loss = match self.loss {
            Loss::None => "l0".to_owned(),
            Loss::Random(percent) => format!("l{percent}"),
            Loss::Bursts(percent) => format!("l{percent}b"),
        };
        format!("{}m-{}ms-{loss}-r{}-q{}", self.rate, self.rtt, self.reorder, self.queue)
    }

    fn link(&self) -> Vec<String> {
        let mut words = path_words(self.rate, self.rtt, self.queue);
        match self.loss {
            Loss::None => {}
            Loss::Random(percent) => words.extend(["--loss".into(), format!("{percent}%")]),
            Loss::Bursts(percent) => words.extend(["--loss".into(), bursts(percent)]),
        }
        if self.reorder > 0 {
            words.extend(["--reorder".into(), format!("{}%:0..{HELD_MS}ms", self.reorder)]);
        }
        words
    }
}

/// The words for a path with this many Mbit/s, milliseconds of round trip and bandwidth-delay products of queue.
pub(crate) fn path_words(rate: u32, rtt: u32, queue: f64) -> Vec<String> {
    let delay = format!("{}us", rtt * 500);
    let words = ["--rate", &format!("{rate}mbit"), "--delay", &delay, "--queue", &format!("{queue}bdp")];
    words.map(String::from).to_vec()
}

/// Gilbert's model with so many per cent of loss: the probabilities to begin and to end a burst.
fn bursts(percent: f64) -> String {
    let loss = percent / 100.0;
    let begin = BURST_END * loss / (1.0 - loss);
    format!("ge:{:.5}%:{}%", begin * 100.0, BURST_END * 100.0)
}

/// Buffers that hold a quarter more than the pipe and its queue, and two pipes at least: what the network takes is not
/// for the buffers to limit.
pub(crate) fn buffer(rate: u32, rtt: u32, queue: f64) -> u32 {
    let pipe = f64::from(rate) * 1e6 / 8.0 * f64::from(rtt) / 1e3;
    let bytes = pipe * (1.25 * (1.0 + queue)).max(2.0);
    (bytes as u64).clamp(BUFFER_LEAST, BUFFER_MOST) as u32
}

/// Long enough for the controllers to show what they are.
pub(crate) fn seconds(rtt: u32) -> f64 {
    match rtt {
        0..=5 => 3.0,
        6..=50 => 5.0,
        51..=150 => 8.0,
        _ => 12.0,
    }
}

impl From<Point> for Case {
    fn from(point: Point) -> Self {
        let held = if point.reorder > 0 { HELD_MS } else { 0 };
        let loss = match point.loss {
            Loss::None => "–".to_owned(),
            Loss::Random(percent) => format!("{percent} %"),
            Loss::Bursts(percent) => format!("{percent} % bursts"),
        };
        let about = format!("{} | {} | {loss} | {} % | {}", point.rate, point.rtt, point.reorder, point.queue);
        Self {
            name: point.name(),
            about,
            rate: point.rate,
            rtt: point.rtt,
            link: point.link(),
            seconds: seconds(point.rtt),
            buffer: buffer(point.rate, point.rtt + held, point.queue),
            alone: point.rate >= FAST && point.loss.percent() < MUCH,
        }
    }
}

impl Case {
    pub(crate) fn rtt(&self) -> Duration {
        Duration::from_millis(self.rtt.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_tells_all_of_itself_in_its_name_and_to_the_emulator() {
        let point = Point { rate: 100, rtt: 20, loss: Loss::Bursts(1.0), reorder: 10, queue: 0.25 };
        let case = Case::from(point);
        assert_eq!(case.name, "100m-20ms-l1b-r10-q0.25");
        let words = case.link.join(" ");
        assert_eq!(
            words,
            "--rate 100mbit --delay 10000us --queue 0.25bdp --loss ge:0.25253%:25% --reorder 10%:0..20ms"
        );
    }

    #[test]
    fn buffers_hold_the_pipe_and_its_queue_twice_over_at_least() {
        // 1 Gbit/s for 300 ms are 37.5 MB.
        assert_eq!(buffer(1000, 300, 0.25), 75_000_000);
        assert_eq!(buffer(1000, 300, 4.0), 234_375_000);
        assert_eq!(buffer(10, 2, 4.0), 1 << 20);
    }
}
