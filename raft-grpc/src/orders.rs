//! What an operator wants of the cluster: other members, another leader, a snapshot. Orders wait in a short
//! queue for the driver, which gives them to the node and tells what came of them. Here it is the leader's
//! queue that counts; `orders/route.rs` is the way there from other nodes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use raft_core::{
    ChangeOutcome, Event, Fate, LogPosition, Membership, NodeId, PeerPace, PeerStatus, SnapshotId,
    Status, TransferRefusal,
};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::address_book::is_sound;

mod error;
mod route;

pub use error::{Lag, OrderError};
pub(crate) use route::to_leader;

/// Orders at the door, and those that a node gives again and again until they are possible. There is no
/// need for more at a time.
pub(crate) const ORDERS_MAX: usize = 64;

/// How often an order is given again that is only not possible yet.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// How long a transfer waits for somebody who could take over.
const TRANSFER_PATIENCE: Duration = Duration::from_secs(1);

/// So many entries a learner may lack that becomes a voter.
const LAG_MAX: u64 = 1000;

/// What only the leader can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Change(Edit),
    /// To whom, or whoever has most of the log.
    Transfer(Option<NodeId>),
}

/// As in a line of the log: without what others have written.
impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Change(Edit::AddLearner { id, .. }) => write!(f, "add {id}"),
            Self::Change(Edit::Promote(id)) => write!(f, "promote {id}"),
            Self::Change(Edit::Remove(id)) => write!(f, "remove {id}"),
            Self::Transfer(Some(to)) => write!(f, "transfer leadership to {to}"),
            Self::Transfer(None) => write!(f, "transfer leadership"),
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// The members are as they were wanted, and that is committed.
    Members,
    /// This node leads now.
    Leads(NodeId),
}

/// One step from some members to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    /// A node that is none becomes a learner; where it is, and what should be known about it, until it says
    /// so itself.
    AddLearner { id: NodeId, address: String, note: String },
    /// A learner becomes a voter.
    Promote(NodeId),
    /// A member is none any more.
    Remove(NodeId),
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
pub(crate) fn target(now: &Membership, edit: &Edit) -> Result<Option<Membership>, OrderError> {
    // In a joint phase it is where that leads that counts; the node refuses until it is over.
    let now = now.target();
    let (mut voters, mut learners) = (now.voters().to_vec(), now.learners().to_vec());
    match *edit {
        Edit::AddLearner { id, .. } if now.contains(id) => return Ok(None),
        Edit::AddLearner { id, .. } => learners.push(id),
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

/// May this learner become a voter, as far as the leader's log is concerned?
pub(crate) fn has_caught_up(leader: &Status, id: NodeId) -> Result<(), OrderError> {
    let lag = match leader.peers.iter().find(|peer| peer.id == id) {
        Some(PeerStatus { recently_active: true, pace: PeerPace::Snapshot { held }, .. }) => {
            Lag::Snapshot { held: *held }
        }
        Some(PeerStatus { recently_active: true, match_index, pace, .. }) => {
            let missing = leader.last.index.0.saturating_sub(match_index.0);
            if missing <= LAG_MAX && *pace == PeerPace::Replicate {
                return Ok(());
            }
            Lag::Entries(missing)
        }
        Some(_) | None => Lag::Silent,
    };
    Err(OrderError::NotCaughtUp { id, lag })
}

/// Changes that are under way. Whoever waits when this node ends cannot be told what comes of it.
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

impl Drop for PendingChanges {
    fn drop(&mut self) {
        for (_, answer) in std::mem::take(&mut self.waiting) {
            let _ = answer.send(Err(OrderError::Unknown)); // Whoever asked may have given up.
        }
    }
}

/// Handing over that is under way. Whoever waits when this node ends cannot be told what comes of it.
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

impl Drop for PendingTransfer {
    fn drop(&mut self) {
        for answer in self.waiting.drain(..) {
            let _ = answer.send(Err(OrderError::Unknown)); // Whoever asked may have given up.
        }
    }
}

/// The door for orders.
#[derive(Clone, Debug)]
pub(crate) struct Orders {
    queue: mpsc::Sender<Order>,
    room: Arc<Semaphore>,
}

impl Orders {
    /// In front of this queue.
    pub(crate) fn new(queue: mpsc::Sender<Order>) -> Self {
        Self { queue, room: Arc::new(Semaphore::new(ORDERS_MAX)) }
    }

    /// Has it done by this node, which should lead.
    pub(crate) async fn carry_out(
        &self,
        wanted: &Wanted,
        deadline: Instant,
    ) -> Result<Done, OrderError> {
        let _room = self.room.try_acquire().map_err(|_| OrderError::Busy)?;
        if let Wanted::Change(Edit::AddLearner { address, note, .. }) = wanted
            && !is_sound(address, note)
        {
            return Err(OrderError::BadAddress(address.chars().take(100).collect()));
        }
        match wanted {
            Wanted::Change(edit) => self.change(edit, deadline).await.map(|()| Done::Members),
            Wanted::Transfer(to) => self.transfer(*to, deadline).await.map(Done::Leads),
        }
    }

    /// Changes the members, as soon as it is possible.
    async fn change(&self, edit: &Edit, deadline: Instant) -> Result<(), OrderError> {
        loop {
            let end = self.give(|answer| Order::Change(edit.clone(), answer), deadline).await;
            match end {
                Err(why) if why.may_pass() && Instant::now() + RETRY_PAUSE < deadline => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                end => return end,
            }
        }
    }

    /// Hands leadership over, and waits until somebody else leads.
    async fn transfer(&self, to: Option<NodeId>, deadline: Instant) -> Result<NodeId, OrderError> {
        // A leader that has just been elected has not heard from everyone yet.
        let patient_until = deadline.min(Instant::now() + TRANSFER_PATIENCE);
        loop {
            match self.give(|answer| Order::Transfer(to, answer), deadline).await {
                Err(OrderError::Transfer(TransferRefusal::AlreadyLeads)) => {
                    return to.ok_or(OrderError::Transfer(TransferRefusal::AlreadyLeads));
                }
                Err(OrderError::Transfer(TransferRefusal::NotAlive))
                    if Instant::now() + RETRY_PAUSE < patient_until =>
                {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                end => return end,
            }
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
            // Nobody has begun it: what was begun is answered at the node's end too.
            Ok(Err(_dropped)) => Err(OrderError::ShuttingDown),
            Err(_elapsed) => Err(OrderError::Timeout),
        }
    }
}

#[cfg(test)]
mod tests {
    use raft_core::LogIndex;

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
        let after = |edit| target(&now, &edit);
        let add = |number| Edit::AddLearner {
            id: id(number),
            address: "there:1".into(),
            note: String::new(),
        };
        assert_eq!(after(add(5)), Ok(Some(members(&[1, 2, 3], &[4, 5]))));
        assert_eq!(after(add(4)), Ok(None));
        assert_eq!(after(add(1)), Ok(None), "it is more than that");
        assert_eq!(after(Edit::Promote(id(4))), Ok(Some(members(&[1, 2, 3, 4], &[]))));
        assert_eq!(after(Edit::Promote(id(1))), Ok(None));
        assert_eq!(after(Edit::Promote(id(5))), Err(OrderError::NotAMember(id(5))));
        assert_eq!(after(Edit::Remove(id(2))), Ok(Some(members(&[1, 3], &[4]))));
        assert_eq!(after(Edit::Remove(id(4))), Ok(Some(members(&[1, 2, 3], &[]))));
        assert_eq!(after(Edit::Remove(id(5))), Ok(None));
        let alone = members(&[1], &[2]);
        assert_eq!(target(&alone, &Edit::Remove(id(1))), Err(OrderError::LastVoter(id(1))));
    }

    #[test]
    fn a_learner_votes_when_it_has_answered_and_lacks_little() {
        let config = raft_core::Config::new(id(1), 1);
        let restored = raft_core::Restored::empty(members(&[1, 2, 3], &[4]));
        let node = raft_core::Node::new(config, restored, raft_core::Instant::default()).unwrap();
        let mut status = node.status();
        status.last.index = LogIndex(5000);
        let peer = |match_index, recently_active, pace| PeerStatus {
            id: id(4),
            match_index: LogIndex(match_index),
            next_index: LogIndex(5001),
            recently_active,
            pace,
        };
        let not_yet = |lag| Err(OrderError::NotCaughtUp { id: id(4), lag });
        assert_eq!(has_caught_up(&status, id(4)), not_yet(Lag::Silent), "not known yet");
        for (peer, end) in [
            (peer(4000, true, PeerPace::Replicate), Ok(())),
            (peer(3999, true, PeerPace::Replicate), not_yet(Lag::Entries(1001))),
            (peer(5000, false, PeerPace::Replicate), not_yet(Lag::Silent)),
            (peer(5000, true, PeerPace::Probe), not_yet(Lag::Entries(0))),
            (peer(4999, true, PeerPace::Snapshot { held: 7 }), not_yet(Lag::Snapshot { held: 7 })),
        ] {
            status.peers = vec![peer];
            assert_eq!(has_caught_up(&status, id(4)), end, "{peer:?}");
        }
    }

    #[tokio::test]
    async fn who_waits_when_the_node_ends_is_told_what_is_certain() {
        let (queue, mut inbox) = mpsc::channel(ORDERS_MAX);
        let orders = Orders::new(queue);
        let deadline = Instant::now() + Duration::from_secs(60);
        let carry_out = |wanted| {
            let orders = orders.clone();
            tokio::spawn(async move { orders.carry_out(&wanted, deadline).await })
        };
        let position = LogPosition::new(raft_core::Term(1), LogIndex(9));
        let (mut changes, mut transfer) = (PendingChanges::default(), PendingTransfer::default());
        let begun = [Wanted::Change(Edit::Remove(id(2))), Wanted::Transfer(None)].map(carry_out);
        for _ in &begun {
            match inbox.recv().await.unwrap() {
                Order::Change(_, answer) => changes.register(position, answer),
                Order::Transfer(_, answer) => transfer.register(answer),
                Order::Snapshot(_) => panic!("nobody asked for it"),
            }
        }
        let waiting = carry_out(Wanted::Change(Edit::Remove(id(3))));
        while inbox.is_empty() {
            tokio::task::yield_now().await;
        }
        drop((inbox, changes, transfer));
        for begun in begun {
            assert_eq!(begun.await.unwrap(), Err(OrderError::Unknown));
        }
        assert_eq!(waiting.await.unwrap(), Err(OrderError::ShuttingDown));
    }

    #[tokio::test]
    async fn an_address_that_is_none_is_refused_before_it_is_queued() {
        let (queue, mut inbox) = mpsc::channel(ORDERS_MAX);
        let orders = Orders::new(queue);
        let deadline = Instant::now() + Duration::from_secs(60);
        let note = String::new();
        for (address, note) in [("no port", note), ("there:1", "two\nlines".to_owned())] {
            let address = address.to_owned();
            let add = Edit::AddLearner { id: id(4), address: address.clone(), note };
            let end = orders.carry_out(&Wanted::Change(add), deadline).await;
            assert_eq!(end, Err(OrderError::BadAddress(address)));
        }
        assert!(inbox.try_recv().is_err());
    }
}
