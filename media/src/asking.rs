//! Asking the door for a key frame: PLI (RFC 4585 §6.3.1), then FIR (RFC 5104 §4.3.1), then SIP INFO `picture_fast_update`
//! (RFC 5168), whichever it listens to; that one is remembered and comes first from then on.
//!
//! One gate for all who ask: at most one request a second, and a long silence once a door has shown that it hears none of them.

use std::time::{Duration, Instant};

/// Between two requests.
pub const GATE: Duration = Duration::from_secs(1);
/// Between two requests to a door that has left a whole round of them unanswered.
const DEAF: Duration = Duration::from_secs(5);

/// How a door is asked for a key frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Way {
    Pli,
    Fir,
    /// By signalling.
    Info,
}

impl Way {
    fn next(self) -> Way {
        match self {
            Way::Pli => Way::Fir,
            Way::Fir => Way::Info,
            Way::Info => Way::Pli,
        }
    }
}

/// The gate of one door.
#[derive(Debug)]
pub(crate) struct Asking {
    way: Way,
    /// It has worked.
    known: bool,
    wanted: bool,
    /// The last request, and when the next one may leave.
    last: Option<Instant>,
    open_at: Instant,
    /// Requests without an answer, one after the other.
    unanswered: u32,
}

impl Asking {
    pub fn new(now: Instant, known: Option<Way>) -> Asking {
        let way = known.unwrap_or(Way::Pli);
        Asking { way, known: known.is_some(), wanted: false, last: None, open_at: now, unanswered: 0 }
    }

    /// Somebody needs a key frame.
    pub fn want(&mut self) {
        self.wanted = true;
    }

    /// When the next request may leave; `None`: nobody needs one.
    pub fn due(&self) -> Option<Instant> {
        self.wanted.then_some(self.open_at)
    }

    /// How to ask now; `None`: not now.
    pub fn ask(&mut self, now: Instant) -> Option<Way> {
        if self.due()? > now {
            return None;
        }
        // A way that has worked may lose one request on the wire.
        if self.unanswered > 0 && (!self.known || self.unanswered > 1) {
            self.way = self.way.next();
            self.known = false;
        }
        self.last = Some(now);
        self.unanswered += 1;
        self.open_at = now + if self.unanswered >= 3 { DEAF } else { GATE };
        Some(self.way)
    }

    /// The way that [`Asking::ask`] chose cannot be gone: the next one.
    pub fn skip(&mut self) -> Way {
        self.way = self.way.next();
        self.known = false;
        self.way
    }

    /// A key frame came. The way, if it is found out by that.
    pub fn came(&mut self, now: Instant) -> Option<Way> {
        self.wanted = false;
        let answered = self.unanswered > 0 && self.last.is_some_and(|at| now < at + GATE);
        self.unanswered = 0;
        self.open_at = self.last.map_or(now, |at| at + GATE);
        (answered && !std::mem::replace(&mut self.known, true)).then_some(self.way)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // a test needs some instant to begin at
mod tests {
    use super::*;

    #[test]
    fn many_ask_and_the_door_hears_one_a_second() {
        let now = Instant::now();
        let after = |ms| now + Duration::from_millis(ms);
        let mut asking = Asking::new(now, None);
        assert_eq!(asking.ask(now), None, "nobody wants one");
        let mut heard = Vec::new();
        for ms in 0..3000 {
            asking.want();
            heard.extend(asking.ask(after(ms)).map(|way| (ms, way)));
        }
        assert_eq!(heard, [(0, Way::Pli), (1000, Way::Fir), (2000, Way::Info)]);
        asking.want();
        assert_eq!(asking.due(), Some(after(7000)), "a deaf door is asked less");
    }

    #[test]
    fn what_worked_comes_first_and_may_fail_once() {
        let now = Instant::now();
        let after = |ms| now + Duration::from_millis(ms);
        let mut asking = Asking::new(now, None);
        asking.want();
        assert_eq!(asking.ask(now), Some(Way::Pli));
        assert_eq!(asking.ask(after(1000)), Some(Way::Fir));
        assert_eq!(asking.came(after(1400)), Some(Way::Fir), "found out");
        assert_eq!(asking.came(after(1500)), None, "a key frame that nobody asked for teaches nothing");
        for (ms, way) in [(5000, Way::Fir), (6000, Way::Fir), (7000, Way::Info)] {
            asking.want();
            assert_eq!(asking.ask(after(ms)), Some(way), "at {ms}");
        }
        let mut next_call = Asking::new(now, Some(Way::Info));
        next_call.want();
        assert_eq!(next_call.ask(now), Some(Way::Info));
        assert_eq!(next_call.came(after(1)), None, "known before");
    }
}
