//! Faults to come: what goes wrong, when, and where.

use std::ops::Bound;
use std::time::Duration;

use super::state::State;

/// What a disk is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Listing the names.
    List,
    /// Creating a file.
    Create,
    /// Opening a file that exists.
    Open,
    /// Reading from a file.
    Read,
    /// Writing into a file.
    Write,
    /// Making a file durable.
    Sync,
    /// Renaming a file.
    Rename,
    /// Removing a file.
    Remove,
    /// Making the names durable.
    SyncDirectory,
}

impl Operation {
    /// Those that change something. [`SimStats::operations`](super::SimStats::operations) counts
    /// them.
    pub const CHANGES: &[Self] =
        &[Self::Create, Self::Write, Self::Sync, Self::Rename, Self::Remove, Self::SyncDirectory];

    /// Those that change nothing.
    pub const LOOKS: &[Self] = &[Self::List, Self::Open, Self::Read];

    pub(super) fn changes(self) -> bool {
        Self::CHANGES.contains(&self)
    }
}

/// A fault to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The power fails at this operation: it may have happened in part, and every later one fails
    /// until [`SimDisk::crash`](super::SimDisk::crash).
    PowerCut,
    /// This operation, of whatever kind, fails with an I/O error. A write may have happened in
    /// part, and so may a change of a name. A failed sync writes some of what it should, drops the
    /// rest and keeps it readable, as Linux does: a second one succeeds and proves nothing.
    Error,
    /// This operation fails with [`Interrupted`](std::io::ErrorKind::Interrupted), and did nothing.
    Interrupted,
    /// From this operation on there is no space, until the life ends or somebody
    /// [makes room](super::SimDisk::make_room): everything that needs some fails. A disk of a fixed
    /// size is made by [`SimDisk::set_capacity`](super::SimDisk::set_capacity).
    Full,
    /// This operation takes so much longer, and succeeds. The time goes into
    /// [`SimDisk::take_cost`](super::SimDisk::take_cost).
    Slow(Duration),
    /// The device loses what this write brings, and tells nobody: write and sync succeed, reads
    /// return it from the cache of the system until that is forgotten, and the sectors stay what
    /// they were. Writing them again heals them. Other operations are not touched, and not counted.
    LostWrite,
    /// As [`LostWrite`](Self::LostWrite), but only one sector of the write, chosen at random.
    LostSector,
    /// As [`LostSector`](Self::LostSector), and the sector arrives at once at another place of the
    /// same file, over what was there. In a file of one sector it is just lost.
    MisplacedInFile,
    /// As [`MisplacedInFile`](Self::MisplacedInFile), in another file that has a name. If there is
    /// none with anything durable it is just lost.
    MisplacedInOther,
}

impl Fault {
    fn can_hit(self, operation: Operation) -> bool {
        match self {
            Self::LostWrite | Self::LostSector | Self::MisplacedInFile | Self::MisplacedInOther => {
                operation == Operation::Write
            }
            _ => true,
        }
    }
}

/// Which operations a fault hits: to be given to [`SimDisk::add_fault`](super::SimDisk::add_fault).
///
/// ```
/// use raft_wal::sim::{Fault, FaultRule, Operation, SimDisk};
///
/// let disk = SimDisk::new(7);
/// // The third sync of a segment fails, and one in a thousand writes of anything is lost.
/// disk.add_fault(FaultRule::new(Fault::Error).on(&[Operation::Sync]).files("segment-").after(2));
/// disk.add_fault(FaultRule::new(Fault::LostWrite).always().one_in(1000));
/// ```
#[derive(Clone, Debug)]
pub struct FaultRule {
    fault: Fault,
    operations: Vec<Operation>,
    prefix: String,
    after: u64,
    times: u64,
    one_in: u64,
    /// By [`SimDisk::inject`](super::SimDisk::inject), of which only the last one counts.
    pub(super) injected: bool,
}

impl FaultRule {
    /// Hits the next operation that changes something, once.
    #[must_use]
    pub fn new(fault: Fault) -> Self {
        Self {
            fault,
            operations: Operation::CHANGES.to_vec(),
            prefix: String::new(),
            after: 0,
            times: 1,
            one_in: 1,
            injected: false,
        }
    }

    /// Hits only operations of these kinds, which may be such that change nothing.
    #[must_use]
    pub fn on(mut self, operations: &[Operation]) -> Self {
        self.operations = operations.to_vec();
        self
    }

    /// Hits only files whose name begins so at that moment; for a rename either name will do. A
    /// list or a sync of the directory is not of a file, nor is a file without a name.
    #[must_use]
    pub fn files(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.prefix);
        self
    }

    /// So many operations that it could hit go well before. One that another rule hits does not
    /// count.
    #[must_use]
    pub fn after(mut self, operations: u64) -> Self {
        self.after = operations;
        self
    }

    /// Hits so many times, not once.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    /// Hits for as long as faults last.
    #[must_use]
    pub fn always(self) -> Self {
        self.times(u64::MAX)
    }

    /// Hits each operation that it could hit with a chance of one in `n` (0 is taken for 1).
    #[must_use]
    pub fn one_in(mut self, n: u64) -> Self {
        self.one_in = n.max(1);
        self
    }

    pub(super) fn can_hit_again(&self) -> bool {
        self.times > 0
    }

    fn matches(&self, operation: Operation, target: Target<'_>, state: &State) -> bool {
        self.fault.can_hit(operation)
            && self.operations.contains(&operation)
            && (self.prefix.is_empty()
                || match target {
                    Target::Directory => false,
                    Target::Name(name) => name.starts_with(&self.prefix),
                    Target::Names(from, to) => {
                        from.starts_with(&self.prefix) || to.starts_with(&self.prefix)
                    }
                    Target::File(file) => {
                        let from_prefix = (Bound::Included(self.prefix.as_str()), Bound::Unbounded);
                        let names = state.names.range::<str, _>(from_prefix);
                        let mut hit = names.take_while(|(name, _)| name.starts_with(&self.prefix));
                        hit.any(|(_, named)| *named == file)
                    }
                })
    }
}

/// What an operation is about.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    Directory,
    Name(&'a str),
    /// Both names of a rename.
    Names(&'a str, &'a str),
    File(u64),
}

impl State {
    /// The fault that hits this operation: of the first rule that wants to.
    pub(super) fn due(&mut self, operation: Operation, target: Target<'_>) -> Option<Fault> {
        if self.rules.is_empty() {
            return None;
        }
        let mut rules = std::mem::take(&mut self.rules);
        let mut due = None;
        for rule in &mut rules {
            if due.is_some() || !rule.matches(operation, target, self) {
                continue;
            }
            if rule.after > 0 {
                rule.after -= 1;
            } else if rule.one_in == 1 || self.next_random().is_multiple_of(rule.one_in) {
                rule.times -= 1;
                due = Some(rule.fault);
            }
        }
        rules.retain(FaultRule::can_hit_again);
        self.rules = rules;
        due
    }
}
