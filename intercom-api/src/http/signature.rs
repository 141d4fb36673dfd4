//! The gateway's signature (spec admin-api.md OPEN-14), as its public clients make it: what is signed, and what is refused
//! although it is signed. Pure: time and bytes in, a verdict out.
//!
//! ```text
//! METHOD \n Accept \n Content-MD5 \n Content-Type \n Date \n name:value \n … path?parameters
//! ```
//!
//! The named headers are those of `X-Ca-Signature-Headers`, in its order and spelling; the parameters are those of the query
//! and of a form, decoded, sorted by name, the first of each. A body that is no form is covered by `Content-MD5`.

use axum::http::{HeaderMap, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::{Digest as _, Md5};
use sha2::Sha256;
use std::collections::{BTreeMap, HashSet};
use std::time::UNIX_EPOCH;

/// How far a request's time may be from ours, in milliseconds (OPEN-14).
const WINDOW_MS: i64 = 15 * 60 * 1000;
/// Requests of one app that are remembered at the same time; 16 bytes each. More are refused until the oldest are forgotten.
const REMEMBERED: usize = 1_000_000;
/// A nonce as the gateway's clients make it is a UUID.
const LONGEST_NONCE: usize = 128;

/// Why a request that names an app is not its app's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refused {
    UnknownKey,
    /// Not HMAC-SHA256.
    Method,
    /// A header that must be signed is not, is missing or cannot be read.
    Headers,
    /// `Content-MD5` is missing or is not that of the body.
    Body,
    Time,
    /// From before this server started: whether it came already is not known.
    BeforeStart,
    Signature,
    /// It came already.
    Replay,
    /// Too many to remember.
    Full,
}

impl Refused {
    /// For counters.
    pub fn name(self) -> &'static str {
        match self {
            Refused::UnknownKey => "unknown_key",
            Refused::Method => "signature_method",
            Refused::Headers => "signature_headers",
            Refused::Body => "content_md5",
            Refused::Time => "timestamp",
            Refused::BeforeStart => "before_start",
            Refused::Signature => "signature",
            Refused::Replay => "replay",
            Refused::Full => "nonces_full",
        }
    }

    /// For whoever writes a client.
    pub fn detail(self) -> &'static str {
        match self {
            Refused::UnknownKey => "no app has this X-Ca-Key",
            Refused::Method => "X-Ca-Signature-Method is HmacSHA256",
            Refused::Headers => {
                "X-Ca-Nonce (1 to 128 characters) and X-Ca-Timestamp (or Date) must be there, and X-Ca-Signature-Headers names X-Ca-Nonce and X-Ca-Timestamp"
            }
            Refused::Body => "Content-MD5 is the Base64 MD5 of the body",
            Refused::Time => "X-Ca-Timestamp is milliseconds since 1970, within 15 minutes of the server's time",
            Refused::BeforeStart => "signed before this server started; sign it again",
            Refused::Signature => "Invalid Signature",
            Refused::Replay => "this X-Ca-Nonce was used already",
            Refused::Full => "too many requests in 15 minutes",
        }
    }
}

/// A request as it came.
#[derive(Clone, Copy)]
pub struct Signed<'a> {
    pub method: &'a str,
    pub uri: &'a Uri,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
}

impl<'a> Signed<'a> {
    /// Empty: it is not there.
    fn header(&self, name: &str) -> &'a str {
        self.headers.get(name).and_then(|value| std::str::from_utf8(value.as_bytes()).ok()).unwrap_or_default()
    }

    fn signed_names(&self) -> impl Iterator<Item = &'a str> {
        self.header("x-ca-signature-headers").split(',').map(str::trim).filter(|name| !name.is_empty())
    }

    /// What its client must have signed.
    pub fn string_to_sign(&self) -> String {
        let mut text = String::with_capacity(512);
        let fixed = [self.method, self.header("accept"), self.header("content-md5"), self.header("content-type")];
        for part in fixed.into_iter().chain([self.header("date")]) {
            text.push_str(part);
            text.push('\n');
        }
        for name in self.signed_names() {
            text.push_str(name);
            text.push(':');
            text.push_str(self.header(name));
            text.push('\n');
        }
        text.push_str(self.uri.path());
        let mut parameters = BTreeMap::new();
        let form = self.is_form().then(|| std::str::from_utf8(self.body).unwrap_or_default());
        for (name, value) in self.uri.query().into_iter().chain(form).flat_map(|text| form_urlencoded::parse(text.as_bytes())) {
            parameters.entry(name).or_insert(value);
        }
        for (position, (name, value)) in parameters.iter().enumerate() {
            text.push(if position == 0 { '?' } else { '&' });
            text.push_str(name);
            if !value.is_empty() {
                text.push('=');
                text.push_str(value);
            }
        }
        text
    }

    fn is_form(&self) -> bool {
        self.header("content-type").starts_with("application/x-www-form-urlencoded")
    }

    pub fn nonce(&self) -> &'a str {
        self.header("x-ca-nonce")
    }

    /// Is it really from whoever knows this secret, unchanged, and of now? The time at which it was signed.
    pub fn check(&self, secret: &str, now_ms: i64, started_ms: i64) -> Result<i64, Refused> {
        let method = self.header("x-ca-signature-method");
        if !method.is_empty() && !method.eq_ignore_ascii_case("HmacSHA256") {
            return Err(Refused::Method);
        }
        let is_signed = |wanted: &str| self.signed_names().any(|name| name.eq_ignore_ascii_case(wanted));
        if !(1..=LONGEST_NONCE).contains(&self.nonce().len()) || !is_signed("x-ca-nonce") {
            return Err(Refused::Headers);
        }
        // The IoT client of the gateway sends no timestamp; its Date is signed in any case.
        let (time_ms, started_ms) = match self.header("x-ca-timestamp") {
            // It has whole seconds.
            "" => (http_date_ms(self.header("date")).ok_or(Refused::Headers)?, started_ms.div_euclid(1000) * 1000),
            _ if !is_signed("x-ca-timestamp") => return Err(Refused::Headers),
            text => (text.parse().map_err(|_| Refused::Time)?, started_ms),
        };
        if !self.body.is_empty() && !self.is_form() {
            let md5 = STANDARD.encode(Md5::digest(self.body));
            if self.header("content-md5") != md5 {
                return Err(Refused::Body);
            }
        }
        let given = STANDARD.decode(self.header("x-ca-signature")).map_err(|_| Refused::Signature)?;
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).map_err(|_| Refused::Signature)?;
        mac.update(self.string_to_sign().as_bytes());
        // In constant time.
        mac.verify_slice(&given).map_err(|_| Refused::Signature)?;
        if now_ms.abs_diff(time_ms) > WINDOW_MS.unsigned_abs() {
            return Err(Refused::Time);
        }
        if time_ms < started_ms { Err(Refused::BeforeStart) } else { Ok(time_ms) }
    }
}

/// The requests of one app that came within the window, by the minute that they say they were signed in.
#[derive(Debug, Default)]
pub struct Nonces {
    minutes: BTreeMap<i64, HashSet<u128>>,
    count: usize,
}

impl Nonces {
    /// Lets each request through once.
    pub fn remember(&mut self, now_ms: i64, time_ms: i64, nonce: &str) -> Result<(), Refused> {
        let minute = |ms: i64| ms.div_euclid(60_000);
        let oldest = minute(now_ms - WINDOW_MS);
        while let Some(entry) = self.minutes.first_entry().filter(|entry| *entry.key() < oldest) {
            self.count -= entry.remove().len();
        }
        if self.count >= REMEMBERED {
            return Err(Refused::Full);
        }
        let hash = Sha256::digest(nonce);
        let short = hash.iter().take(16).fold(0u128, |sum, byte| sum << 8 | u128::from(*byte));
        if !self.minutes.entry(minute(time_ms)).or_default().insert(short) {
            return Err(Refused::Replay);
        }
        self.count += 1;
        Ok(())
    }
}

/// RFC 9110 §5.6.7.
fn http_date_ms(date: &str) -> Option<i64> {
    let since = httpdate::parse_http_date(date).ok()?.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    const NOW: i64 = 1_700_000_000_000;
    const BODY: &[u8] = b"{\"count\":1}";

    /// As the gateway's clients send it.
    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let read = |(name, value): &(&str, &str)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(read).collect()
    }

    fn usual() -> HeaderMap {
        headers(&[
            ("accept", "application/json"),
            ("content-type", "application/json; charset=utf-8"),
            ("content-md5", &STANDARD.encode(Md5::digest(BODY))),
            ("x-ca-key", "30000001"),
            ("x-ca-nonce", "n-1"),
            ("x-ca-timestamp", "1700000000000"),
            ("x-ca-signature-headers", "X-Ca-Key,X-Ca-Nonce,X-Ca-Timestamp"),
        ])
    }

    fn sign(headers: &mut HeaderMap, uri: &Uri, body: &[u8], secret: &str) {
        let text = Signed { method: "POST", uri, headers, body }.string_to_sign();
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(text.as_bytes());
        headers.insert("x-ca-signature", STANDARD.encode(mac.finalize().into_bytes()).parse().unwrap());
    }

    fn check(headers: &HeaderMap, uri: &str, body: &[u8]) -> Result<i64, Refused> {
        Signed { method: "POST", uri: &uri.parse().unwrap(), headers, body }.check("s3cret", NOW, NOW - 60_000)
    }

    #[test]
    fn the_text_is_that_of_the_gateways_clients() {
        let uri: Uri = "/a/b?z=1&b=%E4%BD%A0+x&b=second&empty=".parse().unwrap();
        let json = Signed { method: "POST", uri: &uri, headers: &usual(), body: BODY };
        assert_eq!(
            json.string_to_sign(),
            "POST\napplication/json\nCxuxFwe2mm4IC62zgWSn6Q==\napplication/json; charset=utf-8\n\nX-Ca-Key:30000001\nX-Ca-Nonce:n-1\nX-Ca-Timestamp:1700000000000\n/a/b?b=你 x&empty&z=1"
        );
        let headers = headers(&[("content-type", "application/x-www-form-urlencoded; charset=utf-8")]);
        let form = Signed { method: "POST", uri: &"/a?z=1".parse().unwrap(), headers: &headers, body: b"c=2&a=%20" };
        assert_eq!(form.string_to_sign(), "POST\n\n\napplication/x-www-form-urlencoded; charset=utf-8\n\n/a?a= &c=2&z=1");
    }

    #[test]
    fn whatever_is_changed_on_the_way_is_refused() {
        let mut good = usual();
        sign(&mut good, &"/a?b=1".parse().unwrap(), BODY, "s3cret");
        assert_eq!(check(&good, "/a?b=1", BODY), Ok(NOW));
        assert_eq!(check(&good, "/a?b=2", BODY), Err(Refused::Signature));
        assert_eq!(check(&good, "/b?b=1", BODY), Err(Refused::Signature));
        assert_eq!(check(&good, "/a?b=1", b"{\"count\":2}"), Err(Refused::Body));
        for name in ["accept", "content-md5", "content-type", "x-ca-key", "x-ca-nonce", "x-ca-timestamp"] {
            let mut changed = good.clone();
            changed.insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static("1"));
            assert!(check(&changed, "/a?b=1", BODY).is_err(), "{name}");
        }
        let mut other = usual();
        sign(&mut other, &"/a?b=1".parse().unwrap(), BODY, "another");
        assert_eq!(check(&other, "/a?b=1", BODY), Err(Refused::Signature));
    }

    #[test]
    fn nonce_and_time_must_be_signed_and_of_now() {
        let with = |name: &'static str, value: &str| {
            let mut headers = usual();
            headers.insert(name, HeaderValue::from_str(value).unwrap());
            sign(&mut headers, &"/a".parse().unwrap(), BODY, "s3cret");
            check(&headers, "/a", BODY)
        };
        assert_eq!(with("x-ca-signature-headers", "x-ca-key,x-ca-timestamp"), Err(Refused::Headers));
        assert_eq!(with("x-ca-signature-headers", "x-ca-nonce"), Err(Refused::Headers));
        assert_eq!(with("x-ca-nonce", ""), Err(Refused::Headers));
        assert_eq!(with("x-ca-signature-method", "HmacSHA1"), Err(Refused::Method));
        assert_eq!(with("x-ca-timestamp", "now"), Err(Refused::Time));
        assert_eq!(with("x-ca-timestamp", &(NOW + WINDOW_MS).to_string()), Ok(NOW + WINDOW_MS));
        assert_eq!(with("x-ca-timestamp", &(NOW + WINDOW_MS + 1).to_string()), Err(Refused::Time));
        assert_eq!(with("x-ca-timestamp", &(NOW - WINDOW_MS - 1).to_string()), Err(Refused::Time));
        assert_eq!(with("x-ca-timestamp", &(NOW - 60_001).to_string()), Err(Refused::BeforeStart));
        assert_eq!(with("x-ca-timestamp", &i64::MIN.to_string()), Err(Refused::Time));
        let mut dated = usual();
        dated.remove("x-ca-timestamp");
        dated.insert("x-ca-signature-headers", HeaderValue::from_static("x-ca-nonce"));
        dated.insert("date", HeaderValue::from_static("Tue, 14 Nov 2023 22:13:20 GMT"));
        sign(&mut dated, &"/a".parse().unwrap(), BODY, "s3cret");
        assert_eq!(check(&dated, "/a", BODY), Ok(NOW));
    }

    #[test]
    fn a_request_is_let_through_once_as_long_as_its_time_is_good() {
        let mut nonces = Nonces::default();
        assert_eq!(nonces.remember(NOW, NOW, "a"), Ok(()));
        assert_eq!(nonces.remember(NOW + WINDOW_MS, NOW, "a"), Err(Refused::Replay));
        assert_eq!(nonces.remember(NOW, NOW, "b"), Ok(()));
        // Their time is over, so they are forgotten.
        assert_eq!(nonces.remember(NOW + 2 * WINDOW_MS, NOW + 2 * WINDOW_MS, "c"), Ok(()));
        assert_eq!((nonces.count, nonces.minutes.len()), (1, 1));
    }
}
