//! Closed loops: each client asks, waits for the answer, and asks again.

use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

/// Whatever can go wrong.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A durable write with a name of 16 bytes.
    Write,
    /// A linearizable read of one name.
    Read,
}

/// So many names are written and read.
const NAMES: u64 = 1000;

/// A name of 16 bytes.
pub fn name(dice: &mut fastrand::Rng) -> String {
    format!("player-{:09}", dice.u64(..NAMES))
}

/// Somebody who asks, on a connection.
pub trait Client {
    /// Asks once, and waits for the answer.
    fn ask(&mut self, work: Work, name: &str) -> impl Future<Output = Result<(), Failure>>;
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    latencies: Vec<Duration>,
    errors: u64,
    took: Duration,
}

impl Outcome {
    pub fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }

    pub fn answers(&self) -> usize {
        self.latencies.len()
    }

    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// In milliseconds: so large a part was faster.
    pub fn quantile(&self, part: f64) -> f64 {
        let at = (self.latencies.len().saturating_sub(1) as f64 * part).round() as usize;
        self.latencies.get(at).map_or(f64::NAN, |it| it.as_secs_f64() * 1e3)
    }
}

/// Lets these clients work for a time, or until there are so many answers.
pub async fn run<C: Client + 'static>(
    clients: Vec<C>,
    work: Work,
    time: Duration,
    answers_max: usize,
) -> Outcome {
    let begin = Instant::now();
    let left = Rc::new(std::cell::Cell::new(answers_max));
    let local = tokio::task::LocalSet::new();
    let together = local.run_until(async {
        let mut tasks = JoinSet::new();
        for (number, mut client) in clients.into_iter().enumerate() {
            let left = Rc::clone(&left);
            tasks.spawn_local(async move {
                let mut dice = fastrand::Rng::with_seed(number as u64);
                let mut seen = Outcome::default();
                while begin.elapsed() < time && left.get() > 0 {
                    let asked = Instant::now();
                    match client.ask(work, &name(&mut dice)).await {
                        Ok(()) => {
                            seen.latencies.push(asked.elapsed());
                            left.set(left.get().saturating_sub(1));
                        }
                        Err(_) => {
                            seen.errors += 1;
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                    }
                }
                seen
            });
        }
        tasks.join_all().await
    });
    let mut all = Outcome::default();
    for mut seen in together.await {
        all.latencies.append(&mut seen.latencies);
        all.errors += seen.errors;
    }
    all.took = begin.elapsed();
    all.latencies.sort_unstable();
    all
}
