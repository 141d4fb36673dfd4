//! A house in simulated time: the real Switchboard and Engine, doors and phones as user agents, and a network with weather.
//!
//! Everything is pure, so a seed is a world: the same script under the same seed gives the same datagrams.

#![allow(dead_code)] // each test binary uses its part

pub mod device;
pub mod flight;
pub mod house;
pub mod trace;

use bytes::Bytes;
use device::Device;
use fixtures::net::{Net, Packet, Weather};
use intercom_api::control::{Answer, Order};
use intercom_api::directory::Directory;
use intercom_api::events::event::{Event, Kind};
use intercom_api::events::passage::Passage;
use intercom_api::live::{CallId, CallView};
use intercom_api::model::{Account, AccountType, DirectoryChange, Group, Number, Secret};
use intercom_api::record::{Record, Watched};
use intercom_api::switchboard::{Parts, Switchboard};
use intercom_api::turn::{Effect, Publication, Settings};
use intercom_api::unlock::Outcome;
use media::command::{Command, LegId, PairId, SessionId, WorkerId};
use media::engine::{Channel, Engine, Out, Tail};
use media::ports::PortStock;
use sip_core::flow::{Flow, Transport};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

pub const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 6050);
/// Port pairs of the server: RTP on 10000 + 2n.
const PAIRS: u32 = 200;
const FIRST_PORT: u16 = 10_000;

pub struct World {
    pub now: Instant,
    pub start: Instant,
    pub net: Net,
    pub board: Switchboard,
    pub engine: Engine,
    pub devices: BTreeMap<String, Device>,
    /// The read model.
    pub calls: BTreeMap<CallId, CallView>,
    pub registered: BTreeMap<String, String>,
    pub asked: Vec<Record>,
    pub records: Vec<Record>,
    /// Entries that somebody waits for: they are on the disk at once, or never.
    awaited: Vec<u64>,
    pub sick_disk: bool,
    pub watched: Vec<Watched>,
    /// What others are told.
    pub events: Vec<Event>,
    pub passages: Vec<Passage>,
    /// When which door was told to open: the number of the order, none for keys.
    pub pulses: Vec<(Instant, String, Option<u64>)>,
    /// What devices sent last, for a replay.
    sent: Vec<Packet>,
    /// What the HTTP side was told, by ticket.
    pub told: BTreeMap<u64, Vec<Outcome>>,
    /// SIP messages and media commands as they happened.
    pub ladder: Vec<String>,
    /// Messages still to lose: to whom, what their first line holds, how many.
    pub losses: Vec<(String, String, u32)>,
    /// What must never be, with the moment it was: a second winner of one call.
    pub wrongs: Vec<String>,
    /// Whose microphone each session gave to the door.
    talks: BTreeMap<SessionId, LegId>,
    /// Names of media legs, for the ladder.
    names: BTreeMap<LegId, String>,
    /// The devices' ends of connections that are open, as far as the server knows.
    connections: BTreeSet<SocketAddr>,
    recording: bool,
}

impl World {
    /// A room `room` with these devices; `accounts`: name and type.
    pub fn new(weather: Weather, seed: u64, accounts: &[(&str, AccountType)]) -> World {
        World::with(weather, seed, accounts, Settings::default())
    }

    pub fn with(weather: Weather, seed: u64, accounts: &[(&str, AccountType)], settings: Settings) -> World {
        let start = epoch();
        let mut directory = Directory::default();
        let account = |(name, kind): &(&str, AccountType)| {
            DirectoryChange::PutAccount(Account {
                number: Number::new(name),
                password: Secret::new(&device::password(name)),
                kind: *kind,
                name: None,
                created_ms: 0,
                app: Default::default(),
            })
        };
        directory.apply(accounts.iter().map(account).collect());
        let members = accounts.iter().filter(|(_, kind)| *kind == AccountType::App).map(|(name, _)| Number::new(name)).collect();
        directory.apply(vec![DirectoryChange::PutGroup(Group {
            id: Number::new("room"),
            members,
            name: None,
            created_ms: 0,
            app: Default::default(),
        })]);
        let pair = |n: u32| (PairId(n), FIRST_PORT + 2 * n as u16, WorkerId(0));
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let board = Switchboard::new(Parts {
            // Fifty packets a second to every door cost simulated hours; the tone has its own test in the engine's.
            settings: Settings {
                ringback: false,
                // The longest there is: a storm may hold up a door's challenge and its second INVITE for half a minute each.
                ring_timeout: Duration::from_secs(180),
                talk_limit: Duration::from_secs(300),
                ..settings
            },
            realm: "doorline".into(),
            public_host: None,
            directory,
            ports: PortStock::new((0..PAIRS).map(pair)),
            seed: bytes,
            nonce_key: [9; 32],
            epoch: (start, 1_790_000_000_000),
        });
        World {
            now: start,
            start,
            net: Net::new(weather, seed),
            board,
            engine: Engine::default(),
            devices: BTreeMap::new(),
            calls: BTreeMap::new(),
            registered: BTreeMap::new(),
            asked: Vec::new(),
            records: Vec::new(),
            awaited: Vec::new(),
            sick_disk: false,
            watched: Vec::new(),
            events: Vec::new(),
            passages: Vec::new(),
            pulses: Vec::new(),
            sent: Vec::new(),
            told: BTreeMap::new(),
            ladder: Vec::new(),
            losses: Vec::new(),
            wrongs: Vec::new(),
            talks: BTreeMap::new(),
            names: BTreeMap::new(),
            connections: BTreeSet::new(),
            recording: false,
        }
    }

    pub fn add(&mut self, device: Device) {
        self.devices.insert(device.name.clone(), device);
    }

    /// From here on the ladder is written.
    pub fn record(&mut self) {
        self.recording = true;
    }

    /// Lets a device act, and sends what it wants sent.
    pub fn act(&mut self, name: &str, act: impl FnOnce(&mut Device, Instant)) {
        let now = self.now;
        let Some(device) = self.devices.get_mut(name) else { panic!("no device {name}") };
        act(device, now);
        self.collect(name);
    }

    fn collect(&mut self, name: &str) {
        let Some(device) = self.devices.get_mut(name) else { return };
        for packet in std::mem::take(&mut device.outbox) {
            if packet.to == SERVER && !packet.stream {
                self.sent.push(packet.clone());
            }
            self.post(packet);
        }
    }

    /// Somebody sends once more what a device has sent: the last datagram, or one before it.
    pub fn replay(&mut self, back: usize) {
        if let Some(packet) = self.sent.iter().rev().nth(back).cloned() {
            self.post(packet);
        }
    }

    /// A device's connection breaks, and both ends are told.
    pub fn reset(&mut self, name: &str) {
        let Some(address) = self.devices.get(name).map(Device::sip_address) else { panic!("no device {name}") };
        self.net.cut(address, SERVER);
        self.note(format!("{name} > server reset"));
        self.act(name, |device, now| device.lose_connection(now));
        self.connections.remove(&address);
        let mut effects = Vec::new();
        self.board.flow_closed(self.now, connection(address), &mut effects);
        self.perform(effects);
    }

    pub fn order(&mut self, order: Order) -> Answer {
        let mut effects = Vec::new();
        let answer = self.board.command(self.now, order, &mut effects);
        self.perform(effects);
        answer
    }

    /// Runs everything that is due until `end`.
    pub fn run_until(&mut self, end: Instant) {
        loop {
            let devices = self.devices.values().filter_map(Device::next_deadline);
            let next = [self.net.next_deadline(), self.board.next_deadline(), self.engine.next_deadline()]
                .into_iter()
                .flatten()
                .chain(devices)
                .min();
            let Some(at) = next.filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            self.turn();
        }
        self.now = end;
    }

    pub fn run(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    fn turn(&mut self) {
        while let Some(packet) = self.net.pop(self.now) {
            self.deliver(packet);
        }
        if self.board.next_deadline().is_some_and(|at| at <= self.now) {
            let mut effects = Vec::new();
            self.board.timeout(self.now, &mut effects);
            self.perform(effects);
        }
        if self.engine.next_deadline().is_some_and(|at| at <= self.now) {
            let mut out = Out::default();
            self.engine.timeout(self.now, &mut out);
            self.media_out(out, &[]);
        }
        let due: Vec<String> = self
            .devices
            .values()
            .filter(|d| d.next_deadline().is_some_and(|at| at <= self.now))
            .map(|d| d.name.clone())
            .collect();
        for name in due {
            self.act(&name, |device, now| device.timeout(now));
        }
    }

    fn deliver(&mut self, packet: Packet) {
        if packet.to == SERVER {
            let mut flow = connection(packet.from);
            if packet.stream {
                self.connections.insert(packet.from);
            } else {
                flow.transport = Transport::Udp;
            }
            let mut effects = Vec::new();
            self.board.receive(self.now, flow, Bytes::from(packet.bytes), &mut effects);
            return self.perform(effects);
        }
        if packet.to.ip() == SERVER.ip() {
            let offset = packet.to.port() - FIRST_PORT;
            let channel = if offset.is_multiple_of(2) { Channel::Rtp } else { Channel::Rtcp };
            let mut out = Out::default();
            self.engine.receive(self.now, PairId(u32::from(offset / 2)), channel, packet.from, &packet.bytes, &mut out);
            return self.media_out(out, &packet.bytes);
        }
        let name =
            self.devices.values().find(|device| device.ip == packet.to.ip() && !device.asleep).map(|device| device.name.clone());
        if let Some(name) = name {
            self.act(&name, |device, now| device.receive(now, packet.to.port(), packet.bytes));
        }
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send(transmit) => {
                    let (flow, stream) = (transmit.flow, transmit.flow.transport.is_reliable());
                    if stream && !self.connections.contains(&flow.remote) {
                        // As the driver does: what cannot be sent is the same news as the end of the connection.
                        let mut effects = Vec::new();
                        self.board.flow_closed(self.now, flow, &mut effects);
                        self.perform(effects);
                        continue;
                    }
                    if transmit.bytes.starts_with(b"INVITE ") && !self.events.iter().any(|event| event.kind == Kind::Call) {
                        self.wrongs.push(format!("{:?}: a phone rings before the application knows", self.now - self.start));
                    }
                    self.post(Packet { from: SERVER, to: flow.remote, bytes: transmit.bytes.to_vec(), stream });
                }
                Effect::Media { command, .. } => {
                    self.note_command(&command);
                    if let Command::Talk { session, leg: Some(leg) } = *command
                        && self.talks.insert(session, leg).is_some_and(|first| first != leg)
                    {
                        self.wrongs.push(format!("{:?}: a second phone talks in {session:?}", self.now - self.start));
                    }
                    let mut out = Out::default();
                    self.engine.command(self.now, *command, &mut out);
                    self.media_out(out, &[]);
                }
                Effect::Publish(Publication::Call(view)) => {
                    if view.legs.iter().filter(|leg| leg.role == "member" && leg.state == "answered").count() > 1 {
                        self.wrongs.push(format!("{:?}: two phones have call {}", self.now - self.start, view.id));
                    }
                    self.calls.insert(view.id.clone(), *view);
                }
                Effect::Publish(Publication::Registered { registration, .. }) => {
                    let binding = &registration.binding;
                    self.registered.insert(binding.account.to_string(), binding.contact_uri.to_string());
                }
                Effect::Publish(Publication::RingsTooOften { door }) => self.note(format!("{door} rings too often")),
                Effect::Publish(Publication::Record(record)) => {
                    self.awaited.extend(record.awaited);
                    self.records.push(*record);
                }
                Effect::Publish(Publication::Unlocked { ticket, outcome, .. }) => {
                    self.note(format!("http told {} {}", outcome.status(), outcome.name()));
                    self.told.entry(ticket).or_default().push(outcome);
                }
                Effect::Publish(Publication::Unregistered { account, .. }) => {
                    self.registered.remove(&*account);
                }
                Effect::Publish(Publication::Asked(record)) => self.asked.push(*record),
                Effect::Publish(Publication::Watched(watched)) => self.watched.push(*watched),
                Effect::Publish(Publication::Event(event)) => self.events.push(*event),
                Effect::Publish(Publication::Passage(passage)) => self.passages.push(*passage),
                Effect::Publish(Publication::Keep { .. } | Publication::Picture(_)) => {}
            }
        }
        let awaited = std::mem::take(&mut self.awaited);
        if !awaited.is_empty() && !self.sick_disk {
            let mut effects = Vec::new();
            self.board.committed(self.now, &awaited, &mut effects);
            self.perform(effects);
        }
    }

    fn media_out(&mut self, out: Out, input: &[u8]) {
        for send in out.sends {
            let mut bytes = send.head.to_vec();
            match &send.tail {
                Tail::Input => bytes.extend_from_slice(&input[12..]),
                Tail::Owned(tail) => bytes.extend_from_slice(tail),
            }
            let port = FIRST_PORT + 2 * send.pair.0 as u16 + u16::from(send.channel == Channel::Rtcp);
            self.net.send(self.now, Packet { from: SocketAddr::new(SERVER.ip(), port), to: send.to, bytes, stream: false });
        }
        for event in out.events {
            let mut effects = Vec::new();
            self.board.media(self.now, event, &mut effects);
            self.perform(effects);
        }
    }

    /// Puts a datagram on the net, unless the script loses it; SIP goes into the ladder.
    fn post(&mut self, packet: Packet) {
        let from = self.name_of(packet.from);
        let to = self.name_of(packet.to);
        if packet.from == SERVER || packet.to == SERVER {
            let text = String::from_utf8_lossy(&packet.bytes).into_owned();
            let line = describe(&text);
            if let (true, Some(number)) = (packet.from == SERVER, order_of(&text))
                && !self.pulses.iter().any(|(at, door, of)| *door == to && *of == Some(number) && self.now < *at + MEMORY)
            {
                self.pulses.push((self.now, to.clone(), Some(number)));
            }
            let loss = self.losses.iter_mut().find(|(whom, what, left)| *whom == to && line.contains(what.as_str()) && *left > 0);
            let lost = loss.map(|loss| loss.2 -= 1).is_some();
            self.note(format!("{from} > {to} {line}{}", if lost { " (lost)" } else { "" }));
            if lost {
                return;
            }
        }
        self.net.send(self.now, packet);
    }

    fn note(&mut self, line: String) {
        if self.recording {
            self.ladder.push(line);
        }
    }

    fn note_command(&mut self, command: &Command) {
        if let Command::Press { digit: '*', .. } = command {
            self.pulses.push((self.now, "d1".into(), None));
        }
        let stream = |plan: &media::command::LegPlan| {
            let part = |stream: &Option<media::command::StreamPlan>, name: &str| {
                stream.as_ref().map_or(String::new(), |s| match (s.send, s.receive) {
                    (true, true) => format!(" {name}"),
                    (true, false) => format!(" {name} out"),
                    (false, true) => format!(" {name} in"),
                    (false, false) => format!(" {name} held"),
                })
            };
            format!("{}{}", part(&plan.audio, "audio"), part(&plan.video, "video"))
        };
        let line = match command {
            Command::Open { anchor, .. } => {
                self.name_leg(anchor);
                format!("media open {}{}", self.leg(anchor.leg), stream(anchor))
            }
            Command::Put { leg, .. } => {
                self.name_leg(leg);
                format!("media put {}{}", self.leg(leg.leg), stream(leg))
            }
            Command::Talk { leg, .. } => format!("media talk {}", leg.map_or("nobody".into(), |leg| self.leg(leg))),
            Command::Ringback { on, .. } => format!("media ringback {}", if *on { "on" } else { "off" }),
            Command::AskKeyFrame { .. } => "media ask for a key frame".to_owned(),
            // Whatever the ladder is about, a picture is taken beside it.
            Command::TakePicture { .. } => return,
            // Follows every answer.
            Command::Watch { .. } => return,
            Command::Keys { pass, .. } => format!("media keys {}", if *pass { "pass" } else { "stay" }),
            Command::Press { leg, digit, .. } => format!("media press {digit} of {}", self.leg(*leg)),
            Command::Remove { leg, .. } => format!("media remove {}", self.leg(*leg)),
            Command::Close { .. } => "media close".to_owned(),
        };
        self.note(line);
    }

    fn name_leg(&mut self, plan: &media::command::LegPlan) {
        let ip = plan.audio.as_ref().or(plan.video.as_ref()).map(|stream| stream.sip_source);
        let name =
            self.devices.values().find(|device| Some(device.ip) == ip).map_or("?".to_owned(), |device| device.name.clone());
        self.names.insert(plan.leg, name);
    }

    fn leg(&self, leg: LegId) -> String {
        self.names.get(&leg).cloned().unwrap_or_else(|| "?".into())
    }

    fn name_of(&self, address: SocketAddr) -> String {
        if address.ip() == SERVER.ip() {
            return "server".into();
        }
        self.devices
            .values()
            .find(|device| device.ip == address.ip())
            .map_or_else(|| "nobody".into(), |device| device.name.clone())
    }

    /// Runs on until nothing is left anywhere, and says what is.
    pub fn settle(&mut self) -> Result<(), String> {
        self.settle_server()?;
        let agents: Vec<_> =
            self.devices.values().filter(|d| d.sizes() != (0, 0, 0)).map(|d| (d.name.clone(), d.sizes())).collect();
        if agents.is_empty() { Ok(()) } else { Err(format!("left over at devices: {agents:?}")) }
    }

    /// The same for the server alone: a phone that gets none of eleven BYEs goes on talking to nobody.
    pub fn settle_server(&mut self) -> Result<(), String> {
        self.devices.values_mut().for_each(|device| device.agent.stop_refreshing());
        // Longer than the longest talk and every timer after it.
        self.run(Duration::from_secs(450));
        let left = (self.board.sizes(), self.engine.sizes(), self.board.free_ports());
        if left != ((0, 0, 0, 0), (0, 0), PAIRS as usize) {
            return Err(format!("left over: (transactions in, out, legs, calls) (sessions, pairs) free ports {left:?}"));
        }
        Ok(())
    }
}

/// The server's view of a device's connection.
fn connection(remote: SocketAddr) -> Flow {
    Flow { transport: Transport::Tcp, local: SERVER, remote }
}

/// Repeats of an order come within it.
const MEMORY: Duration = Duration::from_secs(40);

/// The number of an order to open.
fn order_of(text: &str) -> Option<u64> {
    let body = text.split("\r\n\r\n").nth(1).filter(|body| body.contains("\"req\":\"unlock\""))?;
    serde_json::from_str::<serde_json::Value>(body).ok()?["reqsn"].as_u64()
}

/// `INVITE`, `183 + SDP`, `CANCEL (Call completed elsewhere)`.
fn describe(text: &str) -> String {
    let mut words = text.split(' ');
    let first = words.next().unwrap_or_default();
    let what = if first == "SIP/2.0" { words.next().unwrap_or_default() } else { first };
    let header = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let method = header("CSeq: ").and_then(|cseq| cseq.split(' ').nth(1)).unwrap_or_default().trim();
    let of = if first == "SIP/2.0" && method != "INVITE" { format!(" ({method})") } else { String::new() };
    let body = text.split("\r\n\r\n").nth(1).unwrap_or_default();
    let body = if body.starts_with("v=0") {
        " + SDP".to_owned()
    } else if body.is_empty() {
        String::new()
    } else {
        format!(" {body}")
    };
    let reason = if header("Reason: ").is_some_and(|r| r.contains("elsewhere")) { " (completed elsewhere)" } else { "" };
    format!("{what}{of}{body}{reason}")
}

/// Some instant to begin at; only differences matter.
#[allow(clippy::disallowed_methods)]
fn epoch() -> Instant {
    Instant::now()
}
