//! What a log tells of itself: how writes share syncs, what it counts, and its metrics.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use metrics::{
    Counter, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use raft_core::{HardState, Term, Write};
use raft_wal::sim::{Damage, Fault, FaultRule, SimDisk};
use raft_wal::{Completion, Disk, Opened, Repair, Space, Wal, WalConfig, WalError, WalStats};
use support::between::{Between, Meddler};
use support::watched::Watched;
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
    let watched = Watched::on(&disk);
    let Opened { wal, .. } = Wal::open_on(watched.clone(), config(), tell).unwrap();
    wal.submit(entry(1));
    durable(&completions);
    watched.seen();
    disk.add_fault(FaultRule::new(Fault::Error).files("segment-").always());
    let vote = HardState { term: Term(2), voted_for: None };
    wal.submit(Write::detached(Some(vote), None, Vec::new()));
    wal.submit(entry(2));
    drop(open_gate);
    let told = completions.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(told, Completion::Failed(WalError::Disk { .. })), "{told:?}");
    assert!(matches!(wal.close(), Err(WalError::Poisoned)));
    assert!(completions.recv().is_err(), "it was told already");
    // Once, both of them.
    let mut done = watched.seen();
    done.retain(|operation| !operation.contains("spare"));
    assert_eq!(done, ["write 1024 at 9216 of segment 1"]);
}

/// All values that it was given, in their order.
#[derive(Default)]
struct Values(Mutex<Vec<f64>>);

impl HistogramFn for Values {
    fn record(&self, value: f64) {
        self.0.lock().unwrap().push(value);
    }
}

impl GaugeFn for Values {
    fn increment(&self, _: f64) {
        unreachable!("it is set");
    }

    fn decrement(&self, _: f64) {
        unreachable!("it is set");
    }

    fn set(&self, value: f64) {
        self.0.lock().unwrap().push(value);
    }
}

/// Remembers what it is told.
#[derive(Default)]
struct Collector {
    described: Mutex<Vec<String>>,
    counters: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    gauges: Mutex<BTreeMap<String, Arc<Values>>>,
    histograms: Mutex<BTreeMap<String, Arc<Values>>>,
}

impl Collector {
    fn counter(&self, name: &str) -> u64 {
        self.counters.lock().unwrap()[name].load(Ordering::Relaxed)
    }

    fn gauge(&self, name: &str) -> Vec<f64> {
        self.gauges.lock().unwrap()[name].0.lock().unwrap().clone()
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
        Gauge::from_arc(Arc::clone(gauges.entry(key.name().to_owned()).or_default()))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let mut histograms = self.histograms.lock().unwrap();
        Histogram::from_arc(Arc::clone(histograms.entry(key.name().to_owned()).or_default()))
    }
}

/// A log whose metrics this test collects.
fn open_with(
    disk: Arc<dyn Disk>,
    config: WalConfig,
    tell: impl FnMut(Completion) + Send + 'static,
) -> (Collector, Wal) {
    let collector = Collector::default();
    let opened =
        metrics::with_local_recorder(&collector, || Wal::open_on(disk, config, tell)).unwrap();
    (collector, opened.wal)
}

fn open(disk: &SimDisk, config: WalConfig) -> (Collector, Wal, Receiver<Completion>) {
    let (done, completions) = channel();
    let disk = Arc::new(disk.for_this_life());
    let (collector, wal) = open_with(disk, config, move |it| drop(done.send(it)));
    (collector, wal, completions)
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
    assert_eq!(collector.gauge("wal_space_low"), [0.0]);
    wal.submit(Write::detached(None, None, vec![command(1, 1, 10), command(2, 1, 10)]));
    durable(&completions);
    wal.submit(entry(3));
    durable(&completions);
    assert_eq!(collector.histogram("wal_batch_entries"), [2.0, 1.0]);
    let took: f64 = collector.histogram("wal_sync_seconds").iter().sum();
    assert!((took - wal.stats().total_sync.as_secs_f64()).abs() < 1e-6, "{took}");
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited for ever: {what}");
        std::thread::yield_now();
    }
}

/// Whoever prepares a segment tells that it begins, and is told how it ends.
struct Asked {
    begun: SyncSender<()>,
    end: Mutex<Receiver<io::Result<()>>>,
}

impl Meddler for Asked {
    fn create(&self) -> io::Result<()> {
        if std::thread::current().name() != Some("wal-spare") {
            return Ok(());
        }
        self.begun.send(()).ok();
        self.end.lock().unwrap().recv_timeout(PATIENCE).unwrap_or(Ok(()))
    }
}

/// However often there is none.
#[test]
fn a_full_disk_is_told_once_and_so_is_room() {
    let ((begun, begins), (end, ends)) = (sync_channel(9), channel());
    let disk = Between::on(&SimDisk::new(1), Arc::new(Asked { begun, end: Mutex::new(ends) }));
    let (done, completions) = channel();
    let tell = move |it| drop(done.send(it));
    let (collector, wal) = open_with(disk, config(), tell);
    wal.submit(entry(1));
    durable(&completions);
    let told = |expected: &[f64]| {
        wait_until("what is told", || collector.gauge("wal_space_low").len() >= expected.len());
        assert_eq!(collector.gauge("wal_space_low"), expected);
    };
    told(&[0.0]);
    for _ in 0..2 {
        begins.recv_timeout(PATIENCE).unwrap();
        end.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
        told(&[0.0, 1.0]);
        assert_eq!(wal.space(), Space::Low);
    }
    // It is asked for again when the last answer has arrived.
    begins.recv_timeout(PATIENCE).unwrap();
    told(&[0.0, 1.0]);
    end.send(Ok(())).unwrap();
    told(&[0.0, 1.0, 0.0]);
    assert_eq!(wal.space(), Space::Ample);
    // The next segment, and the one behind it.
    drop(end);
    for index in 2..20 {
        wal.submit(entry(index));
        durable(&completions);
    }
    wal.close().unwrap();
    told(&[0.0, 1.0, 0.0]);
}

/// The last sealed segment: what is read again beside its repair is the first one.
#[test]
fn damage_and_its_repair_are_counted() {
    const LAST: u64 = 100;
    let disk = SimDisk::new(1);
    let often = WalConfig { scrub_interval: Duration::from_millis(1), ..config() };
    let (open_gate, gate) = channel::<()>();
    let (done, completions) = channel();
    // Behind each completion the writer stands still, until the test goes on.
    let tell = move |completion| {
        drop(done.send(completion));
        gate.recv_timeout(PATIENCE).ok();
    };
    let (collector, wal) = open_with(Arc::new(disk.for_this_life()), often, tell);
    // It goes before the log, which waits for it.
    let open_gate = open_gate;
    // When there is nothing yet to be read again, that is looked at later.
    let opened = Instant::now();
    wait_until("the first time", || opened.elapsed() > Duration::from_millis(2));
    for index in 1..=LAST {
        wal.submit(entry(index));
        durable(&completions);
        if index < LAST {
            open_gate.send(()).unwrap();
        }
    }
    let same = |damages, repairs| {
        let stats = wal.stats();
        assert_eq!((stats.damages, stats.repairs), (damages, repairs));
        assert_eq!(collector.counter("wal_damages_total"), damages);
        assert_eq!(collector.counter("wal_repairs_total"), repairs);
        let scrubbed = stats.scrubbed_bytes;
        assert_eq!(collector.counter("wal_scrubbed_bytes_total"), scrubbed);
        assert_eq!(scrubbed % config().segment_bytes, 0, "segments are read as a whole");
        scrubbed
    };
    same(0, 0);
    let mut segments = disk.names();
    segments.retain(|name| name.starts_with("segment-"));
    segments.sort_by_key(|name| name[name.len().saturating_sub(20)..].to_owned());
    let damaged = &segments[segments.len() - 2];
    assert!(disk.damage(damaged, &Damage::FlipBit { at: 9000, bit: 3 }));
    open_gate.send(()).unwrap();
    let found = completions.recv_timeout(PATIENCE).unwrap();
    let Completion::Damaged(Repair::Entries { after }) = found else { panic!("{found:?}") };
    assert!(same(1, 0) > 0);
    wal.rewrite((after.0 + 1..=LAST).map(|index| command(index, 1, 300)).collect());
    wal.submit(entry(LAST + 1));
    open_gate.send(()).unwrap();
    durable(&completions);
    same(1, 1);
    assert!(!disk.names().contains(damaged));
    drop(open_gate);
    wal.close().unwrap();
    assert!(completions.recv().is_err(), "it was told once");
}

/// A log that has nothing to do marks its end, so that damage to it is told from a torn write.
#[test]
fn an_idle_log_is_marked() {
    let watched = Watched::on(&SimDisk::new(1));
    let (done, completions) = channel();
    let config = WalConfig { mark_after: Duration::from_millis(1), ..config() };
    let tell = move |completion| drop(done.send(completion));
    let Opened { wal, .. } = Wal::open_on(watched.clone(), config, tell).unwrap();
    watched.seen();
    wal.submit(entry(1));
    durable(&completions);
    let seen = Mutex::new(Vec::new());
    wait_until("a mark", || {
        let mut seen = seen.lock().unwrap();
        seen.append(&mut watched.seen());
        // Segments are prepared beside it.
        seen.retain(|operation| !operation.contains("spare"));
        seen.len() == 4
    });
    wal.close().unwrap();
    let expected = [
        "write 512 at 8704 of segment 1",
        "sync segment 1",
        "write 512 at 9216 of segment 1",
        "sync segment 1",
    ];
    assert_eq!(*seen.lock().unwrap(), expected);
    let mut later = watched.seen();
    later.retain(|operation| !operation.contains("spare"));
    assert_eq!(later, [""; 0], "once is enough");
}
