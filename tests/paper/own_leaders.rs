//! What the texts leave to an implementation that leads: a disk that hangs, what counts from one
//! leadership to the next, and what from one disk of a peer to the next.

use raft_core::{Config, Envelope, GroupId, Incarnation, LogIndex, ProposeRefusal, Term};

use crate::stand::Stand;
use crate::words::{append, at, entries, n, refused, voters, with_learners};

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

/// Who is about to leave is still listened to, and may be taken back before it is forgotten: a leader must
/// know on which disk it runs, as of any member, or what it had on that one counts on another.
#[test]
fn who_is_about_to_leave_is_known_by_its_disk() {
    let mut stand = Stand::elected(&[1, 2, 3]);
    stand.acknowledge(2, 1);
    stand.change(&voters(&[1, 2])).expect("it leads, and node 2 answers");
    stand.acknowledge(3, 2); // The first that is heard of it.
    stand.acknowledge(2, 2);
    stand.change(&with_learners(&[1, 2], &[3])).expect("nothing else is under way");
    let (group, incarnation, message) =
        (GroupId(0), Incarnation(1), refused(2, at(0, 0), stand.round));
    stand.deliver(Envelope { group, from: n(3), to: n(1), term: Term(1), incarnation, message });
    let peers = stand.node.status().peers;
    let peer = peers.iter().find(|peer| peer.id == n(3)).expect("a member again");
    assert_eq!(peer.match_index, LogIndex(0), "this disk has nothing");
}
