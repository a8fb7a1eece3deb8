//! What the texts leave to an implementation that leads: a disk that hangs, and what counts from one
//! leadership to the next.

use raft_core::{Config, ProposeRefusal};

use crate::stand::Stand;
use crate::words::{append, at, entries, n, voters};

/// A leader whose disk hangs, while the others have long written the same, would make the whole cluster
/// as slow as itself: it gives up after an election timeout, 300 ms. If theirs are no better, it stays.
#[test]
fn a_leader_whose_disk_hangs_gives_up() {
    for (others_have, leads_on) in [(2, false), (1, true)] {
        let mut stand = Stand::leader(&[1, 2, 3]);
        stand.stall();
        stand.propose(&["a"]).expect("it leads");
        for waited in (0..400).step_by(50) {
            if stand.leads() {
                stand.acknowledge(2, others_have);
                stand.acknowledge(3, others_have);
            }
            assert!(stand.leads() || waited >= 300, "gave up after {waited} ms");
            stand.wait(50);
        }
        assert_eq!(stand.leads(), leads_on, "the others have written up to {others_have}");
    }
}

/// What waited to be committed when leadership was lost waits no longer, whoever overwrote or committed
/// it: the next leadership takes as much as the one before.
#[test]
fn what_waited_under_an_earlier_leadership_does_not_count() {
    for overwritten in [true, false] {
        let mut config = Config::new(n(1), 1);
        (config.append_bytes_max, config.uncommitted_bytes_max) = (1, 1);
        let mut stand = Stand::leader_with(config, voters(&[1, 2, 3]));
        stand.propose(&["a command of some length"]).expect("nothing waits");
        let busy = stand.propose(&["b"]);
        assert!(matches!(busy, Err(ProposeRefusal::Busy { .. })), "{busy:?}");
        let prev = if overwritten { at(1, 1) } else { at(2, 1) };
        stand.hear(2, 2, append(prev, entries(prev.index.0 + 1, &[2]), prev.index.0 + 1));
        assert!(!stand.leads(), "node 2 does");
        stand.win();
        stand.all_acknowledge();
        stand.propose(&["b"]).expect("nothing waits any more");
    }
}
