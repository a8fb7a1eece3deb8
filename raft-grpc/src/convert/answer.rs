//! The answers to forwarded proposals.

use raft_core::{LogIndex, LogPosition, NodeId, Term};

use crate::error::{NotApplied, ProposeError, Unknown};
use crate::handle::Applied;
use crate::pending::{Answer, Failure};
use crate::wire;
use crate::wire::answer::{self, Outcome, SizeLimit};

/// As it travels to the follower.
pub(crate) fn answer_to_wire(id: u64, answer: Answer) -> wire::Answer {
    let outcome = match answer {
        Ok(Applied { position, response }) => Outcome::Applied(answer::Applied {
            term: position.term.0,
            index: position.index.0,
            response,
        }),
        Err(Failure::NotLeader { hint }) => not_leader(hint),
        Err(Failure::Final(ProposeError::NotApplied(why))) => not_applied(&why),
        Err(Failure::Final(ProposeError::Unknown(why))) => unknown(&why),
    };
    let outcome = Some(outcome);
    wire::Answer { id, outcome }
}

fn not_leader(hint: Option<NodeId>) -> Outcome {
    let leader = hint.map(NodeId::get);
    Outcome::NotLeader(answer::NotLeader { leader })
}

fn not_applied(why: &NotApplied) -> Outcome {
    let reason = match *why {
        NotApplied::Busy => answer::NotApplied::Busy,
        NotApplied::DiskFull => answer::NotApplied::DiskFull,
        NotApplied::Superseded => answer::NotApplied::Superseded,
        NotApplied::ShuttingDown => answer::NotApplied::ShuttingDown,
        NotApplied::TooLarge { bytes, max } => return Outcome::TooLarge(SizeLimit { bytes, max }),
        // A leader neither looks for a leader nor minds the follower's clock.
        NotApplied::NoLeader | NotApplied::Timeout => return not_leader(None),
    };
    Outcome::NotApplied(reason.into())
}

fn unknown(why: &Unknown) -> Outcome {
    let reason = match *why {
        Unknown::ShuttingDown => answer::Unknown::ShuttingDown,
        Unknown::ResponseTooLarge { bytes, max } => {
            return Outcome::ResponseTooLarge(SizeLimit { bytes, max });
        }
        Unknown::LeadershipLost | Unknown::Timeout | Unknown::ConnectionLost => {
            answer::Unknown::LeadershipLost
        }
    };
    Outcome::Unknown(reason.into())
}

/// What the leader said. An answer that this version does not understand may be anything: the
/// outcome is unknown.
pub(crate) fn answer_from_wire(outcome: Option<Outcome>) -> Answer {
    let lost: Failure = Unknown::ConnectionLost.into();
    match outcome {
        Some(Outcome::Applied(applied)) => Ok(Applied {
            position: LogPosition::new(Term(applied.term), LogIndex(applied.index)),
            response: applied.response,
        }),
        Some(Outcome::NotLeader(answer::NotLeader { leader })) => {
            Err(Failure::NotLeader { hint: leader.and_then(NodeId::new) })
        }
        Some(Outcome::NotApplied(why)) => Err(match answer::NotApplied::try_from(why) {
            Ok(answer::NotApplied::Busy) => NotApplied::Busy.into(),
            Ok(answer::NotApplied::DiskFull) => NotApplied::DiskFull.into(),
            Ok(answer::NotApplied::Superseded) => NotApplied::Superseded.into(),
            Ok(answer::NotApplied::ShuttingDown) => NotApplied::ShuttingDown.into(),
            Ok(answer::NotApplied::Unspecified) | Err(_) => lost,
        }),
        Some(Outcome::Unknown(why)) => Err(match answer::Unknown::try_from(why) {
            Ok(answer::Unknown::LeadershipLost) => Unknown::LeadershipLost.into(),
            Ok(answer::Unknown::ShuttingDown) => Unknown::ShuttingDown.into(),
            Ok(answer::Unknown::Unspecified) | Err(_) => lost,
        }),
        Some(Outcome::TooLarge(SizeLimit { bytes, max })) => {
            Err(NotApplied::TooLarge { bytes, max }.into())
        }
        Some(Outcome::ResponseTooLarge(SizeLimit { bytes, max })) => {
            Err(Unknown::ResponseTooLarge { bytes, max }.into())
        }
        None => Err(lost),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn every_answer_of_a_leader_reaches_the_follower() {
        let position = LogPosition::new(Term(3), LogIndex(9));
        let response = Bytes::from_static(b"done");
        let (bytes, max) = (5, 4);
        let answers: [Answer; 11] = [
            Ok(Applied { position, response }),
            Err(Failure::NotLeader { hint: None }),
            Err(Failure::NotLeader { hint: NodeId::new(2) }),
            Err(NotApplied::Busy.into()),
            Err(NotApplied::DiskFull.into()),
            Err(NotApplied::Superseded.into()),
            Err(NotApplied::ShuttingDown.into()),
            Err(NotApplied::TooLarge { bytes, max }.into()),
            Err(Unknown::LeadershipLost.into()),
            Err(Unknown::ShuttingDown.into()),
            Err(Unknown::ResponseTooLarge { bytes, max }.into()),
        ];
        for answer in answers {
            let wire = answer_to_wire(7, answer.clone());
            assert_eq!((wire.id, answer_from_wire(wire.outcome)), (7, answer));
        }
    }

    #[test]
    fn an_answer_that_is_not_understood_leaves_the_outcome_open() {
        for outcome in [None, Some(Outcome::NotApplied(99)), Some(Outcome::Unknown(99))] {
            assert_eq!(answer_from_wire(outcome), Err(Unknown::ConnectionLost.into()));
        }
    }
}
