use super::*;

#[test]
fn the_number_of_subflows_is_in_the_name() {
    for (name, opened) in [("ndiffports", 1), ("ndiffports=2", 1), ("ndiffports=5", 4), ("ndiffports=9", 8)] {
        let mut case = Case::new(&[FIRST, "2 10.0.2.2/24"]).managed_by(name);
        assert_eq!(case.on(PmEvent::FullyEstablished), vec!["1 > 10.0.1.1:80#0"; opened], "{name}");
        let mut server = Case { server_side: true, ..Case::new(&[FIRST]).managed_by(name) };
        assert!(server.on(PmEvent::FullyEstablished).is_empty(), "{name}: a server opens nothing");
    }
    for name in ["ndiffports=", "ndiffports=1", "ndiffports=10", "ndiffports=x", "ndiffports2"] {
        assert!(by_name(name).is_err(), "{name}");
    }
}

#[test]
fn only_what_is_missing_is_opened_and_no_more_than_allowed() {
    let mut case = Case::new(&[FIRST]).managed_by("ndiffports=5").with_subflow("10.0.1.2", "10.0.1.1");
    assert_eq!(case.on(PmEvent::FullyEstablished).len(), 3);
    case.left = 2;
    assert_eq!(case.on(PmEvent::FullyEstablished).len(), 2);
    let mut denied = Case { deny_join_initial: true, ..Case::new(&[FIRST]).managed_by("ndiffports") };
    assert!(denied.on(PmEvent::FullyEstablished).is_empty());
}

#[test]
fn what_breaks_is_opened_again_after_a_while() {
    let mut case = Case::new(&[FIRST]).managed_by("ndiffports");
    case.on(PmEvent::FullyEstablished);
    let lost = SubflowEntry { id: 1, ..case.subflows[0] };
    assert!(case.on(PmEvent::SubflowDown { subflow: lost, broken: true }).is_empty());
    assert_eq!(case.wait(), Some(1));
    assert_eq!(case.on(PmEvent::Timer), ["1 > 10.0.1.1:80#0"]);
    assert_eq!(case.wait(), Some(2), "and again, if nothing comes of it");
    case.subflows.push(lost);
    case.on(PmEvent::SubflowUp(lost));
    assert_eq!(case.wait(), None);
}
