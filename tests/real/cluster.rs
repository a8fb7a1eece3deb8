//! Three nodes and a balancer as real processes: this very program, started again.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::Result;
use super::client::Client;

/// The first argument of this program when it is to be a node or a balancer.
pub(crate) const RUN_LEADERBOARD: &str = "run-leaderboard";

const NODES: usize = 3;
const START_TIMEOUT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
/// Between choosing a free port and using it, another program may take it. Then a process ends with
/// these words, and everything is started again on other ports.
const STARTS_MAX: usize = 3;
const PORT_TAKEN: &str = "cannot listen on";

/// Where a node lives.
#[allow(dead_code, reason = "not every test has networks")]
pub(crate) struct Place {
    pub(crate) ip: Ipv4Addr,
    /// What comes before its command line.
    pub(crate) under: Vec<String>,
}

/// A running cluster. Its processes end with it: they are killed when this is dropped, and they stop
/// by themselves when this program dies, because their standard input closes.
pub(crate) struct Cluster {
    nodes: Vec<Process>,
    raft: Vec<SocketAddr>,
    balancer: Process,
    data: TempDir,
}

impl Cluster {
    /// Starts everything and waits until all of it answers, so that each node has opened its log. Logs
    /// of the processes are written to `keep`.
    pub(crate) async fn start(keep: &Path) -> Result<Self> {
        Self::start_under(keep, NODES, |_| Vec::new()).await
    }

    /// As [`Cluster::start`], with so many nodes. What `under` says for a node comes before its own
    /// command line: a program like `strace`, and options.
    pub(crate) async fn start_under(
        keep: &Path,
        nodes: usize,
        under: impl Fn(usize) -> Vec<String>,
    ) -> Result<Self> {
        for _ in 0..STARTS_MAX {
            if let Some(cluster) = Self::try_start(keep, nodes, &under).await? {
                return Ok(cluster);
            }
        }
        Err(format!("a port was taken {STARTS_MAX} times; see {}", keep.display()).into())
    }

    /// As [`Cluster::start`], each node at its place, and the balancer at an address of this process.
    #[allow(dead_code, reason = "not every test has networks")]
    pub(crate) async fn start_at(
        keep: &Path,
        places: &[Place],
        balancer: SocketAddr,
    ) -> Result<Self> {
        let http: Vec<SocketAddr> = places.iter().map(|place| (place.ip, 8081).into()).collect();
        let raft: Vec<SocketAddr> = places.iter().map(|place| (place.ip, 7081).into()).collect();
        let under = |id: usize| places[id - 1].under.clone();
        let started = Self::start_with(keep, &http, &raft, balancer, &under).await?;
        let mut cluster = started.ok_or("a port is taken in a network of our own")?;
        for (node, place) in cluster.nodes.iter_mut().zip(places) {
            node.restarted_under.clone_from(&place.under);
        }
        Ok(cluster)
    }

    /// Nothing if a port was taken.
    async fn try_start(
        keep: &Path,
        nodes: usize,
        under: &impl Fn(usize) -> Vec<String>,
    ) -> Result<Option<Self>> {
        let free = free_addresses(2 * nodes + 1)?;
        let (http, raft, listen) = (&free[..nodes], &free[nodes..2 * nodes], free[2 * nodes]);
        Self::start_with(keep, http, raft, listen, under).await
    }

    async fn start_with(
        keep: &Path,
        http: &[SocketAddr],
        raft: &[SocketAddr],
        listen: SocketAddr,
        under: &impl Fn(usize) -> Vec<String>,
    ) -> Result<Option<Self>> {
        let data = tempfile::tempdir()?;
        let nodes = (0..http.len()).map(|at| {
            let directory = directory(data.path(), at + 1);
            let arguments = node_arguments(at, &directory, http, raft);
            let log = keep.join(format!("node-{}.log", at + 1));
            Process::start(http[at], &under(at + 1), arguments, log)
        });
        let nodes = nodes.collect::<Result<_>>()?;
        let backends = http.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let arguments = ["balancer", "--listen", &listen.to_string(), "--nodes", &backends];
        let arguments = arguments.map(str::to_owned).to_vec();
        let log = keep.join("balancer.log");
        let balancer = Process::start(listen, &[], arguments, log)?;
        let mut cluster = Self { nodes, raft: raft.to_vec(), balancer, data };
        let client = Client::new();
        for node in &mut cluster.nodes {
            if !node.comes_to_answer(&client, "/livez").await? {
                return Ok(None);
            }
        }
        let answers = cluster.balancer.comes_to_answer(&client, "/lb/status").await?;
        Ok(answers.then_some(cluster))
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = usize> {
        1..=self.nodes.len()
    }

    /// Where the balancer listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.balancer.address
    }

    /// Where a node answers HTTP.
    pub(crate) fn address_of(&self, id: usize) -> SocketAddr {
        self.nodes[id - 1].address
    }

    /// Where a node listens for the others.
    pub(crate) fn raft_address_of(&self, id: usize) -> SocketAddr {
        self.raft[id - 1]
    }

    /// Where a node keeps its log.
    pub(crate) fn directory_of(&self, id: usize) -> PathBuf {
        directory(self.data.path(), id)
    }

    /// The page through the balancer.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.balancer.address)
    }

    /// The page as one node serves it.
    pub(crate) fn url_of(&self, id: usize) -> String {
        format!("http://{}/", self.nodes[id - 1].address)
    }

    /// SIGKILL: no farewell, nothing flushed. Returns when the process is gone.
    pub(crate) async fn kill(&mut self, id: usize) -> Result<()> {
        Ok(self.nodes[id - 1].child.kill().await?)
    }

    /// Starts a node that has ended again, on its own data; in its place, and else under nothing.
    pub(crate) fn restart(&mut self, id: usize) -> Result<()> {
        let node = &mut self.nodes[id - 1];
        node.child = spawn(&node.restarted_under, &node.arguments, &node.log)?;
        Ok(())
    }

    /// SIGSTOP: it stands still, and does not know it.
    #[allow(dead_code, reason = "not every test has a use for it")]
    pub(crate) fn pause(&self, id: usize) -> Result<()> {
        self.signal(id, Signal::STOP)
    }

    /// SIGCONT: it goes on.
    #[allow(dead_code, reason = "not every test has a use for it")]
    pub(crate) fn resume(&self, id: usize) -> Result<()> {
        self.signal(id, Signal::CONT)
    }

    fn signal(&self, id: usize, signal: Signal) -> Result<()> {
        let pid = self.nodes[id - 1].child.id().ok_or("it has ended")?;
        let pid = Pid::from_raw(i32::try_from(pid)?).ok_or("no process")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits until a node has ended by itself: its exit code.
    pub(crate) async fn wait_for_end(&mut self, id: usize) -> Result<Option<i32>> {
        let Process { child, log, .. } = &mut self.nodes[id - 1];
        // Waiting would close its standard input, and so end it.
        let open = child.stdin.take();
        let ended = timeout(START_TIMEOUT, child.wait()).await;
        drop(open);
        Ok(ended.map_err(|_| format!("node {id} goes on running; see {}", log.display()))??.code())
    }

    /// Stops a node in an orderly way: its exit code.
    pub(crate) async fn stop(&mut self, id: usize) -> Result<Option<i32>> {
        drop(self.nodes[id - 1].child.stdin.take());
        self.wait_for_end(id).await
    }

    /// Starts another node, which waits to be made a member, and knows these: its id.
    #[allow(dead_code, reason = "not every test has nodes that join")]
    pub(crate) async fn join(&mut self, members: &[usize], keep: &Path) -> Result<usize> {
        let id = self.nodes.len() + 1;
        let free = free_addresses(2)?;
        let known = members.iter().map(|&id| format!("{id}={}", self.raft[id - 1]));
        let arguments = vec![
            "node".to_owned(),
            format!("--id={id}"),
            format!("--data-dir={}", self.directory_of(id).display()),
            format!("--http={}", free[0]),
            format!("--raft={}", free[1]),
            format!("--advertise={}", free[1]),
            format!("--peers={}", known.collect::<Vec<_>>().join(",")),
            "--join".to_owned(),
        ];
        self.raft.push(free[1]);
        let log = keep.join(format!("node-{id}.log"));
        self.nodes.push(Process::start(free[0], &[], arguments, log)?);
        let node = self.nodes.last_mut().expect("pushed just now");
        if !node.comes_to_answer(&Client::new(), "/livez").await? {
            return Err("its port was taken".into());
        }
        Ok(id)
    }

    /// Runs the program's own command line against these nodes.
    #[allow(dead_code, reason = "not every test has a use for it")]
    pub(crate) async fn command(&self, words: &[&str], ids: &[usize]) -> Result<()> {
        let endpoints: Vec<String> =
            ids.iter().map(|&id| self.address_of(id).to_string()).collect();
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg(RUN_LEADERBOARD)
            .args(words)
            .arg(format!("--endpoints={}", endpoints.join(",")));
        let output = timeout(START_TIMEOUT, command.output()).await??;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("{words:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
    }

    /// What a node has logged.
    pub(crate) fn log_of(&self, id: usize) -> Result<String> {
        Ok(std::fs::read_to_string(&self.nodes[id - 1].log)?)
    }

    /// Runs a node with this id on a directory, on ports of its own, until it ends by itself: its exit
    /// code.
    pub(crate) async fn run_node(
        &self,
        id: usize,
        directory: PathBuf,
        log: &Path,
    ) -> Result<Option<i32>> {
        let free = free_addresses(2)?;
        let (mut http, mut raft) = (self.http_addresses(), self.raft.clone());
        (http[id - 1], raft[id - 1]) = (free[0], free[1]);
        let mut child = spawn(&[], &node_arguments(id - 1, &directory, &http, &raft), log)?;
        // Waiting would close its standard input, and so end it.
        let _open = child.stdin.take();
        let ended = timeout(START_TIMEOUT, child.wait()).await;
        Ok(ended.map_err(|_| format!("node {id} goes on running; see {}", log.display()))??.code())
    }

    /// Starts a node of another cluster that takes these nodes for its peers.
    pub(crate) fn start_stranger(&self, id: usize, data: &Path, log: &Path) -> Result<Child> {
        let free = free_addresses(2)?;
        let (mut http, mut raft) = (self.http_addresses(), self.raft.clone());
        (http[id - 1], raft[id - 1]) = (free[0], free[1]);
        let mut arguments = node_arguments(id - 1, data, &http, &raft);
        arguments.push("--cluster=strangers".to_owned());
        spawn(&[], &arguments, log)
    }

    /// Waits until a node has logged this.
    pub(crate) async fn wait_for_log(&self, id: usize, words: &str) -> Result<()> {
        let log = &self.nodes[id - 1].log;
        let deadline = Instant::now() + START_TIMEOUT;
        while !std::fs::read_to_string(log)?.contains(words) {
            if Instant::now() > deadline {
                return Err(format!("{words:?} is not in {}", log.display()).into());
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    fn http_addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.address).collect()
    }
}

fn directory(data: &Path, id: usize) -> PathBuf {
    data.join(format!("node-{id}"))
}

fn node_arguments(
    at: usize,
    directory: &Path,
    http: &[SocketAddr],
    raft: &[SocketAddr],
) -> Vec<String> {
    let list = |addresses: &[SocketAddr]| {
        let members = addresses.iter().zip(1..).map(|(address, id)| format!("{id}={address}"));
        members.collect::<Vec<_>>().join(",")
    };
    let mut arguments = vec![
        "node".to_owned(),
        format!("--id={}", at + 1),
        format!("--data-dir={}", directory.display()),
        format!("--http={}", http[at]),
        format!("--raft={}", raft[at]),
        format!("--peers={}", list(raft)),
        format!("--http-peers={}", list(http)),
    ];
    if !raft[at].ip().is_loopback() {
        arguments.push("--insecure-peers".to_owned());
    }
    arguments
}

/// One node, or the balancer.
struct Process {
    /// Where it answers HTTP.
    address: SocketAddr,
    arguments: Vec<String>,
    log: PathBuf,
    restarted_under: Vec<String>,
    child: Child,
}

impl Process {
    fn start(
        address: SocketAddr,
        under: &[String],
        arguments: Vec<String>,
        log: PathBuf,
    ) -> Result<Self> {
        let child = spawn(under, &arguments, &log)?;
        Ok(Self { address, arguments, log, restarted_under: Vec::new(), child })
    }

    /// Waits until it answers at this path; `false` if it has ended because a port was taken.
    async fn comes_to_answer(&mut self, client: &Client, path: &str) -> Result<bool> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let answer = timeout(START_TIMEOUT, client.get(self.address, path)).await?;
            // Asked last, because whoever has taken the port may have answered.
            let ended = self.child.try_wait()?;
            let log = self.log.display();
            match (ended, answer) {
                (Some(_), _) if std::fs::read_to_string(&self.log)?.contains(PORT_TAKEN) => {
                    return Ok(false);
                }
                (Some(status), _) => {
                    let what = &self.arguments[0];
                    return Err(format!("{what} ended with {status}; see {log}").into());
                }
                (None, Ok(_)) => return Ok(true),
                (None, Err(error)) if Instant::now() > deadline => {
                    let address = self.address;
                    return Err(format!("{address} does not answer: {error}; see {log}").into());
                }
                (None, Err(_)) => sleep(POLL).await,
            }
        }
    }
}

fn spawn(under: &[String], arguments: &[String], log: &Path) -> Result<Child> {
    let log: File = OpenOptions::new().create(true).append(true).open(log)?;
    let this = std::env::current_exe()?;
    let mut command = match under {
        [] => Command::new(this),
        [program, options @ ..] => {
            let mut command = Command::new(program);
            command.args(options).arg(this);
            command
        }
    };
    command.arg(RUN_LEADERBOARD).args(arguments).arg("--exit-with-stdin");
    // A variable that somebody has set for their own cluster must not reach this one.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LEADERBOARD_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
    Ok(command.spawn()?)
}

/// Addresses that nobody uses: all are taken at once, so that they differ, then given back.
fn free_addresses(count: usize) -> Result<Vec<SocketAddr>> {
    let ip = own_ip();
    let taken = (0..count).map(|_| TcpListener::bind((ip, 0)));
    let taken = taken.collect::<std::io::Result<Vec<_>>>()?;
    Ok(taken.iter().map(TcpListener::local_addr).collect::<std::io::Result<_>>()?)
}

/// An address where no other program takes ports, not even while a node is down: on Linux the whole
/// of 127/8 is this machine. Elsewhere only one address is.
fn own_ip() -> Ipv4Addr {
    if !cfg!(target_os = "linux") {
        return Ipv4Addr::LOCALHOST;
    }
    let [_, a, b, c] = std::process::id().to_be_bytes();
    // Process ids have 22 bits at most; 127.0 is left to everybody else.
    Ipv4Addr::new(127, 1 + (a & 63), b, c)
}
