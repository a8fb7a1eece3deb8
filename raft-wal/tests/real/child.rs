//! A process that writes to a log and tells, line by line, what it submitted and what was
//! acknowledged.
//!
//! What it says on its standard output, each line in one `write`:
//!
//!     opened            the log is there
//!     submit N          the writes up to number N are submitted from now on
//!     ack N             the write N was acknowledged; said before the writer thread goes on
//!     failed WHY        the log failed
//!     refused WHY       the log was not opened
//!     damaged WHAT      something at rest is damaged
//!     done              the log was closed

use std::fmt::Display;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, channel};

use raft_core::{Payload, Write};
use raft_wal::{Completion, Opened, Wal, WalConfig};

use crate::support::{Random, Twin, command, config, twin_of};

/// The first argument of this program when it is to be the child.
pub(crate) const RUN_CHILD: &str = "run-child";

/// What a child is to do: the rest is decided by the seed.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The directory of the log.
    pub(crate) dir: PathBuf,
    /// Decides the writes.
    pub(crate) seed: u64,
    /// The length of a segment.
    pub(crate) segment_bytes: u64,
    /// So many writes are submitted at once, at most. With 1 it waits for each acknowledgement.
    pub(crate) burst_max: u64,
    /// So many writes, then it closes the log.
    pub(crate) writes: u64,
}

impl Plan {
    pub(crate) fn config(&self) -> WalConfig {
        WalConfig { segment_bytes: self.segment_bytes, ..config_in(&self.dir) }
    }

    /// The command line of the child.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let Self { dir, seed, segment_bytes, burst_max, writes } = self;
        let dir = dir.to_str().unwrap().to_owned();
        let numbers = [seed, segment_bytes, burst_max, writes].map(ToString::to_string);
        [RUN_CHILD.to_owned(), dir].into_iter().chain(numbers).collect()
    }

    fn parse(arguments: &[String]) -> Self {
        let [dir, numbers @ ..] = arguments else { panic!("no directory") };
        let numbers: Vec<u64> = numbers.iter().map(|number| number.parse().unwrap()).collect();
        let &[seed, segment_bytes, burst_max, writes] = numbers.as_slice() else {
            panic!("{arguments:?}")
        };
        Self { dir: dir.into(), seed, segment_bytes, burst_max, writes }
    }
}

pub(crate) fn config_in(dir: &Path) -> WalConfig {
    WalConfig { dir: dir.to_owned(), ..config() }
}

/// The writes of one life, the same for parent and child.
pub(crate) struct Script {
    random: Random,
    /// What the log holds after the writes so far.
    pub(crate) twin: Twin,
}

impl Script {
    pub(crate) fn new(seed: u64, start: Twin) -> Self {
        Self { random: Random(seed), twin: start }
    }

    pub(crate) fn next_write(&mut self) -> Write {
        let write = if self.random.one_in(30) {
            // Long ones are written in more than one go by some layer or other.
            let (index, term) = (self.twin.last_index() + 1, self.twin.hard_state.term.0);
            let bytes = 5000 << self.random.below(8);
            Write::detached(None, None, vec![command(index, term, bytes)])
        } else {
            self.twin.random_write(&mut self.random)
        };
        self.twin.apply(&write);
        write
    }
}

/// Bytes of the commands in a write: it cannot take less on disk.
pub(crate) fn payload_bytes(write: &Write) -> u64 {
    let bytes = |payload: &Payload| match payload {
        Payload::Command(command) => command.len() as u64,
        Payload::Noop | Payload::Membership(_) => 0,
    };
    write.entries().iter().map(|entry| bytes(&entry.payload)).sum()
}

/// One line, in one system call.
fn say(line: impl Display) {
    // Without the parent there is nothing to do.
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).expect("the parent is there");
}

/// The child.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let plan = Plan::parse(arguments);
    let (tell, told) = channel();
    let mut acknowledged = 0_u64;
    let on_completion = move |completion| match completion {
        Completion::Durable(_receipt) => {
            acknowledged += 1;
            say(format_args!("ack {acknowledged}"));
            let _ = tell.send(());
        }
        Completion::Failed(error) => say(format_args!("failed {error}")),
        Completion::Damaged(repair) => say(format_args!("damaged {repair:?}")),
    };
    let Opened { wal, restored, .. } = match Wal::open(plan.config(), on_completion) {
        Ok(opened) => opened,
        Err(error) => {
            say(format_args!("refused {error}"));
            return ExitCode::FAILURE;
        }
    };
    say("opened");
    let script = Script::new(plan.seed, twin_of(&restored));
    submit_all(&plan, script, &wal, &told);
    match wal.close() {
        Ok(()) => {
            say("done");
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::FAILURE,
    }
}

/// Submits the writes of the plan, or those up to the failure of the log.
fn submit_all(plan: &Plan, mut script: Script, wal: &Wal, acknowledgements: &Receiver<()>) {
    // What is not in the log, and so not in the parent's script: the sizes of the bursts.
    let mut random = Random(!plan.seed);
    let (mut submitted, mut acknowledged) = (0, 0);
    while submitted < plan.writes {
        let burst = (1 + random.below(plan.burst_max)).min(plan.writes - submitted);
        let writes: Vec<Write> = (0..burst).map(|_| script.next_write()).collect();
        submitted += burst;
        say(format_args!("submit {submitted}"));
        writes.into_iter().for_each(|write| wal.submit(write));
        let in_flight = random.below(plan.burst_max);
        while submitted - acknowledged > in_flight {
            if acknowledgements.recv().is_err() {
                return;
            }
            acknowledged += 1;
        }
    }
}

/// A running child, as its parent sees it.
pub(crate) struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
    pub(crate) said: Said,
}

/// What a child said so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    pub(crate) opened: bool,
    pub(crate) submitted: u64,
    pub(crate) acknowledged: u64,
    pub(crate) failed: Vec<String>,
    pub(crate) refused: Option<String>,
    pub(crate) done: bool,
}

impl Running {
    /// Starts this program again as the child; `under` is what comes before it on the command line,
    /// for instance `strace` and its options.
    pub(crate) fn start(plan: &Plan, under: &[String]) -> Self {
        let this = std::env::current_exe().unwrap();
        let mut command = match under {
            [] => Command::new(this),
            [program, options @ ..] => {
                let mut command = Command::new(program);
                command.args(options).arg(this);
                command
            }
        };
        command.args(plan.arguments()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines, said: Said::default() }
    }

    /// Reads one more line; false when the child has ended.
    fn hear(&mut self) -> bool {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        // What a killed process began to say counts as not said.
        let Some(line) = line.strip_suffix('\n') else {
            return false;
        };
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let said = &mut self.said;
        match word {
            "opened" => said.opened = true,
            "submit" => said.submitted = rest.parse().unwrap(),
            "ack" => {
                assert!(said.failed.is_empty(), "acknowledged after a failure: {rest}");
                let number = rest.parse().unwrap();
                assert_eq!(said.acknowledged + 1, number, "in order");
                said.acknowledged = number;
            }
            "failed" => said.failed.push(rest.to_owned()),
            "refused" => said.refused = Some(rest.to_owned()),
            "done" => said.done = true,
            // Nothing here damages what is at rest.
            _ => panic!("the child says {line:?}"),
        }
        true
    }

    /// Listens until the log is open and this many writes are acknowledged, or the child has ended.
    pub(crate) fn wait_for(&mut self, acknowledged: u64) {
        while (!self.said.opened || self.said.acknowledged < acknowledged) && self.hear() {}
    }

    /// Listens until it is about to submit something, or has ended.
    pub(crate) fn wait_for_submission(&mut self) {
        let submitted = self.said.submitted;
        while self.said.submitted == submitted && self.hear() {}
    }

    /// Kills it, and returns all that it had said.
    pub(crate) fn kill(mut self) -> Said {
        // It may have ended by itself.
        let _ = self.child.kill();
        self.finish()
    }

    /// Waits for its end, and returns all that it said.
    pub(crate) fn finish(mut self) -> Said {
        while self.hear() {}
        self.child.wait().unwrap();
        self.said.clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // When a test panics.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The log after as many writes as make it what was restored: at least those that were
/// acknowledged, at most those that were submitted. Nothing if there is no such number.
pub(crate) fn prefix(seed: u64, start: &Twin, said: &Said, restored: &Twin) -> Option<u64> {
    let mut script = Script::new(seed, start.clone());
    for number in 0..=said.submitted {
        if number >= said.acknowledged && script.twin == *restored {
            return Some(number);
        }
        let _ = script.next_write();
    }
    None
}
