//! What is going to run where: decided and checked before anything starts.

use std::ffi::OsString;
use std::fmt;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use clap::Parser;
use leaderboard_app::certs::{self, CertsArgs};
use raft_core::NodeId;

/// The balancer's port unless told otherwise; node *i* answers HTTP *i* ports above it.
const BASE_PORT: u16 = 8080;

/// Raft ports are this far below the HTTP ports.
const RAFT_BELOW_HTTP: u16 = 1000;

/// The name of the cluster, which is in the certificates: what it is unless told otherwise.
const CLUSTER: &str = "leaderboard";

/// How long certificates are valid; there are new ones at every start.
const CERTIFICATE_DAYS: u32 = 365;

/// Remembers how many nodes the data belongs to.
const NODES_FILE: &str = "nodes";

/// A replicated leaderboard on this machine: nodes as real processes, a balancer, and a page
#[derive(Debug, Parser)]
#[command(
    name = "cluster",
    after_help = "While it runs, these commands are read from standard input:\n  \
                  k 2  kill node 2 with SIGKILL\n  \
                  r 2  restart node 2\n  \
                  s    show the status of all nodes\n  \
                  h    show the commands\n  \
                  q    stop everything (as Ctrl-C does)"
)]
pub(crate) struct Options {
    /// How many nodes; a majority of them must be up
    #[arg(long, value_name = "COUNT", default_value_t = 3,
          value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: u16,
    /// Where data and logs are kept between runs [default: cluster-data below the cargo target
    /// directory]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where the balancer serves the page and the API [default: port --base-port of 127.0.0.1]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<SocketAddr>,
    /// Node I answers HTTP at port BASE+I and talks Raft at port BASE+I-1000
    #[arg(long, value_name = "BASE", default_value_t = BASE_PORT,
          value_parser = clap::value_parser!(u16).range(1024..=65_000))]
    base_port: u16,
    /// Nodes prove to each other who they are, and encrypt what they say, with certificates in the data
    /// directory that are made at every start
    #[arg(long)]
    tls: bool,
}

/// One of the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Member {
    Node(u16),
    Balancer,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(id) => write!(f, "node {id}"),
            Self::Balancer => f.write_str("balancer"),
        }
    }
}

impl Member {
    /// How the member is called in commands.
    pub(crate) fn key(self) -> String {
        match self {
            Self::Node(id) => id.to_string(),
            Self::Balancer => "b".to_owned(),
        }
    }
}

/// Everything that is fixed for the whole run.
#[derive(Debug)]
pub(crate) struct Plan {
    nodes: u16,
    base_port: u16,
    listen: SocketAddr,
    data_dir: PathBuf,
    tls: bool,
}

impl Plan {
    /// Fills in what the options leave open.
    pub(crate) fn new(options: &Options) -> Result<Self, String> {
        let data_dir = match &options.data_dir {
            Some(data_dir) => data_dir.clone(),
            None => std::env::current_exe()
                .ok()
                .and_then(|exe| default_data_dir(&exe))
                .ok_or("this program is not below a cargo target directory: give --data-dir DIR")?,
        };
        let listen = options.listen.unwrap_or_else(|| loopback(options.base_port));
        let Options { nodes, base_port, tls, .. } = *options;
        let plan = Self { nodes, base_port, listen, data_dir, tls };
        match plan.nodes().find(|&id| listen.port() == plan.http(id).port()) {
            Some(id) => Err(format!(
                "--listen {listen} takes the HTTP port of node {id}: choose another, or move the \
                 nodes with --base-port"
            )),
            None => Ok(plan),
        }
    }

    /// Finds out now whether the ports are free and the data is of this cluster, because a child
    /// could only say so in its log.
    pub(crate) fn check(&self) -> Result<(), String> {
        let below_listen = "choose another with --listen HOST:PORT";
        let below_base = "choose others with --base-port BASE";
        let mut ports = vec![(self.listen, "the balancer".to_owned(), below_listen)];
        for id in self.nodes() {
            ports.push((self.http(id), format!("HTTP of node {id}"), below_base));
            ports.push((self.raft(id), format!("Raft of node {id}"), below_base));
        }
        for (address, purpose, advice) in ports {
            TcpListener::bind(address).map_err(|error| match error.kind() {
                ErrorKind::AddrInUse => format!(
                    "port {} ({purpose}) is in use: stop what uses it (another cluster, perhaps), \
                     or {advice}",
                    address.port()
                ),
                _ => format!("cannot listen on {address} ({purpose}): {error}; {advice}"),
            })?;
        }
        self.claim_data_dir()?;
        self.make_certificates()
    }

    /// New certificates for all nodes, if they are wanted; the authority stays.
    fn make_certificates(&self) -> Result<(), String> {
        if !self.tls {
            return Ok(());
        }
        let certs = CertsArgs {
            out: self.certs_dir(),
            cluster: CLUSTER.to_owned(),
            nodes: self.nodes().filter_map(node_id).collect(),
            days: CERTIFICATE_DAYS,
            renew: true,
        };
        certs::make(&certs)
            .map(|_| ())
            .map_err(|error| format!("cannot make certificates: {error}"))
    }

    /// Members are fixed by the data: nodes that believe in clusters of different sizes could
    /// elect two leaders.
    fn claim_data_dir(&self) -> Result<(), String> {
        let shown = self.data_dir.display();
        std::fs::create_dir_all(&self.data_dir).map_err(|error| {
            format!("cannot create {shown}: {error}; choose another --data-dir")
        })?;
        let file = self.data_dir.join(NODES_FILE);
        match std::fs::read_to_string(&file) {
            Ok(nodes) if nodes.trim() == self.nodes.to_string() => Ok(()),
            Ok(nodes) => Err(format!(
                "{shown} holds a cluster of {} nodes: give --nodes {}, or another --data-dir",
                nodes.trim(),
                nodes.trim()
            )),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                std::fs::write(&file, format!("{}\n", self.nodes))
                    .map_err(|error| format!("cannot write {}: {error}", file.display()))
            }
            Err(error) => Err(format!("cannot read {}: {error}", file.display())),
        }
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = u16> + use<> {
        1..=self.nodes
    }

    /// Every process, in the order of start.
    pub(crate) fn members(&self) -> impl Iterator<Item = Member> + use<> {
        self.nodes().map(Member::Node).chain([Member::Balancer])
    }

    pub(crate) fn listen(&self) -> SocketAddr {
        self.listen
    }

    pub(crate) fn http(&self, id: u16) -> SocketAddr {
        loopback(self.base_port + id)
    }

    pub(crate) fn raft(&self, id: u16) -> SocketAddr {
        loopback(self.base_port + id - RAFT_BELOW_HTTP)
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub(crate) fn node_dir(&self, id: u16) -> PathBuf {
        self.data_dir.join(format!("node-{id}"))
    }

    fn certs_dir(&self) -> PathBuf {
        self.data_dir.join("certs")
    }

    /// Where the standard output and error of a process go.
    pub(crate) fn log(&self, member: Member) -> PathBuf {
        self.data_dir.join(match member {
            Member::Node(id) => format!("node-{id}.log"),
            Member::Balancer => "balancer.log".to_owned(),
        })
    }

    /// The arguments of the `leaderboard` program for one process.
    pub(crate) fn arguments(&self, member: Member) -> Vec<OsString> {
        let list = |item: &dyn Fn(u16) -> String| {
            OsString::from(self.nodes().map(item).collect::<Vec<_>>().join(","))
        };
        let mut arguments: Vec<OsString> = vec!["--exit-with-stdin".into()];
        let mut option = |name: &str, value: OsString| arguments.extend([name.into(), value]);
        match member {
            Member::Node(id) => {
                option("--id", id.to_string().into());
                option("--data-dir", self.node_dir(id).into());
                option("--http", self.http(id).to_string().into());
                option("--raft", self.raft(id).to_string().into());
                option("--peers", list(&|id| format!("{id}={}", self.raft(id))));
                option("--http-peers", list(&|id| format!("{id}={}", self.http(id))));
                // So that nodes which join later learn where the others are.
                option("--advertise", self.raft(id).to_string().into());
                if let Some(node) = node_id(id).filter(|_| self.tls) {
                    let files = certs::files(&self.certs_dir(), node);
                    option("--cluster", CLUSTER.into());
                    option("--tls-ca", files.ca.into());
                    option("--tls-cert", files.certificate.into());
                    option("--tls-key", files.key.into());
                }
                arguments.insert(0, "node".into());
            }
            Member::Balancer => {
                option("--listen", self.listen.to_string().into());
                option("--nodes", list(&|id| self.http(id).to_string()));
                arguments.insert(0, "balancer".into());
            }
        }
        arguments
    }
}

/// As the library wants it; the numbers of nodes begin at 1.
fn node_id(id: u16) -> Option<NodeId> {
    NodeId::new(id.into())
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// `target/<profile>/examples/cluster` → `target/cluster-data`: all profiles share the data.
fn default_data_dir(exe: &Path) -> Option<PathBuf> {
    let examples = exe.parent().filter(|dir| dir.ends_with("examples"))?;
    Some(examples.parent()?.parent()?.join("cluster-data"))
}

/// A path as it is easiest to read: relative to here, if it is below.
pub(crate) fn shown(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let below = here.as_deref().and_then(|here| path.strip_prefix(here).ok());
    below.unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(arguments: &[&str]) -> Result<Plan, String> {
        let arguments = ["cluster", "--data-dir", "d"].iter().chain(arguments);
        Plan::new(&Options::try_parse_from(arguments).expect("options are valid"))
    }

    fn flag(plan: &Plan, member: Member, name: &str) -> String {
        let arguments = plan.arguments(member);
        let at = arguments.iter().position(|argument| argument == name).expect("it is given");
        arguments[at + 1].to_str().expect("ASCII").to_owned()
    }

    #[test]
    fn the_defaults_are_the_documented_addresses() {
        let plan = plan(&[]).expect("it can run");
        assert_eq!(flag(&plan, Member::Balancer, "--listen"), "127.0.0.1:8080");
        let nodes = "127.0.0.1:8081,127.0.0.1:8082,127.0.0.1:8083";
        assert_eq!(flag(&plan, Member::Balancer, "--nodes"), nodes);
        let peers = "1=127.0.0.1:7081,2=127.0.0.1:7082,3=127.0.0.1:7083";
        assert_eq!(flag(&plan, Member::Node(2), "--peers"), peers);
        assert_eq!(flag(&plan, Member::Node(2), "--raft"), "127.0.0.1:7082");
        assert_eq!(flag(&plan, Member::Node(2), "--http"), "127.0.0.1:8082");
        assert_eq!(flag(&plan, Member::Node(2), "--data-dir"), "d/node-2");
    }

    #[test]
    fn the_base_port_moves_everything() {
        let plan = plan(&["--base-port", "9500", "--nodes", "1"]).expect("it can run");
        assert_eq!(flag(&plan, Member::Balancer, "--listen"), "127.0.0.1:9500");
        assert_eq!(flag(&plan, Member::Node(1), "--http"), "127.0.0.1:9501");
        assert_eq!(flag(&plan, Member::Node(1), "--raft"), "127.0.0.1:8501");
    }

    #[test]
    fn certificates_are_made_and_given_to_the_nodes_if_they_are_wanted() {
        let plain = plan(&[]).expect("it can run");
        assert!(!plain.arguments(Member::Node(1)).iter().any(|argument| argument == "--tls-ca"));
        assert_eq!(plain.make_certificates(), Ok(()));
        assert!(!plain.certs_dir().exists());
        let dir = tempfile::tempdir().expect("a directory");
        let options = ["cluster", "--tls", "--data-dir", dir.path().to_str().expect("UTF-8")];
        let options = Options::try_parse_from(options).expect("valid");
        let plan = Plan::new(&options).expect("it can run");
        for _start in 1..=2 {
            assert_eq!(plan.make_certificates(), Ok(()));
            for option in ["--tls-ca", "--tls-cert", "--tls-key"] {
                let file = flag(&plan, Member::Node(3), option);
                assert!(Path::new(&file).exists(), "{file}");
            }
        }
    }

    #[test]
    fn the_balancer_may_not_take_a_nodes_port() {
        let error = plan(&["--listen", "127.0.0.1:8083"]).expect_err("a clash");
        assert!(error.contains("node 3") && error.contains("--base-port"), "{error}");
    }

    #[test]
    fn data_is_kept_below_the_target_directory() {
        let exe = Path::new("/repo/target/release/examples/cluster");
        assert_eq!(default_data_dir(exe), Some("/repo/target/cluster-data".into()));
        assert_eq!(default_data_dir(Path::new("/usr/bin/cluster")), None);
    }

    #[test]
    fn data_of_a_cluster_of_another_size_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path().to_str().expect("UTF-8");
        let plan = |nodes| {
            let arguments = ["cluster", "--data-dir", dir, "--nodes", nodes];
            Plan::new(&Options::try_parse_from(arguments).expect("valid")).expect("it can run")
        };
        assert_eq!(plan("3").claim_data_dir(), Ok(()));
        assert_eq!(plan("3").claim_data_dir(), Ok(()));
        let error = plan("5").claim_data_dir().expect_err("another size");
        assert!(error.contains("--nodes 3"), "{error}");
    }

    #[test]
    fn a_port_in_use_is_named_with_what_to_do() {
        let taken = TcpListener::bind(loopback(0)).expect("a port");
        let address = taken.local_addr().expect("an address").to_string();
        let error = plan(&["--listen", &address]).and_then(|plan| plan.check());
        let error = error.expect_err("the port is taken");
        assert!(error.contains("the balancer") && error.contains("--listen"), "{error}");
    }
}
