//! Operators at work on a cluster that is in use: a node joins, one leaves, leadership moves, and no
//! acknowledged write is lost or counted twice.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::running::{PATIENCE, Running, leaderboard, wait_until_ready};

/// So many entries a snapshot stands for before a node joins: more than the log keeps behind it.
const COMPACTED: u64 = 100;

/// Addresses that nobody uses: on Linux the whole of 127/8 is this machine.
fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    let [_, a, b, c] = std::process::id().to_be_bytes();
    let other = Ipv4Addr::new(127, 65 + (a & 63), b, c);
    let ip = if cfg!(target_os = "linux") { other } else { Ipv4Addr::LOCALHOST };
    // All are taken at once, so that they differ, then given back.
    let taken: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind((ip, 0)).unwrap());
    taken.map(|listener| listener.local_addr().unwrap())
}

/// Node 1 to 4, of which 1 to 3 make the cluster.
struct Plan {
    http: [SocketAddr; 4],
    raft: [SocketAddr; 4],
    data: tempfile::TempDir,
}

impl Plan {
    fn new() -> Self {
        let free: [SocketAddr; 8] = free_addresses();
        let half = |from: usize| std::array::from_fn(|at| free[from + at]);
        Self { http: half(0), raft: half(4), data: tempfile::tempdir().unwrap() }
    }

    fn http(&self, id: usize) -> String {
        self.http[id - 1].to_string()
    }

    fn raft(&self, id: usize) -> String {
        self.raft[id - 1].to_string()
    }

    fn start(&self, id: usize, more: &[&str]) -> Running {
        let peers: Vec<String> = (1..=3).map(|id| format!("{id}={}", self.raft(id))).collect();
        let directory = self.data.path().join(id.to_string());
        let mut command = leaderboard(&["node", "--id", &id.to_string()]);
        command.args(["--http", &self.http(id), "--raft", &self.raft(id)]);
        command.args(["--peers", &peers.join(","), "--data-dir"]).arg(directory);
        command.args(["--snapshot-after-bytes", "4KiB", "--trailing-bytes-max", "1KiB"]);
        command.args(more);
        Running::start(command)
    }

    /// What a node says about the cluster.
    fn cluster(&self, id: usize) -> Value {
        let answer = ask(&self.http(id), "GET /v1/cluster", "").expect("the node answers");
        serde_json::from_str(&answer.1).unwrap()
    }

    /// Waits until a node says so.
    fn wait_for(&self, id: usize, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let cluster = self.cluster(id);
            if is_so(&cluster) {
                return cluster;
            }
            assert!(Instant::now() < deadline, "{what} does not come true: {cluster}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Who leads, as a node sees it, as soon as it sees somebody.
    fn leader(&self, id: usize) -> usize {
        let cluster = self.wait_for(id, "a leader", |cluster| cluster["leader"].is_u64());
        usize::try_from(cluster["leader"].as_u64().unwrap()).unwrap()
    }
}

/// One request on a connection of its own: status and body, if there is a whole answer.
fn ask(address: &str, head: &str, more: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let fixed = "host: a\r\nconnection: close\r\ncontent-length: 0\r\n";
    write!(stream, "{head} HTTP/1.1\r\n{fixed}{more}\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// A client that adds one after the other, each until it is acknowledged, wherever somebody answers.
struct Trickle {
    stop: Arc<AtomicBool>,
    writes: JoinHandle<u64>,
}

impl Trickle {
    fn start(addresses: Vec<String>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let writes = std::thread::spawn(move || {
            let mut acknowledged = 0;
            let mut asked = addresses.iter().cycle();
            while !is_over.load(Ordering::Relaxed) {
                let key = format!("idempotency-key: w{acknowledged}\r\nrequest-timeout: 2s\r\n");
                let deadline = Instant::now() + PATIENCE;
                loop {
                    let vote = "POST /add_vote?player=trickle";
                    match ask(asked.next().unwrap(), vote, &key) {
                        Some((200, _)) => break,
                        // Nobody there, or not now: the same again, at the next.
                        other => assert!(Instant::now() < deadline, "not acknowledged: {other:?}"),
                    }
                }
                acknowledged += 1;
            }
            acknowledged
        });
        Self { stop, writes }
    }

    /// How many were acknowledged.
    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.writes.join().unwrap()
    }
}

/// Runs an operator's command: exit code, standard output, standard error.
fn operate(words: &str, endpoints: &[String]) -> (Option<i32>, String, String) {
    let words: Vec<&str> = words.split(' ').collect();
    let mut command = leaderboard(&words);
    command.args(["--endpoints", &endpoints.join(",")]);
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// One that must work: what it says.
fn succeed(words: &str, at: &str) -> String {
    let (code, stdout, stderr) = operate(words, &[at.to_owned()]);
    assert_eq!(code, Some(0), "{words}: {stdout}{stderr}");
    stdout
}

#[test]
fn a_node_joins_and_one_leaves_and_leadership_moves_while_scores_are_added() {
    let plan = Plan::new();
    let advertised = |id: usize| plan.start(id, &["--advertise", &plan.raft(id)]);
    let mut nodes: Vec<Running> = (1..=3).map(advertised).collect();
    for id in 1..=3 {
        nodes[id - 1].http_address();
        wait_until_ready(&plan.http(id));
    }
    let trickle = Trickle::start((1..=3).map(|id| plan.http(id)).collect());
    let first = plan.leader(1);
    let follower = first % 3 + 1;
    plan.wait_for(first, "a snapshot", |it| it["snapshot_index"].as_u64() > Some(COMPACTED));

    // It is added while it does not run yet, at a follower.
    let add = format!("members add 4 {} {}", plan.raft(4), plan.http(4));
    let joins = std::thread::spawn({
        let (add, at) = (add.clone(), plan.http(follower));
        move || succeed(&add, &at)
    });
    plan.wait_for(first, "a learner", |it| it["members"].as_array().unwrap().len() == 4);
    nodes.push(plan.start(4, &["--join"]));
    nodes[3].log_line("restored a snapshot");
    assert_eq!(joins.join().unwrap(), "node 4 is a voter now\n");
    assert_eq!(succeed(&add, &plan.http(follower)), "node 4 is a voter already\n");
    wait_until_ready(&plan.http(4));
    // Every node has told the others where it is.
    let complete = |it: &Value| {
        let members = it["members"].as_array().unwrap().iter();
        let told = members.filter(|member| {
            let id = usize::try_from(member["id"].as_u64().unwrap()).unwrap();
            member["http"] == plan.http(id) && member["raft"] == plan.raft(id)
        });
        told.count() == 4
    };
    plan.wait_for(4, "all addresses", complete);

    // Whoever led goes, by way of the new one.
    let gone = plan.leader(4);
    let removed = succeed(&format!("members remove {gone}"), &plan.http(4));
    assert_eq!(removed, format!("node {gone} is no member any more; stop its process\n"));
    nodes[gone - 1].signal("TERM");
    assert_eq!(nodes[gone - 1].exit_code(), Some(0));
    let again = succeed(&format!("members remove {gone}"), &plan.http(4));
    assert_eq!(again, format!("node {gone} is no member: there was nothing to do\n"));

    // Leadership goes where it is told to go, by way of a node that has nothing to do with it.
    let left: Vec<usize> = (1..=4).filter(|&id| id != gone).collect();
    let is_another = |it: &Value| it["leader"].is_u64() && it["leader"] != gone as u64;
    plan.wait_for(left[0], "another leader", is_another);
    let leads = plan.leader(left[0]);
    let mut others = left.iter().copied().filter(|&id| id != leads);
    let (to, at) = (others.next().unwrap(), others.next().unwrap());
    let transfer = format!("transfer {to}");
    assert_eq!(succeed(&transfer, &plan.http(at)), format!("node {to} leads\n"));
    assert_eq!(succeed(&transfer, &plan.http(at)), format!("node {to} leads\n"), "already");

    let acknowledged = trickle.end();
    for &id in &left {
        let (status, row) = ask(&plan.http(id), "GET /player_rankings?player=trickle", "").unwrap();
        assert_eq!(status, 200, "{row}");
        assert!(row.contains(&format!(r#""score":{acknowledged},"#)), "{acknowledged}: {row}");
    }
    all_is_well(&plan, &left);
    nothing_else_happens(&plan, &left);
}

/// `status` and `members list` show three healthy voters with the same state.
fn all_is_well(plan: &Plan, left: &[usize]) {
    let endpoints: Vec<String> = left.iter().map(|&id| plan.http(id)).collect();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (code, stdout, stderr) = operate("status -o json", &endpoints);
        assert_eq!(code, Some(0), "{stdout}{stderr}");
        let status: Value = serde_json::from_str(&stdout).unwrap();
        let state =
            |it: &Value| (it["cluster"]["applied_index"].clone(), it["cluster"]["digest"].clone());
        let states: Vec<_> = status.as_array().unwrap().iter().map(state).collect();
        assert_eq!(states.len(), 3);
        if states.iter().all(|state| *state == states[0]) {
            break;
        }
        assert!(Instant::now() < deadline, "they do not come to the same state: {stdout}");
    }
    let list = succeed("members list", &endpoints[0]);
    assert_eq!(list.lines().count(), 4, "{list}");
    for (line, id) in list.lines().skip(1).zip(left) {
        assert!(line.starts_with(&format!("{id}   voter")) && line.ends_with("yes"), "{list}");
        assert!(line.contains(&plan.raft(*id)) && line.contains(&plan.http(*id)), "{list}");
    }
    let cut = succeed("snapshot", &endpoints[0]);
    assert!(cut.contains(&format!("node {} has a snapshot at index", left[0])), "{cut}");
}

/// What cannot be is refused, with what to do.
fn nothing_else_happens(plan: &Plan, left: &[usize]) {
    let nobody = free_addresses::<1>()[0].to_string();
    let somebody = plan.http(left[0]);
    for (words, at, told) in [
        ("members promote 9", &somebody, "n9 is no member"),
        ("transfer 9", &somebody, "no voter"),
        ("members list", &nobody, "connection refused"),
        ("status", &nobody, "1 of 1 do not answer"),
        ("transfer", &nobody, "Are the nodes running?"),
    ] {
        let (code, stdout, stderr) = operate(words, std::slice::from_ref(at));
        assert_eq!(code, Some(1), "{words}: {stdout}{stderr}");
        assert!(stderr.contains(told), "{words}: {stdout}{stderr}");
    }
    // The next one is asked if one does not answer.
    let (code, stdout, stderr) = operate("members list", &[nobody, somebody]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
}

#[test]
fn whoever_does_not_wait_leaves_a_learner() {
    let data = tempfile::tempdir().unwrap();
    let alone = alone(data.path());
    let address = alone.1;
    let mut adding = leaderboard(&["members", "add", "2", "127.0.0.1:1", "127.0.0.1:2"]);
    adding.args(["--endpoints", &address]);
    let mut adding = Running::start(adding);
    adding.log_line("waiting: n2 has not caught up yet: it does not answer");
    adding.signal("INT");
    assert_eq!(adding.exit_code(), Some(1));
    adding.log_line("interrupted: node 2 is a learner");
    let again = succeed("members add 2 127.0.0.1:1 127.0.0.1:2 --learner", &address);
    assert_eq!(again, "node 2 is a learner already\n");
    let (code, _, stderr) = operate("members remove 1", &[address]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("n1 is the only voter") && stderr.contains("Add another"), "{stderr}");
}

/// A cluster of one, and where it answers.
fn alone(directory: &Path) -> (Running, String) {
    let mut running = Running::start(crate::running::node(directory));
    let address = running.http_address();
    wait_until_ready(&address);
    (running, address)
}
