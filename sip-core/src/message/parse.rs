//! Bytes → [`Message`] (RFC 3261 §7.3, §18.3, §25).
//!
//! Lines end with CRLF; a bare CR or LF, or a NUL, in the head makes the message unreadable rather than ambiguous. Folded
//! lines are unfolded in place (same length, so every range stays). Bytes that are not UTF-8, and a NUL that is escaped as
//! the grammar allows (§25.1 quoted-pair), become `?`: they can only stand where text is free, and nothing of the head is
//! ever forwarded.
//!
//! Work and memory are linear in the length and bounded by [`MAX_HEAD`] and [`MAX_HEADERS`]; what is longer is dropped.

use super::headers::{Via, digits, is_token};
use super::{Header, Message, Method, Name, Start, Uri};
use bytes::Bytes;
use std::ops::Range;

/// Longest start line with all headers, in bytes. Real ones stay under 4 KiB; a transaction keeps its request's.
const MAX_HEAD: usize = 16 * 1024;

/// Most header lines of a message.
const MAX_HEADERS: usize = 200;

/// Why bytes are not a message we can work with. Each is a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Fault {
    #[error("empty datagram or keep-alive")]
    Empty,
    #[error("no SIP start line")]
    StartLine,
    #[error("SIP version is not 2.0")]
    Version,
    #[error("bare CR, bare LF or NUL in the head")]
    LineBreak,
    #[error("a header line without a name")]
    HeaderLine,
    #[error("more header lines than we read")]
    TooManyHeaders,
    #[error("a head longer than we read")]
    HeadTooLarge,
    #[error("no end of the head")]
    Truncated,
    #[error("Via missing or malformed")]
    Via,
    #[error("empty parameters or hops in Via")]
    ViaList,
    #[error("From missing or malformed")]
    From,
    #[error("To missing or malformed")]
    To,
    #[error("Call-ID missing")]
    CallId,
    #[error("CSeq missing, malformed or of another method")]
    CSeq,
    #[error("Max-Forwards is not a number")]
    MaxForwards,
    #[error("a header that may stand once stands twice")]
    Duplicate,
    #[error("Content-Length is wrong")]
    ContentLength,
    #[error("Request-URI malformed")]
    RequestUri,
}

impl Fault {
    /// The counter's name.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Empty => "empty",
            Fault::StartLine => "start_line",
            Fault::Version => "version",
            Fault::LineBreak => "line_break",
            Fault::HeaderLine => "header_line",
            Fault::TooManyHeaders => "too_many_headers",
            Fault::HeadTooLarge => "head_too_large",
            Fault::Truncated => "truncated",
            Fault::Via => "via",
            Fault::ViaList => "via_list",
            Fault::From => "from",
            Fault::To => "to",
            Fault::CallId => "call_id",
            Fault::CSeq => "cseq",
            Fault::MaxForwards => "max_forwards",
            Fault::Duplicate => "duplicate_header",
            Fault::ContentLength => "content_length",
            Fault::RequestUri => "request_uri",
        }
    }
}

impl Message {
    /// Splits one datagram. The body is what Content-Length says, or the rest of the datagram without it.
    pub fn parse(bytes: Bytes) -> Result<Message, Fault> {
        let skipped = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        if skipped == bytes.len() {
            return Err(Fault::Empty);
        }
        let bytes = bytes.slice(skipped..);
        let head_end = find_head_end(&bytes)?;
        if head_end > MAX_HEAD {
            return Err(Fault::HeadTooLarge);
        }
        let bytes = normalise(bytes, head_end)?;
        let mut lines = Lines { bytes: &bytes[..head_end], at: 0 };
        let start = parse_start(&bytes, lines.next().ok_or(Fault::StartLine)?)?;
        let mut headers = Vec::with_capacity(16);
        for line in lines {
            if headers.len() == MAX_HEADERS {
                return Err(Fault::TooManyHeaders);
            }
            headers.push(parse_header(&bytes, line)?);
        }
        let body_at = (head_end + 4).min(bytes.len());
        let mut message = Message { body: body_at..bytes.len(), bytes, start, headers };
        // Trailing bytes of a datagram beyond Content-Length are not ours (§18.3); too few of them is for `validate`.
        if let Some(length) = message.content_length() {
            message.body.end = message.bytes.len().min(body_at.saturating_add(length));
        }
        Ok(message)
    }

    /// What RFC 3261 §8.1.1 and §20 demand of every message, in the order in which an answer needs it: without a Via there
    /// is none, an unknown version is told before anything that the other version may have changed.
    pub fn validate(&self) -> Result<(), Fault> {
        let via = self.via().ok_or(Fault::Via)?;
        if let Start::Request { version_2: false, .. } = self.start {
            return Err(Fault::Version);
        }
        if !via.protocol_is_sip() {
            return Err(Fault::Via);
        }
        if !self.headers(Name::Via).all(Via::is_list) {
            return Err(Fault::ViaList);
        }
        self.from().filter(|from| from.is_sound()).ok_or(Fault::From)?;
        self.to().filter(|to| to.is_sound()).ok_or(Fault::To)?;
        self.call_id().ok_or(Fault::CallId)?;
        let cseq = self.cseq().ok_or(Fault::CSeq)?;
        if self.method().is_some_and(|method| *method != cseq.method) {
            return Err(Fault::CSeq);
        }
        for once in [Name::From, Name::To, Name::CallId, Name::CSeq, Name::MaxForwards, Name::ContentLength, Name::ContentType] {
            if self.headers.iter().filter(|header| header.name == once).count() > 1 {
                return Err(Fault::Duplicate);
            }
        }
        if let Some(hops) = self.header(Name::MaxForwards) {
            digits::<u8>(hops).ok_or(Fault::MaxForwards)?;
        }
        if self.header(Name::ContentLength).is_some() && self.content_length() != Some(self.body.len()) {
            return Err(Fault::ContentLength);
        }
        if let Some(uri) = self.request_uri() {
            // §19.1.1: a Request-URI has no headers.
            Uri::parse(uri).filter(|uri| uri.headers.is_empty()).ok_or(Fault::RequestUri)?;
        }
        Ok(())
    }
}

fn find_head_end(bytes: &[u8]) -> Result<usize, Fault> {
    memchr::memmem::find(bytes, b"\r\n\r\n").ok_or(Fault::Truncated)
}

/// Refuses ambiguous line ends; unfolds and replaces non-UTF-8, copying only when there is something to change.
fn normalise(bytes: Bytes, head_end: usize) -> Result<Bytes, Fault> {
    let head = &bytes[..head_end];
    let mut changes = false;
    for at in memchr::memchr3_iter(b'\r', b'\n', 0, head) {
        match head[at] {
            0 if at == 0 || head[at - 1] != b'\\' => return Err(Fault::LineBreak),
            0 => changes = true,
            b'\r' if head.get(at + 1) != Some(&b'\n') => return Err(Fault::LineBreak),
            b'\n' if at == 0 || head[at - 1] != b'\r' => return Err(Fault::LineBreak),
            b'\n' => changes |= matches!(head.get(at + 1), Some(b' ' | b'\t')),
            _ => {}
        }
    }
    if !changes && std::str::from_utf8(head).is_ok() {
        return Ok(bytes);
    }
    let mut copy = bytes.to_vec();
    for at in 0..head_end {
        if copy[at] == b'\n' && matches!(copy.get(at + 1), Some(b' ' | b'\t')) && at + 1 < head_end {
            copy[at] = b' ';
            copy[at - 1] = b' ';
        } else if copy[at] == 0 {
            copy[at] = b'?';
        }
    }
    let mut at = 0;
    while at < head_end {
        match std::str::from_utf8(&copy[at..head_end]) {
            Ok(_) => break,
            Err(error) => {
                at += error.valid_up_to();
                copy[at] = b'?';
            }
        }
    }
    Ok(Bytes::from(copy))
}

struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Iterator for Lines<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let begin = self.at;
        let end = memchr::memchr(b'\r', &self.bytes[begin..]).map_or(self.bytes.len(), |n| begin + n);
        self.at = end + 2;
        Some(begin..end)
    }
}

fn parse_start(bytes: &[u8], line: Range<usize>) -> Result<Start, Fault> {
    let text = std::str::from_utf8(&bytes[line.clone()]).map_err(|_| Fault::StartLine)?;
    let (first, rest) = text.split_once(' ').ok_or(Fault::StartLine)?;
    if let Some(version) = strip_prefix_ignore_case(first, "SIP/") {
        if version != "2.0" {
            return Err(Fault::Version);
        }
        let code = rest.split(' ').next().filter(|code| code.len() == 3).and_then(digits::<u16>);
        return Ok(Start::Response { code: code.filter(|code| (100..700).contains(code)).ok_or(Fault::StartLine)? });
    }
    // Blanks after the version say nothing. Blanks elsewhere stay in the URI, where `validate` finds them (RFC 4475 §3.1.2.8
    // to §3.1.2.10).
    let (uri, version) = rest.trim_end_matches(' ').rsplit_once(' ').ok_or(Fault::StartLine)?;
    let version = strip_prefix_ignore_case(version, "SIP/").ok_or(Fault::StartLine)?;
    if uri.is_empty() || !is_token(first) {
        return Err(Fault::StartLine);
    }
    let uri_at = line.start + first.len() + 1;
    Ok(Start::Request { method: Method::from_text(first), uri: uri_at..uri_at + uri.len(), version_2: version == "2.0" })
}

fn parse_header(bytes: &[u8], line: Range<usize>) -> Result<Header, Fault> {
    let raw = &bytes[line.clone()];
    let colon = memchr::memchr(b':', raw).ok_or(Fault::HeaderLine)?;
    // A blank before the colon is allowed (RFC 3261 §25.1 HCOLON).
    let name_end = colon - raw[..colon].iter().rev().take_while(|b| matches!(b, b' ' | b'\t')).count();
    let name = std::str::from_utf8(&raw[..name_end]).ok().filter(|name| is_token(name)).ok_or(Fault::HeaderLine)?;
    let value = &raw[colon + 1..];
    let lead = value.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
    let trail = value[lead..].iter().rev().take_while(|b| matches!(b, b' ' | b'\t')).count();
    let name_at = line.start..line.start + name_end;
    Ok(Header { name: Name::from_text(name), name_at, value: line.start + colon + 1 + lead..line.end - trail })
}

fn strip_prefix_ignore_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}
