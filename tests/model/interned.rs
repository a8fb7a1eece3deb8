//! Values by small numbers, so that a state of the whole is a few numbers; and a quick hash for tables
//! of such numbers.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// For keys that are numbers already.
#[derive(Clone, Copy, Default)]
pub struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(byte.into()));
    }

    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.0 ^ number ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

pub type Quick = BuildHasherDefault<Mix>;

/// Each different value once.
pub struct Interned<K, V> {
    numbers: HashMap<K, u32>,
    pub values: Vec<V>,
}

impl<K: Eq + Hash, V> Interned<K, V> {
    pub fn new() -> Self {
        Self { numbers: HashMap::new(), values: Vec::new() }
    }

    /// The number of the value with this key, and whether it is new.
    pub fn number(&mut self, key: K, value: impl FnOnce() -> V) -> (u32, bool) {
        let next = u32::try_from(self.values.len()).expect("fewer than four billion parts");
        let number = *self.numbers.entry(key).or_insert(next);
        if number == next {
            self.values.push(value());
        }
        (number, number == next)
    }
}
