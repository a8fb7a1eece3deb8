//! Raft over gRPC: replicate a deterministic state machine over a few nodes, and read it
//! linearizably.
//!
//! You bring a [`StateMachine`]; [`start`] brings a node to life in this process and gives you a
//! [`RaftHandle`]. The protocol is [`raft_core`], the disk is [`raft_wal`]; this crate is the
//! network between the nodes, and the loop that drives one.
//!
//! # Your first state machine
//!
//! ```
//! use std::collections::BTreeMap;
//!
//! use bytes::Bytes;
//! use raft_grpc::{
//!     AppliedEntry, Capture, Consistency, NodeConfig, NodeId, RestoreError, StateMachine,
//! };
//!
//! /// Remembers what was said last.
//! #[derive(Default)]
//! struct Register(Bytes);
//!
//! impl StateMachine for Register {
//!     fn apply(&mut self, entry: &AppliedEntry) -> Bytes {
//!         std::mem::replace(&mut self.0, entry.command.clone())
//!     }
//!
//!     fn snapshot(&self) -> Capture {
//!         self.0.clone().into()
//!     }
//!
//!     fn restore(&self, snapshot: &mut dyn std::io::Read) -> Result<Self, RestoreError> {
//!         let mut said = Vec::new();
//!         snapshot.read_to_end(&mut said)?;
//!         Ok(Self(said.into()))
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let data_dir = dir.path().join("n1");
//! # let (listen, address) = ("127.0.0.1:0".parse()?, "localhost:7081".to_owned());
//! let n1 = NodeId::new(1).expect("not zero");
//! // Every member with its address; here it is a cluster of one.
//! let peers = BTreeMap::from([(n1, address)]);
//! let config = NodeConfig::new("demo", n1, data_dir, listen, peers);
//! let (node, task) = raft_grpc::start(config, Register::default()).await?;
//!
//! let applied = node.propose("hello".into()).await?;
//! println!("entry {}, before it {:?}", applied.position, applied.response);
//! assert_eq!(node.read(Consistency::Linearizable).await?.0, "hello");
//!
//! node.shutdown().await;
//! task.wait().await?;
//! # Ok(())
//! # }
//! ```
//!
//! How to go on from there, to commands that take effect exactly once, members that change, backups and tests, is told in
//! the [`guide`].
//!
//! # What flows where
//!
//! One task owns the node; nothing else touches it, so there is no lock around it. Everything else
//! hands it work through bounded queues, and it hands work on through others:
//!
//! ```text
//!  RaftHandle ── proposals, reads ─┐                   ┌─ write ────► log thread (raft-wal)
//!  other nodes ── service ─────────┤                   │               └─ receipts ─► inbox
//!     messages, proposals          ├► inbox ─► driver ─┼─ messages ─► a task and stream per peer
//!  log thread ── receipts ─────────┤           (Node)  │
//!  apply thread ── applied index ──┘                   └─ committed ► apply thread ─► answers
//! ```
//!
//! A turn of the driver takes in everything that has queued up, polls the node once and hands the
//! output on. So the queue is the batch: what arrived while the last turn was at work becomes one
//! append, one broadcast, one sync, without a timer. While the driver works on one turn the log's
//! thread syncs the write of another, the tasks of the peers encode, and the apply thread applies.
//!
//! What is overloaded says so at the door ([`NotApplied::Busy`]); nothing is buffered without a
//! limit, nobody waits for a slow peer, and every caller gets an answer, also when the node stops.
//!
//! # What an answer means
//!
//! - `Ok`: the command is durable on a majority, and applied here or at the leader.
//! - [`ProposeError::NotApplied`]: it never was and never will be applied. Try again as you like.
//! - [`ProposeError::Unknown`]: it may have been, or may yet be. Nobody can know, so this crate
//!   never sends anything again that may have reached a log; try again only what may happen twice.
//!
//! # Where to read
//!
//! | file | what it is |
//! |---|---|
//! | `driver.rs` | the loop: begin here |
//! | `inbox.rs`, `queue.rs` | what the driver is told, and the limits |
//! | `pending.rs` | who waits for what |
//! | `full_disk.rs` | what a node does without room |
//! | `apply.rs` | the thread that owns the state machine |
//! | `snapshots.rs` | cutting snapshots, reading them for others, storing what arrives |
//! | `orders.rs`, `orders/` | what operators want: members, leadership, snapshots; the way to the leader |
//! | `requests.rs`, `handle.rs` | from a caller to whoever can answer |
//! | `status.rs`, `events.rs`, `meters.rs` | what the node tells about itself |
//! | `address_book.rs` | where the members are |
//! | `peer.rs`, `forward.rs`, `connect.rs` | calling other nodes: messages, proposals |
//! | `listener.rs`, `service.rs`, `handshake.rs` | being called by them |
//! | `security.rs`, `transport.rs` | TLS: who is who, and the connections |
//! | `convert.rs`, `proto/raft.proto` | the wire |
//! | `node.rs` | start and end |
//! | `local.rs` | a cluster in one process |
//!
//! # Who is there
//!
//! With [`PeerSecurity::Tls`] nodes speak TLS 1.3 only, and each proves who it is with a certificate that
//! [names](TlsFiles::node_name) its cluster and its id. Without it they believe each other's words, so a node
//! listens only where nobody but this machine can reach it, unless [`PeerSecurity::Plaintext`] is asked for.

mod address_book;
mod apply;
mod config;
mod connect;
mod convert;
mod driver;
mod error;
mod events;
mod forward;
mod full_disk;
pub mod guide;
mod handle;
mod handshake;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod hostile;
mod inbox;
mod listener;
mod local;
mod meters;
mod node;
mod orders;
mod peer;
mod pending;
mod queue;
mod requests;
mod security;
mod service;
mod snapshots;
mod state_machine;
mod status;
mod throttle;
mod transport;
mod wire;

pub use config::{ConfigError, NodeConfig};
pub use error::{Fatal, NotApplied, ProposeError, ReadError, StartError, Unknown};
pub use events::{Events, NodeEvent};
pub use handle::{Applied, Consistency, RaftHandle, ReadGuard};
pub use local::LocalCluster;
pub use node::{NodeTask, start, start_on};
pub use orders::{Lag, OrderError};
pub use raft_core::{
    ChangeRefusal, Event, LogIndex, LogPosition, Membership, NodeId, PeerStatus, RoleKind,
    SnapshotId, Status, Term, Timestamp, TransferRefusal,
};
pub use raft_wal::{Space, WalStats};
pub use security::{PeerSecurity, TlsError, TlsFiles};
pub use state_machine::{AppliedEntry, Capture, RESPONSE_BYTES_MAX, RestoreError, StateMachine};
pub use status::{LogStatus, NodeStatus, PeerLink, QueueDepths};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
