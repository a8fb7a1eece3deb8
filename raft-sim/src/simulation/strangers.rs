//! Who does not belong here, and what is long over: messages of other groups, of unknown and removed nodes,
//! of disks that are gone, with terms and entries that nobody has; and true messages, said again.
//!
//! What a member could have said and did not is never said: who can forge that can break any Raft. An unknown
//! sender says nothing that only a leader may say, unless it is nonsense; keeping it out is the business of the
//! transport's handshake.

use std::time::Duration;

use bytes::Bytes;
use raft_core::{
    AppendOutcome, Ballot, BallotKind, Entry, Envelope, Event, GroupId, Incarnation, Input,
    Instant, LogIndex, LogPosition, Message, Node, NodeId, Output, Payload, QuestionId, Round,
    Status, Term, Timestamp,
};

use super::kinds::Kind;
use super::{Happening, Simulation};
use crate::cluster::n;
use crate::digest::Digest;
use crate::machine::Workload;
use crate::storage::Storage;

/// So many messages are remembered, to be said again.
const RECORDED_MAX: usize = 64;
/// As many messages make a storm.
const STORM: usize = 40;

impl<W: Workload> Simulation<W> {
    /// Some messages are remembered.
    pub(super) fn record(&mut self, envelope: &Envelope, chance: u64) {
        let matters = matches!(envelope.message, Message::AppendEntries { .. });
        if !chance.is_multiple_of(if matters { 16 } else { 4 }) {
            return;
        }
        let recorded = &mut self.trouble.recorded;
        if recorded.len() >= RECORDED_MAX {
            // Some get very old.
            let place = (chance / 16) as usize % RECORDED_MAX;
            recorded.remove(place);
        }
        recorded.push_back(envelope.clone());
    }

    pub(super) fn stranger(&mut self) {
        if !self.chaos {
            return;
        }
        let wait = self.up_to(self.options.stranger_interval * 2);
        self.later(wait, Happening::Stranger);
        if !self.intervenes() {
            return;
        }
        let Some(id) = self.anyone_running() else { return };
        match self.random.u8(..10) {
            0 => self.nonsense_of_another_group(id),
            1 | 2 => self.unknown_sender(id),
            3 => self.absurd_term(id),
            4 => self.entries_with_gaps(id),
            5 => self.removed_sender(),
            7 => self.second_leader(id),
            6 if self.random.bool() => self.snapshot_storm(id),
            _ => {
                let times = self.random.usize(1..=4);
                self.replay(times, |_| true);
            }
        }
    }

    fn is_forgotten(&self, id: NodeId) -> bool {
        !self.cluster.members.contains_key(&id)
    }

    /// Something that must not matter at all.
    fn must_not_matter(&mut self, kind: Kind, envelope: Envelope) {
        self.count(kind);
        self.note(|| format!("{}: {envelope}", kind.name()));
        let to = envelope.to;
        self.check_that_it_changes_nothing(kind, &envelope);
        self.cluster.step(to, Input::Message(envelope));
        self.poll_soon(to);
    }

    /// Two nodes that are the same, of which one hears this and the other does not, must be the same
    /// afterwards, timers included, and hand out the same, but for the word that something was ignored.
    ///
    /// So nothing is sent in answer either. An answer is owed to who asks in a term that has passed, and
    /// to the leader of the present one; what is said here is refused before its term is looked at, or
    /// comes in a term whose leader is another node.
    fn check_that_it_changes_nothing(&self, kind: Kind, envelope: &Envelope) {
        let (node, now) = (self.cluster.node(envelope.to), self.cluster.clock(envelope.to));
        let hears = Afterwards::of(node, now, Input::Message(envelope.clone()));
        // The clock goes on, and nothing else happens.
        let does_not = Afterwards::of(node, now, Input::Applied(node.status().applied));
        assert_eq!(hears, does_not, "{} had an effect: {envelope}", kind.name());
    }

    fn nonsense_of_another_group(&mut self, to: NodeId) {
        let group = GroupId(self.random.u64(1..));
        let recorded = self.any_recorded(|it| it.to == to);
        let (status, from) = (self.cluster.node(to).status(), self.stranger_id());
        let envelope = recorded.unwrap_or_else(|| {
            let entries = [command(status.term, status.last.index.next())];
            self.append(from, to, status.term, status.last, entries.into())
        });
        self.must_not_matter(Kind::WrongGroup, Envelope { group, ..envelope });
    }

    fn stranger_id(&mut self) -> NodeId {
        n(1_000_000 + self.random.u64(..4))
    }

    fn append(
        &self,
        from: NodeId,
        to: NodeId,
        term: Term,
        prev: LogPosition,
        entries: Vec<Entry>,
    ) -> Envelope {
        let commit = LogIndex(u64::MAX);
        let message =
            Message::AppendEntries { prev, entries: entries.into(), commit, round: Round(1) };
        stranger_says(from, to, term, message)
    }

    fn absurd_term(&mut self, to: NodeId) {
        let status = self.cluster.node(to).status();
        let jump = self.random.u64(..1 << 20);
        let term = Term(match self.random.u8(..4) {
            0 => u64::MAX - jump,
            1 => (1 << 63) + 1 + jump,
            2 => status.term.0 + (1 << 32) + 1 + jump,
            _ => u64::MAX,
        });
        let from = self.stranger_id();
        let ballot = self.ballot(BallotKind::Vote);
        let last = LogPosition::new(term, LogIndex(u64::MAX));
        let envelope = match self.random.u8(..4) {
            0 => self.append(from, to, term, status.last, Vec::new()),
            1 => stranger_says(from, to, term, Message::RequestVote { ballot, last }),
            2 => stranger_says(from, to, term, Message::TimeoutNow),
            // A true message whose term was damaged on its way.
            _ => match self.any_recorded(|it| it.to == to) {
                Some(envelope) => Envelope { term, ..envelope },
                None => stranger_says(from, to, term, Message::TimeoutNow),
            },
        };
        self.must_not_matter(Kind::AbsurdTerm, envelope);
    }

    /// Of a term of which this node knows the leader nobody else can be one.
    fn second_leader(&mut self, to: NodeId) {
        let Status { term, leader, last, .. } = self.cluster.node(to).status();
        let from = self.stranger_id();
        let snapshot = self.any_recorded(|it| {
            it.term == term && matches!(it.message, Message::InstallSnapshot { .. })
        });
        let choice = self.random.u8(..4);
        let envelope = match (choice, snapshot) {
            _ if leader.is_none() => return,
            (0, _) => self.append(from, to, term, last, Vec::new()),
            (1, _) => self.append(from, to, term, last, vec![command(term, last.index.next())]),
            (2, Some(snapshot)) => stranger_says(from, to, term, snapshot.message),
            _ => stranger_says(from, to, term, Message::TimeoutNow),
        };
        self.must_not_matter(Kind::SecondLeader, envelope);
    }

    fn entries_with_gaps(&mut self, to: NodeId) {
        let status = self.cluster.node(to).status();
        let (term, last) = (status.term, status.last);
        let (one, two) = (last.index.next(), last.index.next().next());
        let (prev, entries) = match self.random.u8(..5) {
            0 => (last, vec![command(term, two)]),
            1 => (last, vec![command(term, one), command(term, two.next())]),
            2 => (last, vec![command(Term(term.0 + 1), one)]),
            3 => (LogPosition::new(term, LogIndex(u64::MAX)), vec![command(term, LogIndex(0))]),
            _ => (LogPosition::new(Term(term.0 + 1), one), vec![command(term, two)]),
        };
        let from = self.stranger_id();
        let envelope = self.append(from, to, term, prev, entries);
        self.must_not_matter(Kind::EntryGaps, envelope);
    }

    /// What it says may be heard, but it must not count.
    fn unknown_sender(&mut self, to: NodeId) {
        let status = self.cluster.node(to).status();
        let term = Term(status.term.0 + [0, 0, 0, 1, 1_000][self.random.usize(..5)]);
        let last = LogPosition::new(term, LogIndex(1 << 40));
        let asked = self.any_recorded(|it| {
            it.from == to && it.term == term && matches!(it.message, Message::RequestVote { .. })
        });
        let (round, index) = (Round(1 << 40), status.last.index);
        let message = match (self.random.u8(..7), asked.map(|it| it.message)) {
            (0..=2, Some(Message::RequestVote { ballot, .. })) => {
                Message::RequestVoteReply { ballot, granted: true }
            }
            (0, _) => Message::RequestVote { ballot: self.ballot(BallotKind::Vote), last },
            (1, _) => Message::RequestVote { ballot: self.ballot(BallotKind::PreVote), last },
            (2, _) => Message::ReadIndexReply { ticket: self.question(), index: Some(index) },
            (3, _) => Message::ReadIndex { ticket: self.question(), lease: self.random.bool() },
            _ => Message::AppendEntriesReply {
                round,
                outcome: AppendOutcome::Accepted { durable: index, received: index },
            },
        };
        self.count(Kind::UnknownSender);
        let from = self.stranger_id();
        self.later(Duration::ZERO, Happening::Deliver(stranger_says(from, to, term, message)));
    }

    fn question(&mut self) -> QuestionId {
        QuestionId { life: self.random.u64(..), number: self.random.u64(1..9) }
    }

    fn ballot(&mut self, kind: BallotKind) -> Ballot {
        Ballot { kind, campaign: self.question() }
    }

    /// The storage of a peer was replaced, and this node knows: now the old one acknowledges everything.
    pub(super) fn speak_from_the_grave(&mut self, to: NodeId, peer: NodeId, now: Incarnation) {
        let seed = self.random.u64(..);
        let Some(before) = now.0.checked_sub(1) else { return };
        if !self.chaos || !self.may_intervene(seed) {
            return;
        }
        let status = self.cluster.node(to).status();
        let (round, index) = (Round(1 << 40), status.last.index);
        let outcome = AppendOutcome::Accepted { durable: index, received: index };
        let message = Message::AppendEntriesReply { round, outcome };
        let mut envelope = stranger_says(peer, to, status.term, message);
        envelope.incarnation = Incarnation(before);
        self.count(Kind::StaleIncarnation);
        self.check_that_it_changes_nothing(Kind::StaleIncarnation, &envelope);
        self.cluster.step(to, Input::Message(envelope));
    }

    fn removed_sender(&mut self) {
        let gone: Vec<NodeId> = self
            .trouble
            .recorded
            .iter()
            .map(|it| it.from)
            .filter(|&id| self.is_forgotten(id))
            .collect();
        if gone.is_empty() {
            return;
        }
        self.replay(4, |it| gone.contains(&it.from));
    }

    fn any_recorded(&mut self, wanted: impl Fn(&Envelope) -> bool) -> Option<Envelope> {
        let some: Vec<&Envelope> = self.trouble.recorded.iter().filter(|it| wanted(it)).collect();
        let place = self.random.usize(..some.len().max(1));
        some.get(place).map(|&it| it.clone())
    }

    /// What was said once is said again.
    pub(super) fn replay(&mut self, times: usize, wanted: impl Fn(&Envelope) -> bool) {
        for _ in 0..times {
            let Some(envelope) = self.any_recorded(&wanted) else { return };
            self.count(Kind::Replay);
            let (from, to) = (envelope.from, envelope.to);
            let unknown = self.is_forgotten(from)
                || self.cluster.is_up(to)
                    && !self.cluster.node(to).status().membership.contains(from);
            if unknown && self.cluster.is_up(to) {
                self.count(Kind::RemovedSender);
            }
            let wait = self.up_to(self.options.delay_max);
            self.later(wait, Happening::Deliver(envelope));
        }
    }

    /// Everybody wants the snapshot at once, from the beginning and from anywhere.
    fn snapshot_storm(&mut self, to: NodeId) {
        let status = self.cluster.node(to).status();
        let Some(snapshot) = status.snapshot else { return };
        self.count(Kind::SnapshotStorm);
        self.note(|| format!("{to} is asked for {snapshot} from all sides"));
        let others: Vec<NodeId> = status.membership.nodes().filter(|&it| it != to).collect();
        for _ in 0..STORM {
            let stranger = self.stranger_id();
            let known = others.get(self.random.usize(..others.len().max(1))).copied();
            let from = known.filter(|_| self.random.bool()).unwrap_or(stranger);
            // A question is no forgery: any member may ask so, at any time.
            let offset = self.random.u64(..=snapshot.length);
            let message = Message::SnapshotRequest { snapshot, offset };
            let mut envelope = stranger_says(from, to, status.term, message);
            if let Some(member) = self.cluster.members.get(&from) {
                envelope.incarnation = member.disk.durable().incarnation;
                envelope.term = member.disk.durable().hard_state.term;
            }
            let wait = self.up_to(self.options.delay_max);
            self.later(wait, Happening::Deliver(envelope));
        }
    }
}

fn stranger_says(from: NodeId, to: NodeId, term: Term, message: Message) -> Envelope {
    Envelope { group: GroupId(0), from, to, term, incarnation: Incarnation(0), message }
}

fn command(term: Term, index: LogIndex) -> Entry {
    let payload = Payload::Command(Bytes::from_static(b"nobody's"));
    Entry { index, term, timestamp: Timestamp(u64::MAX), payload }
}

/// What a node is and hands out after an input.
#[derive(Debug, PartialEq, Eq)]
struct Afterwards {
    status: Status,
    deadline: Instant,
    /// What it hands out at the next poll.
    output: String,
    /// All that decides what it does from then on.
    fingerprint: u128,
}

impl Afterwards {
    fn of(node: &Node, now: Instant, input: Input) -> Self {
        let (mut node, mut output) = (node.clone(), Output::default());
        node.step(now, input);
        let (status, deadline) = (node.status(), node.deadline());
        node.poll(&mut output);
        output.events.retain(|event| !matches!(event, Event::Ignored { .. }));
        let mut digest = Digest::default();
        node.fingerprint(&mut digest);
        Self { status, deadline, output: format!("{output:?}"), fingerprint: digest.value() }
    }
}
