//! Keys pressed in a call (spec sip.md §9, OPEN-12): the one place where a key reaches the call, whichever way it came.
//!
//! RFC 4733 events are relayed by media and told here, all but `*`: media never passes that one on, it is a wish to open the door
//! and goes the way of all wishes (D-27). An INFO (`application/dtmf-relay`, `application/dtmf`) becomes events towards the door,
//! or stays an INFO if the door knows no events. Only the winner's keys reach the door (D-05), and only if he may open it.

use super::{Call, State};
use crate::profile::Star;
use crate::turn::Turn;
use crate::unlock::{self, Channel};
use media::dtmf;
use sip_core::endpoint::LegId;
use std::time::Duration;

/// How long a key was held where nobody says.
const LENGTH: Duration = Duration::from_millis(160);
/// The same key the other way within this time is the same press.
const TWIN: Duration = Duration::from_millis(500);

/// One press.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub digit: char,
    pub length: Duration,
}

impl Key {
    pub fn plain(digit: char) -> Key {
        Key { digit, length: LENGTH }
    }
}

/// Which way it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Road {
    Media,
    Info,
}

/// Reads the body of an INFO. `None`: its type is none of a key; inside, `None`: no key can be read from it.
pub fn read(content_type: &str, body: &str) -> Option<Option<Key>> {
    match content_type.split(';').next().unwrap_or_default().trim() {
        "application/dtmf" => Some(digit(body).map(Key::plain)),
        "application/dtmf-relay" => {
            let lines = body.lines().filter_map(|line| line.split_once('='));
            let mut key = None;
            let mut length = LENGTH;
            for (name, value) in lines {
                match name.trim().to_ascii_lowercase().as_str() {
                    "signal" => key = digit(value),
                    "duration" => length = value.trim().parse().map_or(length, Duration::from_millis),
                    _ => {}
                }
            }
            Some(key.map(|digit| Key { digit, length }))
        }
        _ => None,
    }
}

/// A signal, or the number of its event, as some devices write `*` and `#`.
fn digit(text: &str) -> Option<char> {
    let text = text.trim();
    let mut letters = text.chars();
    match (letters.next(), letters.next()) {
        (Some(letter), None) => dtmf::event(letter).and_then(dtmf::signal),
        _ => text.parse().ok().and_then(dtmf::signal),
    }
}

impl Call {
    /// A leg pressed a key. It is shown and counted whoever it was; the winner's goes to the door.
    pub(super) fn digit(&mut self, turn: &mut Turn<'_>, leg: LegId, key: Key, road: Road) {
        let Some(name) = self.name_of(leg) else { return };
        let twin = self.key.filter(|(of, digit, way, _)| *of == leg && *digit == key.digit && *way != road);
        if twin.is_some_and(|(.., at)| turn.now < at + TWIN) {
            self.key = None;
            return turn.count("dtmf_twin");
        }
        self.key = Some((leg, key.digit, road, turn.now));
        self.step(turn, &name, "server", &format!("DTMF {}", key.digit));
        turn.count("dtmf_digits");
        if leg == self.door_leg {
            return turn.count("dtmf_of_the_door");
        }
        if self.state != (State::Answered { winner: leg }) {
            return turn.count("dtmf_before_the_answer");
        }
        if key.digit == '*' && turn.is_door_of(&self.ring.caller, self.door_leg) {
            return self.star(turn, leg);
        }
        if !self.keys_pass {
            return turn.count("dtmf_without_right");
        }
        // Media has relayed what came as an event to a door that knows events, but for the one key that it leaves to us.
        if road == Road::Info || !self.place.events || key.digit == '*' {
            turn.press_key(&self.place, key.digit, key.length);
            self.hear_notes(turn);
        }
    }

    /// The key that opens (D-27): relayed or an order, as the door's profile says, through the door's lock like every other wish.
    fn star(&mut self, turn: &mut Turn<'_>, leg: LegId) {
        let claim = self.claim_of(turn, leg);
        let Some(asker) = self.asker(turn, leg, unlock::Road::Key, Channel::Nothing) else { return };
        match turn.ways_of(&self.ring.caller).star.unwrap_or(self.place.profile.star) {
            Star::SpecRelay => turn.relay_star(&self.ring.caller, claim, asker),
            Star::AkuvoxTranslate => turn.press(&self.ring.caller, claim, asker),
        }
        self.hear_notes(turn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_devices_write_them() {
        let key = |digit, ms| Some(Some(Key { digit, length: Duration::from_millis(ms) }));
        for (kind, body, read_as) in [
            ("application/dtmf-relay", "Signal=5\r\nDuration=200\r\n", key('5', 200)),
            ("application/dtmf-relay", "Signal= *\nDuration= 90", key('*', 90)),
            ("application/dtmf-relay; charset=utf-8", "signal=11\r\n", key('#', 160)),
            ("application/dtmf-relay", "Duration=100\r\nSignal=d\r\nDuration=long", key('D', 100)),
            ("application/dtmf-relay", "Signal=16\r\nDuration=100", Some(None)),
            ("application/dtmf-relay", "", Some(None)),
            ("application/dtmf", "7", key('7', 160)),
            ("application/dtmf", " * \r\n", key('*', 160)),
            ("application/dtmf", "10", key('*', 160)),
            ("application/dtmf", "hello", Some(None)),
            ("text/plain", "7", None),
        ] {
            assert_eq!(read(kind, body), read_as, "{kind} {body:?}");
        }
    }
}
