//! Many states, one after the other.

/// A state as a row of numbers.
pub type Row = [u32];

/// Rows, one after the other, each behind its length.
#[derive(Default)]
pub struct Rows {
    words: Vec<u32>,
    pub count: usize,
}

impl Rows {
    pub fn push(&mut self, row: &Row) {
        self.words.push(u32::try_from(row.len()).expect("a short row"));
        self.words.extend_from_slice(row);
        self.count += 1;
    }

    pub fn iter(&self) -> impl Iterator<Item = &Row> {
        let mut rest = &self.words[..];
        std::iter::from_fn(move || {
            let (&len, behind) = rest.split_first()?;
            let (row, behind) = behind.split_at(len as usize);
            rest = behind;
            Some(row)
        })
    }

    pub fn clear(&mut self) {
        self.words.clear();
        self.count = 0;
    }

    pub fn bytes(&self) -> usize {
        self.words.capacity() * size_of::<u32>()
    }
}
