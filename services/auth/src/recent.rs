//! A map that keeps what was used recently and never more than its capacity.
//!
//! Two generations: what is used moves to the young one; when that is full, the old one is dropped as a
//! whole. So every call is constant work, and what was used within the last half capacity of insertions is
//! still there.

use std::collections::HashMap;
use std::hash::Hash;

/// A bounded map.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    half: usize,
}

impl<K: Eq + Hash + Clone, V: Clone> Recent<K, V> {
    /// Keeps at most `capacity` entries, at least two.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            half: (capacity / 2).max(1),
        }
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let value = self.old.remove(key)?;
        self.insert(key.clone(), value.clone());
        Some(value)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.old.remove(&key);
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    pub(crate) fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }

    /// Visits every entry.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&K, &V)) {
        self.young
            .iter()
            .chain(&self.old)
            .for_each(|(key, value)| visit(key, value));
    }

    /// Removes every entry whose value is not kept.
    pub(crate) fn retain(&mut self, keep: impl Fn(&K, &V) -> bool) {
        self.young.retain(|key, value| keep(key, value));
        self.old.retain(|key, value| keep(key, value));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn entry_in_use_outlives_a_flood() {
        let mut recent = Recent::new(10);
        recent.insert(0, "kept");
        for key in 1..1000 {
            recent.insert(key, "flood");
            assert_eq!(recent.get(&0), Some("kept"));
        }
        assert_eq!(recent.get(&1), None);
    }

    proptest! {
        #[test]
        fn never_holds_more_than_its_capacity_and_never_lies(
            capacity in 2_usize..20,
            steps in prop::collection::vec((0_u8..3, 0_u8..30), 0..300),
        ) {
            let mut recent = Recent::new(capacity);
            let mut truth = HashMap::new();
            for (number, (step, key)) in steps.into_iter().enumerate() {
                match step {
                    0 => {
                        recent.insert(key, number);
                        truth.insert(key, number);
                        prop_assert_eq!(recent.get(&key), Some(number));
                    }
                    1 => {
                        recent.remove(&key);
                        truth.remove(&key);
                        prop_assert_eq!(recent.get(&key), None);
                    }
                    _ => {
                        let got = recent.get(&key);
                        prop_assert!(got.is_none() || got == truth.get(&key).copied());
                    }
                }
                prop_assert!(recent.young.len() + recent.old.len() <= capacity);
            }
        }
    }
}
