//! Shows mutants to the tests: to those that reach them, what kills most for its time first.

use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, UNIX_EPOCH};

use crate::Target;
use crate::run::{End, Program, Run};

pub enum Verdict {
    KilledBy(String),
    /// It did not end; so it was noticed.
    Endless(String),
    /// So many tests reach it, and all of them pass.
    Survived(usize),
    /// It is not among those woven in, or does not compile there: `cargo mutants` has to try it.
    Absent,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::KilledBy(test) => write!(f, "killed\t{test}"),
            Verdict::Endless(test) => write!(f, "endless\t{test}"),
            Verdict::Survived(tests) => write!(f, "SURVIVED\t{tests} tests"),
            Verdict::Absent => write!(f, "absent\t"),
        }
    }
}

/// A test, and what is known of it.
struct Test<'a> {
    program: &'a Program,
    name: String,
    /// What it takes of a processor without a mutant.
    needs: Duration,
    /// The mutants that it asks for. Before it comes to the first of them it cannot be told from the
    /// original, so no other mutant can make it fail.
    reaches: HashSet<usize>,
    score: Mutex<Score>,
}

/// How often a test was shown a mutant, and how often it failed then.
#[derive(Clone, Copy, Default)]
struct Score {
    shown: u32,
    killed: u32,
}

impl Test<'_> {
    /// Kills to be expected per second.
    fn worth(&self) -> f64 {
        let Score { shown, killed } = *self.score.lock().expect("nobody panics with it");
        let chance = f64::from(killed + 1) / f64::from(shown + 2);
        // It takes as much to start a program as a short test needs.
        chance / (self.needs.as_secs_f64() + 0.02)
    }
}

/// All tests that mutants are shown to.
pub struct Tests<'a> {
    target: &'a Target,
    all: Vec<Test<'a>>,
}

impl<'a> Tests<'a> {
    /// Runs each test alone, without a mutant, and writes down what it reaches; unless that is known
    /// from an earlier run of the same program. All must pass.
    pub fn record(
        programs: &'a [Program],
        target: &'a Target,
        directory: &Path,
    ) -> Result<Self, Box<dyn Error>> {
        fs::create_dir_all(directory)?;
        let thorough = std::env::var_os("THOROUGH").is_some();
        let is_long = |test: &str| target.long.iter().any(|part| test.contains(part));
        let mut all = Vec::new();
        for program in programs {
            let age = fs::metadata(&program.file)?.modified()?.duration_since(UNIX_EPOCH)?;
            let tests = program.tests(target)?;
            for name in tests.into_iter().filter(|test| thorough || !is_long(test)) {
                let label = format!("{} {}", program.test, name.replace("::", "."));
                let record = directory.join(format!("{label} {}", age.as_nanos()));
                let (needs, reaches) = match read(&record) {
                    Some(known) => known,
                    None => measure(program, &name, target, &record)?,
                };
                let score = Mutex::default();
                all.push(Test { program, name, needs, reaches, score });
            }
            let of_program = all.iter().filter(|test| test.program.test == program.test);
            let needs: Duration = of_program.clone().map(|test| test.needs).sum();
            let count = of_program.count();
            eprintln!("{}: {count} tests, {:.1} s", program.test, needs.as_secs_f64());
        }
        Ok(Self { target, all })
    }

    /// Shows a mutant to the tests that reach it until one of them fails.
    pub fn one(&self, mutant: usize) -> Result<Verdict, Box<dyn Error>> {
        let mut tests: Vec<_> = self.all.iter().filter(|t| t.reaches.contains(&mutant)).collect();
        tests.sort_by(|a, b| b.worth().total_cmp(&a.worth()));
        for test in &tests {
            let run = Run::Mutant(mutant, test.needs);
            let (end, _) = test.program.run(&test.name, self.target, &run)?;
            let mut score = test.score.lock().expect("nobody panics with it");
            score.shown += 1;
            score.killed += u32::from(end != End::Passed);
            let name = format!("{}::{}", test.program.test, test.name);
            match end {
                End::Passed => {}
                End::Failed => return Ok(Verdict::KilledBy(name)),
                End::Endless => return Ok(Verdict::Endless(name)),
            }
        }
        Ok(Verdict::Survived(tests.len()))
    }
}

/// What a test needs and reaches, from a record.
fn read(record: &Path) -> Option<(Duration, HashSet<usize>)> {
    let text = fs::read_to_string(record).ok()?;
    let (needs, reaches) = text.split_once('\n')?;
    let reaches = reaches.lines().map(str::parse).collect::<Result<_, _>>().ok()?;
    Some((Duration::from_millis(needs.parse().ok()?), reaches))
}

fn measure(
    program: &Program,
    test: &str,
    target: &Target,
    record: &Path,
) -> Result<(Duration, HashSet<usize>), Box<dyn Error>> {
    let reached = record.with_file_name("reached");
    fs::write(&reached, "")?;
    let (end, needs) = program.run(test, target, &Run::Recording(&reached))?;
    if end != End::Passed {
        return Err(format!("{}::{test} fails without a mutant", program.test).into());
    }
    fs::write(record, format!("{}\n{}", needs.as_millis(), fs::read_to_string(&reached)?))?;
    read(record).ok_or_else(|| "a record that cannot be read".into())
}
