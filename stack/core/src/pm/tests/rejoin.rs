use super::*;

/// A subflow from endpoint 2 to the initial address, which breaks.
fn broken(name: &str) -> (Case, SubflowEntry) {
    let mut case = Case::new(&[FIRST, "2 10.0.2.2/24 subflow"]).managed_by(name).with_subflow("10.0.2.2", "10.0.1.1");
    let subflow = case.subflows.pop().unwrap();
    assert!(case.on(PmEvent::SubflowDown { subflow, broken: true }).is_empty(), "not at once");
    (case, subflow)
}

#[test]
fn a_subflow_that_broke_is_opened_again_ever_more_seldom() {
    for name in ["endpoints", "fullmesh"] {
        let (mut case, subflow) = broken(name);
        for seconds in [1, 2, 4, 8, 16, 32, 64, 64] {
            assert_eq!(case.wait(), Some(seconds), "{name}");
            assert_eq!(case.on(PmEvent::Timer), ["2 > 10.0.1.1:80#0"], "{name}");
            case.on(PmEvent::SubflowDown { subflow, broken: true });
        }
    }
}

#[test]
fn what_came_back_for_long_enough_begins_with_short_waits_again() {
    let (mut case, subflow) = broken("endpoints");
    for _ in 0..3 {
        case.wait();
        case.on(PmEvent::Timer);
    }
    case.on(PmEvent::SubflowUp(subflow));
    assert_eq!(case.wait(), None);
    case.now += core::time::Duration::from_secs(1);
    case.on(PmEvent::SubflowDown { subflow, broken: true });
    assert_eq!(case.wait(), Some(8), "up for a second only");
    case.on(PmEvent::Timer);
    case.on(PmEvent::SubflowUp(subflow));
    case.now += core::time::Duration::from_secs(100);
    case.on(PmEvent::SubflowDown { subflow, broken: true });
    assert_eq!(case.wait(), Some(1));
}

#[test]
fn what_was_closed_in_good_order_stays_closed() {
    let mut case = Case::new(&[FIRST, "2 10.0.2.2/24 subflow"]);
    let subflow = case.subflows[0];
    case.on(PmEvent::SubflowDown { subflow, broken: false });
    assert_eq!(case.wait(), None);
    let mut server = Case { server_side: true, ..Case::new(&[FIRST]) };
    server.on(PmEvent::SubflowDown { subflow, broken: true });
    assert_eq!(server.wait(), None, "and a server opens nothing");
}

#[test]
fn a_pair_is_forgotten_with_either_address() {
    let (mut case, _) = broken("endpoints");
    case.endpoints[1].up = false;
    case.wait();
    assert!(case.on(PmEvent::Timer).is_empty());
    assert_eq!(case.wait(), None, "our address will come by itself");

    let (mut case, _) = broken("endpoints");
    case.remotes.clear();
    case.wait();
    assert!(case.on(PmEvent::Timer).is_empty());
    assert_eq!(case.wait(), None, "the peer withdrew its address");
}

#[test]
fn an_address_that_came_back_has_another_identifier() {
    let (mut case, _) = broken("endpoints");
    case.remotes[0].id = 7;
    case.wait();
    assert_eq!(case.on(PmEvent::Timer), ["2 > 10.0.1.1:80#7"]);
}

#[test]
fn the_limit_of_subflows_holds_for_what_comes_back() {
    let (mut case, _) = broken("endpoints");
    case.left = 0;
    assert_eq!(case.wait(), Some(1));
    assert!(case.on(PmEvent::Timer).is_empty());
    case.left = 1;
    assert_eq!(case.wait(), Some(2));
    assert_eq!(case.on(PmEvent::Timer), ["2 > 10.0.1.1:80#0"]);
}
