//! All records of a file together. The same seeds of the same code say nothing new: they count once.

use std::collections::BTreeSet;
use std::path::Path;

use crate::record::{self, Record};
use crate::{out, screen};

/// Prints them. Did all of them survive?
pub(crate) fn total(file: &Path) -> Result<bool, String> {
    let (records, warnings) = record::read(file)?;
    for warning in warnings {
        out::note(format!("warning: {warning}"));
    }
    let Counted { counted, again, twice } = count_once(&records);
    screen::table(&counted);
    if again > 0 {
        let lines = screen::counted(again, "line", "lines");
        out::line(format!("{lines} of seeds that the same code had run before: counted once"));
    }
    for line in twice {
        out::note(format!("warning: {line}"));
    }
    // Also of what does not count again: it may have failed only then.
    let failed: Vec<&Record> = records.iter().filter(|it| it.failed_count() > 0).collect();
    for record in &failed {
        let commit = record.commit.as_deref().unwrap_or("unknown code");
        let (first, last) = ends(record);
        out::line(format!(
            "FAILED: {} of the seeds {first} to {last} of {commit}, {} events: {}",
            screen::grouped(record.failed_count()),
            screen::grouped(record.events_per_seed),
            screen::seeds(&record.failed, record.failed_count())
        ));
    }
    if failed.is_empty() {
        out::line("none failed");
    }
    Ok(failed.is_empty())
}

struct Counted {
    /// What counts.
    counted: Vec<Record>,
    /// How many records do not: all of their seeds are in others.
    again: u64,
    /// Which seeds count twice all the same, for their records have others as well.
    twice: Vec<String>,
}

/// Larger records come first, so that what is within one is known by then.
fn count_once(records: &[Record]) -> Counted {
    let mut order: Vec<usize> = (0..records.len()).collect();
    order.sort_by_key(|&place| std::cmp::Reverse(records[place].seeds));
    let mut counts = BTreeSet::new();
    let mut all = Counted { counted: Vec::new(), again: 0, twice: Vec::new() };
    for place in order {
        let record = &records[place];
        let known =
            record.commit.as_ref().filter(|it| !it.ends_with("-dirty") && !it.ends_with('+'));
        let same_code = |other: &Record| {
            known.is_some()
                && other.commit.as_ref() == known
                && other.events_per_seed == record.events_per_seed
        };
        let others = counts.iter().map(|&other: &usize| &records[other]);
        let mut overlaps: Vec<(u64, u64)> = others
            .filter(|it| same_code(it) && it.seeds > 0)
            .filter_map(|it| overlap(it, record))
            .collect();
        overlaps.sort_unstable();
        let overlaps = merge(&overlaps);
        if record.seeds > 0 && overlaps == [ends(record)] {
            all.again += 1;
            continue;
        }
        let commit = record.commit.as_deref().unwrap_or_default();
        all.twice.extend(overlaps.iter().map(|&(first, last)| {
            format!("the seeds {first} to {last} of {commit} are in two campaigns, and count twice")
        }));
        counts.insert(place);
    }
    all.counted = counts.into_iter().map(|place| records[place].clone()).collect();
    all
}

/// The first seed and the last.
fn ends(record: &Record) -> (u64, u64) {
    (record.first_seed, record.first_seed.saturating_add(record.seeds.saturating_sub(1)))
}

fn overlap(one: &Record, other: &Record) -> Option<(u64, u64)> {
    let (one, other) = (ends(one), ends(other));
    let both = (one.0.max(other.0), one.1.min(other.1));
    (both.0 <= both.1).then_some(both)
}

/// Ranges that touch become one; they come in order.
fn merge(ranges: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for &(first, last) in ranges {
        match merged.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    fn counted(records: &[Record]) -> (Vec<u64>, u64, usize) {
        let Counted { counted, again, twice } = count_once(records);
        (counted.iter().map(|it| it.first_seed).collect(), again, twice.len())
    }

    #[test]
    fn the_same_seeds_count_once() {
        let all = record(1, 100, 0);
        // The same again, a part of it, and two halves of something that came later.
        assert_eq!(counted(&[all.clone(), all.clone()]), (vec![1], 1, 0));
        assert_eq!(counted(&[record(21, 10, 0), all.clone()]), (vec![1], 1, 0));
        let pieces = [record(1, 60, 0), record(61, 60, 0), record(50, 20, 0)];
        assert_eq!(counted(&pieces), (vec![1, 61], 1, 0));
        // Only some of them: told.
        assert_eq!(counted(&[all.clone(), record(91, 20, 0)]), (vec![1, 91], 0, 1));
        // Other code, or code that nobody knows.
        let other = Record { commit: Some("def".to_owned()), ..all.clone() };
        assert_eq!(counted(&[all.clone(), other]), (vec![1, 1], 0, 0));
        let dirty = Record { commit: Some("abc-dirty".to_owned()), ..all.clone() };
        assert_eq!(counted(&[dirty.clone(), dirty]), (vec![1, 1], 0, 0));
        let longer = Record { events_per_seed: 11, ..all.clone() };
        assert_eq!(counted(&[all, longer]), (vec![1, 1], 0, 0));
    }

    #[test]
    fn a_record_that_failed_fails_all() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("results.jsonl");
        record::append(&file, &mut vec![record(1, 10, 0)]).unwrap();
        assert_eq!(total(&file), Ok(true));
        record::append(&file, &mut vec![record(1, 10, 1)]).unwrap();
        assert_eq!(total(&file), Ok(false));
        assert!(total(&directory.path().join("nothing")).is_err());
    }
}
