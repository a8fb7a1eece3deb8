//! raft-engine: one `LogBatch` per batch, written with a sync.

use bytes::Bytes;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};
use raft_proto::eraftpb;
use rustix::fs::syncfs;
use tempfile::TempDir;

use crate::{Cost, Side, directory, measure};

/// How it is configured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Settings {
    /// As it comes: files grow as they are written to, and batches above 8 KB are compressed.
    Default,
    /// Its best here: files are prepared with zeros at the start, and nothing is compressed, because
    /// these commands do not become shorter.
    Prepared,
}

struct Entry;

impl MessageExt for Entry {
    type Entry = eraftpb::Entry;

    fn index(entry: &eraftpb::Entry) -> u64 {
        entry.index
    }
}

/// The engine, with one group.
pub struct RaftEngine {
    engine: Engine,
    commands: Vec<Bytes>,
    last: u64,
    _directory: TempDir,
}

impl RaftEngine {
    /// With an empty log.
    pub fn new(commands: Vec<Bytes>, settings: Settings) -> Self {
        let directory = directory();
        let dir = directory.path().to_string_lossy().into_owned();
        let mut config = Config { dir, ..Config::default() };
        if settings == Settings::Prepared {
            config.target_file_size = ReadableSize::mb(64);
            config.prefill_for_recycle = true;
            config.prefill_limit = Some(ReadableSize::mb(192));
            config.batch_compression_threshold = ReadableSize(0);
        }
        let engine = Engine::open(config).expect("the directory is new");
        // It leaves its zeros to the system; the first sync is not to pay for them.
        let opened = std::fs::File::open(directory.path()).expect("the directory is there");
        syncfs(opened).expect("the disk works");
        Self { engine, commands, last: 0, _directory: directory }
    }

    fn next_entry(&mut self) -> eraftpb::Entry {
        let data = self.commands[self.last as usize % self.commands.len()].clone();
        self.last += 1;
        eraftpb::Entry { data, index: self.last, term: 1, ..eraftpb::Entry::default() }
    }
}

impl Side for RaftEngine {
    fn run(&mut self, batches: usize, records: usize) -> Cost {
        let batch = |_| (0..records).map(|_| self.next_entry()).collect();
        let batches: Vec<Vec<eraftpb::Entry>> = (0..batches).map(batch).collect();
        // It is used again, as its documentation has it.
        let mut log_batch = LogBatch::default();
        let append = |entries: &Vec<_>| {
            log_batch.add_entries::<Entry>(1, entries).expect("it fits");
            self.engine.write(&mut log_batch, true).expect("the disk works");
        };
        measure(&batches, syncs, append, || {})
    }
}

/// Its syncs so far, of all engines: it keeps a histogram of their durations.
fn syncs() -> u64 {
    let families = prometheus::gather();
    let family = families.iter().find(|family| family.get_name() == SYNC_HISTOGRAM);
    let metrics = family.map_or(&[][..], |family| family.get_metric());
    metrics.iter().map(|metric| metric.get_histogram().get_sample_count()).sum()
}

const SYNC_HISTOGRAM: &str = "raft_engine_sync_log_duration_seconds";
