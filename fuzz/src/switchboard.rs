//! The whole server from bytes: a door, two phones and a stranger send what they like, when they like.
//!
//! The input is a script: chunks separated by a line `--`. Of each the first byte says who sends (its last two bits: door,
//! first phone, second phone, stranger), the second how long it waited (last three bits), the rest is the datagram, in which
//! `{words}` stand for what the sender heard (see [`fill`]), so that mutated bytes get past passwords and into dialogs.
//!
//! Whatever comes: no panic, everything written can be read, a stranger is not answered with more than D-15 allows, and an
//! hour later nothing is left.

use bytes::Bytes;
use intercom_api::directory::Directory;
use intercom_api::model::{Account, AccountType, DirectoryChange, Group, Number, Secret};
use intercom_api::switchboard::{Parts, Switchboard};
use intercom_api::turn::{Effect, Settings};
use media::command::{PairId, WorkerId};
use media::ports::PortStock;
use sip_core::digest::Challenge;
use sip_core::flow::{Flow, Transport};
use sip_core::message::{Message, Name};
use std::time::{Duration, Instant};

const PAIRS: u32 = 8;
/// Most chunks of a script.
const MAX_CHUNKS: usize = 64;
const WAITS_MS: [u64; 8] = [0, 0, 20, 200, 600, 4_000, 33_000, 70_000];
const SENDERS: [&str; 4] = ["d1", "p1", "p2", "x"];

/// What a sender heard last.
#[derive(Default)]
struct Heard {
    request: Option<Message>,
    response: Option<Message>,
    challenge: Option<Message>,
}

pub fn run(bytes: &[u8]) {
    let mut world = World::new();
    for (at, chunk) in split(bytes).take(MAX_CHUNKS).enumerate() {
        let [who, wait, datagram @ ..] = chunk else { continue };
        world.run_until(world.now + Duration::from_millis(WAITS_MS[usize::from(wait & 7)]));
        world.send(usize::from(who & 3), at, datagram);
    }
    // Longer than any registration, talk or timer.
    world.run_until(world.now + Duration::from_secs(8_000));
    assert_eq!(world.board.sizes(), (0, 0, 0, 0), "something is left over");
    assert_eq!(world.board.free_ports(), PAIRS as usize, "ports are left over");
}

fn split(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    const MARK: &[u8] = b"\n--\n";
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let now = rest?;
        match now.windows(MARK.len()).position(|window| window == MARK) {
            Some(at) => {
                rest = Some(&now[at + MARK.len()..]);
                Some(&now[..at])
            }
            None => rest.take(),
        }
    })
}

struct World {
    now: Instant,
    board: Switchboard,
    heard: [Heard; 4],
}

impl World {
    fn new() -> World {
        let account = |(number, kind): (&str, AccountType)| {
            let (number, password) = (Number::new(number), Secret::new("pw"));
            DirectoryChange::PutAccount(Account { number, password, kind, name: None, created_ms: 0, app: Default::default() })
        };
        let (door, app) = (AccountType::Door, AccountType::App);
        let members = vec![Number::new("p1"), Number::new("p2")];
        let mut directory = Directory::default();
        directory.apply([("d1", door), ("p1", app), ("p2", app)].map(account).into());
        directory.apply(vec![DirectoryChange::PutGroup(Group {
            id: Number::new("room"),
            members,
            name: None,
            created_ms: 0,
            app: Default::default(),
        })]);
        let now = Instant::now();
        let board = Switchboard::new(Parts {
            settings: Settings { domains: vec!["s".into()], ..Settings::default() },
            realm: "doorline".into(),
            public_host: None,
            directory,
            ports: PortStock::new((0..PAIRS).map(|n| (PairId(n), 10_000 + 2 * n as u16, WorkerId(0)))),
            seed: [7; 32],
            nonce_key: [9; 32],
            epoch: (now, 1_790_000_000_000),
        });
        World { now, board, heard: Default::default() }
    }

    fn run_until(&mut self, end: Instant) {
        while let Some(at) = self.board.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let mut effects = Vec::new();
            self.board.timeout(self.now, &mut effects);
            self.hear(effects);
        }
        self.now = end;
    }

    fn send(&mut self, who: usize, at: usize, datagram: &[u8]) {
        let bytes = fill(&self.heard[who], who, at, datagram);
        let (length, mut effects) = (bytes.len(), Vec::new());
        self.board.receive(self.now, flow(who), Bytes::from(bytes), &mut effects);
        let told: usize = self.hear(effects)[who];
        assert!(SENDERS[who] != "x" || told <= length + 300, "a stranger is told {told} bytes for {length} (D-15)");
    }

    /// Bytes sent to each.
    fn hear(&mut self, effects: Vec<Effect>) -> [usize; 4] {
        let mut told = [0; 4];
        for effect in effects {
            let Effect::Send(transmit) = effect else { continue };
            let message = Message::parse(transmit.bytes.clone())
                .unwrap_or_else(|fault| panic!("{fault} in {}", transmit.bytes.escape_ascii()));
            let Some(who) = (0..4).find(|who| flow(*who) == transmit.flow) else { panic!("sent to nobody") };
            told[who] += transmit.bytes.len();
            let heard = &mut self.heard[who];
            match message.code() {
                Some(401 | 407) => heard.challenge = Some(message),
                Some(_) => heard.response = Some(message),
                None => heard.request = Some(message),
            }
        }
        told
    }
}

fn flow(who: usize) -> Flow {
    Flow { transport: Transport::Udp, local: ([10, 0, 0, 1], 6050).into(), remote: ([10, 0, 1, who as u8], 5060).into() }
}

/// A datagram as it is sent. Lines may end with LF alone. `{via}`, `{from}`, `{to}`, `{call}`, `{cseq}`, `{contact}`: headers
/// of the request heard last; `{tag}`, `{target}`: To-tag and Contact of the response; `{n}`: the number of the chunk;
/// `{auth}`: the header that answers the last challenge.
fn fill(heard: &Heard, who: usize, at: usize, datagram: &[u8]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(datagram) else { return datagram.to_vec() };
    let mut text = if text.contains("\r\n") { text.to_owned() } else { text.replace('\n', "\r\n") };
    let request = |name| heard.request.as_ref().and_then(|m| m.header(name)).unwrap_or_default();
    let tag = heard.response.as_ref().and_then(|m| m.to()?.tag()).unwrap_or_default();
    let target = heard.response.as_ref().and_then(Message::contact).map_or("sip:s", |contact| contact.uri);
    let number = at.to_string();
    let words = [
        ("{via}", request(Name::Via)),
        ("{from}", request(Name::From)),
        ("{to}", request(Name::To)),
        ("{call}", request(Name::CallId)),
        ("{cseq}", request(Name::CSeq)),
        ("{contact}", request(Name::Contact)),
        ("{tag}", tag),
        ("{target}", target),
        ("{n}", &number),
    ];
    for (word, value) in words {
        if text.contains(word) {
            text = text.replace(word, value);
        }
    }
    if text.contains("{auth}") {
        let auth = heard.challenge.as_ref().and_then(|challenge| sign(challenge, who, &text)).unwrap_or("X: y".into());
        text = text.replacen("{auth}", &auth, 1);
    }
    text.truncate(text.floor_char_boundary(60_000));
    text.into_bytes()
}

fn sign(challenge: &Message, who: usize, text: &str) -> Option<String> {
    let (header, value) = match challenge.code()? {
        401 => ("Authorization", challenge.header(Name::WwwAuthenticate)?),
        _ => ("Proxy-Authorization", challenge.header(Name::ProxyAuthenticate)?),
    };
    let mut words = text.split(' ');
    let answer = Challenge::parse(value)?.answer(words.next()?, words.next()?, SENDERS[who], "pw", "c", 1);
    Some(format!("{header}: {answer}"))
}
