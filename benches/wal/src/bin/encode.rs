//! What raft-wal itself takes per record, over a disk that forgets: `cargo run --release --bin encode`.
//!
//! No neighbour and no disk disturbs it: the figure to watch while the encoding is worked on.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use raft_wal::{Disk, DiskFile, Log, WalConfig};
use wal::ours::{Entries, config};
use wal::{COMMAND_BYTES, commands, measure, median};

/// Takes everything, and holds nothing.
struct Nowhere;

impl Disk for Nowhere {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn create(&self, _: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(Self))
    }

    fn open(&self, _: &str) -> io::Result<Box<dyn DiskFile>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    fn random(&self) -> io::Result<u64> {
        Ok(0x5EED)
    }
}

impl DiskFile for Nowhere {
    fn bytes(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Ok(0)
    }

    fn write_at(&self, bytes: &[u8], _: u64) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

fn main() {
    for bytes in [COMMAND_BYTES, 4096] {
        for records in [1, 8, 64, 512] {
            println!("{bytes} bytes, {records} records together: {:.1} ns", append(bytes, records));
        }
    }
}

/// Processor time per record.
fn append(bytes: usize, records: usize) -> f64 {
    // A segment that is not filled: rolls are another matter.
    let segment_bytes = 1 << 30;
    let config = WalConfig { segment_bytes, ..config(Path::new("nowhere")) };
    let mut log = Log::open(Arc::new(Nowhere), &config).expect("an empty disk").log;
    let mut entries = Entries::new(commands(512, bytes));
    let batches = (4 << 20) / (records * bytes);
    let slices = (0..100).map(|_| {
        let batches: Vec<_> = (0..batches).map(|_| entries.one_write(records)).collect();
        let cost = measure(
            &batches,
            || 0,
            |batch| {
                log.append(batch).expect("it takes everything");
                log.sync().expect("it takes everything");
            },
            || {},
        );
        nanos(cost.processor) / (batches.len() * records) as f64
    });
    median(slices)
}

fn nanos(time: Duration) -> f64 {
    time.as_nanos() as f64
}
