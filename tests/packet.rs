//! anabranch over the packet driver on veth pairs against the kernel: what the matrix asks of TUN devices, and what is
//! only to be asked of a wire.

use anabranch_tests::{Anabranch, Family, Join, LabBuilder, Layout, Role, permitted, prove};

const BYTES: u64 = 50_000_000;

fn check(layout: Layout, role: Role, family: Family, join: Join) {
    let name = format!("packet {layout:?} {role:?} {family:?} {join:?}");
    if permitted(&name) {
        prove(LabBuilder { layout, family, role, join }, &Anabranch::start_on_veth, BYTES)
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }
}

macro_rules! matrix {
    ($($name:ident: $layout:ident, $role:ident, $family:ident, $join:ident;)*) => {$(
        #[test]
        fn $name() {
            check(Layout::$layout, Role::$role, Family::$family, Join::$join);
        }
    )*};
}

matrix! {
    client_v4_plain_tcp: SameNamespace, Client, V4, PlainTcp;
    client_v6_one_subflow: SameNamespace, Client, V6, Single;
    client_v4_two_subflows_by_client: SameNamespace, Client, V4, ClientSubflow;
    client_v6_two_subflows_by_server: SameNamespace, Client, V6, ServerSignal;
    server_v6_plain_tcp: SameNamespace, Server, V6, PlainTcp;
    server_v4_one_subflow: SameNamespace, Server, V4, Single;
    server_v6_two_subflows_by_client: SameNamespace, Server, V6, ClientSubflow;
    server_v4_two_subflows_by_server: SameNamespace, Server, V4, ServerSignal;
    routed_client_v4_two_subflows_by_client: Routed, Client, V4, ClientSubflow;
    routed_client_v6_two_subflows_by_client: Routed, Client, V6, ClientSubflow;
    routed_server_v4_two_subflows_by_server: Routed, Server, V4, ServerSignal;
    routed_server_v6_two_subflows_by_client: Routed, Server, V6, ClientSubflow;
}
