//! A node on a disk that fails, or is full.

use std::collections::BTreeMap;

use bytes::Bytes;
use raft_core::NodeId;
use raft_wal::Space;
use raft_wal::sim::{Fault, FaultRule, Operation, SimDisk};

use super::testing::{Count, start_cluster, start_on_disk};
use super::*;
use crate::error::{NotApplied, ProposeError, Unknown};
use crate::handle::Consistency;

#[tokio::test]
async fn a_failing_disk_ends_the_node_and_everyone_is_answered() {
    let peers = BTreeMap::from([(NodeId::new(1).unwrap(), "localhost:1".to_owned())]);
    for (seed, after) in [(1, 0), (2, 1), (3, 2), (4, 7), (5, 20)] {
        let disk = SimDisk::new(seed);
        let (handle, task) = start_on_disk(&disk, peers.clone()).await;
        handle.propose(Bytes::new()).await.unwrap();
        disk.inject(Fault::Error, after);
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let handle = handle.clone();
            callers.spawn(async move {
                let mut applied = 0;
                loop {
                    match handle.propose(Bytes::new()).await {
                        Ok(_) => applied += 1,
                        Err(error) => return (applied, error),
                    }
                }
            });
        }
        let end = task.wait().await;
        assert!(matches!(end, Err(Fatal::Disk(_))), "seed {seed}: {end:?}");
        let mut sure = 1;
        let mut unsure = 0;
        for (applied, error) in callers.join_all().await {
            sure += applied;
            match error {
                ProposeError::Unknown(Unknown::ShuttingDown) => unsure += 1,
                ProposeError::NotApplied(NotApplied::ShuttingDown) => {}
                error => panic!("seed {seed}: {error}"),
            }
        }
        let refused = handle.propose(Bytes::new()).await;
        assert_eq!(refused, Err(NotApplied::ShuttingDown.into()));

        disk.restart();
        let (handle, task) = start_on_disk(&disk, peers.clone()).await;
        handle.propose(Bytes::new()).await.unwrap();
        let count = handle.read(Consistency::Linearizable).await.unwrap().0 - 1;
        assert!((sure..=sure + unsure).contains(&count), "seed {seed}: {sure} + {unsure}? {count}");
        handle.shutdown().await;
        task.wait().await.unwrap();
    }
}

/// Nothing is handed to the log but what finds room for certain, so the log itself would never get as far
/// as to need the segment, and nobody would learn why nothing is written any more.
#[tokio::test]
async fn a_disk_that_can_make_no_segment_ends_the_node_too() {
    let peers = BTreeMap::from([(NodeId::new(1).unwrap(), "localhost:1".to_owned())]);
    let disk = SimDisk::new(1);
    let (handle, task) = start_on_disk(&disk, peers).await;
    let broken = FaultRule::new(Fault::Error).on(&[Operation::Write]).files("spare-").always();
    disk.add_fault(broken);
    let refusal = loop {
        if let Err(error) = handle.propose(Bytes::from(vec![7; 1000])).await {
            break error;
        }
    };
    let stopped: [ProposeError; 2] =
        [NotApplied::ShuttingDown.into(), Unknown::ShuttingDown.into()];
    assert!(stopped.contains(&refusal), "{refusal}");
    let end = task.wait().await;
    assert!(matches!(end, Err(Fatal::Disk(_))), "{end:?}");
}

#[tokio::test]
async fn on_a_full_disk_writes_are_refused_reads_go_on_and_room_is_enough() {
    let peers = BTreeMap::from([(NodeId::new(1).unwrap(), "localhost:1".to_owned())]);
    let disk = SimDisk::new(1);
    let (handle, task) = start_on_disk(&disk, peers).await;
    let command = Bytes::from(vec![7; 1000]);
    handle.propose(command.clone()).await.unwrap();
    disk.set_capacity(Some(disk.used_bytes()));
    let mut acknowledged = 1;
    let refusal = loop {
        match handle.propose(command.clone()).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 200, "the disk is full");
    };
    assert_eq!(refusal, NotApplied::DiskFull.into());
    let started = std::time::Instant::now();
    assert_eq!(handle.propose(command.clone()).await, Err(NotApplied::DiskFull.into()));
    assert!(started.elapsed() < Duration::from_secs(1), "refused at the door, not after a timeout");
    let mut status = handle.watch_status();
    status.wait_for(|status| status.log.space == Space::Low).await.unwrap();
    let count = handle.read(Consistency::Linearizable).await.unwrap().0;
    assert_eq!(count, acknowledged);

    disk.set_capacity(None);
    status.wait_for(|status| status.log.space == Space::Ample).await.unwrap();
    handle.propose(command).await.unwrap();
    let count = handle.read(Consistency::Linearizable).await.unwrap().0;
    assert_eq!(count, acknowledged + 1);
    handle.shutdown().await;
    task.wait().await.unwrap();
}

#[tokio::test]
async fn a_leader_on_a_full_disk_lets_another_one_lead_and_catches_up_when_there_is_room() {
    let disks = [SimDisk::new(1), SimDisk::new(2), SimDisk::new(3)];
    let nodes = start_cluster(&disks).await;
    let command = Bytes::from(vec![7; 1000]);
    nodes[0].0.propose(command.clone()).await.unwrap();
    let leads = |node: &(RaftHandle<Count>, NodeTask)| {
        let status = node.0.status().raft;
        status.leader == Some(status.id)
    };
    let first = nodes.iter().position(leads).expect("it was answered by a leader");
    let full = &nodes[first].0;
    disks[first].set_capacity(Some(disks[first].used_bytes()));
    let mut low = full.watch_status();
    // Some may be refused or lost track of around the handover; all that is acknowledged counts.
    let (mut acknowledged, mut unsure) = (1, 0);
    for _ in 0..400 {
        match full.propose(command.clone()).await {
            Ok(_) => acknowledged += 1,
            Err(ProposeError::NotApplied(_)) => {}
            Err(ProposeError::Unknown(_)) => unsure += 1,
        }
    }
    let status = low.wait_for(|status| status.log.space == Space::Low).await.unwrap().clone();
    assert_ne!(status.raft.leader, Some(status.raft.id), "another one leads");
    assert!(acknowledged > 300, "the others have room: {acknowledged}");

    disks[first].set_capacity(None);
    low.wait_for(|status| status.log.space == Space::Ample).await.unwrap();
    let applied = full.propose(command).await.unwrap().position.index;
    let count = full.read(Consistency::AtLeast(applied)).await.unwrap().0;
    assert!((acknowledged + 1..=acknowledged + 1 + unsure).contains(&count), "{count}");
    for (handle, task) in nodes {
        handle.shutdown().await;
        task.wait().await.unwrap();
    }
}
