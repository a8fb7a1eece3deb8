//! The specification refuses what it must: a real node is moved, and the specification is told something
//! else about it, a cause that was none, or a disk that has less.

use bytes::Bytes;
use raft_core::{
    Ballot, BallotKind, Config, Entry, Envelope, GroupId, Incarnation, Input, Instant, LogIndex,
    LogPosition, Membership, Message, Node, NodeId, Output, Payload, QuestionId, Restored,
    RoleKind, Round, Term, Timestamp,
};
use raft_sim::cluster::n;
use raft_sim::spec::{Cause, Spec, View};
use raft_sim::storage::durable::Durable;

/// One node of a cluster, its disk, and the specification that watches it.
struct Watched {
    node: Node,
    disk: Durable,
    spec: Spec,
}

const ID: u64 = 1;

impl Watched {
    fn of(size: u64) -> Self {
        let membership = Membership::new((1..=size).map(n)).expect("some voters");
        let restored = Restored::empty(membership);
        let disk = Durable::of(&restored);
        let node = Node::new(Config::new(n(ID), 7), restored, Instant::default());
        let mut spec = Spec::default();
        spec.start(n(ID), &disk);
        Self { node: node.expect("an empty disk"), disk, spec }
    }

    fn observe(&mut self, cause: &Cause) {
        let status = self.node.status();
        let view = View { node: &self.node, status: &status, disk: &self.disk };
        self.spec.observe(n(ID), cause, view);
    }

    fn step(&mut self, input: Input) -> Cause {
        let cause = Cause::of(&input);
        let now =
            if matches!(input, Input::Timer) { self.node.deadline() } else { Instant::default() };
        self.node.step(now, input);
        cause
    }

    /// Polls; the disk writes at once, and the messages are checked.
    fn poll(&mut self) -> Output {
        let mut output = Output::default();
        self.node.poll(&mut output);
        self.observe(&Cause::Poll);
        for envelope in &output.messages {
            self.spec.send(envelope, &self.disk);
        }
        output
    }

    /// Does all that there is to do.
    fn settle(&mut self) {
        while let Some(write) = self.poll().write {
            self.disk.write(&write);
            let cause = self.step(Input::Written(write.into_receipt()));
            self.observe(&cause);
        }
    }
}

fn from(id: u64, term: u64, message: Message) -> Envelope {
    let (group, incarnation) = (GroupId::default(), Incarnation(0));
    Envelope { group, from: n(id), to: n(ID), term: Term(term), incarnation, message }
}

fn vote_for(id: u64, term: u64) -> Envelope {
    let campaign = QuestionId { life: 9, number: 1 };
    let ballot = Ballot { kind: BallotKind::Vote, campaign };
    from(id, term, Message::RequestVote { ballot, last: LogPosition::ZERO })
}

fn append_from(id: u64, term: u64, commit: u64) -> Envelope {
    let (index, term_of_entry) = (LogIndex(1), Term(term));
    let timestamp = Timestamp(0);
    let entry = Entry { index, term: term_of_entry, timestamp, payload: Payload::Noop };
    let (prev, entries, commit) = (LogPosition::ZERO, vec![entry].into(), LogIndex(commit));
    from(id, term, Message::AppendEntries { prev, entries, commit, round: Round(1) })
}

fn leads(id: NodeId, node: &Node) -> bool {
    let status = node.status();
    status.id == id && status.role == RoleKind::Leader
}

#[test]
fn a_node_alone_elects_itself_and_commits() {
    let mut watched = Watched::of(1);
    let cause = watched.step(Input::Timer);
    watched.observe(&cause);
    watched.settle();
    assert!(leads(n(ID), &watched.node));
    let command = vec![Bytes::from_static(b"x")];
    watched.node.propose(Instant::default(), Timestamp(0), command).expect("it leads");
    watched.observe(&Cause::Propose);
    watched.settle();
    assert_eq!(watched.node.status().commit, LogIndex(2));
}

#[test]
#[should_panic(expected = "BecomeLeader of n1 has no explanation: no quorum has voted for it")]
fn its_own_vote_must_be_on_its_disk() {
    let mut watched = Watched::of(1);
    let cause = watched.step(Input::Timer);
    watched.observe(&cause);
    let write = watched.poll().write.expect("a vote");
    // The receipt comes, and the disk has nothing.
    let cause = watched.step(Input::Written(write.into_receipt()));
    watched.observe(&cause);
}

#[test]
#[should_panic(expected = "ClientRequest of n1 has no explanation: a command that nobody proposed")]
fn commands_are_proposed() {
    let mut watched = Watched::of(1);
    let cause = watched.step(Input::Timer);
    watched.observe(&cause);
    watched.settle();
    let command = vec![Bytes::from_static(b"x")];
    watched.node.propose(Instant::default(), Timestamp(0), command).expect("it leads");
    watched.observe(&Cause::Progress);
}

#[test]
#[should_panic(expected = "HandleRequestVoteRequest of n1 has no explanation: nobody asked")]
fn a_vote_is_asked_for() {
    let mut watched = Watched::of(3);
    let _asked = watched.step(Input::Message(vote_for(2, 1)));
    let other = vote_for(3, 1);
    watched.observe(&Cause::Receive(other));
}

#[test]
#[should_panic(expected = "Timeout of n1 has no explanation: nobody would vote for it")]
fn terms_come_with_messages() {
    let mut watched = Watched::of(3);
    let _asked = watched.step(Input::Message(vote_for(2, 1)));
    watched.observe(&Cause::Timer);
}

/// What another node answers to a question of this one.
fn yes_to(asked: &Output) -> Envelope {
    let Message::RequestVote { ballot, .. } = asked.messages[0].message else {
        panic!("it asks for votes");
    };
    from(2, 0, Message::RequestVoteReply { ballot, granted: true })
}

#[test]
#[should_panic(expected = "Timeout of n1 has no explanation: nobody would vote for it")]
fn an_answer_to_an_earlier_question_does_not_count() {
    let mut watched = Watched::of(3);
    let answers = [1, 2].map(|_| {
        let cause = watched.step(Input::Timer);
        watched.observe(&cause);
        yes_to(&watched.poll())
    });
    let _counted = watched.step(Input::Message(answers[1].clone()));
    watched.observe(&Cause::Receive(answers[0].clone()));
}

#[test]
#[should_panic(expected = "AppendEntries of n1 has no explanation: the log changes")]
fn entries_come_with_messages() {
    let mut watched = Watched::of(3);
    let cause = watched.step(Input::Message(vote_for(2, 1)));
    watched.observe(&cause);
    let _sent = watched.step(Input::Message(append_from(2, 1, 0)));
    watched.observe(&Cause::Progress);
}

#[test]
#[should_panic(expected = "LearnCommitIndex of n1 has no explanation: from whom")]
fn who_commits_was_elected() {
    let mut watched = Watched::of(3);
    let cause = watched.step(Input::Message(append_from(2, 1, 1)));
    watched.observe(&cause);
}

#[test]
#[should_panic(expected = "a term or a vote that is not durable")]
fn a_vote_is_durable_before_it_leaves() {
    let mut watched = Watched::of(3);
    let cause = watched.step(Input::Message(vote_for(2, 1)));
    watched.observe(&cause);
    let write = watched.poll().write.expect("a vote");
    let cause = watched.step(Input::Written(write.into_receipt()));
    watched.observe(&cause);
    watched.poll();
}

#[test]
#[should_panic(
    expected = "Restart of n1 has no explanation: a term or a vote that left it is forgotten"
)]
fn a_vote_that_left_is_remembered() {
    let mut watched = Watched::of(3);
    let cause = watched.step(Input::Message(vote_for(2, 1)));
    watched.observe(&cause);
    watched.settle();
    watched.disk.hard_state.voted_for = None;
    watched.spec.start(n(ID), &watched.disk);
}
