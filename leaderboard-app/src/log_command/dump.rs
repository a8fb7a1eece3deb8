//! `leaderboard log dump`: what a directory holds, segment by segment.

use std::io::Write;
use std::ops::RangeInclusive;

use raft_core::Snapshot;
use raft_wal::OpenError;
use raft_wal::inspect::{
    DescribedSnapshot, IdentitySummary, Inspector, LocatedRecord, Record, SegmentContent,
    SegmentSummary,
};
use serde::Serialize;

use super::records::{self, MembersField, RecordLine};
use super::{DumpArgs, LogError, Out, Output, holds_no_log, open, text};
use crate::cli::REFUSED_FOR_SAFETY;

/// Shows it; the exit code.
pub(super) fn run<W: Write>(args: &DumpArgs, out: &mut Out<W>) -> Result<u8, LogError> {
    let DumpArgs { dir, from, to, segments, output } = args;
    if from > to {
        return Err(LogError::EmptyRange { from: *from, to: *to });
    }
    let inspector = open(dir)?;
    let identity = match inspector.identity() {
        Ok(None) => return Err(holds_no_log(dir)),
        Ok(Some(identity)) => Ok(identity),
        // What the segments hold can be shown nevertheless.
        Err(error @ OpenError::Corrupt { .. }) => Err(error),
        Err(error) => return Err(error.into()),
    };
    let everything = *from == 0 && *to == u64::MAX;
    let mut dump = Dump {
        out,
        json: *output == Output::Json,
        range: *from..=*to,
        everything,
        records: !segments,
        damaged: false,
    };
    dump.directory(&identity)?;
    if everything {
        dump.snapshots(&inspector)?;
    }
    dump.segments(&inspector)?;
    Ok(if dump.damaged { REFUSED_FOR_SAFETY } else { 0 })
}

struct Dump<'a, W> {
    out: &'a mut Out<W>,
    json: bool,
    range: RangeInclusive<u64>,
    /// Also what has no index.
    everything: bool,
    records: bool,
    damaged: bool,
}

impl<W: Write> Dump<'_, W> {
    fn directory(&mut self, identity: &Result<IdentitySummary, OpenError>) -> Result<(), LogError> {
        match identity {
            Ok(IdentitySummary { identity, intact, format_version, .. }) => {
                self.damaged |= !intact;
                let (cluster, node) = (identity.cluster.as_str(), identity.node);
                let directory = format!("{:032x}", identity.incarnation);
                if self.json {
                    let node = node.get();
                    let line = Line::Directory {
                        directory,
                        cluster,
                        node,
                        format_version: *format_version,
                    };
                    return Ok(self.out.json(&line)?);
                }
                self.out.line(&format!("cluster {cluster:?}, node {node}"))?;
                self.out.line(&format!("format {format_version}, directory {directory}"))?;
                if !intact {
                    self.out.line("! IDENTITY: one of its two copies is damaged")?;
                }
                Ok(())
            }
            Err(error) => self.damage("the directory", 0, &error.to_string()),
        }
    }

    fn damage(&mut self, file: &str, offset: u64, what: &str) -> Result<(), LogError> {
        self.damaged = true;
        if self.json {
            return Ok(self.out.json(&Line::Damage { file, offset, what })?);
        }
        // In one line for whoever searches in it.
        let damage = format!("{file} at offset {offset}: {what}");
        Ok(self.out.paragraph("!", 2, &damage, usize::MAX)?)
    }

    fn snapshots(&mut self, inspector: &Inspector) -> Result<(), LogError> {
        for snapshot in inspector.snapshots()?.iter().rev() {
            let DescribedSnapshot { name, content, .. } = snapshot;
            match content {
                Ok(snapshot) if self.json => self.out.json(&Line::of_snapshot(name, snapshot))?,
                Ok(Snapshot { base, length, digest }) => {
                    let (position, members) = (base.position, &base.membership);
                    self.out.line("")?;
                    self.out.line(name)?;
                    self.out.short_line(&format!(
                        "  snapshot={position}/{length}  members {members}  digest {digest:032x}"
                    ))?;
                }
                Err(what) => self.damage(name, 0, what)?,
            }
        }
        Ok(())
    }

    fn segments(&mut self, inspector: &Inspector) -> Result<(), LogError> {
        let segments = inspector.segments()?;
        for replaced in segments.replaced() {
            if self.json {
                self.out.json(&Line::Replaced { segment: replaced })?;
            } else {
                self.out.line("")?;
                self.out.line(&format!("{replaced}  replaced by a newer segment, left out"))?;
            }
        }
        for segment in segments {
            self.segment(segment?)?;
        }
        Ok(())
    }

    fn segment(&mut self, content: SegmentContent) -> Result<(), LogError> {
        let summary = content.summary.clone();
        let ended_badly = summary.damage.is_some() || summary.torn_bytes > 0;
        let mut introduced = false;
        if self.everything || ended_badly {
            self.introduce(&summary)?;
            introduced = true;
        }
        if self.records {
            for record in content.into_records() {
                if !self.is_wanted(&record) {
                    continue;
                }
                if !introduced {
                    self.introduce(&summary)?;
                    introduced = true;
                }
                self.record(&summary.name, record)?;
            }
            if let Some(next) = summary.sealed_for.filter(|_| self.everything) {
                let (offset, group) = (summary.data_end, raft_core::GroupId::default());
                let seal = LocatedRecord { offset, group, record: Record::Seal(next) };
                self.record(&summary.name, seal)?;
            }
        }
        if summary.torn_bytes > 0 {
            let (file, offset) = (summary.name.as_str(), summary.data_end);
            let bytes = summary.torn_bytes;
            if self.json {
                self.out.json(&Line::Torn { file, offset, bytes })?;
            } else {
                self.out.line(&format!(
                    "{offset:>8}  torn: {bytes} bytes of a write that was never acknowledged"
                ))?;
            }
        }
        if let Some(damage) = &summary.damage {
            self.damage(&damage.file, damage.offset, &damage.what)?;
        }
        Ok(())
    }

    fn is_wanted(&self, located: &LocatedRecord) -> bool {
        let index = records::index(&located.record);
        self.everything || index.is_some_and(|index| self.range.contains(&index.0))
    }

    fn introduce(&mut self, summary: &SegmentSummary) -> Result<(), LogError> {
        self.damaged |= summary.header_copies < 2;
        if self.json {
            return Ok(self.out.json(&Line::of_segment(summary))?);
        }
        let SegmentSummary { name, base, records, batches, .. } = summary;
        self.out.line("")?;
        self.out.line(&format!("{name}  {}", state_of(summary)))?;
        if summary.header_copies == 0 {
            return Ok(());
        }
        let records = text::count(*records, "record");
        let batches =
            if *batches == 1 { "1 batch".to_owned() } else { format!("{batches} batches") };
        let vote = Record::HardState(summary.hard_state);
        self.out.short_line(&format!("  behind {base}, {vote}: {records} in {batches}"))?;
        if summary.header_copies == 1 {
            self.out.line("! one of the two copies of its header is damaged")?;
        }
        Ok(())
    }

    fn record(&mut self, segment: &str, located: LocatedRecord) -> Result<(), LogError> {
        if self.json {
            return Ok(self.out.json(&RecordLine::of(segment, located))?);
        }
        Ok(self.out.short_line(&records::line(&located))?)
    }
}

/// A segment's state in one word.
pub(super) fn state_of(summary: &SegmentSummary) -> &'static str {
    match summary {
        SegmentSummary { damage: Some(_), .. } => "damaged",
        SegmentSummary { torn_bytes: 1.., .. } => "torn",
        SegmentSummary { sealed_for: Some(_), .. } => "sealed",
        SegmentSummary { untouched: true, .. } => "prepared",
        _ => "open",
    }
}

/// A line for programs, records aside.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line<'a> {
    Directory {
        directory: String,
        cluster: &'a str,
        node: u64,
        format_version: u32,
    },
    Snapshot {
        file: &'a str,
        index: u64,
        term: u64,
        bytes: u64,
        digest: String,
        members: MembersField,
    },
    Replaced {
        segment: &'a str,
    },
    Segment {
        segment: &'a str,
        id: u64,
        state: &'static str,
        base_index: u64,
        base_term: u64,
        header_copies: u8,
        batches: u64,
        records: u64,
    },
    Torn {
        file: &'a str,
        offset: u64,
        bytes: u64,
    },
    Damage {
        file: &'a str,
        offset: u64,
        what: &'a str,
    },
}

impl<'a> Line<'a> {
    fn of_snapshot(file: &'a str, snapshot: &Snapshot) -> Self {
        let Snapshot { base, length, digest } = snapshot;
        Self::Snapshot {
            file,
            index: base.position.index.0,
            term: base.position.term.0,
            bytes: *length,
            digest: format!("{digest:032x}"),
            members: MembersField::of(&base.membership),
        }
    }

    fn of_segment(summary: &'a SegmentSummary) -> Self {
        Self::Segment {
            segment: &summary.name,
            id: summary.id,
            state: state_of(summary),
            base_index: summary.base.index.0,
            base_term: summary.base.term.0,
            header_copies: summary.header_copies,
            batches: summary.batches,
            records: summary.records,
        }
    }
}
