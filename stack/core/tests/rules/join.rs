//! MP_JOIN (RFC 8684 §3.2), in both roles.

use std::time::Duration;

use anabranch_core::wire::{Flags, MpJoin, MptcpOption, Segment};
use anabranch_core::{EndpointFlags, ResetReason, SocketOptions};

use crate::peer::{Peer, Say, token_and_idsn};

const KEY: u64 = 0x0102_0304_0506_0708;
const NONCE: u32 = 0x5eed_0001;

fn connected() -> Peer {
    Peer::connected(KEY, &SocketOptions::default())
}

/// The SYN of a join.
fn asks(peer: &Peer) -> MptcpOption {
    let (token, _) = token_and_idsn(peer.stack_key());
    MptcpOption::Join(MpJoin::Syn { backup: false, addr_id: 9, token, nonce: NONCE })
}

/// What the stack's SYN/ACK says: its HMAC and its random number.
fn answer_of(synack: &Segment) -> (u64, u32) {
    match synack.options.mptcp[..] {
        [MptcpOption::Join(MpJoin::SynAck { hmac, nonce, .. })] => (hmac, nonce),
        _ => panic!("no MP_JOIN: {synack:?}"),
    }
}

/// The third ACK that proves this.
fn third(proof: &[u8; 32]) -> MptcpOption {
    let mut hmac = [0; 20];
    hmac.copy_from_slice(&proof[..20]);
    MptcpOption::Join(MpJoin::Ack { hmac })
}

/// Whether a segment is a reset that says why.
fn is_reset(segment: &Segment, why: ResetReason) -> bool {
    segment.flags.has(Flags::RST)
        && matches!(segment.options.mptcp[..], [MptcpOption::Reset { reason, .. }] if reason == why)
}

/// The T flag of MP_TCPRST.
fn may_be_tried_again(reset: &Segment) -> bool {
    reset.options.mptcp.iter().any(|option| matches!(option, MptcpOption::Reset { transient: true, .. }))
}

#[test]
fn an_unknown_token_is_reset() {
    let mut peer = connected();
    let (token, _) = token_and_idsn(peer.stack_key());
    for (n, bit) in [0, 31].into_iter().enumerate() {
        let join = MpJoin::Syn { backup: false, addr_id: 9, token: token ^ 1 << bit, nonce: NONCE };
        let reset = peer.ask(n + 1, Some(MptcpOption::Join(join))).expect("an answer");
        assert!(is_reset(&reset, ResetReason::MptcpError), "{reset:?}");
        // Nothing of it is remembered, and the answer is the smaller of the two.
        assert_eq!(peer.shard.sizes().half_open, 0);
        assert!(reset.payload.is_empty() && reset.options.mss.is_none());
    }
    assert_eq!(peer.shard.counters().mp_join_no_token_found, 2);
}

#[test]
fn a_join_has_to_be_proven() {
    // Whatever bit of the proof is wrong, or if there is none,
    for wrong in [Some(0), Some(79), Some(159), None] {
        let mut peer = connected();
        let join = asks(&peer);
        let (_, theirs) = answer_of(&peer.handshake(1, Some(join)));
        let mut proof = peer.proof(NONCE, theirs);
        if let Some(bit) = wrong {
            proof[bit / 8] ^= 0x80 >> (bit % 8);
        }
        // even if the connection rests meanwhile,
        peer.pass(Duration::from_secs(2));
        assert_eq!(peer.shard.counters().conns_at_rest, 1);
        let options = wrong.map(|_| third(&proof)).into_iter().collect();
        peer.say(1, &Say { options, ..Say::default() });
        // the subflow is reset, for good, and leaves nothing behind.
        let reset = peer.heard(1).pop().expect("an answer");
        assert!(is_reset(&reset, ResetReason::MptcpError), "{wrong:?}: {reset:?}");
        assert!(!may_be_tried_again(&reset));
        assert_eq!((peer.info().subflows, peer.shard.sizes().half_open), (0, 0));
        assert_eq!(peer.shard.audit(), Ok(()));
    }
    // The right one is let in.
    let mut peer = connected();
    peer.join(1);
    assert_eq!(peer.info().subflows, 1);
}

#[test]
fn what_proved_one_join_proves_no_other() {
    // Given somebody who saw a join and says the same again,
    let mut peer = connected();
    let join = asks(&peer);
    let (_, theirs) = answer_of(&peer.handshake(1, Some(join.clone())));
    let proof = third(&peer.proof(NONCE, theirs));
    peer.say(1, &Say { options: vec![proof.clone()], ..Say::default() });
    assert_eq!(peer.info().subflows, 1);
    // then the stack's random number is another one, and what proved the first join proves nothing.
    let (_, other) = answer_of(&peer.handshake(2, Some(join)));
    assert_ne!(other, theirs);
    peer.say(2, &Say { options: vec![proof], ..Say::default() });
    assert!(peer.heard(2).pop().expect("an answer").flags.has(Flags::RST));
    assert_eq!(peer.info().subflows, 1);
}

#[test]
fn each_third_ack_is_answered() {
    let mut peer = connected();
    let join = asks(&peer);
    let (hmac, theirs) = answer_of(&peer.handshake(1, Some(join)));
    // The stack proves itself by its own number first.
    assert_ne!(hmac.to_be_bytes(), peer.proof(NONCE, theirs)[..8]);
    let proof = third(&peer.proof(NONCE, theirs));
    for time in 1..=3 {
        peer.say(1, &Say { options: vec![proof.clone()], ..Say::default() });
        let heard = peer.heard(1);
        assert!(matches!(&heard[..], [ack] if ack.flags == Flags::ACK), "the {time}. time: {heard:?}");
        peer.pass(Duration::from_secs(1));
        assert!(peer.heard(1).is_empty());
    }
}

/// A stack that has opened a connection and joins it from its second address; its SYN.
fn joining() -> (Peer, Segment) {
    let flags = EndpointFlags { subflow: true, ..EndpointFlags::default() };
    let (mut peer, syn) = Peer::called(KEY, &SocketOptions::default(), flags);
    peer.accept(&syn);
    let options = vec![peer.acks(0)];
    peer.say(0, &Say { options, ..Say::default() });
    let join = peer.heard(1).pop().expect("a SYN on the second path");
    (peer, join)
}

/// Its token, which is the peer's, and its random number.
fn question_of(syn: &Segment) -> (u32, u32) {
    match syn.options.mptcp[..] {
        [MptcpOption::Join(MpJoin::Syn { token, nonce, .. })] => (token, nonce),
        _ => panic!("no MP_JOIN: {syn:?}"),
    }
}

/// The SYN/ACK that proves this.
fn proves(proof: &[u8; 32]) -> MptcpOption {
    let hmac = proof[..8].iter().fold(0, |hmac, &byte| hmac << 8 | u64::from(byte));
    MptcpOption::Join(MpJoin::SynAck { backup: false, addr_id: 0, hmac, nonce: NONCE })
}

#[test]
fn an_answer_has_to_be_proven() {
    for wrong in [Some(0), Some(63), None] {
        let (mut peer, syn) = joining();
        let (token, theirs) = question_of(&syn);
        assert_eq!(token, token_and_idsn(KEY).0);
        let mut proof = peer.proof(NONCE, theirs);
        if let Some(bit) = wrong {
            proof[bit / 8] ^= 0x80 >> (bit % 8);
        }
        peer.answer(&syn, wrong.map(|_| proves(&proof)));
        let reset = peer.heard(1).pop().expect("an answer");
        assert!(is_reset(&reset, ResetReason::MptcpError), "{wrong:?}: {reset:?}");
        assert_eq!(peer.info().subflows, 0);
    }
}

#[test]
fn no_data_goes_before_the_third_ack_is_answered() {
    // Given a join that the peer has agreed to, and more to send than the first subflow takes at once,
    let (mut peer, syn) = joining();
    let (_, theirs) = question_of(&syn);
    let proof = peer.proof(NONCE, theirs);
    peer.answer(&syn, Some(proves(&proof)));
    peer.write(&vec![1; 100_000]);
    // then the second one only repeats its proof,
    peer.pass(Duration::from_secs(2));
    let heard = peer.heard(1);
    let ours = |hmac: &[u8; 20]| *hmac != proof[..20];
    assert!(heard.len() > 1, "{heard:?}");
    for ack in &heard {
        assert!(matches!(&ack.options.mptcp[..], [MptcpOption::Join(MpJoin::Ack { hmac })] if ours(hmac)), "{ack:?}");
        assert!(ack.payload.is_empty());
    }
    // until that is answered.
    let options = vec![peer.acks(0)];
    peer.say(1, &Say { options, ..Say::default() });
    assert!(peer.heard(1).iter().any(|segment| !segment.payload.is_empty()));
}

/// The same, joined.
fn joined() -> Peer {
    let (mut peer, syn) = joining();
    let (_, theirs) = question_of(&syn);
    let proof = peer.proof(NONCE, theirs);
    peer.answer(&syn, Some(proves(&proof)));
    let options = vec![peer.acks(0)];
    peer.say(1, &Say { options, ..Say::default() });
    peer.heard(1);
    assert_eq!(peer.info().subflows, 1);
    peer
}

#[test]
fn what_was_reset_for_good_is_not_joined_again() {
    for transient in [false, true] {
        let mut peer = joined();
        let reset = MptcpOption::Reset { transient, reason: ResetReason::Prohibited };
        peer.say(1, &Say { flags: Flags::RST, options: vec![reset], ..Say::default() });
        assert_eq!(peer.info().subflows, 0);
        peer.pass(Duration::from_secs(100));
        let joins = peer.heard(1).iter().filter(|segment| segment.flags == Flags::SYN).count();
        assert_eq!(joins > 0, transient, "{joins} SYNs");
    }
}

#[test]
fn a_subflow_that_fell_silent_may_be_tried_again() {
    // Given a subflow that has something to say to a peer that says nothing there any more,
    let mut peer = joined();
    peer.write(&vec![1; 100_000]);
    let mut reset = None;
    for _ in 0..2000 {
        peer.pass(Duration::from_secs(1));
        reset = reset.or_else(|| peer.heard(1).into_iter().find(|segment| segment.flags.has(Flags::RST)));
        // while all of it arrives on the other one,
        let heard = peer.heard(0);
        let end = heard.iter().map(|segment| peer.end(0, segment)).max();
        if let Some(ack) = end {
            let options = vec![peer.acks(0)];
            peer.say(0, &Say { ack, options, ..Say::default() });
        }
    }
    // then it is given up, and the reset says that another may be opened.
    assert!(may_be_tried_again(&reset.expect("a reset")));
}
