//! What an opening finds: segments, how they fit together, and snapshots.

use std::ops::Range;

use raft_core::Snapshot;

use crate::config::WalConfig;
use crate::disk::Disk;
use crate::error::OpenError;
use crate::identity::Stored;
use crate::recovery::replay::{Contradiction, Replay, Unsound};
use crate::recovery::scan::{Scan, segment_files, take_replaced};
use crate::recovery::together::scan_all;
use crate::recovery::{Damage, RecoveryReport};
use crate::snapshots::{JudgedSnapshot, SnapshotFiles};

/// What was read.
pub(crate) struct Findings<'a> {
    pub(super) config: &'a WalConfig,
    pub(super) scans: Vec<Scan>,
    /// In the order of the scans, without gaps; the last one ends with the last scan.
    pub(super) runs: Vec<Range<usize>>,
    /// What ends each run but the last.
    pub(super) breaks: Vec<Damage>,
    /// What each run amounts to, if anything.
    pub(super) replays: Vec<Option<Replay>>,
    /// All snapshot files, the newest first.
    pub(super) judged: Vec<JudgedSnapshot>,
    /// Whole snapshots, the newest first.
    pub(super) snapshots: Vec<Snapshot>,
    /// Is the newest snapshot file whole?
    pub(super) newest_whole: bool,
    pub(super) obsolete: Vec<String>,
    pub(super) broken: Vec<String>,
    pub(super) report: RecoveryReport,
}

impl<'a> Findings<'a> {
    /// Reads everything; `None` if there is no segment.
    ///
    /// # Errors
    /// If something cannot be read, or another version wrote it. Damage is no error here.
    pub(crate) fn read(
        disk: &dyn Disk,
        config: &'a WalConfig,
        stored: &Stored,
        names: &[String],
    ) -> Result<Option<Self>, OpenError> {
        let directory = stored.identity.incarnation;
        let mut files = segment_files(names)?;
        if files.is_empty() {
            return Ok(None);
        }
        let replaced = take_replaced(disk, directory, &mut files)?;
        let mut report = RecoveryReport::default();
        let scans = scan_all(disk, files, directory)?;
        for scan in &scans {
            report.segments += 1;
            report.bytes += scan.bytes;
            report.header_copies_damaged += u64::from(scan.copy_damaged);
        }
        let mut findings = Findings {
            config,
            scans,
            runs: Vec::new(),
            breaks: Vec::new(),
            replays: Vec::new(),
            judged: Vec::new(),
            snapshots: Vec::new(),
            newest_whole: true,
            obsolete: replaced,
            broken: Vec::new(),
            report,
        };
        findings.judge_snapshots(disk, directory, names)?;
        findings.find_runs();
        Ok(Some(findings))
    }

    /// The segments that count, in the order of their numbers, as far as each could be read and fits
    /// those before it.
    pub(crate) fn scans(&self) -> &[Scan] {
        &self.scans
    }

    /// The segments that count no longer, because one that does is a copy of them.
    pub(crate) fn obsolete(&self) -> &[String] {
        &self.obsolete
    }

    /// The snapshot files, the newest first.
    pub(crate) fn judged(&self) -> &[JudgedSnapshot] {
        &self.judged
    }

    /// Every place in the segments that is not as it was written, needed or not.
    pub(crate) fn damages(&self) -> Vec<Damage> {
        let mut damages: Vec<Damage> =
            self.scans.iter().filter_map(|scan| scan.fault.clone()).collect();
        for damage in &self.breaks {
            if !damages.contains(damage) {
                damages.push(damage.clone());
            }
        }
        damages
    }

    /// Reads the snapshots from the newest on, until two are whole.
    fn judge_snapshots(
        &mut self,
        disk: &dyn Disk,
        directory: u128,
        names: &[String],
    ) -> Result<(), OpenError> {
        let mut files = SnapshotFiles::among(names);
        let mut first = true;
        while let Some(judged) = files.next(disk, directory)? {
            let JudgedSnapshot { name, content } = judged.clone();
            match content {
                Ok(_) if self.snapshots.len() == 2 => self.obsolete.push(name),
                Ok(snapshot) => self.snapshots.push(snapshot),
                Err(what) => {
                    tracing::error!(file = name, what, "a snapshot is damaged");
                    self.newest_whole &= !first;
                    self.report.snapshots_damaged += 1;
                    self.broken.push(name);
                }
            }
            self.judged.push(judged);
            first = false;
        }
        Ok(())
    }

    /// Splits the segments into runs. A batch that contradicts what stands before it is a fault like
    /// any other, and makes the runs be looked for anew.
    fn find_runs(&mut self) {
        loop {
            self.split();
            let Err((start, Contradiction { segment, batch, what })) = self.replay() else {
                return;
            };
            let scan = &mut self.scans[start + segment];
            match batch {
                None => {
                    scan.set_fault(0, what);
                    scan.header = None;
                    scan.batches.clear();
                }
                Some(batch) => {
                    let offset = scan.batches[batch].offset;
                    scan.batches.truncate(batch);
                    scan.set_fault(offset, what);
                }
            }
            scan.surviving = None;
        }
    }

    /// Replays all runs, up to a contradiction in the one that begins at a scan. What a run cannot
    /// begin with is left out of it.
    fn replay(&mut self) -> Result<(), (usize, Contradiction)> {
        self.replays.clear();
        for run in &mut self.runs {
            let replay = loop {
                match Replay::of(&self.scans[run.clone()]) {
                    Ok(replay) => break replay,
                    Err(Unsound::NoBeginning) => run.start += 1,
                    Err(Unsound::Contradiction(found)) => return Err((run.start, found)),
                }
            };
            self.replays.push(replay);
        }
        Ok(())
    }

    fn split(&mut self) {
        self.runs.clear();
        self.breaks.clear();
        let mut start = 0;
        let last = self.scans.len() - 1;
        for here in 1..=last {
            let [previous, scan] = [&self.scans[here - 1], &self.scans[here]];
            if let Some(damage) = scan.break_behind(previous, here == last) {
                self.runs.push(start..here);
                self.breaks.push(damage);
                start = here;
            }
        }
        self.runs.push(start..last + 1);
    }
}
