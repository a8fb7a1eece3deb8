//! Coverage chooses what `tests/envelopes.rs` draws at random: a life of a node, in which peers, clients, clocks and
//! its disk say whatever they like. It is lived and judged in the same way.
//!
//! Four bytes are the seed of where it begins, and each four that follow the seed of one thing that happens: so one of
//! them can be changed, left out, doubled or moved without the others.

#![no_main]
#![allow(unreachable_pub, reason = "modules of a test are nobody's library")]

#[path = "../../tests/envelopes"]
mod envelopes {
    pub mod driven;
    pub mod life;
    pub mod steps;
}

use envelopes::life::Life;
use envelopes::steps::{life, step};
use libfuzzer_sys::fuzz_target;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// So many things happen at the most.
const STEPS_MAX: usize = 60;

fuzz_target!(|input: &[u8]| {
    let mut seeds = input.chunks(4);
    let Some(life) = seeds.next().map(|seed| drawn(&life(), seed)) else { return };
    let one = step();
    let steps = seeds.take(STEPS_MAX).map(|seed| drawn(&one, seed)).collect();
    Life { steps, ..life }.live();
});

fn drawn<S: Strategy>(strategy: &S, seed: &[u8]) -> S::Value {
    let mut whole = [0; 32];
    whole[..seed.len()].copy_from_slice(seed);
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &whole);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    strategy.new_tree(&mut runner).expect("nothing is filtered out").current()
}
