//! Results of campaigns that accumulate in a file: a line of JSON for each.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use raft_sim::campaign::{Campaign, Outcome};
use serde::{Deserialize, Serialize};

/// What a campaign ran, and what happened in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// When it ended, in seconds since 1970.
    pub(crate) unix_time: u64,
    /// Of which code, if git can tell; with a `+` if something was not committed.
    pub(crate) commit: Option<String>,
    pub(crate) first_seed: u64,
    pub(crate) seeds: u64,
    pub(crate) events_per_seed: u64,
    /// The first few of the seeds that failed.
    pub(crate) failed: Vec<u64>,
    pub(crate) seconds: f64,
    pub(crate) threads: u64,
    /// All that was counted, by name.
    pub(crate) counts: BTreeMap<String, u64>,
}

const FAILED_MAX: usize = 20;

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
            seconds: outcome.elapsed.as_secs_f64(),
            threads: campaign.threads as u64,
            counts: outcome.report.counts().into_iter().collect(),
        }
    }
}

/// The commit that this was built from, as far as the directory tells.
fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    let changes = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changes.is_empty() { commit } else { format!("{commit}+") })
}

/// Can it be appended to?
pub(crate) fn check(file: &Path) -> Result<(), String> {
    open(file).map(drop)
}

fn open(file: &Path) -> Result<File, String> {
    let opened = OpenOptions::new().append(true).create(true).open(file);
    opened.map_err(|error| format!("{}: {error}", file.display()))
}

pub(crate) fn append(file: &Path, record: &Record) -> Result<(), String> {
    let mut line = serde_json::to_string(record).map_err(|error| error.to_string())?;
    line.push('\n');
    let written = open(file)?.write_all(line.as_bytes());
    written.map_err(|error| format!("{}: {error}", file.display()))
}

/// All campaigns of a file.
pub(crate) fn total(file: &Path) -> Result<Vec<Record>, String> {
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let opened = File::open(file).map_err(|error| at(&error))?;
    let mut records = Vec::new();
    for (number, line) in (1..).zip(BufReader::new(opened).lines()) {
        let line = line.map_err(|error| at(&error))?;
        let record = serde_json::from_str(&line)
            .map_err(|error| at(&format_args!("line {number} is no campaign: {error}")))?;
        records.push(record);
    }
    Ok(records)
}
