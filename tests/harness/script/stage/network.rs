//! The network of a script: messages on their way, and links that lose them.

use std::error::Error;

use raft_core::{Envelope, Input, Message, NodeId};

use super::{Outcome, STEPS_MAX, Stage, Which};

impl Stage {
    pub fn deliver(&mut self, which: &Which) -> Outcome {
        for envelope in self.take(which)? {
            self.arrive(envelope)?;
        }
        Ok(())
    }

    pub fn lose(&mut self, which: &Which) -> Outcome {
        for envelope in self.take(which)? {
            self.note(format_args!("lost: {envelope}"));
        }
        Ok(())
    }

    pub fn duplicate(&mut self, which: &Which) -> Outcome {
        for at in self.matching(which)?.into_iter().rev() {
            self.network.insert(at + 1, self.network[at].clone());
        }
        Ok(())
    }

    pub fn delay(&mut self, which: &Which) -> Outcome {
        for envelope in self.take(which)? {
            self.note(format_args!("delayed: {envelope}"));
            self.delayed.push(envelope);
        }
        Ok(())
    }

    pub fn release(&mut self) {
        self.network.append(&mut self.delayed);
    }

    pub fn stabilize(&mut self) -> Outcome {
        for _ in 0..STEPS_MAX {
            if self.network.is_empty() {
                return Ok(());
            }
            let envelope = self.network.remove(0);
            self.arrive(envelope)?;
        }
        Err("messages cause messages without end".into())
    }

    /// A message arrives. One to a stopped node, or to nobody, is lost.
    pub fn arrive(&mut self, envelope: Envelope) -> Outcome {
        let cluster = self.cluster()?;
        let to = envelope.to;
        if !cluster.members.contains_key(&to) || !cluster.is_up(to) {
            self.note(format_args!("lost: {envelope}"));
            return Ok(());
        }
        cluster.step(to, Input::Message(envelope));
        self.settle(to)?;
        Ok(())
    }

    /// A byte of the pieces of snapshots among them is wrong from now on.
    pub fn garble(&mut self, which: &Which) -> Outcome {
        let mut chunks = 0;
        for at in self.matching(which)? {
            if let Message::SnapshotChunk { bytes: Some(bytes), .. } = &mut self.network[at].message
            {
                let mut wrong = bytes.to_vec();
                wrong[0] ^= 1;
                *bytes = wrong.into();
                chunks += 1;
            }
        }
        if chunks == 0 { Err("none of them carries a piece of a snapshot".into()) } else { Ok(()) }
    }

    pub fn partition(&mut self, side: Vec<NodeId>) {
        self.partition = side.into_iter().collect();
    }

    pub fn cut_link(&mut self, one: NodeId, other: NodeId) {
        self.cut.extend([(one, other), (other, one)]);
    }

    pub fn cut_one_way(&mut self, from: NodeId, to: NodeId) {
        self.cut.insert((from, to));
    }

    pub fn heal(&mut self) {
        self.partition.clear();
        self.cut.clear();
    }

    /// A message leaves its sender.
    pub(super) fn send(&mut self, envelope: Envelope) {
        let (from, to) = (envelope.from, envelope.to);
        let crosses = self.partition.contains(&from) != self.partition.contains(&to);
        if (crosses && !self.partition.is_empty()) || self.cut.contains(&(from, to)) {
            self.note(format_args!("lost: {envelope}"));
        } else {
            self.note(format_args!("{envelope}"));
            self.network.push(envelope);
        }
    }

    pub fn show_network(&mut self) {
        let lines: Vec<String> = self.network.iter().map(ToString::to_string).collect();
        self.note(format_args!("{}", lines.join("\n")));
    }

    fn take(&mut self, which: &Which) -> Result<Vec<Envelope>, Box<dyn Error>> {
        let chosen = self.matching(which)?;
        let taken = chosen.iter().map(|&at| self.network[at].clone()).collect();
        for at in chosen.into_iter().rev() {
            self.network.remove(at);
        }
        Ok(taken)
    }

    /// Where in the network these messages are; an error if nothing matches, for then the script
    /// does not do what it says.
    fn matching(&self, which: &Which) -> Result<Vec<usize>, Box<dyn Error>> {
        if let Some(key) = which.keys().find(|key| !["from", "to", "skip", "n"].contains(&&***key))
        {
            return Err(format!("messages are chosen by from, to, skip, n, not by {key}").into());
        }
        let number = |key: &str, default| match which.get(key) {
            Some(&number) => usize::try_from(number),
            None => Ok(default),
        };
        let is = |key: &str, id: NodeId| which.get(key).is_none_or(|&number| number == id.get());
        let all = (0..self.network.len())
            .filter(|&at| is("from", self.network[at].from) && is("to", self.network[at].to));
        let chosen: Vec<usize> =
            all.skip(number("skip", 0)?).take(number("n", usize::MAX)?).collect();
        if chosen.is_empty() {
            return Err("no such message is on its way".into());
        }
        Ok(chosen)
    }
}
