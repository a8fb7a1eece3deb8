//! `leaderboard log`: looks into the log directory of a node that does not run, and changes nothing.

use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use raft_wal::OpenError;
use raft_wal::inspect::Inspector;
use serde::Serialize;

use crate::cli::{BAD_USAGE, DISK_FAILURE, FAILED, REFUSED_FOR_SAFETY};

mod dump;
mod progress;
mod records;
mod table;
mod text;
mod verify;

/// Options of `leaderboard log`.
#[derive(Clone, Debug, Args)]
pub(crate) struct LogArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Show what a log directory holds, record by record
    #[command(after_long_help = DUMP_HELP)]
    Dump(DumpArgs),
    /// Check a log directory, and tell what a start would do with it
    #[command(after_long_help = VERIFY_HELP)]
    Verify(VerifyArgs),
}

/// Options of `leaderboard log dump`.
#[derive(Clone, Debug, Args)]
struct DumpArgs {
    /// The directory: the --data-dir of a node that does not run, or a copy of it
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Only records about this index and later ones
    #[arg(long, value_name = "INDEX", default_value_t = 0, hide_default_value = true)]
    from: u64,
    /// Only records about this index and earlier ones
    #[arg(long, value_name = "INDEX", default_value_t = u64::MAX, hide_default_value = true)]
    to: u64,
    /// Only what segments and snapshots say about themselves, no records
    #[arg(long)]
    segments: bool,
    /// How it is shown
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

/// Options of `leaderboard log verify`.
#[derive(Clone, Debug, Args)]
struct VerifyArgs {
    /// The directory: the --data-dir of a node that does not run, or a copy of it
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// How it is shown
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// For programs: JSON objects, one on each line
    Json,
}

const DUMP_HELP: &str = "\
A line is a record: where it stands in the file, then its index@term, the clock
of the leader that made it, and what it says; or a vote, a truncation, and so
on. On a terminal lines are cut at its width. A segment that a newer one
replaces is named, but its records are left out. Nothing is changed, and no
more than one segment is in memory at a time.

While a node runs on the directory its files change as they are read, so it is
refused: stop the node first, or look into a copy (one that was made while the
node ran may look torn at its end). A node that is started meanwhile finds the
directory in use and does not start.

Examples:
  leaderboard log dump data/1 | less
  leaderboard log dump --segments data/1
  leaderboard log dump --from 1000 --to 1010 data/1
  leaderboard log dump -o json data/1 |
      jq -c 'select(.command.player == \"alice\")'

Exit codes: 0 shown, 1 not a log directory, 2 bad usage, 3 damage was found, or
the directory is in use or of another version, 4 the disk cannot be read.";

const VERIFY_HELP: &str = "\
Everything is read and compared with its checksums, and nothing is changed.
What a start would do is decided by the code that a start runs; it takes as
much memory as that. Segments are sealed, open (written last), prepared (not
used yet), torn, damaged, or replaced by a newer one.

While a node runs on the directory its files change as they are read, so it is
refused: stop the node first, or check a copy (one that was made while the node
ran may look torn at its end). A node that is started meanwhile finds the
directory in use and does not start.

Examples:
  leaderboard log verify data/1
  leaderboard log verify -o json data/1 | jq -r .verdict

Verdicts for programs:
  sound       all is as it was written
  torn        so it is, but for a write that a power cut or a kill interrupted
              and that nobody was promised
  damaged     a start repairs it, and nothing that is needed is lost
  limping     entries are lost here; the leader has them, and fills them up
  refused     a start is refused
  unreadable  the disk or the system refuses to read something
  no_log, in_use: nothing was read

Exit codes: 0 sound or torn, 1 not a log directory, 2 bad usage, 3 damage was
found, or a start would be refused, or the directory is in use, 4 the disk
cannot be read.";

/// Why nothing, or not all of it, could be shown.
#[derive(Debug, thiserror::Error)]
enum LogError {
    #[error("{} is no log directory: {reason}", dir.display())]
    NotALog { dir: PathBuf, reason: &'static str },
    #[error(
        "{} is in use: a node runs on it, and its files change while they are read; stop the node, or \
         copy the directory and look into the copy", dir.display()
    )]
    InUse { dir: PathBuf },
    #[error("--from {from} is greater than --to {to}")]
    EmptyRange { from: u64, to: u64 },
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

impl LogError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::NotALog { .. } | Self::Output(_) => FAILED,
            Self::EmptyRange { .. } => BAD_USAGE,
            Self::Open(error) if error.is_disk_failure() => DISK_FAILURE,
            Self::InUse { .. } | Self::Open(_) => REFUSED_FOR_SAFETY,
        }
    }

    /// The stable word for it.
    fn verdict(&self) -> &'static str {
        match self {
            Self::NotALog { .. } => "no_log",
            Self::InUse { .. } => "in_use",
            Self::Open(error) if error.is_disk_failure() => "unreadable",
            Self::Open(_) => "refused",
            Self::EmptyRange { .. } | Self::Output(_) => "failed",
        }
    }
}

/// An error as a line of JSON.
#[derive(Serialize)]
struct ErrorLine {
    #[serde(rename = "type")]
    kind: &'static str,
    verdict: &'static str,
    message: String,
    exit_code: u8,
}

/// Runs a command to its end; the exit code.
pub(crate) fn run(args: &LogArgs) -> u8 {
    let stdout = io::stdout();
    let mut out = Out {
        width: stdout.is_terminal().then(text::terminal_columns).flatten(),
        to: BufWriter::with_capacity(64 << 10, stdout.lock()),
    };
    let (done, output) = match &args.what {
        What::Dump(args) => (dump::run(args, &mut out), args.output),
        What::Verify(args) => (verify::run(args, &mut out), args.output),
    };
    let done = done.and_then(|exit_code| {
        out.to.flush()?;
        Ok(exit_code)
    });
    match done {
        Ok(exit_code) => exit_code,
        // Whoever read it has seen enough.
        Err(LogError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => {
            let (verdict, exit_code) = (error.verdict(), error.exit_code());
            let message = error.to_string();
            // Without a standard error the exit code has to do.
            let _ = writeln!(io::stderr(), "leaderboard: {}", text::printable(&message));
            if output == Output::Json && !matches!(error, LogError::Output(_)) {
                let line = ErrorLine { kind: "error", verdict, message, exit_code };
                // The message is out already.
                let _ = out.json(&line).and_then(|()| out.to.flush());
            }
            exit_code
        }
    }
}

/// Where the output goes.
struct Out<W> {
    to: W,
    /// The columns of the terminal, if it is one.
    width: Option<usize>,
}

impl<W: Write> Out<W> {
    /// A line of text. Characters that a terminal would obey are escaped.
    fn line(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.to, "{}", text::printable(line))
    }

    /// The same, cut where a terminal would break it.
    fn short_line(&mut self, line: &str) -> io::Result<()> {
        let line = text::printable(line);
        match self.width {
            Some(width) => writeln!(self.to, "{}", text::cut(&line, width)),
            None => writeln!(self.to, "{line}"),
        }
    }

    /// A sentence behind a label, folded where a terminal would break it, and every line but the first
    /// indented so far. What is no terminal gets it in lines of `otherwise` columns.
    fn paragraph(
        &mut self,
        label: &str,
        indent: usize,
        sentence: &str,
        otherwise: usize,
    ) -> io::Result<()> {
        let width = self.width.map_or(otherwise, |width| width.clamp(40, 120));
        let lines = text::wrap(label, indent, &text::printable(sentence), width);
        lines.iter().try_for_each(|line| self.line(line))
    }

    fn json(&mut self, line: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.to, line)?;
        writeln!(self.to)
    }
}

/// Opens a directory for looking.
fn open(dir: &Path) -> Result<Inspector, LogError> {
    let not_a_log = |reason| LogError::NotALog { dir: dir.to_owned(), reason };
    match std::fs::metadata(dir) {
        Ok(metadata) if !metadata.is_dir() => return Err(not_a_log("it is a file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(not_a_log("there is no such directory"));
        }
        // Any other error comes again when it is opened.
        Ok(_) | Err(_) => {}
    }
    match Inspector::open(dir) {
        Err(OpenError::Locked { dir }) => Err(LogError::InUse { dir }),
        inspector => Ok(inspector?),
    }
}

/// Nothing in it belongs to a log.
fn holds_no_log(dir: &Path) -> LogError {
    let reason = "there is neither an identity nor a segment in it (a node that is started on it begins \
                  a new log)";
    LogError::NotALog { dir: dir.to_owned(), reason }
}
