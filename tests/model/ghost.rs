//! What no node knows and nothing may ever contradict: who led, what was committed, what readers were
//! owed. And what must hold between nodes.

use raft_core::{Entry, Fate, LogIndex, LogPosition, Membership, NodeId, ReadId, Term};

use super::effects::Effects;
use super::site::Site;

/// The history that counts, a part of every state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ghost {
    /// Election Safety: who led each term.
    leaders: Vec<(Term, NodeId)>,
    /// What was committed, from index 1, and in which term.
    committed: Vec<(Entry, Term)>,
    /// What a node has called superseded: it may never be committed.
    dead: Vec<LogPosition>,
    /// Reads that wait, and what was committed when they began.
    reads: Vec<(NodeId, ReadId, LogIndex)>,
}

impl Ghost {
    fn last(&self) -> LogIndex {
        LogIndex(self.committed.len() as u64)
    }

    fn at(&self, index: LogIndex) -> Option<&(Entry, Term)> {
        self.committed.get(usize::try_from(index.0.checked_sub(1)?).ok()?)
    }

    /// Does a step of node `id` with these effects leave the history as it is?
    pub fn ignores(effects: &Effects) -> bool {
        effects.elected.is_none()
            && effects.committed.is_empty()
            && effects.read_begun.is_none()
            && effects.reads.is_empty()
            && effects.fates.is_empty()
            && !effects.restarted
    }

    /// The history after a step of node `id`, which has left the nodes as `sites`.
    pub fn after(&self, id: NodeId, effects: &Effects, sites: &[&Site]) -> Result<Self, String> {
        let mut ghost = self.clone();
        if effects.restarted {
            ghost.reads.retain(|(at, _, _)| *at != id);
        }
        if let Some(read) = effects.read_begun {
            ghost.reads.push((id, read, self.last()));
            ghost.reads.sort_unstable();
        }
        ghost.elect(id, effects)?;
        ghost.commit(id, effects, sites)?;
        ghost.answer_reads(id, effects)?;
        ghost.note_fates(id, effects)?;
        Ok(ghost)
    }

    fn elect(&mut self, id: NodeId, effects: &Effects) -> Result<(), String> {
        let Some(term) = effects.elected else { return Ok(()) };
        match self.leaders.iter().find(|(led, _)| *led == term) {
            Some((_, other)) => Err(format!("Election Safety: {other} and {id} lead term {term}")),
            None => {
                self.leaders.push((term, id));
                self.leaders.sort_unstable();
                Ok(())
            }
        }
    }

    fn commit(&mut self, id: NodeId, effects: &Effects, sites: &[&Site]) -> Result<(), String> {
        for entry in &effects.committed {
            if let Some((chosen, _)) = self.at(entry.index) {
                if chosen != entry {
                    return Err(format!(
                        "State Machine Safety: {id} commits {entry}, not {chosen}"
                    ));
                }
                continue;
            }
            let Some((term, members)) = &effects.committed_by else {
                return Err(format!("{id} commits {entry}, which no leader has"));
            };
            if entry.index != self.last().next() {
                return Err(format!("{id} commits {entry} behind a gap"));
            }
            if !members.iter().any(|members| on_disks(members, entry.position(), sites)) {
                return Err(format!(
                    "{id} commits {entry} without a durable majority of {}",
                    members[0]
                ));
            }
            if self.dead.contains(&entry.position()) {
                return Err(format!("{id} commits {entry}, which was called superseded"));
            }
            self.committed.push((entry.clone(), *term));
        }
        Ok(())
    }

    fn answer_reads(&mut self, id: NodeId, effects: &Effects) -> Result<(), String> {
        for outcome in &effects.reads {
            let waits = |read: &(NodeId, ReadId, LogIndex)| read.0 == id && read.1 == outcome.id;
            let Some(place) = self.reads.iter().position(waits) else {
                return Err(format!("{id} answers a read that nobody waits for"));
            };
            let (_, _, least) = self.reads.remove(place);
            if let Ok(index) = outcome.index
                && index < least
            {
                return Err(format!("stale read: {id} reads at {index}, {least} was committed"));
            }
        }
        Ok(())
    }

    fn note_fates(&mut self, id: NodeId, effects: &Effects) -> Result<(), String> {
        for &(first, last, fate) in &effects.fates {
            for index in (first.index.0..=last.index.0).map(LogIndex) {
                let position = LogPosition::new(first.term, index);
                let chosen = self.at(index).is_some_and(|(entry, _)| entry.position() == position);
                match fate {
                    Fate::Committed if !chosen => {
                        return Err(format!("{id} calls {position} committed"));
                    }
                    Fate::Superseded if chosen => {
                        return Err(format!("{id} calls {position} superseded"));
                    }
                    Fate::Superseded if !self.dead.contains(&position) => self.dead.push(position),
                    Fate::Committed | Fate::Superseded | Fate::Unknown => {}
                }
            }
        }
        self.dead.sort_unstable();
        Ok(())
    }

    /// What holds between a node and the history.
    pub fn check(&self, site: &Site) -> Result<(), String> {
        let (status, id) = (site.node.status(), site.id());
        if status.commit > self.last() {
            return Err(format!("{id} takes {} to be committed, which is not", status.commit));
        }
        for (entry, term) in &self.committed {
            let index = entry.index;
            let here = site.position_at(index);
            let agrees = here == Some(entry.position()) || index < status.base.index;
            if index <= status.commit && !agrees {
                return Err(format!("State Machine Safety: {id} does not have {entry}"));
            }
            if site.leads() && *term < status.term && !agrees {
                return Err(format!(
                    "Leader Completeness: {id} leads {} without {entry}",
                    status.term
                ));
            }
        }
        Ok(())
    }
}

fn on_disks(members: &Membership, position: LogPosition, sites: &[&Site]) -> bool {
    let site = |id: NodeId| sites.iter().find(|site| site.id() == id);
    members.is_quorum(|id| site(id).is_some_and(|site| site.disk.holds(position)))
}

/// What holds between two nodes.
pub fn check_pair(a: &Site, b: &Site) -> Result<(), String> {
    check_log_matching(a, b)?;
    check_match(a, b)?;
    check_match(b, a)
}

/// Where two logs have an entry of the same index and term, they are the same up to there (§5.3).
fn check_log_matching(a: &Site, b: &Site) -> Result<(), String> {
    let status = a.node.status();
    let mut differ = None;
    for entry in a.entries(&status) {
        match b.node.entry(entry.index) {
            Some(other) if other.position() != entry.position() => differ = Some(other),
            Some(other) if other != entry || differ.is_some() => {
                let (a, b) = (a.id(), b.id());
                return Err(format!("Log Matching: {a} and {b} agree on {entry}, not before"));
            }
            Some(_) | None => {}
        }
    }
    Ok(())
}

/// A leader does not take a peer to have more than the peer's disk has. Once the peer knows of a newer
/// term, its log may change under the deposed leader.
fn check_match(leader: &Site, peer: &Site) -> Result<(), String> {
    let status = leader.node.status();
    let Some(progress) = status.peers.iter().find(|it| it.id == peer.id()) else { return Ok(()) };
    let Some(position) = leader.position_at(progress.match_index) else { return Ok(()) };
    if peer.disk.hard_state.term == status.term && !peer.disk.holds(position) {
        let (a, b) = (leader.id(), peer.id());
        return Err(format!("{a} takes {b} to have {position}, which it does not"));
    }
    if progress.match_index >= progress.next_index {
        return Err(format!("{}: next not above match", leader.id()));
    }
    Ok(())
}
