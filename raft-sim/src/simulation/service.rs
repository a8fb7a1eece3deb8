//! What a node does for clients, as a driver would: it takes in what was asked, passes on what is the
//! leader's business, and answers everyone when the state machine has got there.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use raft_core::{
    Consistency, Entry, Fate, LogIndex, LogPosition, NodeId, ProposalOutcome, ProposeRefusal,
    ReadId, ReadOutcome, ReadRefused, RoleKind,
};

use super::Moment;
use super::clients::{FORWARD_MAX, RETRY_MAX};
use super::traffic::{Answer, Asked, Caller, Refusal, Traffic};
use super::{Happening, Simulation};
use crate::history::{Freshness, Request};
use crate::machine::{StateMachine, Workload};

/// Who waits for what at a node. It ends with the life of the node.
#[derive(Debug, Default)]
pub(super) struct Service {
    life: u64,
    /// Not taken in yet.
    inbox: VecDeque<Asked>,
    /// In the log, not known to be committed.
    proposals: BTreeMap<LogPosition, Caller>,
    /// Committed, not applied.
    committed: VecDeque<(LogPosition, Caller)>,
    /// The index is not known yet.
    reads: BTreeMap<ReadId, (Caller, Bytes)>,
    /// The state machine has not got there.
    waiting: BTreeMap<LogIndex, Vec<(Caller, Bytes)>>,
}

impl Service {
    /// Does anyone wait here?
    pub(super) fn is_idle(&self) -> bool {
        let Self { life: _, inbox, proposals, committed, reads, waiting } = self;
        inbox.is_empty()
            && proposals.is_empty()
            && committed.is_empty()
            && reads.is_empty()
            && waiting.is_empty()
    }

    /// Takes out who waits for these committed entries, and who waited for others in their place.
    fn take_committed(&mut self, entries: &[Entry]) -> Vec<(Caller, Answer)> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Vec::new();
        };
        let mut answers = Vec::new();
        let mut reached: Vec<LogPosition> = self.proposals.keys().copied().collect();
        reached.retain(|position| position.index <= last.index);
        reached.sort_by_key(|position| position.index);
        for position in reached {
            let caller = self.proposals.remove(&position).expect("listed just now");
            let offset = position.index.0.checked_sub(first.index.0);
            let chosen = offset.and_then(|offset| entries.get(usize::try_from(offset).ok()?));
            match chosen {
                Some(entry) if entry.term == position.term => {
                    self.committed.push_back((position, caller));
                }
                Some(_) => answers.push((caller, Answer::Refused(Refusal::Superseded))),
                None => answers.push((caller, Answer::Unknown)),
            }
        }
        answers
    }

    /// What became of entries, as far as their commit does not say it.
    fn settle(&mut self, outcome: &ProposalOutcome) -> Vec<(Caller, Answer)> {
        let ProposalOutcome { first, last, fate } = outcome;
        let answer = match fate {
            Fate::Committed => return Vec::new(), // Answered when they are applied.
            Fate::Superseded => Answer::Refused(Refusal::Superseded),
            Fate::Unknown => Answer::Unknown,
        };
        let positions: Vec<LogPosition> =
            self.proposals.range(*first..=*last).map(|(&position, _)| position).collect();
        let callers = positions.iter().filter_map(|position| self.proposals.remove(position));
        callers.map(|caller| (caller, answer.clone())).collect()
    }
}

impl<W: Workload> Simulation<W> {
    pub(super) fn service(&mut self, id: NodeId) -> &mut Service {
        let life = self.cluster.members[&id].lives;
        let service = self.services.entry(id).or_default();
        if service.life != life {
            *service = Service { life, ..Service::default() };
        }
        service
    }

    /// Something between clients and nodes arrives, or is due.
    pub(super) fn arrive(&mut self, traffic: Traffic) {
        if let Some(to) = traffic.to().filter(|to| self.paused.contains(to)) {
            let held = self.trouble.held.entry(to).or_default();
            return held.push(Happening::Traffic(traffic)); // It does all that when it goes on.
        }
        match traffic {
            Traffic::Tick(client) => {
                self.next_tick(client);
                self.step(client);
            }
            Traffic::Step(client) => self.step(client),
            Traffic::Request(to, asked) => self.take(to, asked),
            Traffic::Forward(from, to, asked) => {
                if self.is_cut(from, to) || !self.cluster.is_up(to) {
                    return self.lose_traffic(&Traffic::Forward(from, to, asked));
                }
                self.take(to, asked);
            }
            Traffic::Serve(id, life) => {
                if self.cluster.members.get(&id).is_some_and(|it| it.lives == life) && self.runs(id)
                {
                    self.serve(id);
                }
            }
            Traffic::Relay(from, to, life, caller, answer) => {
                let same_life = self.cluster.members.get(&to).is_some_and(|it| it.lives == life);
                if self.is_cut(from, to) || !self.cluster.is_up(to) || !same_life {
                    return self.lose_traffic(&Traffic::Relay(from, to, life, caller, answer));
                }
                self.carry(Traffic::Answer(caller, answer));
            }
            Traffic::Answer(caller, answer) => self.hear(caller, answer),
        }
    }

    fn lose_traffic(&mut self, traffic: &Traffic) {
        self.report.lost += 1;
        self.note_often(&6_u8, || format!("lost: {traffic}"));
    }

    /// A request reaches a node, which takes it in at once or lets more queue up.
    fn take(&mut self, to: NodeId, asked: Asked) {
        if !self.cluster.is_up(to) {
            return self.answer(to, asked.caller, Answer::Refused(Refusal::Unreachable));
        }
        self.note_often(&(7_u8, to, &asked), || format!("{to} gets {}", asked.caller));
        let service = self.service(to);
        service.inbox.push_back(asked);
        if service.inbox.len() > 1 {
            return; // Somebody looks after it already.
        }
        let life = service.life;
        if self.random.f64() >= self.options.lazy_poll {
            return self.serve(to);
        }
        let wait = self.up_to(Duration::from_millis(2));
        self.later(wait, Happening::Traffic(Traffic::Serve(to, life)));
    }

    /// A node takes in all that was asked.
    fn serve(&mut self, id: NodeId) {
        let asked = std::mem::take(&mut self.service(id).inbox);
        let mut together = Vec::new();
        for Asked { caller, request } in asked {
            let patience = if caller.via.is_some() { FORWARD_MAX } else { Duration::ZERO };
            if self.cluster.now > caller.until.after(patience) {
                continue; // The client has hung up, or the stream from the other node has ended.
            }
            match request {
                Request::Write { command, .. } => together.push((caller, command)),
                Request::Read { query, how } => self.read(id, caller, query, how),
            }
        }
        while !together.is_empty() {
            let rest = together.split_off(self.random.usize(1..=4).min(together.len()));
            self.propose(id, std::mem::replace(&mut together, rest));
        }
        self.poll_soon(id);
    }

    fn propose(&mut self, id: NodeId, together: Vec<(Caller, Bytes)>) {
        let commands = together.iter().map(|(_, command)| command.clone()).collect();
        let refusal = match self.cluster.propose(id, commands) {
            Ok(proposed) => {
                self.report.proposals += 1;
                self.check_uncommitted(id, proposed.first.index);
                for (index, (caller, _)) in (proposed.first.index.0..).zip(together) {
                    let position = LogPosition::new(proposed.first.term, LogIndex(index));
                    self.register(id, position, caller);
                }
                return;
            }
            Err(refused) => refused.reason,
        };
        let busy = matches!(refusal, ProposeRefusal::Busy { .. });
        let leader = match refusal {
            ProposeRefusal::NotLeader { hint } => hint,
            ProposeRefusal::Transferring { to } => Some(to),
            _ => None,
        };
        for (mut caller, command) in together {
            match leader {
                Some(leader) if caller.via.is_none() && leader != id => {
                    self.report.forwarded += 1;
                    caller.via = Some((id, self.cluster.members[&id].lives));
                    let request = Request::Write { command, repeatable: true };
                    self.carry(Traffic::Forward(id, leader, Asked { caller, request }));
                }
                _ => {
                    let why = if busy { Refusal::Busy } else { Refusal::NotLeader };
                    self.answer(id, caller, Answer::Refused(why));
                }
            }
        }
    }

    fn register(&mut self, id: NodeId, position: LogPosition, caller: Caller) {
        self.note_often(&(8_u8, id, position), || format!("{id} takes {caller} as {position}"));
        self.history.propose(position, caller.operation);
        let age = self.cluster.now.since(caller.began);
        assert!(age <= RETRY_MAX, "{caller} is proposed too late");
        self.service(id).proposals.insert(position, caller);
    }

    /// A leader that is overloaded refuses; it does not collect.
    fn check_uncommitted(&self, id: NodeId, first: LogIndex) {
        let node = self.cluster.node(id);
        let status = node.status();
        let open = (status.commit.0 + 1..=status.last.index.0).map(LogIndex);
        let bytes: u64 = open.filter_map(|index| node.entry(index)).map(Entry::size_bytes).sum();
        let max = self.options.uncommitted_bytes_max.max(self.options.append_bytes_max);
        let alone = first == status.commit.next();
        assert!(alone || bytes <= max, "{id} took more than it may: {bytes} bytes");
    }

    fn read(&mut self, id: NodeId, caller: Caller, query: Bytes, how: Freshness) {
        let consistency = match how {
            Freshness::Linearizable => Consistency::Linearizable,
            Freshness::Lease => Consistency::Lease,
            Freshness::AtLeast(index) => Consistency::AtLeast(index),
            Freshness::Stale => return self.answer_read(id, caller, &query),
        };
        match self.cluster.read(id, consistency) {
            Ok(read) => {
                self.service(id).reads.insert(read, (caller, query));
                // A follower's question is seen on its way.
                if how == Freshness::Linearizable
                    && self.cluster.node(id).role().0 == RoleKind::Leader
                {
                    self.strike_at(id, Moment::ReadRoundOpen);
                }
            }
            Err(why) => self.answer(id, caller, Answer::Refused(read_refusal(why))),
        }
    }

    fn answer_read(&mut self, id: NodeId, caller: Caller, query: &Bytes) {
        let replica = self.cluster.replica(id);
        let (position, response) = (replica.applied(), replica.machine().query(query));
        self.answer(id, caller, Answer::Done { position, response });
    }

    /// Sends an answer back on the way on which the question came.
    fn answer(&mut self, id: NodeId, caller: Caller, answer: Answer) {
        match caller.via {
            Some((via, life)) => self.carry(Traffic::Relay(id, via, life, caller, answer)),
            None => self.carry(Traffic::Answer(caller, answer)),
        }
    }

    /// A node was polled: what became of what it was asked.
    pub(super) fn settle(
        &mut self,
        id: NodeId,
        proposals: &[ProposalOutcome],
        committed: &[Entry],
        reads: Vec<ReadOutcome>,
    ) {
        self.watch_disk(id);
        let mut answers = Vec::new();
        let service = self.service(id);
        for outcome in proposals {
            answers.extend(service.settle(outcome));
        }
        answers.extend(service.take_committed(committed));
        for ReadOutcome { id: read, index } in reads {
            // Not all reads are a client's.
            let Some((caller, query)) = self.service(id).reads.remove(&read) else { continue };
            match index {
                Ok(index) if index <= self.cluster.replica(id).applied().index => {
                    self.answer_read(id, caller, &query);
                }
                Ok(index) => {
                    self.service(id).waiting.entry(index).or_default().push((caller, query));
                }
                Err(why) => answers.push((caller, Answer::Refused(read_refusal(why)))),
            }
        }
        for (caller, answer) in answers {
            self.answer(id, caller, answer);
        }
        let (count, bytes) = self.cluster.replica(id).queued();
        let within = bytes <= self.options.unapplied_bytes_max || count == 1;
        assert!(within, "{count} entries, {bytes} bytes, wait for the machine of {id}");
    }

    /// The state machine of a node gets as far as this.
    pub(super) fn apply(&mut self, id: NodeId, index: LogIndex) {
        let applied = self.cluster.apply(id, index);
        for one in applied {
            let service = self.service(id);
            let next = service.committed.front().map(|(position, _)| *position);
            if next == Some(one.position)
                && let Some((position, caller)) = service.committed.pop_front()
            {
                let response = one.response;
                self.answer(id, caller, Answer::Done { position, response });
            }
        }
        let now_at = self.cluster.replica(id).applied().index;
        while let Some(entry) = self.service(id).waiting.first_entry()
            && *entry.key() <= now_at
        {
            for (caller, query) in entry.remove() {
                self.answer_read(id, caller, &query);
            }
        }
        self.poll_soon(id);
    }

    /// The first of these nodes at which somebody still waits, and for what.
    pub(super) fn somebody_waits(&mut self, ids: &[NodeId]) -> Option<String> {
        ids.iter().find_map(|&id| {
            let service = self.service(id);
            (!service.is_idle()).then(|| format!("{id}: {service:?}"))
        })
    }
}

fn read_refusal(why: ReadRefused) -> Refusal {
    match why {
        ReadRefused::Busy => Refusal::Busy,
        ReadRefused::NotReached { .. } => Refusal::NotReached,
        _ => Refusal::NotLeader,
    }
}
