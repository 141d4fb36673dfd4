//! What two readers could take for two different messages. We read one way or not at all, and what we write from what we
//! read (the response, the BYE of its dialog) reads the same again.

#![allow(clippy::disallowed_methods)] // a dialog needs some instant to begin at

#[path = "../../fuzz/src/message.rs"]
mod target;

use bytes::Bytes;
use sip_core::message::{Fault, Message, Name};

/// An INVITE with one thing exchanged for another.
fn invite(from: &str, to: &str) -> Vec<u8> {
    let text = "INVITE sip:1202@doors.example SIP/2.0\r\n\
        Via: SIP/2.0/UDP 192.0.2.7:5060;branch=z9hG4bK1;rport\r\n\
        From: \"Door\" <sip:door@doors.example>;tag=a\r\n\
        To: <sip:1202@doors.example>\r\n\
        Call-ID: call\r\n\
        CSeq: 1 INVITE\r\n\
        Contact: <sip:door@192.0.2.7:5060>\r\n\
        Content-Type: application/sdp\r\n\
        Content-Length: 5\r\n\
        \r\n\
        v=0\r\n";
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1).into_bytes()
}

fn read(bytes: &[u8]) -> Result<Message, Fault> {
    let message = Message::parse(Bytes::copy_from_slice(bytes))?;
    message.validate().map(|()| message)
}

/// What is there, what stands there instead, how it is read, and why.
type Row = (&'static str, &'static str, Result<(), Fault>, &'static str);

const TABLE: &[Row] = &[
    ("Call-ID:", "Call-ID :", Ok(()), "a blank before the colon is HCOLON (RFC 3261 §25.1)"),
    ("Call-ID:", "Call-ID\t:", Ok(()), "a tab as well"),
    ("Call-ID:", "Call ID:", Err(Fault::HeaderLine), "a blank inside a name"),
    ("Call-ID:", " Call-ID:", Err(Fault::To), "a folded line belongs to the line before it"),
    ("Call-ID: call", "Call-ID:\r\n call", Ok(()), "folding (§7.3.1)"),
    ("From:", "Subject: x\r\n\tFrom:", Err(Fault::From), "a folded From is part of the Subject"),
    ("Call-ID: call", "i: call", Ok(()), "a compact name (§20)"),
    ("Call-ID: call", "cALL-iD: call", Ok(()), "names have no case (§7.3.1)"),
    ("Call-ID: call", "Call-ID: call\r\ni: other", Err(Fault::Duplicate), "compact and long form are one header"),
    ("To: <", "t: <sip:x@doors.example>\r\nTo: <", Err(Fault::Duplicate), "the same"),
    ("Content-Length: 5", "Content-Length: 5\r\nContent-Length: 5", Err(Fault::Duplicate), "twice, though equal"),
    ("Content-Length: 5", "Content-Length: 5\r\nl: 0", Err(Fault::Duplicate), "twice and different"),
    ("Content-Length: 5", "Content-Length: 5, 5", Err(Fault::ContentLength), "a list"),
    ("Content-Length: 5", "Content-Length: +5", Err(Fault::ContentLength), "a sign"),
    ("Content-Length: 5", "Content-Length: -5", Err(Fault::ContentLength), "negative"),
    ("Content-Length: 5", "Content-Length: 0x5", Err(Fault::ContentLength), "not decimal"),
    ("Content-Length: 5", "Content-Length:", Err(Fault::ContentLength), "empty"),
    ("Content-Length: 5", "Content-Length: 99999999999999999999999", Err(Fault::ContentLength), "does not fit"),
    ("Content-Length: 5", "Content-Length: 005", Ok(()), "leading zeros are digits"),
    ("Content-Length: 5", "Content-Length: 6", Err(Fault::ContentLength), "the body is shorter (§18.3)"),
    ("Content-Length: 5", "Content-Length: 3", Ok(()), "the body is longer: the rest is not ours (§18.3)"),
    ("Content-Length: 5\r\n", "", Ok(()), "none: the body ends with the datagram (§18.3)"),
    ("Call-ID: call", "Call-ID: ca\0ll", Err(Fault::LineBreak), "a NUL, where C ends a string"),
    ("\"Door\"", "\"Do\\\0or\"", Ok(()), "an escaped NUL is text (RFC 4475 §3.1.1.2)"),
    ("Call-ID: call\r\n", "Call-ID: call\r", Err(Fault::LineBreak), "a bare CR"),
    ("Call-ID: call\r\n", "Call-ID: call\n", Err(Fault::LineBreak), "a bare LF"),
    ("Call-ID: call", "Call-ID: call\rEvil: 1", Err(Fault::LineBreak), "a bare CR inside a value"),
    ("Call-ID: call", "Call-ID: call\nEvil: 1", Err(Fault::LineBreak), "a bare LF inside a value"),
    ("\r\n\r\nv=0\r\n", "\r\n", Err(Fault::Truncated), "no end of the head"),
    ("\r\n\r\nv=0\r\n", "\n\nv=0\r\n", Err(Fault::Truncated), "an end of the head that is none"),
    ("CSeq: 1 INVITE", "CSeq: +1 INVITE", Err(Fault::CSeq), "a sign"),
    ("CSeq: 1 INVITE", "CSeq: 1 BYE", Err(Fault::CSeq), "another method"),
    ("CSeq: 1 INVITE", "CSeq: 1 invite", Err(Fault::CSeq), "methods have case (§7.1)"),
    ("CSeq: 1 INVITE", "CSeq: 2147483648 INVITE", Err(Fault::CSeq), "2³¹ (§8.1.1.5)"),
    ("INVITE sip", "invite sip", Err(Fault::CSeq), "another method"),
    (";tag=a", ";tag=\"a;tag=b\"", Err(Fault::From), "a tag that would end where we write it"),
    (";tag=a", ";tag=a,b", Err(Fault::From), "the same"),
    ("To: <sip:1202@doors.example>", "To: <sip:1202@doors.example>;tag=", Ok(()), "an empty tag is none"),
    ("<sip:1202@doors.example>\r\nC", "\"x <sip:1202@doors.example>\r\nC", Err(Fault::To), "a quote that never ends"),
    ("<sip:1202@doors.example>\r\nC", "sip:1202@doors.example?a=b\r\nC", Err(Fault::To), "headers without brackets (§20.10)"),
    (";rport", ";x=\"a;branch=z9hG4bK2\";rport", Ok(()), "a quoted semicolon stays in its quotes"),
    (";rport", ";x=\"a, SIP/2.0/UDP evil;branch=z9hG4bK2\"", Ok(()), "a quoted comma makes no hop"),
    (";tag=a", ";tag=a;x=\"", Err(Fault::From), "what we write behind it would be quoted"),
    (";rport", ";rport,", Err(Fault::ViaList), "an empty hop"),
    (";rport", ";;rport", Err(Fault::ViaList), "an empty parameter"),
    ("192.0.2.7:5060;b", "192.0.2.7:+5060;b", Err(Fault::Via), "a sign in a port"),
    ("192.0.2.7:5060;b", "192.0.2.7:65536;b", Err(Fault::Via), "no port"),
    ("192.0.2.7:5060;b", "192\".0.2.7:5060;x=\"b", Err(Fault::Via), "a quote that begins in the host and ends in a parameter"),
    ("192.0.2.7:5060;b", "192.0.2.7 : 5060;b", Ok(()), "blanks around the colon (§20.42)"),
    ("<sip:door@192.0.2.7:5060>", "<sip:door@192.0.2.7:5060?Subject=x>", Ok(()), "a contact's headers are never sent (§19.1.5)"),
    ("SIP/2.0\r\n", "SIP/2.0 SIP/2.0\r\n", Err(Fault::RequestUri), "a blank in the Request-URI"),
    ("SIP/2.0\r\n", "SIP/2.1\r\n", Err(Fault::Version), "another version"),
];

#[test]
fn everything_ambiguous_is_read_one_way_or_refused() {
    for &(from, to, expected, why) in TABLE {
        let bytes = invite(from, to);
        assert_eq!(read(&bytes).map(|_| ()), expected, "{to:?}: {why}");
        target::run(&bytes);
    }
}

#[test]
fn what_is_read_is_what_was_meant() {
    let value = |from: &str, to: &str, name| read(&invite(from, to)).unwrap().header(name).unwrap_or_default().to_owned();
    assert_eq!(value("Call-ID: call", "Call-ID\t:  \r\n\t call", Name::CallId), "call");
    assert_eq!(value("\"Door\"", "\"Do\\\0or\"", Name::From), "\"Do\\?or\" <sip:door@doors.example>;tag=a");
    let longer = read(&invite("Content-Length: 5", "Content-Length: 3")).unwrap();
    assert_eq!(longer.body(), b"v=0");
    let folded = read(&invite("To: <", "Subject: x\r\n\tEvil: 1\r\nTo: <")).unwrap();
    assert_eq!((folded.other_header("subject"), folded.other_header("evil")), (Some("x  \tEvil: 1"), None));
}

#[test]
fn bytes_that_are_no_text_are_question_marks() {
    // Latin-1, an overlong slash, half a character, a surrogate: none is UTF-8 (RFC 3629 §3).
    for odd in [&b"\xe9"[..], b"\xc0\xaf", b"\xe2\x82", b"\xed\xa0\x80", b"\xff\xfe"] {
        let mut bytes = invite("\"Door\"", "\"D##r\"");
        let at = bytes.windows(2).position(|two| two == b"##").unwrap();
        bytes.splice(at..at + 2, odd.iter().copied());
        let message = read(&bytes).unwrap();
        assert_eq!(message.from().unwrap().display, format!("D{}r", "?".repeat(odd.len())));
        target::run(&bytes);
    }
}

#[test]
fn hostile_sizes_are_named() {
    let many = "X: y\r\n".repeat(10_000) + "Call-ID:";
    assert_eq!(read(&invite("Call-ID:", &many)).err(), Some(Fault::HeadTooLarge));
    let many = "X:\r\n".repeat(300) + "Call-ID:";
    assert_eq!(read(&invite("Call-ID:", &many)).err(), Some(Fault::TooManyHeaders));
    let long = format!("\"{}\"", "x".repeat(64 * 1024));
    assert_eq!(read(&invite("\"Door\"", &long)).err(), Some(Fault::HeadTooLarge));
    // The body has its own limits.
    let body = format!("\r\n\r\n{}", "x".repeat(40_000));
    let long = String::from_utf8(invite("\r\n\r\nv=0\r\n", &body)).unwrap().replace("Length: 5", "Length: 40000");
    assert_eq!(read(long.as_bytes()).unwrap().body().len(), 40_000);
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    /// Characters that mean something somewhere, and some that do not.
    fn value() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            5 => prop::sample::select(vec![
                "\"", "\\", "<", ">", ";", ",", ":", "@", "?", "=", " ", "\t", "\r\n ", "\r\n", "\r", "\n", "\\\0", "%", "%00", "[", "]",
                "sip:", "tag=", ";tag=a", "branch=", "SIP/2.0/UDP ", "<sip:a@b>", "SIP/2.0/UDP h;branch=z9hG4bKx", "é", "\u{a0}",
                "Evil: 1", "1", "INVITE", "/", "*", "rport", "received=1", "lr",
            ])
            .prop_map(str::to_owned),
            1 => "[a-z0-9]{1,4}",
        ];
        prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn no_value_becomes_another_or_a_line_of_its_own(
            which in prop::sample::select(vec!["Via", "From", "To", "Call-ID", "CSeq", "Contact"]),
            text in value(),
            added in any::<bool>(),
            more in value(),
        ) {
            let line = format!("{which}: ");
            let written = if added { format!("{line}{text}\r\nRecord-Route: {more}\r\nX: ") } else { format!("{line}{text};") };
            target::run(&invite(&line, &written));
            let written = if added { format!("{line}{text}\r\nX: ") } else { format!("{line}{text} <sip:x@y>;tag=z;{more}\r\nX:") };
            target::run(&invite(&line, &written));
        }
    }
}
