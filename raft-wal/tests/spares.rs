//! Segments that are prepared beside the log, too late or in vain.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use raft_core::Write;
use raft_wal::sim::SimDisk;
use raft_wal::{Completion, Disk, DiskFile, Opened, SEGMENT_BYTES_MIN, Space, Wal, WalConfig};
use support::{command, config};

const PATIENCE: Duration = Duration::from_secs(30);

/// A disk on which the first segment that is prepared beside the log takes until it is told how that
/// ends.
struct Slow {
    disk: SimDisk,
    end: Mutex<Receiver<io::Result<()>>>,
}

impl Disk for Slow {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        if thread::current().name() == Some("wal-spare") {
            // Once it is dropped, everything succeeds at once.
            self.end.lock().unwrap().recv().unwrap_or(Ok(()))?;
        }
        self.disk.create(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.disk.open(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.disk.sync_directory()
    }

    fn random(&self) -> io::Result<u64> {
        self.disk.random()
    }
}

struct Test {
    disk: SimDisk,
    end: SyncSender<io::Result<()>>,
    wal: Wal,
    completions: Receiver<Completion>,
    last: u64,
}

impl Test {
    /// A log that has just begun its second segment, while the order to prepare it is still under way.
    fn new() -> Self {
        let disk = SimDisk::new(1);
        let (end, ends) = sync_channel(1);
        let slow = Slow { disk: disk.for_this_life(), end: Mutex::new(ends) };
        let (tell, completions) = channel();
        let tell = move |completion| drop(tell.send(completion));
        // The headers alone must not be half of it.
        let config = WalConfig { segment_bytes: 4 * SEGMENT_BYTES_MIN, ..config() };
        let Opened { wal, .. } = Wal::open_on(Arc::new(slow), config, tell).unwrap();
        let mut test = Self { disk, end, wal, completions, last: 0 };
        while test.segments() < 2 {
            test.append();
        }
        test
    }

    fn append(&mut self) {
        self.last += 1;
        self.wal.submit(Write::detached(None, None, vec![command(self.last, 1, 900)]));
        let completion = self.completions.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(completion, Completion::Durable(_)), "{completion:?}");
    }

    fn segments(&self) -> usize {
        self.disk.names().iter().filter(|name| name.starts_with("segment-")).count()
    }

    fn wait_until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "waited for ever: {what}");
            thread::yield_now();
        }
    }
}

/// The log found room for itself meanwhile. Nobody writes commands while there seems to be no room, so
/// the segment does not get as full as that the next one would be prepared anyway.
#[test]
fn a_segment_that_could_not_be_prepared_in_time_is_no_lasting_shortage() {
    let test = Test::new();
    test.end.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
    test.wait_until("the shortage", |it| it.wal.space() == Space::Low);
    test.end.send(Ok(())).unwrap();
    test.wait_until("its end", |it| it.wal.space() == Space::Ample);
}

/// It serves for the next time. A second one would lie there until the next start.
#[test]
fn a_segment_that_is_prepared_too_late_is_kept_for_the_next_time() {
    let mut test = Test::new();
    // More than half of the segment, and not all of it.
    (0..20).for_each(|_| test.append());
    assert_eq!(test.segments(), 2);
    let Test { disk, end, wal, .. } = test;
    drop(end);
    wal.close().unwrap();
    let spares = disk.names().iter().filter(|name| name.starts_with("spare-")).count();
    assert_eq!(spares, 1, "{:?}", disk.names());
}
