//! The threads beside the writer: one prepares segments, one reads again what was written long ago.
//! What they find goes into the writer's queue.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::error::WalError;
use crate::scrub::{ScrubJob, Scrubbed};
use crate::spare::{Spare, SpareJob};
use crate::wal::Shared;

/// What a helper has to tell the writer.
pub(crate) enum Finding {
    /// The next segment, or why there is none.
    Spare(Result<Spare, WalError>),
    /// A file that was read again.
    Scrubbed(Scrubbed),
}

/// The two threads. Each gets one order at a time.
pub(crate) struct Helpers {
    spares: Option<SyncSender<SpareJob>>,
    scrubs: Option<SyncSender<ScrubJob>>,
    /// Dropped, it tells a scrub to give up.
    stop: Option<SyncSender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Helpers {
    pub(crate) fn start(shared: &Arc<Shared>) -> io::Result<Self> {
        let (spares, orders) = sync_channel::<SpareJob>(1);
        let to = Arc::clone(shared);
        let prepare = move || {
            for job in orders {
                to.found(Finding::Spare(job.run()));
            }
        };
        let (scrubs, orders) = sync_channel::<ScrubJob>(1);
        let (stop, stopped) = sync_channel::<()>(0);
        let stopped = Mutex::new(stopped);
        let to = Arc::clone(shared);
        let scrub = move || {
            for job in orders {
                let pace = |bytes| go_on(&stopped, bytes);
                if let Some(scrubbed) = job.run(pace) {
                    to.found(Finding::Scrubbed(scrubbed));
                }
            }
        };
        let threads = vec![
            thread::Builder::new().name("wal-spare".to_owned()).spawn(prepare)?,
            thread::Builder::new().name("wal-scrub".to_owned()).spawn(scrub)?,
        ];
        Ok(Self { spares: Some(spares), scrubs: Some(scrubs), stop: Some(stop), threads })
    }

    /// Orders a segment to be prepared.
    pub(crate) fn prepare(&self, job: SpareJob) {
        if let Some(spares) = &self.spares {
            // The log gives one order at a time, so there is a place for it.
            drop(spares.try_send(job));
        }
    }

    /// Orders a file to be read again; false if the last one is not done.
    pub(crate) fn scrub(&self, job: ScrubJob) -> bool {
        self.scrubs.as_ref().is_some_and(|scrubs| scrubs.try_send(job).is_ok())
    }

    pub(crate) fn stop(&mut self) {
        self.spares = None;
        self.scrubs = None;
        self.stop = None;
        for thread in self.threads.drain(..) {
            // It panics only by a bug, and its message is out; the log does not depend on it.
            drop(thread.join());
        }
    }
}

/// Waits as long as reading so many bytes may take; false if it is over.
fn go_on(stopped: &Mutex<Receiver<()>>, bytes: u64) -> bool {
    let stopped = stopped.lock().unwrap_or_else(PoisonError::into_inner);
    stopped.recv_timeout(pause_behind(bytes)) == Err(RecvTimeoutError::Timeout)
}

fn pause_behind(bytes: u64) -> Duration {
    Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / SCRUB_BYTES_PER_SECOND)
}

/// Slow enough not to be felt: a segment takes two seconds.
const SCRUB_BYTES_PER_SECOND: u64 = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrub_goes_on_in_its_pace_and_stops_when_it_is_told_to() {
        assert_eq!(pause_behind(8 << 20), Duration::from_secs(1));
        assert_eq!(pause_behind(16 << 20), Duration::from_secs(2));
        assert_eq!(pause_behind(1 << 20), Duration::from_millis(125));
        let (stop, stopped) = sync_channel(0);
        let stopped = Mutex::new(stopped);
        assert!(go_on(&stopped, 1));
        drop(stop);
        // It would be years.
        assert!(!go_on(&stopped, 1 << 50));
    }
}
