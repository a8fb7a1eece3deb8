//! A campaign, in pieces that are kept in a file as they are done: who kills it loses little.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use raft_sim::campaign::{Campaign, Outcome};
use raft_sim::simulation::Report;

use crate::interrupt::{EXIT_CODE, Interrupt};
use crate::record::{self, Record};
use crate::{code, out, run, screen};

/// What is done is appended this often.
const PIECE: Duration = Duration::from_secs(120);

/// Runs a campaign, with progress, and tells what came of it.
pub(crate) fn run(campaign: &Campaign, file: Option<&Path>) -> Result<ExitCode, String> {
    if let Some(file) = file {
        record::check(file)?; // Not only after hours.
    }
    let piece_max = if file.is_some() { PIECE } else { Duration::MAX };
    let interrupt = Interrupt::stops(&campaign.stop);
    let (outcome, unsaved) = in_pieces(campaign, file, piece_max);
    interrupt.let_it_end();
    let record = Record::new(campaign, &outcome);
    screen::table(std::slice::from_ref(&record));
    screen::verdict(&record);
    for failure in outcome.failures.iter().take(screen::FAILURES_SHOWN) {
        screen::failure(failure, campaign.events);
    }
    if let Some(more) = outcome.failures.len().checked_sub(screen::FAILURES_SHOWN + 1) {
        out::line(format!("and {} more", more + 1));
    }
    if interrupt.seen() {
        let left = campaign.seeds - outcome.seeds;
        out::line(format!(
            "interrupted: {} not run",
            screen::counted(left, "seed was", "seeds were")
        ));
    } else if let Some(first) = outcome.failures.first() {
        run::tell_in_short(first.seed, campaign.events, Some(&first.broken));
    }
    if let Some(error) = unsaved {
        return Err(format!("not appended: {error}"));
    }
    let interrupted = interrupt.seen() && outcome.failures.is_empty();
    Ok(if interrupted { ExitCode::from(EXIT_CODE) } else { code(outcome.failures.is_empty()) })
}

/// All of a campaign, and why its last pieces could not be appended, if they could not.
fn in_pieces(
    campaign: &Campaign,
    file: Option<&Path>,
    piece_max: Duration,
) -> (Outcome, Option<String>) {
    let progress = screen::Progress::new(campaign);
    let (report, failures) = (Report::default(), Vec::new());
    let mut all = Outcome { seeds: 0, report, failures, elapsed: Duration::ZERO };
    let mut unsaved: Vec<Record> = Vec::new();
    let mut error = None;
    while all.seeds < campaign.seeds && !campaign.stop.load(Ordering::Relaxed) {
        let piece = Campaign {
            first_seed: campaign.first_seed + all.seeds,
            seeds: campaign.seeds - all.seeds,
            // Of its own: a piece that ends is not the end of all.
            stop: Arc::default(),
            ..campaign.clone()
        };
        let started = Instant::now();
        let outcome = piece.run(run::run, |now| {
            let over = started.elapsed() >= piece_max || campaign.stop.load(Ordering::Relaxed);
            piece.stop.fetch_or(over, Ordering::Relaxed);
            progress.show(&all, now);
        });
        let failed = !outcome.failures.is_empty();
        if let Some(file) = file
            && outcome.seeds > 0
        {
            unsaved.push(Record::new(&piece, &outcome));
            error = record::append(file, &mut unsaved).err();
            if let Some(error) = &error {
                progress.note(&format!("not appended yet: {error}"));
            }
        }
        all.add(outcome);
        if failed && campaign.stop_at_first {
            break;
        }
    }
    progress.end();
    (all, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_are_the_whole() {
        let directory = tempfile::tempdir().expect("a directory for a moment");
        let file = directory.path().join("results.jsonl");
        let campaign = Campaign { threads: 2, ..Campaign::new(5, 6, 50) };
        let (outcome, error) = in_pieces(&campaign, Some(&file), Duration::ZERO);
        assert_eq!((outcome.seeds, error), (6, None));
        let (records, warnings) = record::read(&file).expect("what was appended");
        assert!(records.len() > 1 && warnings.is_empty(), "{} pieces", records.len());
        let mut next = 5;
        for record in &records {
            assert_eq!(record.first_seed, next);
            next += record.seeds;
        }
        assert_eq!(next, 11);
        let events: u64 = records.iter().map(|record| record.counts["events"]).sum();
        let (whole, _) = in_pieces(&campaign, None, Duration::MAX);
        assert_eq!(events, whole.report.events);
        assert_eq!(outcome.report, whole.report);
    }

    #[test]
    fn whoever_stops_it_stops_all_pieces() {
        let campaign = Campaign { threads: 1, ..Campaign::new(1, 1_000, 50) };
        campaign.stop.store(true, Ordering::Relaxed);
        let (outcome, _) = in_pieces(&campaign, None, Duration::MAX);
        assert_eq!(outcome.seeds, 0);
    }
}
