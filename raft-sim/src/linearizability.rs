//! Could one object, asked one thing at a time, have given these answers? The search of Wing and Gong,
//! with Lowe's memory of what was tried.
//!
//! A history is *linearizable* if each operation can be given one moment between its call and its
//! return at which it happens as a whole, so that the answers are those of a sequential [`Model`]
//! (Herlihy and Wing 1990). An operation without an answer is *pending*: it may have happened at any
//! moment since its call, or never.
//!
//! The search puts operations in order one by one. The next one can be any that was called before
//! the first return of those that are left (Wing and Gong 1993); the model says whether its answer
//! fits; if nothing fits, the last choice is taken back. What was reached once, the same operations
//! in any order with the same state, is not tried again (Lowe 2017). It is exponential at worst, so
//! it has a budget, and the verdict can be [`Verdict::Unknown`], which a test must count as a failure.
//!
//! Objects that have nothing to do with each other are checked each by itself, see [`by_key`]: a
//! history is linearizable if, and only if, it is so for each object (Herlihy and Wing, theorem 1).

use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::hash::Hash;

mod explain;

pub use explain::Explanation;

/// A sequential object: what is asked of it, one thing after the other, and what it answers.
pub trait Model {
    /// What it remembers.
    type State: Clone + Eq + Hash + Debug;
    /// What is asked.
    type Input: Clone + PartialEq + Debug;
    /// What is answered.
    type Output: Clone + Debug;

    /// The state before the first operation.
    fn initial(&self) -> Self::State;

    /// The state after `input`, if it can be answered with `output` in `state`; without an output, if
    /// it can happen there at all.
    fn step(
        &self,
        state: &Self::State,
        input: &Self::Input,
        output: Option<&Self::Output>,
    ) -> Option<Self::State>;

    /// Is this certain to change no state, whatever the state was, if it was answered so? A read, or a
    /// refusal; without an output, if no answer is possible with which it changes any. The search is
    /// much faster for it: nobody can tell whether such a thing happened if it is pending, and if it was
    /// answered it can as well stand first wherever its answer fits.
    fn changes_nothing(&self, _input: &Self::Input, _output: Option<&Self::Output>) -> bool {
        false
    }
}

/// One operation of a client. Times are of one clock, in any unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation<I, O> {
    /// Who asked; only for people.
    pub client: u64,
    /// When it was asked.
    pub call: u64,
    /// What was asked.
    pub input: I,
    /// When it was answered, and what; `None` while that is not known.
    pub returned: Option<(u64, O)>,
}

/// The operations of a history of this model.
pub type OperationOf<M> = Operation<<M as Model>::Input, <M as Model>::Output>;

/// What the search found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains every answer.
    Linearizable,
    /// There is none.
    Illegal(Explanation),
    /// The budget ran out before either was certain. To a test that is a failure.
    Unknown {
        /// How many steps of the model were tried.
        steps: u64,
    },
}

impl Verdict {
    /// `Ok` if linearizable; else what is to be read by people.
    ///
    /// # Errors
    /// For [`Verdict::Illegal`], and for [`Verdict::Unknown`] too.
    pub fn into_result(self) -> Result<(), String> {
        match self {
            Self::Linearizable => Ok(()),
            Self::Illegal(explanation) => Err(explanation.to_string()),
            Self::Unknown { steps } => {
                Err(format!("nothing is known of this history after {steps} steps: a failure"))
            }
        }
    }
}

/// The operations of each object by itself, in the order in which they came.
pub fn by_key<K: Ord, T>(
    operations: impl IntoIterator<Item = T>,
    key: impl Fn(&T) -> K,
) -> BTreeMap<K, Vec<T>> {
    let mut parts = BTreeMap::<K, Vec<T>>::new();
    for operation in operations {
        parts.entry(key(&operation)).or_default().push(operation);
    }
    parts
}

/// Is this history, in any order, one of `model`? At most `budget` steps of the model are tried;
/// for the explanation of an illegal history a few times as many again.
///
/// One operation comes before another if it returned strictly before the other was called.
///
/// # Panics
/// If an operation returns before it is called: a mistake of whoever recorded it.
pub fn check<M: Model>(model: &M, history: &[OperationOf<M>], budget: u64) -> Verdict {
    let mut search = Search::new(model, history);
    match search.run(budget) {
        Some(true) => Verdict::Linearizable,
        Some(false) => Verdict::Illegal(explain::explain(model, history, search.steps)),
        None => Verdict::Unknown { steps: search.steps },
    }
}

/// A moment of the history. Calls come before returns of the same time: then the two overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Call(usize),
    Return,
    /// Behind everything, and before it: moments are in a ring.
    End,
}

/// The place of [`Moment::End`] in the ring.
const END: usize = 0;

/// The search at one point: an order of some operations, and the moments of those that are left.
struct Search<'a, M: Model> {
    model: &'a M,
    history: &'a [OperationOf<M>],
    moments: Vec<Moment>,
    /// The ring of the moments that are left.
    next: Vec<usize>,
    before: Vec<usize>,
    /// For each operation the places of its call and, unless it is pending, its return.
    call_at: Vec<usize>,
    return_at: Vec<Option<usize>>,
    stage: Vec<Stage>,
    /// For a pending operation the one called before it that asks the same: of twins only the first
    /// that is left is tried, because it could stand wherever the other one does.
    twin: Vec<Option<usize>>,
    /// The order so far, each with the state before it.
    order: Vec<(usize, M::State)>,
    state: M::State,
    taken: Bits,
    /// How many operations with an answer are left.
    answers_left: usize,
    seen: HashSet<(Bits, M::State)>,
    longest: Vec<usize>,
    steps: u64,
}

/// What is to be tried next.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    stage: Stage,
    at: usize,
}

/// The order in which operations are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// What has an answer that fits now and would change nothing anywhere. In any order in which it stands
    /// later it may as well stand here, so that nothing else need be tried instead.
    Neutral,
    /// What has another answer.
    Answered,
    /// What has none, and mostly did not happen, or not yet.
    Pending,
}

impl Stage {
    fn of<M: Model>(model: &M, operation: &OperationOf<M>) -> Self {
        match &operation.returned {
            None => Self::Pending,
            Some((_, output)) if model.changes_nothing(&operation.input, Some(output)) => {
                Self::Neutral
            }
            Some(_) => Self::Answered,
        }
    }
}

/// What came of trying an operation.
enum Tried {
    /// It is the next one.
    Taken,
    /// It cannot be, or that leads nowhere.
    Left,
    /// It must be the next one, and that leads nowhere.
    Hopeless,
}

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a M, history: &'a [OperationOf<M>]) -> Self {
        let mut moments = Vec::new();
        for (number, operation) in history.iter().enumerate() {
            let returned = operation.returned.as_ref().map(|(time, _)| *time);
            if returned.is_none() && model.changes_nothing(&operation.input, None) {
                continue;
            }
            moments.push((operation.call, false, number));
            if let Some(time) = returned {
                assert!(operation.call <= time, "returned before it was called: {operation:?}");
                moments.push((time, true, number));
            }
        }
        moments.sort_unstable();
        let ring = moments.len() + 1;
        let mut search = Self {
            model,
            history,
            moments: vec![Moment::End],
            next: (1..ring).chain([END]).collect(),
            before: [ring - 1].into_iter().chain(0..ring - 1).collect(),
            call_at: vec![END; history.len()],
            return_at: vec![None; history.len()],
            stage: history.iter().map(|operation| Stage::of(model, operation)).collect(),
            twin: vec![None; history.len()],
            order: Vec::new(),
            state: model.initial(),
            taken: Bits::new(history.len()),
            answers_left: history.iter().filter(|operation| operation.returned.is_some()).count(),
            seen: HashSet::new(),
            longest: Vec::new(),
            steps: 0,
        };
        search.place(moments);
        search
    }

    /// Gives the sorted moments their places in the ring.
    fn place(&mut self, moments: Vec<(u64, bool, usize)>) {
        let mut pending: Vec<usize> = Vec::new();
        for (at, (_, is_return, number)) in (1..).zip(moments) {
            if is_return {
                self.return_at[number] = Some(at);
                self.moments.push(Moment::Return);
                continue;
            }
            self.call_at[number] = at;
            self.moments.push(Moment::Call(number));
            if self.history[number].returned.is_none() {
                let input = &self.history[number].input;
                let twin = pending.iter().rev().find(|&&other| self.history[other].input == *input);
                self.twin[number] = twin.copied();
                pending.push(number);
            }
        }
    }

    /// Whether an order explains all answers; `None` if the budget ends before that is certain.
    fn run(&mut self, budget: u64) -> Option<bool> {
        let mut cursor = self.first();
        while self.answers_left > 0 {
            let tried = match self.candidate(&mut cursor) {
                Some(_) if self.steps == budget => return None,
                Some(number) => (self.take(number), number),
                None => (Tried::Hopeless, END),
            };
            match tried {
                (Tried::Taken, _) => cursor = self.first(),
                (Tried::Left, number) => cursor.at = self.next[self.call_at[number]],
                (Tried::Hopeless, _) => match self.give_back() {
                    Some(number) => {
                        let (stage, at) = (self.stage[number], self.next[self.call_at[number]]);
                        cursor = Cursor { stage, at };
                    }
                    None => return Some(false),
                },
            }
        }
        Some(true)
    }

    fn first(&self) -> Cursor {
        Cursor { stage: Stage::Neutral, at: self.next[END] }
    }

    /// The next operation, from the cursor on, that could come next in the order.
    fn candidate(&self, cursor: &mut Cursor) -> Option<usize> {
        loop {
            match self.moments[cursor.at] {
                Moment::Call(number) => {
                    let twin_left = self.twin[number].is_some_and(|twin| !self.taken.has(twin));
                    if self.stage[number] == cursor.stage && !twin_left {
                        return Some(number);
                    }
                    cursor.at = self.next[cursor.at];
                }
                // Whatever was called after this return comes after the operation that returned.
                Moment::Return | Moment::End => {
                    let stage = match cursor.stage {
                        Stage::Neutral => Stage::Answered,
                        Stage::Answered => Stage::Pending,
                        Stage::Pending => return None,
                    };
                    *cursor = Cursor { stage, at: self.next[END] };
                }
            }
        }
    }

    /// Puts an operation next, if its answer fits and that was not tried before.
    fn take(&mut self, number: usize) -> Tried {
        let neutral = self.stage[number] == Stage::Neutral;
        self.steps += 1;
        let Operation { input, returned, .. } = &self.history[number];
        let output = returned.as_ref().map(|(_, output)| output);
        let Some(after) = self.model.step(&self.state, input, output) else { return Tried::Left };
        // What had no answer and changes nothing explains nothing: it might as well not have happened.
        if output.is_none() && after == self.state {
            return Tried::Left;
        }
        self.taken.flip(number);
        if !self.seen.insert((self.taken.clone(), after.clone())) {
            self.taken.flip(number);
            return if neutral { Tried::Hopeless } else { Tried::Left };
        }
        self.order.push((number, std::mem::replace(&mut self.state, after)));
        if self.order.len() > self.longest.len() {
            self.longest = self.order.iter().map(|(number, _)| *number).collect();
        }
        self.unlink(self.call_at[number]);
        if let Some(at) = self.return_at[number] {
            self.unlink(at);
            self.answers_left -= 1;
        }
        Tried::Taken
    }

    /// Takes the last operation out of the order again for which there may be another one, and all that
    /// came after it.
    fn give_back(&mut self) -> Option<usize> {
        loop {
            let (number, before) = self.order.pop()?;
            self.state = before;
            self.taken.flip(number);
            // In the opposite order: only so do the neighbours still name each other.
            if let Some(at) = self.return_at[number] {
                self.link_again(at);
                self.answers_left += 1;
            }
            self.link_again(self.call_at[number]);
            if self.stage[number] != Stage::Neutral {
                return Some(number);
            }
        }
    }

    fn unlink(&mut self, at: usize) {
        let (before, next) = (self.before[at], self.next[at]);
        self.next[before] = next;
        self.before[next] = before;
    }

    fn link_again(&mut self, at: usize) {
        let (before, next) = (self.before[at], self.next[at]);
        self.next[before] = at;
        self.before[next] = at;
    }
}

/// A set of small numbers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Bits(Box<[u64]>);

impl Bits {
    fn new(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)].into())
    }

    fn has(&self, number: usize) -> bool {
        self.0[number / 64] >> (number % 64) & 1 == 1
    }

    fn flip(&mut self, number: usize) {
        self.0[number / 64] ^= 1 << (number % 64);
    }
}
