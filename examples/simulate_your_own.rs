//! Your own state machine under the simulator: a counter, and clients that add to it and read it.
//!
//! `cargo run --release --example simulate_your_own` runs 100 seeds on all cores: a replicated counter on
//! clusters whose nodes crash, whose links are cut and whose disks fail. Every answer is compared with a
//! replay of the log; what breaks is told with its seed.

use bytes::Bytes;
use raft_core::{LogPosition, Timestamp};
use raft_sim::campaign::Campaign;
use raft_sim::machine::{Operation, RestoreError, StateMachine, Workload};
use raft_sim::simulation::Simulation;

#[derive(Default)]
struct Counter(u64);

impl StateMachine for Counter {
    fn apply(&mut self, _at: LogPosition, _time: Timestamp, command: &Bytes) -> Bytes {
        self.0 += u64::from(command[0]);
        self.snapshot()
    }
    fn query(&self, _query: &Bytes) -> Bytes {
        self.snapshot()
    }
    fn snapshot(&self) -> Bytes {
        self.0.to_string().into()
    }
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), RestoreError> {
        self.0 = std::str::from_utf8(snapshot)?.parse()?;
        Ok(())
    }
}

struct Adders;

impl Workload for Adders {
    type Machine = Counter;
    fn machine(&self) -> Counter {
        Counter::default()
    }
    fn next(&self, _client: u64, _number: u64, random: &mut fastrand::Rng) -> Operation {
        match random.u8(..3) {
            0 => Operation::Query(Bytes::new()),
            // A counter cannot tell a repetition from another addition: so nobody repeats one.
            some => Operation::Write { command: vec![some].into(), repeatable: false },
        }
    }
    fn decides(&self, _command: &Bytes, _response: &Bytes) -> bool {
        true // It never knows a command from before.
    }
}

fn main() {
    let run = |plan: &_, watch| Simulation::new(plan, Adders, watch).run();
    let outcome = Campaign::new(1, 100, 5_000).run(run, |_| {});
    for (what, count) in outcome.report.counts() {
        println!("{count:>12} {what}");
    }
    for failure in &outcome.failures {
        println!("seed {} fails: {}", failure.seed, failure.broken);
    }
    assert!(outcome.failures.is_empty(), "{} seeds failed", outcome.failures.len());
}
