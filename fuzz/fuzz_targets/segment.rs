//! Datagrams from arbitrary bytes: never a panic, and what was read can be sent, cut up and read again.
#![no_main]

use anabranch_core::wire::{IpOut, OptionWriter, Segment, SegmentOut, Tuple, peek_tuple};
use anabranch_frame::checksum::Sum;
use anabranch_frame::{PathId, Payload, RxChecksum, RxPacket, Transmit, gso};
use libfuzzer_sys::fuzz_target;

/// Makes an IPv4 header checksum right, which chance would seldom do.
fn mend(datagram: &mut [u8]) {
    let Some(&first) = datagram.first() else { return };
    let Some(header) = datagram.get_mut(..usize::from(first & 0x0f) * 4) else { return };
    if first >> 4 == 4 && header.len() >= 20 {
        header[10..12].fill(0);
        let checksum = Sum::new().add(header).finish();
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
}

fuzz_target!(|input: &[u8]| {
    // How it came in, two bytes of segment size, the datagram.
    let [how, high, low, datagram @ ..] = input else { return };
    let mut datagram = datagram.to_vec();
    if how & 1 != 0 {
        mend(&mut datagram);
    }
    let peeked = peek_tuple(&datagram);
    let mut packet = RxPacket::new(PathId(0), Payload::from(datagram.as_slice()));
    if how & 2 != 0 {
        packet.checksum = RxChecksum::Trusted;
    }
    let Ok(segment) = Segment::parse(packet) else { return };
    assert_eq!(peeked, Some(segment.tuple), "the tuple that chose the worker");
    assert!(segment.payload.len() < datagram.len());

    let mut options = OptionWriter::new();
    let timestamps = segment.options.timestamps.filter(|&ts| options.timestamps(ts));
    let out = SegmentOut {
        tuple: Tuple { local: segment.tuple.remote, remote: segment.tuple.local },
        seq: segment.seq,
        ack: segment.ack,
        flags: segment.flags,
        window: segment.window,
        ip: IpOut::default(),
        options: &options,
        // Our headers may be longer than those it came with.
        payload_len: segment.payload.len().min(65_000) as u32,
    };
    let (header, transport_offset) = out.emit();
    let payload = segment.payload.slice(..out.payload_len as usize);
    let transmit = Transmit {
        path: PathId(0),
        header,
        transport_offset,
        checksum_offset: 16,
        payload: [payload.clone()].into_iter().collect(),
        segment_size: Some(u16::from_be_bytes([*high, *low])),
    };

    let mut count = 0;
    let mut position = 0;
    gso::for_each_segment(&transmit, &mut Vec::new(), |bytes| {
        let piece = Segment::parse(RxPacket::new(PathId(0), Payload::from(bytes))).expect("we sent it");
        assert_eq!(piece.tuple, segment.tuple);
        assert_eq!(piece.seq, segment.seq.add(position as u32));
        assert_eq!((piece.ack, piece.window), (segment.ack, segment.window));
        assert_eq!(piece.options.timestamps, timestamps);
        assert_eq!(piece.payload[..], payload[position..position + piece.payload.len()]);
        position += piece.payload.len();
        count += 1;
    });
    assert_eq!((position, count), (payload.len(), transmit.segment_count()));
});
