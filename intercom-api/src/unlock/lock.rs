//! [`Lock`]: opening one door. Any number of people may wish it by any road; the door gets one pulse, everybody who asked
//! gets exactly one result (spec sip.md §8, D-23 … D-26, D-28).
//!
//! Pure and without SIP: presses, the door's answers and time go in, [`Act`]s come out. Invariants:
//! - One pulse per hold window, counted from its first packet, unless the door refused the one before: a lost answer
//!   may mean an open door, so an unknown outcome keeps the window shut as an opening does, and so do keys.
//! - 200 only after the door said so. Silence is 408 and never a second road (D-26); an explicit refusal may be.
//! - Nothing of a pulse is sent late: the pair stops repeating at any answer and at [`REPEAT`] (D-24).

use super::{Asker, Outcome};
use crate::model::Number;
use std::time::{Duration, Instant};

/// Nothing is repeated towards the door later than this (D-24: a late first delivery would open twice).
pub const REPEAT: Duration = Duration::from_millis(2500);
/// People who wait for one pulse; more are not people.
const MAX_ASKERS: usize = 256;
/// Numbers of requests run from 1 to 999 and begin again (spec sip.md §8.2).
pub const MAX_REQSN: u16 = 999;

/// What a lock wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Open, with this number. `relay`: a person's key goes through as the key it is (D-27), and no other way.
    Pulse { reqsn: u16, account: Number, relay: bool },
    /// The door does not understand what it was sent: the other road, if there is one.
    OtherRoad { refused: u16 },
    /// Whatever of the pair is still being repeated stops.
    Silence,
    /// Tell this asker; `pulsed` is when the pulse he shares left, if one did.
    Tell { asker: Asker, outcome: Outcome, pulsed: Option<Instant> },
    /// The door answered a wish whose askers have been told "unknown" already (D-25): only the record learns it.
    Late { reqsn: u16, outcome: Outcome, pulsed: Instant },
}

/// How long what takes.
#[derive(Clone, Copy, Debug)]
pub struct Spans {
    /// Within it a repeated wish is the same opening (`unlock.hold_s`).
    pub hold: Duration,
    /// A result leaves so long after the first press, before the asker's own 3 s run out (D-25, `unlock.timeout_ms`).
    pub timeout: Duration,
}

impl Default for Spans {
    fn default() -> Spans {
        Spans { hold: Duration::from_secs(3), timeout: Duration::from_millis(2700) }
    }
}

/// A pulse and the people who wait for it.
#[derive(Debug)]
struct Wish {
    reqsn: u16,
    sent: Instant,
    askers: Vec<Asker>,
    /// The first packet of the pair that was refused, with its status.
    refused_once: Option<u16>,
    silenced: bool,
}

/// One door.
#[derive(Debug)]
pub struct Lock {
    spans: Spans,
    next_reqsn: u16,
    wish: Option<Wish>,
    /// The last pulse that was not refused: its number, when it left, and how it ended.
    last: Option<(u16, Instant, Outcome)>,
}

impl Lock {
    /// `start`: any number; it is folded into 1–999. Random, so that a restart does not repeat what the door just saw.
    pub fn new(start: u32, spans: Spans) -> Lock {
        Lock { spans, next_reqsn: (start % u32::from(MAX_REQSN)) as u16 + 1, wish: None, last: None }
    }

    /// Someone who may open it wishes so. Duplicates of one message are the caller's business ([`super::twins`]).
    pub fn press(&mut self, now: Instant, asker: Asker, relay: bool, acts: &mut Vec<Act>) {
        if let Some(wish) = &mut self.wish {
            match wish.askers.len() < MAX_ASKERS {
                true => wish.askers.push(asker),
                false => acts.push(Act::Tell { asker, outcome: Outcome::Refused(503), pulsed: None }),
            }
            return;
        }
        if let Some((_, sent, outcome)) = self.last
            && now < sent + self.spans.hold
        {
            acts.push(Act::Tell { asker, outcome, pulsed: Some(sent) });
            return;
        }
        let reqsn = self.next_reqsn;
        self.next_reqsn = reqsn % MAX_REQSN + 1;
        acts.push(Act::Pulse { reqsn, account: asker.account.clone(), relay });
        self.wish = Some(Wish { reqsn, sent: now, askers: vec![asker], refused_once: None, silenced: false });
    }

    /// The pulse went out as keys, which nobody answers: everybody is told now, and the window counts from now.
    pub fn relayed(&mut self, now: Instant, acts: &mut Vec<Act>) {
        if let Some(mut wish) = self.wish.take() {
            (wish.sent, wish.silenced) = (now, true);
            self.end(wish, Outcome::Relayed, acts);
        }
    }

    /// The pulse could not be sent at all.
    pub fn unreachable(&mut self, acts: &mut Vec<Act>) {
        if let Some(wish) = self.wish.take() {
            tell(wish, Outcome::Offline, None, acts);
        }
    }

    /// The door's own result.
    pub fn result(&mut self, reqsn: u16, status: u16, acts: &mut Vec<Act>) {
        let outcome = if status == 200 { Outcome::Opened } else { Outcome::Refused(status) };
        match self.wish.take_if(|wish| wish.reqsn == reqsn) {
            Some(wish) => self.end(wish, outcome, acts),
            None => {
                if let Some((last, sent, known)) = &mut self.last
                    && *last == reqsn
                    && *known == Outcome::Unknown
                {
                    // Later presses inside the window share what is now known.
                    *known = outcome;
                    acts.push(Act::Late { reqsn, outcome, pulsed: *sent });
                }
            }
        }
    }

    /// A final SIP response to one request of the pair, or none (`None`). Two refusals are the door's refusal (D-26).
    /// `other_road`: there is one, and it may be tried.
    pub fn delivered(&mut self, reqsn: u16, code: Option<u16>, other_road: bool, acts: &mut Vec<Act>) {
        let Some(wish) = self.wish.as_mut().filter(|wish| wish.reqsn == reqsn) else { return };
        let Some(code) = code else { return };
        if !std::mem::replace(&mut wish.silenced, true) && code < 300 {
            acts.push(Act::Silence);
        }
        if code < 300 {
            return;
        }
        let Some(first) = wish.refused_once.replace(code) else {
            // The other one may have got through.
            wish.silenced = false;
            return;
        };
        // 500 is what an overtaken packet gets (RFC 3261 §12.2.2): the other one says what the door thinks.
        let refused = if code == 500 { first } else { code };
        // A door that has lost its dialog or answers too late says nothing of what it did before.
        if matches!(refused, 408 | 481) {
            return self.door_gone(acts);
        }
        if other_road && (400..600).contains(&refused) {
            return acts.push(Act::OtherRoad { refused });
        }
        self.refused(refused, acts);
    }

    /// The door does not take it, and there is no other road.
    pub fn refused(&mut self, code: u16, acts: &mut Vec<Act>) {
        if let Some(wish) = self.wish.take() {
            self.end(wish, Outcome::Refused(code), acts);
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.wish.as_ref().map(|wish| wish.sent + if wish.silenced { self.spans.timeout } else { self.repeat() })
    }

    fn repeat(&self) -> Duration {
        REPEAT.min(self.spans.timeout)
    }

    pub fn timeout(&mut self, now: Instant, acts: &mut Vec<Act>) {
        let repeat = self.repeat();
        let Some(wish) = &mut self.wish else { return };
        if now >= wish.sent + self.spans.timeout {
            if let Some(wish) = self.wish.take() {
                self.end(wish, Outcome::Unknown, acts);
            }
        } else if now >= wish.sent + repeat && !wish.silenced {
            wish.silenced = true;
            acts.push(Act::Silence);
        }
    }

    /// The door's dialog is gone; what was sent may still have opened it.
    pub fn door_gone(&mut self, acts: &mut Vec<Act>) {
        if let Some(wish) = self.wish.take() {
            self.end(wish, Outcome::Unknown, acts);
        }
    }

    fn end(&mut self, wish: Wish, outcome: Outcome, acts: &mut Vec<Act>) {
        self.last = match outcome {
            Outcome::Opened | Outcome::Unknown | Outcome::Relayed => Some((wish.reqsn, wish.sent, outcome)),
            Outcome::Refused(_) | Outcome::Offline | Outcome::Forbidden | Outcome::NoDoor => None,
        };
        if !wish.silenced {
            acts.push(Act::Silence);
        }
        let sent = wish.sent;
        tell(wish, outcome, Some(sent), acts);
    }
}

fn tell(wish: Wish, outcome: Outcome, pulsed: Option<Instant>, acts: &mut Vec<Act>) {
    acts.extend(wish.askers.into_iter().map(|asker| Act::Tell { asker, outcome, pulsed }));
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // a test needs some instant to begin at
mod tests {
    use super::super::{Channel, Road};
    use super::*;
    use proptest::prelude::*;
    use sip_core::endpoint::LegId;

    fn asker(now: Instant, leg: u64) -> Asker {
        let channel = Channel::Info { leg: LegId(leg), reqsn: 1 };
        Asker { account: Number::new(&format!("p{leg}")), road: Road::Info, channel, at: now, call: None, picture: None }
    }

    const HOLD: Duration = Duration::from_secs(3);
    const TIMEOUT: Duration = Duration::from_millis(2700);

    #[test]
    fn numbers_towards_the_door_run_from_1_to_999() {
        let now = Instant::now();
        let mut lock = Lock::new(997, Spans::default());
        let mut seen = vec![];
        for n in 0..4 {
            let mut acts = vec![];
            lock.press(now + HOLD * n, asker(now, 1), false, &mut acts);
            let [Act::Pulse { reqsn, .. }] = acts[..] else { panic!("{acts:?}") };
            seen.push(reqsn);
            lock.result(reqsn, 200, &mut acts);
        }
        assert_eq!(seen, [998, 999, 1, 2]);
    }

    #[test]
    fn whoever_asks_inside_the_window_shares_the_opening() {
        let now = Instant::now();
        let mut lock = Lock::new(0, Spans::default());
        let mut acts = vec![];
        lock.press(now, asker(now, 1), false, &mut acts);
        lock.press(now, asker(now, 2), false, &mut acts);
        lock.result(1, 200, &mut acts);
        lock.press(now + HOLD - Duration::from_millis(1), asker(now, 3), false, &mut acts);
        let told = acts.iter().filter(|a| matches!(a, Act::Tell { outcome: Outcome::Opened, .. })).count();
        let pulses = acts.iter().filter(|a| matches!(a, Act::Pulse { .. })).count();
        assert_eq!((pulses, told), (1, 3));
    }

    proptest! {
        /// Any order of presses, answers, refusals, silence and time: one pulse per window unless the one before was
        /// refused, one result per asker, 200 only after the door said so.
        #[test]
        fn one_opening_per_window_and_one_result_per_asker(
            steps in proptest::collection::vec((0u8..6, 0u64..1500, any::<bool>()), 1..80)
        ) {
            let begin = Instant::now();
            let mut now = begin;
            let mut lock = Lock::new(500, Spans::default());
            let (mut asked, mut told, mut legs) = (0, 0, 0);
            let mut opened_numbers = std::collections::BTreeSet::new();
            let mut last_pulse: Option<(u16, Instant)> = None;
            let mut refused = false;
            for (what, wait, good) in steps {
                let target = now + Duration::from_millis(wait);
                let mut acts = vec![];
                // Time passes from deadline to deadline.
                while let Some(at) = lock.deadline().filter(|at| *at <= target) {
                    now = at;
                    lock.timeout(now, &mut acts);
                }
                now = target;
                let current = last_pulse.map_or(1, |(reqsn, _)| reqsn);
                match what {
                    0 | 1 => {
                        legs += 1;
                        asked += 1;
                        lock.press(now, asker(now, legs), false, &mut acts);
                    }
                    2 => {
                        if good {
                            opened_numbers.insert(current);
                        }
                        lock.result(current, if good { 200 } else { 403 }, &mut acts);
                    }
                    3 => lock.delivered(current, Some(if good { 200 } else { 488 }), false, &mut acts),
                    4 => lock.delivered(current, None, false, &mut acts),
                    _ => lock.door_gone(&mut acts),
                }
                for act in acts {
                    match act {
                        Act::Pulse { reqsn, .. } => {
                            if let Some((_, at)) = last_pulse {
                                prop_assert!(now >= at + HOLD || refused, "two pulses in one window");
                            }
                            last_pulse = Some((reqsn, now));
                            refused = false;
                        }
                        Act::Tell { outcome, .. } => {
                            told += 1;
                            let number = last_pulse.map_or(0, |(reqsn, _)| reqsn);
                            prop_assert!(outcome.status() != 200 || opened_numbers.contains(&number), "200 without the door's word");
                            refused |= matches!(outcome, Outcome::Refused(_));
                        }
                        Act::Silence | Act::Late { .. } | Act::OtherRoad { .. } => {}
                    }
                }
            }
            let mut acts = vec![];
            now += TIMEOUT;
            lock.timeout(now, &mut acts);
            told += acts.iter().filter(|act| matches!(act, Act::Tell { .. })).count();
            prop_assert_eq!(asked, told, "one result per asker");
        }
    }
}
