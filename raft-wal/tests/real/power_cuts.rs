//! Power cuts: what was acknowledged is there, in the order in which it was submitted, and nothing
//! else than what was submitted is.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use raft_wal::{FileDisk, Log, RecoveryReport};
use rustix::fs::{Advice, fadvise};

use super::child::{Plan, Running, prefix};
use super::loop_device::FileSystem;
use crate::scratch;
use crate::support::{Random, Twin, twin_of};

const FILE_SYSTEM_BYTES: u64 = 64 << 20;
/// After so many lives, or so many bytes, a log starts anew, because it is never compacted here.
const LIVES_MAX: u64 = 12;
const LOG_BYTES_MAX: u64 = 16 << 20;
const SEGMENT_BYTES: [u64; 4] = [16 << 10, 64 << 10, 256 << 10, 1 << 20];

/// What the cuts did: a run in which they did nothing shows nothing.
#[derive(Debug, Default)]
struct Seen {
    cuts: u64,
    /// The child had not opened its log yet.
    while_opening: u64,
    /// Recovery found a write of which a part had reached the disk.
    torn: u64,
    /// Writes were lost that had been submitted, and not acknowledged.
    lost: u64,
    /// Writes were found that had not been acknowledged.
    unacknowledged: u64,
    acknowledged: u64,
    submitted: u64,
}

/// Cuts the power as often as `POWER_CUTS` says.
pub(crate) fn run() {
    let number = |name| std::env::var(name).ok().map(|value: String| value.parse().unwrap());
    let cuts = number("POWER_CUTS").unwrap_or(50);
    let seed = number("POWER_CUTS_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("POWER_CUTS={cuts} POWER_CUTS_SEED={seed}");
    let dir = scratch("power_cuts");
    let (mut random, mut seen, started) = (Random(seed), Seen::default(), Instant::now());
    while seen.cuts < cuts {
        one_file_system(&dir, &mut random, &mut seen, cuts);
    }
    eprintln!("{seen:?} in {:.1} s", started.elapsed().as_secs_f64());
    assert!(seen.lost > 0, "no cut ever lost anything, so none was one: {seen:?}");
    assert!(cuts < 1000 || seen.torn > 0, "no cut ever tore anything: {seen:?}");
    fs::remove_dir_all(&dir).unwrap();
}

/// A log from its creation on, through some lives that all end with a cut.
fn one_file_system(dir: &Path, random: &mut Random, seen: &mut Seen, cuts: u64) {
    let mut file_system = FileSystem::create(dir, FILE_SYSTEM_BYTES);
    let segment_bytes = SEGMENT_BYTES[random.below(4) as usize];
    let mut log = Twin::default();
    let mut mounted = file_system.mount().to_owned();
    for _ in 0..LIVES_MAX {
        let plan = Plan {
            dir: mounted.join("log"),
            seed: random.next(),
            segment_bytes,
            burst_max: [1, 8, 64, 64][random.below(4) as usize],
            writes: u64::MAX,
        };
        let moment = Moment::random(random);
        let mut child = Running::start(&plan, &[]);
        let switch = file_system.switch();
        let flusher = moment.flushing.then(|| Flusher::start(&plan.dir));
        if let Some(acknowledged) = moment.acknowledged {
            child.wait_for(acknowledged);
            child.wait_for_submission();
        }
        sleep(moment.delay);
        switch.cut();
        drop(flusher);
        let said = child.kill();
        file_system.unmount();
        mounted = file_system.mount().to_owned();

        let context = || format!("cut {}: {plan:?} {moment:?} {said:?}", seen.cuts + 1);
        let (restored, report) = recover_copy(&plan, &dir.join("copy"), &context);
        let Some(number) = prefix(plan.seed, &log, &said, &restored) else {
            let (term, entries) = (restored.hard_state.term, restored.entries.len());
            panic!("{}: restored {entries} entries, {term}, {report:?}", context());
        };
        seen.cuts += 1;
        seen.while_opening += u64::from(!said.opened);
        seen.torn += u64::from(report.torn_bytes > 0);
        seen.lost += u64::from(number < said.submitted);
        seen.unacknowledged += u64::from(number > said.acknowledged);
        seen.acknowledged += said.acknowledged;
        seen.submitted += said.submitted;
        log = restored;
        if report.bytes > LOG_BYTES_MAX || seen.cuts == cuts {
            break;
        }
    }
    file_system.unmount();
}

/// When the power is cut.
#[derive(Debug)]
struct Moment {
    /// Counted from the first submission after so many acknowledgements, or from the start of the
    /// child.
    acknowledged: Option<u64>,
    delay: Duration,
    /// Does the system write out what it likes meanwhile?
    flushing: bool,
}

impl Moment {
    fn random(random: &mut Random) -> Self {
        // A start takes some milliseconds, a write some hundred microseconds.
        let (acknowledged, micros) = match random.below(5) {
            0 => (None, 20_000),
            1 => (Some(random.below(300)), 5000),
            2 => (Some(random.below(3)), 600),
            _ => (Some(random.below(300)), 600),
        };
        let delay = Duration::from_micros(random.below(micros));
        Self { acknowledged, delay, flushing: random.one_in(2) }
    }
}

/// Writes out all the time what the system would write out every few seconds: whatever pages are
/// dirty just now, in the middle of a write or not. That is what tears writes.
struct Flusher {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Flusher {
    fn start(log: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, log) = (Arc::clone(&stop), log.to_owned());
        let flush = move || {
            while !stopped.load(Ordering::Relaxed) {
                flush_newest(&log);
            }
        };
        Self { stop, thread: Some(thread::spawn(flush)) }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Starts to write out what is dirty in the newest segment, and does not wait for it.
fn flush_newest(log: &Path) {
    const TIMES: u32 = 50;
    let newest = fs::read_dir(log).ok().and_then(|files| {
        let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
        names.filter(|name| name.starts_with("segment-")).max()
    });
    match newest.and_then(|name| File::open(log.join(name)).ok()) {
        Some(file) => (0..TIMES).for_each(|_| {
            // It fails when the power is off.
            let _ = fadvise(&file, 0, None, Advice::DontNeed);
        }),
        None => sleep(Duration::from_micros(100)),
    }
}

/// Recovers a copy, so that the next child finds what the cut left: its recovery can be cut too.
fn recover_copy(plan: &Plan, copy: &Path, context: &dyn Fn() -> String) -> (Twin, RecoveryReport) {
    let _ = fs::remove_dir_all(copy);
    fs::create_dir(copy).unwrap();
    if let Ok(files) = fs::read_dir(&plan.dir) {
        for file in files {
            let file = file.unwrap();
            fs::copy(file.path(), copy.join(file.file_name())).unwrap();
        }
    }
    let disk = Arc::new(FileDisk::open(copy).unwrap());
    let opened = Log::open(disk, &plan.config());
    let opened = opened.unwrap_or_else(|error| panic!("{}: {error}", context()));
    let RecoveryReport { damage, limping, snapshots_damaged, .. } = &opened.report;
    // A power cut damages nothing that was durable.
    assert!(damage.is_none() && !limping && *snapshots_damaged == 0, "{}", context());
    (twin_of(&opened.restored), opened.report)
}
