//! Whoever does not belong is refused, with a line in the log, and the cluster goes on.

mod harness;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use harness::logs::lines_with;
use harness::{Cluster, Counter, Running, address, id, wait_for};
use raft_grpc::NodeConfig;

/// A node that calls node 1 of `cluster`, changed into a stranger.
fn stranger(cluster: &Cluster, change: impl FnOnce(&mut NodeConfig)) -> Running<Counter> {
    let mut config = cluster.configs[1].clone();
    config.data_dir = cluster.dir.path().join("stranger");
    config.listen = address();
    change(&mut config);
    config.peers.insert(config.id, config.listen.to_string());
    Running::start(config, Counter::default()).expect("it can run by itself")
}

fn expect_refusal(cluster: &Cluster, stranger: Running<Counter>, reason: &str) {
    let term = cluster.handle(1).status().raft.term;
    wait_for("the refusal", || (lines_with(&["refused a peer", reason]) > 0).then_some(()));
    wait_for("the stranger's own line", || {
        (lines_with(&["no connection", "refused", reason]) > 0).then_some(())
    });
    let links = stranger.handle.status().peers;
    assert!(links.iter().all(|link| !link.connected), "{links:?}");
    stranger.kill();
    assert_eq!(cluster.handle(1).status().raft.term, term, "it has changed nothing");
    cluster.propose(1, 1).expect("the cluster goes on");
}

#[test]
fn a_node_of_another_cluster_is_refused() {
    let cluster = Cluster::started(1);
    cluster.propose(1, 1).expect("nothing is broken");
    let mut one = Cluster::new(2);
    one.configs[1].peers.insert(id(1), cluster.configs[0].listen.to_string());
    let other = stranger(&one, |config| config.cluster = "another".into());
    expect_refusal(&cluster, other, "cluster \"another\"");
}

#[test]
fn a_node_that_is_no_member_is_refused() {
    let cluster = Cluster::started(1);
    cluster.propose(1, 1).expect("nothing is broken");
    let mut others = Cluster::new(2);
    others.configs[1].peers.insert(id(1), cluster.configs[0].listen.to_string());
    let other = stranger(&others, |config| config.id = id(9));
    expect_refusal(&cluster, other, "n9 is not one of the other members");
}

#[test]
fn a_node_with_a_wrong_list_of_peers_is_refused() {
    let mut cluster = Cluster::new(2);
    cluster.start(1);
    // It believes that node 3 lives where node 1 does.
    let there = cluster.configs[0].listen.to_string();
    let nowhere = address().to_string();
    let lost = stranger(&cluster, |config| {
        config.peers.insert(id(1), nowhere);
        config.peers.insert(id(3), there);
    });
    wait_for("the refusal", || {
        (lines_with(&["refused a peer", "it looks for n3, this node is n1"]) > 0).then_some(())
    });
    lost.kill();
    cluster.start(2);
    cluster.propose(1, 1).expect("the cluster goes on");
}

#[test]
fn a_second_process_of_a_member_is_refused() {
    let cluster = Cluster::started(3);
    let victim = &cluster.configs[2];
    cluster.propose(1, 1).expect("nothing is broken");
    wait_for("the links", || {
        let links = cluster.handle(3).status().peers;
        links.iter().all(|link| link.connected).then_some(())
    });
    let second = stranger(&cluster, |config| {
        config.id = victim.id;
    });
    wait_for("the refusal", || {
        (lines_with(&["refused a peer", "n3 is a member, and came back"]) > 0).then_some(())
    });
    second.kill();
    cluster.propose(1, 1).expect("the cluster goes on");
}

#[test]
fn garbage_on_the_port_is_refused() {
    let cluster = Cluster::started(3);
    cluster.propose(1, 1).expect("nothing is broken");
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 4096], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r"]
    {
        let mut connection = TcpStream::connect(cluster.configs[0].listen).expect("it listens");
        connection.set_read_timeout(Some(harness::PATIENCE)).expect("a timeout");
        // The other side may close before everything is written.
        let _ = connection.write_all(garbage);
        let closed = connection.read_to_end(&mut Vec::new());
        let timed_out = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        assert!(!closed.as_ref().is_err_and(timed_out), "the connection is closed");
    }
    let line = ["refused a connection", "it does not speak HTTP/2"];
    wait_for("the line", || (lines_with(&line) > 0).then_some(()));
    // HTTP/2 first, garbage then.
    let mut connection = TcpStream::connect(cluster.configs[0].listen).expect("it listens");
    let _ = connection.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let _ = connection.write_all(&[0xff; 1000]);
    let _ = connection.read_to_end(&mut Vec::new());
    // Connections that say nothing.
    let connect = |_| TcpStream::connect(cluster.configs[0].listen).expect("it listens");
    let silent: Vec<TcpStream> = (0..64).map(connect).collect();
    cluster.propose(1, 1).expect("the cluster goes on");
    drop(silent);
}

#[test]
fn a_connection_that_says_nothing_is_closed() {
    let cluster = Cluster::started(1);
    let mut connection = TcpStream::connect(cluster.configs[0].listen).expect("it listens");
    connection.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let read = connection.read_to_end(&mut Vec::new());
    assert!(read.is_ok(), "closed, not timed out: {read:?}");
    assert!(lines_with(&["refused a connection", "it says nothing"]) > 0);
}
