//! What the Switchboard answers to single requests, message by message: tables of methods, extensions and senders.

mod world;

use bytes::Bytes;
use fixtures::net::Weather;
use intercom_api::model::AccountType;
use intercom_api::turn::{Effect, Publication};
use sip_core::digest::Challenge;
use sip_core::flow::{Flow, Transport};
use sip_core::message::{Message, Name};
use std::net::SocketAddr;
use std::time::Duration;
use world::device::{Device, Habit, password};
use world::{SERVER, World};

const SDP: &str = "v=0\r\no=- 1 1 IN IP4 10.0.9.9\r\ns=-\r\nc=IN IP4 10.0.9.9\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 8\r\n";
const DOOR: [u8; 4] = [10, 0, 9, 9];

/// One sender of raw requests, and what the server sent to it.
struct Sender<'a> {
    world: &'a mut World,
    ip: [u8; 4],
    account: &'a str,
    cseq: u32,
}

fn house() -> World {
    let mut world = World::new(
        Weather::FAIR,
        1,
        &[("d1", AccountType::Door), ("p1", AccountType::App), ("p2", AccountType::App), ("p3", AccountType::App)],
    );
    for (host, name) in [(11, "p1"), (12, "p2")] {
        world.add(Device::new(name, host, Habit::Early, u64::from(host)));
        world.act(name, |device, now| device.register(now));
    }
    world.run(Duration::from_secs(1));
    world
}

impl Sender<'_> {
    fn new<'a>(world: &'a mut World, ip: [u8; 4], account: &'a str) -> Sender<'a> {
        Sender { world, ip, account, cseq: 0 }
    }

    /// Everything that leaves when this request arrives.
    fn raw(&mut self, text: String) -> Vec<(SocketAddr, Message)> {
        let flow = Flow { transport: Transport::Udp, local: SERVER, remote: (self.ip, 5060).into() };
        let mut effects = Vec::new();
        self.world.board.receive(self.world.now, flow, Bytes::from(text), &mut effects);
        let mut sent = Vec::new();
        for effect in effects {
            match effect {
                Effect::Send(transmit) => {
                    sent.push((transmit.flow.remote, Message::parse(transmit.bytes).expect("our own message")))
                }
                Effect::Publish(Publication::Call(view)) => drop(self.world.calls.insert(view.id.clone(), *view)),
                Effect::Publish(_) | Effect::Media { .. } => {}
            }
        }
        sent
    }

    fn text(&mut self, method: &str, to: &str, to_tag: &str, headers: &str, body: &str) -> String {
        self.cseq += 1;
        let (ip, account, cseq) = (std::net::Ipv4Addr::from(self.ip), self.account, self.cseq);
        format!(
            "{method} sip:{to}@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP {ip}:5060;branch=z9hG4bK{account}{method}{cseq}{ip};rport\r\n\
             From: <sip:{account}@10.0.0.1>;tag=t\r\nTo: <sip:{to}@10.0.0.1>{to_tag}\r\nCall-ID: call-of-{account}\r\n\
             CSeq: {cseq} {method}\r\nContact: <sip:{account}@{ip}>\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    fn ask(&mut self, method: &str, to: &str, to_tag: &str, headers: &str, body: &str) -> Message {
        let text = self.text(method, to, to_tag, headers, body);
        let own = (self.ip, 5060).into();
        let answers = self.raw(text).into_iter().filter(|(to, _)| *to == own);
        answers.map(|(_, message)| message).next_back().unwrap_or_else(|| panic!("no answer to {method}"))
    }

    /// The same with credentials, once it has been challenged.
    fn signed(&mut self, method: &str, to: &str, to_tag: &str, headers: &str, body: &str) -> Message {
        let (account, cseq) = (self.account, self.cseq);
        let challenged = self.ask(method, to, to_tag, headers, body);
        assert_eq!(challenged.code(), Some(407), "{method} of {account} {cseq}");
        let challenge = Challenge::parse(challenged.header(Name::ProxyAuthenticate).expect("a challenge")).expect("a challenge");
        let answer = challenge.answer(method, "sip:10.0.0.1", account, &password(account), "c", 1);
        self.ask(method, to, to_tag, &format!("Proxy-Authorization: {answer}\r\n{headers}"), body)
    }
}

fn code(message: Message) -> u16 {
    message.code().expect("a response")
}

#[test]
fn methods_outside_a_dialog() {
    let mut world = house();
    let table: [(&str, &str, u16); 15] = [
        ("OPTIONS", "", 200),
        ("OPTIONS", "Max-Forwards: 0\r\n", 200),
        ("INVITE", "Max-Forwards: 0\r\n", 483),
        ("INVITE", "", 407),
        ("MESSAGE", "", 407),
        ("REFER", "Refer-To: <sip:x@y>\r\n", 405),
        ("SUBSCRIBE", "Event: presence\r\n", 405),
        ("PUBLISH", "Event: presence\r\n", 405),
        ("NOTIFY", "Event: presence\r\nSubscription-State: active\r\n", 481),
        ("BYE", "", 481),
        ("INFO", "", 481),
        ("UPDATE", "", 481),
        ("PRACK", "RAck: 1 1 INVITE\r\n", 481),
        ("DANCE", "", 501),
        ("dance", "", 501),
    ];
    let mut sender = Sender::new(&mut world, DOOR, "d1");
    for signed in [false, true] {
        for (method, headers, expected) in table {
            let answer = sender.ask(method, "room", "", headers, "");
            let allow = answer.header(Name::Allow).map(str::to_owned);
            assert_eq!(code(answer), expected, "{method} {headers}");
            let wanted = signed && matches!(expected, 200 | 405);
            assert_eq!(allow.is_some(), wanted, "{method}: RFC 3261 §21.4.6 wants Allow, D-15 only for who has signed");
            assert!(allow.is_none_or(|allow| allow.contains("PRACK") && allow.contains("MESSAGE") && !allow.contains("REFER")));
        }
        sender.signed("MESSAGE", "nobody", "", "", "");
    }
}

#[test]
fn extensions_are_refused_by_name_and_short_sessions_with_the_shortest() {
    let mut world = house();
    let mut sender = Sender::new(&mut world, DOOR, "d1");
    let answer = sender.signed("INVITE", "room", "", "Require: 100rel, timer, telepathy\r\n", SDP);
    assert_eq!((answer.code(), answer.other_header("Unsupported")), (Some(420), Some("telepathy")));
    let answer = sender.signed("INVITE", "room", "", "Supported: timer\r\nSession-Expires: 60\r\n", SDP);
    assert_eq!((answer.code(), answer.other_header("Min-SE")), (Some(422), Some("90")));
    // Whoever does not know timers cannot be told.
    let answer = sender.signed("INVITE", "room", "", "Session-Expires: 60\r\nContent-Type: application/sdp\r\n", SDP);
    assert_eq!(answer.code(), Some(183));
}

#[test]
fn a_183_is_reliable_for_whoever_knows_that_and_no_other() {
    for (header, reliable) in
        [("", false), ("Supported: 100rel\r\n", true), ("Require: 100rel\r\n", true), ("k: timer\r\n", false)]
    {
        let mut world = house();
        let mut sender = Sender::new(&mut world, DOOR, "d1");
        let answer = sender.signed("INVITE", "room", "", header, SDP);
        assert_eq!(answer.code(), Some(183));
        assert_eq!(answer.has_option(Name::Require, "100rel"), reliable, "{header}");
        assert!(answer.has_option(Name::Supported, "100rel") && answer.has_option(Name::Supported, "timer"));
    }
}

#[test]
fn requests_in_the_early_dialog_of_a_door() {
    let mut world = house();
    let mut sender = Sender::new(&mut world, DOOR, "d1");
    let progress = sender.signed("INVITE", "room", "", "", SDP);
    let tag = format!(";tag={}", progress.to().and_then(|to| to.tag()).expect("one dialog from the first response on (D-01)"));
    let moved = SDP.replace("4000", "4010");
    let table: [(&str, &str, &str, u16); 10] = [
        ("OPTIONS", "", "", 200),
        ("UPDATE", "", "", 200),
        ("UPDATE", "", &moved, 200),
        ("UPDATE", "Require: telepathy\r\n", "", 420),
        ("UPDATE", "Supported: timer\r\nSession-Expires: 89\r\n", "", 422),
        ("INVITE", "", SDP, 500),
        ("PRACK", "RAck: 1 2 INVITE\r\n", "", 481),
        ("NOTIFY", "Event: refer\r\n", "", 481),
        ("REFER", "Refer-To: <sip:x@y>\r\n", "", 405),
        ("MESSAGE", "Content-Type: text/plain\r\n", "hello", 405),
    ];
    for (method, headers, body, expected) in table {
        let answer = sender.ask(method, "room", &tag, headers, body);
        assert_eq!(answer.other_header("Retry-After").is_some(), expected == 500, "{method}");
        assert_eq!(code(answer), expected, "{method} {headers}");
    }
    let answer = sender.ask("UPDATE", "room", &tag, "", &moved);
    assert!(answer.body().starts_with(b"v=0") && answer.contact().is_some());
    // The same again says the same: the version in its `o=` stays (RFC 3264 §8).
    assert_eq!(sender.ask("UPDATE", "room", &tag, "", &moved).body(), answer.body());
    assert_eq!(code(sender.ask("DANCE", "room", &tag, "", "")), 501);
    assert_eq!(code(sender.ask("BYE", "room", &tag, "", "")), 487, "the BYE's 200, then the INVITE's 487 (RFC 3261 §15.1.2)");
}

#[test]
fn a_request_from_elsewhere_is_served_once_it_is_the_legs_own_account() {
    let mut world = house();
    let mut door = Sender::new(&mut world, DOOR, "d1");
    let progress = door.signed("INVITE", "room", "", "", SDP);
    let tag = format!(";tag={}", progress.to().and_then(|to| to.tag()).expect("a tag"));
    let cseq = door.cseq;
    // Somebody else of this server who knows the dialog: From is not his, or the leg is not.
    let mut stranger = Sender { world: door.world, ip: [10, 0, 9, 10], account: "d1", cseq };
    let challenged = stranger.ask("INFO", "room", &tag, "", "");
    let challenge = Challenge::parse(challenged.header(Name::ProxyAuthenticate).expect("challenged")).expect("a challenge");
    let answer = challenge.answer("INFO", "sip:10.0.0.1", "p1", &password("p1"), "c", 1);
    assert_eq!(code(stranger.ask("INFO", "room", &tag, &format!("Proxy-Authorization: {answer}\r\n"), "")), 403);
    // The door itself from its new address: an INFO is served and moves nothing, an UPDATE moves the leg.
    assert_eq!(code(stranger.signed("INFO", "room", &tag, "", "")), 200);
    assert_eq!(code(stranger.ask("INFO", "room", &tag, "", "")), 407);
    assert_eq!(code(stranger.signed("UPDATE", "room", &tag, "", SDP)), 200);
    assert_eq!(code(stranger.ask("INFO", "room", &tag, "", "")), 200);
    let cseq = stranger.cseq;
    let mut old = Sender { world: stranger.world, ip: DOOR, account: "d1", cseq };
    assert_eq!(code(old.ask("INFO", "room", &tag, "", "")), 407, "the old address is elsewhere now");
}

#[test]
fn an_offerless_door_that_never_answers_our_offer_has_no_call() {
    for answer in ["", "v=0\r\nm=audio 0 RTP/AVP 0\r\n", "nonsense"] {
        let mut world = house();
        let mut door = Sender::new(&mut world, DOOR, "d1");
        let progress = door.signed("INVITE", "room", "", "Supported: 100rel\r\n", "");
        let tag = format!(";tag={}", progress.to().and_then(|to| to.tag()).expect("a tag"));
        assert!(progress.body().starts_with(b"v=0"), "our offer");
        let rack = format!("RAck: {} {} INVITE\r\n", progress.other_header("RSeq").expect("RSeq"), door.cseq);
        let text = door.text("PRACK", "room", &tag, &rack, answer);
        let codes: Vec<u16> =
            door.raw(text).into_iter().filter(|(to, _)| *to == (DOOR, 5060).into()).map(|(_, m)| code(m)).collect();
        assert_eq!(codes, [488, 488], "the PRACK's and the INVITE's");
        assert_eq!(world.board.running_calls(), 0);
    }
}

/// A door with raw requests talks to p1; gives its dialog's To-tag.
fn talking(door: &mut Sender<'_>) -> String {
    let progress = door.signed("INVITE", "room", "", "", SDP);
    let tag = format!(";tag={}", progress.to().and_then(|to| to.tag()).expect("a tag"));
    let cseq = door.cseq;
    door.world.run(Duration::from_secs(1));
    door.world.act("p1", |phone, now| phone.answer(now, 200));
    door.world.run(Duration::from_secs(1));
    acknowledge(door, cseq, &tag, "");
    assert_eq!(door.world.board.running_calls(), 1);
    tag
}

fn acknowledge(door: &mut Sender<'_>, cseq: u32, tag: &str, body: &str) -> Vec<(SocketAddr, Message)> {
    door.cseq = cseq - 1;
    let ack = door.text("ACK", "room", tag, "", body);
    door.raw(ack)
}

#[test]
fn a_reinvite_without_offer_gets_our_description_and_its_ack_answers_or_the_call_ends() {
    for (answer, goes_on) in [(SDP, true), ("", false)] {
        let mut world = house();
        let mut door = Sender::new(&mut world, DOOR, "d1");
        let tag = talking(&mut door);
        let ours = door.ask("UPDATE", "room", &tag, "", SDP).body().to_vec();
        let offered = door.ask("INVITE", "room", &tag, "", "");
        assert_eq!((offered.code(), offered.body()), (Some(200), &ours[..]), "nothing has changed, so nothing is new");
        let cseq = door.cseq;
        // Until the answer is here there is no room for another offer.
        assert_eq!(code(door.ask("UPDATE", "room", &tag, "", SDP)), 491);
        let sent = acknowledge(&mut door, cseq, &tag, answer);
        let byes = sent.iter().filter(|(_, message)| message.method().is_some_and(|method| method.as_str() == "BYE")).count();
        assert_eq!((byes, door.world.board.running_calls()), if goes_on { (0, 1) } else { (2, 0) });
        let call = door.world.calls.values().next().expect("a call");
        assert_eq!(call.end_reason.as_deref(), (!goes_on).then_some("no usable answer"));
    }
}

#[test]
fn an_unusable_offer_is_488_and_the_talk_goes_on_as_it_was() {
    let mut world = house();
    let mut door = Sender::new(&mut world, DOOR, "d1");
    let tag = talking(&mut door);
    let other = SDP.replace("RTP/AVP 0 8", "RTP/AVP 9");
    assert_eq!(code(door.ask("INVITE", "room", &tag, "", &other)), 488, "a codec its phone was not offered");
    let cseq = door.cseq;
    acknowledge(&mut door, cseq, &tag, "");
    assert_eq!(code(door.ask("INVITE", "room", &tag, "", "nonsense")), 400);
    assert_eq!(door.world.board.running_calls(), 1);
}

#[test]
fn a_door_without_telephone_events_is_told_the_keys_by_info() {
    let mut world = house();
    let mut door = Sender::new(&mut world, DOOR, "d1");
    talking(&mut door);
    for (kind, body) in
        [("application/dtmf", "*"), ("application/dtmf-relay", "Signal=5\r\nDuration=200"), ("application/dtmf", "x")]
    {
        door.world.act("p1", |phone, now| phone.info(now, kind, body));
        door.world.run(Duration::from_millis(200));
    }
    let call = door.world.calls.values().next().expect("a call");
    let told = call.ladder.iter().filter(|step| step.to == "door" && step.what.starts_with("INFO"));
    let told: Vec<&str> = told.map(|step| step.what.as_str()).collect();
    assert_eq!(told, ["INFO DTMF *", "INFO DTMF 5"]);
    let pressed: Vec<&str> = call.ladder.iter().map(|step| step.what.as_str()).filter(|what| what.starts_with("DTMF")).collect();
    assert_eq!(pressed, ["DTMF *", "DTMF 5"]);
}

#[test]
fn texts_go_to_one_phone_as_they_are() {
    let mut world = house();
    let mut sender = Sender::new(&mut world, [10, 0, 9, 20], "p3");
    let text = |len: usize| "x".repeat(len);
    let kind = "Content-Type: text/plain;charset=\"UTF-8\"\r\n";
    assert_eq!(code(sender.signed("MESSAGE", "p1", "", kind, &text(1301))), 413);
    assert_eq!(code(sender.signed("MESSAGE", "room", "", kind, "hi")), 404);
    assert_eq!(code(sender.signed("MESSAGE", "p3", "", kind, "hi")), 480);
    assert_eq!(code(sender.signed("MESSAGE", "d1", "", kind, "hi")), 403);
    // Now one that arrives; its answer is a phone's affair and late.
    let body = "{\"a\": 1}\r\n\u{fc} \0";
    let challenged = sender.ask("MESSAGE", "p1", "", kind, body);
    let challenge = Challenge::parse(challenged.header(Name::ProxyAuthenticate).expect("challenged")).expect("a challenge");
    let answer = challenge.answer("MESSAGE", "sip:10.0.0.1", "p3", &password("p3"), "c", 1);
    let request = sender.text("MESSAGE", "p1", "", &format!("Proxy-Authorization: {answer}\r\n{kind}"), body);
    let sent = sender.raw(request.clone());
    let [(to, relayed)] = sent.as_slice() else { panic!("{sent:?}") };
    assert_eq!(*to, SocketAddr::from(([10, 0, 1, 11], 5060)));
    assert_eq!((relayed.body(), relayed.header(Name::ContentType)), (body.as_bytes(), Some("text/plain;charset=\"UTF-8\"")));
    assert_ne!(relayed.call_id(), Some("call-of-p3"));
    assert!(relayed.header(Name::ProxyAuthorization).is_none());
    assert!(relayed.from().is_some_and(|from| from.uri == "sip:p3@10.0.0.1"));
    assert!(sender.raw(request).is_empty(), "a repeat is absorbed");
    // Nobody answers: 408, before the sender's own patience ends.
    sender.world.act("p1", |phone, _| phone.asleep = true);
    sender.world.run(Duration::from_secs(19));
    let mut effects = Vec::new();
    sender.world.now += Duration::from_secs(2);
    sender.world.board.timeout(sender.world.now, &mut effects);
    let last = effects.into_iter().rev().find_map(|effect| if let Effect::Send(t) = effect { Some(t) } else { None });
    let last = Message::parse(last.expect("an answer").bytes).expect("our own message");
    assert_eq!(last.code(), Some(408));
}
