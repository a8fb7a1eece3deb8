//! The [Raft](https://raft.github.io/raft.pdf) consensus protocol as a pure, deterministic state
//! machine.
//!
//! A [`Node`] is one member of a Raft group. It has no clock, no thread, no socket and no file: you
//! tell it what happens, and it tells you what to do. Whoever calls it decides how messages travel
//! and where the log is kept; what the protocol needs to stay safe cannot be got wrong from
//! outside:
//!
//! - every message that comes out may be sent at once, because promises wait inside until the disk
//!   has confirmed what they promise;
//! - that confirmation, a [`Receipt`], can only be made from the [`Write`] that it stands for;
//! - nothing that a peer sends, however wrong, makes a node panic or fail;
//! - the same configuration and inputs give the same outputs, byte for byte.
//!
//! This page is a tour: first how a node is used, then Raft itself, told with this code. A section
//! sign alone (§5.2) is a section of the [Raft paper](https://raft.github.io/raft.pdf); the
//! *thesis* is [Ongaro's dissertation](https://github.com/ongardie/dissertation).
//!
//! # A node in ten lines
//!
//! ```
//! use raft_core::{Config, Input, Instant, Membership, Node, NodeId, Output, Restored, Timestamp};
//!
//! let n1 = NodeId::new(1).expect("not zero");
//! let alone = Membership::new([n1])?;
//! let mut node = Node::new(Config::new(n1, 42), Restored::empty(alone), Instant::default())?;
//! let mut output = Output::default();
//! let mut applied = Vec::new();
//! while applied.is_empty() {
//!     let now = node.deadline();
//!     node.step(now, Input::Timer);
//!     let _ = node.propose(now, Timestamp(0), vec!["hello".into()]); // refused until it leads
//!     node.poll(&mut output);
//!     if let Some(write) = output.write.take() {
//!         // A real caller makes all that is in the write durable here.
//!         node.step(now, Input::Written(write.into_receipt()));
//!         node.poll(&mut output);
//!     }
//!     applied.extend(output.committed.drain_entries().filter(|entry| entry.index.0 > 1));
//!     output.messages.clear(); // There is nobody to send them to.
//! }
//! assert_eq!(applied[0].to_string(), "2@1=hello");
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! A driver for a real cluster is the same loop: wait for an input or the
//! [deadline](Node::deadline), feed everything that has queued up ([`Node::step`],
//! [`Node::propose`], [`Node::read`]), [poll](Node::poll) once, and hand each field of the
//! [`Output`] to whom it concerns. Feeding all before one poll is what makes batches: ten proposals
//! become one write and one message to each peer.
//!
//! # What to do with an output
//!
//! | field of [`Output`] | what it is for | what comes back |
//! |---|---|---|
//! | [`write`](Output::write) | the disk, in the order in which writes come | [`Input::Written`] with its [`Receipt`] |
//! | [`messages`](Output::messages) | the peers, at once; any of them may be lost | [`Input::Message`], when they answer |
//! | [`restore`](Output::restore) | the state machine, before `committed`: this snapshot is its state now | [`Input::Applied`] |
//! | [`committed`](Output::committed) | the state machine, in order | [`Input::Applied`] |
//! | [`reads`](Output::reads) | whoever reads: apply up to that index, then look | – |
//! | [`proposals`](Output::proposals), [`changes`](Output::changes) | whoever waits for a [`Fate`] | – |
//! | [`snapshot_due`](Output::snapshot_due) | the state machine: write a snapshot, when convenient | [`Input::SnapshotCut`] |
//! | [`chunks`](Output::chunks) | the disk: read pieces of a snapshot for peers | [`Input::ChunkRead`] |
//! | [`incoming`](Output::incoming) | the disk: keep pieces of a snapshot that comes | [`Input::SnapshotHeld`] |
//! | [`compacted`](Output::compacted) | the disk: the log up to here may go, this is what it stands on now | [`Restored::base`], at the next start |
//! | [`events`](Output::events) | logs, metrics, checkers | – |
//!
//! No field waits for another, except that `restore` comes before `committed`. A driver that
//! destructures the output without `..` is told by its compiler when there is something new to do.
//!
//! # Three nodes and no network
//!
//! Nodes are values, so a cluster is an array and a network is a loop. The other examples on this
//! page use the same `settle`.
//!
//! ```
//! use raft_core::{Config, Input, Instant, Membership, Node, NodeId, Output, Restored, RoleKind};
//! use raft_core::{LogIndex, Timestamp};
//!
//! /// Carries messages until nobody has anything more to say; returns what was said.
//! fn settle(nodes: &mut [Node], now: Instant) -> Vec<String> {
//!     let mut said = Vec::new();
//!     loop {
//!         let mut mail = Vec::new();
//!         for node in nodes.iter_mut() {
//!             let mut output = Output::default();
//!             node.poll(&mut output);
//!             while let Some(write) = output.write.take() {
//!                 node.step(now, Input::Written(write.into_receipt())); // A very fast disk.
//!                 node.poll(&mut output);
//!             }
//!             mail.extend(output.messages);
//!         }
//!         if mail.is_empty() {
//!             return said;
//!         }
//!         for envelope in mail {
//!             said.push(envelope.to_string());
//!             let to = envelope.to.get() as usize - 1;
//!             nodes[to].step(now, Input::Message(envelope));
//!         }
//!     }
//! }
//!
//! let ids = [1, 2, 3].map(|number| NodeId::new(number).expect("not zero"));
//! let members = Membership::new(ids)?;
//! let start = Instant::default();
//! let node = |id| Node::new(Config::new(id, id.get()), Restored::empty(members.clone()), start);
//! let mut nodes = [node(ids[0])?, node(ids[1])?, node(ids[2])?];
//!
//! // The first node's patience ends: it asks around, is elected, and opens its term.
//! let now = nodes[0].deadline();
//! nodes[0].step(now, Input::Timer);
//! let said = settle(&mut nodes, now);
//! assert_eq!(said[0], "n1@0 → n2 PreVote last=0@0");
//! assert_eq!(nodes[0].status().role, RoleKind::Leader);
//!
//! // It takes a command, and a moment later all three know that it is committed.
//! let taken = nodes[0].propose(now, Timestamp(0), vec!["hello".into()]).expect("it leads");
//! assert_eq!(taken.first.to_string(), "2@1"); // index 2, term 1
//! let said = settle(&mut nodes, now);
//! assert_eq!(said[0], "n1@1 → n2 AppendEntries prev=1@1 commit=1 round=1 [2@1=hello]");
//! assert!(nodes.iter().all(|node| node.status().commit == LogIndex(2)));
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! `cargo run -p raft-core --example election_by_hand` is the long version: it prints an election,
//! a write, a read, the death of the leader, the next election, a snapshot and a change of members,
//! message by message.
//!
//! # Raft, told with this code
//!
//! ## Terms and roles
//!
//! Time is cut into [`Term`]s, each with at most one leader (§5.1). A node is a follower, a
//! pre-candidate, a candidate or a leader ([`RoleKind`], Figure 4); each role owns the data that
//! only it needs. Every [`Envelope`] carries its sender's term. The past is answered with the
//! present, the future is adopted: that rule stands once, above the dispatch of messages in
//! `node.rs`.
//!
//! ## Elections
//!
//! A follower that hears nothing for a random time between one and two [election
//! timeouts](Config::election_timeout) (§5.2) first asks whether it would be elected
//! ([`BallotKind::PreVote`], thesis §9.6), which changes nothing anywhere; with a majority of "yes"
//! it starts a term and asks for real ([`BallotKind::Vote`]). A vote goes only to a log that is at
//! least as up-to-date (§5.4.1), which is one comparison of [`LogPosition`]s. Term and vote are one
//! record ([`HardState`]), durable before anyone hears of them, the candidate's own vote included.
//!
//! Whoever has heard from a leader within an election timeout does not even look at a request for a
//! vote (thesis §4.2.3, [`Ignored::LeaderIsAlive`]): a node that comes back from a partition, or
//! was removed and does not know it, disturbs nobody. (A leader that wants to be replaced says so:
//! see [Leadership transfer](#leadership-transfer).) This stickiness outlasts a change of term,
//! because a newer term may be learned while the leader of the older one still relies on it (see
//! [Reads](#reads)). The leader in turn gives up when it has heard from no majority for an election
//! timeout (thesis §6.2, [`Event::QuorumLost`]), or when its disk hangs while the others' do not
//! ([`Event::DiskHangs`]).
//!
//! ## Replication
//!
//! The leader appends commands ([`Node::propose`]) and sends each peer what it lacks (§5.3): one
//! message at a time while it looks for the place where the logs agree ([`PeerPace::Probe`]), then
//! ahead of the answers within a window of messages and bytes ([`PeerPace::Replicate`]). A follower
//! refuses what does not fit and hints at where to look, whole terms at a time
//! ([`AppendOutcome::Refused`]). It acknowledges what is on its *disk*
//! ([`AppendOutcome::Accepted`]), once for everything that arrived since it was last polled. A
//! leader whose uncommitted entries exceed [`Config::uncommitted_bytes_max`] refuses more, and says
//! by how much ([`ProposeRefusal::Busy`]).
//!
//! ## Commitment
//!
//! What a majority has on disk is committed, if it is of the leader's own term; what precedes it is
//! committed along with it (§5.4.2; Figure 8 shows why not before). For that reason a new leader
//! opens its term with an empty entry ([`Payload::Noop`]). The leader's disk is just another voter:
//! an entry can be committed before the leader's own write is done.
//!
//! ## Reads
//!
//! A linearizable read needs no log entry (thesis §6.4): the leader notes its commit index, makes
//! sure with one round of heartbeats that it still leads ([`Round`]), and lets the read go ahead at
//! that index ([`Node::read`], [`ReadOutcome`]). All reads that wait share a round; followers ask
//! the leader ([`Message::ReadIndex`]), once for all of theirs. [`Consistency`] offers two cheaper
//! kinds:
//!
//! - [`Consistency::Lease`] (thesis §6.4.1): the leader answers from what it last confirmed,
//!   without a round. Those who answered that round refuse their votes for an election timeout from
//!   when they heard it, so for a little less than that from when it was *sent* no other leader can
//!   exist. How much less is the drift of the clocks, [`Config::lease_clock_drift_ppm`]; unless
//!   that is set, there are no leases. A leader that has asked another node to take over has given
//!   up its lease for the rest of the term: that message may arrive late.
//! - [`Consistency::AtLeast`]: any node answers as soon as it knows this index to be committed,
//!   such as that of the reader's own last write. Nobody is asked; the answer may be old, but never
//!   older. The read gives up after an election timeout ([`ReadRefused::NotReached`]).
//!
//! ## Membership changes
//!
//! The members are an entry of the log ([`Payload::Membership`]), in effect as soon as it is
//! appended, committed or not (§6), and gone when it is truncated. [`Node::change_membership`]
//! leads from any set of voters and learners to any other, in one request. If at most one voter
//! joins or leaves, every majority of the old set meets every majority of the new one, so one step
//! is enough (thesis §4.1). Otherwise the leader appends a *joint* configuration, in which every
//! decision needs a majority of both sets, and when that is committed, the target: this leader or
//! the next, whoever leads by then (§6). [`Membership::toward`] is that rule:
//!
//! ```
//! use raft_core::{Membership, NodeId};
//!
//! let set = |numbers: &[u64]| Membership::new(numbers.iter().copied().filter_map(NodeId::new));
//! let now = set(&[1, 2, 3])?;
//! assert_eq!(now.toward(&set(&[1, 2, 3, 4])?).to_string(), "{n1 n2 n3 n4}");
//! assert_eq!(now.toward(&set(&[1, 2, 4])?).to_string(), "{n1 n2 n4 from n1 n2 n3}");
//! # Ok::<_, raft_core::MembershipError>(())
//! ```
//!
//! *Learners* (thesis §4.2.1) receive the log and never count. A newcomer should be one first, or a
//! majority might have to wait for it: a change whose voters could not make a majority of nodes
//! that answer *now*, and have most of the log, is refused ([`ChangeRefusal::WouldLoseQuorum`]). With
//! [`Promotion::WhenCaughtUp`] the leader makes a learner a voter by itself when it has caught up:
//! in rounds, each of which replicates what the log held when the round began, until one takes less
//! than an election timeout. A voter that is to become a learner is listed as one already in the
//! joint phase, and still votes until that is over.
//!
//! ```
//! # use raft_core::{Config, Input, Instant, Node, Output, Restored};
//! # fn settle(nodes: &mut [Node], now: Instant) {
//! #     loop {
//! #         let mut mail = Vec::new();
//! #         for node in nodes.iter_mut() {
//! #             let mut output = Output::default();
//! #             node.poll(&mut output);
//! #             while let Some(write) = output.write.take() {
//! #                 node.step(now, Input::Written(write.into_receipt()));
//! #                 node.poll(&mut output);
//! #             }
//! #             mail.extend(output.messages);
//! #         }
//! #         if mail.is_empty() {
//! #             return;
//! #         }
//! #         for envelope in mail {
//! #             let to = envelope.to.get() as usize - 1;
//! #             nodes[to].step(now, Input::Message(envelope));
//! #         }
//! #     }
//! # }
//! use raft_core::{ChangeRefusal, Membership, NodeId, Timestamp};
//!
//! let ids = [1, 2].map(|number| NodeId::new(number).expect("not zero"));
//! let alone = Membership::new([ids[0]])?;
//! // The second node knows who is there, and that it is none of them yet: it waits to be told.
//! let start = Instant::default();
//! let node = |id| Node::new(Config::new(id, id.get()), Restored::empty(alone.clone()), start);
//! let mut nodes = [node(ids[0])?, node(ids[1])?];
//! let now = nodes[0].deadline();
//! nodes[0].step(now, Input::Timer);
//! settle(&mut nodes, now);
//! assert_eq!(nodes[1].deadline(), Instant::FAR_FUTURE);
//!
//! // As a voter at once it would be needed for every decision, and nobody has heard from it yet.
//! let both = alone.with_voter(ids[1]);
//! let refused = nodes[0].change_membership(now, Timestamp(0), &both, None);
//! assert_eq!(refused, Err(ChangeRefusal::WouldLoseQuorum { ready: 1, needed: 2 }));
//!
//! nodes[0].change_membership(now, Timestamp(0), &alone.with_learner(ids[1])?, None)?;
//! settle(&mut nodes, now);
//! let seen = nodes[0].status().membership_index;
//! nodes[0].change_membership(now, Timestamp(0), &both, Some(seen))?;
//! settle(&mut nodes, now);
//! assert_eq!(nodes[1].status().membership.to_string(), "{n1 n2}");
//!
//! // Someone else who still goes by what was seen before is told.
//! let late = nodes[0].change_membership(now, Timestamp(0), &alone, Some(seen));
//! assert!(matches!(late, Err(ChangeRefusal::Stale { .. })));
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! One change at a time ([`ChangeRefusal::InFlight`]), none before the leader has committed in its
//! own term ([`ChangeRefusal::NoCommitInTermYet`]: without that rule one-step changes of two
//! leaders could miss each other, as Ongaro found in 2015), and, if the caller says what it has
//! seen, none on top of one that it has not ([`ChangeRefusal::Stale`]). Those who were removed are
//! told so, for an election timeout at the most, and then forgotten. A leader that removes itself,
//! or its vote, leads until the change is committed, then asks the best of the others to take over,
//! and steps down (thesis §4.2.2).
//!
//! A node that a configuration leaves out may still campaign until that configuration is committed:
//! others may need its vote, and if its log is longer than theirs, it alone can win.
//!
//! ## Leadership transfer
//!
//! [`Node::transfer_leadership`] hands over to a voter of your choice or the one with most of the
//! log (thesis §3.10). The leader takes no proposals meanwhile ([`ProposeRefusal::Transferring`]),
//! brings the target up to date, and tells it to campaign at once ([`Message::TimeoutNow`]). The
//! target's requests say that the leader has agreed ([`BallotKind::Transfer`]), so nobody waits for
//! its silence. If the target does not lead in an election timeout, the leader goes on
//! ([`Event::TransferFailed`]).
//!
//! ## Snapshots
//!
//! A snapshot is the state machine as of one index; it stands in for the log up to there (§7). The
//! node never sees its bytes except on their way from one member to another, and says when one is
//! [due](Output::snapshot_due). To cut one, ask for its [`LogBase`] ([`Node::snapshot_base`]: the
//! position, the time and the members as of that index), make the bytes durable together with it,
//! and report [`Input::SnapshotCut`]. The log is compacted then, up to
//! [`Config::trailing_bytes_max`] before the snapshot: a follower that was away for a moment finds
//! what it needs in the log.
//!
//! ```
//! # use raft_core::{Config, Input, Instant, Membership, Node, NodeId, Output, Restored};
//! # use raft_core::{LogIndex, Snapshot, Timestamp};
//! # let n1 = NodeId::new(1).expect("not zero");
//! let mut config = Config::new(n1, 1);
//! config.trailing_bytes_max = 2 * 49; // Two entries of one byte, for this example.
//! let mut node = Node::new(config, Restored::empty(Membership::new([n1])?), Instant::default())?;
//! # let mut output = Output::default();
//! # let now = node.deadline();
//! # node.step(now, Input::Timer);
//! # while output.committed.is_empty() {
//! #     node.poll(&mut output);
//! #     if let Some(write) = output.write.take() {
//! #         node.step(now, Input::Written(write.into_receipt()));
//! #     }
//! # }
//! // … it leads, and then:
//! let commands = vec!["a".into(), "b".into(), "c".into()];
//! node.propose(now, Timestamp(0), commands).expect("it leads");
//! # while output.committed.iter().count() < 4 {
//! #     node.poll(&mut output);
//! #     if let Some(write) = output.write.take() {
//! #         node.step(now, Input::Written(write.into_receipt()));
//! #     }
//! # }
//! // … they are committed and applied:
//! node.step(now, Input::Applied(LogIndex(4)));
//!
//! let base = node.snapshot_base(LogIndex(4)).expect("applied, and in the log");
//! assert_eq!(base.position.to_string(), "4@1");
//! // A real caller makes the state machine's bytes durable here, with `base` and a digest.
//! node.step(now, Input::SnapshotCut(Snapshot { base, length: 3, digest: 0xabc }));
//! assert_eq!(node.status().base.to_string(), "2@1"); // The log begins behind it now.
//! assert_eq!(node.entry(LogIndex(2)), None);
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! A follower whose log ends before the leader's begins ([`PeerPace::Snapshot`]) is told which
//! snapshot to fetch ([`Message::InstallSnapshot`]), and asks for it piece by piece
//! ([`Message::SnapshotRequest`]). In the paper the leader pushes; here the receiver pulls, at its
//! own pace:
//!
//! 1. at the receiver [`Incoming::Begin`] asks the storage how much of it is there already
//!    ([`Input::SnapshotHeld`]), and the request names that offset;
//! 2. at the sender a [`ChunkOrder`] has the piece read ([`Input::ChunkRead`]), and
//!    [`Message::SnapshotChunk`] carries it;
//! 3. at the receiver [`Incoming::Chunk`] has it kept, and [`Input::SnapshotHeld`] lets the next be
//!    asked for. When all is there, and verified, the snapshot is *installed*: [`Output::restore`]
//!    for the state machine, [`Write::snapshot`] for the log on the disk.
//!
//! A snapshot is named by its content ([`SnapshotId`]: position, length, digest), so the transfer
//! goes on where it stopped after a broken link, after a restart if the storage kept the pieces,
//! and with another leader that has the same snapshot: any member that holds the content may be
//! asked. Leaders may come and go meanwhile: a snapshot is committed state, right no matter who
//! leads when the last piece arrives. If the log has got there by itself, nothing is replaced (§7),
//! and the storage is told to drop it ([`Incoming::Abandon`]).
//!
//! ## Storage
//!
//! What survives a crash is what was written, in the order in which the [`Write`]s were handed out;
//! each consists of a vote, a snapshot, a truncation and entries, to take effect in this order.
//! When it would survive a power cut, [`Write::into_receipt`] says so. Receipts may come back in
//! any order; the late receipt of a suffix that was overwritten meanwhile counts for nothing. A
//! write that fails has no receipt: the node promises nothing more, and the process should end.
//!
//! At the next start [`Restored`] is what the disk remembers, and [`Node::new`] checks it
//! ([`StartError`]): the vote, what the log stands on, the entries, the newest snapshot. A crash in
//! the middle of an install leaves the new snapshot and the log from before it. If that log
//! contains the snapshot's position, nothing is wrong. If it does not, all of it is superseded: the
//! storage discards it, and what is restored is the snapshot's base and no entries. (Otherwise
//! [`StartError::SnapshotOffLog`].)
//!
//! ## Lives and disks
//!
//! Every start of a node is a life, named by [`Config::seed`]: receipts and answers that belong to
//! an earlier one do not count ([`QuestionId`]). Every disk that a node runs on is an
//! [`Incarnation`]. A disk that was repaired, and may have lost entries that the node had
//! acknowledged, begins a new one, higher than all before. Peers then forget what the node said on
//! the old one ([`Event::PeerReborn`]) and drop what is still on its way from there
//! ([`Ignored::StaleIncarnation`]). The storage says how far the lost entries may have gone
//! ([`Restored::lost`]): until the log is as new as that, the node does not campaign, and gives its
//! vote only to a log that is. So what a majority once had cannot be outvoted by one that has lost
//! it.
//!
//! That takes a vote record that has survived. A node that has lost its *whole* disk comes back
//! under a new [`NodeId`], as a learner, and its old number is removed. Nothing less is safe: under
//! its old number it might vote again in a term in which it has voted already, and nobody else may
//! remember that.
//!
//! ## Fates
//!
//! A refusal comes at once, has a reason, and changes nothing: [`ProposeRefusal`] (with the
//! commands handed back), [`ReadRefused`], [`ChangeRefusal`], [`TransferRefusal`]. What was taken
//! has one end:
//!
//! - [`Fate::Committed`]: it is chosen for ever, and comes in [`Output::committed`];
//! - [`Fate::Superseded`]: something else was chosen in its place, so it is certainly in no state
//!   machine, now or later, and may be proposed again;
//! - [`Fate::Unknown`]: a snapshot took the place of the log where it stood, before this node
//!   learned what became of it.
//!
//! Ends come also when the node leads no more; one that is cut off from the others learns of none,
//! so a caller has a deadline of its own. A read ends with an index or with [`ReadRefused`], and
//! may be tried again at once: it has no effects.
//!
//! What peers send and a node does not act on is counted, not answered with an error:
//! [`Event::Ignored`] with its [`Ignored`] reason. The other [`Event`]s let a caller log, measure,
//! and follow a node step by step in a specification; [`Node::status`] is the picture at one
//! moment.
//!
//! ## Time
//!
//! Time is an argument, an [`Instant`] of the caller's monotonic clock. A clock that jumps ahead
//! starts one election; one that goes back stands still. A process that was paused does not take
//! its lease for good when it wakes. An idle node needs no ticking: [`Node::deadline`] says when to
//! come back. The wall clock ([`Timestamp`]) only travels in entries, never falling, so that state
//! machines have a time that is the same everywhere; the protocol never decides by it.
//!
//! # Where things are
//!
//! The vocabulary (`types`, `entry`, `membership`, `message`, `snapshot`, `write`, `restored`,
//! `input`, `output`, `event`, `refusal`, `status`, `config`) and the pure parts (`log`, `entries`,
//! `configurations`, `progress`, `random`) never mention the node. `node.rs` has the doors,
//! `node/prelude.rs` what every message passes. The other files below `node/` are the chapters, each
//! with one conversation from its first request to its last reply: `election`, `replication`,
//! `commit`, `read`, `change`, `transfer`, `snapshot`; with `role`, how a node moves between the
//! roles, and `outbox`, the gate between promises and the disk. Tests use `invariants`, what must be
//! true after every step, and model checkers `timeless` and `fingerprint`.
//!
//! # What is not here
//!
//! Deliberately absent for ever: ticks (time is an argument, so that a process that was paused does
//! not take its lease for good), type parameters over storage and network, features, callbacks, and
//! retries.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod config;
mod configurations;
mod entries;
mod entry;
mod event;
mod input;
mod log;
mod membership;
mod message;
mod node;
mod output;
mod progress;
mod random;
mod refusal;
mod restored;
mod snapshot;
mod status;
mod types;
mod write;

pub use config::{Config, ConfigError, Promotion};
pub use entries::{Committed, Entries};
pub use entry::{ENTRY_OVERHEAD_BYTES, Entry, Payload};
pub use event::{Event, Ignored, VoteRefusal};
pub use input::Input;
pub use membership::{Membership, MembershipError, SMALL_CLUSTER};
pub use message::{AppendOutcome, Ballot, BallotKind, Envelope, Message, QuestionId, Round};
pub use node::{Alarm, Node};
pub use output::{
    ChangeOutcome, Consistency, Fate, Output, ProposalOutcome, Proposed, ReadId, ReadOutcome,
};
pub use refusal::{ChangeRefusal, ProposeRefusal, ProposeRefused, ReadRefused, TransferRefusal};
pub use restored::{Restored, StartError};
pub use snapshot::{ChunkOrder, Incoming, LogBase, Snapshot, SnapshotId};
pub use status::{PeerPace, PeerStatus, RoleKind, Status};
pub use types::{GroupId, Incarnation, Instant, LogIndex, LogPosition, NodeId, Term, Timestamp};
pub use write::{HardState, LogMark, Receipt, Write};
