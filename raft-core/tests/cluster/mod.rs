//! A cluster that goes through everything that the protocol knows, driven by numbers from a seed; all that
//! it puts out is folded into a digest.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use raft_core::*;

/// `splitmix64`.
pub(crate) struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// FNV-1a over the text of everything that the nodes put out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digest(pub(crate) u64);

impl std::fmt::Write for Digest {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Ok(())
    }
}

pub(crate) fn n(id: u64) -> NodeId {
    NodeId::new(id).expect("not zero")
}

pub(crate) struct Cluster {
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    numbers: Numbers,
    start: Instant,
    pub(crate) now: Instant,
    mail: Vec<Envelope>,
    writes: Vec<(NodeId, Receipt)>,
    chunks: Vec<(NodeId, ChunkOrder)>,
    held: Vec<(NodeId, SnapshotId, u64)>,
    applied: Vec<(NodeId, LogIndex)>,
    pub(crate) digest: Digest,
    pub(crate) installs: u64,
    pub(crate) committed: u64,
    pub(crate) changes: u64,
}

impl Cluster {
    /// It begins at `start`; leases are on if they have a drift.
    pub(crate) fn new(seed: u64, start: Instant, lease_clock_drift_ppm: Option<u32>) -> Self {
        let first = Membership::new([n(1), n(2), n(3)]).expect("voters");
        let node = |id: u64| {
            let config = Config {
                snapshot_after_bytes: 2_000,
                trailing_bytes_max: 300,
                append_bytes_max: 400,
                snapshot_chunk_bytes_max: 10,
                promotion: Promotion::WhenCaughtUp,
                lease_clock_drift_ppm,
                ..Config::new(n(id), seed * 100 + id)
            };
            let node = Node::new(config, Restored::empty(first.clone()), start);
            (n(id), node.expect("a sound configuration"))
        };
        Self {
            nodes: (1..=5).map(node).collect(),
            numbers: Numbers(seed),
            start,
            now: start,
            mail: Vec::new(),
            writes: Vec::new(),
            chunks: Vec::new(),
            held: Vec::new(),
            applied: Vec::new(),
            digest: Digest(seed),
            installs: 0,
            committed: 0,
            changes: 0,
        }
    }

    /// One of a list, out of order now and then.
    fn pick<T>(numbers: &mut Numbers, list: &mut Vec<T>) -> Option<T> {
        if list.is_empty() {
            return None;
        }
        let window = (list.len() as u64).min(if numbers.below(4) == 0 { 8 } else { 1 });
        Some(list.remove(numbers.below(window) as usize))
    }

    pub(crate) fn step(&mut self) {
        let numbers = &mut self.numbers;
        let id = n(1 + numbers.below(5));
        match numbers.below(24) {
            0..=8 => {
                if let Some(envelope) = Self::pick(numbers, &mut self.mail)
                    && numbers.below(50) > 0
                {
                    self.input(envelope.to, Input::Message(envelope));
                }
            }
            9..=13 => {
                if let Some((id, receipt)) = Self::pick(numbers, &mut self.writes) {
                    self.input(id, Input::Written(receipt));
                }
            }
            14 | 15 => {
                if let Some((id, index)) = Self::pick(numbers, &mut self.applied) {
                    self.input(id, Input::Applied(index));
                }
            }
            16 => {
                if let Some((id, order)) = Self::pick(numbers, &mut self.chunks) {
                    let bytes = Bytes::from(vec![7; order.bytes_max as usize]);
                    self.input(id, Input::ChunkRead { order, bytes: Some(bytes) });
                }
            }
            17 => {
                if let Some((id, snapshot, bytes)) = Self::pick(numbers, &mut self.held) {
                    self.input(id, Input::SnapshotHeld { snapshot, bytes });
                }
            }
            18 | 19 => {
                let deadline = self.nodes.iter().map(|(id, node)| (node.deadline(), *id)).min();
                let (at, id) = deadline.expect("five nodes");
                self.now = self.now.max(at);
                self.input(id, Input::Timer);
            }
            20 | 21 => {
                self.propose();
            }
            22 => self.ask(id),
            _ => self.change(id),
        }
    }

    pub(crate) fn leader(&self) -> Option<NodeId> {
        let leads = |(_, node): &(&NodeId, &Node)| node.role().0 == RoleKind::Leader;
        self.nodes.iter().find(leads).map(|(id, _)| *id)
    }

    fn propose(&mut self) {
        let Some(id) = self.leader() else { return };
        let length = self.numbers.below(80) as usize;
        let commands = vec![Bytes::from(vec![b'a'; length]); self.numbers.below(4) as usize];
        let timestamp = Timestamp(self.now.since(self.start).as_nanos() as u64);
        let node = self.nodes.get_mut(&id).expect("five nodes");
        let taken = node.propose(self.now, timestamp, commands);
        self.note(format_args!("{taken:?}"));
        self.poll(id);
    }

    fn ask(&mut self, id: NodeId) {
        let how = match self.numbers.below(3) {
            0 => Consistency::Linearizable,
            1 => Consistency::Lease,
            _ => Consistency::AtLeast(LogIndex(self.numbers.below(200))),
        };
        let taken = self.nodes.get_mut(&id).expect("five nodes").read(self.now, how);
        self.note(format_args!("{taken:?}"));
        self.poll(id);
    }

    fn change(&mut self, other: NodeId) {
        let Some(id) = self.leader() else { return };
        let (kind, now) = (self.numbers.below(16), self.now);
        let node = self.nodes.get_mut(&id).expect("five nodes");
        let current = node.status().membership;
        let target = match kind {
            0 => current.with_learner(other),
            1 => current.without(other),
            2 => Membership::new([n(1), n(4), n(5)]),
            3 => Membership::new([n(1), n(2), n(3)]),
            4 => Membership::new((1..=5).map(n)),
            5 => {
                let taken = node.transfer_leadership(now, None);
                return self.note(format_args!("{taken:?}"));
            }
            _ => return,
        };
        if let Ok(target) = target {
            let taken = node.change_membership(now, Timestamp(0), &target, None);
            self.changes += u64::from(taken.is_ok());
            self.note(format_args!("{taken:?}"));
        }
        self.poll(id);
    }

    fn note(&mut self, what: std::fmt::Arguments<'_>) {
        self.digest.write_fmt(what).expect("a digest takes all");
    }

    fn input(&mut self, id: NodeId, input: Input) {
        self.now = self.now.after(std::time::Duration::from_micros(self.numbers.below(1_000)));
        self.nodes.get_mut(&id).expect("five nodes").step(self.now, input);
        self.poll(id);
    }

    fn poll(&mut self, id: NodeId) {
        let mut output = Output::default();
        self.nodes.get_mut(&id).expect("five nodes").poll(&mut output);
        self.note(format_args!("{id} {output:?}"));
        self.installs += u64::from(output.restore.is_some());
        self.committed += output.committed.iter().count() as u64;
        let last = output.committed.last().map(|entry| entry.index);
        let last = last.or(output.restore.map(|snapshot| snapshot.index()));
        self.applied.extend(last.map(|index| (id, index)));
        self.mail.extend(output.messages);
        self.writes.extend(output.write.map(|write| (id, write.into_receipt())));
        self.chunks.extend(output.chunks.into_iter().map(|order| (id, order)));
        for incoming in output.incoming {
            match incoming {
                Incoming::Begin(snapshot) => self.held.push((id, snapshot.id(), 0)),
                Incoming::Chunk { snapshot, offset, bytes } => {
                    self.held.push((id, snapshot, offset + bytes.len() as u64));
                }
                Incoming::Abandon(_) => {}
            }
        }
        if output.snapshot_due {
            let node = self.nodes.get_mut(&id).expect("five nodes");
            if let Some(base) = node.snapshot_base(node.status().applied) {
                let digest = u128::from(base.position.index.0);
                node.step(self.now, Input::SnapshotCut(Snapshot { base, length: 25, digest }));
            }
        }
    }
}
