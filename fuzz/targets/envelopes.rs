//! Coverage chooses the bytes from which `tests/envelopes.rs` draws at random: a life of a node, in which peers,
//! clients, clocks and its disk say whatever they like. It is lived and judged in the same way.

#![no_main]
#![allow(unreachable_pub, reason = "modules of a test are nobody's library")]

#[path = "../../tests/envelopes"]
mod envelopes {
    pub mod driven;
    pub mod life;
    pub mod steps;
}

use libfuzzer_sys::fuzz_target;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

fuzz_target!(|input: &[u8]| {
    // What is drawn are the bytes themselves, in their order; zeros, when there are no more.
    let draws = TestRng::from_seed(RngAlgorithm::PassThrough, input);
    let mut runner = TestRunner::new_with_rng(Config::default(), draws);
    if let Ok(tree) = envelopes::steps::life().new_tree(&mut runner) {
        tree.current().live();
    }
});
