//! Messages: what is read, what is refused, what is written.

use bytes::Bytes;
use sip_core::message::{Fault, Message, Method, Name, NameAddr, Uri, Via, Writer, params, respond, split_list};

fn parse(text: &str) -> Result<Message, Fault> {
    let message = Message::parse(Bytes::from(text.replace('\n', "\r\n")))?;
    message.validate().map(|()| message)
}

/// Spec sip.md §2.1, request 1: no Content-Length, To without brackets, repeated Accept.
const REGISTER: &str = "REGISTER sip:sip.example.com SIP/2.0
Via: SIP/2.0/UDP 192.0.2.33:62039;branch=z9hG4bK.7jiHBl8Sm;rport
From: <sip:U1residentA00000000001@sip.example.com>;tag=nPfvQ6pKa
To: sip:U1residentA00000000001@sip.example.com
CSeq: 20 REGISTER
Call-ID: 7ay7mqUOym
Max-Forwards: 70
Supported: replaces, outbound
Accept: application/sdp
Accept: text/plain
Contact: <sip:U1residentA00000000001@192.0.2.33:62039;transport=udp>;+sip.instance=\"<urn:uuid:00000000-0000-4000-8000-000000000001>\"
Expires: 600
User-Agent: ExamplePhone/1.0

";

#[test]
fn reads_the_sample_register_and_answers_to_where_it_came_from() {
    let message = parse(REGISTER).unwrap();
    assert_eq!(message.method(), Some(&Method::Register));
    assert_eq!(message.to().unwrap().uri, "sip:U1residentA00000000001@sip.example.com");
    assert_eq!(message.from().unwrap().tag(), Some("nPfvQ6pKa"));
    assert_eq!(message.headers(Name::Accept).count(), 2);
    assert!(message.has_option(Name::Supported, "outbound"));
    let contact = message.contact().unwrap();
    assert_eq!(contact.param("+sip.instance").unwrap().value, Some("<urn:uuid:00000000-0000-4000-8000-000000000001>"));
    let reply = respond(&message, "198.51.100.62:62039".parse().unwrap(), 401, Some("as4fef1d8e")).finish();
    let text = String::from_utf8(reply.to_vec()).unwrap();
    assert!(
        text.contains("Via: SIP/2.0/UDP 192.0.2.33:62039;branch=z9hG4bK.7jiHBl8Sm;received=198.51.100.62;rport=62039\r\n"),
        "{text}"
    );
    assert!(text.contains("To: sip:U1residentA00000000001@sip.example.com;tag=as4fef1d8e\r\n"));
    assert!(text.ends_with("Content-Length: 0\r\n\r\n"));
}

#[test]
fn compact_folded_spaced_and_foreign_headers_are_read() {
    let message = parse(
        "OPTIONS sip:a@b SIP/2.0
v:SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKx
f : \"A, <b>\" <sip:a@b>;tag=1
t: <sip:c@d>
i: x
CSEQ: 1
 OPTIONS
subject: one
\ttwo
X-Odd: kept
l: 0

",
    )
    .unwrap();
    assert_eq!(message.from().unwrap().display, "A, <b>");
    assert_eq!(message.cseq().unwrap().method, Method::Options);
    assert_eq!(message.other_header("Subject"), Some("one  \ttwo"));
    assert_eq!(message.other_header("x-odd"), Some("kept"));
}

#[test]
fn faults_are_named() {
    let cases: &[(&str, Fault)] = &[
        ("\n\n", Fault::Empty),
        ("GET / HTTP/1.1\n\n", Fault::StartLine),
        ("OPTIONS sip:a@b SIP/3.0\nVia: SIP/3.0/UDP a;branch=z9hG4bKx\n\n", Fault::Version),
        ("OPTIONS sip:a@b SIP/2.0\nVia: SIP/2.0/UDP a;branch=z9hG4bKx\n", Fault::Truncated),
        ("OPTIONS sip:a@b SIP/2.0\n: x\n\n", Fault::HeaderLine),
        ("OPTIONS sip:a@b SIP/2.0\nTo: <sip:a@b>\n\n", Fault::Via),
        (
            "OPTIONS sip:a@b SIP/2.0\nVia: SIP/2.0/UDP a;branch=z9hG4bKx\nTo: <sip:a@b>\nFrom: <sip:c@d>;tag=1\nCSeq: 1 OPTIONS\n\n",
            Fault::CallId,
        ),
        (
            "OPTIONS sip:a@b SIP/2.0\nVia: SIP/2.0/UDP a;branch=z9hG4bKx\nTo: <sip:a@b>\nFrom: <sip:c@d>;tag=1\nCall-ID: x\nCSeq: 1 INVITE\n\n",
            Fault::CSeq,
        ),
        (
            "OPTIONS sip:a@b SIP/2.0\nVia: SIP/2.0/UDP a;branch=z9hG4bKx\nTo: <sip:a@b>\nFrom: <sip:c@d>;tag=1\nCall-ID: x\nCSeq: 1 OPTIONS\nContent-Length: 5\n\nabc",
            Fault::ContentLength,
        ),
        (
            "OPTIONS sip:a@b SIP/2.0\nVia: SIP/2.0/UDP a;branch=z9hG4bKx\nTo: <sip:a@b>\nTo: <sip:e@b>\nFrom: <sip:c@d>;tag=1\nCall-ID: x\nCSeq: 1 OPTIONS\n\n",
            Fault::Duplicate,
        ),
    ];
    for (text, fault) in cases {
        assert_eq!(parse(text).err(), Some(*fault), "{text}");
    }
    let smuggled = Bytes::from_static(b"OPTIONS sip:a@b SIP/2.0\r\nVia: x\nTo: y\r\n\r\n");
    assert_eq!(Message::parse(smuggled).err(), Some(Fault::LineBreak));
}

#[test]
fn bytes_beyond_content_length_are_not_the_body() {
    let text = "INFO sip:a@b SIP/2.0\nVia: SIP/2.0/UDP a;branch=z9hG4bKx\nTo: <sip:a@b>\nFrom: <sip:c@d>;tag=1\nCall-ID: x\nCSeq: 1 INFO\nContent-Length: 3\n\nabcdef";
    assert_eq!(parse(text).unwrap().body(), b"abc");
}

#[test]
fn a_value_cannot_smuggle_a_header() {
    let bytes = Writer::request(&Method::Info, "sip:a@b").header("Subject", "x\r\nEvil: 1").finish();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    assert!(text.contains("Subject: x  Evil: 1\r\n"), "{text}");
}

#[test]
fn views_read_what_devices_write() {
    assert_eq!(
        split_list("<sip:a@b;x=\"1,2\">, \"q,\" <sip:c@d>,e").collect::<Vec<_>>(),
        ["<sip:a@b;x=\"1,2\">", "\"q,\" <sip:c@d>", "e"]
    );
    assert_eq!(
        params(";a=1;b; c = \"x;y\"").map(|p| (p.name, p.value)).collect::<Vec<_>>(),
        [("a", Some("1")), ("b", None), ("c", Some("x;y"))]
    );
    let via = Via::parse("SIP / 2.0 / UDP [2001:db8::1]:5070 ;branch=z9hG4bK1; rport").unwrap();
    assert_eq!((via.host, via.port, via.branch(), via.wants_rport()), ("[2001:db8::1]", Some(5070), Some("z9hG4bK1"), true));
    let uri = Uri::parse("sip:door.main%20x:secret@[::1]:5080;transport=udp;lr?h=1").unwrap();
    assert_eq!(uri.user_decoded().as_deref(), Some("door.main x"));
    assert_eq!((uri.host, uri.port, uri.param("transport")), ("[::1]", Some(5080), Some("udp")));
    assert!(Uri::parse("sip:a b@c").is_none());
    assert!(NameAddr::parse("\"unclosed <sip:a@b>").is_none());
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(message) = Message::parse(Bytes::from(bytes)) {
                let _ = (message.validate(), message.via().is_some(), message.contact().is_some());
            }
        }

        #[test]
        fn no_changed_message_panics(at in 0usize..700, byte in any::<u8>(), cut in 0usize..700) {
            let mut bytes = REGISTER.replace('\n', "\r\n").into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            let cut = cut.min(bytes.len());
            for piece in [Bytes::copy_from_slice(&bytes), Bytes::copy_from_slice(&bytes[..cut])] {
                if let Ok(message) = Message::parse(piece) && message.validate().is_ok() {
                    let reply = respond(&message, "127.0.0.1:5060".parse().unwrap(), 400, Some("t")).finish();
                    prop_assert!(Message::parse(reply).is_ok());
                }
            }
        }
    }
}
