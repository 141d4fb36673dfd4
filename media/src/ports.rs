//! The stock of bound socket pairs (D-18): which are free, and how long a released one rests.
//!
//! Owned by signalling, so an SDP is written without waiting for a media thread. A released pair goes to the end of its
//! worker's line and rests [`REST`] after its last packet: a phone that has not understood yet still sends to it, and old
//! traffic must not enter the next call.

use crate::command::{PairId, WorkerId};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long a pair rests after its last packet.
pub const REST: Duration = Duration::from_secs(30);
/// The shortest rest, when no pair has rested long enough.
pub const SHORT_REST: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Pair {
    worker: WorkerId,
    port: u16,
    /// Released, or heard, last; `None`: never used.
    touched: Option<Instant>,
    taken: bool,
}

/// All pairs of all workers.
#[derive(Debug, Default)]
pub struct PortStock {
    pairs: Vec<Pair>,
    /// Per worker, longest free first.
    free: Vec<VecDeque<PairId>>,
    reused_early: u64,
    exhausted: u64,
}

impl PortStock {
    /// The pairs as bound; their ids count from 0.
    pub fn new(bound: impl IntoIterator<Item = (PairId, u16, WorkerId)>) -> PortStock {
        let mut stock = PortStock::default();
        for (id, port, worker) in bound {
            debug_assert_eq!(id.0 as usize, stock.pairs.len());
            stock.pairs.push(Pair { worker, port, touched: None, taken: false });
            let line = usize::from(worker.0);
            if stock.free.len() <= line {
                stock.free.resize_with(line + 1, VecDeque::new);
            }
            stock.free[line].push_back(id);
        }
        stock
    }

    /// The worker with most free pairs, so that sessions spread.
    pub fn choose_worker(&self) -> Option<WorkerId> {
        let (line, free) = self.free.iter().enumerate().max_by_key(|(line, free)| (free.len(), usize::MAX - line))?;
        (!free.is_empty()).then_some(WorkerId(line as u16))
    }

    /// A pair of a worker and its RTP port. `None`: none is free, or none has been silent for a second.
    pub fn take(&mut self, now: Instant, worker: WorkerId) -> Option<(PairId, u16)> {
        let line = self.free.get_mut(usize::from(worker.0))?;
        let rested = |pairs: &[Pair], id: &PairId, rest| pairs[id.0 as usize].touched.is_none_or(|at| at + rest <= now);
        let index = match line.front() {
            Some(id) if rested(&self.pairs, id, REST) => Some(0),
            _ => {
                // The line is ordered by release; noise may have kept its head busy, so the longest silent one is looked for.
                let silent = |index: &usize| self.pairs[line[*index].0 as usize].touched;
                let longest = (0..line.len()).min_by_key(silent);
                longest.filter(|index| rested(&self.pairs, &line[*index], SHORT_REST))
            }
        };
        let Some(id) = index.and_then(|index| line.remove(index)) else {
            self.exhausted += 1;
            return None;
        };
        self.reused_early += u64::from(!rested(&self.pairs, &id, REST));
        let pair = &mut self.pairs[id.0 as usize];
        pair.taken = true;
        Some((id, pair.port))
    }

    /// Back to the end of its line. A pair that is not taken is left alone.
    pub fn release(&mut self, now: Instant, id: PairId) {
        let Some(pair) = self.pairs.get_mut(id.0 as usize).filter(|pair| pair.taken) else { return };
        pair.taken = false;
        pair.touched = Some(now);
        self.free[usize::from(pair.worker.0)].push_back(id);
    }

    /// An idle pair still receives something: its rest begins again.
    pub fn noise(&mut self, now: Instant, id: PairId) {
        if let Some(pair) = self.pairs.get_mut(id.0 as usize).filter(|pair| !pair.taken) {
            pair.touched = Some(now);
        }
    }

    /// Is it the RTP or RTCP port of a pair, free or not?
    pub fn has(&self, port: u16) -> bool {
        self.pairs.iter().any(|pair| pair.port == port || pair.port + 1 == port)
    }

    pub fn free(&self) -> usize {
        self.free.iter().map(VecDeque::len).sum()
    }

    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Pairs taken before their rest was over.
    pub fn reused_early(&self) -> u64 {
        self.reused_early
    }

    /// Times none was to be had.
    pub fn exhausted(&self) -> u64 {
        self.exhausted
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // a test needs some instant to begin at
mod tests {
    use super::*;

    fn stock(pairs: u32, workers: u32) -> PortStock {
        PortStock::new((0..pairs).map(|n| (PairId(n), 10_000 + 2 * n as u16, WorkerId((n % workers) as u16))))
    }

    #[test]
    fn a_pair_rests_and_noise_keeps_it_resting() {
        let now = Instant::now();
        let after = |s| now + Duration::from_secs(s);
        let mut stock = stock(2, 1);
        let (a, port) = stock.take(now, WorkerId(0)).unwrap();
        assert_eq!(port, 10_000);
        stock.release(after(1), a);
        assert_eq!(stock.take(after(2), WorkerId(0)).unwrap().0, PairId(1), "the one that was never used comes first");
        assert!(stock.take(after(1), WorkerId(0)).is_none(), "not even a second silent");
        stock.noise(after(10), a);
        assert!(stock.take(after(10), WorkerId(0)).is_none());
        assert_eq!(stock.take(after(12), WorkerId(0)).unwrap().0, a);
        assert_eq!((stock.reused_early(), stock.exhausted()), (1, 2));
        stock.release(after(20), a);
        stock.release(after(20), a);
        assert_eq!(stock.free(), 1, "released once");
        assert_eq!(stock.take(after(50), WorkerId(0)).unwrap().0, a);
        assert_eq!(stock.reused_early(), 1);
    }

    #[test]
    fn sessions_spread_over_workers() {
        let now = Instant::now();
        let mut stock = stock(4, 2);
        let first = stock.choose_worker().unwrap();
        stock.take(now, first).unwrap();
        assert_ne!(stock.choose_worker().unwrap(), first);
    }

    #[test]
    fn no_pair_is_ever_taken_twice() {
        use proptest::prelude::*;
        proptest!(|(steps in proptest::collection::vec((0u8..3, 0u32..6, 0u64..40), 0..200))| {
            let mut now = Instant::now();
            let mut stock = stock(6, 2);
            let mut taken = std::collections::BTreeSet::new();
            for (what, n, wait) in steps {
                now += Duration::from_secs(wait);
                match what {
                    0 => if let Some((id, _)) = stock.take(now, WorkerId((n % 2) as u16)) {
                        prop_assert!(taken.insert(id));
                    },
                    1 => {
                        stock.release(now, PairId(n));
                        taken.remove(&PairId(n));
                    }
                    _ => stock.noise(now, PairId(n)),
                }
                prop_assert_eq!(stock.free() + taken.len(), 6);
            }
        });
    }
}
