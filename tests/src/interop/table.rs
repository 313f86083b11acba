//! The matrix as a table for people.

use std::fmt::Write as _;

use super::{End, Expect, ROWS, Row, Set, Step};
use crate::{Family, Role};

const HEAD: &str = "\
# Interoperation with the kernel

What anabranch and the MPTCP of Linux (6.18) do with each other, over two paths through a router, in network namespaces. Each row is
a connection that carries bytes both ways before, during and after what the row is about; `tests/src/interop/rows.rs` has the rows.
`cargo test -p anabranch-tests --test interop` runs them all and checks what both ends counted; this page is written by

```
cargo run -p anabranch-tests --bin interop > docs/interop.md
```

which runs them first, and prints nothing else if one of them fails.

| row | anabranch is | given | then | subflows | the kernel counted | anabranch counted |
|---|---|---|---|---|---|---|
";

/// All rows, in Markdown.
#[must_use]
pub fn table() -> String {
    let mut text = HEAD.to_owned();
    for row in ROWS {
        let Row { name, role, family, given, then, end, subflows, kernel, ours } = row;
        let role = if *role == Role::Client { "client" } else { "server" };
        let family = if *family == Family::V4 { "IPv4" } else { "IPv6" };
        let subflows = if subflows.0 == subflows.1 {
            subflows.0.to_string()
        } else {
            format!("{}, then {}", subflows.0, subflows.1)
        };
        let given: Vec<String> = given.iter().map(|set| describe_set(*set)).collect();
        let mut then: Vec<String> = then.iter().map(|step| describe_step(*step)).collect();
        match end {
            End::Close => {}
            End::OurAbort => then.push("we abort".into()),
            End::KernelAbort => then.push("the kernel aborts".into()),
            End::TooLate(rule) => then.push(format!(
                "router: `{rule}`; the kernel sends, and repeats it for want of a DATA_ACK; we send; the kernel resets \
                 (MP_TCPRST, reason 6)"
            )),
        }
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {name} | {role}, {family} | {} | {} | {subflows} | {} | {} |",
            given.join("; "),
            then.join("; "),
            counts(kernel),
            counts(ours)
        );
    }
    text
}

fn describe_set(set: Set) -> String {
    match set {
        Set::Path(words) => format!("our path 2: `{words}`"),
        Set::Endpoint(words) => format!("kernel's address 2: `{words}`"),
        Set::Checksum => "we ask for checksums".into(),
        Set::Limits(subflows, accepted) => format!("our limits {subflows}, {accepted}"),
        Set::KernelLimits(subflows, accepted) => format!("kernel's limits {subflows}, {accepted}"),
        Set::DenyJoin => "we set the C flag".into(),
        Set::SynCookies => "we answer with SYN cookies".into(),
        Set::Manager(name) => format!("our path manager `{name}`"),
        Set::FastOpen => "Fast Open".into(),
        Set::Sysctl(name, value) => format!("`{name}={value}`"),
        Set::Nft(rule) => format!("router: `{rule}`"),
    }
}

fn describe_step(step: Step) -> String {
    match step {
        Step::Change(words) => format!("our path 2: `{words}`"),
        Step::Remove => "our address 2 goes".into(),
        Step::RemoveFirst => "our address 1 goes".into(),
        Step::AddFirst(words) => format!("our address 1 comes: `{words}`"),
        Step::Endpoint(words) => format!("kernel's address 2: `{words}`"),
        Step::EndpointChange(words) => format!("kernel's address 2 becomes `{words}`"),
        Step::EndpointDelete => "kernel's address 2 goes".into(),
        Step::EndpointDeleteFirst => "kernel's address 1 goes".into(),
        Step::Nft(rule) => format!("router: `{rule}`"),
        Step::NftBeforeKernel(rule) => {
            format!("router, when all is acknowledged: `{rule}`; the kernel sends first, then silence")
        }
        Step::NftAtRest(rule) => format!("router, when all is acknowledged: `{rule}`; we send first"),
        Step::Pause(millis) => format!("{millis} ms pass"),
    }
}

fn counts(expected: &[Expect]) -> String {
    let short = |name: &'static str| name.trim_start_matches("MPTcpExt").trim_start_matches("TcpExt");
    let count = |expect: &Expect| match expect.at_most {
        u64::MAX => format!("{} ≥ {}", short(expect.name), expect.at_least),
        most => format!("{} {most}", short(expect.name)),
    };
    expected.iter().map(count).collect::<Vec<_>>().join(", ")
}
