//! The configurations that are searched: what each is about, where it begins, what may happen in it.

use raft_core::{Alarm, Config, Membership, NodeId};

use super::action::Act;
use super::bounds::{Bounds, Cost};
use super::effects::Sight;
use super::model::{Cluster, Model};
use super::search::Prologue;

/// A cluster, bounds, and what must be seen within them.
pub struct Configuration {
    pub name: &'static str,
    pub cluster: Cluster,
    pub prologue: Prologue,
    /// What must happen somewhere, or the configuration shows nothing.
    pub sights: &'static [Sight],
    /// At least so many states must be found.
    pub states_min: usize,
}

/// How large a search is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// For every run of the tests.
    Small,
    /// For a campaign: `MODEL=large`.
    Large,
}

impl Size {
    fn pick<T>(self, small: T, large: T) -> T {
        match self {
            Self::Small => small,
            Self::Large => large,
        }
    }
}

fn id(number: u64) -> NodeId {
    NodeId::new(number).expect("not zero")
}

fn members(numbers: &[u64]) -> Membership {
    Membership::new(numbers.iter().map(|&number| id(number))).expect("not empty")
}

/// Nodes 1 to `count`; the first three are members, or all if there are fewer. Seeds name lives: they
/// are far apart.
fn cluster(count: u64, slow: &[u64], bounds: Bounds) -> Cluster {
    let nodes = (1..=count).map(|number| Config::new(id(number), number << 32)).collect();
    let first: Vec<u64> = (1..=count.min(3)).collect();
    let slow = (1..=count).map(|number| slow.contains(&number)).collect();
    Cluster { nodes, members: members(&first), slow, target: None, bounds }
}

/// Node 1 leads term 1, and all have its first entry and know that it is committed.
fn elected(model: &mut Model) -> Vec<u32> {
    let row = model.start();
    let row = model.act(&row, 0, &Act::Ring(Alarm::Election));
    model.settle(&row, &[])
}

/// The same, and an entry that node 3 has never heard of is committed and in a snapshot of node 1, whose
/// log begins behind it.
fn compacted(model: &mut Model) -> Vec<u32> {
    let row = elected(model);
    let row = model.act(&row, 0, &Act::Propose(b'z'));
    let row = model.settle(&row, &[2]);
    model.act(&row, 0, &Act::Cut)
}

/// Node 1 has led term 1, and gives up for want of a quorum, while a heartbeat of it is on its way to node 2.
/// It is a candidate in term 2, with the vote of node 2 on its way to it, when the heartbeat arrives, late.
fn deposed(model: &mut Model) -> Vec<u32> {
    let row = elected(model);
    let row = model.act(&row, 0, &Act::Ring(Alarm::Heartbeat));
    let row = model.act(&row, 0, &Act::Ring(Alarm::Quorum));
    let row = model.act(&row, 0, &Act::Ring(Alarm::Election));
    let row = model.lose(&row, "n1@1 → n3 AppendEntries");
    let row = model.lose(&row, "n1@1 → n3 PreVote");
    let row = model.carry(&row, "n1@1 → n2 PreVote");
    let row = model.carry(&row, "n2@1 → n1 PreVoteReply");
    let row = model.lose(&row, "n1@2 → n3 RequestVote");
    let row = model.carry(&row, "n1@2 → n2 RequestVote");
    model.carry(&row, "n1@1 → n2 AppendEntries")
}

pub fn e1_elections(size: Size) -> Configuration {
    let bounds = Bounds::new(1, size.pick(3, 4)).with(Cost::Election, 2).with(Cost::Crash, 1);
    Configuration {
        name: "E1 elections, crashes that lose what is not synced",
        cluster: cluster(3, &[1, 2], bounds),
        prologue: Model::start,
        sights: &[Sight::Elected, Sight::WriteTorn, Sight::EntryLostInCrash],
        states_min: 1_200_000,
    }
}

pub fn e2_replication(size: Size) -> Configuration {
    let bounds = Bounds::new(2, 2)
        .with(Cost::Election, 1)
        .with(Cost::Proposal, size.pick(1, 2))
        .with(Cost::Duplicate, 1)
        .with(Cost::Crash, 1);
    Configuration {
        name: "E2 replication, messages dropped and duplicated, a torn write",
        cluster: cluster(3, &[1, 2], bounds),
        prologue: elected,
        sights: &[
            Sight::Elected,
            Sight::EntryOverwritten,
            Sight::WriteTorn,
            Sight::EntryLostInCrash,
            Sight::Superseded,
            Sight::CommittedOldTerm,
            Sight::VoteRefusedForLog,
            Sight::TwoLeaders,
            Sight::Duplicated,
        ],
        states_min: 1_800_000,
    }
}

pub fn e3_joint_change(size: Size) -> Configuration {
    let bounds = Bounds::new(2, 2)
        .with(Cost::Election, 1)
        .with(Cost::Proposal, size.pick(0, 1))
        .with(Cost::Change, 1);
    let mut cluster = cluster(4, &[], bounds);
    cluster.target = Some(members(&[1, 2, 4]));
    Configuration {
        name: "E3 one member replaced by another, in two steps",
        cluster,
        prologue: elected,
        sights: &[
            Sight::ElectedInJoint,
            Sight::JointCommitted,
            Sight::ChangeCommitted,
            Sight::EntryOverwritten,
        ],
        states_min: 220_000,
    }
}

pub fn e4_snapshot(size: Size) -> Configuration {
    let bounds = Bounds::new(2, size.pick(2, 3))
        .with(Cost::Election, size.pick(0, 1))
        .with(Cost::Heartbeat, 1)
        .with(Cost::Proposal, 1)
        .with(Cost::Cut, size.pick(1, 0))
        .with(Cost::Crash, 1);
    let mut cluster = cluster(3, &[3], bounds);
    cluster.nodes.iter_mut().for_each(|config| config.trailing_bytes_max = 0);
    Configuration {
        name: "E4 a snapshot against the log itself",
        cluster,
        prologue: compacted,
        sights: &[Sight::SnapshotInstalled, Sight::SnapshotPassedOver, Sight::WriteTorn],
        states_min: 400_000,
    }
}

pub fn e5_transfer(size: Size) -> Configuration {
    let bounds = Bounds::new(3, size.pick(2, 3))
        .with(Cost::Election, 1)
        .with(Cost::Proposal, 1)
        .with(Cost::Transfer, 1)
        .with(Cost::QuorumLoss, 1);
    Configuration {
        name: "E5 pre-votes, check-quorum and transfer of leadership",
        cluster: cluster(3, &[], bounds),
        prologue: elected,
        sights: &[
            Sight::Elected,
            Sight::ElectedByTransfer,
            Sight::QuorumLost,
            Sight::TransferGivenUp,
        ],
        states_min: 4_300_000,
    }
}

pub fn e6_reads(size: Size) -> Configuration {
    let bounds = Bounds::new(2, size.pick(2, 3))
        .with(Cost::Election, 1)
        .with(Cost::Proposal, 1)
        .with(Cost::Read, 1);
    Configuration {
        name: "E6 reads, while the leader sleeps and is replaced",
        cluster: cluster(3, &[], bounds),
        prologue: elected,
        sights: &[
            Sight::Elected,
            Sight::TwoLeaders,
            Sight::ReadServed,
            Sight::ReadServedToFollower,
            Sight::ReadFailed,
        ],
        states_min: 900_000,
    }
}

pub fn e7_disk(size: Size) -> Configuration {
    let bounds = Bounds::new(2, size.pick(2, 3))
        .with(Cost::Election, 1)
        .with(Cost::Proposal, size.pick(1, 2))
        .with(Cost::DiskHang, size.pick(1, 0));
    Configuration {
        name: "E7 receipts in any order, of a log that is overwritten meanwhile",
        cluster: cluster(3, &[1], bounds),
        prologue: elected,
        sights: &[
            Sight::Elected,
            Sight::EntryOverwritten,
            Sight::ReceiptOutOfOrder,
            Sight::StaleReceipt,
            Sight::TwoLeaders,
        ],
        states_min: 1_000_000,
    }
}

pub fn e8_again(size: Size) -> Configuration {
    let bounds = Bounds::new(3, size.pick(2, 4)).with(Cost::Election, 1).with(Cost::Read, 1);
    Configuration {
        name: "E8 a former leader leads again, while an answer to its former leadership is on its way",
        cluster: cluster(3, &[], bounds),
        prologue: deposed,
        sights: &[Sight::Elected, Sight::TwoLeaders, Sight::ReadServed, Sight::ReadFailed],
        states_min: 270_000,
    }
}
