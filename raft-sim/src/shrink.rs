//! Makes a failing run small: of all that went wrong only what the failure needs, and calm options.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::campaign::{Broken, quietly};
use crate::simulation::{Options, Plan, Report, Watch};

/// A failing run, made small.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// How to run it.
    pub plan: Plan,
    /// How it fails: in the same place as the whole run, and with the same words.
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

/// Shrinks a run that fails, trying at most so many others. `None` if it does not fail.
pub fn shrink<R>(run: &R, plan: &Plan, runs_max: usize) -> Option<Shrunk>
where
    R: Fn(&Plan, Watch) -> Report,
{
    let (broken, interventions) = attempt(run, plan)?;
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
    let Shrinker { plan, broken, interventions, runs, .. } = shrinker;
    let lines = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&lines);
    let tell = move |line| told.lock().expect("nobody panics with it").push(line);
    let watch = Watch { lines: Some(Box::new(tell)), ..Watch::default() };
    let _fails_again = quietly(|| run(&plan, watch));
    let lines = std::mem::take(&mut *lines.lock().expect("nobody panics with it"));
    Some(Shrunk { plan, broken, before, after: interventions.len(), runs, lines })
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

    #[test]
    fn what_does_not_matter_goes() {
        let fails = |&seed: &u64| {
            let report = Simulation::new(&Plan::new(seed, 300), Registers, Watch::default()).run();
            report.pauses > 0 && report.partitions > 0
        };
        let seed = (1..50).find(fails).expect("pauses and partitions are common");
        let shrunk = shrink(&touchy, &Plan::new(seed, 300), 2_000).expect("it fails");
        assert!(shrunk.after <= 2, "{} of {} are left", shrunk.after, shrunk.before);
        assert!(shrunk.before > shrunk.after && !shrunk.lines.is_empty());
        let again = quietly(|| touchy(&shrunk.plan, Watch::default()));
        assert_eq!(again.err(), Some(shrunk.broken), "it can be replayed");
    }

    #[test]
    fn what_does_not_fail_is_not_shrunk() {
        let run = |plan: &Plan, watch: Watch| Simulation::new(plan, Registers, watch).run();
        assert!(shrink(&run, &Plan::new(1, 100), 10).is_none());
    }
}
