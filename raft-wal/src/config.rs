//! Where a log lies, whose it is, and its sizes.

use std::path::PathBuf;
use std::time::Duration;

use raft_core::{Incarnation, Membership, NodeId};

use crate::error::OpenError;
use crate::format::BLOCK_BYTES;

/// Segments are at least this long, in bytes.
pub const SEGMENT_BYTES_MIN: u64 = 4 * BLOCK_BYTES as u64;
/// Segments, and single writes, are set to at most this, in bytes.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// A segment file is never longer than this: the longest write, its header and its seal.
pub(crate) const SEGMENT_FILE_BYTES_MAX: u64 = 2 * SEGMENT_BYTES_MAX;
/// The longest cluster name, in bytes.
pub const CLUSTER_BYTES_MAX: usize = 64;

/// A log's place, owner and sizes. [`WalConfig::new`] sets the sizes to sound values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalConfig {
    /// The directory: created if there is none; nothing else should live in it.
    pub dir: PathBuf,
    /// The name of the cluster, 1 to [`CLUSTER_BYTES_MAX`] bytes. A directory is bound to it.
    pub cluster: String,
    /// The node. A directory is bound to it.
    pub node: NodeId,
    /// The members that a new cluster starts with, the same on every node. Only looked at when the
    /// directory is new; later the log knows better.
    pub membership: Membership,
    /// The length of a segment, a multiple of 4096 between [`SEGMENT_BYTES_MIN`] and
    /// [`SEGMENT_BYTES_MAX`]; 16 MiB unless set. One write that needs more gets a longer one. May
    /// be changed between starts. The directory holds one segment more than the log needs.
    pub segment_bytes: u64,
    /// How many bytes of writes share one sync, a single larger write aside; 1 MiB unless set.
    /// Bounds how long the first of them waits for the others.
    pub batch_bytes: u64,
    /// How many records share one sync, a single longer write aside; 4096 unless set.
    pub batch_records: usize,
    /// The largest single write in bytes, at most [`SEGMENT_BYTES_MAX`]; 256 MiB unless set. A
    /// larger one fails the log: the limits of [`raft_core::Config`] must be chosen below it.
    pub write_bytes_max: u64,
    /// A log that was idle for so long writes a mark: an empty batch that shows that everything before
    /// it was durable, and repeats the vote. 10 ms unless set; it costs a sync.
    pub mark_after: Duration,
    /// How long after one sealed segment or snapshot was read again, and found whole or not, the next
    /// one is; a minute unless set, and zero never.
    pub scrub_interval: Duration,
    /// A node that is the only voter, and whose log is damaged, refuses to start, because nobody has
    /// what it lost. With this it starts, with what is before the damage.
    pub accept_data_loss: bool,
    /// With which incarnation a *new* directory begins, for [`Restored::incarnation`](raft_core::Restored); 0
    /// unless set. Where a node may come back under its number with a new directory, it must be higher than any
    /// that an earlier directory of it had, or the others ignore it: the seconds on the clock are.
    pub first_incarnation: Incarnation,
}

impl WalConfig {
    /// A log in `dir` for this node of this cluster, with the default sizes.
    pub fn new(
        dir: impl Into<PathBuf>,
        cluster: impl Into<String>,
        node: NodeId,
        membership: Membership,
    ) -> Self {
        Self {
            dir: dir.into(),
            cluster: cluster.into(),
            node,
            membership,
            segment_bytes: 16 << 20,
            batch_bytes: 1 << 20,
            batch_records: 4096,
            write_bytes_max: 256 << 20,
            mark_after: Duration::from_millis(10),
            scrub_interval: Duration::from_secs(60),
            accept_data_loss: false,
            first_incarnation: Incarnation::default(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let bad = |reason: String| Err(OpenError::BadConfig { reason });
        if self.cluster.is_empty() || self.cluster.len() > CLUSTER_BYTES_MAX {
            let bytes = self.cluster.len();
            return bad(format!(
                "the cluster name has {bytes} bytes, it needs 1 to {CLUSTER_BYTES_MAX}"
            ));
        }
        let range = SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX;
        let segment_bytes = self.segment_bytes;
        if !range.contains(&segment_bytes) || !segment_bytes.is_multiple_of(BLOCK_BYTES as u64) {
            return bad(format!(
                "segment_bytes is {segment_bytes}, it must be a multiple of {BLOCK_BYTES} from \
                 {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}"
            ));
        }
        if self.batch_bytes == 0 || self.batch_records == 0 {
            return bad("batch_bytes and batch_records must be at least 1".to_owned());
        }
        if self.write_bytes_max < self.batch_bytes || self.write_bytes_max > SEGMENT_BYTES_MAX {
            let write_bytes_max = self.write_bytes_max;
            return bad(format!(
                "write_bytes_max is {write_bytes_max}, it must be from batch_bytes to \
                 {SEGMENT_BYTES_MAX}"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused_before_anything_is_touched() {
        let node = NodeId::new(1).unwrap();
        let sound = WalConfig::new("d", "c", node, Membership::new([node]).unwrap());
        sound.check().unwrap();
        let changed = |change: fn(&mut WalConfig)| {
            let mut config = sound.clone();
            change(&mut config);
            config
        };
        for bad in [
            changed(|c| c.cluster.clear()),
            changed(|c| c.cluster = "x".repeat(65)),
            changed(|c| c.segment_bytes = SEGMENT_BYTES_MIN - 4096),
            changed(|c| c.segment_bytes += 1),
            changed(|c| c.segment_bytes = SEGMENT_BYTES_MAX + 4096),
            changed(|c| c.batch_bytes = 0),
            changed(|c| c.batch_records = 0),
            changed(|c| c.write_bytes_max = 1),
            changed(|c| c.write_bytes_max = u64::MAX),
        ] {
            assert!(matches!(bad.check(), Err(OpenError::BadConfig { .. })), "{bad:?}");
        }
        for just_right in [
            changed(|c| c.cluster = "x".repeat(CLUSTER_BYTES_MAX)),
            changed(|c| c.segment_bytes = SEGMENT_BYTES_MIN),
            changed(|c| c.segment_bytes = SEGMENT_BYTES_MAX),
            changed(|c| (c.batch_bytes, c.batch_records) = (1, 1)),
            changed(|c| c.write_bytes_max = c.batch_bytes),
            changed(|c| c.write_bytes_max = SEGMENT_BYTES_MAX),
        ] {
            just_right.check().unwrap();
        }
    }
}
