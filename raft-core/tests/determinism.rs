//! The same configuration and inputs give the same outputs, byte for byte: in every run, in debug and in
//! release builds, on every machine.
//!
//! A cluster goes through everything that the protocol knows, driven by numbers from a seed; all that it
//! puts out is folded into a digest. Run it with and without `--release`: both must agree with the digest
//! below. A change of the protocol's behaviour changes it; then the new one is printed.

mod cluster;

use std::fmt::Write as _;

use cluster::{Cluster, Digest};
use raft_core::Instant;

/// What the runs of the seeds 1 to 8 come to. Replace it when the protocol was meant to change.
const EXPECTED: u64 = 13985481557976546601;

const STEPS: usize = 10_000;

#[test]
fn same_inputs_same_outputs() {
    let (mut digest, mut installs, mut committed, mut changes) = (Digest(0), 0, 0, 0);
    for seed in 1..=8 {
        let run = || {
            let mut cluster = Cluster::new(seed, Instant::default(), Some(1_000));
            (0..STEPS).for_each(|_| cluster.step());
            cluster
        };
        let (first, second) = (run(), run());
        assert!(first.digest == second.digest, "seed {seed} does not do the same twice");
        write!(digest, "{}", first.digest.0).expect("a digest takes all");
        installs += first.installs;
        committed += first.committed;
        changes += first.changes;
    }
    let rich = installs > 5 && committed > 2_000 && changes > 20;
    assert!(
        rich,
        "{installs} installs, {committed} committed, {changes} changes: too little to tell"
    );
    assert_eq!(digest.0, EXPECTED, "if the protocol was meant to change, this is its new digest");
}
