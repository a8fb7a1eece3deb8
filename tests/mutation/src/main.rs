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
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use list::Mutant;
use run::Verdict;
use weave::Woven;

/// What one crate's mutants are shown to: test programs in the order in which they are run, first
/// what kills most per second. `lib` is the unit tests of the crate itself.
struct Target {
    package: &'static str,
    /// Package and test.
    tests: &'static [(&'static str, &'static str)],
    /// What makes the long tests shorter.
    environment: &'static [(&'static str, &'static str)],
    /// Tests that take minutes, by a part of their names. `THOROUGH=1` runs them as well.
    long: &'static [&'static str],
    /// So many seconds of a processor one program may take: ten times what any needs. What others
    /// take of the machine meanwhile does not count.
    processor_seconds: u32,
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
        long: &[],
        processor_seconds: 10,
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
        long: &[
            "every_single_byte",
            "every_lost_or_garb",
            "arbitrary_damage",
            "whatever_subset",
            "operation_lose",
        ],
        processor_seconds: 60,
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
    let files = copy::make(repository, &copy, target.package)?;
    let woven = weave(repository, &copy, target, &files, &mutants)?;
    let chosen = choice(arguments.get(1).map(String::as_str))?;
    let programs = run::build(&copy, target)?;
    run::check(&programs, target)?;
    let queue: Vec<_> = mutants.iter().enumerate().filter(|(id, it)| chosen(*id, it)).collect();
    let queue = Mutex::new(queue.into_iter());
    let survivors = AtomicUsize::new(0);
    let work = || -> Result<(), Box<dyn Error>> {
        loop {
            let next = queue.lock().expect("nobody panics with it").next();
            let Some((id, mutant)) = next else { return Ok(()) };
            let verdict = match woven.ids().contains(&id) {
                true => run::one(&programs, target, id)?,
                false => Verdict::Absent,
            };
            if matches!(verdict, Verdict::Survived) {
                survivors.fetch_add(1, Ordering::Relaxed);
            }
            println!("{verdict}\t{}", mutant.name);
        }
    };
    let jobs = std::env::var("JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1);
    let results: Vec<Result<(), String>> = thread::scope(|scope| {
        let workers = (0..jobs).map(|_| scope.spawn(|| work().map_err(|error| error.to_string())));
        let workers: Vec<_> = workers.collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).collect()
    });
    results.into_iter().collect::<Result<(), String>>()?;
    Ok(if survivors.into_inner() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Which mutants to show: all; those whose names contain a text; every nth from the kth on, as `k/n`; or
/// those of an earlier run's lines in a file, wherever they have moved to.
fn choice(part: Option<&str>) -> Result<Box<dyn Fn(usize, &Mutant) -> bool>, Box<dyn Error>> {
    let Some(part) = part.map(str::to_owned) else {
        return Ok(Box::new(|_, _| true));
    };
    if let Some((k, n)) = part.split_once('/')
        && let (Ok(k), Ok(n)) = (k.parse::<usize>(), n.parse::<usize>())
        && n > 0
    {
        return Ok(Box::new(move |id, _| id % n == k));
    }
    if Path::new(&part).is_file() {
        let lines = fs::read_to_string(part)?;
        let placeless = |line: &str| {
            let name = line.rsplit('\t').next().unwrap_or_default();
            let file = name.split(':').next().unwrap_or_default().to_owned();
            (file, name.split_once(": ").unwrap_or_default().1.to_owned())
        };
        let names: BTreeSet<_> = lines.lines().map(placeless).collect();
        return Ok(Box::new(move |_, mutant| names.contains(&placeless(&mutant.name))));
    }
    Ok(Box::new(move |_, mutant| mutant.name.contains(&part)))
}

/// Weaves in all mutants that compile. Those that did not the last time are not tried again.
fn weave(
    repository: &Path,
    copy: &Path,
    target: &Target,
    files: &[String],
    mutants: &[Mutant],
) -> Result<Woven, Box<dyn Error>> {
    let record = copy.join("absent.txt");
    let known = fs::read_to_string(&record).unwrap_or_default();
    let known: BTreeSet<&str> = known.lines().collect();
    let is_known = |(id, mutant): (usize, &Mutant)| known.contains(mutant.name.as_str()).then_some(id);
    let mut out: BTreeSet<usize> = mutants.iter().enumerate().filter_map(is_known).collect();
    loop {
        let woven = weave::all(repository, copy, files, mutants, &out)?;
        let errors = run::errors(copy, target.package, &woven)?;
        eprintln!(
            "{} of {} mutants are in, {} of them do not compile",
            woven.ids().len(),
            mutants.len(),
            errors.len()
        );
        if errors.is_empty() {
            let names: Vec<&str> = out.iter().map(|id| mutants[*id].name.as_str()).collect();
            copy::write(&record, names.join("\n").as_bytes())?;
            return Ok(woven);
        }
        out.extend(errors);
    }
}
