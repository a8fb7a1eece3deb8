//! What can be typed while the cluster runs.

use std::io::{self, BufRead, IsTerminal};

use tokio::sync::mpsc;

use crate::plan::Member;

/// Commands typed ahead.
const COMMANDS_MAX: usize = 8;

/// What was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Kill(Member),
    Restart(Member),
    Status,
    Help,
    Quit,
    Nonsense(String),
}

/// Reads commands on a thread of its own, since reading a terminal cannot be cancelled. At the end
/// of the input: who presses Ctrl-D wants to leave; a file or `/dev/null` just has no more.
pub(crate) fn read_commands() -> mpsc::Receiver<Command> {
    let (commands, received) = mpsc::channel(COMMANDS_MAX);
    std::thread::spawn(move || {
        let stdin = io::stdin();
        for line in stdin.lock().lines() {
            let Ok(line) = line else { break };
            if line.trim().is_empty() {
                continue;
            }
            if commands.blocking_send(parse(&line)).is_err() {
                return;
            }
        }
        if stdin.is_terminal() {
            let _ = commands.blocking_send(Command::Quit);
        }
    });
    received
}

fn parse(line: &str) -> Command {
    let words: Vec<&str> = line.split_whitespace().collect();
    let member = |name: &str| match name {
        "b" => Some(Member::Balancer),
        id => id.parse().ok().map(Member::Node),
    };
    let command = match words[..] {
        ["k", name] => member(name).map(Command::Kill),
        ["r", name] => member(name).map(Command::Restart),
        ["s"] => Some(Command::Status),
        ["h" | "?" | "help"] => Some(Command::Help),
        ["q" | "quit" | "exit"] => Some(Command::Quit),
        _ => None,
    };
    command.unwrap_or_else(|| Command::Nonsense(line.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_short_and_forgiving() {
        assert_eq!(parse("k 2"), Command::Kill(Member::Node(2)));
        assert_eq!(parse("  r   b "), Command::Restart(Member::Balancer));
        assert_eq!(parse("s"), Command::Status);
        assert_eq!(parse("help"), Command::Help);
        assert_eq!(parse("q"), Command::Quit);
        for nonsense in ["k", "k x", "k 1 2", "kill 1", "-1", "k -1", "k 99999"] {
            assert_eq!(parse(nonsense), Command::Nonsense(nonsense.to_owned()));
        }
    }
}
