//! What is told of a run: a digest always, lines if someone listens. When the run breaks, the last line says
//! in the middle of what.

use std::fmt::Display;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};

use raft_core::{Instant, NodeId};

use crate::digest::Digest;

/// Where the lines of a run go.
pub type Listener = Box<dyn FnMut(String)>;

/// The digest of all that happened, and its lines.
pub(super) struct Trace {
    digest: Digest,
    listener: Option<Listener>,
    /// What happens just now, if someone listens.
    present: Option<(Instant, String)>,
    /// Timers that ran out and have no line yet: since when, whose, how often.
    timers: Option<(Instant, Vec<(NodeId, u64)>)>,
}

impl Trace {
    pub(super) fn new(listener: Option<Listener>) -> Self {
        Self { digest: Digest::default(), listener, present: None, timers: None }
    }

    /// From here on it is this that happens. It has no line of its own unless the run breaks in it.
    pub(super) fn begin(&mut self, now: Instant, what: impl FnOnce() -> String) {
        if self.listener.is_some() {
            self.present = Some((now, what()));
        }
    }

    /// Something rare: its line is part of the digest.
    pub(super) fn note(&mut self, now: Instant, line: impl FnOnce() -> String) {
        let line = line();
        self.digest.write(line.as_bytes());
        self.digest.write_u64(now.as_nanos());
        self.tell(now, &line);
    }

    /// Something common: what it is goes into the digest, and a line is made only if someone listens.
    pub(super) fn note_often<T: Hash, L: Display>(
        &mut self,
        now: Instant,
        what: &T,
        line: impl FnOnce() -> L,
    ) {
        self.take_in(what);
        self.digest.write_u64(now.as_nanos());
        if self.listener.is_some() {
            self.tell(now, &line());
        }
    }

    /// What goes into the digest and has no line.
    pub(super) fn take_in<T: Hash>(&mut self, what: &T) {
        what.hash(&mut self.digest);
    }

    /// A timer runs out. Several of them in a row share a line.
    pub(super) fn note_timer(&mut self, now: Instant, id: NodeId) {
        self.take_in(&id);
        self.digest.write_u64(now.as_nanos());
        if self.listener.is_none() {
            return;
        }
        let (_, timers) = self.timers.get_or_insert((now, Vec::new()));
        match timers.iter_mut().find(|(of, _)| *of == id) {
            Some((_, count)) => *count += 1,
            None => timers.push((id, 1)),
        }
    }

    fn tell_timers(&mut self) {
        let Some((since, timers)) = self.timers.take() else { return };
        let times = |&(id, count): &(NodeId, u64)| match count {
            1 => format!("{id} timer"),
            _ => format!("{id} timer x{count}"),
        };
        let parts: Vec<String> = timers.iter().map(times).collect();
        self.tell(since, &parts.join(", "));
    }

    fn tell(&mut self, now: Instant, line: &dyn Display) {
        self.tell_timers();
        if let Some(listener) = &mut self.listener {
            listener(format!("{:>10.3} ms  {line}", now.as_nanos() as f64 / 1e6));
        }
    }

    pub(super) fn digest(&self) -> u128 {
        self.digest.value()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let last_words = || {
            self.tell_timers();
            if std::thread::panicking()
                && let Some((now, what)) = self.present.take()
            {
                self.tell(now, &format_args!("BROKEN while {what}"));
            }
        };
        // A listener that panics must not make an abort of the panic that is told of.
        let _told = catch_unwind(AssertUnwindSafe(last_words));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;
    use crate::campaign::quietly;
    use crate::cluster::n;

    #[test]
    fn timers_in_a_row_share_a_line_and_the_last_line_says_what_broke() {
        let lines = Rc::new(RefCell::new(Vec::new()));
        let told = Rc::clone(&lines);
        let tell = move |line: String| told.borrow_mut().push(line.trim().to_owned());
        let mut trace = Trace::new(Some(Box::new(tell)));
        let now = Instant::default();
        for id in [1, 2, 1, 1] {
            trace.note_timer(now, n(id));
        }
        trace.note(now, || "n1 crashes".to_owned());
        trace.note_timer(now, n(3));
        trace.begin(now, || "n2 applies up to 7".to_owned());
        let broken = quietly(move || {
            let _dropped = trace;
            panic!("it broke")
        });
        let broken: Result<(), _> = broken;
        assert_eq!(broken.map_err(|it| it.message), Err("it broke".to_owned()));
        let expected = [
            "0.000 ms  n1 timer x3, n2 timer",
            "0.000 ms  n1 crashes",
            "0.000 ms  n3 timer",
            "0.000 ms  BROKEN while n2 applies up to 7",
        ];
        assert_eq!(*lines.borrow(), expected);
    }
}
