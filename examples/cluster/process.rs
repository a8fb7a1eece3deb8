//! One child process, from its start to its end.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::AS_LEADERBOARD;

/// Signals that wait to be sent to one child; more are dropped, since the first ones suffice.
const ORDERS_MAX: usize = 4;

/// How much of the end of a log is searched for its last line.
const LOG_TAIL_BYTES: u64 = 4096;

/// A running child.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) started: Instant,
    orders: mpsc::Sender<Signal>,
}

impl Process {
    /// Starts this program again as `leaderboard` with these arguments. The second value is the
    /// child's life, which has to be awaited for signals to be sent.
    ///
    /// The child holds the other end of a pipe as its standard input and stops when it closes:
    /// when this process ends, however it ends, no child stays behind. It is in a process group of
    /// its own, so that Ctrl-C reaches only the launcher, which stops the children in order.
    pub(crate) fn start(
        exe: &Path,
        arguments: &[OsString],
        log: &Path,
    ) -> io::Result<(Self, impl Future<Output = io::Result<ExitStatus>> + use<>)> {
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        let child = Command::new(exe)
            .arg(AS_LEADERBOARD)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().ok_or_else(|| io::Error::other("the child has no pid"))?;
        let (orders, received) = mpsc::channel(ORDERS_MAX);
        let process = Self { pid, started: Instant::now(), orders };
        Ok((process, live(child, pid, received)))
    }

    /// Sends a signal, unless the child has ended.
    pub(crate) fn signal(&self, signal: Signal) {
        // The only reason to fail is that there is no child any more, or that it has been told
        // several times already.
        let _ = self.orders.try_send(signal);
    }
}

/// Waits for the child's end and passes signals on. Only this task signals and only this task
/// reaps, so a signal cannot hit a stranger who got the same pid.
async fn live(
    mut child: Child,
    pid: u32,
    mut orders: mpsc::Receiver<Signal>,
) -> io::Result<ExitStatus> {
    // Taken out, because waiting would close it, and the child would stop.
    let _stdin = child.stdin.take();
    loop {
        let signal = tokio::select! {
            ended = child.wait() => return ended,
            Some(signal) = orders.recv() => signal,
        };
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            // It fails only when the child has just ended, which is what comes next.
            let _ = kill_process(pid, signal);
        }
    }
}

/// Did it refuse to run? Then another start changes nothing before somebody has looked.
pub(crate) fn has_refused(status: &io::Result<ExitStatus>) -> bool {
    status.as_ref().is_ok_and(|status| status.code() == Some(3))
}

/// How a child ended, in words that follow its name.
pub(crate) fn describe_end(status: &io::Result<ExitStatus>) -> String {
    let status = match status {
        Ok(status) => status,
        Err(error) => return format!("cannot be watched any more: {error}"),
    };
    match (status.code(), status.signal()) {
        (Some(0), _) => "has stopped".to_owned(),
        (Some(3), _) => "refused to run for safety (exit code 3)".to_owned(),
        (Some(4), _) => "stopped because its disk failed (exit code 4)".to_owned(),
        (Some(code), _) => format!("failed with exit code {code}"),
        (None, Some(9)) => "was killed with SIGKILL".to_owned(),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "has ended".to_owned(),
    }
}

/// The last line of a log, where a child that failed says why.
pub(crate) fn last_line(log: &Path) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES))).ok()?;
    let mut tail = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail);
    let line = tail.lines().map(str::trim).rfind(|line| !line.is_empty())?;
    Some(line.chars().filter(|character| !character.is_control()).collect())
}
