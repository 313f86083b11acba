use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use anabranch_core::wire::{Flags, SeqNum};
use anabranch_frame::{Instant, Payload};

use super::{Ends, Heading, Hop, TcpPacket, TwoWay, option};

/// How long it waits for the receiver's acknowledgement before it sends a segment again.
const PATIENCE: Duration = Duration::from_millis(300);
/// Bytes that it lets be under way to the receiver.
const WINDOW: usize = 200_000;
/// Bytes that it keeps at most; it lets no window be larger.
const BUFFER: usize = 500_000;

/// Acknowledges data as soon as it comes by, so that its sender does not wait for the long way behind, and takes care
/// of it from there, as performance-enhancing proxies do (RFC 3135). It knows nothing of MPTCP: its acknowledgements
/// say nothing of DSNs; those of the receiver come behind them.
///
/// It serves what goes out.
#[derive(Debug, Default)]
pub struct Proxy {
    flows: BTreeMap<Ends, Relay>,
}

/// What it knows of a flow that goes out.
#[derive(Debug, Default)]
struct Relay {
    /// What it has acknowledged, once there was a SYN.
    next: Option<SeqNum>,
    /// What the receiver has not acknowledged, in order, and how many bytes that is.
    kept: VecDeque<Kept>,
    bytes: usize,
    /// The receiver's right edge, the scale of its windows, its latest timestamp.
    edge: SeqNum,
    scale: u8,
    timestamp: Option<[u8; 4]>,
}

#[derive(Debug)]
struct Kept {
    end: SeqNum,
    len: usize,
    packet: Payload,
    sent: Option<Instant>,
}

impl Relay {
    /// Keeps a segment with data if it is the next one. The acknowledgement for it.
    fn keep(&mut self, segment: &TcpPacket, packet: Payload) -> Option<TcpPacket> {
        self.next.filter(|&next| next == segment.seq())?;
        let (len, end) = (segment.payload().len(), segment.end());
        self.next = Some(end);
        self.bytes += len;
        self.kept.push_back(Kept { end, len, packet, sent: None });
        // A FIN is the receiver's to acknowledge: its sender would be gone while there is data here yet.
        let acknowledged = segment.seq().add(len as u32);
        let mut answer = segment.answer(Flags::ACK, acknowledged);
        answer.set_window(u16::MAX);
        self.limit(&mut answer);
        if let (Some(own), Some(range)) = (self.timestamp, segment.options(option::TIMESTAMPS).first()) {
            let theirs = &segment.as_slice()[range.start + 2..range.start + 6];
            answer.set_options(&[&[1, 1, option::TIMESTAMPS, 10][..], &own, theirs].concat());
        }
        Some(answer)
    }

    /// Lets an acknowledgement tell of no more room than there is, here and at the receiver.
    fn limit(&self, answer: &mut TcpPacket) {
        let Some(next) = self.next else { return };
        let here = next.add(BUFFER.saturating_sub(self.bytes) as u32);
        let edge = if here.before(self.edge) { here } else { self.edge };
        let room = edge.distance(answer.ack()).max(0) as u32 >> self.scale;
        answer.set_window(room.min(answer.window().into()) as u16);
    }

    /// The receiver says what it has.
    fn hear(&mut self, segment: &TcpPacket) {
        if let Some(range) = segment.options(option::TIMESTAMPS).first() {
            let bytes = &segment.as_slice()[range.start + 2..range.start + 6];
            self.timestamp = bytes.try_into().ok();
        }
        if segment.is_syn() {
            let scales = segment.options(option::WINDOW_SCALE);
            self.scale = scales.first().map_or(0, |range| segment.as_slice()[range.start + 2].min(14));
        }
        let scale = if segment.is_syn() { 0 } else { self.scale };
        let edge = segment.ack().add(u32::from(segment.window()) << scale);
        if segment.is_syn() || edge.after(self.edge) {
            self.edge = edge;
        }
        while let Some(first) = self.kept.pop_front_if(|first| !first.end.after(segment.ack())) {
            self.bytes -= first.len;
        }
    }

    /// How many of those kept may go or be under way.
    fn admitted(&self) -> usize {
        let mut bytes = 0;
        let fits = |kept: &&Kept| {
            bytes += kept.len;
            bytes <= WINDOW
        };
        self.kept.iter().take_while(fits).count()
    }

    /// Sends what may go, and the oldest again if it is overdue.
    fn send(&mut self, hop: &mut Hop<'_>) {
        let admitted = self.admitted();
        for (at, kept) in self.kept.iter_mut().take(admitted).enumerate() {
            let overdue = at == 0 && kept.sent.is_some_and(|sent| sent + PATIENCE <= hop.now);
            if kept.sent.is_none() || overdue {
                kept.sent = Some(hop.now);
                hop.forward(kept.packet.clone());
            }
        }
    }

    fn due(&self) -> Option<Instant> {
        let waits = self.kept.iter().take(self.admitted()).any(|kept| kept.sent.is_none());
        let overdue = self.kept.front().and_then(|first| Some(first.sent? + PATIENCE));
        if waits { Some(Instant::ZERO) } else { overdue }
    }

    fn forget(&mut self) {
        self.kept.clear();
        self.bytes = 0;
    }
}

impl TwoWay for Proxy {
    fn on_packet(&mut self, heading: Heading, hop: &mut Hop<'_>, packet: Payload) {
        let Some(mut segment) = TcpPacket::read(&packet) else { return hop.forward(packet) };
        let (source, destination) = segment.ends();
        let flags = segment.flags();
        if heading == Heading::In {
            let relay = self.flows.entry((destination, source)).or_default();
            if flags.has(Flags::RST) {
                relay.forget();
            } else if flags.has(Flags::ACK) {
                relay.hear(&segment);
            }
            if !segment.is_syn() {
                relay.limit(&mut segment);
            }
            return hop.forward(segment.finish());
        }
        let relay = self.flows.entry((source, destination)).or_default();
        if flags.has(Flags::SYN) {
            relay.next = Some(segment.end());
        } else if flags.has(Flags::RST) {
            relay.forget();
        }
        if segment.payload().is_empty() {
            return hop.forward(packet);
        }
        // What is not the next one it drops: the sender will send it in its turn.
        if let Some(answer) = relay.keep(&segment, packet) {
            hop.reply(answer.finish());
        }
        relay.send(hop);
    }

    fn deadline(&self, heading: Heading) -> Option<Instant> {
        self.flows.values().filter_map(Relay::due).min().filter(|_| heading == Heading::Out)
    }

    fn on_timeout(&mut self, _: Heading, hop: &mut Hop<'_>) {
        self.flows.values_mut().for_each(|relay| relay.send(hop));
    }
}
