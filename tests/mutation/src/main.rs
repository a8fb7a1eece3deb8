//! All mutants of `cargo mutants` in one program, of which an environment variable picks one.
//!
//! `cargo mutants` builds the tests anew for each mutant. Here the list is the same, the code is the
//! same, but every mutant stands in the code beside the original, behind a question which of them is
//! meant today: one build, and then each mutant costs no more than the tests that kill it. See
//! `../MUTANTS.md`.
#![forbid(unsafe_code)]

mod copy;
mod list;
mod run;
mod weave;

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use list::Mutant;
use run::Verdict;

/// What one crate's mutants are shown to: test programs in the order in which they are run, first
/// what kills most per second. `lib` is the unit tests of the crate itself.
struct Target {
    package: &'static str,
    /// Package and test.
    tests: &'static [(&'static str, &'static str)],
    /// What makes the long tests shorter.
    environment: &'static [(&'static str, &'static str)],
}

const TARGETS: &[Target] = &[
    Target {
        package: "raft-core",
        tests: &[
            ("raft-core", "lib"),
            ("raft-leaderboard", "paper"),
            ("raft-leaderboard", "quorum"),
            ("raft-leaderboard", "golden"),
            ("raft-leaderboard", "log"),
            ("raft-core", "determinism"),
            ("raft-leaderboard", "envelopes"),
        ],
        environment: &[("ENVELOPES", "2000")],
    },
    Target {
        package: "raft-wal",
        tests: &[
            ("raft-wal", "lib"),
            ("raft-wal", "round_trip"),
            ("raft-wal", "sim_disk"),
            ("raft-wal", "snapshot_store"),
            ("raft-wal", "installs"),
            ("raft-wal", "repair"),
            ("raft-wal", "inspect"),
            ("raft-wal", "losses"),
            ("raft-wal", "space"),
            ("raft-wal", "spares"),
            ("raft-wal", "two_damages"),
            ("raft-wal", "faults"),
            ("raft-wal", "limping"),
            ("raft-wal", "long_segments"),
            ("raft-wal", "threads"),
            ("raft-wal", "storage"),
            ("raft-wal", "foretell"),
            ("raft-wal", "crash"),
            ("raft-wal", "snapshots"),
            ("raft-wal", "arbitrary"),
            ("raft-wal", "corruption"),
        ],
        environment: &[("DIRECTORIES", "300")],
    },
];

fn main() -> ExitCode {
    match all() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn all() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let target = arguments
        .first()
        .and_then(|name| TARGETS.iter().find(|target| target.package == name))
        .ok_or("say which: raft-core or raft-wal; and perhaps a part of the mutants' names, or k/n")?;
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("the manifest stands in tests/mutation of the repository");
    let copy = repository.join("target/mutants").join(target.package);
    let mutants = list::all(repository, target.package)?;
    let mut out = BTreeSet::new();
    copy::make(repository, &copy)?;
    let woven = loop {
        let woven = weave::all(repository, &copy, target.package, &mutants, &out)?;
        let errors = run::errors(&copy, target.package, &woven)?;
        eprintln!("{} of {} mutants are in, {} do not compile", woven.ids().len(), mutants.len(), errors.len());
        if errors.is_empty() {
            break woven;
        }
        out.extend(errors);
    };
    let chosen = |(id, mutant): &(usize, &Mutant)| match arguments.get(1) {
        None => true,
        Some(part) => match part.split_once('/').map(|(k, n)| (k.parse::<usize>(), n.parse::<usize>())) {
            Some((Ok(k), Ok(n))) if n > 0 => id % n == k,
            _ => mutant.name.contains(part.as_str()),
        },
    };
    let programs = run::build(&copy, target)?;
    run::check(&programs, target)?;
    let mut survivors = 0;
    for (id, mutant) in mutants.iter().enumerate().filter(chosen) {
        let verdict = if woven.ids().contains(&id) {
            run::one(&programs, target, id)?
        } else {
            Verdict::Absent
        };
        survivors += usize::from(matches!(verdict, Verdict::Survived));
        println!("{verdict}\t{}", mutant.name);
    }
    Ok(if survivors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
