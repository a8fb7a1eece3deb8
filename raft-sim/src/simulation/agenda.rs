//! What is going to happen, in the order of time; and chance, split so that no draw disturbs another.
//!
//! Everything on the agenda has a seed of its own, drawn from the one that put it there. A run is a tree of
//! causes: leave one fault out of it, and all that does not follow from that fault draws the same as before.
//! That is what makes a failing run shrink.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use raft_core::Instant;

/// What is going to happen, soonest first; at the same time, what was put there first.
#[derive(Debug)]
pub(super) struct Agenda<T> {
    heap: BinaryHeap<Reverse<Planned<T>>>,
    next_number: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Planned<T> {
    pub at: Instant,
    /// Of its kind the only one.
    number: u64,
    /// Decides all that is drawn when it happens.
    pub seed: u64,
    pub what: T,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), next_number: 0 }
    }
}

impl<T> Agenda<T> {
    pub(super) fn add(&mut self, at: Instant, seed: u64, what: T) {
        self.next_number += 1;
        let number = self.next_number;
        self.heap.push(Reverse(Planned { at, number, seed, what }));
    }

    /// When the next thing happens.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(planned)| planned.at)
    }

    pub(super) fn pop(&mut self) -> Option<Planned<T>> {
        self.heap.pop().map(|Reverse(planned)| planned)
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        self.heap.retain(|Reverse(planned)| keep(&planned.what));
    }
}

impl<T> PartialEq for Planned<T> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<T> Eq for Planned<T> {}

impl<T> PartialOrd for Planned<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Planned<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}
