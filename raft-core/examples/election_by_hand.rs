//! A Raft cluster in one thread, without a network, a disk or a clock: three nodes are three values,
//! their messages are carried by hand, and time is a number that this program sets.
//!
//! `cargo run -p raft-core --example election_by_hand` prints what they say in the notation of the
//! logs and the golden scripts: `n1@2 → n3` is node 1 in term 2, speaking to node 3; `4@2` is the entry
//! at index 4 of term 2.

use std::error::Error;

use bytes::Bytes;
use raft_core::{
    Config, Consistency, Envelope, Event, Fate, Incoming, Input, Instant, LogIndex, Membership,
    Node, NodeId, Output, Payload, Restored, RoleKind, Snapshot, Timestamp,
};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// A node and what it needs around it: a state machine (here a line of words), and a disk on which
/// all is durable at once, of which only the snapshot matters here, whole or as much as has come.
struct Replica {
    node: Node,
    words: String,
    snapshot: Vec<u8>,
    /// How its reads, proposals and membership changes ended.
    reads: Vec<LogIndex>,
    fates: Vec<Fate>,
    alive: bool,
}

impl Replica {
    fn new(id: NodeId, members: &Membership, now: Instant) -> Outcome<Self> {
        let mut config = Config::new(id, id.get());
        config.trailing_bytes_max = 53; // One short entry stays in the log behind a snapshot.
        config.snapshot_chunk_bytes_max = 10;
        let node = Node::new(config, Restored::empty(members.clone()), now)?;
        let (words, snapshot, reads, fates) = (String::new(), vec![], vec![], vec![]);
        Ok(Self { node, words, snapshot, reads, fates, alive: true })
    }

    /// Does what the node wants done, until all that is left is to send these messages.
    fn work(&mut self, now: Instant, output: &mut Output) -> Vec<Envelope> {
        let mut mail = Vec::new();
        loop {
            self.node.poll(output);
            if output.is_empty() {
                return mail;
            }
            mail.append(&mut output.messages); // They need not wait for the disk.
            output.events.drain(..).for_each(|event| tell(&self.node, &event));
            self.reads.extend(output.reads.drain(..).filter_map(|read| read.index.ok()));
            self.fates.extend(output.proposals.drain(..).map(|proposal| proposal.fate));
            self.fates.extend(output.changes.drain(..).map(|change| change.fate));
            // No log on a disk could be shortened, and this program says when snapshots are cut.
            (output.compacted, output.snapshot_due) = (None, false);
            let mut done = Vec::new();
            done.extend(output.write.take().map(|write| Input::Written(write.into_receipt())));
            done.extend(output.incoming.drain(..).filter_map(|it| store(&mut self.snapshot, it)));
            if let Some(snapshot) = output.restore.take() {
                self.words = String::from_utf8_lossy(&self.snapshot).into_owned();
                done.push(Input::Applied(snapshot.index()));
            }
            for entry in output.committed.drain_entries() {
                if let Payload::Command(word) = entry.payload {
                    self.words += &format!("{} ", word.escape_ascii());
                }
                done.push(Input::Applied(entry.index));
            }
            for order in output.chunks.drain(..) {
                let (from, to) = (order.offset, order.offset + order.bytes_max);
                let bytes = self.snapshot.get(from as usize..to as usize);
                done.push(Input::ChunkRead { order, bytes: bytes.map(Bytes::copy_from_slice) });
            }
            done.into_iter().for_each(|input| self.node.step(now, input));
        }
    }
}

/// A snapshot comes in pieces; the disk says how much of it is there.
fn store(disk: &mut Vec<u8>, incoming: Incoming) -> Option<Input> {
    let (snapshot, more) = match incoming {
        Incoming::Begin(snapshot) => (snapshot.id(), Bytes::new()),
        Incoming::Chunk { snapshot, bytes, .. } => (snapshot, bytes),
        Incoming::Abandon(_) => return None,
    };
    disk.extend(more);
    Some(Input::SnapshotHeld { snapshot, bytes: disk.len() as u64 }) // All of it: check the digest.
}

fn tell(node: &Node, event: &Event) {
    let id = node.status().id;
    match event {
        Event::Role { role: RoleKind::Follower, leader: Some(leader), term } => {
            println!("      {id} follows {leader} in term {term}");
        }
        Event::Role { role: RoleKind::Follower, leader: None, .. } => {} // Until it hears from one.
        Event::Role { role, term, .. } => println!("      {id} is {role} in term {term}"),
        Event::Committed { index } => println!("      {id} knows {index} to be committed"),
        Event::MembershipChanged { membership, .. } => println!("      {id} goes by {membership}"),
        Event::Compacted { base } => println!("      {id} has cut its log behind {base}"),
        Event::SnapshotInstalled { snapshot } => println!("      {id} stands on {snapshot}"),
        _ => {}
    }
}

/// The nodes, the network between them, and the time.
struct World {
    now: Instant,
    replicas: Vec<Replica>,
}

impl World {
    fn living(&mut self) -> impl Iterator<Item = &mut Replica> {
        self.replicas.iter_mut().filter(|replica| replica.alive)
    }

    /// Carries messages until nobody has anything more to say. No time passes.
    fn carry(&mut self) {
        let (now, mut output) = (self.now, Output::default());
        loop {
            let mail: Vec<_> = self.living().flat_map(|it| it.work(now, &mut output)).collect();
            if mail.is_empty() {
                return;
            }
            for envelope in mail {
                let to = &mut self.replicas[envelope.to.get() as usize - 1];
                println!("  {envelope}{}", if to.alive { "" } else { "   (lost)" });
                if to.alive {
                    to.node.step(now, Input::Message(envelope));
                }
            }
        }
    }

    /// Lets time pass until somebody leads.
    fn wait_for_leader(&mut self) -> usize {
        loop {
            let now = self.living().map(|it| it.node.deadline()).min().expect("some are alive");
            println!("  … {} ms", now.as_nanos() / 1_000_000);
            self.now = now;
            self.living().for_each(|it| it.node.step(now, Input::Timer));
            self.carry();
            let leads = |it: &Replica| it.alive && it.node.role().0 == RoleKind::Leader;
            if let Some(leader) = self.replicas.iter().position(leads) {
                return leader;
            }
        }
    }

    fn propose(&mut self, at: usize, words: &[&'static str]) {
        let commands = words.iter().map(|word| Bytes::from(*word)).collect();
        let taken = self.replicas[at].node.propose(self.now, Timestamp(0), commands);
        self.carry();
        assert!(taken.is_ok() && self.replicas[at].fates.pop() == Some(Fate::Committed));
    }

    fn change(&mut self, at: usize, target: &Membership) {
        let node = &mut self.replicas[at].node;
        let taken = node.change_membership(self.now, Timestamp(0), target, None);
        self.carry();
        assert!(taken.is_ok() && self.replicas[at].fates.pop() == Some(Fate::Committed));
    }

    /// Sees every word whose proposal was answered before the read began.
    fn read(&mut self, at: usize) -> &str {
        let taken = self.replicas[at].node.read(self.now, Consistency::Linearizable);
        self.carry();
        let replica = &mut self.replicas[at];
        let index = replica.reads.pop().expect("a leader is there to ask");
        assert!(taken.is_ok() && replica.node.status().applied >= index);
        &replica.words
    }

    fn cut_snapshot(&mut self, at: usize) {
        let Replica { node, words, snapshot, .. } = &mut self.replicas[at];
        *snapshot = words.clone().into_bytes();
        let base = node.snapshot_base(node.status().applied).expect("applied is in the log");
        let length = snapshot.len() as u64;
        node.step(self.now, Input::SnapshotCut(Snapshot { base, length, digest: 0 }));
        self.carry();
    }
}

pub(crate) fn main() -> Outcome<()> {
    let id = |number| NodeId::new(number).expect("not zero");
    let (now, three) = (Instant::default(), Membership::new([1, 2, 3].map(id))?);
    let replica = |number, now| Replica::new(id(number), &three, now);
    let mut world =
        World { now, replicas: vec![replica(1, now)?, replica(2, now)?, replica(3, now)?] };

    println!("Nobody leads. The first to lose patience asks around, and then for votes (§5.2).");
    let first = world.wait_for_leader();

    println!("\nThe leader takes two commands and replicates them together (§5.3).");
    world.propose(first, &["apples", "pears"]);
    assert!(world.replicas.iter().all(|replica| replica.words == "apples pears "));

    println!("\nA follower is read. It asks the leader, who asks whether it leads (thesis §6.4).");
    assert_eq!(world.read((first + 1) % 3), "apples pears ");

    println!("\nThe leader dies. Its silence is noticed, and the next term has another.");
    world.replicas[first].alive = false;
    let second = world.wait_for_leader();
    world.propose(second, &["plums"]);

    println!("\nA snapshot takes the place of the log, but for a few trailing entries (§7).");
    world.cut_snapshot(second);
    assert_eq!(world.replicas[second].node.entry(LogIndex(1)), None);

    println!("\nA fourth node comes, to learn first (thesis §4.2.1). What it lacks is in no log");
    println!("any more: it fetches the snapshot, ten bytes at a time.");
    world.replicas.push(replica(4, world.now)?);
    world.change(second, &three.with_learner(id(4))?);
    assert_eq!(world.replicas[3].words, "apples pears plums ");

    println!("\nIt becomes a voter in the place of the dead one. Two voters change, so majorities");
    println!("of both sets decide (§6), until the leader takes the second step by itself.");
    let dead = world.replicas[first].node.status().id;
    world.change(second, &three.with_voter(id(4)).without(dead)?);
    assert!(!world.replicas[second].node.status().membership.is_joint());

    println!("\nA read at the newcomer sees all that was ever acknowledged.");
    assert_eq!(world.read(3), "apples pears plums ");
    Ok(())
}
