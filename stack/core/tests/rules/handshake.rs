//! MP_CAPABLE (RFC 8684 §3.1).

use std::time::Duration;

use anabranch_core::wire::{Flags, MpCapable, MpJoin, MptcpOption, Segment};
use anabranch_core::{EndpointFlags, FallbackReason, SocketOptions};

use crate::peer::{Peer, Say};

const KEY: u64 = 0x1122_3344_5566_7788;

fn capable(segment: &Segment) -> Option<MpCapable> {
    segment.options.mptcp.iter().find_map(|option| match option {
        MptcpOption::Capable(capable) => Some(*capable),
        _ => None,
    })
}

/// What a SYN offers.
fn offer() -> MpCapable {
    MpCapable::offer(None, None, None)
}

fn joining() -> EndpointFlags {
    EndpointFlags { subflow: true, ..EndpointFlags::default() }
}

#[test]
fn a_syn_of_another_kind_is_answered_plainly() {
    for (what, asked, version) in [
        ("nothing", None, None),
        ("version 0", Some(MpCapable { version: 0, ..offer() }), None),
        ("an extension", Some(MpCapable { extensibility: true, ..offer() }), None),
        ("no algorithm", Some(MpCapable { hmac_sha256: false, ..offer() }), None),
        ("a version to come", Some(MpCapable { version: 2, ..offer() }), Some(1)),
        ("ours", Some(offer()), Some(1)),
    ] {
        let mut peer = Peer::listening(KEY, &SocketOptions::default());
        let synack = peer.handshake(0, asked.map(MptcpOption::Capable));
        let answer = capable(&synack);
        assert_eq!(answer.map(|answer| answer.version), version, "{what}");
        if let Some(answer) = answer {
            assert!(answer.is_spoken() && answer.sender_key.is_some() && answer.receiver_key.is_none());
        }
    }
}

#[test]
fn keys_must_come_back_as_they_were_given() {
    for bit in [0, 31, 63] {
        // Given a third ACK with the stack's key, but for a bit,
        let mut peer = Peer::listening(KEY, &SocketOptions::default());
        let synack = peer.handshake(0, Some(MptcpOption::Capable(offer())));
        let given = capable(&synack).and_then(|answer| answer.sender_key).expect("a key");
        let third = MptcpOption::Capable(MpCapable::offer(Some(KEY), Some(given ^ 1 << bit), None));
        peer.say(0, &Say { options: vec![third], ..Say::default() });
        // then it is TCP, and nothing more is said of MPTCP.
        assert_eq!(peer.info().fallback, Some(FallbackReason::AckNoCapable));
        peer.write(b"hello");
        let heard = peer.heard(0);
        assert!(!heard.is_empty() && heard.iter().all(|segment| segment.options.mptcp.is_empty()), "{heard:?}");
    }
}

#[test]
fn either_side_may_ask_for_checksums() {
    for (asked, wanted) in [(false, false), (true, false), (false, true), (true, true)] {
        let options = SocketOptions { checksum: wanted, ..SocketOptions::default() };
        let mut peer = Peer::listening(KEY, &options);
        let syn = MpCapable { checksum_required: asked, ..offer() };
        let answer = capable(&peer.handshake(0, Some(MptcpOption::Capable(syn)))).expect("an answer");
        assert_eq!(answer.checksum_required, asked || wanted);

        let (mut peer, syn) = Peer::called(KEY, &options, EndpointFlags::default());
        assert_eq!(capable(&syn).map(|syn| syn.checksum_required), Some(wanted));
        let answer = MpCapable { checksum_required: asked, ..MpCapable::offer(Some(KEY), None, None) };
        peer.answer(&syn, Some(MptcpOption::Capable(answer)));
        let third = peer.heard(0).pop().expect("a third ACK");
        assert_eq!(capable(&third).map(|third| third.checksum_required), Some(asked || wanted));
    }
}

#[test]
fn an_answer_of_another_kind_makes_it_tcp() {
    let answer = MpCapable::offer(Some(KEY), None, None);
    for (what, answer) in [
        ("nothing", None),
        ("version 0", Some(MpCapable { version: 0, ..answer })),
        ("version 2", Some(MpCapable { version: 2, ..answer })),
        ("an extension", Some(MpCapable { extensibility: true, ..answer })),
        ("no algorithm", Some(MpCapable { hmac_sha256: false, ..answer })),
    ] {
        let (mut peer, syn) = Peer::called(KEY, &SocketOptions::default(), EndpointFlags::default());
        peer.answer(&syn, answer.map(MptcpOption::Capable));
        assert_eq!(peer.info().fallback, Some(FallbackReason::SynAckNoCapable), "{what}");
        peer.write(b"hello");
        let heard = peer.heard(0);
        assert!(!heard.is_empty() && heard.iter().all(|segment| segment.options.mptcp.is_empty()), "{what}: {heard:?}");
    }
}

#[test]
fn the_opener_proves_its_keys_until_it_is_heard() {
    let (mut peer, syn) = Peer::called(KEY, &SocketOptions::default(), EndpointFlags::default());
    assert_eq!(capable(&syn), Some(offer()));
    // The third ACK has both keys,
    let third = capable(&peer.accept(&syn)).expect("MP_CAPABLE");
    assert_eq!((third.receiver_key, third.data_len), (Some(KEY), None));
    // the first data has them, too, and so has each retransmission of it,
    peer.write(&[7; 100]);
    let first = peer.heard(0).pop().expect("data");
    assert_eq!(capable(&first), Some(MpCapable::offer(Some(peer.stack_key()), Some(KEY), Some(100))));
    peer.pass(Duration::from_secs(3));
    let again = peer.heard(0);
    assert!(again.len() > 1 && again.iter().all(|segment| capable(segment) == capable(&first)), "{again:?}");
    // until a DATA_ACK shows that they arrived.
    let options = vec![peer.acks(100)];
    peer.say(0, &Say { ack: 101, options, ..Say::default() });
    peer.write(&[7; 100]);
    let next = peer.heard(0).pop().expect("data");
    assert_eq!((capable(&next), peer.mapped(&next)), (None, Some(100)));
}

#[test]
fn nothing_is_joined_before_a_dss_came() {
    let (mut peer, syn) = Peer::called(KEY, &SocketOptions::default(), joining());
    peer.accept(&syn);
    peer.pass(Duration::from_secs(10));
    assert!(peer.heard(1).is_empty());
    let options = vec![peer.acks(0)];
    peer.say(0, &Say { options, ..Say::default() });
    let join = peer.heard(1).pop().expect("a SYN on the second path");
    assert!(join.flags == Flags::SYN && matches!(join.options.mptcp[..], [MptcpOption::Join(MpJoin::Syn { .. })]));
}
