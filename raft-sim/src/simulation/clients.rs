//! Clients: each asks one thing at a time, waits only so long, and asks another node then.

use std::rc::Rc;
use std::time::Duration;

use raft_core::{Instant, LogIndex};

use super::traffic::{Answer, Asked, Caller, Refusal, Traffic};
use super::{Happening, Simulation};
use crate::history::{End, Freshness, Request};
use crate::machine::{Operation, Workload};

/// No client goes on with one operation for longer than this.
pub(super) const OPERATION_MAX: Duration = Duration::from_secs(6);

/// What a node passes on to the leader is no use after this time.
pub(super) const FORWARD_MAX: Duration = Duration::from_secs(2);

/// No command is proposed again this long after its operation began: how long a machine has to know it.
pub const RETRY_MAX: Duration = Duration::from_secs(10);

/// How the clients of a seed behave.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientOptions {
    /// How many there are; ten times as many in a flood.
    pub count: u64,
    /// Are there ten times as many as the cluster can serve?
    pub flood: bool,
    /// How long a client waits for an answer.
    pub patience: Duration,
    /// How many nodes it asks about one operation.
    pub tries: u32,
    /// How long it may take until what is committed is applied.
    pub apply_max: Duration,
}

impl ClientOptions {
    pub(super) fn draw(random: &mut fastrand::Rng) -> Self {
        let millis = |of: u64| Duration::from_millis(of);
        Self {
            count: random.u64(1..=8),
            flood: random.u8(..8) == 0,
            patience: millis([50, 150, 400, 1_000][random.usize(..4)]),
            tries: random.u32(1..=6),
            apply_max: millis([1, 3, 3, 100][random.usize(..4)]),
        }
    }

    /// As many as can be served, who wait for their answers.
    pub(super) fn patient(self) -> Self {
        let apply_max = self.apply_max.min(Duration::from_millis(3));
        Self {
            count: self.count.max(4),
            flood: false,
            patience: Duration::from_secs(1),
            apply_max,
            ..self
        }
    }

    pub(super) fn all(&self) -> u64 {
        if self.flood { self.count * 10 } else { self.count }
    }
}

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    /// How often it might have begun something.
    ticks: u64,
    under_way: Option<UnderWay>,
    /// The highest index that it was told.
    seen: LogIndex,
}

/// An operation that has not ended.
#[derive(Debug)]
struct UnderWay {
    /// Its place in the history.
    operation: usize,
    number: u64,
    began: Instant,
    attempt: u32,
    /// It was told that the last attempt came to nothing.
    refused: bool,
    /// Some attempt may have come to something.
    doubtful: bool,
    patient_until: Instant,
}

impl Client {
    pub(super) fn new() -> Self {
        Self { ticks: 0, under_way: None, seen: LogIndex(0) }
    }

    /// The highest index that it was told.
    pub(super) fn seen(&self) -> LogIndex {
        self.seen
    }

    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_none()
    }
}

impl<W: Workload> Simulation<W> {
    /// Clients begin, one after the other. The last one waits for the second phase.
    pub(super) fn start_clients(&mut self) {
        for client in 0..self.options.clients.all() {
            self.clients.push(Client::new());
            self.next_tick(client);
        }
        self.clients.push(Client::new());
    }

    /// The client that demands progress.
    pub(super) fn prober(&self) -> u64 {
        self.options.clients.all()
    }

    pub(super) fn next_tick(&mut self, client: u64) {
        let ClientOptions { count, .. } = self.options.clients;
        let times = |count| u32::try_from(count).expect("a few");
        let often = self.options.client_interval * times(count);
        let wait = match (self.chaos, self.begin_operations) {
            (true, _) => often * 2,
            (false, true) => Duration::from_millis(50) * times(self.prober()),
            (false, false) => Duration::from_millis(200),
        };
        let wait = self.up_to(wait);
        self.later(wait, Happening::Traffic(Traffic::Tick(client)));
    }

    /// A client that was served goes on soon. In between it has time now and then anyway.
    fn step_soon(&mut self, client: u64) {
        let wait = self.up_to(self.options.client_interval);
        if self.chaos {
            self.later(wait, Happening::Traffic(Traffic::Step(client)));
        }
    }

    /// A client has time: it begins something, or loses patience with what it waits for.
    pub(super) fn step(&mut self, client: u64) {
        let (now, prober) = (self.cluster.now, self.prober());
        let me = &mut self.clients[at(client)];
        me.ticks += 1;
        let Some(under_way) = &mut me.under_way else {
            let may_begin = if client == prober {
                me.seen == LogIndex(0) // Else it has what it wanted.
            } else {
                self.begin_operations && self.intervenes()
            };
            if may_begin {
                self.begin_operation(client);
            }
            return;
        };
        if !under_way.refused {
            if now < under_way.patient_until {
                return;
            }
            under_way.doubtful = true;
        }
        if self.may_try_again(client) {
            self.report.retries += 1;
            self.ask(client);
        } else {
            self.give_up_asking(client);
        }
    }

    fn begin_operation(&mut self, client: u64) {
        let number = self.clients[at(client)].ticks;
        let seen = self.clients[at(client)].seen;
        let request = match self.workload.next(client, number, &mut self.random) {
            // In a lull there are only questions.
            Operation::Write { .. }
                if self.chaos && self.cluster.now < self.trouble.quiet_until =>
            {
                return;
            }
            Operation::Write { command, repeatable } => Request::Write { command, repeatable },
            // Only a write is progress.
            Operation::Query(_) if client == self.prober() => return,
            Operation::Query(query) => Request::Read { query, how: self.freshness(seen) },
        };
        self.report.operations += 1;
        let called = self.report.events;
        let operation = self.history.begin((client, number), request, called);
        let began = self.cluster.now;
        self.clients[at(client)].under_way = Some(UnderWay {
            operation,
            number,
            began,
            attempt: 0,
            refused: false,
            doubtful: false,
            patient_until: began,
        });
        self.ask(client);
    }

    fn freshness(&mut self, seen: LogIndex) -> Freshness {
        let more = self.random.u64(..8).saturating_sub(4);
        match self.random.u8(..8) {
            0..=2 => Freshness::Linearizable,
            3 | 4 => Freshness::Lease,
            5 | 6 => Freshness::AtLeast(LogIndex(seen.0 + more)),
            _ => Freshness::Stale,
        }
    }

    /// Sends what is under way to a node.
    fn ask(&mut self, client: u64) {
        let mut ids = self.cluster.ids();
        let mut patience = self.options.clients.patience;
        if client == self.prober() {
            ids.retain(|id| self.good.contains(id));
            patience = self.timeout().max(Duration::from_millis(100));
        }
        let anyone = self.random.usize(..ids.len().max(1));
        let Some(&anyone) = ids.get(anyone) else { return };
        // A balancer knows who leads, more often than not.
        let knows = self.random.u8(..3) > 0;
        let to = self.leader().filter(|to| knows && ids.contains(to)).unwrap_or(anyone);
        let now = self.cluster.now;
        let me = &mut self.clients[at(client)];
        let under_way = me.under_way.as_mut().expect("there is something to ask");
        under_way.attempt += 1;
        under_way.refused = false;
        under_way.patient_until = now.after(patience);
        let caller = Caller {
            client,
            number: under_way.number,
            attempt: under_way.attempt,
            operation: under_way.operation,
            began: under_way.began,
            until: under_way.patient_until,
            via: None,
        };
        let request = self.history.operation(caller.operation).request.clone();
        let asked = Asked { caller, request };
        let workload = Rc::clone(&self.workload);
        self.note_often(&(2_u8, to, &asked), || format!("{} → {to}", asked.told(&*workload)));
        self.carry(Traffic::Request(to, asked));
    }

    fn may_try_again(&self, client: u64) -> bool {
        let Some(under_way) = &self.clients[at(client)].under_way else { return false };
        let request = &self.history.operation(under_way.operation).request;
        let repeatable = !matches!(request, Request::Write { repeatable: false, .. });
        let tries = self.options.clients.tries;
        let age = self.cluster.now.since(under_way.began);
        (repeatable || !under_way.doubtful)
            && (under_way.attempt < tries || client == self.prober())
            && age < OPERATION_MAX
    }

    fn give_up_asking(&mut self, client: u64) {
        let under_way = self.clients[at(client)].under_way.take();
        let UnderWay { operation, number, doubtful, .. } = under_way.expect("there is something");
        let at = self.report.events;
        let end = if doubtful { End::Open } else { End::Refused { at } };
        self.report.given_up += 1;
        self.note_often(&(3_u8, client, number, doubtful), || {
            format!("c{client}#{number} is given up, {}", if doubtful { "open" } else { "refused" })
        });
        self.history.end(operation, end);
    }

    /// A client is told something. What comes too late is not heard, except that the prober takes an answer to any
    /// of its attempts: it asks often, and a leader's disk may be slow for ever.
    pub(super) fn hear(&mut self, caller: Caller, answer: Answer) {
        let (workload, request) =
            (Rc::clone(&self.workload), self.history.operation(caller.operation).request.clone());
        self.note_often(&(4_u8, caller, &answer), || {
            format!("{caller} hears {}", answer.told(&request, &*workload))
        });
        let Caller { client, number, attempt, operation, until, .. } = caller;
        let (now, at_event, prober) = (self.cluster.now, self.report.events, self.prober());
        let me = &mut self.clients[at(client)];
        let this_attempt = |it: &UnderWay| it.attempt == attempt && !it.refused && now <= until;
        let late = client == prober && matches!(answer, Answer::Done { .. });
        let heard = |it: &UnderWay| it.number == number && (late || this_attempt(it));
        if !me.under_way.as_ref().is_some_and(heard) {
            return;
        }
        let under_way = me.under_way.as_mut().expect("looked at just now");
        match answer {
            Answer::Done { position, response } => {
                me.under_way = None;
                me.seen = me.seen.max(position.index);
                let end = End::Answered { at: at_event, position, response };
                self.history.end(operation, end);
                self.count_answer(operation);
                self.step_soon(client);
            }
            Answer::Refused(why) => {
                under_way.refused = true;
                self.report.refused += 1;
                self.report.refused_busy += u64::from(why == Refusal::Busy);
            }
            Answer::Unknown => {
                (under_way.refused, under_way.doubtful) = (true, true);
                self.report.told_unknown += 1;
            }
        }
    }

    fn count_answer(&mut self, operation: usize) {
        let report = &mut self.report;
        let counter = match self.history.operation(operation).request {
            Request::Write { .. } => &mut report.writes_acknowledged,
            Request::Read { how: Freshness::Linearizable, .. } => &mut report.linearizable_reads,
            Request::Read { how: Freshness::Lease, .. } => &mut report.lease_reads,
            Request::Read { how: Freshness::AtLeast(_), .. } => &mut report.session_reads,
            Request::Read { how: Freshness::Stale, .. } => &mut report.stale_reads,
        };
        *counter += 1;
    }

    /// Puts something on its way, which may be lost.
    pub(super) fn carry(&mut self, traffic: Traffic) {
        let (loss, seed) = (self.random.f64(), self.random.u64(..));
        let calm = Duration::from_millis(5);
        let longest = if self.chaos { self.options.delay_max } else { calm };
        let wait = self.up_to(longest);
        if self.chaos && loss < self.options.loss && self.may_intervene(seed) {
            self.report.lost += 1;
            return self.note_often(&(5_u8, seed), || format!("lost: {traffic}"));
        }
        self.later(wait, Happening::Traffic(traffic));
    }
}

/// The place of a client among all.
pub(super) fn at(client: u64) -> usize {
    usize::try_from(client).expect("a few clients")
}
