//! The messages of RFC 4475 and RFC 5118 against the whole Switchboard: what the RFC asks, what we answer, and why where
//! the RFC leaves a choice. The files and their source: `fixtures/torture/`.
//!
//! Everything comes over UDP from an address that none of them names, to a server whose domains are the ones they dial.

#![allow(clippy::disallowed_methods)] // a test needs some instant to begin at

use bytes::Bytes;
use intercom_api::directory::Directory;
use intercom_api::model::{Account, AccountType, DirectoryChange, Number, Secret};
use intercom_api::switchboard::{Parts, Switchboard};
use intercom_api::turn::{Effect, Settings};
use media::command::{PairId, WorkerId};
use media::ports::PortStock;
use sip_core::digest::Challenge;
use sip_core::flow::{Flow, Transport};
use sip_core::message::{Message, Name};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Answered with this status.
    Says(u16),
    /// Dropped without a word, under this counter.
    Drops(&'static str),
}

use Fate::{Drops, Says};

/// RFC, paragraph, file, fate, reason. 401 and 407 mean that the message was understood: a stranger has to sign first.
const TABLE: &[(&str, &str, &str, Fate, &str)] = &[
    ("rfc4475", "3.1.1.1", "wsinv", Says(481), "well-formed; its To has a tag, and we know no such dialog (RFC 3261 §12.2.2)"),
    ("rfc4475", "3.1.1.2", "intmeth", Says(501), "well-formed; an endpoint does not know the method"),
    ("rfc4475", "3.1.1.3", "esc01", Says(407), "well-formed; an escaped @ ends no user part"),
    ("rfc4475", "3.1.1.4", "escnull", Says(401), "well-formed; %00 is a character of the user part"),
    ("rfc4475", "3.1.1.5", "esc02", Says(501), "methods have no escapes: RE%47IST%45R is not REGISTER"),
    ("rfc4475", "3.1.1.6", "lwsdisp", Says(200), "well-formed"),
    ("rfc4475", "3.1.1.7", "longreq", Says(407), "well-formed"),
    ("rfc4475", "3.1.1.8", "dblreq", Says(401), "one answer: what follows the body of a datagram is ignored (RFC 3261 §18.3)"),
    ("rfc4475", "3.1.1.9", "semiuri", Says(200), "well-formed; the semicolon is part of the user"),
    ("rfc4475", "3.1.1.10", "transports", Says(200), "well-formed; transports of other hops are not ours to judge"),
    ("rfc4475", "3.1.1.11", "mpart01", Says(407), "well-formed; relayed after the password"),
    ("rfc4475", "3.1.1.12", "unreason", Drops("response_to_nothing"), "well-formed; we asked nothing"),
    ("rfc4475", "3.1.1.13", "noreason", Drops("response_to_nothing"), "well-formed; we asked nothing"),
    ("rfc4475", "3.1.2.1", "badinv01", Says(400), "empty parameters and hops in Via"),
    ("rfc4475", "3.1.2.2", "clerr", Says(400), "the datagram ends before the body does (RFC 3261 §18.3)"),
    ("rfc4475", "3.1.2.3", "ncl", Says(400), "Content-Length is negative"),
    ("rfc4475", "3.1.2.4", "scalar02", Says(400), "CSeq does not fit (RFC 3261 §8.1.1.5)"),
    ("rfc4475", "3.1.2.5", "scalarlg", Drops("cseq"), "a response is never answered"),
    ("rfc4475", "3.1.2.6", "quotbal", Says(400), "the quote in To never ends"),
    ("rfc4475", "3.1.2.7", "ltgtruri", Says(400), "brackets around the Request-URI; we do not guess where requests go"),
    ("rfc4475", "3.1.2.8", "lwsruri", Says(400), "a blank in the Request-URI; as above"),
    ("rfc4475", "3.1.2.9", "lwsstart", Says(400), "two blanks in the start line; as above"),
    ("rfc4475", "3.1.2.10", "trws", Says(200), "the RFC lets us ignore blanks after the version: they say nothing"),
    ("rfc4475", "3.1.2.11", "escruri", Says(400), "a Request-URI has no headers (RFC 3261 §19.1.1)"),
    ("rfc4475", "3.1.2.12", "baddate", Says(407), "the RFC lets us ignore a Date that is not GMT: we never read it"),
    ("rfc4475", "3.1.2.13", "regbadct", Says(401), "the Contact is looked at after the password: `SIGNED`"),
    ("rfc4475", "3.1.2.14", "badaspec", Says(200), "the RFC lets us ignore blanks inside the brackets: the URI is clear"),
    ("rfc4475", "3.1.2.15", "baddn", Says(200), "the RFC lets us infer the quotes: only one URI is in brackets"),
    ("rfc4475", "3.1.2.16", "badvers", Says(505), "SIP/7.0"),
    ("rfc4475", "3.1.2.17", "mismatch01", Says(400), "CSeq names another method"),
    ("rfc4475", "3.1.2.18", "mismatch02", Says(400), "the same with an unknown method: 400 or 501, the RFC says"),
    ("rfc4475", "3.1.2.19", "bigcode", Drops("start_line"), "a response is never answered"),
    ("rfc4475", "3.2.1", "badbranch", Says(200), "a branch of nothing but the cookie: matched as RFC 2543 did"),
    ("rfc4475", "3.3.1", "insuf", Says(400), "no From, To, Call-ID; what there is goes back"),
    ("rfc4475", "3.3.2", "unkscm", Says(416), "nobodyKnowsThisScheme:"),
    ("rfc4475", "3.3.3", "novelsc", Says(416), "soap.beep:"),
    ("rfc4475", "3.3.4", "unksm2", Says(400), "an address of record is a SIP URI"),
    ("rfc4475", "3.3.5", "bext01", Says(420), "Require; Proxy-Require is for proxies"),
    ("rfc4475", "3.3.6", "invut", Says(407), "the body is looked at after the password: `SIGNED`"),
    ("rfc4475", "3.3.7", "regaut01", Says(401), "an unknown authentication scheme is none"),
    ("rfc4475", "3.3.8", "multi01", Says(400), "From, To, Call-ID, CSeq and Max-Forwards twice"),
    ("rfc4475", "3.3.9", "mcl01", Says(400), "two Content-Lengths that differ"),
    ("rfc4475", "3.3.10", "bcast", Drops("response_to_nothing"), "the topmost Via is not ours (RFC 3261 §18.1.2)"),
    ("rfc4475", "3.3.11", "zeromf", Says(200), "an endpoint answers whatever the hops left"),
    ("rfc4475", "3.3.12", "cparam01", Says(401), "what is bound: `SIGNED`"),
    ("rfc4475", "3.3.13", "cparam02", Says(401), "what is bound: `SIGNED`"),
    ("rfc4475", "3.3.14", "regescrt", Says(401), "what is bound: `SIGNED`"),
    ("rfc4475", "3.3.15", "sdp01", Says(407), "what the caller takes is looked at after the password: `SIGNED`"),
    ("rfc4475", "3.4.1", "inv2543", Says(407), "no branch, no From tag, no Content-Length: RFC 2543, still served"),
    ("rfc5118", "4.1", "ipv6-good", Says(401), "well-formed"),
    ("rfc5118", "4.2", "ipv6-bad", Says(400), "an IPv6 address without brackets"),
    ("rfc5118", "4.3", "port-ambiguous", Says(401), "5070 is part of the address"),
    ("rfc5118", "4.4", "port-unambiguous", Says(401), "5070 is the port"),
    ("rfc5118", "4.5", "via-received-param-with-delim", Says(481), "received in brackets; no such dialog"),
    ("rfc5118", "4.5", "via-received-param-no-delim", Says(200), "received without brackets"),
    ("rfc5118", "4.6", "ipv6-in-sdp", Says(407), "well-formed"),
    ("rfc5118", "4.7", "mult-ip-in-header", Says(481), "well-formed; no such dialog"),
    ("rfc5118", "4.8", "mult-ip-in-sdp", Says(407), "well-formed"),
    ("rfc5118", "4.9", "ipv4-mapped-ipv6", Says(407), "well-formed"),
    ("rfc5118", "4.10", "ipv6-bug-abnf-3-colons", Says(200), "tolerated, and the same address as with two colons"),
    ("rfc5118", "4.10", "ipv6-correct-abnf-2-colons", Says(200), "well-formed"),
];

/// The Request-URI hosts of the messages.
const DOMAINS: &[&str] = &[
    "example.com",
    "example.net",
    "example.org",
    "chair-dnrc.example.com",
    "registrar.example.com",
    "host.example.net",
    "company.com",
    "2001:db8::10",
    "2001:db8::10:5070",
    "2001:db8::192.0.2.1",
];

/// Accounts that some messages are from or to.
const ACCOUNTS: &[(&str, AccountType)] = &[
    ("caller", AccountType::Door),
    ("+13035551111", AccountType::Door),
    ("user", AccountType::App),
    ("UserB", AccountType::App),
    ("watson", AccountType::App),
    ("j.user", AccountType::App),
];
const PASSWORD: &str = "pw";

fn server() -> Switchboard {
    let mut directory = Directory::default();
    let account = |(number, kind): &(&str, AccountType)| {
        let (number, password) = (Number::new(number), Secret::new(PASSWORD));
        DirectoryChange::PutAccount(Account { number, password, kind: *kind, name: None, created_ms: 0, app: Default::default() })
    };
    directory.apply(ACCOUNTS.iter().map(account).collect());
    Switchboard::new(Parts {
        settings: Settings { domains: DOMAINS.iter().map(|&domain| domain.to_owned()).collect(), ..Settings::default() },
        realm: "doorline".into(),
        public_host: None,
        directory,
        ports: PortStock::new((0..4).map(|n| (PairId(n), 10_000 + 2 * n as u16, WorkerId(0)))),
        seed: [7; 32],
        nonce_key: [9; 32],
        epoch: (Instant::now(), 1_790_000_000_000),
    })
}

fn flow() -> Flow {
    Flow { transport: Transport::Udp, local: ([10, 0, 0, 1], 6050).into(), remote: ([198, 51, 100, 7], 5060).into() }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/torture")
}

fn read(rfc: &str, file: &str) -> Vec<u8> {
    let path = folder().join(rfc).join(format!("{file}.dat"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The answers of a server to one datagram.
fn receive(server: &mut Switchboard, bytes: Vec<u8>) -> Vec<Message> {
    let mut effects = Vec::new();
    server.receive(Instant::now(), flow(), Bytes::from(bytes), &mut effects);
    let sent = effects.into_iter().filter_map(|effect| if let Effect::Send(transmit) = effect { Some(transmit) } else { None });
    sent.map(|transmit| {
        assert_eq!(transmit.flow, flow(), "answers go where the request came from");
        let message = Message::parse(transmit.bytes).expect("we write what we can read");
        assert!(message.code().is_some());
        message
    })
    .collect()
}

#[test]
fn every_message_meets_the_fate_the_rfc_asks_for() {
    for &(rfc, paragraph, file, expected, why) in TABLE {
        let mut server = server();
        let bytes = read(rfc, file);
        let length = bytes.len();
        let answers = receive(&mut server, bytes);
        let codes: Vec<u16> = answers.iter().filter_map(Message::code).collect();
        let met = match (&codes[..], expected) {
            (&[code], Says(wanted)) => code == wanted,
            ([], Drops(name)) => server.counters().get(name) == Some(&1),
            _ => false,
        };
        assert!(met, "{rfc} §{paragraph} {file}: {expected:?} ({why}), but {codes:?} and {:?}", server.counters());
        for answer in answers {
            assert!(
                answer.bytes().len() <= length + 300,
                "{file}: a stranger's answer is small (D-15): {}",
                answer.bytes().len()
            );
        }
    }
}

#[test]
fn every_file_stands_in_the_table_once() {
    let mut left: BTreeMap<String, usize> = BTreeMap::new();
    for rfc in ["rfc4475", "rfc5118"] {
        for file in std::fs::read_dir(folder().join(rfc)).expect("the folder is there") {
            let name = file.expect("readable").path().file_stem().expect("a name").to_string_lossy().into_owned();
            left.insert(format!("{rfc}/{name}"), 0);
        }
    }
    assert_eq!(left.len(), 49 + 12);
    for (rfc, _, file, ..) in TABLE {
        *left.get_mut(&format!("{rfc}/{file}")).unwrap_or_else(|| panic!("no file {file}")) += 1;
    }
    assert!(left.values().all(|times| *times == 1), "{left:?}");
}

/// Signs a message as a client does after a challenge: one more header line after the start line.
fn sign(message: &[u8], challenge: &Message, user: &str) -> Vec<u8> {
    let (header, value) = match challenge.code() {
        Some(401) => ("Authorization", challenge.header(Name::WwwAuthenticate)),
        _ => ("Proxy-Authorization", challenge.header(Name::ProxyAuthenticate)),
    };
    let start = message.windows(2).position(|pair| pair == b"\r\n").expect("a start line") + 2;
    let line = String::from_utf8_lossy(&message[..start]).into_owned();
    let mut words = line.split(' ');
    let (method, uri) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let challenge = Challenge::parse(value.unwrap_or_default()).expect("a challenge of ours");
    let answer = challenge.answer(method, uri, user, PASSWORD, "c", 1);
    [&message[..start], format!("{header}: {answer}\r\n").as_bytes(), &message[start..]].concat()
}

/// RFC, file, who signs, first answer, what is bound then, reason.
type Signed = (&'static str, &'static str, &'static str, u16, Option<&'static str>, &'static str);

const SIGNED: &[Signed] = &[
    ("rfc4475", "esc01", "caller", 403, None, "signed by another than it is from"),
    ("rfc4475", "dblreq", "j.user", 200, Some("<sip:j.user@host.example.com>"), "the second request is never looked at"),
    ("rfc4475", "regbadct", "user", 400, None, "a URI with headers stands in brackets (RFC 3261 §20.10)"),
    ("rfc4475", "regaut01", "j.user", 200, None, "a Digest beside an unknown scheme is found; no Contact asks what is bound"),
    ("rfc4475", "cparam01", "watson", 200, Some("<sip:+19725552222@gw1.example.net>"), "without brackets a header parameter"),
    ("rfc4475", "cparam02", "watson", 200, Some("<sip:+19725552222@gw1.example.net;unknownparam>"), "in brackets the URI's"),
    ("rfc4475", "regescrt", "user", 200, Some("<sip:user@example.com?Route=%3Csip:sip.example.com%3E>"), "kept as given"),
    ("rfc4475", "invut", "caller", 415, None, "application/unknownformat"),
    ("rfc4475", "sdp01", "caller", 406, None, "takes only text/nobodyKnowsThis"),
    ("rfc4475", "baddate", "caller", 183, None, "rings whatever its Date"),
    ("rfc4475", "inv2543", "+13035551111", 183, None, "rings, with RFC 2543's ways"),
    ("rfc5118", "ipv6-good", "user", 200, Some("<sip:caller@[2001:db8::1]>"), "an IPv6 contact"),
];

#[test]
fn signed_messages_get_the_answer_behind_the_password() {
    for &(rfc, file, user, expected, contact, why) in SIGNED {
        let mut server = server();
        let bytes = read(rfc, file);
        let challenge = receive(&mut server, bytes.clone()).pop().expect("a challenge");
        let answers = receive(&mut server, sign(&bytes, &challenge, user));
        let answer = answers.first().unwrap_or_else(|| panic!("{file}: no answer"));
        assert_eq!(answer.code(), Some(expected), "{rfc} {file}: {why}; {:?}", server.counters());
        if let Some(contact) = contact {
            let bound = answer.header(Name::Contact).unwrap_or_default();
            assert!(bound.starts_with(contact), "{file}: {bound}");
        }
    }
}

#[test]
fn hostile_sizes_are_dropped_under_a_name() {
    let whole = String::from_utf8(read("rfc4475", "trws")).expect("text");
    let with = |line: &str, times: usize| whole.replacen("Accept: application/sdp\r\n", &line.repeat(times), 1).into_bytes();
    let long = format!("X: {}\r\n", "y".repeat(64_000));
    let cases = [
        ("10,000 headers", with("X: y\r\n", 10_000), "head_too_large"),
        ("a header as long as a datagram", with(&long, 1), "head_too_large"),
        ("300 headers", with("X:\r\n", 300), "too_many_headers"),
    ];
    for (what, bytes, counter) in cases {
        let mut server = server();
        assert!(receive(&mut server, bytes).is_empty(), "{what}");
        assert_eq!(server.counters().get(counter), Some(&1), "{what}: {:?}", server.counters());
        assert_eq!(server.sizes(), (0, 0, 0, 0), "{what}");
    }
    assert_eq!(receive(&mut server(), with("X: y\r\n", 180))[0].code(), Some(200));
}
