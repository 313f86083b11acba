//! Every state × every kind of segment: what RFC 9293 §3.10.7, RFC 5961 and RFC 7323 say.

use anabranch_core::ShardConfig;

use crate::harness::Script;

/// What goes out in answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reply {
    /// Nothing.
    None,
    /// An ACK that shows where we stand, after so much was taken in.
    Ack(u32),
    /// A reset with the number that the segment acknowledged.
    Reset,
    /// A reset that acknowledges the segment.
    ResetAck,
    /// A SYN/ACK.
    SynAck,
}

use Reply::{Ack, None, Reset, ResetAck, SynAck};

/// The kinds of segments. `n` is the number that we expect next, `a` what the peer has acknowledged so far.
const KINDS: [&str; 16] = [
    "SYN in the window",
    "the first SYN again",
    "FIN",
    "RST at the next byte",
    "RST in the window",
    "RST outside the window",
    "data",
    "old data",
    "data out of order",
    "data beyond the window",
    "ACK of what was never sent",
    "ACK of long ago",
    "data with an old timestamp",
    "data without ACK flag",
    "urgent data",
    "data with reserved bits",
];

fn segment(kind: usize, n: u32, a: u32) -> String {
    let range = |start: u32, len: u32| format!("{}:{}({len})", start, start.wrapping_add(len));
    let ts = "win 65535 <nop,nop,TS val 1000 ecr 0>";
    let data = |start: u32| format!("P. {} ack {a} {ts}", range(start, 100));
    match kind {
        0 => format!("S {} win 65535 <mss 1000,sackOK,TS val 1000>", range(n + 5, 0)),
        1 => "S 0:0(0) win 65535 <mss 1000,sackOK,TS val 700>".into(),
        2 => format!("F. {} ack {a} {ts}", range(n, 0)),
        3 => format!("R {} win 0", range(n, 0)),
        4 => format!("R {} win 0", range(n + 10, 0)),
        5 => format!("R {} win 0", range(n + 200_000, 0)),
        6 | 15 => data(n),
        7 => data(n.wrapping_sub(100)),
        8 => data(n + 100),
        9 => data(n + 200_000),
        10 => format!(". {} ack {} {ts}", range(n, 0), a + 100_000),
        11 => format!(". {} ack {} {ts}", range(n, 0), a.wrapping_sub(1 << 30)),
        12 => format!("P. {} ack {a} win 65535 <nop,nop,TS val 100 ecr 0>", range(n, 100)),
        13 => format!("P {} {ts}", range(n, 100)),
        _ => format!("PU. {} ack {a} {ts}", range(n, 100)),
    }
}

/// A state, how to get there, and what each kind of segment does there: the answer, and the state that follows.
struct State {
    name: &'static str,
    setup: fn() -> Script,
    /// The peer's next number, what it has acknowledged of ours, and our next number.
    numbers: (u32, u32, u32),
    does: [(Reply, &'static str); 16],
}

fn established() -> Script {
    Script::new().accepted_with("mss 1000,sackOK,TS val 700", "nop,nop,TS val 800 ecr 0")
}

fn fin_wait_1() -> Script {
    let mut script = established();
    script.run("+0 shutdown\n+0 > F. 1:1(0) ack 1");
    script
}

fn fin_wait_2() -> Script {
    let mut script = fin_wait_1();
    script.run("+0 < . 1:1(0) ack 2 win 65535 <nop,nop,TS val 850 ecr 100>");
    script
}

fn close_wait() -> Script {
    let mut script = established();
    script.run("+0 < F. 1:1(0) ack 1 win 65535 <nop,nop,TS val 850 ecr 0>\n+0 > . 1:1(0) ack 2");
    script
}

fn closing() -> Script {
    let mut script = fin_wait_1();
    script.run("+0 < F. 1:1(0) ack 1 win 65535 <nop,nop,TS val 850 ecr 100>\n+0 > . 2:2(0) ack 2");
    script
}

fn last_ack() -> Script {
    let mut script = close_wait();
    script.run("+0 shutdown\n+0 > F. 1:1(0) ack 2");
    script
}

fn time_wait() -> Script {
    let mut script = fin_wait_2();
    script.run("+0 < F. 1:1(0) ack 2 win 65535 <nop,nop,TS val 900 ecr 100>\n+0 > . 2:2(0) ack 2");
    script
}

fn syn_received() -> Script {
    let mut script = Script::new().listen();
    script.run("+0 < S 0:0(0) win 65535 <mss 1000,sackOK,TS val 700>\n+0 > S. 0:0(0) ack 1");
    script
}

/// SYN-RECEIVED of an active open: both sides opened at once.
fn crossed() -> Script {
    let mut script = Script::new();
    script.run("+0 connect\n+0 > S 0:0(0)");
    script.run("+0.01 < S 0:0(0) win 65535 <mss 1000,sackOK,TS val 700>\n+0 > S. 0:0(0) ack 1");
    script
}

/// SYN-RECEIVED of a connection that exists already.
fn fast_open() -> Script {
    let mut config = ShardConfig::single(1);
    config.handshake.fastopen.server_no_cookie = true;
    let mut script = Script::with(config, |_| ()).options(|options| options.fastopen = 1).listen();
    script.run(
        "+0 < S 0:10(10) win 65535 <mss 1000,sackOK,TS val 700>
         +0 > S. 0:0(0) ack 11
         +0 accept
         +0 read 10",
    );
    script
}

fn syn_sent() -> Script {
    let mut script = Script::new();
    script.run("+0 connect\n+0 > S 0:0(0)\n+0.01 quiet");
    script
}

/// What the first checks of all synchronised states have in common (RFC 9293 §3.10.7.4, steps 1 to 5).
const fn synchronised(name: &'static str) -> [(Reply, &'static str); 16] {
    [
        (Ack(0), name), // RFC 5961 §4.2
        (Ack(0), name),
        (None, name), // to be filled in
        (None, "CLOSED"),
        (Ack(0), name), // RFC 5961 §3.2
        (None, name),
        (Ack(100), name),
        (Ack(0), name),
        (Ack(0), name),
        (Ack(0), name),
        (Ack(0), name), // RFC 5961 §5.2
        (Ack(0), name), // RFC 5961 §5.2
        (Ack(0), name), // RFC 7323 §5.3
        (None, name),
        (Ack(100), name), // RFC 6093: urgent data is data
        (Ack(100), name), // RFC 9293 §3.1: reserved bits are ignored
    ]
}

/// States whose peer has sent its FIN: what it sends behind it is ignored.
const fn after_fin(name: &'static str) -> [(Reply, &'static str); 16] {
    let mut does = synchronised(name);
    does[6] = (None, name);
    does[8] = (None, name);
    does[14] = (None, name);
    does[15] = (None, name);
    does
}

const fn with(
    mut does: [(Reply, &'static str); 16],
    changes: &[(usize, (Reply, &'static str))],
) -> [(Reply, &'static str); 16] {
    let mut i = 0;
    while i < changes.len() {
        does[changes[i].0] = changes[i].1;
        i += 1;
    }
    does
}

/// SYN-RECEIVED of a connection that is seen as `name` there.
const fn half_open(name: &'static str) -> [(Reply, &'static str); 16] {
    with(
        synchronised(name),
        &[
            (1, (SynAck, name)),
            (2, (Ack(1), "CLOSE-WAIT")),
            (6, (Ack(100), "ESTABLISHED")),
            (8, (Ack(0), "ESTABLISHED")),
            (10, (Reset, name)),
            (11, (Reset, name)),
            (14, (Ack(100), "ESTABLISHED")),
            (15, (Ack(100), "ESTABLISHED")),
        ],
    )
}

const STATES: [State; 13] = [
    State {
        name: "CLOSED",
        setup: Script::new,
        numbers: (1, 1, 1),
        does: with(
            [(Reset, "CLOSED"); 16],
            &[
                (0, (ResetAck, "CLOSED")),
                (1, (ResetAck, "CLOSED")),
                (3, (None, "CLOSED")),
                (4, (None, "CLOSED")),
                (5, (None, "CLOSED")),
                (13, (ResetAck, "CLOSED")),
            ],
        ),
    },
    State {
        name: "LISTEN",
        setup: || Script::new().listen(),
        numbers: (1, 1, 1),
        does: with(
            [(Reset, "LISTEN"); 16],
            &[
                (0, (SynAck, "SYN-RECEIVED")),
                (1, (SynAck, "SYN-RECEIVED")),
                (3, (None, "LISTEN")),
                (4, (None, "LISTEN")),
                (5, (None, "LISTEN")),
                (13, (None, "LISTEN")),
            ],
        ),
    },
    State {
        name: "SYN-SENT",
        setup: syn_sent,
        numbers: (1, 1, 1),
        does: with(
            [(None, "OPENING"); 16],
            &[(0, (SynAck, "OPENING")), (1, (SynAck, "OPENING")), (10, (Reset, "OPENING")), (11, (Reset, "OPENING"))],
        ),
    },
    State {
        name: "SYN-RECEIVED",
        setup: syn_received,
        numbers: (1, 1, 1),
        does: with(
            half_open("SYN-RECEIVED"),
            &[
                (0, (SynAck, "SYN-RECEIVED")), // back to LISTEN, where the SYN counts
                (3, (None, "LISTEN")),
            ],
        ),
    },
    State { name: "SYN-RECEIVED after SYN-SENT", setup: crossed, numbers: (1, 1, 1), does: half_open("OPENING") },
    State {
        name: "SYN-RECEIVED with Fast Open",
        setup: fast_open,
        numbers: (11, 1, 1),
        does: half_open("SYN-RECEIVED"),
    },
    State {
        name: "ESTABLISHED",
        setup: established,
        numbers: (1, 1, 1),
        does: with(synchronised("ESTABLISHED"), &[(2, (Ack(1), "CLOSE-WAIT"))]),
    },
    State {
        name: "FIN-WAIT-1",
        setup: fin_wait_1,
        numbers: (1, 1, 2),
        does: with(synchronised("FIN-WAIT-1"), &[(2, (Ack(1), "CLOSING"))]),
    },
    State {
        name: "FIN-WAIT-2",
        setup: fin_wait_2,
        numbers: (1, 2, 2),
        does: with(synchronised("FIN-WAIT-2"), &[(2, (Ack(1), "TIME-WAIT"))]),
    },
    State { name: "CLOSE-WAIT", setup: close_wait, numbers: (2, 1, 1), does: after_fin("CLOSE-WAIT") },
    State { name: "CLOSING", setup: closing, numbers: (2, 1, 2), does: after_fin("CLOSING") },
    State { name: "LAST-ACK", setup: last_ack, numbers: (2, 1, 2), does: after_fin("LAST-ACK") },
    State {
        name: "TIME-WAIT",
        setup: time_wait,
        numbers: (2, 2, 2),
        does: with(
            [(Ack(0), "TIME-WAIT"); 16],
            &[
                (0, (SynAck, "SYN-RECEIVED")), // RFC 6191
                (3, (None, "CLOSED")),
                (4, (None, "TIME-WAIT")),
                (5, (None, "TIME-WAIT")),
                (10, (None, "TIME-WAIT")),
                (11, (None, "TIME-WAIT")),
            ],
        ),
    },
];

/// The state of the only connection, or of what is left of it.
fn state_of(script: &mut Script) -> String {
    let sizes = script.shard.sizes();
    script.try_accept();
    match script.state() {
        Some(state) if sizes.half_open == 0 => state.as_str().into(),
        _ if sizes.half_open > 0 => "SYN-RECEIVED".into(),
        _ if sizes.time_waits > 0 => "TIME-WAIT".into(),
        _ if script.is_opening() => "OPENING".into(),
        _ if script.was_accepted() => "CLOSED".into(),
        _ if script.listens() => "LISTEN".into(),
        _ => "CLOSED".into(),
    }
}

/// What went out, in the words of the table.
fn reply_of(script: &mut Script, kind: usize, (n, a, m): (u32, u32, u32)) -> Result<Reply, String> {
    let out = script.take_out();
    let [packet] = &out[..] else {
        return if out.is_empty() { Ok(None) } else { Err(format!("{} packets", out.len())) };
    };
    let acked = match kind {
        10 => a + 100_000,
        11 => a.wrapping_sub(1 << 30),
        _ => a,
    };
    match (packet.flags_text().as_str(), packet.seq, packet.ack) {
        (".", seq, Some(ack)) if seq == m && ack.wrapping_sub(n) <= 100 => Ok(Ack(ack - n)),
        ("R", seq, _) if seq == acked => Ok(Reset),
        ("R.", 0, Some(_)) => Ok(ResetAck),
        ("S.", 0, Some(_)) => Ok(SynAck),
        _ => Err(packet.to_string()),
    }
}

#[test]
fn every_state_does_with_every_segment_what_the_rfcs_say() {
    let mut wrong = Vec::new();
    for state in &STATES {
        for (kind, name) in KINDS.iter().enumerate() {
            let mut script = (state.setup)();
            // Long enough for the next answer not to be one too many.
            script.run("+0.02 quiet");
            let (n, a, _) = state.numbers;
            let text = segment(kind, n, a);
            if kind == 15 {
                script.inject_reserved(&text);
            } else {
                script.inject_text(&text);
            }
            let reply = reply_of(&mut script, kind, state.numbers);
            let after = state_of(&mut script);
            let (expected, next) = state.does[kind];
            if reply != Ok(expected) || after != next {
                wrong.push(format!("{}, {name}: {reply:?} and {after}, not {expected:?} and {next}\n", state.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), STATES.len() * KINDS.len(), wrong.concat());
}
