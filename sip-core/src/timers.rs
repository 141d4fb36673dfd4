//! One ordered set of deadlines. Setting a key again moves it; nothing is ever scanned.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Instant;

/// At most one deadline per key.
#[derive(Debug)]
pub struct Timers<K> {
    order: BTreeSet<(Instant, K)>,
    at: HashMap<K, Instant>,
}

impl<K: Clone + Ord + Hash> Default for Timers<K> {
    fn default() -> Timers<K> {
        Timers { order: BTreeSet::new(), at: HashMap::new() }
    }
}

impl<K: Clone + Ord + Hash> Timers<K> {
    /// Sets, moves or (`None`) clears the deadline of a key.
    pub fn set(&mut self, key: K, deadline: Option<Instant>) {
        match deadline {
            Some(at) => {
                if let Some(old) = self.at.insert(key.clone(), at) {
                    if old == at {
                        return;
                    }
                    self.order.remove(&(old, key.clone()));
                }
                self.order.insert((at, key));
            }
            None => {
                if let Some(old) = self.at.remove(&key) {
                    self.order.remove(&(old, key));
                }
            }
        }
    }

    /// The deadline of a key.
    pub fn get(&self, key: &K) -> Option<Instant> {
        self.at.get(key).copied()
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes the earliest key that is due at `now`.
    pub fn pop(&mut self, now: Instant) -> Option<K> {
        if self.order.first()?.0 > now {
            return None;
        }
        self.pop_first()
    }

    /// Takes the earliest key, due or not: what a full table gives up first.
    pub fn pop_first(&mut self) -> Option<K> {
        let (_, key) = self.order.pop_first()?;
        self.at.remove(&key);
        Some(key)
    }

    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    pub fn len(&self) -> usize {
        self.order.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    #[allow(clippy::disallowed_methods)] // a test needs some instant to begin at
    fn moves_clears_and_pops_in_order() {
        let t0 = Instant::now();
        let ms = |n| t0 + Duration::from_millis(n);
        let mut timers = Timers::default();
        timers.set(1, Some(ms(30)));
        timers.set(2, Some(ms(10)));
        timers.set(3, Some(ms(20)));
        timers.set(2, Some(ms(40)));
        timers.set(3, None);
        assert_eq!(timers.next(), Some(ms(30)));
        assert_eq!(timers.pop(ms(29)), None);
        assert_eq!(timers.pop(ms(50)), Some(1));
        assert_eq!(timers.pop(ms(50)), Some(2));
        assert_eq!(timers.pop(ms(50)), None);
        assert!(timers.is_empty());
    }
}
