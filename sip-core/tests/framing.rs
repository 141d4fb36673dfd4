//! Streams: messages are found whatever way the bytes arrive, and nothing a peer sends makes us hold more than a message.

use bytes::Bytes;
use proptest::prelude::*;
use sip_core::framing::{Fault, Frame, Framer, MAX_MESSAGE};
use sip_core::message::Message;

const HEAD: &str =
    "Via: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bK1;rport\r\nFrom: <sip:a@x>;tag=1\r\nTo: <sip:b@x>\r\nCall-ID: c1\r\n";

fn message(method: &str, extra: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("{method} sip:b@x SIP/2.0\r\n{HEAD}CSeq: 1 {method}\r\n{extra}Content-Length: {length}\r\n\r\n{body}").into_bytes()
}

fn framer() -> Framer {
    Framer::new(([192, 0, 2, 7], 4711).into())
}

/// All frames, and how the stream ended.
fn frames(chunks: &[&[u8]]) -> (Vec<Frame>, Option<(Fault, Option<Bytes>)>) {
    let (mut framer, mut frames) = (framer(), Vec::new());
    for chunk in chunks {
        framer.push(chunk);
        loop {
            match framer.pop() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(broken) => return (frames, Some((broken.fault, broken.answer))),
            }
        }
        assert!(framer.held() <= MAX_MESSAGE, "bounded");
    }
    (frames, None)
}

fn whole(bytes: &[u8]) -> Frame {
    Frame::Message(Bytes::copy_from_slice(bytes))
}

#[test]
fn messages_and_keep_alives_come_out_at_every_split() {
    let (first, second) = (message("INVITE", "", "v=0\r\n\r\nx"), message("BYE", "l: 0\r\n", "").to_vec());
    // The second one says its length twice: use it without.
    let second = String::from_utf8(second).expect("text").replace("l: 0\r\n", "").into_bytes();
    let stream = [b"\r\n\r\n".as_slice(), &first, b"\r\n", &second, b"\r\n\r\n"].concat();
    let wanted = vec![Frame::Ping, whole(&first), Frame::Pong, whole(&second), Frame::Ping];
    for a in 0..=stream.len() {
        assert_eq!(frames(&[&stream[..a], &stream[a..]]), (wanted.clone(), None), "split at {a}");
    }
    let one_by_one: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(frames(&one_by_one), (wanted, None));
}

#[test]
fn the_compact_form_and_blanks_before_the_colon_are_the_same_length() {
    for name in ["l: ", "Content-Length : ", "CONTENT-LENGTH:\t"] {
        let text = format!("OPTIONS sip:b@x SIP/2.0\r\n{HEAD}CSeq: 1 OPTIONS\r\n{name}3\r\n\r\nabc");
        assert_eq!(frames(&[text.as_bytes()]), (vec![whole(text.as_bytes())], None), "{name}");
    }
}

/// Bytes, the fault, and the status of the answer (0: none).
#[test]
fn what_is_too_much_or_unreadable_ends_the_stream_under_a_name() {
    let start = |method: &str| format!("{method} sip:b@x SIP/2.0\r\n{HEAD}CSeq: 1 {method}\r\n");
    let table: Vec<(&str, String, Fault, u16)> = vec![
        ("no length", start("INVITE") + "\r\n", Fault::Length, 400),
        ("two lengths", start("INVITE") + "Content-Length: 0\r\nl: 0\r\n\r\n", Fault::Length, 400),
        ("a negative length", start("INVITE") + "Content-Length: -1\r\n\r\n", Fault::Length, 400),
        ("a signed length", start("INVITE") + "Content-Length: +1\r\n\r\n", Fault::Length, 400),
        ("an endless length", start("INVITE") + "Content-Length: 99999999999999999999999\r\n\r\n", Fault::Length, 400),
        ("1 MiB", start("INVITE") + "Content-Length: 1048576\r\n\r\n", Fault::BodyTooLong, 413),
        ("1 MiB of an ACK", start("ACK") + "Content-Length: 1048576\r\n\r\n", Fault::BodyTooLong, 0),
        ("all but the largest", start("INVITE") + &format!("Content-Length: {}\r\n\r\n", usize::MAX), Fault::BodyTooLong, 413),
        ("a header of 64 KiB", start("INVITE") + "X: " + &"x".repeat(65_536), Fault::HeadTooLong, 513),
        ("its first header of 64 KiB", "INVITE sip:b@x SIP/2.0\r\nX: ".to_owned() + &"x".repeat(65_536), Fault::HeadTooLong, 0),
        ("10,000 headers", start("INVITE") + &"X: 1\r\n".repeat(10_000) + "\r\n", Fault::Garbage, 0),
        ("a start line without end", "INVITE ".to_owned() + &"x".repeat(70_000), Fault::HeadTooLong, 0),
        ("HTTP", "GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), Fault::Garbage, 0),
        ("TLS", "\u{16}\u{3}\u{1}".to_owned(), Fault::Garbage, 0),
        ("NUL in the head", start("INVITE") + "X: \0\r\n\r\n", Fault::Garbage, 0),
        ("a bare LF", start("INVITE") + "X: a\nContent-Length: 0\r\n\r\n", Fault::Garbage, 0),
        ("a bare CR before it", "\rINVITE".to_owned(), Fault::Garbage, 0),
    ];
    for (name, text, fault, code) in table {
        let (before, end) = frames(&text.as_bytes().chunks(4096).collect::<Vec<_>>());
        let Some((found, answer)) = end else { panic!("{name}: goes on with {before:?}") };
        assert_eq!((before, found), (vec![], fault), "{name}");
        let answer = answer.map(|bytes| Message::parse(bytes).expect("our own answer"));
        assert_eq!(answer.as_ref().and_then(Message::code).unwrap_or(0), code, "{name}");
        if let Some(answer) = answer {
            assert!(answer.to().and_then(|to| to.tag()).is_some() && answer.call_id() == Some("c1"), "{name}");
            assert!(answer.header(sip_core::message::Name::Via).is_some_and(|via| via.ends_with("rport=4711")), "{name}");
        }
    }
}

#[test]
fn the_largest_message_passes_and_one_byte_more_does_not() {
    let head = message("INVITE", "", "").len() + 4;
    let body = MAX_MESSAGE - head;
    let fits = message("INVITE", "", &"b".repeat(body));
    assert_eq!(fits.len(), MAX_MESSAGE);
    assert_eq!(frames(&fits.chunks(1000).collect::<Vec<_>>()), (vec![whole(&fits)], None));
    let over = message("INVITE", "", &"b".repeat(body + 1));
    assert_eq!(frames(&[&over]).1.map(|(fault, _)| fault), Some(Fault::BodyTooLong));
}

#[test]
fn it_knows_whether_a_message_is_begun() {
    let mut framer = framer();
    for (bytes, amid) in [("\r\n", false), ("INV", true)] {
        framer.push(bytes.as_bytes());
        while let Ok(Some(_)) = framer.pop() {}
        assert_eq!(framer.is_amid_message(), amid);
    }
}

proptest! {
    /// Any list of messages in any chunks is that list.
    #[test]
    fn chunks_do_not_matter(bodies in prop::collection::vec("[a-z\r\n]{0,40}", 1..6), cuts in prop::collection::vec(1usize..200, 1..40)) {
        let messages: Vec<Vec<u8>> = bodies.iter().map(|body| message("MESSAGE", "", body)).collect();
        let stream = messages.concat();
        let mut chunks = Vec::new();
        let (mut rest, mut cuts) = (stream.as_slice(), cuts.iter().cycle());
        while !rest.is_empty() {
            let (chunk, tail) = rest.split_at((*cuts.next().unwrap_or(&1)).min(rest.len()));
            chunks.push(chunk);
            rest = tail;
        }
        let wanted = messages.iter().map(|message| whole(message)).collect::<Vec<_>>();
        prop_assert_eq!(frames(&chunks), (wanted, None));
    }

    /// Garbage neither panics nor grows, and what came out of it is what the parser reads too.
    #[test]
    fn garbage_ends_or_waits(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..30), lead in any::<bool>()) {
        let mut chunks = chunks;
        if lead {
            chunks.insert(0, format!("INVITE sip:b@x SIP/2.0\r\n{HEAD}").into_bytes());
        }
        let (found, _) = frames(&chunks.iter().map(Vec::as_slice).collect::<Vec<_>>());
        for frame in found {
            if let Frame::Message(bytes) = frame {
                prop_assert!(Message::parse(bytes).is_ok());
            }
        }
    }
}
