//! All sides on the same work, one after the other, again and again: `cargo run --release [passes]`.
//!
//! Neighbours on the machine make single numbers worthless: of each pass the sides are compared with
//! raft-core in the same pass, and the table shows medians.

use std::time::Duration;

use rivals::{BATCHES, Cost, SIDES, SIZES, commands, keep_freed_memory, rounds};

fn main() {
    let passes = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(15);
    keep_freed_memory();
    for size in SIZES {
        for batch in BATCHES.into_iter().chain([1024]) {
            compare(size, batch, passes);
        }
    }
}

fn compare(size: usize, batch: usize, passes: usize) {
    let (commands, rounds) = (commands(size, batch), rounds(batch));
    let entries = (batch * rounds) as f64;
    let nanos = |time: Duration| time.as_nanos() as f64 / entries;
    let mut costs: [Vec<Cost>; SIDES.len()] = Default::default();
    for pass in 0..=passes {
        for ((_, side), costs) in SIDES.iter().zip(&mut costs) {
            let cost = side.run(&commands, rounds);
            // The first pass is for the caches, and for the allocator.
            if pass > 0 {
                costs.push(cost);
            }
        }
    }
    println!("\n{size} bytes, {batch} together, {passes} passes of {entries} entries\n");
    println!("| | entries/s | ns/entry | processor ns/entry, least | times raft-core |");
    println!("|---|---|---|---|---|");
    for ((name, _), costs_of_side) in SIDES.iter().zip(&costs) {
        let wall = median(costs_of_side.iter().map(|cost| nanos(cost.wall)));
        let processor = costs_of_side.iter().map(|cost| nanos(cost.processor));
        let middle = median(processor.clone());
        let least = processor.clone().fold(f64::MAX, f64::min);
        let pairs =
            processor.zip(&costs[0]).map(|(nanos_here, ours)| nanos_here / nanos(ours.processor));
        let times = median(pairs);
        let rate = 1e9 / wall;
        println!("| {name} | {rate:.0} | {wall:.0} | {middle:.0}, {least:.0} | {times:.2} |");
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
