//! A fixed-size table of atomic numbers by 64-bit key: bounded memory, no lock, no allocation after it is made.
//!
//! When a probe window is full the home slot is taken over: what is remembered is forgotten rather than the memory
//! grown. Counters of this kind may be approximate after such a loss, and everything that reads them expects that.

use std::sync::atomic::Ordering::Relaxed;

use crate::atomic::AtomicU64;

const PROBES: usize = 16;

/// `FIELDS` atomic 64-bit fields by key; the fields start as zero bits, which is 0.0 and 0.
pub(crate) struct SlotTable<const FIELDS: usize> {
    keys: Box<[AtomicU64]>,
    fields: Box<[[AtomicU64; FIELDS]]>,
}

/// A slot's position, key and fields, for saving.
pub(crate) type SlotImage = (u32, u64, Vec<u64>);

impl<const FIELDS: usize> SlotTable<FIELDS> {
    /// Makes a table of `2^bits` slots.
    pub(crate) fn new(bits: u32) -> Self {
        let slots = 1_usize << bits;
        Self {
            keys: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            fields: (0..slots).map(|_| std::array::from_fn(|_| AtomicU64::new(0))).collect(),
        }
    }

    fn window(&self, key: u64) -> impl Iterator<Item = usize> + use<FIELDS> {
        let mask = self.keys.len() - 1;
        let home = key as usize;
        (0..PROBES).map(move |probe| home.wrapping_add(probe) & mask)
    }

    /// The fields of a key, if it is there. Nearly always it is at home.
    #[inline]
    pub(crate) fn find(&self, key: u64) -> Option<&[AtomicU64; FIELDS]> {
        let key = key.max(1);
        let home = key as usize & (self.keys.len() - 1);
        if self.keys[home].load(Relaxed) == key { Some(&self.fields[home]) } else { self.find_displaced(key) }
    }

    fn find_displaced(&self, key: u64) -> Option<&[AtomicU64; FIELDS]> {
        for slot in self.window(key) {
            match self.keys[slot].load(Relaxed) {
                found if found == key => return Some(&self.fields[slot]),
                0 => return None,
                _ => {}
            }
        }
        None
    }

    /// The fields of a key; a new key gets zeros.
    pub(crate) fn claim(&self, key: u64) -> &[AtomicU64; FIELDS] {
        if let Some(fields) = self.find(key) {
            return fields;
        }
        let key = key.max(1);
        for slot in self.window(key) {
            match self.keys[slot].compare_exchange(0, key, Relaxed, Relaxed) {
                Ok(_) => return &self.fields[slot],
                Err(found) if found == key => return &self.fields[slot],
                Err(_) => {}
            }
        }
        let home = key as usize & (self.keys.len() - 1);
        self.keys[home].store(key, Relaxed);
        self.fields[home].iter().for_each(|field| field.store(0, Relaxed));
        &self.fields[home]
    }

    /// The fields of all taken slots.
    pub(crate) fn values(&self) -> impl Iterator<Item = &[AtomicU64; FIELDS]> {
        let slots = self.keys.iter().zip(&self.fields);
        slots.filter(|(key, _)| key.load(Relaxed) != 0).map(|(_, fields)| fields)
    }

    /// All taken slots, in the order of their positions.
    pub(crate) fn save(&self) -> Vec<SlotImage> {
        let taken = self.keys.iter().enumerate().filter(|(_, key)| key.load(Relaxed) != 0);
        taken
            .map(|(slot, key)| {
                let fields = self.fields[slot].iter().map(|field| field.load(Relaxed)).collect();
                (u32::try_from(slot).expect("a table has fewer than 2^32 slots"), key.load(Relaxed), fields)
            })
            .collect()
    }

    /// Puts saved slots back where they were; what does not fit is left out.
    pub(crate) fn restore(&self, image: &[SlotImage]) {
        for (slot, key, fields) in image {
            let slot = *slot as usize;
            if slot < self.keys.len() && fields.len() == FIELDS {
                self.keys[slot].store(*key, Relaxed);
                self.fields[slot].iter().zip(fields).for_each(|(field, value)| field.store(*value, Relaxed));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::atomic::{get, set};

    #[test]
    fn a_full_table_forgets_instead_of_growing() {
        let table = SlotTable::<1>::new(5);
        for key in 1..=1000_u64 {
            set(&table.claim(key)[0], key as f64);
        }
        assert_eq!(get(&table.find(1000).unwrap()[0]), 1000.0);
        assert!(table.find(1).is_none(), "taken over by later keys");
    }

    #[test]
    fn what_is_saved_comes_back() {
        let (table, copy) = (SlotTable::<2>::new(6), SlotTable::<2>::new(6));
        for key in [0, 3, 64 + 3, u64::MAX] {
            set(&table.claim(key)[1], key as f64);
        }
        copy.restore(&table.save());
        assert_eq!(copy.save(), table.save());
        assert_eq!(get(&copy.find(64 + 3).unwrap()[1]), 67.0);
    }
}
