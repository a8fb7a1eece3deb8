//! Reading again what was durable long ago: damage at rest is found while there is still somebody who
//! can make it good.

use std::sync::Arc;

use raft_core::Snapshot;

use crate::disk::Disk;
use crate::format::header::Link;
use crate::recovery::Damage;
use crate::recovery::scan::{Scan, segment_files};
use crate::snapshots::SnapshotStore;

/// The order to check one file: to be [run](ScrubJob::run) on any thread.
pub struct ScrubJob {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) directory: u128,
    pub(crate) snapshots: SnapshotStore,
    pub(crate) target: Target,
}

/// What is checked.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// A sealed segment, whose data end as its successor says.
    Segment {
        name: String,
        id: u64,
        link: Link,
    },
    Snapshot(Snapshot),
}

/// What came of it: to be given to [`Log::scrubbed`](crate::Log::scrubbed).
#[derive(Debug)]
pub struct Scrubbed {
    pub(crate) target: Target,
    pub(crate) damage: Option<Damage>,
    bytes: u64,
}

impl Scrubbed {
    /// What is not as it was written, if anything.
    #[must_use]
    pub fn damage(&self) -> Option<&Damage> {
        self.damage.as_ref()
    }

    /// Bytes that were read.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl ScrubJob {
    /// Reads the file, and tells `pace` after each piece how many bytes that were: whoever runs it
    /// can wait there, so that it does not take the disk away from the log. `None` if `pace` returned
    /// false, which gives up.
    #[must_use]
    pub fn run(self, mut pace: impl FnMut(u64) -> bool) -> Option<Scrubbed> {
        let Self { disk, directory, snapshots, target } = self;
        let (mut bytes, mut wanted) = (0, true);
        let mut count = |piece| {
            bytes += piece;
            wanted = wanted && pace(piece);
            wanted
        };
        let damage = match &target {
            Target::Segment { name, id: _, link } => {
                check_segment(disk.as_ref(), directory, name, *link, &mut count)
            }
            Target::Snapshot(snapshot) => {
                let what = snapshots.verify(snapshot, &mut count);
                what.map(|what| Damage { file: snapshot.id().to_string(), offset: 0, what })
            }
        };
        wanted.then_some(Scrubbed { target, damage, bytes })
    }
}

fn check_segment(
    disk: &dyn Disk,
    directory: u128,
    name: &str,
    link: Link,
    pace: &mut dyn FnMut(u64) -> bool,
) -> Option<Damage> {
    let damage =
        |offset, what: &str| Some(Damage { file: name.to_owned(), offset, what: what.to_owned() });
    let file = segment_files(&[name.to_owned()]).ok().and_then(|mut files| files.pop());
    let scan = match file.map(|file| Scan::read(disk, file, directory)) {
        Some(Ok(scan)) => scan,
        // A sector that cannot be read is as good as damaged; so is a file that is gone, unless
        // nothing needs it, which the log knows.
        Some(Err(error)) => return damage(0, &error.to_string()),
        None => return damage(0, "no segment has such a name"),
    };
    pace(scan.bytes);
    if scan.fault.is_some() {
        return scan.fault;
    }
    if scan.copy_damaged {
        return damage(0, "one copy of its header is damaged");
    }
    if scan.link != link || scan.sealed_for.is_none() {
        return damage(scan.link.end, "its end is gone");
    }
    None
}
