//! [`Profile`]: what a model of door unit needs done its way. Each policy is an enum whose variants name the model that forced
//! it; a knob is here when something turns on it. Chosen per door by the API, else by the `User-Agent` of the door; keys,
//! ringback and the way of asking for key frames may be set per door beside it ([`crate::model::Access`]).
//!
//! Facts are from public manuals. No capture of these models is at hand: all but `generic` is "reported, untested".

use std::time::Duration;

/// How a door is told to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The pair of spec sip.md §8; keys only after the door has refused both packets (D-26: baresip answers 488).
    SpecPair,
    /// Keys (RFC 4733), which is what Akuvox, Hikvision, Dahua, Fanvil and 2N units take; the pair while nobody talks.
    AkuvoxKeys,
}

/// What a `*` of a person becomes (D-27).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Star {
    /// It goes to the door, and the door acts upon it (spec sip.md §9).
    SpecRelay,
    /// It is swallowed and becomes an unlock: Akuvox units and others like them open by a code of their own.
    AkuvoxTranslate,
}

impl Star {
    const NAMES: [(Star, &'static str); 2] = [(Star::SpecRelay, "relay"), (Star::AkuvoxTranslate, "translate")];

    /// As the API and the store write it.
    pub fn name(self) -> &'static str {
        Star::NAMES.iter().find(|(star, _)| *star == self).map_or("", |(_, name)| name)
    }

    pub fn named(name: &str) -> Option<Star> {
        Star::NAMES.iter().find(|(_, known)| *known == name).map(|(star, _)| *star)
    }
}

/// See the module text.
#[derive(Debug, PartialEq, Eq)]
pub struct Profile {
    pub name: &'static str,
    /// What its `User-Agent` begins with, in lower case.
    agents: &'static [&'static str],
    pub dialect: Dialect,
    pub star: Star,
    /// The keys that open it; every one of these units lets its owner choose others.
    pub keys: &'static str,
    /// How long each is held.
    pub key_length: Duration,
}

const GENERIC: Profile = Profile {
    name: "generic",
    agents: &[],
    dialect: Dialect::SpecPair,
    star: Star::SpecRelay,
    keys: "*",
    key_length: Duration::from_millis(160),
};

/// Units that open by a code of their own.
const BY_CODE: Profile = Profile { dialect: Dialect::AkuvoxKeys, star: Star::AkuvoxTranslate, keys: "#", ..GENERIC };

/// All of them, the one for unknown doors first.
pub const ALL: [&Profile; 6] = [
    &GENERIC,
    &Profile { name: "akuvox", agents: &["akuvox"], ..BY_CODE },
    &Profile { name: "hikvision", agents: &["hikvision", "ds-k"], ..BY_CODE },
    &Profile { name: "dahua", agents: &["dahua", "vto"], ..BY_CODE },
    &Profile { name: "fanvil", agents: &["fanvil"], star: Star::SpecRelay, keys: "*", ..BY_CODE },
    // A code is confirmed by `*`.
    &Profile { name: "2n", agents: &["2n"], keys: "00*", ..BY_CODE },
];

impl Profile {
    pub fn named(name: &str) -> Option<&'static Profile> {
        ALL.into_iter().find(|profile| profile.name == name)
    }

    /// The chosen one, else the one its `User-Agent` speaks for, else `generic`.
    pub fn of(chosen: Option<&'static Profile>, user_agent: &str) -> &'static Profile {
        let agent = user_agent.to_ascii_lowercase();
        let speaks_for = |profile: &&Profile| profile.agents.iter().any(|begin| agent.starts_with(begin));
        chosen.or_else(|| ALL.into_iter().find(speaks_for)).unwrap_or(ALL[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_is_known_by_the_operators_word_then_by_its_own() {
        let name = |chosen: Option<&str>, agent: &str| Profile::of(chosen.and_then(Profile::named), agent).name;
        assert_eq!(name(None, ""), "generic");
        assert_eq!(name(None, "baresip v1.0.0 (x86_64/linux)"), "generic");
        assert_eq!(name(None, "AKUVOX R29 29.30.2.14"), "akuvox");
        assert_eq!(name(None, "2N IP Verso"), "2n");
        assert_eq!(name(Some("fanvil"), "AKUVOX R29"), "fanvil");
        assert_eq!(Profile::named("Akuvox"), None, "names are as they are listed");
    }

    #[test]
    fn names_are_one_of_a_kind_and_keys_can_be_pressed() {
        for profile in ALL {
            assert_eq!(ALL.iter().filter(|other| other.name == profile.name).count(), 1);
            assert!(!profile.keys.is_empty() && profile.keys.chars().all(|key| media::dtmf::event(key).is_some()));
        }
    }
}
