//! Conversations with anything in between, at random: see [`middle`].
//!
//! `ANABRANCH_SEED` sets the seed of the first run, `ANABRANCH_RUNS` their number, `ANABRANCH_STEPS` the number of steps
//! of interactions, `ANABRANCH_TRACE` prints every packet. What fails here becomes a test of its own.

mod middle;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use anabranch_sim::{Random, seed_from_env};
use middle::{Dialect, Outcome};

fn runs(default: u64) -> u64 {
    std::env::var("ANABRANCH_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A program of random bytes that begins with `setup`.
fn run(seed: u64, honest: bool) -> Outcome {
    run_in(seed, honest, Dialect::Plain)
}

fn run_in(seed: u64, honest: bool, dialect: Dialect) -> Outcome {
    let mut random = Random::new(seed, u64::from(honest));
    let mut program = vec![0; 3 + random.below(1500) as usize];
    random.fill(&mut program);
    program[0] = program[0] & !1 | u8::from(honest);
    catch_unwind(AssertUnwindSafe(|| middle::run(&program, dialect))).unwrap_or_else(|panic| {
        eprintln!("ANABRANCH_SEED={seed} ANABRANCH_RUNS=1 replays this, honest: {honest}, {dialect:?}");
        resume_unwind(panic)
    })
}

/// Runs until so many steps were taken, or as many as `ANABRANCH_STEPS` says; with `ANABRANCH_RUNS`, so many runs.
fn interact(honest: bool, dialect: Dialect, steps: u64) -> Outcome {
    let given = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = seed_from_env(1);
    let (steps, runs) = (given("ANABRANCH_STEPS").unwrap_or(steps), given("ANABRANCH_RUNS").unwrap_or(u64::MAX));
    let mut total = Outcome::default();
    for seed in first..first.saturating_add(runs) {
        total = [total, run_in(seed, honest, dialect)].into_iter().sum();
        if total.steps >= steps {
            break;
        }
    }
    println!("{total:?}");
    total
}

/// Applications, paths and settings do whatever they may in any order: open, join, close, break, announce, withdraw,
/// change priority, reorder, drop, duplicate, strip, write, read, shut down, abort. After each step no byte was lost,
/// doubled or invented, all state has its owner, a timer is armed for all that is under way, memory is bounded, and
/// gauges are right.
#[test]
fn interactions_in_any_order_harm_no_byte() {
    let total = interact(true, Dialect::Rich, 100_000);
    if total.steps >= 100_000 {
        assert!(total.mptcp > 100 && total.joins > 50 && total.bytes > 100_000, "{total:?}");
    }
}

#[test]
fn interactions_in_any_order_with_a_forger_leave_the_stack_in_order() {
    let total = interact(false, Dialect::Rich, 100_000);
    if total.steps >= 100_000 {
        assert!(total.mptcp > 100, "{total:?}");
    }
}

/// The same while paths and addresses are removed, and added again under other numbers.
#[test]
fn paths_that_come_and_go_harm_no_byte() {
    let total = interact(true, Dialect::Moving, 100_000);
    if total.steps >= 100_000 {
        assert!(total.mptcp > 100 && total.joins > 50 && total.bytes > 100_000, "{total:?}");
    }
}

#[test]
fn paths_that_come_and_go_with_a_forger_leave_the_stack_in_order() {
    let total = interact(false, Dialect::Moving, 100_000);
    if total.steps >= 100_000 {
        assert!(total.mptcp > 100, "{total:?}");
    }
}

#[test]
fn a_bad_network_harms_no_byte() {
    let first = seed_from_env(1);
    let count = runs(500);
    let total: Outcome = (first..first + count).map(|seed| run(seed, true)).sum();
    println!("{count} runs: {total:?}");
    // The runs mean something: most come to an end in good order, and most of them speak MPTCP.
    if count >= 100 {
        assert!(total.whole as u64 > count / 2 && total.mptcp > count / 2 && total.bytes > 100_000, "{total:?}");
    }
}

#[test]
fn a_forger_breaks_connections_but_not_the_stack() {
    let first = seed_from_env(1);
    let count = runs(500);
    let total: Outcome = (first..first + count).map(|seed| run(seed, false)).sum();
    println!("{count} runs: {total:?}");
    if count >= 100 {
        assert!(total.mptcp > count / 2, "{total:?}");
    }
}

/// Runs that found something, with what it was.
#[test]
fn what_was_found_once_stays_mended() {
    let runs = [
        (111, true, "no keepalive probes in FIN-WAIT-2"),
        (24_122, true, "keepalive, switched on late, sent all its probes at once and gave up"),
        (32, false, "a subflow in FIN-WAIT-2 for ever, the streams being over and the peer gone"),
        (1908, false, "a join refused by a SYN/ACK without MP_JOIN left a connection without a subflow or a timer"),
        (14_163, false, "DATA_FIN was sent again for ever when the peer took no ACK"),
        (212_769, true, "three lost answers to DATA_FIN passed for a fallback, and cut the peer's stream off"),
        (220_666, false, "a fallback after a retransmission at data level lost its place in the stream"),
        (313_493, true, "bytes sent again on their own subflow were new ones to a peer that had fallen back unheard"),
    ];
    for (seed, honest, what) in runs {
        println!("{what}");
        run(seed, honest);
    }
    let interactions = [
        (
            167,
            true,
            "both waited for the other's end of the stream when one had fallen back unheard after a join was tried",
        ),
        (881, true, "data sent again on the only subflow was new data to a peer that had fallen back unheard"),
        (1397, true, "the same, when the peer fell back after it had been sent again"),
        (3575, false, "a join to a connection at rest woke it without a timer and without an account of its memory"),
        (
            109_113,
            true,
            "a FIN of a peer that had fallen back unheard was answered as a subflow's while a join was not confirmed",
        ),
        (189_349, true, "what a subflow had taken after all was sent once more, to a peer that fell back just then"),
    ];
    for (seed, honest, what) in interactions {
        println!("{what}");
        run_in(seed, honest, Dialect::Rich);
    }
    let moving = [
        (875, true, "a third ACK of a join that was refused woke a connection without an account of its memory"),
        (27_255, true, "what a subflow had acknowledged waited for its DATA_ACK for ever after a fallback"),
        (
            36_654,
            true,
            "a FIN of a peer that had fallen back unheard was answered as a subflow's while a join was not confirmed",
        ),
        (138_598, true, "a window that another subflow had opened was never asked for on the one that was left"),
        (69_212, true, "the window of a peer that had fallen back unheard was closed for ever"),
    ];
    for (seed, honest, what) in moving {
        println!("{what}");
        run_in(seed, honest, Dialect::Moving);
    }
}

/// Programs that a fuzzer found, in hexadecimal, with what they found. `ANABRANCH_PROGRAM` adds one.
#[test]
fn what_a_fuzzer_found_stays_mended() {
    let found = [(
        "4a5b5be7f60126105aaaaaaa5be7",
        "DATA_FIN overtook the third ACK: the server fell back, the client did not see it and waited for DATA_ACK",
    )];
    let given = std::env::var("ANABRANCH_PROGRAM").ok();
    for (program, what) in found.into_iter().chain(given.as_deref().map(|program| (program, "ANABRANCH_PROGRAM"))) {
        println!("{what}");
        let byte = |at| u8::from_str_radix(&program[at..at + 2], 16).expect("hexadecimal digits");
        let program: Vec<_> = (0..program.len() / 2).map(|at| byte(at * 2)).collect();
        middle::run(&program, Dialect::Plain);
    }
}
