//! Bytes → message; and what we write from a message reads the same: no value of it becomes another value or a header line
//! of its own (smuggling). The response to it, and the BYE of the dialog that it makes.

use bytes::Bytes;
use sip_core::endpoint::{Endpoint, Event, Headers, Identity, Out};
use sip_core::flow::{Flow, Transport};
use sip_core::message::{Message, Method, Name, NameAddr, Uri, respond, split_list};
use sip_core::token::Tokens;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const SOURCE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 77)), 5060);
const OURS: &str = "ourtag";

pub fn run(bytes: &[u8]) {
    let Ok(message) = Message::parse(Bytes::copy_from_slice(bytes)) else { return };
    let sound = message.validate().is_ok();
    let _ = (message.contact(), message.content_type(), message.other_header("x"), message.has_option(Name::Require, "100rel"));
    if message.method().is_some() && message.via().is_some() {
        for code in [100, 200, 400] {
            response_agrees(&message, sound, code);
        }
    }
    if sound && message.method() == Some(&Method::Invite) && message.to().is_some_and(|to| to.tag().is_none()) {
        bye_agrees(&message);
    }
}

/// How many header lines a message has.
fn lines(bytes: &[u8]) -> usize {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("an end of the head");
    bytes[..end].windows(2).filter(|two| two == b"\r\n").count()
}

fn response_agrees(message: &Message, sound: bool, code: u16) {
    let tag = (code > 100).then_some(OURS);
    let reply = respond(message, SOURCE, code, tag).finish();
    let again = Message::parse(reply.clone()).unwrap_or_else(|fault| panic!("{fault} in {}", reply.escape_ascii()));
    let copied = [Name::Via, Name::RecordRoute, Name::From, Name::To, Name::CallId, Name::CSeq, Name::Timestamp];
    let known: usize = copied.iter().map(|name| again.headers(*name).count()).sum();
    assert_eq!(known + 1, lines(&reply), "only what is copied, and Content-Length: {}", reply.escape_ascii());
    assert_eq!(again.body(), b"");
    if !sound {
        return;
    }
    assert_eq!(again.validate(), Ok(()), "{}", reply.escape_ascii());
    let party = |m: &Message, name| m.header(name).map(str::to_owned);
    assert_eq!(party(&again, Name::From), party(message, Name::From));
    assert_eq!((again.call_id(), again.cseq()), (message.call_id(), message.cseq()));
    let (to, sent) = (again.to().expect("a To"), message.to().expect("a To"));
    assert_eq!((to.uri, to.display), (sent.uri, sent.display));
    assert_eq!(to.tag(), sent.tag().or(tag));
    let (via, sent) = (again.via().expect("a Via"), message.via().expect("a Via"));
    assert_eq!((via.sent_by, via.branch(), via.protocol), (sent.sent_by, sent.branch(), sent.protocol));
    let hops = |m: &Message| m.headers(Name::Via).flat_map(split_list).skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(hops(&again), hops(message));
}

/// Takes the INVITE, answers it, and hangs up: the BYE goes to whom it came from.
fn bye_agrees(invite: &Message) {
    let flow = Flow { transport: Transport::Udp, local: ([192, 0, 2, 1], 5060).into(), remote: SOURCE };
    let (supported, session_expires) = ("100rel, timer", None);
    let identity = Identity { product: "fuzz".into(), public_host: None, allow: "INVITE", supported, session_expires };
    let mut endpoint = Endpoint::new(identity, Tokens::new(0, [1; 32]));
    let (mut now, mut out) = (Instant::now(), Out::default());
    endpoint.receive(now, flow, invite.bytes().clone(), &mut out);
    let Some(Event::Request { tx, .. }) = out.events.pop() else { panic!("a sound INVITE is an event") };
    let Some(leg) = endpoint.take(tx) else { return };
    endpoint.answer(now, leg, 200, &Headers::new(), None, &mut out);
    // Nobody acknowledges: a BYE after 32 s, and nothing is left (RFC 3261 §13.3.1.4).
    while let Some(at) = endpoint.next_deadline() {
        now = at.max(now + Duration::from_millis(1));
        endpoint.timeout(now, &mut out);
    }
    assert_eq!(endpoint.sizes(), (0, 0, 0));
    let bye = out.transmits.iter().rev().find(|transmit| transmit.bytes.starts_with(b"BYE ")).expect("a BYE").bytes.clone();
    let again = Message::parse(bye.clone()).unwrap_or_else(|fault| panic!("{fault} in {}", bye.escape_ascii()));
    let (to, from) = (again.to().expect("a To"), again.from().expect("a From"));
    let (sent_to, sent_from) = (invite.to().expect("a To"), invite.from().expect("a From"));
    assert_eq!((to.uri, to.tag(), to.display), (sent_from.uri, sent_from.tag(), sent_from.display), "{}", bye.escape_ascii());
    assert_eq!((from.uri, from.display), (sent_to.uri, sent_to.display));
    assert_eq!(again.call_id(), invite.call_id());
    let routes: Vec<&str> =
        invite.headers(Name::RecordRoute).flat_map(split_list).filter(|r| NameAddr::parse(r).is_some()).collect();
    let contact = invite.contact().map_or(sent_from.uri, |contact| contact.uri);
    if routes.is_empty() {
        let request_uri = again.request_uri().expect("a Request-URI");
        match (Uri::parse(request_uri), Uri::parse(contact)) {
            (Some(written), Some(read)) if ["sip", "sips"].contains(&&*read.scheme.to_ascii_lowercase()) => {
                assert_eq!(Uri { headers: "", ..read }, written)
            }
            _ => assert!(contact.starts_with(request_uri), "{contact} became {request_uri}"),
        }
    } else {
        assert_eq!(again.headers(Name::Route).flat_map(split_list).count(), routes.len(), "{}", bye.escape_ascii());
    }
    let known = [
        Name::Via,
        Name::MaxForwards,
        Name::Route,
        Name::From,
        Name::To,
        Name::CallId,
        Name::CSeq,
        Name::UserAgent,
        Name::Reason,
    ];
    let known: usize = known.iter().map(|name| again.headers(*name).count()).sum();
    assert_eq!(known + 1, lines(&bye), "{}", bye.escape_ascii());
}
