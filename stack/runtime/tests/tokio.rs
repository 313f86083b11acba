//! Async sockets over two stacks in memory behave like those of `tokio::net`.
#![cfg(feature = "tokio")]

mod common;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anabranch::tokio::{TcpListener, TcpStream};
use anabranch::{ConnectOptions, Stack};
use common::{Pair, SERVER, bytes, kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::time::timeout;

fn listen(stack: &Stack) -> (TcpListener, SocketAddr) {
    let addr = SocketAddr::new(stack.paths()[0].addrs[0].addr, 0);
    let listener = TcpListener::bind(stack, addr).unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

async fn connected(client: &Stack, server: &Stack) -> (TcpStream, TcpStream) {
    let (listener, addr) = listen(server);
    let (ours, theirs) = tokio::join!(TcpStream::connect(client, addr), listener.accept());
    (ours.unwrap(), theirs.unwrap().0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_echo_of_ten_megabytes_through_split_halves() {
    let (client, server) = Pair::default().build();
    let (ours, mut theirs) = connected(&client, &server).await;
    let echo = tokio::spawn(async move {
        let (mut read, mut write) = tokio::io::split(&mut theirs);
        copy(&mut read, &mut write).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let said = Arc::new(bytes(5, 10 << 20));
    let (mut read, mut write) = ours.into_split();
    let writer = {
        let said = Arc::clone(&said);
        // Dropping the half ends the stream.
        tokio::spawn(async move { write.write_all(&said).await.unwrap() })
    };
    let mut heard = Vec::new();
    read.read_to_end(&mut heard).await.unwrap();
    writer.await.unwrap();
    echo.await.unwrap();
    assert!(heard == *said);
}

#[tokio::test]
async fn a_cancelled_read_loses_nothing() {
    let (client, server) = Pair::default().build();
    let (mut ours, mut theirs) = connected(&client, &server).await;
    let mut buf = [0; 9];
    assert!(timeout(Duration::from_millis(20), ours.read(&mut buf)).await.is_err());
    theirs.write_all(b"late").await.unwrap();
    assert_eq!(ours.read(&mut buf).await.unwrap(), 4);
    assert_eq!(&buf[..4], b"late");
}

#[tokio::test]
async fn a_cancelled_connect_leaves_nothing_behind() {
    let (client, server) = Pair::default().build();
    let silent = "10.0.0.77:9".parse().unwrap();
    assert!(timeout(Duration::from_millis(20), TcpStream::connect(&client, silent)).await.is_err());
    assert!(client.connections().is_empty());
    let refused = TcpStream::connect(&client, SocketAddr::new(SERVER.parse().unwrap(), 9)).await;
    assert_eq!(kind(refused), ErrorKind::ConnectionRefused);
    let with = ConnectOptions { timeout: Some(Duration::from_secs(1)), ..ConnectOptions::default() };
    assert_eq!(kind(TcpStream::connect_with(&client, silent, with).await), ErrorKind::InvalidInput);
    drop(server);
}

#[tokio::test]
async fn cancelled_accepts_lose_no_connection_and_several_may_wait() {
    let (client, server) = Pair::default().build();
    let (listener, addr) = listen(&server);
    assert!(timeout(Duration::from_millis(20), listener.accept()).await.is_err());

    let listener = Arc::new(listener);
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let listener = Arc::clone(&listener);
            tokio::spawn(async move { listener.accept().await.unwrap().1 })
        })
        .collect();
    let mut locals = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..4 {
        let stream = TcpStream::connect(&client, addr).await.unwrap();
        locals.push(stream.as_blocking().local_addr().unwrap());
        streams.push(stream);
    }
    let mut peers = Vec::new();
    for task in waiting {
        peers.push(timeout(Duration::from_secs(10), task).await.expect("a waiting accept was forgotten").unwrap());
    }
    peers.sort();
    locals.sort();
    assert_eq!(peers, locals);
}

#[tokio::test]
async fn the_end_of_the_stack_wakes_every_task() {
    let (client, server) = Pair::default().build();
    let (mut ours, theirs) = connected(&client, &server).await;
    let (listener, _) = listen(&client);
    let reader = tokio::spawn(async move { kind(ours.read(&mut [0; 1]).await) });
    let acceptor = tokio::spawn(async move { kind(listener.accept().await) });
    tokio::task::yield_now().await;
    let stack = client.clone();
    tokio::task::spawn_blocking(move || assert!(!stack.shutdown(Duration::ZERO))).await.unwrap();
    assert_eq!(reader.await.unwrap(), ErrorKind::ConnectionAborted);
    assert_eq!(acceptor.await.unwrap(), ErrorKind::NotConnected);
    drop(theirs);
}
