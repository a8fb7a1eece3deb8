//! What disks do, and what goes wrong with them: power cuts in the middle of an operation, errors, want of
//! room, slowness, rot. And what a driver and an operator do then.

use std::time::Duration;

use raft_core::{Input, LogPosition, NodeId, RoleKind};
use raft_wal::Repair;
use raft_wal::sim::{Fault, FaultRule, Operation};

use super::kinds::{Kind, Moment};
use super::{Happening, Simulation};
use crate::machine::Workload;
use crate::storage::Storage;
use crate::storage::shipping::{Progress, Store};
use crate::transcript;

impl<W: Workload> Simulation<W> {
    fn disk(&mut self, id: NodeId) -> &mut Store {
        &mut self.cluster.members.get_mut(&id).unwrap_or_else(|| panic!("there is no {id}")).disk
    }

    /// The log takes some of what waits for it, and the node gets the receipts when the disk is done.
    pub(super) fn sync(&mut self, id: NodeId) {
        let (life, now) = (self.cluster.members[&id].lives, self.cluster.now);
        if self.busy.get(&id).is_some_and(|&(of, until)| of == life && until > now) {
            return; // It is called again when it is done.
        }
        if !self.receive(id) {
            let waiting = self.disk(id).waiting();
            if waiting == 0 {
                return;
            }
            let count = self.random.usize(1..=waiting);
            self.note(|| match waiting {
                1 => format!("{id} syncs"),
                _ => format!("{id} syncs {count} of {waiting} writes"),
            });
            if self.chaos && self.disk(id).installs_next() && self.random.u8(..4) == 0 {
                // So many things happen then that the moments between them are worth more tries.
                let cut = self.random.u64(..16);
                self.disk(id).sim.inject(Fault::PowerCut, cut);
            }
            let vote = self.disk(id).durable().hard_state;
            let progress = self.disk(id).work(count);
            let Some(progress) = self.cluster.unless_failed(id, progress) else { return };
            let now_durable = self.disk(id).durable().hard_state;
            if vote != now_durable
                && now_durable.voted_for.is_some()
                && self.strike_at(id, Moment::VoteUnsent)
            {
                // Nobody will know of it.
                self.disk(id).take_receipts().for_each(drop);
                return self.crash(id);
            }
            let took = self.disk(id).sim.take_cost();
            if let Progress::NoSpace = progress {
                self.report.disks.waits_for_room += 1;
                self.note(|| format!("{id} waits for room"));
                let wait = self.up_to(Duration::from_millis(100));
                return self.later(wait, Happening::Sync(id, life));
            }
            let leads = self.cluster.node(id).role().0 == RoleKind::Leader;
            if self.chaos && leads && took > self.timeout() {
                self.count(Kind::SlowLeaderDisk);
            }
            if took > Duration::ZERO {
                self.busy.insert(id, (life, now.after(took)));
                return self.later(took, Happening::Sync(id, life));
            }
            self.receive(id);
        }
        self.poll_soon(id);
        if !self.runs(id) {
            return;
        }
        if self.disk(id).waiting() > 0 {
            self.sync_later(id);
        } else if self.random.u8(..4) == 0 {
            self.later(Duration::from_millis(10), Happening::Mark(id, life));
        }
    }

    /// Gives a node the receipts that have come. False if there are none.
    fn receive(&mut self, id: NodeId) -> bool {
        let mut some = false;
        for receipt in self.disk(id).take_receipts() {
            self.cluster.step(id, Input::Written(receipt));
            some = true;
        }
        some
    }

    pub(super) fn mark(&mut self, id: NodeId) {
        // What is left on a full disk is for votes.
        if self.disk(id).waiting() == 0 {
            let marked = self.disk(id).mark();
            self.cluster.unless_failed(id, marked);
        }
    }

    /// Some node takes a step of reading again what it wrote long ago, and does what that calls for.
    pub(super) fn scrub(&mut self) {
        if let Some(id) = self.anyone_running() {
            let repair = self.disk(id).scrub();
            match self.cluster.unless_failed(id, repair) {
                None | Some(Repair::None) => {}
                Some(repair @ Repair::Entries { .. }) => {
                    self.note(|| format!("{id} is to write a damaged segment again"));
                    self.cluster.members.get_mut(&id).expect("it was scrubbed just now").repair =
                        repair;
                    self.poll(id);
                    if self.runs(id) {
                        self.sync_later(id);
                    }
                }
                Some(Repair::Snapshot) => {
                    self.note(|| format!("{id} has a damaged snapshot"));
                    self.without_snapshot.insert(id);
                }
            }
        }
        // A newer one, or the same again: peers may wait for it before anything new can be committed.
        for id in self.without_snapshot.clone() {
            if self.runs(id) && self.cluster.cut_snapshot_again(id) {
                self.note(|| format!("{id} writes its snapshot again"));
                self.without_snapshot.remove(&id);
            } else {
                self.cut(id);
            }
        }
        let wait = self.up_to(self.options.scrub_interval * 2);
        self.later(wait, Happening::Scrub);
    }

    /// A snapshot that the node takes to be there may have turned out damaged.
    pub(super) fn miss_snapshot(&mut self, id: NodeId) {
        if let Some(snapshot) = self.runs(id).then(|| self.cluster.node(id).status().snapshot)
            && let Some(snapshot) = snapshot
            && !self.disk(id).holds_snapshot(snapshot)
        {
            self.without_snapshot.insert(id);
        }
    }

    /// Something goes wrong with the disk of some node.
    pub(super) fn disk_fault(&mut self) {
        if !self.chaos {
            return;
        }
        let wait = self.up_to(self.options.disk_fault_interval * 2);
        self.later(wait, Happening::DiskFault);
        if !self.intervenes() {
            return;
        }
        match self.random.u8(..7) {
            0 | 1 => return self.rot(),
            2 | 3 => return self.meddle(),
            _ => {}
        }
        let Some(id) = self.anyone_running() else { return };
        let soon = self.random.u64(..20);
        let error = |on: Operation| FaultRule::new(Fault::Error).on(&[on]).after(soon / 8);
        let longer = self.up_to(self.timeout() * 4);
        let kind = self.random.u8(..8);
        let sim = self.disk(id).sim.clone();
        match kind {
            0 | 1 => sim.inject(Fault::PowerCut, soon),
            2 => sim.inject(Fault::Error, soon),
            3 => sim.add_fault(error(Operation::Sync)),
            4 => sim.add_fault(error(Operation::Write)),
            5 => sim.add_fault(error(Operation::Read)),
            6 => {
                self.fill_up(id, soon, longer);
            }
            _ => {
                let leader = self.leader().filter(|_| self.random.bool());
                self.slow_disk(leader.unwrap_or(id), longer, 1 + soon / 8);
            }
        }
        let kinds = ["cut", "cut", "error", "sync error", "write error", "read error", "full"];
        let kind = kinds.get(usize::from(kind)).unwrap_or(&"slow");
        self.note(|| format!("{id} is to have a fault of its disk: {kind}, {soon}"));
    }

    /// A disk is full for a while, perhaps others as well.
    fn fill_up(&mut self, id: NodeId, soon: u64, longer: Duration) {
        let others = self.random.bool();
        for other in self.cluster.ids() {
            if other == id || others && self.random.bool() {
                let sim = &self.disk(other).sim;
                sim.set_capacity(Some(sim.used_bytes() + 512 * soon));
                let refusals = sim.stats().space_refusals;
                self.trouble.full.insert(other, refusals);
                self.later(longer, Happening::Room(other));
            }
        }
    }

    /// Have several disks that are full at the moment refused something for it?
    fn count_full_disks(&mut self) {
        let refuses = |(id, before): (&NodeId, &u64)| {
            let member = self.cluster.members.get(id);
            member.is_some_and(|it| it.disk.sim.stats().space_refusals > *before)
        };
        if self.trouble.full.iter().filter(|&it| refuses(it)).count() > 1 {
            self.count(Kind::FullDisks);
            self.trouble.full.clear();
        }
    }

    /// So many syncs of a disk take as long as this.
    fn slow_disk(&mut self, id: NodeId, each: Duration, times: u64) {
        let slow = FaultRule::new(Fault::Slow(each)).on(&[Operation::Sync]);
        self.disk(id).sim.add_fault(slow.times(times));
    }

    pub(super) fn make_room(&mut self, id: NodeId) {
        self.count_full_disks();
        self.trouble.full.remove(&id);
        if self.cluster.members.contains_key(&id) {
            self.note(|| format!("{id} has room again"));
            self.disk(id).sim.set_capacity(None);
        }
    }

    /// Bytes on a disk change. Sooner or later somebody looks.
    pub(super) fn rot(&mut self) {
        let Some(victim) = self.who_may_lose_its_disk() else { return };
        for _ in 0..self.random.u8(1..=2) {
            if let Some((kind, damage)) = self.disk(victim).rot() {
                self.count(kind);
                self.note(|| format!("the disk of {victim} rots: {damage}"));
                self.report.disks.disks_damaged += 1;
            }
        }
        let wait = self.up_to(self.timeout() * 8);
        let life = self.cluster.members[&victim].lives;
        self.later(wait, Happening::Crash(victim, life));
    }

    /// Somebody meddles with the files of a node that does not run.
    pub(super) fn meddle(&mut self) {
        let Some(victim) = self.who_may_lose_its_disk() else { return };
        self.crash(victim);
        if self.cluster.is_up(victim) || self.any_disk_wanting() {
            return;
        }
        if let Some((kind, what)) = self.disk(victim).meddle() {
            self.count(kind);
            self.note(|| format!("the disk of {victim}: {what}"));
            self.report.disks.disks_damaged += u64::from(self.disk(victim).is_damaged());
        }
    }

    /// A node dies, half of the time in the middle of something that its disk does.
    pub(super) fn crash(&mut self, id: NodeId) {
        if !self.cluster.is_up(id) {
            return;
        }
        self.report.crashes += 1;
        let waiting = self.disk(id).waiting();
        if waiting > 0 && self.random.bool() {
            let (cut, count) = (self.random.u64(..5), self.random.usize(1..=waiting));
            self.note(|| format!("{id} loses power {cut} operations into the next of {waiting}"));
            self.disk(id).sim.inject(Fault::PowerCut, cut);
            let _cut_off = self.disk(id).work(count);
        }
        let lost = self.disk(id).waiting();
        self.report.writes_lost += lost as u64;
        self.note(|| match lost {
            0 => format!("{id} crashes"),
            1 => format!("{id} crashes, 1 write was not begun"),
            _ => format!("{id} crashes, {lost} writes were not begun"),
        });
        self.cluster.stop(id);
        self.after_the_end(id);
    }

    /// Nodes whose disks failed have ended.
    pub(super) fn bury_the_failed(&mut self) {
        for (id, error) in std::mem::take(&mut self.cluster.failed) {
            assert!(self.chaos, "{id}: {error}");
            self.report.disks.ended_by_disk += 1;
            self.note(|| format!("{id} ends: {error}"));
            self.after_the_end(id);
        }
    }

    fn after_the_end(&mut self, id: NodeId) {
        self.unpolled.remove(&id);
        self.paused.remove(&id);
        self.trouble.held.remove(&id);
        self.without_snapshot.remove(&id);
        let wait = self.down_time();
        self.later(wait, Happening::Restart(id));
    }

    /// Starts a node that does not run. It may fail again in the middle of that.
    pub(super) fn restart(&mut self, id: NodeId) {
        if self.cluster.is_up(id) || !self.cluster.members.contains_key(&id) {
            return;
        }
        let image = self.random.bool();
        if self.chaos {
            self.trouble_a_start(id);
        }
        let before = image.then(|| self.disk(id).image());
        let faults = self.disk(id).faults_met();
        let Err(error) = self.cluster.restart(id) else {
            let found = self.disk(id).found.clone();
            self.report.disks.count_start(&found);
            let (life, at) = (self.life(id), self.cluster.replica(id).applied());
            return self.note(|| {
                let snapshot = match at {
                    LogPosition::ZERO => String::new(),
                    at => format!(", restores a snapshot as of {at}"),
                };
                format!("{id} starts, life {life}: {}{snapshot}", transcript::found(&found))
            });
        };
        self.note(|| format!("{id} does not start: {error}"));
        let injected = self.disk(id).faults_met() > faults;
        let hopeless =
            error.is_safety_refusal() || !injected && self.disk(id).fails_for_good(&error);
        self.cluster.stop(id);
        if hopeless {
            self.report.disks.refusals += 1;
            return self.give_up(id);
        }
        let excused = injected && self.chaos;
        assert!(excused, "{id} does not start, and nothing is wrong with its disk: {error}");
        self.report.disks.starts_failed += 1;
        // It never ran, so nobody heard from it: what it was before is as good.
        if before.is_some_and(|image| self.disk(id).put_back(&image)) {
            self.count(Kind::ImageRestored);
            self.note(|| format!("the disk of {id} is what it was before"));
        }
        let wait = self.up_to(self.timeout());
        self.later(wait, Happening::Restart(id));
    }

    fn trouble_a_start(&mut self, id: NodeId) {
        let (kind, soon) = (self.random.u8(..40), self.random.u64(..24));
        let short_io = self.options.short_io;
        let sim = &self.disk(id).sim;
        match kind {
            0 | 1 => sim.inject(Fault::PowerCut, soon),
            2 => sim.inject(Fault::Error, soon),
            3 => sim.add_fault(FaultRule::new(Fault::Error).on(Operation::LOOKS).after(soon)),
            _ => {}
        }
        if short_io {
            let moves = FaultRule::new(Fault::Interrupted).on(&[Operation::Read, Operation::Write]);
            sim.add_fault(moves.always().one_in(20));
        }
    }

    /// No more faults from here on, and those that were found by nobody yet are.
    pub(super) fn heal_disks(&mut self) {
        for id in self.cluster.ids() {
            let disk = self.disk(id);
            disk.sim.clear_faults();
            disk.sim.set_capacity(None);
            let _done_at_once = disk.sim.take_cost();
            // Whose power failed while it did nothing that matters has not noticed it yet.
            let starts_again = disk.is_damaged() || disk.is_cut_off();
            if let Some((life, _)) = self.busy.remove(&id) {
                // It is as fast as it should be from here on, also with what it was busy with.
                self.later(Duration::ZERO, Happening::Sync(id, life));
            }
            if !starts_again {
                continue;
            }
            if self.cluster.is_up(id) {
                self.cluster.stop(id);
                self.unpolled.remove(&id);
            }
            self.restart(id);
        }
    }
}
