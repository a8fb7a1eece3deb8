//! Reads what `strace` writes down: system calls with their beginning and end.
//!
//! It stops a thread before a call and after it. So what it saw begin had not happened before, and
//! what it saw end had; traces of several processes can be compared by their times.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::path::Path;
use std::process::{Command, Stdio};

/// Why `strace` cannot be used here, if it cannot.
pub(crate) fn missing() -> Option<String> {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-o", "/dev/null", "-e", "trace=fdatasync", "true"]).stdin(Stdio::null());
    match strace.output() {
        Err(error) => Some(format!("needs `strace`: {error}")),
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Some(format!("`strace` does not work here: {}", said.trim()))
        }
    }
}

/// The command line, up to the program, that traces these system calls of all threads to a file,
/// with what file descriptors stand for; `options` may inject errors.
pub(crate) fn command(trace: &Path, calls: &str, options: &[&str]) -> Vec<String> {
    let (trace, calls) = (&trace.to_string_lossy(), format!("trace={calls}"));
    let fixed = ["strace", "-f", "-yy", "-ttt", "-T", "-s", "64", "-o", trace, "-e", &calls];
    fixed.iter().chain(options).map(|&word| word.to_owned()).collect()
}

/// A system call of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// Its name.
    pub(crate) name: String,
    /// Everything between the parentheses.
    pub(crate) arguments: String,
    /// What it returned, if it did.
    pub(crate) result: Option<i64>,
    /// It was not carried out: `strace` made it fail.
    pub(crate) injected: bool,
    /// When it began, in microseconds. Nothing of the call had happened before.
    pub(crate) began: u64,
    /// When it was seen to have returned.
    pub(crate) ended: u64,
}

impl Call {
    /// What the first argument, a file descriptor, stands for.
    pub(crate) fn file(&self) -> &str {
        let first = self.arguments.split_once('<').map_or("", |(_, rest)| rest);
        // Paths with a `>` in them do not occur here, connections do: `TCP:[a->b]`.
        let end = first.find(">,").or_else(|| first.rfind('>'));
        end.map_or("", |end| &first[..end])
    }

    /// The last part of the path that the first argument stands for.
    pub(crate) fn file_name(&self) -> &str {
        self.file().rsplit('/').next().unwrap_or_default()
    }

    /// The first quoted argument as printed, escapes and all, without the quotes.
    pub(crate) fn text(&self) -> &str {
        self.quoted(0)
    }

    /// The quoted argument with this number. None with quotes in them occur here before the one
    /// that is asked for.
    pub(crate) fn quoted(&self, number: usize) -> &str {
        self.arguments.split('"').nth(2 * number + 1).unwrap_or_default()
    }
}

/// The calls of a trace, in the order in which they began.
pub(crate) fn parse(trace: &str) -> Vec<Call> {
    const UNFINISHED: &str = " <unfinished ...>";
    let mut calls: Vec<Call> = Vec::new();
    // Of each thread the place of the call that has not returned.
    let mut unfinished = std::collections::BTreeMap::<&str, usize>::new();
    for line in trace.lines() {
        let Some((thread, time, what)) = split(line) else { continue };
        if let Some(rest) = what.strip_prefix("<... ") {
            if let (Some(place), Some((_, rest))) =
                (unfinished.remove(thread), rest.split_once(" resumed>"))
            {
                finish(&mut calls[place], rest);
                calls[place].ended = time;
            }
        } else if let Some((name, rest)) = what.split_once('(')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        {
            let mut call = Call {
                name: name.to_owned(),
                arguments: String::new(),
                result: None,
                injected: false,
                began: time,
                ended: u64::MAX,
            };
            if let Some(arguments) = rest.strip_suffix(UNFINISHED) {
                call.arguments = arguments.to_owned();
                unfinished.insert(thread, calls.len());
            } else {
                let took = finish(&mut call, rest);
                call.ended = time + took;
            }
            calls.push(call);
        }
    }
    calls
}

/// Thread, time in microseconds, and what happened.
fn split(line: &str) -> Option<(&str, u64, &str)> {
    let (thread, rest) = line.split_once(' ')?;
    let (time, what) = rest.trim_start().split_once(' ')?;
    Some((thread, micros(time)?, what))
}

/// Seconds with six digits behind the point.
fn micros(seconds: &str) -> Option<u64> {
    let (seconds, fraction) = seconds.split_once('.')?;
    Some(seconds.parse::<u64>().ok()? * 1_000_000 + fraction.parse::<u64>().ok()?)
}

/// Takes in the rest of a call: arguments that were missing, and `) = result <time>`. Returns how
/// long it took.
fn finish(call: &mut Call, rest: &str) -> u64 {
    let Some((arguments, result)) = rest.rsplit_once(" = ") else { return 0 };
    call.arguments.push_str(arguments.trim_end().trim_end_matches(')'));
    call.result = result.split(' ').next().and_then(|number| number.parse().ok());
    call.injected = result.contains("(INJECTED)");
    let took = result.rsplit_once('<').and_then(|(_, took)| micros(took.trim_end_matches('>')));
    took.unwrap_or(0)
}
