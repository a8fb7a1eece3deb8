//! The log, put together record by record from segments that follow each other.

use raft_core::{Entry, GroupId, LogBase, LogIndex, LogPosition};

use crate::format::record::Record;
use crate::recovery::scan::Scan;
use crate::state::LogState;

/// What a run of segments amounts to.
pub(crate) struct Replay {
    pub(crate) state: LogState,
    /// What `entries` stand on.
    pub(crate) base: LogBase,
    pub(crate) entries: Vec<Entry>,
    /// The segment in which a snapshot took the place of the log, counted from the first: those before
    /// it mean nothing any more.
    pub(crate) reset_in: Option<usize>,
    /// Which segments the log could begin with, as far as they themselves go: what their headers stand
    /// on was not cut off later, and no snapshot took its place.
    pub(crate) beginnings: Vec<bool>,
    /// Up to where the log was not needed any more.
    compacted: Option<LogBase>,
}

/// Why segments that follow each other amount to nothing.
pub(crate) enum Unsound {
    /// The first one cannot be the beginning: a later record cuts off entries before it.
    NoBeginning,
    /// A batch contradicts what stands before it.
    Contradiction(Contradiction),
}

/// A batch that contradicts what stands before it.
pub(crate) struct Contradiction {
    /// The segment, counted from the first of the run.
    pub(crate) segment: usize,
    /// The batch in it, or `None` for the header.
    pub(crate) batch: Option<usize>,
    pub(crate) what: String,
}

impl Replay {
    /// Of segments that follow each other; `None` if there are none with a header.
    pub(crate) fn of(run: &[Scan]) -> Result<Option<Self>, Unsound> {
        let Some(first) = run.first().and_then(|scan| scan.header.as_ref()) else {
            return Ok(None);
        };
        let mut replay = Self {
            state: LogState::at_start_of(first),
            base: first.base.clone(),
            entries: Vec::new(),
            reset_in: None,
            beginnings: Vec::new(),
            compacted: None,
        };
        let (is_first, first_index) = (first.previous.is_none(), first.base.position.index);
        for (segment, scan) in run.iter().enumerate() {
            let Some(header) = &scan.header else { break };
            // The first one continues itself.
            if !replay.state.enter(header) {
                let what = "its header contradicts the segments before it".to_owned();
                let found = Contradiction { segment, batch: None, what };
                return Err(Unsound::Contradiction(found));
            }
            replay.beginnings.push(true);
            for (batch, scanned) in scan.batches.iter().enumerate() {
                for (group, record) in &scanned.records {
                    match record {
                        Record::Reset(_) => {
                            replay.reset_in = Some(segment);
                            replay.beginnings.fill(false);
                        }
                        Record::Truncate(from) => {
                            if !is_first && replay.reset_in.is_none() && *from <= first_index {
                                return Err(Unsound::NoBeginning);
                            }
                            for (beginning, scan) in replay.beginnings.iter_mut().zip(run) {
                                let base = scan.header.as_ref().map(|it| it.base.position.index);
                                *beginning &= base.is_none_or(|base| base < *from);
                            }
                        }
                        _ => {}
                    }
                    replay.take(*group, record).map_err(|what| {
                        let what = format!("a batch contradicts the log before it: {what}");
                        Unsound::Contradiction(Contradiction { segment, batch: Some(batch), what })
                    })?;
                }
                if replay.state.outcome() != scanned.outcome {
                    let what = "a batch leaves something else behind than it says".to_owned();
                    let found = Contradiction { segment, batch: Some(batch), what };
                    return Err(Unsound::Contradiction(found));
                }
            }
        }
        Ok(Some(replay))
    }

    fn take(&mut self, group: GroupId, record: &Record) -> Result<(), String> {
        if let Record::Compacted(base) = record {
            return self.compact(group, base);
        }
        self.state.apply_record(group, record)?;
        match record {
            Record::Truncate(from) => {
                if self.compacted.as_ref().is_some_and(|it| it.position.index >= *from) {
                    return Err(format!("a truncation from {from} of what was compacted"));
                }
                let kept = self.entries.partition_point(|entry| entry.index < *from);
                self.entries.truncate(kept);
            }
            Record::Entry(entry) => self.entries.push(entry.clone()),
            Record::Reset(base) => {
                self.base = base.clone();
                self.entries.clear();
                self.compacted = None;
            }
            Record::Compacted(_) | Record::HardState(_) | Record::Seal(_) => {}
        }
        Ok(())
    }

    /// What was compacted is remembered for now: whether the snapshot that stood for it is still whole
    /// is not known here.
    fn compact(&mut self, group: GroupId, base: &LogBase) -> Result<(), String> {
        self.state.join_group(group)?;
        let index = base.position.index;
        let is_more = self.compacted.as_ref().is_none_or(|it| it.position.index < index);
        if is_more && self.state.can_compact(base)? {
            self.compacted = Some(base.clone());
        }
        Ok(())
    }

    /// Is this entry in the log, or what it stands on?
    pub(crate) fn contains(&self, position: LogPosition) -> bool {
        self.position_at(position.index) == Some(position)
    }

    fn position_at(&self, index: LogIndex) -> Option<LogPosition> {
        let base = self.base.position;
        let above = index.0.checked_sub(base.index.0)?;
        let Some(slot) = above.checked_sub(1) else { return Some(base) };
        self.entries.get(usize::try_from(slot).ok()?).map(Entry::position)
    }

    /// Forgets what was compacted, if the snapshot that stands for it goes so far: up to this index.
    pub(crate) fn forget_compacted(&mut self, snapshot: LogIndex) -> Result<(), String> {
        let Some(compacted) = self.compacted.take_if(|it| it.position.index <= snapshot) else {
            return Ok(());
        };
        self.state.compact(&compacted)?;
        let dropped = self.entries.partition_point(|entry| entry.index <= compacted.position.index);
        self.entries.drain(..dropped);
        self.base = compacted;
        Ok(())
    }
}
