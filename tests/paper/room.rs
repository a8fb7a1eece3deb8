//! Some nodes in one room: what they say arrives, in order, except where a link is cut.

use std::collections::BTreeMap;

use raft_core::{Config, Envelope, Membership, Restored, RoleKind};

use crate::stand::Stand;
use crate::words::{n, voters};

pub(crate) struct Room {
    pub(crate) stands: BTreeMap<u64, Stand>,
    /// Nodes that nobody hears and that hear nobody.
    pub(crate) cut_off: Vec<u64>,
}

impl Room {
    /// Nodes 1 to `count` that have never run.
    pub(crate) fn new(count: u64) -> Self {
        let ids: Vec<u64> = (1..=count).collect();
        Self::of(count, &voters(&ids), |_| {})
    }

    /// Nodes 1 to `count`, which start with these members, with a changed configuration.
    pub(crate) fn of(count: u64, members: &Membership, change: impl Fn(&mut Config)) -> Self {
        let stand = |id| {
            let mut config = Config::new(n(id), id);
            change(&mut config);
            (id, Stand::start(config, Restored::empty(members.clone())))
        };
        Self { stands: (1..=count).map(stand).collect(), cut_off: Vec::new() }
    }

    /// The log of node `id` in `term` is now one of no-ops of these terms.
    pub(crate) fn set_log(&mut self, id: u64, term: u64, log: &[u64]) {
        let ids: Vec<u64> = self.stands.keys().copied().collect();
        let disk = Stand::with_log(&ids, term, log).disk;
        self.node(id).restart_with(disk);
    }

    pub(crate) fn node(&mut self, id: u64) -> &mut Stand {
        self.stands.get_mut(&id).expect("in the room")
    }

    /// Everything arrives that was said, and what is said then, until all are silent.
    pub(crate) fn talk(&mut self) {
        for _ in 0..10_000 {
            let said: Vec<Envelope> =
                self.stands.values_mut().flat_map(|stand| stand.messages.drain(..)).collect();
            if said.is_empty() {
                return;
            }
            for envelope in said {
                let (from, to) = (envelope.from.get(), envelope.to.get());
                if self.cut_off.contains(&from) || self.cut_off.contains(&to) {
                    continue;
                }
                if let Some(stand) = self.stands.get_mut(&to) {
                    stand.deliver(envelope);
                }
            }
        }
        panic!("the nodes never fall silent");
    }

    /// Time passes for all, in steps of ten milliseconds.
    pub(crate) fn wait(&mut self, millis: u64) {
        self.talk();
        for _ in 0..millis / 10 {
            self.stands.values_mut().for_each(|stand| stand.wait(10));
            self.talk();
        }
    }

    /// Node `id` has its timer run out before all others, and is elected.
    pub(crate) fn elect(&mut self, id: u64) {
        // Long enough that nobody counts on an earlier leader any more.
        self.node(id).wait_for_timer();
        self.talk();
        assert!(self.node(id).leads(), "n{id} is elected");
    }

    /// Who leads, by term.
    pub(crate) fn leaders(&self) -> Vec<(u64, u64)> {
        let leads = |(&id, stand): (&u64, &Stand)| {
            let (role, term) = stand.role();
            (role == RoleKind::Leader).then_some((term, id))
        };
        self.stands.iter().filter_map(leads).collect()
    }
}
