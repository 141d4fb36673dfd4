//! SIP URIs (RFC 3261 §19.1): a view; escapes are undone only where a user part is compared.

use super::headers::{params, split_host_port};
use std::borrow::Cow;

/// A `sip:`/`sips:` URI, or any other scheme with everything in `host`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uri<'a> {
    pub scheme: &'a str,
    pub user: Option<&'a str>,
    pub host: &'a str,
    pub port: Option<u16>,
    /// Between the first `;` and `?`.
    pub params: &'a str,
    /// After the `?`.
    pub headers: &'a str,
}

impl<'a> Uri<'a> {
    pub fn parse(text: &'a str) -> Option<Uri<'a>> {
        let (scheme, rest) = text.split_once(':')?;
        if scheme.is_empty() || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) || rest.is_empty() {
            return None;
        }
        if text.bytes().any(|b| b <= b' ' || matches!(b, b'<' | b'>' | b'"')) {
            return None;
        }
        if !scheme.eq_ignore_ascii_case("sip") && !scheme.eq_ignore_ascii_case("sips") {
            return Some(Uri { scheme, user: None, host: rest, port: None, params: "", headers: "" });
        }
        // `;` and `?` may stand in a user part, so the `@` is looked for first (§25.1 user-unreserved).
        let (user, rest) = match rest.rsplit_once('@') {
            Some((userinfo, rest)) => (Some(userinfo.split_once(':').map_or(userinfo, |(user, _)| user)), rest),
            None => (None, rest),
        };
        let (rest, headers) = rest.split_once('?').unwrap_or((rest, ""));
        let (host_port, params) = rest.split_once(';').unwrap_or((rest, ""));
        let (host, port) = split_host_port(host_port)?;
        Some(Uri { scheme, user, host, port, params, headers })
    }

    /// The user part with `%hh` undone; what is compared (case-sensitively, spec sip.md §2.2).
    pub fn user_decoded(&self) -> Option<Cow<'a, str>> {
        let user = self.user?;
        if !user.contains('%') {
            return Some(Cow::Borrowed(user));
        }
        let raw = user.as_bytes();
        let mut out = Vec::with_capacity(raw.len());
        let mut at = 0;
        while at < raw.len() {
            let hex = (raw[at] == b'%').then(|| raw.get(at + 1..at + 3)).flatten();
            match hex.and_then(|h| std::str::from_utf8(h).ok()).and_then(|h| u8::from_str_radix(h, 16).ok()) {
                Some(byte) => {
                    out.push(byte);
                    at += 3;
                }
                None => {
                    out.push(raw[at]);
                    at += 1;
                }
            }
        }
        Some(Cow::Owned(String::from_utf8_lossy(&out).into_owned()))
    }

    pub fn param(&self, name: &str) -> Option<&'a str> {
        params(self.params).find(|p| p.name.eq_ignore_ascii_case(name)).map(|p| p.value.unwrap_or(""))
    }

    /// The port, or the scheme's default (§19.1.2).
    pub fn port_or_default(&self) -> u16 {
        self.port.unwrap_or(if self.scheme.eq_ignore_ascii_case("sips") { 5061 } else { 5060 })
    }
}
