//! The processes of one side, and what they cost.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use crate::load::Failure;

/// Three servers, and whatever stands before them. They end with this.
pub struct Servers {
    children: Vec<(String, Child)>,
}

/// Ports that nobody uses.
pub fn free_addresses(count: usize) -> Result<Vec<SocketAddr>, Failure> {
    let taken = (0..count).map(|_| TcpListener::bind("127.0.0.1:0"));
    let taken = taken.collect::<std::io::Result<Vec<_>>>()?;
    Ok(taken.iter().map(TcpListener::local_addr).collect::<std::io::Result<_>>()?)
}

impl Servers {
    pub fn none() -> Self {
        Self { children: Vec::new() }
    }

    /// Starts one more, whose output goes into a file beside its data.
    pub fn start(
        &mut self,
        name: &str,
        program: &Path,
        arguments: &[String],
        dir: &Path,
    ) -> Result<(), Failure> {
        let log = fs::File::create(dir.join(format!("{name}.log")))?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.kill_on_drop(true).spawn();
        let child = child.map_err(|error| format!("{}: {error}", program.display()))?;
        self.children.push((name.to_owned(), child));
        Ok(())
    }

    /// The processor time that all of them have taken so far.
    pub fn processor_time(&self) -> Duration {
        let ids = self.children.iter().filter_map(|(_, child)| child.id());
        ids.map(|id| processor_time(id).unwrap_or_default()).sum()
    }

    /// The resident memory of each, in MiB.
    pub fn memory(&self) -> Vec<(String, f64)> {
        let of = |(name, child): &(String, Child)| {
            let status = fs::read_to_string(format!("/proc/{}/status", child.id()?)).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse().ok()?;
            Some((name.clone(), kib / 1024.0))
        };
        self.children.iter().filter_map(of).collect()
    }
}

fn processor_time(id: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // Behind the name, which may hold blanks: fields 14 and 15 of the whole line, in ticks of 10 ms.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Duration::from_millis(10 * (ticks(11)? + ticks(12)?)))
}

/// Waits until something listens there.
pub async fn listens(address: SocketAddr) -> Result<(), Failure> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while tokio::net::TcpStream::connect(address).await.is_err() {
        if Instant::now() > deadline {
            return Err(format!("nothing listens on {address}").into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
