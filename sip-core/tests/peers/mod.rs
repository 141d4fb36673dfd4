//! The other readers: rsip 0.4 and ezk-sip-types 0.6, each through its typed headers.

use ezk_sip_types::header::typed::{CSeq, CallID, Contact, FromTo, Via};
use ezk_sip_types::msg::{Incomplete, Line, MessageLine, PullParser};
use ezk_sip_types::parse::Parse as _;
use ezk_sip_types::uri::{SipUri, SipUriUserPart};
use ezk_sip_types::{Headers, Name};
use rsip::headers::ToTypedHeader as _;
use rsip::message::HeadersExt as _;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::panic::catch_unwind;

/// What a reader makes of a message, field by field.
pub type Reading = BTreeMap<&'static str, String>;

type Reader = fn(&[u8]) -> Result<Reading, String>;

pub const ALL: [(&str, Reader); 2] = [("rsip", rsip), ("ezk", ezk)];

/// `host[:port]`, addresses in one spelling.
pub fn address(host: &str, port: Option<u16>) -> String {
    let bare = host.trim_matches(['[', ']']);
    let host = bare.parse::<IpAddr>().map_or_else(|_| host.to_ascii_lowercase(), |ip| ip.to_string());
    port.map_or_else(|| host.clone(), |port| format!("{host} port {port}"))
}

pub fn uri(user: Option<&str>, host: &str, port: Option<u16>) -> String {
    format!("{}@{}", user.unwrap_or_default(), address(host, port))
}

fn rsip(bytes: &[u8]) -> Result<Reading, String> {
    catch_unwind(|| rsip_unguarded(bytes)).unwrap_or_else(|_| Err("panic".into()))
}

fn rsip_unguarded(bytes: &[u8]) -> Result<Reading, String> {
    let message = rsip::SipMessage::try_from(bytes).map_err(|error| error.to_string())?;
    let odd = |error: rsip::Error| format!("unreadable: {error}");
    let of = |parsed: &rsip::Uri| uri(parsed.user(), &parsed.host().to_string(), parsed.port().map(|port| *port.value()));
    let start = match &message {
        rsip::SipMessage::Request(request) => (request.method.to_string(), of(&request.uri)),
        rsip::SipMessage::Response(response) => (format!("{:?}", Some(response.status_code.code())), String::new()),
    };
    let via = message.via_header().and_then(|via| via.typed()).map_err(odd);
    let from = message.from_header().and_then(|from| from.typed()).map_err(odd);
    let to = message.to_header().and_then(|to| to.typed()).map_err(odd);
    let cseq = message.cseq_header().and_then(|cseq| cseq.typed()).map_err(odd);
    let contact = message.contact_headers().first().map(|contact| contact.typed().map_err(odd));
    let text = |result: Result<String, String>| result.unwrap_or_else(|error| error);
    Ok(Reading::from([
        ("start", start.0),
        ("request_uri", start.1),
        ("via", text(via.clone().map(|via| of(&via.uri).trim_start_matches('@').to_owned()))),
        ("branch", text(via.map(|via| via.branch().map_or_else(String::new, |branch| branch.value().to_owned())))),
        ("from", text(from.clone().map(|from| of(&from.uri)))),
        ("from_tag", text(from.map(|from| from.tag().map_or_else(String::new, |tag| tag.value().to_owned())))),
        ("to", text(to.clone().map(|to| of(&to.uri)))),
        ("to_tag", text(to.map(|to| to.tag().map_or_else(String::new, |tag| tag.value().to_owned())))),
        ("call_id", text(message.call_id_header().map(|id| rsip::headers::UntypedHeader::value(id).to_owned()).map_err(odd))),
        ("cseq", text(cseq.map(|cseq| format!("{} {}", cseq.seq, cseq.method)))),
        ("contact", contact.map_or_else(String::new, |contact| text(contact.map(|contact| of(&contact.uri))))),
        ("body", message.body().escape_ascii().to_string()),
    ]))
}

fn ezk(bytes: &[u8]) -> Result<Reading, String> {
    catch_unwind(|| ezk_unguarded(bytes)).unwrap_or_else(|_| Err("panic".into()))
}

fn ezk_unguarded(bytes: &[u8]) -> Result<Reading, String> {
    let source = bytes::Bytes::copy_from_slice(bytes);
    let mut parser = PullParser::new(&source, 0);
    // Its values are views of `source`: so must be the text they are read from.
    fn text(line: Option<Result<&[u8], Incomplete>>) -> Result<&str, String> {
        std::str::from_utf8(line.ok_or("empty")?.map_err(|_| "incomplete")?).map_err(|error| error.to_string())
    }
    let (_, start) = MessageLine::parse(&source)(text(parser.next())?).map_err(|error| error.to_string())?;
    let mut headers = Headers::new();
    for line in &mut parser {
        let (_, parsed) = Line::parse(&source, text(Some(line))?).map_err(|error| error.to_string())?;
        headers.insert(parsed.name, parsed.value);
    }
    let body = &bytes[parser.head_end().min(bytes.len())..];
    let length = headers.get_raw(&Name::CONTENT_LENGTH).next().and_then(|length| length.trim().parse().ok());
    let body = &body[..length.unwrap_or(body.len()).min(body.len())];
    let of = |parsed: &SipUri| {
        let user = match &parsed.user_part {
            SipUriUserPart::Empty => None,
            SipUriUserPart::User(user) => Some(user.to_string()),
            SipUriUserPart::UserPw(both) => Some(both.user.to_string()),
        };
        uri(user.as_deref(), &host(&parsed.host_port.host), parsed.host_port.port)
    };
    let odd = |error: ezk_sip_types::header::HeaderError| format!("unreadable: {error}");
    let via = headers.get_named::<Via>().map_err(odd);
    let from = headers.get::<FromTo>(Name::FROM).map_err(odd);
    let to = headers.get::<FromTo>(Name::TO).map_err(odd);
    let contact = headers.try_get_named::<Contact>().map(|contact| contact.map_err(odd));
    let say = |result: Result<String, String>| result.unwrap_or_else(|error| error);
    let (start, request_uri) = match &start {
        MessageLine::Request(line) => (line.method.to_string(), of(&line.uri)),
        MessageLine::Response(line) => (format!("{:?}", Some(line.code.into_u16())), String::new()),
    };
    Ok(Reading::from([
        ("start", start),
        ("request_uri", request_uri),
        ("via", say(via.as_ref().map(|via| address(&host(&via.sent_by.host), via.sent_by.port)).map_err(Clone::clone))),
        ("branch", say(via.map(|via| via.params.get_val("branch").map_or_else(String::new, ToString::to_string)))),
        ("from", say(from.as_ref().map(|from| of(&from.uri.uri)).map_err(Clone::clone))),
        ("from_tag", say(from.map(|from| from.tag.map_or_else(String::new, |tag| tag.to_string())))),
        ("to", say(to.as_ref().map(|to| of(&to.uri.uri)).map_err(Clone::clone))),
        ("to_tag", say(to.map(|to| to.tag.map_or_else(String::new, |tag| tag.to_string())))),
        ("call_id", say(headers.get_named::<CallID>().map(|id| id.0.to_string()).map_err(odd))),
        ("cseq", say(headers.get_named::<CSeq>().map(|cseq| format!("{} {}", cseq.cseq, cseq.method)).map_err(odd))),
        ("contact", contact.map_or_else(String::new, |contact| say(contact.map(|contact| of(&contact.uri.uri))))),
        ("body", body.escape_ascii().to_string()),
    ]))
}

fn host(host: &ezk_sip_types::host::Host) -> String {
    use ezk_sip_types::host::Host;
    match host {
        Host::IP6(ip) => ip.to_string(),
        Host::IP4(ip) => ip.to_string(),
        Host::Name(name) => name.to_string(),
    }
}
