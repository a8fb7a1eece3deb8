//! All mutants of `cargo mutants` in one program, of which an environment variable picks one.
//!
//! `cargo mutants` builds the tests anew for each mutant. Here the list is the same, the code is the
//! same, but every mutant stands in the code beside the original, behind a question which of them is
//! meant today: one build, and then each mutant costs no more than the tests that kill it. See
//! `../MUTANTS.md`.
#![forbid(unsafe_code)]

mod copy;
mod list;
mod patches;
mod run;
mod show;
mod weave;

use std::collections::BTreeSet;
use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use list::Mutant;
use show::{Tests, Verdict};
use weave::Woven;

/// What one crate's mutants are shown to. `lib` is the unit tests of the crate itself.
struct Target {
    package: &'static str,
    /// Package and test.
    tests: &'static [(&'static str, &'static str)],
    /// What makes the long tests shorter.
    environment: &'static [(&'static str, &'static str)],
    /// Tests that take minutes, by a part of their names. `THOROUGH=1` runs them as well.
    long: &'static [&'static str],
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
            ("raft-core", "timeless"),
            ("raft-leaderboard", "envelopes"),
        ],
        environment: &[("ENVELOPES", "2000")],
        long: &[],
    },
    Target {
        package: "raft-wal",
        tests: &[
            ("raft-wal", "lib"),
            ("raft-wal", "round_trip"),
            ("raft-wal", "sim_disk"),
            ("raft-wal", "sim_model"),
            ("raft-wal", "sim_chances"),
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
            ("raft-wal", "told"),
            ("raft-wal", "words"),
            ("raft-wal", "reports"),
            ("raft-wal", "operations"),
            ("raft-wal", "groups"),
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
    if let Some(("patches", rest)) =
        arguments.split_first().map(|(first, rest)| (first.as_str(), rest))
    {
        patches::all(rest)?;
        return Ok(ExitCode::SUCCESS);
    }
    let target = arguments
        .first()
        .and_then(|name| TARGETS.iter().find(|target| target.package == name))
        .ok_or("say which: raft-core or raft-wal; then, perhaps, which mutants: see MUTANTS.md")?;
    let choice = Choice::new(arguments.get(1).map(String::as_str))?;
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("the manifest stands in tests/mutation of the repository");
    let copy = repository.join("target/mutants").join(target.package);
    let mutants = list::all(repository, target.package)?;
    let files = copy::make(repository, &copy, target.package)?;
    let woven = weave(repository, &copy, target, &files, &mutants)?;
    let programs = run::build(&copy, target)?;
    let tests = Tests::record(&programs, target, &copy.join("reached"))?;
    let mut results = Results::new(std::env::var_os("RESULTS").as_deref().map(Path::new))?;
    let mut chosen: Vec<_> =
        mutants.iter().enumerate().filter(|(id, mutant)| choice.takes(*id, mutant)).collect();
    chosen.retain(|(_, mutant)| !results.known.contains(&mutant.name));
    // In an order of its own, but always the same: whatever is done when it is broken off is a fair sample.
    chosen.sort_by_key(|(id, _)| (*id as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let survivors = show(&chosen, &woven, &tests, &mut results)?;
    Ok(if survivors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Shows mutants to the tests, `JOBS` at a time, and says what became of each. How many survived?
fn show(
    mutants: &[(usize, &Mutant)],
    woven: &Woven,
    tests: &Tests<'_>,
    results: &mut Results,
) -> Result<usize, Box<dyn Error>> {
    let results = Mutex::new(results);
    let queue = Mutex::new(mutants.iter());
    let survivors = AtomicUsize::new(0);
    let work = || -> Result<(), String> {
        loop {
            let next = queue.lock().expect("nobody panics with it").next();
            let Some((id, mutant)) = next else { return Ok(()) };
            let verdict = if woven.ids().contains(id) {
                tests.one(*id).map_err(|error| error.to_string())?
            } else {
                Verdict::Absent
            };
            survivors.fetch_add(matches!(verdict, Verdict::Survived(_)).into(), Ordering::Relaxed);
            let mut results = results.lock().expect("nobody panics with it");
            results.add(&format!("{verdict}\t{}", mutant.name)).map_err(|e| e.to_string())?;
        }
    };
    let jobs = std::env::var("JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1);
    let results: Vec<Result<(), String>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).collect()
    });
    results.into_iter().collect::<Result<(), String>>()?;
    Ok(survivors.into_inner())
}

/// What became of mutants: on standard output and, if wanted, in a file, to which the next run adds what is
/// not in it yet.
struct Results {
    file: Option<File>,
    known: BTreeSet<String>,
}

impl Results {
    fn new(path: Option<&Path>) -> Result<Self, Box<dyn Error>> {
        let Some(path) = path else { return Ok(Self { file: None, known: BTreeSet::new() }) };
        let file = File::options().read(true).append(true).create(true).open(path)?;
        let lines = fs::read_to_string(path)?;
        let known = lines.lines().filter_map(|line| Some(line.rsplit_once('\t')?.1.to_owned()));
        Ok(Self { file: Some(file), known: known.collect() })
    }

    fn add(&mut self, line: &str) -> std::io::Result<()> {
        println!("{line}");
        self.file.as_mut().map_or(Ok(()), |file| writeln!(file, "{line}"))
    }
}

/// Which mutants to show.
enum Choice {
    All,
    /// Every nth, from the kth on: `k/n`.
    Part(usize, usize),
    /// Those of the lines of an earlier run in a file, by file and description: they may have moved.
    Listed(BTreeSet<(String, String)>),
    /// Those with this in their name.
    Named(String),
}

impl Choice {
    fn new(choice: Option<&str>) -> Result<Self, Box<dyn Error>> {
        let Some(choice) = choice else { return Ok(Self::All) };
        if Path::new(choice).is_file() {
            let lines = fs::read_to_string(choice)?;
            return Ok(Self::Listed(lines.lines().map(without_place).collect()));
        }
        let numbers = choice.split_once('/').map(|(k, n)| (k.parse(), n.parse()));
        Ok(match numbers {
            Some((Ok(k), Ok(n))) if n > 0 => Self::Part(k, n),
            _ => Self::Named(choice.to_owned()),
        })
    }

    fn takes(&self, id: usize, mutant: &Mutant) -> bool {
        match self {
            Self::All => true,
            Self::Part(k, n) => id % n == *k,
            Self::Listed(names) => names.contains(&without_place(&mutant.name)),
            Self::Named(part) => mutant.name.contains(part),
        }
    }
}

/// The file and the description of a mutant, from a line that ends with its name.
fn without_place(line: &str) -> (String, String) {
    let name = line.rsplit('\t').next().unwrap_or_default();
    let file = name.split(':').next().unwrap_or_default();
    let what = name.split_once(": ").unwrap_or_default().1;
    (file.to_owned(), what.to_owned())
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
    let is_known =
        |(id, mutant): (usize, &Mutant)| known.contains(mutant.name.as_str()).then_some(id);
    let mut out: BTreeSet<usize> = mutants.iter().enumerate().filter_map(is_known).collect();
    loop {
        let woven = weave::all(repository, copy, files, mutants, &out)?;
        let errors = run::errors(copy, &[target.package], &woven)?;
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
