//! [`Selection`]: which kinds of events a channel gets.

use super::event::Kind;

/// A set of kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selection(u16);

/// What a channel gets that names nothing: the call event, doors, passages. Codes from 101 to 106 are off by default (OPEN-34).
pub const USUAL: [Kind; 5] = [Kind::Call, Kind::Online, Kind::Offline, Kind::Alarm, Kind::Passage];

impl Default for Selection {
    fn default() -> Selection {
        Selection::of(&USUAL)
    }
}

impl Selection {
    pub fn of(kinds: &[Kind]) -> Selection {
        Selection(kinds.iter().fold(0, |bits, kind| bits | bit(*kind)))
    }

    /// Names, codes, or `*` for all; none: the usual ones. An error is the word that means nothing.
    pub fn named<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Selection, String> {
        let mut kinds = Vec::new();
        for word in words.into_iter().map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                "*" => kinds.extend(Kind::ALL),
                word => kinds.push(Kind::named(word).ok_or_else(|| word.to_owned())?),
            }
        }
        Ok(if kinds.is_empty() { Selection::default() } else { Selection::of(&kinds) })
    }

    pub fn has(self, kind: Kind) -> bool {
        self.0 & bit(kind) != 0
    }

    pub fn kinds(self) -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(move |kind| self.has(*kind))
    }

    /// Names, for people and for the store.
    pub fn names(self) -> Vec<&'static str> {
        self.kinds().map(Kind::name).collect()
    }
}

fn bit(kind: Kind) -> u16 {
    1 << kind as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_is_sent_and_what_is_not_is_as_usual() {
        let usual = Selection::named([]).unwrap();
        assert_eq!(usual.names(), ["call", "online", "offline", "alarm", "passage"]);
        let some = Selection::named(["answered", "1", " 106 "]).unwrap();
        assert_eq!(some.names(), ["call", "answered", "unregistered"]);
        assert_eq!(Selection::named(["*"]).unwrap().names().len(), Kind::ALL.len());
        assert_eq!(Selection::named(["call", "ring"]), Err("ring".to_owned()));
        assert_eq!(Selection::named(some.names()), Ok(some));
    }
}
