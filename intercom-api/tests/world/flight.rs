//! Replays what the flight recorder wrote (`src/flight.rs`): the recorded datagrams of devices go into a Switchboard of our
//! own, and its call must end as the recorded one did.
//!
//! This Switchboard mints other ids than the recorded one, so what it sends is compared with what was sent then, and the ids
//! in the devices' datagrams are exchanged for the new ones. Masked digest responses are computed anew.

use super::device::password;
use intercom_api::directory::Directory;
use intercom_api::live::CallView;
use intercom_api::model::{Account, AccountType, DirectoryChange, Group, Number, Secret};
use intercom_api::softphone::{Agent, AgentConfig, AgentOut};
use intercom_api::switchboard::{Parts, Switchboard};
use intercom_api::turn::{Effect, Publication, Settings};
use media::command::{PairId, WorkerId};
use media::engine::{Engine, Out};
use media::ports::PortStock;
use sip_core::digest::Challenge;
use sip_core::flow::{Flow, Transport};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A flight as it was written.
#[derive(Default)]
pub struct Flight {
    /// Name, kind, address.
    cast: Vec<(String, String, Option<SocketAddr>)>,
    server: Option<SocketAddr>,
    /// `call all declined`, `p1 no common codec`.
    pub end: Vec<String>,
    datagrams: Vec<Datagram>,
}

#[derive(Clone)]
struct Datagram {
    ms: u64,
    from: String,
    to: String,
    bytes: Vec<u8>,
}

impl Flight {
    pub fn read(text: &str) -> Flight {
        let mut flight = Flight::default();
        let mut section = "";
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some(address) = line.strip_prefix("server ") {
                flight.server = Some(address.parse().expect("an address"));
            } else if !line.starts_with(' ') {
                section = line;
            } else if let (Some(text), Some(datagram)) = (line.strip_prefix("    "), flight.datagrams.last_mut()) {
                unescape(text, &mut datagram.bytes);
            } else {
                let words: Vec<&str> = line.trim().split(' ').collect();
                match (section, words.as_slice()) {
                    ("cast", [name, kind, address @ ..]) => {
                        let address = address.first().map(|text| text.parse().expect("an address"));
                        flight.cast.push(((*name).to_owned(), (*kind).to_owned(), address));
                    }
                    ("end", _) => flight.end.push(line.trim().to_owned()),
                    ("datagrams", [ms, from, ">", to]) => flight.datagrams.push(Datagram {
                        ms: ms.parse().expect("milliseconds"),
                        from: (*from).to_owned(),
                        to: (*to).to_owned(),
                        bytes: Vec::new(),
                    }),
                    other => panic!("what is {other:?}?"),
                }
            }
        }
        // The last line of a message has no end.
        flight.datagrams.iter_mut().for_each(|datagram| datagram.bytes.truncate(datagram.bytes.len().saturating_sub(2)));
        flight
    }

    /// How the call ends here, in the words of `end`.
    pub fn replay(&self) -> Vec<String> {
        let mut replay = Replay::new(self);
        for datagram in &self.datagrams {
            replay.run_until(replay.begin + Duration::from_millis(datagram.ms));
            if datagram.to == "server" {
                replay.feed(datagram);
            }
        }
        replay.run_until(replay.now + Duration::from_secs(400));
        let Some(call) = replay.call else { return vec!["no call".into()] };
        let members = call.legs.iter().filter(|leg| leg.role == "member");
        let member =
            |leg: &intercom_api::live::LegView| format!("{} {}", leg.account, leg.end_reason.as_deref().unwrap_or(leg.state));
        std::iter::once(format!("call {}", call.end_reason.as_deref().unwrap_or(call.state))).chain(members.map(member)).collect()
    }
}

/// Undoes the recorder's escapes; every line ends with CR LF unless it says otherwise.
fn unescape(text: &str, out: &mut Vec<u8>) {
    let (mut chars, mut bare) = (text.chars(), false);
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c as u8);
            continue;
        }
        match chars.next() {
            Some('x') => {
                let hex: String = chars.by_ref().take(2).collect();
                out.push(u8::from_str_radix(&hex, 16).expect("two hex digits"));
            }
            Some('n') => bare = true,
            _ => out.push(b'\\'),
        }
    }
    out.extend_from_slice(if bare { b"\n" } else { b"\r\n" });
}

struct Replay<'a> {
    flight: &'a Flight,
    begin: Instant,
    now: Instant,
    server: SocketAddr,
    board: Switchboard,
    engine: Engine,
    call: Option<CallView>,
    /// Recorded datagrams of the server that nothing here was compared with yet.
    unmatched: Vec<Datagram>,
    /// Id then → id now.
    ids: BTreeMap<String, String>,
}

impl<'a> Replay<'a> {
    fn new(flight: &'a Flight) -> Replay<'a> {
        let begin = super::epoch();
        let server = flight.server.expect("a server");
        let mut replay = Replay {
            flight,
            begin,
            now: begin,
            server,
            board: Switchboard::new(Parts {
                settings: Settings::default(),
                realm: "doorline".into(),
                public_host: None,
                directory: directory(flight),
                ports: PortStock::new((0..50).map(|n| (PairId(n), 10_000 + 2 * n as u16, WorkerId(0)))),
                seed: [7; 32],
                nonce_key: [9; 32],
                epoch: (begin, 1_790_000_000_000),
            }),
            engine: Engine::default(),
            call: None,
            unmatched: flight.datagrams.iter().filter(|datagram| datagram.from == "server").cloned().collect(),
            ids: BTreeMap::new(),
        };
        for (name, kind, address) in &flight.cast {
            if let ("phone", Some(address)) = (kind.as_str(), address) {
                replay.register(name, *address);
            }
        }
        replay
    }

    fn register(&mut self, name: &str, address: SocketAddr) {
        let mut agent = Agent::new(AgentConfig {
            number: name.to_owned(),
            password: password(name),
            domain: self.server.ip().to_string(),
            flow: Flow { transport: Transport::Udp, local: address, remote: self.server },
            seed: [5; 32],
            supported: "",
            session_expires: None,
        });
        let mut out = AgentOut::default();
        agent.register(self.now, &mut out);
        while let Some(transmit) = out.transmits.pop() {
            let mut effects = Vec::new();
            self.board.receive(self.now, self.flow(address), transmit.bytes, &mut effects);
            for effect in effects {
                if let Effect::Send(transmit) = effect {
                    agent.receive(self.now, transmit.bytes, &mut out);
                }
            }
        }
    }

    fn flow(&self, remote: SocketAddr) -> Flow {
        Flow { transport: Transport::Udp, local: self.server, remote }
    }

    fn run_until(&mut self, end: Instant) {
        loop {
            let next = [self.board.next_deadline(), self.engine.next_deadline()].into_iter().flatten().min();
            let Some(at) = next.filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            let mut effects = Vec::new();
            self.board.timeout(self.now, &mut effects);
            let mut out = Out::default();
            self.engine.timeout(self.now, &mut out);
            self.perform(effects, out);
        }
        self.now = end;
    }

    fn feed(&mut self, datagram: &Datagram) {
        let address = self.flight.cast.iter().find(|(name, ..)| *name == datagram.from).and_then(|(_, _, address)| *address);
        let Some(address) = address else { panic!("nobody is {}", datagram.from) };
        let mut text = String::from_utf8_lossy(&datagram.bytes).into_owned();
        for (then, now) in &self.ids {
            text = text.replace(then, now);
        }
        let text = sign(&text, &datagram.from);
        let mut effects = Vec::new();
        self.board.receive(self.now, self.flow(address), text.into_bytes().into(), &mut effects);
        self.perform(effects, Out::default());
    }

    fn perform(&mut self, effects: Vec<Effect>, mut out: Out) {
        for effect in effects {
            match effect {
                Effect::Send(transmit) => self.compare(transmit.flow.remote, &String::from_utf8_lossy(&transmit.bytes)),
                Effect::Media { command, .. } => self.engine.command(self.now, *command, &mut out),
                Effect::Publish(Publication::Call(view)) => self.call = Some(*view),
                Effect::Publish(_) => {}
            }
        }
        for event in std::mem::take(&mut out.events) {
            let mut effects = Vec::new();
            self.board.media(self.now, event, &mut effects);
            self.perform(effects, Out::default());
        }
    }

    /// Finds what was sent then in this place, and learns the ids.
    fn compare(&mut self, to: SocketAddr, sent: &str) {
        let name = self.flight.cast.iter().find(|(_, _, address)| *address == Some(to)).map(|(name, ..)| name.clone());
        let same = |d: &Datagram| Some(&d.to) == name.as_ref() && kind(&String::from_utf8_lossy(&d.bytes)) == kind(sent);
        let Some(at) = self.unmatched.iter().position(same) else { return };
        let then = self.unmatched.remove(at);
        let then = String::from_utf8_lossy(&then.bytes).into_owned();
        self.ids.extend(minted(&then).into_iter().zip(minted(sent)));
    }
}

/// Status or method, and the CSeq: what a message is.
fn kind(text: &str) -> (String, String) {
    let first = text.split(' ').take(2).filter(|word| !word.starts_with("sip:")).collect::<Vec<_>>().join(" ");
    (first, text.lines().find_map(|line| line.strip_prefix("CSeq: ")).unwrap_or_default().to_owned())
}

/// The ids of ours in a message: tokens of owner 0, and nonces.
fn minted(text: &str) -> Vec<String> {
    let tokens = text.split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit());
    let tokens = tokens.filter(|word| word.len() == 20 && word.starts_with("aaa")).map(str::to_owned);
    let nonces = text.split("nonce=\"").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()));
    tokens.chain(nonces).collect()
}

/// Digest responses were masked: computes them with the password of this world.
fn sign(text: &str, account: &str) -> String {
    let method = text.split(' ').next().unwrap_or_default();
    let line = |line: &str| {
        let (name, value) = line.split_once(": ").filter(|(_, value)| value.contains("response=\"masked\""))?;
        let parts = value.strip_prefix("Digest ")?.split(',').filter_map(|part| part.trim().split_once('='));
        let parts: BTreeMap<&str, &str> = parts.map(|(key, value)| (key, value.trim_matches('"'))).collect();
        let part = |key: &str| parts.get(key).copied();
        let challenge = format!("Digest realm=\"{}\", nonce=\"{}\", qop=\"auth\", algorithm=MD5", part("realm")?, part("nonce")?);
        let count = part("nc").and_then(|nc| u32::from_str_radix(nc, 16).ok()).unwrap_or(1);
        let answer = Challenge::parse(&challenge)?.answer(method, part("uri")?, account, &password(account), "replayed", count);
        Some(format!("{name}: {answer}"))
    };
    text.split("\r\n").map(|text| line(text).unwrap_or_else(|| text.to_owned())).collect::<Vec<_>>().join("\r\n")
}

fn directory(flight: &Flight) -> Directory {
    let mut directory = Directory::default();
    let accounts = flight.cast.iter().filter(|(_, kind, _)| kind != "group").map(|(name, kind, _)| {
        DirectoryChange::PutAccount(Account {
            number: Number::new(name),
            password: Secret::new(&password(name)),
            kind: if kind == "door" { AccountType::Door } else { AccountType::App },
            name: None,
            created_ms: 0,
            app: Default::default(),
        })
    });
    directory.apply(accounts.collect());
    let members = flight.cast.iter().filter(|(_, kind, _)| kind == "phone").map(|(name, ..)| Number::new(name)).collect();
    let group = flight.cast.iter().find(|(_, kind, _)| kind == "group").map(|(name, ..)| Number::new(name)).expect("a group");
    directory.apply(vec![DirectoryChange::PutGroup(Group {
        id: group,
        members,
        name: None,
        created_ms: 0,
        app: Default::default(),
    })]);
    directory
}
