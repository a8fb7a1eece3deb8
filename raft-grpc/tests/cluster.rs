//! Three nodes in one process: they replicate, go on without one, and come back.

mod harness;

use std::time::Duration;

use bytes::Bytes;
use harness::{Cluster, id, number_command, number_in, wait_for};
use raft_grpc::{Consistency, NotApplied, ProposeError, ReadError};

#[test]
fn three_nodes_replicate_whoever_is_asked() {
    let cluster = Cluster::started(3);
    let mut sum = 0;
    for addend in 1..=30 {
        let number = 1 + addend as usize % 3;
        sum += addend;
        assert_eq!(cluster.propose(number, addend), Ok(sum), "asked node {number}");
    }
    assert_eq!(cluster.agreed_state(), (sum, 30));
}

#[test]
fn many_clients_at_once_are_all_counted_once() {
    let cluster = Cluster::started(3);
    let clients = (0..48).map(|client| {
        let handle = cluster.handle(1 + client % 3);
        async move {
            for _ in 0..50 {
                handle.propose(number_command(1)).await.expect("nothing is broken");
            }
        }
    });
    cluster.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for client in clients {
            tasks.spawn(client);
        }
        tasks.join_all().await;
    });
    assert_eq!(cluster.agreed_state(), (48 * 50, 48 * 50));
}

#[test]
fn the_others_go_on_without_the_leader_and_it_comes_back() {
    let mut cluster = Cluster::started(3);
    let first = cluster.leader();
    assert_eq!(cluster.propose(first, 1), Ok(1));
    cluster.kill(first);
    let follower = cluster.running()[0];
    // Nothing is in flight, so the first answer is a result: the election happens meanwhile.
    assert_eq!(cluster.propose(follower, 2), Ok(3));
    cluster.start(first);
    assert_eq!(cluster.agreed_state(), (3, 2));
    assert_eq!(cluster.propose(first, 3), Ok(6));
}

#[test]
fn a_cluster_that_stopped_altogether_recovers_from_its_logs() {
    let mut cluster = Cluster::started(3);
    for addend in 1..=20 {
        cluster.propose(cluster.leader(), addend).expect("nothing is broken");
    }
    for number in 1..=3 {
        cluster.kill(number);
    }
    for number in 1..=3 {
        cluster.start(number);
    }
    assert_eq!(cluster.propose(2, 0), Ok(210));
    assert_eq!(cluster.agreed_state(), (210, 21));
}

#[test]
fn a_linearizable_read_anywhere_sees_the_last_acknowledged_write() {
    let cluster = Cluster::started(3);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    for round in 1..=100 {
        let writer = if round % 2 == 0 { leader } else { follower };
        let reader = if round % 4 < 2 { leader } else { follower };
        assert_eq!(cluster.propose(writer, 1), Ok(round));
        let handle = cluster.handle(reader);
        cluster.block_on(async {
            let read = handle.read(Consistency::Linearizable).await.expect("it serves reads");
            assert_eq!(read.sum, round, "node {reader} after a write through {writer}");
        });
    }
}

#[test]
fn many_reads_share_their_rounds() {
    let cluster = Cluster::started(3);
    cluster.propose(1, 5).expect("nothing is broken");
    cluster.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for client in 0..3000 {
            let handle = cluster.handle(1 + client % 3);
            tasks.spawn(async move {
                let read = handle.read(Consistency::Linearizable).await;
                read.expect("it serves reads").sum
            });
        }
        assert!(tasks.join_all().await.into_iter().all(|sum| sum == 5));
    });
}

#[test]
fn a_read_at_an_index_waits_for_it() {
    let cluster = Cluster::started(3);
    let leader = cluster.handle(cluster.leader());
    let follower = cluster.handle(cluster.follower());
    cluster.block_on(async {
        let applied = leader.propose(number_command(7)).await.expect("nothing is broken");
        let index = applied.position.index;
        let read = follower.read(Consistency::AtLeast(index)).await.expect("it catches up");
        assert_eq!((read.sum, read.applied() >= applied.position), (7, true));
        drop(read);
        let far = raft_grpc::LogIndex(u64::MAX);
        let short = Duration::from_millis(50);
        let read = follower.read_within(Consistency::AtLeast(far), short).await;
        assert_eq!(read.err(), Some(ReadError::Timeout));
    });
    assert_eq!(leader.read_stale().sum, 7);
}

#[test]
fn without_a_majority_nothing_is_promised() {
    let mut cluster = Cluster::new(3);
    cluster.start(1);
    let handle = cluster.handle(1);
    let short = Duration::from_millis(300);
    cluster.block_on(async {
        let write = handle.propose_within(number_command(1), short).await;
        assert_eq!(write, Err(NotApplied::NoLeader.into()));
        let read = handle.read_within(Consistency::Linearizable, short).await;
        assert_eq!(read.err(), Some(ReadError::NoLeader));
        let read = handle.read_within(Consistency::Stale, short).await;
        assert_eq!(read.expect("the local state is there").sum, 0);
    });
    cluster.start(2);
    assert_eq!(cluster.propose(1, 1), Ok(1), "the write that was not applied never is");
}

#[test]
fn a_leader_cut_off_from_its_majority_does_not_answer_as_one() {
    let mut cluster = Cluster::started(3);
    let leader = cluster.leader();
    cluster.propose(leader, 1).expect("nothing is broken");
    for number in cluster.running() {
        if number != leader {
            cluster.kill(number);
        }
    }
    let handle = cluster.handle(leader);
    let short = Duration::from_millis(1500);
    cluster.block_on(async {
        let read = handle.read_within(Consistency::Linearizable, short).await;
        assert!(matches!(read.err(), Some(ReadError::NoLeader | ReadError::Timeout)));
        let write = handle.propose_within(number_command(1), short).await;
        assert!(write.is_err(), "{write:?}");
    });
}

#[test]
fn what_is_too_large_is_refused_at_the_door_and_what_is_just_not_travels() {
    let cluster = Cluster::started(3);
    let follower = cluster.handle(cluster.follower());
    cluster.block_on(async {
        let max = 1 << 20;
        let large = Bytes::from(vec![0; max + 1]);
        let (bytes, max) = (large.len() as u64, max as u64);
        let refused = follower.propose(large).await;
        assert_eq!(refused, Err(NotApplied::TooLarge { bytes, max }.into()));
        let largest = Bytes::from(vec![0; 1 << 20]);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (follower, largest) = (follower.clone(), largest.clone());
            tasks.spawn(async move { follower.propose(largest).await });
        }
        for applied in tasks.join_all().await {
            assert_eq!(applied.expect("it fits").response, "not a number");
        }
    });
    assert_eq!(cluster.agreed_state(), (0, 0));
}

#[test]
fn a_follower_finds_the_new_leader_for_what_was_not_sent() {
    let mut cluster = Cluster::started(3);
    let leader = cluster.leader();
    let follower = cluster.follower();
    cluster.propose(follower, 1).expect("the way to the leader is open");
    cluster.kill(leader);
    let handle = cluster.handle(follower);
    // The follower may still believe in the dead leader. What has been sent to it is unknown, all
    // else is sent to the next one.
    let outcomes = cluster.block_on(async {
        let mut outcomes = Vec::new();
        for _ in 0..20 {
            outcomes.push(handle.propose(number_command(1)).await);
        }
        outcomes
    });
    let unknown = outcomes.iter().filter(|o| matches!(o, Err(ProposeError::Unknown(_)))).count();
    let applied = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(unknown + applied, 20, "{outcomes:?}");
    assert!(applied >= 19, "one request at a time: {outcomes:?}");
    let last = outcomes.into_iter().rev().find_map(Result::ok).expect("there are some");
    let sum = number_in(&last.response);
    assert_eq!(sum, 1 + applied as u64, "what the dead leader got, nobody else has");
}

#[test]
fn the_status_tells_who_leads_and_who_is_reachable() {
    let mut cluster = Cluster::started(3);
    let leader = cluster.leader();
    cluster.propose(leader, 1).expect("nothing is broken");
    // A status is how things were a moment ago: the answer may be here first.
    let status = wait_for("all links, and everything everywhere", || {
        let status = cluster.handle(leader).status();
        let last = status.raft.last.index;
        let connected = status.peers.iter().all(|peer| peer.connected);
        let caught_up = status.raft.peers.iter().all(|peer| peer.match_index == last);
        (connected && caught_up && status.raft.applied == last).then_some(status)
    });
    assert_eq!((status.cluster.as_str(), status.raft.id), ("test", id(leader)));
    assert_eq!(status.peers.len(), 2);

    let lost = cluster.follower();
    let mut watch = cluster.handle(leader).watch_status();
    cluster.kill(lost);
    cluster.block_on(async {
        let gone = watch.wait_for(|status| {
            let link = status.peers.iter().find(|peer| peer.id == id(lost));
            let progress = status.raft.peers.iter().find(|peer| peer.id == id(lost));
            !link.is_some_and(|link| link.connected)
                && !progress.is_some_and(|progress| progress.recently_active)
        });
        gone.await.expect("the node runs");
    });
}
