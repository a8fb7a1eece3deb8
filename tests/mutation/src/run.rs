//! Compiles the copy, and runs a test of it.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Target;
use crate::weave::Woven;

/// For a test that waits for ever, and takes no time of the processor meanwhile.
const PATIENCE: Duration = Duration::from_secs(20);
/// For one that waits for ever and looks again and again.
const GREAT_PATIENCE: Duration = Duration::from_secs(120);

/// One test program.
pub struct Program {
    pub test: &'static str,
    pub file: PathBuf,
    /// Where `cargo test` would run it.
    directory: PathBuf,
}

/// What cargo says, message by message.
fn messages(copy: &Path, arguments: &[&str]) -> Result<(bool, Vec<Value>), Box<dyn Error>> {
    let output = Command::new("cargo")
        .args(arguments)
        .arg("--message-format=json")
        .current_dir(copy)
        .stderr(Stdio::inherit())
        .output()?;
    let lines = String::from_utf8(output.stdout)?;
    let messages = lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    Ok((output.status.success(), messages))
}

/// The mutants that do not compile.
pub fn errors(
    copy: &Path,
    packages: &[&str],
    woven: &Woven,
) -> Result<BTreeSet<usize>, Box<dyn Error>> {
    let mut arguments = vec!["check", "-q", "--lib"];
    arguments.extend(packages.iter().flat_map(|package| ["-p", package]));
    let (success, messages) = messages(copy, &arguments)?;
    let mut mutants = BTreeSet::new();
    for message in messages.iter().map(|message| &message["message"]) {
        let spans = message["spans"].as_array().map_or(&[][..], Vec::as_slice);
        if message["level"] != "error" || spans.is_empty() {
            continue;
        }
        let span = spans.iter().find(|span| span["is_primary"] == true).unwrap_or(&spans[0]);
        let file = Path::new(span["file_name"].as_str().unwrap_or_default());
        let offset = span["byte_start"].as_u64().unwrap_or(0) as usize;
        let Some(mutant) = woven.mutant_at(file, offset) else {
            return Err(format!("no mutant causes this:\n{}", message["rendered"]).into());
        };
        if std::env::var_os("SHOW_ERRORS").is_some() {
            eprintln!("{mutant}: {}", message["rendered"].as_str().unwrap_or_default());
        }
        mutants.insert(mutant);
    }
    if !success && mutants.is_empty() {
        return Err("the copy does not compile, and no mutant is to blame".into());
    }
    Ok(mutants)
}

/// Builds the test programs, in the order of the target.
pub fn build(copy: &Path, target: &Target) -> Result<Vec<Program>, Box<dyn Error>> {
    let packages: BTreeSet<&str> = target.tests.iter().map(|(package, _)| *package).collect();
    let mut artifacts = Vec::new();
    for package in packages {
        let mut arguments = vec!["test", "--no-run", "-p", package];
        for (_, test) in target.tests.iter().filter(|(of, _)| *of == package) {
            match *test {
                "lib" => arguments.push("--lib"),
                test => arguments.extend(["--test", test]),
            }
        }
        let (success, messages) = messages(copy, &arguments)?;
        if !success {
            return Err(format!("the tests of {package} do not compile").into());
        }
        artifacts.extend(messages.into_iter().map(|message| (package, message)));
    }
    target.tests.iter().map(|(package, test)| program(&artifacts, package, test)).collect()
}

fn program(
    artifacts: &[(&str, Value)],
    package: &str,
    test: &'static str,
) -> Result<Program, Box<dyn Error>> {
    let kind = if test == "lib" { "lib" } else { "test" };
    let is_it = |(of, message): &&(&str, Value)| {
        let target = &message["target"];
        *of == package
            && message["executable"].is_string()
            && target["kind"][0] == kind
            && (test == "lib" || target["name"] == test)
    };
    let (_, message) =
        artifacts.iter().find(is_it).ok_or_else(|| format!("no program for {package} {test}"))?;
    let path = |value: &Value| PathBuf::from(value.as_str().unwrap_or_default());
    let manifest = path(&message["manifest_path"]);
    let directory = manifest.parent().ok_or("a manifest is in a directory")?;
    Ok(Program { test, file: path(&message["executable"]), directory: directory.to_owned() })
}

/// How a test ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    Passed,
    Failed,
    /// It did not, or took far more of the processor than it needs.
    Endless,
}

/// What a run is told, and how long it may take.
pub enum Run<'a> {
    /// To write down in this file which mutants it asks for.
    Recording(&'a Path),
    /// Which mutant is meant, and how much of a processor the test needs without one.
    Mutant(usize, Duration),
}

impl Program {
    /// A command that runs it where and as `cargo test` would.
    fn command(&self, target: &Target, seconds: u64) -> Command {
        let limits = format!("ulimit -t {seconds}; ulimit -v 3000000; exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command
            .args(["-c", &limits])
            .arg(&self.file)
            .current_dir(&self.directory)
            .env("CARGO_MANIFEST_DIR", &self.directory)
            // The same cases for every mutant, and no memory of what others failed.
            .env("PROPTEST_RNG_SEED", "1")
            .env("PROPTEST_MAX_SHRINK_ITERS", "0")
            .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1")
            .env("RUST_BACKTRACE", "0")
            .env_remove("MUTANT")
            .env_remove("MUTANTS_REACHED")
            .envs(target.environment.iter().copied())
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// The names of its tests.
    pub fn tests(&self, target: &Target) -> Result<Vec<String>, Box<dyn Error>> {
        let list = self.command(target, 60).args(["--list", "--format", "terse"]).output()?;
        let lines = String::from_utf8(list.stdout)?;
        Ok(lines.lines().filter_map(|line| Some(line.strip_suffix(": test")?.to_owned())).collect())
    }

    /// Runs one of its tests. How did it end, and how much of a processor did it take?
    pub fn run(
        &self,
        test: &str,
        target: &Target,
        run: &Run<'_>,
    ) -> Result<(End, Duration), Box<dyn Error>> {
        // What others take of the machine meanwhile does not count.
        let seconds = match run {
            Run::Recording(_) => 3600,
            Run::Mutant(_, needs) => needs.as_secs() * 10 + 3,
        };
        let mut command = self.command(target, seconds);
        match run {
            Run::Recording(file) => command.env("MUTANTS_REACHED", file),
            Run::Mutant(id, _) => command.env("MUTANT", id.to_string()),
        };
        command.args(["--exact", test]).stdout(Stdio::null());
        let mut child = command.spawn()?;
        let used = wait(&mut child)?;
        let status = child.wait()?;
        let end = match status {
            _ if used.is_none() => End::Endless,
            status if status.success() => End::Passed,
            status if out_of_time(status) => End::Endless,
            _ => End::Failed,
        };
        Ok((end, used.unwrap_or_default()))
    }
}

/// Waits until a child has ended, without asking for its status: how much of a processor it took can be
/// read until then. Nothing if it waited for ever and was killed.
fn wait(child: &mut Child) -> Result<Option<Duration>, Box<dyn Error>> {
    let file = format!("/proc/{}/stat", child.id());
    let begun = Instant::now();
    let (mut used, mut changed) = (Duration::ZERO, begun);
    let mut pause = Duration::from_millis(1);
    loop {
        // Behind the name, which may be anything in brackets, the first is the state, and the 12th to
        // 15th are hundredths of seconds: its own and those of its children.
        let stat = fs::read_to_string(&file)?;
        let (_, fields) = stat.rsplit_once(')').ok_or("no state of a process")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks: u64 = fields[11..15].iter().filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        let now = Duration::from_millis(ticks * 10);
        if fields[0] == "Z" {
            return Ok(Some(now));
        }
        if now != used {
            (used, changed) = (now, Instant::now());
        }
        if changed.elapsed() > PATIENCE || begun.elapsed() > GREAT_PATIENCE + used * 20 {
            child.kill()?;
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Whether the limit of the processor's time ended it.
fn out_of_time(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    const SIGKILL: i32 = 9;
    const SIGXCPU: i32 = 24;
    matches!(status.signal(), Some(SIGKILL | SIGXCPU))
}
