//! A call between two endpoints: answered, refused, cancelled, crossed, lost.

#![allow(clippy::disallowed_methods)] // a test needs some instant to begin at

mod wire;

use bytes::Bytes;
use sip_core::endpoint::{Endpoint, Event, Headers, LegId, Out, TxId};
use sip_core::flow::Transport;
use sip_core::message::{Message, Method, Name};
use std::time::{Duration, Instant};
use wire::{Wire, answer, endpoint, flow};

#[test]
fn call_is_answered_and_hung_up_and_nothing_is_left() {
    let mut wire = Wire::new(|_| false);
    let leg = wire.call();
    let there = wire.take();
    answer(&mut wire, there, 183);
    answer(&mut wire, there, 200);
    assert!(matches!(wire.a_events[..], [Event::Progress { .. }, Event::Answered { .. }]));
    assert!(matches!(wire.b_events[..], [Event::Confirmed { .. }]));
    wire.a(|a, now, out| a.end(now, leg, Headers::new(), out));
    let Some(Event::LegRequest { leg, tx, request, same_flow: true, .. }) = wire.b_events.pop() else { panic!("no BYE") };
    assert_eq!(request.method(), Some(&Method::Bye));
    wire.b(|b, now, out| b.accept_bye(now, leg, tx, out));
    assert_eq!(
        wire.log,
        ["a INVITE", "b SIP/2.0 183 Session Progress", "b SIP/2.0 200 OK", "a ACK", "a BYE", "b SIP/2.0 200 OK"]
    );
    wire.assert_nothing_left();
}

#[test]
fn three_losses_of_each_message_change_nothing() {
    for lost in ["a INVITE", "b SIP/2.0 200", "a ACK", "a BYE"] {
        let mut left = 3;
        let mut wire = Wire::new(move |line| {
            let hit = line.starts_with(lost) && left > 0;
            left -= usize::from(hit);
            hit
        });
        let leg = wire.call();
        wire.run(Duration::from_secs(8));
        let there = wire.take();
        answer(&mut wire, there, 183);
        answer(&mut wire, there, 200);
        wire.run(Duration::from_secs(10));
        assert_eq!(wire.a_events.iter().filter(|e| matches!(e, Event::Answered { .. })).count(), 1, "{lost}");
        assert_eq!(wire.b_events.iter().filter(|e| matches!(e, Event::Confirmed { .. })).count(), 1, "{lost}: {:#?}", wire.log);
        wire.a(|a, now, out| a.end(now, leg, Headers::new(), out));
        wire.run(Duration::from_secs(10));
        let Some(Event::LegRequest { leg, tx, .. }) = wire.b_events.pop() else { panic!("no BYE when {lost} is lost") };
        wire.b(|b, now, out| b.accept_bye(now, leg, tx, out));
        wire.assert_nothing_left();
    }
}

#[test]
fn cancel_waits_for_the_first_provisional_response() {
    let mut wire = Wire::new(|_| false);
    let leg = wire.call();
    let there = wire.take();
    wire.a(|a, now, out| a.end(now, leg, vec![("Reason", "SIP;cause=200".into())], out));
    assert_eq!(wire.count("a CANCEL"), 0);
    answer(&mut wire, there, 180);
    assert_eq!(wire.count("a CANCEL"), 1);
    assert!(matches!(wire.b_events[..], [Event::Cancelled { .. }]));
    assert!(wire.a_events.is_empty(), "a cancelled leg is forgotten");
    wire.assert_nothing_left();
}

#[test]
fn a_200_that_crosses_the_cancel_is_acked_and_ended() {
    // The 180 is lost until the 200 is on its way, so CANCEL and 200 cross.
    let mut wire = Wire::new(|line| line == "a CANCEL");
    let leg = wire.call();
    let there = wire.take();
    answer(&mut wire, there, 180);
    wire.a_events.clear();
    wire.a(|a, now, out| a.end(now, leg, Headers::new(), out));
    answer(&mut wire, there, 200);
    assert_eq!((wire.count("a ACK"), wire.count("a BYE")), (1, 1), "{:#?}", wire.log);
    assert!(wire.a_events.is_empty());
    let bye =
        wire.b_events.iter().rev().find_map(|e| if let Event::LegRequest { leg, tx, .. } = e { Some((*leg, *tx)) } else { None });
    let (leg, tx): (LegId, TxId) = bye.expect("BYE arrives");
    wire.b(|b, now, out| b.accept_bye(now, leg, tx, out));
    wire.assert_nothing_left();
}

#[test]
fn a_refusal_is_acknowledged_and_repeated_until_then() {
    let mut left = 2;
    let mut wire = Wire::new(move |line| {
        let hit = line == "a ACK" && left > 0;
        left -= usize::from(hit);
        hit
    });
    wire.call();
    let there = wire.take();
    answer(&mut wire, there, 603);
    wire.run(Duration::from_secs(5));
    assert_eq!(wire.count("b SIP/2.0 603"), 3);
    assert!(matches!(wire.a_events[..], [Event::Refused { code: 603, .. }]));
    wire.assert_nothing_left();
}

#[test]
fn a_dead_phone_is_a_408_after_32_seconds() {
    let mut wire = Wire::new(|_| true);
    wire.call();
    wire.run(Duration::from_secs(31));
    assert!(wire.a_events.is_empty());
    assert_eq!(wire.count("a INVITE"), 6, "timer A: 0, 0.5, 1.5, 3.5, 7.5, 15.5 s");
    wire.run(Duration::from_secs(2));
    assert!(matches!(wire.a_events[..], [Event::Refused { code: 408, response: None, .. }]));
    wire.assert_nothing_left();
}

#[test]
fn an_unacknowledged_200_ends_in_bye() {
    let mut wire = Wire::new(|line| line == "a ACK");
    wire.call();
    let there = wire.take();
    answer(&mut wire, there, 200);
    wire.run(Duration::from_millis(32_100));
    assert!(wire.b_events.iter().any(|e| matches!(e, Event::NotAcknowledged { .. })));
    assert_eq!(wire.count("b BYE"), 1);
}

#[test]
fn bye_waits_for_the_ack() {
    let mut left = 1;
    let mut wire = Wire::new(move |line| {
        let hit = line == "a ACK" && left > 0;
        left -= usize::from(hit);
        hit
    });
    wire.call();
    let there = wire.take();
    answer(&mut wire, there, 200);
    wire.b(|b, now, out| b.end(now, there, Headers::new(), out));
    assert_eq!(wire.count("b BYE"), 0);
    wire.run(Duration::from_millis(600));
    assert_eq!(wire.count("b BYE"), 1);
}

#[test]
fn requests_for_no_dialog_and_out_of_order_are_named() {
    let mut wire = Wire::new(|_| false);
    let leg = wire.call();
    let there = wire.take();
    answer(&mut wire, there, 200);
    wire.a(|a, now, out| a.request(now, leg, &Method::Info, &Headers::new(), None, out));
    let Some(Event::LegRequest { tx, request, .. }) = wire.b_events.pop() else { panic!("no INFO") };
    wire.b(|b, now, out| b.respond(now, tx, 200, &Headers::new(), None, out));
    assert!(matches!(wire.a_events.last(), Some(Event::Response { method: Method::Info, response: Some(_), .. })));
    // The same request under another branch is late: 500, no event.
    let text = String::from_utf8_lossy(request.bytes()).replace("z9hG4bK", "z9hG4bKother");
    wire.b(|b, now, out| b.receive(now, flow(2, 1), Bytes::from(text.clone()), out));
    assert_eq!(wire.b.counters()["cseq_out_of_order"], 1);
    let foreign = text.replace(";tag=", ";tag=x");
    wire.b(|b, now, out| b.receive(now, flow(2, 1), Bytes::from(foreign.replace("other", "third")), out));
    assert_eq!(wire.b.counters()["no_such_dialog"], 1);
    assert_eq!(wire.b_events.iter().filter(|e| matches!(e, Event::LegRequest { .. })).count(), 0);
}

#[test]
fn a_stateless_answer_to_a_repeat_has_the_same_tag() {
    let mut b = endpoint(2);
    let mut answer = |branch: &str, number: u32| {
        let text = format!(
            "OPTIONS sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:1;branch={branch}\r\nFrom: <sip:a@x>;tag=1\r\nTo: <sip:b@x>\r\n\
             Call-ID: c\r\nCSeq: {number} OPTIONS\r\n\r\n"
        );
        let mut out = Out::default();
        b.receive(Instant::now(), flow(2, 1), Bytes::from(text), &mut out);
        let Some(Event::Request { tx, .. }) = out.events.pop() else { panic!("no request") };
        b.respond_stateless(tx, 404, &Headers::new(), &mut out);
        assert_eq!(b.sizes(), (0, 0, 0), "nothing is remembered");
        Message::parse(out.transmits.remove(0).bytes).unwrap().to().unwrap().tag().unwrap().to_owned()
    };
    let first = answer("z9hG4bK1", 1);
    assert_eq!(answer("z9hG4bK1", 1), first);
    assert_ne!(answer("z9hG4bK2", 1), first);
    assert_ne!(answer("z9hG4bK1", 2), first);
}

#[test]
fn over_a_connection_nothing_is_repeated_but_the_2xx() {
    let mut wire = Wire::connected(|line| line == "a ACK");
    let leg = wire.call();
    wire.run(Duration::from_secs(20));
    let there = wire.take();
    answer(&mut wire, there, 180);
    wire.run(Duration::from_secs(20));
    answer(&mut wire, there, 200);
    wire.run(Duration::from_secs(2));
    wire.a(|a, now, out| a.request(now, leg, &Method::Info, &Headers::new(), None, out));
    wire.run(Duration::from_secs(20));
    let counts = ["a INVITE", "b SIP/2.0 180", "a INFO"].map(|what| wire.count(what));
    assert_eq!(counts, [1, 1, 1], "{:#?}", wire.log);
    assert!(wire.count("b SIP/2.0 200") > 3, "§13.3.1.4 asks for it over every transport");
}

#[test]
fn over_a_connection_a_transaction_is_over_with_its_answer() {
    let mut wire = Wire::connected(|_| false);
    wire.call();
    let there = wire.take();
    answer(&mut wire, there, 603);
    // Timers D, I, J and K are zero: nothing is kept for repeats that cannot come.
    wire.run(Duration::ZERO);
    assert_eq!((wire.a.sizes(), wire.b.sizes()), ((0, 0, 0), (0, 0, 0)), "{:#?}", wire.log);
}

#[test]
fn a_refusal_over_a_connection_still_waits_for_its_ack() {
    let mut wire = Wire::connected(|line| line == "a ACK");
    wire.call();
    let there = wire.take();
    answer(&mut wire, there, 603);
    wire.run(Duration::from_secs(40));
    assert_eq!(wire.count("b SIP/2.0 603"), 1, "no timer G");
    assert_eq!(wire.b.counters()["final_response_not_acknowledged"], 1);
    wire.assert_nothing_left();
}

#[test]
fn a_reset_while_it_rings_ends_both_sides_at_once() {
    for progress in [None, Some(180), Some(183)] {
        let mut wire = Wire::connected(|_| false);
        wire.call();
        let there = wire.take();
        progress.into_iter().for_each(|code| answer(&mut wire, there, code));
        wire.a_events.clear();
        wire.reset();
        assert!(matches!(wire.a_events[..], [Event::Refused { code: 503, response: None, .. }]), "{progress:?}");
        assert!(matches!(wire.b_events[..], [Event::Lost { .. }]), "{progress:?}");
        wire.assert_nothing_left();
    }
}

#[test]
fn an_answered_leg_outlives_its_connection_and_goes_on_over_another() {
    let mut wire = Wire::connected(|_| false);
    let leg = wire.call();
    let there = wire.take();
    answer(&mut wire, there, 200);
    wire.a(|a, now, out| a.request(now, leg, &Method::Info, &Headers::new(), None, out));
    let Some(Event::LegRequest { request, .. }) = wire.b_events.pop() else { panic!("no INFO") };
    wire.reset();
    assert!(matches!(wire.a_events.last(), Some(Event::Response { response: None, .. })), "the INFO has no answer");
    let info = |b: &mut Endpoint, now, out: &mut Out| b.request(now, there, &Method::Info, &Headers::new(), None, out);
    assert_eq!(wire.b(info), None, "nothing can be sent");
    // The same addresses again are another connection; what comes over it is not trusted to be the leg's own.
    let again = String::from_utf8_lossy(request.bytes()).replace("z9hG4bK", "z9hG4bKother").replace("CSeq: 2", "CSeq: 3");
    let old = wire.flow(2, 1);
    wire.b(|b, now, out| b.receive(now, old, Bytes::from(again), out));
    assert!(matches!(wire.b_events.pop(), Some(Event::LegRequest { same_flow: false, .. })), "it is its own");
    let new = wire.flow(2, 9);
    wire.b(|b, _, _| b.move_leg(there, new));
    let mut out = Out::default();
    let sent = info(&mut wire.b, wire.now, &mut out);
    assert!(sent.is_some() && out.transmits.iter().all(|transmit| transmit.flow == new));
    assert_eq!(wire.b.leg_flow(there), Some(new));
    // A late word about the old connection is not about this leg any more.
    wire.b(|b, now, out| b.flow_closed(now, &old, out));
    assert!(wire.b(info).is_some());
}

#[test]
fn contacts_and_vias_name_the_transport() {
    for (transport, via, contact) in [
        (Transport::Udp, "SIP/2.0/UDP 127.0.0.1:1;", "@127.0.0.1:1>"),
        (Transport::Tcp, "SIP/2.0/TCP 127.0.0.1:1;", "@127.0.0.1:1;transport=tcp>"),
        (Transport::Tls, "SIP/2.0/TLS 127.0.0.1:1;", "@127.0.0.1:1;transport=tls>"),
        (Transport::Ws, "SIP/2.0/WS 127.0.0.1:1;", "@127.0.0.1:1;transport=ws>"),
        (Transport::Wss, "SIP/2.0/WSS 127.0.0.1:1;", "@127.0.0.1:1;transport=ws>"),
    ] {
        let mut wire = Wire { transport, ..Wire::new(|_| false) };
        wire.call();
        let Some(Event::Request { request, .. }) = wire.b_events.pop() else { panic!("no INVITE") };
        let header = |name| request.header(name).unwrap_or_default();
        assert!(header(Name::Via).starts_with(via) && header(Name::Contact).ends_with(contact), "{transport}");
    }
}
