//! [`Held`]: "it is open" waits until that is on the disk, but never longer than [`PATIENCE`] (D-29): a person before a door does
//! not wait for a sick disk, and what was told is on record unless the disk is sick.

use crate::model::Number;
use crate::unlock::{Asker, Outcome};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Longest wait for the disk.
pub const PATIENCE: Duration = Duration::from_millis(50);

/// A result on its way to one who asked.
#[derive(Clone, Debug)]
pub struct Told {
    pub door: Number,
    pub asker: Asker,
    pub outcome: Outcome,
}

/// Results by the number under which their entry is announced. All wait equally long, so the first is due first.
#[derive(Debug, Default)]
pub struct Held {
    next: u64,
    waiting: BTreeMap<u64, (Instant, Told)>,
}

impl Held {
    /// The number for [`Record::awaited`](crate::record::Record::awaited).
    pub fn hold(&mut self, now: Instant, told: Told) -> u64 {
        self.next += 1;
        self.waiting.insert(self.next, (now + PATIENCE, told));
        self.next
    }

    /// Its entry is on the disk. `None`: it did not wait so long.
    pub fn committed(&mut self, number: u64) -> Option<Told> {
        self.waiting.remove(&number).map(|(_, told)| told)
    }

    /// The next one that has waited long enough.
    pub fn due(&mut self, now: Instant) -> Option<Told> {
        let first = self.waiting.first_entry().filter(|first| first.get().0 <= now)?;
        Some(first.remove().1)
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|(_, (at, _))| *at)
    }

    /// Those for whom this holds: their way is about to go.
    pub fn take(&mut self, goes: impl Fn(&Told) -> bool) -> Vec<Told> {
        self.waiting.extract_if(.., |_, (_, told)| goes(told)).map(|(_, (_, told))| told).collect()
    }
}
