//! SIP messages (RFC 3261 §7, §25): one pass over the bytes, a table of header ranges, raw values kept, typed views on
//! demand. Unknown methods, headers and URIs are kept as they are.
//!
//! [`Message::parse`] splits and never judges meaning; [`Message::validate`] says what is wrong, so that a request that
//! can be answered is answered with a reason and everything else is dropped under a name.

mod headers;
mod name;
mod parse;
mod uri;
mod write;

pub(crate) use headers::without_tag;

pub use headers::{CSeq, NameAddr, Param, Via, params, split_list};
pub use name::{Method, Name};
pub use parse::Fault;
pub use uri::Uri;
pub use write::{Writer, reason_phrase, respond};

use bytes::Bytes;
use std::ops::Range;

/// A parsed message; cheap to clone.
#[derive(Clone, Debug)]
pub struct Message {
    bytes: Bytes,
    start: Start,
    headers: Vec<Header>,
    body: Range<usize>,
}

#[derive(Clone, Debug)]
enum Start {
    Request { method: Method, uri: Range<usize>, version_2: bool },
    Response { code: u16 },
}

#[derive(Clone, Debug)]
struct Header {
    name: Name,
    name_at: Range<usize>,
    value: Range<usize>,
}

impl Message {
    fn text(&self, range: &Range<usize>) -> &str {
        // The parser left only UTF-8 in the head; an empty string is the harmless answer to a broken promise.
        std::str::from_utf8(&self.bytes[range.clone()]).unwrap_or_default()
    }

    /// The method of a request; `None` for a response.
    pub fn method(&self) -> Option<&Method> {
        match &self.start {
            Start::Request { method, .. } => Some(method),
            Start::Response { .. } => None,
        }
    }

    /// The Request-URI; `None` for a response.
    pub fn request_uri(&self) -> Option<&str> {
        match &self.start {
            Start::Request { uri, .. } => Some(self.text(uri)),
            Start::Response { .. } => None,
        }
    }

    /// The status code of a response; `None` for a request.
    pub fn code(&self) -> Option<u16> {
        match self.start {
            Start::Request { .. } => None,
            Start::Response { code } => Some(code),
        }
    }

    pub fn body(&self) -> &[u8] {
        &self.bytes[self.body.clone()]
    }

    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The first value of a header, trimmed.
    pub fn header(&self, name: Name) -> Option<&str> {
        self.headers(name).next()
    }

    /// All header lines of that name, in order; a line may hold a comma list ([`split_list`]).
    pub fn headers(&self, name: Name) -> impl Iterator<Item = &str> {
        self.headers.iter().filter(move |h| h.name == name).map(|h| self.text(&h.value))
    }

    /// A header we have no [`Name`] for, by its text in any case.
    pub fn other_header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|h| h.name == Name::Other && self.text(&h.name_at).eq_ignore_ascii_case(name))?;
        Some(self.text(&found.value))
    }

    /// The topmost Via.
    pub fn via(&self) -> Option<Via<'_>> {
        Via::parse(split_list(self.header(Name::Via)?).next()?)
    }

    pub fn from(&self) -> Option<NameAddr<'_>> {
        NameAddr::parse(self.header(Name::From)?)
    }

    pub fn to(&self) -> Option<NameAddr<'_>> {
        NameAddr::parse(self.header(Name::To)?)
    }

    pub fn call_id(&self) -> Option<&str> {
        self.header(Name::CallId).filter(|id| !id.is_empty())
    }

    pub fn cseq(&self) -> Option<CSeq> {
        CSeq::parse(self.header(Name::CSeq)?)
    }

    /// The first contact; `*` is not one.
    pub fn contact(&self) -> Option<NameAddr<'_>> {
        NameAddr::parse(split_list(self.header(Name::Contact)?).next()?)
    }

    /// `Content-Length`, if it stands once and is a number.
    pub fn content_length(&self) -> Option<usize> {
        let mut lengths = self.headers(Name::ContentLength);
        let length = lengths.next().and_then(headers::digits)?;
        if lengths.next().is_some() { None } else { Some(length) }
    }

    /// `Content-Type` without parameters, trimmed.
    pub fn content_type(&self) -> Option<&str> {
        self.header(Name::ContentType).map(|v| v.split(';').next().unwrap_or(v).trim())
    }

    /// Does an option tag stand in this list header (`Supported`, `Require`)?
    pub fn has_option(&self, list: Name, tag: &str) -> bool {
        self.headers(list).flat_map(split_list).any(|t| t.eq_ignore_ascii_case(tag))
    }
}
