//! A node that stops answers everyone, gives back what it holds, and can start again.

mod harness;

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use harness::{Cluster, Counter, PATIENCE, Running, number_command, wait_for};
use raft_grpc::{
    AppliedEntry, Capture, Consistency, Fatal, NotApplied, ProposeError, ReadError, RestoreError,
    StateMachine, Unknown,
};

#[test]
fn a_shutdown_answers_every_waiter_and_releases_everything() {
    let mut cluster = Cluster::started(3);
    let leader = cluster.leader();
    cluster.propose(cluster.follower(), 0).expect("nothing is broken");
    let node = cluster.take(leader);
    let outcomes = cluster.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for client in 0..64 {
            // A third of them through the node that stops, the others forwarded to it.
            let number = 1 + client % 3;
            let is_stopping = number == leader;
            let handle = if is_stopping { node.handle.clone() } else { cluster.handle(number) };
            tasks.spawn(async move {
                let mut outcomes = Vec::new();
                for _ in 0..200 {
                    let timeout = Duration::from_secs(10);
                    let outcome = handle.propose_within(number_command(1), timeout).await;
                    outcomes.push((is_stopping, outcome));
                }
                outcomes
            });
        }
        let mut commits = node.handle.watch_status();
        let busy = commits.wait_for(|status| status.raft.commit.0 > 200);
        busy.await.expect("the node runs");
        let stopping = Instant::now();
        node.handle.shutdown().await;
        node.handle.shutdown().await;
        println!("the shutdown took {:?}", stopping.elapsed());
        tasks.join_all().await.concat()
    });
    // The node itself refuses what comes later, the others find its successor; what it could not
    // finish is unknown, and nothing else is.
    let expected = |(is_stopping, outcome): &(bool, Result<_, ProposeError>)| match outcome {
        Ok(_) | Err(ProposeError::Unknown(_)) => true,
        Err(error) => *is_stopping && *error == NotApplied::ShuttingDown.into(),
    };
    let unexpected = outcomes.iter().find(|&outcome| !expected(outcome));
    assert_eq!(unexpected, None);
    let outcomes: Vec<_> = outcomes.into_iter().map(|(_, outcome)| outcome).collect();
    let applied = outcomes.iter().filter(|outcome| outcome.is_ok()).count() as u64;
    let unknown = outcomes.iter().filter(|o| matches!(o, Err(ProposeError::Unknown(_)))).count();
    assert!(cluster.block_on(node.life_end()).is_ok());

    let read = cluster.block_on(async {
        let handle = node.handle.clone();
        handle.read(Consistency::Linearizable).await.err()
    });
    assert_eq!(read, Some(ReadError::ShuttingDown));
    let config = &cluster.configs[leader - 1];
    drop(TcpListener::bind(config.listen).expect("the port is free"));
    node.kill();
    cluster.start(leader);
    let (sum, _) = cluster.agreed_state();
    assert!((applied..=applied + unknown as u64).contains(&sum), "{applied} + {unknown}? {sum}");
}

#[test]
fn a_shutdown_in_the_middle_of_nothing_takes_no_time() {
    let mut cluster = Cluster::started(1);
    assert_eq!(cluster.propose(1, 1), Ok(1));
    let node = cluster.take(1);
    cluster.block_on(async {
        let shutdown = tokio::time::timeout(Duration::from_secs(1), node.handle.shutdown());
        shutdown.await.expect("nothing is in flight");
        let refused = node.handle.propose(number_command(1)).await;
        assert_eq!(refused, Err(NotApplied::ShuttingDown.into()));
    });
    assert!(cluster.block_on(node.life_end()).is_ok());
}

/// A state machine that stands still until it is let go, or panics.
struct Stubborn {
    gate: Arc<Mutex<()>>,
    applied: u64,
}

impl StateMachine for Stubborn {
    fn apply(&mut self, entry: &AppliedEntry) -> Bytes {
        assert_ne!(entry.command, "panic", "as asked");
        drop(self.gate.lock());
        self.applied += 1;
        Bytes::new()
    }

    fn snapshot(&self) -> Capture {
        unreachable!("nothing here is that long")
    }

    fn restore(&self, _: &mut dyn std::io::Read) -> Result<Self, RestoreError> {
        unreachable!("nothing here has a snapshot")
    }
}

fn stubborn(cluster: &Cluster) -> (Running<Stubborn>, Arc<Mutex<()>>) {
    let gate = Arc::new(Mutex::new(()));
    let machine = Stubborn { gate: Arc::clone(&gate), applied: 0 };
    let node = Running::start(cluster.configs[0].clone(), machine).expect("the node starts");
    (node, gate)
}

#[test]
fn overload_is_refused_at_the_door_and_nothing_that_was_taken_is_lost() {
    let cluster = Cluster::new(1);
    let (node, gate) = stubborn(&cluster);
    cluster.block_on(node.handle.propose(Bytes::new())).expect("nothing is broken");
    let closed = gate.lock().expect("nobody panicked");
    let command = Bytes::from(vec![0; 64 << 10]);
    cluster.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        let mut busy = 0;
        // More than all queues hold together: 16 MiB handed out, 64 MiB pending, 32 MiB at the
        // door.
        for _ in 0..4096 {
            let (handle, command) = (node.handle.clone(), command.clone());
            tasks.spawn(async move { handle.propose_within(command, PATIENCE).await });
        }
        while busy < 1024 {
            let outcome = tasks.join_next().await.expect("there are more").expect("no panic");
            assert_eq!(outcome, Err(NotApplied::Busy.into()));
            busy += 1;
        }
        drop(closed);
        let outcomes = tasks.join_all().await;
        let applied = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        let refused = outcomes.iter().filter(|o| **o == Err(NotApplied::Busy.into())).count();
        assert_eq!(applied + refused, outcomes.len());
        assert!(applied > 100, "{applied}");
        let read = node.handle.read(Consistency::Linearizable).await.expect("it serves reads");
        assert_eq!(read.applied, 1 + applied as u64);
    });
}

#[test]
fn what_does_not_finish_in_the_grace_is_answered_as_unknown() {
    let mut cluster = Cluster::new(1);
    cluster.configs[0].shutdown_grace = Duration::from_millis(100);
    let (node, gate) = stubborn(&cluster);
    cluster.block_on(node.handle.propose(Bytes::new())).expect("nothing is broken");
    let closed = gate.lock().expect("nobody panicked");
    let handle = node.handle.clone();
    let waiting = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        runtime.block_on(handle.propose_within(Bytes::new(), Duration::from_millis(500)))
    });
    wait_for("the commit", || (node.handle.status().raft.commit.0 == 3).then_some(()));
    let handle = node.handle.clone();
    let stopping = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(handle.shutdown());
    });
    // Its entry is with the state machine, which stands still: only the caller's own time ends it.
    let outcome = waiting.join().expect("no panic");
    assert_eq!(outcome, Err(Unknown::Timeout.into()));
    drop(closed);
    stopping.join().expect("no panic");
}

#[test]
fn a_state_machine_that_panics_stops_the_node_and_nobody_waits_for_ever() {
    let cluster = Cluster::new(1);
    let (node, _gate) = stubborn(&cluster);
    cluster.block_on(async {
        let outcome = node.handle.propose(Bytes::from_static(b"panic")).await;
        assert_eq!(outcome, Err(Unknown::ShuttingDown.into()));
        let end = node.life_end().await;
        assert!(matches!(*end, Err(Fatal::StateMachinePanicked)), "{end:?}");
        let outcome = node.handle.propose(Bytes::new()).await;
        assert_eq!(outcome, Err(NotApplied::ShuttingDown.into()));
    });
}

#[test]
fn two_nodes_on_one_directory_and_two_on_one_port_are_refused() {
    let cluster = Cluster::started(1);
    let refused = |change: fn(&mut raft_grpc::NodeConfig)| {
        let mut config = cluster.configs[0].clone();
        change(&mut config);
        let refused = Running::start(config, Counter::default());
        refused.err().expect("it is refused")
    };
    let error = refused(|_| {});
    assert!(error.is_safety_refusal() && !error.is_disk_failure(), "{error}");
    let error = refused(|config| config.data_dir.set_file_name("elsewhere"));
    assert!(matches!(error, raft_grpc::StartError::Listen { .. }), "{error}");
    let error = refused(|config| config.heartbeat_interval = config.election_timeout);
    assert!(matches!(error, raft_grpc::StartError::Config(_)), "{error}");
}
