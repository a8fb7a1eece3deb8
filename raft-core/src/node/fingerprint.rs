//! What a node will do from now on, as a number: for whoever must know whether two are the same.

use core::hash::{Hash, Hasher};

use super::Node;

impl Node {
    /// Feeds everything that can influence what this node does from now on to `hasher`: two nodes of which
    /// the same comes in do the same on the same inputs. Except that a receipt has a number, which is left
    /// out: the receipts of the one are not those of the other.
    ///
    /// Moments are part of it; see [`Node::forget_time`].
    pub fn fingerprint(&self, hasher: &mut impl Hasher) {
        // Without `..`, so that a new field cannot be forgotten.
        let Self {
            config,
            random,
            now,
            hard_state,
            log,
            configurations,
            role,
            commit_index,
            handed_out,
            applied,
            election_deadline,
            sticky_until,
            incarnation,
            incarnations,
            lost,
            questions,
            proposals,
            change,
            reads_taken,
            patient_reads,
            snapshots,
            outbox,
            read_outcomes,
            proposal_outcomes,
            change_outcomes,
            events,
        } = self;
        (config, random, now, hard_state, configurations, role).hash(hasher);
        log.fingerprint(hasher);
        (commit_index, handed_out, applied).hash(hasher);
        (election_deadline, sticky_until).hash(hasher);
        (incarnation, incarnations, lost, questions).hash(hasher);
        (proposals, change, reads_taken, patient_reads, snapshots).hash(hasher);
        outbox.fingerprint(hasher);
        (read_outcomes, proposal_outcomes, change_outcomes, events).hash(hasher);
    }
}
