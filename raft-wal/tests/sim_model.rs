//! The simulated disk and a twin that is nothing but vectors and maps: after every operation, with and
//! without faults, both say the same about its outcome, about names and contents, about what is unsynced
//! and how much is used, and have counted the same; and every power cut leaves what it has to.
//!
//! What is up to chance, how much of a failed operation happened, is looked up and must be one of those
//! things that may be. How often which is: `sim_chances`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;
mod sim_model {
    pub(crate) mod harm;
    pub(crate) mod pair;
    pub(crate) mod twin;
}

use raft_wal::sim::SimStats;
use sim_model::pair::Pair;

#[test]
fn the_disk_does_what_its_twin_does() {
    let mut total = SimStats::default();
    for seed in 0..500 {
        let mut pair = Pair::new(seed);
        for step in 0..150 {
            let story = match pair.below(20) {
                0..5 => pair.names(),
                5..14 => pair.data(),
                14 | 15 => pair.fault(),
                16 | 17 => pair.damage(),
                18 => pair.around(),
                _ => {
                    let stats = pair.disk.stats();
                    total.syncs_after_failure += stats.syncs_after_failure;
                    total.unreadable_hits += stats.unreadable_hits;
                    total.space_refusals += stats.space_refusals;
                    total.short_writes += stats.short_writes;
                    pair.cut_power();
                    total.files_torn += pair.disk.stats().files_torn;
                    "a power cut".to_owned()
                }
            };
            pair.compare(&format!("seed {seed}, step {step}: {story}"));
        }
    }
    assert!(total.syncs_after_failure > 20 && total.unreadable_hits > 20, "{total:?}");
    assert!(total.space_refusals > 20 && total.short_writes > 20, "{total:?}");
    assert!(total.files_torn > 20, "{total:?}");
}
