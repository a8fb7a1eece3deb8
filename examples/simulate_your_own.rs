//! Your own state machine under the simulator: counters, and clients that add to them and read them.
//!
//! ```text
//! cargo run --release --example simulate_your_own                100 seeds on all cores
//! SEED=17 cargo run --release --example simulate_your_own        one of them, with its story
//! ```
//!
//! A replicated machine on clusters whose nodes crash, whose links are cut and whose disks fail. Every answer is
//! compared with a replay of the log; a seed that breaks something is made small, and its story told.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

use raft_sim::campaign::Campaign;
use raft_sim::fastrand::Rng;
use raft_sim::machine::{
    Bytes, LogPosition, Operation, RestoreError, StateMachine, Timestamp, Words, Workload,
    digest_of,
};
use raft_sim::shrink::shrink;
use raft_sim::simulation::{Plan, Simulation, Watch};

/// What is replicated: a sum, and the last command of each client with the answer to it. Without that a
/// command that a client repeats, because it heard nothing, would be added twice.
#[derive(Default)]
struct Counter {
    sum: u64,
    last: BTreeMap<u64, (u64, u64)>,
}

/// A command is `CLIENT NUMBER AMOUNT`, a response the sum, and `new` or `known`.
fn numbers(text: &[u8]) -> Vec<u64> {
    let text = String::from_utf8_lossy(text);
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

impl StateMachine for Counter {
    fn apply(&mut self, _at: LogPosition, _time: Timestamp, command: &Bytes) -> Bytes {
        let [client, number, amount] = numbers(command)[..] else {
            return Bytes::from_static(b"not a command");
        };
        if let Some((_, sum)) = self.last.get(&client).filter(|(last, _)| *last >= number) {
            return format!("{sum} known").into();
        }
        self.sum += amount;
        self.last.insert(client, (number, self.sum));
        format!("{} new", self.sum).into()
    }

    fn query(&self, _query: &Bytes) -> Bytes {
        self.sum.to_string().into()
    }

    fn snapshot(&self) -> Bytes {
        let last =
            self.last.iter().map(|(client, (number, sum))| format!("{client} {number} {sum}"));
        let lines: Vec<String> = std::iter::once(self.sum.to_string()).chain(last).collect();
        lines.join("\n").into()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), RestoreError> {
        let mut lines = snapshot.split(|&byte| byte == b'\n').map(numbers);
        self.sum = lines.next().and_then(|line| line.first().copied()).ok_or("there is no sum")?;
        self.last = lines.filter(|it| it.len() == 3).map(|it| (it[0], (it[1], it[2]))).collect();
        Ok(())
    }

    /// Over all fields: a snapshot that forgets one of them is found out by this.
    fn digest(&self) -> u128 {
        digest_of(&(self.sum, &self.last))
    }
}

struct Adders;

impl Workload for Adders {
    type Machine = Counter;

    fn machine(&self) -> Counter {
        Counter::default()
    }

    fn next(&self, client: u64, number: u64, random: &mut Rng) -> Operation {
        match random.u64(..3) {
            0 => Operation::Query(Bytes::from_static(b"sum")),
            // Client and number are an id: the machine knows a command that it has seen, so it may be repeated.
            amount => Operation::Write {
                command: format!("{client} {number} {amount}").into(),
                repeatable: true,
            },
        }
    }

    fn decides(&self, _command: &Bytes, response: &Bytes) -> bool {
        response.ends_with(b"new")
    }

    fn describe(&self, words: Words<'_>) -> String {
        String::from_utf8_lossy(words.bytes()).into_owned()
    }
}

const EVENTS: u64 = 5_000;

/// A line on standard output. A reader who goes away, as `head` does, is no failure of any seed.
fn tell(line: impl Display) {
    let _nobody_reads_it = writeln!(std::io::stdout(), "{line}");
}

fn main() -> ExitCode {
    let run = |plan: &Plan, watch| Simulation::new(plan, Adders, watch).run();
    if let Ok(seed) = std::env::var("SEED") {
        let Ok(seed) = seed.parse() else {
            tell(format_args!("SEED={seed}: a seed is a whole number"));
            return ExitCode::from(2);
        };
        let lines = Some(Box::new(tell) as _);
        let report = run(&Plan::new(seed, EVENTS), Watch { lines, ..Watch::default() });
        tell(format_args!("{report:#?}"));
        return ExitCode::SUCCESS;
    }
    let outcome = Campaign::new(1, 100, EVENTS).run(run, |_| {});
    for (what, count) in outcome.report.counts() {
        tell(format_args!("{count:>12} {what}"));
    }
    for failure in &outcome.failures {
        tell(failure);
        tell(format_args!(
            "  SEED={} cargo run --release --example simulate_your_own",
            failure.seed
        ));
    }
    let Some(first) = outcome.failures.first() else { return ExitCode::SUCCESS };
    tell(format_args!("\nseed {}, as small as it gets:\n", first.seed));
    tell(shrink(&run, &Plan::new(first.seed, EVENTS), Some(&first.broken), 500));
    ExitCode::FAILURE
}
