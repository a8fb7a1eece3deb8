//! Exactly once: replicated keys by which a repeated command is known, on any node, after any failover.
//!
//! The table is part of the replicated state. What goes, and when, is decided only by the log: by the
//! order of entries and by the leader's timestamps in them, never by a node's own clock.
//!
//! **How long a key is kept.** For at least ten minutes *and* until a million newer keys have come,
//! whichever is later; but never are there more than two million. So ten minutes hold up to about
//! 3,300 keyed writes per second, and above that the newest two million are known. At roughly
//! 200 bytes each, that bounds the table at about 400 MB. At most [`Limits::dropped_at_once`] records
//! go per new one, so that no single write pays for millions.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use raft_grpc::{LogPosition, Timestamp};

use crate::codec;
use crate::digest::Digest;
use crate::reply::Outcome;

/// The longest key, in characters, each of them one byte.
pub const KEY_CHARACTERS_MAX: usize = 128;

/// A client's name for one request: 1 to [`KEY_CHARACTERS_MAX`] printable ASCII characters, as a header
/// can carry them. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(Arc<str>);

/// Why a text cannot be an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Empty, or longer than [`KEY_CHARACTERS_MAX`].
    #[error("has {0} characters; 1 to {KEY_CHARACTERS_MAX} are allowed")]
    Length(usize),
    /// Something else than printable ASCII.
    #[error("has a character that is not printable ASCII")]
    Character,
}

impl IdempotencyKey {
    /// The key with this text.
    ///
    /// # Errors
    /// If the text breaks the rules of [`IdempotencyKey`].
    pub fn new(key: &str) -> Result<Self, KeyError> {
        if key.bytes().any(|byte| !matches!(byte, b' '..=b'~')) {
            return Err(KeyError::Character);
        }
        match key.len() {
            1..=KEY_CHARACTERS_MAX => Ok(Self(Arc::from(key))),
            characters => Err(KeyError::Length(characters)),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a command carries so that its repetitions are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// The client's name for the request.
    pub key: IdempotencyKey,
    /// What the request asked for; another one under the same key is a mistake of the client's.
    pub fingerprint: u128,
}

/// What was decided under a key, and by which entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The entry.
    pub position: LogPosition,
    /// What it did.
    pub outcome: Outcome,
}

/// What the table knows of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing: do it, then [`remember`](IdempotencyTable::remember).
    No,
    /// The same request was decided before: answer the same.
    Decided(Decision),
    /// A different request used it.
    ForAnother,
}

/// What bounds the table. Part of the replicated behaviour: the same on every node of a cluster.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// This many of the newest keys are kept, however old.
    pub kept_at_least: usize,
    /// No more than these are kept, however young.
    pub kept_at_most: usize,
    /// Between the two, a key goes when it is older than this.
    pub age: Duration,
    /// How many records one new key may push out.
    pub dropped_at_once: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            kept_at_least: 1_000_000,
            kept_at_most: 2_000_000,
            age: Duration::from_secs(600),
            dropped_at_once: 8,
        }
    }
}

/// The keys that are known, and what was decided under each.
///
/// Invariants: `by_key` has exactly the keys of `records`, each with its place there counted from the
/// first record ever; `digest` is that of `records`.
#[derive(Clone, Debug, Default)]
pub struct IdempotencyTable {
    limits: Limits,
    /// Oldest first.
    records: VecDeque<Record>,
    /// How many records have been dropped: the number of the first one that is left.
    dropped: u64,
    by_key: HashMap<IdempotencyKey, u64>,
    digest: Digest,
}

/// A key that is known.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) idempotency: Idempotency,
    /// When it was decided, by the leader's clock.
    pub(crate) timestamp: Timestamp,
    pub(crate) decision: Decision,
}

impl IdempotencyTable {
    /// An empty table with other limits than the default.
    #[must_use]
    pub fn with_limits(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// The table with these records, oldest first.
    ///
    /// # Errors
    /// If a key is there twice.
    pub(crate) fn restore(limits: Limits, records: Vec<Record>) -> Result<Self, &'static str> {
        let mut table = Self::with_limits(limits);
        for (number, record) in (0..).zip(&records) {
            if table.by_key.insert(record.idempotency.key.clone(), number).is_some() {
                return Err("an idempotency key is there twice");
            }
            table.digest.add(&record.bytes());
        }
        table.records = records.into();
        Ok(table)
    }

    /// What bounds it.
    pub(crate) const fn limits(&self) -> Limits {
        self.limits
    }

    /// All records, oldest first.
    pub(crate) fn records(&self) -> impl ExactSizeIterator<Item = &Record> {
        self.records.iter()
    }

    /// How many keys are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Is none known?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The digest of all records.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Looks up what was decided.
    #[must_use]
    pub fn look_up(&self, asked: &Idempotency) -> Known {
        let record = self.by_key.get(&asked.key).and_then(|number| {
            let place = usize::try_from(number - self.dropped).ok()?;
            self.records.get(place)
        });
        match record {
            None => Known::No,
            Some(record) if record.idempotency.fingerprint == asked.fingerprint => {
                Known::Decided(record.decision)
            }
            Some(_) => Known::ForAnother,
        }
    }

    /// Keeps what was decided at `timestamp` under a key that was not known, and lets old ones go.
    ///
    /// # Panics
    /// If the key is known, which would be a bug of the caller's.
    pub fn remember(&mut self, idempotency: Idempotency, timestamp: Timestamp, decision: Decision) {
        let number = self.dropped + self.records.len() as u64;
        let known = self.by_key.insert(idempotency.key.clone(), number);
        assert!(known.is_none(), "a key is looked up before it is remembered");
        let record = Record { idempotency, timestamp, decision };
        self.digest.add(&record.bytes());
        self.records.push_back(record);
        for _ in 0..self.limits.dropped_at_once {
            if !self.oldest_may_go(timestamp) {
                break;
            }
            self.drop_oldest();
        }
    }

    fn oldest_may_go(&self, now: Timestamp) -> bool {
        let Some(oldest) = self.records.front() else {
            return false;
        };
        let age = Duration::from_millis(now.0.saturating_sub(oldest.timestamp.0));
        let len = self.records.len();
        len > self.limits.kept_at_most || len > self.limits.kept_at_least && age > self.limits.age
    }

    fn drop_oldest(&mut self) {
        if let Some(record) = self.records.pop_front() {
            self.digest.remove(&record.bytes());
            self.by_key.remove(&record.idempotency.key);
            self.dropped += 1;
        }
    }
}

impl Record {
    /// What is hashed into the digest: `k`, key, fingerprint, timestamp, term, index, outcome.
    fn bytes(&self) -> Vec<u8> {
        let Self { idempotency, timestamp, decision } = self;
        let mut bytes = Vec::with_capacity(256);
        bytes.push(b'k');
        codec::put_short_text(&mut bytes, idempotency.key.as_str());
        bytes.extend_from_slice(&idempotency.fingerprint.to_le_bytes());
        bytes.extend_from_slice(&timestamp.0.to_le_bytes());
        bytes.extend_from_slice(&decision.position.term.0.to_le_bytes());
        bytes.extend_from_slice(&decision.position.index.0.to_le_bytes());
        decision.outcome.put(&mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use raft_grpc::{LogIndex, Term};

    use super::*;

    const LIMITS: Limits = Limits {
        kept_at_least: 5,
        kept_at_most: 12,
        age: Duration::from_millis(100),
        dropped_at_once: 2,
    };

    fn idempotency(key: u64, fingerprint: u128) -> Idempotency {
        Idempotency { key: IdempotencyKey::new(&format!("k{key}")).unwrap(), fingerprint }
    }

    fn decision(index: u64) -> Decision {
        let position = LogPosition::new(Term(1), LogIndex(index));
        Decision { position, outcome: Outcome::UnknownBoard }
    }

    #[test]
    fn keys_are_short_and_printable() {
        assert!(IdempotencyKey::new(&"k".repeat(128)).is_ok());
        assert_eq!(IdempotencyKey::new(&"k".repeat(129)), Err(KeyError::Length(129)));
        assert_eq!(IdempotencyKey::new(""), Err(KeyError::Length(0)));
        assert_eq!(IdempotencyKey::new("a\tb"), Err(KeyError::Character));
        assert_eq!(IdempotencyKey::new("ä"), Err(KeyError::Character));
    }

    #[test]
    fn the_same_request_is_answered_the_same_and_another_is_not() {
        let mut table = IdempotencyTable::default();
        assert_eq!(table.look_up(&idempotency(1, 7)), Known::No);
        table.remember(idempotency(1, 7), Timestamp(5), decision(3));
        assert_eq!(table.look_up(&idempotency(1, 7)), Known::Decided(decision(3)));
        assert_eq!(table.look_up(&idempotency(1, 8)), Known::ForAnother);
        assert_eq!(table.look_up(&idempotency(2, 7)), Known::No);
    }

    #[test]
    fn the_default_keeps_what_the_documentation_promises() {
        let Limits { kept_at_least, kept_at_most, age, .. } = Limits::default();
        assert!(kept_at_least >= 1_000_000 && kept_at_most > kept_at_least);
        assert_eq!(age, Duration::from_secs(600));
    }

    proptest! {
        /// Against the rule in its plainest form: the list of all records ever, of which a suffix is
        /// kept.
        #[test]
        fn keeps_what_the_limits_say(steps in prop::collection::vec(0_u64..60, 1..80)) {
            let mut table = IdempotencyTable::with_limits(LIMITS);
            let mut times: Vec<u64> = Vec::new();
            let mut first = 0;
            let mut now = 0;
            for (number, step) in (0..).zip(steps) {
                now += step;
                times.push(now);
                table.remember(idempotency(number, 1), Timestamp(now), decision(number));
                for _ in 0..LIMITS.dropped_at_once {
                    let kept = times.len() - first;
                    let old = now - times[first] > 100;
                    if kept > LIMITS.kept_at_most || (kept > LIMITS.kept_at_least && old) {
                        first += 1;
                    }
                }
                prop_assert_eq!(table.len(), times.len() - first);
                prop_assert!(table.len() <= LIMITS.kept_at_most);
                for (number, _) in (0_u64..).zip(&times) {
                    let known = table.look_up(&idempotency(number, 1)) != Known::No;
                    prop_assert_eq!(known, number >= first as u64);
                }
            }
            while !table.is_empty() {
                table.drop_oldest();
            }
            prop_assert_eq!(table.digest(), Digest::default());
            prop_assert!(table.by_key.is_empty());
        }
    }
}
