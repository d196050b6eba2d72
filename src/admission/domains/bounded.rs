//! A map with a bound: two generations, of which the older is dropped when the younger is full.
//!
//! An entry that is used while it is old becomes young again, so what is dropped was not used for half a map's worth
//! of insertions: an approximation of LRU in constant time, without a list of pointers. A crate for it (quick_cache,
//! moka) would bring sharding and eviction policies for rates that the limit on queries keeps away: insertions are at
//! most a few hundred a second.

use std::collections::HashMap;
use std::hash::Hash;

/// At most `capacity` entries.
#[derive(Debug)]
pub(super) struct Bounded<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    generation: usize,
}

impl<K: Eq + Hash, V> Bounded<K, V> {
    pub(super) fn new(capacity: usize) -> Self {
        Bounded { young: HashMap::new(), old: HashMap::new(), generation: (capacity / 2).max(1) }
    }

    /// The entry of a key; it counts as used.
    pub(super) fn get(&mut self, key: &K) -> Option<&V> {
        if let Some((key, value)) = self.old.remove_entry(key) {
            self.insert(key, value);
        }
        self.young.get(key)
    }

    /// Adds or replaces an entry.
    pub(super) fn insert(&mut self, key: K, value: V) {
        self.old.remove(&key);
        if self.young.len() >= self.generation && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    pub(super) fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }

    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_is_dropped() {
        let mut map = Bounded::new(100);
        map.insert(0, "kept");
        for key in 1..1_000_000 {
            map.insert(key, "");
            assert_eq!(map.get(&0), Some(&"kept"));
        }
        assert!(map.len() <= 100, "{}", map.len());
        assert_eq!(map.get(&1), None);
        assert_eq!(map.get(&999_999), Some(&""));
    }

    proptest! {
        /// Never more than the capacity, never another value than the last one inserted, and the latest half of the
        /// capacity is always there.
        #[test]
        fn bounded_and_never_wrong(steps in prop::collection::vec((0u8..40, 0u8..4), 1..400)) {
            let mut map = Bounded::new(10);
            let mut model: Vec<(u8, usize)> = Vec::new();
            for (number, (key, step)) in steps.into_iter().enumerate() {
                match step {
                    0 => {
                        map.remove(&key);
                        model.retain(|(other, _)| *other != key);
                    }
                    1 => {
                        let expect = model.iter().find(|(other, _)| *other == key).map(|(_, value)| value);
                        if let Some(value) = map.get(&key) {
                            prop_assert_eq!(Some(value), expect);
                        }
                    }
                    _ => {
                        map.insert(key, number);
                        model.retain(|(other, _)| *other != key);
                        model.push((key, number));
                    }
                }
                prop_assert!(map.len() <= 10);
            }
            if let Some((key, value)) = model.last() {
                prop_assert_eq!(map.get(key), Some(value));
            }
        }
    }
}
