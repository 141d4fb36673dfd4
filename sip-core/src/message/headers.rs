//! Typed views of the few headers we act on (RFC 3261 §20), made on demand from the raw value.

use super::Method;

/// Splits a comma list, not inside quotes or angle brackets; parts are trimmed, empty parts left out.
pub fn split_list(value: &str) -> impl Iterator<Item = &str> {
    split_outside(value, b',').map(str::trim).filter(|part| !part.is_empty())
}

/// Splits at an ASCII character outside of `"…"` (with `\` escapes) and `<…>`.
pub(super) fn split_outside(value: &str, at: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        let text = rest?;
        let mut scan = Scan::default();
        for (index, byte) in text.bytes().enumerate() {
            if scan.is_outside(byte) && byte == at {
                rest = Some(&text[index + 1..]);
                return Some(&text[..index]);
            }
        }
        rest = None;
        Some(text)
    })
}

/// Where a walk through a value is: in `"…"`, in `<…>`, or outside of both.
#[derive(Default)]
struct Scan {
    quoted: bool,
    escaped: bool,
    angle: bool,
}

impl Scan {
    /// Takes the next byte: does it stand outside? All that matters is ASCII, so bytes do.
    fn is_outside(&mut self, byte: u8) -> bool {
        if self.escaped {
            self.escaped = false;
            return false;
        }
        match byte {
            b'\\' if self.quoted => self.escaped = true,
            b'"' if !self.angle => self.quoted = !self.quoted,
            b'<' if !self.quoted => self.angle = true,
            b'>' if !self.quoted => self.angle = false,
            _ => {}
        }
        !self.quoted && !self.angle
    }
}

/// Does every quote and bracket end? Whatever we write behind one that does not would be part of it.
fn is_balanced(text: &str) -> bool {
    let mut scan = Scan::default();
    text.bytes().fold(true, |_, byte| scan.is_outside(byte))
}

/// One `;name[=value]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param<'a> {
    pub name: &'a str,
    pub value: Option<&'a str>,
}

impl<'a> Param<'a> {
    /// `name[=value]`, quotes around the value taken off.
    pub(super) fn parse(text: &'a str) -> Param<'a> {
        match text.split_once('=') {
            Some((name, value)) => Param { name: name.trim_end(), value: Some(value.trim_start().trim_matches('"')) },
            None => Param { name: text, value: None },
        }
    }
}

/// The parameters of `;a=b;c`, quotes around values taken off.
pub fn params(text: &str) -> impl Iterator<Item = Param<'_>> {
    raw_params(text).map(Param::parse)
}

/// The parameters as they are written.
pub(super) fn raw_params(text: &str) -> impl Iterator<Item = &str> {
    split_outside(text, b';').map(str::trim).filter(|part| !part.is_empty())
}

/// RFC 3261 §25.1 `token`.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte))
}

/// §25.1 `1*DIGIT`; `parse` alone takes a `+` too. `None` also when it is too large.
pub(super) fn digits<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn find_param<'a>(text: &'a str, name: &str) -> Option<Param<'a>> {
    params(text).find(|p| p.name.eq_ignore_ascii_case(name))
}

/// One Via hop (§20.42).
#[derive(Clone, Copy, Debug)]
pub struct Via<'a> {
    /// `SIP/2.0/UDP`.
    pub protocol: &'a str,
    /// Host of sent-by, IPv6 in brackets.
    pub host: &'a str,
    pub port: Option<u16>,
    /// Everything from the first `;` on.
    pub params: &'a str,
    /// `host[:port]` as written.
    pub sent_by: &'a str,
}

impl<'a> Via<'a> {
    pub fn parse(text: &'a str) -> Option<Via<'a>> {
        let text = text.trim_start();
        let (before, params) = text.split_at(text.find(';').unwrap_or(text.len()));
        // There may be blanks around the slashes and the colon (§20.42, RFC 4475 §3.1.1.1): the transport is the word after
        // the second slash.
        let (slash, _) = before.match_indices('/').nth(1)?;
        let transport = before[slash + 1..].trim_start();
        let (transport, sent_by) = transport.split_at(transport.find([' ', '\t'])?);
        let protocol = before[..before.len() - sent_by.len()].trim();
        let sent_by = sent_by.trim();
        let (host, port) = split_host_port(sent_by).filter(|_| is_token(transport))?;
        Some(Via { protocol, host, port, params, sent_by })
    }

    /// Does a line hold hops and nothing else: no empty hop, no `;;`, no `;` at the end (RFC 4475 §3.1.2.1)?
    pub(super) fn is_list(line: &str) -> bool {
        split_outside(line, b',').all(|hop| {
            let tidy = |via: Via<'_>| split_outside(via.params, b';').skip(1).all(|part| !part.trim().is_empty());
            is_balanced(hop) && Via::parse(hop).is_some_and(tidy)
        })
    }

    /// `SIP / 2.0 / anything`.
    pub fn protocol_is_sip(&self) -> bool {
        let mut parts = self.protocol.split('/').map(str::trim);
        parts.next().is_some_and(|p| p.eq_ignore_ascii_case("SIP"))
            && parts.next() == Some("2.0")
            && parts.next().is_some_and(|t| !t.is_empty())
    }

    pub fn branch(&self) -> Option<&'a str> {
        find_param(self.params, "branch")?.value.filter(|b| !b.is_empty())
    }

    /// Did the sender ask for symmetric response routing (RFC 3581)?
    pub fn wants_rport(&self) -> bool {
        find_param(self.params, "rport").is_some()
    }
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`.
pub(super) fn split_host_port(text: &str) -> Option<(&str, Option<u16>)> {
    let host_end = match text.strip_prefix('[') {
        Some(inner) => inner.find(']')? + 2,
        None => text.find(':').unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at(host_end);
    let port = match rest.strip_prefix(':') {
        Some(port) => Some(digits(port.trim())?),
        None if rest.trim().is_empty() => None,
        None => return None,
    };
    let host = host.trim_end();
    let odd = |c: char| c.is_whitespace() || matches!(c, '<' | '>' | '"' | ',');
    (!host.is_empty() && !host.contains(odd)).then_some((host, port))
}

/// `"Display" <uri>;params` or `uri;params` (From, To, Contact, Route; §20.10).
#[derive(Clone, Copy, Debug)]
pub struct NameAddr<'a> {
    /// Without quotes; escapes kept.
    pub display: &'a str,
    pub uri: &'a str,
    /// Header parameters. Without angle brackets everything after the first `;` is one (§20, rule R2 of the spec).
    pub params: &'a str,
}

impl<'a> NameAddr<'a> {
    pub fn parse(text: &'a str) -> Option<NameAddr<'a>> {
        let text = text.trim();
        let parsed = match find_angle(text) {
            Some(open) => {
                let close = open + text[open..].find('>')?;
                let rest = text[close + 1..].trim_start();
                if !rest.is_empty() && !rest.starts_with(';') {
                    return None;
                }
                NameAddr { display: text[..open].trim().trim_matches('"'), uri: text[open + 1..close].trim(), params: rest }
            }
            None if text.starts_with('"') => return None,
            None => {
                let (uri, params) = text.split_at(text.find(';').unwrap_or(text.len()));
                // A URI with headers stands in brackets (§20.10); nobody can say whose they are otherwise.
                if uri.contains('?') {
                    return None;
                }
                NameAddr { display: "", uri: uri.trim(), params }
            }
        };
        let odd = |c: char| c.is_whitespace() || matches!(c, '<' | '>' | '"');
        let (scheme, _) = parsed.uri.split_once(':')?;
        (is_token(scheme) && !parsed.uri.contains(odd)).then_some(parsed)
    }

    pub fn param(&self, name: &str) -> Option<Param<'a>> {
        find_param(self.params, name)
    }

    pub fn tag(&self) -> Option<&'a str> {
        self.param("tag")?.value.filter(|t| !t.is_empty())
    }

    /// Can we write it, and a tag behind it, so that it reads the same? A tag is a token (§19.3); other printable characters
    /// are tolerated as long as they cannot end it.
    pub(super) fn is_sound(&self) -> bool {
        is_balanced(self.params)
            && self.tag().is_none_or(|tag| tag.bytes().all(|b| b.is_ascii_graphic() && !b";,\"<>".contains(&b)))
    }
}

/// A From or To value with its tag taken off and everything else kept.
pub(crate) fn without_tag(value: &str) -> String {
    let Some(addr) = NameAddr::parse(value) else { return value.to_owned() };
    let head = value.trim_end();
    let head = head[..head.len() - addr.params.len()].trim_end();
    let kept = raw_params(addr.params).filter(|param| !Param::parse(param).name.eq_ignore_ascii_case("tag"));
    kept.fold(head.to_owned(), |text, param| text + ";" + param)
}

fn find_angle(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (index, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '<' if !quoted => return Some(index),
            _ => {}
        }
    }
    None
}

/// §20.16.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CSeq {
    /// Below 2³¹ (§8.1.1.5).
    pub number: u32,
    pub method: Method,
}

impl CSeq {
    pub fn parse(text: &str) -> Option<CSeq> {
        let mut words = text.split_ascii_whitespace();
        let number = digits::<u32>(words.next()?).filter(|n| *n < 1 << 31)?;
        let method = Method::from_text(words.next()?);
        words.next().is_none().then_some(CSeq { number, method })
    }
}

#[cfg(test)]
mod tests {
    use super::without_tag;

    #[test]
    fn only_the_tag_is_taken_off() {
        assert_eq!(without_tag("<sip:a@b;x=1>;tag=1;y=2"), "<sip:a@b;x=1>;y=2");
        assert_eq!(without_tag("sip:a@b;tag=1"), "sip:a@b");
        assert_eq!(without_tag("\"A\" <sip:a@b>"), "\"A\" <sip:a@b>");
        assert_eq!(without_tag("<sip:a@b> ; x=\">;tag=2\" ; TAG = 1"), "<sip:a@b>;x=\">;tag=2\"");
    }
}
