//! What an operator wants of the cluster: other members, another leader, a snapshot. Orders wait in a short
//! queue for the driver, which gives them to the node and tells what came of them.

use std::collections::BTreeMap;
use std::time::Duration;

use raft_core::{
    ChangeOutcome, ChangeRefusal, Event, Fate, LogPosition, Membership, NodeId, SnapshotId,
    TransferRefusal,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

/// Orders at the door. There is no need for more at a time.
pub(crate) const ORDERS_MAX: usize = 64;

/// How often an order is given again that is only not possible yet.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// One step from some members to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    /// A node that is none becomes a learner.
    AddLearner(NodeId),
    /// A learner becomes a voter.
    Promote(NodeId),
    /// A member is none any more.
    Remove(NodeId),
}

/// Why an order was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OrderError {
    /// Only the leader can do it.
    #[error("this node does not lead; {}", whom(.leader))]
    NotLeader {
        /// Who leads, as far as this node knows.
        leader: Option<NodeId>,
    },
    /// The members cannot be changed like that now.
    #[error("{0}")]
    Change(ChangeRefusal),
    /// Leadership cannot be handed over like that now.
    #[error("{0}")]
    Transfer(TransferRefusal),
    /// The node is no member.
    #[error("{0} is no member; add it first")]
    NotAMember(NodeId),
    /// The node was removed just now, and this leader still tells it so: what it remembers of that node must
    /// not count for one that comes back without its log. In a moment it is over.
    #[error("{0} is only just leaving; try again in a moment")]
    Leaving(NodeId),
    /// Without it nobody would be left to vote.
    #[error("{0} is the only voter; without it there is no cluster")]
    LastVoter(NodeId),
    /// This node goes on leading.
    #[error("{0} did not take over; look whether it is up and has caught up")]
    DidNotTakeOver(NodeId),
    /// It was begun, and another leader's log took its place: it certainly has no effect.
    #[error("the leader changed, and the order was dropped; give it again")]
    Superseded,
    /// It was begun, and what became of it is not known here.
    #[error("the leader changed meanwhile; look at the members to see what became of the order")]
    Unknown,
    /// It did not happen in time. It may still, if it was begun.
    #[error("it did not happen in time: {0}")]
    Timeout(String),
    /// That is no address.
    #[error("{0:?} is no address: it must be host:port")]
    BadAddress(String),
    /// Too many orders wait already.
    #[error("too many orders wait already; try again later")]
    Busy,
    /// This node is stopping.
    #[error("the node is shutting down; ask another one")]
    ShuttingDown,
    /// There is nothing to make a snapshot of, or no room for it.
    #[error("no snapshot was cut: {0}")]
    NoSnapshot(&'static str),
}

fn whom(leader: &Option<NodeId>) -> String {
    leader.map_or_else(|| "no leader is known".to_owned(), |leader| format!("ask {leader}"))
}

impl From<ChangeRefusal> for OrderError {
    fn from(why: ChangeRefusal) -> Self {
        match why {
            ChangeRefusal::NotLeader { hint } => Self::NotLeader { leader: hint },
            why => Self::Change(why),
        }
    }
}

impl From<TransferRefusal> for OrderError {
    fn from(why: TransferRefusal) -> Self {
        match why {
            TransferRefusal::NotLeader { hint } => Self::NotLeader { leader: hint },
            why => Self::Transfer(why),
        }
    }
}

impl OrderError {
    /// Is it only not possible at this moment?
    fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Change(
                ChangeRefusal::InFlight { .. }
                    | ChangeRefusal::NoCommitInTermYet
                    | ChangeRefusal::WouldLoseQuorum { .. }
                    | ChangeRefusal::Stale { .. }
            ) | Self::Superseded
                | Self::Leaving(_)
        )
    }
}

/// What is asked of the driver.
#[derive(Debug)]
pub(crate) enum Order {
    Change(Edit, Answer<()>),
    /// To whom, or whoever has most of the log. Answered when somebody else leads.
    Transfer(Option<NodeId>, Answer<NodeId>),
    Snapshot(Answer<SnapshotId>),
}

/// Where the answer goes.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, OrderError>>;

/// The members after a step, or `None` if they are those already.
pub(crate) fn target(now: &Membership, edit: Edit) -> Result<Option<Membership>, OrderError> {
    // In a joint phase it is where that leads that counts; the node refuses until it is over.
    let now = now.target();
    let (mut voters, mut learners) = (now.voters().to_vec(), now.learners().to_vec());
    match edit {
        Edit::AddLearner(id) if now.contains(id) => return Ok(None),
        Edit::AddLearner(id) => learners.push(id),
        Edit::Promote(id) if !now.contains(id) => return Err(OrderError::NotAMember(id)),
        Edit::Promote(id) if now.is_voter(id) => return Ok(None),
        Edit::Promote(id) => {
            learners.retain(|&learner| learner != id);
            voters.push(id);
        }
        Edit::Remove(id) if !now.contains(id) => return Ok(None),
        Edit::Remove(id) => {
            learners.retain(|&learner| learner != id);
            voters.retain(|&voter| voter != id);
            if voters.is_empty() {
                return Err(OrderError::LastVoter(id));
            }
        }
    }
    let target = Membership::from_parts(voters, [], learners);
    // One that was sound stays so.
    Ok(target.ok())
}

/// Changes that are under way.
#[derive(Debug, Default)]
pub(crate) struct PendingChanges {
    waiting: BTreeMap<LogPosition, Answer<()>>,
}

impl PendingChanges {
    /// The node took it.
    pub(crate) fn register(&mut self, change: LogPosition, answer: Answer<()>) {
        self.waiting.insert(change, answer);
    }

    /// What became of it.
    pub(crate) fn settle(&mut self, outcome: ChangeOutcome) {
        let ChangeOutcome { change, fate } = outcome;
        if let Some(answer) = self.waiting.remove(&change) {
            let end = match fate {
                Fate::Committed => Ok(()),
                Fate::Superseded => Err(OrderError::Superseded),
                Fate::Unknown => Err(OrderError::Unknown),
            };
            let _ = answer.send(end); // Whoever asked may have given up.
        }
    }
}

/// Handing over that is under way.
#[derive(Debug, Default)]
pub(crate) struct PendingTransfer {
    waiting: Vec<Answer<NodeId>>,
}

impl PendingTransfer {
    /// The node has begun it.
    pub(crate) fn register(&mut self, answer: Answer<NodeId>) {
        self.waiting.retain(|waiting| !waiting.is_closed());
        self.waiting.push(answer);
    }

    /// What the node tells.
    pub(crate) fn on_event(&mut self, own: NodeId, event: &Event) {
        let end = match event {
            Event::TransferFailed { to } => Err(OrderError::DidNotTakeOver(*to)),
            Event::Role { leader: Some(leader), .. } if *leader != own => Ok(*leader),
            _ => return,
        };
        for answer in self.waiting.drain(..) {
            let _ = answer.send(end.clone()); // Whoever asked may have given up.
        }
    }
}

/// The door for orders.
#[derive(Clone, Debug)]
pub(crate) struct Orders {
    pub(crate) queue: mpsc::Sender<Order>,
}

impl Orders {
    /// Changes the members, as soon as it is possible.
    pub(crate) async fn change(&self, edit: Edit, deadline: Instant) -> Result<(), OrderError> {
        loop {
            let end = self.give(|answer| Order::Change(edit, answer), deadline).await;
            match end {
                Err(why) if why.may_pass() => {
                    if Instant::now() + RETRY_PAUSE >= deadline {
                        return Err(OrderError::Timeout(why.to_string()));
                    }
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                end => return end,
            }
        }
    }

    /// Hands leadership over, and waits until somebody else leads.
    pub(crate) async fn transfer(
        &self,
        to: Option<NodeId>,
        deadline: Instant,
    ) -> Result<NodeId, OrderError> {
        match self.give(|answer| Order::Transfer(to, answer), deadline).await {
            Err(OrderError::Transfer(TransferRefusal::AlreadyLeads)) => {
                to.ok_or(OrderError::Transfer(TransferRefusal::AlreadyLeads))
            }
            end => end,
        }
    }

    /// Cuts a snapshot.
    pub(crate) async fn snapshot(&self, deadline: Instant) -> Result<SnapshotId, OrderError> {
        self.give(Order::Snapshot, deadline).await
    }

    async fn give<T>(
        &self,
        order: impl FnOnce(Answer<T>) -> Order,
        deadline: Instant,
    ) -> Result<T, OrderError> {
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(order(answer)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => OrderError::Busy,
            mpsc::error::TrySendError::Closed(_) => OrderError::ShuttingDown,
        })?;
        match timeout_at(deadline, answered).await {
            Ok(Ok(end)) => end,
            Ok(Err(_dropped)) => Err(OrderError::ShuttingDown),
            Err(_elapsed) => Err(OrderError::Timeout("it is under way".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u64) -> NodeId {
        NodeId::new(id).unwrap()
    }

    fn members(voters: &[u64], learners: &[u64]) -> Membership {
        let ids = |ids: &[u64]| ids.iter().map(|&number| id(number)).collect::<Vec<_>>();
        Membership::from_parts(ids(voters), [], ids(learners)).unwrap()
    }

    #[test]
    fn steps_lead_where_they_say_and_twice_is_once() {
        let now = members(&[1, 2, 3], &[4]);
        let after = |edit| target(&now, edit);
        assert_eq!(after(Edit::AddLearner(id(5))), Ok(Some(members(&[1, 2, 3], &[4, 5]))));
        assert_eq!(after(Edit::AddLearner(id(4))), Ok(None));
        assert_eq!(after(Edit::AddLearner(id(1))), Ok(None), "it is more than that");
        assert_eq!(after(Edit::Promote(id(4))), Ok(Some(members(&[1, 2, 3, 4], &[]))));
        assert_eq!(after(Edit::Promote(id(1))), Ok(None));
        assert_eq!(after(Edit::Promote(id(5))), Err(OrderError::NotAMember(id(5))));
        assert_eq!(after(Edit::Remove(id(2))), Ok(Some(members(&[1, 3], &[4]))));
        assert_eq!(after(Edit::Remove(id(4))), Ok(Some(members(&[1, 2, 3], &[]))));
        assert_eq!(after(Edit::Remove(id(5))), Ok(None));
        let alone = members(&[1], &[2]);
        assert_eq!(target(&alone, Edit::Remove(id(1))), Err(OrderError::LastVoter(id(1))));
    }
}
