//! How a segment is judged by itself, and by the one before it.

use raft_core::{HardState, LogBase, Membership, NodeId, Term};

use super::*;
use crate::format::batch::{Encoder, Frame};
use crate::format::header::Repairs;
use crate::sim::SimDisk;

const DIRECTORY: u128 = 9;
const FILE_BYTES: u64 = 4 * 4096;

fn header(id: u64) -> SegmentHeader {
    SegmentHeader {
        salt: 70 + id,
        directory: DIRECTORY,
        id,
        file_bytes: FILE_BYTES,
        first_id: id,
        previous: None,
        hard_state: HardState::default(),
        base: LogBase::initial(Membership::new(NodeId::new(1)).unwrap()),
        repairs: Repairs::default(),
    }
}

fn file(id: u64) -> SegmentFile {
    segment_files(&[segment_name(LogIndex(0), id)]).unwrap().remove(0)
}

fn vote(term: u64) -> Record {
    Record::HardState(HardState { term: Term(term), voted_for: NodeId::new(1) })
}

/// A segment of these batches, as if each had been synced.
fn segment(header: &SegmentHeader, batches: &[&[Record]]) -> Vec<u8> {
    let mut content = header.encode();
    let (mut chain, mut buffer) = (header.chain(), Vec::new());
    let mut outcome = Outcome { hard_state: header.hard_state, last: header.base.position };
    for (sequence, records) in batches.iter().enumerate() {
        let offset = content.len() as u64;
        let frame = Frame {
            salt: header.salt,
            segment: header.id,
            offset,
            sequence: sequence as u64,
            previous_chain: chain,
            durable_offset: offset,
        };
        let mut encoder = Encoder::new(&mut buffer, frame);
        for record in *records {
            if let Record::HardState(state) = record {
                outcome.hard_state = *state;
            }
            encoder.record(GroupId::default(), record);
        }
        chain = encoder.finish(outcome);
        content.extend_from_slice(&buffer);
    }
    content.resize(header.file_bytes as usize, 0);
    content
}

fn scan(header: &SegmentHeader, content: Vec<u8>) -> Scan {
    let disk = SimDisk::new(1);
    let file = file(header.id);
    disk.put(&file.name, content);
    Scan::read(&disk, file, DIRECTORY).unwrap()
}

#[test]
fn a_segment_ends_with_its_seal() {
    let header = header(1);
    let (data, seal) = (header.bytes(), header.bytes() + 512);
    let whole = segment(&header, &[&[vote(1)], &[Record::Seal(2)]]);
    let sealed = scan(&header, whole.clone());
    assert_eq!((sealed.bytes, sealed.fault.as_ref()), (FILE_BYTES, None));
    assert_eq!((sealed.link.end, sealed.sealed_for, sealed.batches.len()), (seal, Some(2), 1));

    let fault = |scan: &Scan| {
        assert_eq!(scan.torn_bytes, 0);
        let fault = scan.fault.clone().unwrap();
        assert_eq!(fault.file, scan.file.name);
        (fault.offset, fault.what)
    };
    // Something that would be a torn write if the log went on here.
    let mut garbage = whole;
    garbage[seal as usize + 1024..][..512].fill(0x5A);
    let torn = fault(&scan(&header, garbage));
    assert_eq!(torn, (seal + 512, "something stands behind the seal".to_owned()));
    let behind = scan(&header, segment(&header, &[&[Record::Seal(2)], &[vote(1)]]));
    assert_eq!(fault(&behind), (data + 512, "a batch stands behind the seal".to_owned()));
    for records in [[vote(1), Record::Seal(2)], [Record::Seal(2), vote(1)]] {
        let among = scan(&header, segment(&header, &[&records]));
        assert_eq!(fault(&among), (data, "a seal stands among other records".to_owned()));
        assert_eq!((among.sealed_for, among.batches.len()), (None, 0));
    }
}

#[test]
fn a_segment_has_the_length_and_the_name_that_it_says() {
    let header = header(3);
    let content = segment(&header, &[&[vote(1)]]);
    let what = |header: &SegmentHeader, content| {
        let scan = scan(header, content);
        assert_eq!(scan.batches.len(), 0);
        scan.fault.unwrap().what
    };
    for length in [content.len() - 4096, content.len() + 4096] {
        let mut other = content.clone();
        other.resize(length, 0);
        assert_eq!(what(&header, other), "its length changed");
    }
    let other = SegmentHeader { id: 4, ..header.clone() };
    assert_eq!(what(&other, content.clone()), "it is not the segment that its name says");
    let other = SegmentHeader { directory: 8, ..header.clone() };
    let elsewhere = segment(&other, &[&[vote(1)]]);
    assert_eq!(what(&other, elsewhere), "it belongs to another directory");
}

/// What a segment says of the one before it, and that one of its successor.
#[test]
fn segments_continue_each_other_or_not() {
    let first = header(1);
    let sealed = |next| scan(&first, segment(&first, &[&[vote(1)], &[Record::Seal(next)]]));
    let end = sealed(2).link;
    let successor = |id, first_id, previous, batches: &[&[Record]]| {
        let vote = HardState { term: Term(1), voted_for: NodeId::new(1) };
        let header = SegmentHeader { first_id, previous, hard_state: vote, ..header(id) };
        scan(&header, segment(&header, batches))
    };
    let data: &[&[Record]] = &[&[vote(2)]];
    let next = |id, first_id| successor(id, first_id, Some(end), data);
    let verdict = |scan: &Scan, previous: &Scan, is_last| {
        scan.break_behind(previous, is_last).map(|it| (it.file, it.offset, it.what))
    };
    let (here, before) = (|id| file(id).name, file(1).name);

    assert_eq!(verdict(&next(2, 2), &sealed(2), true), None);
    assert_eq!(verdict(&next(4, 2), &sealed(2), false), None, "a copy of what was number 2 to 4");
    assert_eq!(verdict(&next(4, 2), &sealed(4), false), None);
    let missing =
        |id, next| (here(id), 0, format!("segment {next} should stand before it, and is missing"));
    assert_eq!(verdict(&next(4, 3), &sealed(2), true), Some(missing(4, 2)));
    assert_eq!(verdict(&next(2, 2), &sealed(3), true), Some(missing(2, 3)));

    // Without a seal only the very last one may follow, as long as it holds nothing.
    let unsealed = scan(&first, segment(&first, &[&[vote(1)]]));
    let prepared = successor(2, 2, Some(end), &[]);
    let gone = Some((
        before.clone(),
        end.end,
        "its seal is gone, and a later segment holds data".to_owned(),
    ));
    assert_eq!(verdict(&prepared, &unsealed, true), None);
    assert_eq!(verdict(&prepared, &unsealed, false), gone);
    assert_eq!(verdict(&next(2, 2), &unsealed, true), gone);

    let longer = Link { end: end.end + 512, ..end };
    let what = format!(
        "its data do not end as the next segment, number 2, says: at offset {}",
        longer.end
    );
    let shorter = verdict(&successor(2, 2, Some(longer), data), &sealed(2), true);
    assert_eq!(shorter, Some((before, end.end, what)));
    for previous in [None, Some(Link { id: 7, ..end })] {
        let other = verdict(&successor(9, 9, previous, data), &sealed(2), true);
        assert_eq!(other, Some((here(9), 0, "the segment before it is missing".to_owned())));
    }
}
