//! What a log tells of itself: how writes share syncs, what it counts, and its metrics.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use raft_core::{HardState, Term, Write};
use raft_wal::sim::{Damage, Fault, FaultRule, SimDisk};
use raft_wal::{Completion, Opened, Repair, Space, Wal, WalConfig, WalError, WalStats};
use support::{command, config};

const PATIENCE: Duration = Duration::from_secs(30);

/// All of the same size.
fn entry(index: u64) -> Write {
    Write::detached(None, None, vec![command(index, 1, 300)])
}

/// What a log counts that acknowledges one write, and finds so many in its queue then.
fn stats_of(config: WalConfig, queued: u64) -> WalStats {
    let (done, completions) = channel();
    let (open_gate, gate) = channel::<()>();
    let mut held_up = false;
    let tell = move |completion| {
        if !std::mem::replace(&mut held_up, true) {
            gate.recv_timeout(PATIENCE).ok();
        }
        drop(done.send(completion));
    };
    let disk = Arc::new(SimDisk::new(1));
    let Opened { wal, .. } = Wal::open_on(disk, config, tell).unwrap();
    wal.submit(entry(1));
    // It is counted before it is acknowledged.
    let deadline = Instant::now() + PATIENCE;
    while wal.stats().writes == 0 {
        assert!(Instant::now() < deadline, "it is not written");
        std::thread::yield_now();
    }
    (2..=queued + 1).for_each(|index| wal.submit(entry(index)));
    open_gate.send(()).unwrap();
    for _ in 0..=queued {
        let completion = completions.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(completion, Completion::Durable(_)), "{completion:?}");
    }
    let stats = wal.stats();
    wal.close().unwrap();
    stats
}

/// As many as the limits allow, and not one more.
#[test]
fn a_batch_takes_just_what_its_limits_say() {
    let WalStats { batches, writes, entries, bytes, .. } = stats_of(config(), 0);
    assert_eq!((batches, writes, entries), (1, 1, 1));
    let stats = stats_of(config(), 6);
    assert_eq!((stats.batches, stats.writes, stats.entries), (2, 7, 7));
    assert_eq!(stats.bytes, 7 * bytes, "all are of the same size");
    // Six of them in threes, or just not in threes any more.
    for (batch_bytes, batches) in [(3 * bytes, 2), (3 * bytes - 1, 3), (1, 6)] {
        let config = WalConfig { batch_bytes, ..config() };
        assert_eq!(stats_of(config, 6).batches, 1 + batches, "{batch_bytes} bytes");
    }
    // An entry, and perhaps a vote, a truncation and a snapshot.
    for (batch_records, batches) in [(12, 2), (11, 3), (1, 6)] {
        let config = WalConfig { batch_records, ..config() };
        assert_eq!(stats_of(config, 6).batches, 1 + batches, "{batch_records} records");
    }
}

/// A vote alone could go ahead of the entries if there were no room for them; but no room is not what is
/// missing here, and nothing is tried again.
#[test]
fn a_failure_is_told_as_what_it_was() {
    let disk = SimDisk::new(1);
    let (done, completions) = channel();
    let (open_gate, gate) = channel::<()>();
    let tell = move |completion| {
        drop(done.send(completion));
        gate.recv_timeout(PATIENCE).ok();
    };
    let handle = Arc::new(disk.for_this_life());
    let Opened { wal, .. } = Wal::open_on(handle, config(), tell).unwrap();
    wal.submit(entry(1));
    durable(&completions);
    disk.add_fault(FaultRule::new(Fault::Error).files("segment-"));
    let vote = HardState { term: Term(2), voted_for: None };
    wal.submit(Write::detached(Some(vote), None, Vec::new()));
    wal.submit(entry(2));
    drop(open_gate);
    let told = completions.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(told, Completion::Failed(WalError::Disk { .. })), "{told:?}");
}

#[derive(Default)]
struct Values(Mutex<Vec<f64>>);

impl HistogramFn for Values {
    fn record(&self, value: f64) {
        self.0.lock().unwrap().push(value);
    }
}

/// Remembers what it is told.
#[derive(Default)]
struct Collector {
    described: Mutex<Vec<String>>,
    counters: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    gauges: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    histograms: Mutex<BTreeMap<String, Arc<Values>>>,
}

impl Collector {
    fn counter(&self, name: &str) -> u64 {
        self.counters.lock().unwrap()[name].load(Ordering::Relaxed)
    }

    fn gauge(&self, name: &str) -> f64 {
        f64::from_bits(self.gauges.lock().unwrap()[name].load(Ordering::Relaxed))
    }

    fn histogram(&self, name: &str) -> Vec<f64> {
        self.histograms.lock().unwrap()[name].0.lock().unwrap().clone()
    }

    fn describe(&self, name: &KeyName) {
        self.described.lock().unwrap().push(name.as_str().to_owned());
    }
}

impl Recorder for Collector {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.describe(&name);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.describe(&name);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.describe(&name);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let mut counters = self.counters.lock().unwrap();
        Counter::from_arc(Arc::clone(counters.entry(key.name().to_owned()).or_default()))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        let mut gauges = self.gauges.lock().unwrap();
        // What nobody has set is neither.
        let unset = || Arc::new(AtomicU64::new(f64::NAN.to_bits()));
        Gauge::from_arc(Arc::clone(gauges.entry(key.name().to_owned()).or_insert_with(unset)))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let mut histograms = self.histograms.lock().unwrap();
        Histogram::from_arc(Arc::clone(histograms.entry(key.name().to_owned()).or_default()))
    }
}

/// A log whose metrics this test collects.
fn open(disk: &SimDisk, config: WalConfig) -> (Collector, Wal, Receiver<Completion>) {
    let collector = Collector::default();
    let (done, completions) = channel();
    let tell = move |completion| drop(done.send(completion));
    let disk = Arc::new(disk.for_this_life());
    let opened =
        metrics::with_local_recorder(&collector, || Wal::open_on(disk, config, tell)).unwrap();
    (collector, opened.wal, completions)
}

fn durable(completions: &Receiver<Completion>) {
    let completion = completions.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(completion, Completion::Durable(_)), "{completion:?}");
}

#[test]
fn metrics_are_there_from_the_start_and_count_syncs() {
    let (collector, wal, completions) = open(&SimDisk::new(1), config());
    let mut names: Vec<String> = collector.counters.lock().unwrap().keys().cloned().collect();
    names.extend(collector.gauges.lock().unwrap().keys().cloned());
    names.extend(collector.histograms.lock().unwrap().keys().cloned());
    names.sort_unstable();
    let expected = [
        "wal_batch_entries",
        "wal_damages_total",
        "wal_repairs_total",
        "wal_scrubbed_bytes_total",
        "wal_space_low",
        "wal_sync_seconds",
    ];
    assert_eq!(names, expected);
    let mut described = collector.described.lock().unwrap().clone();
    described.sort_unstable();
    assert_eq!(described, expected);
    assert_eq!(collector.gauge("wal_space_low").to_bits(), 0_f64.to_bits());
    wal.submit(Write::detached(None, None, vec![command(1, 1, 10), command(2, 1, 10)]));
    durable(&completions);
    wal.submit(entry(3));
    durable(&completions);
    assert_eq!(collector.histogram("wal_batch_entries"), [2.0, 1.0]);
    let took: f64 = collector.histogram("wal_sync_seconds").iter().sum();
    assert!((took - wal.stats().total_sync.as_secs_f64()).abs() < 1e-6, "{took}");
}

#[test]
fn a_full_disk_is_told_once_and_so_is_room() {
    let disk = SimDisk::new(1);
    let (collector, wal, completions) = open(&disk, config());
    wal.submit(entry(1));
    durable(&completions);
    disk.set_capacity(Some(0));
    let (mut index, deadline) = (1, Instant::now() + PATIENCE);
    while wal.space() == Space::Ample {
        index += 1;
        wal.submit(entry(index));
        // Until one waits.
        if completions.recv_timeout(Duration::from_millis(5)).is_err() {
            assert!(Instant::now() < deadline, "neither written nor waiting");
        }
    }
    // The flag is set before the gauge, by another thread.
    let told = |low: f64| {
        while collector.gauge("wal_space_low").to_bits() != low.to_bits() {
            assert!(Instant::now() < deadline, "nobody told");
            std::thread::yield_now();
        }
    };
    told(1.0);
    disk.set_capacity(None);
    told(0.0);
    assert_eq!(wal.space(), Space::Ample);
}

#[test]
fn damage_and_its_repair_are_counted() {
    const LAST: u64 = 100;
    let disk = SimDisk::new(1);
    let often = WalConfig { scrub_interval: Duration::from_millis(1), ..config() };
    let (collector, wal, completions) = open(&disk, often);
    for index in 1..=LAST {
        wal.submit(entry(index));
        durable(&completions);
    }
    let mut segments = disk.names();
    segments.retain(|name| name.starts_with("segment-"));
    segments.sort_by_key(|name| name[name.len().saturating_sub(20)..].to_owned());
    assert!(disk.damage(&segments[1], &Damage::FlipBit { at: 9000, bit: 3 }));
    // Once found it is told again and again, until it is made good.
    let mut told = 0;
    let repaired_after = |after: u64| {
        wal.rewrite((after + 1..=LAST).map(|index| command(index, 1, 300)).collect());
        let deadline = Instant::now() + PATIENCE;
        while wal.stats().repairs == 0 {
            assert!(Instant::now() < deadline, "it is not repaired");
            std::thread::yield_now();
        }
    };
    match completions.recv_timeout(PATIENCE).unwrap() {
        Completion::Damaged(Repair::Entries { after }) => {
            told += 1;
            repaired_after(after.0);
        }
        other => panic!("{other:?}"),
    }
    // What it found before it was repaired.
    let stats = wal.stats();
    wal.close().unwrap();
    told += completions.iter().filter(|it| matches!(it, Completion::Damaged(_))).count() as u64;
    assert!(stats.damages >= 1 && stats.damages <= told, "{stats:?}, {told} told");
    assert_eq!(stats.repairs, 1);
    assert_eq!(collector.counter("wal_repairs_total"), 1);
    assert!(collector.counter("wal_damages_total") >= told);
    assert!(collector.counter("wal_scrubbed_bytes_total") >= stats.scrubbed_bytes);
    assert!(stats.scrubbed_bytes >= 16 << 10, "{stats:?}");
}

/// A log that has nothing to do marks its end, so that damage to it is told from a torn write.
#[test]
fn an_idle_log_is_marked() {
    let disk = SimDisk::new(1);
    let (done, completions) = channel();
    let config = WalConfig { mark_after: Duration::from_millis(1), ..config() };
    let tell = move |completion| drop(done.send(completion));
    let handle = Arc::new(disk.for_this_life());
    let Opened { wal, .. } = Wal::open_on(handle, config, tell).unwrap();
    wal.submit(entry(1));
    durable(&completions);
    let deadline = Instant::now() + PATIENCE;
    let end = |disk: &SimDisk| {
        let inspector = support::life::inspector(disk);
        let segments = inspector.segments().unwrap();
        segments.map(|content| content.unwrap().summary.data_end).max().unwrap()
    };
    let twin = SimDisk::new(1);
    let mut log = support::open(&twin).unwrap().log;
    log.append(&[entry(1)]).unwrap();
    log.sync().unwrap();
    // A sector behind what was written.
    let is_marked = || end(&disk) == end(&twin) + 512;
    while !is_marked() {
        assert!(Instant::now() < deadline, "there is no mark");
        std::thread::yield_now();
    }
    wal.close().unwrap();
}
