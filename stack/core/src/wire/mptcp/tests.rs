use core::net::{Ipv4Addr, Ipv6Addr};
use std::vec;
use std::vec::Vec;

use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::wire::{OptionWriter, TcpOptions};

const KEY_A: u64 = 0x0102_0304_0506_0708;
const KEY_B: u64 = 0x1112_1314_1516_1718;
const BYTES_A: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
const BYTES_B: [u8; 8] = [0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18];

/// Bytes written by hand and the option that they stand for, one for the other in both directions.
#[track_caller]
fn same(bytes: &[&[u8]], option: &MptcpOption) {
    let bytes = bytes.concat();
    assert_eq!(bytes.len(), usize::from(bytes[1]), "the length byte of the example");
    assert_eq!(MptcpOption::parse(&bytes), Ok(Some(option.clone())));
    assert_eq!(option.wire_len(), Some(bytes.len()));
    assert_eq!(option.emit(bytes.len()).as_slice(), bytes);
}

fn capable(sender_key: Option<u64>, receiver_key: Option<u64>, data_len: Option<u16>) -> MpCapable {
    MpCapable::offer(sender_key, receiver_key, data_len)
}

#[test]
fn capable_in_its_five_forms() {
    let syn = capable(None, None, None);
    same(&[&[30, 4, 0x01, 0x01]], &MptcpOption::Capable(syn));
    let syn_ack = capable(Some(KEY_A), None, None);
    same(&[&[30, 12, 0x01, 0x01], &BYTES_A], &MptcpOption::Capable(syn_ack));
    let ack = capable(Some(KEY_A), Some(KEY_B), None);
    same(&[&[30, 20, 0x01, 0x01], &BYTES_A, &BYTES_B], &MptcpOption::Capable(ack));
    let data = capable(Some(KEY_A), Some(KEY_B), Some(0x0578));
    same(&[&[30, 22, 0x01, 0x01], &BYTES_A, &BYTES_B, &[0x05, 0x78]], &MptcpOption::Capable(data));
    let data = MpCapable { checksum_required: true, checksum: Some(0xbeef), ..data };
    same(&[&[30, 24, 0x01, 0x81], &BYTES_A, &BYTES_B, &[0x05, 0x78, 0xbe, 0xef]], &MptcpOption::Capable(data));
}

#[test]
fn capable_flags_stand_where_the_rfc_puts_them() {
    let syn = MpCapable { deny_join_initial: true, ..capable(None, None, None) };
    same(&[&[30, 4, 0x01, 0x21]], &MptcpOption::Capable(syn));
    let syn = MpCapable { extensibility: true, hmac_sha256: false, ..capable(None, None, None) };
    same(&[&[30, 4, 0x01, 0x40]], &MptcpOption::Capable(syn));
}

#[test]
fn capable_of_another_version_is_reported_whatever_its_length() {
    // Version 0 has the key on the SYN already.
    let old = MpCapable { version: 0, ..capable(Some(KEY_A), None, None) };
    same(&[&[30, 12, 0x00, 0x01], &BYTES_A], &MptcpOption::Capable(old));
    // A version of the future, in a form nobody knows yet.
    let Ok(Some(MptcpOption::Capable(new))) = MptcpOption::parse(&[30, 7, 0x02, 0x01, 9, 9, 9]) else {
        panic!("not reported")
    };
    assert_eq!((new.version, new.sender_key), (2, None));
    assert_eq!(MptcpOption::parse(&[30, 3, 0x02]), Err(Malformed));
}

#[test]
fn join_in_its_three_forms() {
    same(
        &[&[30, 12, 0x11, 5], &[0xde, 0xad, 0xbe, 0xef], &[1, 2, 3, 4]],
        &MptcpOption::Join(MpJoin::Syn { backup: true, addr_id: 5, token: 0xdead_beef, nonce: 0x0102_0304 }),
    );
    same(
        &[&[30, 16, 0x10, 6], &BYTES_A, &[9, 8, 7, 6]],
        &MptcpOption::Join(MpJoin::SynAck { backup: false, addr_id: 6, hmac: KEY_A, nonce: 0x0908_0706 }),
    );
    let hmac = core::array::from_fn(|i| i as u8);
    same(&[&[30, 24, 0x10, 0], &hmac], &MptcpOption::Join(MpJoin::Ack { hmac }));
}

#[test]
fn dss_acks_and_mappings_in_both_lengths() {
    let none = Dss::default();
    same(&[&[30, 4, 0x20, 0x00]], &MptcpOption::Dss(none));
    let ack = Dss { ack: Some(DataAck::Short(0x0506_0708)), ..none };
    same(&[&[30, 8, 0x20, 0x01], &[5, 6, 7, 8]], &MptcpOption::Dss(ack));
    let ack = Dss { ack: Some(DataAck::Long(KEY_A)), ..none };
    same(&[&[30, 12, 0x20, 0x03], &BYTES_A], &MptcpOption::Dss(ack));

    let short = Mapping { dsn: 0x1516_1718, dsn_long: false, ssn: 1, len: 1400, checksum: None };
    let map = Dss { mapping: Some(short), ..none };
    same(&[&[30, 14, 0x20, 0x04], &BYTES_B[4..], &[0, 0, 0, 1], &[5, 120]], &MptcpOption::Dss(map));
    let long = Mapping { dsn: KEY_B, dsn_long: true, ..short };
    let map = Dss { mapping: Some(long), ..ack };
    same(&[&[30, 26, 0x20, 0x0f], &BYTES_A, &BYTES_B, &[0, 0, 0, 1], &[5, 120]], &MptcpOption::Dss(map));
}

#[test]
fn dss_length_decides_whether_there_is_a_checksum() {
    let mapping = Mapping { dsn: KEY_B, dsn_long: true, ssn: 1, len: 1400, checksum: Some(0xcafe) };
    let dss = Dss { ack: Some(DataAck::Long(KEY_A)), mapping: Some(mapping), data_fin: false };
    same(&[&[30, 28, 0x20, 0x0f], &BYTES_A, &BYTES_B, &[0, 0, 0, 1], &[5, 120], &[0xca, 0xfe]], &MptcpOption::Dss(dss));
    // Two bytes behind a lone DATA_ACK are no reason to lose it: the kernel takes it too.
    let ack = Dss { ack: Some(DataAck::Short(7)), ..Dss::default() };
    assert_eq!(MptcpOption::parse(&[30, 10, 0x20, 0x01, 0, 0, 0, 7, 0, 0]), Ok(Some(MptcpOption::Dss(ack))));
}

#[test]
fn dss_data_fin_and_infinite_mapping() {
    let fin = Mapping { dsn: KEY_B, dsn_long: true, ssn: 0, len: 1, checksum: None };
    let dss = Dss { ack: Some(DataAck::Long(KEY_A)), mapping: Some(fin), data_fin: true };
    same(&[&[30, 26, 0x20, 0x1f], &BYTES_A, &BYTES_B, &[0, 0, 0, 0], &[0, 1]], &MptcpOption::Dss(dss));
    let infinite = Mapping { dsn: 3, dsn_long: false, ssn: 9, len: 0, checksum: Some(0) };
    let dss = Dss { mapping: Some(infinite), ..Dss::default() };
    same(&[&[30, 16, 0x20, 0x04], &[0, 0, 0, 3], &[0, 0, 0, 9], &[0, 0], &[0, 0]], &MptcpOption::Dss(dss));
}

#[test]
fn add_addr_in_both_families_with_and_without_port_and_echo() {
    let v4 = [192, 0, 2, 7];
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);
    let add = AddAddr { echo: false, id: 3, addr: Ipv4Addr::from(v4).into(), port: None, hmac: Some(KEY_A) };
    let echo = AddAddr { echo: true, hmac: None, ..add };
    same(&[&[30, 16, 0x30, 3], &v4, &BYTES_A], &MptcpOption::AddAddr(add));
    same(&[&[30, 8, 0x31, 3], &v4], &MptcpOption::AddAddr(echo));
    let add = AddAddr { port: Some(0x1f90), ..add };
    let echo = AddAddr { port: Some(0x1f90), ..echo };
    same(&[&[30, 18, 0x30, 3], &v4, &[0x1f, 0x90], &BYTES_A], &MptcpOption::AddAddr(add));
    same(&[&[30, 10, 0x31, 3], &v4, &[0x1f, 0x90]], &MptcpOption::AddAddr(echo));

    let add = AddAddr { addr: v6.into(), port: None, ..add };
    let echo = AddAddr { addr: v6.into(), port: None, ..echo };
    same(&[&[30, 28, 0x30, 3], &v6.octets(), &BYTES_A], &MptcpOption::AddAddr(add));
    same(&[&[30, 20, 0x31, 3], &v6.octets()], &MptcpOption::AddAddr(echo));
    let add = AddAddr { port: Some(0x1f90), ..add };
    let echo = AddAddr { port: Some(0x1f90), ..echo };
    same(&[&[30, 30, 0x30, 3], &v6.octets(), &[0x1f, 0x90], &BYTES_A], &MptcpOption::AddAddr(add));
    same(&[&[30, 22, 0x31, 3], &v6.octets(), &[0x1f, 0x90]], &MptcpOption::AddAddr(echo));
}

#[test]
fn remove_addr_takes_one_to_eight_ids() {
    for count in 1..=8u8 {
        let ids: Vec<u8> = (1..=count).collect();
        let option = MptcpOption::RemoveAddr(RemoveAddr { ids: ids.iter().copied().collect() });
        same(&[&[30, 3 + count, 0x40], &ids], &option);
    }
    assert_eq!(MptcpOption::parse(&[30, 3, 0x40]), Err(Malformed));
    assert_eq!(MptcpOption::parse(&[30, 12, 0x40, 1, 2, 3, 4, 5, 6, 7, 8, 9]), Err(Malformed));
}

#[test]
fn the_short_ones() {
    same(&[&[30, 3, 0x50]], &MptcpOption::Prio { backup: false });
    same(&[&[30, 3, 0x51]], &MptcpOption::Prio { backup: true });
    same(&[&[30, 12, 0x60, 0], &BYTES_A], &MptcpOption::Fail { dsn: KEY_A });
    same(&[&[30, 12, 0x70, 0], &BYTES_A], &MptcpOption::Fastclose { receiver_key: KEY_A });
    same(&[&[30, 4, 0x81, 6]], &MptcpOption::Reset { transient: true, reason: ResetReason::Middlebox });
    same(&[&[30, 4, 0x80, 3]], &MptcpOption::Reset { transient: false, reason: ResetReason::Prohibited });
}

#[test]
fn an_unknown_subtype_is_not_malformed() {
    assert_eq!(MptcpOption::parse(&[30, 5, 0xf0, 1, 2]), Ok(None));
    assert_eq!(MptcpOption::parse(&[30, 2]), Err(Malformed));
}

#[test]
fn every_length_that_no_form_has_is_malformed() {
    // Subtype, flags, and all the lengths that these allow.
    let forms: [(u8, u8, &[usize]); 12] = [
        (0x01, 0x01, &[4, 12, 20, 22, 24]),
        (0x10, 0x00, &[12, 16, 24]),
        (0x20, 0x00, &[4, 6]),
        (0x20, 0x01, &[8, 10]),
        (0x20, 0x07, &[22, 24]),
        (0x20, 0x0f, &[26, 28]),
        (0x30, 0x00, &[16, 18, 28, 30]),
        (0x31, 0x00, &[8, 10, 20, 22]),
        (0x50, 0x00, &[3]),
        (0x60, 0x00, &[12]),
        (0x70, 0x00, &[12]),
        (0x80, 0x00, &[4]),
    ];
    for (subtype, flags, lengths) in forms {
        for len in 3..=40 {
            let mut bytes = vec![0; len];
            bytes[..3].copy_from_slice(&[30, len as u8, subtype]);
            if let Some(byte) = bytes.get_mut(3) {
                *byte = flags;
            }
            let parsed = MptcpOption::parse(&bytes);
            assert_eq!(parsed.is_ok(), lengths.contains(&len), "{bytes:02x?} gave {parsed:?}");
        }
    }
}

#[test]
fn fields_that_make_no_form_are_not_written() {
    let add = AddAddr { echo: false, id: 1, addr: Ipv4Addr::LOCALHOST.into(), port: None, hmac: None };
    for option in [
        MptcpOption::Capable(capable(None, Some(KEY_B), None)),
        MptcpOption::Capable(capable(Some(KEY_A), None, Some(7))),
        MptcpOption::AddAddr(add),
        MptcpOption::AddAddr(AddAddr { echo: true, hmac: Some(KEY_A), ..add }),
        MptcpOption::RemoveAddr(RemoveAddr { ids: ArrayVec::new() }),
    ] {
        let mut writer = OptionWriter::new();
        assert!(!writer.mptcp(&option), "{option:?}");
        assert!(writer.as_slice().is_empty());
        assert!(OptionWriter::mptcp_len(&option) > OPTIONS_MAX);
    }
}

fn any_capable() -> impl Strategy<Value = MptcpOption> {
    (any::<[bool; 4]>(), any::<u64>(), any::<u64>(), any::<u16>(), any::<u16>(), 0..5).prop_map(
        |(flags, a, b, len, checksum, form)| {
            MptcpOption::Capable(MpCapable {
                version: 1,
                checksum_required: flags[0],
                extensibility: flags[1],
                deny_join_initial: flags[2],
                hmac_sha256: flags[3],
                sender_key: (form > 0).then_some(a),
                receiver_key: (form > 1).then_some(b),
                data_len: (form > 2).then_some(len),
                checksum: (form > 3).then_some(checksum),
            })
        },
    )
}

fn any_join() -> impl Strategy<Value = MptcpOption> {
    prop_oneof![
        any::<(bool, u8, u32, u32)>().prop_map(|(backup, addr_id, token, nonce)| MpJoin::Syn {
            backup,
            addr_id,
            token,
            nonce
        }),
        any::<(bool, u8, u64, u32)>().prop_map(|(backup, addr_id, hmac, nonce)| MpJoin::SynAck {
            backup,
            addr_id,
            hmac,
            nonce
        }),
        any::<[u8; 20]>().prop_map(|hmac| MpJoin::Ack { hmac }),
    ]
    .prop_map(MptcpOption::Join)
}

fn any_dss() -> impl Strategy<Value = MptcpOption> {
    let ack = prop_oneof![any::<u32>().prop_map(DataAck::Short), any::<u64>().prop_map(DataAck::Long)];
    let mapping = any::<(u64, bool, u32, u16, Option<u16>)>().prop_map(|(dsn, dsn_long, ssn, len, checksum)| {
        let dsn = if dsn_long { dsn } else { dsn & 0xffff_ffff };
        Mapping { dsn, dsn_long, ssn, len, checksum }
    });
    (option::of(ack), option::of(mapping), any::<bool>())
        .prop_map(|(ack, mapping, data_fin)| MptcpOption::Dss(Dss { ack, mapping, data_fin }))
}

fn any_add_addr() -> impl Strategy<Value = MptcpOption> {
    any::<(bool, u8, IpAddr, Option<u16>, u64)>().prop_map(|(echo, id, addr, port, hmac)| {
        MptcpOption::AddAddr(AddAddr { echo, id, addr, port, hmac: (!echo).then_some(hmac) })
    })
}

/// Any MPTCP option that can be written.
pub(in crate::wire) fn any_mptcp() -> impl Strategy<Value = MptcpOption> {
    prop_oneof![
        any_capable(),
        any_join(),
        any_dss(),
        any_add_addr(),
        proptest::collection::vec(any::<u8>(), 1..=8)
            .prop_map(|ids| MptcpOption::RemoveAddr(RemoveAddr { ids: ids.into_iter().collect() })),
        any::<bool>().prop_map(|backup| MptcpOption::Prio { backup }),
        any::<u64>().prop_map(|dsn| MptcpOption::Fail { dsn }),
        any::<u64>().prop_map(|receiver_key| MptcpOption::Fastclose { receiver_key }),
        (any::<bool>(), 0u8..=6)
            .prop_map(|(transient, code)| MptcpOption::Reset { transient, reason: ResetReason::from_code(code) }),
    ]
}

proptest! {
    #[test]
    fn what_was_written_reads_the_same(option in any_mptcp()) {
        let mut writer = OptionWriter::new();
        prop_assert!(writer.mptcp(&option));
        prop_assert_eq!(writer.as_slice().len(), OptionWriter::mptcp_len(&option));
        prop_assert_eq!(writer.as_slice().len() % 4, 0);
        let options = TcpOptions::parse(writer.as_slice());
        prop_assert_eq!(options.malformed, 0);
        prop_assert_eq!(options.mptcp.as_slice(), &[option]);
    }

    #[test]
    fn any_bytes_at_all_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(Some(option)) = MptcpOption::parse(&bytes) {
            // What was read can be written, and reads the same again.
            let len = option.wire_len();
            prop_assert!(len.is_some());
            let again = option.emit(len.unwrap_or(0));
            prop_assert_eq!(MptcpOption::parse(&again), Ok(Some(option)));
        }
    }
}
