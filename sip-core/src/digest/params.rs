//! The parameters of a Digest header value, read and quoted (RFC 7616 §3.5, RFC 3261 §25.1).

use super::{MAX_PARAMS, MAX_VALUE};

/// A quoted-string (RFC 3261 §25.1); control characters, which could end the header, are left out.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars().filter(|c| !c.is_ascii_control()) {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// The parameters after `Digest`: names as written, values without their quotes but with their escapes.
pub(super) struct Params<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Params<'a> {
    pub(super) fn parse(value: &'a str) -> Option<Params<'a>> {
        let (scheme, mut rest) = value.trim_ascii().split_once([' ', '\t'])?;
        if value.len() > MAX_VALUE || !scheme.eq_ignore_ascii_case("Digest") {
            return None;
        }
        let mut params = Params(Vec::with_capacity(12));
        loop {
            rest = rest.trim_start_matches([' ', '\t', '\r', '\n', ',']);
            if rest.is_empty() {
                return Some(params);
            }
            let (name, after) = rest.split_once('=')?;
            let name = name.trim_ascii_end();
            let odd = |c: char| !(c.is_ascii_alphanumeric() || "-_.!%*+`'~".contains(c));
            if name.is_empty() || name.contains(odd) {
                return None;
            }
            let (value, after) = param_value(after.trim_ascii_start())?;
            if params.raw(name).is_some() || params.0.len() == MAX_PARAMS {
                return None;
            }
            params.0.push((name, value));
            rest = after;
        }
    }

    pub(super) fn raw(&self, name: &str) -> Option<&'a str> {
        let found = self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| *value)
    }

    /// The value with its escapes resolved.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let mut escaped = false;
        let mut text = self.raw(name)?.to_owned();
        if !text.contains('\\') {
            return Some(text);
        }
        text.retain(|c| {
            escaped = c == '\\' && !escaped;
            !escaped
        });
        Some(text)
    }
}

/// One value, quoted or not, and what follows it; `None` if a quote does not end or something sticks to it.
fn param_value(text: &str) -> Option<(&str, &str)> {
    let Some(inner) = text.strip_prefix('"') else {
        let end = text.find(',').unwrap_or(text.len());
        let (value, after) = text.split_at(end);
        return Some((value.trim_ascii_end(), after));
    };
    let mut escaped = false;
    let end = inner.find(|c| {
        let closes = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        closes
    })?;
    let after = inner[end + 1..].trim_ascii_start();
    (after.is_empty() || after.starts_with(',')).then_some((&inner[..end], after))
}
