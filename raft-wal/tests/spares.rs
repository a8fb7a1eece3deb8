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
use raft_wal::{Completion, Opened, SEGMENT_BYTES_MIN, Space, Wal, WalConfig};
use support::between::{Between, Meddler};
use support::{command, config};

const PATIENCE: Duration = Duration::from_secs(30);

/// The first segment that is prepared beside the log takes until it is told how that ends.
struct Slow(Mutex<Receiver<io::Result<()>>>);

impl Meddler for Slow {
    fn create(&self) -> io::Result<()> {
        if thread::current().name() != Some("wal-spare") {
            return Ok(());
        }
        // Once it is dropped, everything succeeds at once.
        self.0.lock().unwrap().recv().unwrap_or(Ok(()))
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
        let slow = Between::on(&disk, Arc::new(Slow(Mutex::new(ends))));
        let (tell, completions) = channel();
        let tell = move |completion| drop(tell.send(completion));
        // The headers alone must not be half of it.
        let config = WalConfig { segment_bytes: 4 * SEGMENT_BYTES_MIN, ..config() };
        let Opened { wal, .. } = Wal::open_on(slow, config, tell).unwrap();
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
