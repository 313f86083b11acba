use super::protocol::{Event, Request, flags_of};

#[test]
fn requests_read_as_documented() {
    for (text, wanted) in [
        (r#"{"command":"endpoint-show"}"#, Request::EndpointShow),
        (r#"{"command":"path-delete","path":"ab1"}"#, Request::PathDelete { path: "ab1".into() }),
        (r#"{"command":"endpoint-delete","id":3}"#, Request::EndpointDelete { id: 3 }),
        (r#"{"command":"limits-set","subflows":2,"add_addr_accepted":1}"#, {
            Request::LimitsSet { subflows: 2, add_addr_accepted: 1 }
        }),
        (
            r#"{"command":"subflow-create","token":7,"id":2,"remote":"10.9.1.1:80"}"#,
            Request::SubflowCreate {
                token: 7,
                id: 2,
                remote: "10.9.1.1:80".parse().unwrap(),
                remote_id: 0,
                backup: false,
            },
        ),
    ] {
        assert_eq!(serde_json::from_str::<Request>(text).unwrap(), wanted, "{text}");
        let again: Request = serde_json::from_str(&serde_json::to_string(&wanted).unwrap()).unwrap();
        assert_eq!(again, wanted);
    }
}

#[test]
fn what_is_no_request_is_refused() {
    for text in ["", "{}", "endpoint-show", r#"{"command":"reboot"}"#, r#"{"command":"endpoint-delete","id":256}"#] {
        assert!(serde_json::from_str::<Request>(text).is_err(), "{text}");
    }
}

#[test]
fn unknown_flags_are_named() {
    assert!(flags_of(&["signal".into(), "backup".into()]).is_ok_and(|flags| flags.signal && flags.backup));
    assert!(flags_of(&["signals".into()]).is_err_and(|problem| problem.contains("unknown flag 'signals'")));
}

#[test]
fn an_event_has_only_what_belongs_to_it() {
    let report = anabranch::pm::Report { token: 9, notice: anabranch::pm::Notice::Removed(4) };
    let event = Event::new(&report).unwrap();
    assert_eq!(serde_json::to_string(&event).unwrap(), r#"{"event":"removed","token":9,"rem_id":4}"#);
}
