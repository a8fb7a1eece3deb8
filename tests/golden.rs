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
    let names: Vec<String> = trials.iter().map(|trial| trial.name().to_owned()).collect();
    trials.push(Trial::test("readme_lists_every_script_once", move || check_readme(names)));
    trials.sort_by(|a, b| a.name().cmp(b.name()));
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The README's table of scripts has them all, and its table of bugs no others.
fn check_readme(mut names: Vec<String>) -> Result<(), Failed> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/README.md");
    let readme = std::fs::read_to_string(readme)?;
    let (_, tables) = readme.split_once("## Scripts").ok_or("there is no table of scripts")?;
    let (chapters, bugs) = tables.split_once("## Bugs").ok_or("there is no table of bugs")?;
    let quoted = |text: &str| -> Vec<String> {
        let rows = text.lines().filter(|line| line.starts_with('|'));
        rows.flat_map(|row| row.split('`').skip(1).step_by(2).map(str::to_owned)).collect()
    };
    let mut listed = quoted(chapters);
    listed.sort();
    names.sort();
    if listed != names {
        let missing: Vec<_> = names.iter().filter(|name| !listed.contains(name)).collect();
        let extra: Vec<_> = listed.iter().filter(|name| !names.contains(name)).collect();
        return Err(format!("not listed: {missing:?}; no such script, or twice: {extra:?}").into());
    }
    let is_file = |name: &str| name.contains('/');
    match quoted(bugs).iter().find(|name| !is_file(name) && !names.contains(name)) {
        Some(name) => Err(format!("the table of bugs names {name}, which is no script").into()),
        None => Ok(()),
    }
}

fn run(path: &Path) -> Result<(), Failed> {
    if !std::fs::read_to_string(path)?.starts_with("# ") {
        return Err("the first line of a script is its claim, as a comment".into());
    }
    goldenscript::run(&mut harness::script::Script::default(), path)?;
    Ok(())
}
