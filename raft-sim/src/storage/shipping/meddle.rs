//! What happens to whole files while their node does not run: somebody tidies up, moves, copies and restores.

use raft_wal::sim::Damage;

use super::Store;
use crate::simulation::Kind;

/// So many copies of files are kept, to be put back later.
const COPIES_MAX: usize = 6;

/// Not everything can be done to every disk.
const TRIES: u32 = 4;

/// A disk as it was, after so many starts had found all that is on it.
pub struct Image {
    starts: u64,
    files: Vec<(String, Vec<u8>)>,
}

impl Store {
    /// Does something to a file of a node that does not run. What, if it made a difference.
    ///
    /// What would make the end of the log look as if its last write had never been is done only where a
    /// mark behind that write shows that it was: nobody could tell the one from the other.
    pub fn meddle(&mut self) -> Option<(Kind, String)> {
        assert!(self.log.is_none(), "the files of a running node are in use");
        (0..TRIES).find_map(|_| self.try_to_meddle())
    }

    fn try_to_meddle(&mut self) -> Option<(Kind, String)> {
        let (choice, leftover) = (self.random.u8(..9), self.random.u64(..1 << 20));
        if choice == 0 {
            return Some(self.leave_behind(leftover));
        }
        let name = self.rotting_file()?;
        let tail = self.is_tail(&name);
        if tail && (self.tail_rotten || !self.ended_marked) {
            return None;
        }
        let (kind, changed, harmless, what) = match choice {
            1 => {
                let harmless = self.may_change(&name);
                (Kind::FileMissing, self.sim.take(&name), harmless, "is gone".to_owned())
            }
            2 => {
                let other = self.other_name(&name)?;
                let harmless = self.may_be_copied(&name, &other, true);
                let changed = self.sim.rename_at_rest(&name, &other);
                (Kind::FileRenamed, changed, harmless, format!("is {other} now"))
            }
            3 => self.shorten(&name, Kind::FileTruncated)?,
            4 => self.shorten(&name, Kind::FileEmpty)?,
            5 => {
                let other = self.other_name(&name)?;
                let harmless = self.may_be_copied(&name, &other, false);
                let changed = self.sim.duplicate(&name, &other);
                (Kind::FileExtra, changed, harmless, format!("is {other} as well"))
            }
            _ => return self.put_older_back(),
        };
        changed.then(|| {
            self.note_damage(harmless);
            self.tail_rotten |= tail;
            (kind, format!("{name} {what}"))
        })
    }

    fn shorten(&mut self, name: &str, kind: Kind) -> Option<(Kind, bool, bool, String)> {
        let length = self.sim.read(name)?.len() as u64;
        let bytes = if kind == Kind::FileEmpty { 0 } else { self.random.u64(..length.max(1)) };
        let damage = Damage::Truncate { bytes };
        let harmless = self.is_harmless(name, &damage, length);
        let changed = self.sim.damage(name, &damage);
        Some((kind, changed, harmless, format!("has {bytes} of {length} bytes now")))
    }

    /// What an earlier process may have left, which is nothing to a log.
    fn leave_behind(&mut self, number: u64) -> (Kind, String) {
        let name = match number % 3 {
            0 => format!("incomplete-segment-{number}.tmp"),
            1 => format!("incomplete-snapshot-{number}.tmp"),
            _ => "lost+found".to_owned(),
        };
        self.sim.put(&name, vec![0xA5; 700]);
        (Kind::FileLeftover, format!("{name} is left"))
    }

    /// Another name that a file like this may have, taken or not.
    fn other_name(&mut self, name: &str) -> Option<String> {
        let (kind, rest) = name.split_once('-')?;
        let (first, second) = rest.split_once('-')?;
        let up = self.random.bool();
        let next = |digits: &str| {
            let number: u64 = digits.parse().ok()?;
            let number = if up { number + 1 } else { number.checked_sub(1)? };
            Some(format!("{number:0width$}", width = digits.len()))
        };
        match self.random.u8(..4) {
            0 => Some(format!("{name}.bak")),
            1 => Some(format!("{kind}-{}-{second}", next(first)?)),
            _ => Some(format!("{kind}-{first}-{}", next(second)?)),
        }
    }

    /// A copy of some file is made, now and then, when a node stops. Not of a snapshot that was about to take the
    /// place of the log, and may have no name on the disk yet: a log never was with it.
    pub(super) fn copy_something(&mut self) {
        let last = self.durable.last().index;
        let never_was = |name: &String| {
            let index = name.strip_prefix("snapshot-").and_then(|it| it.split('-').nth(1));
            index.and_then(|it| it.parse().ok()).is_some_and(|index: u64| index > last.0)
        };
        let mut names = self.sim.names();
        names.retain(|name| !never_was(name));
        let newest = names.iter().rposition(|name| name.starts_with("segment-"));
        let any = self.below(names.len());
        let Some(place) = newest.filter(|_| self.random.bool()).or(any) else { return };
        let content = self.sim.read(&names[place]).unwrap_or_default();
        if self.copies.len() >= COPIES_MAX {
            let place = self.random.usize(..COPIES_MAX);
            self.copies.remove(place);
        }
        self.copies.push((names[place].clone(), content));
    }

    /// A file is what it was some lives ago, or there again. Not the end of the log: without what came
    /// later nobody could tell that there was more.
    fn put_older_back(&mut self) -> Option<(Kind, String)> {
        let newer = |(name, content): &(String, Vec<u8>)| {
            !self.is_tail(name) && self.sim.read(name).as_ref() != Some(content)
        };
        let places = (0..self.copies.len()).filter(|&place| newer(&self.copies[place]));
        let places: Vec<usize> = places.collect();
        let place = places[self.below(places.len())?];
        let (name, content) = self.copies.remove(place);
        let harmless = self.may_change(&name);
        self.note_damage(harmless);
        let what = format!("{name} is what it was, {} bytes", content.len());
        self.sim.put(&name, content);
        Some((Kind::FileOlder, what))
    }

    /// The whole disk as it is.
    pub fn image(&self) -> Image {
        let files = self.sim.names().into_iter();
        let content = |name: String| self.sim.read(&name).map(|content| (name, content));
        Image { starts: self.starts, files: files.filter_map(content).collect() }
    }

    /// The whole disk is what it was, if nobody has read it all since and knows what has become of it.
    pub fn put_back(&mut self, image: &Image) -> bool {
        if image.starts != self.starts {
            return false;
        }
        for name in self.sim.names() {
            self.sim.take(&name);
        }
        for (name, content) in &image.files {
            self.sim.put(name, content.clone());
        }
        true
    }
}
