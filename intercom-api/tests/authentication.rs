//! The authentication matrix: every method, with every kind of credentials, outside a dialog and inside one, from the leg's own
//! flow and from another. Who has not proved to be allowed gets his small answer, and nothing else happens (D-11, D-12, D-13, D-15).

mod board;

use board::{Board, DOOR, Mark, OTHER, PHONE, STRANGER, header};
use intercom_api::turn::Effect;
use std::net::SocketAddr;

const METHODS: [&str; 15] = [
    "REGISTER",
    "INVITE",
    "ACK",
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
    "PUBLISH",
    "DANCE",
];

/// What a request brings along to prove whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    None,
    Wrong,
    Stale,
    Replayed,
    ForeignRealm,
    Right,
}

const PROOFS: [Proof; 6] = [Proof::None, Proof::Wrong, Proof::Stale, Proof::Replayed, Proof::ForeignRealm, Proof::Right];

/// The header for `method`, made as a client would make it, or as somebody would who is up to no good.
fn prove(board: &mut Board, at: SocketAddr, proof: Proof, method: &str, uri: &str) -> String {
    let (answer, asked) = match method {
        "REGISTER" => ("Authorization", "REGISTER"),
        _ => ("Proxy-Authorization", "INVITE"),
    };
    let challenge = board.challenge(at, asked);
    let sign = |challenge: &str, password: &str| board::sign(challenge, method, uri, "d1", password, 1);
    let value = match proof {
        Proof::None => return String::new(),
        Proof::Wrong => sign(&challenge, "guess"),
        Proof::ForeignRealm => sign(&challenge.replace("\"doorline\"", "\"elsewhere\""), "pw-d1"),
        Proof::Right => sign(&challenge, "pw-d1"),
        Proof::Stale => {
            let value = sign(&challenge, "pw-d1");
            board.wait(301);
            value
        }
        Proof::Replayed => {
            // The nonce has served its first use already, in a request of the same account.
            let first = board::sign(&challenge, asked, uri, "d1", "pw-d1", 1);
            let to = if asked == "INVITE" { "nobody" } else { "d1" };
            let request = board.request(asked, &board::uri("nobody"), at, "d1", to, &format!("{answer}: {first}\r\n"));
            board.receive(at, &request);
            sign(&challenge, "pw-d1")
        }
    };
    format!("{answer}: {value}\r\n")
}

/// What an outsider is told: the status (0: nothing) and the name it is counted under.
fn outside(method: &str, proof: Proof) -> (u16, &'static str) {
    let challenge = if method == "REGISTER" { 401 } else { 407 };
    match method {
        "REGISTER" | "INVITE" | "MESSAGE" => match proof {
            Proof::None | Proof::ForeignRealm => (challenge, "challenged"),
            Proof::Wrong => (403, "wrong_credentials"),
            Proof::Stale => (challenge, "nonce_expired"),
            Proof::Replayed => (challenge, "nonce_replayed"),
            Proof::Right if method == "MESSAGE" => (404, "message_to_group"),
            Proof::Right => (if method == "INVITE" { 183 } else { 200 }, ""),
        },
        "ACK" => (0, ""),
        "CANCEL" => (481, "cancel_without_invite"),
        "BYE" | "INFO" | "UPDATE" | "PRACK" => (481, "no_dialog"),
        "OPTIONS" => (200, ""),
        "NOTIFY" => (481, "no_subscription"),
        "DANCE" => (501, "unknown_method"),
        _ => (405, "method_not_allowed"),
    }
}

#[test]
fn outside_a_dialog_only_the_right_password_has_an_effect() {
    for method in METHODS {
        for proof in PROOFS {
            let what = format!("{method} with {proof:?}");
            let mut board = Board::new();
            let uri = board::uri(if method == "REGISTER" { "" } else { "room" });
            let header = prove(&mut board, DOOR, proof, method, &uri);
            let (status, counter) = outside(method, proof);
            let (before, held) = (board.count(counter), board.board.sizes());
            let to = if method == "REGISTER" { "d1" } else { "room" };
            let request = board.request(method, &uri, DOOR, "d1", to, &header);
            let effects = board.receive(DOOR, &request);
            assert_eq!(board::status(&effects, DOOR), status, "{what}");
            if !counter.is_empty() {
                assert_eq!(board.count(counter), before + 1, "{what}: {counter}");
            }
            if matches!(status, 200 | 183) && method != "OPTIONS" {
                assert!(board::consequences(&effects, DOOR) > 0, "{what}");
                continue;
            }
            assert_eq!(board::consequences(&effects, DOOR), 0, "{what}: {effects:?}");
            // Who has signed and is refused may repeat his request: the answer is kept (RFC 3261 §17.2.2).
            if status != 404 {
                assert_eq!(board.board.sizes(), held, "{what} costs memory");
                board::is_small(&request, &effects, proof == Proof::Replayed, &what);
            }
        }
    }
}

/// A door rings its phone, and somebody has something to prove.
fn ringing(at: SocketAddr, proof: Proof, method: &str) -> (Board, Mark, String) {
    let mut board = Board::new();
    // The digest-uri is not compared, and a stale nonce is older than any ring.
    let header = prove(&mut board, at, proof, method, &board::uri("room"));
    board.register(PHONE, "p1");
    let mark = board.ring();
    (board, mark, header)
}

#[test]
fn inside_a_dialog_the_legs_own_flow_needs_no_password_and_a_wrong_one_does_no_harm() {
    for method in METHODS {
        let mut told = Vec::new();
        for proof in PROOFS {
            let (mut board, mark, header) = ringing(DOOR, proof, method);
            let request = board.in_dialog(method, &mark, DOOR, &header);
            let effects = board.receive(DOOR, &request);
            let status = board::status(&effects, DOOR);
            assert!(!matches!(status, 401 | 403 | 407), "{method} with {proof:?}: {status}");
            told.push(status);
        }
        assert!(told.iter().all(|status| *status == told[0]), "{method}: {told:?}");
        match method {
            "ACK" => assert_eq!(told[0], 0),
            "BYE" | "CANCEL" | "OPTIONS" | "INFO" => assert_eq!(told[0], 200, "{method}"),
            _ => assert!(told[0] >= 200, "{method}: {told:?}"),
        }
    }
}

#[test]
fn inside_a_dialog_another_flow_has_to_prove_that_the_leg_is_its_own() {
    for method in METHODS {
        for proof in PROOFS {
            let what = format!("{method} with {proof:?}");
            let (mut board, mark, header) = ringing(STRANGER, proof, method);
            let challenge = if method == "REGISTER" { 401 } else { 407 };
            let wanted = match (method, proof) {
                ("ACK", _) => 0,
                ("CANCEL", _) => 481,
                (_, Proof::None | Proof::ForeignRealm | Proof::Replayed | Proof::Stale) => challenge,
                (_, Proof::Wrong) => 403,
                (_, Proof::Right) => 200,
            };
            let held = board.board.sizes();
            let request = board.in_dialog(method, &mark, STRANGER, &header);
            let effects = board.receive(STRANGER, &request);
            let status = board::status(&effects, STRANGER);
            if wanted == 200 {
                assert!(!matches!(status, 0 | 401 | 403 | 407), "{what}: {status}");
                assert_eq!(board.running(), usize::from(method != "BYE"), "{what}");
                continue;
            }
            assert_eq!(status, wanted, "{what}");
            assert_eq!(board::consequences(&effects, STRANGER), 0, "{what}: {effects:?}");
            assert_eq!(board.board.sizes(), held, "{what} costs memory");
            assert_eq!(board.running(), 1, "{what} must not touch the call");
            board::is_small(&request, &effects, proof == Proof::Replayed, &what);
        }
    }
}

#[test]
fn somebody_elses_right_password_is_not_the_legs() {
    let (mut board, mark, _) = ringing(OTHER, Proof::None, "BYE");
    for from in ["d1", "p2"] {
        let challenge = board.challenge(OTHER, "INVITE");
        let signed = board::sign(&challenge, "BYE", &mark.uri, "p2", "pw-p2", 1);
        let request = board.in_dialog("BYE", &mark, OTHER, &format!("Proxy-Authorization: {signed}\r\n"));
        let effects = board.receive(OTHER, &request.replace("From: <sip:d1@", &format!("From: <sip:{from}@")));
        assert_eq!(board::status(&effects, OTHER), 403, "From {from}");
        assert_eq!((board::consequences(&effects, OTHER), board.running()), (0, 1));
    }
}

#[test]
fn from_must_be_the_account_that_signed() {
    let mut board = Board::new();
    for (method, code) in [("REGISTER", "WWW"), ("INVITE", "Proxy")] {
        let uri = board::uri("room");
        let challenge = board.challenge(DOOR, method);
        let signed = board::sign(&challenge, method, &uri, "d1", "pw-d1", 1);
        let answer = if code == "WWW" { "Authorization" } else { "Proxy-Authorization" };
        let before = board.count("from_is_not_the_account");
        let request = board.request(method, &uri, DOOR, "p1", "p1", &format!("{answer}: {signed}\r\n"));
        let effects = board.receive(DOOR, &request);
        assert_eq!((board::status(&effects, DOOR), board::consequences(&effects, DOOR)), (403, 0), "{method}");
        assert_eq!(board.count("from_is_not_the_account"), before + 1);
    }
    // Nobody registers for another, however right his password is.
    let uri = board::uri("");
    let challenge = board.challenge(DOOR, "REGISTER");
    let signed = board::sign(&challenge, "REGISTER", &uri, "d1", "pw-d1", 1);
    let request = board.request("REGISTER", &uri, DOOR, "d1", "p1", &format!("Authorization: {signed}\r\n"));
    let effects = board.receive(DOOR, &request);
    assert_eq!((board::status(&effects, DOOR), board::consequences(&effects, DOOR)), (403, 0));
}

#[test]
fn an_unknown_account_and_a_wrong_password_look_the_same() {
    let mut board = Board::new();
    let mut ask = |user: &str| {
        let uri = board::uri("");
        let challenge = board.challenge(STRANGER, "REGISTER");
        let signed = board::sign(&challenge, "REGISTER", &uri, user, "guess", 1);
        let request = board.request("REGISTER", &uri, STRANGER, user, user, &format!("Authorization: {signed}\r\n"));
        let effects = board.receive(STRANGER, &request);
        let answer = board::answers(&effects, STRANGER).remove(0);
        answer
            .lines()
            .filter(|line| !["Via", "To", "From", "Call-ID", "CSeq"].iter().any(|name| line.starts_with(name)))
            .collect::<String>()
    };
    assert_eq!(ask("d1"), ask("zz"), "the same bytes but for what the sender wrote himself");
}

#[test]
fn identity_headers_never_reach_a_phone() {
    let mut board = Board::new();
    board.register(PHONE, "p1");
    let lies = "P-Asserted-Identity: <sip:police@lies.example>\r\nP-Preferred-Identity: <sip:police@lies.example>\r\n\
        Remote-Party-ID: <sip:police@lies.example>\r\nIdentity: lies\r\nDiversion: <sip:lies@lies.example>\r\n\
        History-Info: <sip:lies@lies.example>\r\nPrivacy: id\r\n";
    let effects = board.ring_with(lies);
    let invite = board::answers(&effects, PHONE).remove(0);
    assert!(invite.starts_with("INVITE "), "{invite}");
    assert!(!invite.contains("lies") && !invite.contains("Privacy"), "{invite}");
    assert!(header(&invite, "From").contains("<sip:d1@"), "{invite}");
    assert!(
        !effects.iter().any(
            |effect| matches!(effect, Effect::Send(t) if t.bytes.windows(4).any(|w| w == b"lies") && t.flow.remote == PHONE)
        )
    );
}
