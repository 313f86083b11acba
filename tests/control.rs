//! The control of the experiment: what is asked of anabranch elsewhere, asked of the kernel itself. If this
//! fails, the harness or the machine is wrong.

use anabranch_tests::{Family, Join, Kernel, LabBuilder, Layout, Role, permitted, prove};

fn control(layout: Layout, family: Family, join: Join) {
    if permitted("control") {
        prove(LabBuilder { layout, family, role: Role::Client, join }, &Kernel::start, 20_000_000)
            .unwrap_or_else(|error| panic!("{layout:?} {family:?} {join:?}: {error:#}"));
    }
}

#[test]
fn plain_tcp() {
    control(Layout::SameNamespace, Family::V4, Join::PlainTcp);
}

#[test]
fn one_subflow() {
    control(Layout::Routed, Family::V6, Join::Single);
}

#[test]
fn two_subflows_by_client() {
    control(Layout::Routed, Family::V4, Join::ClientSubflow);
}

#[test]
fn two_subflows_by_client_v6() {
    control(Layout::SameNamespace, Family::V6, Join::ClientSubflow);
}

#[test]
fn two_subflows_by_server() {
    control(Layout::SameNamespace, Family::V4, Join::ServerSignal);
}

#[test]
fn two_subflows_by_server_v6() {
    control(Layout::Routed, Family::V6, Join::ServerSignal);
}
