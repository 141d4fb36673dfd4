//! Digest access authentication for SIP (RFC 7616, 2617, 2069; RFC 3261 §22, RFC 8760); D-11, D-12, OPEN-01, spec sip.md §2.3.
//!
//! - [`Challenger`] is the server: it mints nonces that carry their own proof (time and counter under an HMAC), so a
//!   challenge costs no memory, and checks what comes back.
//! - [`Credentials`] is what a request brings, [`Challenge`] what a client answers.
//!
//! Invariants:
//! - Only a right response changes state, so nobody without the password can use up memory or another's `nc`.
//! - One response authenticates one request: by its `nc` with qop; without qop, one Call-ID with rising CSeq for 30 s (D-11).
//! - An unknown account costs the same work and gives the same verdict as a wrong password.
//! - The digest-uri only enters the hash, as sent. It is not compared with the Request-URI: proxies rewrite that
//!   (RFC 3261 §22.4) and phones write either form. What a captured response could do elsewhere is bounded by the rule above.
//! - No password, response or key in `Debug`.

mod credentials;
mod params;

pub use credentials::{Challenge, Credentials};
use params::quoted;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::digest::{Digest, KeyInit as _};
use hmac::{Hmac, Mac as _};
use md5::Md5;
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq as _};

/// How long a nonce serves answers with `qop=auth`.
pub const NONCE_LIFE_MS: u64 = 300_000;
/// How long a nonce serves answers without qop (D-11).
pub const BARE_NONCE_LIFE_MS: u64 = 30_000;
/// Most nonces whose use is remembered: 64 bytes each, 218 new ones a second for their whole life. Beyond that the
/// oldest are forgotten and count as stale.
const MAX_NONCES: usize = 65_536;
/// Longest header value that is read, in bytes, and most parameters in it.
const MAX_VALUE: usize = 4096;
const MAX_PARAMS: usize = 32;

/// The hash (RFC 7616 §6.1, RFC 8760). Not the `-sess` forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    Md5,
    Sha256,
}

/// The outcome of a check, and what to answer (D-12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The sender knows the password of [`Credentials::username`].
    Ok,
    /// 401/407 with `stale=true`: the client tries again by itself.
    Stale(Stale),
    /// 403: a wrong response to a good nonce, or no such account.
    Wrong,
    /// 401/407 as if there were no credentials (RFC 3261 §22.1).
    Unusable(Unusable),
}

impl Stale {
    /// The counter's name.
    pub fn name(self) -> &'static str {
        match self {
            Stale::Unknown => "nonce_unknown",
            Stale::Expired => "nonce_expired",
            Stale::Forgotten => "nonce_forgotten",
            Stale::Replayed => "nonce_replayed",
        }
    }
}

impl Unusable {
    /// The counter's name.
    pub fn name(self) -> &'static str {
        match self {
            Unusable::Realm => "credentials_realm",
            Unusable::Algorithm => "credentials_algorithm",
            Unusable::Qop => "credentials_qop",
            Unusable::Incomplete => "credentials_incomplete",
        }
    }
}

/// Why a nonce no longer serves. Decided without looking at the password, except [`Stale::Replayed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// Not minted with our key.
    Unknown,
    /// Older than [`NONCE_LIFE_MS`], or than [`BARE_NONCE_LIFE_MS`] without qop.
    Expired,
    /// Pushed out of the bounded memory of used nonces.
    Forgotten,
    /// A right response, but its `nc` was seen before (RFC 7616 §3.4), or without qop another Call-ID or no higher CSeq.
    /// Not refused for good: clients that never raise `nc` get through with a nonce per request.
    Replayed,
}

/// Why credentials are none for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    Realm,
    Algorithm,
    /// Neither absent nor `auth`. auth-int is not offered: proxies may change bodies.
    Qop,
    /// qop without a proper `nc` or `cnonce`.
    Incomplete,
}

/// The server side. Deterministic: key and time come from outside.
pub struct Challenger {
    mac: Hmac<Sha256>,
    realm: String,
    algorithms: &'static [Algorithm],
    /// The highest time seen. A clock set back stands still here: otherwise new nonces would be older than forgotten ones.
    latest_unix_ms: u64,
    /// Makes two nonces of one millisecond differ.
    minted: u32,
    used: BTreeMap<Nonce, Use>,
    max_used: usize,
    /// The newest nonce pushed out of `used`; it and all older ones not in there are [`Stale::Forgotten`].
    forgotten: Option<Nonce>,
    /// Who asks now, in short: the upper half of the counter of every nonce.
    asker: u16,
    asker_key: [u8; 16],
}

/// The readable part of a nonce: ordered by age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Nonce {
    unix_ms: u64,
    counter: u32,
}

/// What a nonce has been used for.
enum Use {
    /// With qop: the highest `nc` and, as bits below it, the 63 before. UDP may overtake, so a lower unseen one is fine.
    Counted { highest: u32, seen: u64 },
    /// Without qop: one Call-ID (its MAC, to bound the size) and the highest CSeq.
    Bound { call: [u8; 16], cseq: u32 },
}

impl Challenger {
    /// `key` must stay the same across restarts, else running nonces become [`Stale::Unknown`] (harmless). `algorithms`
    /// are those offered, in that order, and accepted: [`Algorithm::MD5`] by default (D-11).
    pub fn new(key: [u8; 32], realm: &str, algorithms: &'static [Algorithm]) -> Challenger {
        // HMAC pads short keys with zeros itself (RFC 2104 §2); padded here, the length is right by type.
        let mut block = [0; 64];
        block[..32].copy_from_slice(&key);
        let mac = Hmac::<Sha256>::new(&block.into());
        let mut asker_key = [0; 16];
        asker_key.copy_from_slice(&mac.clone().chain_update(b"s").finalize().into_bytes()[..16]);
        Challenger {
            mac,
            realm: realm.to_owned(),
            algorithms,
            latest_unix_ms: 0,
            minted: 0,
            used: BTreeMap::new(),
            max_used: MAX_NONCES,
            forgotten: None,
            asker: 0,
            asker_key,
        }
    }

    /// Nonces of the next challenges are for this source.
    pub fn ask(&mut self, source: IpAddr) {
        self.asker = self.short(source);
    }

    /// Was a nonce for another source? Then its answer is none of whoever asked: with the nonce of one address guesses could be
    /// made in the name of another, where somebody else would pay for them. `false` for what is no nonce of ours at all.
    pub fn was_for_another(&self, nonce: &str, source: IpAddr) -> bool {
        let bytes: Option<[u8; 24]> = BASE64_URL_SAFE_NO_PAD.decode(nonce).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.is_some_and(|bytes| bytes[6..8] != self.short(source).to_be_bytes())
    }

    /// A keyed hash, and a quick one: it is made for every datagram of a flood. Sixteen bits are enough, because nobody who does
    /// not receive our answers there can try them out.
    fn short(&self, source: IpAddr) -> u16 {
        let mut hash = DefaultHasher::new();
        (self.asker_key, source).hash(&mut hash);
        hash.finish() as u16
    }

    /// The values of the WWW-Authenticate or Proxy-Authenticate headers, one per algorithm (RFC 8760 §2.3), with one new
    /// nonce: the client answers one of them.
    pub fn challenge(&mut self, now_unix_ms: u64, stale: bool) -> Vec<String> {
        self.latest_unix_ms = self.latest_unix_ms.max(now_unix_ms);
        self.minted = self.minted.wrapping_add(1);
        let nonce = self.write_nonce(Nonce { unix_ms: self.latest_unix_ms, counter: self.minted });
        let realm = quoted(&self.realm);
        let stale = if stale { ", stale=true" } else { "" };
        let with = |algorithm: &Algorithm| {
            format!("Digest realm={realm}, nonce=\"{nonce}\", algorithm={}, qop=\"auth\"{stale}", algorithm.name())
        };
        self.algorithms.iter().map(with).collect()
    }

    /// Judges the credentials of one request. `password` is that of the account named by `credentials.username`; `None`
    /// if there is no such account. Whether that account may speak for the From of the request is the caller's question.
    pub fn check(
        &mut self,
        now_unix_ms: u64,
        method: &str,
        credentials: &Credentials,
        password: Option<&str>,
        call_id: &str,
        cseq: u32,
    ) -> Verdict {
        self.latest_unix_ms = self.latest_unix_ms.max(now_unix_ms);
        if credentials.realm != self.realm {
            return Verdict::Unusable(Unusable::Realm);
        }
        let Some(algorithm) = credentials.algorithm().filter(|algorithm| self.algorithms.contains(algorithm)) else {
            return Verdict::Unusable(Unusable::Algorithm);
        };
        let nc = match credentials.nc() {
            Ok(nc) => nc,
            Err(unusable) => return Verdict::Unusable(unusable),
        };
        let nonce = match self.fresh(&credentials.nonce, nc.is_some()) {
            Ok(nonce) => nonce,
            Err(stale) => return Verdict::Stale(stale),
        };
        let expected = credentials.expect(algorithm, method, password.unwrap_or_default());
        let given = credentials.response.to_ascii_lowercase();
        let known = Choice::from(u8::from(password.is_some()));
        if !bool::from(expected.as_bytes().ct_eq(given.as_bytes()) & known) {
            return Verdict::Wrong;
        }
        let first_use = match nc {
            Some(nc) => self.count(nonce, nc),
            None => self.bind(nonce, call_id, cseq),
        };
        if !first_use {
            return Verdict::Stale(Stale::Replayed);
        }
        self.forget();
        Verdict::Ok
    }

    /// A short proof that some state was made with this password, to be stored beside it: worth nothing without our key.
    pub fn proof(&self, username: &str, password: &str) -> i64 {
        // A name holds no line break, so the parts cannot be confused.
        let proof = self.mac_of(b'p', format!("{username}\n{password}").as_bytes());
        proof[..8].iter().fold(0, |number, byte| number << 8 | i64::from(*byte))
    }

    /// 48 bits of time, 16 of who asked, 16 of counter, 112 of MAC: 32 characters.
    fn write_nonce(&self, nonce: Nonce) -> String {
        let counter = u32::from(self.asker) << 16 | nonce.counter & 0xffff;
        let mut bytes = [0; 24];
        bytes[..6].copy_from_slice(&nonce.unix_ms.to_be_bytes()[2..]);
        bytes[6..10].copy_from_slice(&counter.to_be_bytes());
        let proof = self.mac_of(b'n', &bytes[..10]);
        bytes[10..].copy_from_slice(&proof[..14]);
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    fn fresh(&self, nonce: &str, counted: bool) -> Result<Nonce, Stale> {
        let bytes: [u8; 24] =
            BASE64_URL_SAFE_NO_PAD.decode(nonce).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(Stale::Unknown)?;
        let proof = self.mac_of(b'n', &bytes[..10]);
        if !bool::from(proof[..14].ct_eq(&bytes[10..])) {
            return Err(Stale::Unknown);
        }
        let number = |bytes: &[u8]| bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b));
        let unix_ms = number(&bytes[..6]);
        let counter = u32::from_be_bytes([bytes[6], bytes[7], bytes[8], bytes[9]]);
        let nonce = Nonce { unix_ms, counter };
        let life = if counted { NONCE_LIFE_MS } else { BARE_NONCE_LIFE_MS };
        // A clock set back over a restart leaves nonces of the future: ahead counts like behind.
        if self.latest_unix_ms.abs_diff(unix_ms) > life {
            return Err(Stale::Expired);
        }
        if self.forgotten.is_some_and(|f| nonce <= f) && !self.used.contains_key(&nonce) {
            return Err(Stale::Forgotten);
        }
        Ok(nonce)
    }

    /// Takes note of `nc`; false if it was seen or is too far behind to tell.
    fn count(&mut self, nonce: Nonce, nc: u32) -> bool {
        let first = Use::Counted { highest: nc, seen: 0 };
        match self.used.entry(nonce).or_insert(first) {
            Use::Counted { highest, seen } if nc > *highest => {
                let ahead = nc - *highest;
                *seen = seen.checked_shl(ahead).unwrap_or(0) | 1;
                *highest = nc;
                true
            }
            Use::Counted { highest, seen } => {
                let bit = 1_u64.checked_shl(*highest - nc).unwrap_or(0);
                let new = bit != 0 && *seen & bit == 0;
                *seen |= bit;
                new
            }
            Use::Bound { .. } => false,
        }
    }

    /// Takes note of Call-ID and CSeq; false if they do not continue what the nonce was used for.
    fn bind(&mut self, nonce: Nonce, call_id: &str, cseq: u32) -> bool {
        let mut call = [0; 16];
        call.copy_from_slice(&self.mac_of(b'c', call_id.as_bytes())[..16]);
        match self.used.get_mut(&nonce) {
            None => {
                self.used.insert(nonce, Use::Bound { call, cseq });
                true
            }
            Some(Use::Bound { call: bound, cseq: highest }) if *bound == call && cseq > *highest => {
                *highest = cseq;
                true
            }
            Some(Use::Bound { .. } | Use::Counted { .. }) => false,
        }
    }

    /// Drops what has expired, and the oldest if there are too many.
    fn forget(&mut self) {
        while let Some((nonce, _)) = self.used.first_key_value() {
            let expired = nonce.unix_ms.saturating_add(NONCE_LIFE_MS) < self.latest_unix_ms;
            if expired || self.used.len() > self.max_used {
                self.forgotten = self.forgotten.max(Some(*nonce));
                self.used.pop_first();
            } else {
                break;
            }
        }
    }

    fn mac_of(&self, purpose: u8, data: &[u8]) -> [u8; 32] {
        let mut mac = self.mac.clone();
        mac.update(&[purpose]);
        mac.update(data);
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for Challenger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenger")
            .field("realm", &self.realm)
            .field("algorithms", &self.algorithms)
            .field("used", &self.used.len())
            .finish_non_exhaustive()
    }
}

impl Algorithm {
    /// What every phone knows (D-11).
    pub const MD5: &'static [Algorithm] = &[Algorithm::Md5];
    /// Best first (RFC 8760 §2.3). A choice of the operator, because old phones fail when something unknown comes first:
    /// baresip 1.0 does not register at all.
    pub const SHA256_AND_MD5: &'static [Algorithm] = &[Algorithm::Sha256, Algorithm::Md5];

    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Md5 => "MD5",
            Algorithm::Sha256 => "SHA-256",
        }
    }

    fn parse(name: &str) -> Option<Algorithm> {
        [Algorithm::Md5, Algorithm::Sha256].into_iter().find(|algorithm| name.eq_ignore_ascii_case(algorithm.name()))
    }

    /// Lower-case hex of the hash over the parts joined by colons.
    fn hash(self, parts: &[&str]) -> String {
        match self {
            Algorithm::Md5 => hex(&hash_of::<Md5>(parts)),
            Algorithm::Sha256 => hex(&hash_of::<Sha256>(parts)),
        }
    }
}

fn hash_of<D: Digest>(parts: &[&str]) -> hmac::digest::Output<D> {
    let mut hash = D::new();
    for (n, part) in parts.iter().enumerate() {
        if n > 0 {
            hash.update(b":");
        }
        hash.update(part);
    }
    hash.finalize()
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

#[cfg(test)]
mod tests;
