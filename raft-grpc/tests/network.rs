//! Peers that are slow, silent or cut off, without a connection ever being closed.

mod harness;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::{Cluster, address, id, number_command, wait_for};
use raft_core::RoleKind;
use raft_grpc::{NotApplied, Unknown};

#[test]
fn a_peer_that_accepts_and_says_nothing_delays_nobody() {
    let mut cluster = Cluster::new(3);
    // The system completes the connections, nobody ever reads from them.
    let black_hole = TcpListener::bind(cluster.configs[2].listen).expect("the address is free");
    cluster.start(1);
    cluster.start(2);
    for sum in 1..=200 {
        assert_eq!(cluster.propose(1, 1), Ok(sum));
    }
    let leader = cluster.handle(cluster.leader());
    let links = leader.status().peers;
    let link = links.iter().find(|link| link.id == id(3)).expect("it is a member");
    assert!(!link.connected && link.dropped > 0, "{link:?}");
    drop(black_hole);
    cluster.start(3);
    assert_eq!(cluster.agreed_state(), (200, 200));
}

#[test]
fn a_half_open_connection_is_noticed_and_replaced() {
    let mut cluster = Cluster::new(3);
    let proxy = Proxy::to(cluster.configs[2].listen);
    for config in &mut cluster.configs[..2] {
        config.peers.insert(id(3), proxy.address.to_string());
    }
    for number in 1..=3 {
        cluster.start(number);
    }
    cluster.propose(1, 1).expect("nothing is broken");
    let is_connected = |cluster: &Cluster, number: usize| {
        let links = cluster.handle(number).status().peers;
        links.iter().any(|link| link.id == id(3) && link.connected)
    };
    wait_for("the links", || {
        (is_connected(&cluster, 1) && is_connected(&cluster, 2)).then_some(())
    });
    proxy.is_frozen.store(true, Ordering::Relaxed);
    wait_for("the loss to be noticed", || {
        (!is_connected(&cluster, 1) && !is_connected(&cluster, 2)).then_some(())
    });
    assert_eq!(cluster.propose(1, 1), Ok(2), "two are a majority");
    proxy.is_frozen.store(false, Ordering::Relaxed);
    wait_for("new links", || {
        (is_connected(&cluster, 1) && is_connected(&cluster, 2)).then_some(())
    });
    assert_eq!(cluster.agreed_state(), (2, 2));
}

/// A cluster of three, and the proxies that all links lead through, by the nodes at both ends.
fn proxied() -> (Cluster, BTreeMap<(usize, usize), Proxy>) {
    let mut cluster = Cluster::new(3);
    let mut proxies = BTreeMap::new();
    for from in 1..=3 {
        for to in (1..=3).filter(|&to| to != from) {
            let proxy = Proxy::to(cluster.configs[to - 1].listen);
            cluster.configs[from - 1].peers.insert(id(to), proxy.address.to_string());
            proxies.insert((from, to), proxy);
        }
    }
    for number in 1..=3 {
        cluster.start(number);
    }
    (cluster, proxies)
}

/// What a leader has taken whose followers do not hear it is overwritten by the next one. Whoever waits
/// for it is told so as soon as the old leader knows, and not by what stands in its place.
#[test]
fn what_is_overwritten_is_answered_as_not_applied() {
    let (cluster, proxies) = proxied();
    assert_eq!(cluster.propose(1, 1), Ok(1));
    let old = cluster.leader();
    let is_cut_off = |yes| {
        for (_, proxy) in proxies.iter().filter(|((from, to), _)| *from == old || *to == old) {
            proxy.is_frozen.store(yes, Ordering::Relaxed);
        }
    };
    is_cut_off(true);
    let handle = cluster.handle(old);
    let waiting = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let proposal = handle.propose_within(number_command(10), Duration::from_secs(30));
        runtime.expect("a runtime").block_on(proposal)
    });
    let new = wait_for("the next leader", || {
        let leads = |&number: &usize| {
            number != old && cluster.handle(number).status().raft.role == RoleKind::Leader
        };
        (1..=3).find(leads)
    });
    for sum in [101, 201, 301] {
        assert_eq!(cluster.propose(new, 100), Ok(sum));
    }
    is_cut_off(false);
    let outcome = waiting.join().expect("no panic");
    assert_eq!(outcome.err(), Some(NotApplied::Superseded.into()));
    assert_eq!(cluster.agreed_state(), (301, 4));
}

/// What has been sent to the leader may be applied, whatever becomes of the connection before its answer
/// is back: nobody is told that it is not, and nobody sends it again.
#[test]
fn what_was_forwarded_before_the_connection_broke_is_unknown() {
    let (cluster, proxies) = proxied();
    let leader = cluster.leader();
    let follower = cluster.follower();
    assert_eq!(cluster.propose(follower, 1), Ok(1), "the way to the leader is open");
    // What the leader says on connections that others made is kept back: only answers.
    proxies[&(follower, leader)].is_mute.store(true, Ordering::Relaxed);
    let outcome = cluster.propose(follower, 10);
    assert_eq!(outcome, Err(Unknown::ConnectionLost.into()));
    proxies[&(follower, leader)].is_mute.store(false, Ordering::Relaxed);
    assert_eq!(cluster.agreed_state(), (11, 2), "it was applied, once");
}

/// Passes bytes on, or keeps its connections open and passes nothing.
struct Proxy {
    address: SocketAddr,
    is_frozen: Arc<AtomicBool>,
    /// Nothing that is answered gets through.
    is_mute: Arc<AtomicBool>,
}

impl Proxy {
    fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(address()).expect("the address is free");
        let address = listener.local_addr().expect("it is bound");
        let is_frozen = Arc::new(AtomicBool::new(false));
        let is_mute = Arc::new(AtomicBool::new(false));
        let (frozen, mute) = (Arc::clone(&is_frozen), Arc::clone(&is_mute));
        // The threads end with the test process, or with their connections.
        std::thread::spawn(move || {
            for from in listener.incoming().filter_map(Result::ok) {
                // Closes the connection if there is nobody.
                let Ok(to) = TcpStream::connect(target) else { continue };
                let (from_back, to_back) = (from.try_clone(), to.try_clone());
                let (Ok(from_back), Ok(to_back)) = (from_back, to_back) else { continue };
                let there = vec![Arc::clone(&frozen)];
                let back = vec![Arc::clone(&frozen), Arc::clone(&mute)];
                std::thread::spawn(move || pass(from, to, &there));
                std::thread::spawn(move || pass(to_back, from_back, &back));
            }
        });
        Self { address, is_frozen, is_mute }
    }
}

/// Passes on what comes, while nothing keeps it back.
fn pass(mut from: TcpStream, mut to: TcpStream, kept_back: &[Arc<AtomicBool>]) {
    let wait = || {
        while kept_back.iter().any(|it| it.load(Ordering::Relaxed)) {
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let mut buffer = [0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        wait();
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}
