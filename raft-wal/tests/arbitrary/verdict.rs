//! What an opening may do with a directory, whatever is in it.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::Arc;

use raft_core::{
    Config, Entry, HardState, Instant, LogBase, LogIndex, Node, Payload, Restored, Snapshot, Term,
    Timestamp, Write,
};
use raft_wal::sim::SimDisk;
use raft_wal::{Log, OpenError, OpenedLog, Repair, WalConfig};
use xxhash_rust::xxh3::xxh3_128;

use super::interpreter::Directory;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// Refused, and left alone.
    Refused,
    /// Opened, and goes on.
    Opened,
    /// Opened with a loss that it tells of, and goes on.
    Limping,
}

/// Opens a log as a process that the next crash or restart ends.
pub(crate) fn open(disk: &SimDisk, config: &WalConfig) -> Result<OpenedLog, OpenError> {
    Log::open(Arc::new(disk.for_this_life()), config)
}

/// Demands of an opening that it refuses and changes nothing, or gives a log that takes writes, and
/// has the same content whenever it is opened again.
pub(crate) fn judge(directory: &Directory, outcome: Result<OpenedLog, OpenError>) -> Verdict {
    let Directory { disk, config, forged } = directory;
    let opened = match outcome {
        Ok(opened) => opened,
        Err(error) => {
            // The disk is sound, so it is not to blame; whatever is wrong is in the files.
            assert!(error.is_safety_refusal(), "{error}");
            return Verdict::Refused;
        }
    };
    let restored = opened.restored;
    assert_sound(&restored, *forged);
    if let Some(snapshot) = &restored.snapshot {
        let mut content = Vec::new();
        let mut reader = opened.log.snapshots().open(snapshot.id()).unwrap().unwrap();
        reader.read_to_end(&mut content).unwrap();
        let found = (content.len() as u64, xxh3_128(&content));
        assert_eq!(found, (snapshot.length, snapshot.digest), "the content of {snapshot:?}");
    }
    let verdict = if opened.report.limping { Verdict::Limping } else { Verdict::Opened };
    let mut life = Life { disk, config, forged: *forged, log: opened.log, restored };
    life.start_again();
    life.write();
    life.start_again();
    life.scrub();
    life.snapshot();
    life.start_again();
    life.fill();
    life.start_again();
    verdict
}

/// What files hold, those aside that mean nothing and may be gone after any start.
pub(crate) fn contents(disk: &SimDisk) -> BTreeMap<String, Vec<u8>> {
    let names = disk.names().into_iter().filter(|name| !name.ends_with(".tmp"));
    names.map(|name| (name.clone(), disk.read(&name).unwrap())).collect()
}

/// Can a node start from it?
fn assert_sound(restored: &Restored, forged: bool) {
    let Restored { base, entries, snapshot, .. } = restored;
    let held = snapshot.as_ref().map_or(LogIndex(0), Snapshot::index);
    assert!(base.position.index <= held, "{base:?} without a snapshot for it, {snapshot:?}");
    let indexes = entries.iter().map(|entry| entry.index.0);
    assert!(indexes.eq((base.position.index.0..).skip(1).take(entries.len())), "a gap");
    assert!(entries.is_sorted_by_key(|entry| entry.term), "terms fall");
    let config = Config::new(raft_core::NodeId::new(1).unwrap(), 1);
    let node = Node::new(config, restored.clone(), Instant::default());
    // Forged terms and indexes may be absurd: then the node says so.
    assert!(forged || node.is_ok(), "{:?}", node.err());
}

/// A log in use, and what it must remember.
struct Life<'a> {
    disk: &'a SimDisk,
    config: &'a WalConfig,
    forged: bool,
    log: Log,
    restored: Restored,
}

impl Life<'_> {
    /// The power fails. What was there is there.
    fn start_again(&mut self) {
        self.disk.crash();
        let opened = open(self.disk, self.config).unwrap_or_else(|error| panic!("later: {error}"));
        assert!(!opened.report.limping, "{:?}: repaired once", opened.report);
        assert_eq!((opened.report.torn_bytes, opened.report.damage), (0, None));
        let Restored { base, entries, .. } = &opened.restored;
        let before = &mut self.restored;
        if before.base.position.index < base.position.index {
            let known = before.base_at(base.position.index);
            // A record that was forged may say something else of the members there.
            assert!(self.forged || known == *base, "{base:?} in place of {known:?}");
            assert_eq!(known.position, base.position);
            before.entries.retain(|entry| entry.index > base.position.index);
            before.base = base.clone();
        }
        assert_eq!(entries, &before.entries);
        assert_eq!(&opened.restored, before);
        self.log = opened.log;
    }

    fn last(&self) -> (Term, LogIndex) {
        let base = self.restored.base.position;
        let last = self.restored.entries.last().map_or(base, Entry::position);
        (last.term, last.index)
    }

    /// A vote and what a leader could make of this log.
    fn write(&mut self) {
        let (term, index) = self.last();
        let term = term.max(self.restored.hard_state.term);
        if let Some(next) = term.0.checked_add(1) {
            let vote = HardState { term: Term(next), voted_for: None };
            self.append(Some(vote), None, Vec::new());
        }
        let above_base = index > self.restored.base.position.index;
        if above_base && Some(index) > self.restored.snapshot.as_ref().map(Snapshot::index) {
            self.append(None, Some(index), Vec::new());
        }
        self.fill();
    }

    /// Entries through more than one segment, if there are numbers left for them.
    fn fill(&mut self) {
        for n in 0..12 {
            let (term, index) = self.last();
            let term = term.max(self.restored.hard_state.term);
            let Some(next) = index.0.checked_add(1) else { return };
            let payload = Payload::Command(vec![7; 300 * n].into());
            let entry = Entry { index: LogIndex(next), term, timestamp: Timestamp(next), payload };
            self.append(None, None, vec![entry]);
        }
    }

    fn append(
        &mut self,
        hard_state: Option<HardState>,
        truncate_from: Option<LogIndex>,
        entries: Vec<Entry>,
    ) {
        let Restored { hard_state: vote, entries: log, .. } = &mut self.restored;
        *vote = hard_state.unwrap_or(*vote);
        log.retain(|entry| truncate_from.is_none_or(|from| entry.index < from));
        log.extend_from_slice(&entries);
        self.log.append(&[Write::detached(hard_state, truncate_from, entries)]).unwrap();
        self.log.sync().unwrap();
    }

    /// Reads all again, and writes again what is damaged.
    fn scrub(&mut self) {
        for _ in 0..8 {
            let Some(job) = self.log.next_scrub() else { return };
            let scrubbed = job.run(|_| true).unwrap();
            let repair = self.log.scrubbed(&scrubbed).unwrap();
            assert_ne!(repair, Repair::Snapshot, "{:?}", scrubbed.damage());
            if let Repair::Entries { after } = repair {
                let entries = self.restored.entries.iter().filter(|entry| entry.index > after);
                let entries: Vec<Entry> = entries.cloned().collect();
                self.log.rewrite(&entries).unwrap();
            }
        }
    }

    /// Of all that there is, and the log before it is not needed any more.
    fn snapshot(&mut self) {
        let (_, index) = self.last();
        if Some(index) <= self.restored.snapshot.as_ref().map(Snapshot::index) {
            return;
        }
        let base = self.restored.base_at(index);
        let mut writer = self.log.snapshots().create(base.clone()).unwrap();
        writer.write(&[5; 1000]).unwrap();
        self.restored.snapshot = Some(writer.finish().unwrap());
        self.log.compact(&base).unwrap();
    }
}

trait BaseAt {
    /// What stands before the entry behind this index.
    fn base_at(&self, index: LogIndex) -> LogBase;
}

impl BaseAt for Restored {
    fn base_at(&self, index: LogIndex) -> LogBase {
        let mut base = self.base.clone();
        for entry in self.entries.iter().take_while(|entry| entry.index <= index) {
            base.position = entry.position();
            base.timestamp = Timestamp(entry.timestamp.0);
            if let Payload::Membership(membership) = &entry.payload {
                (base.membership, base.membership_index) = (membership.clone(), entry.index);
            }
        }
        base
    }
}
