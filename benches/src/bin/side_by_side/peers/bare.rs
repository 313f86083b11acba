//! The limit: what a TUN device can carry at all, with one copy to or from an application and no more
//! of TCP than that needs. Whatever is lost stays lost.

use std::io::IoSlice;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};

use super::ready;
use super::segment::{ACK, Answer, FIN, RST, SYN, Segment};
use super::tun::{HEADER, LONGEST, Tun};

/// Payload of a packet that goes out: 44 segments.
const SEGMENT: usize = 1460;
const BURST: usize = 44 * SEGMENT;
/// Bytes that are in flight at most on each connection.
const IN_FLIGHT: u32 = 1_500_000;
/// The first byte that is sent; the SYN is before it.
const FIRST: u32 = 1001;
const HEADERS: usize = HEADER + 20 + 20 + 8;

/// Runs the loop of one service: discard or chargen.
pub(super) fn serve(reads: bool) -> Result<()> {
    let tun = Tun::open(!reads).context("attaching to tun0")?;
    ready();
    if reads { discard(&tun) } else { chargen(&tun) }
}

/// Acknowledges what comes in order, and answers a FIN with its own.
fn discard(tun: &Tun) -> Result<()> {
    let mut buffer = vec![0; LONGEST];
    let mut application = vec![0; LONGEST];
    let mut expected = vec![0_u32; 1 << 16];
    loop {
        let Some(len) = tun.read(&mut buffer)? else { continue };
        let Some(segment) = buffer.get(HEADER..len).and_then(Segment::parse) else { continue };
        let next = &mut expected[usize::from(segment.source_port)];
        let in_order = segment.seq == *next;
        let bytes = segment.payload.len();
        application[..bytes].copy_from_slice(segment.payload);
        if segment.has(SYN) {
            *next = segment.seq.wrapping_add(1);
        } else if bytes == 0 && !segment.has(FIN) {
            continue;
        } else if in_order {
            *next = next.wrapping_add(bytes as u32 + u32::from(segment.has(FIN)));
        }
        let mut answer = Answer { seq: FIRST, ack: *next, ..Answer::to(&segment) };
        if segment.has(SYN) {
            (answer.seq, answer.flags) = (FIRST - 1, SYN | ACK);
        } else if segment.has(FIN) && in_order {
            answer.flags = FIN | ACK;
        }
        tun.write(&[IoSlice::new(answer.headers(&mut [0; HEADERS]))])?;
    }
}

/// A connection that is sent to.
struct Flow {
    port: u16,
    answer: Answer,
    una: u32,
    window: u32,
    scale: u8,
}

/// Sends whatever window and in-flight limit allow, to each connection in turn.
fn chargen(tun: &Tun) -> Result<()> {
    let mut buffer = vec![0; LONGEST];
    let application = vec![b'x'; 1 << 20];
    let mut packet = vec![0; BURST];
    let mut flows: Vec<Flow> = Vec::new();
    loop {
        poll(&mut [PollFd::new(&tun.0, PollFlags::IN)], None)?;
        while let Some(len) = tun.read(&mut buffer)? {
            if let Some(segment) = buffer.get(HEADER..len).and_then(Segment::parse) {
                note(tun, &mut flows, &segment)?;
            }
        }
        let mut sent = true;
        while std::mem::take(&mut sent) {
            for flow in &mut flows {
                let in_flight = flow.answer.seq.wrapping_sub(flow.una);
                if in_flight >= IN_FLIGHT || in_flight + BURST as u32 > flow.window {
                    continue;
                }
                packet.copy_from_slice(&application[..BURST]);
                let answer = Answer { payload_len: BURST, segment_size: SEGMENT, ..flow.answer };
                tun.write(&[IoSlice::new(answer.headers(&mut [0; HEADERS])), IoSlice::new(&packet)])?;
                flow.answer.seq = flow.answer.seq.wrapping_add(BURST as u32);
                sent = true;
            }
        }
    }
}

/// Takes in what a segment says of its connection.
fn note(tun: &Tun, flows: &mut Vec<Flow>, segment: &Segment<'_>) -> Result<()> {
    let at = flows.iter().position(|flow| flow.port == segment.source_port);
    if segment.has(SYN) {
        let syn = Answer { seq: FIRST - 1, ack: segment.seq.wrapping_add(1), flags: SYN | ACK, ..Answer::to(segment) };
        tun.write(&[IoSlice::new(syn.headers(&mut [0; HEADERS]))])?;
        if at.is_none() {
            let answer = Answer { seq: FIRST, flags: ACK, ..syn };
            // The window of a SYN is not scaled; the next segment tells the scaled one.
            flows.push(Flow { port: segment.source_port, answer, una: FIRST, window: 0, scale: segment.scale });
        }
    } else if let Some(at) = at {
        if segment.has(FIN | RST) {
            let flow = flows.swap_remove(at);
            let ack = flow.answer.ack.wrapping_add(1);
            let reset = Answer { ack, flags: RST | ACK, ..flow.answer };
            tun.write(&[IoSlice::new(reset.headers(&mut [0; HEADERS]))])?;
        } else {
            flows[at].una = segment.ack;
            flows[at].window = u32::from(segment.window) << flows[at].scale;
        }
    }
    Ok(())
}
