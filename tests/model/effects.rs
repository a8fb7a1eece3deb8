//! What a node did in one step, and what must hold of one node alone.

use raft_core::{
    AppendOutcome, BallotKind, Entry, Envelope, Event, Fate, LogIndex, LogPosition, Membership,
    Message, Payload, ReadId, ReadOutcome, RoleKind, Status, Term,
};
use raft_sim::storage::durable::Durable;

use super::action::Act;
use super::site::Site;

/// What a node did in one step.
#[derive(Default)]
pub struct Effects {
    pub sends: Vec<Envelope>,
    /// It leads this term from now on.
    pub elected: Option<Term>,
    /// What it takes to be committed now and did not before.
    pub committed: Vec<Entry>,
    /// Its term, and whose durable copies make that so, if it leads.
    pub committed_by: Option<(Term, Vec<Membership>)>,
    pub read_begun: Option<ReadId>,
    pub reads: Vec<ReadOutcome>,
    pub fates: Vec<(LogPosition, LogPosition, Fate)>,
    pub restarted: bool,
    pub torn: bool,
    pub events: Vec<Event>,
    /// What kinds of things happened, as bits of [`Sight`].
    pub seen: u64,
}

/// What has to happen somewhere in a configuration, or its invariants show nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    Elected,
    ElectedByTransfer,
    ElectedInJoint,
    EntryOverwritten,
    EntryLostInCrash,
    WriteTorn,
    CommittedOldTerm,
    Superseded,
    ReceiptOutOfOrder,
    StaleReceipt,
    JointCommitted,
    ChangeCommitted,
    SnapshotInstalled,
    SnapshotPassedOver,
    ReadServed,
    ReadServedToFollower,
    ReadFailed,
    VoteRefusedForLog,
    QuorumLost,
    DiskHangs,
    TransferGivenUp,
    AppendRefused,
    TwoLeaders,
    Duplicated,
}

impl Sight {
    pub const fn bit(self) -> u64 {
        1 << self as u32
    }
}

/// Whatever a message promises would survive a crash of its sender at this moment.
pub fn check_promises(envelope: &Envelope, disk: &Durable) -> Result<(), String> {
    let voted = disk.hard_state.voted_for;
    let kept = envelope.term == disk.hard_state.term
        && match &envelope.message {
            Message::RequestVote { ballot, .. } if ballot.kind.binds() => {
                voted == Some(envelope.from)
            }
            Message::RequestVoteReply { ballot, granted: true } if ballot.kind.binds() => {
                voted == Some(envelope.to)
            }
            Message::AppendEntriesReply {
                outcome: AppendOutcome::Accepted { durable, .. },
                ..
            } => *durable <= disk.last().index,
            _ => true,
        };
    if kept { Ok(()) } else { Err(format!("durable before visible: {envelope}")) }
}

/// Checks what one node did by itself, and notes what concerns the others.
pub fn check_step(
    before: &Site,
    was: &Status,
    act: &Act,
    after: &Site,
    is: &Status,
    effects: &mut Effects,
) -> Result<(), String> {
    let id = was.id;
    check_disk(before, after, is)?;
    check_reads(effects, id)?;
    let crashed = matches!(act, Act::Crash(_));
    if !crashed {
        if is.term < was.term || is.commit < was.commit {
            return Err(format!("{id}: the term or the commit index fell"));
        }
        check_append_only(before, was, after, is)?;
        note_committed(was, after, is, effects);
    }
    if is.role == RoleKind::Leader && (was.role != RoleKind::Leader || was.term != is.term) {
        effects.elected = Some(is.term);
    }
    note_sights(before, was, act, after, is, effects);
    Ok(())
}

/// What the node takes to be durable is on the disk, and the vote of a term is given once.
fn check_disk(before: &Site, after: &Site, is: &Status) -> Result<(), String> {
    let (old, new) = (before.disk.hard_state, after.disk.hard_state);
    let again = old.voted_for.is_some() && new.voted_for != old.voted_for;
    if new.term < old.term || (new.term == old.term && again) {
        return Err(format!("{}: another vote in term {} on the disk", is.id, new.term));
    }
    for entry in after.entries(is).filter(|entry| entry.index <= is.durable) {
        if !after.disk.holds(entry.position()) {
            return Err(format!("{}: takes {entry} to be durable, which it is not", is.id));
        }
    }
    Ok(())
}

fn check_reads(effects: &Effects, id: raft_core::NodeId) -> Result<(), String> {
    let mut answered: Vec<ReadId> = effects.reads.iter().map(|it| it.id).collect();
    answered.sort_unstable();
    answered.dedup();
    if answered.len() < effects.reads.len() {
        return Err(format!("{id}: a read was answered twice"));
    }
    Ok(())
}

/// A leader only appends, and what it takes a peer to have does not become less.
fn check_append_only(before: &Site, was: &Status, after: &Site, is: &Status) -> Result<(), String> {
    if was.role != RoleKind::Leader || is.role != RoleKind::Leader || was.term != is.term {
        return Ok(());
    }
    for entry in before.entries(was).filter(|entry| entry.index > is.base.index) {
        if after.node.entry(entry.index) != Some(entry) {
            return Err(format!("Leader Append-Only: {} gave up {entry}", is.id));
        }
    }
    for peer in &was.peers {
        let now = is.peers.iter().find(|now| now.id == peer.id);
        if now.is_some_and(|now| now.match_index < peer.match_index) {
            return Err(format!("the match index of {} fell at {}", peer.id, is.id));
        }
    }
    Ok(())
}

fn note_committed(was: &Status, after: &Site, is: &Status, effects: &mut Effects) {
    let new = (was.commit.0 + 1..=is.commit.0).map(LogIndex);
    effects.committed.extend(new.filter_map(|index| after.node.entry(index).cloned()));
    let leads = [was, is].map(|status| status.role == RoleKind::Leader);
    effects.committed_by = match leads {
        // What is committed first may be what the next configuration waited for, which counts at once.
        [true, true] => Some((was.term, vec![was.membership.clone(), is.membership.clone()])),
        [true, false] => Some((was.term, vec![was.membership.clone()])),
        [false, true] => Some((is.term, vec![is.membership.clone()])),
        [false, false] => None,
    };
}

fn note_sights(
    before: &Site,
    was: &Status,
    act: &Act,
    after: &Site,
    is: &Status,
    effects: &mut Effects,
) {
    let mut seen = 0;
    let mut note = |sight: Sight, happened: bool| {
        seen |= if happened { sight.bit() } else { 0 };
    };
    let crashed = effects.restarted;
    let lost = before.entries(was).filter(|it| it.index > is.base.index);
    let lost = lost.into_iter().any(|it| after.node.entry(it.index) != Some(it));
    let transfer = match act {
        Act::Deliver(Envelope { message: Message::RequestVoteReply { ballot, .. }, .. }) => {
            ballot.kind == BallotKind::Transfer
        }
        _ => false,
    };
    note(Sight::Elected, effects.elected.is_some());
    note(Sight::ElectedByTransfer, effects.elected.is_some() && transfer);
    note(Sight::ElectedInJoint, effects.elected.is_some() && is.membership.is_joint());
    note(Sight::EntryLostInCrash, crashed && lost);
    note(Sight::EntryOverwritten, !crashed && lost);
    note(Sight::WriteTorn, effects.torn);
    let leads = effects.committed_by.as_ref().map(|(term, _)| *term);
    let old = |entry: &Entry| leads.is_some_and(|term| entry.term < term);
    note(Sight::CommittedOldTerm, effects.committed.iter().any(old));
    let joint = |entry: &Entry| matches!(&entry.payload, Payload::Membership(it) if it.is_joint());
    note(Sight::JointCommitted, effects.committed.iter().any(joint));
    let change = |entry: &Entry| matches!(&entry.payload, Payload::Membership(_));
    let last = effects.committed.iter().rfind(|entry| change(entry));
    note(Sight::ChangeCommitted, last.is_some_and(|entry| !joint(entry)));
    note(Sight::Superseded, effects.fates.iter().any(|(_, _, fate)| *fate == Fate::Superseded));
    if let Act::Written(place) = act {
        note(Sight::ReceiptOutOfOrder, *place > 0);
        note(Sight::StaleReceipt, before.is_overwritten(*place));
    }
    let here = |it: &ReadOutcome| it.index.is_ok();
    note(Sight::ReadServed, effects.reads.iter().any(here));
    note(Sight::ReadServedToFollower, !after.leads() && effects.reads.iter().any(here));
    note(Sight::ReadFailed, effects.reads.iter().any(|it| it.index.is_err()));
    for event in &effects.events {
        match event {
            Event::SnapshotInstalled { .. } => note(Sight::SnapshotInstalled, true),
            Event::VoteRefused { why: raft_core::VoteRefusal::LogBehind { .. }, .. } => {
                note(Sight::VoteRefusedForLog, true);
            }
            Event::QuorumLost { .. } => note(Sight::QuorumLost, true),
            Event::DiskHangs { .. } => note(Sight::DiskHangs, true),
            Event::TransferFailed { .. } => note(Sight::TransferGivenUp, true),
            Event::AppendRefused { .. } => note(Sight::AppendRefused, true),
            _ => {}
        }
    }
    let offered =
        matches!(act, Act::Deliver(it) if matches!(it.message, Message::InstallSnapshot { .. }));
    let has_it = effects.sends.iter().any(|it| {
        let Message::AppendEntriesReply { outcome, .. } = &it.message else { return false };
        matches!(outcome, AppendOutcome::Accepted { .. })
    });
    note(Sight::SnapshotPassedOver, offered && has_it && is.base == was.base);
    effects.seen |= seen;
}
