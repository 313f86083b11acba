//! A device that loses, repeats, swaps and damages packets, for tests against real peers.

use std::io;
use std::os::fd::BorrowedFd;

use anabranch_frame::{PathId, Payload, RxChecksum, RxPacket, Transmit};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::{Capabilities, Counters, Device, State, TransmitError};

/// What goes wrong, and from which seed.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct FaultConfig {
    /// Equal seeds do equal things to equal sequences of packets.
    pub seed: u64,
    /// What happens to packets that come in.
    pub rx: Probabilities,
    /// What happens to packets that go out.
    pub tx: Probabilities,
}

/// How likely each fault is, from 0 (never) to 1 (always). They are drawn one by one for each packet.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Probabilities {
    /// The packet is lost.
    pub drop: f64,
    /// It comes twice.
    pub duplicate: f64,
    /// It comes after the next one, if there is another one in the same turn.
    pub reorder: f64,
    /// One of its bits is flipped, after the checksum was made.
    pub corrupt: f64,
}

impl Probabilities {
    fn check(&self, direction: &'static str) -> Result<(), FaultError> {
        let all =
            [("drop", self.drop), ("duplicate", self.duplicate), ("reorder", self.reorder), ("corrupt", self.corrupt)];
        match all.into_iter().find(|(_, value)| !(0.0..=1.0).contains(value)) {
            Some((what, value)) => Err(FaultError::Probability { direction, what, value }),
            None => Ok(()),
        }
    }
}

/// Why faults cannot be had.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum FaultError {
    /// A probability out of range.
    #[error("the probability of `{what}` ({direction}) is {value}: it must be between 0 and 1")]
    Probability {
        /// `rx` or `tx`.
        direction: &'static str,
        /// Which fault.
        what: &'static str,
        /// What was asked for.
        value: f64,
    },
    /// Nobody would notice the damage.
    #[error("{device} leaves checksums out, so damaged packets would be believed: open it without offload")]
    CorruptNeedsChecksums {
        /// The device.
        device: String,
    },
}

/// A wrapper around a device that does to packets what bad networks do, short of delaying them.
///
/// It acts on whole packets: for single segments to be hit instead of super-segments, open the device without
/// offload ([`TunConfig::offload`](crate::TunConfig::offload)).
#[derive(Debug)]
pub struct Faults<D> {
    device: D,
    config: FaultConfig,
    random: Random,
    /// An outgoing packet that waits for the next one to overtake it, until [`Device::flush`].
    held: Option<Transmit>,
    arrived: Vec<RxPacket>,
    rx_dropped: u64,
    tx_dropped: u64,
}

impl<D: Device> Faults<D> {
    /// Lets faults happen to what passes `device`.
    ///
    /// # Errors
    /// When a probability is out of range, or packets shall be damaged that carry no checksum.
    pub fn new(device: D, config: FaultConfig) -> Result<Self, FaultError> {
        config.rx.check("rx")?;
        config.tx.check("tx")?;
        let corrupts = config.rx.corrupt > 0.0 || config.tx.corrupt > 0.0;
        if corrupts && device.capabilities().checksum_offload {
            return Err(FaultError::CorruptNeedsChecksums { device: device.name().to_owned() });
        }
        let random = Random(ChaCha8Rng::seed_from_u64(config.seed));
        Ok(Self { device, config, random, held: None, arrived: Vec::new(), rx_dropped: 0, tx_dropped: 0 })
    }

    /// Sends a packet once or twice. Only of the first one the caller hears what became of it.
    fn send(&mut self, packet: &Transmit, twice: bool) -> Result<(), TransmitError> {
        self.device.transmit(packet)?;
        if twice {
            let _ = self.device.transmit(packet);
        }
        Ok(())
    }
}

impl<D: Device> Device for Faults<D> {
    fn name(&self) -> &str {
        self.device.name()
    }

    fn path(&self) -> PathId {
        self.device.path()
    }

    fn interface_index(&self) -> Option<u32> {
        self.device.interface_index()
    }

    fn capabilities(&self) -> Capabilities {
        self.device.capabilities()
    }

    fn state(&self) -> State {
        self.device.state()
    }

    fn refresh(&mut self) -> State {
        self.device.refresh()
    }

    /// Answers 0 only if the device has nothing: when all that came in a turn was dropped it asks again.
    fn receive(&mut self, batch: &mut Vec<RxPacket>, max: usize) -> io::Result<usize> {
        let before = batch.len();
        let odds = self.config.rx;
        loop {
            let wanted = max - (batch.len() - before);
            let came = self.device.receive(&mut self.arrived, wanted)?;
            let mut held = None;
            let mut room = wanted - came;
            for mut packet in self.arrived.drain(..) {
                let fate = self.random.fate(odds);
                if fate.dropped {
                    self.rx_dropped += 1;
                    continue;
                }
                if fate.damaged {
                    self.random.damage_received(&mut packet);
                }
                let twice = fate.twice && room > 0;
                room -= usize::from(twice);
                if fate.overtaken && held.is_none() {
                    held = Some((packet, twice));
                    continue;
                }
                deliver(batch, packet, twice);
                if let Some((packet, twice)) = held.take() {
                    deliver(batch, packet, twice);
                }
            }
            if let Some((packet, twice)) = held {
                deliver(batch, packet, twice);
            }
            // Fewer than asked for means that there are no more, here as below.
            let count = batch.len() - before;
            if came < wanted || count == max {
                return Ok(count);
            }
        }
    }

    fn transmit(&mut self, packet: &Transmit) -> Result<(), TransmitError> {
        let fate = self.random.fate(self.config.tx);
        if fate.dropped {
            self.tx_dropped += 1;
            return Ok(());
        }
        let damaged = fate.damaged.then(|| self.random.damaged_for_sending(packet));
        let packet = damaged.as_ref().unwrap_or(packet);
        if fate.overtaken && self.held.is_none() {
            self.held = Some(packet.clone());
            return Ok(());
        }
        self.send(packet, fate.twice)?;
        if let Some(held) = self.held.take() {
            // It was accepted already: if there is no room for it now it is lost.
            if self.send(&held, false).is_err() {
                self.tx_dropped += 1;
            }
        }
        Ok(())
    }

    fn flush(&mut self) {
        if let Some(held) = self.held.take()
            && self.send(&held, false).is_err()
        {
            self.tx_dropped += 1;
        }
        self.device.flush();
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        self.device.poll_fd()
    }

    fn counters(&self) -> Counters {
        let mut counters = self.device.counters();
        counters.rx_dropped += self.rx_dropped;
        counters.tx_dropped += self.tx_dropped;
        counters
    }
}

fn deliver(batch: &mut Vec<RxPacket>, packet: RxPacket, twice: bool) {
    if twice {
        batch.push(packet.clone());
    }
    batch.push(packet);
}

/// What is to happen to a packet.
struct Fate {
    dropped: bool,
    damaged: bool,
    twice: bool,
    overtaken: bool,
}

/// The dice.
#[derive(Debug)]
struct Random(ChaCha8Rng);

impl Random {
    /// Draws as many numbers whatever the odds are: one of them does not move the others.
    fn fate(&mut self, odds: Probabilities) -> Fate {
        Fate {
            dropped: self.chance(odds.drop),
            damaged: self.chance(odds.corrupt),
            twice: self.chance(odds.duplicate),
            overtaken: self.chance(odds.reorder),
        }
    }

    fn chance(&mut self, probability: f64) -> bool {
        // 53 bits: each of the numbers is a float exactly.
        let drawn = (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        drawn < probability
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.0.next_u64() % limit.max(1) as u64) as usize
    }

    /// Flips one bit anywhere.
    fn damage_received(&mut self, packet: &mut RxPacket) {
        let mut bytes = packet.data.to_vec();
        let at = self.below(bytes.len());
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << self.below(8);
        }
        packet.data = Payload::from(bytes);
        packet.checksum = RxChecksum::Unverified;
    }

    /// A copy with one bit of the transport header or the payload flipped. The unfinished checksum is changed so
    /// that it comes out as it would have without the damage.
    fn damaged_for_sending(&mut self, packet: &Transmit) -> Transmit {
        let mut damaged = packet.clone();
        let start = usize::from(packet.transport_offset);
        let field = start + usize::from(packet.checksum_offset);
        let mut bytes = packet.header[start..].to_vec();
        for slice in &packet.payload {
            bytes.extend_from_slice(slice);
        }
        let at = self.below(bytes.len());
        if (field - start..field - start + 2).contains(&at) {
            // The checksum itself: nothing else is to be changed.
            damaged.header[start + at] ^= 1 << self.below(8);
            return damaged;
        }
        let weight = |byte: u8| if at.is_multiple_of(2) { u16::from(byte) << 8 } else { u16::from(byte) };
        let old = weight(bytes[at]);
        bytes[at] ^= 1 << self.below(8);
        let new = weight(bytes[at]);
        let (head, payload) = bytes.split_at(packet.header.len() - start);
        let sum = u16::from_be_bytes([packet.header[field], packet.header[field + 1]]);
        damaged.header[start..].copy_from_slice(head);
        damaged.header[field..field + 2].copy_from_slice(&add(sum, add(old, !new)).to_be_bytes());
        damaged.payload = [Payload::from(payload)].into_iter().filter(|payload| !payload.is_empty()).collect();
        damaged
    }
}

/// Ones' complement addition.
fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u16::from(carry)
}

#[cfg(test)]
mod tests;
