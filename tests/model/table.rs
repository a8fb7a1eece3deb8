//! A set of 64-bit fingerprints: open addressing, eight bytes for each and a little air.

/// Fingerprints, and if wanted for each that of the state it was first reached from.
pub struct Table {
    keys: Vec<u64>,
    parents: Option<Vec<u64>>,
    count: usize,
}

impl Table {
    pub fn new(with_parents: bool) -> Self {
        let slots = 1 << 16;
        let parents = with_parents.then(|| vec![0; slots]);
        Self { keys: vec![0; slots], parents, count: 0 }
    }

    pub fn len(&self) -> usize {
        self.count
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        (self.keys.len() + self.parents.as_ref().map_or(0, Vec::len)) * size_of::<u64>()
    }

    /// True if it is new.
    pub fn insert(&mut self, key: u64, parent: u64) -> bool {
        if self.count * 4 >= self.keys.len() * 3 {
            self.grow();
        }
        let key = key.max(1); // Zero is an empty slot.
        let slot = self.slot(key);
        if self.keys[slot] == key {
            return false;
        }
        self.keys[slot] = key;
        if let Some(parents) = &mut self.parents {
            parents[slot] = parent;
        }
        self.count += 1;
        true
    }

    /// Where this one was first reached from, if that was noted.
    pub fn parent(&self, key: u64) -> Option<u64> {
        let slot = self.slot(key.max(1));
        let known = self.keys[slot] == key.max(1);
        self.parents.as_ref().filter(|_| known).map(|parents| parents[slot])
    }

    /// Where it is, or is to go.
    fn slot(&self, key: u64) -> usize {
        let mask = self.keys.len() - 1;
        // The low bits of a good hash are as good as any.
        let mut slot = (key as usize) & mask;
        while self.keys[slot] != 0 && self.keys[slot] != key {
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn grow(&mut self) {
        let slots = self.keys.len() * 2;
        let keys = std::mem::replace(&mut self.keys, vec![0; slots]);
        let new_parents = self.parents.as_ref().map(|_| vec![0; slots]);
        let parents = std::mem::replace(&mut self.parents, new_parents);
        for (place, key) in keys.into_iter().enumerate().filter(|(_, key)| *key != 0) {
            let slot = self.slot(key);
            self.keys[slot] = key;
            if let (Some(new), Some(old)) = (&mut self.parents, &parents) {
                new[slot] = old[place];
            }
        }
    }
}
