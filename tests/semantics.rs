//! What sockets do at the edges: every story is told twice, by a socket of ours and by one of the kernel, to the same
//! kind of peer, a kernel socket. What both report has to be the same.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anabranch::{ConnectOptions, SocketOptions};
use anabranch_tests::kernel::{self, Protocol};
use anabranch_tests::{Anabranch, Family, Netns, PathOptions, permitted};
use anyhow::Result;
use socket2::SockRef;

const PORT: u16 = 5001;

/// What a socket is asked here, whoever made it.
trait Socket: Send {
    fn read(&self, buf: &mut [u8]) -> io::Result<usize>;
    fn write(&self, buf: &[u8]) -> io::Result<usize>;
    fn peek(&self, buf: &mut [u8]) -> io::Result<usize>;
    fn shutdown(&self, how: Shutdown) -> io::Result<()>;
    fn set_nonblocking(&self, on: bool) -> io::Result<()>;
    fn set_linger(&self, linger: Option<Duration>) -> io::Result<()>;
    fn take_error(&self) -> io::Result<Option<io::Error>>;
}

macro_rules! socket {
    ($type:ty, $linger:expr) => {
        impl Socket for $type {
            fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
                Read::read(&mut &*self, buf)
            }
            fn write(&self, buf: &[u8]) -> io::Result<usize> {
                Write::write(&mut &*self, buf)
            }
            fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
                Self::peek(self, buf)
            }
            fn shutdown(&self, how: Shutdown) -> io::Result<()> {
                Self::shutdown(self, how)
            }
            fn set_nonblocking(&self, on: bool) -> io::Result<()> {
                Self::set_nonblocking(self, on)
            }
            fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
                $linger(self, linger)
            }
            fn take_error(&self) -> io::Result<Option<io::Error>> {
                Self::take_error(self)
            }
        }
    };
}

socket!(TcpStream, |stream: &TcpStream, linger| SockRef::from(stream).set_linger(linger));
socket!(anabranch::TcpStream, anabranch::TcpStream::set_linger);

/// What happened, in words that do not depend on who says it.
fn told<T: std::fmt::Debug>(result: io::Result<T>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("{:?}", error.kind()),
    }
}

/// Long enough for a packet to get there and be answered.
fn pause() {
    std::thread::sleep(Duration::from_millis(100));
}

/// A story: the socket in question, its peer, and where to write down what happened.
type Story = fn(Box<dyn Socket>, TcpStream) -> Vec<String>;

const STORIES: &[(&str, Story)] = &[
    ("each side ends its direction, ours first", |ours, mut peer| {
        let mut log = vec![told(ours.write(b"question")), told(ours.shutdown(Shutdown::Write))];
        let mut heard = Vec::new();
        log.push(told(peer.read_to_end(&mut heard)));
        log.push(told(peer.write_all(b"answer")));
        let mut buf = [0; 16];
        log.push(told(ours.read(&mut buf)));
        drop(peer);
        log.push(told(ours.read(&mut buf)));
        log.push(told(ours.write(b"more")));
        log
    }),
    ("each side ends its direction, the peer first", |ours, mut peer| {
        peer.shutdown(Shutdown::Write).unwrap();
        let mut buf = [0; 16];
        let mut log =
            vec![told(ours.read(&mut buf)), told(ours.write(b"answer")), told(ours.shutdown(Shutdown::Write))];
        let mut heard = Vec::new();
        log.push(told(peer.read_to_end(&mut heard)));
        log.push(told(ours.read(&mut buf)));
        log
    }),
    ("the peer resets: the error is told once", |ours, peer| {
        kernel::reset(peer).unwrap();
        pause();
        let mut buf = [0; 16];
        let mut log = vec![told(ours.read(&mut buf)), told(ours.read(&mut buf)), told(ours.write(b"x"))];
        log.push(told(ours.take_error().map(|error| error.is_some())));
        log
    }),
    ("the peer resets: a writer hears of it, too", |ours, peer| {
        kernel::reset(peer).unwrap();
        pause();
        let mut log = vec![told(ours.write(b"x")), told(ours.write(b"x"))];
        log.push(told(ours.read(&mut [0; 16])));
        log
    }),
    ("the peer resets: what came before is lost to nobody who asks for the error", |ours, mut peer| {
        peer.write_all(b"before").unwrap();
        pause();
        kernel::reset(peer).unwrap();
        pause();
        vec![told(ours.take_error().map(|error| error.map(|error| error.kind())))]
    }),
    ("writing to a peer that is gone", |ours, peer| {
        drop(peer);
        pause();
        let mut log = vec![told(ours.write(b"into the void"))];
        pause();
        log.push(told(ours.write(b"x")));
        log.push(told(ours.read(&mut [0; 16])));
        log
    }),
    ("lingering for no time at all is a reset", |ours, peer| {
        ours.write(b"lost, perhaps").unwrap();
        let mut log = vec![told(ours.set_linger(Some(Duration::ZERO)))];
        let mut heard = [0; 16];
        log.push(told(peer.read(&mut heard)));
        drop(ours);
        log.push(told(peer.read(&mut heard)));
        log
    }),
    ("lingering waits until everything has arrived", |ours, mut peer| {
        let all = vec![7; 3_000_000];
        let reader = std::thread::spawn(move || {
            pause();
            let mut heard = Vec::new();
            let result = told(peer.read_to_end(&mut heard));
            (result, Instant::now())
        });
        let mut log = vec![told(ours.set_linger(Some(Duration::from_secs(10))))];
        let mut left = &all[..];
        while !left.is_empty() {
            left = &left[ours.write(left).unwrap()..];
        }
        drop(ours);
        let dropped = Instant::now();
        let (result, heard) = reader.join().unwrap();
        // The peer acknowledges with the window closed at times, so the last bytes may be read a little later.
        log.push(format!("{result}, together: {}", heard.saturating_duration_since(dropped) < Duration::from_secs(2)));
        log
    }),
    ("closing with something unread is a reset", |ours, mut peer| {
        peer.write_all(b"unheard").unwrap();
        pause();
        drop(ours);
        pause();
        vec![told(peer.read(&mut [0; 16]))]
    }),
    ("looking leaves the bytes there", |ours, mut peer| {
        peer.write_all(b"twice").unwrap();
        pause();
        let (mut first, mut second) = ([0; 3], [0; 16]);
        let mut log = vec![told(ours.peek(&mut first)), format!("{first:?}")];
        log.push(told(ours.read(&mut second)));
        log.push(format!("{second:?}"));
        drop(peer);
        pause();
        log.push(told(ours.peek(&mut first)));
        log
    }),
    ("nothing to read, no room to write, and no time to wait", |ours, peer| {
        let mut log =
            vec![told(ours.set_nonblocking(true)), told(ours.read(&mut [0; 16])), told(ours.peek(&mut [0; 16]))];
        let full = (0..100_000).find_map(|_| ours.write(&[0; 65_536]).err());
        log.push(format!("{:?}", full.map(|error| error.kind())));
        drop(peer);
        log
    }),
    ("who shut down reading hears nothing more", |ours, peer| {
        let mut log = vec![told(ours.shutdown(Shutdown::Read)), told(ours.read(&mut [0; 16]))];
        log.push(told(ours.write(b"still")));
        log.push(told(peer.read(&mut [0; 16])));
        log
    }),
    ("shutting down both directions, and once more", |ours, peer| {
        let mut log = vec![told(ours.shutdown(Shutdown::Both)), told(ours.write(b"x")), told(ours.read(&mut [0; 16]))];
        log.push(told(peer.read(&mut [0; 16])));
        log.push(told(ours.shutdown(Shutdown::Write)));
        log
    }),
];

fn tell_all(connect: impl Fn() -> io::Result<Box<dyn Socket>>, listener: &Arc<TcpListener>) -> Vec<Vec<String>> {
    let tell = |(name, story): &(&str, Story)| {
        let accepting = Arc::clone(listener);
        let peer = std::thread::spawn(move || accepting.accept().map(|(peer, _)| peer));
        let ours = connect().unwrap_or_else(|error| panic!("{name}: {error}"));
        let peer = peer.join().expect("an accepting thread").expect("a peer");
        peer.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        story(ours, peer)
    };
    STORIES.iter().map(tell).collect()
}

/// Given the same peers, when the same is done, then our sockets say what the kernel's say.
#[test]
fn sockets_do_as_the_kernels() -> Result<()> {
    if !permitted("sockets_do_as_the_kernels") {
        return Ok(());
    }
    let wires = Netns::new("semantics")?;
    wires.ip("link set lo up")?;
    let ours = Anabranch::over_tun(&wires, Family::V4, &[PathOptions::default()], |builder| builder)?;
    let anywhere = SocketAddr::new(Family::V4.unspecified(), PORT);
    let listener = Arc::new(kernel::listen(&wires, Protocol::Tcp, anywhere)?);

    let host = SocketAddr::new(Family::V4.host(0), PORT);
    let by_kernel = tell_all(
        || {
            let stream = kernel::connect(&wires, Protocol::Tcp, None, host).map_err(io::Error::other)?;
            Ok(Box::new(stream))
        },
        &listener,
    );
    let options = SocketOptions { mptcp: false, ..ours.stack().socket_options() };
    let by_us = tell_all(
        || {
            let connect = ConnectOptions { options: Some(options.clone()), ..ConnectOptions::default() };
            Ok(Box::new(ours.stack().connect_with(host, connect)?))
        },
        &listener,
    );
    let differ: Vec<String> = STORIES
        .iter()
        .zip(by_kernel.iter().zip(&by_us))
        .filter(|(_, (kernel, us))| kernel != us)
        .map(|((name, _), (kernel, us))| format!("{name}:\n  kernel {kernel:?}\n  ours   {us:?}"))
        .collect();
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    Ok(())
}
