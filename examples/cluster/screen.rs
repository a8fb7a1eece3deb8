//! What is printed: one table, then a line for everything that happens.

use std::fmt::{self, Display};
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::observer::View;
use crate::plan::Member;

/// What is known about a node at one moment.
#[derive(Debug)]
pub(crate) struct NodeRow {
    pub(crate) id: u16,
    pub(crate) pid: Option<u32>,
    pub(crate) up_for: Option<Duration>,
    pub(crate) http: SocketAddr,
    pub(crate) raft: SocketAddr,
    pub(crate) data: String,
    pub(crate) view: Option<View>,
}

/// Standard output, with colours if it is a terminal that wants them.
#[derive(Debug)]
pub(crate) struct Screen {
    colours: bool,
    started: Instant,
}

/// How a piece of text looks.
#[derive(Clone, Copy, Debug)]
enum Look {
    Plain,
    Bold,
    Dim,
    Good,
    Bad,
    Busy,
}

impl Look {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Good => "32",
            Self::Bad => "31",
            Self::Busy => "33",
        }
    }
}

/// Text with a look.
struct Painted<'a, T> {
    text: T,
    look: Look,
    screen: &'a Screen,
}

impl<T: Display> Display for Painted<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.screen.colours {
            write!(f, "\x1b[{}m{}\x1b[0m", self.look.code(), self.text)
        } else {
            self.text.fmt(f)
        }
    }
}

impl Screen {
    /// Colours only on a terminal, and not if `NO_COLOR` is set.
    pub(crate) fn new() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let able = std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        let colours = wanted && able && io::stdout().is_terminal();
        Self { colours, started: Instant::now() }
    }

    fn paint<T>(&self, look: Look, text: T) -> Painted<'_, T> {
        Painted { text, look, screen: self }
    }

    /// Prints a line. Nobody may be reading any more; the cluster runs on.
    fn line(&self, text: impl Display) {
        let _ = writeln!(io::stdout(), "{text}");
    }

    /// Prints something that has just happened.
    fn event(&self, look: Look, mark: &str, text: impl Display) {
        let since = self.started.elapsed().as_secs_f64();
        let time = self.paint(Look::Dim, format!("{since:>8.1} s"));
        self.line(format_args!("{time}  {}  {text}", self.paint(look, mark)));
    }

    /// Prints why the launcher cannot go on.
    pub(crate) fn failed(&self, error: &str) {
        let _ = writeln!(io::stderr(), "cluster: {error}");
    }

    pub(crate) fn introduce(
        &self,
        rows: &[NodeRow],
        listen: SocketAddr,
        balancer: Option<u32>,
        data_dir: &str,
    ) {
        let title = ["node", "pid", "HTTP", "Raft", "data"].map(str::to_owned);
        let mut table = vec![title.to_vec()];
        for row in rows {
            let (http, raft) = (row.http.to_string(), row.raft.to_string());
            table.push(vec![row.id.to_string(), pid(row.pid), http, raft, row.data.clone()]);
        }
        let (none, logs) = ("–".to_owned(), format!("logs in {data_dir}"));
        table.push(vec!["balancer".into(), pid(balancer), listen.to_string(), none, logs]);
        self.line("");
        self.table(&table);
        let page = self.paint(Look::Bold, page_address(listen));
        self.line(format_args!("\n  Page  {page}"));
        self.help();
        self.line("");
    }

    pub(crate) fn help(&self) {
        let keys = [
            ("k 2", "kill node 2"),
            ("r 2", "restart it"),
            ("s", "status"),
            ("h", "help"),
            ("q", "quit"),
        ];
        let keys: Vec<String> = keys
            .iter()
            .map(|(key, what)| format!("{} {what}", self.paint(Look::Bold, key)))
            .collect();
        let separator = self.paint(Look::Dim, " · ").to_string();
        let note = self.paint(Look::Dim, "(each with Enter; b is the balancer)");
        self.line(format_args!("  Keys  {}  {note}", keys.join(&separator)));
    }

    pub(crate) fn status(&self, rows: &[NodeRow]) {
        let title = ["node", "pid", "up", "role", "term", "leader", "commit", "applied"];
        let mut table = vec![title.map(str::to_owned).to_vec()];
        for row in rows {
            let mut cells = vec![row.id.to_string(), pid(row.pid), up(row.up_for)];
            match (&row.view, row.pid) {
                (Some(view), _) => cells.extend([
                    view.role.to_ascii_lowercase(),
                    view.term.to_string(),
                    view.leader.map_or_else(|| "–".to_owned(), |leader| leader.to_string()),
                    view.commit_index.to_string(),
                    view.applied_index.to_string(),
                ]),
                (None, Some(_)) => cells.push("silent".to_owned()),
                (None, None) => cells.push("down".to_owned()),
            }
            table.push(cells);
        }
        self.line("");
        self.table(&table);
        self.line("");
    }

    /// Prints rows in columns; the first is the title.
    fn table(&self, rows: &[Vec<String>]) {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
        };
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for (index, row) in rows.iter().enumerate() {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}", width = *width))
                .collect();
            let look = if index == 0 { Look::Dim } else { Look::Plain };
            self.line(format_args!("  {}", self.paint(look, cells.join("   ").trim_end())));
        }
    }

    pub(crate) fn elected(&self, node: u16, term: u64, gap: Option<Duration>) {
        let gap = gap.map(|gap| format!(", {} after the last leader was lost", seconds(gap)));
        let text = format!("node {node} leads in term {term}{}", gap.unwrap_or_default());
        self.event(Look::Good, "★", text);
    }

    pub(crate) fn caught_up(&self, node: u16, applied: u64, took: Duration) {
        let text = format!("node {node} has recovered: entry {applied} applied, {}", seconds(took));
        self.event(Look::Good, "✓", format_args!("{text} after its start"));
    }

    pub(crate) fn restarted(&self, member: Member, pid: u32) {
        self.event(Look::Busy, "↻", format_args!("{member} restarted as pid {pid}"));
    }

    /// Says that a process has refused to run. Its own words, which follow, say what to do.
    pub(crate) fn refused(&self, words: &str) {
        self.event(Look::Bad, "✗", words);
    }

    /// Says that a process has ended, and how to have it back.
    pub(crate) fn ended(&self, words: &str, key: &str) {
        let advice = format!("restart it: {} + Enter", self.paint(Look::Bold, format!("r {key}")));
        self.event(Look::Bad, "✗", format_args!("{words} – {advice}"));
    }

    /// Says why a process failed, as far as its log tells.
    pub(crate) fn reason(&self, last_line: Option<&str>, log: &str) {
        let line = last_line.unwrap_or("its log is empty");
        self.line(format_args!("               {line}"));
        self.line(format_args!(
            "               {}",
            self.paint(Look::Dim, format!("more in {log}"))
        ));
    }

    pub(crate) fn hint(&self, text: &str) {
        self.event(Look::Dim, "·", text);
    }

    pub(crate) fn stopping(&self) {
        // A terminal has just echoed ^C on a line of its own.
        self.line("");
        self.event(Look::Busy, "■", "stopping; once more kills what is left");
    }

    pub(crate) fn stopped(&self, data_dir: &str) {
        self.event(Look::Good, "✓", format_args!("all stopped; the data stays in {data_dir}"));
    }
}

/// Where a browser on this machine finds the page.
fn page_address(listen: SocketAddr) -> String {
    match listen.ip().is_unspecified() {
        true => format!("http://localhost:{}/", listen.port()),
        false => format!("http://{listen}/"),
    }
}

fn pid(pid: Option<u32>) -> String {
    pid.map_or_else(|| "–".to_owned(), |pid| pid.to_string())
}

fn up(up_for: Option<Duration>) -> String {
    up_for.map_or_else(|| "–".to_owned(), |up_for| format!("{} s", up_for.as_secs()))
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}
