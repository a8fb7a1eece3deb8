//! Looking into a directory without touching it: what is in it, where it is damaged, and what
//! [`Log::open`](crate::Log::open) would do with it.
//!
//! Nothing is written, renamed, removed or created, whatever the directory holds: the disk that is
//! handed to the code below refuses to. What a start would do is decided by the code that a start runs,
//! so that the two cannot disagree.
//!
//! ```no_run
//! use raft_wal::inspect::{Inspector, Start};
//!
//! # fn main() -> Result<(), raft_wal::OpenError> {
//! let inspection = Inspector::open("/var/lib/board/n1")?.inspect()?;
//! for damage in &inspection.damages {
//!     println!("{damage}");
//! }
//! match inspection.start {
//!     Start::Begin => println!("there is no log here"),
//!     Start::Open(opening) if opening.report.limping => println!("lost: up to {}", opening.lost),
//!     Start::Open(opening) => println!("the log goes up to {}", opening.last),
//!     Start::Refuse(error) => println!("{error}"),
//!     _ => {}
//! }
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::Arc;

use raft_core::{Membership, NodeId};

use crate::config::WalConfig;
use crate::disk::{Disk, NamedFile};
use crate::error::{DiskError, OpenError};
use crate::file_disk::{FileDisk, LOCK_FILE};
use crate::identity::{IDENTITY_FILE, Identity, Stored, is_temporary};
use crate::recovery::findings::Findings;
use crate::recovery::plan;
use crate::recovery::scan::{Scan, SegmentFile, segment_files, take_replaced};
use crate::recovery::{find_owner, is_put_aside};
use crate::snapshots::{JudgedSnapshot, SnapshotFiles};

mod inspection;
mod read_only;
mod segment;

pub use crate::format::record::Record;
pub use inspection::{
    DescribedSnapshot, Fate, FileKind, FileSummary, IdentitySummary, Inspection, Opening, Start,
};
pub use segment::{LocatedRecord, SegmentContent, SegmentSummary, Segments};

use read_only::ReadOnly;
use segment::directory_of;

/// Looks into one directory.
pub struct Inspector {
    dir: PathBuf,
    disk: ReadOnly,
    accept_data_loss: bool,
}

impl Inspector {
    /// Looks into a directory of this machine. It holds a shared `flock` while it lives, so that no
    /// node starts meanwhile; of a directory without `LOCK`, such as a copy, it takes that no node runs
    /// on it.
    ///
    /// # Errors
    /// [`OpenError::Locked`] if a node runs on it: its files change while they are read.
    /// [`OpenError::Io`] if there is no such directory, or it cannot be read.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, OpenError> {
        let dir = dir.as_ref();
        Ok(Self::on(Arc::new(FileDisk::open_shared(dir)?), dir))
    }

    /// Looks into another disk, on which no log is open; `dir` only serves messages.
    pub fn on(disk: Arc<dyn Disk>, dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), disk: ReadOnly::new(disk), accept_data_loss: false }
    }

    /// Asks what a start would do that was told to accept the loss of data
    /// ([`WalConfig::accept_data_loss`]).
    #[must_use]
    pub fn accepting_data_loss(mut self) -> Self {
        self.accept_data_loss = true;
        self
    }

    /// Tells `watcher` after each read how many bytes that were, on whatever thread reads.
    #[must_use]
    pub fn watched_by(mut self, watcher: impl Fn(u64) + Send + Sync + 'static) -> Self {
        self.disk.watch(Arc::new(watcher));
        self
    }

    fn names(&self) -> Result<Vec<String>, OpenError> {
        let dir = self.dir.display().to_string();
        let mut names = self.disk.list().map_err(DiskError::of("list", &dir))?;
        names.sort_unstable();
        Ok(names)
    }

    /// How many bytes there are to be read: those of all segments and snapshots.
    ///
    /// # Errors
    /// [`OpenError::Io`] if the directory cannot be listed.
    pub fn bytes(&self) -> Result<u64, OpenError> {
        let names = self.names()?;
        let counts = |name: &&String| name.starts_with("segment-") || name.starts_with("snapshot-");
        let bytes = names.iter().filter(counts).filter_map(|name| self.length(name));
        Ok(bytes.fold(0, u64::saturating_add))
    }

    fn length(&self, name: &str) -> Option<u64> {
        NamedFile::open(&self.disk, name).and_then(|file| file.bytes()).ok()
    }

    /// What the file `IDENTITY` says; `None` if there is no log.
    ///
    /// # Errors
    /// If it is damaged or missing, or cannot be read.
    pub fn identity(&self) -> Result<Option<IdentitySummary>, OpenError> {
        let owner = find_owner(&self.disk, &self.names()?)?;
        Ok(owner.map(|(stored, intact)| IdentitySummary::of(&stored, intact)))
    }

    /// The segments one after the other, the oldest first, each read when it is asked for: as much
    /// memory as the largest one takes is enough. Files that have nearly such a name are left out.
    ///
    /// # Errors
    /// If the directory cannot be listed, or the header of a segment not be read.
    pub fn segments(&self) -> Result<Segments<'_>, OpenError> {
        let mut names = self.names()?;
        let directory = self.directory(&names);
        names.retain(|name| segment_file(name).is_some());
        let mut files = segment_files(&names)?;
        let replaced = take_replaced(&self.disk, directory, &mut files)?;
        Ok(Segments { disk: &self.disk, directory, files: files.into_iter(), replaced })
    }

    /// The snapshots, the newest first: what each says that it is, or what is wrong with that. Their
    /// content is not read.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn snapshots(&self) -> Result<Vec<DescribedSnapshot>, OpenError> {
        let names = self.names()?;
        let directory = self.directory(&names);
        let mut files = SnapshotFiles::among(&names);
        let mut snapshots = Vec::new();
        while let Some(judged) = files.next_described(&self.disk, directory)? {
            let JudgedSnapshot { name, content } = judged;
            snapshots.push(DescribedSnapshot { name, content });
        }
        Ok(snapshots)
    }

    /// Which directory the files should belong to: as the identity says, else as a segment does.
    fn directory(&self, names: &[String]) -> u128 {
        let stored = Stored::load(&self.disk).ok();
        let told = stored.map(|(stored, _)| stored.identity.incarnation).or_else(|| {
            let files = names.iter().filter_map(segment_file);
            files.map(|file| file.name).find_map(|name| directory_of(&self.disk, &name))
        });
        told.unwrap_or_default()
    }

    /// Reads everything, as a start would. It takes as much memory as that.
    ///
    /// # Errors
    /// [`OpenError::Io`] if the directory cannot be listed. Whatever else is wrong, a file that cannot
    /// be read too, stands in the result.
    pub fn inspect(&self) -> Result<Inspection, OpenError> {
        let names = self.names()?;
        let (stored, intact) = match find_owner(&self.disk, &names) {
            Ok(Some(owner)) => owner,
            Ok(None) => {
                let mut inspection = self.inspect_apart(&names, Start::Begin);
                inspection.expect_temporary_files_to_go();
                return Ok(inspection);
            }
            Err(error) => return Ok(self.inspect_apart(&names, Start::Refuse(error))),
        };
        let config = self.config(&stored);
        let findings = Findings::read(&self.disk, &config, &stored, &names);
        let mut inspection = match findings {
            Ok(Some(findings)) => self.inspect_together(&names, findings, &stored, intact),
            // No segment: all of them are missing, or the log has yet to begin.
            Ok(None) => {
                let start = match plan::create(&config, &stored, &names) {
                    Ok(plan) => Start::Open(Box::new(Opening::of(&plan, intact))),
                    Err(error) => Start::Refuse(error),
                };
                self.inspect_apart(&names, start)
            }
            Err(error) => self.inspect_apart(&names, Start::Refuse(error)),
        };
        inspection.expect_temporary_files_to_go();
        Ok(inspection)
    }

    /// What a start finds, and what it is going to do.
    fn inspect_together(
        &self,
        names: &[String],
        findings: Findings<'_>,
        stored: &Stored,
        intact: bool,
    ) -> Inspection {
        let mut kinds = BTreeMap::new();
        for name in findings.obsolete() {
            kinds.insert(name.clone(), FileKind::Replaced);
        }
        for scan in findings.scans() {
            kinds.insert(scan.file.name.clone(), FileKind::Segment(SegmentSummary::of(scan)));
        }
        for judged in findings.judged() {
            kinds.insert(judged.name.clone(), FileKind::Snapshot(judged.content.clone()));
        }
        kinds.insert(IDENTITY_FILE.to_owned(), FileKind::Identity(copies(intact)));
        let mut damages = findings.damages();
        let members = findings.scans().iter().rev().find_map(|scan| scan.header.as_ref());
        let members = members.map(|header| header.base.membership.clone());
        let mut inspection = Inspection {
            identity: Some(IdentitySummary::of(stored, intact)),
            members,
            files: self.files(names, kinds),
            damages: Vec::new(),
            start: Start::Begin,
        };
        inspection.start = match findings.decide() {
            Ok(plan) => {
                inspection.expect(&plan);
                damages.extend(plan.report.damage.clone().filter(|it| !damages.contains(it)));
                Start::Open(Box::new(Opening::of(&plan, intact)))
            }
            Err(error) => Start::Refuse(error),
        };
        damages.extend(inspection.damages_of_files(&damages));
        inspection.damages = damages;
        inspection
    }

    /// Judges every file by itself: a start does not get as far as to put them together.
    fn inspect_apart(&self, names: &[String], start: Start) -> Inspection {
        let directory = self.directory(names);
        let mut kinds = BTreeMap::new();
        let (mut damages, mut members) = (Vec::new(), None);
        let mut segments: Vec<_> = names.iter().filter_map(segment_file).collect();
        segments.sort_unstable_by_key(|file| file.id);
        for file in segments {
            let name = file.name.clone();
            let kind = match Scan::read(&self.disk, file, directory) {
                Ok(scan) => {
                    damages.extend(scan.fault.clone());
                    let header = scan.header.as_ref();
                    members = header.map(|header| header.base.membership.clone()).or(members);
                    FileKind::Segment(SegmentSummary::of(&scan))
                }
                Err(error) => FileKind::Unreadable(error.to_string()),
            };
            kinds.insert(name, kind);
        }
        for name in names {
            let mut alone = SnapshotFiles::among(slice::from_ref(name));
            let kind = match alone.next(&self.disk, directory) {
                Ok(None) => continue,
                Ok(Some(judged)) => FileKind::Snapshot(judged.content),
                Err(error) => FileKind::Unreadable(error.to_string()),
            };
            kinds.insert(name.clone(), kind);
        }
        let mut identity = None;
        if names.iter().any(|name| name == IDENTITY_FILE) {
            let state = match Stored::load(&self.disk) {
                Ok((stored, intact)) => {
                    identity = Some(IdentitySummary::of(&stored, intact));
                    copies(intact)
                }
                Err(OpenError::Corrupt { what, .. }) => Err(what),
                Err(error) => Err(error.to_string()),
            };
            kinds.insert(IDENTITY_FILE.to_owned(), FileKind::Identity(state));
        }
        let files = self.files(names, kinds);
        let mut inspection = Inspection { identity, members, files, damages: Vec::new(), start };
        damages.extend(inspection.damages_of_files(&damages));
        inspection.damages = damages;
        inspection
    }

    /// The configuration of a start, as far as the directory tells.
    fn config(&self, stored: &Stored) -> WalConfig {
        let Identity { cluster, node, incarnation: _ } = &stored.identity;
        WalConfig {
            accept_data_loss: self.accept_data_loss,
            ..WalConfig::new(&self.dir, cluster, *node, unknown_members())
        }
    }

    fn files(&self, names: &[String], mut kinds: BTreeMap<String, FileKind>) -> Vec<FileSummary> {
        let file = |name: &String| {
            let kind = kinds.remove(name).unwrap_or_else(|| kind_by_name(name));
            // What is not ours is not opened: it may be anything.
            let foreign = matches!(kind, FileKind::Foreign);
            let bytes = if foreign { None } else { self.length(name) };
            FileSummary { name: name.clone(), bytes, kind, fate: Fate::Stays }
        };
        names.iter().map(file).collect()
    }
}

/// Members that no cluster has: they stand where a start would take those of its configuration, which
/// nobody knows here. It looks at them only if nothing remains of a log that would tell them.
fn unknown_members() -> Membership {
    let nobody = Membership::new(NodeId::new(u64::MAX));
    nobody.unwrap_or_else(|_| unreachable!("one member makes a membership"))
}

fn segment_file(name: &String) -> Option<SegmentFile> {
    segment_files(slice::from_ref(name)).ok()?.pop()
}

fn kind_by_name(name: &str) -> FileKind {
    match name {
        LOCK_FILE => FileKind::Lock,
        _ if is_temporary(name) => FileKind::Temporary,
        _ if is_put_aside(name) => FileKind::PutAside,
        _ if segment_files(&[name.to_owned()]).is_err() => {
            FileKind::Unreadable("no segment has such a name".to_owned())
        }
        _ => FileKind::Foreign,
    }
}

fn copies(intact: bool) -> Result<(), String> {
    if intact { Ok(()) } else { Err("one of its two copies is damaged".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_their_names() {
        assert!(matches!(kind_by_name(LOCK_FILE), FileKind::Lock));
        assert!(matches!(kind_by_name("notes.txt"), FileKind::Foreign));
        assert!(matches!(kind_by_name("spare-3.tmp"), FileKind::Temporary));
        let segment = format!("segment-{:020}-{:020}", 1, 2);
        assert!(matches!(kind_by_name(&format!("{segment}.broken")), FileKind::PutAside));
        assert!(matches!(kind_by_name("segment-of-nothing"), FileKind::Unreadable(_)));
        assert!(matches!(kind_by_name("notes.broken"), FileKind::Foreign));
    }
}
