//! The same seed does not do the same each time: how runs of it ended, and where two of them part.

use std::fmt;

use super::story;
use crate::campaign::Broken;
use crate::simulation::{Plan, Report, Watch};

/// So many lines that two runs have in common are shown before they part.
const COMMON_LINES: usize = 5;

/// Runs of one plan that do not end the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unstable {
    /// Of which seed.
    pub seed: u64,
    /// How some runs ended, in order; `None` is one that did not fail.
    pub endings: Vec<Option<Broken>>,
    /// Where the stories of two more runs part, if they do.
    pub parting: Option<Parting>,
}

/// Where two stories part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parting {
    /// The last lines that they have in common.
    pub common: Vec<String>,
    /// What the one tells next, unless it ends here.
    pub one: Option<String>,
    /// What the other tells instead.
    pub other: Option<String>,
}

impl Unstable {
    /// Runs the plan twice more, to see where its stories part.
    pub(super) fn new<R>(run: &R, plan: &Plan, endings: Vec<Option<Broken>>) -> Self
    where
        R: Fn(&Plan, Watch) -> Report,
    {
        let ((_, one), (_, other)) = (story(run, plan), story(run, plan));
        let same = one.iter().zip(&other).take_while(|(one, other)| one == other).count();
        let parts = same < one.len() || same < other.len();
        let parting = parts.then(|| Parting {
            common: one[same.saturating_sub(COMMON_LINES)..same].to_vec(),
            one: one.get(same).cloned(),
            other: other.get(same).cloned(),
        });
        Self { seed: plan.seed, endings, parting }
    }
}

impl fmt::Display for Unstable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, endings, parting } = self;
        writeln!(f, "seed {seed} is NOT DETERMINISTIC: it does not end the same each time.\n")?;
        for (number, ending) in (1..).zip(endings) {
            match ending {
                Some(broken) => {
                    let broken = broken.to_string().replace('\n', "\n         ");
                    writeln!(f, "  run {number}: {broken}")?;
                }
                None => writeln!(f, "  run {number}: does not fail")?,
            }
        }
        if let Some(Parting { common, one, other }) = parting {
            let end = || "(its story ends here)".to_owned();
            let (one, other) = (one.clone(), other.clone());
            writeln!(f, "\nTwo more runs were the same until here:\n")?;
            common.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
            writeln!(f, "- {}\n+ {}", one.unwrap_or_else(end), other.unwrap_or_else(end))?;
        }
        f.write_str(
            "\nA seed decides everything but what your state machine and your workload bring in: look for\n\
             the iteration of a HashMap, clocks, random numbers, addresses, threads and global state in\n\
             `apply`, `query`, `snapshot`, `restore`, `digest`, and in `next` of the workload. Nothing can\n\
             be made small, or replayed, before that is mended.",
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::campaign::Campaign;
    use crate::machine::Workload;
    use crate::machine::{Bytes, LogPosition, Operation, RestoreError, StateMachine, Timestamp};
    use crate::shrink::{Shrinking, shrink};
    use crate::simulation::Simulation;

    /// Global state: what no seed knows of.
    static APPLIED: AtomicU64 = AtomicU64::new(0);

    /// Answers with how much was ever applied in this process.
    struct Global;

    impl StateMachine for Global {
        fn apply(&mut self, _at: LogPosition, _time: Timestamp, _command: &Bytes) -> Bytes {
            APPLIED.fetch_add(1, Ordering::Relaxed).to_string().into()
        }
        fn query(&self, _query: &Bytes) -> Bytes {
            Bytes::new()
        }
        fn snapshot(&self) -> Bytes {
            Bytes::new()
        }
        fn restore(&mut self, _snapshot: &[u8]) -> Result<(), RestoreError> {
            Ok(())
        }
    }

    struct Writers;

    impl Workload for Writers {
        type Machine = Global;
        fn machine(&self) -> Global {
            Global
        }
        fn next(&self, _client: u64, _number: u64, _random: &mut fastrand::Rng) -> Operation {
            Operation::Write { command: Bytes::from_static(b"more"), repeatable: false }
        }
        fn decides(&self, _command: &Bytes, _response: &Bytes) -> bool {
            true
        }
    }

    #[test]
    fn a_machine_that_is_not_deterministic_is_told_as_that() {
        let run = |plan: &Plan, watch| Simulation::new(plan, Writers, watch).run();
        let outcome =
            Campaign { stop_at_first: true, ..Campaign::new(1, 100, 2_000) }.run(run, |_| {});
        let failure = outcome.failures.first().expect("no two machines answer the same");
        let plan = Plan::new(failure.seed, 2_000);
        for told in [Some(&failure.broken), None] {
            let shrinking = shrink(&run, &plan, told, 50);
            let Shrinking::Unstable(unstable) = &shrinking else { panic!("{shrinking}") };
            assert_eq!(unstable.endings.len(), 2);
            assert_ne!(unstable.endings[0], unstable.endings[1]);
            if let Some(told) = told {
                assert_eq!(unstable.endings[0].as_ref(), Some(told), "what the campaign said");
            }
            let text = shrinking.to_string();
            assert!(text.contains("NOT DETERMINISTIC") && text.contains("HashMap"), "{text}");
        }
    }

    #[test]
    fn what_fails_only_once_is_told_as_that() {
        let runs = AtomicU64::new(0);
        let run = |_: &Plan, _: Watch| {
            assert_ne!(runs.fetch_add(1, Ordering::Relaxed), 0, "the first time only");
            Report::default()
        };
        let shrinking = shrink(&run, &Plan::new(1, 1), None, 50);
        let Shrinking::Unstable(unstable) = &shrinking else { panic!("{shrinking}") };
        assert!(unstable.endings[0].is_some() && unstable.endings[1].is_none());
    }

    /// It fails the same way until it is small, and otherwise when its story is told.
    #[test]
    fn the_story_is_of_the_run_whose_failure_is_told() {
        let runs = AtomicU64::new(0);
        let run = |_: &Plan, mut watch: Watch| {
            if let Some(tell) = &mut watch.lines {
                let run = runs.fetch_add(1, Ordering::Relaxed);
                tell(format!("run {run}"));
                panic!("another reason, in run {run}");
            }
            panic!("always the same");
        };
        let shrinking = shrink(&run, &Plan::new(1, 1), None, 50);
        let Shrinking::Unstable(unstable) = &shrinking else { panic!("{shrinking}") };
        let said = |ending: &Option<Broken>| ending.as_ref().map(|it| it.message.clone());
        let said: Vec<_> = unstable.endings.iter().filter_map(said).collect();
        assert_eq!(said, ["always the same", "another reason, in run 0"]);
        let parting = unstable.parting.as_ref().expect("each run tells its own number");
        assert_eq!(parting.one.as_deref(), Some("run 1"));
        assert_eq!(parting.other.as_deref(), Some("run 2"));
    }
}
