//! No acknowledgement leaves before a sync that covers it, as the kernel sees it.

use std::fs;

use super::child::{Plan, Running, Script, payload_bytes};
use super::order::{CALLS, Change, changes};
use super::strace::{self, Call};
use crate::scratch;
use crate::support::Twin;

const SEED: u64 = 4;

/// One write at a time, and many at once.
pub(crate) fn run() {
    for (burst_max, writes) in [(1, 150), (24, 600)] {
        let dir = scratch("acknowledgements");
        let log = dir.join("log");
        let plan = Plan { dir: log, seed: SEED, segment_bytes: 64 << 10, burst_max, writes };
        let trace = dir.join("trace");
        // All `write` calls, of which those to the pipe interest.
        let strace = strace::command(&trace, &format!("write,{CALLS}"), &[]);
        let said = Running::start(&plan, &strace).finish();
        assert!(said.done && said.acknowledged == writes, "{said:?}");

        let calls = strace::parse(&fs::read_to_string(&trace).unwrap());
        let changes = changes(&calls);
        let names = changes.iter().filter(|change| change.bytes == 0).count();
        assert!(names > 3, "the log went over to {names} segments only");
        let mut script = Script::new(SEED, Twin::default());
        let sizes: Vec<u64> = (0..writes).map(|_| payload_bytes(&script.next_write())).collect();
        let acknowledgements = check(&calls, &changes, &sizes).unwrap_or_else(|early| {
            panic!("{early}; see {}", trace.display());
        });
        assert_eq!(acknowledgements, writes);
        // The name of the directory itself, which was new.
        let acknowledged = calls.iter().find(|call| call.text().starts_with("ack ")).unwrap();
        let mut syncs = calls.iter().filter(|call| call.name == "fsync" && call.result == Some(0));
        let above = syncs
            .any(|call| call.file() == dir.to_str().unwrap() && call.ended < acknowledged.began);
        assert!(above, "the directory above a new one was not synced; see {}", trace.display());
        fs::remove_dir_all(&dir).unwrap();
    }
}

/// Looks at every acknowledgement of a trace; `sizes` are the bytes of the writes. Returns how many
/// there are, or what is wrong with one.
fn check(calls: &[Call], changes: &[Change], sizes: &[u64]) -> Result<u64, String> {
    let named_early = |change: &&Change| {
        change.began < change.counts_from && !change.is_durable_at(change.counts_from)
    };
    if let Some(change) = changes.iter().find(named_early) {
        return Err(format!("a segment gets its name before {} are durable", change.what));
    }
    let mut acknowledged = 0;
    let mut submitted: (usize, u64) = (0, 0);
    for call in calls.iter().filter(|call| call.name == "write") {
        let line = call.text().trim_end_matches("\\n");
        if let Some(number) = line.strip_prefix("submit ") {
            let number = number.parse().unwrap();
            if number == submitted.0 + 1 {
                // Alone on its way: what is written from here on can only be this one.
                submitted = (number, call.began);
            }
        }
        let Some(number) = line.strip_prefix("ack ") else { continue };
        let number: usize = number.parse().unwrap();
        acknowledged += 1;
        let before =
            |change: &&Change| change.began < call.began && change.counts_from < call.began;
        // The thread that writes is the one that says this, so nothing is on its way to the disk
        // that is not waited for.
        if let Some(change) =
            changes.iter().filter(before).find(|change| !change.is_durable_at(call.began))
        {
            let what = &change.what;
            return Err(format!("{number} is acknowledged before {what} are durable"));
        }
        // And the write itself has been there: less than its bytes cannot hold it.
        let bytes = |from: u64| -> u64 {
            let after = changes.iter().filter(before).filter(|change| change.began > from);
            after.map(|change| change.bytes).sum()
        };
        let alone = submitted.0 == number && number == acknowledged as usize;
        let (from, expected) = match alone {
            true => (submitted.1, sizes[number - 1]),
            false => (0, sizes[..number].iter().sum()),
        };
        if bytes(from) < expected {
            let bytes = bytes(from);
            return Err(format!("{number} is acknowledged when {bytes} of {expected} are durable"));
        }
    }
    Ok(acknowledged)
}

/// The check sees each of these faults in a trace that has it, and nothing in one that has none.
pub(crate) fn is_noticed() {
    let fine = [
        r#"7 pwrite64(5</d/spare-0.tmp>, "\0"..., 4096, 0) = 4096"#,
        r#"7 fdatasync(5</d/spare-0.tmp>) = 0"#,
        r#"7 rename("/d/spare-0.tmp", "/d/segment-1") = 0"#,
        r#"7 fsync(3</d>) = 0"#,
        r#"6 write(1<pipe:[1]>, "submit 1\n", 9) = 9"#,
        r#"7 pwrite64(5</d/segment-1>, "BTCH\"x"..., 1024, 4096 <unfinished ...>"#,
        r#"8 pwrite64(9</d/spare-1.tmp>, "\0"..., 4096, 0) = 4096"#,
        r#"7 <... pwrite64 resumed>) = 1024"#,
        r#"7 fdatasync(5</d/segment-1> <unfinished ...>"#,
        r#"8 fdatasync(9</d/spare-1.tmp>) = 0"#,
        r#"7 <... fdatasync resumed>) = 0"#,
        r#"7 write(1<pipe:[1]>, "ack 1\n", 6) = 6"#,
    ];
    let judge = |lines: &[&str]| {
        let timed = lines
            .iter()
            .enumerate()
            .map(|(at, line)| line.replacen(' ', &format!(" 1.{at:06} "), 1));
        let calls = strace::parse(&timed.collect::<Vec<_>>().join("\n"));
        check(&calls, &changes(&calls), &[900])
    };
    assert_eq!(judge(&fine), Ok(1));
    let changed = |change: fn(&mut Vec<&'static str>)| {
        let mut lines = fine.to_vec();
        change(&mut lines);
        lines
    };
    let faulty = [
        ("said before the sync returns", changed(|lines| lines.swap(10, 11))),
        ("never synced", changed(|lines| drop(lines.drain(8..11)))),
        ("synced before it was written", changed(|lines| lines.swap(7, 10))),
        ("another file synced", changed(|lines| lines[8] = "7 fdatasync(5</d/x> <unfinished ...>")),
        ("the sync fails", changed(|lines| lines[10] = "7 <... fdatasync resumed>) = -1 EIO (I)")),
        ("never written", changed(|lines| drop(lines.drain(5..8)))),
        ("only in part", changed(|lines| lines[7] = "7 <... pwrite64 resumed>) = 512")),
        ("a name that is not durable", changed(|lines| _ = lines.remove(3))),
        ("named before it is durable", changed(|lines| _ = lines.remove(1))),
    ];
    for (fault, lines) in faulty {
        judge(&lines).expect_err(fault);
    }
}
