//! Log replication (§5.3): `append_commands` → `replicate` → `on_append_entries` at the follower →
//! `acknowledge_leader` when its disk has it → `on_append_entries_reply` back at the leader.

use alloc::vec::Vec;

use bytes::Bytes;

use super::Node;
use super::role::{Follower, KnownLeader, Leader, Role};
use crate::config::Config;
use crate::entries::Entries;
use crate::entry::{Entry, Payload};
use crate::event::{Event, Ignored};
use crate::log::Log;
use crate::message::{AppendOutcome, Message, Round};
use crate::output::Proposed;
use crate::progress::{Pace, Progress, Sent};
use crate::refusal::ProposeRefusal;
use crate::snapshot::Snapshot;
use crate::types::{Instant, LogIndex, LogPosition, NodeId, Timestamp};

impl Node {
    /// May these commands go into the log?
    pub(super) fn check_proposal(&self, commands: &[Bytes]) -> Result<(), ProposeRefusal> {
        let Role::Leader(leader) = &self.role else {
            return Err(ProposeRefusal::NotLeader { hint: self.leader() });
        };
        if let Some(transfer) = &leader.transfer {
            return Err(ProposeRefusal::Transferring { to: transfer.to });
        }
        let bytes = commands.iter().map(|command| command.len() as u64).max().unwrap_or(0);
        let bytes_max = self.config.command_bytes_max();
        if bytes > bytes_max {
            return Err(ProposeRefusal::TooLarge { bytes, bytes_max });
        }
        let waiting = self.log.bytes_between(self.commit_index, self.log.last().index);
        let overhead = crate::entry::ENTRY_OVERHEAD_BYTES;
        let more: u64 = commands.iter().map(|command| command.len() as u64 + overhead).sum();
        let bytes_over = (waiting + more).saturating_sub(self.config.uncommitted_bytes_max);
        // Something must always be able to go, or a large proposal would wait for ever.
        if bytes_over > 0 && waiting > 0 {
            return Err(ProposeRefusal::Busy { bytes_over });
        }
        Ok(())
    }

    /// Appends the commands as entries of this term, and remembers that someone waits for their fate.
    pub(super) fn append_commands(
        &mut self,
        timestamp: Timestamp,
        commands: Vec<Bytes>,
    ) -> Proposed {
        let term = self.hard_state.term;
        let timestamp = timestamp.max(self.log.last_timestamp());
        let first = LogPosition::new(term, self.log.last().index.next());
        for command in commands {
            let index = self.log.last().index.next();
            self.append(Entry { index, term, timestamp, payload: Payload::Command(command) });
        }
        // An empty proposal has nothing to wait for: `last` lies before `first`.
        let last = LogPosition::new(term, self.log.last().index);
        self.watch_proposal(first, last);
        Proposed { first, last }
    }

    /// Every entry enters the log here: a configuration takes effect as it does (§6).
    pub(super) fn append(&mut self, entry: Entry) {
        let changed = self.configurations.append(&entry);
        self.log.append(entry);
        if changed {
            self.announce_membership();
            self.meet_members();
        }
    }

    /// What a follower lacked of the leader's log.
    fn append_run(&mut self, entries: Entries) {
        for entry in &entries {
            if self.configurations.append(entry) {
                self.announce_membership();
                self.meet_members();
            }
        }
        self.log.append_run(entries);
    }

    /// Removes entries that the leader does not have (§5.3).
    fn truncate_from(&mut self, from: LogIndex) {
        debug_assert!(from > self.commit_index, "a committed entry is never removed");
        self.log.truncate_from(from);
        self.outbox.truncate_from(from);
        if self.configurations.truncate_from(from) {
            self.announce_membership();
        }
    }

    pub(super) fn announce_membership(&mut self) {
        let index = self.configurations.current_index();
        let membership = self.configurations.current().clone();
        self.events.push(Event::MembershipChanged { index, membership });
    }

    /// Sends each peer what it lacks, as much as its window allows. Called once per poll: all that was
    /// proposed since the last one travels together.
    pub(super) fn replicate(&mut self) {
        let sender = self.sender();
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        for peer in &mut leader.peers {
            while let Some(message) = next_message(
                peer,
                &self.log,
                self.commit_index,
                leader.round,
                &self.config,
                self.snapshots.held.newest(),
                self.now,
            ) {
                self.outbox.push(sender.to(peer.id, message));
            }
        }
    }

    /// Shows every peer that the leader is alive, and starts a new round of confirmation.
    pub(super) fn heartbeat(&mut self) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        leader.heartbeat_due = self.now.after(self.config.heartbeat_interval);
        for peer in &mut leader.peers {
            peer.on_heartbeat();
        }
        self.part_with_departed();
        self.promote_learners();
        self.repeat_hand_over();
        self.start_round();
    }

    /// Asks every peer, without entries and so without waiting for its disk, whether it still follows.
    pub(super) fn start_round(&mut self) {
        let sender = self.sender();
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        leader.round = leader.round.next();
        let round = leader.round;
        leader.lease.on_sent(round, self.now);
        let commit = self.commit_index;
        for peer in &mut leader.peers {
            // The entry up to which the logs are known to agree, or the beginning of all logs: it can
            // not be refused.
            let known = self.log.term_at(peer.match_index);
            let prev =
                known.map_or(LogPosition::ZERO, |term| LogPosition::new(term, peer.match_index));
            peer.commit_told = commit;
            let message =
                Message::AppendEntries { prev, entries: Entries::default(), commit, round };
            self.outbox.push(sender.to(peer.id, message));
        }
    }

    /// The leader's log, or its heartbeat.
    pub(super) fn on_append_entries(
        &mut self,
        from: NodeId,
        prev: LogPosition,
        entries: Entries,
        commit: LogIndex,
        round: Round,
    ) {
        if matches!(self.role, Role::Leader(_)) || self.leader().is_some_and(|id| id != from) {
            return self.ignore(Some(from), Ignored::SecondLeader);
        }
        self.hear_from_leader(from);
        let Some((prev, entries)) = self.skip_compacted(prev, entries) else {
            return self.ignore(Some(from), Ignored::ContradictsCommit);
        };
        if !self.log.contains(prev) {
            let hint = self.log.last_at_or_below(prev.index, prev.term);
            let outcome = AppendOutcome::Refused { prev: prev.index, hint };
            self.events.push(Event::AppendRefused { prev, hint });
            return self.send(from, Message::AppendEntriesReply { round, outcome });
        }
        let fit = self.log.fit(&entries);
        if fit.conflict.is_some_and(|index| index <= self.commit_index) {
            return self.ignore(Some(from), Ignored::ContradictsCommit);
        }
        // A leader only appends in its term: it cannot take back what it has sent.
        if fit.conflict.is_some_and(|index| index <= self.verified()) {
            return self.ignore(Some(from), Ignored::Malformed);
        }
        if let Some(index) = fit.conflict {
            self.truncate_from(index);
        }
        let matched = LogIndex(prev.index.0 + entries.len() as u64);
        let has_entries = !entries.is_empty();
        self.append_run(entries.slice(fit.known..entries.len()));
        self.note_verified(prev.index, matched, has_entries, round);
        self.learn_commit_index(commit);
    }

    /// Follows `from`, the leader of this term, and waits for the next sign of it (§5.2).
    pub(super) fn hear_from_leader(&mut self, from: NodeId) {
        if !matches!(self.role, Role::Follower(_)) {
            self.become_follower(self.hard_state.term);
        }
        self.sticky_until = self.now.after(self.config.election_timeout);
        self.reset_election_timer();
        if let Role::Follower(Follower { leader: leader @ None, .. }) = &mut self.role {
            *leader = Some(KnownLeader::new(from));
            self.announce_role();
        }
    }

    /// Up to where the log is known to be that of this term's leader.
    fn verified(&self) -> LogIndex {
        match &self.role {
            Role::Follower(Follower { leader: Some(leader), .. }) => leader.verified,
            _ => LogIndex(0),
        }
    }

    /// Entries up to the log's base are committed and gone: the rest follows on the base. `None` if
    /// they contradict the base.
    fn skip_compacted(
        &self,
        prev: LogPosition,
        entries: Entries,
    ) -> Option<(LogPosition, Entries)> {
        let base = self.log.base();
        if prev.index >= base.index {
            return Some((prev, entries));
        }
        let at_base = entries.iter().find(|entry| entry.index == base.index);
        if at_base.is_some_and(|entry| entry.term != base.term) {
            return None;
        }
        let gone = entries.partition_point(|entry| entry.index <= base.index);
        Some((base, entries.slice(gone..entries.len())))
    }

    /// The log is the leader's up to `matched`: decides whether an answer is due before the disk has it.
    fn note_verified(
        &mut self,
        prev: LogIndex,
        matched: LogIndex,
        has_entries: bool,
        round: Round,
    ) {
        let durable = self.log.durable();
        let Role::Follower(Follower { leader: Some(leader), .. }) = &mut self.role else {
            return;
        };
        leader.verified = leader.verified.max(matched);
        let nothing_to_write = matched <= durable;
        let news = if has_entries { nothing_to_write } else { prev > leader.acknowledged };
        leader.reply_due |= news || round > leader.round;
        leader.round = leader.round.max(round);
    }

    /// Tells the leader how much of its log is durable here: once per poll, for everything that
    /// arrived or reached the disk since.
    pub(super) fn acknowledge_leader(&mut self) {
        let on_disk = self.log.durable();
        let Role::Follower(Follower { leader: Some(leader), .. }) = &mut self.role else {
            return;
        };
        let durable = leader.verified.min(on_disk);
        if !leader.reply_due && durable <= leader.acknowledged {
            return;
        }
        leader.reply_due = false;
        leader.acknowledged = durable;
        let outcome = AppendOutcome::Accepted { durable, received: leader.verified };
        let (to, round) = (leader.id, leader.round);
        self.send(to, Message::AppendEntriesReply { round, outcome });
    }

    /// A follower's answer.
    pub(super) fn on_append_entries_reply(
        &mut self,
        from: NodeId,
        round: Round,
        outcome: AppendOutcome,
    ) {
        let last = self.log.last().index;
        let Role::Leader(leader) = &mut self.role else {
            return self.ignore(Some(from), Ignored::StaleReply);
        };
        let started = leader.round;
        let Some(peer) = leader.peer_mut(from) else {
            return self.ignore(Some(from), Ignored::NotAMember);
        };
        let beyond = match outcome {
            AppendOutcome::Accepted { durable, received } => received > last || durable > received,
            AppendOutcome::Refused { prev, .. } => prev > last,
        };
        if beyond || round > started {
            return self.ignore(Some(from), Ignored::BeyondLog);
        }
        peer.on_contact(self.now);
        peer.confirmed = peer.confirmed.max(round);
        match outcome {
            AppendOutcome::Accepted { durable, received } => {
                if peer.on_accepted(durable, received, round) {
                    self.advance_commit_index();
                }
                self.promote_learners();
            }
            AppendOutcome::Refused { prev, hint } if peer.refusal_is_fresh(prev, round) => {
                let base = self.log.base();
                if hint.index < base.index || hint.term < base.term {
                    // It does not have what our log stands on: only a snapshot can help.
                    peer.probe_from(base.index);
                } else {
                    // Both sides skip whole terms: the follower's hint, then ours (§5.3).
                    let common = self.log.last_at_or_below(hint.index.min(prev.prev()), hint.term);
                    peer.probe_from(common.index.next());
                }
            }
            AppendOutcome::Refused { .. } => self.ignore(Some(from), Ignored::StaleReply),
        }
        self.release_reads();
    }

    /// When a leader must have heard from a majority again (CheckQuorum, thesis §6.2).
    pub(super) fn quorum_deadline(&self, leader: &Leader) -> Instant {
        let heard = |id| leader.peer(id).map_or(self.now, |peer| peer.last_contact);
        self.membership().quorum_value(heard).after(self.config.election_timeout)
    }

    /// A leader that hears from no majority cannot commit, and may have been replaced.
    pub(super) fn step_down_without_quorum(&mut self) {
        let term = self.hard_state.term;
        self.events.push(Event::QuorumLost { term });
        self.become_follower(term);
    }
}

impl KnownLeader {
    fn new(id: NodeId) -> Self {
        Self {
            id,
            verified: LogIndex(0),
            acknowledged: LogIndex(0),
            round: Round(0),
            reply_due: false,
        }
    }
}

/// The next message with a part of the log for `peer`, if there is something to say and room to say it.
fn next_message(
    peer: &mut Progress,
    log: &Log,
    commit: LogIndex,
    round: Round,
    config: &Config,
    snapshot: Option<&Snapshot>,
    now: Instant,
) -> Option<Message> {
    let prev_index = peer.next_index.prev();
    let Some(term) = log.term_at(prev_index) else {
        return peer
            .offer_snapshot()
            .then(|| snapshot.cloned())
            .flatten()
            .map(|snapshot| Message::InstallSnapshot { snapshot });
    };
    if matches!(peer.pace, Pace::Snapshot { .. }) {
        // Its own acknowledgement has reached our log: it agrees up to there.
        peer.replicate_behind(prev_index, round);
    }
    let prev = LogPosition::new(term, prev_index);
    let last = log.last().index;
    let message = |entries| Message::AppendEntries { prev, entries, commit, round };
    let may_be_active = peer.may_be_active(now, config.election_timeout);
    match &mut peer.pace {
        Pace::Probe { waiting: true, .. } => None,
        Pace::Probe { waiting, asked } => {
            *waiting = true;
            peer.commit_told = commit;
            // Whoever does not answer is only asked; a dead peer must not cost a full message each time.
            let to = if may_be_active { last } else { prev_index };
            let entries = log.share(peer.next_index, to, config.append_bytes_max);
            let through = LogIndex(prev_index.0 + entries.len() as u64);
            *asked = Some(Sent::new(through, log.bytes_between(prev_index, through), round));
            Some(message(entries))
        }
        Pace::Replicate(window) if prev_index < last => {
            if !window.has_room(config.inflight_messages_max, config.inflight_bytes_max) {
                return None;
            }
            let entries = log.share(peer.next_index, last, config.append_bytes_max);
            let through = LogIndex(prev_index.0 + entries.len() as u64);
            window.push(through, log.bytes_between(prev_index, through), round);
            peer.next_index = through.next();
            peer.commit_told = commit;
            Some(message(entries))
        }
        // Nothing to send, but the commit index is news: followers apply without waiting for a heartbeat.
        Pace::Replicate(_) if peer.commit_told < commit => {
            peer.commit_told = commit;
            Some(message(Entries::default()))
        }
        Pace::Replicate(_) | Pace::Snapshot { .. } => None,
    }
}
