use super::*;

#[test]
fn every_pair_of_addresses_gets_a_subflow() {
    let endpoints = [FIRST, "2 10.0.2.2/24", "3 10.0.3.2/24 backup", "4 10.0.4.2/24 down", "5 fd00::2/64"];
    let mut client = Case::new(&endpoints).managed_by("fullmesh").with_remote(7, "10.0.9.1");
    assert_eq!(
        client.on(PmEvent::FullyEstablished),
        [
            "announce 2",
            "announce 3",
            "announce 5",
            "1 > 10.0.9.1:80#7",
            "2 > 10.0.1.1:80#0",
            "2 > 10.0.9.1:80#7",
            "3 > 10.0.1.1:80#0 backup",
            "3 > 10.0.9.1:80#7 backup",
        ]
    );
    let mut server = Case { server_side: true, ..Case::new(&endpoints).managed_by("fullmesh") };
    assert_eq!(server.on(PmEvent::FullyEstablished), ["announce 2", "announce 3", "announce 5"]);
}

#[test]
fn addresses_that_come_later_are_joined_and_those_that_go_withdrawn() {
    let mut case = Case::new(&[FIRST, "2 10.0.2.2/24"]).managed_by("fullmesh").with_subflow("10.0.2.2", "10.0.1.1");
    assert_eq!(
        case.on(PmEvent::EndpointUp(endpoint("3 10.0.3.2/24"))),
        ["announce 3", "3 > 10.0.1.1:80#0"],
        "an address of ours"
    );
    case.announced = vec![2];
    assert_eq!(case.on(PmEvent::EndpointDown(endpoint("2 10.0.2.2/24"))), ["withdraw 2"]);
    assert_eq!(case.on_add_addr(7, "10.0.9.1"), ["1 > 10.0.9.1:80#7", "2 > 10.0.9.1:80#7"], "an address of the peer");
}

#[test]
fn the_limit_of_subflows_holds() {
    let endpoints = [FIRST, "2 10.0.2.2/24", "3 10.0.3.2/24"];
    let mut case = Case { left: 1, ..Case::new(&endpoints).managed_by("fullmesh") };
    assert_eq!(case.on(PmEvent::FullyEstablished), ["announce 2", "announce 3", "2 > 10.0.1.1:80#0"]);
}
