//! What keeps a configuration finite.

/// What may happen only so often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    Election,
    Heartbeat,
    Proposal,
    Crash,
    Duplicate,
    Read,
    Change,
    Transfer,
    Cut,
    QuorumLoss,
    DiskHang,
}

impl Cost {
    pub const ALL: [Self; Self::COUNT] = [
        Self::Election,
        Self::Heartbeat,
        Self::Proposal,
        Self::Crash,
        Self::Duplicate,
        Self::Read,
        Self::Change,
        Self::Transfer,
        Self::Cut,
        Self::QuorumLoss,
        Self::DiskHang,
    ];
    pub const COUNT: usize = 11;
}

/// The bounds of one configuration. Every order of events within them is tried.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// No node goes beyond this term.
    pub term: u64,
    /// So many messages are on their way at once. Any may be dropped at any time.
    pub messages: usize,
    counts: [u8; Cost::COUNT],
}

impl Bounds {
    pub const fn new(term: u64, messages: usize) -> Self {
        Self { term, messages, counts: [0; Cost::COUNT] }
    }

    /// `cost` may happen `count` times, at most 15, on all nodes together.
    pub const fn with(mut self, cost: Cost, count: u8) -> Self {
        assert!(count < 16, "four bits for each");
        self.counts[cost as usize] = count;
        self
    }

    pub const fn of(&self, cost: Cost) -> u8 {
        self.counts[cost as usize]
    }

    /// Other bounds, as in `messages=4 proposal=2`.
    pub fn set(&mut self, others: &str) -> Result<(), String> {
        for other in others.split_whitespace() {
            let (name, value) = other.split_once('=').ok_or("a bound is name=number")?;
            let value: u8 = value.parse().map_err(|_| format!("{value} is no number"))?;
            let cost = Cost::ALL.iter().find(|cost| format!("{cost:?}").to_lowercase() == name);
            match (name, cost) {
                ("term", _) => self.term = value.into(),
                ("messages", _) => self.messages = value.into(),
                (_, Some(&cost)) if value < 16 => self.counts[cost as usize] = value,
                _ => return Err(format!("{other}: term, messages, or one of {:?}", Cost::ALL)),
            }
        }
        Ok(())
    }
}

/// How often each has happened, four bits for each: a part of every state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent(pub u64);

impl Spent {
    pub const fn of(self, cost: Cost) -> u8 {
        (self.0 >> (4 * cost as u32)) as u8 & 15
    }

    /// Once more, if that is within bounds.
    pub fn spend(self, cost: Cost, bounds: &Bounds) -> Option<Self> {
        (self.of(cost) < bounds.of(cost)).then(|| Self(self.0 + (1 << (4 * cost as u32))))
    }
}
