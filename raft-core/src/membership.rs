//! Who belongs to the cluster, and which sets of them are a majority (§5.2, §6).
//!
//! Pure arithmetic: it computes and returns, only the node acts. During a joint phase every decision
//! needs a majority of the old voters *and* of the new ones; learners never count.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use crate::types::NodeId;

/// The members of a cluster as of one log index.
///
/// Invariants: `voters` is never empty; each list is sorted and without repeats; no voter is also a
/// learner. A learner may be in `outgoing`: it votes until the joint phase ends, and learns after it.
///
/// A clone shares the lists, and an entry, which seldom holds one, stays small.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Membership {
    lists: Arc<Lists>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Lists {
    voters: Vec<NodeId>,
    outgoing: Vec<NodeId>,
    learners: Vec<NodeId>,
}

/// Why a list of members cannot be a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MembershipError {
    /// A cluster needs at least one voter.
    NoVoters,
    /// This node is listed both as a voter and as a learner.
    VoterAndLearner(NodeId),
}

impl fmt::Display for MembershipError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoVoters => write!(f, "a cluster needs at least one voter"),
            Self::VoterAndLearner(id) => write!(f, "{id} is both a voter and a learner"),
        }
    }
}

impl core::error::Error for MembershipError {}

impl Membership {
    /// A cluster of these voters, in any order, repeats ignored.
    ///
    /// # Errors
    /// [`MembershipError::NoVoters`] if there are none.
    pub fn new(voters: impl IntoIterator<Item = NodeId>) -> Result<Self, MembershipError> {
        Self::from_parts(voters, [], [])
    }

    /// A cluster from its three lists: the voters, the voters of the configuration that a joint
    /// phase is leaving (empty outside of one, §6), and the learners (thesis §4.2.1).
    ///
    /// # Errors
    /// If it has no voters, or one that is also a learner.
    pub fn from_parts(
        voters: impl IntoIterator<Item = NodeId>,
        outgoing: impl IntoIterator<Item = NodeId>,
        learners: impl IntoIterator<Item = NodeId>,
    ) -> Result<Self, MembershipError> {
        let (voters, outgoing) = (sorted(voters), sorted(outgoing));
        let lists = Lists { voters, outgoing, learners: sorted(learners) };
        if lists.voters.is_empty() {
            return Err(MembershipError::NoVoters);
        }
        let votes = |id: &&NodeId| lists.voters.binary_search(id).is_ok();
        match lists.learners.iter().find(votes) {
            Some(&id) => Err(MembershipError::VoterAndLearner(id)),
            None => Ok(lists.into()),
        }
    }

    /// The voters, in order; in a joint phase those of the new configuration.
    #[must_use]
    pub fn voters(&self) -> &[NodeId] {
        &self.lists.voters
    }

    /// In a joint phase the voters of the configuration being left, in order; else empty.
    #[must_use]
    pub fn outgoing(&self) -> &[NodeId] {
        &self.lists.outgoing
    }

    /// Those who receive the log and never count, in order. One that is still in
    /// [`outgoing`](Self::outgoing) counts there until the joint phase ends.
    #[must_use]
    pub fn learners(&self) -> &[NodeId] {
        &self.lists.learners
    }

    /// Everyone, each once, in order.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        let mut all: Vec<NodeId> = Vec::new();
        all.extend(
            self.lists.voters.iter().chain(&self.lists.outgoing).chain(&self.lists.learners),
        );
        all.sort_unstable();
        all.dedup();
        all.into_iter()
    }

    /// Does this node's vote count, in either half of a joint phase?
    #[must_use]
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.lists.voters.binary_search(&id).is_ok()
            || self.lists.outgoing.binary_search(&id).is_ok()
    }

    /// Does this node belong to the cluster in any role?
    #[must_use]
    pub fn contains(&self, id: NodeId) -> bool {
        self.is_voter(id) || self.lists.learners.binary_search(&id).is_ok()
    }

    /// Is this a joint phase, in which two majorities decide (§6)?
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.lists.outgoing.is_empty()
    }

    /// The configuration that a joint phase leads to; outside of one, the same again.
    #[must_use]
    pub fn target(&self) -> Self {
        self.target_lists().into()
    }

    fn target_lists(&self) -> Lists {
        let Lists { voters, outgoing: _, learners } = &*self.lists;
        Lists { voters: voters.clone(), outgoing: Vec::new(), learners: learners.clone() }
    }

    /// The target with `id` as a voter, promoted if it is a learner.
    #[must_use]
    pub fn with_voter(&self, id: NodeId) -> Self {
        let mut target = self.target_lists();
        target.learners.retain(|&learner| learner != id);
        target.voters = sorted(target.voters.into_iter().chain([id]));
        target.into()
    }

    /// The target with `id` as a learner, demoted if it is a voter.
    ///
    /// # Errors
    /// [`MembershipError::NoVoters`] if it is the only one.
    pub fn with_learner(&self, id: NodeId) -> Result<Self, MembershipError> {
        let mut target = self.without(id)?.target_lists();
        target.learners = sorted(target.learners.into_iter().chain([id]));
        Ok(target.into())
    }

    /// The target without `id`.
    ///
    /// # Errors
    /// [`MembershipError::NoVoters`] if it is the only voter.
    pub fn without(&self, id: NodeId) -> Result<Self, MembershipError> {
        let other = |&&other: &&NodeId| other != id;
        let keep = |ids: &[NodeId]| ids.iter().filter(other).copied().collect::<Vec<_>>();
        Self::from_parts(keep(&self.lists.voters), [], keep(&self.lists.learners))
    }

    /// The configuration to append on the way from this one to `target`, neither of them joint: the
    /// target itself where every majority of the one meets every majority of the other, which at most
    /// one voter more or less guarantees (thesis §4.1); else the joint one (§6).
    #[must_use]
    pub fn toward(&self, target: &Self) -> Self {
        let missing_in = |ids: &[NodeId], others: &[NodeId]| {
            ids.iter().filter(|id| others.binary_search(id).is_err()).count()
        };
        let joined = missing_in(&target.lists.voters, &self.lists.voters);
        let left = missing_in(&self.lists.voters, &target.lists.voters);
        let mut next = target.target_lists();
        if joined + left > 1 {
            next.outgoing.clone_from(&self.lists.voters);
        }
        next.into()
    }

    /// Do the nodes for which `has` is true make a majority, in both halves of a joint phase?
    #[must_use]
    pub fn is_quorum(&self, has: impl Fn(NodeId) -> bool) -> bool {
        let majority = |half: &[NodeId]| {
            half.is_empty() || half.iter().filter(|&&id| has(id)).count() > half.len() / 2
        };
        majority(&self.lists.voters) && majority(&self.lists.outgoing)
    }

    /// The greatest value that a majority has reached, in both halves of a joint phase: each node
    /// counts with `value(node)`. Used for the commit index (§5.3), read rounds and lease times.
    ///
    /// Allocates nothing for up to [`SMALL_CLUSTER`] voters.
    #[must_use]
    pub fn quorum_value<T: Ord + Copy>(&self, value: impl Fn(NodeId) -> T) -> T {
        let new = majority_value(&self.lists.voters, &value);
        if self.lists.outgoing.is_empty() {
            new
        } else {
            new.min(majority_value(&self.lists.outgoing, &value))
        }
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Lists { voters, outgoing, learners } = &*self.lists;
        f.debug_struct("Membership")
            .field("voters", voters)
            .field("outgoing", outgoing)
            .field("learners", learners)
            .finish()
    }
}

impl From<Lists> for Membership {
    fn from(lists: Lists) -> Self {
        Self { lists: Arc::new(lists) }
    }
}

/// Up to this many voters [`Membership::quorum_value`] sorts on the stack.
pub const SMALL_CLUSTER: usize = 7;

/// The greatest value that more than half of `half` have reached. `half` is not empty.
fn majority_value<T: Ord + Copy>(half: &[NodeId], value: &impl Fn(NodeId) -> T) -> T {
    // In descending order the element at n/2 is reached by n/2 + 1 nodes: a majority for even n too.
    let middle = half.len() / 2;
    if half.len() <= SMALL_CLUSTER {
        let mut values = [value(half[0]); SMALL_CLUSTER];
        for (slot, &id) in values.iter_mut().zip(half) {
            *slot = value(id);
        }
        let values = &mut values[..half.len()];
        values.sort_unstable_by(|a, b| b.cmp(a));
        values[middle]
    } else {
        let mut values: Vec<T> = half.iter().map(|&id| value(id)).collect();
        values.sort_unstable_by(|a, b| b.cmp(a));
        values[middle]
    }
}

fn sorted(ids: impl IntoIterator<Item = NodeId>) -> Vec<NodeId> {
    let mut ids: Vec<NodeId> = ids.into_iter().collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

impl fmt::Display for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{")?;
        list(f, &self.lists.voters)?;
        if !self.lists.outgoing.is_empty() {
            write!(f, " from ")?;
            list(f, &self.lists.outgoing)?;
        }
        if !self.lists.learners.is_empty() {
            write!(f, " learning ")?;
            list(f, &self.lists.learners)?;
        }
        write!(f, "}}")
    }
}

fn list(f: &mut fmt::Formatter<'_>, ids: &[NodeId]) -> fmt::Result {
    for (n, id) in ids.iter().enumerate() {
        let gap = if n == 0 { "" } else { " " };
        write!(f, "{gap}{id}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn lists_that_are_no_cluster_are_refused() {
        let [one, two] = [1, 2].map(|id| NodeId::new(id).unwrap());
        let said = |voters: &[NodeId], learners: &[NodeId]| {
            let nodes = |ids: &[NodeId]| ids.to_vec();
            let membership = Membership::from_parts(nodes(voters), [], nodes(learners));
            membership.map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(said(&[one], &[two]), Ok(()));
        assert_eq!(said(&[], &[two]), Err("a cluster needs at least one voter".to_string()));
        assert_eq!(said(&[two, one], &[two]), Err("n2 is both a voter and a learner".to_string()));
    }
}
