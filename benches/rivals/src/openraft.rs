//! Three nodes of openraft on one single-threaded runtime, in the shape of its own in-memory cluster
//! benchmark: an RPC is a call of the other node, the log is in memory. The log is a `Vec` behind a
//! plain mutex, which is cheaper than the `BTreeMap` behind an asynchronous lock there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use openraft::alias::{EntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf};
use openraft::entry::RaftEntry as _;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::storage::{
    EntryResponder, IOFlushed, LogState, RaftLogReader, RaftLogStorage, RaftSnapshotBuilder,
    RaftStateMachine,
};
use openraft::{Config, EntryPayload, OptionalSend, Raft};
use tokio::runtime::{Builder, Runtime};

use crate::applied::Applied;

/// A command, with the `Display` that openraft wants.
#[derive(Clone, Debug)]
pub struct Command(Bytes);

impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

openraft::declare_raft_types!(pub Types: D = Command, R = (), Node = ());

type Member = Raft<Types, StateMachine>;

/// How the commands of one round reach the leader.
#[derive(Clone, Copy, Debug)]
pub enum Clients {
    /// Each through a client of its own that waits for its answer.
    Each,
    /// All in one call.
    Together,
}

/// A cluster whose first node leads.
pub struct Cluster {
    runtime: Runtime,
    members: Vec<Member>,
    logs: Vec<Log>,
    machines: Vec<StateMachine>,
    clients: Clients,
}

impl Cluster {
    /// Three nodes and an election.
    pub fn new(clients: Clients) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let logs: Vec<Log> = (0..3).map(|_| Log::default()).collect();
        let machines: Vec<StateMachine> = (0..3).map(|_| StateMachine::default()).collect();
        let members = runtime.block_on(start(&logs, &machines));
        Self { runtime, members, logs, machines, clients }
    }

    /// So many times: gives the leader all commands, and waits until it has applied them.
    pub fn commit(&mut self, commands: &[Bytes], rounds: usize) {
        let leader = &self.members[0];
        match self.clients {
            Clients::Together => self.runtime.block_on(async {
                for _ in 0..rounds {
                    let commands = commands.iter().cloned().map(Command);
                    let mut answers = leader.client_write_many(commands).await.expect("leads");
                    while let Some(answer) = answers.try_next().await.expect("runs") {
                        answer.expect("leads");
                    }
                }
            }),
            Clients::Each => self.runtime.block_on(async {
                let clients = commands.iter().cloned().map(|command| {
                    let leader = leader.clone();
                    tokio::spawn(async move {
                        for _ in 0..rounds {
                            leader.client_write(Command(command.clone())).await.expect("leads");
                        }
                    })
                });
                let clients: Vec<_> = clients.collect();
                futures_util::future::try_join_all(clients).await.expect("no client panics");
            }),
        }
    }

    /// What was applied.
    ///
    /// # Panics
    /// If the nodes do not come to apply the same, or stored something else than they applied.
    pub fn applied(&self) -> Applied {
        let leader = self.machines[0].lock().applied;
        let last = self.machines[0].lock().last.map(|last| last.index());
        self.runtime.block_on(async {
            for member in &self.members {
                let wait = member.wait(Some(Duration::from_secs(10)));
                wait.applied_index_at_least(last, "the last entry").await.expect("is told");
            }
        });
        for (log, machine) in self.logs.iter().zip(&self.machines) {
            assert_eq!(machine.lock().applied, leader, "all apply the same");
            let mut stored = Applied::default();
            for entry in &log.lock().entries {
                if let EntryPayload::Normal(Command(command)) = &entry.payload {
                    stored.apply(command);
                }
            }
            assert_eq!(stored, leader, "the log holds what was applied");
        }
        leader
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.runtime.block_on(async {
            for member in &self.members {
                // A node that has stopped already is as good.
                let _ = member.shutdown().await;
            }
        });
    }
}

async fn start(logs: &[Log], machines: &[StateMachine]) -> Vec<Member> {
    let config = Config {
        election_timeout_min: 200,
        election_timeout_max: 2000,
        max_payload_entries: 1024,
        snapshot_policy: openraft::SnapshotPolicy::Never,
        ..Config::default()
    };
    let config = Arc::new(config.validate().expect("a sound configuration"));
    let network = Network::default();
    let mut members = Vec::new();
    for (id, (log, machine)) in (0..).zip(logs.iter().zip(machines)) {
        let (log, machine) = (log.clone(), machine.clone());
        let member = Raft::new(id, config.clone(), network.clone(), log, machine);
        members.push(member.await.expect("starts"));
    }
    *network.0.lock().expect("not poisoned") = (0..).zip(members.clone()).collect();
    let ids: BTreeSet<u64> = (0..3).collect();
    members[0].initialize(ids).await.expect("new");
    for member in &members {
        let wait = member.wait(Some(Duration::from_secs(10)));
        wait.applied_index_at_least(Some(1), "the opening entry").await.expect("an election");
    }
    assert_eq!(members[0].current_leader().await, Some(0));
    members
}

/// The other nodes, to be called.
#[derive(Clone, Default)]
struct Network(Arc<Mutex<BTreeMap<u64, Member>>>);

impl RaftNetworkFactory<Types> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, _node: &()) -> Link {
        Link(self.0.lock().expect("not poisoned")[&target].clone())
    }
}

struct Link(Member);

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = ();

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        self.0.append_entries(rpc).await.map_err(|e| RPCError::Unreachable(Unreachable::new(&e)))
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.0.vote(rpc).await.map_err(|e| RPCError::Unreachable(Unreachable::new(&e)))
    }

    async fn full_snapshot(
        &mut self,
        _vote: VoteOf<Types>,
        _snapshot: SnapshotOf<Types, ()>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let error = io::Error::other("there are no snapshots here");
        Err(StreamingError::Unreachable(Unreachable::new(&error)))
    }
}

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Stored>>);

#[derive(Default)]
struct Stored {
    vote: Option<VoteOf<Types>>,
    /// From index 0, as openraft counts.
    entries: Vec<EntryOf<Types>>,
}

impl Log {
    fn lock(&self) -> std::sync::MutexGuard<'_, Stored> {
        self.0.lock().expect("not poisoned")
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<EntryOf<Types>>, io::Error> {
        let place = |index: u64| usize::try_from(index).expect("in memory");
        let start = match range.start_bound() {
            Bound::Included(&index) => place(index),
            Bound::Excluded(&index) => place(index) + 1,
            Bound::Unbounded => 0,
        };
        let log = self.lock();
        let end = match range.end_bound() {
            Bound::Included(&index) => place(index) + 1,
            Bound::Excluded(&index) => place(index),
            Bound::Unbounded => usize::MAX,
        };
        let end = end.min(log.entries.len());
        Ok(log.entries[start.min(end)..end].to_vec())
    }

    async fn read_vote(&mut self) -> Result<Option<VoteOf<Types>>, io::Error> {
        Ok(self.lock().vote)
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let last_log_id = self.lock().entries.last().map(openraft::entry::RaftEntry::log_id);
        Ok(LogState { last_purged_log_id: None, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<Types>) -> Result<(), io::Error> {
        self.lock().vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = EntryOf<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.lock().entries.extend(entries);
        callback.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogIdOf<Types>>) -> Result<(), io::Error> {
        let kept = last.map_or(0, |last| last.index() + 1);
        self.lock().entries.truncate(usize::try_from(kept).expect("in memory"));
        Ok(())
    }

    async fn purge(&mut self, _upto: LogIdOf<Types>) -> Result<(), io::Error> {
        unreachable!("there are no snapshots here");
    }
}

/// What a node has applied.
#[derive(Clone, Default)]
struct StateMachine(Arc<Mutex<Machine>>);

#[derive(Default)]
struct Machine {
    last: Option<LogIdOf<Types>>,
    membership: StoredMembershipOf<Types>,
    applied: Applied,
}

impl StateMachine {
    fn lock(&self) -> std::sync::MutexGuard<'_, Machine> {
        self.0.lock().expect("not poisoned")
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = ();
    type SnapshotBuilder = NoSnapshots;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogIdOf<Types>>, StoredMembershipOf<Types>), io::Error> {
        let machine = self.lock();
        Ok((machine.last, machine.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let mut machine = self.lock();
            machine.last = Some(entry.log_id());
            match &entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(Command(command)) => machine.applied.apply(command),
                EntryPayload::Membership(membership) => {
                    machine.membership =
                        StoredMembershipOf::<Types>::new(machine.last, membership.clone());
                }
            }
            drop(machine);
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> NoSnapshots {
        NoSnapshots
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMetaOf<Types>,
        _snapshot: (),
    ) -> Result<(), io::Error> {
        Err(io::Error::other("there are no snapshots here"))
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<Types, ()>>, io::Error> {
        Ok(None)
    }
}

struct NoSnapshots;

impl RaftSnapshotBuilder<Types> for NoSnapshots {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types, ()>, io::Error> {
        Err(io::Error::other("there are no snapshots here"))
    }
}
