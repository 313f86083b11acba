//! Two stacks in memory: no devices, no sockets, no kernel.

use std::thread;
use std::time::{Duration, Instant};

use anabranch_benches::{Pair, PairConfig};
use anyhow::{Context, Result, ensure};

use crate::task::{Memory, Quantity, Sample};
use anabranch_benches::cpu;

/// Not counted.
const WARM_UP: Duration = Duration::from_millis(300);

/// Runs one worker of both stacks on each thread, each on a processor of its own.
pub(crate) fn run(memory: &Memory) -> Result<Sample> {
    ensure!(memory.threads <= cpu::count(), "{} threads on {} processors", memory.threads, cpu::count());
    let Memory { threads, connections, offload, seconds } = *memory;
    let config = PairConfig { workers: threads as u16, offload, connections, ..PairConfig::default() };
    let begin = Instant::now() + WARM_UP;
    let end = begin + Duration::from_secs_f64(seconds);
    let bytes: u64 = thread::scope(|scope| {
        let threads: Vec<_> = Pair::all(&config)
            .into_iter()
            .enumerate()
            .map(|(at, pair)| {
                scope.spawn(move || {
                    cpu::pin(&[cpu::count() - 1 - at])?;
                    one(pair, connections, begin, end)
                })
            })
            .collect();
        let bytes: Result<Vec<u64>> =
            threads.into_iter().map(|thread| thread.join().expect("no panic in a worker")).collect();
        bytes.map(|bytes| bytes.iter().sum())
    })?;
    Ok(Sample::from([(Quantity::Gbps, bytes as f64 * 8e-9 / seconds)]))
}

/// Bytes that arrived on one worker.
fn one(mut pair: Pair, connections: usize, begin: Instant, end: Instant) -> Result<u64> {
    pair.connect(connections).context("connecting in memory")?;
    while Instant::now() < begin {
        pair.turn();
    }
    let before = pair.received();
    while Instant::now() < end {
        pair.turn();
    }
    ensure!(pair.received() > before, "nothing arrived");
    Ok(pair.received() - before)
}
