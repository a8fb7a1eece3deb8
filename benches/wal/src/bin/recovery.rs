//! How long it takes to open a log of 1 GiB: `cargo run --release --bin recovery [openings]`.
//!
//! Where the caches of the system can be dropped, which takes root on Linux, it is also opened cold.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use raft_core::Restored;
use raft_wal::{FileDisk, Log};
use rustix::fs::sync;
use wal::ours::{Entries, config};
use wal::{commands, directory, median, processor_time};

/// The log is as long as this, unused room at the ends of its segments included.
const LOG_BYTES: u64 = 1 << 30;
/// One write has as many bytes of commands.
const WRITE_BYTES: usize = 256 << 10;

fn main() {
    let openings = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(7);
    for bytes in [256, 4096] {
        let directory = directory();
        let last = fill(directory.path(), bytes);
        println!("\n{last} commands of {bytes} bytes in segments of 16 MiB");
        report("warm", openings, directory.path(), last, || true);
        report("cold", openings, directory.path(), last, || {
            sync();
            fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
        });
    }
}

/// Writes a log of this length; returns its last index.
fn fill(directory: &Path, bytes: usize) -> u64 {
    let mut log = open(directory).0;
    let count = WRITE_BYTES / bytes;
    let mut entries = Entries::new(commands(count, bytes));
    let mut last = 0;
    // One file is being written to, and one is spare.
    while log_bytes(directory) < LOG_BYTES {
        log.append(&entries.one_write(count)).expect("there is room");
        log.sync().expect("the disk works");
        last += count as u64;
    }
    log.close().expect("the disk works");
    last
}

fn log_bytes(directory: &Path) -> u64 {
    let files = fs::read_dir(directory).expect("the log is there");
    let lengths = files.filter_map(|file| file.ok()?.metadata().ok()).map(|data| data.len());
    lengths.sum()
}

fn open(directory: &Path) -> (Log, Restored) {
    let disk = FileDisk::open(directory).expect("the directory is ours");
    let opened = Log::open(Arc::new(disk), &config(directory)).expect("the log is whole");
    (opened.log, opened.restored)
}

fn report(what: &str, openings: usize, directory: &Path, last: u64, prepare: impl Fn() -> bool) {
    let (mut walls, mut processors) = (Vec::new(), Vec::new());
    for opening in 0..=openings {
        if !prepare() {
            println!("{what}: the caches cannot be dropped here");
            return;
        }
        let (wall, processor) = (Instant::now(), processor_time());
        let (log, restored) = open(directory);
        let (wall, processor) = (wall.elapsed(), processor_time() - processor);
        assert_eq!(restored.entries.len() as u64, last, "all of it");
        // Not timed: the node keeps the entries, and the next opening does not need the end.
        drop((log, restored));
        if opening > 0 {
            walls.push(wall);
            processors.push(processor);
        }
    }
    let seconds = |times: &[Duration]| median(times.iter().map(Duration::as_secs_f64));
    let least = walls.iter().min().map_or(0.0, Duration::as_secs_f64);
    let (wall, processor) = (seconds(&walls), seconds(&processors));
    println!("{what}: {wall:.2} s (least {least:.2} s), of the processor {processor:.2} s");
}
