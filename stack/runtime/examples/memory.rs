//! How fast bytes pass between two stacks in one process: `cargo run --release --example memory -- [GIB] [PATHS] [WORKERS] [both]`.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::Instant;

use anabranch::{Device, EndpointFlags, PathConfig, PathId, Stack, TcpStream};
use anabranch_drivers::memory::{MemoryConfig, pair};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: usize| args.get(at).map_or(Ok(default), |arg| arg.parse());
    let (gib, paths, workers) = (number(0, 8)?, number(1, 1)?, number(2, 1)?);
    let both = args.get(3).is_some_and(|arg| arg == "both");
    let [client, server] = stacks(paths, workers)?;

    let listener = server.listen("10.0.0.2:5001")?;
    let ours = client.connect(listener.local_addr()?)?;
    let (theirs, _) = listener.accept()?;
    let total = gib << 30;
    let begin = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| send(&ours, total));
        let down = both.then(|| scope.spawn(|| send(&theirs, total)));
        let back = both.then(|| scope.spawn(|| receive(&ours)));
        assert_eq!(receive(&theirs), total);
        down.into_iter().for_each(|thread| thread.join().expect("the sender"));
        back.into_iter().for_each(|thread| assert_eq!(thread.join().expect("the receiver"), total));
    });
    let seconds = begin.elapsed().as_secs_f64();
    println!("{gib} GiB in {seconds:.2} s: {:.1} Gbit/s each way", total as f64 * 8e-9 / seconds);
    for (name, stack) in [("client", &client), ("server", &server)] {
        println!("{name}: {:?}", stack.worker_stats());
        for path in stack.paths() {
            println!("  {}: {:?}", path.name, path.counters);
        }
    }
    for subflow in ours.subflows()? {
        println!(
            "  subflow {}: cwnd {} srtt {:?} retrans {}",
            subflow.id, subflow.cwnd, subflow.srtt, subflow.total_retrans
        );
    }
    Ok(())
}

fn stacks(paths: usize, workers: usize) -> Result<[Stack; 2], Box<dyn std::error::Error>> {
    let mut builders = [Stack::builder().workers(workers), Stack::builder().workers(workers)];
    for path in 0..paths as u16 {
        let id = PathId(path);
        let mut queues: [Vec<Box<dyn Device>>; 2] = Default::default();
        for _ in 0..workers {
            let (a, b) = pair([id, id], MemoryConfig::default())?;
            queues[0].push(Box::new(a));
            queues[1].push(Box::new(b));
        }
        let mut host = 0;
        builders = builders.map(|builder| {
            host += 1;
            let addr = format!("10.0.{path}.{host}/24").parse().expect("an address");
            let flags = EndpointFlags {
                subflow: host == 1 && path > 0,
                signal: host == 2 && path > 0,
                ..EndpointFlags::default()
            };
            let config = PathConfig { flags, ..PathConfig::new(id, vec![addr]) };
            builder.devices(config, std::mem::take(&mut queues[host - 1]))
        });
    }
    let [client, server] = builders;
    Ok([client.build()?, server.build()?])
}

fn send(mut stream: &TcpStream, total: usize) {
    let chunk = vec![7; 256 << 10];
    for _ in 0..total / chunk.len() {
        stream.write_all(&chunk).expect("the other side reads");
    }
    stream.shutdown(Shutdown::Write).expect("the connection is there");
}

fn receive(mut stream: &TcpStream) -> usize {
    let mut buf = vec![0; 256 << 10];
    let mut total = 0;
    loop {
        match stream.read(&mut buf).expect("the other side sends") {
            0 => return total,
            n => total += n,
        }
    }
}
