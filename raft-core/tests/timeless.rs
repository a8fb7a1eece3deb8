//! Nodes that differ in nothing but the time are the same once they have forgotten it; and what makes a
//! difference is in a fingerprint.

mod cluster;

use std::hash::{DefaultHasher, Hasher as _};
use std::time::Duration;

use bytes::Bytes;
use cluster::Cluster;
use raft_core::{Alarm, Input, Instant, Node, Output, RoleKind, Timestamp};

const ALARMS: [Alarm; 7] = [
    Alarm::Patience,
    Alarm::Heartbeat,
    Alarm::Election,
    Alarm::Transfer,
    Alarm::Disk,
    Alarm::Quorum,
    Alarm::Rest,
];

fn fingerprint(node: &Node) -> u64 {
    let mut hasher = DefaultHasher::new();
    node.fingerprint(&mut hasher);
    hasher.finish()
}

fn forgetful(node: &Node, passed: Option<Alarm>) -> Node {
    let mut node = node.clone();
    node.forget_time(passed);
    node
}

const DAY: Duration = Duration::from_secs(86_400);

/// All of the past, or all of the future, as the one who forgets sees it.
#[test]
fn twins_of_other_times_are_the_same_once_they_forget_the_time() {
    for (start, is_past) in [(Instant::default(), true), (Alarm::ORIGIN.after(DAY), false)] {
        let rings = |at| ALARMS.iter().any(|alarm| alarm.rings_at() == at);
        for seed in 1..=4 {
            let new = |start| Cluster::new(seed, start, None);
            let (mut cluster, mut twin) = (new(start), new(start.after(DAY)));
            for step in 0..4_000 {
                cluster.step();
                twin.step();
                assert!(cluster.digest == twin.digest, "seed {seed}, step {step}: no twins");
                if step % 20 != 0 {
                    continue;
                }
                for (node, other) in cluster.nodes.values().zip(twin.nodes.values()) {
                    let context = format!("seed {seed}, step {step}, {node:?}");
                    assert_ne!(fingerprint(node), fingerprint(other), "{context}");
                    let [node, other] = [node, other].map(|node| forgetful(node, None));
                    assert_eq!(fingerprint(&node), fingerprint(&other), "{context}\n{other:?}");
                    let due = node.deadline();
                    let never = due == Instant::FAR_FUTURE;
                    let at = if is_past { due == Alarm::ORIGIN } else { rings(due) };
                    assert!(at || never, "{due:?}: {context}");
                }
            }
        }
    }
}

/// Alarms ring one after the other, and are far from where time begins and ends.
#[test]
fn each_alarm_rings_at_a_moment_of_its_own() {
    let mut before = Alarm::ORIGIN;
    for alarm in ALARMS {
        assert!(alarm.rings_at() > before, "{alarm:?}");
        before = alarm.rings_at();
    }
    assert!(before.since(Alarm::ORIGIN) < Duration::from_micros(1));
    assert!(Alarm::ORIGIN.since(Instant::default()) > 36_500 * DAY);
    assert!(Instant::FAR_FUTURE.since(Alarm::ORIGIN) > 36_500 * DAY);
}

/// What has rung is over: the next to ring is a later one.
#[test]
fn what_has_passed_when_an_alarm_rings_is_over() {
    let mut cluster = Cluster::new(1, Alarm::ORIGIN, None);
    (0..500).for_each(|_| cluster.step());
    for node in cluster.nodes.values() {
        let node = forgetful(node, None);
        for alarm in ALARMS {
            let later = forgetful(&node, Some(alarm));
            assert!(later.deadline() == Alarm::ORIGIN || later.deadline() > alarm.rings_at());
            assert_eq!(later.deadline() == Alarm::ORIGIN, node.deadline() <= alarm.rings_at());
        }
    }
}

/// Nodes of which only the log differs, or only what waits to be sent.
#[test]
fn entries_and_messages_are_in_a_fingerprint() {
    let mut cluster = Cluster::new(1, Instant::default(), None);
    while cluster.leader().is_none() {
        cluster.step();
    }
    let leader = &cluster.nodes[&cluster.leader().expect("it was seen just now")];
    assert_eq!(leader.role().0, RoleKind::Leader);
    let proposed = |command: u8| {
        let mut node = leader.clone();
        let commands = vec![Bytes::copy_from_slice(&[command])];
        node.propose(cluster.now, Timestamp(1), commands).expect("a leader takes it");
        node.poll(&mut Output::default());
        fingerprint(&node)
    };
    assert_eq!(proposed(1), proposed(1));
    assert_ne!(proposed(1), proposed(2));
    let mut node = leader.clone();
    node.poll(&mut Output::default());
    node.step(node.deadline(), Input::Timer);
    let (before, mut output) = (fingerprint(&node), Output::default());
    node.poll(&mut output);
    assert!(!output.messages.is_empty() && output.write.is_none(), "{output:?}");
    assert_ne!(fingerprint(&node), before);
}
