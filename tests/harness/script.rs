//! Runs golden scripts: each command moves the cluster by one step, and the transcript says all
//! that the nodes did. `tests/golden/README.md` explains commands and notation to the reader.

mod notation;
mod settings;
mod stage;

use std::collections::BTreeMap;
use std::error::Error;
use std::str::FromStr;
use std::time::Duration;

use raft_core::{Consistency, HardState, LogIndex, Membership, NodeId, Term};
use raft_sim::transcript;

use stage::Stage;

/// What a script can say. An argument `ID` is the number of a node.
#[derive(goldenscript::Command)]
pub enum Command {
    /// `cluster NODES [SETTING=VALUE]...`: nodes 1 to NODES, never run before. SETTING is a field of
    /// `raft_core::Config`.
    Cluster(u64, #[arg(key, many, optional)] Vec<(String, String)>),
    /// `add ID`: a node that has never run, and waits to be made a member.
    Add(Id),
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
    /// `drift ID [fast_ppm=N] [slow_ppm=N]`: its clock goes wrong by so many millionths, from the start.
    Drift {
        id: Id,
        #[arg(key, optional)]
        fast_ppm: u32,
        #[arg(key, optional)]
        slow_ppm: u32,
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
    /// `garble ...`: the pieces of snapshots among them arrive with a wrong byte.
    Garble(#[arg(key, many, optional)] Which),
    /// `stabilize`: messages arrive until none is on its way.
    Stabilize,
    /// `partition ID...`: what these nodes and the others send to each other from now on is lost.
    Partition(Vec<Id>),
    /// `cut_link ID ID`: what these two send to each other from now on is lost.
    CutLink(Id, Id),
    /// `cut_one_way FROM TO`: what the one sends to the other is lost, and not the other way round.
    CutOneWay(Id, Id),
    /// `heal`: every link works again.
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
    /// `stall_chunks ID`: pieces of snapshots are neither read nor stored.
    StallChunks(Id),
    /// `unstall_chunks ID`: they are, those that wait and all that come.
    UnstallChunks(Id),
    /// `slow ID`: the state machine takes entries and reports none as applied.
    Slow(Id),
    /// `apply ID`: it reports what it was given, and everything at once from now on.
    Apply(Id),
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
    /// `damage ID keep=N`: the disk of a stopped node has lost all entries behind the N oldest in its
    /// log, and was repaired.
    Damage {
        id: Id,
        #[arg(key)]
        keep: usize,
    },
    /// `restart ID`: it starts again with what its disk has.
    Restart(Id),
    /// `propose ID COMMAND...`: commands in one proposal.
    Propose(Id, Vec<String>),
    /// `change ID "n1 n2 learning n3" [expected=N]`: a membership change.
    Change {
        id: Id,
        target: Members,
        #[arg(key)]
        expected: Option<u64>,
    },
    /// `transfer ID [to=ID]`: it is to hand over its leadership.
    Transfer {
        id: Id,
        #[arg(key)]
        to: Option<Id>,
    },
    /// `cut ID`: it cuts a snapshot of what it has applied.
    Cut(Id),
    /// `read ID [lease] [at_least=N]`: a linearizable read; one that trusts a lease; one of an index.
    Read {
        id: Id,
        lease: Option<Lease>,
        #[arg(key)]
        at_least: Option<u64>,
    },
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

/// Members in the notation of the core, without its braces.
pub struct Members(Membership);

impl FromStr for Members {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        notation::membership(&format!("{{{text}}}")).map(Self)
    }
}

/// The word `lease`.
pub struct Lease;

impl FromStr for Lease {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        (text == "lease").then_some(Self).ok_or_else(|| format!("no kind of read: {text}"))
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
        Command::Deliver(which) => stage.deliver(which)?,
        Command::Drop(which) => stage.lose(which)?,
        Command::Duplicate(which) => stage.duplicate(which)?,
        Command::Delay(which) => stage.delay(which)?,
        Command::Garble(which) => stage.garble(which)?,
        Command::Release => stage.release(),
        Command::Stabilize => stage.stabilize()?,
        Command::Partition(side) => stage.partition(side.iter().map(|Id(id)| *id).collect()),
        Command::CutLink(Id(one), Id(other)) => stage.cut_link(*one, *other),
        Command::CutOneWay(Id(from), Id(to)) => stage.cut_one_way(*from, *to),
        Command::Heal => stage.heal(),
        Command::Tick(Milliseconds(time)) => stage.tick(*time, false)?,
        Command::Run(Milliseconds(time)) => stage.tick(*time, true)?,
        Command::Heartbeat(Id(id)) => stage.heartbeat(*id)?,
        Command::Timeout(Id(id)) => stage.time_out(*id)?,
        Command::Busy(Id(id)) => stage.busy(*id),
        Command::Poll(Id(id)) => stage.poll(*id)?,
        Command::Status(ids) => stage.show(ids.iter().map(|Id(id)| *id), transcript::status)?,
        Command::Log(ids) => stage.show(ids.iter().map(|Id(id)| *id), transcript::log)?,
        Command::Network => stage.show_network(),
        Command::Arrive(raw) => {
            stage.cluster()?.checker.forgo_spec();
            stage.arrive(notation::envelope(&raw.name)?)?;
        }
        of_one_node => dispatch_to_node(stage, of_one_node)?,
    }
    Ok(())
}

/// What is done to one node: its disk, its state machine, its clients.
fn dispatch_to_node(stage: &mut Stage, command: &Command) -> Result<(), Box<dyn Error>> {
    match command {
        Command::Cluster(size, settings) => stage.start(*size, settings)?,
        Command::Add(Id(id)) => stage.add(*id)?,
        Command::State { id: Id(id), term, vote, log } => {
            let voted_for = vote.map(|Id(id)| id);
            let terms = log.as_ref().map_or(&[][..], |Terms(terms)| terms);
            stage.put_on_disk(*id, HardState { term: Term(*term), voted_for }, terms)?;
        }
        Command::Drift { id: Id(id), fast_ppm, slow_ppm } => {
            stage.drift(*id, i64::from(*fast_ppm) - i64::from(*slow_ppm))?;
        }
        Command::Stall(Id(id)) => stage.stall(*id),
        Command::Sync { id: Id(id), skip, n } => stage.sync(*id, *skip, *n)?,
        Command::Unstall(Id(id)) => stage.unstall(*id)?,
        Command::StallChunks(Id(id)) => stage.stall_chunks(*id),
        Command::UnstallChunks(Id(id)) => stage.unstall_chunks(*id)?,
        Command::Slow(Id(id)) => stage.slow(*id),
        Command::Apply(Id(id)) => stage.apply(*id)?,
        Command::Crash { id: Id(id), survivors } => stage.crash(*id, *survivors)?,
        Command::Damage { id: Id(id), keep } => stage.cluster()?.damage(*id, *keep),
        Command::Restart(Id(id)) => stage.cluster()?.restart(*id)?,
        Command::Propose(Id(id), commands) => stage.propose(*id, commands)?,
        Command::Change { id: Id(id), target: Members(target), expected } => {
            stage.change(*id, target, expected.map(LogIndex))?;
        }
        Command::Transfer { id: Id(id), to } => stage.transfer(*id, to.map(|Id(to)| to))?,
        Command::Cut(Id(id)) => stage.cut(*id)?,
        Command::Read { id: Id(id), lease, at_least } => {
            let consistency = match (at_least, lease) {
                (Some(index), _) => Consistency::AtLeast(LogIndex(*index)),
                (None, Some(Lease)) => Consistency::Lease,
                (None, None) => Consistency::Linearizable,
            };
            stage.read(*id, consistency)?;
        }
        _ => unreachable!("dispatch knows the others"),
    }
    Ok(())
}
