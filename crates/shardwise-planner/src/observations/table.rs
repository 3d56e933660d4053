//! Names and what is kept of each, in bounded room: when it is full, whoever was silent for longest makes way.

use rustc_hash::FxHashMap;

/// When a name is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct When {
    pub(super) minute: i64,
    /// Minutes of silence after which a name may be let go.
    pub(super) keep: i64,
    /// Records that there were, this one among them.
    pub(super) serial: u64,
}

#[derive(Debug, Clone)]
struct Row<K, V> {
    key: K,
    value: V,
    /// The minute in which it was last heard of.
    last: i64,
    /// The record that brought it.
    since: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Table<K, V> {
    places: FxHashMap<K, u32>,
    rows: Vec<Row<K, V>>,
    /// The minute in which nobody was found who could make way: it is not looked for again within it.
    crowded: Option<i64>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { places: FxHashMap::default(), rows: Vec::new(), crowded: None }
    }
}

impl<K: Clone + Eq + std::hash::Hash + Ord, V> Table<K, V> {
    /// The place of a name, made when it is new; none when the table is full of names that were heard of of late.
    pub(super) fn place(&mut self, key: &K, most: usize, when: When, new: impl FnOnce() -> V) -> Option<u32> {
        let place = match self.places.get(key) {
            Some(place) => *place,
            None => self.enter(key, most, when, new)?,
        };
        self.rows[place as usize].last = when.minute;
        Some(place)
    }

    fn enter(&mut self, key: &K, most: usize, when: When, new: impl FnOnce() -> V) -> Option<u32> {
        let silent = if self.rows.len() < most { None } else { Some(self.silent(when)?) };
        let place = u32::try_from(silent.unwrap_or(self.rows.len())).ok()?;
        let row = Row { key: key.clone(), value: new(), last: when.minute, since: when.serial };
        match silent {
            Some(at) => drop(self.places.remove(&std::mem::replace(&mut self.rows[at], row).key)),
            None => self.rows.push(row),
        }
        self.places.insert(key.clone(), place);
        Some(place)
    }

    fn silent(&mut self, when: When) -> Option<usize> {
        if self.crowded == Some(when.minute) {
            return None;
        }
        let longest = self.rows.iter().enumerate().min_by_key(|(_, row)| row.last);
        let found = longest.filter(|(_, row)| row.last < when.minute.saturating_sub(when.keep)).map(|(at, _)| at);
        self.crowded = found.is_none().then_some(when.minute);
        found
    }

    /// Whether the name at a place is the one that was there when a record came.
    pub(super) fn is_since(&self, place: u32, serial: u64) -> bool {
        self.rows[place as usize].since <= serial
    }

    pub(super) fn get(&self, place: u32) -> (&K, &V) {
        let row = &self.rows[place as usize];
        (&row.key, &row.value)
    }

    /// What is kept of a name that is heard of.
    pub(super) fn heard(&mut self, place: u32, minute: i64) -> &mut V {
        let row = &mut self.rows[place as usize];
        row.last = minute;
        &mut row.value
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.rows.iter().map(|row| (&row.key, &row.value))
    }

    pub(super) fn sorted(&self) -> Vec<(&K, &V)> {
        let mut rows: Vec<_> = self.iter().collect();
        rows.sort_by(|a, b| a.0.cmp(b.0));
        rows
    }
}
