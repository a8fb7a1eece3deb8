//! A log belongs to one group of nodes, whatever happens to it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use raft_core::{
    Config, GroupId, Input, Instant, LogBase, LogIndex, LogPosition, Node, Output, Restored, Term,
    Timestamp, Write,
};
use raft_wal::sim::SimDisk;
use raft_wal::{Log, OpenedLog, WalConfig, WalError};
use support::{command, config, members, node};

fn open(disk: &SimDisk) -> OpenedLog {
    let config = WalConfig { membership: members(&[1]), ..config() };
    Log::open(Arc::new(disk.for_this_life()), &config).unwrap()
}

/// A node of this group that decides alone makes itself the leader: its vote, and the entry with which it
/// begins to lead.
fn lead(log: &mut Log, group: u64) {
    let config = Config { group: GroupId(group), ..Config::new(node(1), 1) };
    let mut now = Instant::from_nanos(1);
    let mut node = Node::new(config, Restored::empty(members(&[1])), now).unwrap();
    let mut written = 0;
    for _ in 0..100 {
        now = now.after(Duration::from_secs(1));
        node.step(now, Input::Timer);
        loop {
            let mut output = Output::default();
            node.poll(&mut output);
            let Some(write) = output.write.take() else { break };
            assert_eq!(write.group(), GroupId(group));
            written += write.entries().len();
            log.append(std::slice::from_ref(&write)).unwrap();
            log.sync().unwrap();
            node.step(now, Input::Written(write.into_receipt()));
        }
        if written > 0 {
            return;
        }
    }
    panic!("it does not lead");
}

/// Rolls, compactions and restarts do not make it anybody else's.
#[test]
fn writes_of_another_group_are_refused_also_after_a_restart() {
    let base = LogBase {
        position: LogPosition::new(Term(1), LogIndex(1)),
        timestamp: Timestamp(0),
        membership: members(&[1]),
        membership_index: LogIndex(0),
    };
    for compacted in [false, true] {
        let disk = SimDisk::new(1);
        let mut log = open(&disk).log;
        lead(&mut log, 7);
        if compacted {
            log.compact(&base).unwrap();
        }
        log.close().unwrap();
        disk.restart();
        let OpenedLog { mut log, restored, report, .. } = open(&disk);
        assert_eq!((restored.hard_state.term, report.damage), (Term(1), None));
        // Those of a cluster with a single group are of group 0.
        let outcome = log.append(&[Write::detached(None, None, vec![command(2, 1, 10)])]);
        let Err(WalError::Refused { reason }) = outcome else { panic!("{outcome:?}") };
        assert!(reason.contains("in a log of"), "{reason}");
    }
}

/// A snapshot that takes the place of the whole log is of the same group.
#[test]
fn a_log_that_begins_behind_a_snapshot_is_of_the_group_of_the_one_before() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk).log;
    lead(&mut log, 7);
    let base = LogBase {
        position: LogPosition::new(Term(1), LogIndex(9)),
        timestamp: Timestamp(0),
        membership: members(&[1]),
        membership_index: LogIndex(0),
    };
    log.snapshots().create(base.clone()).unwrap().finish().unwrap();
    log.close().unwrap();
    disk.restart();
    let OpenedLog { mut log, restored, .. } = open(&disk);
    assert_eq!((restored.base, restored.entries), (base, Vec::new()));
    let outcome = log.append(&[Write::detached(None, None, vec![command(10, 1, 10)])]);
    let Err(WalError::Refused { reason }) = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("in a log of"), "{reason}");
}
