//! The way of an order from an operator, at any node, to the leader: found, asked, and asked only once if it
//! may have begun the order.
//!
//! One connection for each order: they are rare. A leader of a version that knows no forwarded orders says
//! so before it does anything.

use std::time::Duration;

use raft_core::NodeId;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status};

use super::{Done, OrderError, Orders, Wanted};
use crate::connect::connect;
use crate::convert::{order_outcome_from_wire, order_to_wire};
use crate::handshake::Identity;
use crate::requests::{Nobody, PAUSE_MIN, Requests};
use crate::wire;

/// So much less time than there is the leader is told that it has: its answer must be here before the time
/// is up.
const MARGIN_MAX: Duration = Duration::from_millis(100);

impl From<Nobody> for OrderError {
    fn from(why: Nobody) -> Self {
        match why {
            Nobody::NoLeader => Self::NotLeader { leader: None },
            Nobody::ShuttingDown => Self::ShuttingDown,
        }
    }
}

/// Has the leader do it, whichever node that is.
pub(crate) async fn to_leader(
    requests: &Requests,
    orders: &Orders,
    identity: &Identity,
    wanted: &Wanted,
    deadline: Instant,
) -> Result<Done, OrderError> {
    if requests.draining.is_cancelled() {
        return Err(OrderError::ShuttingDown);
    }
    let mut pause = PAUSE_MIN;
    let mut redirected = None;
    loop {
        let leader = match redirected {
            Some(leader) => leader,
            None => requests.leader_before(deadline).await?,
        };
        let end = if leader == identity.id {
            orders.carry_out(wanted, deadline).await
        } else {
            ask(identity, leader, wanted, deadline).await
        };
        let hint = match end {
            // It has not begun: someone else may be asked.
            Err(OrderError::NotLeader { leader: hint }) if hint != Some(leader) => hint,
            end => return end,
        };
        // A hint is followed at once, but one only: two nodes that name each other both lag.
        redirected = hint.filter(|_| redirected.is_none());
        if redirected.is_none() {
            requests.pause(&mut pause, deadline).await?;
        }
    }
}

/// Asks another node, once. [`OrderError::NotLeader`] if it has certainly not begun; with itself as the
/// leader if it takes no orders from others.
async fn ask(
    identity: &Identity,
    leader: NodeId,
    wanted: &Wanted,
    deadline: Instant,
) -> Result<Done, OrderError> {
    let not_begun = || OrderError::NotLeader { leader: None };
    let connected = timeout_at(deadline, connect(identity, leader)).await;
    let mut client = match connected {
        Ok(Ok(client)) => client,
        Ok(Err(why)) => {
            tracing::debug!(node = %identity.id, "cannot ask {leader}: {why}");
            return Err(not_begun());
        }
        Err(_elapsed) => return Err(not_begun()),
    };
    let left = deadline.saturating_duration_since(Instant::now());
    let left = left.saturating_sub(MARGIN_MAX.min(left / 10));
    let request = wire::OrderRequest {
        hello: Some(identity.hello(leader)),
        timeout_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
        order: Some(order_to_wire(wanted)),
    };
    match timeout_at(deadline, client.order(request)).await {
        Ok(Ok(reply)) => {
            let wire::OrderReply { welcome, outcome } = reply.into_inner();
            match identity.check_welcome(welcome, leader) {
                Ok(()) => order_outcome_from_wire(outcome),
                Err(_) => Err(OrderError::Unknown),
            }
        }
        Ok(Err(status)) => {
            tracing::debug!(node = %identity.id, "{leader} did not answer: {}", status.message());
            Err(unanswered(leader, &status))
        }
        Err(_elapsed) => Err(OrderError::Timeout),
    }
}

/// What it means that there is a status instead of an answer.
fn unanswered(leader: NodeId, status: &Status) -> OrderError {
    match status.code() {
        // It has not looked at the order: it knows none, or it has refused the greeting before.
        Code::Unimplemented => OrderError::NotLeader { leader: Some(leader) },
        Code::PermissionDenied | Code::Unauthenticated => OrderError::NotLeader { leader: None },
        // The same again would be refused again.
        Code::FailedPrecondition | Code::InvalidArgument => {
            OrderError::Other(status.message().chars().take(300).collect())
        }
        _ => OrderError::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_has_certainly_not_begun_is_not_the_leader() {
        let two = NodeId::new(2).unwrap();
        let end = |code| unanswered(two, &Status::new(code, "why"));
        assert_eq!(end(Code::Unimplemented), OrderError::NotLeader { leader: Some(two) });
        for code in [Code::PermissionDenied, Code::Unauthenticated] {
            assert_eq!(end(code), OrderError::NotLeader { leader: None });
        }
        for code in [Code::FailedPrecondition, Code::InvalidArgument] {
            assert_eq!(end(code), OrderError::Other("why".to_owned()));
        }
        for code in [Code::Unavailable, Code::Unknown, Code::Internal, Code::Cancelled] {
            assert!(end(code).may_have_effect(), "{code}");
        }
    }
}
