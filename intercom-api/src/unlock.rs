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
    Tell { asker: Asker, outcome: Outcome, pulsed: Option<Instant>, late: bool },
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
            acts.push(Act::Tell { asker, outcome, pulsed: Some(sent), late: false });
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
                    // D-25: the askers have been told; later presses inside the window learn it.
                    *known = outcome;
                    let _ = sent;
                }
            }
        }
    }

    /// Was this number a pulse whose asker has already been told "unknown"? A door's answer to it is recorded as late.
    pub fn is_late(&self, reqsn: u16) -> bool {
        self.wish.is_none() && self.last.is_some_and(|(last, _, outcome)| last == reqsn && outcome == Outcome::Unknown)
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
        if wish.refused_once.replace(code).is_none() {
            // The other one may have got through.
            wish.silenced = false;
            return;
        }
        if let Some(wish) = self.wish.take() {
            self.end(wish, Outcome::Refused(code), acts);
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
    acts.extend(wish.askers.into_iter().map(|asker| Act::Tell { asker, outcome, pulsed, late: false }));
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
