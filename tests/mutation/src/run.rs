//! Compiles the copy, and shows one mutant after the other to the tests.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Target;
use crate::weave::Woven;

/// For a program that waits for ever.
const PATIENCE: Duration = Duration::from_secs(180);

pub enum Verdict {
    KilledBy(&'static str),
    /// It did not end; so it was noticed.
    Endless(&'static str),
    Survived,
    /// It is not among those woven in, or does not compile there: `cargo mutants` has to try it.
    Absent,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::KilledBy(test) => write!(f, "killed\t{test}"),
            Verdict::Endless(test) => write!(f, "endless\t{test}"),
            Verdict::Survived => write!(f, "SURVIVED\t"),
            Verdict::Absent => write!(f, "absent\t"),
        }
    }
}

/// One test program.
pub struct Program {
    test: &'static str,
    file: PathBuf,
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

/// All tests pass if no mutant is meant.
pub fn check(programs: &[Program], target: &Target) -> Result<(), Box<dyn Error>> {
    for program in programs {
        let begun = Instant::now();
        let verdict = run(program, target, None)?;
        eprintln!("{} without a mutant: {:.1} s", program.test, begun.elapsed().as_secs_f64());
        if let Some(Verdict::KilledBy(test) | Verdict::Endless(test)) = verdict {
            return Err(format!("{test} fails without a mutant").into());
        }
    }
    Ok(())
}

/// Shows a mutant to the tests until one of them fails.
pub fn one(
    programs: &[Program],
    target: &Target,
    mutant: usize,
) -> Result<Verdict, Box<dyn Error>> {
    for program in programs {
        if let Some(verdict) = run(program, target, Some(mutant))? {
            return Ok(verdict);
        }
    }
    Ok(Verdict::Survived)
}

fn run(
    program: &Program,
    target: &Target,
    mutant: Option<usize>,
) -> Result<Option<Verdict>, Box<dyn Error>> {
    let thorough = std::env::var_os("THOROUGH").is_some();
    let seconds = target.processor_seconds * if thorough { 20 } else { 1 };
    let limits = format!("ulimit -t {seconds}; ulimit -v 8000000; exec \"$0\" \"$@\"");
    let long = target.long.iter().filter(|_| !thorough);
    let mut child = Command::new("sh")
        .args(["-c", &limits])
        .arg(&program.file)
        .args(long.flat_map(|test| ["--skip", test]))
        .current_dir(&program.directory)
        .env("CARGO_MANIFEST_DIR", &program.directory)
        .env("MUTANT", mutant.map_or_else(String::new, |id| id.to_string()))
        // The same cases for every mutant, and no memory of what others failed.
        .env("PROPTEST_RNG_SEED", "1")
        .env("PROPTEST_MAX_SHRINK_ITERS", "0")
        .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1")
        .env("RUST_BACKTRACE", "0")
        .envs(target.environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if begun.elapsed() > PATIENCE * if thorough { 20 } else { 1 } {
            child.kill()?;
            child.wait()?;
            return Ok(Some(Verdict::Endless(program.test)));
        }
        thread::sleep(Duration::from_millis(5));
    };
    Ok(match status {
        status if status.success() => None,
        status if out_of_time(status) => Some(Verdict::Endless(program.test)),
        _ => Some(Verdict::KilledBy(program.test)),
    })
}

/// Whether the limit of the processor's time ended it.
fn out_of_time(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    const SIGKILL: i32 = 9;
    const SIGXCPU: i32 = 24;
    matches!(status.signal(), Some(SIGKILL | SIGXCPU))
}
