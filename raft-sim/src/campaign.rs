//! Many seeds on all cores: what happened in them, and which of them failed.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, Location, PanicHookInfo, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

use crate::simulation::{Plan, Report, Watch};

/// Runs of many seeds.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// The first seed; the others follow it.
    pub first_seed: u64,
    /// How many seeds. It ends with the highest seed that there is, `u64::MAX`, if that comes sooner.
    pub seeds: u64,
    /// So many events happen in each run before progress is demanded.
    pub events: u64,
    /// So many runs at a time.
    pub threads: usize,
    /// Begin no other seed once one has failed.
    pub stop_at_first: bool,
    /// Whoever sets this, from `progress` or from another thread, makes it begin no other seed; those that
    /// run come to their ends.
    pub stop: Arc<AtomicBool>,
}

/// What came of a campaign.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How many seeds were run to their end, or failed: the first so many, also if it was stopped.
    pub seeds: u64,
    /// What happened in those that did not fail, all together.
    pub report: Report,
    /// Which seeds failed, in order.
    pub failures: Vec<Failure>,
    /// How long it took.
    pub elapsed: Duration,
}

/// How far a campaign is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Seeds that are done.
    pub seeds: u64,
    /// How many of them failed.
    pub failed: usize,
    /// What happened so far.
    pub report: &'a Report,
}

/// A seed that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub seed: u64,
    /// What broke, and where.
    pub broken: Broken,
}

/// A panic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// What it said.
    pub message: String,
    /// The file and the line.
    pub place: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { message, place } = self;
        // Below a table of what is compared a place in brackets would look like a part of it.
        if message.contains('\n') {
            write!(f, "{message}\n({place})")
        } else {
            write!(f, "{message} ({place})")
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {} fails: {}", self.seed, self.broken)
    }
}

impl Outcome {
    /// Adds another piece of the same campaign.
    pub fn add(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.report.add(&other.report);
        self.failures.extend(other.failures);
        self.elapsed += other.elapsed;
    }
}

impl Campaign {
    /// These seeds, on all cores.
    #[must_use]
    pub fn new(first_seed: u64, seeds: u64, events: u64) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { first_seed, seeds, events, threads, stop_at_first: false, stop: Arc::default() }
    }

    /// Runs them. `run` is one run, most often `|plan, watch| Simulation::new(plan, workload, watch).run()`; it fails
    /// by a panic. `progress` is told after each of them.
    pub fn run(
        &self,
        run: impl Fn(&Plan, Watch) -> Report + Sync,
        progress: impl Fn(Progress<'_>) + Sync,
    ) -> Outcome {
        let started = Instant::now();
        let (begun, failed) = (AtomicU64::new(0), AtomicBool::new(false));
        let done = Mutex::new((0, Report::default(), Vec::new()));
        let work = || {
            while !self.stop.load(Ordering::Relaxed) && !failed.load(Ordering::Relaxed) {
                let place = begun.fetch_add(1, Ordering::Relaxed);
                if place >= self.seeds {
                    break;
                }
                let Some(seed) = self.first_seed.checked_add(place) else { break };
                let plan = Plan::new(seed, self.events);
                let outcome = quietly(|| run(&plan, Watch::default()));
                let mut done = done.lock().expect("nobody panics with it");
                let (seeds, report, failures) = &mut *done;
                *seeds += 1;
                match outcome {
                    Ok(one) => report.add(&one),
                    Err(broken) => {
                        failed.store(self.stop_at_first, Ordering::Relaxed);
                        failures.push(Failure { seed, broken });
                    }
                }
                progress(Progress { seeds: *seeds, failed: failures.len(), report });
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(work);
            }
        });
        let (seeds, report, mut failures) = done.into_inner().expect("nobody panics with it");
        failures.sort_by_key(|failure| failure.seed);
        Outcome { seeds, report, failures, elapsed: started.elapsed() }
    }
}

thread_local! {
    /// Does somebody on this thread catch panics, and wants to know what they said?
    static LISTENING: Cell<bool> = const { Cell::new(false) };
    static HEARD: RefCell<Option<Broken>> = const { RefCell::new(None) };
}

/// Runs something that may panic, without a word on stderr.
///
/// # Errors
/// What the panic said.
pub fn quietly<T>(run: impl FnOnce() -> T) -> Result<T, Broken> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if LISTENING.get() {
                HEARD.set(Some(hear(panic)));
            } else {
                others(panic);
            }
        }));
    });
    let listened = LISTENING.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(run));
    LISTENING.set(listened);
    outcome.map_err(|_| {
        HEARD.take().unwrap_or_else(|| Broken { message: String::new(), place: String::new() })
    })
}

fn hear(panic: &PanicHookInfo<'_>) -> Broken {
    let payload = panic.payload();
    let literal = payload.downcast_ref::<&str>().map(ToString::to_string);
    let message = literal.or_else(|| payload.downcast_ref::<String>().cloned());
    let message = message.unwrap_or_else(|| "a panic without words".to_owned());
    let place = panic.location().map(Location::to_string).unwrap_or_default();
    Broken { message, place }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_told_by_seed_and_reason() {
        let campaign = Campaign { threads: 3, ..Campaign::new(5, 20, 1) };
        let told = Mutex::new(0);
        let run = |plan: &Plan, _: Watch| {
            assert!(!plan.seed.is_multiple_of(7), "seven divides {}", plan.seed);
            Report { events: 1, ..Report::default() }
        };
        let outcome = campaign.run(run, |_| *told.lock().expect("no panic") += 1);
        let failed: Vec<u64> = outcome.failures.iter().map(|failure| failure.seed).collect();
        assert_eq!((outcome.seeds, outcome.report.events), (20, 17));
        assert_eq!(failed, [7, 14, 21]);
        assert_eq!(outcome.failures[1].broken.message, "seven divides 14");
        assert!(outcome.failures[1].broken.place.contains("campaign.rs"));
        assert_eq!(*told.lock().expect("no panic"), 20);
    }

    #[test]
    fn it_ends_with_the_last_seed_that_there_is() {
        let campaign = Campaign { threads: 2, ..Campaign::new(u64::MAX - 1, 5, 1) };
        let outcome = campaign.run(|plan, _| panic!("{}", plan.seed), |_| {});
        let failed: Vec<u64> = outcome.failures.iter().map(|failure| failure.seed).collect();
        assert_eq!((outcome.seeds, failed), (2, vec![u64::MAX - 1, u64::MAX]));
    }

    #[test]
    fn what_is_done_when_it_is_stopped_are_the_first_seeds() {
        let campaign = Campaign { threads: 3, ..Campaign::new(1, 1_000, 1) };
        let stop = Arc::clone(&campaign.stop);
        let run = |plan: &Plan, _: Watch| panic!("{}", plan.seed);
        let outcome = campaign.run(run, |now| stop.store(now.seeds >= 10, Ordering::Relaxed));
        let failed: Vec<u64> = outcome.failures.iter().map(|failure| failure.seed).collect();
        assert!((10..=12).contains(&outcome.seeds), "{}", outcome.seeds);
        assert_eq!(failed, (1..=outcome.seeds).collect::<Vec<_>>());
    }

    #[test]
    fn it_can_stop_at_the_first() {
        let campaign = Campaign { stop_at_first: true, threads: 1, ..Campaign::new(1, 100, 1) };
        // Again and again: that is not the same as being stopped by somebody.
        for _ in 0..2 {
            let outcome = campaign.run(|plan, _| panic!("{}", plan.seed), |_| {});
            assert_eq!((outcome.seeds, outcome.failures.len()), (1, 1));
        }
    }
}
