//! What clients asked and were told, and whether one state machine without failures would have told them
//! the same.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use raft_core::{Entry, LogIndex, LogPosition, Payload};

use crate::machine::{StateMachine, Words, Workload};
use crate::reference::apply_entry;

/// All operations of a run, in the order in which they began.
#[derive(Clone, Debug, Default)]
pub struct History {
    operations: Vec<Record>,
    /// Whose command each entry carries that was ever proposed.
    proposed: BTreeMap<LogPosition, usize>,
    /// The highest index that any client was told.
    told: LogIndex,
}

/// One operation of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Who asked.
    pub client: u64,
    /// Which of the client's operations it is.
    pub number: u64,
    /// What was asked.
    pub request: Request,
    /// When it was asked first: the number of the event. Of two events the later one has the higher
    /// number, and nothing else happens within one.
    pub called: u64,
    /// How it ended.
    pub end: End,
    /// Which entry decided about it, if one did, and the response: known when the run is over, also of
    /// what no client was told.
    pub decided: Option<(LogIndex, Bytes)>,
    /// The highest index that any client had been told by then.
    told: LogIndex,
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// A command for the log.
    Write {
        /// Its bytes.
        command: Bytes,
        /// Is it tried again even if it may have been applied?
        repeatable: bool,
    },
    /// A question.
    Read {
        /// Its bytes.
        query: Bytes,
        /// How fresh the answer must be.
        how: Freshness,
    },
}

/// What a read must reflect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Freshness {
    /// Everything that was acknowledged to anyone before it began.
    Linearizable,
    /// The same, by a leader's lease where there is one.
    Lease,
    /// The log up to this index.
    AtLeast(LogIndex),
    /// Whatever the node has.
    Stale,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The client never heard: it may have happened, or not, or happen yet.
    Open,
    /// The client was told that it did not happen, and gave up.
    Refused {
        /// In which event.
        at: u64,
    },
    /// It was done.
    Answered {
        /// In which event the client heard of it.
        at: u64,
        /// For a write its entry; for a read the last entry that the machine reflected.
        position: LogPosition,
        /// What the machine said.
        response: Bytes,
    },
}

impl History {
    /// All operations, in the order in which they began.
    #[must_use]
    pub fn operations(&self) -> &[Record] {
        &self.operations
    }

    pub(crate) fn begin(
        &mut self,
        (client, number): (u64, u64),
        request: Request,
        called: u64,
    ) -> usize {
        let (end, told) = (End::Open, self.told);
        let record = Record { client, number, request, called, end, decided: None, told };
        self.operations.push(record);
        self.operations.len() - 1
    }

    pub(crate) fn propose(&mut self, position: LogPosition, operation: usize) {
        let before = self.proposed.insert(position, operation);
        assert_eq!(before, None, "two entries at {position}");
    }

    pub(crate) fn end(&mut self, operation: usize, end: End) {
        if let End::Answered { position, .. } = &end {
            self.told = self.told.max(position.index);
        }
        self.operations[operation].end = end;
    }

    pub(crate) fn operation(&self, operation: usize) -> &Record {
        &self.operations[operation]
    }

    /// Replays everything that was committed on a fresh machine, and demands that every answer is the one
    /// that it gives; that every acknowledged write is there, and none counts twice; and that nothing
    /// happened before it was asked, or reflects less than it must.
    pub(crate) fn check<W: Workload>(&mut self, workload: &W, committed: &[Entry]) {
        let mut machine = workload.machine();
        let mut decided = vec![None; self.operations.len()];
        let mut answered = self.answered();
        let first = answered.remove(&LogIndex(0));
        self.check_answers(workload, &machine, first, (LogPosition::ZERO, None));
        for entry in committed {
            let response = apply_entry(&mut machine, entry);
            if let (Payload::Command(command), Some(response)) = (&entry.payload, &response) {
                let proposed = self.proposed.get(&entry.position());
                let operation = *proposed.unwrap_or_else(|| panic!("nobody proposed {entry}"));
                self.check_entry(workload, operation, entry.index, command);
                if workload.decides(command, response) {
                    let before = decided[operation].replace((entry.index, response.clone()));
                    if let Some((first, _)) = before {
                        let what = self.operations[operation].told(workload);
                        panic!("counted at {first}, and again at {}: {what}", entry.index);
                    }
                }
            }
            let answered = answered.remove(&entry.index);
            let chosen = (entry.position(), response.as_ref());
            self.check_answers(workload, &machine, answered, chosen);
        }
        if let Some((index, _)) = answered.pop_first() {
            panic!("somebody was told of {index}, which is not committed");
        }
        for (record, decided) in self.operations.iter_mut().zip(decided) {
            record.decided = decided;
            if let Err(why) = record.check_moment() {
                panic!("{why}: {}", record.told(workload));
            }
        }
        if let Err(why) = workload.check(self) {
            panic!("Workload::check objects: {why}");
        }
    }

    /// Which operations were answered at each index.
    fn answered(&self) -> BTreeMap<LogIndex, Vec<usize>> {
        let mut answered: BTreeMap<LogIndex, Vec<usize>> = BTreeMap::new();
        for (number, record) in self.operations.iter().enumerate() {
            if let End::Answered { position, .. } = record.end {
                answered.entry(position.index).or_default().push(number);
            }
        }
        answered
    }

    /// An entry carries what its operation asked, and that was not said to be in no log.
    fn check_entry(
        &self,
        workload: &impl Workload,
        operation: usize,
        index: LogIndex,
        committed: &Bytes,
    ) {
        let record = &self.operations[operation];
        let Request::Write { command, .. } = &record.request else {
            panic!("a read is in the log at {index}: {}", record.told(workload));
        };
        if command != committed {
            let committed = workload.describe(Words::Command(committed));
            panic!(
                "the log has another command at {index}, {committed}: {}",
                record.told(workload)
            );
        }
        let refused = matches!(record.end, End::Refused { .. });
        assert!(!refused, "refused, and committed at {index}: {}", record.told(workload));
    }

    /// What was answered as of this entry, to which the machine of the replay has just given this response.
    fn check_answers(
        &self,
        workload: &impl Workload,
        machine: &impl StateMachine,
        operations: Option<Vec<usize>>,
        (chosen, applied): (LogPosition, Option<&Bytes>),
    ) {
        for operation in operations.unwrap_or_default() {
            let record = &self.operations[operation];
            let told = || record.told(workload);
            let End::Answered { position, response, .. } = &record.end else { continue };
            if *position != chosen {
                panic!(
                    "an answer as of {position}, but it is {chosen} that is committed: {}",
                    told()
                );
            }
            let differs = |what: &str, expected: Option<Words<'_>>| {
                let expected = expected
                    .map_or_else(|| "nothing".to_owned(), |expected| workload.describe(expected));
                panic!(
                    "a {what} was answered otherwise than in the replay: {}\n  \
                     the replay answers: {expected}\nThe replay is one machine that applied the \
                     committed log once, in order, after the run.",
                    told()
                );
            };
            match &record.request {
                Request::Write { .. } => {
                    if self.proposed.get(&chosen) != Some(&operation) {
                        panic!("a write was answered with the entry of another: {}", told());
                    }
                    if Some(response) != applied {
                        differs("write", applied.map(Words::Response));
                    }
                }
                Request::Read { query, .. } => {
                    let expected = machine.query(query);
                    if *response != expected {
                        differs("read", Some(Words::Answer(&expected)));
                    }
                }
            }
        }
    }
}

impl Request {
    /// `write "add 3"`, `read, linearizable, "total"`.
    pub(crate) fn told(&self, workload: &impl Workload) -> String {
        match self {
            Self::Write { command, .. } => {
                format!("write {}", workload.describe(Words::Command(command)))
            }
            Self::Read { query, how } => {
                format!("read, {how}, {}", workload.describe(Words::Query(query)))
            }
        }
    }

    /// What was answered to this.
    pub(crate) fn answer<'a>(&self, response: &'a Bytes) -> Words<'a> {
        match self {
            Self::Write { .. } => Words::Response(response),
            Self::Read { .. } => Words::Answer(response),
        }
    }
}

impl fmt::Display for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linearizable => f.write_str("linearizable"),
            Self::Lease => f.write_str("by lease"),
            Self::AtLeast(index) => write!(f, "at {index} or later"),
            Self::Stale => f.write_str("stale"),
        }
    }
}

impl Record {
    /// What was asked, and what came of it, below each other.
    fn told(&self, workload: &impl Workload) -> String {
        let Self { client, number, request, .. } = self;
        let end = match &self.end {
            End::Open => "was told nothing".to_owned(),
            End::Refused { .. } => "was told that it did not happen".to_owned(),
            End::Answered { position, response, .. } => {
                let response = workload.describe(request.answer(response));
                format!("was told {response} as of {position}")
            }
        };
        let called = self.called;
        let asked = request.told(workload);
        format!("c{client}#{number}\n  in event {called} it asked: {asked}\n  it {end}")
    }

    /// Nothing happens before it was asked; an answer reflects what it must.
    fn check_moment(&self) -> Result<(), String> {
        let decided = self.decided.as_ref().map(|(index, _)| *index);
        if let Some(index) = decided
            && index <= self.told
        {
            let told = self.told;
            return Err(format!(
                "counted at {index}, before it was asked, when somebody had been told of {told}"
            ));
        }
        let End::Answered { position: LogPosition { index, .. }, .. } = self.end else {
            return Ok(());
        };
        let least = match self.request {
            Request::Write { .. } => match decided {
                Some(index) => index,
                None => return Err("acknowledged, and never decided".to_owned()),
            },
            Request::Read { how, .. } => match how {
                Freshness::Linearizable | Freshness::Lease => self.told,
                Freshness::AtLeast(least) => least,
                Freshness::Stale => LogIndex(0),
            },
        };
        if index < least {
            return Err(format!("a stale answer: it is as of {index}, not {least}"));
        }
        Ok(())
    }
}
