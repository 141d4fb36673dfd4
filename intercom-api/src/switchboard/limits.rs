//! What one sender, or all strangers together, may cost us: [`Guard`], pure, with the time passed in.
//!
//! A **stranger** is a remote address from which no right password has come lately. His datagrams are charged to a bucket of
//! his source and to one of all strangers; over either they are dropped without a word, because an answer would only help
//! whoever forges the source (D-15). A right password gives the charge back and makes the address **known**: known ones are
//! never charged, so a flood of strangers cannot take from them. Doors have a bucket of rings each.
//!
//! Every table here has a stated size. A full one gives up the entry that matters least: the bucket that is full again
//! first, the address whose acquaintance ends first.

use super::bans::Bans;
use crate::model::Number;
use sip_core::timers::Timers;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Stranger's datagrams per second of one source, lastingly (`sip.source_rate`), and in a burst so many seconds' worth:
/// 2,000. After a power cut 500 phones behind one NAT begin within a second or two; each sends
/// its REGISTER up to three times before it is served, then it is known. Nobody sends more than that who has a password.
pub const SOURCE_RATE: u32 = 400;
const SOURCE_BURST_S: u32 = 5;
/// Sources whose buckets are remembered, about 200 bytes each.
const MAX_SOURCES: usize = 65_536;
/// Datagrams per second of all strangers together, and in a burst: 100,000 accounts that come back within 10 s are 10,000
/// challenges a second (their signed second requests are given back), and each may be repeated. At 10 to 15 µs a challenge
/// this is at most half a core; the SIP thread keeps the rest for those it knows.
const STRANGERS_RATE: u32 = 40_000;
const STRANGERS_BURST: u32 = 80_000;
/// How long a right password makes an address known. At least half of it is always left after one: longer than any
/// registration (two hours) and any call lives.
const KNOWN_FOR: Duration = Duration::from_secs(4 * 3600);
/// Addresses that are known at once: as many as there may be bindings.
const MAX_KNOWN: usize = super::MAX_BINDINGS;
/// Rings of one door: a visitor who presses again and again, or a door that reboots and calls again (D-07), stays far below ten at once
/// and one in ten seconds; a stuck button or a stolen door account does not ring the whole house all night.
const DOOR_BURST: u32 = 10;
const DOOR_EVERY: Duration = Duration::from_secs(10);
/// A door that rings too often is told about once in a while, not once a ring.
const DOOR_WARNING: Duration = Duration::from_secs(300);
/// Doors with a bucket: more than any installation has.
const MAX_DOORS: usize = 65_536;

/// Token buckets. What is kept of a bucket is the moment at which it will be full again; a full one is forgotten.
#[derive(Debug)]
struct Buckets<K> {
    full_at: Timers<K>,
    /// What one token takes to come back.
    interval: Duration,
    /// What a whole bucket takes.
    depth: Duration,
    most: usize,
}

impl<K: Clone + Ord + Hash> Buckets<K> {
    fn new(burst: u32, interval: Duration, most: usize) -> Buckets<K> {
        Buckets { full_at: Timers::default(), interval, depth: interval * burst, most }
    }

    /// Takes a token. `false`: there is none, and nothing has changed.
    fn take(&mut self, now: Instant, key: K) -> bool {
        while self.full_at.pop(now).is_some() {}
        let known = self.full_at.get(&key);
        let full_at = known.unwrap_or(now) + self.interval;
        if full_at > now + self.depth {
            return false;
        }
        if known.is_none() && self.full_at.len() >= self.most {
            self.full_at.pop_first();
        }
        self.full_at.set(key, Some(full_at));
        true
    }

    fn give_back(&mut self, key: K) {
        let earlier = self.full_at.get(&key).and_then(|at| at.checked_sub(self.interval));
        self.full_at.set(key, earlier);
    }

    /// Buckets that are not full.
    fn len(&self) -> usize {
        self.full_at.len()
    }
}

/// Whose datagram is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    Known,
    Stranger,
}

/// Why a datagram is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    Source,
    Strangers,
}

impl Limited {
    /// The counter's name.
    pub fn name(self) -> &'static str {
        match self {
            Limited::Source => "source_limited",
            Limited::Strangers => "strangers_limited",
        }
    }
}

/// See the module text.
#[derive(Debug)]
pub struct Guard {
    /// `None`: sources are not limited.
    sources: Option<Buckets<IpAddr>>,
    strangers: Buckets<()>,
    /// Until when.
    known: Timers<SocketAddr>,
    doors: Buckets<Number>,
    warned: Buckets<Number>,
    pub bans: Bans,
}

impl Guard {
    /// `source_rate`: as [`SOURCE_RATE`]; 0: no limit per source, where all devices come from one address.
    pub fn new(source_rate: u32) -> Guard {
        let every = |rate: u32| Duration::from_secs(1) / rate.max(1);
        let sources = Buckets::new(source_rate.saturating_mul(SOURCE_BURST_S), every(source_rate), MAX_SOURCES);
        Guard {
            sources: (source_rate > 0).then_some(sources),
            strangers: Buckets::new(STRANGERS_BURST, every(STRANGERS_RATE), 1),
            known: Timers::default(),
            doors: Buckets::new(DOOR_BURST, DOOR_EVERY, MAX_DOORS),
            warned: Buckets::new(1, DOOR_WARNING, MAX_DOORS),
            bans: Bans::default(),
        }
    }

    /// One datagram has come: is it looked at?
    pub fn admit(&mut self, now: Instant, remote: SocketAddr) -> Result<Sender, Limited> {
        if self.knows(now, remote) {
            return Ok(Sender::Known);
        }
        if self.sources.as_mut().is_some_and(|sources| !sources.take(now, source(remote.ip()))) {
            return Err(Limited::Source);
        }
        if self.strangers.take(now, ()) { Ok(Sender::Stranger) } else { Err(Limited::Strangers) }
    }

    /// Has a right password come from there lately?
    pub fn knows(&self, now: Instant, remote: SocketAddr) -> bool {
        self.known.get(&remote).is_some_and(|until| until > now)
    }

    /// A right password has come from there.
    pub fn meet(&mut self, now: Instant, remote: SocketAddr) {
        while self.known.pop(now).is_some() {}
        let before = self.known.get(&remote);
        if before.is_none() {
            if self.known.len() >= MAX_KNOWN {
                self.known.pop_first();
            }
            if let Some(sources) = &mut self.sources {
                sources.give_back(source(remote.ip()));
            }
            self.strangers.give_back(());
        }
        if before.is_none_or(|until| until < now + KNOWN_FOR / 2) {
            self.known.set(remote, Some(now + KNOWN_FOR));
        }
    }

    /// Its binding is gone.
    pub fn forget(&mut self, remote: SocketAddr) {
        self.known.set(remote, None);
    }

    /// A door rings: may it? If not, says whether somebody should hear of it.
    pub fn ring(&mut self, now: Instant, door: &Number) -> Result<(), bool> {
        if self.doors.take(now, door.clone()) {
            return Ok(());
        }
        Err(self.warned.take(now, door.clone()))
    }

    /// Seconds a refused door is asked to wait.
    pub fn ring_again_s() -> u64 {
        DOOR_EVERY.as_secs()
    }

    /// (buckets that are not full, known addresses).
    pub fn sizes(&self) -> (usize, usize) {
        (self.sources.as_ref().map_or(0, Buckets::len) + self.doors.len(), self.known.len())
    }
}

/// Whom an address belongs to: an IPv6 host has a whole /64 to choose from.
pub fn source(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // a test needs some instant to begin at
mod tests {
    use super::*;

    fn address(source: u32, port: u16) -> SocketAddr {
        SocketAddr::new(std::net::Ipv4Addr::from_bits(0x0a00_0000 + source).into(), port)
    }

    #[test]
    fn five_hundred_phones_behind_one_nat_come_back_after_a_power_cut() {
        let (mut guard, t0) = (Guard::new(SOURCE_RATE), Instant::now());
        for phone in 0..500u16 {
            let (at, remote) = (t0 + Duration::from_millis(u64::from(phone) * 2), address(1, 1000 + phone));
            // The REGISTER, two repeats of it while we are busy, and the signed one.
            for _ in 0..4 {
                assert_eq!(guard.admit(at, remote), Ok(Sender::Stranger), "phone {phone}");
            }
            guard.meet(at, remote);
            assert_eq!(guard.admit(at, remote), Ok(Sender::Known));
        }
        // From then on nothing of theirs is charged, however much a neighbour behind the same NAT sends.
        let later = t0 + Duration::from_secs(1);
        while guard.admit(later, address(1, 9)).is_ok() {}
        assert_eq!(guard.admit(later, address(1, 9)), Err(Limited::Source));
        assert_eq!(guard.admit(later, address(1, 1000)), Ok(Sender::Known));
        assert_eq!(guard.admit(later, address(2, 9)), Ok(Sender::Stranger), "another source has its own bucket");
    }

    #[test]
    fn a_lasting_sender_gets_his_rate_and_no_more() {
        let (mut guard, t0) = (Guard::new(SOURCE_RATE), Instant::now());
        let sent = 60_000u32;
        let passed = (0..sent).filter(|n| guard.admit(t0 + Duration::from_millis(u64::from(*n)), address(1, 9)).is_ok()).count();
        // A minute at a thousand a second: the burst, and 400 a second.
        assert!((25_900..=26_100).contains(&passed), "{passed}");
    }

    #[test]
    fn a_hundred_thousand_accounts_come_back_within_ten_seconds() {
        let (mut guard, t0) = (Guard::new(SOURCE_RATE), Instant::now());
        for phone in 0..100_000u32 {
            let (at, remote) =
                (t0 + Duration::from_micros(u64::from(phone) * 100), address(phone / 400, (phone % 400) as u16 + 1));
            for _ in 0..3 {
                assert_eq!(guard.admit(at, remote), Ok(Sender::Stranger), "phone {phone}");
            }
            guard.meet(at, remote);
        }
    }

    #[test]
    fn forged_sources_share_one_bucket_and_bounded_memory() {
        let (mut guard, now) = (Guard::new(SOURCE_RATE), Instant::now());
        let friend = address(1 << 20, 5060);
        guard.meet(now, friend);
        let passed = (0..200_000u32).filter(|n| guard.admit(now, address(*n, 9)).is_ok()).count();
        assert_eq!(passed, STRANGERS_BURST as usize);
        assert_eq!(guard.admit(now, address(7, 9)), Err(Limited::Strangers));
        assert_eq!(guard.admit(now, friend), Ok(Sender::Known));
        assert!(guard.sizes().0 <= MAX_SOURCES);
        assert_eq!(
            guard.admit(now + Duration::from_secs(3), address(7, 9)),
            Ok(Sender::Stranger),
            "and it is over when it is over"
        );
        let mut after = Buckets::new(3, Duration::from_secs(1), 2);
        for key in [1, 2, 3] {
            assert!(after.take(now, key));
        }
        assert_eq!(after.len(), 2, "the bucket that is full again first was given up");
    }

    #[test]
    fn a_stuck_button_is_told_about_once() {
        let (mut guard, t0, door) = (Guard::new(SOURCE_RATE), Instant::now(), Number::new("door"));
        let mut heard = Vec::new();
        for second in 0..120u64 {
            heard.push(guard.ring(t0 + Duration::from_secs(second), &door));
        }
        assert!(heard[..10].iter().all(Result::is_ok), "a burst of ten passes");
        assert_eq!(heard.iter().filter(|ring| ring.is_ok()).count(), 10 + 11, "then one in ten seconds");
        assert_eq!(heard.iter().filter(|ring| **ring == Err(true)).count(), 1);
        assert_eq!(guard.ring(t0, &Number::new("other")), Ok(()));
    }

    #[test]
    fn acquaintance_ends_with_the_binding_or_in_time() {
        let (mut guard, t0, remote) = (Guard::new(SOURCE_RATE), Instant::now(), address(1, 5060));
        guard.meet(t0, remote);
        assert_eq!(guard.admit(t0 + KNOWN_FOR - Duration::from_secs(1), remote), Ok(Sender::Known));
        assert_eq!(guard.admit(t0 + KNOWN_FOR, remote), Ok(Sender::Stranger));
        guard.meet(t0 + KNOWN_FOR, remote);
        guard.forget(remote);
        assert_eq!(guard.admit(t0 + KNOWN_FOR, remote), Ok(Sender::Stranger));
        assert_eq!(source("2001:db8::1".parse().unwrap()), source("2001:db8::ffff:1".parse().unwrap()));
    }
}
