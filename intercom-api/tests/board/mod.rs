//! A bare Switchboard and messages written by hand: for what no well-behaved device would send.

#![allow(dead_code)] // each test binary uses its part

use bytes::Bytes;
use intercom_api::directory::Directory;
use intercom_api::model::{Account, AccountType, DirectoryChange, Group, Number, Secret};
use intercom_api::switchboard::{Parts, Switchboard};
use intercom_api::turn::{Effect, Settings};
use media::command::{PairId, WorkerId};
use media::ports::PortStock;
use sip_core::digest::Challenge;
use sip_core::flow::{Flow, Transport};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

const fn host(last: u8) -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, last), 5060))
}

pub const SERVER: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 6050));
pub const DOOR: SocketAddr = host(10);
pub const PHONE: SocketAddr = host(11);
pub const OTHER: SocketAddr = host(12);
pub const STRANGER: SocketAddr = host(66);

pub const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";

/// A door `d1`, phones `p1` and `p2`, passwords `pw-NAME`, and `room`, where `p1` lives.
pub struct Board {
    pub now: Instant,
    pub board: Switchboard,
    sent: u32,
}

/// A door's early dialog.
pub struct Mark {
    pub call_id: String,
    pub from: String,
    pub to: String,
    pub branch: String,
    /// What requests inside it go to.
    pub uri: String,
}

impl Board {
    pub fn new() -> Board {
        Board::with(Settings::default())
    }

    #[allow(clippy::disallowed_methods)] // some instant to begin at; only differences matter
    pub fn with(settings: Settings) -> Board {
        let now = Instant::now();
        let mut directory = Directory::default();
        let account = |name: &str, kind| {
            DirectoryChange::PutAccount(Account {
                number: Number::new(name),
                password: Secret::new(&format!("pw-{name}")),
                kind,
                name: None,
                created_ms: 0,
                app: Default::default(),
            })
        };
        directory.apply(vec![account("d1", AccountType::Door), account("p1", AccountType::App), account("p2", AccountType::App)]);
        let room = Group {
            id: Number::new("room"),
            members: vec![Number::new("p1")],
            name: None,
            created_ms: 0,
            app: Default::default(),
        };
        directory.apply(vec![DirectoryChange::PutGroup(room)]);
        let board = Switchboard::new(Parts {
            settings,
            realm: "doorline".into(),
            public_host: None,
            directory,
            ports: PortStock::new((0..100).map(|n| (PairId(n), 10_000 + 2 * n as u16, WorkerId(0)))),
            seed: [1; 32],
            nonce_key: [2; 32],
            epoch: (now, 1_790_000_000_000),
        });
        Board { now, board, sent: 0 }
    }

    pub fn receive(&mut self, from: SocketAddr, text: &str) -> Vec<Effect> {
        let mut effects = Vec::new();
        let flow = Flow { transport: Transport::Udp, local: SERVER, remote: from };
        self.board.receive(self.now, flow, Bytes::copy_from_slice(text.as_bytes()), &mut effects);
        effects
    }

    pub fn wait(&mut self, seconds: u64) -> Vec<Effect> {
        let (end, mut effects) = (self.now + Duration::from_secs(seconds), Vec::new());
        while let Some(at) = self.board.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.board.timeout(self.now, &mut effects);
        }
        self.now = end;
        effects
    }

    pub fn count(&self, name: &str) -> u64 {
        self.board.counters().get(name).copied().unwrap_or_default()
    }

    pub fn running(&self) -> usize {
        self.board.running_calls()
    }

    /// A fresh request outside any dialog. INVITE brings an offer, REGISTER a contact.
    pub fn request(&mut self, method: &str, uri: &str, at: SocketAddr, from: &str, to: &str, more: &str) -> String {
        self.sent += 1;
        let n = self.sent;
        let body = if method == "INVITE" { OFFER } else { "" };
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {at};branch=z9hG4bK-{n};rport\r\nMax-Forwards: 70\r\n\
             From: <sip:{from}@192.0.2.1>;tag=f{n}\r\nTo: <{}>\r\nCall-ID: call-{n}@test\r\nCSeq: {n} {method}\r\n\
             Contact: <sip:{from}@{at}>\r\n{more}{}Content-Length: {}\r\n\r\n{body}",
            self::uri(to),
            if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" },
            body.len()
        )
    }

    /// A request inside the door's dialog; CANCEL and ACK are about its INVITE.
    pub fn in_dialog(&mut self, method: &str, mark: &Mark, at: SocketAddr, more: &str) -> String {
        self.sent += 1;
        let n = self.sent;
        let Mark { call_id, from, to, uri, branch } = mark;
        let first = call_id.trim_start_matches("call-").trim_end_matches("@test").to_owned();
        let (via, to, number) = match method {
            "CANCEL" => (format!("SIP/2.0/UDP {DOOR};branch={branch}"), to.split(";tag=").next().unwrap_or(to).to_owned(), first),
            "ACK" => (format!("SIP/2.0/UDP {at};branch=z9hG4bK-{n};rport"), to.clone(), first),
            _ => (format!("SIP/2.0/UDP {at};branch=z9hG4bK-{n};rport"), to.clone(), (1000 + n).to_string()),
        };
        format!(
            "{method} {uri} SIP/2.0\r\nVia: {via}\r\nMax-Forwards: 70\r\nFrom: {from}\r\nTo: {to}\r\nCall-ID: {call_id}\r\n\
             CSeq: {number} {method}\r\nContact: <sip:d1@{at}>\r\n{more}Content-Length: 0\r\n\r\n"
        )
    }

    /// The challenge that a request without credentials gets.
    pub fn challenge(&mut self, at: SocketAddr, method: &str) -> String {
        let uri = uri(if method == "INVITE" { "room" } else { "" });
        let request = self.request(method, &uri, at, "d1", "d1", "");
        let effects = self.receive(at, &request);
        let answer = answers(&effects, at).remove(0);
        header(&answer, if method == "REGISTER" { "WWW-Authenticate" } else { "Proxy-Authenticate" }).to_owned()
    }

    pub fn register(&mut self, at: SocketAddr, name: &str) {
        let effects = self.register_contact(at, name, "");
        assert_eq!(status(&effects, at), 200);
    }

    /// A signed REGISTER; `contact`: another Contact than where it comes from.
    pub fn register_contact(&mut self, at: SocketAddr, name: &str, contact: &str) -> Vec<Effect> {
        let uri = uri("");
        let challenge = self.challenge(at, "REGISTER");
        let signed = sign(&challenge, "REGISTER", &uri, name, &format!("pw-{name}"), 1);
        let mut request = self.request("REGISTER", &uri, at, name, name, &format!("Authorization: {signed}\r\n"));
        if !contact.is_empty() {
            request = request.replace(&format!("Contact: <sip:{name}@{at}>"), &format!("Contact: <{contact}>"));
        }
        self.receive(at, &request)
    }

    /// The door rings `room` with further header lines.
    pub fn ring_with(&mut self, more: &str) -> Vec<Effect> {
        let request = self.signed_ring(more);
        self.receive(DOOR, &request)
    }

    pub fn signed_ring(&mut self, more: &str) -> String {
        let uri = uri("room");
        let challenge = self.challenge(DOOR, "INVITE");
        let signed = sign(&challenge, "INVITE", &uri, "d1", "pw-d1", 1);
        self.request("INVITE", &uri, DOOR, "d1", "room", &format!("Proxy-Authorization: {signed}\r\n{more}"))
    }

    pub fn ring(&mut self) -> Mark {
        let request = self.signed_ring("");
        let effects = self.receive(DOOR, &request);
        let progress = answers(&effects, DOOR).into_iter().find(|text| text.starts_with("SIP/2.0 183")).expect("a 183");
        let via = header(&progress, "Via");
        Mark {
            call_id: header(&progress, "Call-ID").to_owned(),
            from: header(&progress, "From").to_owned(),
            to: header(&progress, "To").to_owned(),
            branch: via.split("branch=").nth(1).and_then(|rest| rest.split(';').next()).unwrap_or_default().to_owned(),
            uri: header(&progress, "Contact").trim_matches(['<', '>']).to_owned(),
        }
    }
}

/// `sip:user@server`, or the server itself.
pub fn uri(user: &str) -> String {
    if user.is_empty() { "sip:192.0.2.1".to_owned() } else { format!("sip:{user}@192.0.2.1") }
}

pub fn sign(challenge: &str, method: &str, uri: &str, user: &str, password: &str, nc: u32) -> String {
    Challenge::parse(challenge).expect("a challenge").answer(method, uri, user, password, "cnonce", nc)
}

pub fn header<'a>(message: &'a str, name: &str) -> &'a str {
    message.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default()
}

/// What is sent to `to`, in order.
pub fn answers(effects: &[Effect], to: SocketAddr) -> Vec<String> {
    let text = |effect: &Effect| match effect {
        Effect::Send(transmit) if transmit.flow.remote == to => Some(String::from_utf8_lossy(&transmit.bytes).into_owned()),
        _ => None,
    };
    effects.iter().filter_map(text).collect()
}

/// The status of the first answer; 0: none.
pub fn status(effects: &[Effect], to: SocketAddr) -> u16 {
    let answers = answers(effects, to);
    let code = |text: &String| text.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok();
    answers.iter().find_map(code).unwrap_or(0)
}

/// What happens beside one answer to who asked.
pub fn consequences(effects: &[Effect], asker: SocketAddr) -> usize {
    effects.len() - answers(effects, asker).len().min(1)
}

/// D-15. Whoever has signed from that address before is told what we serve.
pub fn is_small(request: &str, effects: &[Effect], signed_before: bool, what: &str) {
    for answer in answers(effects, STRANGER).into_iter().chain(answers(effects, DOOR)) {
        assert!(answer.len() <= request.len() + 300, "{what}: {} for {}", answer.len(), request.len());
        assert!(!answer.contains("\r\nServer:") && (signed_before || !answer.contains("\r\nAllow:")), "{what}: {answer}");
    }
}
