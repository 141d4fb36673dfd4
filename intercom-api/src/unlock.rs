//! [`Lock`]: opening one door. Any number of people may wish it by any road; the door gets one pulse, everybody who asked
//! gets exactly one result (spec sip.md §8, D-23 … D-26, D-28).
//!
//! Pure and without SIP: presses, the door's answers and time go in, [`Act`]s come out. Invariants:
//! - One pulse per window of [`HOLD`], counted from its first packet, unless the door refused the one before: a lost answer
//!   may mean an open door, so an unknown outcome keeps the window shut as an opening does.
//! - 200 only after the door said so. Silence is 408 and never a second road (D-26).
//! - Nothing of a pulse is sent late: the pair stops repeating at any answer and at [`REPEAT`] (D-24).

use crate::model::Number;
use sip_core::endpoint::LegId;
use std::time::{Duration, Instant};

/// Within it a repeated wish is the same opening (`unlock.hold_s`).
pub const HOLD: Duration = Duration::from_secs(3);
/// A result leaves so long after the first press, before the asker's own 3 s run out (D-25).
pub const TIMEOUT: Duration = Duration::from_millis(2700);
/// Nothing is repeated towards the door later than this (D-24: a late first delivery would open twice).
pub const REPEAT: Duration = Duration::from_millis(2500);
/// Numbers of requests run from 1 to 999 and begin again (spec sip.md §8.2).
pub const MAX_REQSN: u16 = 999;

/// Where a result goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// INFO in the dialog of this leg, with the asker's own number.
    Info { leg: LegId, reqsn: u16 },
}

/// Someone who wishes the door open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    pub account: Number,
    pub channel: Channel,
    pub at: Instant,
    /// Id of the picture of that moment.
    pub picture: Option<String>,
}

/// How a wish ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The door says it opened; shared by everybody inside the window.
    Opened,
    /// The door, or its SIP stack, refused with this status.
    Refused(u16),
    /// No answer in time: nobody knows.
    Unknown,
    /// There was no way to reach the door: nothing was sent.
    Offline,
    /// The asker may not.
    Forbidden,
}

impl Outcome {
    /// The status of the result INFO (spec sip.md §8.3).
    pub fn status(self) -> u16 {
        match self {
            Outcome::Opened => 200,
            Outcome::Refused(status) => status.max(400),
            Outcome::Unknown => 408,
            Outcome::Offline => 480,
            Outcome::Forbidden => 403,
        }
    }

    /// As records and HTTP show it.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Opened => "opened",
            Outcome::Refused(_) => "refused",
            Outcome::Unknown => "unknown",
            Outcome::Offline => "offline",
            Outcome::Forbidden => "forbidden",
        }
    }
}

/// What a lock wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Send the pair with this number.
    Pulse { reqsn: u16, account: Number },
    /// Whatever of the pair is still being repeated stops.
    Silence,
    /// Tell this asker; `pulsed` is when the pulse he shares left, if one did.
    Tell { asker: Asker, outcome: Outcome, pulsed: Option<Instant> },
    /// The door answered a wish whose askers have been told "unknown" already (D-25): only the record learns it.
    Late { reqsn: u16, outcome: Outcome, pulsed: Instant },
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
    next_reqsn: u16,
    wish: Option<Wish>,
    /// The last pulse that was not refused: its number, when it left, and how it ended.
    last: Option<(u16, Instant, Outcome)>,
}

impl Lock {
    /// `start`: any number; it is folded into 1–999. Random, so that a restart does not repeat what the door just saw.
    pub fn new(start: u32) -> Lock {
        Lock { next_reqsn: (start % u32::from(MAX_REQSN)) as u16 + 1, wish: None, last: None }
    }

    /// Someone who may open it wishes so. Duplicates of one message are the caller's business ([`Twins`]).
    pub fn press(&mut self, now: Instant, asker: Asker, acts: &mut Vec<Act>) {
        if let Some(wish) = &mut self.wish {
            wish.askers.push(asker);
            return;
        }
        if let Some((_, sent, outcome)) = self.last
            && now < sent + HOLD
        {
            acts.push(Act::Tell { asker, outcome, pulsed: Some(sent) });
            return;
        }
        let reqsn = self.next_reqsn;
        self.next_reqsn = reqsn % MAX_REQSN + 1;
        acts.push(Act::Pulse { reqsn, account: asker.account.clone() });
        self.wish = Some(Wish { reqsn, sent: now, askers: vec![asker], refused_once: None, silenced: false });
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

    /// A final SIP response to one INFO of the pair, or none (`None`). Two refusals are the door's refusal (D-26).
    pub fn delivered(&mut self, reqsn: u16, code: Option<u16>, acts: &mut Vec<Act>) {
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
        if let Some(wish) = self.wish.take() {
            // 500 is what an overtaken packet gets (RFC 3261 §12.2.2): the other one says what the door thinks.
            self.end(wish, Outcome::Refused(if code == 500 { first } else { code }), acts);
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.wish.as_ref().map(|wish| wish.sent + if wish.silenced { TIMEOUT } else { REPEAT })
    }

    pub fn timeout(&mut self, now: Instant, acts: &mut Vec<Act>) {
        let Some(wish) = &mut self.wish else { return };
        if now >= wish.sent + TIMEOUT {
            if let Some(wish) = self.wish.take() {
                self.end(wish, Outcome::Unknown, acts);
            }
        } else if now >= wish.sent + REPEAT && !wish.silenced {
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
            Outcome::Opened | Outcome::Unknown => Some((wish.reqsn, wish.sent, outcome)),
            Outcome::Refused(_) | Outcome::Offline | Outcome::Forbidden => None,
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

/// Tells the second packet of a pair from a new wish (spec sip.md §8.4, D-24), per dialog.
#[derive(Debug, Default)]
pub struct Twins {
    seen: Vec<(u16, u32, Instant)>,
}

impl Twins {
    /// Numbers remembered per dialog: more than anybody can press in three seconds.
    const MAX: usize = 16;
    /// The spec's duplicate window.
    const WINDOW: Duration = Duration::from_secs(3);

    /// Is this the first packet of its wish? The one with the CSeq right after its twin is the twin whenever it comes;
    /// otherwise the same number within three seconds is.
    pub fn is_new(&mut self, now: Instant, reqsn: u16, cseq: u32) -> bool {
        let twin = self
            .seen
            .iter_mut()
            .find(|(number, first, at)| *number == reqsn && (cseq == first.wrapping_add(1) || now < *at + Self::WINDOW));
        if twin.is_some() {
            return false;
        }
        self.seen.retain(|(number, ..)| *number != reqsn);
        if self.seen.len() == Self::MAX {
            self.seen.remove(0);
        }
        self.seen.push((reqsn, cseq, now));
        true
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // a test needs some instant to begin at
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn asker(now: Instant, leg: u64) -> Asker {
        let channel = Channel::Info { leg: LegId(leg), reqsn: 1 };
        Asker { account: Number::new(&format!("p{leg}")), channel, at: now, picture: None }
    }

    #[test]
    fn twins_are_one_wish_and_the_next_round_of_numbers_is_another() {
        let now = Instant::now();
        let after = |s| now + Duration::from_secs(s);
        let mut twins = Twins::default();
        assert!(twins.is_new(now, 5, 10));
        assert!(!twins.is_new(now, 5, 11));
        assert!(!twins.is_new(after(2), 5, 40), "the same number within three seconds");
        assert!(!twins.is_new(after(60), 5, 11), "the twin, however late");
        assert!(twins.is_new(after(60), 5, 50), "999 wishes later");
        assert!(twins.is_new(after(60), 6, 52));
    }

    #[test]
    fn numbers_towards_the_door_run_from_1_to_999() {
        let now = Instant::now();
        let mut lock = Lock::new(997);
        let mut seen = vec![];
        for n in 0..4 {
            let mut acts = vec![];
            lock.press(now + HOLD * n, asker(now, 1), &mut acts);
            let [Act::Pulse { reqsn, .. }] = acts[..] else { panic!("{acts:?}") };
            seen.push(reqsn);
            lock.result(reqsn, 200, &mut acts);
        }
        assert_eq!(seen, [998, 999, 1, 2]);
    }

    #[test]
    fn whoever_asks_inside_the_window_shares_the_opening() {
        let now = Instant::now();
        let mut lock = Lock::new(0);
        let mut acts = vec![];
        lock.press(now, asker(now, 1), &mut acts);
        lock.press(now, asker(now, 2), &mut acts);
        lock.result(1, 200, &mut acts);
        lock.press(now + HOLD - Duration::from_millis(1), asker(now, 3), &mut acts);
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
            let mut lock = Lock::new(500);
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
                        lock.press(now, asker(now, legs), &mut acts);
                    }
                    2 => {
                        if good {
                            opened_numbers.insert(current);
                        }
                        lock.result(current, if good { 200 } else { 403 }, &mut acts);
                    }
                    3 => lock.delivered(current, Some(if good { 200 } else { 488 }), &mut acts),
                    4 => lock.delivered(current, None, &mut acts),
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
                        Act::Silence | Act::Late { .. } => {}
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
