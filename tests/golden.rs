//! Runs every golden script: the executable documentation of the protocol. See `golden/README.md`.

mod harness;

use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

/// One test per script, named after it.
fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/scripts");
    let mut trials: Vec<Trial> = std::fs::read_dir(&scripts)
        .expect("the directory of the scripts is part of the repository")
        .map(|file| {
            let path = file.expect("a directory that opens can be listed").path();
            let name =
                path.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into());
            Trial::test(name, move || run(&path))
        })
        .collect();
    trials.sort_by(|a, b| a.name().cmp(b.name()));
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn run(path: &Path) -> Result<(), Failed> {
    if !std::fs::read_to_string(path)?.starts_with("# ") {
        return Err("the first line of a script is its claim, as a comment".into());
    }
    goldenscript::run(&mut harness::script::Script::default(), path)?;
    Ok(())
}
