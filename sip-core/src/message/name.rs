//! Method and header names: the ones we act on, and room for all others.

use std::fmt;

/// Methods are case-sensitive (RFC 3261 §7.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    Invite,
    Ack,
    Bye,
    Cancel,
    Register,
    Options,
    Info,
    Update,
    Prack,
    Message,
    Notify,
    Subscribe,
    Refer,
    Publish,
    Other(Box<str>),
}

impl Method {
    pub fn from_text(text: &str) -> Method {
        match text {
            "INVITE" => Method::Invite,
            "ACK" => Method::Ack,
            "BYE" => Method::Bye,
            "CANCEL" => Method::Cancel,
            "REGISTER" => Method::Register,
            "OPTIONS" => Method::Options,
            "INFO" => Method::Info,
            "UPDATE" => Method::Update,
            "PRACK" => Method::Prack,
            "MESSAGE" => Method::Message,
            "NOTIFY" => Method::Notify,
            "SUBSCRIBE" => Method::Subscribe,
            "REFER" => Method::Refer,
            "PUBLISH" => Method::Publish,
            other => Method::Other(other.into()),
        }
    }

    pub fn as_str(&self) -> &str {
        match self {
            Method::Invite => "INVITE",
            Method::Ack => "ACK",
            Method::Bye => "BYE",
            Method::Cancel => "CANCEL",
            Method::Register => "REGISTER",
            Method::Options => "OPTIONS",
            Method::Info => "INFO",
            Method::Update => "UPDATE",
            Method::Prack => "PRACK",
            Method::Message => "MESSAGE",
            Method::Notify => "NOTIFY",
            Method::Subscribe => "SUBSCRIBE",
            Method::Refer => "REFER",
            Method::Publish => "PUBLISH",
            Method::Other(text) => text,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Header names we act on, in long or compact form; the rest is [`Name::Other`] and keeps its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Name {
    Accept,
    Allow,
    Authorization,
    CallId,
    Contact,
    ContentLength,
    ContentType,
    CSeq,
    Expires,
    From,
    MaxForwards,
    Path,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyRequire,
    Reason,
    RecordRoute,
    Require,
    Route,
    Supported,
    Timestamp,
    To,
    UserAgent,
    Via,
    WwwAuthenticate,
    Other,
}

impl Name {
    /// RFC 3261 §7.3.1 (case-insensitive) and §20 (compact forms).
    pub fn from_text(text: &str) -> Name {
        const NAMES: [(&str, Name); 33] = [
            ("via", Name::Via),
            ("v", Name::Via),
            ("from", Name::From),
            ("f", Name::From),
            ("to", Name::To),
            ("t", Name::To),
            ("call-id", Name::CallId),
            ("i", Name::CallId),
            ("cseq", Name::CSeq),
            ("contact", Name::Contact),
            ("m", Name::Contact),
            ("content-length", Name::ContentLength),
            ("l", Name::ContentLength),
            ("content-type", Name::ContentType),
            ("c", Name::ContentType),
            ("max-forwards", Name::MaxForwards),
            ("expires", Name::Expires),
            ("path", Name::Path),
            ("authorization", Name::Authorization),
            ("proxy-authorization", Name::ProxyAuthorization),
            ("www-authenticate", Name::WwwAuthenticate),
            ("proxy-authenticate", Name::ProxyAuthenticate),
            ("user-agent", Name::UserAgent),
            ("supported", Name::Supported),
            ("k", Name::Supported),
            ("require", Name::Require),
            ("proxy-require", Name::ProxyRequire),
            ("route", Name::Route),
            ("record-route", Name::RecordRoute),
            ("reason", Name::Reason),
            ("allow", Name::Allow),
            ("accept", Name::Accept),
            ("timestamp", Name::Timestamp),
        ];
        // Length and first letter rule out nearly all of them without a comparison of strings.
        let (length, first) = (text.len(), text.as_bytes().first().map_or(0, u8::to_ascii_lowercase));
        let alike = |known: &str| known.len() == length && known.as_bytes()[0] == first && text.eq_ignore_ascii_case(known);
        NAMES.iter().find(|(known, _)| alike(known)).map_or(Name::Other, |(_, name)| *name)
    }
}
