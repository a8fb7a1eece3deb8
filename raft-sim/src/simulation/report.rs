//! What happened in a run.

use std::time::Duration;

use raft_core::Event;
use raft_wal::RecoveryReport;

use super::kinds::{self, Counts, Kind, Moment};
use crate::storage::shipping::Store;

/// Counts that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// What they are about.
    pub name: &'static str,
    /// By the name in [`Report::counts`] what is counted; empty where the name says it all.
    pub counts: Vec<(String, &'static str)>,
}

/// So many counters of a report are about the cluster; those of clients follow.
const FIRST_OF_CLIENTS: usize = 25;

/// Declares a struct of counters that can be added up and listed by name, and of what else there is.
macro_rules! counters {
    (
        $(#[$about:meta])*
        $name:ident { $($(#[doc = $what:literal])* $counter:ident,)* }
        and { $($(#[$which:meta])* $other:ident: $type:ty,)* }
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[doc = $what])* pub $counter: u64,)*
            $($(#[$which])* pub $other: $type,)*
        }

        impl $name {
            fn add_counters(&mut self, other: &Self) {
                $(self.$counter += other.$counter;)*
            }

            fn list_counters(&self) -> Vec<(String, u64)> {
                vec![$((stringify!($counter).replace('_', " "), self.$counter),)*]
            }

            const ABOUT: &[&str] = &[$(concat!($($what),*),)*];
        }
    };
}

counters! {
/// What happened in a run, or in many.
Report {
    /// Things that happened: messages that arrived, timers, syncs, faults, clients' turns.
    events,
    /// Terms in which a leader was elected.
    elections,
    /// Entries that were committed, those without a command included.
    committed,
    /// Reads that a node was allowed to serve, clients' and the simulator's own.
    reads,
    /// Nodes that were stopped at once.
    crashes,
    /// Writes that were handed to a log and never begun, because of a crash.
    writes_lost,
    /// Sets of links that were cut.
    partitions,
    /// Nodes that did nothing for a while, and then went on.
    pauses,
    /// Messages and requests that did not arrive.
    lost,
    /// Messages that came twice.
    duplicated,
    /// Proposals in whose place another leader's entry was committed.
    superseded,
    /// Configurations that took effect at a leader.
    configurations,
    /// Membership changes that a leader took on.
    changes_taken,
    /// Membership changes that were completed.
    changes_committed,
    /// Proposals and changes of which a snapshot hides what became of them.
    unknown_fates,
    /// Learners that were made voters because they had caught up.
    promotions,
    /// Transfers of leadership that a leader took on.
    transfers,
    /// Of those the ones that came to nothing.
    transfers_failed,
    /// Snapshots that a node cut of its own state.
    cuts,
    /// Logs that were cut off behind a snapshot.
    compactions,
    /// Snapshots of other nodes that took the place of a log.
    installs,
    /// Times that a node met a peer with another disk than before.
    reborn,
    /// Runs at whose end too much was lost for ever to demand anything.
    hopeless,
    /// Runs at whose end nobody could win an election, because a node that counts on another's vote did not
    /// lack what that one has.
    unwinnable,
    /// Reads by lease at a node that takes itself to lead, just after another node committed something.
    asked_old_leaders,
    /// Commands and questions that clients began.
    operations,
    /// Times that a client asked the same again.
    retries,
    /// Commands that a node passed on to the leader.
    forwarded,
    /// Batches of commands that a leader took.
    proposals,
    /// Times that a client was told that nothing was done.
    refused,
    /// Of those the ones because too much waited.
    refused_busy,
    /// Times that a client was told that nobody knows what became of its command.
    told_unknown,
    /// Operations that a client gave up.
    given_up,
    /// Commands that a client was told the response to.
    writes_acknowledged,
    /// Answers to questions that must reflect all that anybody was told before.
    linearizable_reads,
    /// The same, by a leader's lease where there is one.
    lease_reads,
    /// Answers to questions that must reflect all that this client was told before.
    session_reads,
    /// Answers to questions that may be out of date.
    stale_reads,
    /// Runs in which clients asked ten times as much as could be done.
    floods,
}
and {
    /// What happened to disks.
    disks: Disks,
    /// Faults by kind.
    faults: Counts<Kind>,
    /// How often a moment was used for a fault.
    moments: Counts<Moment>,
    /// How long it took, by the clock of the simulation.
    simulated: Duration,
    /// A digest of everything that happened, in order.
    digest: u128,
}
}

impl Report {
    /// Adds another run.
    pub fn add(&mut self, other: &Self) {
        self.add_counters(other);
        self.disks.add_counters(&other.disks);
        kinds::add(&mut self.faults, &other.faults);
        kinds::add(&mut self.moments, &other.moments);
        self.simulated += other.simulated;
        // Threads finish in any order.
        self.digest = self.digest.wrapping_add(other.digest);
    }

    /// All that was counted, by name.
    pub fn counts(&self) -> Vec<(String, u64)> {
        let mut counts = self.list_counters();
        counts.extend(self.disks.list_counters());
        let of = |count: Option<&u64>| count.copied().unwrap_or(0);
        let faults = Kind::ALL.iter().map(|it| (it.name().to_owned(), of(self.faults.get(it))));
        counts.extend(faults);
        let moment = |it: &Moment| (format!("strikes as {}", it.name()), of(self.moments.get(it)));
        counts.extend(Moment::ALL.iter().map(moment));
        counts.push(("simulated seconds".to_owned(), self.simulated.as_secs()));
        counts
    }

    /// What the names in [`Report::counts`] mean, in the same order, by what they are about.
    pub fn sections() -> Vec<Section> {
        let mut about = [Self::ABOUT, Disks::ABOUT].concat();
        about.extend(Kind::ALL.iter().map(|it| it.about()));
        about.extend(Moment::ALL.iter().map(|it| it.about()));
        about.push("Time that went by on the simulation's own clock.");
        let names = Self::default().counts().into_iter().map(|(name, _)| name);
        let mut all = names.zip(about.into_iter().map(str::trim));
        let of_clients = Self::ABOUT.len() - FIRST_OF_CLIENTS;
        let parts = [
            ("the cluster", FIRST_OF_CLIENTS),
            ("clients", of_clients),
            ("disks and logs", Disks::ABOUT.len()),
            ("faults, by kind", Kind::ALL.len()),
            ("faults at moments that are worth one", Moment::ALL.len()),
            ("time", 1),
        ];
        let section = |(name, count)| Section { name, counts: all.by_ref().take(count).collect() };
        parts.into_iter().map(section).collect()
    }

    /// How often something about a disk went wrong.
    pub fn disk_faults(&self) -> u64 {
        let Disks {
            disks_damaged,
            disks_lost,
            cut_operations,
            files_torn,
            names_lost,
            read_errors,
            write_errors,
            sync_errors,
            name_errors,
            interruptions,
            short_writes,
            unreadable_hits,
            slow_syncs,
            waits_for_room,
            ..
        } = &self.disks;
        disks_damaged
            + disks_lost
            + cut_operations
            + files_torn
            + names_lost
            + read_errors
            + write_errors
            + sync_errors
            + name_errors
            + interruptions
            + short_writes
            + unreadable_hits
            + slow_syncs
            + waits_for_room
    }

    /// Counts what a node tells of.
    pub fn count(&mut self, event: &Event) {
        match event {
            Event::Promoting { .. } => self.promotions += 1,
            Event::TransferFailed { .. } => self.transfers_failed += 1,
            Event::Compacted { .. } => self.compactions += 1,
            Event::PeerReborn { .. } => self.reborn += 1,
            _ => {}
        }
    }
}

counters! {
/// What happened to disks, and to logs by them.
Disks {
    /// Disks on which something rotted.
    disks_damaged,
    /// Damage to what is there twice or what nobody needs: a start must find everything all the same.
    harmless_damage,
    /// Nodes that are gone with their disks.
    disks_lost,
    /// Starts that dropped a torn write.
    torn_ends,
    /// Starts of a node that knows that it lost something.
    limping,
    /// Starts that were refused, or would never succeed: another node took the place of this one.
    refusals,
    /// Starts that found a damaged snapshot.
    snapshots_damaged,
    /// Starts that found damage and lost nothing by it.
    repaired_starts,
    /// Starts that found one of the two copies of the identity damaged, and wrote it again.
    identities_repaired,
    /// Starts that failed because the disk did, and were tried again.
    starts_failed,
    /// Nodes that ended because their disk failed.
    ended_by_disk,
    /// Batches that waited for room.
    waits_for_room,
    /// Syncs that took long.
    slow_syncs,
    /// Batches of writes with one sync for all.
    batches,
    /// Segments of logs that were begun.
    rolls,
    /// Segments that went because a snapshot stands for them.
    segments_dropped,
    /// Idle logs that noted what is durable in them.
    marks,
    /// Steps of reading again what was written long ago.
    scrubs,
    /// Damage that was found by that.
    damage_scrubbed,
    /// Damaged segments that were written again.
    rewritten,
    /// Of those the ones that the log did not take, because it had gone on.
    rewrites_refused,
    /// Power failures, as the disks count them.
    power_cuts,
    /// Operations that a power failure cut off in the middle.
    cut_operations,
    /// Sectors that were not synced and survived a power failure.
    sectors_kept,
    /// Sectors that were not synced and did not.
    sectors_lost,
    /// Files of which a power failure left some sectors and not others.
    files_torn,
    /// Names in a directory that were not synced and did not survive.
    names_lost,
    /// Reads that failed.
    read_errors,
    /// Writes that failed.
    write_errors,
    /// Syncs that failed.
    sync_errors,
    /// Files that could not be created, renamed or removed.
    name_errors,
    /// Reads and writes that were interrupted before they did anything.
    interruptions,
    /// Reads and writes that did only a part.
    short_writes,
    /// Reads of a sector that cannot be read.
    unreadable_hits,
}
and {}
}

impl Disks {
    pub fn count_start(&mut self, found: &RecoveryReport) {
        self.torn_ends += u64::from(found.torn_bytes > 0);
        self.limping += u64::from(found.limping);
        self.snapshots_damaged += u64::from(found.snapshots_damaged > 0);
        self.repaired_starts += u64::from(found.damage.is_some() && !found.limping);
        self.identities_repaired += u64::from(found.identity_repaired);
    }

    pub fn count_disk(&mut self, mut store: Store) {
        store.note_rolls();
        let (tally, disk) = (store.tally, store.sim.stats());
        assert_eq!(disk.syncs_after_failure, 0, "a file was synced again after that had failed");
        self.batches += tally.batches;
        self.rolls += tally.rolls;
        self.segments_dropped += tally.segments_dropped;
        self.marks += tally.marks;
        self.harmless_damage += tally.harmless;
        self.scrubs += tally.scrubs;
        self.damage_scrubbed += tally.damage_scrubbed;
        self.rewritten += tally.rewritten;
        self.rewrites_refused += tally.rewrites_refused;
        self.power_cuts += disk.power_cuts;
        self.cut_operations += disk.operations_cut;
        self.sectors_kept += disk.sectors_kept;
        self.sectors_lost += disk.sectors_lost;
        self.files_torn += disk.files_torn;
        self.names_lost += disk.names_lost;
        self.read_errors += disk.read_errors;
        self.write_errors += disk.write_errors;
        self.sync_errors += disk.sync_errors;
        self.name_errors += disk.name_errors;
        self.interruptions += disk.interruptions;
        self.short_writes += disk.short_writes;
        self.unreadable_hits += disk.unreadable_hits;
        self.slow_syncs += disk.slow_operations;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_its_own_explanation() {
        let sections = Report::sections();
        assert_eq!(sections[1].counts[0].0, "operations", "where those of clients begin");
        let about: Vec<_> = sections.into_iter().flat_map(|section| section.counts).collect();
        let names: Vec<_> = Report::default().counts().into_iter().map(|(name, _)| name).collect();
        assert_eq!(about.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), names);
        let of = |name: &str| about.iter().find(|(it, _)| it == name).map(|(_, about)| *about);
        assert_eq!(of("duplicated"), Some("Messages that came twice."));
        assert_eq!(of("torn ends"), Some("Starts that dropped a torn write."));
        assert_eq!(of("bridges"), Some("Two sides that share one node."));
        assert_eq!(of("simulated seconds").map(|it| it.contains("clock")), Some(true));
    }
}
