//! Single steps of the whole: how a configuration gets to where it begins, and how a path is told.

use raft_core::{NodeId, Status};

use super::action::{Act, Carried};
use super::model::{Model, Move};
use super::rows::{Row, Rows};

impl Model {
    /// What a move says, and what the node then sends.
    pub fn told(&mut self, row: &Row, by: Move) -> Vec<String> {
        let (mut lines, outcome) = self.line_and_outcome(row, by);
        let step = outcome.and_then(|it| self.outcomes[it as usize].as_ref().ok());
        if let Some(step) = step {
            lines.extend(step.sends.iter().map(|&mail| format!("    {}", self.envelope(mail))));
            let status = self.sites.values[step.site as usize].node.status();
            lines.push(format!("    {}", line(&status)));
        }
        lines
    }

    /// What the move from `row` to `next` sends and loses at once: there was no room for it, or it answers
    /// what is over.
    pub fn lost(&mut self, row: &Row, by: Move, next: &Row) -> Vec<String> {
        let (_, outcome) = self.line_and_outcome(row, by);
        let step = outcome.and_then(|it| self.outcomes[it as usize].as_ref().ok());
        let sends = step.map_or(&[][..], |step| &step.sends);
        let on_the_way = &next[self.size() + 3..];
        let lost = sends.iter().filter(|mail| !on_the_way.contains(mail));
        lost.map(|&mail| format!("drop  # {}", self.envelope(mail))).collect()
    }

    fn line_and_outcome(&mut self, row: &Row, by: Move) -> (Vec<String>, Option<u32>) {
        match by {
            Move::Mail { carried, mail } => {
                let envelope = self.envelope(mail).clone();
                let line = match carried {
                    Carried::Dropped => format!("drop  # {envelope}"),
                    Carried::Delivered | Carried::Duplicated => format!("{carried}> {envelope}"),
                };
                let node = self.mails.values[mail as usize].to;
                let delivered = carried != Carried::Dropped;
                (vec![line], delivered.then(|| self.delivery(row[node], mail)))
            }
            Move::Item { node, item } => {
                let menu = self.menu(row[usize::from(node)]);
                let item = &menu[usize::from(item)];
                let id: NodeId = self.cluster.nodes[usize::from(node)].id;
                (vec![item.act.told(id)], Some(item.outcome))
            }
        }
    }

    /// For the way to where a configuration begins: node `node` does `act`, whatever the bounds.
    pub fn act(&mut self, row: &Row, node: usize, act: &Act) -> Vec<u32> {
        let outcome = self.compute(row[node], act);
        self.forced(row, node, outcome, None)
    }

    /// As `act`: of the messages on their way, the first that is told so arrives.
    pub fn carry(&mut self, row: &Row, told: &str) -> Vec<u32> {
        let place = self.place(row, told);
        let node = self.mails.values[row[place] as usize].to;
        let outcome = self.delivery(row[node], row[place]);
        self.forced(row, node, outcome, Some(place))
    }

    /// The first message that is told so is lost.
    pub fn lose(&mut self, row: &Row, told: &str) -> Vec<u32> {
        let mut row = row.to_vec();
        row.remove(self.place(&row, told));
        row
    }

    fn place(&self, row: &Row, told: &str) -> usize {
        let mut mails = self.size() + 3..row.len();
        let found = mails.find(|&at| self.envelope(row[at]).to_string().starts_with(told));
        found.unwrap_or_else(|| panic!("no {told} is on its way"))
    }

    /// As `act`: all messages are delivered, and all writes done, until there are none; those to nodes in
    /// `lost` are dropped.
    pub fn settle(&mut self, row: &Row, lost: &[usize]) -> Vec<u32> {
        let size = self.size();
        let mut row = row.to_vec();
        loop {
            let written = (0..size).find_map(|node| {
                self.site_at(&row, node).unwritten().next().map(|place| (node, place))
            });
            if let Some((node, place)) = written {
                row = self.act(&row, node, &Act::Written(place));
                continue;
            }
            let Some(&mail) = row.get(size + 3) else { return row };
            let node = self.mails.values[mail as usize].to;
            if lost.contains(&node) {
                row.remove(size + 3);
            } else {
                let outcome = self.delivery(row[node], mail);
                row = self.forced(&row, node, outcome, Some(size + 3));
            }
        }
    }

    fn forced(&mut self, row: &Row, node: usize, outcome: u32, place: Option<usize>) -> Vec<u32> {
        let (mut rows, mut moves) = (Rows::default(), Vec::new());
        let by = Move::Item { node: node as u8, item: 0 };
        let spent = self.spent(row);
        let messages = std::mem::replace(&mut self.cluster.bounds.messages, usize::MAX);
        let term = std::mem::replace(&mut self.cluster.bounds.term, u64::MAX);
        let done = self.follow(row, node, outcome, place, spent, by, &mut rows, &mut moves);
        self.cluster.bounds.messages = messages;
        self.cluster.bounds.term = term;
        if let Err((_, broken)) = done {
            panic!("on the way to the first state: {broken}");
        }
        rows.iter().next().expect("nothing is out of bounds").to_vec()
    }
}

/// As a line of `status` in a golden script.
fn line(status: &Status) -> String {
    let Status { id, role, term, voted_for, last, durable, commit, .. } = status;
    let vote = voted_for.map_or(String::from("-"), |id| id.to_string());
    format!("{id}@{term} {role} vote={vote} last={last} durable={durable} commit={commit}")
}
