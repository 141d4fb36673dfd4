//! Twins: every order is sent twice (spec sip.md §8.4). [`Twins`] tells the second packet of a pair, a repeat and a replay from a
//! new wish (D-24), in the dialogs of one leg or outside of any.

use std::time::{Duration, Instant};

/// Numbers remembered: more than anybody can press in three seconds.
const MAX: usize = 64;
/// The spec's duplicate window.
const WINDOW: Duration = Duration::from_secs(3);

/// `Who`: what a number belongs to beside the dialog; nothing inside one, the account outside.
#[derive(Debug)]
pub struct Twins<Who = ()> {
    seen: Vec<Seen<Who>>,
}

#[derive(Debug)]
struct Seen<Who> {
    who: Who,
    reqsn: u16,
    call_id: Option<Box<str>>,
    cseq: u32,
    at: Instant,
}

impl<Who> Default for Twins<Who> {
    fn default() -> Self {
        Twins { seen: Vec::new() }
    }
}

impl<Who: PartialEq> Twins<Who> {
    /// Is this the first packet of its wish? The one with the CSeq right after its twin is the twin whenever it comes, and so is
    /// that very packet once more; otherwise the same number within three seconds is. `call_id`: of a request outside a dialog.
    pub fn is_new(&mut self, now: Instant, who: Who, reqsn: u16, call_id: Option<&str>, cseq: u32) -> bool {
        let twin = self.seen.iter().find(|seen| {
            let pair = seen.call_id.as_deref() == call_id && (cseq == seen.cseq || cseq == seen.cseq.wrapping_add(1));
            seen.who == who && seen.reqsn == reqsn && (pair || now < seen.at + WINDOW)
        });
        if twin.is_some() {
            return false;
        }
        self.seen.retain(|seen| seen.who != who || seen.reqsn != reqsn);
        if self.seen.len() == MAX {
            self.seen.remove(0);
        }
        self.seen.push(Seen { who, reqsn, call_id: call_id.map(Box::from), cseq, at: now });
        true
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // a test needs some instant to begin at
mod tests {
    use super::*;

    #[test]
    fn twins_are_one_wish_and_the_next_round_of_numbers_is_another() {
        let now = Instant::now();
        let after = |s| now + Duration::from_secs(s);
        let mut twins = Twins::default();
        let mut is_new = |at, reqsn, cseq| twins.is_new(at, (), reqsn, None, cseq);
        assert!(is_new(now, 5, 10));
        assert!(!is_new(now, 5, 11));
        assert!(!is_new(after(2), 5, 40), "the same number within three seconds");
        assert!(!is_new(after(60), 5, 11), "the twin, however late");
        assert!(is_new(after(60), 5, 50), "999 wishes later");
        assert!(is_new(after(60), 6, 52));
    }

    /// Two phones count by themselves: number 5 of one is not number 5 of the other.
    #[test]
    fn outside_a_dialog_twins_are_of_one_account_and_may_have_their_own_call_ids() {
        let now = Instant::now();
        let mut twins = Twins::default();
        assert!(twins.is_new(now, "p1", 5, Some("a"), 1));
        assert!(!twins.is_new(now, "p1", 5, Some("b"), 1), "each packet a call of its own");
        assert!(twins.is_new(now, "p2", 5, Some("c"), 1));
        let later = now + Duration::from_secs(9);
        assert!(!twins.is_new(later, "p1", 5, Some("a"), 1), "a replay");
        assert!(!twins.is_new(later, "p1", 5, Some("a"), 2), "the late twin");
        assert!(twins.is_new(later, "p1", 5, Some("d"), 1));
    }

    #[test]
    fn whoever_presses_without_end_costs_no_memory() {
        let (now, mut twins) = (Instant::now(), Twins::default());
        for n in 0..10_000u16 {
            twins.is_new(now, (), n % 999 + 1, None, u32::from(n) * 2);
        }
        assert_eq!(twins.seen.len(), MAX);
    }
}
