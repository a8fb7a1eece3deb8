//! Opening a directory: whose it is, what its segments and snapshots say, whether all of it is there,
//! and what is done if not.

use std::io;
use std::sync::Arc;

use raft_core::{LogPosition, Restored, Snapshot};

use crate::config::WalConfig;
use crate::disk::{Disk, Guarded, remove, sync_directory};
use crate::error::{DiskError, OpenError};
use crate::identity::{IDENTITY_FILE, Stored, remove_temporary_files};
use crate::log::{Log, OpenedLog};
use crate::snapshots::{SnapshotFiles, SnapshotStore};

pub(crate) mod findings;
pub(crate) mod plan;
pub(crate) mod replay;
pub(crate) mod scan;
mod together;

use plan::Plan;
use scan::{BROKEN_SUFFIX, segment_files};

/// A place that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file} at offset {offset}: {what}")]
pub struct Damage {
    /// The file in the directory.
    pub file: String,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

/// What recovery read, and what it found torn or damaged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Segments read.
    pub segments: u64,
    /// Their bytes, unused room included.
    pub bytes: u64,
    /// Entries in the log now.
    pub entries: u64,
    /// Bytes of the torn write at the end that was dropped; 0 if the end was clean. Nothing of it
    /// had been acknowledged.
    pub torn_bytes: u64,
    /// Was one of the two copies of the identity damaged? It was written anew.
    pub identity_repaired: bool,
    /// So many segments have only one intact copy of their header. Nothing is lost by that.
    pub header_copies_damaged: u64,
    /// So many snapshots were damaged, and put aside.
    pub snapshots_damaged: u64,
    /// What was damaged in the log, if anything that is still needed was.
    pub damage: Option<Damage>,
    /// Were entries lost that this node may have acknowledged? Then it comes back limping: it keeps
    /// its vote, but neither campaigns nor helps a node that has less than it had, until a leader has
    /// filled it up again ([`Restored::lost`]).
    pub limping: bool,
    /// Was the directory new?
    pub created: bool,
}

impl RecoveryReport {
    /// Adds what a plan does not know by itself, or only at its end.
    pub(crate) fn conclude(&mut self, restored: &Restored, identity_intact: bool) {
        self.identity_repaired = !identity_intact;
        self.entries = restored.entries.len() as u64;
    }
}

/// See [`Log::open`].
pub(crate) fn open(disk: Arc<dyn Disk>, config: &WalConfig) -> Result<OpenedLog, OpenError> {
    let disk: Arc<dyn Disk> = Arc::new(Guarded::new(disk));
    let names = disk.list().map_err(DiskError::of("list", &config.dir.display().to_string()))?;
    let (stored, intact) = identify(disk.as_ref(), config, &names)?;
    let directory = stored.identity.incarnation;
    let plan = plan::plan(disk.as_ref(), config, &stored, &names)?;
    let Plan {
        restored, log, held, unsure, may_stay, mut obsolete, mut broken, mut report, ..
    } = plan;
    if !stored.established {
        // It is new, or its name may never have become durable; segments must not outlive it.
        stored.store(disk.as_ref())?;
    }
    let snapshots = SnapshotStore::new(Arc::clone(&disk), directory, held);
    if let Some(snapshot) = unsure
        && !make_certain(&snapshots, &snapshot, may_stay.is_some())?
    {
        let stays = may_stay.unwrap_or_default();
        obsolete.retain(|name| !stays.contains(name));
        broken.retain(|name| !stays.contains(name));
    }
    let log = Log::start(disk, config, log, snapshots)?;
    clear_away(log.disk(), &names, &obsolete, &broken)?;
    let identity = stored.identity.clone();
    if !stored.established || !intact {
        // From here on there is a segment, and its absence is noticed.
        Stored { established: true, ..stored }.store(log.disk())?;
    }
    report.conclude(&restored, intact);
    tell(config, &restored, &report);
    Ok(OpenedLog { log, restored, identity, report })
}

/// Writes a snapshot again, on which more is about to rely. False if there is no room for it, and nothing need rely
/// on it.
fn make_certain(
    snapshots: &SnapshotStore,
    snapshot: &Snapshot,
    may_stay: bool,
) -> Result<bool, OpenError> {
    match snapshots.write_again(snapshot) {
        Ok(true) => Ok(true),
        Ok(false) => {
            let changed = io::ErrorKind::InvalidData.into();
            Err(DiskError::of("read again", "a snapshot")(changed).into())
        }
        Err(error) if may_stay && error.is_no_space() => {
            tracing::warn!(
                "no room to put damaged and old files aside; they stay until the next start"
            );
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

fn tell(config: &WalConfig, restored: &Restored, report: &RecoveryReport) {
    tracing::info!(dir = %config.dir.display(), ?report, "opened the log");
    if report.torn_bytes > 0 {
        tracing::warn!(bytes = report.torn_bytes, "dropped a torn write, never acknowledged");
    }
    // Nothing is lost by these, but something that was written has changed.
    if report.identity_repaired {
        tracing::warn!("one of the two copies of IDENTITY was damaged, and was written again");
    }
    if report.header_copies_damaged > 0 {
        let segments = report.header_copies_damaged;
        tracing::warn!(segments, "one of the two copies of the header of a segment was damaged");
    }
    if let Some(damage) = &report.damage {
        let lost = restored.lost;
        if report.limping && lost != LogPosition::ZERO {
            tracing::error!(%damage, %lost, "the log was damaged: this node votes with care and \
                leads nobody until it has been filled up again");
        } else {
            tracing::error!(%damage, "the log was damaged, and put right");
        }
    }
}

/// Whose directory it is: as stored, or new if it is empty; and whether what was stored is intact.
fn identify(
    disk: &dyn Disk,
    config: &WalConfig,
    names: &[String],
) -> Result<(Stored, bool), OpenError> {
    if let Some((stored, intact)) = find_owner(disk, names)? {
        stored.check_owner(config)?;
        remove_temporary_files(disk, names)?;
        return Ok((stored, intact));
    }
    remove_temporary_files(disk, names)?;
    Ok((Stored::draw(disk, config)?, true))
}

/// Whose directory it says it is, and whether that is intact; `None` if there is no log in it.
pub(crate) fn find_owner(
    disk: &dyn Disk,
    names: &[String],
) -> Result<Option<(Stored, bool)>, OpenError> {
    let files = segment_files(names)?;
    if names.iter().any(|name| name == IDENTITY_FILE) {
        return Stored::load(disk).map(Some);
    }
    if !files.is_empty() || !SnapshotFiles::among(names).is_empty() {
        let what = "it is missing, and there are segments or snapshots that belong to somebody";
        return Err(OpenError::corrupt(IDENTITY_FILE, 0, what));
    }
    Ok(None)
}

/// Removes what means nothing any more, and puts aside what is damaged; of that, one generation is kept.
fn clear_away(
    disk: &dyn Disk,
    names: &[String],
    obsolete: &[String],
    broken: &[String],
) -> Result<(), DiskError> {
    if obsolete.is_empty() && broken.is_empty() {
        return Ok(());
    }
    if !broken.is_empty() {
        for old in names.iter().filter(|name| is_put_aside(name)) {
            remove(disk, old)?;
        }
    }
    for name in obsolete {
        remove(disk, name)?;
    }
    for name in broken {
        let aside = format!("{name}{BROKEN_SUFFIX}");
        disk.rename(name, &aside).map_err(DiskError::of("rename", name))?;
    }
    sync_directory(disk)
}

/// Is this the name of a damaged file that an earlier start has put aside?
pub(crate) fn is_put_aside(name: &str) -> bool {
    let known = name.starts_with("segment-") || name.starts_with("snapshot-");
    known && name.ends_with(BROKEN_SUFFIX)
}
