//! The leaderboard beside etcd: three processes each, durable logs on the same disk, closed loops of clients on the same
//! processors, in turn.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use load::{Failure, Outcome, Work, run};
use servers::Servers;

mod etcd;
mod load;
mod ours;
mod servers;

/// The leaderboard beside etcd.
#[derive(Debug, Parser)]
struct Options {
    /// How often each side is asked everything, in turn with the other
    #[arg(default_value_t = 5)]
    passes: usize,
    /// Seconds for each question and pass
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// The program of the leaderboard
    #[arg(long, default_value = "../../target/release/leaderboard")]
    leaderboard: PathBuf,
    /// The program of etcd
    #[arg(long, default_value = "etcd")]
    etcd: PathBuf,
    /// Ask only this, such as write,64: to look at it with a profiler
    #[arg(long)]
    only: Option<String>,
    /// Without etcd
    #[arg(long)]
    alone: bool,
    /// How many writes each side has had before its memory is looked at
    #[arg(long, default_value_t = 1_000_000)]
    writes: usize,
}

/// What is asked, by how many clients at once.
const WORKS: [(Work, usize); 5] = [
    (Work::Write, 1),
    (Work::Write, 64),
    (Work::Write, 256),
    (Work::Read, 1),
    (Work::Read, 64),
];

#[derive(Default)]
struct Measured {
    per_second: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    micros_each: Vec<f64>,
    errors: u64,
}

struct Sides {
    ours: (Servers, SocketAddr),
    etcd: (Servers, Vec<SocketAddr>),
    writes: [usize; 2],
}

impl Sides {
    async fn ask(
        &mut self,
        side: usize,
        work: Work,
        count: usize,
        time: Duration,
        max: usize,
    ) -> Result<(Outcome, Duration), Failure> {
        let servers = if side == 0 { &self.ours.0 } else { &self.etcd.0 };
        let before = servers.processor_time();
        let outcome = if side == 0 {
            let mut clients = Vec::new();
            for _ in 0..count {
                clients.push(ours::Connection::open(self.ours.1).await?);
            }
            run(clients, work, time, max).await
        } else {
            run(etcd::clients(&self.etcd.1, count).await?, work, time, max).await
        };
        let spent = servers.processor_time() - before;
        if work == Work::Write {
            self.writes[side] += outcome.answers();
        }
        Ok((outcome, spent))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let options = Options::parse();
    let dir = tempfile::tempdir_in("target")?;
    let etcd = if options.alone {
        (Servers::none(), Vec::new())
    } else {
        etcd::start(&options.etcd, dir.path()).await?
    };
    let ours = ours::start(&options.leaderboard, dir.path()).await?;
    let mut sides = Sides { ours, etcd, writes: [0, 0] };
    let sides_asked = if options.alone { 1 } else { 2 };
    let time = Duration::from_secs(options.seconds);
    // Both have a leader, and all names, before anything counts.
    for side in 0..sides_asked {
        sides.ask(side, Work::Write, 16, Duration::from_secs(2), usize::MAX).await?;
    }
    let mut measured: Vec<[Measured; 2]> = WORKS.iter().map(|_| Default::default()).collect();
    for pass in 0..options.passes {
        for (at, (work, clients)) in WORKS.iter().enumerate() {
            let name = format!("{work:?},{clients}").to_lowercase();
            if options.only.as_ref().is_some_and(|only| *only != name) {
                continue;
            }
            // The one that comes first is another one each time.
            for side in [pass % 2, 1 - pass % 2].into_iter().filter(|&side| side < sides_asked) {
                let (outcome, spent) = sides.ask(side, *work, *clients, time, usize::MAX).await?;
                let kept = &mut measured[at][side];
                kept.per_second.push(outcome.per_second());
                kept.p50.push(outcome.quantile(0.5));
                kept.p99.push(outcome.quantile(0.99));
                kept.micros_each.push(spent.as_secs_f64() * 1e6 / outcome.answers().max(1) as f64);
                kept.errors += outcome.errors();
            }
        }
        eprintln!("pass {} of {}", pass + 1, options.passes);
    }
    tell(&measured);
    for side in 0..sides_asked {
        while sides.writes[side] < options.writes {
            let left = options.writes - sides.writes[side];
            let (outcome, _) = sides.ask(side, Work::Write, 256, time, left).await?;
            if outcome.answers() == 0 {
                return Err("it answers no writes any more".into());
            }
        }
    }
    println!("\nresident memory after {} and {} writes:", sides.writes[0], sides.writes[1]);
    for (name, mib) in sides.ours.0.memory().into_iter().chain(sides.etcd.0.memory()) {
        println!("  {name:10} {mib:6.0} MiB");
    }
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Medians over the passes, and the median of the ratios within a pass.
fn tell(measured: &[[Measured; 2]]) {
    println!(
        "{:18} {:>11} {:>9} {:>9} {:>9} {:>11} {:>9} {:>9} {:>9} {:>7} {:>7}",
        "", "ours/s", "p50 ms", "p99 ms", "cpu µs", "etcd/s", "p50 ms", "p99 ms", "cpu µs", "times", "errors"
    );
    for ((work, clients), [ours, etcd]) in WORKS.iter().zip(measured) {
        let ratios = ours.per_second.iter().zip(&etcd.per_second).map(|(a, b)| a / b);
        let ratios: Vec<f64> = ratios.collect();
        let side = |it: &Measured| {
            format!(
                "{:>11.0} {:>9.2} {:>9.2} {:>9.0}",
                median(&it.per_second),
                median(&it.p50),
                median(&it.p99),
                median(&it.micros_each)
            )
        };
        println!(
            "{:18} {} {} {:>7.2} {:>3}/{:<3}",
            format!("{work:?}, {clients}"),
            side(ours),
            side(etcd),
            median(&ratios),
            ours.errors,
            etcd.errors
        );
    }
}
