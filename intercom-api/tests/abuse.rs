//! What hostile senders try, against the pure Switchboard: amplification (D-15), foreign hosts, forged return addresses, guessed
//! passwords, stuck buttons, and addresses that nobody may name.

mod board;

use board::{Board, DOOR, OTHER, PHONE, SERVER, STRANGER, answers, status};
use intercom_api::control::{Answer, Order};
use intercom_api::turn::{Effect, Publication, Settings};
use media::command::Command;
use proptest::prelude::*;
use std::net::SocketAddr;

/// A request as a stranger may write it: any method, hosts, Vias in one line or many, compact names, tags, sizes.
fn request() -> impl Strategy<Value = String> {
    let method = prop::sample::select(vec![
        "REGISTER",
        "INVITE",
        "CANCEL",
        "BYE",
        "OPTIONS",
        "INFO",
        "UPDATE",
        "PRACK",
        "MESSAGE",
        "NOTIFY",
        "REFER",
        "SUBSCRIBE",
        "X",
    ]);
    let uri = prop::sample::select(vec!["sip:192.0.2.1", "sip:room@192.0.2.1", "sip:x@elsewhere.example", "tel:1", "sip:"]);
    let via = "[a-z]{1,12}(;rport)?(;received=1\\.1\\.1\\.1)?(;branch=z9hG4bK[a-z]{1,8})?(;x=\"[a-z]{0,9}\")?";
    (method, uri, prop::collection::vec(via, 1..40), any::<(bool, bool, bool, bool)>(), "[a-z]{0,300}", 0..80u8).prop_map(
        |(method, uri, vias, (one_line, compact, tagged, wrong), filler, hops)| {
            let name = |long: &'static str, short: &'static str| if compact { short } else { long };
            let vias: Vec<String> = vias.iter().map(|via| format!("SIP/2.0/UDP {via}")).collect();
            let via = name("Via", "v");
            let vias = if one_line { format!("{via}:{}\r\n", vias.join(",")) } else { vias.iter().map(|v| format!("{via}:{v}\r\n")).collect() };
            let tag = if tagged { ";tag=t" } else { "" };
            let (from, to, id, length) = (name("From", "f"), name("To", "t"), name("Call-ID", "i"), name("Content-Length", "l"));
            let length_value = if wrong { "7" } else { "0" };
            format!(
                "{method} {uri} SIP/2.0\r\n{vias}{from}:<sip:a@b>;tag=1\r\n{to}:<sip:c@d>{tag}\r\n{id}:{filler}x\r\nCSeq:1 {method}\r\n\
                 Max-Forwards:{hops}\r\nRecord-Route:<sip:r;lr>,<sip:s;lr>\r\nTimestamp:1\r\n{length}:{length_value}\r\n\r\n"
            )
        },
    )
}

proptest! {
    #[test]
    fn strangers_get_one_small_answer_or_none(request in request()) {
        let mut board = Board::new();
        let effects = board.receive(STRANGER, &request);
        let answers = answers(&effects, STRANGER);
        prop_assert!(answers.len() <= 1 && effects.len() == answers.len(), "{effects:?}");
        board::is_small(&request, &effects, false, &request);
        prop_assert_eq!(board.board.sizes(), (0, 0, 0, 0));
        prop_assert!(board.wait(60).is_empty(), "nothing is repeated");
    }
}

#[test]
fn nothing_is_routed_to_hosts_that_are_not_ours() {
    let mut board = Board::with(Settings { domains: vec!["sip.example.com".into()], ..Settings::default() });
    board.register(PHONE, "p1");
    for (host, ours) in [
        ("192.0.2.1", true),
        ("sip.example.com", true),
        ("SIP.Example.COM:5070", true),
        ("elsewhere.example", false),
        ("192.0.2.11", false),
        ("[2001:db8::1]", false),
        ("sip.example.com.evil.example", false),
    ] {
        for method in ["OPTIONS", "INVITE", "REGISTER", "BYE"] {
            let request = board.request(method, &format!("sip:p1@{host}"), STRANGER, "d1", "p1", "");
            let effects = board.receive(STRANGER, &request);
            assert_eq!(status(&effects, STRANGER) == 404, !ours, "{method} {host}");
            assert_eq!(board::consequences(&effects, STRANGER), 0, "{method} {host}");
        }
    }
}

#[test]
fn answers_go_where_the_request_came_from_whatever_its_via_says() {
    let mut board = Board::new();
    for via in [
        "192.0.2.99:5060",
        "192.0.2.99;maddr=192.0.2.98",
        "192.0.2.99;received=192.0.2.97;rport=97",
        "victim.example",
        "224.0.1.75;ttl=9",
    ] {
        let request = board.request("OPTIONS", &board::uri(""), STRANGER, "x", "x", "");
        let request = request.replace(&format!("SIP/2.0/UDP {STRANGER}"), &format!("SIP/2.0/UDP {via}"));
        let effects = board.receive(STRANGER, &request);
        assert_eq!((status(&effects, STRANGER), effects.len()), (200, 1), "{via}");
        let answer = answers(&effects, STRANGER).remove(0);
        assert!(answer.contains(&format!("received={}", STRANGER.ip())), "{answer}");
    }
}

/// A REGISTER of `name` signed with `password`.
fn try_password(board: &mut Board, at: SocketAddr, name: &str, password: &str) -> u16 {
    let challenge = board.challenge(at, "REGISTER");
    let signed = board::sign(&challenge, "REGISTER", &board::uri(""), name, password, 1);
    let request = board.request("REGISTER", &board::uri(""), at, name, name, &format!("Authorization: {signed}\r\n"));
    let effects = board.receive(at, &request);
    status(&effects, at)
}

#[test]
fn a_guesser_is_banned_from_the_account_and_nobody_else_is() {
    let mut board = Board::new();
    let neighbour = SocketAddr::new(STRANGER.ip(), 7777);
    for _ in 0..5 {
        assert_eq!(try_password(&mut board, STRANGER, "p1", "guess"), 403);
    }
    assert_eq!((board.count("wrong_credentials"), board.count("ban_imposed")), (5, 1));
    // Even the right one is not heard, and the guesser cannot tell.
    assert_eq!(try_password(&mut board, STRANGER, "p1", "pw-p1"), 403);
    assert_eq!((board.count("wrong_credentials"), board.count("banned")), (5, 1));
    assert_eq!(try_password(&mut board, neighbour, "p2", "pw-p2"), 200, "another phone behind the same NAT");
    assert_eq!(try_password(&mut board, PHONE, "p1", "pw-p1"), 200, "the phone itself, elsewhere");

    let Answer::Bans(bans) = board.board.command(board.now, Order::Bans, &mut Vec::new()) else { panic!("bans") };
    assert_eq!(bans.len(), 1);
    assert_eq!((bans[0].source, bans[0].account.as_str(), bans[0].failures), (STRANGER.ip(), "p1", 5));
    assert_eq!(bans[0].until_ms, 1_790_000_001_000);
    board.wait(1);
    assert_eq!(try_password(&mut board, STRANGER, "p1", "guess"), 403);
    board.wait(1);
    assert_eq!(try_password(&mut board, STRANGER, "p1", "pw-p1"), 403, "the second ban lasts two seconds");
    let lift = || Order::Unban { source: STRANGER.ip(), account: "p1".into() };
    assert_eq!(board.board.command(board.now, lift(), &mut Vec::new()), Answer::Done);
    assert_eq!(board.board.command(board.now, lift(), &mut Vec::new()), Answer::NotFound);
    assert_eq!(try_password(&mut board, STRANGER, "p1", "pw-p1"), 200);
}

#[test]
fn old_captures_and_forged_addresses_ban_nobody() {
    let mut board = Board::new();
    let challenge = board.challenge(PHONE, "REGISTER");
    board.wait(301);
    for n in 0..20 {
        let signed = board::sign(&challenge, "REGISTER", &board::uri(""), "p1", "guess", n + 1);
        let request = board.request("REGISTER", &board::uri(""), PHONE, "p1", "p1", &format!("Authorization: {signed}\r\n"));
        let effects = board.receive(PHONE, &request);
        assert_eq!(status(&effects, PHONE), 401, "a stale nonce is no guess");
    }
    assert_eq!(try_password(&mut board, PHONE, "p1", "pw-p1"), 200);
    // Somebody writes the phone's address into requests that answer a challenge of his own: no guess, and no ban.
    let challenge = board.challenge(STRANGER, "REGISTER");
    for n in 0..20 {
        let signed = board::sign(&challenge, "REGISTER", &board::uri(""), "p1", "guess", n + 1);
        let request = board.request("REGISTER", &board::uri(""), PHONE, "p1", "p1", &format!("Authorization: {signed}\r\n"));
        let forged = SocketAddr::new(PHONE.ip(), 7777);
        assert_eq!(status(&board.receive(forged, &request), forged), 401);
    }
    assert_eq!((board.count("nonce_from_elsewhere"), board.count("wrong_credentials")), (20, 0));
    assert_eq!(try_password(&mut board, SocketAddr::new(PHONE.ip(), 7778), "p1", "pw-p1"), 200, "the phone has rebooted");
    // Somebody guesses behind the same NAT: the phone that holds the binding still refreshes.
    for _ in 0..20 {
        try_password(&mut board, SocketAddr::new(PHONE.ip(), 7779), "p1", "guess");
    }
    assert_eq!(try_password(&mut board, SocketAddr::new(PHONE.ip(), 7778), "p1", "pw-p1"), 200);
}

#[test]
fn a_door_that_rings_without_end_is_refused_and_told_about_once() {
    let mut board = Board::new();
    let mut refused = Vec::new();
    for ring in 0..15 {
        let effects = board.ring_with("");
        if status(&effects, DOOR) == 480 {
            assert_eq!(board::header(&answers(&effects, DOOR)[0], "Retry-After"), "10");
            refused.push(ring);
        }
        let told =
            effects.iter().filter(|e| matches!(e, Effect::Publish(Publication::RingsTooOften { door }) if door == "d1")).count();
        assert_eq!(told, usize::from(ring == 10), "ring {ring}");
    }
    assert_eq!(refused, [10, 11, 12, 13, 14], "a rebooting door that calls ten times is served (D-07)");
    assert_eq!(board.count("door_rings_too_often"), 5);
    board.wait(11);
    let effects = board.ring_with("");
    assert!(answers(&effects, DOOR).iter().any(|answer| answer.starts_with("SIP/2.0 183")));
}

#[test]
fn contacts_that_nobody_may_be_sent_to_are_refused() {
    let mut board = Board::new();
    for (contact, name) in [
        ("sip:p1@127.0.0.1:5060", "target_loopback"),
        ("sip:p1@[::1]:5060", "target_loopback"),
        ("sip:p1@224.0.1.75", "target_multicast"),
        ("sip:p1@0.0.0.0:5060", "target_unspecified"),
        ("sip:p1@255.255.255.255", "target_broadcast"),
        ("sip:p1@192.0.2.1:6050", "target_ourselves"),
        ("sip:p1@192.0.2.1:10004", "target_ourselves"),
    ] {
        let before = board.count(name);
        let effects = board.register_contact(PHONE, "p1", contact);
        assert_eq!(
            (status(&effects, PHONE), effects.iter().filter(|e| matches!(e, Effect::Publish(_))).count()),
            (403, 0),
            "{contact}"
        );
        assert_eq!(board.count(name), before + 1, "{contact}");
    }
    for contact in ["sip:p1@10.1.2.3:5060", "sip:p1@phone.invalid;transport=ws", "sip:p1@192.0.2.1:5060"] {
        assert_eq!(status(&board.register_contact(PHONE, "p1", contact), PHONE), 200, "{contact}");
    }
}

#[test]
fn media_is_never_sent_to_an_address_that_nobody_may_name() {
    for (address, port, name) in [
        ("127.0.0.1", 4000, "target_loopback"),
        ("239.1.1.1", 4000, "target_multicast"),
        ("255.255.255.255", 4000, "target_broadcast"),
        ("192.0.2.1", 10_000, "target_ourselves"),
        ("192.0.2.1", 6050, "target_ourselves"),
        // Hold as it was written once: no target, no crime.
        ("0.0.0.0", 4000, ""),
    ] {
        let mut board = Board::new();
        let request = board.signed_ring("");
        let request = request
            .replace("c=IN IP4 192.0.2.10", &format!("c=IN IP4 {address}"))
            .replace("audio 4000", &format!("audio {port}"));
        let length = request.split("\r\n\r\n").nth(1).map_or(0, str::len);
        let request = request.replace(&format!("Content-Length: {}", board::OFFER.len()), &format!("Content-Length: {length}"));
        let effects = board.receive(DOOR, &request);
        assert_eq!(status(&effects, DOOR), 183, "{address}: the call lives, its media goes where the door sends from");
        let open = effects.iter().find_map(|effect| match effect {
            Effect::Media { command, .. } => match &**command {
                Command::Open { anchor, .. } => anchor.audio.clone(),
                _ => None,
            },
            _ => None,
        });
        assert_eq!(open.map(|audio| audio.remote), Some(None), "{address}:{port}");
        assert!(name.is_empty() || board.count(name) > 0, "{address}:{port}");
    }
}

#[test]
fn a_source_that_floods_is_dropped_and_its_neighbours_are_served() {
    let mut board = Board::new();
    board.register(PHONE, "p1");
    let request = board.request("OPTIONS", &board::uri(""), STRANGER, "x", "x", "");
    let answered = (0..5000).filter(|_| status(&board.receive(STRANGER, &request), STRANGER) == 200).count();
    assert!((2000..2100).contains(&answered), "{answered}");
    assert_eq!(board.count("source_limited"), 5000 - answered as u64);
    assert_eq!(status(&board.register_contact(PHONE, "p1", ""), PHONE), 200);
    board.register(OTHER, "p2");
    assert!(board.receive(SERVER, "").is_empty());
}
