//! The states of a whole cluster, and which follow on which.
//!
//! A state is a row of numbers: of each site, of the history, how often what is bounded has happened, and
//! of each message on its way. What a site does on an event is computed once (see `site.rs`).

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use raft_core::{Config, Envelope, Membership, RoleKind, Term};

use super::action::{Act, Carried, is_dead};
use super::bounds::{Bounds, Cost, Spent};
use super::effects::{Effects, Sight};
use super::ghost::{Ghost, check_pair};
use super::interned::{Interned, Quick};
use super::rows::{Row, Rows};
use super::site::Site;

/// What there is, and how far it may go.
#[derive(Clone)]
pub struct Cluster {
    pub nodes: Vec<Config>,
    pub members: Membership,
    /// Whose writes take time; those of the others are done at once.
    pub slow: Vec<bool>,
    /// Whom a membership change may lead to.
    pub target: Option<Membership>,
    pub bounds: Bounds,
}

/// What a site does on an event.
pub(super) struct Outcome {
    pub(super) site: u32,
    pub(super) sends: Box<[u32]>,
    /// If it matters to the history.
    effects: Option<Box<Effects>>,
    seen: u64,
}

/// Something that can happen to a site by itself.
pub(super) struct Item {
    pub(super) act: Act,
    pub(super) cost: Option<Cost>,
    pub(super) outcome: u32,
}

/// A message, and at which place its receiver stands.
pub(super) struct Mail {
    envelope: Envelope,
    pub(super) to: usize,
}

/// What is often looked at of a site.
#[derive(Clone, Copy)]
struct Glance {
    role: RoleKind,
    term: Term,
    /// That of the vote record on its disk.
    disk_term: Term,
}

/// What led to a state.
#[derive(Clone, Copy, Debug)]
pub enum Move {
    /// A message, by its number.
    Mail { carried: Carried, mail: u32 },
    /// To the node at this place, the item of its site at that one.
    Item { node: u8, item: u16 },
}

/// Everything that was computed so far.
pub struct Model {
    pub cluster: Cluster,
    pub(super) sites: Interned<u128, Site>,
    glances: Vec<Glance>,
    pub(super) menus: Vec<Option<Rc<[Item]>>>,
    pub(super) mails: Interned<Envelope, Mail>,
    ghosts: Interned<Ghost, Ghost>,
    pub(super) outcomes: Vec<Result<Outcome, String>>,
    deliveries: HashMap<(u32, u32), u32, Quick>,
    checked: HashSet<(u32, u32), Quick>,
    /// What was seen on the way, as bits of `Sight`.
    pub seen: u64,
    scratch: Vec<u32>,
    /// Sites that were taken for the one with this number, as many as are wanted.
    twins: Vec<(u32, Site)>,
    pub twins_wanted: usize,
}

impl Model {
    pub fn new(cluster: Cluster) -> Self {
        Self {
            cluster,
            sites: Interned::new(),
            glances: Vec::new(),
            menus: Vec::new(),
            mails: Interned::new(),
            ghosts: Interned::new(),
            outcomes: Vec::new(),
            deliveries: HashMap::default(),
            checked: HashSet::default(),
            seen: 0,
            scratch: Vec::new(),
            twins: Vec::new(),
            twins_wanted: 0,
        }
    }

    pub fn size(&self) -> usize {
        self.cluster.nodes.len()
    }

    /// How many sites, messages and steps of single nodes there are.
    pub fn parts(&self) -> [usize; 3] {
        [self.sites.values.len(), self.mails.values.len(), self.outcomes.len()]
    }

    /// All nodes as they are before their first start.
    pub fn start(&mut self) -> Vec<u32> {
        let cluster = self.cluster.clone();
        let mut row = Vec::new();
        for (config, slow) in cluster.nodes.into_iter().zip(cluster.slow) {
            let site = Site::new(config, cluster.members.clone(), !slow);
            row.push(self.site(site));
        }
        row.push(self.ghosts.number(Ghost::default(), Ghost::default).0);
        row.extend([0, 0]);
        row
    }

    fn site(&mut self, site: Site) -> u32 {
        let (role, term) = site.node.role();
        let glance = Glance { role, term, disk_term: site.disk.hard_state.term };
        let twin = (self.twins.len() < self.twins_wanted).then(|| site.clone());
        let (number, new) = self.sites.number(site.fingerprint(), || site);
        self.twins.extend(twin.filter(|_| !new).map(|twin| (number, twin)));
        if new {
            self.glances.push(glance);
            self.menus.push(None);
        }
        number
    }

    pub fn site_at(&self, row: &Row, node: usize) -> &Site {
        &self.sites.values[row[node] as usize]
    }

    fn mail(&mut self, envelope: Envelope) -> u32 {
        let to = self.cluster.nodes.iter().position(|config| config.id == envelope.to);
        let to = to.expect("messages go to nodes that there are");
        self.mails.number(envelope.clone(), || Mail { envelope, to }).0
    }

    pub fn envelope(&self, mail: u32) -> &Envelope {
        &self.mails.values[mail as usize].envelope
    }

    /// Computes what a site does, for the first time. A panic is a broken invariant as any other.
    pub(super) fn compute(&mut self, site: u32, act: &Act) -> u32 {
        let before = &self.sites.values[site as usize];
        let result = catch_unwind(AssertUnwindSafe(|| before.after(act)));
        let outcome = match result {
            Ok(Ok((after, mut effects))) => {
                let sends = std::mem::take(&mut effects.sends);
                let sends = sends.into_iter().map(|envelope| self.mail(envelope)).collect();
                let (site, seen) = (self.site(after), effects.seen);
                let matters = !Ghost::ignores(&effects);
                effects.events.clear();
                let effects = matters.then(|| Box::new(effects));
                Ok(Outcome { site, sends, effects, seen })
            }
            Ok(Err(broken)) => Err(broken),
            Err(panic) => Err(told(&*panic)),
        };
        self.outcomes.push(outcome);
        u32::try_from(self.outcomes.len() - 1).expect("fewer than four billion steps")
    }

    pub(super) fn delivery(&mut self, site: u32, mail: u32) -> u32 {
        if let Some(&outcome) = self.deliveries.get(&(site, mail)) {
            return outcome;
        }
        let act = Act::Deliver(self.envelope(mail).clone());
        let outcome = self.compute(site, &act);
        self.deliveries.insert((site, mail), outcome);
        outcome
    }

    /// Has this step no effect at all?
    pub(super) fn is_idle(&self, site: u32, outcome: u32) -> bool {
        match &self.outcomes[outcome as usize] {
            Ok(it) => it.site == site && it.sends.is_empty() && it.effects.is_none(),
            Err(_) => false,
        }
    }

    /// All states that follow on `row`, into `rows` and `moves`. An error is a broken invariant, and what
    /// broke it.
    pub fn expand(
        &mut self,
        row: &Row,
        rows: &mut Rows,
        moves: &mut Vec<Move>,
    ) -> Result<(), (Move, String)> {
        let size = self.size();
        let spent = self.spent(row);
        for place in size + 3..row.len() {
            let mail = row[place];
            if place > size + 3 && row[place - 1] == mail {
                continue; // The same message once more.
            }
            let node = self.mails.values[mail as usize].to;
            let dropped = Move::Mail { carried: Carried::Dropped, mail };
            self.scratch.clear();
            self.scratch.extend_from_slice(row);
            self.scratch.remove(place);
            rows.push(&self.scratch);
            moves.push(dropped);
            let outcome = self.delivery(row[node], mail);
            if self.is_idle(row[node], outcome) {
                continue;
            }
            let by = Move::Mail { carried: Carried::Delivered, mail };
            self.follow(row, node, outcome, Some(place), spent, by, rows, moves)?;
            if let Some(spent) = spent.spend(Cost::Duplicate, &self.cluster.bounds) {
                let by = Move::Mail { carried: Carried::Duplicated, mail };
                let before = rows.count;
                self.follow(row, node, outcome, None, spent, by, rows, moves)?;
                // It may answer what the step has ended.
                if rows.count > before && self.scratch[size + 3..].contains(&mail) {
                    self.seen |= Sight::Duplicated.bit();
                }
            }
        }
        for node in 0..size {
            self.expand_items(row, node, spent, rows, moves)?;
        }
        Ok(())
    }

    fn expand_items(
        &mut self,
        row: &Row,
        node: usize,
        spent: Spent,
        rows: &mut Rows,
        moves: &mut Vec<Move>,
    ) -> Result<(), (Move, String)> {
        for (place, item) in self.menu(row[node]).iter().enumerate() {
            let bounds = &self.cluster.bounds;
            let after = item.cost.map_or(Some(spent), |cost| spent.spend(cost, bounds));
            let Some(after) = after else { continue };
            // Commands are proposed in their order: which is which does not matter.
            if let Act::Propose(command) = item.act
                && command != b'a' + spent.of(Cost::Proposal)
            {
                continue;
            }
            let (node8, item16) = (node as u8, u16::try_from(place).expect("a short menu"));
            let by = Move::Item { node: node8, item: item16 };
            self.follow(row, node, item.outcome, None, after, by, rows, moves)?;
        }
        Ok(())
    }

    pub(super) fn spent(&self, row: &Row) -> Spent {
        let size = self.size();
        Spent(u64::from(row[size + 1]) | u64::from(row[size + 2]) << 32)
    }

    /// The states after a step of one node, if they are within bounds. The message at `place` is taken out.
    /// If there is no room for all that the step sends, some of it is lost at once: every choice is a state.
    #[expect(clippy::too_many_arguments, reason = "the parts of a step, from one caller's loop")]
    pub(super) fn follow(
        &mut self,
        row: &Row,
        node: usize,
        outcome: u32,
        place: Option<usize>,
        spent: Spent,
        by: Move,
        rows: &mut Rows,
        moves: &mut Vec<Move>,
    ) -> Result<(), (Move, String)> {
        let size = self.size();
        let step = match &self.outcomes[outcome as usize] {
            Ok(step) => step,
            Err(broken) => return Err((by, broken.clone())),
        };
        if self.glances[step.site as usize].term.0 > self.cluster.bounds.term {
            return Ok(());
        }
        let next = &mut self.scratch;
        next.clear();
        next.extend_from_slice(&row[..size + 1]);
        next[node] = step.site;
        next.extend([spent.0 as u32, (spent.0 >> 32) as u32]);
        let dead = |sites: &[u32], mail: u32| {
            let Mail { envelope, to } = &self.mails.values[mail as usize];
            let Glance { role, disk_term, .. } = self.glances[sites[*to] as usize];
            is_dead(envelope, role, disk_term)
        };
        let stays = row.iter().enumerate().skip(size + 3);
        for (_, &mail) in stays.filter(|(at, _)| Some(*at) != place) {
            if !dead(&next[..size], mail) {
                next.push(mail);
            }
        }
        let kept = next.len();
        for &mail in &step.sends {
            if !dead(&next[..size], mail) {
                next.push(mail);
            }
        }
        if let Some(effects) = &step.effects {
            let sites: Vec<&Site> =
                next[..size].iter().map(|&site| &self.sites.values[site as usize]).collect();
            let ghost = &self.ghosts.values[row[size] as usize];
            let id = self.cluster.nodes[node].id;
            let ghost = ghost.after(id, effects, &sites).map_err(|broken| (by, broken))?;
            next[size] = self.ghosts.number(ghost.clone(), || ghost).0;
        }
        self.seen |= step.seen;
        let room = self.cluster.bounds.messages.saturating_sub(kept - (size + 3));
        if next.len() - kept <= room {
            next[size + 3..].sort_unstable();
            rows.push(next);
            moves.push(by);
            return Ok(());
        }
        let sends = next.split_off(kept);
        for way in 0..1u64 << sends.len() {
            if way.count_ones() as usize == room {
                let goes = |at: &usize| way >> at & 1 == 1;
                next.truncate(kept);
                next.extend((0..sends.len()).filter(goes).map(|at| sends[at]));
                let mut row = next.clone();
                row[size + 3..].sort_unstable();
                rows.push(&row);
                moves.push(by);
            }
        }
        Ok(())
    }

    /// What must hold in a state, as far as it was not checked in another one with the same parts.
    pub fn check(&mut self, row: &Row) -> Result<(), String> {
        let size = self.size();
        let mut leaders = 0;
        for a in 0..size {
            leaders += usize::from(self.glances[row[a] as usize].role == RoleKind::Leader);
            // Histories and sites are numbered apart: the highest bit tells which is meant.
            if self.checked.insert((row[a], row[size] | 1 << 31)) {
                let ghost = &self.ghosts.values[row[size] as usize];
                ghost.check(&self.sites.values[row[a] as usize])?;
            }
            for b in a + 1..size {
                if self.checked.insert((row[a], row[b])) {
                    check_pair(self.site_at(row, a), self.site_at(row, b))?;
                }
            }
        }
        if leaders > 1 {
            self.seen |= Sight::TwoLeaders.bit();
        }
        Ok(())
    }

    /// Sites that came about in another way than the one that stands for them do the same as that one, on
    /// every message that there is and whatever else can happen; how many were compared, and how many of
    /// those differ in what does not count.
    pub fn compare_twins(&self) -> (usize, usize) {
        let mut differ = 0;
        for (number, twin) in &self.twins {
            let site = &self.sites.values[*number as usize];
            differ += usize::from(format!("{:?}", site.node) != format!("{:?}", twin.node));
            let mut acts: Vec<Act> = self.acts(site).into_iter().map(|(act, _)| act).collect();
            let mails = self.mails.values.iter().map(|mail| mail.envelope.clone());
            acts.extend(mails.filter(|it| it.to == site.id()).map(Act::Deliver));
            for act in acts {
                let done = |site: &Site| {
                    let (after, effects) = site.after(&act).expect("no invariant is broken");
                    let Effects { sends, elected, committed, committed_by, .. } = effects;
                    let Effects { read_begun, reads, fates, restarted, torn, seen, .. } = effects;
                    let told = (elected, committed, committed_by, read_begun, reads, fates);
                    (after.fingerprint(), sends, told, restarted, torn, seen)
                };
                assert_eq!(done(site), done(twin), "{}", act.told(site.id()));
            }
        }
        (self.twins.len(), differ)
    }
}

/// What a panic says.
fn told(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
    format!("panic: {}", text.unwrap_or_default())
}
