//! SYN cookies (RFC 4987 §3.6): while the SYN queue is full, what a half-open connection has to remember travels in the
//! SYN/ACK's sequence number and timestamp, and comes back with the third ACK. The layout is Linux's.

use core::time::Duration;

use anabranch_frame::Instant;

use crate::tcp::{DEFAULT_MSS_V4, DEFAULT_MSS_V6, EcnWish, Local, Negotiated, syn_cookie_hash};
use crate::wire::{Segment, SeqNum, Timestamps, Tuple};

/// A cookie is good for the minute in which it was made and the next one.
const MINUTE: Duration = Duration::from_secs(60);
const MINUTES: u32 = 2;
/// Bits of the sequence number that hold hash and MSS; the others hold the minute.
const DATA_BITS: u32 = 24;
const DATA_MASK: u32 = (1 << DATA_BITS) - 1;
/// The MSS values that a cookie can hold, over IPv4 and IPv6: what most peers say.
const MSS_V4: [u16; 4] = [DEFAULT_MSS_V4, 1300, 1440, 1460];
const MSS_V6: [u16; 4] = [DEFAULT_MSS_V6, 1420, 1440, 8940];
/// What the low bits of the timestamp hold: the peer's window scale, or that it has none; SACK; ECN.
const SCALE_MASK: u32 = 0xf;
const SACK: u32 = 1 << 4;
const ECN: u32 = 1 << 5;
const OPTION_MASK: u32 = (1 << 6) - 1;

fn mss_table(tuple: &Tuple) -> &'static [u16; 4] {
    if tuple.local.is_ipv4() { &MSS_V4 } else { &MSS_V6 }
}

fn minute(now: Instant) -> u32 {
    (now.as_millis() / MINUTE.as_millis() as u64) as u32
}

fn base(key: &[u8; 16], tuple: &Tuple, irs: SeqNum) -> u32 {
    (syn_cookie_hash(key, tuple, None) as u32).wrapping_add(irs.0)
}

fn hash_of(key: &[u8; 16], tuple: &Tuple, minute: u32) -> u32 {
    syn_cookie_hash(key, tuple, Some(minute)) as u32
}

/// The initial sequence number for a peer that said `irs` and `mss`, and the MSS that the cookie holds for it.
pub(super) fn isn(key: &[u8; 16], tuple: &Tuple, now: Instant, irs: SeqNum, mss: u16) -> SeqNum {
    let index = mss_table(tuple).iter().rposition(|known| *known <= mss).unwrap_or(0) as u32;
    let minute = minute(now);
    let data = hash_of(key, tuple, minute).wrapping_add(index) & DATA_MASK;
    SeqNum(base(key, tuple, irs).wrapping_add(minute << DATA_BITS).wrapping_add(data))
}

/// The peer's MSS in a cookie, if it is one of ours and not too old.
fn mss_of(key: &[u8; 16], tuple: &Tuple, now: Instant, irs: SeqNum, cookie: SeqNum) -> Option<u16> {
    let rest = cookie.0.wrapping_sub(base(key, tuple, irs));
    let now = minute(now);
    let age = now.wrapping_sub(rest >> DATA_BITS) & (u32::MAX >> DATA_BITS);
    if age >= MINUTES {
        return None;
    }
    let index = rest.wrapping_sub(hash_of(key, tuple, now.wrapping_sub(age))) & DATA_MASK;
    mss_table(tuple).get(index as usize).copied()
}

/// What is added to the timestamp clock on the SYN/ACK, so that TSval holds the options. Without timestamps there is no
/// room for them: they are not agreed on then.
pub(super) fn hide_options(now: Instant, ts_offset: u32, negotiated: &mut Negotiated) -> u32 {
    if negotiated.ts_recent.is_none() {
        (negotiated.scaled, negotiated.snd_scale, negotiated.rcv_scale) = (false, 0, 0);
        (negotiated.sack, negotiated.ecn) = (false, false);
        return ts_offset;
    }
    let scale = if negotiated.scaled { u32::from(negotiated.snd_scale) } else { SCALE_MASK };
    let bits = scale | if negotiated.sack { SACK } else { 0 } | if negotiated.ecn { ECN } else { 0 };
    let clock = (now.as_millis() as u32).wrapping_add(ts_offset);
    let mut value = (clock & !OPTION_MASK) | bits;
    if value > clock {
        // Timestamps never run ahead of the clock, or the next one would be an older one.
        value = value.wrapping_sub(OPTION_MASK + 1);
    }
    ts_offset.wrapping_sub(clock.wrapping_sub(value))
}

/// What was settled with a peer whose third ACK brings a cookie back. `None` if it is no cookie of ours.
pub(super) fn recall(key: &[u8; 16], now: Instant, segment: &Segment, local: Local) -> Option<Negotiated> {
    let (iss, irs) = (SeqNum(segment.ack.0.wrapping_sub(1)), SeqNum(segment.seq.0.wrapping_sub(1)));
    let peer_mss = mss_of(key, &segment.tuple, now, irs, iss)?;
    let ts = segment.options.timestamps.filter(|ts| ts.echo != 0);
    let bits = ts.map_or(SCALE_MASK, |Timestamps { echo, .. }| echo & OPTION_MASK);
    let scaled = bits & SCALE_MASK != SCALE_MASK;
    let snd_scale = if scaled { (bits & SCALE_MASK) as u8 } else { 0 };
    Some(Negotiated {
        iss,
        irs,
        peer_mss,
        snd_scale,
        rcv_scale: if scaled { local.scale } else { 0 },
        scaled,
        sack: bits & SACK != 0,
        ecn: local.ecn != EcnWish::No && bits & ECN != 0,
        own_mss: local.mss,
        ts_recent: ts.map(|ts| ts.value),
        window: u64::from(segment.window) << snd_scale,
        rtt: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 16] = [3; 16];

    fn tuple() -> Tuple {
        Tuple { local: "192.0.2.1:80".parse().unwrap(), remote: "192.0.2.2:4000".parse().unwrap() }
    }

    #[test]
    fn a_cookie_holds_the_mss_for_a_minute_at_least() {
        let irs = SeqNum(u32::MAX - 3);
        for start in [0u64, 59, 60, 3600, 256 * 60 - 1] {
            let at = |seconds: u64| Instant::ZERO + Duration::from_secs(start + seconds);
            for (mss, kept) in [(400, 536), (536, 536), (1299, 536), (1400, 1300), (1460, 1460), (9000, 1460)] {
                let cookie = isn(&KEY, &tuple(), at(0), irs, mss);
                for age in [0, 1, 60] {
                    assert_eq!(mss_of(&KEY, &tuple(), at(age), irs, cookie), Some(kept), "start {start}, age {age}");
                }
                assert_eq!(mss_of(&KEY, &tuple(), at(121), irs, cookie), None);
            }
        }
    }

    #[test]
    fn another_number_is_no_cookie() {
        let now = Instant::ZERO + Duration::from_secs(1000);
        let irs = SeqNum(77);
        let cookie = isn(&KEY, &tuple(), now, irs, 1460);
        let other = Tuple { remote: "192.0.2.2:4001".parse().unwrap(), ..tuple() };
        assert_eq!(mss_of(&KEY, &other, now, irs, cookie), None);
        assert_eq!(mss_of(&[4; 16], &tuple(), now, irs, cookie), None);
        assert_eq!(mss_of(&KEY, &tuple(), now, SeqNum(90), cookie), None);
        // Of all neighbours those count that hold another MSS.
        let taken = (1..10_000).filter(|n| mss_of(&KEY, &tuple(), now, irs, cookie.add(*n)).is_some()).count();
        assert_eq!(taken, 0, "1460 is the last entry");
    }
}
