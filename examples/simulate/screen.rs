//! What is shown of a campaign: progress while it runs, a table at its end.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use raft_sim::campaign::{self, Campaign, Failure, Outcome};
use raft_sim::simulation::{Report, Section};

use crate::out;
use crate::record::Record;

/// Where nobody watches a bar, a line this often.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// A bar need not move faster than eyes do.
const BAR_INTERVAL: Duration = Duration::from_millis(100);
/// So many seeds are told with what broke in them.
pub(crate) const FAILURES_SHOWN: usize = 20;

/// How far a campaign is: a bar on a terminal, else a line from time to time.
pub(crate) struct Progress {
    bar: ProgressBar,
    started: Instant,
    /// When something is shown again.
    next: Mutex<Instant>,
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
            "{bar:40.cyan} {human_pos} of {human_len} seeds, {elapsed} gone, {eta} to go\n{msg}",
        );
        bar.set_style(style.expect("a template with parts that exist"));
        let started = Instant::now();
        let wait = if bar.is_hidden() { LINE_INTERVAL } else { BAR_INTERVAL };
        Self { bar, started, next: Mutex::new(started + wait), seeds: campaign.seeds }
    }

    /// `before` is what is done of the campaign besides that.
    pub(crate) fn show(&self, before: &Outcome, now: campaign::Progress<'_>) {
        let mut next = self.next.lock().expect("nobody panics with it");
        if Instant::now() < *next {
            return;
        }
        let mut report = before.report.clone();
        report.add(now.report);
        let words = self.words(&report, before.failures.len() + now.failed);
        let seeds = before.seeds + now.seeds;
        if self.bar.is_hidden() {
            *next = Instant::now() + LINE_INTERVAL;
            let percent = seeds as f64 * 100.0 / self.seeds as f64;
            let (done, all) = (grouped(seeds), grouped(self.seeds));
            out::note(format!("{done} of {all} seeds ({percent:.0} %): {}", words.join(", ")));
        } else {
            *next = Instant::now() + BAR_INTERVAL;
            self.bar.set_position(seeds);
            self.bar.set_message(words.join("\n"));
        }
    }

    fn words(&self, report: &Report, failed: usize) -> Vec<String> {
        let per_second = report.events as f64 / self.started.elapsed().as_secs_f64();
        let mut words = vec![
            format!("{} events ({} a second)", grouped(report.events), grouped(per_second as u64)),
            format!(
                "{}, {}, {}, {}, {}",
                counted(report.elections, "election", "elections"),
                counted(report.crashes, "crash", "crashes"),
                counted(report.partitions, "partition", "partitions"),
                counted(report.disk_faults(), "disk fault", "disk faults"),
                counted(report.changes_committed, "membership change", "membership changes"),
            ),
            format!("{} simulated", span(report.simulated)),
        ];
        if failed > 0 {
            words.push(counted(failed as u64, "SEED FAILED", "SEEDS FAILED"));
        }
        words
    }

    /// A line that does not tear the bar.
    pub(crate) fn note(&self, text: &str) {
        self.bar.suspend(|| out::note(text));
    }

    pub(crate) fn end(self) {
        self.bar.finish_and_clear();
    }
}

/// All of these together, as a table.
pub(crate) fn table(records: &[Record]) {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, count) in records.iter().flat_map(|record| &record.counts) {
        *counts.entry(name).or_default() += count;
    }
    let events = counts.get("events").copied().unwrap_or(0);
    let simulated = counts.remove(SIMULATED).unwrap_or(0);
    for Section { name: about, counts: names } in Report::sections() {
        let taken = names.into_iter().filter_map(|(name, _)| {
            let count = counts.remove(name.as_str())?;
            Some((name, count))
        });
        columns(about, &taken.collect::<Vec<_>>());
    }
    // What an older version counted.
    let rest = counts.into_iter().map(|(name, count)| (name.to_owned(), count));
    columns("no longer counted", &rest.collect::<Vec<_>>());
    let seeds: u64 = records.iter().map(|record| record.seeds).sum();
    let seconds: f64 = records.iter().map(|record| record.seconds).sum();
    let cores: f64 = records.iter().map(|record| record.seconds * record.threads as f64).sum();
    out::line(format!(
        "\n{}, {} simulated in {}: {} events a second on each core",
        counted(seeds, "seed", "seeds"),
        span(Duration::from_secs(simulated)),
        span(Duration::from_secs_f64(seconds)),
        grouped((events as f64 / cores.max(1e-9)) as u64)
    ));
}

/// Which seeds failed.
pub(crate) fn verdict(record: &Record) {
    let failed = record.failed_count();
    let text = match failed {
        0 => "none failed".to_owned(),
        _ => format!("{} FAILED: {}", grouped(failed), seeds(&record.failed, failed)),
    };
    out::line(text);
}

/// `3, 7 and 31 more`.
pub(crate) fn seeds(named: &[u64], all: u64) -> String {
    let shown: Vec<String> = named.iter().take(FAILURES_SHOWN).map(u64::to_string).collect();
    let more = all.saturating_sub(shown.len() as u64);
    let text = shown.join(", ");
    if more == 0 { text } else { format!("{text} and {} more", grouped(more)) }
}

/// What a report calls the time that went by in it.
const SIMULATED: &str = "simulated seconds";
/// What the names of faults at moments begin with; the title of their section says it.
const STRIKES: &str = "strikes as ";
/// A table is no wider than that.
const WIDTH: usize = 120;

/// Down the first column, then down the next.
fn columns(about: &str, rows: &[(String, u64)]) {
    if rows.is_empty() {
        return;
    }
    out::line(format!("\n{about}"));
    for line in layout(rows) {
        out::line(line);
    }
}

fn layout(rows: &[(String, u64)]) -> Vec<String> {
    let rows: Vec<(&str, String)> = rows
        .iter()
        .map(|(name, count)| (name.strip_prefix(STRIKES).unwrap_or(name), grouped(*count)))
        .collect();
    let longest = |of: &dyn Fn(&(&str, String)) -> usize| rows.iter().map(of).max().unwrap_or(0);
    let (names, counts) = (longest(&|row| row.0.len()), longest(&|row| row.1.len()).max(9));
    let height = rows.len().div_ceil((WIDTH / (names + counts + 3)).max(1)).max(1);
    let line = |place| {
        let cells = rows.iter().skip(place).step_by(height);
        let cells = cells.map(|(name, count)| format!("{count:>counts$} {name:<names$}  "));
        cells.collect::<String>().trim_end().to_owned()
    };
    (0..height).map(line).collect()
}

/// What is counted, and what that means.
pub(crate) fn kinds() {
    for Section { name: about, counts } in Report::sections() {
        out::line(format!("\n{about}"));
        for (name, about) in counts {
            let name = name.strip_prefix(STRIKES).unwrap_or(&name).to_owned();
            out::line(format!("  {name:<46} {about}").trim_end());
        }
    }
}

pub(crate) fn report(seed: u64, report: &Report) {
    out::line(format!("seed {seed} survives, digest {:032x}", report.digest));
    let counts: BTreeMap<String, u64> = report.counts().into_iter().collect();
    for Section { name: about, counts: names } in Report::sections() {
        let of = |(name, _): (String, _)| (counts.get(&name).copied().unwrap_or(0), name);
        let happened = names.into_iter().map(of).filter(|(count, _)| *count > 0);
        columns(about, &happened.map(|(count, name)| (name, count)).collect::<Vec<_>>());
    }
}

pub(crate) fn failure(failure: &Failure, events: u64) {
    let Failure { seed, broken } = failure;
    out::line(format!("\nseed {seed} FAILED: {broken}"));
    out::line(format!("  its story: {}", replay(*seed, events)));
}

/// What runs a seed alone, and tells all of it.
pub(crate) fn replay(seed: u64, events: u64) -> String {
    format!("cargo run --release --example simulate -- --seed {seed} --events {events} --trace")
}

/// `1 seed`, `1,234 seeds`.
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
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
    let small = if seconds >= 1.0 { (1.0, "seconds") } else { (0.001, "ms") };
    let (unit, name) = units.into_iter().find(|(unit, _)| seconds >= *unit).unwrap_or(small);
    format!("{:.1} {name}", seconds / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_say_what_they_leave_out() {
        assert_eq!(seeds(&[3, 7], 2), "3, 7");
        assert_eq!(seeds(&[3, 7], 33), "3, 7 and 31 more");
        assert_eq!(counted(1, "seed", "seeds"), "1 seed");
        assert_eq!(counted(1_000, "seed", "seeds"), "1,000 seeds");
    }

    #[test]
    fn a_table_keeps_to_its_width_and_loses_nothing() {
        let rows: Vec<(String, u64)> = Report::default().counts();
        let lines = layout(&rows);
        assert!(lines.iter().all(|line| line.len() <= WIDTH), "{lines:#?}");
        let numbers = lines.iter().flat_map(|line| line.split(' ')).filter(|word| *word == "0");
        assert_eq!(numbers.count(), rows.len());
    }

    #[test]
    fn numbers_and_spans_are_for_people() {
        let of = [0, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(of, ["0", "999", "1,000", "1,234,567"]);
        let of = [3, 90, 7_200, 86_400 * 3, 86_400 * 3_653].map(|it| span(Duration::from_secs(it)));
        assert_eq!(of, ["3.0 seconds", "1.5 minutes", "2.0 hours", "3.0 days", "10.0 years"]);
    }
}
