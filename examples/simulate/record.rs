//! Results of campaigns that accumulate in a file: a line of JSON for each piece of one.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use raft_sim::campaign::{Campaign, Outcome};
use serde::{Deserialize, Serialize};

/// Which seeds were run, and what happened in them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// When it ended, in seconds since 1970.
    pub(crate) unix_time: u64,
    /// Of which code, if git can tell; with `-dirty` if something was not committed.
    pub(crate) commit: Option<String>,
    pub(crate) first_seed: u64,
    pub(crate) seeds: u64,
    pub(crate) events_per_seed: u64,
    /// The first few of the seeds that failed.
    pub(crate) failed: Vec<u64>,
    /// How many failed. Records from before it was kept have none: it is as many as are named then.
    #[serde(default)]
    pub(crate) failed_count: Option<u64>,
    pub(crate) seconds: f64,
    pub(crate) threads: u64,
    /// All that was counted, by name.
    pub(crate) counts: BTreeMap<String, u64>,
}

const FAILED_MAX: usize = 20;

/// Longer than any campaign takes, in seconds.
const YEARS: f64 = 1e9;

impl Record {
    pub(crate) fn new(campaign: &Campaign, outcome: &Outcome) -> Self {
        Self {
            unix_time: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            commit: commit(),
            first_seed: campaign.first_seed,
            seeds: outcome.seeds,
            events_per_seed: campaign.events,
            failed: outcome.failures.iter().map(|it| it.seed).take(FAILED_MAX).collect(),
            failed_count: Some(outcome.failures.len() as u64),
            seconds: outcome.elapsed.as_secs_f64(),
            threads: campaign.threads as u64,
            counts: outcome.report.counts().into_iter().collect(),
        }
    }

    pub(crate) fn failed_count(&self) -> u64 {
        self.failed_count.unwrap_or(0).max(self.failed.len() as u64)
    }
}

/// The commit of the directory that this was built from, as it was when the first piece was done.
fn commit() -> Option<String> {
    static COMMIT: OnceLock<Option<String>> = OnceLock::new();
    let find = || {
        let git = |arguments: &[&str]| {
            let mut command = Command::new("git");
            command.args(["-C", env!("CARGO_MANIFEST_DIR")]).args(arguments);
            let output = command.output().ok()?;
            let text = String::from_utf8(output.stdout).ok()?;
            output.status.success().then(|| text.trim().to_owned())
        };
        let commit = git(&["rev-parse", "--short", "HEAD"])?;
        let changes = git(&["status", "--porcelain", "--untracked-files=no"])?;
        Some(if changes.is_empty() { commit } else { format!("{commit}-dirty") })
    };
    COMMIT.get_or_init(find).clone()
}

/// Can it be appended to? Only if it is empty, or campaigns are in it and nothing else.
pub(crate) fn check(file: &Path) -> Result<(), String> {
    commit(); // Of the code as it is now, not as it is after an hour of somebody's editing.
    if file.metadata().is_ok_and(|about| about.len() > 0) {
        read(file)?;
    }
    open(file).map(drop).map_err(|error| format!("{}: {error}", file.display()))
}

fn open(file: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).open(file)
}

/// Appends these, and takes out what was appended.
pub(crate) fn append(file: &Path, records: &mut Vec<Record>) -> Result<(), String> {
    while let Some(record) = records.first() {
        append_one(file, record).map_err(|error| format!("{}: {error}", file.display()))?;
        records.remove(0);
    }
    Ok(())
}

fn append_one(file: &Path, record: &Record) -> io::Result<()> {
    let mut opened = open(file)?;
    let mut text = String::new();
    if opened.metadata()?.len() > 0 {
        // Behind a line that was torn when a machine or a disk failed, on a line of its own.
        let mut last = [0];
        opened.seek(SeekFrom::End(-1))?;
        opened.read_exact(&mut last)?;
        text.push_str(if last == [b'\n'] { "" } else { "\n" });
    }
    text.push_str(&serde_json::to_string(record)?);
    text.push('\n');
    opened.write_all(text.as_bytes())?;
    opened.sync_data()
}

/// All records of a file, and what had to be left out.
pub(crate) fn read(file: &Path) -> Result<(Vec<Record>, Vec<String>), String> {
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let opened = File::open(file).map_err(|error| at(&error))?;
    let (mut records, mut warnings) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(BufReader::new(opened).split(b'\n')) {
        let line = line.map_err(|error| at(&error))?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice::<Record>(&line) {
            Ok(record) if (0.0..YEARS).contains(&record.seconds) => records.push(record),
            Ok(Record { seconds, .. }) => {
                let why = format_args!("line {number} is no campaign: it took {seconds} seconds");
                return Err(at(&why));
            }
            // It was being written when something failed. Whatever else it is was never ours.
            Err(error) if error.is_eof() => {
                warnings.push(at(&format_args!("line {number} is torn, and left out")));
            }
            Err(error) => {
                return Err(at(&format_args!("line {number} is no campaign: {error}")));
            }
        }
    }
    if records.is_empty() {
        return Err(at(&"there is no campaign in it"));
    }
    Ok((records, warnings))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use raft_sim::campaign::{Broken, Failure};
    use raft_sim::simulation::Report;

    use super::*;

    /// Of these seeds, of which the first so many failed.
    pub(crate) fn record(first_seed: u64, seeds: u64, failed: u64) -> Record {
        let broken = Broken { message: String::new(), place: String::new() };
        let failure = |seed| Failure { seed, broken: broken.clone() };
        let outcome = Outcome {
            seeds,
            report: Report { events: seeds, ..Report::default() },
            failures: (first_seed..).take(usize::try_from(failed).unwrap()).map(failure).collect(),
            elapsed: Duration::from_secs(1),
        };
        let record = Record::new(&Campaign::new(first_seed, seeds, 10), &outcome);
        Record { commit: Some("abc".to_owned()), ..record }
    }

    #[test]
    fn failures_are_named_up_to_a_bound_and_all_counted() {
        let line = serde_json::to_string(&record(1, 100, 33)).unwrap();
        let again: Record = serde_json::from_str(&line).unwrap();
        assert_eq!((again.failed.len(), again.failed_count()), (FAILED_MAX, 33));
        // As they were before the count was kept.
        let old = line.replace(",\"failed_count\":33", "");
        assert_ne!(old, line);
        let old: Record = serde_json::from_str(&old).unwrap();
        assert_eq!(old.failed_count(), 20);
    }

    #[test]
    fn a_torn_line_costs_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("results.jsonl");
        append(&file, &mut vec![record(1, 10, 0), record(11, 10, 0)]).unwrap();
        let whole = std::fs::read(&file).unwrap();
        std::fs::write(&file, &whole[..whole.len() - 20]).unwrap();
        append(&file, &mut vec![record(21, 10, 0)]).unwrap();
        let (records, warnings) = read(&file).unwrap();
        let first: Vec<u64> = records.iter().map(|record| record.first_seed).collect();
        assert_eq!(first, [1, 21]);
        assert!(warnings.len() == 1 && warnings[0].contains("line 2"), "{warnings:?}");
    }

    #[test]
    fn what_is_no_campaign_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("results.jsonl");
        for (text, why) in [("", "no campaign in it"), ("\n", "no campaign"), ("# A\n", "line 1")] {
            std::fs::write(&file, text).unwrap();
            assert!(read(&file).unwrap_err().contains(why), "{text:?}");
        }
        check(&file).expect_err("somebody else's file");
        let never = Record { seconds: -1e300, ..record(1, 10, 0) };
        std::fs::write(&file, serde_json::to_string(&never).unwrap()).unwrap();
        assert!(read(&file).unwrap_err().contains("it took"));
    }
}
