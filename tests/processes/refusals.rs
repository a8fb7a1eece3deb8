//! Where a node must not run, and whom it must not listen to.

use std::io::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::real::Result;
use crate::real::client::{Client, Outcome, Vote};
use crate::real::cluster::Cluster;

const REFUSED_FOR_SAFETY: i32 = 3;
/// How long a node may take to know what the others know.
const PATIENCE: Duration = Duration::from_secs(60);

/// A second node on a running node's directory, and another node's identity on it, are refused.
pub(crate) async fn one_directory_is_for_one_node(
    cluster: &mut Cluster,
    keep: &Path,
) -> Result<()> {
    let log = keep.join("second.log");
    let ended = cluster.run_node(1, cluster.directory_of(1), &log).await?;
    expect_refusal(ended, &log, &["in use"])?;

    cluster.kill(2).await?;
    let log = keep.join("foreign.log");
    let ended = cluster.run_node(1, cluster.directory_of(2), &log).await?;
    expect_refusal(ended, &log, &["belongs to n2", "not to n1"])?;

    vote(cluster, "still-there").await
}

/// A node whose entries are damaged where they were durable keeps its vote and is filled up by the others.
/// One whose vote may be lost says so, and does not run.
pub(crate) async fn a_damaged_log_is_repaired_and_a_lost_vote_refused(
    cluster: &mut Cluster,
    keep: &Path,
) -> Result<()> {
    for number in 0..50 {
        vote(cluster, &format!("player-{number}")).await?;
    }
    read_at(cluster, 3).await?;
    cluster.kill(3).await?;
    // Behind both copies of the header, in what was synced long ago.
    damage(&first_segment(&cluster.directory_of(3))?, 2 * 4096 + 700, 1)?;
    cluster.restart(3)?;
    cluster.wait_for_log(3, "the log was damaged").await?;
    read_at(cluster, 3).await?;
    let client = Client::new();
    let rows = client.get(cluster.address_of(3), "/player_rankings?limit=1000").await?;
    if rows.as_array().map(Vec::len) != Some(50) {
        return Err(format!("fifty players have a vote each, but node 3 has {rows}").into());
    }
    stops_limping(cluster, 3).await?;

    cluster.kill(3).await?;
    // Without both copies of its header nothing in a segment can be read, and the vote is in there.
    damage(&first_segment(&cluster.directory_of(3))?, 0, 2 * 4096)?;
    let log = keep.join("damaged.log");
    let ended = cluster.run_node(3, cluster.directory_of(3), &log).await?;
    expect_refusal(ended, &log, &["segment-", "last vote may be lost"])?;
    vote(cluster, "the-others-go-on").await
}

/// Changes so many bytes of a file from a place on.
fn damage(file: &Path, place: usize, count: usize) -> Result<()> {
    let mut bytes = std::fs::read(file)?;
    bytes[place..place + count].iter_mut().for_each(|byte| *byte ^= 0x40);
    Ok(std::fs::write(file, &bytes)?)
}

/// Garbage, and a node of another cluster, on the Raft port: refused with a line in the log, and the
/// cluster goes on.
pub(crate) async fn strangers_on_the_raft_port_change_nothing(
    cluster: &mut Cluster,
    keep: &Path,
) -> Result<()> {
    vote(cluster, "before").await?;
    for garbage in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 5000], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0"]
    {
        let mut stream = TcpStream::connect(cluster.raft_address_of(1))?;
        stream.set_write_timeout(Some(Duration::from_secs(5)))?;
        // The node may hang up before it has read everything.
        let _ = stream.write_all(garbage);
    }
    let stranger =
        cluster.start_stranger(2, &keep.join("stranger-data"), &keep.join("stranger.log"))?;
    cluster.wait_for_log(1, "belongs to the cluster \"strangers\"").await?;
    drop(stranger);
    vote(cluster, "after").await
}

/// Reads at a node, which has to catch up with all that was acknowledged before it can answer.
async fn read_at(cluster: &Cluster, id: usize) -> Result<()> {
    let client = Client::new();
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = client.get(cluster.address_of(id), "/top_n_scores?n=1").await {
        if Instant::now() > deadline {
            return Err(format!("node {id} cannot be read: {error}").into());
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// A node that was filled up has to say so; what it lost may reach beyond what had been committed.
async fn stops_limping(cluster: &Cluster, id: usize) -> Result<()> {
    let client = Client::new();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let state = client.get(cluster.address_of(id), "/v1/cluster").await?;
        if state["log"]["limping"] == false {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("it was filled up, and still limps: {state}").into());
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn vote(cluster: &Cluster, player: &str) -> Result<()> {
    let vote = Vote { player: player.to_owned(), score: 1, key: Some(format!("key-{player}")) };
    match Client::new().vote(cluster.address(), &vote).await? {
        Outcome::Acknowledged => Ok(()),
        other => Err(format!("{vote:?}: {other:?}").into()),
    }
}

fn expect_refusal(exit_code: Option<i32>, log: &Path, words: &[&str]) -> Result<()> {
    let said = std::fs::read_to_string(log)?;
    if exit_code != Some(REFUSED_FOR_SAFETY) {
        return Err(format!("exit code {exit_code:?}, and it said: {said}").into());
    }
    match words.iter().find(|word| !said.contains(**word)) {
        Some(word) => Err(format!("it does not say {word:?}, but: {said}").into()),
        None => Ok(()),
    }
}

fn first_segment(directory: &Path) -> Result<PathBuf> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("segment-") && !name.ends_with(".broken") {
            segments.push(path);
        }
    }
    segments.into_iter().min().ok_or_else(|| "the node has no segment".into())
}
