//! All sides in turn, in short slices, again and again: `cargo run --release [passes]`.
//!
//! Neighbours on the machine make single numbers worthless: of each pass the sides are compared with the
//! bare loop in the same pass, and the tables show medians.

use std::time::Duration;

use wal::bare::{Bare, Preparing};
use wal::engine::{RaftEngine, Settings};
use wal::ours::{Handover, Synchronous, Threaded};
use wal::{COMMAND_BYTES, Cost, Side, commands, median, quantile};

/// Records per batch, and batches per slice.
const WORK: [(usize, usize); 4] = [(1, 200), (8, 200), (64, 100), (512, 40)];

fn main() {
    let passes = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(21);
    for (records, batches) in WORK {
        compare(records, batches, passes);
    }
}

fn compare(records: usize, batches: usize, passes: usize) {
    let commands = commands(512, COMMAND_BYTES);
    let bare = Bare::new;
    let ours = || Synchronous::new(commands.clone());
    let threaded = |handover| Threaded::new(commands.clone(), handover);
    let engine = |settings| RaftEngine::new(commands.clone(), settings);
    // What raft-wal writes for such a batch.
    let batch_bytes = ours().run(1, records).written_bytes as usize;
    let mut sides: [(&str, Box<dyn Side>); 8] = [
        ("bare loop, as many bytes", Box::new(bare(batch_bytes, Preparing::Before))),
        ("… preparing its files", Box::new(bare(batch_bytes, Preparing::Beside))),
        ("… commands only", Box::new(bare(records * COMMAND_BYTES, Preparing::Before))),
        ("raft-wal, `Log`", Box::new(ours())),
        ("raft-wal, `Wal`", Box::new(threaded(Handover::Each))),
        ("… in one write", Box::new(threaded(Handover::Together))),
        ("raft-engine, default", Box::new(engine(Settings::Default))),
        ("raft-engine, prepared", Box::new(engine(Settings::Prepared))),
    ];
    let mut costs: [Vec<Cost>; 8] = Default::default();
    let mut order: Vec<usize> = (0..sides.len()).collect();
    let mut random = fastrand::Rng::with_seed(records as u64);
    for pass in 0..=passes {
        // In another order each time: what a side leaves to the disk does not always fall on the same one.
        random.shuffle(&mut order);
        for &here in &order {
            let cost = sides[here].1.run(batches, records);
            // The first pass is for the caches.
            if pass > 0 {
                costs[here].push(cost);
            }
        }
    }
    println!(
        "\n{records} records of {COMMAND_BYTES} bytes, {passes} passes of {batches} batches\n"
    );
    println!("| | records/s | of the bare loop | p50 | p99 | processor/record | syncs | bytes |");
    println!("|---|---|---|---|---|---|---|---|");
    for ((name, _), costs_here) in sides.iter().zip(&costs) {
        let count = (batches * records) as f64;
        let wall = median(costs_here.iter().map(|cost| nanos(cost.wall)));
        let pairs = costs_here.iter().zip(&costs[0]);
        let of_bare = median(pairs.map(|(here, bare)| nanos(bare.wall) / nanos(here.wall)));
        let latencies = costs_here.iter().flat_map(|cost| &cost.latencies);
        let latencies: Vec<f64> = latencies.map(|&latency| nanos(latency) / 1e3).collect();
        let (p50, p99) = (median(latencies.iter().copied()), quantile(latencies, 0.99));
        let processor = median(costs_here.iter().map(|cost| nanos(cost.processor) / count));
        let all = costs_here.len() as f64 * count;
        let syncs = costs_here.iter().map(|cost| cost.syncs).sum::<u64>() as f64;
        let bytes = costs_here.iter().map(|cost| cost.written_bytes).sum::<u64>() as f64;
        println!(
            "| {name} | {:.0} | {:.0} % | {p50:.0} µs | {p99:.0} µs | {processor:.0} ns | {:.3} | {:.0} |",
            count * 1e9 / wall,
            of_bare * 100.0,
            syncs * records as f64 / all,
            bytes / all,
        );
    }
}

fn nanos(time: Duration) -> f64 {
    time.as_nanos() as f64
}
