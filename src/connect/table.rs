//! Things by their numbers, sorted, so that a search finds one.

/// Things by their numbers.
pub struct Table<T>(pub Vec<(u64, T)>);

impl<T> Table<T> {
    /// Adds one, unless its number is taken.
    pub fn insert(&mut self, id: u64, thing: T) {
        if let Err(at) = self.find(id) {
            self.0.insert(at, (id, thing));
        }
    }

    /// The thing of this number.
    pub fn get(&mut self, id: u64) -> Option<&mut T> {
        let at = self.find(id).ok()?;
        Some(&mut self.0[at].1)
    }

    /// Takes the thing of this number out.
    pub fn remove(&mut self, id: u64) -> Option<T> {
        let at = self.find(id).ok()?;
        Some(self.0.remove(at).1)
    }

    fn find(&self, id: u64) -> Result<usize, usize> {
        self.0.binary_search_by_key(&id, |(id, _)| *id)
    }
}

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table(Vec::new())
    }
}
