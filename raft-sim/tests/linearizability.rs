//! Who judges the judge: textbook histories, a twin that tries every order, and the crate
//! `porcupine-rs`, on thousands of histories that an object really gave, that were then falsified, or
//! that were made up. All three must agree on every one.
//!
//! A failure prints the smallest history that shows it, and the line to keep in
//! `linearizability.proptest-regressions`, which is run first from then on.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::cell::Cell;

use porcupine_rs::Operation as TheirOperation;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, TestCaseResult, TestRunner};
use raft_sim::linearizability::{Explanation, Model, Operation, Verdict, by_key, check};

const BUDGET: u64 = 1_000_000;

/// A number of two bits that starts at 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Ask {
    Read,
    Write(u8),
    /// Adds, and tells the sum.
    Add(u8),
    /// The first number, if it is there, becomes the second one; tells whether it was.
    Swap(u8, u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Answer {
    Is(u8),
    Done(bool),
}

impl Ask {
    /// What a number answers that is asked this, and becomes.
    fn of(self, number: u8) -> (Answer, u8) {
        match self {
            Self::Read => (Answer::Is(number), number),
            Self::Write(other) => (Answer::Done(true), other),
            Self::Add(delta) => (Answer::Is((number + delta) % 4), (number + delta) % 4),
            Self::Swap(from, to) if from == number => (Answer::Done(true), to),
            Self::Swap(..) => (Answer::Done(false), number),
        }
    }
}

struct Number;

impl Model for Number {
    type State = u8;
    type Input = Ask;
    type Output = Answer;

    fn initial(&self) -> u8 {
        0
    }

    fn step(&self, number: &u8, ask: &Ask, answer: Option<&Answer>) -> Option<u8> {
        let (right, after) = ask.of(*number);
        answer.is_none_or(|answer| *answer == right).then_some(after)
    }

    fn changes_nothing(&self, ask: &Ask, answer: Option<&Answer>) -> bool {
        let refused = matches!(ask, Ask::Swap(..)) && answer == Some(&Answer::Done(false));
        refused || *ask == Ask::Read
    }
}

type Op = Operation<Ask, Answer>;

/// An operation with its answer, from one moment to another.
fn op(call: u64, input: Ask, back: u64, output: Answer) -> Op {
    Operation { client: 1, call, input, returned: Some((back, output)) }
}

fn pending(call: u64, input: Ask) -> Op {
    Operation { client: 2, call, input, returned: None }
}

fn judged(history: &[Op]) -> Verdict {
    check(&Number, history, BUDGET)
}

/// The answers that contradict each other.
fn contradiction(history: &[Op]) -> Vec<usize> {
    match judged(history) {
        Verdict::Illegal(explanation) => explanation.contradiction,
        other => panic!("{other:?}"),
    }
}

use Answer::{Done, Is};
use Ask::{Add, Read, Swap, Write};

#[test]
fn one_after_the_other() {
    assert_eq!(judged(&[]), Verdict::Linearizable);
    let history = [op(1, Write(2), 2, Done(true)), op(3, Read, 4, Is(2))];
    assert_eq!(judged(&history), Verdict::Linearizable);
}

#[test]
fn a_stale_read_is_illegal() {
    let history = [
        op(1, Write(1), 2, Done(true)),
        op(3, Write(2), 4, Done(true)),
        op(5, Read, 6, Is(1)),
        op(7, Read, 8, Is(2)),
    ];
    // The last read is fine. Each of the others is needed: without the answer of the first write it
    // could have been the later one.
    assert_eq!(contradiction(&history), [0, 1, 2]);
}

/// While a write is under way reads may see it or not; but once one has, all later ones must.
#[test]
fn a_read_may_not_go_back_in_time() {
    let reads = |first, second| {
        [op(1, Write(1), 10, Done(true)), op(2, Read, 3, Is(first)), op(4, Read, 5, Is(second))]
    };
    for (first, second) in [(0, 0), (0, 1), (1, 1)] {
        assert_eq!(judged(&reads(first, second)), Verdict::Linearizable);
    }
    assert_eq!(contradiction(&reads(1, 0)), [1, 2]);
}

#[test]
fn a_lost_update_is_illegal() {
    let history = [op(1, Add(1), 4, Is(1)), op(2, Add(1), 5, Is(1)), op(6, Read, 7, Is(1))];
    assert_eq!(contradiction(&history), [0, 1]);
    let history = [op(1, Add(1), 4, Is(1)), op(2, Add(1), 5, Is(2)), op(6, Read, 7, Is(1))];
    // The second answer says that both have happened, whatever was answered to the first one.
    assert_eq!(contradiction(&history), [1, 2]);
}

/// Client and server see one addition, the state has two: the retry was applied again.
#[test]
fn a_retry_that_was_applied_twice_is_illegal() {
    let once = [op(1, Add(1), 9, Is(1)), op(10, Read, 11, Is(1))];
    assert_eq!(judged(&once), Verdict::Linearizable);
    let twice = [op(1, Add(1), 9, Is(1)), op(10, Read, 11, Is(2))];
    assert_eq!(contradiction(&twice), [1]);
    // Also if the client never heard of it: it can have happened once, at most.
    let pending_once = [pending(1, Add(1)), op(10, Read, 11, Is(1))];
    assert_eq!(judged(&pending_once), Verdict::Linearizable);
    let pending_twice = [pending(1, Add(1)), op(10, Read, 11, Is(2))];
    assert_eq!(contradiction(&pending_twice), [1]);
    let never = [pending(1, Add(1)), op(10, Read, 11, Is(0)), op(12, Read, 13, Is(0))];
    assert_eq!(judged(&never), Verdict::Linearizable);
}

#[test]
fn a_pending_operation_happens_after_its_call_only() {
    let late = |from| [op(1, Read, 2, Is(1)), pending(from, Write(1))];
    assert_eq!(judged(&late(2)), Verdict::Linearizable, "of the same time: at once");
    assert_eq!(contradiction(&late(3)), [0]);
    let undone = [op(1, Read, 2, Is(0)), pending(0, Write(1)), op(3, Read, 4, Is(1))];
    assert_eq!(judged(&undone), Verdict::Linearizable);
    let back = [op(1, Read, 2, Is(1)), pending(0, Write(1)), op(3, Read, 4, Is(0))];
    assert_eq!(contradiction(&back), [0, 2]);
}

/// The figure 1 of Herlihy and Wing, told of a number: overlapping, each order is as good.
#[test]
fn overlapping_operations_come_in_any_order() {
    let history = |seen| {
        [op(1, Write(1), 4, Done(true)), op(2, Write(2), 5, Done(true)), op(6, Read, 7, Is(seen))]
    };
    assert_eq!(judged(&history(1)), Verdict::Linearizable);
    assert_eq!(judged(&history(2)), Verdict::Linearizable);
    // One of the two is enough for it.
    assert_eq!(contradiction(&history(0)), [1, 2]);
}

#[test]
fn an_explanation_can_be_read() {
    let history = [
        op(1, Write(3), 2, Done(true)),
        op(3, Write(1), 4, Done(true)),
        op(5, Read, 6, Is(0)),
        pending(4, Write(2)),
    ];
    let text = judged(&history).into_result().unwrap_err();
    let expected = "\
not linearizable: no order explains these 2 of 3 answers, whatever else happened:
  client 1 [3, 4] Write(1) -> Done(true)
  client 1 [5, 6] Read -> Is(0)
these may have happened, and do not explain it:
  client 1 [1, …] Write(3)
  client 2 [4, …] Write(2)
the longest order that fits: Write(1), Write(3), Write(2); then 2";
    assert_eq!(text, expected);
}

/// Thirty additions that may have happened, of which some sum up to every answer: more orders than
/// anybody could try. No verdict is a failure.
#[test]
fn without_budget_nothing_is_known() {
    struct Sum;
    impl Model for Sum {
        type State = u64;
        type Input = u64;
        type Output = u64;
        fn initial(&self) -> u64 {
            0
        }
        fn step(&self, sum: &u64, delta: &u64, answer: Option<&u64>) -> Option<u64> {
            answer.is_none_or(|answer| *answer == sum + delta).then_some(sum + delta)
        }
    }
    let mut history: Vec<Operation<u64, u64>> = (0..30)
        .map(|bit| Operation { client: bit, call: 1, input: 1 << bit, returned: None })
        .collect();
    let ask = |sum| Operation { client: 99, call: 2, input: 0, returned: Some((3, sum)) };
    history.push(ask(1 << 31));
    let verdict = check(&Sum, &history, 10_000);
    assert_eq!(verdict, Verdict::Unknown { steps: 10_000 });
    assert!(verdict.into_result().unwrap_err().contains("a failure"));
    // Thirty times the same can be told apart by nobody, and is decided at once.
    for operation in &mut history[..30] {
        operation.input = 1;
    }
    assert!(matches!(check(&Sum, &history, 10_000), Verdict::Illegal(_)));
    history[30] = ask(17);
    assert_eq!(check(&Sum, &history, 10_000), Verdict::Linearizable);
}

#[test]
#[should_panic(expected = "returned before it was called")]
fn time_runs_forward() {
    judged(&[op(2, Read, 1, Is(0))]);
}

#[test]
fn objects_are_checked_each_by_itself() {
    let parts = by_key([("b", 1), ("a", 2), ("b", 3)], |(key, _)| *key);
    assert_eq!(parts["a"], [("a", 2)]);
    assert_eq!(parts["b"], [("b", 1), ("b", 3)]);
}

/// The same model for the other crate. Its operations all return, so a pending one, whose answer fits
/// whatever happens, returns after everything.
#[derive(Clone, Debug)]
struct Theirs;

impl porcupine_rs::Model for Theirs {
    type State = u8;
    type Op = (Ask, Option<Answer>);
    type Metadata = ();

    fn init() -> u8 {
        0
    }

    fn step(number: &u8, (ask, answer): &Self::Op) -> (bool, u8) {
        match Number.step(number, ask, answer.as_ref()) {
            Some(after) => (true, after),
            None => (false, *number),
        }
    }
}

fn their_verdict(history: &[Op]) -> bool {
    let history: Vec<TheirOperation<Theirs>> = history
        .iter()
        .map(|one| TheirOperation {
            client_id: None,
            call_time: i64::try_from(one.call).unwrap(),
            return_time: one.returned.map_or(i64::MAX, |(time, _)| i64::try_from(time).unwrap()),
            op: (one.input, one.returned.map(|(_, answer)| answer)),
            metadata: None,
        })
        .collect();
    porcupine_rs::check_operations(&history)
}

/// Every order of every choice of operations that respects time.
fn twin_verdict(history: &[Op], taken: &mut Vec<usize>, number: u8) -> bool {
    let left = |taken: &[usize]| -> Vec<usize> {
        (0..history.len()).filter(|number| !taken.contains(number)).collect()
    };
    let left = left(taken);
    if left.iter().all(|&one| history[one].returned.is_none()) {
        return true;
    }
    left.iter().any(|&one| {
        let overtaken = left.iter().any(|&other| {
            history[other].returned.is_some_and(|(time, _)| time < history[one].call)
        });
        let answer = history[one].returned.map(|(_, answer)| answer);
        let Some(after) = Number.step(&number, &history[one].input, answer.as_ref()) else {
            return false;
        };
        if overtaken {
            return false;
        }
        taken.push(one);
        let explained = twin_verdict(history, taken, after);
        taken.pop();
        explained
    })
}

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        2 => Just(Read),
        1 => (0..4_u8).prop_map(Write),
        2 => (1..4_u8).prop_map(Add),
        1 => (0..4_u8, 0..4_u8).prop_map(|(from, to)| Swap(from, to)),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![3 => (0..4_u8).prop_map(Is), 1 => any::<bool>().prop_map(Done)]
}

/// What really happened: each operation at one moment between its call and its return, or never if it
/// is pending. `span` is about how many of them overlap.
fn lived(count: usize, span: u64) -> impl Strategy<Value = Vec<Op>> {
    let pending = prop::option::weighted(0.15, any::<bool>());
    let one = (ask(), 0..3_u64, 0..span, 0..span, pending);
    vec(one, 0..=count).prop_map(|parts| {
        let mut call = 0;
        let mut moments = Vec::new();
        for (number, (input, pause, until, on, pending)) in parts.into_iter().enumerate() {
            call += pause;
            moments.push((call + until, number, call, input, call + until + on, pending));
        }
        moments.sort_by_key(|&(moment, number, ..)| (moment, number));
        let mut state = 0;
        let mut history = vec![None; moments.len()];
        for (_, place, call, input, back, pending) in moments {
            let (answer, after) = input.of(state);
            if pending != Some(false) {
                state = after;
            }
            let returned = pending.is_none().then_some((back, answer));
            let client = place as u64;
            history[place] = Some(Operation { client, call, input, returned });
        }
        history.into_iter().map(|one| one.expect("each has its moment")).collect()
    })
}

/// The same with something falsified: an answer, or a moment.
fn falsified(count: usize, span: u64) -> impl Strategy<Value = Vec<Op>> {
    let lie = (any::<prop::sample::Index>(), prop::option::of(answer()), 0..span, 0..span);
    (lived(count, span), vec(lie, 1..3)).prop_map(|(mut history, lies)| {
        for (place, lie, earlier, shorter) in lies {
            if history.is_empty() {
                continue;
            }
            let place = place.index(history.len());
            let one = &mut history[place];
            match (&mut one.returned, lie) {
                (Some((_, answer)), Some(lie)) => *answer = lie,
                (Some((back, _)), None) => {
                    *back = back.saturating_sub(shorter).max(one.call);
                    one.call = one.call.saturating_sub(earlier);
                }
                (None, _) => one.call += earlier,
            }
        }
        history
    })
}

/// Of which nothing needs to be true.
fn made_up(count: usize) -> impl Strategy<Value = Vec<Op>> {
    let one = (ask(), 0..12_u64, 0..8_u64, prop::option::weighted(0.8, answer()));
    vec(one, 0..=count).prop_map(|parts| {
        let history = parts.into_iter().map(|(input, call, length, answer)| {
            let returned = answer.map(|answer| (call + length, answer));
            Operation { client: 0, call, input, returned }
        });
        history.collect()
    })
}

/// How many of the histories were found linearizable, and how many not.
#[derive(Default)]
struct Count {
    linearizable: Cell<u32>,
    illegal: Cell<u32>,
}

/// All judges agree, and an illegal history is explained by answers that really contradict each other.
fn judges_agree(history: &[Op], count: &Count) -> TestCaseResult {
    let verdict = judged(history);
    let linearizable = match &verdict {
        Verdict::Linearizable => true,
        Verdict::Illegal(_) => false,
        Verdict::Unknown { .. } => return Err(TestCaseError::fail("the budget ran out")),
    };
    prop_assert_eq!(linearizable, their_verdict(history), "porcupine-rs does not agree");
    if history.len() <= 6 {
        prop_assert_eq!(linearizable, twin_verdict(history, &mut Vec::new(), 0));
    }
    match verdict {
        // With more answers forgotten the other crate would take for ever.
        Verdict::Illegal(explanation) if history.len() <= 10 => {
            explained_well(history, &explanation)?;
        }
        _ => {}
    }
    let counter = if linearizable { &count.linearizable } else { &count.illegal };
    counter.set(counter.get() + 1);
    Ok(())
}

/// The answers contradict each other, and none of them is there for nothing.
fn explained_well(history: &[Op], explanation: &Explanation) -> TestCaseResult {
    let only = |kept: &[usize]| {
        let mut history = history.to_vec();
        for (number, one) in history.iter_mut().enumerate() {
            one.returned.take_if(|_| !kept.contains(&number));
        }
        their_verdict(&history)
    };
    let contradiction = &explanation.contradiction;
    prop_assert!(!only(contradiction), "{} is no contradiction", explanation);
    for place in 0..contradiction.len() {
        let mut fewer = contradiction.clone();
        fewer.remove(place);
        prop_assert!(only(&fewer), "{} says more than it needs", explanation);
    }
    Ok(())
}

/// Runs `cases` histories past all judges; how many were linearizable, and how many illegal.
fn run(cases: u32, histories: &impl Strategy<Value = Vec<Op>>) -> (u32, u32) {
    let config = ProptestConfig {
        source_file: Some(file!()),
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource(
            "proptest-regressions",
        ))),
        ..ProptestConfig::with_cases(cases)
    };
    let count = Count::default();
    let result = TestRunner::new(config).run(histories, |history| judges_agree(&history, &count));
    if let Err(failure) = result {
        panic!("{failure}");
    }
    println!("{} linearizable, {} illegal", count.linearizable.get(), count.illegal.get());
    (count.linearizable.get(), count.illegal.get())
}

#[test]
fn what_an_object_gave_is_linearizable() {
    for histories in [lived(6, 6), lived(40, 6)] {
        let (linearizable, illegal) = run(2_000, &histories);
        assert!(linearizable >= 2_000 && illegal == 0, "{linearizable}, and {illegal} illegal");
    }
}

#[test]
fn all_judges_agree_on_what_was_falsified() {
    for histories in [falsified(6, 6), falsified(20, 5)] {
        let (linearizable, illegal) = run(3_000, &histories);
        assert!(linearizable > 400 && illegal > 400, "{linearizable} and {illegal}: one-sided");
    }
}

#[test]
fn all_judges_agree_on_what_was_made_up() {
    let (linearizable, illegal) = run(6_000, &made_up(6));
    assert!(linearizable > 600 && illegal > 600, "{linearizable} and {illegal}: one-sided");
    let (_, illegal) = run(2_000, &made_up(10));
    assert!(illegal > 1_000, "{illegal}: one-sided");
}
