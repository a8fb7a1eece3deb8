//! A copy of the repository that holds what the mutants are shown to, and depends on no more.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;

use toml::{Table, Value};

const MEMBERS: [&str; 3] = ["raft-core", "raft-wal", "raft-sim"];
/// The tests of the root package that need no more than these members.
const TESTS: [&str; 5] = ["envelopes", "golden", "log", "paper", "quorum"];

/// Brings the copy up to date, but for the sources of the crate that is mutated: those are returned.
pub fn make(repository: &Path, copy: &Path, package: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let sources = format!("{package}/src/");
    let mut mutated = Vec::new();
    let files = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "--", "tests"])
        .args(MEMBERS)
        .current_dir(repository)
        .output()?;
    for file in String::from_utf8(files.stdout)?.lines() {
        let from = repository.join(file);
        if file.starts_with(&sources) {
            mutated.push(file.to_owned());
        } else if from.is_file() && !file.starts_with("tests/mutation/") {
            write(&copy.join(file), &fs::read(from)?)?;
        }
    }
    if !copy.join("Cargo.lock").exists() {
        fs::copy(repository.join("Cargo.lock"), copy.join("Cargo.lock"))?;
    }
    let whole: Table = fs::read_to_string(repository.join("Cargo.toml"))?.parse()?;
    write(&copy.join("Cargo.toml"), toml::to_string(&reduced(whole)?)?.as_bytes())?;
    Ok(mutated)
}

/// Writes what is not there already: what keeps its age is not compiled again.
pub fn write(path: &Path, content: &[u8]) -> Result<(), Box<dyn Error>> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    fs::create_dir_all(path.parent().expect("a file in the copy"))?;
    Ok(fs::write(path, content)?)
}

/// The manifest of the root without what brings a network with it.
fn reduced(mut whole: Table) -> Result<Table, Box<dyn Error>> {
    let names =
        |names: &[&str]| Value::from(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
    let workspace =
        whole.get_mut("workspace").and_then(Value::as_table_mut).ok_or("no workspace")?;
    workspace.insert("members".into(), names(&MEMBERS));
    workspace.remove("default-members");
    workspace.remove("lints");
    workspace.insert("lints".into(), Value::from(Table::new()));
    let package = whole.get_mut("package").and_then(Value::as_table_mut).ok_or("no package")?;
    for automatic in ["autotests", "autobenches", "autoexamples"] {
        package.insert(automatic.into(), Value::from(false));
    }
    let dependencies =
        whole.get_mut("dev-dependencies").and_then(Value::as_table_mut).ok_or("no dependencies")?;
    let needed = ["bytes", "fastrand", "goldenscript", "libtest-mimic", "proptest"];
    dependencies.retain(|name, _| MEMBERS.contains(&name) || needed.contains(&name));
    let tests = TESTS.map(|name| {
        let mut test = Table::new();
        test.insert("name".into(), Value::from(name));
        test.insert("path".into(), Value::from(format!("tests/{name}.rs")));
        test.insert("harness".into(), Value::from(name != "golden"));
        Value::from(test)
    });
    whole.insert("test".into(), Value::from(tests.to_vec()));
    for part in ["bench", "example", "profile"] {
        whole.remove(part);
    }
    let profile: Table = "dev = { opt-level = 1, debug = false }".parse()?;
    whole.insert("profile".into(), Value::from(profile));
    Ok(whole)
}
