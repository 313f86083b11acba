//! Numbers for people: the only formatter of rates, sizes and times in this crate.

use std::fmt;
use std::time::Duration;

/// Bits per second, three digits: `1.21 Gbit/s`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate(pub(crate) f64);

impl Rate {
    /// The rate of `bytes` in `time`; 0 if no time passed.
    pub(crate) fn of(bytes: u64, time: Duration) -> Self {
        let seconds = time.as_secs_f64();
        Self(if seconds > 0.0 { bytes as f64 * 8.0 / seconds } else { 0.0 })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, unit) = scaled(self.0, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"]);
        f.pad(&format!("{value} {unit}"))
    }
}

/// Bytes, three digits, in powers of a thousand: `14.6 kB`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, unit) = match self.0 {
            0..1000 => (self.0.to_string(), "B"),
            _ => scaled(self.0 as f64, &["B", "kB", "MB", "GB", "TB", "PB"]),
        };
        f.pad(&format!("{value} {unit}"))
    }
}

/// A time, three digits, from microseconds to seconds: `12.3 ms`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time(pub(crate) Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_secs_f64() * 1e6;
        let (value, unit) = scaled(micros, &["µs", "ms", "s"]);
        f.pad(&format!("{value} {unit}"))
    }
}

/// Three digits of `value` in the unit that keeps it under a thousand, if there is one.
fn scaled(value: f64, units: &[&'static str]) -> (String, &'static str) {
    let mut value = value;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let text = match value {
        0.0 => "0".to_string(),
        v if v < 9.995 => format!("{v:.2}"),
        v if v < 99.95 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    };
    (text, units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_three_digits_and_the_right_unit() {
        for (bits, text) in [
            (0.0, "0 bit/s"),
            (999.0, "999 bit/s"),
            (999.9, "1.00 kbit/s"),
            (1_210_000_000.0, "1.21 Gbit/s"),
            (48_100_000.0, "48.1 Mbit/s"),
            (999_600_000.0, "1.00 Gbit/s"),
            (1e18, "1000000 Tbit/s"),
        ] {
            assert_eq!(Rate(bits).to_string(), text);
        }
    }

    #[test]
    fn a_rate_over_no_time_is_zero() {
        assert_eq!(Rate::of(1000, Duration::ZERO).to_string(), "0 bit/s");
        assert_eq!(Rate::of(1000, Duration::from_millis(1)).to_string(), "8.00 Mbit/s");
    }

    #[test]
    fn bytes_below_a_thousand_are_exact() {
        for (bytes, text) in [(0, "0 B"), (999, "999 B"), (14_600, "14.6 kB"), (15_728_640, "15.7 MB")] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn times_go_from_microseconds_to_seconds() {
        for (micros, text) in [(0, "0 µs"), (48, "48.0 µs"), (12_340, "12.3 ms"), (61_000_000, "61.0 s")] {
            assert_eq!(Time(Duration::from_micros(micros)).to_string(), text);
        }
    }

    #[test]
    fn widths_are_kept() {
        assert_eq!(format!("{:>12}|", Rate(1e6)), " 1.00 Mbit/s|");
    }
}
