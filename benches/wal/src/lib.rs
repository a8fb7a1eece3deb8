//! The same batches made durable by raft-wal, by raft-engine, and by a bare loop of writes and syncs.
//!
//! What each side does and does not do is told in `../README.md`.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use tempfile::TempDir;

pub mod bare;
pub mod counting;
pub mod engine;
pub mod ours;

/// Bytes of a command.
pub const COMMAND_BYTES: usize = 256;

/// A log that is open, or what stands for one.
pub trait Side {
    /// Makes so many batches of so many commands durable, one after the other. What the caller of a log
    /// has in its hands before it calls is built before the clock starts.
    fn run(&mut self, batches: usize, records: usize) -> Cost;
}

/// What it took.
#[derive(Clone, Debug, Default)]
pub struct Cost {
    /// By the clock on the wall.
    pub wall: Duration,
    /// By the processor, on all threads: what neighbours do in the meantime does not count.
    pub processor: Duration,
    /// Of each batch, from its handing over to the proof that it is durable.
    pub latencies: Vec<Duration>,
    /// Bytes that were handed to the system in write calls.
    pub written_bytes: u64,
    /// Syncs of files.
    pub syncs: u64,
}

/// Measures work that consists of steps. `syncs` counts those of the process so far. `settle` waits for
/// what is still going on beside it when the clock on the wall has stopped: that is not to fall on the
/// next side, and its processor time and its bytes count here.
pub fn measure<T>(
    steps: impl IntoIterator<Item = T>,
    syncs: impl Fn() -> u64,
    mut act: impl FnMut(T),
    settle: impl FnOnce(),
) -> Cost {
    let mut cost = Cost::default();
    let steps = steps.into_iter();
    cost.latencies.reserve(steps.size_hint().0);
    let (written_before, syncs_before) = (written_bytes(), syncs());
    let (wall, processor) = (Instant::now(), processor_time());
    for step in steps {
        let started = Instant::now();
        act(step);
        cost.latencies.push(started.elapsed());
    }
    cost.wall = wall.elapsed();
    settle();
    cost.processor = processor_time() - processor;
    cost.written_bytes = written_bytes() - written_before;
    cost.syncs = syncs() - syncs_before;
    cost
}

/// What the process has used so far, on all of its threads.
pub fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("not negative")
}

/// What the process has handed to the system in write calls; 0 where Linux does not count it.
fn written_bytes() -> u64 {
    let counts = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let count = counts.lines().find_map(|line| line.strip_prefix("wchar: "));
    count.and_then(|count| count.parse().ok()).unwrap_or_default()
}

/// Commands that no compression makes shorter, so that all sides write them whole.
pub fn commands(count: usize, bytes: usize) -> Vec<Bytes> {
    let mut random = fastrand::Rng::with_seed(1);
    let command = |_| {
        let mut command = vec![0; bytes];
        random.fill(&mut command);
        command.into()
    };
    (0..count).map(command).collect()
}

/// A directory beside the program, and so on the disk of the target directory: temporary directories
/// of the system may lie in memory, where a sync costs nothing.
pub fn directory() -> TempDir {
    let program = std::env::current_exe().expect("the system knows where the program lies");
    let beside = program.parent().map(PathBuf::from).unwrap_or_default();
    TempDir::new_in(beside).expect("the target directory can be written to")
}

/// The middle one; 0 of none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    quantile(values, 0.5)
}

/// The smallest value that this part of all values do not exceed; 0 of none.
pub fn quantile(values: impl IntoIterator<Item = f64>, part: f64) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    let at = (values.len() as f64 * part) as usize;
    values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or_default()
}
