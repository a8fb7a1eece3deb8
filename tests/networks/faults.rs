//! What goes wrong, and that the cluster goes on.

use std::future::Future;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

use super::load::Load;
use super::real::Result;
use super::real::client::Client;
use super::real::cluster::Cluster;
use super::wires::{HERE, Wires};

const NODES: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);
/// So many more votes and reads are progress.
const PROGRESS: u64 = 100;
/// The default of `leaderboard node`.
const ELECTION_TIMEOUT: Duration = Duration::from_millis(300);

/// A cluster in networks of its own, in use.
pub(crate) struct World {
    wires: Wires,
    cluster: Cluster,
    load: Rc<Load>,
}

/// Lets clients work, has `trouble` made, and judges in the end what the clients were told. All nodes must come
/// to the same state.
pub(crate) async fn under_load(
    keep: &Path,
    trouble: impl AsyncFnOnce(&mut World) -> Result<()>,
) -> Result<()> {
    let wires = Wires::new(NODES)?;
    let cluster = Cluster::start_at(keep, &wires.places(), (HERE, 8080).into()).await?;
    let mut doors = vec![cluster.address(); NODES];
    doors.extend(cluster.ids().map(|id| cluster.address_of(id)));
    let clients = LocalSet::new();
    let (load, tasks) = Load::start(&clients, doors);
    let mut world = World { wires, cluster, load };
    clients
        .run_until(async {
            world.progress().await?;
            trouble(&mut world).await?;
            world.progress().await?;
            let operations = world.load.judge(tasks).await?;
            println!("{operations} operations");
            world.all_agree().await
        })
        .await
}

/// The leader hears nobody and nobody hears it, as if its cable were pulled.
pub(crate) async fn the_leader_is_unplugged(world: &mut World) -> Result<()> {
    for _ in 0..2 {
        let leader = world.leader().await?;
        world.wires.unplug(leader)?;
        world.another_leads(leader).await?;
        world.progress().await?;
        world.wires.plug_in(leader)?;
        world.follows_again(leader).await?;
    }
    Ok(())
}

/// Clients reach the leader, and it hears the others, but they do not hear it.
pub(crate) async fn the_leader_is_mute(world: &mut World) -> Result<()> {
    let leader = world.leader().await?;
    for other in others(leader) {
        world.wires.cut(leader, other)?;
    }
    world.another_leads(leader).await?;
    world.progress().await?;
    for other in others(leader) {
        world.wires.heal(leader, other)?;
    }
    world.follows_again(leader).await
}

/// The others hear the leader, and it hears none of them: it must not lead on for ever without knowing whether
/// anything is committed.
pub(crate) async fn the_leader_is_deaf(world: &mut World) -> Result<()> {
    let leader = world.leader().await?;
    for other in others(leader) {
        world.wires.cut(other, leader)?;
    }
    world.another_leads(leader).await?;
    world.progress().await?;
    for other in others(leader) {
        world.wires.heal(other, leader)?;
    }
    world.follows_again(leader).await
}

/// The leader and one follower do not reach each other; the third node reaches both. There is no reason for more than
/// one election: whoever leads has a majority.
pub(crate) async fn one_link_is_cut(world: &mut World) -> Result<()> {
    let leader = world.leader().await?;
    let cut_off = others(leader)[0];
    let before = world.term().await?;
    world.wires.cut(leader, cut_off)?;
    world.wires.cut(cut_off, leader)?;
    let begin = Instant::now();
    while begin.elapsed() < ELECTION_TIMEOUT * 10 {
        world.progress().await?;
    }
    let elections = world.term().await?.saturating_sub(before);
    world.wires.heal(leader, cut_off)?;
    world.wires.heal(cut_off, leader)?;
    if elections > 1 {
        return Err(format!("{elections} elections").into());
    }
    world.follows_again(cut_off).await
}

/// The link between the leader and a follower comes and goes.
pub(crate) async fn a_link_flaps(world: &mut World) -> Result<()> {
    let leader = world.leader().await?;
    let other = others(leader)[1];
    for _ in 0..8 {
        world.wires.cut(leader, other)?;
        sleep(ELECTION_TIMEOUT).await;
        world.wires.heal(leader, other)?;
        world.wires.cut(other, leader)?;
        sleep(ELECTION_TIMEOUT / 2).await;
        world.wires.heal(other, leader)?;
        sleep(ELECTION_TIMEOUT / 4).await;
    }
    world.follows_again(other).await
}

/// Nodes are killed and come back faster than they can catch up.
pub(crate) async fn nodes_are_killed_and_restarted(world: &mut World) -> Result<()> {
    let mut dice = fastrand::Rng::with_seed(7);
    for _ in 0..12 {
        let id = dice.usize(1..=NODES);
        world.cluster.kill(id).await?;
        sleep(Duration::from_millis(dice.u64(0..400))).await;
        world.cluster.restart(id)?;
        sleep(Duration::from_millis(dice.u64(0..400))).await;
    }
    Ok(())
}

/// The leader stands still for twenty election timeouts, and does not know it when it goes on. What it is asked then
/// it must not answer from what it remembers.
pub(crate) async fn the_leader_stands_still(world: &mut World) -> Result<()> {
    let leader = world.leader().await?;
    let door = world.cluster.address_of(leader);
    world.cluster.pause(leader)?;
    sleep(ELECTION_TIMEOUT * 20).await;
    world.another_leads(leader).await?;
    world.progress().await?;
    // Waiting there when it goes on.
    let load = Rc::clone(&world.load);
    let waiting = tokio::task::spawn_local(async move {
        let reads = (0..6).map(|player| {
            let load = Rc::clone(&load);
            tokio::task::spawn_local(async move {
                load.read_at(100, &Client::new(), door, player).await
            })
        });
        let mut answered = 0;
        for read in reads.collect::<Vec<_>>() {
            answered += u64::from(read.await.unwrap_or(false));
        }
        answered
    });
    sleep(ELECTION_TIMEOUT / 2).await;
    world.cluster.resume(leader)?;
    let mut answered = 0;
    for player in 0..6 {
        let heard = world.load.read_at(101, &Client::new(), door, player).await;
        answered += u64::from(heard);
    }
    answered += waiting.await?;
    if answered == 0 {
        return Err("no read through the node that stood still was answered".into());
    }
    println!("{answered} of 12 reads through it were answered, ");
    world.follows_again(leader).await
}

fn others(id: usize) -> Vec<usize> {
    (1..=NODES).filter(|&other| other != id).collect()
}

impl World {
    /// Waits until more is acknowledged and read.
    async fn progress(&self) -> Result<()> {
        let (votes, reads) = self.load.done();
        let enough = async || {
            let (now, reads_now) = self.load.done();
            Ok((now >= votes + PROGRESS && reads_now >= reads + PROGRESS / 4).then_some(()))
        };
        eventually("the clients make no progress", enough).await
    }

    /// The node that leads, as a majority says.
    async fn leader(&self) -> Result<usize> {
        let find = async || {
            let states = self.states().await;
            let leaders = states.iter().filter_map(|state| state["leader"].as_u64());
            let leaders: Vec<u64> = leaders.collect();
            let by_many = |id: u64| 2 * leaders.iter().filter(|&&it| it == id).count() > NODES;
            let leader = leaders.iter().copied().find(|&id| by_many(id));
            Ok(leader.map(|id| usize::try_from(id).expect("one of three")))
        };
        eventually("nobody leads", find).await
    }

    async fn another_leads(&self, than: usize) -> Result<()> {
        let another = async || {
            let states = self.states_of(&others(than)).await;
            let leads = |state: &serde_json::Value| state["role"] == "leader";
            Ok(states.iter().any(leads).then_some(()))
        };
        eventually("nobody else comes to lead", another).await
    }

    /// Waits until a node can serve again what is committed.
    async fn follows_again(&self, id: usize) -> Result<()> {
        let (client, address) = (Client::new(), self.cluster.address_of(id));
        let ready = async || Ok(soon(client.get(address, "/readyz")).await);
        eventually("a node does not come back", ready).await.map(drop)
    }

    async fn term(&self) -> Result<u64> {
        let terms = self.states().await.into_iter().filter_map(|state| state["term"].as_u64());
        Ok(terms.max().ok_or("nobody answers")?)
    }

    async fn states(&self) -> Vec<serde_json::Value> {
        self.states_of(&self.cluster.ids().collect::<Vec<_>>()).await
    }

    /// What the nodes that answer soon say.
    async fn states_of(&self, ids: &[usize]) -> Vec<serde_json::Value> {
        let client = Client::new();
        let mut states = Vec::new();
        for &id in ids {
            states.extend(soon(client.get(self.cluster.address_of(id), "/v1/cluster")).await);
        }
        states
    }

    /// All nodes come to the same index with the same digest.
    async fn all_agree(&self) -> Result<()> {
        let same = async || {
            let states = self.states().await;
            let is_same = |state: &serde_json::Value| {
                ["applied_index", "digest"].iter().all(|field| state[*field] == states[0][*field])
            };
            Ok((states.len() == NODES && states.iter().all(is_same)).then_some(()))
        };
        eventually("the nodes do not come to the same state", same).await
    }
}

/// What is answered within half a second.
async fn soon<T>(answer: impl Future<Output = Result<T>>) -> Option<T> {
    tokio::time::timeout(Duration::from_millis(500), answer).await.ok()?.ok()
}

async fn eventually<T>(otherwise: &str, done: impl AsyncFn() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(done) = done().await? {
            return Ok(done);
        }
        if Instant::now() > deadline {
            return Err(otherwise.into());
        }
        sleep(Duration::from_millis(20)).await;
    }
}
