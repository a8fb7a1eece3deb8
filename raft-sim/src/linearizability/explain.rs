//! Why a history is not linearizable, in as few operations as can be found.

use std::fmt;

use super::{Model, OperationOf, Search};

/// Why there is no order: a few operations whose answers no order explains, whatever the others did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The operations whose answers contradict each other, as places in the history, by call. With any
    /// one of these answers unknown there would be an order, or the search gave up.
    pub contradiction: Vec<usize>,
    /// The longest order that explains what is in it.
    pub longest_order: Vec<usize>,
    text: String,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Explains a history that `steps` steps of a search have shown to be illegal.
pub(super) fn explain<M: Model>(model: &M, history: &[OperationOf<M>], steps: u64) -> Explanation {
    // Each attempt to get on with less may take a few times as long as the proof itself, because more
    // answers are open then.
    let shrinking = Shrinking { model, budget: steps.saturating_mul(4).saturating_add(10_000) };
    let prefix = shrinking.shortest_prefix(history);
    let core = shrinking.forget_answers(prefix);
    let mut search = Search::new(model, &core);
    // Known to be illegal; what is wanted is how far an order goes.
    let _illegal = search.run(shrinking.budget);
    let longest_order = search.longest;
    let mut contradiction: Vec<usize> =
        (0..core.len()).filter(|&number| core[number].returned.is_some()).collect();
    contradiction.sort_by_key(|&number| core[number].call);
    let text = render(model, history, &core, &contradiction, &longest_order);
    Explanation { contradiction, longest_order, text }
}

struct Shrinking<'a, M> {
    model: &'a M,
    budget: u64,
}

impl<M: Model> Shrinking<'_, M> {
    fn is_illegal(&self, history: &[OperationOf<M>]) -> bool {
        Search::new(self.model, history).run(self.budget) == Some(false)
    }

    /// The history as it was known right after the return that made it illegal: what came before a
    /// moment of a linearizable history is linearizable too, so there is one such return.
    fn shortest_prefix(&self, history: &[OperationOf<M>]) -> Vec<OperationOf<M>> {
        let mut times: Vec<u64> =
            history.iter().filter_map(|one| one.returned.as_ref().map(|(time, _)| *time)).collect();
        times.sort_unstable();
        let legal = times.partition_point(|&time| !self.is_illegal(&known_at::<M>(history, time)));
        // Only a search that gave up can make every prefix look legal.
        times.get(legal).map_or_else(|| history.to_vec(), |&time| known_at::<M>(history, time))
    }

    /// Forgets answers, the oldest first, as long as what is left is still illegal. To know less never
    /// makes a linearizable history illegal, so what is left is a reason; to leave out whole operations
    /// would not be sound.
    fn forget_answers(&self, mut history: Vec<OperationOf<M>>) -> Vec<OperationOf<M>> {
        let mut by_return: Vec<(u64, usize)> = history
            .iter()
            .enumerate()
            .filter_map(|(number, one)| one.returned.as_ref().map(|(time, _)| (*time, number)))
            .collect();
        by_return.sort_unstable();
        for (_, number) in by_return {
            let answer = history[number].returned.take();
            if !self.is_illegal(&history) {
                history[number].returned = answer;
            }
        }
        history
    }
}

/// What was known of the history at `time`. Operations that had not begun stay in their places, for the
/// sake of the numbers, as pending ones that begin after everything, and so explain nothing.
fn known_at<M: Model>(history: &[OperationOf<M>], time: u64) -> Vec<OperationOf<M>> {
    let mut known = history.to_vec();
    for operation in &mut known {
        if operation.call > time {
            operation.call = u64::MAX;
        }
        operation.returned.take_if(|(returned, _)| *returned > time);
    }
    known
}

fn render<M: Model>(
    model: &M,
    history: &[OperationOf<M>],
    core: &[OperationOf<M>],
    contradiction: &[usize],
    longest_order: &[usize],
) -> String {
    let mut lines = vec![format!(
        "not linearizable: no order explains these {} of {} answers, whatever else happened:",
        contradiction.len(),
        history.iter().filter(|one| one.returned.is_some()).count(),
    )];
    lines.extend(contradiction.iter().map(|&number| line::<M>(&core[number])));
    let mut others: Vec<_> = core
        .iter()
        .filter(|one| {
            one.returned.is_none()
                && one.call < u64::MAX
                && !model.changes_nothing(&one.input, None)
        })
        .collect();
    others.sort_by_key(|one| one.call);
    if !others.is_empty() {
        lines.push("these may have happened, and do not explain it:".to_owned());
        lines.extend(others.iter().take(OTHERS_MAX).map(|one| line::<M>(one)));
        if others.len() > OTHERS_MAX {
            lines.push(format!("  and {} more", others.len() - OTHERS_MAX));
        }
    }
    let mut state = model.initial();
    for &number in longest_order {
        let output = core[number].returned.as_ref().map(|(_, output)| output);
        state = model
            .step(&state, &core[number].input, output)
            .expect("the search has taken these steps in this order");
    }
    let order: Vec<String> =
        longest_order.iter().map(|&number| format!("{:?}", core[number].input)).collect();
    lines.push(format!("the longest order that fits: {}; then {state:?}", order.join(", ")));
    lines.join("\n")
}

/// How many of the operations that explain nothing are shown.
const OTHERS_MAX: usize = 12;

fn line<M: Model>(operation: &OperationOf<M>) -> String {
    let super::Operation { client, call, input, returned } = operation;
    match returned {
        Some((time, output)) => {
            format!("  client {client} [{call}, {time}] {input:?} -> {output:?}")
        }
        None => format!("  client {client} [{call}, …] {input:?}"),
    }
}
