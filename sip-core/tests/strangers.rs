//! An endpoint and senders that mean no good: nothing they send is remembered, and a full table refuses only what is new.

#![allow(clippy::disallowed_methods)] // a test needs some instant to begin at

use bytes::Bytes;
use sip_core::endpoint::{Capacity, Endpoint, Event, Headers, Identity, Out};
use sip_core::flow::{Flow, Transport};
use sip_core::token::Tokens;
use std::time::{Duration, Instant};

fn endpoint() -> Endpoint {
    Endpoint::new(
        Identity { product: "test".into(), public_host: None, allow: "INVITE", supported: "", session_expires: None },
        Tokens::new(0, [1; 32]),
    )
}

fn receive(endpoint: &mut Endpoint, now: Instant, text: &str) -> Out {
    let flow = Flow { transport: Transport::Udp, local: ([192, 0, 2, 1], 5060).into(), remote: ([192, 0, 2, 2], 5060).into() };
    let mut out = Out::default();
    endpoint.receive(now, flow, Bytes::copy_from_slice(text.as_bytes()), &mut out);
    out
}

fn request(method: &str, n: u32, to_tag: &str, more: &str) -> String {
    format!(
        "{method} sip:a@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.2;branch=z9hG4bK{n}\r\nFrom: <sip:b@x>;tag=1\r\n\
         To: <sip:a@x>{to_tag}\r\nCall-ID: {n}\r\nCSeq: 1 {method}\r\n{more}\r\n"
    )
}

fn code(out: &Out) -> Option<String> {
    out.transmits.first().map(|t| String::from_utf8_lossy(&t.bytes[8..11]).into_owned())
}

#[test]
fn invented_dialogs_and_cancels_cost_no_memory_and_one_answer() {
    let (mut endpoint, now) = (endpoint(), Instant::now());
    for (n, method) in ["INVITE", "BYE", "INFO", "UPDATE"].into_iter().enumerate() {
        assert_eq!(code(&receive(&mut endpoint, now, &request(method, n as u32, ";tag=invented", ""))).as_deref(), Some("481"));
    }
    assert_eq!(code(&receive(&mut endpoint, now, &request("CANCEL", 9, "", ""))).as_deref(), Some("481"));
    assert!(receive(&mut endpoint, now, &request("ACK", 10, ";tag=invented", "")).transmits.is_empty());
    let mut out = Out::default();
    endpoint.timeout(now + Duration::from_secs(60), &mut out);
    assert!(out.transmits.is_empty(), "nothing is repeated (D-15)");
    assert_eq!(endpoint.sizes(), (0, 0, 0));
}

#[test]
fn scraps_are_dropped_and_no_answer_is_much_larger_than_its_request() {
    let (mut endpoint, now) = (endpoint(), Instant::now());
    let scrap = request("OPTIONS", 1, "", "").replace("CSeq: 1 OPTIONS\r\n", "");
    assert_eq!(code(&receive(&mut endpoint, now, &scrap)), None);
    let long = format!("Content-Length: 9\r\nSubject: {}\r\n", "x".repeat(200));
    assert_eq!(code(&receive(&mut endpoint, now, &request("OPTIONS", 2, "", &long))).as_deref(), Some("400"));
    // A hundred hops in the short form come back in the long one.
    let hops = "v:SIP/2.0/UDP a\r\n".repeat(100);
    let text =
        request("BYE", 3, ";tag=invented", "").replace("Via: ", &format!("v:SIP/2.0/UDP b;branch=z9hG4bKx\r\n{hops}Via: "));
    assert_eq!(code(&receive(&mut endpoint, now, &text)), None);
    assert_eq!(endpoint.counters()["answer_too_large"], 1);
}

#[test]
fn full_tables_refuse_what_is_new_and_serve_what_lives() {
    let (mut endpoint, now) = (endpoint(), Instant::now());
    endpoint.capacity = Capacity { servers: 16, clients: 10, legs: 2 };
    let mut tags = Vec::new();
    for n in 0..2 {
        let out = receive(&mut endpoint, now, &request("INVITE", n, "", ""));
        let Some(Event::Request { tx, .. }) = out.events.into_iter().next() else { panic!("an INVITE") };
        let (leg, mut out) = (endpoint.take(tx).unwrap(), Out::default());
        endpoint.answer(now, leg, 180, &Headers::new(), None, &mut out);
        let text = String::from_utf8_lossy(&out.transmits[0].bytes).into_owned();
        tags.push(text.lines().find_map(|line| line.strip_prefix("To: <sip:a@x>")).unwrap().to_owned());
    }
    let third = receive(&mut endpoint, now, &request("INVITE", 2, "", ""));
    assert_eq!(code(&third).as_deref(), Some("503"), "legs are full");
    assert!(String::from_utf8_lossy(&third.transmits[0].bytes).contains("\r\nRetry-After: 5\r\n"));
    for n in 10..40 {
        receive(&mut endpoint, now, &request("OPTIONS", n, "", ""));
    }
    assert_eq!(endpoint.sizes(), (16, 0, 2));
    assert_eq!(endpoint.counters()["table_full_legs"], 1);
    assert_eq!(endpoint.counters()["table_full_transactions_in"], 16);
    let info = request("INFO", 50, &tags[0], "").replace("Call-ID: 50", "Call-ID: 0").replace("CSeq: 1", "CSeq: 2");
    let info = receive(&mut endpoint, now, &info);
    assert!(matches!(info.events.first(), Some(Event::LegRequest { .. })), "the dialogs of live legs go on");
    let cancel = receive(&mut endpoint, now, &request("CANCEL", 1, "", ""));
    assert_eq!(code(&cancel).as_deref(), Some("200"), "and so does their end");
}
