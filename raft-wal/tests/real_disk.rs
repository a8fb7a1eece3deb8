//! The log on real files, under a real kernel: power cuts, syncs that fail, the order of system
//! calls.
//!
//! A child process, this very program started again, writes to a log and tells what was
//! acknowledged. What it writes to is an ext4 in a file, whose power this program cuts; or it runs
//! under `strace`, which makes its syncs fail, or writes down what it does.
//!
//! Needs Linux; the power cuts need root, loop devices and perl, the rest needs `strace`. What is
//! missing is said, and the tests that need it are skipped: see `missing`.
//!
//!     POWER_CUTS=5000 cargo test -p raft-wal --release --test real_disk power
//!                                          a campaign; 50 unless set
//!     POWER_CUTS_SEED=17 …                 the writes, sizes and moments of one run again; what
//!                                          the kernel had written by then is not in our hands

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Trial};

mod support;
mod real {
    pub(crate) mod acknowledgements;
    pub(crate) mod child;
    pub(crate) mod full_disk;
    pub(crate) mod loop_device;
    pub(crate) mod order;
    pub(crate) mod power_cuts;
    pub(crate) mod strace;
    pub(crate) mod sync_errors;
}

use real::{acknowledgements, child, full_disk, loop_device, power_cuts, strace, sync_errors};

/// Says that this program has its own mount namespace.
const IN_NAMESPACE: &str = "RAFT_WAL_TEST_IN_NAMESPACE";

/// Runs the tests; or, when a test has started this program again, the child that writes.
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, rest @ ..] = arguments.as_slice()
        && first == child::RUN_CHILD
    {
        return child::run(rest);
    }
    let no_loop = loop_device::missing();
    let no_strace = strace::missing();
    if no_loop.is_none() && std::env::var_os(IN_NAMESPACE).is_none() {
        // What is mounted in a namespace of its own is gone with the last process in it, however
        // that ends: nothing is left behind. This call only returns when it fails.
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "private", "--"]);
        let error = unshare.arg(std::env::current_exe().unwrap()).args(&arguments);
        let error = error.env(IN_NAMESPACE, "1").exec();
        panic!("cannot start `unshare`: {error}");
    }
    let trials = vec![
        trial("power_cuts_lose_nothing_acknowledged", &no_loop, power_cuts::run),
        trial("entries_wait_on_a_full_disk_and_votes_do_not", &no_loop, full_disk::run),
        trial("a_failed_sync_ends_the_log", &no_strace, sync_errors::run),
        trial("no_acknowledgement_before_its_sync", &no_strace, acknowledgements::run),
        trial("an_early_acknowledgement_is_noticed", &None, acknowledgements::is_noticed),
    ];
    // They measure real time with real disks: one after the other.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A test, skipped if something is missing.
fn trial(name: &'static str, missing: &Option<String>, test: fn()) -> Trial {
    if let Some(missing) = missing {
        eprintln!("{name} skipped: {missing}");
    }
    let run = move || {
        test();
        Ok(())
    };
    Trial::test(name, run).with_ignored_flag(missing.is_some())
}

/// A directory for the images and traces of one test: new, and kept when the test fails.
fn scratch(name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("real_disk").join(name);
    // Of an earlier run, if that was killed.
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}
