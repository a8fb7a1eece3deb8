//! What is shown of a campaign: progress while it runs, a table at its end.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use raft_sim::campaign::{self, Campaign, Failure};
use raft_sim::simulation::Report;

use crate::record::Record;

/// Where nobody watches a bar, a line this often.
const LINE_INTERVAL: Duration = Duration::from_secs(30);

/// How far a campaign is: a bar on a terminal, else a line from time to time.
pub(crate) struct Progress {
    bar: ProgressBar,
    started: Instant,
    next_line: Mutex<Instant>,
    seeds: u64,
}

impl Progress {
    pub(crate) fn new(campaign: &Campaign) -> Self {
        let bar = if std::io::stderr().is_terminal() {
            ProgressBar::new(campaign.seeds)
        } else {
            ProgressBar::hidden()
        };
        let style = ProgressStyle::with_template(
            "{bar:40} {human_pos} of {human_len} seeds, {elapsed} gone, {eta} to go\n{msg}",
        );
        bar.set_style(style.expect("a template with parts that exist"));
        let started = Instant::now();
        let next_line = Mutex::new(started + LINE_INTERVAL);
        Self { bar, started, next_line, seeds: campaign.seeds }
    }

    pub(crate) fn show(&self, now: campaign::Progress<'_>) {
        if !self.bar.is_hidden() {
            self.bar.set_position(now.seeds);
            self.bar.set_message(self.words(&now));
            return;
        }
        let mut next = self.next_line.lock().expect("nobody panics with it");
        if Instant::now() >= *next {
            *next += LINE_INTERVAL;
            let words = self.words(&now).replace('\n', ", ");
            eprintln!("{} of {} seeds: {words}", now.seeds, self.seeds);
        }
    }

    fn words(&self, now: &campaign::Progress<'_>) -> String {
        let report = now.report;
        let per_second = report.events as f64 / self.started.elapsed().as_secs_f64();
        let failed = match now.failed {
            0 => String::new(),
            failed => format!("\n{failed} SEEDS FAILED"),
        };
        format!(
            "{} events ({} a second), {} elections, {} crashes\n{} partitions, {} disk faults, {} \
             membership changes\n{} simulated{failed}",
            grouped(report.events),
            grouped(per_second as u64),
            grouped(report.elections),
            grouped(report.crashes),
            grouped(report.partitions),
            grouped(report.disk_faults()),
            grouped(report.changes_committed),
            span(report.simulated),
        )
    }

    pub(crate) fn end(self) {
        self.bar.finish_and_clear();
    }
}

/// All campaigns together, as a table.
pub(crate) fn table(records: &[Record]) {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, count) in records.iter().flat_map(|record| &record.counts) {
        *counts.entry(name).or_default() += count;
    }
    let events = counts.get("events").copied().unwrap_or(0);
    let simulated = counts.remove(SIMULATED).unwrap_or(0);
    // In the order in which a report lists them, which is by what they are about.
    let mut rows: Vec<(String, u64)> = Vec::new();
    for (name, _) in Report::default().counts() {
        rows.extend(counts.remove(name.as_str()).map(|count| (name, count)));
    }
    rows.extend(counts.into_iter().map(|(name, count)| (name.to_owned(), count)));
    columns(&rows);
    let seeds: u64 = records.iter().map(|record| record.seeds).sum();
    let seconds: f64 = records.iter().map(|record| record.seconds).sum();
    let cores: f64 = records.iter().map(|record| record.seconds * record.threads as f64).sum();
    println!(
        "\n{} seeds, {} simulated in {}: {} events a second on each core",
        grouped(seeds),
        span(Duration::from_secs(simulated)),
        span(Duration::from_secs_f64(seconds)),
        grouped((events as f64 / cores.max(1e-9)) as u64)
    );
    let failed: Vec<u64> = records.iter().flat_map(|record| &record.failed).copied().collect();
    match failed.as_slice() {
        [] => println!("none failed"),
        some => println!("{} failed: {some:?}", some.len()),
    }
}

/// What a report calls the time that went by in it.
const SIMULATED: &str = "simulated seconds";
const COLUMNS: usize = 3;

/// Down the first column, then down the next.
fn columns(rows: &[(String, u64)]) {
    let height = rows.len().div_ceil(COLUMNS).max(1);
    for line in 0..height {
        let cells = rows.iter().skip(line).step_by(height);
        let cells = cells.map(|(name, count)| format!("{:>13} {name:<38}", grouped(*count)));
        println!("{}", cells.collect::<String>().trim_end());
    }
}

pub(crate) fn report(seed: u64, report: &Report) {
    println!("seed {seed} survives, digest {:032x}", report.digest);
    let happened = report.counts().into_iter().filter(|(_, count)| *count > 0);
    columns(&happened.collect::<Vec<_>>());
}

pub(crate) fn failure(failure: &Failure) {
    let Failure { seed, broken } = failure;
    println!("seed {seed} FAILED: {broken}");
    println!("  its story: cargo run --release --example simulate -- --seed {seed} --trace");
}

/// `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `3.2 years`, `5.1 days`, `7.0 hours`.
fn span(time: Duration) -> String {
    const HOUR: f64 = 3_600.0;
    let seconds = time.as_secs_f64();
    let units = [
        (HOUR * 24.0 * 365.25, "years"),
        (HOUR * 24.0, "days"),
        (HOUR, "hours"),
        (60.0, "minutes"),
    ];
    let (unit, name) =
        units.into_iter().find(|(unit, _)| seconds >= *unit).unwrap_or((1.0, "seconds"));
    format!("{:.1} {name}", seconds / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_spans_are_for_people() {
        let of = [0, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(of, ["0", "999", "1,000", "1,234,567"]);
        let of = [3, 90, 7_200, 86_400 * 3, 86_400 * 3_653].map(|it| span(Duration::from_secs(it)));
        assert_eq!(of, ["3.0 seconds", "1.5 minutes", "2.0 hours", "3.0 days", "10.0 years"]);
    }
}
