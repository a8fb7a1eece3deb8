//! One record of a batch: 48 bytes of header, then its payload, padded to 8 bytes.

use std::fmt;

use bytes::Bytes;
use raft_core::{
    Entry, GroupId, HardState, LogBase, LogIndex, LogPosition, Membership, NodeId, Payload, Term,
    Timestamp,
};

use super::{Aligned, put_u32, put_u64, round_up, seed, u32_at, u64_at};

/// The fixed part of every record.
pub(crate) const RECORD_HEADER_BYTES: usize = 48;

const KIND_HARD_STATE: u8 = 1;
const KIND_TRUNCATE: u8 = 2;
const KIND_NOOP: u8 = 3;
const KIND_COMMAND: u8 = 4;
const KIND_MEMBERSHIP: u8 = 5;
const KIND_SEAL: u8 = 6;
const KIND_RESET: u8 = 7;
const KIND_COMPACTED: u8 = 8;

const AT_KIND: usize = 0;
const AT_PAYLOAD_BYTES: usize = 4;
const AT_GROUP: usize = 8;
const AT_INDEX: usize = 16;
const AT_TERM: usize = 24;
const AT_TIMESTAMP: usize = 32;
const AT_PAYLOAD_CRC: usize = 40;
const AT_HEADER_CRC: usize = 44;

/// A fact in the log.
///
/// Its `Display` is the notation of [`raft_core`]: `term=3 vote=n1`, `truncate_from=5`, `5@3=command`,
/// `snapshot=8@2`, `compacted=8@2`, `sealed next=7`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The term and the vote from here on.
    HardState(HardState),
    /// The entries from this index on are gone.
    Truncate(LogIndex),
    /// The next entry.
    Entry(Entry),
    /// Nothing follows in this segment; the segment with this number does, and is durable.
    Seal(u64),
    /// A snapshot took the place of the whole log, which goes on behind this.
    Reset(LogBase),
    /// The log up to here is not needed any more, once there are snapshots enough.
    Compacted(LogBase),
}

/// Bytes of a record with a payload of this length.
pub(crate) const fn record_bytes(payload: u64) -> u64 {
    RECORD_HEADER_BYTES as u64 + round_up(payload, 8)
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HardState(HardState { term, voted_for: Some(node) }) => {
                write!(f, "term={term} vote={node}")
            }
            Self::HardState(HardState { term, voted_for: None }) => {
                write!(f, "term={term} vote=none")
            }
            Self::Truncate(from) => write!(f, "truncate_from={from}"),
            Self::Entry(entry) => write!(f, "{entry}"),
            Self::Seal(next) => write!(f, "sealed next={next}"),
            Self::Reset(LogBase { position, membership, .. }) => {
                write!(f, "snapshot={position} members={membership}")
            }
            Self::Compacted(LogBase { position, .. }) => write!(f, "compacted={position}"),
        }
    }
}

impl Record {
    pub(crate) fn is_seal(&self) -> bool {
        matches!(self, Self::Seal(_))
    }

    /// Bytes that it takes in a batch.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::HardState(_) | Self::Seal(_) => record_bytes(8),
            Self::Truncate(_) => record_bytes(0),
            Self::Entry(entry) => entry_bytes(entry),
            Self::Reset(base) | Self::Compacted(base) => base_bytes(base),
        }
    }
}

/// Bytes that a record of a base takes in a batch.
pub(crate) fn base_bytes(base: &LogBase) -> u64 {
    record_bytes(8 + membership_bytes(&base.membership) as u64)
}

/// Bytes that an entry takes in a batch.
pub(crate) fn entry_bytes(entry: &Entry) -> u64 {
    record_bytes(match &entry.payload {
        Payload::Noop => 0,
        Payload::Command(command) => command.len() as u64,
        Payload::Membership(membership) => membership_bytes(membership) as u64,
    })
}

/// The fields of a record's header, before its checksums.
struct Fields {
    kind: u8,
    index: LogIndex,
    term: Term,
    timestamp: Timestamp,
}

/// Where a record lies: what its checksums are seeded with, apart from its offset.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) salt: u64,
    pub(crate) chain: u32,
}

/// Appends a vote record; `offset` is that of the end of `out` in the segment, as in the others.
pub(crate) fn put_hard_state(
    out: &mut Vec<u8>,
    place: Place,
    offset: u64,
    group: GroupId,
    state: HardState,
) {
    let vote = state.voted_for.map_or(0, NodeId::get).to_le_bytes();
    let fields = Fields { term: state.term, ..Fields::of(KIND_HARD_STATE) };
    put(out, place, offset, group, &fields, &vote);
}

/// Appends a truncation record.
pub(crate) fn put_truncate(
    out: &mut Vec<u8>,
    place: Place,
    offset: u64,
    group: GroupId,
    from: LogIndex,
) {
    let fields = Fields { index: from, ..Fields::of(KIND_TRUNCATE) };
    put(out, place, offset, group, &fields, &[]);
}

/// Appends an entry.
pub(crate) fn put_entry(
    out: &mut Vec<u8>,
    place: Place,
    offset: u64,
    group: GroupId,
    entry: &Entry,
) {
    let Entry { index, term, timestamp, payload } = entry;
    let fields = |kind| Fields { kind, index: *index, term: *term, timestamp: *timestamp };
    match payload {
        Payload::Noop => put(out, place, offset, group, &fields(KIND_NOOP), &[]),
        Payload::Command(command) => {
            put(out, place, offset, group, &fields(KIND_COMMAND), command);
        }
        Payload::Membership(membership) => {
            let encoded = encode_membership(membership);
            put(out, place, offset, group, &fields(KIND_MEMBERSHIP), &encoded);
        }
    }
}

/// Appends the fact that a snapshot took the place of the log.
pub(crate) fn put_reset(
    out: &mut Vec<u8>,
    place: Place,
    offset: u64,
    group: GroupId,
    base: &LogBase,
) {
    put_base(out, place, offset, group, (KIND_RESET, base));
}

/// Appends the fact that the log up to a base is not needed any more.
pub(crate) fn put_compacted(
    out: &mut Vec<u8>,
    place: Place,
    offset: u64,
    group: GroupId,
    base: &LogBase,
) {
    put_base(out, place, offset, group, (KIND_COMPACTED, base));
}

fn put_base(
    out: &mut Vec<u8>,
    place: Place,
    offset: u64,
    group: GroupId,
    (kind, base): (u8, &LogBase),
) {
    let LogBase { position, timestamp, membership, membership_index } = base;
    let fields = Fields { kind, index: position.index, term: position.term, timestamp: *timestamp };
    let mut payload = membership_index.0.to_le_bytes().to_vec();
    payload.extend_from_slice(&encode_membership(membership));
    put(out, place, offset, group, &fields, &payload);
}

/// Appends a seal.
pub(crate) fn put_seal(out: &mut Vec<u8>, place: Place, offset: u64, group: GroupId, next: u64) {
    put(out, place, offset, group, &Fields::of(KIND_SEAL), &next.to_le_bytes());
}

impl Fields {
    fn of(kind: u8) -> Self {
        Self {
            kind,
            index: LogIndex::default(),
            term: Term::default(),
            timestamp: Timestamp::default(),
        }
    }
}

fn put(
    out: &mut Vec<u8>,
    place: Place,
    offset: u64,
    group: GroupId,
    fields: &Fields,
    payload: &[u8],
) {
    let seed = seed(place.salt, offset, place.chain);
    let mut aligned = Aligned([0; RECORD_HEADER_BYTES]);
    let header = &mut aligned.0;
    header[AT_KIND] = fields.kind;
    let length = u32::try_from(payload.len()).expect("the log bounds a batch far below 4 GiB");
    put_u32(header, AT_PAYLOAD_BYTES, length);
    put_u64(header, AT_GROUP, group.0);
    put_u64(header, AT_INDEX, fields.index.0);
    put_u64(header, AT_TERM, fields.term.0);
    put_u64(header, AT_TIMESTAMP, fields.timestamp.0);
    put_u32(header, AT_PAYLOAD_CRC, crc32c::crc32c_append(seed, payload));
    let crc = crc32c::crc32c_append(seed, &header[..AT_HEADER_CRC]);
    put_u32(header, AT_HEADER_CRC, crc);
    out.extend_from_slice(header);
    out.extend_from_slice(payload);
    out.resize(out.len().next_multiple_of(8), 0);
}

/// Reads the record at `at` of `body`, the plain records of a batch. `offset` is that of the record
/// in the segment. Returns it with its group and where the next one begins.
///
/// # Errors
/// What is wrong, naming the entry if the record's header still tells.
pub(crate) fn read_record(
    body: &Bytes,
    at: usize,
    place: Place,
    offset: u64,
) -> Result<(GroupId, Record, usize), String> {
    let seed = seed(place.salt, offset, place.chain);
    let rest = &body[at..];
    let Some(header) = rest.get(..RECORD_HEADER_BYTES) else {
        return Err("a record's header is cut off".to_owned());
    };
    if crc32c::crc32c_append(seed, &header[..AT_HEADER_CRC]) != u32_at(header, AT_HEADER_CRC) {
        return Err("a record's header does not match its checksum".to_owned());
    }
    let position = || format!("{}@{}", u64_at(header, AT_INDEX), u64_at(header, AT_TERM));
    let length = u32_at(header, AT_PAYLOAD_BYTES) as usize;
    // The length is compared with what is there before anything is made of it.
    if length > rest.len() - RECORD_HEADER_BYTES {
        return Err(format!("the payload of the record of {} is cut off", position()));
    }
    let start = at + RECORD_HEADER_BYTES;
    let payload = body.slice(start..start + length);
    if crc32c::crc32c_append(seed, &payload) != u32_at(header, AT_PAYLOAD_CRC) {
        let position = position();
        return Err(format!("the payload of the record of {position} does not match its checksum"));
    }
    let record = interpret(header, payload).ok_or_else(|| {
        format!("the record of {} has a valid checksum and no meaning", position())
    })?;
    let next = (start + length).next_multiple_of(8).min(body.len());
    Ok((GroupId(u64_at(header, AT_GROUP)), record, next))
}

/// What a record with valid checksums says, if anything.
fn interpret(header: &[u8], payload: Bytes) -> Option<Record> {
    let index = LogIndex(u64_at(header, AT_INDEX));
    let term = Term(u64_at(header, AT_TERM));
    let timestamp = Timestamp(u64_at(header, AT_TIMESTAMP));
    let entry = |payload| Record::Entry(Entry { index, term, timestamp, payload });
    let base = |payload: &Bytes| {
        let position = LogPosition::new(term, index);
        let membership_index = LogIndex(u64_at(payload.get(..8)?, 0));
        let membership = decode_membership(&payload[8..])?;
        Some(LogBase { position, timestamp, membership, membership_index })
    };
    match header[AT_KIND] {
        KIND_HARD_STATE if payload.len() == 8 => {
            let voted_for = NodeId::new(u64_at(&payload, 0));
            Some(Record::HardState(HardState { term, voted_for }))
        }
        KIND_TRUNCATE if payload.is_empty() => Some(Record::Truncate(index)),
        KIND_NOOP if payload.is_empty() => Some(entry(Payload::Noop)),
        KIND_COMMAND => Some(entry(Payload::Command(payload))),
        KIND_MEMBERSHIP => Some(entry(Payload::Membership(decode_membership(&payload)?))),
        KIND_SEAL if payload.len() == 8 => Some(Record::Seal(u64_at(&payload, 0))),
        KIND_RESET => Some(Record::Reset(base(&payload)?)),
        KIND_COMPACTED => Some(Record::Compacted(base(&payload)?)),
        _ => None,
    }
}

/// Bytes of an encoded membership.
pub(crate) fn membership_bytes(membership: &Membership) -> usize {
    let lists = [membership.voters(), membership.outgoing(), membership.learners()];
    16 + 8 * lists.iter().map(|list| list.len()).sum::<usize>()
}

/// A membership as bytes: three counts and a zero, then the three lists of node numbers.
pub(crate) fn encode_membership(membership: &Membership) -> Vec<u8> {
    let lists = [membership.voters(), membership.outgoing(), membership.learners()];
    let mut out = Vec::with_capacity(membership_bytes(membership));
    for list in lists {
        let count = u32::try_from(list.len()).expect("memory holds fewer than 2^32 members");
        out.extend_from_slice(&count.to_le_bytes());
    }
    out.extend_from_slice(&[0; 4]);
    for id in lists.into_iter().flatten() {
        out.extend_from_slice(&id.get().to_le_bytes());
    }
    out
}

/// The membership that these bytes, all of them, are the encoding of.
pub(crate) fn decode_membership(bytes: &[u8]) -> Option<Membership> {
    let (head, ids) = bytes.split_at_checked(16)?;
    let counts = [0, 4, 8].map(|at| u64::from(u32_at(head, at)));
    if 8 * counts.iter().sum::<u64>() != ids.len() as u64 {
        return None;
    }
    let mut ids = ids.chunks_exact(8).map(|id| NodeId::new(u64_at(id, 0)));
    let mut list = |count: u64| {
        let count = usize::try_from(count).ok()?;
        ids.by_ref().take(count).collect::<Option<Vec<NodeId>>>()
    };
    let (voters, outgoing, learners) = (list(counts[0])?, list(counts[1])?, list(counts[2])?);
    let membership = Membership::from_parts(voters, outgoing, learners).ok()?;
    // One spelling for each membership: unsorted or repeated members are not ours.
    (encode_membership(&membership) == bytes).then_some(membership)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(ids: &[u64]) -> Vec<NodeId> {
        ids.iter().map(|&id| NodeId::new(id).unwrap()).collect()
    }

    #[test]
    fn a_membership_comes_back_and_only_in_its_one_spelling() {
        let joint = Membership::from_parts(nodes(&[1, 2, 3]), nodes(&[1, 4]), nodes(&[9])).unwrap();
        let mut bytes = encode_membership(&joint);
        assert_eq!(bytes.len(), membership_bytes(&joint));
        assert_eq!(decode_membership(&bytes), Some(joint));
        bytes.swap(16, 24);
        assert_eq!(decode_membership(&bytes), None, "voters out of order");
        assert_eq!(decode_membership(&bytes[..20]), None);
        assert_eq!(decode_membership(&[0xFF; 16]), None, "counts beyond the bytes");
    }

    #[test]
    fn the_size_is_known_before_encoding() {
        let place = Place { salt: 1, chain: 2 };
        for length in [0, 1, 7, 8, 9] {
            let entry = Entry {
                index: LogIndex(1),
                term: Term(1),
                timestamp: Timestamp(0),
                payload: Payload::Command(vec![1; length].into()),
            };
            let mut out = Vec::new();
            put_entry(&mut out, place, 64, GroupId(3), &entry);
            assert_eq!(out.len() as u64, entry_bytes(&entry));
            let (group, record, next) = read_record(&out.into(), 0, place, 64).unwrap();
            assert_eq!((group, next as u64), (GroupId(3), record.bytes()));
            assert_eq!(record, Record::Entry(entry));
        }
    }

    #[test]
    fn a_record_that_is_cut_off_says_where() {
        let (place, index, term) = (Place { salt: 1, chain: 2 }, LogIndex(7), Term(3));
        let payload = Payload::Command(vec![1; 100].into());
        let entry = Entry { index, term, timestamp: Timestamp(0), payload };
        let mut out = Vec::new();
        put_entry(&mut out, place, 64, GroupId(3), &entry);
        let whole = Bytes::from(out);
        for bytes in 0..RECORD_HEADER_BYTES + 100 {
            let error = read_record(&whole.slice(..bytes), 0, place, 64).unwrap_err();
            let expected = match bytes {
                ..RECORD_HEADER_BYTES => "a record's header is cut off",
                _ => "the payload of the record of 7@3 is cut off",
            };
            assert_eq!(error, expected, "{bytes}");
        }
        // Not so the zeros that fill the last word.
        let (_, record, next) =
            read_record(&whole.slice(..RECORD_HEADER_BYTES + 100), 0, place, 64).unwrap();
        assert_eq!((record, next), (Record::Entry(entry), RECORD_HEADER_BYTES + 100));
    }

    #[test]
    fn a_record_says_no_more_than_its_kind_can() {
        let says = |kind: u8, payload: &'static [u8]| {
            let mut header = [0; RECORD_HEADER_BYTES];
            header[AT_KIND] = kind;
            interpret(&header, Bytes::from_static(payload)).is_some()
        };
        for kind in [KIND_TRUNCATE, KIND_NOOP] {
            assert!(says(kind, &[]) && !says(kind, &[0; 8]), "kind {kind}");
        }
        for kind in [KIND_HARD_STATE, KIND_SEAL] {
            assert!(says(kind, &[0; 8]) && !says(kind, &[]) && !says(kind, &[0; 16]), "{kind}");
        }
        assert!(!says(u8::MAX, &[]), "there is no such kind");
    }
}
