//! Peers that are slow, silent or cut off, without a connection ever being closed.

mod harness;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::{Cluster, address, id, wait_for};

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

/// Passes bytes on, or keeps its connections open and passes nothing.
struct Proxy {
    address: SocketAddr,
    is_frozen: Arc<AtomicBool>,
}

impl Proxy {
    fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(address()).expect("the address is free");
        let address = listener.local_addr().expect("it is bound");
        let is_frozen = Arc::new(AtomicBool::new(false));
        let frozen = Arc::clone(&is_frozen);
        // The threads end with the test process, or with their connections.
        std::thread::spawn(move || {
            for from in listener.incoming().filter_map(Result::ok) {
                // Closes the connection if there is nobody.
                let Ok(to) = TcpStream::connect(target) else { continue };
                let (from_back, to_back) = (from.try_clone(), to.try_clone());
                let (Ok(from_back), Ok(to_back)) = (from_back, to_back) else { continue };
                let (there, back) = (Arc::clone(&frozen), Arc::clone(&frozen));
                std::thread::spawn(move || pass(from, to, &there));
                std::thread::spawn(move || pass(to_back, from_back, &back));
            }
        });
        Self { address, is_frozen }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, is_frozen: &AtomicBool) {
    let mut buffer = [0; 64 << 10];
    loop {
        while is_frozen.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
        }
        match from.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(length) if to.write_all(&buffer[..length]).is_err() => break,
            Ok(_) => {}
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}
