//! Syncs that fail: the log ends at once and says so once, nothing is acknowledged and no file
//! synced after it, and the next start recovers.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use raft_wal::{FileDisk, Log};

use super::child::{Plan, Running, Said, prefix};
use super::order::CALLS;
use super::strace::{self, Call};
use crate::scratch;
use crate::support::{Twin, twin_of};

/// The first, …, last sync of each thread that fails; a run has some hundred of the first kind.
const FDATASYNCS: [u64; 10] = [1, 2, 3, 4, 5, 8, 13, 21, 34, 55];
const FSYNCS: [u64; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

pub(crate) fn run() {
    let (mut failures, mut refusals) = (0, 0);
    let cases = FDATASYNCS.map(|number| ("fdatasync", number)).into_iter();
    for (call, number) in cases.chain(FSYNCS.map(|number| ("fsync", number))) {
        let dir = scratch("sync_errors");
        let log = dir.join("log");
        let plan =
            Plan { dir: log, seed: number, segment_bytes: 16 << 10, burst_max: 4, writes: 200 };
        let inject = format!("inject={call}:error=EIO:when={number}");
        let trace = dir.join("trace");
        let strace = strace::command(&trace, &format!("write,{CALLS}"), &["-e", &inject]);
        let said = Running::start(&plan, &strace).finish();
        let calls = strace::parse(&fs::read_to_string(&trace).unwrap());
        let context = format!("{inject}: {said:?}; see {}", trace.display());
        check(&calls, &said, &context);
        failures += said.failed.len();
        refusals += usize::from(said.refused.is_some());

        let disk = Arc::new(FileDisk::open(&plan.dir).unwrap());
        let restored = Log::open(disk, &plan.config()).expect(&context).restored;
        prefix(plan.seed, &Twin::default(), &said, &twin_of(&restored)).expect(&context);
        fs::remove_dir_all(&dir).unwrap();
    }
    eprintln!("{failures} logs failed, {refusals} were not opened");
    assert!(failures > 5 && refusals > 2, "{failures} failures, {refusals} refusals");
}

fn check(calls: &[Call], said: &Said, context: &str) {
    let injected: Vec<&Call> = calls.iter().filter(|call| call.injected).collect();
    assert!(!injected.is_empty(), "no sync failed: {context}");
    for failed in &injected {
        // By name, which is enough: what was not synced is not renamed.
        let again = calls.iter().find(|call| {
            call.name.ends_with("sync") && call.began > failed.ended && call.file() == failed.file()
        });
        assert_eq!(again, None, "synced again: {context}");
    }
    // The log does without a segment that could not be prepared in the background.
    let fatal = injected.iter().find(|call| !is_spare(call.file()));
    match fatal {
        Some(fatal) => {
            let acknowledged = calls.iter().find(|call| {
                call.name == "write" && call.began > fatal.ended && call.text().starts_with("ack")
            });
            assert_eq!(acknowledged, None, "acknowledged after a failure: {context}");
            let told = said.failed.len() + usize::from(said.refused.is_some());
            assert_eq!(told, 1, "told once: {context}");
            assert!(!said.done, "{context}");
        }
        None => assert!(said.failed.len() <= 1, "{context}"),
    }
    for line in said.failed.iter().chain(&said.refused) {
        assert!(line.contains("cannot ") && line.contains("(os error 5)"), "{context}");
    }
}

fn is_spare(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "tmp")
}
