//! The log of a follower against an obviously right twin: a `Vec` that does what Figure 2 says a
//! receiver of AppendEntries does. And the search of a leader for the place where two logs agree
//! (§5.3).

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;
use proptest::prelude::*;
use raft_core::{
    AppendOutcome, Config, Entry, Envelope, GroupId, HardState, Incarnation, Input, Instant,
    LogIndex, LogPosition, Membership, Message, Node, NodeId, Output, Payload, Restored, RoleKind,
    Round, Term, Timestamp,
};
use raft_sim::cluster::{Cluster, n};

/// Two logs that can exist in one cluster: alike up to the fork, of different terms behind it.
#[derive(Clone, Debug)]
struct Fork {
    follower: Vec<Entry>,
    leader: Vec<Entry>,
    /// They agree up to here.
    agree: usize,
    /// The term of a leader that has nothing of it yet.
    term: Term,
}

/// A fork: how many entries each term has before it, and behind it on either side.
fn fork() -> impl Strategy<Value = Fork> {
    let runs = |terms| proptest::collection::vec(0..4usize, terms);
    (runs(0..4), runs(0..5), runs(0..5)).prop_map(|(shared, follower, leader)| {
        let first = shared.len() as u64 + 1;
        let shared = terms(1.., &shared);
        let agree = shared.len();
        // Of the terms behind the fork each side led every other one.
        let with = |own: Vec<u64>| log([&shared[..], &own].concat());
        Fork {
            follower: with(terms((first..).step_by(2), &follower)),
            leader: with(terms((first + 1..).step_by(2), &leader)),
            agree,
            term: Term(first + 20),
        }
    })
}

/// The term of each entry, when each term has so many.
fn terms(terms: impl Iterator<Item = u64>, runs: &[usize]) -> Vec<u64> {
    terms.zip(runs).flat_map(|(term, &count)| std::iter::repeat_n(term, count)).collect()
}

fn log(terms: Vec<u64>) -> Vec<Entry> {
    let entry = |(index, term)| Entry {
        index: LogIndex(index),
        term: Term(term),
        timestamp: Timestamp(index),
        payload: Payload::Command(Bytes::from(format!("{index} in {term}"))),
    };
    (1..).zip(terms).map(entry).collect()
}

/// What a leader sends: these entries of its log, up to this commit index, in this round.
#[derive(Clone, Debug)]
struct Append {
    entries: Range<usize>,
    commit: u64,
    round: u64,
}

/// Any slices of the leader's log, in any order, some of them often.
fn appends() -> impl Strategy<Value = Vec<Append>> {
    let append =
        (0..20usize, 0..6usize, 0..20u64, 0..4u64).prop_map(|(from, count, commit, round)| {
            Append { entries: from..from + count, commit, round }
        });
    proptest::collection::vec(append, 1..20)
}

/// The receiver of Figure 2, AppendEntries, rules 2 to 5, on a `Vec`.
struct Twin {
    log: Vec<Entry>,
    /// The log is the leader's up to here.
    agreed: usize,
    commit: u64,
}

impl Twin {
    /// False if it refuses.
    fn receive(&mut self, prev: Option<&Entry>, entries: &[Entry], leader_commit: u64) -> bool {
        let before = prev.map_or(0, |entry| entry.index.0 as usize);
        if prev.is_some() && self.log.get(before - 1) != prev {
            return false; // 2.
        }
        for (at, entry) in (before..).zip(entries) {
            if self.log.get(at).is_some_and(|mine| mine.term != entry.term) {
                self.log.truncate(at); // 3.
            }
            if at == self.log.len() {
                self.log.push(entry.clone()); // 4.
            }
        }
        // 5., "index of last new entry": up to there the log is the leader's, and it stays so.
        self.agreed = self.agreed.max(before + entries.len());
        self.commit = self.commit.max(leader_commit.min(self.agreed as u64));
        true
    }
}

/// A follower and its disk.
struct Follower {
    node: Node,
    disk: Vec<Entry>,
}

impl Follower {
    fn new(restored: Vec<Entry>) -> Self {
        let term = restored.last().map_or(Term(0), |entry| entry.term);
        let membership = Membership::new([n(1), n(2), n(3)]).expect("three voters");
        let restored = Restored {
            hard_state: HardState { term, voted_for: None },
            entries: restored,
            ..Restored::empty(membership)
        };
        let disk = restored.entries.clone();
        let node =
            Node::new(Config::new(n(1), 1), restored, Instant::default()).expect("a sound log");
        Self { node, disk }
    }

    /// What it answers, until it has nothing more to do.
    fn receive(&mut self, envelope: Envelope) -> Vec<AppendOutcome> {
        let now = Instant::default();
        self.node.step(now, Input::Message(envelope));
        let mut outcomes = Vec::new();
        loop {
            let mut output = Output::default();
            self.node.poll(&mut output);
            for envelope in output.messages {
                let Message::AppendEntriesReply { outcome, .. } = envelope.message else {
                    panic!("not an answer: {envelope}");
                };
                if let AppendOutcome::Accepted { durable, .. } = outcome {
                    assert!(durable.0 <= self.disk.len() as u64, "promised, and not on disk");
                }
                outcomes.push(outcome);
            }
            let Some(write) = output.write else { return outcomes };
            if let Some(from) = write.truncate_from() {
                self.disk.retain(|entry| entry.index < from);
            }
            self.disk.extend_from_slice(write.entries());
            self.node.step(now, Input::Written(write.into_receipt()));
        }
    }

    fn log(&self) -> Vec<Entry> {
        (1..).map_while(|index| self.node.entry(LogIndex(index)).cloned()).collect()
    }
}

/// What follows the hint cannot match, so that nothing is skipped that could; and it leads down.
fn check_hint(fork: &Fork, mine: &[Entry], prev: LogPosition, hint: LogPosition) {
    assert!(hint.index <= prev.index && hint.term <= prev.term, "{hint} is not before {prev}");
    let slot = |index: LogIndex| usize::try_from(index.0).expect("a small log");
    let known =
        mine.get(slot(hint.index).wrapping_sub(1)).map_or(LogPosition::default(), Entry::position);
    assert_eq!(hint, known, "the hint is not in the follower's log");
    for index in slot(hint.index) + 1..=slot(prev.index) {
        let (mine, theirs) = (mine.get(index - 1), fork.leader.get(index - 1));
        assert!(mine.is_none() || mine != theirs, "the hint {hint} skips a match at {index}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn follower_does_what_figure_2_says(fork in fork(), appends in appends()) {
        let mut follower = Follower::new(fork.follower.clone());
        let mut twin = Twin { log: fork.follower.clone(), agreed: 0, commit: 0 };
        for append in appends {
            let length = fork.leader.len();
            let range = append.entries.start.min(length)..append.entries.end.min(length);
            let (before, entries) = (&fork.leader[..range.start], &fork.leader[range]);
            let prev = before.last().map_or(LogPosition::default(), Entry::position);
            let outcomes = follower.receive(Envelope {
                group: GroupId(0), from: n(2), to: n(1), term: fork.term, incarnation: Incarnation(0),
                message: Message::AppendEntries {
                    prev,
                    entries: entries.to_vec().into(),
                    commit: LogIndex(append.commit),
                    round: Round(append.round),
                },
            });
            let mine = twin.log.clone();
            if twin.receive(before.last(), entries, append.commit) {
                let all = LogIndex(twin.agreed as u64);
                let done = AppendOutcome::Accepted { durable: all, received: all };
                let last = outcomes.last();
                prop_assert!(last == Some(&done) || (last.is_none() && entries.is_empty()));
            } else {
                let [AppendOutcome::Refused { prev: asked, hint }] = outcomes[..] else {
                    panic!("{outcomes:?} is not one refusal");
                };
                prop_assert_eq!(asked, prev.index);
                check_hint(&fork, &mine, prev, hint);
            }
            prop_assert_eq!(&follower.log(), &twin.log);
            prop_assert_eq!(&follower.disk, &twin.log);
            prop_assert_eq!(follower.node.status().commit.0, twin.commit);
            prop_assert_eq!(&twin.log[..twin.agreed], &fork.leader[..twin.agreed]);
        }
    }

    /// Each refusal rules out a term of the follower's and one of the leader's.
    #[test]
    fn leader_finds_where_the_logs_agree(fork in fork()) {
        let (leader, other, follower) = (n(1), n(2), n(3));
        let mut cluster = Cluster::in_memory(3, |id, life| Config::new(id, id.get() * 1000 + life));
        // The logs are made by hand: nobody wrote them.
        cluster.checker.forgo_spec();
        for id in [leader, other, follower] {
            let log = if id == follower { &fork.follower } else { &fork.leader };
            cluster.crash(id, 0);
            let disk = &mut cluster.members.get_mut(&id).unwrap().disk.durable;
            disk.hard_state.term = fork.term;
            disk.entries.clone_from(log);
            cluster.restart(id).unwrap();
        }
        cluster.now = cluster.node(leader).deadline();
        cluster.step(leader, Input::Timer);
        let mut network = act(&mut cluster, leader);
        while cluster.node(leader).role().0 != RoleKind::Leader {
            network = exchange(&mut cluster, network, [leader, other]);
        }
        let mut refusals = 0;
        while !network.is_empty() {
            network = exchange(&mut cluster, network, [leader, follower]);
            refusals += network.iter().filter(|envelope| is_refusal(envelope)).count();
        }
        let opened = cluster.node(leader).status().last.index;
        prop_assert_eq!(cluster.node(follower).status().last.index, opened);
        for index in (1..=opened.0).map(LogIndex) {
            prop_assert_eq!(cluster.node(follower).entry(index), cluster.node(leader).entry(index));
        }
        let terms = |log: &[Entry]| {
            log[fork.agree..].iter().map(|entry| entry.term).collect::<BTreeSet<_>>().len()
        };
        let bound = terms(&fork.leader).min(terms(&fork.follower) + 1);
        prop_assert!(refusals <= bound, "{} refusals, at most {}", refusals, bound);
    }
}

/// Delivers what is between these two, the rest is lost; what they say to it.
fn exchange(cluster: &mut Cluster, network: Vec<Envelope>, pair: [NodeId; 2]) -> Vec<Envelope> {
    let mut answers = Vec::new();
    for envelope in network {
        let to = envelope.to;
        if pair.contains(&envelope.from) && pair.contains(&to) {
            cluster.step(to, Input::Message(envelope));
            answers.append(&mut act(cluster, to));
        }
    }
    answers
}

/// What a node says until it has nothing more to do, its disk being quick.
fn act(cluster: &mut Cluster, id: NodeId) -> Vec<Envelope> {
    let mut messages = Vec::new();
    loop {
        let mut effects = cluster.poll(id);
        messages.append(&mut effects.messages);
        if !effects.wrote {
            return messages;
        }
        while cluster.complete(id, 0) {}
    }
}

fn is_refusal(envelope: &Envelope) -> bool {
    let Message::AppendEntriesReply { outcome, .. } = &envelope.message else { return false };
    matches!(outcome, AppendOutcome::Refused { .. })
}
