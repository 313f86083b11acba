//! The async sockets against kernel sockets: an echo server and a client as one would write them with tokio.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anabranch::Stack;
use anabranch::tokio::{TcpListener, TcpStream};
use anabranch_tests::kernel::{self, Protocol};
use anabranch_tests::transfer::{Stream, Transfer};
use anabranch_tests::{Netns, permitted};
use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);
const PATHS: [&str; 2] = ["tun:ab0,addr=10.9.0.2/24,host=10.9.0.1", "tun:ab1,addr=10.9.1.2/24,host=10.9.1.1,signal"];

fn stack(netns: &Netns) -> Result<Stack> {
    netns.ip("mptcp limits set subflows 8 add_addr_accepted 8")?;
    let mut builder = Stack::builder();
    for path in PATHS {
        builder = builder.path(path.parse()?);
    }
    Ok(netns.run(|| builder.build())?)
}

async fn echo(listener: TcpListener, connections: usize) -> Result<()> {
    let mut served = Vec::new();
    for _ in 0..connections {
        let (stream, _) = listener.accept().await?;
        served.push(tokio::spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(stream);
            tokio::io::copy(&mut reader, &mut writer).await?;
            writer.shutdown().await
        }));
    }
    for one in served {
        one.await??;
    }
    Ok(())
}

/// Both directions of a client are the ends of one transfer: what goes out has to come back.
struct Ends<'a>(&'a dyn Stream, bool);

impl Stream for Ends<'_> {
    fn receive(&self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.1 { self.0.receive(buffer) } else { Ok(0) }
    }

    fn send_all(&self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.send_all(bytes)
    }

    fn finish(&self) -> std::io::Result<()> {
        if self.1 { Ok(()) } else { self.0.finish() }
    }

    fn set_patience(&self, patience: Duration) -> std::io::Result<()> {
        self.0.set_patience(patience)
    }

    fn describe(&self) -> String {
        self.0.describe()
    }
}

fn serves_many() -> Result<()> {
    const CLIENTS: usize = 8;
    let netns = Netns::new("async server")?;
    let stack = stack(&netns)?;
    let runtime = Runtime::new()?;
    let addr = SocketAddr::from(([10, 9, 0, 2], 7));
    let listener = {
        let _context = runtime.enter();
        TcpListener::bind(&stack, addr)?
    };
    let server = runtime.spawn(echo(listener, CLIENTS));
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    let stream = kernel::connect(&netns, Protocol::Mptcp, None, addr)?;
                    Transfer::one_way(5_000_000).run(&Ends(&stream, false), &Ends(&stream, true)).intact()
                })
            })
            .collect();
        clients.into_iter().try_for_each(|client| client.join().expect("a client's thread"))
    })?;
    runtime.block_on(async { timeout(PATIENCE, server).await })???;
    ensure!(stack.shutdown(PATIENCE), "connections are left");
    Ok(())
}

fn connects() -> Result<()> {
    let netns = Netns::new("async client")?;
    let stack = stack(&netns)?;
    let runtime = Runtime::new()?;
    let addr = SocketAddr::from(([10, 9, 0, 1], 7));
    let listener = kernel::listen(&netns, Protocol::Mptcp, addr)?;
    let kernel = thread::spawn(move || -> std::io::Result<u64> {
        let (stream, _) = listener.accept()?;
        let bytes = std::io::copy(&mut &stream, &mut &stream)?;
        stream.shutdown(std::net::Shutdown::Write)?;
        Ok(bytes)
    });
    let sent: Vec<u8> = (0..2_000_000_u32).flat_map(|at| at.wrapping_mul(0x9e37_79b1).to_le_bytes()).collect();
    let received = runtime.block_on(async {
        let stream = timeout(PATIENCE, TcpStream::connect(&stack, addr)).await??;
        let (mut reader, mut writer) = stream.into_split();
        let to_send = sent.clone();
        let sender = tokio::spawn(async move {
            writer.write_all(&to_send).await?;
            writer.shutdown().await
        });
        let mut received = Vec::new();
        timeout(PATIENCE, reader.read_to_end(&mut received)).await??;
        timeout(PATIENCE, sender).await???;
        anyhow::Ok(received)
    })?;
    ensure!(received == sent, "{} bytes came back of {}, or others", received.len(), sent.len());
    ensure!(kernel.join().expect("the kernel's side").context("the kernel's side")? == sent.len() as u64);
    ensure!(stack.shutdown(PATIENCE), "connections are left");
    Ok(())
}

#[test]
fn a_server_of_many() {
    if permitted("async server") {
        serves_many().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

#[test]
fn a_client() {
    if permitted("async client") {
        connects().unwrap_or_else(|error| panic!("{error:#}"));
    }
}
