//! What the texts leave to an implementation: strangers, bounds, receipts of an earlier life, reports that
//! are no news. A sentence of the documentation of `raft_core` demands each.

use raft_core::{
    BallotKind, Config, Consistency, Envelope, Event, Fate, GroupId, Ignored, Incarnation, Input,
    Instant, LogIndex, LogPosition, Message, ProposeRefusal, QuestionId, ReadRefused, Restored,
    RoleKind, Term, Timestamp, Write,
};

use crate::s7_install::fetch;
use crate::stand::Stand;
use crate::words::{accepted, append, at, entries, heartbeat, n, refused, snapshot, vote, voters};

/// A follower of node 2 in term 3, with these no-ops.
fn follower(log: &[u64]) -> Stand {
    let mut stand = Stand::with_log(&[1, 2, 3], 3, log);
    stand.hear(2, 3, heartbeat(at(0, 0), 0));
    stand.forget();
    stand
}

/// An acknowledgement that node `from` sends from this disk of its.
fn from_disk(stand: &mut Stand, from: u64, incarnation: u64) {
    let (term, round) = (Term(stand.term()), stand.round);
    stand.deliver(Envelope {
        group: GroupId(0),
        from: n(from),
        to: n(1),
        term,
        incarnation: Incarnation(incarnation),
        message: accepted(0, 0, round),
    });
}

/// A member's disks are remembered: an older one counts no longer, a newer one is news.
#[test]
fn the_disks_of_members_are_told_apart() {
    let mut stand = Stand::leader(&[1, 2, 3]);
    from_disk(&mut stand, 2, 5);
    from_disk(&mut stand, 2, 4);
    assert!(stand.ignored(Ignored::StaleIncarnation));
    from_disk(&mut stand, 2, 6);
    let reborn = Event::PeerReborn { peer: n(2), incarnation: Incarnation(6) };
    assert!(stand.events.contains(&reborn));
}

/// Nothing is remembered of a node that is no member: whoever invents numbers takes no memory.
#[test]
fn the_disks_of_strangers_are_not_remembered() {
    let mut stand = Stand::leader(&[1, 2, 3]);
    for incarnation in [5, 4, 6] {
        from_disk(&mut stand, 9, incarnation);
        let events = std::mem::take(&mut stand.events);
        let told = |event: &Event| match event {
            Event::Ignored { why, .. } => *why == Ignored::StaleIncarnation,
            event => matches!(event, Event::PeerReborn { .. }),
        };
        assert!(!events.iter().any(told), "{events:?}");
    }
}

/// A snapshot is read for members only.
#[test]
fn a_stranger_gets_nothing_of_a_snapshot() {
    let mut stand = follower(&[1]);
    let wanted = snapshot(at(9, 2), 10, voters(&[1, 2, 3])).id();
    let request = |offset| Message::SnapshotRequest { snapshot: wanted, offset };
    stand.hear(9, 3, request(0));
    assert!(stand.ignored(Ignored::NotAMember));
    assert_eq!(stand.said(), [""; 0]);
    stand.hear(3, 3, request(0));
    assert!(stand.ignored(Ignored::StaleSnapshot), "a member is told that it is not here");
    assert_eq!(stand.said().len(), 1);
}

/// What an earlier life wrote may have reached the disk, or not: its receipt says nothing to this one,
/// although the writes look the same.
#[test]
fn a_receipt_of_an_earlier_life_counts_for_nothing() {
    let mut stand = Stand::new(&[1, 2, 3]);
    stand.stall();
    stand.hear(2, 1, vote(at(0, 0)));
    let earlier = stand.writes.pop_front().expect("the vote is to be written");
    stand.restart();
    stand.stall();
    stand.hear(2, 1, vote(at(0, 0)));
    stand.forget();
    stand.input(Input::Written(earlier.into_receipt()));
    assert!(stand.ignored(Ignored::ForeignReceipt));
    assert_eq!(stand.said(), [""; 0], "the vote is not durable yet");
    stand.sync();
    assert_eq!(stand.said().len(), 1);
}

/// That the state machine is where it was is no news, and no mistake.
#[test]
fn what_is_applied_may_be_reported_again() {
    let mut stand = follower(&[]);
    stand.hear(2, 3, append(at(0, 0), entries(1, &[3, 3, 3]), 2));
    let is_bad = |stand: &mut Stand, index| {
        stand.input(Input::Applied(LogIndex(index)));
        stand.ignored(Ignored::BadAppliedIndex)
    };
    assert!(!is_bad(&mut stand, 2));
    assert!(is_bad(&mut stand, 1), "it does not go back");
    assert!(is_bad(&mut stand, 3), "that was not handed out");
}

fn patient(reads: usize) -> Config {
    Config { waiting_reads_max: reads, ..Config::new(n(1), 1) }
}

/// Reads that wait are bounded at a follower, those that it has asked about among them.
#[test]
fn a_follower_lets_so_many_reads_wait() {
    let mut stand = Stand::start(patient(2), Restored::empty(voters(&[1, 2, 3])));
    stand.hear(2, 1, heartbeat(at(0, 0), 0));
    for _ in 0..2 {
        assert!(stand.read(Consistency::Linearizable).is_ok());
    }
    assert_eq!(stand.read(Consistency::Linearizable), Err(ReadRefused::Busy));
}

/// And at a leader, those of others among them.
#[test]
fn a_leader_lets_so_many_reads_wait() {
    let mut stand = Stand::leader_with(patient(2), voters(&[1, 2, 3]));
    let ask = |number| Message::ReadIndex { ticket: QuestionId { life: 7, number }, lease: false };
    assert!(stand.read(Consistency::Linearizable).is_ok());
    stand.hear(2, 1, ask(1));
    assert!(!stand.ignored(Ignored::Busy));
    stand.hear(2, 1, ask(2));
    assert!(stand.ignored(Ignored::Busy));
    assert_eq!(stand.read(Consistency::Linearizable), Err(ReadRefused::Busy));
    stand.all_acknowledge();
    assert_eq!(stand.role(), (RoleKind::Leader, 1));
    assert!(stand.read(Consistency::Linearizable).is_ok(), "there is room again");
}

/// A command may be as large as one message can carry, and no larger.
#[test]
fn the_largest_command_is_taken() {
    let mut stand = Stand::leader(&[1, 2, 3]);
    let bytes_max = stand.config.command_bytes_max();
    for (bytes, taken) in [(bytes_max, true), (bytes_max + 1, false)] {
        let command = vec![0; usize::try_from(bytes).expect("a few megabytes")].into();
        let now = stand.node.deadline();
        let result = stand.node.propose(now, Timestamp(0), vec![command]);
        let reason = result.map(|_| ()).map_err(|refused| refused.reason);
        let expected = ProposeRefusal::TooLarge { bytes, bytes_max };
        assert_eq!(reason, if taken { Ok(()) } else { Err(expected) });
    }
}

/// A node of one group of many says so in all that it writes and sends, and listens to no other.
#[test]
fn groups_do_not_mix() {
    let group = GroupId(7);
    let config = Config { group, ..Config::new(n(1), 1) };
    let mut stand = Stand::start(config, Restored::empty(voters(&[1, 2, 3])));
    stand.stall();
    stand.hear(2, 1, vote(at(0, 0)));
    assert!(stand.ignored(Ignored::Misdirected), "group 0 is another one");
    stand.wait_for_timer();
    assert!(stand.messages.iter().all(|envelope| envelope.group == group));
    let granted = |stand: &Stand| {
        let message = Message::RequestVoteReply { ballot: stand.ballot(), granted: true };
        let (from, to, term) = (n(2), n(1), Term(stand.term()));
        Envelope { group, from, to, term, incarnation: Incarnation(0), message }
    };
    stand.deliver(granted(&stand));
    assert_eq!(stand.writes.front().map(Write::group), Some(group));
}

/// Node 1 led a term, and was deposed before all that it took was committed. A snapshot of the next
/// leader's takes the place of its log.
fn overtaken(stand: &mut Stand, term: u64, position: LogPosition) {
    stand.forget();
    fetch(stand, 2, term, &snapshot(position, 10, voters(&[1, 2, 3])));
    assert_eq!((stand.log().as_str(), stand.commit()), ("", position.index.0));
}

fn fates(stand: &Stand) -> Vec<(LogPosition, LogPosition, Fate)> {
    stand.proposals.iter().map(|outcome| (outcome.first, outcome.last, outcome.fate)).collect()
}

/// What a snapshot says of a proposal is: nothing, if its term may be in it; and that others were chosen, if
/// what the snapshot ends with is older. The rest of a run waits for what comes behind the snapshot.
#[test]
fn a_snapshot_tells_the_fate_of_a_proposal_only_if_it_is_known() {
    // Others may have replicated 2@1 and 3@1, and a later leader may have committed them.
    let mut stand = Stand::leader(&[1, 2, 3]);
    stand.propose(&["a", "b"]).expect("it leads");
    stand.hear(3, 2, append(at(1, 1), entries(2, &[2]), 1));
    overtaken(&mut stand, 3, at(2, 1));
    assert_eq!(fates(&stand), [(at(2, 1), at(2, 1), Fate::Unknown)]);
    stand.hear(2, 3, append(at(2, 1), entries(3, &[3]), 3));
    assert_eq!(fates(&stand)[1..], [(at(3, 1), at(3, 1), Fate::Superseded)]);

    // Terms do not fall along a log: 3@3 cannot lie before 4@2.
    let mut stand = Stand::with_log(&[1, 2, 3], 2, &[1]);
    stand.win();
    stand.propose(&["a"]).expect("it leads");
    overtaken(&mut stand, 4, at(4, 2));
    assert_eq!(fates(&stand), [(at(3, 3), at(3, 3), Fate::Superseded)]);
}

fn change_fates(stand: &Stand) -> Vec<Fate> {
    stand.changes.iter().map(|outcome| outcome.fate).collect()
}

/// The same for a change of members.
#[test]
fn a_snapshot_tells_the_fate_of_a_change_only_if_it_is_known() {
    for (end, fate) in [(2, Fate::Superseded), (3, Fate::Unknown), (4, Fate::Unknown)] {
        let mut stand = Stand::leader(&[1, 2, 3]);
        stand.propose(&["a"]).expect("it leads");
        assert_eq!(stand.change(&voters(&[1, 2, 3, 4])), Ok(at(3, 1)));
        overtaken(&mut stand, 2, at(end, 2));
        assert_eq!(change_fates(&stand), [fate], "the snapshot ends at {end}");
    }
}

/// A change whose joint phase was committed comes to its end, whoever leads.
#[test]
fn a_change_that_has_begun_is_not_in_doubt() {
    let mut stand = Stand::leader(&[1, 2, 3]);
    stand.change(&voters(&[1, 2, 4])).expect("it leads");
    stand.acknowledge(2, 2);
    stand.acknowledge(3, 2);
    assert_eq!((stand.commit(), change_fates(&stand)), (2, vec![]));
    overtaken(&mut stand, 2, at(5, 2));
    stand.hear(2, 2, append(at(5, 2), entries(6, &[2]), 6));
    assert_eq!(change_fates(&stand), [Fate::Committed]);
}

/// A peer that has just what the log stands on needs no snapshot: the log goes on from there.
#[test]
fn a_log_that_ends_where_ours_begins_is_continued() {
    for (hint, offered) in [(at(2, 1), false), (at(1, 1), true)] {
        let mut config = Config::new(n(1), 1);
        config.trailing_bytes_max = 0;
        let mut stand = Stand::leader_with(config, voters(&[1, 2, 3]));
        stand.propose(&["a"]).expect("it leads");
        stand.acknowledge(2, 2);
        stand.cut(2, b"state");
        stand.propose(&["b"]).expect("it leads");
        from_disk(&mut stand, 3, 1);
        stand.forget();
        let round = stand.round;
        stand.deliver(Envelope {
            incarnation: Incarnation(1),
            group: GroupId(0),
            from: n(3),
            to: n(1),
            term: Term(1),
            message: refused(3, hint, round),
        });
        let words = stand.told(3);
        let is_offer = |words: &String| words.starts_with("InstallSnapshot");
        assert_eq!(words.iter().any(is_offer), offered, "{words:?}");
    }
}

/// Writes may become durable in any order; what is promised is what is durable without a gap.
#[test]
fn a_receipt_waits_for_those_before_it() {
    let mut stand = follower(&[]);
    stand.stall();
    stand.hear(2, 3, append(at(0, 0), entries(1, &[3]), 0));
    stand.hear(2, 3, append(at(1, 3), entries(2, &[3]), 0));
    let second = stand.writes.pop_back().expect("two writes are under way");
    stand.forget();
    stand.input(Input::Written(second.into_receipt()));
    assert_eq!(stand.node.status().durable, LogIndex(0));
    stand.sync();
    assert_eq!(stand.node.status().durable, LogIndex(2));
    assert_eq!(stand.last_word(), "n1@3 → n2 AppendEntriesReply durable=2 round=1");
}

/// What the state machine has not applied yet is bounded: what fits exactly still goes, and one always does.
#[test]
fn entries_are_handed_out_up_to_the_limit() {
    let two = 2 * entries(1, &[3])[0].size_bytes();
    for (unapplied_bytes_max, handed_out) in [(two, "1@3 2@3"), (two - 1, "1@3"), (1, "1@3")] {
        let config = Config { unapplied_bytes_max, ..Config::new(n(1), 1) };
        let disk = Stand::with_log(&[1, 2, 3], 3, &[3, 3, 3]).disk;
        let mut stand = Stand::start(config, disk);
        stand.lazy = true;
        for commit in 1..=3 {
            stand.hear(2, 3, heartbeat(at(3, 3), commit));
        }
        assert_eq!(stand.applies(), handed_out);
    }
}

/// After the last term there is none to campaign in.
#[test]
fn nobody_campaigns_beyond_the_last_term() {
    let last = 1 << 63;
    for (term, campaigns) in [(last - 1, true), (last, false)] {
        let stand = Stand::with_log(&[1, 2, 3], term, &[]);
        assert_eq!(stand.node.deadline() < Instant::FAR_FUTURE, campaigns, "in term {term}");
    }
}

/// A snapshot that leaves all of the log where it is lets nothing go, and says so.
#[test]
fn a_snapshot_that_lets_nothing_go_is_no_compaction() {
    let mut stand = Stand::leader(&[1, 2, 3]);
    stand.cut(1, b"state");
    let is_compaction = |event: &Event| matches!(event, Event::Compacted { .. });
    assert!(!stand.events.iter().any(is_compaction), "{:?}", stand.events);
    assert_eq!(stand.log(), "1@1");
}

/// A snapshot that arrives is not needed if the log has its last entry by then, committed or not.
#[test]
fn a_snapshot_that_the_log_contains_by_now_is_not_installed() {
    let mut stand = follower(&[]);
    let snapshot = snapshot(at(2, 2), 8, voters(&[1, 2, 3]));
    stand.hear(2, 3, Message::InstallSnapshot { snapshot: snapshot.clone() });
    stand.hear(2, 3, append(at(0, 0), entries(1, &[1, 2, 3]), 0));
    assert_eq!(stand.commit(), 0);
    let chunk = |bytes: &'static str| Message::SnapshotChunk {
        snapshot: snapshot.id(),
        offset: 0,
        bytes: Some(bytes.into()),
    };
    stand.hear(2, 3, chunk("01234567"));
    assert_eq!((stand.log().as_str(), stand.commit()), ("1@1 2@2 3@3", 2));
    assert_eq!(stand.restored, []);
}

/// A leader never replaces its log (Leader Append-Only of Figure 3), whatever was on its way to it.
#[test]
fn a_leader_installs_nothing() {
    let mut stand = follower(&[1]);
    let snapshot = snapshot(at(5, 2), 8, voters(&[1, 2, 3]));
    stand.hear(2, 3, Message::InstallSnapshot { snapshot: snapshot.clone() });
    while stand.role().0 == RoleKind::Follower {
        stand.wait_for_timer();
    }
    for _ in [BallotKind::PreVote, BallotKind::Vote] {
        stand.answer(2, true);
    }
    let log = stand.log();
    let bytes = Some("01234567".into());
    stand.hear(2, 3, Message::SnapshotChunk { snapshot: snapshot.id(), offset: 0, bytes });
    assert_eq!((stand.leads(), stand.log()), (true, log));
    assert_eq!(stand.restored, []);
}

/// Pieces are read for several at a time; who asks again before the next poll wants one piece, not two.
#[test]
fn each_peer_gets_the_piece_that_it_asked_for_last() {
    let config = Config { snapshot_chunk_bytes_max: 4, ..Config::new(n(1), 1) };
    let mut stand = Stand::leader_with(config, voters(&[1, 2, 3]));
    let snapshot = stand.cut(1, b"0123456789").id();
    for (from, offset) in [(2, 0), (3, 4), (2, 8)] {
        stand.node.step(
            Instant::default(),
            Input::Message(Envelope {
                group: GroupId(0),
                from: n(from),
                to: n(1),
                term: Term(1),
                incarnation: Incarnation(0),
                message: Message::SnapshotRequest { snapshot, offset },
            }),
        );
    }
    stand.input(Input::Timer);
    let orders = stand.chunks.iter().map(|order| (order.to.get(), order.offset, order.bytes_max));
    assert_eq!(orders.collect::<Vec<_>>(), [(3, 4, 4), (2, 8, 2)]);
}

/// What is proposed and not committed is bounded; but if nothing waits, anything may go, or it never could.
#[test]
fn a_large_proposal_goes_alone() {
    let mut config = Config::new(n(1), 1);
    (config.append_bytes_max, config.uncommitted_bytes_max) = (1, 1);
    let mut stand = Stand::leader_with(config, voters(&[1, 2, 3]));
    stand.propose(&["a"]).expect("nothing waits");
    let busy = stand.propose(&["b"]);
    assert!(matches!(busy, Err(ProposeRefusal::Busy { .. })), "{busy:?}");
    stand.all_acknowledge();
    stand.propose(&["b"]).expect("nothing waits any more");
}
