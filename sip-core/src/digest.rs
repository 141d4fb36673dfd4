//! Digest access authentication (RFC 2617, RFC 7616, in SIP RFC 3261 §22): challenge, check, and the answer of a client.
//!
//! Nonces are stateless: a time and an HMAC over it, so a challenge costs no memory and survives a restart with its key.
//! What must be remembered is only what was used: a window of counts per nonce (a replay is refused), and for answers
//! without `qop` (the spec's own sample has none) the Call-ID and CSeq they were used with (D-11).
//!
//! A wrong answer to a fresh nonce is [`Verdict::Wrong`], with the same work for an unknown account (D-12). Replays and old
//! nonces are [`Verdict::Stale`]: the sender gets a fresh nonce and shows again that he knows the password.

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha2::Sha256;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use subtle::ConstantTimeEq;

/// How long a nonce lives, and how long without `qop`.
const LIFE_MS: i64 = 300_000;
const LIFE_WITHOUT_QOP_MS: i64 = 30_000;
/// Nonces whose use is remembered; beyond it the oldest are forgotten and count as stale from then on.
const MAX_REMEMBERED: usize = 200_000;
/// Counts behind the highest one that may still come (reordered on the way).
const WINDOW: u32 = 64;

/// What a check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Ok,
    /// Right form, but the nonce is old, not ours, or was used like this before: challenge again with `stale=true`.
    Stale,
    /// Wrong password, unknown account, or an answer we did not ask for.
    Wrong,
}

/// The answer of a client, as it stands in `Authorization` or `Proxy-Authorization`.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    username: String,
    realm: String,
    nonce: String,
    uri: String,
    response: String,
    algorithm: Option<String>,
    qop: Option<String>,
    cnonce: String,
    nc: String,
}

impl Credentials {
    /// `None` when it is not digest or a mandatory parameter is missing.
    pub fn parse(value: &str) -> Option<Credentials> {
        let mut found = parameters(value)?;
        let mut take = |name: &str| found.remove(name);
        Some(Credentials {
            username: take("username")?,
            realm: take("realm")?,
            nonce: take("nonce")?,
            uri: take("uri")?,
            response: take("response")?,
            algorithm: take("algorithm"),
            qop: take("qop"),
            cnonce: take("cnonce").unwrap_or_default(),
            nc: take("nc").unwrap_or_default(),
        })
    }

    pub fn username(&self) -> &str {
        &self.username
    }

    pub fn realm(&self) -> &str {
        &self.realm
    }
}

/// The parameters of `Digest a=b, c="d"`, names in lower case, quotes and escapes undone; the first of a name counts.
fn parameters(value: &str) -> Option<HashMap<String, String>> {
    let value = value.trim();
    let scheme = value.get(..6)?;
    if !scheme.eq_ignore_ascii_case("digest") || !value[6..].starts_with(char::is_whitespace) {
        return None;
    }
    let mut found = HashMap::new();
    let mut rest = value[6..].trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let (text, after) = read_value(after.trim_start())?;
        found.entry(name.trim().to_ascii_lowercase()).or_insert(text);
        rest = after.trim_start().trim_start_matches(',').trim_start();
    }
    Some(found)
}

/// A token or quoted string, and what follows it.
fn read_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut out = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => out.push(chars.next()?.1),
            '"' => return Some((out, &quoted[at + 1..])),
            c => out.push(c),
        }
    }
    None
}

/// How a nonce has been used.
#[derive(Debug)]
enum Use {
    /// Highest count, and which of the [`WINDOW`] before it have been seen (bit 0 is the highest).
    Counted { highest: u32, seen: u64 },
    Plain { call_id: String, cseq: u32 },
}

/// Issues challenges and checks answers.
pub struct Challenger {
    key: [u8; 32],
    realm: String,
    issued: u64,
    used: HashMap<String, Use>,
    /// When each remembered nonce dies.
    order: BTreeMap<(i64, String), ()>,
}

impl Challenger {
    /// The key signs nonces; the same key after a restart keeps old nonces valid.
    pub fn new(key: [u8; 32], realm: &str) -> Challenger {
        Challenger { key, realm: realm.to_owned(), issued: 0, used: HashMap::new(), order: BTreeMap::new() }
    }

    /// The value of `WWW-Authenticate` or `Proxy-Authenticate` (D-11: MD5, `qop="auth"`).
    pub fn challenge(&mut self, unix_ms: i64, stale: bool) -> String {
        self.issued += 1;
        let nonce = self.nonce(unix_ms, self.issued);
        let stale = if stale { ", stale=true" } else { "" };
        format!("Digest realm=\"{}\", nonce=\"{nonce}\", algorithm=MD5, qop=\"auth\"{stale}", self.realm)
    }

    /// Time and number in hex, and 16 bytes of HMAC-SHA256 over them.
    fn nonce(&self, unix_ms: i64, number: u64) -> String {
        let mut text = format!("{unix_ms:012x}{:08x}", number as u32);
        let tag = self.sign(&text);
        text.push_str(&tag);
        text
    }

    fn sign(&self, text: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
        mac.update(text.as_bytes());
        hex(&mac.finalize().into_bytes()[..16])
    }

    /// When a nonce of ours was issued.
    fn issued_at(&self, nonce: &str) -> Option<i64> {
        let (text, tag) = (nonce.get(..20)?, nonce.get(20..)?);
        let ours = bool::from(self.sign(text).as_bytes().ct_eq(tag.as_bytes()));
        ours.then(|| i64::from_str_radix(&text[..12], 16).ok()).flatten()
    }

    /// Checks an answer. `password`: none for an unknown account, which costs the same and is told the same (D-12).
    ///
    /// The digest URI is taken as the client wrote it: phones behind proxies and old doors write hosts and ports that are
    /// not those of the Request-URI, and it authenticates nothing that the method and the nonce do not.
    pub fn check(
        &mut self,
        unix_ms: i64,
        method: &str,
        credentials: &Credentials,
        password: Option<&str>,
        call_id: &str,
        cseq: u32,
    ) -> Verdict {
        self.forget(unix_ms);
        let counted = match credentials.qop.as_deref() {
            Some(qop) if qop.eq_ignore_ascii_case("auth") => true,
            Some(_) => return Verdict::Wrong,
            None => false,
        };
        let algorithm = credentials.algorithm.as_deref();
        if credentials.realm != self.realm || algorithm.is_some_and(|a| !a.eq_ignore_ascii_case("MD5")) {
            return Verdict::Wrong;
        }
        let expected = response(credentials, method, password.unwrap_or("\u{0}"));
        let right = bool::from(expected.as_bytes().ct_eq(credentials.response.to_ascii_lowercase().as_bytes())) & password.is_some();
        let Some(issued) = self.issued_at(&credentials.nonce) else { return Verdict::Stale };
        let life = if counted { LIFE_MS } else { LIFE_WITHOUT_QOP_MS };
        if unix_ms < issued - LIFE_MS || unix_ms > issued + life {
            return Verdict::Stale;
        }
        if !right {
            return Verdict::Wrong;
        }
        let fresh = if counted {
            let Some(count) = u32::from_str_radix(&credentials.nc, 16).ok().filter(|n| *n > 0 && credentials.nc.len() == 8) else {
                return Verdict::Wrong;
            };
            self.first_use(issued, &credentials.nonce, count)
        } else {
            self.first_plain_use(issued, &credentials.nonce, call_id, cseq)
        };
        if fresh { Verdict::Ok } else { Verdict::Stale }
    }

    fn first_use(&mut self, issued: i64, nonce: &str, count: u32) -> bool {
        match self.used.get_mut(nonce) {
            None => {
                self.remember(issued + LIFE_MS, nonce, Use::Counted { highest: count, seen: 1 });
                true
            }
            Some(Use::Counted { highest, seen }) if count > *highest => {
                *seen = seen.checked_shl(count - *highest).unwrap_or(0) | 1;
                *highest = count;
                true
            }
            Some(Use::Counted { highest, seen }) => {
                let back = *highest - count;
                let new = back < WINDOW && *seen & (1 << back) == 0;
                if new {
                    *seen |= 1 << back;
                }
                new
            }
            Some(Use::Plain { .. }) => false,
        }
    }

    fn first_plain_use(&mut self, issued: i64, nonce: &str, call_id: &str, cseq: u32) -> bool {
        match self.used.get_mut(nonce) {
            None => {
                self.remember(issued + LIFE_WITHOUT_QOP_MS, nonce, Use::Plain { call_id: call_id.to_owned(), cseq });
                true
            }
            Some(Use::Plain { call_id: bound, cseq: last }) if bound == call_id && cseq > *last => {
                *last = cseq;
                true
            }
            Some(Use::Plain { .. } | Use::Counted { .. }) => false,
        }
    }

    fn remember(&mut self, dies: i64, nonce: &str, how: Use) {
        self.used.insert(nonce.to_owned(), how);
        self.order.insert((dies, nonce.to_owned()), ());
        if self.used.len() > MAX_REMEMBERED {
            self.forget_first();
        }
    }

    /// Drops what is dead anyway.
    fn forget(&mut self, unix_ms: i64) {
        while self.order.first_key_value().is_some_and(|((dies, _), ())| *dies < unix_ms) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some(((_, nonce), ())) = self.order.pop_first() {
            self.used.remove(&nonce);
        }
    }
}

/// RFC 7616 §3.4.1; without `qop` the form of RFC 2069.
fn response(credentials: &Credentials, method: &str, password: &str) -> String {
    let ha1 = md5(&[&credentials.username, ":", &credentials.realm, ":", password]);
    let ha2 = md5(&[method, ":", &credentials.uri]);
    match &credentials.qop {
        Some(qop) => md5(&[&ha1, ":", &credentials.nonce, ":", &credentials.nc, ":", &credentials.cnonce, ":", qop, ":", &ha2]),
        None => md5(&[&ha1, ":", &credentials.nonce, ":", &ha2]),
    }
}

fn md5(parts: &[&str]) -> String {
    let mut digest = Md5::new();
    for part in parts {
        digest.update(part.as_bytes());
    }
    hex(&digest.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A client's answer to a challenge: the value of `Authorization` or `Proxy-Authorization`. `count` rises by one with
/// each use of the same nonce. An unreadable challenge gives an empty string.
pub fn answer(challenge: &str, method: &str, uri: &str, username: &str, password: &str, cnonce: &str, count: u32) -> String {
    let Some(mut asked) = parameters(challenge) else { return String::new() };
    let (Some(realm), Some(nonce)) = (asked.remove("realm"), asked.remove("nonce")) else { return String::new() };
    let qop = asked.remove("qop").filter(|offered| offered.split(',').any(|q| q.trim().eq_ignore_ascii_case("auth")));
    let mut credentials = Credentials {
        username: username.to_owned(),
        realm,
        nonce,
        uri: uri.to_owned(),
        response: String::new(),
        algorithm: None,
        qop: qop.map(|_| "auth".to_owned()),
        cnonce: cnonce.to_owned(),
        nc: format!("{count:08x}"),
    };
    credentials.response = response(&credentials, method, password);
    let Credentials { realm, nonce, response, nc, .. } = &credentials;
    let mut text =
        format!("Digest username=\"{username}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", response=\"{response}\", algorithm=MD5");
    if credentials.qop.is_some() {
        let _ = write!(text, ", qop=auth, nc={nc}, cnonce=\"{cnonce}\"");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_790_000_000_000;

    fn challenger() -> Challenger {
        Challenger::new([3; 32], "doorline")
    }

    fn signed(challenge: &str, count: u32) -> Credentials {
        Credentials::parse(&answer(challenge, "REGISTER", "sip:x", "u", "secret", "c", count)).unwrap()
    }

    fn check(challenger: &mut Challenger, now: i64, credentials: &Credentials) -> Verdict {
        challenger.check(now, "REGISTER", credentials, Some("secret"), "call", 1)
    }

    /// Spec sip.md §2.3.
    #[test]
    fn the_vector_of_the_spec() {
        let text = "Digest realm=\"intercom\", nonce=\"59a1c0de\", algorithm=MD5, username=\"U1residentA00000000001\", \
                    uri=\"sip:sip.example.com\", response=\"8433178d9b24518f1505773128464136\"";
        let credentials = Credentials::parse(text).unwrap();
        assert_eq!(response(&credentials, "REGISTER", "pw-7Kd2"), credentials.response);
    }

    /// RFC 2617 §3.5.
    #[test]
    fn the_vector_of_rfc_2617() {
        let text = "Digest username=\"Mufasa\", realm=\"testrealm@host.com\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", \
                    uri=\"/dir/index.html\", qop=auth, nc=00000001, cnonce=\"0a4f113b\", response=\"6629fae49393a05397450978507c4ef1\", \
                    opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"";
        let credentials = Credentials::parse(text).unwrap();
        assert_eq!(response(&credentials, "GET", "Circle Of Life"), credentials.response);
    }

    #[test]
    fn right_answers_pass_and_replays_do_not() {
        let mut c = challenger();
        let asked = c.challenge(NOW, false);
        assert_eq!(check(&mut c, NOW + 1, &signed(&asked, 1)), Verdict::Ok);
        assert_eq!(check(&mut c, NOW + 2, &signed(&asked, 1)), Verdict::Stale, "replay");
        assert_eq!(check(&mut c, NOW + 2, &signed(&asked, 10)), Verdict::Ok, "the tenth request on one nonce");
        assert_eq!(check(&mut c, NOW + 2, &signed(&asked, 9)), Verdict::Ok, "overtaken");
        assert_eq!(check(&mut c, NOW + 2, &signed(&asked, 9)), Verdict::Stale);
        assert_eq!(check(&mut c, NOW + 2, &signed(&asked, 1000)), Verdict::Ok);
        assert_eq!(check(&mut c, NOW + 2, &signed(&asked, 10)), Verdict::Stale, "far behind");
        assert_eq!(check(&mut c, NOW + LIFE_MS + 1, &signed(&asked, 1001)), Verdict::Stale);
        assert!(c.challenge(NOW, true).ends_with("stale=true"));
    }

    #[test]
    fn wrong_passwords_unknown_accounts_and_foreign_nonces_are_told_apart() {
        let mut c = challenger();
        let asked = c.challenge(NOW, false);
        let good = signed(&asked, 1);
        assert_eq!(c.check(NOW, "REGISTER", &good, Some("other"), "call", 1), Verdict::Wrong);
        assert_eq!(c.check(NOW, "REGISTER", &good, None, "call", 1), Verdict::Wrong);
        assert_eq!(c.check(NOW, "INVITE", &good, Some("secret"), "call", 1), Verdict::Wrong, "another method");
        let foreign = Challenger::new([4; 32], "doorline").challenge(NOW, false);
        assert_eq!(check(&mut c, NOW, &signed(&foreign, 1)), Verdict::Stale);
        let other_realm = Challenger::new([3; 32], "elsewhere").challenge(NOW, false);
        assert_eq!(check(&mut c, NOW, &signed(&other_realm, 1)), Verdict::Wrong);
        assert_eq!(check(&mut c, NOW, &good), Verdict::Ok, "refused answers do not use a nonce up");
    }

    #[test]
    fn answers_without_qop_live_shortly_and_stay_with_their_call() {
        let mut c = challenger();
        let asked = c.challenge(NOW, false).replace(", qop=\"auth\"", "");
        let plain = signed(&asked, 1);
        let mut ask = |now, call: &str, cseq| c.check(now, "REGISTER", &plain, Some("secret"), call, cseq);
        assert_eq!(ask(NOW, "a", 2), Verdict::Ok);
        assert_eq!(ask(NOW, "a", 2), Verdict::Stale);
        assert_eq!(ask(NOW, "a", 3), Verdict::Ok);
        assert_eq!(ask(NOW, "b", 4), Verdict::Stale);
        assert_eq!(ask(NOW + LIFE_WITHOUT_QOP_MS + 1, "a", 5), Verdict::Stale);
    }

    #[test]
    fn odd_headers_are_read_or_refused_without_harm() {
        let text = "digest  username=\"a \\\"b\\\", c\" ,realm=r,nonce=\"n\",uri=\"sip:x;y=1,2\" , RESPONSE=\"0\"";
        let credentials = Credentials::parse(text).unwrap();
        assert_eq!((credentials.username(), credentials.uri.as_str()), ("a \"b\", c", "sip:x;y=1,2"));
        for text in ["", "Basic abc", "Digest", "Digest username=\"a", "Digest =", "Digest username=a", "Digesté x=1"] {
            assert!(Credentials::parse(text).is_none(), "{text}");
        }
    }
}
