//! Breadth first: every state that can be reached is looked at once, the nearest first, so that the path
//! to a broken invariant is a shortest one.

use std::time::Instant;

use xxhash_rust::xxh3::xxh3_64;

use super::effects::Sight;
use super::model::{Cluster, Model, Move};
use super::rows::{Row, Rows};
use super::table::Table;

/// So many sites that were reached in two ways are compared.
const TWINS_MAX: usize = 500;

/// The way to where a configuration begins.
pub type Prologue = fn(&mut Model) -> Vec<u32>;

/// What a search has found.
pub struct Report {
    pub states: usize,
    pub transitions: usize,
    pub depth: usize,
    pub seconds: f64,
    /// Sites, messages, and steps of single nodes that were computed.
    pub parts: [usize; 3],
    pub bytes: usize,
    pub seen: u64,
    /// How many sites that were reached in two ways were compared, and how many of those differ in what does
    /// not count: see `Model::compare_twins`.
    pub twins: (usize, usize),
    pub broken: Option<Broken>,
}

/// An invariant is broken.
pub struct Broken {
    pub what: String,
    /// How to get there.
    pub path: Vec<String>,
}

impl Report {
    /// The chance that a state was taken for another one because their fingerprints are the same, as TLC
    /// computes it: of all pairs of a state that was found and one that was found again.
    pub fn collision(&self) -> f64 {
        let (distinct, all) = (self.states as f64, self.transitions as f64);
        distinct * (all - distinct).max(0.0) / 2f64.powi(64)
    }

    pub fn saw(&self, sight: Sight) -> bool {
        self.seen & sight.bit() != 0
    }
}

/// Where a search stopped.
struct Stop {
    row: Vec<u32>,
    by: Option<Move>,
    what: String,
}

struct Search {
    model: Model,
    table: Table,
    first: Vec<u32>,
    transitions: usize,
    depth: usize,
    bytes: usize,
}

/// Looks at every state of the cluster, beginning where the prologue ends.
pub fn explore(cluster: &Cluster, prologue: Prologue) -> Report {
    let begun = Instant::now();
    let mut search = Search::new(cluster, prologue, false);
    let stop = search.run();
    let twins = if stop.is_none() { search.model.compare_twins() } else { (0, 0) };
    let broken = stop.map(|stop| {
        if stop.by.is_none() {
            return Broken { what: stop.what, path: Vec::new() };
        }
        // Once more, to note how each state was reached. It takes memory, and only now is it needed.
        let mut again = Search::new(cluster, prologue, true);
        let stop = again.run().unwrap_or(stop);
        Broken { path: again.path(&stop), what: stop.what }
    });
    Report {
        states: search.table.len(),
        transitions: search.transitions,
        depth: search.depth,
        seconds: begun.elapsed().as_secs_f64(),
        parts: search.model.parts(),
        bytes: search.bytes,
        seen: search.model.seen,
        twins,
        broken,
    }
}

impl Search {
    fn new(cluster: &Cluster, prologue: Prologue, with_parents: bool) -> Self {
        let mut model = Model::new(cluster.clone());
        let first = prologue(&mut model);
        model.seen = 0;
        model.twins_wanted = TWINS_MAX;
        let table = Table::new(with_parents);
        Self { model, table, first, transitions: 0, depth: 0, bytes: 0 }
    }

    fn run(&mut self) -> Option<Stop> {
        let mut now = Rows::default();
        now.push(&self.first);
        self.table.insert(fingerprint(&self.first), 0);
        let first = self.first.clone();
        if let Err(what) = self.model.check(&first) {
            let what = format!("in the first state: {what}");
            return Some(Stop { row: first, by: None, what });
        }
        let mut next = Rows::default();
        let limit = limit();
        while now.count > 0 {
            if let Err(stop) = self.level(&now, &mut next) {
                return Some(stop);
            }
            self.bytes = self.bytes.max(self.table.bytes() + now.bytes() + next.bytes());
            if next.count > 0 {
                self.depth += 1;
            }
            if self.table.len() > limit {
                let what = format!("MODEL_LIMIT at depth {}", self.depth);
                return Some(Stop { row: self.first.clone(), by: None, what });
            }
            std::mem::swap(&mut now, &mut next);
            next.clear();
        }
        None
    }

    /// All that follows on the states of one depth.
    fn level(&mut self, now: &Rows, next: &mut Rows) -> Result<(), Stop> {
        let (mut rows, mut moves) = (Rows::default(), Vec::new());
        for row in now.iter() {
            rows.clear();
            moves.clear();
            let expanded = self.model.expand(row, &mut rows, &mut moves);
            let from = fingerprint(row);
            for (successor, &by) in rows.iter().zip(&moves) {
                self.transitions += 1;
                if !self.table.insert(fingerprint(successor), from) {
                    continue;
                }
                if let Err(what) = self.model.check(successor) {
                    return Err(Stop { row: row.to_vec(), by: Some(by), what });
                }
                next.push(successor);
            }
            if let Err((by, what)) = expanded {
                return Err(Stop { row: row.to_vec(), by: Some(by), what });
            }
        }
        Ok(())
    }

    /// How the state was reached where the search stopped, told.
    fn path(&mut self, stop: &Stop) -> Vec<String> {
        let mut chain = vec![fingerprint(&stop.row)];
        while let Some(parent) = chain.last().and_then(|&last| self.table.parent(last))
            && parent != 0
        {
            chain.push(parent);
        }
        let mut row = self.first.clone();
        let mut lines = Vec::new();
        for &wanted in chain.iter().rev().skip(1) {
            let (mut rows, mut moves) = (Rows::default(), Vec::new());
            let _broken = self.model.expand(&row, &mut rows, &mut moves);
            let found = rows.iter().zip(&moves).find(|(it, _)| fingerprint(it) == wanted);
            let Some((next, &by)) = found else { break };
            let next = next.to_vec();
            lines.extend(self.model.told(&row, by));
            lines.extend(self.model.lost(&row, by, &next));
            row = next;
        }
        lines.extend(stop.by.map(|by| self.model.told(&row, by)).unwrap_or_default());
        lines
    }
}

/// `MODEL_LIMIT=1000000` gives up after so many states, to find out how large a configuration is.
fn limit() -> usize {
    let set = std::env::var("MODEL_LIMIT").ok();
    set.map_or(usize::MAX, |text| text.parse().expect("MODEL_LIMIT is a number"))
}

/// A state as 64 bits.
fn fingerprint(row: &Row) -> u64 {
    let mut bytes = [0; 4 * 64];
    let bytes = &mut bytes[..4 * row.len()];
    for (place, word) in bytes.chunks_exact_mut(4).zip(row) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    xxh3_64(bytes)
}
