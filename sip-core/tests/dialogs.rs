//! What dialogs do beyond a plain call: 100rel, session timers, glare, merged requests, a leg that moves. Two endpoints on a
//! wire that loses what the test says, in virtual time.

#![allow(clippy::disallowed_methods)] // a test needs some instant to begin at

mod wire;

use bytes::Bytes;
use sip_core::endpoint::{Event, Headers, LegId, TxId};
use sip_core::message::{Message, Method, Name};
use std::time::Duration;
use wire::{SDP, Wire, answer, endpoint_that, flow};

fn reliable(lose: impl FnMut(&str) -> bool + 'static) -> Wire {
    let mut wire = Wire::new(lose);
    (wire.a, wire.b) = (endpoint_that(1, "100rel", None), endpoint_that(2, "100rel", None));
    wire
}

/// Loses the first `count` lines that begin so.
fn first(what: &'static str, mut count: u32) -> impl FnMut(&str) -> bool {
    move |line| {
        let hit = line.starts_with(what) && count > 0;
        count -= u32::from(hit);
        hit
    }
}

/// Answers every PRACK at `b` with 200, as its user does.
fn accept_pracks(wire: &mut Wire) {
    let pracks: Vec<TxId> = wire.b_events.iter().filter_map(prack).collect();
    for tx in pracks {
        wire.b(|b, now, out| b.respond(now, tx, 200, &Headers::new(), None, out));
    }
}

fn prack(event: &Event) -> Option<TxId> {
    match event {
        Event::LegRequest { tx, request, .. } if request.method() == Some(&Method::Prack) => Some(*tx),
        _ => None,
    }
}

fn talk(wire: &mut Wire) -> (LegId, LegId) {
    let leg = wire.call();
    let there = wire.take();
    answer(wire, there, 200);
    wire.b_events.clear();
    (leg, there)
}

/// The request `b` got last.
fn got(wire: &mut Wire) -> (LegId, TxId, Message) {
    match wire.b_events.pop() {
        Some(Event::LegRequest { leg, tx, request, .. }) => (leg, tx, request),
        other => panic!("no request but {other:?}"),
    }
}

#[test]
fn a_reliable_183_is_acknowledged_and_the_2xx_waits_for_it() {
    let mut wire = reliable(|_| false);
    let leg = wire.call();
    let there = wire.take();
    answer(&mut wire, there, 183);
    // The PRACK is there but not answered yet.
    assert_eq!((wire.count("a PRACK"), wire.count("b SIP/2.0 183")), (1, 1));
    accept_pracks(&mut wire);
    answer(&mut wire, there, 200);
    wire.run(Duration::from_secs(20));
    assert_eq!(
        wire.log,
        ["a INVITE", "b SIP/2.0 183 Session Progress", "a PRACK", "b SIP/2.0 200 OK", "b SIP/2.0 200 OK", "a ACK"]
    );
    assert!(matches!(wire.a_events[..], [Event::Progress { .. }, Event::Answered { .. }]));
    let Event::Progress { response, .. } = &wire.a_events[0] else { unreachable!() };
    assert!(response.has_option(Name::Require, "100rel") && response.other_header("RSeq").is_some());
    wire.a(|a, now, out| a.end(now, leg, Headers::new(), out));
    let (leg, tx, _) = got(&mut wire);
    wire.b(|b, now, out| b.accept_bye(now, leg, tx, out));
    wire.assert_nothing_left();
}

#[test]
fn a_lost_183_or_prack_is_repeated_and_heard_once() {
    for lost in ["b SIP/2.0 183", "a PRACK"] {
        let mut wire = reliable(first(lost, 3));
        wire.call();
        let there = wire.take();
        answer(&mut wire, there, 183);
        answer(&mut wire, there, 200);
        for _ in 0..40 {
            wire.run(Duration::from_millis(250));
            accept_pracks(&mut wire);
        }
        let heard = wire.a_events.iter().filter(|e| matches!(e, Event::Progress { .. })).count();
        let answers = wire.a_events.iter().filter(|e| matches!(e, Event::Answered { .. })).count();
        assert_eq!((heard, answers), (1, 1), "{lost}: {:#?}", wire.log);
        let order: Vec<usize> = ["a PRACK", "a ACK"].iter().filter_map(|m| wire.log.iter().rposition(|l| l == m)).collect();
        assert!(order[0] < order[1], "the 200 came before its PRACK: {:#?}", wire.log);
    }
}

#[test]
fn the_183_is_repeated_in_doubling_intervals_and_given_up_after_64_t1() {
    let mut wire = reliable(|line| line.starts_with("a PRACK"));
    wire.call();
    let there = wire.take();
    answer(&mut wire, there, 183);
    wire.run(Duration::from_millis(31_900));
    assert_eq!(wire.count("b SIP/2.0 183"), 7, "0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5 s");
    wire.run(Duration::from_millis(200));
    assert_eq!(wire.count("b SIP/2.0 504"), 1);
    assert!(matches!(wire.b_events.last(), Some(Event::NotAcknowledged { .. })));
    assert!(matches!(wire.a_events.last(), Some(Event::Refused { code: 504, .. })));
    wire.assert_nothing_left();
}

#[test]
fn a_refusal_does_not_wait_for_the_prack() {
    let mut wire = reliable(|line| line.starts_with("a PRACK"));
    wire.call();
    let there = wire.take();
    answer(&mut wire, there, 183);
    answer(&mut wire, there, 486);
    assert!(matches!(wire.a_events.last(), Some(Event::Refused { code: 486, .. })));
    wire.assert_nothing_left();
    assert_eq!(wire.count("b SIP/2.0 183"), 1);
}

#[test]
fn a_200_that_crosses_the_cancel_is_ended_with_a_number_above_the_pracks() {
    let mut wire = reliable(|line| line == "a CANCEL");
    let leg = wire.call();
    let there = wire.take();
    answer(&mut wire, there, 183);
    accept_pracks(&mut wire);
    wire.a(|a, now, out| a.end(now, leg, Headers::new(), out));
    answer(&mut wire, there, 200);
    let (leg, tx, bye) = got(&mut wire);
    assert_eq!((bye.method(), bye.cseq().map(|cseq| cseq.number)), (Some(&Method::Bye), Some(3)), "INVITE 1, PRACK 2");
    wire.b(|b, now, out| b.accept_bye(now, leg, tx, out));
    wire.assert_nothing_left();
}

#[test]
fn whoever_does_not_know_100rel_gets_plain_responses() {
    for (caller, called) in [("", "100rel"), ("100rel", "")] {
        let mut wire = reliable(|_| false);
        (wire.a, wire.b) = (endpoint_that(1, caller, None), endpoint_that(2, called, None));
        wire.call();
        let there = wire.take();
        answer(&mut wire, there, 183);
        answer(&mut wire, there, 200);
        assert_eq!((wire.count("a PRACK"), wire.count("a ACK")), (0, 1));
    }
}

#[test]
fn a_prack_for_nothing_is_481_and_a_leap_of_rseq_is_not_acknowledged() {
    let mut wire = reliable(|_| false);
    let leg = wire.call();
    let there = wire.take();
    answer(&mut wire, there, 183);
    accept_pracks(&mut wire);
    let stray = vec![("RAck", "1 1 INVITE".to_owned())];
    wire.a(|a, now, out| a.request(now, leg, &Method::Prack, &stray, None, out));
    assert_eq!(wire.b.counters()["prack_without_response"], 1);
    assert_eq!(wire.count("b SIP/2.0 481"), 1);
    // A 183 out of order: the one between is missing.
    let Some(Event::Progress { response, .. }) = wire.a_events.first() else { panic!("no 183") };
    let rseq: u32 = response.other_header("RSeq").unwrap().parse().unwrap();
    let text = String::from_utf8_lossy(response.bytes()).replace(&format!("RSeq: {rseq}"), &format!("RSeq: {}", rseq + 2));
    wire.a(|a, now, out| a.receive(now, flow(1, 2), Bytes::from(text), out));
    assert_eq!((wire.a.counters()["rseq_out_of_order"], wire.count("a PRACK")), (1, 2));
}

#[test]
fn without_an_offer_the_answer_goes_into_prack_or_ack() {
    for supported in ["100rel", ""] {
        let mut wire = Wire::new(|_| false);
        (wire.a, wire.b) = (endpoint_that(1, supported, None), endpoint_that(2, supported, None));
        let leg = wire.call_with(b"");
        let there = wire.take();
        if !supported.is_empty() {
            answer(&mut wire, there, 183);
            wire.a(|a, now, out| a.accept_offer(now, leg, b"v=1\r\n", out));
            let (_, tx, request) = got(&mut wire);
            assert_eq!((request.method(), request.body()), (Some(&Method::Prack), &b"v=1\r\n"[..]));
            wire.b(|b, now, out| b.respond(now, tx, 200, &Headers::new(), None, out));
        }
        answer(&mut wire, there, 200);
        if supported.is_empty() {
            assert_eq!(wire.count("a ACK"), 0, "the ACK waits for our answer");
            wire.a(|a, now, out| a.accept_offer(now, leg, b"v=1\r\n", out));
        }
        let Some(Event::Confirmed { ack, .. }) = wire.b_events.last() else { panic!("{:?}", wire.b_events) };
        assert_eq!(ack.body(), if supported.is_empty() { &b"v=1\r\n"[..] } else { b"" });
    }
}

#[test]
fn two_reinvites_that_cross_are_491() {
    let mut wire = reliable(|_| false);
    let (leg, there) = talk(&mut wire);
    wire.b(|b, now, out| b.reinvite(now, there, Headers::new(), SDP.1, out));
    assert!(wire.b(|b, now, out| b.reinvite(now, there, Headers::new(), SDP.1, out)).is_none(), "one at a time");
    wire.a(|a, now, out| a.reinvite(now, leg, Headers::new(), SDP.1, out));
    assert_eq!((wire.b.counters()["glare"], wire.count("b SIP/2.0 491")), (1, 1));
    assert!(
        matches!(wire.a_events.last(), Some(Event::Response { method: Method::Invite, response: Some(r), .. }) if r.code() == Some(491))
    );
    // An UPDATE without an offer crosses nothing, one with an offer does.
    wire.a(|a, now, out| a.request(now, leg, &Method::Update, &Headers::new(), Some(SDP), out));
    assert_eq!(wire.b.counters()["glare"], 2);
    wire.a(|a, now, out| a.request(now, leg, &Method::Update, &Headers::new(), None, out));
    assert_eq!(got(&mut wire).2.method(), Some(&Method::Update));
}

#[test]
fn a_reinvite_is_answered_acknowledged_and_a_lost_2xx_comes_again() {
    let mut wire = Wire::new(first("a ACK", 0));
    let (leg, _) = talk(&mut wire);
    wire.lose = Box::new(first("a ACK", 2));
    wire.a(|a, now, out| a.reinvite(now, leg, Headers::new(), SDP.1, out));
    let (_, tx, request) = got(&mut wire);
    assert_eq!(request.method(), Some(&Method::Invite));
    wire.b(|b, now, out| b.respond(now, tx, 200, &Headers::new(), Some(SDP), out));
    wire.run(Duration::from_secs(10));
    assert!(matches!(wire.b_events.last(), Some(Event::Confirmed { .. })));
    let answers = wire.a_events.iter().filter(|e| matches!(e, Event::Response { method: Method::Invite, .. })).count();
    assert_eq!((answers, wire.count("a ACK")), (1, 4), "{:#?}", wire.log);
    wire.a(|a, now, out| a.end(now, leg, Headers::new(), out));
    let (leg, tx, _) = got(&mut wire);
    wire.b(|b, now, out| b.accept_bye(now, leg, tx, out));
    wire.assert_nothing_left();
}

#[test]
fn the_second_invite_before_the_first_is_answered_is_500_with_retry_after() {
    let mut wire = Wire::new(|_| false);
    wire.call();
    let Some(Event::Request { tx, request, .. }) = wire.b_events.pop() else { panic!("no INVITE") };
    let there = wire.b.take(tx).unwrap();
    answer(&mut wire, there, 183);
    let Some(Event::Progress { response, .. }) = wire.a_events.last() else { panic!("no 183") };
    let to = response.header(Name::To).unwrap().to_owned();
    let text = String::from_utf8_lossy(request.bytes()).replace("z9hG4bK", "z9hG4bKx").replace("CSeq: 1", "CSeq: 2");
    let text = text.replace(&format!("To: {}", request.header(Name::To).unwrap()), &format!("To: {to}"));
    wire.b(|b, now, out| b.receive(now, flow(2, 1), Bytes::from(text), out));
    assert_eq!((wire.b.counters()["invite_inside_invite"], wire.count("b SIP/2.0 500")), (1, 1));
}

#[test]
fn the_callers_timer_is_agreed_refreshed_by_it_and_the_silent_end_is_noticed() {
    let mut wire = Wire::new(|_| false);
    (wire.a, wire.b) = (endpoint_that(1, "timer", Some(90)), endpoint_that(2, "timer", None));
    let (_, _) = talk(&mut wire);
    let Some(Event::Answered { response, .. }) = wire.a_events.last() else { panic!("not answered") };
    assert_eq!(response.other_header("Session-Expires"), Some("90;refresher=uac"));
    assert!(response.has_option(Name::Require, "timer"));
    for round in 1..=3 {
        wire.run(Duration::from_secs(45));
        let (_, tx, request) = got(&mut wire);
        assert_eq!((request.method(), request.body()), (Some(&Method::Update), &b""[..]), "round {round}");
        wire.b(|b, now, out| b.respond(now, tx, 200, &Headers::new(), None, out));
    }
    // From now on the network is dead: both sides end it, a little before the interval does.
    wire.lose = Box::new(|_| true);
    wire.run(Duration::from_secs(59));
    assert!(!wire.b_events.iter().any(|e| matches!(e, Event::Expired { .. })));
    wire.run(Duration::from_secs(20));
    assert!(wire.b_events.iter().any(|e| matches!(e, Event::Expired { .. })));
    assert!(wire.a_events.iter().any(|e| matches!(e, Event::Expired { .. })));
    wire.assert_nothing_left();
}

#[test]
fn a_peer_that_knows_no_update_is_refreshed_by_an_invite_with_the_same_description() {
    let mut wire = Wire::new(|_| false);
    (wire.a, wire.b) = (wire::endpoint_with(1, "INVITE", "timer", None), endpoint_that(2, "timer", Some(120)));
    talk(&mut wire);
    // The called side asked; the caller refreshes, for it is the one who knows how.
    wire.run(Duration::from_millis(60_100));
    assert_eq!(wire.count("a UPDATE"), 1);
    let mut wire = Wire::new(|_| false);
    (wire.a, wire.b) = (endpoint_that(1, "timer", Some(120)), wire::endpoint_with(2, "INVITE", "timer", None));
    talk(&mut wire);
    wire.run(Duration::from_millis(60_100));
    let (_, _, request) = got(&mut wire);
    assert_eq!((request.method(), request.body()), (Some(&Method::Invite), SDP.1));
    assert_eq!(request.other_header("Session-Expires"), Some("120;refresher=uac"));
}

#[test]
fn an_interval_below_90_seconds_is_422_inside_a_dialog() {
    let mut wire = Wire::new(|_| false);
    (wire.a, wire.b) = (endpoint_that(1, "timer", None), endpoint_that(2, "timer", None));
    let (leg, _) = talk(&mut wire);
    let headers = vec![("Session-Expires", "60".to_owned())];
    wire.a(|a, now, out| a.request(now, leg, &Method::Update, &headers, None, out));
    let Some(Event::Response { response: Some(response), .. }) = wire.a_events.last() else { panic!("no answer") };
    assert_eq!((response.code(), response.other_header("Min-SE")), (Some(422), Some("90")));
}

#[test]
fn copies_and_loops_are_482() {
    let mut wire = Wire::new(|_| false);
    wire.call();
    let Some(Event::Request { request, .. }) = wire.b_events.last().cloned() else { panic!("no INVITE") };
    let text = String::from_utf8_lossy(request.bytes()).into_owned();
    let copy = text.replace("z9hG4bK", "z9hG4bKother");
    wire.b(|b, now, out| b.receive(now, flow(2, 1), Bytes::from(copy), out));
    assert_eq!((wire.b.counters()["merged_request"], wire.count("b SIP/2.0 482")), (1, 1));
    // What `a` sent comes back to it through somebody who put a Via on top.
    let loops = text.replacen("Via: ", "Via: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bKproxy\r\nVia: ", 1);
    for text in [loops, text] {
        wire.a(|a, now, out| a.receive(now, flow(1, 2), Bytes::from(text), out));
    }
    assert_eq!(wire.a.counters()["loop"], 2);
    assert!(wire.a_events.is_empty());
}

#[test]
fn a_leg_moves_to_another_flow_once_its_peer_is_known() {
    let mut wire = Wire::new(|_| false);
    let (leg, there) = talk(&mut wire);
    let elsewhere = flow(2, 9);
    wire.lose = Box::new(|line| line.starts_with("a UPDATE"));
    let mut sent = sip_core::endpoint::Out::default();
    wire.a.request(wire.now, leg, &Method::Update, &Headers::new(), None, &mut sent);
    let bytes = sent.transmits[0].bytes.clone();
    wire.b(|b, now, out| b.receive(now, elsewhere, bytes.clone(), out));
    let Some(Event::LegRequest { tx, same_flow: false, .. }) = wire.b_events.pop() else { panic!("not heard") };
    assert_eq!(wire.b.leg_flow(there), Some(flow(2, 1)), "nothing moves before the peer is known");
    // A stranger's request costs the peer no sequence number.
    wire.b(|b, now, out| b.adopt(now, tx, out));
    let Some(Event::LegRequest { tx, same_flow: true, .. }) = wire.b_events.pop() else { panic!("not adopted") };
    wire.b(|b, now, out| b.respond(now, tx, 200, &Headers::new(), None, out));
    assert_eq!(wire.b.leg_flow(there), Some(elsewhere));
}
