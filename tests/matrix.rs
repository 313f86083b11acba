//! anabranch against the kernel: as client and as server, over IPv4 and IPv6, plain TCP, MPTCP with one
//! subflow and with two that either side joined, in one namespace and routed to another. 100 MB each way
//! at once in every case; see `prove` for what must hold then.

use anabranch_tests::{Anabranch, Family, Join, LabBuilder, Layout, Role, permitted, prove};

const BYTES: u64 = 100_000_000;

fn check(layout: Layout, role: Role, family: Family, join: Join) {
    let name = format!("{layout:?} {role:?} {family:?} {join:?}");
    if permitted(&name) {
        prove(LabBuilder { layout, family, role, join }, &Anabranch::start, BYTES)
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }
}

macro_rules! joins {
    ($layout:ident, $role:ident, $family:ident) => {
        use super::*;

        #[test]
        fn plain_tcp() {
            check(Layout::$layout, Role::$role, Family::$family, Join::PlainTcp);
        }

        #[test]
        fn one_subflow() {
            check(Layout::$layout, Role::$role, Family::$family, Join::Single);
        }

        #[test]
        fn two_subflows_by_client() {
            check(Layout::$layout, Role::$role, Family::$family, Join::ClientSubflow);
        }

        #[test]
        fn two_subflows_by_server() {
            check(Layout::$layout, Role::$role, Family::$family, Join::ServerSignal);
        }
    };
}

mod client {
    use super::*;

    mod same_namespace_v4 {
        joins!(SameNamespace, Client, V4);
    }
    mod same_namespace_v6 {
        joins!(SameNamespace, Client, V6);
    }
    mod routed_v4 {
        joins!(Routed, Client, V4);
    }
    mod routed_v6 {
        joins!(Routed, Client, V6);
    }
}

mod server {
    use super::*;

    mod same_namespace_v4 {
        joins!(SameNamespace, Server, V4);
    }
    mod same_namespace_v6 {
        joins!(SameNamespace, Server, V6);
    }
    mod routed_v4 {
        joins!(Routed, Server, V4);
    }
    mod routed_v6 {
        joins!(Routed, Server, V6);
    }
}
