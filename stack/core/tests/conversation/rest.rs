//! Connections at rest: smaller, and nobody notices.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anabranch_core::SocketOptions;
use anabranch_frame::Instant;
use anabranch_sim::{Action, AppId, Chatter, LinkConfig, LinkId, Pair, Random, Verdict, describe};

use crate::support::{ms, plain, secs};

/// Packets: when, on which link, and what they say.
type Passed = Arc<Mutex<Vec<(Instant, LinkId, String)>>>;

/// Two hosts that put connections to rest after `rest_after`, and everything that passes between them.
fn talk(seed: u64, rest_after: Duration, options: &SocketOptions) -> (Pair, [AppId<Chatter>; 2], Passed) {
    let lossy = LinkConfig::new(20, 8).queue_time(ms(60)).loss(0.01);
    let mut net = Pair::seeded(seed)
        .path(LinkConfig::new(50, 5).queue_time(ms(40)))
        .path(lossy)
        .client(|host| host.shard.rest_after = rest_after)
        .server(|host| host.shard.rest_after = rest_after)
        .build();
    let passed = Arc::new(Mutex::new(Vec::new()));
    for link in [net.up_link(0), net.down_link(0), net.up_link(1), net.down_link(1)] {
        let passed = Arc::clone(&passed);
        net.set_middlebox(link, move |now, packet| {
            passed.lock().unwrap().push((now, link, describe(&packet)));
            Verdict::Pass(packet)
        });
    }
    let mut random = Random::new(seed, 1);
    let mut script = |chatter: Chatter| {
        let mut at = ms(100);
        (0..40).fold(chatter.options(options.clone()), |chatter, _| {
            at += [ms(3), ms(30), ms(300), secs(3)][random.below(4) as usize] + ms(random.below(20));
            let len = [1, 300, 20_000, 200_000][random.below(4) as usize];
            chatter.at(at, Action::Write(vec![7; len]))
        })
    };
    let server = net.spawn(Pair::SERVER, script(Chatter::listen(Pair::server_addr(0))));
    let client = net.spawn(Pair::CLIENT, script(Chatter::connect(Pair::server_addr(0))));
    (net, [client, server], passed)
}

fn at_rest(net: &Pair) -> [u64; 2] {
    [Pair::CLIENT, Pair::SERVER].map(|host| net.counters(host).conns_at_rest)
}

#[test]
fn a_connection_that_rested_says_what_it_would_have_said() {
    for seed in 0..8 {
        for options in [plain(), SocketOptions::default()] {
            // Given the same conversation, with pauses, of hosts that never rest and of hosts that rest at
            // every opportunity,
            let [awake, resting] = [Duration::MAX, Duration::ZERO].map(|rest_after| {
                let (mut net, apps, passed) = talk(seed, rest_after, &options);
                // when it has taken its course,
                net.run_to(secs(120));
                let heard = apps.map(|app| net.app(app).heard().len());
                let mut passed = passed.lock().unwrap().clone();
                // What happens at one time on two links has no order.
                passed.sort_by_key(|(now, link, _)| (*link, *now));
                (at_rest(&net), heard, passed)
            });
            // then some did rest, and not one packet is another, or comes at another time.
            assert_eq!((awake.0, resting.0), ([0, 0], [1, 1]), "seed {seed}");
            assert_eq!(awake.1, resting.1, "seed {seed}");
            let differs = awake.2.iter().zip(&resting.2).position(|(one, other)| one != other);
            assert_eq!(differs.map(|at| (at, &awake.2[at], &resting.2[at])), None, "seed {seed}");
            assert_eq!(awake.2.len(), resting.2.len(), "seed {seed}");
        }
    }
}
