//! What every side of a comparison does with a committed command: the least that still depends on each
//! command and on their order.

/// A state machine of two words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// So many commands were applied.
    pub(crate) count: u64,
    digest: u64,
}

impl Applied {
    /// Applies one command.
    pub(crate) fn apply(&mut self, command: &[u8]) {
        let first = command.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
        self.count += 1;
        self.digest = self.digest.rotate_left(5) ^ first ^ command.len() as u64;
    }
}
