//! A headless Chromium, driven through its chromedriver.

use std::path::PathBuf;
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

/// A browser with an empty profile.
pub(crate) struct Chrome {
    client: Client,
    driver: Child,
    /// Kept open: a chromedriver that cannot print stops.
    _printed: Lines<BufReader<ChildStdout>>,
    _profile: TempDir,
}

impl Chrome {
    pub(crate) async fn start(programs: &Programs) -> Result<Self> {
        let mut driver = Command::new(&programs.chromedriver)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = driver.stdout.take().ok_or("chromedriver has no output")?;
        let mut printed = BufReader::new(stdout).lines();
        let port = timeout(START_TIMEOUT, port(&mut printed)).await??;
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

async fn port(printed: &mut Lines<BufReader<ChildStdout>>) -> Result<u16> {
    while let Some(line) = printed.next_line().await? {
        if let Some((_, rest)) = line.split_once(STARTED) {
            return Ok(rest.trim_end_matches('.').parse()?);
        }
    }
    Err("chromedriver ended before it was ready".into())
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
