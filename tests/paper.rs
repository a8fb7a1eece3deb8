//! The Raft paper and the dissertation, rule by rule: one test for each sentence that demands
//! something of an implementation, named after the rule. `paper/README.md` has the table of
//! sections and tests.
//!
//! | text | what it is about | tests |
//! |---|---|---|
//! | paper §5.1, §5.2 | terms, roles, elections; RequestVote of Figure 2 | `s5_elections` |
//! | paper §5.3 | replication; AppendEntries of Figure 2 | `s5_replication` |
//! | paper §5.4 to §5.6, §8 | safety, the properties of Figure 3, crashes, timing | `s5_safety` |
//! | paper §6 | joint consensus | `s6_membership` |
//! | paper §7 | taking snapshots, and sending them | `s7_snapshots` |
//! | paper §7 | InstallSnapshot of Figure 13: receiving one | `s7_install` |
//! | thesis §3.10 | leadership transfer | `thesis_3_10_transfer` |
//! | thesis §4 | membership changes by one server and by any number | `thesis_4_membership` |
//! | thesis §6.2, §6.4 | no majority, no leader; reads, leases | `thesis_6_4_reads` |
//! | thesis §9.6 | pre-votes | `thesis_9_6_prevote` |
//! | what the texts leave open | strangers, bounds, receipts of an earlier life | `own_rules` |
//! | the same, of those who lead | disks that hang, one leadership after another | `own_leaders` |
//!
//! Where the design departs from the text, the test says so and why that is safe.
//!
//! Most tests put a single node on a stand (`paper/stand.rs`) and play everybody else; some put a
//! few nodes into a room (`paper/room.rs`). Whole traces are in the golden scripts (`golden/`;
//! Figures 7 and 8 among them), chance and faults in the simulation.

#[path = "paper/own_leaders.rs"]
mod own_leaders;
#[path = "paper/own_rules.rs"]
mod own_rules;
#[path = "paper/room.rs"]
mod room;
#[path = "paper/s5_elections.rs"]
mod s5_elections;
#[path = "paper/s5_replication.rs"]
mod s5_replication;
#[path = "paper/s5_safety.rs"]
mod s5_safety;
#[path = "paper/s6_membership.rs"]
mod s6_membership;
#[path = "paper/s7_install.rs"]
mod s7_install;
#[path = "paper/s7_snapshots.rs"]
mod s7_snapshots;
#[path = "paper/stand.rs"]
mod stand;
#[path = "paper/thesis_3_10_transfer.rs"]
mod thesis_3_10_transfer;
#[path = "paper/thesis_4_membership.rs"]
mod thesis_4_membership;
#[path = "paper/thesis_6_4_reads.rs"]
mod thesis_6_4_reads;
#[path = "paper/thesis_9_6_prevote.rs"]
mod thesis_9_6_prevote;
#[path = "paper/words.rs"]
mod words;
