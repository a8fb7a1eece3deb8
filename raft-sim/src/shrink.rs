//! Makes a failing run small: of all that went wrong only what the failure needs, and calm options. Finds out
//! on the way whether the same seed does the same each time.

mod unstable;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::campaign::{Broken, quietly};
use crate::simulation::{Options, Plan, Report, Watch};
pub use unstable::{Parting, Unstable};

/// What came of making a run small. Its `Display` is what to print of it.
#[derive(Clone, Debug)]
pub enum Shrinking {
    /// It does not fail, and nobody said that it does.
    Survives,
    /// What is left of it.
    Small(Box<Shrunk>),
    /// It ends differently each time: there is nothing to make small.
    Unstable(Box<Unstable>),
}

/// A failing run, made small.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// How to run it.
    pub plan: Plan,
    /// How it fails: in the same place as the whole run, and with the same words but for numbers. What the
    /// lines lead to.
    pub broken: Broken,
    /// How many interventions the whole run had, until it failed.
    pub before: usize,
    /// How many are left.
    pub after: usize,
    /// How many runs that took.
    pub runs: usize,
    /// Everything that happens in it.
    pub lines: Vec<String>,
}

struct Shrinker<'a, R> {
    run: &'a R,
    /// Where it breaks, and what it says, but for numbers: one place may have many reasons.
    reason: (String, String),
    runs_left: usize,
    runs: usize,
    /// The smallest that still fails, and what intervenes in it, in order.
    plan: Plan,
    interventions: Vec<u64>,
    broken: Broken,
}

/// Shrinks a run that fails, trying at most so many others. `told` is how it failed before, if somebody knows:
/// a [`Failure`](crate::campaign::Failure) of a campaign. If it ends otherwise now, or is not the same twice,
/// that is what is told, and nothing is shrunk.
pub fn shrink<R>(run: &R, plan: &Plan, told: Option<&Broken>, runs_max: usize) -> Shrinking
where
    R: Fn(&Plan, Watch) -> Report,
{
    let unstable = |endings| Shrinking::Unstable(Box::new(Unstable::new(run, plan, endings)));
    let first = attempt(run, plan);
    let ending = first.as_ref().map(|(broken, _)| broken);
    if told.is_some() && told != ending {
        return unstable(vec![told.cloned(), ending.cloned()]);
    }
    let Some((broken, interventions)) = first else { return Shrinking::Survives };
    let again = attempt(run, plan);
    if again.as_ref().is_none_or(|again| again.0 != broken || again.1 != interventions) {
        return unstable(vec![Some(broken), again.map(|(broken, _)| broken)]);
    }
    let before = interventions.len();
    let mut shrinker = Shrinker {
        run,
        reason: reason(&broken),
        runs_left: runs_max,
        runs: 0,
        plan: plan.clone(),
        interventions,
        broken,
    };
    // What is calm first makes all that follows faster; once more, since less may need even less.
    for _ in 0..2 {
        shrinker.end_sooner();
        shrinker.drop_interventions();
        shrinker.calm_down();
    }
    let Shrinker { plan: small, broken, interventions, runs, .. } = shrinker;
    let (ending, lines) = story(run, &small);
    if ending.as_ref() != Some(&broken) {
        let endings = vec![Some(broken), ending];
        return Shrinking::Unstable(Box::new(Unstable::new(run, &small, endings)));
    }
    let after = interventions.len();
    Shrinking::Small(Box::new(Shrunk { plan: small, broken, before, after, runs, lines }))
}

/// How a run ends, and all that happens in it.
fn story<R>(run: &R, plan: &Plan) -> (Option<Broken>, Vec<String>)
where
    R: Fn(&Plan, Watch) -> Report,
{
    let lines = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&lines);
    let tell = move |line| told.lock().expect("nobody panics with it").push(line);
    let watch = Watch { lines: Some(Box::new(tell)), ..Watch::default() };
    let ending = quietly(|| run(plan, watch)).err();
    let lines = std::mem::take(&mut *lines.lock().expect("nobody panics with it"));
    (ending, lines)
}

fn reason(broken: &Broken) -> (String, String) {
    let line = broken.message.lines().next().unwrap_or_default();
    // What is behind a colon is told of the nodes as they are.
    let words = line.split(": Status").next().unwrap_or_default();
    (broken.place.clone(), words.chars().filter(|letter| !letter.is_ascii_digit()).collect())
}
/// How a run fails, and what had intervened by then. `None` if it does not.
fn attempt<R>(run: &R, plan: &Plan) -> Option<(Broken, Vec<u64>)>
where
    R: Fn(&Plan, Watch) -> Report,
{
    let interventions = Arc::new(Mutex::new(Vec::new()));
    let watch = Watch { interventions: Some(Arc::clone(&interventions)), ..Watch::default() };
    let broken = quietly(|| run(plan, watch)).err()?;
    let interventions = std::mem::take(&mut *interventions.lock().expect("nobody panics with it"));
    Some((broken, interventions))
}

impl<R> Shrinker<'_, R>
where
    R: Fn(&Plan, Watch) -> Report,
{
    /// Takes a plan if it fails in the same place.
    fn accept(&mut self, plan: Plan) -> bool {
        if self.runs_left == 0 {
            return false;
        }
        self.runs_left -= 1;
        self.runs += 1;
        match attempt(self.run, &plan) {
            Some((broken, interventions)) if reason(&broken) == self.reason => {
                (self.plan, self.broken, self.interventions) = (plan, broken, interventions);
                true
            }
            _ => false,
        }
    }

    /// What fails when progress is demanded may fail so sooner.
    fn end_sooner(&mut self) {
        for keep in [0, 1, 2, 3] {
            while self.plan.events > 1 {
                let events = self.plan.events * keep / 4;
                if !self.accept(Plan { events, ..self.plan.clone() }) {
                    break;
                }
            }
        }
    }

    /// Leaves out half of what intervenes, or a quarter, and so on, as long as it still fails (Zeller's
    /// delta debugging).
    fn drop_interventions(&mut self) {
        let mut size = self.interventions.len().div_ceil(2);
        while size > 0 && self.runs_left > 0 {
            let mut first = 0;
            while first < self.interventions.len() {
                let mut only: BTreeSet<u64> = self.interventions.iter().copied().collect();
                for one in self.interventions.iter().skip(first).take(size) {
                    only.remove(one);
                }
                // What comes after it has moved into its place.
                if !self.accept(Plan { only: Some(Arc::new(only)), ..self.plan.clone() }) {
                    first += size;
                }
            }
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
    }

    fn calm_down(&mut self) {
        let calmer: [fn(&mut Options); 8] = [
            |it| it.loss = 0.0,
            |it| it.duplication = 0.0,
            |it| it.lazy_poll = 0.0,
            |it| it.short_io = false,
            |it| it.delay_max = Duration::from_millis(1),
            |it| it.sync_max = Duration::from_millis(1),
            |it| it.size = it.size.min(3),
            |it| it.size = it.size.min(2),
        ];
        for calm in calmer {
            let now = self.plan.options.clone();
            let now = now.unwrap_or_else(|| Options::of_seed(self.plan.seed));
            let mut options = now.clone();
            calm(&mut options);
            if options != now {
                self.accept(Plan { options: Some(options), ..self.plan.clone() });
            }
        }
    }
}

impl Shrunk {
    /// `2 of 31 interventions are left, found in 90 runs`.
    #[must_use]
    pub fn in_short(&self) -> String {
        let Self { after, before, runs, .. } = self;
        let s = if *before == 1 { "" } else { "s" };
        let are = if *after == 1 { "is" } else { "are" };
        let runs_s = if *runs == 1 { "" } else { "s" };
        format!("{after} of {before} intervention{s} {are} left, found in {runs} run{runs_s}")
    }
}

impl fmt::Display for Shrunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        write!(f, "\n{}\n\n{}", self.broken, self.in_short())
    }
}

impl fmt::Display for Shrinking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Survives => f.write_str("it does not fail"),
            Self::Small(small) => small.fmt(f),
            Self::Unstable(unstable) => unstable.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registers::Registers;
    use crate::simulation::Simulation;

    /// A run that fails if anything ever paused and a partition came as well.
    fn touchy(plan: &Plan, watch: Watch) -> Report {
        let report = Simulation::new(plan, Registers, watch).run();
        assert!(report.pauses == 0 || report.partitions == 0, "a pause and a partition");
        report
    }

    /// Faults that strike at a moment are left out: they may need all that led to it.
    #[test]
    fn what_does_not_matter_goes() {
        let plan = |seed| {
            let options = Options { strike: 0.0, ..Options::of_seed(seed) };
            Plan { options: Some(options), ..Plan::new(seed, 300) }
        };
        let mut left = Vec::new();
        for plan in (1..1_000).map(plan) {
            let Err(told) = quietly(|| touchy(&plan, Watch::default())) else { continue };
            let shrinking = shrink(&touchy, &plan, Some(&told), 2_000);
            let Shrinking::Small(shrunk) = shrinking else { panic!("{shrinking}") };
            assert!(shrunk.before >= shrunk.after && !shrunk.lines.is_empty());
            let again = quietly(|| touchy(&shrunk.plan, Watch::default()));
            assert_eq!(again.err(), Some(shrunk.broken), "it can be replayed");
            left.push((shrunk.after, shrunk.before));
            if left.len() == 3 {
                break;
            }
        }
        left.sort_unstable();
        // A pause, a partition, and perhaps one more that leads to them.
        assert!(left.len() == 3 && left[1].0 <= 3, "so many interventions are left: {left:?}");
    }

    #[test]
    fn what_does_not_fail_is_not_shrunk() {
        let run = |plan: &Plan, watch: Watch| Simulation::new(plan, Registers, watch).run();
        assert!(matches!(shrink(&run, &Plan::new(1, 100), None, 10), Shrinking::Survives));
    }
}
