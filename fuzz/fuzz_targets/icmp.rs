//! ICMP messages from arbitrary bytes: never a panic, and what is read of a segment is what stands in it.
#![no_main]

use anabranch_core::wire::{IcmpError, is_icmp};
use anabranch_frame::checksum::Sum;
use anabranch_frame::{PathId, Payload, RxChecksum, RxPacket};
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
    // How it came in, the datagram.
    let [how, datagram @ ..] = input else { return };
    let mut datagram = datagram.to_vec();
    if how & 1 != 0 {
        mend(&mut datagram);
    }
    let icmp = is_icmp(&datagram);
    let mut packet = RxPacket::new(PathId(0), Payload::from(datagram.as_slice()));
    if how & 2 != 0 {
        packet.checksum = RxChecksum::Trusted;
    }
    let Ok(Some(error)) = IcmpError::parse(&packet) else { return };
    // Behind IPv6 extension headers it may be one all the same.
    assert!(icmp || datagram[0] >> 4 == 6);
    assert_eq!(error.tuple.local.is_ipv4(), datagram[0] >> 4 == 4);
    assert_eq!(error.tuple.local.is_ipv4(), error.tuple.remote.is_ipv4());
    let shown = [
        &error.tuple.local.port().to_be_bytes()[..],
        &error.tuple.remote.port().to_be_bytes(),
        &error.seq.0.to_be_bytes(),
    ]
    .concat();
    assert!(datagram.windows(shown.len()).any(|window| window == shown), "{error:?} is not in the message");
});
