//! Whatever a peer, a client, a clock or a disk says to a node, it neither panics nor breaks an
//! invariant, nor a promise to those who drive it or hear from it (`envelopes/driven.rs`).
//!
//! The target `envelopes` in `../fuzz/` draws the same lives from bytes that coverage chooses.

use proptest::prelude::*;

#[allow(unreachable_pub, reason = "modules of a test are nobody's library")]
mod envelopes {
    pub mod driven;
    pub mod life;
    pub mod steps;
}

use envelopes::steps::life;

/// `ENVELOPES=1000000 cargo test --release --test envelopes` runs a long campaign.
fn cases() -> u32 {
    let Ok(cases) = std::env::var("ENVELOPES") else { return 10_000 };
    cases.parse().unwrap_or_else(|_| panic!("ENVELOPES={cases} is not a number"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn nothing_that_arrives_breaks_a_node(life in life()) {
        life.live();
    }
}
