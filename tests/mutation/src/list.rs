//! The list of mutants, as `cargo mutants` has it.

use std::error::Error;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;

/// A place in a file; both numbers begin with 1, columns are characters.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Span {
    pub start: Place,
    pub end: Place,
}

/// One change of the code.
#[derive(Debug, Deserialize)]
pub struct Mutant {
    pub name: String,
    /// Relative to the repository.
    pub file: String,
    pub genre: String,
    /// What is replaced.
    pub span: Span,
    pub replacement: String,
}

/// All mutants of a package that `.cargo/mutants.toml` does not exclude.
pub fn all(repository: &Path, package: &str) -> Result<Vec<Mutant>, Box<dyn Error>> {
    let list = Command::new("cargo")
        .args(["mutants", "--list", "--json", "-p", package])
        .current_dir(repository)
        .stderr(Stdio::inherit())
        .output()?;
    if !list.status.success() {
        return Err("`cargo mutants --list` failed; is cargo-mutants installed?".into());
    }
    Ok(serde_json::from_slice(&list.stdout)?)
}
