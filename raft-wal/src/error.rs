//! What can go wrong, each with what to do about it.

use std::io;
use std::path::PathBuf;

use raft_core::NodeId;

use crate::format::FORMAT_VERSION;

/// An operation on a file that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {file}: {source}")]
pub(crate) struct DiskError {
    doing: &'static str,
    file: String,
    source: io::Error,
}

impl DiskError {
    /// Is the disk merely full?
    pub(crate) fn is_full(&self) -> bool {
        is_full(&self.source)
    }

    /// Completes an error of the operating system with what was being done to which file.
    pub(crate) fn of(doing: &'static str, file: &str) -> impl FnOnce(io::Error) -> Self + use<> {
        let file = file.to_owned();
        move |source| Self { doing, file, source }
    }
}

/// Why a log takes no more writes. Whatever was not acknowledged before may be on disk or not.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalError {
    /// The disk failed. Nothing is tried again: after a failed sync the system forgets what it
    /// could not write and reports success the next time. End the process; recovery reads what is
    /// there.
    #[error(
        "the log's disk failed, end this process and check the disk: cannot {doing} {file}: \
         {source}"
    )]
    Disk {
        /// What was being done.
        doing: &'static str,
        /// To which file of the directory.
        file: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// There is no room for the next segment, or for a snapshot. Nothing was changed and nothing is
    /// lost: the log goes on when there is room again.
    #[error("the log's disk is full: make room, then it goes on by itself: cannot {doing} {file}")]
    NoSpace {
        /// What was being done.
        doing: &'static str,
        /// To which file of the directory.
        file: String,
    },
    /// A write does not continue the log: a bug in whoever handed it out, not a fault of the disk.
    /// Nothing of it was written.
    #[error("a write was refused, this is a bug in its producer: {reason}")]
    Refused {
        /// The rule that it breaks.
        reason: String,
    },
    /// The log failed before, and told why then.
    #[error("the log failed earlier and takes no more writes; restart the process")]
    Poisoned,
    /// The writer thread panicked; its panic message says why.
    #[error("the log's writer thread panicked; restart the process")]
    WriterPanicked,
}

impl From<DiskError> for WalError {
    fn from(error: DiskError) -> Self {
        let DiskError { doing, file, source } = error;
        Self::Disk { doing, file, source }
    }
}

/// Why a directory could not be opened. Nothing in it was changed, except that leftover temporary
/// files of an earlier run may be gone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process, or another part of this one, has it open.
    #[error(
        "the log directory {} is in use: stop the process that has it open (a node, or somebody who looks \
         into it), or give this node a directory of its own", dir.display()
    )]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// It belongs to another node, or to a node of another cluster.
    #[error(
        "the log directory {} belongs to {found_node} of the cluster {found_cluster:?}, not to \
         {node} of {cluster:?}: correct the configuration, or choose another directory",
        dir.display()
    )]
    ForeignDirectory {
        /// The directory.
        dir: PathBuf,
        /// The cluster in its identity.
        found_cluster: String,
        /// The node in its identity.
        found_node: NodeId,
        /// The cluster in the configuration.
        cluster: String,
        /// The node in the configuration.
        node: NodeId,
    },
    /// Something that was durable is damaged or missing. To go on without it could break promises
    /// that this node made to others, so it does not.
    #[error("the log is corrupt: {file} at offset {offset}: {what}; {advice}")]
    Corrupt {
        /// The file in the directory.
        file: String,
        /// Where in the file, in bytes.
        offset: u64,
        /// What is wrong.
        what: String,
        /// What to do.
        advice: &'static str,
    },
    /// It was written by another version of this library.
    #[error(
        "{file} has the format version {found}, this program reads version {FORMAT_VERSION}: start \
         the program version that wrote it, or see the upgrade notes"
    )]
    UnsupportedVersion {
        /// The file in the directory.
        file: String,
        /// The version that it says it has.
        found: u32,
    },
    /// The disk failed, or the directory cannot be used (permissions, space, no directory).
    #[error("cannot {doing} {file}: {source}; {}", what_to_do_about(source))]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        file: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The configuration makes no sense; nothing was touched.
    #[error("log configuration: {reason}")]
    BadConfig {
        /// What to change.
        reason: String,
    },
}

/// How an [`OpenError`] is to be taken by whoever runs the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenErrorKind {
    /// Refused for safety: somebody has to look. Starting again changes nothing.
    SafetyRefusal,
    /// The disk or the system failed.
    DiskFailure,
    /// The configuration has to be corrected.
    Misconfigured,
}

impl OpenError {
    /// How to take it: a refusal for safety, a disk failure or a wrong configuration.
    #[must_use]
    pub fn kind(&self) -> OpenErrorKind {
        match self {
            Self::Locked { .. }
            | Self::ForeignDirectory { .. }
            | Self::Corrupt { .. }
            | Self::UnsupportedVersion { .. } => OpenErrorKind::SafetyRefusal,
            Self::Io { .. } => OpenErrorKind::DiskFailure,
            Self::BadConfig { .. } => OpenErrorKind::Misconfigured,
        }
    }

    /// Is it a refusal for safety, as against a failure or a wrong configuration?
    #[must_use]
    pub fn is_safety_refusal(&self) -> bool {
        self.kind() == OpenErrorKind::SafetyRefusal
    }

    /// Did the disk or the system fail?
    #[must_use]
    pub fn is_disk_failure(&self) -> bool {
        self.kind() == OpenErrorKind::DiskFailure
    }

    pub(crate) fn corrupt(file: &str, offset: u64, what: impl Into<String>) -> Self {
        Self::Corrupt { file: file.to_owned(), offset, what: what.into(), advice: REJOIN }
    }

    /// A file that may be a segment, under a name that none has.
    pub(crate) fn misnamed(file: &str) -> Self {
        let what = "no segment has such a name".to_owned();
        Self::Corrupt { file: file.to_owned(), offset: 0, what, advice: RENAME }
    }

    pub(crate) fn nobody_to_ask(file: &str, offset: u64, what: impl Into<String>) -> Self {
        Self::Corrupt { file: file.to_owned(), offset, what: what.into(), advice: ACCEPT_LOSS }
    }
}

impl WalError {
    /// An error of something that takes new room, and leaves the log as it was if there is none.
    pub(crate) fn of_new_file(error: DiskError) -> Self {
        if error.is_full() {
            let DiskError { doing, file, source: _ } = error;
            return Self::NoSpace { doing, file };
        }
        error.into()
    }

    /// Was there merely no room? Then the log is as it was, and the same may be tried again.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::NoSpace { .. })
    }
}

fn what_to_do_about(error: &io::Error) -> &'static str {
    if is_full(error) {
        "make room: a start writes the last segment again, and needs room for one more"
    } else {
        "check the disk and the permissions"
    }
}

/// Is the disk merely full?
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

const REJOIN: &str = "do not edit or delete files here, and keep a copy of the directory; if a file \
                      was moved or renamed, put it back; else leave this node stopped, the others \
                      go on as long as they are a majority, until it is removed from the cluster \
                      and added again with a new number and an empty directory";

const RENAME: &str = "if it is a segment that was renamed, give it back its name; if it was never part of \
                      the log, move it out of the directory";

const ACCEPT_LOSS: &str = "this node is the only voter, so nobody else has what is lost: restore the \
                           directory from a backup, or start once with --accept-data-loss to go on \
                           with what is before the damage (the damaged files, and what is whole behind \
                           them, are kept aside)";

impl From<DiskError> for OpenError {
    fn from(error: DiskError) -> Self {
        let DiskError { doing, file, source } = error;
        Self::Io { doing, file, source }
    }
}

impl From<WalError> for OpenError {
    fn from(error: WalError) -> Self {
        match error {
            WalError::Disk { doing, file, source } => Self::Io { doing, file, source },
            other => Self::Io {
                doing: "write",
                file: "the log".to_owned(),
                source: io::Error::other(other),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_one_that_failed() {
        let told = |kind: io::ErrorKind| {
            OpenError::from(DiskError::of("write", "spare-0.tmp")(kind.into())).to_string()
        };
        let full = told(io::ErrorKind::StorageFull);
        assert!(full.contains("make room") && !full.contains("permissions"), "{full}");
        let denied = told(io::ErrorKind::PermissionDenied);
        assert!(denied.contains("permissions") && !denied.contains("make room"), "{denied}");
    }
}
