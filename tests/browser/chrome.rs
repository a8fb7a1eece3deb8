//! A headless Chromium, driven through its chromedriver.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::real::Result;

const START_TIMEOUT: Duration = Duration::from_secs(30);
/// What chromedriver prints before the number of its port.
const STARTED: &str = "started successfully on port ";
/// What it prints before it ends because its port is not free. It has the system choose one that is
/// free for `::1`, and then needs the same for `127.0.0.1`, where somebody else may be using it.
const PORT_TAKEN: &str = "port not available";
/// How often chance may choose such a port before something else must be wrong.
const STARTS_MAX: usize = 5;

/// Where the two programs are.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    chromedriver: PathBuf,
    chromium: PathBuf,
}

impl Programs {
    /// Looks along `PATH`; says what is missing.
    pub(crate) fn find() -> Result<Self, String> {
        let chromedriver = ["chromedriver"];
        let chromium = ["chromium", "chromium-browser", "google-chrome"];
        Ok(Self { chromedriver: first_of(&chromedriver)?, chromium: first_of(&chromium)? })
    }
}

fn first_of(names: &[&str]) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let files = |name| directories.iter().map(move |directory| directory.join(name));
    names
        .iter()
        .flat_map(files)
        .find(|file| file.is_file())
        .ok_or_else(|| format!("no {} in PATH", names[0]))
}

type Printed = Lines<BufReader<ChildStdout>>;

/// A browser with an empty profile.
pub(crate) struct Chrome {
    client: Client,
    driver: Child,
    /// Kept open: a chromedriver that cannot print stops.
    _printed: Printed,
    _profile: TempDir,
}

impl Chrome {
    /// What chromedriver complains about is written to `keep`.
    pub(crate) async fn start(programs: &Programs, keep: &Path) -> Result<Self> {
        let (driver, printed, port) =
            start_driver(programs, &keep.join("chromedriver.log")).await?;
        let profile = tempfile::tempdir()?;
        let capabilities = capabilities(programs, &profile);
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities.as_object().cloned().ok_or("not an object")?)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await?;
        Ok(Self { client, driver, _printed: printed, _profile: profile })
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Ends the browser first: a chromedriver that is killed leaves it behind.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.client.close().await?;
        self.driver.kill().await?;
        Ok(())
    }
}

/// A chromedriver, what it prints from now on, and its port.
async fn start_driver(programs: &Programs, log: &Path) -> Result<(Child, Printed, u16)> {
    let mut printed_so_far = String::new();
    for _ in 0..STARTS_MAX {
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        let mut driver = Command::new(&programs.chromedriver)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let stdout = driver.stdout.take().ok_or("chromedriver has no output")?;
        let mut printed = BufReader::new(stdout).lines();
        printed_so_far.clear();
        let port = timeout(START_TIMEOUT, port(&mut printed, &mut printed_so_far)).await??;
        if let Some(port) = port {
            return Ok((driver, printed, port));
        }
        if !printed_so_far.contains(PORT_TAKEN) {
            break;
        }
    }
    Err(format!("chromedriver ended before it was ready:\n{printed_so_far}").into())
}

/// Nothing if chromedriver ends without having opened a port.
async fn port(printed: &mut Printed, so_far: &mut String) -> Result<Option<u16>> {
    while let Some(line) = printed.next_line().await? {
        if let Some((_, rest)) = line.split_once(STARTED) {
            return Ok(Some(rest.trim_end_matches('.').parse()?));
        }
        so_far.push_str(&line);
        so_far.push('\n');
    }
    Ok(None)
}

fn capabilities(programs: &Programs, profile: &TempDir) -> Value {
    let profile = format!("--user-data-dir={}", profile.path().display());
    let arguments = [
        "--headless",
        // Continuous integration runs as root in containers, where the sandbox and a large shared
        // memory do not exist. The browser only ever sees our own page.
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        // Nothing but the page may be asked for.
        "--disable-quic",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        &profile,
    ];
    json!({
        "goog:chromeOptions": { "binary": programs.chromium, "args": arguments },
        "goog:loggingPrefs": { "browser": "ALL" },
    })
}
