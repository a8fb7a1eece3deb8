//! The refinement map: which actions of the specification explain what a step has changed in a node.
//!
//! A step of a node is a sequence of actions, in this order: a newer term is adopted, what a message says is
//! noted, a campaign begins, a vote is given, the role changes; then a leader commits and appends what
//! that allows, a follower appends and commits what it has; a snapshot and a compaction replace what a log
//! begins with. An action that a node does not take, because it ignores a message, needs no explanation.

use raft_core::{
    AppendOutcome, Envelope, Input, LogIndex, LogPosition, Membership, Message, Node, NodeId,
    Payload, RoleKind, SnapshotId, Status, Term,
};

use super::{Explained, STEPS_BETWEEN_AUDITS, Spec, Unexplained, require};
use crate::storage::durable::Durable;

/// A node after a step, with its disk as it would be found after a crash now.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The node.
    pub node: &'a Node,
    /// What it says of itself.
    pub status: &'a Status,
    /// Its disk.
    pub disk: &'a Durable,
}

/// What made a node move.
#[derive(Clone, Debug)]
pub enum Cause {
    /// A message arrived.
    Receive(Envelope),
    /// Its timer ran out.
    Timer,
    /// So much of a snapshot has arrived.
    SnapshotHeld(SnapshotId, u64),
    /// Its disk, or its state machine, has got on.
    Progress,
    /// A client proposed commands.
    Propose,
    /// An operator asked for something; and for these members, which the node took on.
    Operator(Option<Membership>),
    /// It was polled.
    Poll,
}

impl Cause {
    /// Of a step with this input.
    #[must_use]
    pub fn of(input: &Input) -> Self {
        match input {
            Input::Message(envelope) => Self::Receive(envelope.clone()),
            Input::Timer => Self::Timer,
            Input::SnapshotHeld { snapshot, bytes } => Self::SnapshotHeld(*snapshot, *bytes),
            Input::Written(_)
            | Input::Applied(_)
            | Input::SnapshotCut(_)
            | Input::ChunkRead { .. } => Self::Progress,
        }
    }
}

impl Spec {
    /// A node was started with what its disk has.
    ///
    /// # Panics
    /// If the disk has forgotten what it promised, or has what nobody wrote.
    pub fn start(&mut self, id: NodeId, disk: &Durable) {
        let before = self.servers.get(&id).map(|server| format!("{server:?}"));
        if let Err(Unexplained { action, broken }) = self.restart(id, disk) {
            panic!("{action} of {id} has no explanation: {broken}\nbefore: {before:?}\n{disk:?}");
        }
    }

    /// A node is gone for good.
    pub fn end(&mut self, id: NodeId) {
        self.servers.remove(&id);
    }

    /// A node has moved, for this reason.
    ///
    /// # Panics
    /// If no actions of the specification explain what it has done.
    pub fn observe(&mut self, id: NodeId, cause: &Cause, view: View<'_>) {
        self.steps += 1;
        let explained = self.explain(id, cause, view).and_then(|()| self.compare(id, view));
        if let Err(Unexplained { action, broken }) = explained {
            panic!(
                "{action} of {id} has no explanation: {broken}\ncause: {cause:?}\nas far as explained: \
                 {:?}\nafter: {:?}",
                self.servers[&id], view.status
            );
        }
    }

    fn explain(&mut self, id: NodeId, cause: &Cause, view: View<'_>) -> Explained {
        let after = view.status;
        if let Cause::Receive(envelope) = cause
            && envelope.to == id
            && envelope.group == self.group
        {
            if envelope.term > self.server(id).current_term && after.term >= envelope.term {
                self.update_term(id, envelope.term);
            }
            if envelope.term == self.server(id).current_term {
                self.note(id, envelope);
            }
        }
        if after.term > self.server(id).current_term {
            let consent = has_consent(cause, self.server(id).current_term);
            self.timeout(id, consent)?;
        }
        require(
            after.term == self.server(id).current_term,
            "UpdateTerm",
            "no message has that term",
        )?;
        if after.voted_for != self.server(id).voted_for {
            self.explain_vote(id, cause, after)?;
        }
        self.explain_role(id, cause, view)?;
        if after.role == RoleKind::Leader {
            self.explain_commit(id, cause, view)?;
            self.explain_appended(id, cause, view)?;
        } else {
            self.explain_received(id, cause, view)?;
            self.explain_commit(id, cause, view)?;
        }
        self.explain_disk(id, view)
    }

    /// What a message of the current term says to its receiver: votes, acknowledgements.
    fn note(&mut self, id: NodeId, envelope: &Envelope) {
        let server = self.server(id);
        match envelope.message {
            Message::RequestVoteReply { ballot, granted: true } if server.asked == Some(ballot) => {
                if ballot.kind.binds() {
                    server.votes_granted.insert(envelope.from);
                } else {
                    server.pre_votes_granted.insert(envelope.from);
                }
            }
            Message::AppendEntriesReply {
                outcome: AppendOutcome::Accepted { durable, .. },
                ..
            } => {
                // What was acknowledged on an earlier disk counts no longer.
                let said = (envelope.incarnation, durable);
                let known = server.match_index.entry(envelope.from).or_insert(said);
                *known = (*known).max(said);
            }
            _ => {}
        }
    }

    fn explain_vote(&mut self, id: NodeId, cause: &Cause, after: &Status) -> Explained {
        let Cause::Receive(Envelope { from, term, message, .. }) = cause else {
            return require(false, "HandleRequestVoteRequest", "nobody asked for this vote");
        };
        let Message::RequestVote { ballot, last } = message else {
            return require(false, "HandleRequestVoteRequest", "nobody asked for this vote");
        };
        let asked = ballot.kind.binds() && *term == after.term && after.voted_for == Some(*from);
        require(asked, "HandleRequestVoteRequest", "nobody asked for this vote")?;
        self.handle_request_vote_request(id, *from, *last)
    }

    fn explain_role(&mut self, id: NodeId, cause: &Cause, view: View<'_>) -> Explained {
        let after = view.status.role;
        let server = self.server(id);
        if after == RoleKind::PreCandidate && matches!(cause, Cause::Timer) {
            server.announced.insert(server.log.last());
        }
        if after == server.role {
            return Ok(());
        }
        match after {
            RoleKind::Leader => {
                self.become_leader(id, view.disk)?;
                let opening = view.node.entry(self.server(id).log.last().index.next());
                let none = Unexplained { action: "BecomeLeader", broken: "its term is not opened" };
                self.client_request(id, opening.ok_or(none)?, true, false)
            }
            RoleKind::Follower => {
                server.role = RoleKind::Follower; // StepDown: always safe.
                Ok(())
            }
            RoleKind::PreCandidate => {
                require(server.role != RoleKind::Leader, "PreVote", "a leader does not campaign")?;
                server.pre_votes_granted.clear();
                server.role = RoleKind::PreCandidate;
                Ok(())
            }
            RoleKind::Candidate => require(false, "Timeout", "a second campaign in this term"),
        }
    }

    fn explain_commit(&mut self, id: NodeId, cause: &Cause, view: View<'_>) -> Explained {
        let (to, from) = (view.status.commit, self.server(id).commit_index);
        if to == from {
            return Ok(());
        }
        require(to > from, "AdvanceCommitIndex", "it fell")?;
        if let Cause::SnapshotHeld(snapshot, bytes) = cause {
            let end = self.server(id).log.at(to);
            let end =
                end.ok_or(Unexplained { action: "InstallSnapshot", broken: "beyond the log" })?;
            let whole = *bytes == snapshot.length && end == snapshot.position;
            require(whole, "InstallSnapshot", "not what has arrived")?;
            return self.install_snapshot(id, end, false);
        }
        if view.status.role == RoleKind::Leader {
            return self.advance_commit_index(id, to, view.disk);
        }
        self.learn_commit_index(id, to)
    }

    /// What a leader has appended.
    fn explain_appended(&mut self, id: NodeId, cause: &Cause, view: View<'_>) -> Explained {
        let last = self.server(id).log.last();
        if last == view.status.last {
            return Ok(());
        }
        let kept = term_at(view, last.index).is_none_or(|position| position == last);
        let grown = view.status.last.index > last.index;
        require(kept && grown, "ClientRequest", "Leader Append-Only")?;
        let asked = matches!(cause, Cause::Propose);
        for index in (last.index.0 + 1..=view.status.last.index.0).map(LogIndex) {
            let entry = view.node.entry(index);
            let gap = Unexplained { action: "ClientRequest", broken: "a gap in the log" };
            let entry = entry.ok_or(gap)?;
            if let Payload::Membership(next) = &entry.payload {
                self.explain_members(id, cause, next)?;
            }
            self.client_request(id, entry, false, asked)?;
        }
        Ok(())
    }

    /// Members change because somebody asked for those; or a joint phase ends; or a learner has caught up.
    fn explain_members(&mut self, id: NodeId, cause: &Cause, next: &Membership) -> Explained {
        let now = self.server(id).configuration().1.clone();
        if now.is_joint() {
            return Ok(()); // To be left, as `ChangeMembership` sees to.
        }
        let as_asked = match cause {
            Cause::Operator(asked) => asked.as_ref() == Some(&next.target()),
            _ => now.learners().iter().any(|&learner| now.with_voter(learner) == next.target()),
        };
        require(as_asked, "ChangeMembership", "not the members that somebody asked for")
    }

    /// What has become of the log of one who does not lead.
    fn explain_received(&mut self, id: NodeId, cause: &Cause, view: View<'_>) -> Explained {
        let after = view.status;
        if self.server(id).log.last() == after.last {
            return Ok(());
        }
        match cause {
            Cause::Receive(Envelope {
                term,
                message: Message::AppendEntries { prev, entries, .. },
                ..
            }) if *term == after.term => {
                self.append_entries(id, *prev, entries)?;
                let server = self.server(id);
                let same = entries.iter().all(|entry| {
                    let position = entry.position();
                    term_at(view, entry.index).is_none_or(|it| it == position)
                });
                let same = same && server.log.last() == after.last;
                require(same, "AppendEntries", "the log is not what the message makes of it")
            }
            Cause::SnapshotHeld(snapshot, bytes) => {
                require(after.base == after.last, "InstallSnapshot", "something is behind it")?;
                let whole = *bytes == snapshot.length && after.last == snapshot.position;
                require(whole, "InstallSnapshot", "not what has arrived")?;
                self.install_snapshot(id, after.last, true)
            }
            _ => require(false, "AppendEntries", "the log changes, and nobody sent anything"),
        }
    }

    /// What the node takes to be on its disk, and what it has forgotten.
    fn explain_disk(&mut self, id: NodeId, view: View<'_>) -> Explained {
        let after = view.status;
        let server = self.server(id);
        if after.durable != server.durable {
            server.durable = after.durable;
            let durable = server.log.at(after.durable);
            let there = durable.is_some_and(|position| view.disk.holds(position));
            require(there, "Written", "it is not on the disk")?;
        }
        if after.base == server.base {
            return Ok(());
        }
        self.compact_log(id, after.base, view.disk)
    }

    /// All that could be compared at no great cost is what the actions have made it.
    fn compare(&self, id: NodeId, view: View<'_>) -> Explained {
        let (server, after) = (&self.servers[&id], view.status);
        require(server.role == after.role, "no action", "another role")?;
        require(server.voted_for == after.voted_for, "no action", "another vote")?;
        require(server.log.last() == after.last, "no action", "another log")?;
        require(server.commit_index == after.commit, "no action", "another commit index")?;
        require(after.durable <= after.last.index, "Written", "beyond the log")?;
        require(after.applied <= after.commit, "Apply", "beyond what is committed")?;
        let (at, configuration) = server.configuration();
        let same = *at == after.membership_index && *configuration == after.membership;
        require(same, "ChangeMembership", "not the last configuration in the log")?;
        for peer in &after.peers {
            let known = server.match_index.get(&peer.id).map_or(LogIndex(0), |(_, index)| *index);
            let action = "HandleAppendEntriesResponse";
            require(peer.match_index <= known, action, "more than was acknowledged")?;
            require(peer.next_index > peer.match_index, action, "next below match")?;
            require(peer.next_index <= after.last.index.next(), action, "next beyond the log")?;
        }
        if self.steps.is_multiple_of(STEPS_BETWEEN_AUDITS) {
            let mut all = server.log.between(after.base.index, after.last.index);
            let same = all.all(|position| term_at(view, position.index) == Some(position));
            require(same, "no action", "another log")?;
        }
        Ok(())
    }
}

/// Was this node told to campaign at once, by the leader of this term?
fn has_consent(cause: &Cause, term: Term) -> bool {
    let Cause::Receive(envelope) = cause else { return false };
    envelope.term == term && matches!(envelope.message, Message::TimeoutNow)
}

/// The position of the entry at `index` of a node's log, or of what it stands on; if it is there.
fn term_at(view: View<'_>, index: LogIndex) -> Option<LogPosition> {
    let Status { base, last, .. } = view.status;
    if index == base.index {
        return Some(*base);
    }
    if index == last.index {
        return Some(*last);
    }
    view.node.entry(index).map(raft_core::Entry::position)
}
