//! Orders of operators on their way to the leader, and what came of them.

use raft_core::{ChangeRefusal, LogIndex, NodeId, TransferRefusal};

use super::{Malformed, node};
use crate::orders::{Done, Edit, Lag, OrderError, Wanted};
use crate::wire;
use crate::wire::order_reply::{self, Outcome, Reason, Refusal};
use crate::wire::order_request::{AddMember, Order, TransferLeadership};

/// The longest text of a refusal.
const TEXT_BYTES_MAX: usize = 300;

/// As it travels to the leader.
pub(crate) fn order_to_wire(wanted: &Wanted) -> Order {
    match wanted {
        Wanted::Change(Edit::AddLearner { id, address, note }) => {
            let (address, note) = (address.clone(), note.clone());
            let member = wire::Member { node: id.get(), address, note, version: 0 };
            Order::AddMember(AddMember { member: Some(member) })
        }
        Wanted::Change(Edit::Promote(id)) => Order::Promote(id.get()),
        Wanted::Change(Edit::Remove(id)) => Order::RemoveMember(id.get()),
        Wanted::Transfer(to) => {
            Order::TransferLeadership(TransferLeadership { to: to.map(NodeId::get) })
        }
    }
}

/// What a follower's operator wants. Whether the address makes sense is for the leader to say.
pub(crate) fn order_from_wire(order: Option<Order>) -> Result<Wanted, Malformed> {
    Ok(match order.ok_or(Malformed::Missing("OrderRequest.order"))? {
        Order::AddMember(AddMember { member }) => {
            let member = member.ok_or(Malformed::Missing("AddMember.member"))?;
            let wire::Member { node: number, address, note, version: _ } = member;
            let id = node(number, "AddMember.member")?;
            Wanted::Change(Edit::AddLearner { id, address, note })
        }
        Order::Promote(id) => Wanted::Change(Edit::Promote(node(id, "OrderRequest.promote")?)),
        Order::RemoveMember(id) => {
            Wanted::Change(Edit::Remove(node(id, "OrderRequest.remove_member")?))
        }
        Order::TransferLeadership(TransferLeadership { to }) => {
            let to = to.map(|id| node(id, "TransferLeadership.to")).transpose()?;
            Wanted::Transfer(to)
        }
    })
}

/// What the leader answers.
pub(crate) fn order_outcome_to_wire(end: Result<Done, OrderError>) -> Outcome {
    let not_leader = |leader: Option<NodeId>| {
        let leader = leader.map(NodeId::get);
        Outcome::NotLeader(wire::answer::NotLeader { leader })
    };
    match end {
        Ok(Done::Members) => Outcome::Done(order_reply::Done { leader: None }),
        Ok(Done::Leads(leader)) => Outcome::Done(order_reply::Done { leader: Some(leader.get()) }),
        Err(OrderError::NotLeader { leader }) => not_leader(leader),
        // To a follower's operator this node is just not the leader any more.
        Err(OrderError::ShuttingDown) => not_leader(None),
        Err(OrderError::Unknown) => Outcome::Unknown(order_reply::Unknown::LeadershipLost.into()),
        Err(OrderError::Timeout) => Outcome::Unknown(order_reply::Unknown::Timeout.into()),
        Err(why) => Outcome::Refusal(refusal_to_wire(&why)),
    }
}

fn refusal_to_wire(why: &OrderError) -> Refusal {
    use ChangeRefusal as C;
    use TransferRefusal as T;
    let of = |reason: Reason| Refusal { reason: reason.into(), ..Refusal::default() };
    let about = |reason, id: NodeId| Refusal { node: id.get(), ..of(reason) };
    let at = |reason, index: LogIndex| Refusal { index: index.0, ..of(reason) };
    let refusal = match *why {
        OrderError::Busy => of(Reason::Busy),
        OrderError::Superseded => of(Reason::Superseded),
        OrderError::BadAddress(_) => of(Reason::BadAddress),
        OrderError::NotAMember(id) => about(Reason::NotAMember, id),
        OrderError::Leaving(id) => about(Reason::Leaving, id),
        OrderError::LastVoter(id) => about(Reason::LastVoter, id),
        OrderError::DidNotTakeOver(id) => about(Reason::DidNotTakeOver, id),
        OrderError::NotCaughtUp { id, lag } => {
            let refusal = about(Reason::NotCaughtUp, id);
            match lag {
                Lag::Silent => refusal,
                Lag::Entries(missing) => Refusal { missing_entries: Some(missing), ..refusal },
                Lag::Snapshot { held } => Refusal { snapshot_bytes_held: Some(held), ..refusal },
            }
        }
        OrderError::Change(C::Transferring { to }) => about(Reason::Transferring, to),
        OrderError::Change(C::InFlight { index }) => at(Reason::ChangeInFlight, index),
        OrderError::Change(C::NoCommitInTermYet) => of(Reason::NoCommitInTermYet),
        OrderError::Change(C::Stale { actual }) => at(Reason::Stale, actual),
        OrderError::Change(C::WouldLoseQuorum { ready, needed }) => {
            let (ready, needed) = (ready as u64, needed as u64);
            Refusal { ready, needed, ..of(Reason::WouldLoseQuorum) }
        }
        OrderError::Transfer(T::InFlight { to }) => about(Reason::TransferInFlight, to),
        OrderError::Transfer(T::NotAVoter) => of(Reason::NotAVoter),
        OrderError::Transfer(T::NotAlive) => of(Reason::NotAlive),
        // What a leader has no reason to say, and what a later version may add.
        _ => Refusal::default(),
    };
    let text = match why {
        // Repeats what it was given.
        OrderError::BadAddress(address) => address.clone(),
        OrderError::Other(text) => text.clone(),
        why => why.to_string(),
    };
    Refusal { text: shortened(&text), ..refusal }
}

/// What came of an order. What this version does not understand may be anything.
pub(crate) fn order_outcome_from_wire(outcome: Option<Outcome>) -> Result<Done, OrderError> {
    match outcome {
        Some(Outcome::Done(order_reply::Done { leader: None })) => Ok(Done::Members),
        Some(Outcome::Done(order_reply::Done { leader: Some(leader) })) => {
            NodeId::new(leader).map(Done::Leads).ok_or(OrderError::Unknown)
        }
        Some(Outcome::NotLeader(wire::answer::NotLeader { leader })) => {
            Err(OrderError::NotLeader { leader: leader.and_then(NodeId::new) })
        }
        Some(Outcome::Refusal(refusal)) => Err(refusal_from_wire(&refusal)),
        Some(Outcome::Unknown(why)) if why == i32::from(order_reply::Unknown::Timeout) => {
            Err(OrderError::Timeout)
        }
        Some(Outcome::Unknown(_)) | None => Err(OrderError::Unknown),
    }
}

fn refusal_from_wire(refusal: &Refusal) -> OrderError {
    use ChangeRefusal as C;
    use TransferRefusal as T;
    let text = shortened(&refusal.text);
    let index = LogIndex(refusal.index);
    let count = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    // Whatever it is, nothing was done.
    let reason = Reason::try_from(refusal.reason).unwrap_or(Reason::Unspecified);
    match (reason, NodeId::new(refusal.node)) {
        (Reason::Busy, _) => OrderError::Busy,
        (Reason::Superseded, _) => OrderError::Superseded,
        (Reason::BadAddress, _) => OrderError::BadAddress(text),
        (Reason::NotAMember, Some(id)) => OrderError::NotAMember(id),
        (Reason::Leaving, Some(id)) => OrderError::Leaving(id),
        (Reason::LastVoter, Some(id)) => OrderError::LastVoter(id),
        (Reason::DidNotTakeOver, Some(id)) => OrderError::DidNotTakeOver(id),
        (Reason::NotCaughtUp, Some(id)) => {
            let lag = match (refusal.snapshot_bytes_held, refusal.missing_entries) {
                (Some(held), _) => Lag::Snapshot { held },
                (None, Some(missing)) => Lag::Entries(missing),
                (None, None) => Lag::Silent,
            };
            OrderError::NotCaughtUp { id, lag }
        }
        (Reason::Transferring, Some(to)) => OrderError::Change(C::Transferring { to }),
        (Reason::ChangeInFlight, _) => OrderError::Change(C::InFlight { index }),
        (Reason::NoCommitInTermYet, _) => OrderError::Change(C::NoCommitInTermYet),
        (Reason::Stale, _) => OrderError::Change(C::Stale { actual: index }),
        (Reason::WouldLoseQuorum, _) => {
            let (ready, needed) = (count(refusal.ready), count(refusal.needed));
            OrderError::Change(C::WouldLoseQuorum { ready, needed })
        }
        (Reason::TransferInFlight, Some(to)) => OrderError::Transfer(T::InFlight { to }),
        (Reason::NotAVoter, _) => OrderError::Transfer(T::NotAVoter),
        (Reason::NotAlive, _) => OrderError::Transfer(T::NotAlive),
        (_, _) => OrderError::Other(text),
    }
}

/// One line of bounded length, whatever the other node says.
fn shortened(text: &str) -> String {
    let mut short = String::new();
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if short.len() + c.len_utf8() > TEXT_BYTES_MAX {
            break;
        }
        short.push(c);
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> NodeId {
        NodeId::new(number).unwrap()
    }

    #[test]
    fn every_order_reaches_the_leader() {
        let (address, note) = ("there:1".to_owned(), "a note".to_owned());
        for wanted in [
            Wanted::Change(Edit::AddLearner { id: id(4), address, note }),
            Wanted::Change(Edit::Promote(id(4))),
            Wanted::Change(Edit::Remove(id(1))),
            Wanted::Transfer(None),
            Wanted::Transfer(Some(id(2))),
        ] {
            assert_eq!(order_from_wire(Some(order_to_wire(&wanted))), Ok(wanted));
        }
        for nonsense in [
            None,
            Some(Order::Promote(0)),
            Some(Order::AddMember(AddMember { member: None })),
            Some(Order::TransferLeadership(TransferLeadership { to: Some(0) })),
        ] {
            assert!(order_from_wire(nonsense.clone()).is_err(), "{nonsense:?}");
        }
    }

    #[test]
    fn every_answer_comes_back_as_it_was_given() {
        use OrderError as E;
        let lag = |lag| E::NotCaughtUp { id: id(4), lag };
        let errors = [
            E::NotLeader { leader: None },
            E::NotLeader { leader: Some(id(2)) },
            E::Change(ChangeRefusal::Transferring { to: id(2) }),
            E::Change(ChangeRefusal::InFlight { index: LogIndex(9) }),
            E::Change(ChangeRefusal::NoCommitInTermYet),
            E::Change(ChangeRefusal::Stale { actual: LogIndex(9) }),
            E::Change(ChangeRefusal::WouldLoseQuorum { ready: 1, needed: 2 }),
            E::Transfer(TransferRefusal::InFlight { to: id(3) }),
            E::Transfer(TransferRefusal::NotAVoter),
            E::Transfer(TransferRefusal::NotAlive),
            E::NotAMember(id(9)),
            lag(Lag::Silent),
            lag(Lag::Entries(0)),
            lag(Lag::Snapshot { held: 0 }),
            E::Leaving(id(4)),
            E::LastVoter(id(1)),
            E::DidNotTakeOver(id(3)),
            E::Superseded,
            E::Unknown,
            E::Timeout,
            E::BadAddress("nowhere".into()),
            E::Busy,
            E::Other("for a reason of its own".into()),
        ];
        for end in [Ok(Done::Members), Ok(Done::Leads(id(2)))].into_iter().chain(errors.map(Err)) {
            assert_eq!(order_outcome_from_wire(Some(order_outcome_to_wire(end.clone()))), end);
        }
        // A leader that stops has not begun it: its successor may be asked.
        let stops = order_outcome_to_wire(Err(E::ShuttingDown));
        assert_eq!(order_outcome_from_wire(Some(stops)), Err(E::NotLeader { leader: None }));
    }

    #[test]
    fn what_a_later_version_says_is_a_refusal_or_leaves_the_outcome_open() {
        let text = format!("because\n{}", "ö".repeat(1000));
        let refusal = Refusal { reason: 99, text, ..Refusal::default() };
        let end = order_outcome_from_wire(Some(Outcome::Refusal(refusal))).unwrap_err();
        assert!(!end.may_have_effect());
        let OrderError::Other(text) = end else { panic!("{end:?}") };
        assert!(text.starts_with("because ö") && text.len() <= TEXT_BYTES_MAX);
        // A reason about a node that is none.
        let refusal = Refusal { reason: Reason::LastVoter.into(), ..Refusal::default() };
        let end = order_outcome_from_wire(Some(Outcome::Refusal(refusal)));
        assert_eq!(end, Err(OrderError::Other(String::new())));
        for open in [None, Some(Outcome::Unknown(99))] {
            assert_eq!(order_outcome_from_wire(open), Err(OrderError::Unknown));
        }
    }
}
