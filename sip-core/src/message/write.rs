//! Writing messages. The only place that prints a start line or a header.

use super::headers::{raw_params, split_outside, without_tag};
use super::{Message, Method, Name, Param, Via};
use bytes::Bytes;
use std::fmt::{Display, Write as _};
use std::net::{IpAddr, SocketAddr};

/// Builds one message; `Content-Length` is always the last header.
pub struct Writer {
    text: String,
}

impl Writer {
    /// Headers of the URI are left out: they are no part of a Request-URI, and we take no orders from a Contact (RFC 3261
    /// §19.1.5).
    pub fn request(method: &Method, uri: &str) -> Writer {
        let mut text = String::with_capacity(768);
        let at = uri.rfind('@').unwrap_or(0);
        let uri = uri[at..].find('?').map_or(uri, |headers| &uri[..at + headers]);
        let _ = write!(text, "{method} {uri} SIP/2.0\r\n");
        Writer { text }
    }

    pub fn response(code: u16, reason: &str) -> Writer {
        let mut text = String::with_capacity(512);
        let _ = write!(text, "SIP/2.0 {code} {reason}\r\n");
        Writer { text }
    }

    /// One header line. Line breaks inside a value would smuggle a header: they become blanks.
    pub fn header(mut self, name: &str, value: impl Display) -> Writer {
        self.text.push_str(name);
        self.text.push_str(": ");
        let begin = self.text.len();
        let _ = write!(self.text, "{value}");
        if memchr::memchr3(b'\r', b'\n', 0, &self.text.as_bytes()[begin..]).is_some() {
            let clean = self.text[begin..].replace(['\r', '\n', '\0'], " ");
            self.text.truncate(begin);
            self.text.push_str(&clean);
        }
        self.text.push_str("\r\n");
        self
    }

    /// Header lines as `(name, value)`.
    pub fn headers<'a>(self, headers: impl IntoIterator<Item = &'a (&'static str, String)>) -> Writer {
        headers.into_iter().fold(self, |writer, (name, value)| writer.header(name, value))
    }

    pub fn finish(self) -> Bytes {
        self.close(None)
    }

    pub fn body(self, content_type: &str, body: &[u8]) -> Bytes {
        self.header("Content-Type", content_type).close(Some(body))
    }

    /// With a body if there is one.
    pub fn maybe_body(self, body: Option<(&str, &[u8])>) -> Bytes {
        match body {
            Some((content_type, body)) => self.body(content_type, body),
            None => self.finish(),
        }
    }

    fn close(mut self, body: Option<&[u8]>) -> Bytes {
        let body = body.unwrap_or_default();
        let _ = write!(self.text, "Content-Length: {}\r\n\r\n", body.len());
        let mut bytes = self.text.into_bytes();
        bytes.extend_from_slice(body);
        Bytes::from(bytes)
    }
}

/// Begins the response to a request (RFC 3261 §8.2.6): all Via lines (the top one with `received` and `rport`, §18.2.1,
/// RFC 3581), From, To (with our tag if it has none), Call-ID, CSeq, Timestamp. What a malformed request lacks is left out.
pub fn respond(request: &Message, source: SocketAddr, code: u16, to_tag: Option<&str>) -> Writer {
    let mut writer = Writer::response(code, reason_phrase(code));
    let mut vias = request.headers(Name::Via);
    if let Some(line) = vias.next() {
        let line = line.trim_start_matches([',', ' ', '\t']);
        let top = split_outside(line, b',').next().unwrap_or(line);
        writer = writer.header("Via", via_with_source(top.trim(), source));
        let rest = line[top.len()..].trim_start_matches([',', ' ', '\t']);
        if Via::is_list(rest) {
            writer = writer.header("Via", rest);
        }
    }
    // What is no hop leads nowhere.
    writer = vias.filter(|line| Via::is_list(line)).fold(writer, |writer, line| writer.header("Via", line));
    if code < 300 && code > 100 {
        for route in request.headers(Name::RecordRoute) {
            writer = writer.header("Record-Route", route);
        }
    }
    if let Some(from) = request.header(Name::From) {
        writer = writer.header("From", from);
    }
    if let Some(to) = request.header(Name::To) {
        writer = match to_tag {
            Some(tag) if request.to().is_none_or(|to| to.tag().is_none()) => {
                writer.header("To", format_args!("{};tag={tag}", without_tag(to)))
            }
            _ => writer.header("To", to),
        };
    }
    for (name, text) in [(Name::CallId, "Call-ID"), (Name::CSeq, "CSeq"), (Name::Timestamp, "Timestamp")] {
        if let Some(value) = request.header(name) {
            writer = writer.header(text, value);
        }
    }
    writer
}

/// A Via hop as it goes back: sender's parameters kept, `received` and a filled `rport` at the end (spec sip.md R1).
fn via_with_source(hop: &str, source: SocketAddr) -> String {
    let Some(via) = Via::parse(hop) else { return hop.to_owned() };
    let mut text = format!("{} {}", via.protocol, via.sent_by);
    for param in raw_params(via.params) {
        let name = Param::parse(param).name;
        if !["received", "rport"].iter().any(|ours| name.eq_ignore_ascii_case(ours)) {
            let _ = write!(text, ";{param}");
        }
    }
    let host: Option<IpAddr> = via.host.trim_matches(['[', ']']).parse().ok();
    if via.wants_rport() || host != Some(source.ip()) {
        let _ = write!(text, ";received={}", source.ip());
    }
    if via.wants_rport() {
        let _ = write!(text, ";rport={}", source.port());
    }
    text
}

/// RFC 3261 §21 and successors; the class's name for codes we do not send.
pub fn reason_phrase(code: u16) -> &'static str {
    match code {
        100 => "Trying",
        180 => "Ringing",
        181 => "Call Is Being Forwarded",
        182 => "Queued",
        183 => "Session Progress",
        200 => "OK",
        202 => "Accepted",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        413 => "Request Entity Too Large",
        415 => "Unsupported Media Type",
        416 => "Unsupported URI Scheme",
        420 => "Bad Extension",
        421 => "Extension Required",
        422 => "Session Interval Too Small",
        423 => "Interval Too Brief",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        483 => "Too Many Hops",
        484 => "Address Incomplete",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        489 => "Bad Event",
        491 => "Request Pending",
        500 => "Server Internal Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        505 => "Version Not Supported",
        513 => "Message Too Large",
        600 => "Busy Everywhere",
        603 => "Decline",
        604 => "Does Not Exist Anywhere",
        606 => "Not Acceptable",
        other => match other / 100 {
            1 => "Progress",
            2 => "Success",
            3 => "Redirection",
            4 => "Client Error",
            5 => "Server Error",
            _ => "Global Failure",
        },
    }
}
