//! From a trace: what was written to a log, and from when on it was durable.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::collections::BTreeMap;
use std::path::Path;

use super::strace::Call;

/// The system calls that change a log or make it durable.
pub(crate) const CALLS: &str =
    "pwrite64,pwritev,pwritev2,fdatasync,fsync,rename,renameat,renameat2";

/// A write to a segment, or the name that one was given.
#[derive(Debug)]
pub(crate) struct Change {
    /// What was done, for messages.
    pub(crate) what: String,
    /// How many bytes were written; 0 for a name.
    pub(crate) bytes: u64,
    /// When it began.
    pub(crate) began: u64,
    /// Since when it is a part of the log: a file is none before it has its name.
    pub(crate) counts_from: u64,
    /// When a sync had returned that had begun after the change was complete.
    pub(crate) durable: Option<u64>,
}

impl Change {
    /// Was it durable at this moment?
    pub(crate) fn is_durable_at(&self, moment: u64) -> bool {
        self.durable.is_some_and(|durable| durable < moment)
    }
}

/// A change, with the file that a sync has to name and the moment at which it was complete.
struct Pending {
    change: Change,
    file: usize,
    ended: u64,
}

/// Everything that was done to segments.
pub(crate) fn changes(calls: &[Call]) -> Vec<Change> {
    let mut files = Files::default();
    let mut pending: Vec<Pending> = Vec::new();
    for call in calls {
        if call.name.starts_with("pwrite") {
            let bytes = call.result.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
            let (what, file) = (format!("{} bytes to {}", bytes, call.file_name()), call.file());
            let file = files.at(file);
            pending.push(Pending::new(call, what, bytes, file));
        } else if call.name.starts_with("rename") && call.result == Some(0) {
            let (from, to) = (call.quoted(0), call.quoted(1));
            files.rename(from, to, call.began);
            if is_segment(to) {
                let directory = Path::new(to).parent().and_then(Path::to_str).unwrap_or_default();
                let file = files.at(directory);
                files.counts_from[file] = Some(0);
                pending.push(Pending::new(call, format!("the name {to}"), 0, file));
            }
        } else if matches!(call.name.as_str(), "fsync" | "fdatasync") && call.result == Some(0) {
            let file = files.at(call.file());
            let covered = pending.iter_mut().filter(|it| it.file == file && it.ended < call.began);
            for Pending { change, .. } in covered {
                // The sync that returns first counts; calls are in the order of their beginnings.
                let durable = change.durable.unwrap_or(u64::MAX);
                change.durable = Some(durable.min(call.ended));
            }
        }
    }
    let named = |Pending { change, file, .. }| {
        files.counts_from[file].map(|counts_from| Change { counts_from, ..change })
    };
    pending.into_iter().filter_map(named).collect()
}

fn is_segment(path: &str) -> bool {
    Path::new(path).file_name().is_some_and(|name| name.to_string_lossy().starts_with("segment-"))
}

impl Pending {
    fn new(call: &Call, what: String, bytes: u64, file: usize) -> Self {
        let change = Change { what, bytes, began: call.began, counts_from: 0, durable: None };
        Self { change, file, ended: call.ended }
    }
}

/// Files by the path that they have at the moment: a descriptor shows a new name after a rename.
#[derive(Default)]
struct Files {
    by_path: BTreeMap<String, usize>,
    /// Since when each file is a segment.
    counts_from: Vec<Option<u64>>,
}

impl Files {
    fn at(&mut self, path: &str) -> usize {
        if let Some(&file) = self.by_path.get(path) {
            return file;
        }
        let file = self.counts_from.len();
        self.by_path.insert(path.to_owned(), file);
        self.counts_from.push(is_segment(path).then_some(0));
        file
    }

    fn rename(&mut self, from: &str, to: &str, moment: u64) {
        let file = self.at(from);
        self.by_path.remove(from);
        self.by_path.insert(to.to_owned(), file);
        if is_segment(to) {
            self.counts_from[file] = Some(moment);
        }
    }
}
