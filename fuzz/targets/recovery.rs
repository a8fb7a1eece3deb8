//! Coverage chooses the bytes that `raft-wal/tests/arbitrary.rs` draws at random: they are a directory, which is
//! opened, and what comes of it is judged in the same way.

#![no_main]
#![allow(clippy::unwrap_used, reason = "a finding is a panic")]

#[path = "../../raft-wal/tests/support/mod.rs"]
mod support;
#[path = "../../raft-wal/tests/arbitrary"]
mod arbitrary {
    pub(crate) mod forge;
    pub(crate) mod interpreter;
    pub(crate) mod verdict;
}

use arbitrary::interpreter::interpret;
use arbitrary::verdict::{Verdict, contents, judge, open};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let directory = interpret(input);
    let before = contents(&directory.disk);
    let outcome = open(&directory.disk, &directory.config);
    if judge(&directory, outcome) == Verdict::Refused {
        assert!(contents(&directory.disk) == before, "refused, and changed");
    }
});
