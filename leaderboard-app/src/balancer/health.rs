//! Probes in the background: they bring a node back, and notice one that hangs before users do.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::time::{sleep, timeout};

use super::client::{NodeClient, describe};
use super::config::BalancerConfig;
use super::nodes::Node;

/// The node serves its own state. Not the linearizable level: a node without a leader refuses with
/// words that the balancer understands, which is not the same as being down.
const PROBE_TARGET: &str = "/readyz?level=stale";

/// The first probe after a node went down comes this soon: often only one connection broke.
const BACK_OFF_MIN: Duration = Duration::from_millis(100);

/// A node that stays down is asked this often, so that it is used soon after its restart.
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// Probes one node for ever.
pub(super) async fn probe(node: Arc<Node>, client: NodeClient, config: BalancerConfig) {
    let mut back_off = BACK_OFF_MIN;
    loop {
        if node.is_healthy() {
            back_off = BACK_OFF_MIN;
            tokio::select! {
                () = sleep(config.probe_interval) => {}
                () = node.went_down() => sleep(back_off).await,
            }
        } else {
            sleep(back_off).await;
            back_off = (back_off * 2).min(BACK_OFF_MAX);
        }
        match probe_once(&node, &client, config.probe_timeout).await {
            Probed::Ready => {
                node.mark_not_silent();
                node.mark_healthy();
            }
            Probed::NotReady(error) => {
                node.mark_not_silent();
                node.mark_down(&error);
            }
            Probed::Silent(error) => node.mark_silent(&error),
        }
    }
}

/// What a probe found.
enum Probed {
    Ready,
    /// The node is there, but should get no new requests: it stops, say. What it has it may finish.
    NotReady(String),
    /// What the node has it will not finish.
    Silent(String),
}

async fn probe_once(node: &Node, client: &NodeClient, limit: Duration) -> Probed {
    match timeout(limit, client.get(node.address(), PROBE_TARGET)).await {
        Err(_) => Probed::Silent(format!("no answer to a probe within {limit:?}")),
        Ok(Err(error)) => Probed::Silent(describe(&error)),
        Ok(Ok(response)) if response.status() == StatusCode::OK => Probed::Ready,
        Ok(Ok(response)) => {
            Probed::NotReady(format!("a probe was answered with {}", response.status()))
        }
    }
}
