//! The balancer: one address for the page and the API, in front of all nodes.

use std::future::Future;

/// Options of `leaderboard balancer`.
#[derive(Clone, Debug, clap::Args)]
pub struct BalancerArgs {}

/// Why the balancer stopped.
#[derive(Debug, thiserror::Error)]
#[error("the balancer is not there yet")]
pub struct BalancerError;

/// Runs the balancer until `shutdown` resolves.
///
/// # Errors
/// Until it is written: at once.
pub async fn run(
    _args: BalancerArgs,
    _shutdown: impl Future<Output = ()> + Send,
) -> Result<(), BalancerError> {
    Err(BalancerError)
}
