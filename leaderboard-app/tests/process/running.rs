//! The command as a child of the test, and requests by hand.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long a test waits for anything before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn leaderboard(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leaderboard"));
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Whoever runs the tests may have a configuration of their own.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LEADERBOARD_") {
            command.env_remove(name);
        }
    }
    command
}

/// A cluster of one in `directory`.
pub(crate) fn node(directory: &Path) -> Command {
    let mut command = leaderboard(&["node", "--id", "1", "--http", "127.0.0.1:0"]);
    command.args(["--raft", "127.0.0.1:0", "--peers", "1=127.0.0.1:1", "--data-dir"]);
    command.arg(directory);
    command
}

/// A child that is killed if its test fails.
pub(crate) struct Running {
    pub(crate) child: Child,
    stderr: BufReader<std::process::ChildStderr>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self { child, stderr }
    }

    /// Reads the log up to a line with this text, and returns that line. A child that ends without it
    /// closes the log; one that hangs is ended by the test runner.
    pub(crate) fn log_line(&mut self, text: &str) -> String {
        let mut seen = String::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.stderr.read_line(&mut line).unwrap(), 0, "no `{text}` in:\n{seen}");
            if line.contains(text) {
                return line;
            }
            seen.push_str(&line);
        }
    }

    /// Where it answers HTTP.
    pub(crate) fn http_address(&mut self) -> String {
        let line = self.log_line("the node answers HTTP");
        let address = line.split("address").nth(1).unwrap();
        let digits = |c: char| !(c.is_ascii_digit() || c == '.' || c == ':');
        address.trim_matches(digits).trim_start_matches(['=', ':', '"']).to_owned()
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request, by hand; the whole answer.
pub(crate) fn request(address: &str, head: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "{head} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

pub(crate) fn wait_until_ready(address: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !request(address, "GET /readyz").starts_with("HTTP/1.1 200") {
        assert!(Instant::now() < deadline, "the node does not become ready");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs to the end; what must fail does so at once.
pub(crate) fn run(mut command: Command) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command.output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}
