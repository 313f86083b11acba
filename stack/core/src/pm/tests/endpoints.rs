use super::*;

#[test]
fn signal_endpoints_are_announced_by_either_side() {
    let table: [(&[&str], &[&str]); 5] = [
        (&[FIRST, "2 10.0.2.2/24 signal"], &["announce 2"]),
        (&[FIRST, "2 10.0.2.2/24 signal", "3 fd00::2/64 signal"], &["announce 2", "announce 3"]),
        (&["1 10.0.1.2/24 signal", "2 10.0.2.2/24"], &[]),
        (&[FIRST, "2 10.0.2.2/24 signal down"], &[]),
        (&[FIRST, "2 10.0.2.2/24"], &[]),
    ];
    for (endpoints, expected) in table {
        for server_side in [false, true] {
            let mut case = Case { server_side, ..Case::new(endpoints) };
            assert_eq!(case.on(PmEvent::FullyEstablished), expected, "{endpoints:?}");
        }
        let mut announced = Case { announced: vec![2, 3], ..Case::new(endpoints) };
        assert!(announced.on(PmEvent::FullyEstablished).is_empty(), "{endpoints:?}, again");
    }
}

#[test]
fn subflow_endpoints_join_the_initial_address() {
    let table: [(&[&str], &[&str]); 7] = [
        (&[FIRST, "2 10.0.2.2/24 subflow"], &["2 > 10.0.1.1:80#0"]),
        (&[FIRST, "2 10.0.2.2/24 subflow backup"], &["2 > 10.0.1.1:80#0 backup"]),
        (&[FIRST, "2 10.0.2.2/24 fullmesh"], &["2 > 10.0.1.1:80#0"]),
        (&[FIRST, "2 10.0.2.2/24 subflow", "3 10.0.3.2/24 subflow"], &["2 > 10.0.1.1:80#0", "3 > 10.0.1.1:80#0"]),
        // It carries the initial subflow already, or cannot be used.
        (&["1 10.0.1.2/24 subflow fullmesh"], &[]),
        (&[FIRST, "2 fd00::2/64 subflow"], &[]),
        (&[FIRST, "2 10.0.2.2/24 subflow down"], &[]),
    ];
    for (endpoints, expected) in table {
        assert_eq!(Case::new(endpoints).on(PmEvent::FullyEstablished), expected, "{endpoints:?}");
        let mut server = Case { server_side: true, ..Case::new(endpoints) };
        assert!(server.on(PmEvent::FullyEstablished).is_empty(), "a server opens nothing");
        let mut denied = Case { deny_join_initial: true, ..Case::new(endpoints) };
        assert!(denied.on(PmEvent::FullyEstablished).is_empty(), "the peer asked for no joins there");
        let mut full = Case { left: 0, ..Case::new(endpoints) };
        assert!(full.on(PmEvent::FullyEstablished).is_empty(), "the limit is reached");
    }
}

#[test]
fn the_limit_holds_within_one_event() {
    let endpoints = [FIRST, "2 10.0.2.2/24 subflow", "3 10.0.3.2/24 subflow signal", "4 10.0.4.2/24 subflow"];
    let mut case = Case { left: 2, ..Case::new(&endpoints) };
    assert_eq!(case.on(PmEvent::FullyEstablished), ["announce 3", "2 > 10.0.1.1:80#0", "3 > 10.0.1.1:80#0"]);
}

#[test]
fn an_announced_address_is_joined_from_where_it_is_reached() {
    /// Story, our endpoints, what the peer announces, what is opened.
    type Row = (&'static str, &'static [&'static str], (u8, &'static str), &'static [&'static str]);
    let table: [Row; 9] = [
        ("its own network", &[FIRST, "2 10.0.2.2/24"], (5, "10.0.2.1"), &["2 > 10.0.2.1:80#5"]),
        ("another port", &[FIRST, "2 10.0.2.2/24"], (5, "10.0.2.1:8080"), &["2 > 10.0.2.1:8080#5"]),
        ("the narrower network", &["2 10.0.2.2/16", "3 10.0.2.3/24"], (5, "10.0.2.1"), &["3 > 10.0.2.1:80#5"]),
        ("no network: the initial address", &["2 10.0.2.2/24", FIRST], (5, "192.0.2.1"), &["1 > 192.0.2.1:80#5"]),
        (
            "the initial address is down: another",
            &["1 10.0.1.2/24 down", "2 10.0.2.2/24 backup", "3 10.0.3.2/24"],
            (5, "192.0.2.1"),
            &["3 > 192.0.2.1:80#5"],
        ),
        ("the other family", &[FIRST, "2 fd00::2/64"], (5, "fd00::1"), &["2 > [fd00::1]:80#5"]),
        ("no address of that family", &[FIRST], (5, "fd00::1"), &[]),
        (
            "fullmesh endpoints, all of them and only they",
            &[FIRST, "2 10.0.2.2/24 fullmesh", "3 10.0.3.2/24 subflow", "4 10.0.4.2/24 fullmesh backup"],
            (5, "10.0.3.1"),
            &["2 > 10.0.3.1:80#5", "4 > 10.0.3.1:80#5 backup"],
        ),
        ("the initial address and port under another name", &[FIRST], (5, "10.0.1.1"), &[]),
    ];
    for (story, endpoints, (id, addr), expected) in table {
        assert_eq!(Case::new(endpoints).on_add_addr(id, addr), expected, "{story}");
        let server = Case { server_side: true, ..Case::new(endpoints) };
        assert!(server.on_add_addr(id, addr).is_empty(), "{story}: a server opens nothing");
    }
}

#[test]
fn nothing_is_opened_twice() {
    let case = || Case::new(&[FIRST, "2 10.0.2.2/24 subflow"]).with_subflow("10.0.2.2", "10.0.2.1");
    assert!(case().on_add_addr(5, "10.0.2.1").is_empty());
    assert_eq!(case().on_add_addr(5, "10.0.2.9"), ["2 > 10.0.2.9:80#5"]);
    // The same address under two identifiers.
    let mut twice = Case::new(&[FIRST, "2 10.0.2.2/24"]).with_remote(5, "10.0.2.1").with_remote(6, "10.0.2.1");
    assert_eq!(twice.on(PmEvent::FullyEstablished), ["2 > 10.0.2.1:80#5"]);
}

#[test]
fn addresses_announced_early_are_joined_once_the_connection_is_established() {
    let mut case = Case::new(&[FIRST, "2 10.0.2.2/24 fullmesh"]).with_remote(5, "10.0.2.1");
    assert_eq!(case.on(PmEvent::FullyEstablished), ["2 > 10.0.1.1:80#0", "2 > 10.0.2.1:80#5"]);
}

#[test]
fn behind_a_load_balancer_subflows_go_to_the_announced_address() {
    let endpoints = [FIRST, "2 10.0.2.2/24 subflow", "3 10.0.3.2/24 subflow"];
    let case = || Case { deny_join_initial: true, ..Case::new(&endpoints) };
    assert!(case().on(PmEvent::FullyEstablished).is_empty());
    assert_eq!(case().on_add_addr(5, "192.0.2.1"), ["2 > 192.0.2.1:80#5", "3 > 192.0.2.1:80#5"]);
}

#[test]
fn a_laminar_endpoint_joins_one_announced_address() {
    let endpoints = [FIRST, "2 10.0.2.2/24 laminar", "3 10.0.3.2/24 laminar", "4 10.0.4.2/24"];
    let mut case = Case::new(&endpoints);
    assert!(case.on(PmEvent::FullyEstablished).is_empty(), "the initial address is not for it");
    assert_eq!(case.on_add_addr(5, "10.0.4.1"), ["2 > 10.0.4.1:80#5"], "wherever routes lead");
    let case = || Case::new(&endpoints).with_subflow("10.0.2.2", "10.0.4.1");
    assert_eq!(case().on_add_addr(6, "10.0.5.1"), ["3 > 10.0.5.1:80#6"], "each is used once");
    assert!(case().with_subflow("10.0.3.2", "10.0.5.1").on_add_addr(7, "10.0.6.1").is_empty());
    let mesh = [FIRST, "2 10.0.2.2/24 laminar", "3 10.0.3.2/24 fullmesh"];
    assert_eq!(Case::new(&mesh).on_add_addr(5, "10.0.4.1"), ["3 > 10.0.4.1:80#5"], "fullmesh goes before it");
}

#[test]
fn with_a_port_even_the_first_address_is_announced() {
    let mut case = Case::new(&["1 10.0.1.2/24 signal port=10080", "2 10.0.2.2/24 signal"]);
    assert_eq!(case.on(PmEvent::FullyEstablished), ["announce 1", "announce 2"]);
}

#[test]
fn an_endpoint_that_changes_is_used_as_it_is_now() {
    let second = |flags: &str| endpoint(&std::format!("2 10.0.2.2/24{flags}"));
    let changed = |from, to| PmEvent::EndpointChanged { before: second(from), after: second(to) };
    let mut case = Case::new(&[FIRST, "2 10.0.2.2/24 signal subflow"]);
    assert_eq!(case.on(changed("", " signal subflow")), ["announce 2", "2 > 10.0.1.1:80#0"]);
    // What a mesh opened goes with it, but for what is still wanted.
    let mesh = |flags: &'static str| {
        let mut case = Case::new(&[FIRST, flags]).with_remote(5, "10.0.3.1");
        case = case.with_subflow("10.0.2.2", "10.0.1.1").with_subflow("10.0.2.2", "10.0.3.1");
        case.subflows[2].remote_id = 5;
        case
    };
    assert_eq!(mesh("2 10.0.2.2/24 subflow").on(changed(" fullmesh", " subflow")), ["close 2"]);
    assert_eq!(mesh("2 10.0.2.2/24").on(changed(" fullmesh", "")), ["close 1", "close 2"]);
}

#[test]
fn an_endpoint_that_comes_is_used_and_one_that_goes_is_withdrawn() {
    let second = "2 10.0.2.2/24 subflow signal";
    let mut case = Case::new(&[FIRST, second]);
    assert_eq!(case.on(PmEvent::EndpointUp(endpoint(second))), ["announce 2", "2 > 10.0.1.1:80#0"]);
    assert!(case.on(PmEvent::EndpointDown(endpoint(second))).is_empty());
    let mut announced = Case { announced: vec![2], ..case.with_subflow("10.0.2.2", "10.0.1.1") };
    assert_eq!(announced.on(PmEvent::EndpointDown(endpoint(second))), ["withdraw 2"]);
    assert!(announced.on(PmEvent::EndpointUp(endpoint(second))).is_empty(), "it is in use already");
}

#[test]
fn the_first_address_is_announced_when_it_comes_back() {
    let first = "1 10.0.1.2/24 signal";
    let back = PmEvent::EndpointUp(endpoint(first));
    let case = |withdrawn| Case { server_side: true, initial_withdrawn: withdrawn, ..Case::new(&[first]) };
    assert!(case(false).on(back).is_empty(), "the peer knows it");
    assert_eq!(case(true).on(back), ["announce 1"]);
    assert!(Case { announced: vec![1], ..case(true) }.on(back).is_empty(), "once");
}

#[test]
fn an_endpoint_that_comes_back_joins_what_was_announced() {
    let mut case = Case::new(&[FIRST, "2 10.0.2.2/24"]).with_remote(5, "10.0.2.1").with_remote(6, "10.0.7.1");
    assert_eq!(case.on(PmEvent::EndpointUp(case.endpoints[1])), ["2 > 10.0.2.1:80#5"]);
    assert_eq!(case.on(PmEvent::EndpointUp(case.endpoints[0])), ["1 > 10.0.7.1:80#6"]);
}

#[test]
fn any_endpoint_saves_a_connection_without_subflows() {
    let stranded = |endpoints: &[&str]| Case { subflows: vec![], ..Case::new(endpoints) };
    let mut case = stranded(&[FIRST]);
    assert_eq!(case.on(PmEvent::EndpointUp(case.endpoints[0])), ["1 > 10.0.1.1:80#0"]);
    let mut server = Case { server_side: true, ..stranded(&[FIRST]) };
    assert!(server.on(PmEvent::EndpointUp(server.endpoints[0])).is_empty());
    // To the initial address only if the peer does not mind.
    let mut denied = Case { deny_join_initial: true, ..stranded(&[FIRST, "2 10.0.3.2/24"]) }.with_remote(5, "10.0.2.1");
    assert_eq!(denied.on(PmEvent::EndpointUp(denied.endpoints[1])), ["2 > 10.0.2.1:80#5"]);
}

#[test]
fn what_was_closed_is_not_opened_again() {
    let mut case = Case::new(&[FIRST, "2 10.0.2.2/24 subflow"]);
    let gone = SubflowEntry { local: "10.0.2.2:40001".parse().unwrap(), ..case.subflows[0] };
    for event in
        [PmEvent::SubflowDown { subflow: gone, broken: false }, PmEvent::SubflowUp(gone), PmEvent::RemoveAddr(0)]
    {
        assert!(case.on(event).is_empty(), "{event:?}");
    }
}
