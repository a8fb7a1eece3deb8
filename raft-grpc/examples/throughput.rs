//! Three nodes in one process, each with its own log in the temporary directory, and as many
//! clients as you like: `throughput [clients] [seconds] [DIR]`. With DIR the nodes speak TLS, with the files that
//! `leaderboard certs --cluster throughput --nodes 1,2,3 --out DIR` makes.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft_grpc::{
    AppliedEntry, Capture, Consistency, NodeConfig, NodeId, PeerSecurity, RaftHandle, RestoreError,
    StateMachine, TlsFiles,
};
use tokio::task::JoinSet;

#[derive(Default)]
struct Counter(u64);

impl StateMachine for Counter {
    fn apply(&mut self, _: &AppliedEntry) -> Bytes {
        self.0 += 1;
        Bytes::copy_from_slice(&self.0.to_be_bytes())
    }

    fn snapshot(&self) -> Capture {
        self.0.to_be_bytes().to_vec().into()
    }

    fn restore(&self, snapshot: &mut dyn std::io::Read) -> Result<Self, RestoreError> {
        let mut bytes = [0; 8];
        snapshot.read_exact(&mut bytes)?;
        Ok(Self(u64::from_be_bytes(bytes)))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let clients: usize = arguments.next().map_or(Ok(256), |clients| clients.parse())?;
    let seconds: u64 = arguments.next().map_or(Ok(5), |seconds| seconds.parse())?;
    let certificates = arguments.next().map(PathBuf::from);
    let dir = tempfile::tempdir()?;
    let mut peers = BTreeMap::new();
    let mut listeners = Vec::new();
    for id in (1..=3).filter_map(NodeId::new) {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        peers.insert(id, listener.local_addr()?.to_string());
        listeners.push((id, listener));
    }
    let mut nodes = Vec::new();
    for (id, listener) in listeners {
        let data_dir = dir.path().join(id.to_string());
        let listen = listener.local_addr()?;
        let mut config = NodeConfig::new("throughput", id, data_dir, listen, peers.clone());
        if let Some(dir) = &certificates {
            config.security = PeerSecurity::Tls(TlsFiles {
                ca: dir.join("ca.pem"),
                certificate: dir.join(format!("{id}.pem")),
                key: dir.join(format!("{id}.key")),
            });
        }
        let (handle, _task) = raft_grpc::start_on(listener, config, Counter::default()).await?;
        nodes.push(handle);
    }
    nodes[0].propose(Bytes::new()).await?;
    let leader = nodes[0].status().raft.leader.ok_or("a leader answered just now")?;
    nodes.sort_by_key(|node| node.status().raft.id != leader);

    let time = Duration::from_secs(seconds);
    println!("{clients} clients, one request at a time each, {seconds} s each line");
    report("writes at the leader", measure(&nodes[..1], clients, time, write).await);
    report("writes at the followers", measure(&nodes[1..], clients, time, write).await);
    report("linearizable reads at the leader", measure(&nodes[..1], clients, time, read).await);
    report("linearizable reads at the followers", measure(&nodes[1..], clients, time, read).await);
    for node in nodes {
        node.shutdown().await;
    }
    Ok(())
}

async fn write(node: RaftHandle<Counter>) {
    let command = Bytes::from_static(&[7; 64]);
    node.propose(command).await.expect("nothing is broken");
}

async fn read(node: RaftHandle<Counter>) {
    let read = node.read(Consistency::Linearizable).await;
    drop(read.expect("nothing is broken"));
}

/// How long each request took.
async fn measure<F: Future<Output = ()> + Send + 'static>(
    nodes: &[RaftHandle<Counter>],
    clients: usize,
    time: Duration,
    request: fn(RaftHandle<Counter>) -> F,
) -> (Vec<Duration>, Duration) {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let node = nodes[client % nodes.len()].clone();
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            while start.elapsed() < time {
                let begin = Instant::now();
                request(node.clone()).await;
                latencies.push(begin.elapsed());
            }
            latencies
        });
    }
    let latencies = tasks.join_all().await.concat();
    (latencies, start.elapsed())
}

fn report(what: &str, (mut latencies, time): (Vec<Duration>, Duration)) {
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    let rate = latencies.len() as f64 / time.as_secs_f64();
    let (half, most, nearly_all) = (at(0.5), at(0.99), at(0.999));
    println!(
        "{what:36} {rate:>9.0}/s   p50 {half:>9.1?}   p99 {most:>9.1?}   p99.9 {nearly_all:>9.1?}"
    );
}
