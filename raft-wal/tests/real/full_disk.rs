//! A file system that fills up: votes still find room, entries wait and go on by themselves when
//! there is room again, and nothing that was acknowledged is lost, whatever happens meanwhile.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use raft_core::{HardState, Term, Write};
use raft_wal::{Completion, FileDisk, Log, OpenError, Opened, Space, Wal, WalConfig};

use super::child::config_in;
use super::loop_device::FileSystem;
use crate::scratch;
use crate::support::{Twin, command, node, twin_of};

const FILE_SYSTEM_BYTES: u64 = 16 << 20;
const SEGMENT_BYTES: u64 = 64 << 10;
/// An entry takes no more room than a vote: a sector. So where one finds none there is none for the
/// other, except what is kept free for it.
const ENTRY_BYTES: usize = 100;
const PATIENCE: Duration = Duration::from_secs(60);
/// How often is looked whether a write waits for room.
const POLL: Duration = Duration::from_millis(5);

pub(crate) fn run() {
    let dir = scratch("full_disk");
    let mut file_system = FileSystem::create(&dir, FILE_SYSTEM_BYTES);
    let mounted = file_system.mount().to_owned();
    let config = WalConfig { segment_bytes: SEGMENT_BYTES, ..config_in(&mounted.join("log")) };
    let filler = mounted.join("filler");

    let mut node = Node::start(&config);
    for _ in 0..2 {
        fill(&filler);
        let waiting = node.write_until_one_waits();
        assert_eq!(node.wal.space(), Space::Low);
        fs::remove_file(&filler).unwrap();
        // By itself: nothing else is done to the log.
        node.wait_for(waiting);
        assert_eq!(node.wal.space(), Space::Ample);
        // And on over some segments.
        (0..200).for_each(|_| node.write_and_wait());
    }
    // It need not start on a full disk, if it says so and loses nothing.
    fill(&filler);
    node.write_until_one_waits();
    let acknowledged = node.stop();
    match Log::open(Arc::new(FileDisk::open(&config.dir).unwrap()), &config) {
        Ok(opened) => assert!(twin_of(&opened.restored) == acknowledged),
        Err(OpenError::Io { source, .. }) => assert_eq!(source.kind(), ErrorKind::StorageFull),
        Err(error) => panic!("{error}"),
    }
    fs::remove_file(&filler).unwrap();
    let mut node = Node::start(&config);
    assert!(node.twin == acknowledged, "what was acknowledged before the disk was full is there");

    // The power goes while the disk is full and a write waits.
    fill(&filler);
    node.write_until_one_waits();
    file_system.switch().cut();
    let acknowledged = node.stop();
    file_system.unmount();
    file_system.mount();
    // It was never synced, so the cut may have taken it away.
    let _ = fs::remove_file(&filler);
    let node = Node::start(&config);
    assert!(node.twin == acknowledged, "a write that waits for room is not there, all else is");
    drop(node);
    file_system.unmount();
    fs::remove_dir_all(&dir).unwrap();
}

/// Takes all room that there is.
fn fill(filler: &Path) {
    let mut file = File::create(filler).unwrap();
    for bytes in [1 << 20, 64 << 10, 1 << 10] {
        let zeros = vec![0; bytes];
        let error = loop {
            // Room is only taken for certain when it is synced.
            if let Err(error) = file.write_all(&zeros).and_then(|()| file.sync_data()) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::StorageFull);
    }
}

/// A log, and who writes to it.
struct Node {
    wal: Wal,
    completions: Receiver<Completion>,
    /// With all that was submitted.
    twin: Twin,
    submitted: u64,
    acknowledged: u64,
}

impl Node {
    fn start(config: &WalConfig) -> Self {
        let (tell, completions) = channel();
        let on_completion = move |completion| drop::<Result<_, _>>(tell.send(completion));
        let opened = Wal::open(config.clone(), on_completion).unwrap();
        let Opened { wal, restored, report, .. } = opened;
        assert!(report.damage.is_none(), "{report:?}");
        Self { wal, completions, twin: twin_of(&restored), submitted: 0, acknowledged: 0 }
    }

    /// A vote in a new term, then an entry of that term, at once.
    fn submit_vote_and_entry(&mut self) {
        let term = self.twin.hard_state.term.0 + 1;
        let state = HardState { term: Term(term), voted_for: Some(node(2)) };
        let entry = command(self.twin.last_index() + 1, term, ENTRY_BYTES);
        for write in [
            Write::detached(Some(state), None, Vec::new()),
            Write::detached(None, None, vec![entry]),
        ] {
            self.twin.apply(&write);
            self.submitted += 1;
            self.wal.submit(write);
        }
    }

    /// Takes in one completion; false if there is none within this time.
    fn hear(&mut self, timeout: Duration) -> bool {
        match self.completions.recv_timeout(timeout) {
            Ok(Completion::Durable(_receipt)) => self.acknowledged += 1,
            Ok(other) => panic!("a full disk is no failure: {other:?}"),
            Err(_) => return false,
        }
        true
    }

    fn wait_for(&mut self, write: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.acknowledged < write {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(self.hear(left), "{} of {write} are acknowledged", self.acknowledged);
        }
    }

    fn write_and_wait(&mut self) {
        self.submit_vote_and_entry();
        self.wait_for(self.submitted);
    }

    /// Writes votes and entries until there is no room for an entry any more. The vote before it is
    /// acknowledged all the same. Returns the number of the write that waits.
    fn write_until_one_waits(&mut self) -> u64 {
        let waits = self.wal.stats().waits_for_space;
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.submit_vote_and_entry();
            // The vote.
            self.wait_for(self.submitted - 1);
            while !self.hear(POLL) {
                if self.wal.stats().waits_for_space > waits {
                    return self.submitted;
                }
                assert!(Instant::now() < deadline, "neither acknowledged nor waiting");
            }
        }
    }

    /// Gives up the entry that waits; returns the rest.
    fn stop(self) -> Twin {
        let Self { wal, mut twin, submitted, acknowledged, .. } = self;
        assert_eq!(acknowledged + 1, submitted);
        assert!(wal.close().is_err(), "something was not done");
        twin.entries.pop();
        twin
    }
}
