//! The nodes as the balancer sees them: who answers, and whose turn it is.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use super::config::NodeAddress;

/// All nodes, in the order of the configuration.
#[derive(Debug)]
pub(super) struct Nodes {
    all: Vec<Arc<Node>>,
    /// Counts rounds; its remainder says who is asked first.
    turn: AtomicUsize,
}

impl Nodes {
    pub(super) fn new(addresses: &[NodeAddress]) -> Self {
        let all = addresses.iter().cloned().map(Node::new).map(Arc::new).collect();
        Self { all, turn: AtomicUsize::new(0) }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.all.iter()
    }

    /// Every node once, in the order in which one request should try them: first those that answer,
    /// starting with the one whose turn it is. Those that are down come last, not never: the
    /// balancer may be wrong about them, and a wrong guess must cost time, not an answer.
    pub(super) fn round(&self) -> VecDeque<Arc<Node>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let (mut healthy, mut down): (VecDeque<_>, VecDeque<_>) =
            self.all.iter().cloned().partition(|node| node.is_healthy());
        for nodes in [&mut healthy, &mut down] {
            let first = turn % nodes.len().max(1);
            nodes.rotate_left(first);
        }
        healthy.append(&mut down);
        healthy
    }
}

/// One node: its address, whether it answers, and what was asked of it.
#[derive(Debug)]
pub(super) struct Node {
    address: NodeAddress,
    health: Mutex<Health>,
    /// Wakes the prober when a request has found the node down.
    went_down: Notify,
    /// Whether the last probe got no answer at all.
    silent: watch::Sender<bool>,
    in_flight: AtomicUsize,
    tries: AtomicU64,
    failures: AtomicU64,
}

#[derive(Clone, Debug)]
struct Health {
    healthy: bool,
    since: Instant,
    last_error: Option<String>,
}

impl Node {
    /// A node that nobody has tried yet is taken for healthy: the first request finds out.
    fn new(address: NodeAddress) -> Self {
        let health = Health { healthy: true, since: Instant::now(), last_error: None };
        Self {
            address,
            health: Mutex::new(health),
            went_down: Notify::new(),
            silent: watch::Sender::new(false),
            in_flight: AtomicUsize::new(0),
            tries: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    pub(super) fn address(&self) -> &NodeAddress {
        &self.address
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.health().healthy
    }

    /// Notes that the node did not answer, and why.
    pub(super) fn mark_down(&self, error: &str) {
        let mut health = self.health();
        health.last_error = Some(error.to_owned());
        if health.healthy {
            health.healthy = false;
            health.since = Instant::now();
            drop(health);
            warn!(node = %self.address, error, "node is down");
            self.went_down.notify_one();
        }
    }

    /// Notes that the node answered a probe. Only probes bring a node back: an answer to a request
    /// may be a refusal by a node that is not ready. Why it was down is kept for the curious.
    pub(super) fn mark_healthy(&self) {
        let mut health = self.health();
        if !health.healthy {
            let down_for = health.since.elapsed();
            health.healthy = true;
            health.since = Instant::now();
            drop(health);
            info!(node = %self.address, ?down_for, "node answers again");
        }
    }

    /// Notes that the node did not even answer a probe.
    pub(super) fn mark_silent(&self, error: &str) {
        self.mark_down(error);
        self.silent.send_if_modified(|silent| !std::mem::replace(silent, true));
    }

    /// Notes that the node answered a probe, if only to say that it is not ready.
    pub(super) fn mark_not_silent(&self) {
        self.silent.send_if_modified(|silent| std::mem::replace(silent, false));
    }

    /// Resolves when a probe finds the node silent that answered the one before.
    pub(super) async fn falls_silent(&self) {
        let mut silent = self.silent.subscribe();
        while silent.changed().await.is_ok() {
            if *silent.borrow_and_update() {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    /// Resolves when the node is marked down (at once if it was since the last call).
    pub(super) async fn went_down(&self) {
        self.went_down.notified().await;
    }

    /// Counts one try, for as long as what it returns lives.
    pub(super) fn start_try(self: &Arc<Self>) -> Try {
        self.tries.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Try(Arc::clone(self))
    }

    /// A copy of everything, for status.
    pub(super) fn snapshot(&self) -> NodeSnapshot {
        let Health { healthy, since, last_error } = self.health().clone();
        NodeSnapshot {
            healthy,
            since: since.elapsed(),
            last_error,
            in_flight: self.in_flight.load(Ordering::Relaxed),
            tries: self.tries.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
        }
    }

    fn health(&self) -> std::sync::MutexGuard<'_, Health> {
        // Nothing is done under the lock that could leave the record half written.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A node's counters at one moment.
#[derive(Debug)]
pub(super) struct NodeSnapshot {
    pub(super) healthy: bool,
    /// How long it has been healthy, or down.
    pub(super) since: Duration,
    pub(super) last_error: Option<String>,
    /// Tries that are not finished, answers still streaming included.
    pub(super) in_flight: usize,
    pub(super) tries: u64,
    pub(super) failures: u64,
}

/// A request that is at a node, until dropped.
#[derive(Debug)]
pub(super) struct Try(Arc<Node>);

impl Try {
    /// The node broke off or did not answer.
    pub(super) fn failed(&self, error: &str) {
        self.0.failures.fetch_add(1, Ordering::Relaxed);
        self.0.mark_down(error);
    }
}

impl Drop for Try {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: u16) -> Nodes {
        let address = |port: u16| format!("127.0.0.1:{}", 9000 + port).parse().unwrap();
        Nodes::new(&(0..count).map(address).collect::<Vec<_>>())
    }

    fn first_choices(nodes: &Nodes, rounds: usize) -> Vec<String> {
        (0..rounds).map(|_| nodes.round()[0].address().to_string()).collect()
    }

    #[test]
    fn turns_are_even_also_when_one_is_down() {
        let nodes = nodes(3);
        let choices = first_choices(&nodes, 300);
        for node in nodes.iter() {
            assert_eq!(choices.iter().filter(|c| *c == node.address().as_str()).count(), 100);
        }
        nodes.all[1].mark_down("refused");
        let choices = first_choices(&nodes, 300);
        assert_eq!(choices.iter().filter(|c| c.ends_with("9001")).count(), 0);
        assert_eq!(choices.iter().filter(|c| c.ends_with("9002")).count(), 150);
    }

    #[test]
    fn a_node_that_is_down_comes_last_and_not_never() {
        let nodes = nodes(3);
        nodes.all[0].mark_down("refused");
        for _ in 0..6 {
            let round = nodes.round();
            assert_eq!(round.len(), 3);
            assert_eq!(round[2].address(), nodes.all[0].address());
        }
        nodes.all[0].mark_healthy();
        let snapshot = nodes.all[0].snapshot();
        assert!(snapshot.healthy);
        assert_eq!(snapshot.last_error.as_deref(), Some("refused"));
    }
}
