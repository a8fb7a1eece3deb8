//! Power cuts: which unsynced sectors and names survive, by chance or by choice.

use std::sync::{Arc, Mutex};

use super::SimDisk;
use super::file::FileState;
use super::state::{NameChange, State};
use crate::format::mix;

/// Something that a power cut now may keep or lose.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unsynced {
    /// A file was created.
    Create {
        /// Its name.
        name: String,
    },
    /// A file was renamed.
    Rename {
        /// The name before.
        from: String,
        /// The name after.
        to: String,
    },
    /// A file was removed.
    Remove {
        /// Its name.
        name: String,
    },
    /// A sector was written.
    Sector {
        /// The name of the file: the one that it has, or else one that it would have if changes of
        /// names were lost.
        name: String,
        /// The number of the sector in the file, from 0.
        sector: u64,
    },
}

/// Power cuts of one disk that is not changed by them: made by [`SimDisk::power_cuts`].
pub struct PowerCuts {
    base: State,
    seed: u64,
    items: usize,
    next: usize,
    count: usize,
}

/// A disk after a power cut.
pub struct PowerCut {
    /// The disk, as a new life finds it.
    pub disk: SimDisk,
    /// What survived: indexes into what [`SimDisk::unsynced`] returned for the disk before.
    pub survived: Vec<usize>,
}

impl PowerCuts {
    /// Is every subset among them?
    #[must_use]
    pub fn is_exhaustive(&self) -> bool {
        subsets(self.items).is_some_and(|subsets| subsets == self.count)
    }

    fn choose(&self, number: usize, fork: &mut State) -> Vec<bool> {
        if self.is_exhaustive() {
            return (0..self.items).map(|item| number >> item & 1 == 1).collect();
        }
        match number {
            0 => vec![false; self.items],
            1 => vec![true; self.items],
            _ => fork.draw_survivors(),
        }
    }
}

impl Iterator for PowerCuts {
    type Item = PowerCut;

    fn next(&mut self) -> Option<PowerCut> {
        if self.next == self.count {
            return None;
        }
        let number = self.next;
        self.next += 1;
        let mut fork = self.base.fork(mix(self.seed).wrapping_add(number as u64));
        let survives = self.choose(number, &mut fork);
        fork.cut_power(&survives);
        let survived = (0..self.items).filter(|&item| survives[item]).collect();
        let disk = SimDisk { state: Arc::new(Mutex::new(fork)), life: None };
        Some(PowerCut { disk, survived })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.count - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for PowerCuts {}

/// How many there are of so many items, if that is a number.
fn subsets(items: usize) -> Option<usize> {
    u32::try_from(items).ok().and_then(|items| 1_usize.checked_shl(items))
}

impl SimDisk {
    /// What a power cut now may keep or lose, each apart from all others. Changes of names in the
    /// order in which they were made, then sectors. Sectors for which it makes no difference are
    /// left out: rewritten with what they held, or of a file that no name can lead to.
    #[must_use]
    pub fn unsynced(&self) -> Vec<Unsynced> {
        self.state().unsynced()
    }

    /// A copy of this disk after a power cut, in which of what is [unsynced](Self::unsynced) only
    /// that survived whose index `survives` says so.
    #[must_use]
    pub fn after_power_cut(&self, seed: u64, survives: impl FnMut(usize) -> bool) -> Self {
        let mut fork = self.state().fork(seed);
        let survives: Vec<bool> = (0..fork.unsynced_count()).map(survives).collect();
        fork.cut_power(&survives);
        Self { state: Arc::new(Mutex::new(fork)), life: None }
    }

    /// Copies of this disk after power cuts: with every subset of what is
    /// [unsynced](Self::unsynced) if there are at most `count_max` of them; else `count_max` of
    /// them: nothing survives, all survives, and random ones from this seed.
    #[must_use]
    pub fn power_cuts(&self, count_max: usize, seed: u64) -> PowerCuts {
        let base = self.state().fork(seed);
        let items = base.unsynced_count();
        let count = subsets(items).unwrap_or(usize::MAX).min(count_max);
        PowerCuts { base, seed, items, next: 0, count }
    }
}

impl State {
    fn unsynced(&self) -> Vec<Unsynced> {
        let changes = self.name_changes.iter().cloned().map(|change| match change {
            NameChange::Create { name, .. } => Unsynced::Create { name },
            NameChange::Rename { from, to, .. } => Unsynced::Rename { from, to },
            NameChange::Remove { name } => Unsynced::Remove { name },
        });
        let mut unsynced: Vec<Unsynced> = changes.collect();
        for (_, state, name) in self.at_risk() {
            let sectors = state.unsynced().into_iter();
            unsynced.extend(
                sectors.map(|sector| Unsynced::Sector {
                    name: name.to_owned(),
                    sector: sector as u64,
                }),
            );
        }
        unsynced
    }

    /// The files of which a power cut could lose something, each with a name that it has or may get:
    /// of a file that no name leads to nothing is left anyway.
    fn at_risk(&self) -> impl Iterator<Item = (u64, &FileState, &str)> {
        let unsettled = self.files.iter().filter(|(_, state)| !state.is_settled());
        unsettled
            .filter_map(|(&file, state)| Some((file, state.as_ref(), self.possible_name(file)?)))
    }

    /// A name that leads to this file, now or after a power cut.
    fn possible_name(&self, file: u64) -> Option<&str> {
        let names = self.names.iter().chain(&self.durable_names);
        let pending = self.name_changes.iter().filter_map(NameChange::target);
        let all = names.map(|(name, file)| (name.as_str(), *file)).chain(pending);
        all.filter(|(_, named)| *named == file).map(|(name, _)| name).next()
    }

    fn unsynced_count(&self) -> usize {
        let sectors: usize = self.at_risk().map(|(_, state, _)| state.unsynced().len()).sum();
        self.name_changes.len() + sectors
    }

    /// For each thing that is unsynced, whether chance lets it survive.
    pub(super) fn draw_survivors(&mut self) -> Vec<bool> {
        let mut survives = Vec::new();
        // Each change of a name arrives or not, whatever the others do: harsher than journalling
        // file systems are.
        let keep_in_eight = [0, 4, 8][self.below(3)];
        let names = self.name_changes.len();
        survives.extend((0..names).map(|_| self.next_random() % 8 < keep_in_eight));
        let sectors: Vec<usize> =
            self.at_risk().map(|(_, state, _)| state.unsynced().len()).collect();
        for sectors in sectors {
            let keep_in_eight = self.keep_in_eight();
            survives.extend((0..sectors).map(|_| self.next_random() % 8 < keep_in_eight));
        }
        survives
    }

    /// Of what is unsynced, in the order of [`Self::unsynced`], keeps what survives.
    pub(super) fn cut_power(&mut self, survives: &[bool]) {
        let mut survives = survives.iter().copied();
        let mut survives = || survives.next().unwrap_or(false);
        let at_risk: Vec<u64> = self.at_risk().map(|(file, ..)| file).collect();
        for change in std::mem::take(&mut self.name_changes) {
            if survives() {
                change.apply(&mut self.durable_names);
                self.stats.names_kept += 1;
            } else {
                self.stats.names_lost += 1;
            }
        }
        self.names = self.durable_names.clone();
        for file in at_risk {
            let Some(state) = self.files.get_mut(&file) else {
                continue;
            };
            let (mut kept, mut lost) = (0, 0);
            Arc::make_mut(state).lose_unsynced(|| {
                let survives = survives();
                *if survives { &mut kept } else { &mut lost } += 1;
                survives
            });
            self.stats.sectors_kept += kept;
            self.stats.sectors_lost += lost;
            self.stats.files_torn += u64::from(kept > 0 && lost > 0);
        }
        self.stats.power_cuts += 1;
        self.begin_life();
    }
}

impl NameChange {
    fn target(&self) -> Option<(&str, u64)> {
        match self {
            Self::Create { name, file } | Self::Rename { to: name, file, .. } => {
                Some((name, *file))
            }
            Self::Remove { .. } => None,
        }
    }
}
