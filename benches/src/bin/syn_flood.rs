//! `syn-flood`: what a flood of SYNs leaves of established connections, and whether others still get in.
//!
//! Two stacks in memory on one thread, with connections that send as fast as they can; on another thread somebody who
//! makes SYNs from addresses that never answer, so many a second.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anabranch_benches::{Pair, PairConfig, cpu};
use anabranch_core::wire::{Flags, IpOut, OptionWriter, SegmentOut, SeqNum, Timestamps, Tuple};
use anabranch_frame::{PathId, Payload, RxChecksum, RxPacket, Slices};
use anabranch_sim::Random;
use anyhow::{Result, ensure};
use clap::Parser;
use crossbeam_queue::ArrayQueue;

/// SYNs that may wait to be taken in; more are lost, as on a device.
const WAITING: usize = 4096;
/// SYNs that are taken in at a time, as a device hands them over.
const BATCH: usize = 64;
/// How often somebody honest connects.
const HONEST: Duration = Duration::from_millis(20);
/// And how long that may take, with one SYN sent again.
const PATIENCE: Duration = Duration::from_secs(3);

/// Floods a listener in memory with SYNs.
///
/// Needs two processors that nobody else uses: one for both stacks, one for the flood.
#[derive(Debug, Parser)]
#[command(name = "syn-flood", version)]
struct Args {
    /// SYNs a second.
    #[arg(long, default_value_t = 100_000)]
    rate: u64,
    /// Established connections.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Seconds of each of the two measurements.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Rounds: without a flood, with it.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// What a measurement gave.
#[derive(Clone, Copy, Debug)]
struct Came {
    /// Gbit/s of the established connections.
    gbps: f64,
    /// SYNs that were taken in, a second.
    syns: f64,
    tried: u64,
    accepted: u64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    println!(
        "| round | quiet, Gbit/s | flooded, Gbit/s | kept | SYNs a second | honest connects |\n|---|---|---|---|---|---|"
    );
    // Before this thread keeps to one of them.
    let last = cpu::count() - 1;
    ensure!(last > 0, "one processor is not enough for two stacks and a flood");
    cpu::pin(&[0])?;
    let (mut kept, mut refused) = (f64::MAX, 0);
    for round in 1..=args.rounds {
        let mut pair = Pair::new(&PairConfig { connections: args.connections, ..PairConfig::default() });
        pair.connect(args.connections)?;
        let quiet = measure(&mut pair, 0, last, args.seconds)?;
        let flooded = measure(&mut pair, args.rate, last, args.seconds)?;
        let part = flooded.gbps / quiet.gbps;
        println!(
            "| {round} | {:.1} | {:.1} | {:.0} % | {:.0} | {} of {} |",
            quiet.gbps,
            flooded.gbps,
            part * 100.0,
            flooded.syns,
            flooded.accepted,
            flooded.tried
        );
        kept = kept.min(part);
        refused += flooded.tried - flooded.accepted;
        let counters = pair.server.shard.counters();
        eprintln!("cookies sent {}, SYNs dropped {}", counters.syncookies_sent, counters.tcp_req_q_full_drop);
    }
    println!("\nAt least {:.0} % kept, {refused} honest connects failed.", kept * 100.0);
    Ok(())
}

/// Lets the connections send, floods beside it on processor `cpu`, and has somebody honest connect now and then.
fn measure(pair: &mut Pair, rate: u64, cpu: usize, seconds: f64) -> Result<Came> {
    let flood = Flood::start(rate, cpu);
    let (begin, received, accepted) = (Instant::now(), pair.received(), pair.accepted());
    let end = begin + Duration::from_secs_f64(seconds);
    let (mut next, mut tried, mut taken) = (begin, 0, 0);
    let mut packets = Vec::with_capacity(BATCH);
    while Instant::now() < end {
        pair.turn();
        packets.extend(std::iter::from_fn(|| flood.syns.pop()).take(BATCH));
        taken += packets.len() as u64;
        let now = pair.now();
        pair.server.listen(now, &mut packets);
        if Instant::now() >= next {
            next += HONEST;
            tried += 1;
            pair.connect_idle(1)?;
        }
    }
    let elapsed = begin.elapsed().as_secs_f64();
    let bytes = pair.received() - received;
    drop(flood);
    // Who connected last may have to ask again.
    let patience = Instant::now() + PATIENCE;
    while pair.accepted() - accepted < tried && Instant::now() < patience {
        pair.turn();
    }
    ensure!(bytes > 0, "nothing was transferred");
    Ok(Came {
        gbps: bytes as f64 * 8e-9 / elapsed,
        syns: taken as f64 / elapsed,
        tried,
        accepted: pair.accepted() - accepted,
    })
}

/// Somebody who makes SYNs, on a thread and a processor of its own.
struct Flood {
    syns: Arc<ArrayQueue<RxPacket>>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Flood {
    /// On processor `cpu`; nobody for a rate of zero.
    fn start(rate: u64, cpu: usize) -> Self {
        let (syns, stop) = (Arc::new(ArrayQueue::new(WAITING)), Arc::new(AtomicBool::new(false)));
        let (queue, stopped) = (Arc::clone(&syns), Arc::clone(&stop));
        let thread = (rate > 0).then(|| {
            thread::spawn(move || {
                // It makes the flood slower at worst, which the report shows.
                let _ = cpu::pin(&[cpu]);
                flood(&queue, rate, &stopped);
            })
        });
        Self { syns, stop, thread }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Makes so many SYNs a second. Those that there is no room for are lost.
fn flood(queue: &ArrayQueue<RxPacket>, rate: u64, stop: &AtomicBool) {
    let mut random = Random::new(1, 0);
    let (begin, mut made) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        let due = (begin.elapsed().as_secs_f64() * rate as f64) as u64;
        for _ in made..due {
            let _ = queue.push(syn(&mut random));
        }
        made = due;
        std::hint::spin_loop();
    }
}

/// A SYN to the server from somewhere.
fn syn(random: &mut Random) -> RxPacket {
    let bits = random.bits();
    let from = Ipv4Addr::from_bits(0xac10_0000 | (bits as u32 & 0x000f_ffff));
    let mut options = OptionWriter::new();
    options.syn(1460, Some(7), true, Some(Timestamps { value: bits as u32, echo: 0 }));
    let out = SegmentOut {
        tuple: Tuple { local: SocketAddr::from((from, (bits >> 32) as u16 | 1024)), remote: Pair::server_addr() },
        seq: SeqNum(random.bits() as u32),
        ack: SeqNum(0),
        flags: Flags::SYN,
        window: u16::MAX,
        ip: IpOut::default(),
        options: &options,
        payload_len: 0,
    };
    let transmit = out.transmit(PathId(0), Slices::new(), None);
    RxPacket { checksum: RxChecksum::Trusted, ..RxPacket::new(PathId(0), Payload::from(&transmit.header[..])) }
}
