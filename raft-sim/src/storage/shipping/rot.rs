//! What happens to bytes at rest.

use raft_wal::sim::Damage;

use super::Store;
use crate::simulation::Kind;

pub(super) const SECTOR_BYTES: u64 = 512;
/// Of a segment, as long as there are few members.
const HEADER_BYTES: u64 = 8192;

impl Store {
    /// Damages something that lies on the disk. What and where, if it made a difference.
    ///
    /// A single fault at a time in the tail of the log: and one that looks as if its last write had never
    /// been, only where a mark shows that it was. Nobody could tell the one from the other.
    pub fn rot(&mut self) -> Option<(Kind, String)> {
        let name = self.rotting_file()?;
        let content = self.sim.read(&name)?;
        let used = content.iter().rposition(|&byte| byte != 0)? as u64 + 1;
        let tail = self.is_tail(&name);
        if tail && self.tail_rotten {
            return None;
        }
        let damage =
            self.damage(&name, used.next_multiple_of(SECTOR_BYTES).min(content.len() as u64));
        let marked = self.log.as_ref().is_some_and(raft_wal::Log::is_marked);
        let plain = matches!(damage, Damage::FlipBit { .. } | Damage::Garbage { .. });
        if tail && !marked && !plain || !self.sim.damage(&name, &damage) {
            return None;
        }
        let harmless = self.is_harmless(&name, &damage, content.len() as u64);
        self.note_damage(harmless);
        self.tail_rotten |= tail;
        self.unreadable |= matches!(damage, Damage::Unreadable { .. });
        let kind = match damage {
            Damage::Stale { .. } => Kind::SectorStale,
            Damage::Misplaced { .. } => Kind::SectorMisplaced,
            Damage::Unreadable { .. } => Kind::SectorUnreadable,
            Damage::Truncate { .. } => Kind::FileTruncated,
            _ => Kind::SectorBad,
        };
        Some((kind, format!("{name}: {damage:?}")))
    }

    /// A segment most often, a snapshot, the identity.
    pub(super) fn rotting_file(&mut self) -> Option<String> {
        let prefix = match self.random.u8(..16) {
            0 => "IDENTITY",
            1..=4 => "snapshot-",
            _ => "segment-",
        };
        let ours = |name: &String| name.starts_with(prefix) && !name.ends_with(".broken");
        let names: Vec<String> = self.sim.names().into_iter().filter(ours).collect();
        // The end of the log and the newest snapshot are what matters most.
        let newest = self.random.bool();
        let chosen = if newest { names.len().checked_sub(1)? } else { self.below(names.len())? };
        names.into_iter().nth(chosen)
    }

    pub(super) fn below(&mut self, bound: usize) -> Option<usize> {
        (bound > 0).then(|| self.random.usize(..bound))
    }

    /// Somewhere in the first so many bytes; of a segment most often behind its header.
    fn damage(&mut self, name: &str, bytes: u64) -> Damage {
        let behind_header = name.starts_with("segment-") && self.random.u8(..4) > 0;
        let first =
            if behind_header { HEADER_BYTES.min(bytes - SECTOR_BYTES.min(bytes)) } else { 0 };
        let choice = self.random.u8(..9);
        if choice > 5 {
            let sectors = bytes.div_ceil(SECTOR_BYTES);
            let mut any = || self.random.u64(first / SECTOR_BYTES..sectors);
            let (sector, from_sector) = (any(), any());
            return Damage::Misplaced { sector, from: name.to_owned(), from_sector };
        }
        if choice == 2 || choice == 4 {
            let sectors = first / SECTOR_BYTES..bytes.div_ceil(SECTOR_BYTES);
            return Damage::Stale { sector: self.random.u64(sectors) };
        }
        if choice == 3 {
            let sectors = first / SECTOR_BYTES..bytes.div_ceil(SECTOR_BYTES);
            return Damage::Unreadable { sector: self.random.u64(sectors) };
        }
        match Damage::random(bytes - first, self.random.u64(..)) {
            Damage::FlipBit { at, bit } => Damage::FlipBit { at: at + first, bit },
            Damage::Garbage { at, bytes, seed } => Damage::Garbage { at: at + first, bytes, seed },
            Damage::Zeros { at, bytes } => Damage::Zeros { at: at + first, bytes },
            Damage::Stale { sector } => Damage::Stale { sector: sector + first / SECTOR_BYTES },
            Damage::Unreadable { sector } => {
                Damage::Unreadable { sector: sector + first / SECTOR_BYTES }
            }
            Damage::Truncate { bytes } => Damage::Truncate { bytes: bytes + first },
            other => other,
        }
    }

    /// Is it the segment that is, or was last, written to?
    pub(super) fn is_tail(&self, name: &str) -> bool {
        let number = |name: &str| {
            let (_, number) = name.strip_prefix("segment-")?.split_once('-')?;
            number.parse::<u64>().ok()
        };
        // Behind one that was just begun the log may yet end with the one before.
        let newest = self.segment_numbers().max().unwrap_or(0);
        number(name).is_some_and(|number| number + 1 >= newest)
    }
}
