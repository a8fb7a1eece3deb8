//! The same work under criterion, one side after the other: `cargo bench`.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rivals::{BATCHES, SIDES, SIZES, commands, keep_freed_memory, rounds};

fn cores(criterion: &mut Criterion) {
    keep_freed_memory();
    for size in SIZES {
        for batch in BATCHES {
            let mut group = criterion.benchmark_group(format!("{size} bytes, {batch} together"));
            group.sample_size(10).throughput(Throughput::Elements(batch as u64));
            let commands = commands(size, batch);
            for (name, side) in SIDES {
                group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
                    bencher.iter_custom(|iterations| {
                        let most = rounds(batch) as u64;
                        let mut left = iterations;
                        let mut time = Duration::ZERO;
                        // A new cluster now and then: nobody's log grows for ever.
                        while left > 0 {
                            let rounds = left.min(most);
                            time += side.run(&commands, rounds as usize).wall;
                            left -= rounds;
                        }
                        time
                    });
                });
            }
        }
    }
}

criterion_group!(benches, cores);
criterion_main!(benches);
