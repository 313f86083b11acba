use proptest::prelude::*;

use super::*;

fn any_request() -> impl Strategy<Value = Request> {
    let direction = prop_oneof![Just(Direction::Upload), Just(Direction::Download)];
    let until = prop_oneof![(1..=u64::MAX).prop_map(Until::Bytes), (1..=MILLIS_MAX).prop_map(Until::Millis)];
    let streams = (1..=STREAMS_MAX).prop_flat_map(|streams| (0..streams, Just(streams)));
    (direction, until, streams, any::<u64>()).prop_map(|(direction, until, (stream, streams), test)| Request {
        direction,
        until,
        stream,
        streams,
        test,
    })
}

proptest! {
    #[test]
    fn requests_survive_the_wire(request in any_request()) {
        prop_assert_eq!(Request::parse(&request.to_bytes()), Ok(request));
    }

    #[test]
    fn verdicts_survive_the_wire(bytes in any::<u64>(), nanos in any::<u64>()) {
        let verdict = Verdict { bytes, nanos };
        prop_assert_eq!(Verdict::parse(&verdict.to_bytes()), Ok(verdict));
    }

    /// Whatever is taken for a request is one, byte for byte: nothing is ignored, nothing out of range.
    #[test]
    fn what_parses_is_what_would_be_sent(bytes in any::<[u8; Request::LEN]>(), real in any_request(), from in 0..Request::LEN) {
        let mut mixed = real.to_bytes();
        mixed[from..].copy_from_slice(&bytes[from..]);
        for message in [bytes, mixed] {
            if let Ok(request) = Request::parse(&message) {
                prop_assert_eq!(request.to_bytes(), message);
                prop_assert!(request.stream < request.streams && request.streams <= STREAMS_MAX);
            }
        }
    }

    #[test]
    fn garbage_is_no_reply_and_no_verdict(bytes in any::<[u8; Verdict::LEN]>()) {
        prop_assume!(&bytes[..3] != b"ABP");
        prop_assert_eq!(Verdict::parse(&bytes), Err(Malformed::Magic));
        prop_assert_eq!(Reply::parse(bytes.first_chunk().unwrap()), Err(Malformed::Magic));
    }
}

const REQUEST: Request = Request {
    direction: Direction::Download,
    until: Until::Millis(10_000),
    stream: 1,
    streams: 4,
    test: 0x0102_0304_0506_0708,
};

#[test]
fn a_request_on_the_wire() {
    let expected = b"ABPF\x01\x01\x00\x01\x00\x04\x00\x00\
        \x01\x02\x03\x04\x05\x06\x07\x08\
        \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x27\x10";
    assert_eq!(&REQUEST.to_bytes(), expected);
}

#[test]
fn each_wrong_field_is_named() {
    for (at, value, complaint) in [
        (0, b'X', Malformed::Magic),
        (4, 2, Malformed::Version(2)),
        (5, 2, Malformed::Field("direction")),
        (7, 4, Malformed::Field("stream")),
        (8, 1, Malformed::Field("streams")),
        (9, 0, Malformed::Field("streams")),
        (11, 1, Malformed::Field("zero")),
        (27, 1, Malformed::Field("bytes")),
        (28, 0xff, Malformed::Field("millis")),
    ] {
        let mut bytes = REQUEST.to_bytes();
        bytes[at] = value;
        assert_eq!(Request::parse(&bytes), Err(complaint), "byte {at} = {value}");
    }
}

#[test]
fn neither_bytes_nor_time_is_no_test() {
    let mut bytes = REQUEST.to_bytes();
    bytes[28..].fill(0);
    assert_eq!(Request::parse(&bytes), Err(Malformed::Field("millis")));
}

#[test]
fn replies_survive_the_wire() {
    for reply in [Reply::Go, Reply::BadRequest, Reply::OtherVersion(9)] {
        assert_eq!(Reply::parse(&reply.to_bytes()), Ok(reply));
    }
}

#[test]
fn a_request_of_another_version_is_told_ours() {
    let mut bytes = REQUEST.to_bytes();
    bytes[4] = 7;
    let malformed = Request::parse(&bytes).unwrap_err();
    assert_eq!(Reply::answer_to(malformed), Reply::OtherVersion(VERSION));
    assert!(malformed.to_string().contains("version 7"));
}
