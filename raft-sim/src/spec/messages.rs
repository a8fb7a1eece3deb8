//! What a server may say: every message is true at the moment at which it leaves, and would be after a
//! crash in that moment.

use raft_core::{
    AppendOutcome, BallotKind, Entry, Envelope, HardState, LogIndex, LogPosition, Message,
};

use super::{Explained, Spec, Unexplained, require};
use crate::storage::durable::Durable;

impl Spec {
    /// A message leaves a node, whose disk is this.
    ///
    /// # Panics
    /// If it says what is not so.
    pub fn send(&mut self, envelope: &Envelope, disk: &Durable) {
        if let Err(Unexplained { action, broken }) = self.check(envelope, disk) {
            panic!("not a true message: {envelope}\n{action}: {broken}\n{:?}", self.servers);
        }
    }

    fn check(&mut self, envelope: &Envelope, disk: &Durable) -> Explained {
        let (id, to) = (envelope.from, envelope.to);
        let server = self.server(id);
        let (term, voted_for) = (server.current_term, server.voted_for);
        require(envelope.term == term, "Send", "another term")?;
        require(envelope.incarnation == server.incarnation, "Send", "another incarnation")?;
        let durable = disk.hard_state == HardState { term, voted_for };
        require(durable, "Send", "a term or a vote that is not durable")?;
        server.promised = HardState { term, voted_for };
        match &envelope.message {
            Message::RequestVote { ballot, last } => {
                let binds = ballot.kind.binds();
                let consent = ballot.kind != BallotKind::Transfer || server.consent;
                require(!binds || voted_for == Some(id), "RequestVote", "it votes for another")?;
                require(consent, "RequestVote", "without the leader's consent")?;
                require(server.announced.contains(last), "RequestVote", "not where its log ended")?;
                server.ask(*ballot);
                Ok(())
            }
            Message::RequestVoteReply { ballot, granted } => {
                let binds = *granted && ballot.kind.binds();
                let voted = !binds || voted_for == Some(to);
                require(voted, "RequestVoteReply", "it did not vote for the receiver")
            }
            Message::AppendEntries { prev, entries, commit, .. } => {
                self.check_append_entries(envelope, *prev, entries, *commit)
            }
            Message::AppendEntriesReply {
                outcome: AppendOutcome::Accepted { durable, received },
                ..
            } => self.check_acknowledgement(envelope, *durable, *received, disk),
            Message::InstallSnapshot { snapshot } => {
                let base = &snapshot.base;
                require(self.leads(envelope), "InstallSnapshot", "it did not lead")?;
                self.check_contents(base.position)?;
                let brought = self.configurations.iter().filter(|(at, _)| {
                    at.index <= base.position.index && self.committed.contains(**at)
                });
                let latest = brought.max_by_key(|(at, _)| at.index);
                let latest = latest.is_some_and(|(at, membership)| {
                    at.index == base.membership_index && *membership == base.membership
                });
                require(latest, "InstallSnapshot", "not the members as of its end")
            }
            Message::SnapshotChunk { snapshot, bytes: Some(_), .. } => {
                self.check_contents(snapshot.position)
            }
            Message::ReadIndexReply { index: Some(index), .. } => {
                let leader = self.elections.get(&term).filter(|it| it.leader == id);
                let committed = leader.is_some_and(|leader| *index <= leader.commit_index);
                require(committed, "ReadIndexReply", "not committed by this leader")
            }
            Message::TimeoutNow => self.check_consent(envelope),
            Message::AppendEntriesReply { outcome: AppendOutcome::Refused { .. }, .. }
            | Message::SnapshotChunk { bytes: None, .. }
            | Message::ReadIndexReply { index: None, .. }
            | Message::ReadIndex { .. }
            | Message::SnapshotRequest { .. } => Ok(()),
        }
    }

    fn leads(&self, envelope: &Envelope) -> bool {
        let leader = self.elections.get(&envelope.term).map(|election| election.leader);
        leader == Some(envelope.from)
    }

    fn check_contents(&self, position: LogPosition) -> Explained {
        let committed = self.committed.contains(position);
        require(committed, "SendSnapshot", "of what is not committed")
    }

    /// A piece of the leader's log, and no more committed than it has committed.
    fn check_append_entries(
        &self,
        envelope: &Envelope,
        prev: LogPosition,
        entries: &[Entry],
        commit: LogIndex,
    ) -> Explained {
        let refuse = |holds, why| require(holds, "SendAppendEntries", why);
        refuse(self.leads(envelope), "it did not lead")?;
        let leader = &self.elections[&envelope.term];
        refuse(leader.log.contains(prev), "not the entry before")?;
        let follows = (prev.index.0 + 1..).zip(entries).all(|(index, entry)| {
            entry.index == LogIndex(index) && leader.log.contains(entry.position())
        });
        refuse(follows, "not the leader's entries")?;
        refuse(commit <= leader.commit_index, "more than it has committed")
    }

    /// The log is that of the leader so far, and so far it is on the disk.
    fn check_acknowledgement(
        &self,
        envelope: &Envelope,
        durable: LogIndex,
        received: LogIndex,
        disk: &Durable,
    ) -> Explained {
        let refuse = |holds, why| require(holds, "HandleAppendEntriesRequest", why);
        let leader = self.elections.get(&envelope.term).filter(|it| it.leader == envelope.to);
        let leader = leader
            .ok_or(Unexplained { action: "HandleAppendEntriesRequest", broken: "to whom" })?;
        let log = &self.servers[&envelope.from].log;
        refuse(log.agrees(&leader.log, received), "received what is not the leader's log")?;
        refuse(durable <= received, "durable before it was received")?;
        let on_disk = log.at(durable).is_some_and(|position| disk.holds(position));
        refuse(on_disk, "it is not on the disk")
    }

    /// A leader consents to the election of a voter that has all that is committed.
    fn check_consent(&self, envelope: &Envelope) -> Explained {
        let refuse = |holds, why| require(holds, "TimeoutNow", why);
        refuse(self.leads(envelope), "it did not lead")?;
        let (server, to) = (&self.servers[&envelope.from], envelope.to);
        refuse(server.may_have_a_vote(to), "to one without a vote")?;
        let held = server.match_index.get(&to).map_or(LogIndex(0), |(_, index)| *index);
        refuse(held >= server.commit_index, "to one that lacks what is committed")
    }
}
