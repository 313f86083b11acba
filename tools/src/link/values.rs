//! What a setting of a link can be, as text: the words of `tc` where it has them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anabranch_sim::{Aqm, Codel, Jitter, Loss, Police, QueueLimit, Red, Reorder};
use bytesize::ByteSize;

/// Bits per second, or none: as fast as possible.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rate(pub(super) Option<u64>);

/// A time of up to an hour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Time(pub(super) Duration);

/// A probability.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Percent(pub(super) f64);

/// How delay spreads, and whether packets may overtake each other by that.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Spread {
    pub(super) jitter: Jitter,
    pub(super) unordered: bool,
}

/// Which packets are lost.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Lost(pub(super) Loss);

/// Which packets are held back.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Held(pub(super) Reorder);

/// What a queue holds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Queue {
    Limit(QueueLimit),
    /// So many times what the link sends in a round trip.
    Bdp(f64),
    /// What the link sends in this time.
    Time(Duration),
}

/// How a queue is managed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Managed(pub(super) Aqm);

/// A policer, or none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Policed(pub(super) Option<Police>);

/// Bytes that a packet counts more than its IP packet has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Overhead(pub(super) i32);

const HOUR: Duration = Duration::from_secs(3600);
const RATE_MAX: f64 = 1e12;
const PACKETS_MAX: u64 = 1_000_000;
const BYTES_MAX: u64 = 1_000_000_000;
const BDP_MAX: f64 = 100.0;
const BURST_DEFAULT: u32 = 64_000;

/// What was read does not fit; says what would.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wrong(String);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Wrong {}

fn wrong<T>(cure: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong(cure.into()))
}

/// Splits a number from its unit.
fn number_and_unit(text: &str) -> Option<(f64, String)> {
    let text = text.trim();
    let unit_at = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let number: f64 = text[..unit_at].parse().ok()?;
    Some((number, text[unit_at..].trim().to_ascii_lowercase()))
}

impl FromStr for Rate {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        if text == "none" {
            return Ok(Self(None));
        }
        let cure = "give a rate such as 50mbit or 1.5gbit, from 1bit to 1tbit, or none";
        let Some((number, unit)) = number_and_unit(text) else { return wrong(cure) };
        let bits = match unit.trim_end_matches("/s") {
            "bit" => number,
            "kbit" => number * 1e3,
            "mbit" => number * 1e6,
            "gbit" => number * 1e9,
            "tbit" => number * 1e12,
            _ => return wrong(cure),
        };
        if !(1.0..=RATE_MAX).contains(&bits) {
            return wrong(cure);
        }
        Ok(Self(Some(bits.round() as u64)))
    }
}

impl FromStr for Time {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let cure = "give a time such as 20ms, 1.5s or 250us, from 0 to 1h";
        let Some((number, unit)) = number_and_unit(text) else { return wrong(cure) };
        let nanos = match unit.as_str() {
            "ns" => 1.0,
            "us" | "µs" | "usec" => 1e3,
            "ms" | "msec" => 1e6,
            "s" | "sec" => 1e9,
            "m" | "min" => 60e9,
            "h" => 3600e9,
            "" if number == 0.0 => 1.0,
            _ => return wrong(cure),
        };
        let nanos = number * nanos;
        match nanos <= HOUR.as_nanos() as f64 {
            true => Ok(Self(Duration::from_nanos(nanos.round() as u64))),
            false => wrong(cure),
        }
    }
}

impl FromStr for Percent {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        match number_and_unit(text) {
            Some((number, unit))
                if (0.0..=100.0).contains(&number) && (unit == "%" || number == 0.0 && unit.is_empty()) =>
            {
                Ok(Self(number / 100.0))
            }
            _ => wrong("give a percentage such as 0.5%, from 0% to 100%"),
        }
    }
}

impl FromStr for Spread {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let mut parts = text.split(':');
        let Time(time) = parts.next().unwrap_or_default().parse()?;
        let (mut normal, mut unordered) = (false, false);
        for part in parts {
            match part {
                "uniform" => normal = false,
                "normal" => normal = true,
                "unordered" => unordered = true,
                _ => return wrong("what follows a jitter is :uniform or :normal, and :unordered"),
            }
        }
        let jitter = match (time.is_zero(), normal) {
            (true, _) => Jitter::None,
            (false, true) => Jitter::Normal(time),
            (false, false) => Jitter::Uniform(time),
        };
        Ok(Self { jitter, unordered })
    }
}

impl FromStr for Lost {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        if let Some(number) = text.strip_prefix("every:") {
            return match number.parse() {
                Ok(n @ 1..) => Ok(Self(Loss::Every(n))),
                _ => wrong("give every:N with a whole number N, at least 1"),
            };
        }
        if let Some(model) = text.strip_prefix("ge:").or_else(|| text.strip_prefix("gemodel:")) {
            return gilbert_elliott(model);
        }
        match text.parse() {
            Ok(Percent(0.0)) => Ok(Self(Loss::None)),
            Ok(Percent(p)) => Ok(Self(Loss::Random(p))),
            Err(_) => wrong("give a percentage from 0% to 100%, ge:P:R[:1-H[:1-K]] in percent, or every:N"),
        }
    }
}

/// `P:R[:1-H[:1-K]]`, as in tc-netem.
fn gilbert_elliott(text: &str) -> Result<Lost, Wrong> {
    let cure = "give ge:P:R[:1-H[:1-K]], each from 0% to 100%: P into the bad state, R out of it, loss in the bad state \
                (100%) and in the good one (0%)";
    let parts: Result<Vec<Percent>, _> = text.split(':').map(str::parse).collect();
    let (enter, leave, loss, good_loss) = match parts.as_deref() {
        Ok(&[p, r]) => (p, r, Percent(1.0), Percent(0.0)),
        Ok(&[p, r, h]) => (p, r, h, Percent(0.0)),
        Ok(&[p, r, h, k]) => (p, r, h, k),
        _ => return wrong(cure),
    };
    Ok(Lost(Loss::Burst { enter: enter.0, leave: leave.0, loss: loss.0, good_loss: good_loss.0 }))
}

impl FromStr for Held {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let cure = "give PERCENT:TIME or PERCENT:LEAST..MOST, such as 1%:5ms or 1%:0..20ms";
        if text == "0" || text == "0%" {
            return Ok(Self(Reorder::default()));
        }
        let Some((probability, time)) = text.split_once(':') else { return wrong(cure) };
        let Percent(probability) = probability.parse()?;
        let (least, most) = time.split_once("..").unwrap_or((time, time));
        let (Time(least), Time(most)) = (least.parse()?, most.parse()?);
        match least <= most {
            true => Ok(Self(Reorder { probability, least, most })),
            false => wrong(cure),
        }
    }
}

impl FromStr for Queue {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let cure = "give packets (0p to 1000000p), bytes (64kB, up to 1GB), a time (50ms) or a multiple of the \
                    bandwidth-delay product (0.01bdp to 100bdp)";
        if let Ok(Time(time)) = text.parse()
            && !time.is_zero()
        {
            return Ok(Self::Time(time));
        }
        let Some((number, unit)) = number_and_unit(text) else { return wrong(cure) };
        match unit.as_str() {
            "p" if number.fract() == 0.0 && number <= PACKETS_MAX as f64 => {
                Ok(Self::Limit(QueueLimit { packets: number as usize, bytes: usize::MAX }))
            }
            "bdp" if (0.01..=BDP_MAX).contains(&number) => Ok(Self::Bdp(number)),
            "p" | "bdp" | "" => wrong(cure),
            _ => match text.parse() {
                Ok(ByteSize(bytes @ ..=BYTES_MAX)) => {
                    Ok(Self::Limit(QueueLimit { packets: usize::MAX, bytes: bytes as usize }))
                }
                _ => wrong(cure),
            },
        }
    }
}

impl FromStr for Managed {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let cure =
            "give tail, codel[:TARGET[:INTERVAL]] or red[:MIN:MAX[:PERCENT]] with MIN and MAX in bytes, MIN below MAX";
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default();
        let rest: Vec<&str> = parts.collect();
        let aqm = match (name, rest.as_slice()) {
            ("tail", []) => Aqm::None,
            ("codel", times @ ([] | [_] | [_, _])) => {
                let default = Codel::default();
                let time = |at: usize, default| times.get(at).map_or(Ok(Time(default)), |text| text.parse());
                let (Time(target), Time(interval)) = (time(0, default.target)?, time(1, default.interval)?);
                if target.is_zero() || interval.is_zero() {
                    return wrong("CoDel's target and interval are above 0");
                }
                Aqm::Codel(Codel { target, interval })
            }
            ("red", []) => Aqm::Red(None),
            ("red", [min, max, probability @ ..]) if probability.len() <= 1 => {
                let bytes = |text: &str| text.parse().ok().filter(|&ByteSize(bytes)| bytes <= BYTES_MAX);
                let (Some(ByteSize(min)), Some(ByteSize(max))) = (bytes(min), bytes(max)) else { return wrong(cure) };
                if min >= max {
                    return wrong(cure);
                }
                let mut red = Red::between(min as usize, max as usize);
                if let Some(probability) = probability.first() {
                    Percent(red.probability) = probability.parse()?;
                }
                Aqm::Red(Some(red))
            }
            _ => return wrong(cure),
        };
        Ok(Self(aqm))
    }
}

impl FromStr for Policed {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let (rate, burst) = text.split_once(':').unwrap_or((text, ""));
        let Rate(Some(rate)) = rate.parse()? else { return Ok(Self(None)) };
        let burst = match (burst, burst.parse()) {
            ("", _) => BURST_DEFAULT,
            (_, Ok(ByteSize(bytes @ 1..=BYTES_MAX))) => bytes as u32,
            _ => return wrong("give RATE[:BURST] with a burst such as 64kB, up to 1GB"),
        };
        Ok(Self(Some(Police { rate, burst })))
    }
}

impl FromStr for Overhead {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        match text.parse() {
            Ok(bytes @ -1500..=1500) => Ok(Self(bytes)),
            _ => wrong("give a whole number of bytes from -1500 to 1500"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: FromStr<Err = Wrong>>(text: &str) -> T {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn refuse<T: FromStr<Err = Wrong> + fmt::Debug>(texts: &[&str]) {
        for text in texts {
            assert!(text.parse::<T>().is_err(), "{text}: {:?}", text.parse::<T>());
        }
    }

    #[test]
    fn rates_are_those_of_tc() {
        for (text, bits) in [("50mbit", 50_000_000), ("1.5Gbit", 1_500_000_000), ("64kbit/s", 64_000), ("1bit", 1)] {
            assert_eq!(read::<Rate>(text), Rate(Some(bits)));
        }
        assert_eq!(read::<Rate>("none"), Rate(None));
        refuse::<Rate>(&["", "50", "0mbit", "-1mbit", "2tbit", "50mbps", "mbit", "1e3mbit", "NaN"]);
    }

    #[test]
    fn times_have_a_unit() {
        for (text, micros) in
            [("20ms", 20_000), ("0.25ms", 250), ("1.5s", 1_500_000), ("250us", 250), ("0", 0), ("1h", 3_600_000_000)]
        {
            assert_eq!(read::<Time>(text), Time(Duration::from_micros(micros)));
        }
        refuse::<Time>(&["", "20", "-1ms", "61m", "ms", "1d", "1.2.3s"]);
    }

    #[test]
    fn losses_are_random_bursty_or_periodic() {
        assert_eq!(read::<Lost>("1%"), Lost(Loss::Random(0.01)));
        assert_eq!(read::<Lost>("0"), Lost(Loss::None));
        assert_eq!(read::<Lost>("every:100"), Lost(Loss::Every(100)));
        let burst = |enter, leave, loss, good_loss| Lost(Loss::Burst { enter, leave, loss, good_loss });
        assert_eq!(read::<Lost>("ge:1%:50%"), burst(0.01, 0.5, 1.0, 0.0));
        assert_eq!(read::<Lost>("gemodel:1%:50%:25%:75%"), burst(0.01, 0.5, 0.25, 0.75));
        refuse::<Lost>(&["1", "101%", "-1%", "every:0", "every:x", "ge:1%", "ge:1%:2%:3%:4%:5%", "ge:1:2"]);
    }

    #[test]
    fn packets_are_held_back_for_a_time_or_a_range() {
        let held = |probability, least, most| {
            Held(Reorder { probability, least: Duration::from_millis(least), most: Duration::from_millis(most) })
        };
        assert_eq!(read::<Held>("1%:5ms"), held(0.01, 5, 5));
        assert_eq!(read::<Held>("50%:0..20ms"), held(0.5, 0, 20));
        assert_eq!(read::<Held>("0"), held(0.0, 0, 0));
        refuse::<Held>(&["1%", "5ms", "1%:20ms..5ms", "1%:5", "x:5ms", "1%:"]);
    }

    #[test]
    fn queues_are_packets_bytes_time_or_a_share_of_the_pipe() {
        let limit = |packets, bytes| Queue::Limit(QueueLimit { packets, bytes });
        assert_eq!(read::<Queue>("100p"), limit(100, usize::MAX));
        assert_eq!(read::<Queue>("0p"), limit(0, usize::MAX));
        assert_eq!(read::<Queue>("64kB"), limit(usize::MAX, 64_000));
        assert_eq!(read::<Queue>("64KiB"), limit(usize::MAX, 65_536));
        assert_eq!(read::<Queue>("0.25bdp"), Queue::Bdp(0.25));
        assert_eq!(read::<Queue>("50ms"), Queue::Time(Duration::from_millis(50)));
        refuse::<Queue>(&["", "100", "1.5p", "1000001p", "2GB", "0bdp", "101bdp", "-1p", "full"]);
    }

    #[test]
    fn queues_are_managed_by_name() {
        assert_eq!(read::<Managed>("tail"), Managed(Aqm::None));
        assert_eq!(read::<Managed>("red"), Managed(Aqm::Red(None)));
        let red = Red { probability: 0.1, ..Red::between(30_000, 90_000) };
        assert_eq!(read::<Managed>("red:30kB:90kB:10%"), Managed(Aqm::Red(Some(red))));
        let codel = |target, interval| {
            Managed(Aqm::Codel(Codel {
                target: Duration::from_millis(target),
                interval: Duration::from_millis(interval),
            }))
        };
        assert_eq!(read::<Managed>("codel"), codel(5, 100));
        assert_eq!(read::<Managed>("codel:2ms:50ms"), codel(2, 50));
        refuse::<Managed>(&[
            "",
            "fq",
            "tail:1",
            "codel:0",
            "codel:1ms:0ms",
            "codel:x",
            "red:1kB",
            "red:9kB:1kB",
            "red:1kB:2kB:200%",
        ]);
    }

    #[test]
    fn policers_and_overheads() {
        assert_eq!(read::<Policed>("10mbit"), Policed(Some(Police { rate: 10_000_000, burst: 64_000 })));
        assert_eq!(read::<Policed>("10mbit:30kB"), Policed(Some(Police { rate: 10_000_000, burst: 30_000 })));
        assert_eq!(read::<Policed>("none"), Policed(None));
        refuse::<Policed>(&["", "10", "10mbit:x", "10mbit:0", "10mbit:2GB"]);
        assert_eq!(read::<Overhead>("-14"), Overhead(-14));
        refuse::<Overhead>(&["", "1501", "-1501", "1.5", "x"]);
    }
}
