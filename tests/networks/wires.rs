//! Networks of the kernel: each node in one of its own, all of them on one bridge whose wires can be cut, in one
//! direction too. All of it is in namespaces of this process and ends with it.

use std::net::Ipv4Addr;
use std::process::Command;

use super::real::Result;
use super::real::cluster::Place;

/// Set for the program that has namespaces of its own.
const INSIDE: &str = "NETWORKS_INSIDE";

/// An address of the link layer that nobody has.
const NOBODY: &str = "02:00:00:00:00:99";

/// What keeps this machine from having networks, if anything does.
pub(crate) fn missing() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("namespaces are Linux's".to_owned());
    }
    // All that a test does, once.
    let try_out = "mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns && ip netns add try \
                   && ip link add bridge0 type bridge \
                   && ip link add wire0 type veth peer name eth0 netns try";
    let tried = Command::new("unshare").args(UNSHARE).args(["sh", "-c", try_out]).output();
    match tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().next().unwrap_or("it failed").to_owned();
            Some(format!("no network namespaces with bridges here (they need root): {said}"))
        }
        Err(error) => Some(format!("there is no `unshare`: {error}")),
    }
}

const UNSHARE: [&str; 4] = ["--net", "--mount", "--propagation", "private"];

pub(crate) fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// This program again, in namespaces of its own.
pub(crate) fn inside() -> Result<Command> {
    let mut command = Command::new("unshare");
    command.args(UNSHARE).arg(std::env::current_exe()?).env(INSIDE, "1");
    Ok(command)
}

/// A bridge, to which this process and so many nodes are connected.
pub(crate) struct Wires {
    nodes: usize,
}

/// Where the bridge is, and with it this process.
pub(crate) const HERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);

impl Wires {
    /// Makes the networks; of an earlier test nothing is left.
    pub(crate) fn new(nodes: usize) -> Result<Self> {
        run("mkdir -p /run/netns")?;
        if run("mountpoint -q /run/netns").is_err() {
            run("mount -t tmpfs tmpfs /run/netns")?;
        }
        let _ = run("ip -all netns delete");
        for wire in (1..=nodes).map(|id| format!("wire{id}")).chain(["bridge0".to_owned()]) {
            let _ = run(&format!("ip link delete {wire}"));
        }
        run("ip link set lo up")?;
        run("ip link add bridge0 type bridge")?;
        run(&format!("ip addr add {HERE}/24 dev bridge0"))?;
        run("ip link set bridge0 up")?;
        let wires = Self { nodes };
        for id in 1..=nodes {
            let ip = wires.ip(id);
            run(&format!("ip netns add n{id}"))?;
            run(&format!("ip link add wire{id} type veth peer name eth0 netns n{id}"))?;
            run(&format!("ip link set wire{id} master bridge0 up"))?;
            run(&format!("ip -n n{id} link set lo up"))?;
            run(&format!("ip -n n{id} addr add {ip}/24 dev eth0"))?;
            run(&format!("ip -n n{id} link set eth0 up"))?;
        }
        Ok(wires)
    }

    fn ip(&self, id: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, u8::try_from(id).expect("a few nodes"))
    }

    /// Where the nodes live.
    pub(crate) fn places(&self) -> Vec<Place> {
        let under = |id| ["ip", "netns", "exec", &format!("n{id}")].map(str::to_owned).to_vec();
        (1..=self.nodes).map(|id| Place { ip: self.ip(id), under: under(id) }).collect()
    }

    /// Nothing that `from` sends arrives at `to` any more. Nobody is told: it is as if a switch lost it.
    pub(crate) fn cut(&self, from: usize, to: usize) -> Result<()> {
        let ip = self.ip(to);
        run(&format!("ip -n n{from} neigh replace {ip} lladdr {NOBODY} dev eth0 nud permanent"))
    }

    pub(crate) fn heal(&self, from: usize, to: usize) -> Result<()> {
        run(&format!("ip -n n{from} neigh flush to {} dev eth0 nud permanent", self.ip(to)))
    }

    /// Nobody hears this node, and it hears nobody, clients neither.
    pub(crate) fn unplug(&self, id: usize) -> Result<()> {
        run(&format!("ip link set wire{id} down"))
    }

    pub(crate) fn plug_in(&self, id: usize) -> Result<()> {
        run(&format!("ip link set wire{id} up"))
    }
}

fn run(line: &str) -> Result<()> {
    let mut words = line.split(' ');
    let program = words.next().expect("a program");
    let output = Command::new(program).args(words).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("`{line}`: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
}
