//! What is told of a run: a digest always, lines if someone listens.

use std::fmt::Display;
use std::hash::{Hash, Hasher};

use raft_core::Instant;

use crate::digest::Digest;

/// Where the lines of a run go.
pub type Listener = Box<dyn FnMut(String)>;

/// The digest of all that happened, and its lines.
pub(super) struct Trace {
    digest: Digest,
    listener: Option<Listener>,
}

impl Trace {
    pub(super) fn new(listener: Option<Listener>) -> Self {
        Self { digest: Digest::default(), listener }
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
        what.hash(&mut self.digest);
        self.digest.write_u64(now.as_nanos());
        if self.listener.is_some() {
            self.tell(now, &line());
        }
    }

    fn tell(&mut self, now: Instant, line: &dyn Display) {
        if let Some(listener) = &mut self.listener {
            listener(format!("{:>10.3} ms  {line}", now.as_nanos() as f64 / 1e6));
        }
    }

    pub(super) fn digest(&self) -> u128 {
        self.digest.value()
    }
}
