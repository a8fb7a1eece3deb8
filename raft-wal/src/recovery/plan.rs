//! What an opening decides about what it finds, before it changes anything.
//!
//! The segments form *runs*: each continues the one before it without a fault. If the last run reaches
//! the end of the log, and back to the beginning or to a snapshot, everything is there, whatever happened
//! to what lies before it. Otherwise something that was durable is lost, and the node can only come back
//! *limping*: with the vote, with what is still whole, and with a mark of how far its log may have gone.

use std::ops::Range;

use raft_core::{
    Entry, GroupId, HardState, Incarnation, LogBase, LogIndex, Membership, Payload, Restored,
    Snapshot,
};

use crate::config::WalConfig;
use crate::disk::Disk;
use crate::error::OpenError;
use crate::format::batch::Outcome;
use crate::format::header::{Repairs, SegmentHeader};
use crate::format::record::Record;
use crate::identity::Stored;
use crate::recovery::findings::Findings;
use crate::recovery::replay::Replay;
use crate::recovery::scan::{Scan, ScannedBatch};
use crate::recovery::{Damage, RecoveryReport};
use crate::snapshots::{SnapshotFiles, is_snapshot, snapshot_name};
use crate::state::LogState;

/// What has to be written again before anything new.
pub(crate) struct Tail {
    /// The header of the segment that the tail is in, with the number for the one that replaces it.
    pub(crate) header: SegmentHeader,
    /// What stands behind it, without seals and markers.
    pub(crate) batches: Vec<TailBatch>,
}

/// A batch to be written again.
pub(crate) struct TailBatch {
    /// What it leaves behind.
    pub(crate) outcome: Outcome,
    pub(crate) records: Vec<(GroupId, Record)>,
}

/// A segment that is not written to any more.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) name: String,
    pub(crate) header: SegmentHeader,
    /// Could the log begin with what its header stands on? Not if that was cut off later, or if a
    /// snapshot took its place.
    pub(crate) is_beginning: bool,
}

/// The log that goes on.
pub(crate) struct Continued {
    /// The log as of its end.
    pub(crate) state: LogState,
    pub(crate) tail: Tail,
    /// Could the log begin with the tail?
    pub(crate) tail_is_beginning: bool,
    /// The segments before the tail, in order.
    pub(crate) sealed: Vec<Sealed>,
}

impl Continued {
    /// One that begins with this header, and holds nothing.
    fn behind(header: SegmentHeader) -> Self {
        Self {
            state: LogState::at_start_of(&header),
            tail: Tail { header, batches: Vec::new() },
            tail_is_beginning: true,
            sealed: Vec::new(),
        }
    }
}

/// What an opening will do.
pub(crate) struct Plan {
    pub(crate) restored: Restored,
    pub(crate) log: Continued,
    /// Whole snapshots, the newest last.
    pub(crate) held: Vec<Snapshot>,
    /// This one stands for what is about to be put aside or removed, and may owe its name to a directory
    /// sync that failed.
    pub(crate) unsure: Option<Snapshot>,
    /// On a disk without room for that, these files stay where they are, and the next start decides the same
    /// again; `None` if it cannot go on without.
    pub(crate) may_stay: Option<Vec<String>>,
    /// Files that mean nothing any more.
    pub(crate) obsolete: Vec<String>,
    /// Damaged files, to be kept aside.
    pub(crate) broken: Vec<String>,
    /// The segment that the tail was read from; one of the two lists above has it too.
    pub(crate) rewritten: Option<String>,
    pub(crate) report: RecoveryReport,
}

/// Decides about a directory whose identity is known.
///
/// # Errors
/// If it must not be opened, see [`OpenError`].
pub(crate) fn plan(
    disk: &dyn Disk,
    config: &WalConfig,
    stored: &Stored,
    names: &[String],
) -> Result<Plan, OpenError> {
    match Findings::read(disk, config, stored, names)? {
        Some(findings) => findings.decide(),
        None => create(config, stored, names),
    }
}

/// A log that holds nothing yet.
pub(crate) fn create(
    config: &WalConfig,
    stored: &Stored,
    names: &[String],
) -> Result<Plan, OpenError> {
    // There are no snapshots before there is a segment.
    if stored.established || !SnapshotFiles::among(names).is_empty() {
        let what = "all segments are missing";
        return Err(OpenError::corrupt("the directory", 0, what));
    }
    let base = LogBase::initial(config.membership.clone());
    let header = SegmentHeader {
        salt: 0,
        directory: stored.identity.incarnation,
        id: 1,
        file_bytes: 0,
        first_id: 1,
        previous: None,
        hard_state: HardState::default(),
        base,
        repairs: Repairs { incarnation: config.first_incarnation, ..Repairs::default() },
    };
    Ok(Plan {
        restored: Restored {
            incarnation: config.first_incarnation,
            ..Restored::empty(config.membership.clone())
        },
        log: Continued::behind(header),
        held: Vec::new(),
        unsure: None,
        may_stay: None,
        obsolete: Vec::new(),
        broken: Vec::new(),
        rewritten: None,
        report: RecoveryReport { created: true, ..RecoveryReport::default() },
    })
}

impl Findings<'_> {
    /// What an opening will do about it.
    ///
    /// # Errors
    /// If it must not be opened, see [`OpenError`].
    pub(crate) fn decide(mut self) -> Result<Plan, OpenError> {
        self.report.torn_bytes = self.scans.iter().map(|scan| scan.torn_bytes).sum();
        let run = self.runs.last().cloned().unwrap_or_default();
        let end = self.end_of_log()?;
        self.compare_terms(end.hard_state)?;
        let whole = self.scans.last().is_some_and(|scan| scan.fault.is_none());
        if let Some(Some(replay)) = self.replays.last().filter(|_| whole) {
            match self.covering(replay) {
                Covering::Whole => {
                    self.pass_over(self.snapshots.len());
                    return self.go_on(run, None);
                }
                Covering::By(n) => {
                    let snapshot = self.snapshots[n].clone();
                    self.pass_over(n);
                    return self.go_on(run, Some(snapshot));
                }
                Covering::Instead => {
                    let snapshot = self.snapshots[0].clone();
                    let repairs = replay.state.repairs();
                    let group = replay.state.group();
                    return Ok(self.begin_behind(snapshot, end.hard_state, repairs, group));
                }
                Covering::Nothing => {}
            }
        }
        self.repair(end)
    }

    /// The vote, and how far the log went. They are all that a node must know to come back.
    fn end_of_log(&self) -> Result<Outcome, OpenError> {
        let last = self.scans.last().unwrap_or_else(|| unreachable!("there are segments"));
        let lost = |damage: &Damage| {
            let Damage { file, offset, what } = damage;
            let what = format!("{what}; with it this node's last vote may be lost");
            OpenError::corrupt(file, *offset, what)
        };
        if let Some(next) = last.sealed_for {
            let what = format!("segment {next}, which follows it, is missing");
            let (file, offset) = (last.file.name.clone(), last.link.end);
            return Err(lost(&Damage { file, offset, what }));
        }
        match &last.fault {
            Some(damage) => last.surviving.ok_or_else(|| lost(damage)),
            None => Ok(last.outcome()),
        }
    }

    /// A snapshot is of what was durable, so it has no later term than the vote. If it has, an older
    /// log was put in place of the one that it belongs to.
    fn compare_terms(&self, vote: HardState) -> Result<(), OpenError> {
        let later = |snapshot: &&Snapshot| snapshot.base.position.term > vote.term;
        let (Some(scan), Some(snapshot)) = (self.scans.last(), self.snapshots.iter().find(later))
        else {
            return Ok(());
        };
        let (snapshot, vote) = (snapshot.base.position.term, vote.term);
        let what = format!(
            "its last vote is of term {vote}, and there is a snapshot of term {snapshot}: a later \
             vote is lost"
        );
        Err(OpenError::corrupt(&scan.file.name, 0, what))
    }

    /// What makes a log that reaches to its end complete?
    fn covering(&self, replay: &Replay) -> Covering {
        let base = replay.base.position.index;
        for (n, snapshot) in self.snapshots.iter().enumerate() {
            if replay.contains(snapshot.base.position) {
                return Covering::By(n);
            }
            // It was installed in place of the log, or cut before the log was durable; what the log
            // holds besides was never committed.
            if n == 0 && self.newest_whole && snapshot.index() > base {
                return Covering::Instead;
            }
        }
        if base == LogIndex(0) { Covering::Whole } else { Covering::Nothing }
    }

    /// The newest of the whole snapshots are not of this log. They must not be taken to be at the next
    /// start, when what made them doubtful is out of the way.
    fn pass_over(&mut self, count: usize) {
        for snapshot in self.snapshots.drain(..count) {
            self.report.snapshots_damaged += 1;
            self.broken.push(snapshot_name(snapshot.base.position));
        }
    }

    /// Everything is there: goes on behind the last run.
    fn go_on(mut self, run: Range<usize>, snapshot: Option<Snapshot>) -> Result<Plan, OpenError> {
        let replay = self.replays.pop().flatten();
        let replay = replay.unwrap_or_else(|| unreachable!("the last run was judged by it"));
        self.finish(run, replay, snapshot, None)
    }

    /// Nothing of the segments is needed: the log begins anew behind a snapshot.
    fn begin_behind(
        mut self,
        snapshot: Snapshot,
        hard_state: HardState,
        repairs: Repairs,
        group: GroupId,
    ) -> Plan {
        let header = self.new_header(snapshot.base.clone(), hard_state, repairs);
        let mut log = Continued::behind(header);
        log.state.join(group);
        let restored = Restored {
            hard_state,
            incarnation: repairs.incarnation,
            lost: repairs.lost,
            base: snapshot.base.clone(),
            entries: Vec::new(),
            snapshot: Some(snapshot),
        };
        self.mark_dropped(&(0..0), None);
        Plan {
            restored,
            log,
            unsure: self.snapshots.first().cloned(),
            may_stay: None,
            held: self.snapshots.into_iter().rev().collect(),
            obsolete: self.obsolete,
            broken: self.broken,
            rewritten: None,
            report: self.report,
        }
    }

    /// The header of a segment that takes the place of all that are there.
    fn new_header(&self, base: LogBase, hard_state: HardState, repairs: Repairs) -> SegmentHeader {
        let directory = self.scans.iter().find_map(|scan| scan.header.as_ref());
        SegmentHeader {
            salt: 0,
            directory: directory.map_or(0, |header| header.directory),
            id: self.next_id(),
            file_bytes: 0,
            first_id: self.scans.iter().map(Scan::first_id).min().unwrap_or(1),
            previous: None,
            hard_state,
            base,
            repairs,
        }
    }

    fn next_id(&self) -> u64 {
        // Drawn one by one from 1: the end is never reached.
        self.scans.last().map_or(1, |scan| scan.file.id.saturating_add(1))
    }

    /// Segments outside of `kept` go; the damaged ones are kept aside, and so are whole ones if entries
    /// in them are lost that no other node has. Nothing is lost with the one that is `rewritten`.
    fn mark_dropped(&mut self, kept: &Range<usize>, rewritten: Option<usize>) {
        let nobody_has_it = self.report.limping && self.is_sole_voter();
        for (n, scan) in self.scans.iter().enumerate() {
            if kept.contains(&n) {
                continue;
            }
            let lost = nobody_has_it && rewritten != Some(n) && !scan.untouched;
            let aside = scan.fault.is_some() || lost;
            let list = if aside { &mut self.broken } else { &mut self.obsolete };
            list.push(scan.file.name.clone());
        }
    }

    /// Something that was durable is lost. The node comes back limping with what is whole, if others
    /// have the rest.
    fn repair(mut self, end: Outcome) -> Result<Plan, OpenError> {
        let snapshot = self.snapshots.first().cloned();
        let usable = |replay: &Replay| match &snapshot {
            Some(snapshot) => replay.contains(snapshot.base.position),
            None => replay.base.position.index == LogIndex(0),
        };
        let replays = std::mem::take(&mut self.replays);
        let mut runs = self.runs.iter().cloned().zip(replays).rev();
        let prefix = runs.find_map(|(run, replay)| Some((run, replay.filter(usable)?)));
        drop(runs);
        let damage = self.damage(prefix.as_ref().map(|(run, _)| run));
        let before = self.last_header().map(|header| header.repairs).unwrap_or_default();
        let kept = match (&prefix, &snapshot) {
            (Some((_, replay)), _) => Some(replay.state.last()),
            (None, snapshot) => snapshot.as_ref().map(|snapshot| snapshot.base.position),
        };
        let nothing_lost = kept == Some(end.last);
        let mut repairs = before;
        if !nothing_lost {
            let sole = self.is_sole_voter();
            if sole && !self.config.accept_data_loss {
                return Err(OpenError::nobody_to_ask(&damage.file, damage.offset, damage.what));
            }
            repairs.incarnation = Incarnation(before.incarnation.0.saturating_add(1));
            if !sole {
                repairs.lost = before.lost.max(end.last);
            }
        }
        self.report.limping = !nothing_lost;
        self.report.damage = Some(damage);
        Ok(match (prefix, snapshot) {
            (Some((run, replay)), snapshot) => {
                self.finish(run, replay, snapshot, Some((end, repairs)))?
            }
            (None, Some(snapshot)) => {
                self.begin_behind(snapshot, end.hard_state, repairs, GroupId::default())
            }
            (None, None) => {
                let base = LogBase::initial(self.config.membership.clone());
                let nothing = Snapshot { base, length: 0, digest: 0 };
                let group = GroupId::default();
                let mut plan = self.begin_behind(nothing, end.hard_state, repairs, group);
                plan.restored.snapshot = None;
                plan
            }
        })
    }

    /// The damage that ends what is kept, for the message.
    fn damage(&self, prefix: Option<&Range<usize>>) -> Damage {
        let last = self.scans.last();
        let run = prefix.and_then(|prefix| self.runs.iter().position(|run| run == prefix));
        let at_end = || last.and_then(|scan| scan.fault.clone());
        let missing = || Damage {
            file: self.scans.first().map(|scan| scan.file.name.clone()).unwrap_or_default(),
            offset: 0,
            what: "the segments before it are missing, and no whole snapshot stands for them"
                .to_owned(),
        };
        match run {
            Some(run) => self.breaks.get(run).cloned().or_else(at_end),
            None => self.breaks.last().cloned().or_else(at_end),
        }
        .unwrap_or_else(missing)
    }

    fn last_header(&self) -> Option<&SegmentHeader> {
        self.scans.last().and_then(|scan| scan.header.as_ref())
    }

    /// Is there nobody else who could have what is lost here?
    fn is_sole_voter(&self) -> bool {
        let mut membership = match self.last_header() {
            Some(header) => header.base.membership.clone(),
            None => self.config.membership.clone(),
        };
        let batches = self.scans.last().map_or(&[][..], |scan| &scan.batches);
        for (_, record) in batches.iter().flat_map(|batch| &batch.records) {
            match record {
                Record::Entry(Entry { payload: Payload::Membership(new), .. }) => {
                    membership = new.clone();
                }
                Record::Reset(base) => membership = base.membership.clone(),
                _ => {}
            }
        }
        is_sole_voter(&membership, self.config)
    }

    /// Does a run stand on the newest snapshot alone, once this opening has put aside or removed what
    /// else there was? If nothing of that kind goes, whoever was here before has made sure of it.
    fn relies_on_snapshot(&self, run: &Range<usize>, replay: &Replay) -> bool {
        let segments_go = self.scans[..run.start].iter().any(|scan| !scan.untouched);
        let snapshots_go = self.judged.len() > self.snapshots.len();
        replay.base.position.index > LogIndex(0) && (segments_go || snapshots_go)
    }

    /// The plan that keeps a run, and writes its last segment again. After damage it also writes down
    /// how the log had ended.
    fn finish(
        mut self,
        run: Range<usize>,
        mut replay: Replay,
        snapshot: Option<Snapshot>,
        repaired: Option<(Outcome, Repairs)>,
    ) -> Result<Plan, OpenError> {
        let id = self.next_id();
        let unsure = snapshot.clone().filter(|_| self.relies_on_snapshot(&run, &replay));
        let goes_up_to = snapshot.as_ref().map_or(LogIndex(0), Snapshot::index);
        let forgotten = replay.forget_compacted(goes_up_to);
        forgotten.map_err(|what| OpenError::corrupt("the log", 0, what))?;
        // A successor that holds nothing was being prepared when the last run ended. Whether the
        // seal before it ever became durable is unknown: the tail is the one before.
        let untouched = self.scans[run.end - 1].untouched;
        let tail = if untouched && run.len() > 1 { run.end - 2 } else { run.end - 1 };
        let first = tail.min(run.start + replay.reset_in.unwrap_or_default());
        self.mark_dropped(&(first..tail), Some(tail));
        let segments = self.scans[..run.start].iter().map(|scan| scan.file.name.clone());
        let files = self.obsolete.iter().chain(&self.broken);
        let snapshots = files.filter(|name| is_snapshot(name)).cloned();
        let stand_behind: Vec<String> = segments.chain(snapshots).collect();
        let mut state = replay.state.clone();
        let scan = &mut self.scans[tail];
        let rewritten = Some(scan.file.name.clone());
        let batches = std::mem::take(&mut scan.batches);
        let batches = batches.into_iter().map(|batch| {
            let ScannedBatch { offset: _, outcome, records } = batch;
            TailBatch { outcome, records }
        });
        let mut batches: Vec<_> = batches.collect();
        let header = scan.header.clone();
        let mut header = header.unwrap_or_else(|| unreachable!("a run has headers"));
        header.id = id;
        // Not those of the tail's own header: a repair may have been written down behind it.
        let repairs = repaired.map_or(state.repairs(), |(_, repairs)| repairs);
        header.repairs = repairs;
        state.set_repairs(repairs);
        if let Some((end, _)) = repaired
            && state.hard_state() != end.hard_state
        {
            let (group, record) = (state.group(), Record::HardState(end.hard_state));
            state.apply_record(group, &record).map_err(|what| {
                OpenError::corrupt(&scan.file.name, 0, format!("behind the damage {what}"))
            })?;
            let records = vec![(group, record)];
            batches.push(TailBatch { outcome: state.outcome(), records });
        }
        let hard_state = state.hard_state();
        let beginnings = &replay.beginnings;
        let is_beginning = |scan: usize| beginnings.get(scan - run.start) == Some(&true);
        let tail_is_beginning = is_beginning(tail);
        let sealed = (first..tail).filter_map(|n| {
            let (name, header) = (self.scans[n].file.name.clone(), self.scans[n].header.clone()?);
            Some(Sealed { name, header, is_beginning: is_beginning(n) })
        });
        let sealed: Vec<_> = sealed.collect();
        let Replay { base, entries, .. } = replay;
        Ok(Plan {
            restored: Restored {
                hard_state,
                incarnation: repairs.incarnation,
                lost: repairs.lost,
                base,
                entries,
                snapshot,
            },
            log: Continued { state, tail: Tail { header, batches }, tail_is_beginning, sealed },
            held: self.snapshots.into_iter().rev().collect(),
            unsure,
            may_stay: repaired.is_none().then_some(stand_behind),
            obsolete: self.obsolete,
            broken: self.broken,
            rewritten,
            report: self.report,
        })
    }
}

/// What completes a log whose end is whole.
enum Covering {
    /// It begins at its beginning.
    Whole,
    /// The snapshot with this number, which lies in it.
    By(usize),
    /// The newest snapshot, which takes its place.
    Instead,
    /// Something is missing before it.
    Nothing,
}

fn is_sole_voter(membership: &Membership, config: &WalConfig) -> bool {
    membership.outgoing().is_empty() && membership.voters() == [config.node]
}
