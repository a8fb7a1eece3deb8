//! The command as a process: exit codes, signals, configuration from three places.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod operate;
mod running;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use running::{Running, leaderboard, node, request, run, wait_until_ready};

#[test]
fn bad_usage_is_exit_code_2_and_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    for (words, told) in [
        (vec![], "Usage: leaderboard"),
        (vec!["fly"], "fly"),
        (vec!["node"], "--peers"),
        (vec!["node", "--id", "4", "--data-dir", data, "--peers", "1=a:1"], "add 4=127.0.0.1:7081"),
        (vec!["node", "--id", "1", "--data-dir", data, "--peers", "1=a:1,1=b:1"], "node 1 twice"),
        (vec!["node", "--config", "/no/such/file"], "/no/such/file"),
        (
            vec![
                "node",
                "--id",
                "4",
                "--join",
                "--data-dir",
                data,
                "--peers",
                "1=a:1",
                "--raft",
                "0.0.0.0:1",
            ],
            "say where with --advertise",
        ),
        (vec!["members", "add", "4", "a:1"], "<HTTP_ADDR>"),
        (vec!["certs", "--out", data, "--nodes", "1", "--cluster", "A B"], "lower-case"),
    ] {
        let (code, stderr) = run(leaderboard(&words));
        assert_eq!(code, Some(2), "{words:?}: {stderr}");
        assert!(stderr.contains(told), "{words:?}: {stderr}");
    }
    let mut hasty = node(directory.path());
    hasty.args(["--election-timeout", "60ms", "--heartbeat-interval", "50ms"]);
    let (code, stderr) = run(hasty);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("election_timeout"), "{stderr}");

    let help = leaderboard(&["--help"]).output().unwrap();
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8(help.stdout).unwrap().contains("Exit codes: 0 done"));
}

/// A cluster of one with the files of node `certified` in `directory`.
fn tls_node(directory: &Path, certified: u64) -> Command {
    let mut command = node(&directory.join("data"));
    let file = |name: String| directory.join("certs").join(name);
    command.arg("--tls-ca").arg(file("ca.pem".into()));
    command.arg("--tls-cert").arg(file(format!("n{certified}.pem")));
    // The third from the environment, as any option can be.
    command.env("LEADERBOARD_TLS_KEY", file(format!("n{certified}.key")));
    command
}

#[test]
fn certificates_are_made_once_and_a_node_starts_with_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("certs").to_str().unwrap().to_owned();
    let certs = |nodes| leaderboard(&["certs", "--out", &out, "--nodes", nodes]);
    let made = certs("1,2").output().unwrap();
    let stdout = String::from_utf8(made.stdout).unwrap();
    assert_eq!(made.status.code(), Some(0));
    assert!(stdout.contains("--tls-key") && stdout.contains("n2.key"), "{stdout}");
    let (code, stderr) = run(certs("2,3"));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("n2.pem is there already"), "{stderr}");

    let mut running = Running::start(tls_node(directory.path(), 1));
    let address = running.http_address();
    wait_until_ready(&address);
    let metrics = request(&address, "GET /metrics");
    assert!(metrics.contains("\nraft_certificate_expires_timestamp_seconds "), "{metrics}");
    running.signal("TERM");
    assert_eq!(running.exit_code(), Some(0));

    let (code, stderr) = run(tls_node(directory.path(), 2));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("n1.leaderboard.raft.internal"), "{stderr}");
}

#[test]
fn a_node_without_tls_that_others_can_reach_must_be_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let open = |more: &[&str]| {
        let mut command = leaderboard(&["node", "--id", "1", "--http", "127.0.0.1:0"]);
        command.args(["--raft", "0.0.0.0:0", "--peers", "1=127.0.0.1:1", "--data-dir"]);
        command.arg(directory.path()).args(more);
        command
    };
    let (code, stderr) = run(open(&[]));
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("--tls-ca") && stderr.contains("--insecure-peers"), "{stderr}");
    let (code, stderr) = run(open(&["--tls-cert", "n1.pem"]));
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("--tls-ca and --tls-key"), "{stderr}");
    let mut running = Running::start(open(&["--insecure-peers"]));
    running.log_line("no TLS between nodes");
    running.signal("TERM");
    assert_eq!(running.exit_code(), Some(0));
}

#[test]
fn a_taken_port_is_exit_code_1_and_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    for flag in ["--http", "--raft"] {
        let mut command = leaderboard(&["node", "--id", "1", "--peers", "1=127.0.0.1:1"]);
        let other = if flag == "--http" { "--raft" } else { "--http" };
        command.args([flag, &address, other, "127.0.0.1:0", "--data-dir"]).arg(directory.path());
        let (code, stderr) = run(command);
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains(&address), "{stderr}");
    }
}

#[test]
fn a_signal_stops_the_node_with_exit_code_0_and_the_scores_stay() {
    let directory = tempfile::tempdir().unwrap();
    for (round, signal) in (1..).zip(["TERM", "INT", "TERM"]) {
        let mut running = Running::start(node(directory.path()));
        let address = running.http_address();
        assert!(request(&address, "GET /livez").starts_with("HTTP/1.1 200"));
        wait_until_ready(&address);
        let answer = request(&address, "POST /add_vote?player=a");
        assert!(answer.contains(&format!(r#""score":{round},"#)), "{answer}");
        running.signal(signal);
        assert_eq!(running.exit_code(), Some(0));
    }
}

#[test]
fn an_acknowledged_score_survives_sigkill() {
    let directory = tempfile::tempdir().unwrap();
    for round in 1..=3 {
        let mut running = Running::start(node(directory.path()));
        let address = running.http_address();
        wait_until_ready(&address);
        let answer = request(&address, "POST /add_vote?player=a");
        assert!(answer.contains(&format!(r#""score":{round},"#)), "{answer}");
        running.signal("KILL");
        assert_eq!(running.exit_code(), None);
    }
}

#[test]
fn a_directory_of_another_cluster_or_node_or_in_use_is_exit_code_3() {
    let directory = tempfile::tempdir().unwrap();
    let mut running = Running::start(node(directory.path()));
    running.http_address();
    let (code, stderr) = run(node(directory.path()));
    assert_eq!(code, Some(3), "in use: {stderr}");
    assert!(stderr.contains("leaderboard: "), "{stderr}");
    running.signal("TERM");
    assert_eq!(running.exit_code(), Some(0));

    let mut other = node(directory.path());
    other.args(["--cluster", "other"]);
    let (code, stderr) = run(other);
    assert_eq!(code, Some(3), "another cluster: {stderr}");

    // A list of peers that has grown changes no members, and whoever believes so is told.
    let mut other = leaderboard(&["node", "--id", "1", "--http", "127.0.0.1:0", "--raft"]);
    other.args(["127.0.0.1:0", "--peers", "1=127.0.0.1:1,2=127.0.0.1:2", "--data-dir"]);
    other.arg(directory.path());
    let mut running = Running::start(other);
    running.log_line("the members are {n1}, as the log says; peers names n1 n2");
    wait_until_ready(&running.http_address());
    running.signal("TERM");
    assert_eq!(running.exit_code(), Some(0));

    let mut other = leaderboard(&["node", "--id", "2", "--http", "127.0.0.1:0", "--raft"]);
    other.args(["127.0.0.1:0", "--peers", "1=127.0.0.1:1,2=127.0.0.1:2", "--data-dir"]);
    other.arg(directory.path()).args(["--log-format", "json"]);
    let (code, stderr) = run(other);
    assert_eq!(code, Some(3), "another node: {stderr}");
    let last: serde_json::Value = serde_json::from_str(stderr.lines().last().unwrap()).unwrap();
    assert_eq!((&last["level"], &last["exit_code"]), (&"ERROR".into(), &3.into()), "{stderr}");
}

#[test]
fn options_come_from_flags_then_environment_then_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("leaderboard.toml");
    let text = "[node]\nid = 1\nhttp = '127.0.0.1:0'\nraft = '127.0.0.1:0'\n\
                cluster = 'from file'\npeers = { 1 = '127.0.0.1:1' }\n";
    std::fs::write(&file, text).unwrap();
    let ask = |environment: Option<&str>, flag: Option<&str>| {
        let data = tempfile::tempdir().unwrap();
        let mut command = leaderboard(&["node", "--data-dir"]);
        command.arg(data.path()).env("LEADERBOARD_CONFIG", &file);
        if let Some(name) = environment {
            command.env("LEADERBOARD_CLUSTER", name);
        }
        if let Some(name) = flag {
            command.args(["--cluster", name]);
        }
        let mut running = Running::start(command);
        let address = running.http_address();
        request(&address, "GET /v1/cluster")
    };
    assert!(ask(None, None).contains(r#""cluster":"from file""#));
    assert!(ask(Some("from environment"), None).contains(r#""cluster":"from environment""#));
    let both = ask(Some("from environment"), Some("from flag"));
    assert!(both.contains(r#""cluster":"from flag""#), "{both}");
}

#[test]
fn the_end_of_standard_input_stops_it_if_asked() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = node(directory.path());
    command.env("LEADERBOARD_EXIT_WITH_STDIN", "true").stdin(Stdio::piped());
    let mut running = Running::start(command);
    running.http_address();
    drop(running.child.stdin.take());
    assert_eq!(running.exit_code(), Some(0));
}

/// The same command, in which a write beyond the file size limit of `kib` is an error and no signal.
fn with_file_size_limit(command: &Command, kib: Option<u32>) -> Command {
    let mut shell = Command::new("sh");
    let limit = kib.map_or_else(|| "unlimited".to_owned(), |kib| (kib * 2).to_string());
    shell.args(["-c", &format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" \"$@\"")]);
    shell.arg(command.get_program()).args(command.get_args());
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    shell
}

#[test]
fn a_disk_that_takes_no_log_is_exit_code_4() {
    let directory = tempfile::tempdir().unwrap();
    let (code, stderr) = run(with_file_size_limit(&node(directory.path()), Some(64)));
    assert_eq!(code, Some(4), "{stderr}");
}

#[test]
fn a_disk_that_fails_later_ends_the_node_with_exit_code_4() {
    if Command::new("prlimit").arg("--version").output().is_err() {
        assert!(std::env::var_os("LEADERBOARD_NO_SKIP").is_none(), "there is no `prlimit`");
        println!("skipped: there is no `prlimit` to make the disk fail with");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut running = Running::start(with_file_size_limit(&node(directory.path()), None));
    let address = running.http_address();
    wait_until_ready(&address);
    assert!(request(&address, "POST /add_vote?player=a").contains(r#""score":1,"#));
    let pid = running.child.id().to_string();
    let limited = Command::new("prlimit").args(["--pid", &pid, "--fsize=1024"]).status().unwrap();
    assert!(limited.success());
    // Whether this gets an answer depends on who is faster; it must not be a success.
    let mut stream = TcpStream::connect(&address).unwrap();
    let vote = "POST /add_vote?player=a HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(vote.as_bytes()).unwrap();
    assert_eq!(running.exit_code(), Some(4));
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    running.log_line("leaderboard: ");

    // What was acknowledged is there again once the disk works.
    let mut running = Running::start(node(directory.path()));
    let address = running.http_address();
    wait_until_ready(&address);
    let answer = request(&address, "GET /player_rankings?player=a");
    assert!(answer.contains(r#""player":"a","score":1,"#), "{answer}");
}
