//! Model checking: every state that a few shipping `raft_core::Node`s can reach within bounds, in every
//! order of messages, timers, writes, crashes and requests. See `model/README.md`.
//!
//! `site.rs` is one node with its disk, and the only place that steps a node; `effects.rs` what must hold
//! of it alone; `ghost.rs` what must hold between nodes, and what was once true for ever; `model.rs` puts
//! them together and says which state follows on which; `search.rs` looks at all of them;
//! `configurations.rs` says in what bounds.
//!
//!     cargo test --test model                                            the small bounds
//!     MODEL=large cargo test --release --test model -- --nocapture       a campaign
//!     MODEL_BOUNDS='messages=4 proposal=2' …                             within other bounds
//!     MODEL_LIMIT=1000000 …                                              gives up after so many states

#[allow(
    unreachable_pub,
    clippy::module_inception,
    reason = "modules of a test are nobody's library"
)]
mod model {
    pub mod action;
    pub mod bounds;
    pub mod configurations;
    pub mod effects;
    pub mod ghost;
    pub mod interned;
    pub mod menu;
    pub mod model;
    pub mod rows;
    pub mod search;
    pub mod site;
    pub mod steps;
    pub mod table;
}

use model::configurations::{self, Configuration, Size};
use model::search::explore;

fn check(configuration: impl Fn(Size) -> Configuration) {
    let size = match std::env::var("MODEL").as_deref() {
        Err(_) => Size::Small,
        Ok("large") => Size::Large,
        Ok(other) => panic!("MODEL is large or not set, not {other}"),
    };
    let Configuration { name, mut cluster, prologue, sights, states_min } = configuration(size);
    let other_bounds = std::env::var("MODEL_BOUNDS").ok();
    if let Some(others) = &other_bounds {
        cluster.bounds.set(others).unwrap_or_else(|why| panic!("MODEL_BOUNDS: {why}"));
    }
    let report = explore(&cluster, prologue);
    println!(
        "{name}: {} states, {} transitions, depth {}, {:.1} s, {} sites, {} messages, {} steps, \
         {} MiB, collision {:.1e}, {} twins, {} of which differ in what does not count",
        report.states,
        report.transitions,
        report.depth,
        report.seconds,
        report.parts[0],
        report.parts[1],
        report.parts[2],
        report.bytes >> 20,
        report.collision(),
        report.twins.0,
        report.twins.1,
    );
    if let Some(broken) = &report.broken {
        panic!("{name}: {}\n{}", broken.what, broken.path.join("\n"));
    }
    let missing: Vec<_> = sights.iter().filter(|&&sight| !report.saw(sight)).collect();
    if other_bounds.is_some() {
        return println!("{name}: never seen: {missing:?}");
    }
    assert!(missing.is_empty(), "{name}: never seen: {missing:?}");
    // What a node is taken to be the same as does the same, though it came about in another way.
    assert!(report.twins.0 >= 500, "{name}: only {} twins", report.twins.0);
    assert!(report.states >= states_min, "{name}: only {} states", report.states);
}

#[test]
fn e1_elections() {
    check(configurations::e1_elections);
}

#[test]
fn e2_replication() {
    check(configurations::e2_replication);
}

#[test]
fn e3_joint_change() {
    check(configurations::e3_joint_change);
}

#[test]
fn e4_snapshot() {
    check(configurations::e4_snapshot);
}

#[test]
fn e5_transfer() {
    check(configurations::e5_transfer);
}

#[test]
fn e6_reads() {
    check(configurations::e6_reads);
}

#[test]
fn e7_disk() {
    check(configurations::e7_disk);
}

#[test]
fn e8_again() {
    check(configurations::e8_again);
}
