//! Ending connections, in every order, in good order or not.

use anabranch_core::shard::Shutdown;
use anabranch_core::{Error, SocketOptions};
use anabranch_sim::{Action, Chatter, Note, Pair, Transfer};

use crate::support::*;

const BOTH: [bool; 2] = [true, false];

fn options(mptcp: bool) -> SocketOptions {
    SocketOptions { mptcp, ..SocketOptions::default() }
}

#[test]
fn the_client_half_closes_and_still_reads() {
    for mptcp in BOTH {
        let mut net = Pair::seeded(301).path(wifi()).build();
        let remote = Pair::server_addr(0);
        // Given a server that sends for a second after the client has nothing more to say,
        let server = Transfer::listen(remote).options(options(mptcp)).sends(6 * MEGABYTE);
        let server = net.spawn(Pair::SERVER, server);
        let client = Transfer::connect(remote).options(options(mptcp)).sends(1000);
        let client = net.spawn(Pair::CLIENT, client);
        let took = finish(&mut net, (client, server), secs(5));
        // then the server heard the end of the stream long before its own.
        let heard = net.app(server).flow().eof_at.unwrap();
        assert!(heard.as_millis() < 100, "mptcp {mptcp}: the end of the stream came at {heard}");
        assert!(took > ms(900), "{took:?}");
        close(&mut net, (client, server));
        assert_no_reset(&net);
    }
}

#[test]
fn the_server_half_closes_and_still_reads() {
    for mptcp in BOTH {
        let mut net = Pair::seeded(302).path(wifi()).build();
        let remote = Pair::server_addr(0);
        let server = Transfer::listen(remote).options(options(mptcp)).sends(1000);
        let server = net.spawn(Pair::SERVER, server);
        let client = Transfer::connect(remote).options(options(mptcp)).sends(6 * MEGABYTE);
        let client = net.spawn(Pair::CLIENT, client);
        finish(&mut net, (client, server), secs(5));
        let heard = net.app(client).flow().eof_at.unwrap();
        assert!(heard.as_millis() < 100, "mptcp {mptcp}: the end of the stream came at {heard}");
        close(&mut net, (client, server));
        assert_no_reset(&net);
    }
}

#[test]
fn who_closes_first_waits_and_nobody_stays() {
    for mptcp in BOTH {
        let mut net = Pair::seeded(303).path(wifi()).build();
        let server = Transfer::listen(Pair::server_addr(0)).options(options(mptcp)).closes_when_sent(false);
        let server = net.spawn(Pair::SERVER, server.sends(1000));
        let client = Transfer::connect(Pair::server_addr(0)).options(options(mptcp)).sends(1000);
        let client = net.spawn(Pair::CLIENT, client);
        finish(&mut net, (client, server), secs(1));
        close(&mut net, (client, server));
        net.run_for(ms(100));
        let counts = |net: &Pair| [Pair::CLIENT, Pair::SERVER].map(|host| net.shard(host, 0).connections());
        // The client sent the first FIN: it is in TIME-WAIT, the server's state is gone. Under MPTCP the streams
        // are over before the first FIN is sent: both sides may send theirs at once, and both wait.
        let waiting = if mptcp { counts(&net) } else { [1, 0] };
        net.run_to(secs(1));
        assert_eq!(counts(&net), waiting, "mptcp {mptcp}");
        assert_eq!(waiting[0], 1);
        assert_eq!(net.counters(Pair::CLIENT).tw, 1);
        net.run_to(secs(59));
        assert_eq!(counts(&net), waiting, "mptcp {mptcp}");
        // After a minute nothing is left.
        net.run_to(secs(62));
        assert_eq!(counts(&net), [0, 0], "mptcp {mptcp}");
    }
}

#[test]
fn a_lost_fin_is_sent_again() {
    for (mptcp, way) in [(true, Way::Up), (true, Way::Down), (false, Way::Up), (false, Way::Down)] {
        let mut net = Pair::seeded(304).path(wifi()).build();
        lose(&mut net, way, 1, |segment| segment.flags.has(anabranch_core::wire::Flags::FIN));
        let apps = start(&mut net, 1000, 1000, &options(mptcp));
        finish(&mut net, apps, secs(3));
        close(&mut net, apps);
        assert_no_reset(&net);
    }
}

#[test]
fn an_abort_is_heard_at_once() {
    for mptcp in BOTH {
        let mut net = Pair::seeded(305).path(wifi()).path(lte()).build();
        let server = net.spawn(Pair::SERVER, Chatter::listen(Pair::server_addr(0)).options(options(mptcp)));
        let client = Chatter::connect(Pair::server_addr(0))
            .options(options(mptcp))
            .at(ms(300), Action::Write(b"hello".to_vec()))
            .at(ms(500), Action::Abort);
        let client = net.spawn(Pair::CLIENT, client);
        net.run_to(ms(1000));
        assert_eq!(net.app(server).heard(), b"hello");
        assert_eq!(net.app(client).closed(), Some(Some(Error::Aborted)));
        let reset = net.app(server).when(&Note::Closed(Some(Error::Reset))).expect("the server heard a reset");
        assert!(reset.as_millis() < 600, "mptcp {mptcp}: {reset}");
        // MPTCP says so with MP_FASTCLOSE, for the whole connection.
        let fastcloses = net.counters(Pair::SERVER).mp_fastclose_rx;
        assert_eq!(fastcloses > 0, mptcp, "{fastcloses} received");
        net.run_to(secs(10));
        assert_eq!(net.shard(Pair::SERVER, 0).connections(), 1, "not released yet");
        let conn = net.app(server).conn().unwrap();
        net.with_shard(Pair::SERVER, 0, |now, shard| shard.release(now, conn));
        assert_eq!(net.shard(Pair::SERVER, 0).connections(), 0);
    }
}

#[test]
fn releasing_with_unread_data_resets() {
    for mptcp in BOTH {
        let mut net = Pair::seeded(306).path(wifi()).build();
        let server = Chatter::listen(Pair::server_addr(0))
            .options(options(mptcp))
            .at(ms(0), Action::Read(false))
            .at(ms(200), Action::Release);
        net.spawn(Pair::SERVER, server);
        let client = Chatter::connect(Pair::server_addr(0))
            .options(options(mptcp))
            .at(ms(100), Action::Write(b"nobody reads this".to_vec()));
        let client = net.spawn(Pair::CLIENT, client);
        net.run_to(secs(1));
        assert_eq!(net.app(client).closed(), Some(Some(Error::Reset)), "mptcp {mptcp}");
    }
}

#[test]
fn data_for_a_released_connection_resets_it() {
    for mptcp in BOTH {
        let mut net = Pair::seeded(307).path(wifi()).build();
        let server = Chatter::listen(Pair::server_addr(0)).options(options(mptcp)).at(ms(100), Action::Release);
        net.spawn(Pair::SERVER, server);
        let client = Chatter::connect(Pair::server_addr(0))
            .options(options(mptcp))
            .at(ms(300), Action::Write(b"nobody is there".to_vec()));
        let client = net.spawn(Pair::CLIENT, client);
        net.run_to(secs(1));
        assert!(net.app(client).saw(&Note::Eof), "mptcp {mptcp}: a release ends the stream in good order");
        // As the kernel has it: a peer that had ended its stream takes no more.
        let error = if mptcp { Error::Reset } else { Error::BrokenPipe };
        assert_eq!(net.app(client).closed(), Some(Some(error)), "mptcp {mptcp}");
    }
}

#[test]
fn writing_after_shutdown_is_refused() {
    for mptcp in BOTH {
        let mut net = Pair::seeded(308).path(wifi()).build();
        net.spawn(Pair::SERVER, Chatter::listen(Pair::server_addr(0)).options(options(mptcp)));
        let client = Chatter::connect(Pair::server_addr(0))
            .options(options(mptcp))
            .at(ms(100), Action::Shutdown(Shutdown::Write))
            .at(ms(200), Action::Write(b"too late".to_vec()));
        let client = net.spawn(Pair::CLIENT, client);
        net.run_to(secs(1));
        assert!(net.app(client).saw(&Note::Refused(Error::ShutDown)));
    }
}

#[test]
fn what_was_written_before_a_release_arrives() {
    for mptcp in BOTH {
        let mut net = Pair::seeded(309).path(wifi().loss(0.01)).build();
        let server = net.spawn(Pair::SERVER, Transfer::listen(Pair::server_addr(0)).options(options(mptcp)));
        let mut bytes = vec![0; 2_000_000];
        anabranch_sim::Pattern::new(1).fill(&mut bytes);
        let client = Chatter::connect(Pair::server_addr(0))
            .options(options(mptcp))
            .at(ms(100), Action::Write(bytes))
            .at(ms(101), Action::Release);
        net.spawn(Pair::CLIENT, client);
        assert!(net.run_until(secs(10), |world| world.app(server).completed(1)));
        assert_eq!(net.app(server).flow().received.bytes, 2_000_000);
    }
}
