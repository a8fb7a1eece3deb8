//! Allocations per entry of each side, growth of the logs included: `cargo run --release --bin allocations`.
//!
//! A program of its own, because the counting allocator would slow down the others.

use allocation_counter::measure;
use rivals::{BATCHES, SIDES, SIZES, commands, rounds};

fn main() {
    println!("| | bytes | together | allocations/entry | bytes allocated/entry |");
    println!("|---|---|---|---|---|");
    for (name, side) in SIDES {
        for size in SIZES {
            for batch in BATCHES {
                let (commands, rounds) = (commands(size, batch), rounds(batch));
                // The first clone of each command allocates the count of those that share it.
                side.run(&commands, 1);
                // The longer run less the shorter one: without the start of the cluster.
                let short = measure(|| _ = side.run(&commands, rounds));
                let long = measure(|| _ = side.run(&commands, rounds * 2));
                let entries = (batch * rounds) as f64;
                let count = long.count_total.saturating_sub(short.count_total) as f64 / entries;
                let bytes = long.bytes_total.saturating_sub(short.bytes_total) as f64 / entries;
                println!("| {name} | {size} | {batch} | {count:.2} | {bytes:.0} |");
            }
        }
    }
}
