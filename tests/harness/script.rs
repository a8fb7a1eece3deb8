//! Runs golden scripts: each command moves the cluster by one step, and the transcript says all
//! that the nodes did. `tests/golden/README.md` explains commands and notation to the reader.

mod notation;
mod stage;
mod transcript;

use std::collections::BTreeMap;
use std::error::Error;
use std::str::FromStr;
use std::time::Duration;

use raft_core::{HardState, NodeId, Term};

use stage::Stage;

/// What a script can say. An argument `ID` is the number of a node.
#[derive(goldenscript::Command)]
pub enum Command {
    /// `cluster NODES [LIMIT=N]...`: nodes 1 to NODES, never run before. LIMIT is a field of
    /// `raft_core::Config` that ends in `_max`.
    Cluster(u64, #[arg(key, many, optional)] Vec<(String, u64)>),
    /// `state ID term=N [vote=ID] [log="TERM TERM ..."]`: the node starts with this on its disk.
    State {
        id: Id,
        #[arg(key)]
        term: u64,
        #[arg(key)]
        vote: Option<Id>,
        #[arg(key)]
        log: Option<Terms>,
    },
    /// `tick 50ms`: time passes; every timer that runs out meanwhile does so, in order.
    Tick(Milliseconds),
    /// `run 50ms`: time passes, and messages arrive as soon as they are sent.
    Run(Milliseconds),
    /// `heartbeat ID`: time passes until the leader shows that it is alive.
    Heartbeat(Id),
    /// `timeout ID`: time passes until the node campaigns, or gives up as a leader. Only its own
    /// timers run.
    Timeout(Id),
    /// `deliver [from=ID] [to=ID] [skip=N] [n=N]`: messages on their way arrive, oldest first. What
    /// they cause is on its way then.
    Deliver(#[arg(key, many, optional)] Which),
    /// `drop ...`: as in `deliver`, but they are lost.
    Drop(#[arg(key, many, optional)] Which),
    /// `duplicate ...`: a copy of each is on its way too.
    Duplicate(#[arg(key, many, optional)] Which),
    /// `delay ...`: they stay away until `release`.
    Delay(#[arg(key, many, optional)] Which),
    /// `release`: what was delayed is on its way again.
    Release,
    /// `stabilize`: messages arrive until none is on its way.
    Stabilize,
    /// `partition ID...`: what these nodes and the others send to each other from now on is lost.
    Partition(Vec<Id>),
    /// `heal`: no partition any more.
    Heal,
    /// `stall ID`: the disk takes writes and finishes none.
    Stall(Id),
    /// `sync ID [skip=N] [n=N]`: a stalled disk finishes the writes that it has, oldest first.
    Sync {
        id: Id,
        #[arg(key, optional)]
        skip: usize,
        #[arg(key)]
        n: Option<usize>,
    },
    /// `unstall ID`: the disk finishes what it has, and every write at once from now on.
    Unstall(Id),
    /// `busy ID`: the driver takes in what happens, and does not poll the node.
    Busy(Id),
    /// `poll ID`: the driver of a busy node polls it once, and after everything again.
    Poll(Id),
    /// `crash ID [survivors=N]`: the node is gone, and what its disk had not finished, the N oldest
    /// writes excepted.
    Crash {
        id: Id,
        #[arg(key, optional)]
        survivors: usize,
    },
    /// `restart ID`: it starts again with what its disk has.
    Restart(Id),
    /// `propose ID COMMAND...`: commands in one proposal.
    Propose(Id, Vec<String>),
    /// `read ID`: a linearizable read.
    Read(Id),
    /// `status [ID]...`: how nodes see themselves, and leaders the others.
    Status(#[arg(optional)] Vec<Id>),
    /// `log [ID]...`: what is in their logs.
    Log(#[arg(optional)] Vec<Id>),
    /// `network`: what is on its way.
    Network,
    /// `> n2@1 → n1 RequestVote last=0@0`: this message arrives, whoever may have made it.
    #[command(other)]
    Arrive(goldenscript::Command),
}

/// A node as scripts name it: by its number.
#[derive(Clone, Copy)]
pub struct Id(NodeId);

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let id = text.parse().ok().and_then(NodeId::new);
        id.map(Self).ok_or_else(|| format!("a node is a number from 1, not {text:?}"))
    }
}

/// The terms of a log's entries.
pub struct Terms(Vec<Term>);

impl FromStr for Terms {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let terms = text.split_whitespace().map(|term| term.parse().map(Term));
        terms.collect::<Result<_, _>>().map(Self)
    }
}

/// A time such as `50ms`.
pub struct Milliseconds(Duration);

impl FromStr for Milliseconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix("ms").and_then(|text| text.parse().ok());
        let millis = number.ok_or_else(|| format!("a time is like 50ms, not {text:?}"))?;
        Ok(Self(Duration::from_millis(millis)))
    }
}

/// Which of the messages on their way: `from=ID`, `to=ID`, `skip=N`, `n=N`.
type Which = BTreeMap<String, u64>;

/// Runs one script.
#[derive(Default)]
pub struct Script(Stage);

impl goldenscript::Runner for Script {
    type Command = Command;

    fn run(
        &mut self,
        command: &Command,
        _context: &goldenscript::Context,
    ) -> Result<String, Box<dyn Error>> {
        dispatch(&mut self.0, command)?;
        Ok(std::mem::take(&mut self.0.transcript))
    }
}

fn dispatch(stage: &mut Stage, command: &Command) -> Result<(), Box<dyn Error>> {
    match command {
        Command::Cluster(size, limits) => stage.start(*size, limits)?,
        Command::State { id: Id(id), term, vote, log } => {
            let voted_for = vote.map(|Id(id)| id);
            let terms = log.as_ref().map_or(&[][..], |Terms(terms)| terms);
            stage.put_on_disk(*id, HardState { term: Term(*term), voted_for }, terms)?;
        }
        Command::Tick(Milliseconds(time)) => stage.tick(*time, false)?,
        Command::Run(Milliseconds(time)) => stage.tick(*time, true)?,
        Command::Heartbeat(Id(id)) => stage.heartbeat(*id)?,
        Command::Timeout(Id(id)) => stage.time_out(*id)?,
        Command::Deliver(which) => stage.deliver(which)?,
        Command::Drop(which) => stage.lose(which)?,
        Command::Duplicate(which) => stage.duplicate(which)?,
        Command::Delay(which) => stage.delay(which)?,
        Command::Release => stage.release(),
        Command::Stabilize => stage.stabilize()?,
        Command::Partition(side) => stage.partition(side.iter().map(|Id(id)| *id).collect()),
        Command::Heal => stage.partition(Vec::new()),
        Command::Stall(Id(id)) => stage.stall(*id),
        Command::Sync { id: Id(id), skip, n } => stage.sync(*id, *skip, *n)?,
        Command::Unstall(Id(id)) => stage.unstall(*id)?,
        Command::Busy(Id(id)) => stage.busy(*id),
        Command::Poll(Id(id)) => stage.poll(*id)?,
        Command::Crash { id: Id(id), survivors } => stage.crash(*id, *survivors)?,
        Command::Restart(Id(id)) => stage.restart(*id)?,
        Command::Propose(Id(id), commands) => stage.propose(*id, commands)?,
        Command::Read(Id(id)) => stage.read(*id)?,
        Command::Status(ids) => stage.show(ids.iter().map(|Id(id)| *id), transcript::status)?,
        Command::Log(ids) => stage.show(ids.iter().map(|Id(id)| *id), transcript::log)?,
        Command::Network => stage.show_network(),
        Command::Arrive(raw) => stage.arrive(notation::envelope(&raw.name)?)?,
    }
    Ok(())
}
