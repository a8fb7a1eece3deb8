//! Every way in which something can go wrong, and what it means for whoever asked.

use std::net::SocketAddr;

use raft_core::LogPosition;
use raft_wal::WalError;

use crate::config::ConfigError;
use crate::security::TlsError;
use crate::state_machine::RestoreError;

/// Why a command has no result. The two halves differ in what the caller may do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// The command has certainly not been applied and never will be: a retry is safe.
    #[error("not applied: {0}")]
    NotApplied(#[from] NotApplied),
    /// The command may have been applied, or may yet be: retry only if it is idempotent.
    #[error("outcome unknown: {0}")]
    Unknown(#[from] Unknown),
}

impl ProposeError {
    /// May the same command be proposed again without a chance that it is applied twice? Whether that is of
    /// any use the error says: [`NotApplied::TooLarge`] stays too large.
    #[must_use]
    pub fn is_retry_safe(&self) -> bool {
        matches!(self, Self::NotApplied(_))
    }
}

/// Why a command was certainly not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotApplied {
    /// No leader was known until the time was up. A majority of the nodes may be down.
    #[error("no leader was found in time; check that a majority of the nodes is running")]
    NoLeader,
    /// A queue on the way is full. Try again later, with fewer at a time.
    #[error("the cluster is overloaded; try again later")]
    Busy,
    /// The disk of the leader is full, and no other node could take over. Reads go on; so do writes,
    /// by themselves, when there is room.
    #[error("the disk of the leader's log is full; make room there, then writes go on")]
    DiskFull,
    /// The leader that took the command lost its leadership, and other commands were chosen
    /// instead.
    #[error("the leader changed and the command was dropped; try again")]
    Superseded,
    /// The command is larger than [`NodeConfig::command_bytes_max`](crate::NodeConfig).
    #[error("the command has {bytes} bytes, at most {max} are allowed")]
    TooLarge {
        /// The size of the command.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// This node is stopping.
    #[error("the node is shutting down; try another one")]
    ShuttingDown,
    /// The time was up before the command was handed to any log.
    #[error("the time was up before the command was handed to a log")]
    Timeout,
}

/// Why it is not known whether a command was applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unknown {
    /// The time was up while the command was being replicated.
    #[error("the time was up while the command was being replicated")]
    Timeout,
    /// The connection to the leader broke while the command was on its way.
    #[error("the connection to the leader broke while the command was on its way")]
    ConnectionLost,
    /// The leader lost its leadership while the command was being replicated, and cannot tell
    /// whether its successors kept it.
    #[error("the leader changed while the command was being replicated")]
    LeadershipLost,
    /// The node stopped while the command was being replicated.
    #[error("the node stopped while the command was being replicated")]
    ShuttingDown,
    /// The command **was** applied, but the state machine broke its contract: its response is
    /// larger than [`RESPONSE_BYTES_MAX`](crate::RESPONSE_BYTES_MAX).
    #[error(
        "the command was applied, but its response has {bytes} bytes, at most {max} are carried"
    )]
    ResponseTooLarge {
        /// The size of the response.
        bytes: u64,
        /// The limit.
        max: u64,
    },
}

/// Why a read was not served. A read has no effect: it is always safe to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// No leader was known until the time was up. A majority of the nodes may be down.
    #[error("no leader was found in time; check that a majority of the nodes is running")]
    NoLeader,
    /// Too many reads wait already. Try again later.
    #[error("too many reads wait already; try again later")]
    Busy,
    /// The time was up before this node was fresh enough.
    #[error("the time was up before this node was fresh enough")]
    Timeout,
    /// This node is stopping.
    #[error("the node is shutting down; try another one")]
    ShuttingDown,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting breaks a rule.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The files for TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] raft_wal::OpenError),
    /// The log was read, but is not that of a Raft node: damaged in a way that its checksums do not
    /// show.
    #[error("{0}; do not delete the data directory, find out what changed it")]
    Restored(raft_core::StartError),
    /// The snapshot in the data directory cannot be restored.
    #[error("{0}; run the version of this program that wrote it, or a newer one")]
    Snapshot(Fatal),
    /// The Raft port cannot be bound.
    #[error("cannot listen on {address}: {source}; is another node running there?")]
    Listen {
        /// Where it should have listened.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system gives out no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
}

impl From<raft_core::StartError> for StartError {
    fn from(error: raft_core::StartError) -> Self {
        match error {
            raft_core::StartError::Config(error) => Self::Config(error.into()),
            error => Self::Restored(error),
        }
    }
}

impl StartError {
    /// Was the start refused to protect data: a directory of another node or cluster, one in use,
    /// or a log that is damaged? Nothing was changed. A program should exit with code 3.
    #[must_use]
    pub fn is_safety_refusal(&self) -> bool {
        match self {
            Self::Log(error) => error.is_safety_refusal(),
            Self::Restored(_) => true,
            Self::Snapshot(why) => matches!(why, Fatal::Restore { .. }),
            Self::Config(_) | Self::Tls(_) | Self::Listen { .. } | Self::Thread(_) => false,
        }
    }

    /// Did the disk fail? A program should exit with code 4.
    #[must_use]
    pub fn is_disk_failure(&self) -> bool {
        match self {
            Self::Log(error) => error.is_disk_failure(),
            Self::Snapshot(why) => matches!(why, Fatal::Disk(_)),
            Self::Config(_)
            | Self::Tls(_)
            | Self::Restored(_)
            | Self::Listen { .. }
            | Self::Thread(_) => false,
        }
    }
}

/// Why a node stopped without being asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fatal {
    /// The log could not be written. What was acknowledged is safe, but this process must not go
    /// on: a program should exit with code 4.
    #[error(transparent)]
    Disk(#[from] WalError),
    /// The log's disk does not answer any more: the node was to stop, and could not close its log. What
    /// was acknowledged is safe. A program should exit with code 4, by
    /// [`std::process::exit`], as a thread may hang in the system for ever.
    #[error("the disk of the log does not answer; the log could not be closed")]
    DiskHangs,
    /// The state machine panicked while applying an entry. Its message is on stderr.
    #[error("the state machine panicked; so will every node that applies the same entry")]
    StateMachinePanicked,
    /// The state machine cannot restore a snapshot whose checksums are right: a bug in it, or the
    /// snapshot is of a version of it that this program does not know.
    #[error("the state machine cannot restore the snapshot as of {position}: {error}")]
    Restore {
        /// The last entry that the snapshot contains.
        position: LogPosition,
        /// What it said.
        #[source]
        error: RestoreError,
    },
    /// The system gives out no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
    /// The task that owns the node panicked: a bug in this library.
    #[error("the task that owns the node panicked: a bug, please report it")]
    Bug,
}
