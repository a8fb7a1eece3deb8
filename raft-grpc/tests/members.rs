//! Members come and go while the others serve.

mod harness;

use std::time::Duration;

use harness::logs::lines_with;
use harness::{Cluster, Counter, PATIENCE, address, id, wait_for};
use raft_grpc::{Lag, NodeConfig, OrderError, RaftHandle, RoleKind, TransferRefusal};

/// A cluster of three, and the configuration of a fourth node that may join it.
fn three_and_one() -> Cluster {
    let mut cluster = Cluster::started(3);
    let listen = address();
    let peers = cluster.configs[0].peers.clone();
    let data_dir = cluster.dir.path().join("n4");
    let joining = NodeConfig::new("test", id(4), data_dir, listen, peers);
    cluster.add(NodeConfig { join: true, advertise: Some(listen.to_string()), ..joining });
    cluster
}

fn leader(cluster: &Cluster) -> RaftHandle<Counter> {
    cluster.handle(cluster.leader())
}

/// Gives an order to whoever leads, again if leadership changes.
fn order<T>(
    cluster: &Cluster,
    give: impl AsyncFn(RaftHandle<Counter>) -> Result<T, OrderError>,
) -> Result<T, OrderError> {
    loop {
        match cluster.block_on(give(leader(cluster))) {
            Err(OrderError::NotLeader { .. } | OrderError::Superseded | OrderError::Unknown) => {}
            end => return end,
        }
    }
}

fn voters(cluster: &Cluster) -> Vec<u64> {
    let membership = leader(cluster).status().raft.membership;
    membership.voters().iter().map(|id| id.get()).collect()
}

#[test]
fn a_node_joins_catches_up_votes_and_another_one_goes() {
    let mut cluster = three_and_one();
    for _ in 0..100 {
        cluster.propose(1, 1).expect("nothing is broken");
    }
    let there = cluster.configs[3].advertise.clone().expect("it was set");
    let add = async |leader: RaftHandle<Counter>| leader.add_member(id(4), &there, PATIENCE).await;
    order(&cluster, add).expect("it is added");
    order(&cluster, add).expect("adding it again changes nothing");
    cluster.start(4);
    let promote = async |leader: RaftHandle<Counter>| leader.promote(id(4), PATIENCE).await;
    order(&cluster, promote).expect("it is promoted");
    order(&cluster, promote).expect("promoting it again changes nothing");
    assert_eq!(voters(&cluster), [1, 2, 3, 4]);
    let remove = async |leader: RaftHandle<Counter>| leader.remove_member(id(1), PATIENCE).await;
    order(&cluster, remove).expect("it is removed");
    cluster.kill(1);
    assert_eq!(voters(&cluster), [2, 3, 4]);
    order(&cluster, remove).expect("removing it again changes nothing");
    // The newcomer's vote and its disk count: of three, two are needed.
    cluster.kill(2);
    assert_eq!(cluster.propose(4, 1), Ok(101));
    assert_eq!(cluster.agreed_state(), (101, 101));
}

#[test]
fn whoever_starts_again_finds_the_others_where_they_are_now() {
    let mut cluster = three_and_one();
    cluster.propose(1, 1).expect("nothing is broken");
    let there = cluster.configs[3].advertise.clone().expect("it was set");
    cluster.start(4);
    order(&cluster, async |leader| leader.add_member(id(4), &there, PATIENCE).await)
        .expect("it is added");
    order(&cluster, async |leader| leader.promote(id(4), PATIENCE).await).expect("it is promoted");
    for number in [1, 2] {
        order(&cluster, async |leader| leader.remove_member(id(number), PATIENCE).await)
            .expect("it is removed");
        cluster.kill(number);
    }
    assert_eq!(voters(&cluster), [3, 4]);
    // Three's list of peers does not know four, whose own names three and those that are gone.
    cluster.kill(3);
    cluster.kill(4);
    cluster.start(3);
    cluster.start(4);
    assert_eq!(cluster.propose(3, 1), Ok(2));
    // One that has moved says so itself.
    cluster.kill(4);
    let listen = address();
    cluster.configs[3].listen = listen;
    cluster.configs[3].advertise = Some(listen.to_string());
    cluster.start(4);
    assert_eq!(cluster.propose(4, 1), Ok(3));
    assert_eq!(cluster.handle(3).addresses()[&id(4)].0, listen.to_string());
}

#[test]
fn every_order_can_be_given_at_a_follower() {
    let mut cluster = three_and_one();
    cluster.propose(1, 1).expect("nothing is broken");
    let there = cluster.configs[3].advertise.clone().expect("it was set");
    let leader = cluster.leader();
    let others: Vec<usize> = (1..=3).filter(|&number| number != leader).collect();
    let (at, other) = (cluster.handle(others[0]), id(others[1]));
    cluster.start(4);
    let added = at.add_member_with_note(id(4), &there, "a note", PATIENCE);
    cluster.block_on(added).expect("it is added");
    wait_for("all to hear of it", || {
        (1..=3).all(|number| cluster.handle(number).addresses().contains_key(&id(4))).then_some(())
    });
    cluster.block_on(at.promote(id(4), PATIENCE)).expect("it is promoted");
    assert_eq!(voters(&cluster), [1, 2, 3, 4]);
    let leads = cluster.block_on(at.transfer_leadership(Some(other), PATIENCE));
    assert_eq!(leads, Ok(other));
    let leads = cluster.block_on(at.transfer_leadership(Some(other), PATIENCE));
    assert_eq!(leads, Ok(other), "it leads already");
    // The old leader passes on orders like any other, also those about the new one.
    let at = cluster.handle(leader);
    cluster.block_on(at.remove_member(other, PATIENCE)).expect("it is removed");
    cluster.kill(others[1]);
    assert_eq!(cluster.propose(4, 1), Ok(2));
}

#[test]
fn a_follower_tells_the_leaders_reasons() {
    let cluster = Cluster::started(3);
    cluster.propose(1, 1).expect("nothing is broken");
    let soon = Duration::from_millis(300);
    for number in [cluster.leader(), cluster.follower()] {
        let at = cluster.handle(number);
        let refused = cluster.block_on(at.promote(id(9), soon));
        assert_eq!(refused, Err(OrderError::NotAMember(id(9))));
        let refused = cluster.block_on(at.transfer_leadership(Some(id(9)), soon));
        assert_eq!(refused, Err(OrderError::Transfer(TransferRefusal::NotAVoter)));
        let refused = cluster.block_on(at.add_member(id(9), "no port", soon));
        assert_eq!(refused, Err(OrderError::BadAddress("no port".into())));
        assert_eq!(cluster.block_on(at.remove_member(id(9), soon)), Ok(()), "it is none");
    }
    assert_eq!(voters(&cluster), [1, 2, 3]);
}

#[test]
fn without_a_leader_an_order_ends_when_its_time_is_up() {
    let mut cluster = Cluster::new(3);
    cluster.start(1);
    let at = cluster.handle(1);
    let refused = cluster.block_on(at.remove_member(id(2), Duration::from_millis(300)));
    assert_eq!(refused, Err(OrderError::NotLeader { leader: None }));
}

/// Also when it is asked for at once: what counts is what the leader's node knows of the learner, not what it last
/// published.
#[test]
fn a_learner_that_has_not_caught_up_is_not_promoted() {
    let cluster = three_and_one();
    cluster.propose(1, 1).expect("nothing is broken");
    let there = cluster.configs[3].advertise.clone().expect("it was set");
    let at = leader(&cluster);
    let ends = cluster.block_on(async {
        at.add_member(id(4), &there, PATIENCE).await.expect("it is added");
        at.promote(id(4), Duration::from_millis(300)).await
    });
    assert_eq!(ends, Err(OrderError::NotCaughtUp { id: id(4), lag: Lag::Silent }));
    assert_eq!(voters(&cluster), [1, 2, 3]);
}

#[test]
fn leadership_goes_where_it_is_told_to_go() {
    let cluster = Cluster::started(3);
    cluster.propose(1, 1).expect("nothing is broken");
    let to = cluster.follower();
    let leads =
        order(&cluster, async |leader| leader.transfer_leadership(Some(id(to)), PATIENCE).await);
    assert_eq!(leads, Ok(id(to)));
    assert_eq!(cluster.leader(), to);
    let again =
        order(&cluster, async |leader| leader.transfer_leadership(Some(id(to)), PATIENCE).await);
    assert_eq!(again, Ok(id(to)), "it leads already");
    assert_eq!(cluster.propose(2, 1), Ok(2));
}

#[test]
fn a_snapshot_is_cut_when_asked_for() {
    let mut cluster = Cluster::started(3);
    for _ in 0..10 {
        cluster.propose(1, 1).expect("nothing is broken");
    }
    let handle = cluster.handle(2);
    let snapshot = cluster.block_on(handle.snapshot(PATIENCE)).expect("there is something to keep");
    let told = || handle.status().raft.snapshot.filter(|held| *held == snapshot).map(drop);
    wait_for("the status to tell of the snapshot", told);
    cluster.kill(2);
    cluster.start(2);
    assert!(cluster.handle(2).read_stale().applied().index >= snapshot.position.index);
    assert_eq!(cluster.handle(2).status().raft.role, RoleKind::Follower);
    assert_eq!(cluster.propose(2, 1), Ok(11));
}

#[test]
fn a_voter_that_lost_its_directory_is_not_let_in_until_it_is_added_anew() {
    let mut cluster = Cluster::started(3);
    cluster.propose(1, 1).expect("nothing is broken");
    cluster.leader();
    let wiped = cluster.follower();
    cluster.kill(wiped);
    let at = leader(&cluster);
    std::fs::remove_dir_all(&cluster.configs[wiped - 1].data_dir).expect("it is there");
    cluster.start(wiped);
    wait_for("the others to refuse it", || {
        let refusals = lines_with(&["refused a peer", "came back with another data directory"]);
        (refusals > 0).then_some(())
    });
    let number = id(wiped);
    cluster.block_on(at.remove_member(number, PATIENCE)).expect("it is removed");
    cluster.kill(wiped);
    std::fs::remove_dir_all(&cluster.configs[wiped - 1].data_dir).expect("it is there");
    cluster.configs[wiped - 1].join = true;
    cluster.start(wiped);
    let there = cluster.configs[wiped - 1].listen.to_string();
    cluster.block_on(at.add_member(number, &there, PATIENCE)).expect("it is added");
    cluster.block_on(at.promote(number, PATIENCE)).expect("it is promoted");
    assert_eq!(cluster.propose(wiped, 1), Ok(2));
    assert_eq!(cluster.agreed_state(), (2, 2));
}
