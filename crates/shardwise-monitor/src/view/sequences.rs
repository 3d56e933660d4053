//! Which numbers of a boot arrived: ranges, so that memory grows with the gaps and not with the numbers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Gaps that are remembered; beyond, the oldest one is given up, and what arrives in it later passes for a duplicate.
const MOST_GAPS: usize = 1024;

/// A set of numbers, as first and last of each range without a gap.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Sequences {
    ranges: BTreeMap<u64, u64>,
}

impl Sequences {
    /// Adds a number; false when it was there.
    pub(super) fn insert(&mut self, number: u64) -> bool {
        let before = self.ranges.range(..=number).next_back().map(|(first, last)| (*first, *last));
        if before.is_some_and(|(_, last)| number <= last) {
            return false;
        }
        let first = match before {
            Some((first, last)) if last + 1 == number => first,
            _ => number,
        };
        let joined = number.checked_add(1).and_then(|next| self.ranges.remove(&next));
        self.ranges.insert(first, joined.unwrap_or(number));
        if self.ranges.len() > MOST_GAPS {
            self.give_up_oldest_gap();
        }
        true
    }

    /// Takes a number out again, if it is there.
    pub(super) fn remove(&mut self, number: u64) {
        let Some((first, last)) = self.ranges.range(..=number).next_back().map(|(first, last)| (*first, *last)) else {
            return;
        };
        if number > last {
            return;
        }
        self.ranges.remove(&first);
        if first < number {
            self.ranges.insert(first, number - 1);
        }
        if number < last {
            self.ranges.insert(number + 1, last);
        }
    }

    /// The highest number; none when it is empty.
    pub(super) fn highest(&self) -> Option<u64> {
        self.ranges.last_key_value().map(|(_, last)| *last)
    }

    /// Numbers between the lowest and the highest that are not there.
    pub(super) fn missing(&self) -> u64 {
        let firsts = self.ranges.keys().skip(1);
        self.ranges.values().zip(firsts).map(|(last, next)| next - last - 1).sum()
    }

    fn give_up_oldest_gap(&mut self) {
        if let (Some((first, _)), Some((_, last))) = (self.ranges.pop_first(), self.ranges.pop_first()) {
            self.ranges.insert(first, last);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_number_of_all_is_a_number() {
        let mut numbers = Sequences::default();
        assert!(numbers.insert(u64::MAX));
        assert!(numbers.insert(u64::MAX - 1));
        assert!(!numbers.insert(u64::MAX));
        assert_eq!((numbers.highest(), numbers.missing()), (Some(u64::MAX), 0));
    }

    #[test]
    fn memory_has_a_bound() {
        let mut numbers = Sequences::default();
        (0..5000).for_each(|number| assert!(numbers.insert(number * 2)));
        assert_eq!(numbers.ranges.len(), MOST_GAPS);
        assert!(!numbers.insert(1), "its gap was given up");
        assert!(numbers.insert(9_997), "a gap among the latest");
    }

    proptest! {
        #[test]
        fn it_is_a_set(changes in proptest::collection::vec((0u64..60, any::<bool>()), 0..200)) {
            let (mut numbers, mut plain) = (Sequences::default(), BTreeSet::new());
            for (number, add) in changes {
                if add {
                    prop_assert_eq!(numbers.insert(number), plain.insert(number));
                } else {
                    numbers.remove(number);
                    plain.remove(&number);
                }
                prop_assert_eq!(numbers.highest(), plain.last().copied());
                let span = plain.last().zip(plain.first()).map_or(0, |(last, first)| last - first + 1);
                prop_assert_eq!(numbers.missing(), span - plain.len() as u64);
            }
        }
    }
}
