//! Guessing passwords is slowed down (`/v1/bans`): after five wrong responses to good nonces a source may not try that account
//! for a second, after the next for two, and so on up to an hour.
//!
//! The key is source *and* account: a phone with a mistyped password does not lock out the building behind the same NAT, and
//! a guesser elsewhere does not lock out the phone. While the ban lasts the answer is the one a wrong password gets, without
//! the work of checking it, so a guesser does not learn that he is not heard. Only a fresh nonce counts (D-12), and a nonce
//! serves only the source that was given it: who replays old captures is not guessing, and who forges addresses cannot make
//! others pay for his guesses, because he never sees the challenges they get.

use crate::model::Number;
use sip_core::timers::Timers;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Wrong responses before the first ban: a person who mistypes, and a phone that tries a changed password twice at each of
/// its two transports, stay below.
const FREE_TRIES: u32 = 5;
/// The first ban, doubled each time, and the longest.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(3600);
/// A source that has not been wrong for so long after its last ban ended begins anew.
const WINDOW: Duration = Duration::from_secs(600);
/// Pairs that are watched, about 300 bytes each; a full table forgets the pair that would be forgotten first.
const MAX_PAIRS: usize = 16_384;

type Pair = (IpAddr, Number);

/// What is known of a pair.
#[derive(Clone, Copy, Debug)]
struct Tries {
    failures: u32,
    until: Instant,
}

/// One ban, as shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    pub source: IpAddr,
    pub account: Number,
    pub until: Instant,
    pub failures: u32,
}

/// See the module text. `source` is always as [`super::limits::source`] gives it.
#[derive(Debug, Default)]
pub struct Bans {
    tries: BTreeMap<Pair, Tries>,
    /// When a pair is forgotten.
    ends: Timers<Pair>,
}

impl Bans {
    pub fn is_banned(&self, now: Instant, source: IpAddr, account: &str) -> bool {
        !self.tries.is_empty() && self.tries.get(&(source, Number::new(account))).is_some_and(|tries| tries.until > now)
    }

    /// A wrong response to a good nonce. `true`: the pair is banned from now on.
    pub fn wrong(&mut self, now: Instant, source: IpAddr, account: &str) -> bool {
        // Nobody has such a name; it would only fill the table.
        if account.chars().count() > Number::MAX {
            return false;
        }
        while let Some(pair) = self.ends.pop(now) {
            self.tries.remove(&pair);
        }
        let pair = (source, Number::new(account));
        if !self.tries.contains_key(&pair)
            && self.tries.len() >= MAX_PAIRS
            && let Some(oldest) = self.ends.pop_first()
        {
            self.tries.remove(&oldest);
        }
        let tries = self.tries.entry(pair.clone()).or_insert(Tries { failures: 0, until: now });
        tries.failures = tries.failures.saturating_add(1);
        let times = tries.failures.checked_sub(FREE_TRIES);
        tries.until = now + times.map_or(Duration::ZERO, |times| (FIRST * 2u32.pow(times.min(12))).min(LONGEST));
        self.ends.set(pair, Some(tries.until + WINDOW));
        times.is_some()
    }

    /// The right password, or a person who lifts the ban. `true`: there was something to forget.
    pub fn forget(&mut self, source: IpAddr, account: &str) -> bool {
        if self.tries.is_empty() {
            return false;
        }
        let pair = (source, Number::new(account));
        self.ends.set(pair.clone(), None);
        self.tries.remove(&pair).is_some()
    }

    /// Bans in force, by source and account.
    pub fn list(&self, now: Instant) -> impl Iterator<Item = Ban> {
        self.tries.iter().filter(move |(_, tries)| tries.until > now).map(|((source, account), tries)| Ban {
            source: *source,
            account: account.clone(),
            until: tries.until,
            failures: tries.failures,
        })
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // a test needs some instant to begin at
mod tests {
    use super::*;

    const GUESSER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn bans_double_up_to_an_hour_and_touch_nobody_else() {
        let (mut bans, mut now) = (Bans::default(), Instant::now());
        let mut lengths = Vec::new();
        for _ in 0..20 {
            bans.wrong(now, GUESSER, "101");
            let until = bans.list(now).next().map_or(now, |ban| ban.until);
            lengths.push((until - now).as_secs());
            assert_eq!(bans.is_banned(now, GUESSER, "101"), until > now);
            assert!(!bans.is_banned(now, GUESSER, "102") && !bans.is_banned(now, ELSEWHERE, "101"));
            now = until;
        }
        assert_eq!(lengths[..7], [0, 0, 0, 0, 1, 2, 4]);
        assert_eq!(lengths[16..], [3600; 4]);
        assert_eq!(bans.list(now).count(), 0, "over when it is over");
        now += WINDOW;
        assert!(!bans.wrong(now, GUESSER, "101"), "and forgotten in time");
    }

    #[test]
    fn the_right_password_begins_anew() {
        let (mut bans, now) = (Bans::default(), Instant::now());
        for _ in 0..4 {
            assert!(!bans.wrong(now, GUESSER, "101"));
        }
        assert!(bans.forget(GUESSER, "101"));
        assert!(!bans.wrong(now, GUESSER, "101"));
    }

    #[test]
    fn the_table_is_bounded() {
        let (mut bans, now) = (Bans::default(), Instant::now());
        for n in 0..20_000u32 {
            bans.wrong(now, GUESSER, &n.to_string());
            bans.wrong(now, GUESSER, &"x".repeat(51 + n as usize % 50));
        }
        assert_eq!((bans.tries.len(), bans.ends.len()), (MAX_PAIRS, MAX_PAIRS));
    }
}
