//! Reading all segments, on two threads if there is much to read.
//!
//! A segment can be checked without the others; how they fit together is looked at when all are there.

use std::iter::Enumerate;
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::vec::IntoIter;

use crate::disk::Disk;
use crate::error::OpenError;
use crate::recovery::scan::{Scan, SegmentFile};

/// From segments of this length on a second thread is worth its start.
const SECOND_THREAD_FROM: u64 = 1 << 20;

/// Reads these segments.
///
/// The disk is asked for one file after the other, in their order, whichever thread asks: what a
/// disk sees does not depend on the scheduler.
///
/// # Errors
/// As [`Scan::read`], for the first segment that has one.
pub(crate) fn scan_all(
    disk: &dyn Disk,
    files: Vec<SegmentFile>,
    directory: u128,
) -> Result<Vec<Scan>, OpenError> {
    let unread = Unread { disk, directory, files: Mutex::new(Ok(files.into_iter().enumerate())) };
    let mut buffer = Vec::new();
    let mut scans = Vec::from_iter(unread.next(&mut buffer));
    let is_long = |(_, scan): &(usize, Scan)| scan.bytes >= SECOND_THREAD_FROM;
    let second = scans.first().is_some_and(is_long);
    thread::scope(|scope| {
        let all = || unread.all(Vec::new());
        let second = second.then(|| thread::Builder::new().spawn_scoped(scope, all));
        scans.append(&mut unread.all(buffer));
        // If the system gives no thread, this one has done it all.
        if let Some(Ok(second)) = second {
            scans.append(&mut second.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
    });
    let left = unread.files.into_inner().unwrap_or_else(PoisonError::into_inner)?;
    debug_assert_eq!(left.len(), 0, "the threads end when nothing is left");
    scans.sort_unstable_by_key(|&(number, _)| number);
    Ok(scans.into_iter().map(|(_, scan)| scan).collect())
}

/// What the threads share.
struct Unread<'a> {
    disk: &'a dyn Disk,
    directory: u128,
    /// The files that are left, or why no more are read.
    files: Mutex<Result<Enumerate<IntoIter<SegmentFile>>, OpenError>>,
}

impl Unread<'_> {
    /// The next segment with its number.
    fn next(&self, buffer: &mut Vec<u8>) -> Option<(usize, Scan)> {
        let (number, scan) = {
            let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            let (number, file) = files.as_mut().ok()?.next()?;
            match Scan::begin(buffer, self.disk, file, self.directory) {
                Ok(scan) => (number, scan),
                Err(error) => {
                    *files = Err(error);
                    return None;
                }
            }
        };
        Some((number, scan.complete(buffer)))
    }

    /// Segments as long as there are any.
    fn all(&self, mut buffer: Vec<u8>) -> Vec<(usize, Scan)> {
        std::iter::from_fn(|| self.next(&mut buffer)).collect()
    }
}
