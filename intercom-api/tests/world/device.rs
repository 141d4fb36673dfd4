//! A door or phone of the simulated house: the softphone's pure [`Agent`] with a camera, a screen and habits.

use bytes::Bytes;
use fixtures::net::{Packet, Random};
use intercom_api::softphone::{Agent, AgentConfig, AgentEvent, AgentOut};
use sip_core::flow::{Flow, Transport};
use sip_core::sdp::{self, Codec, Direction, H264, Local, Sdp, Stream, Supported};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

const FIRST_SIP_PORT: u16 = 5060;
const AUDIO_PORT: u16 = 4000;
const VIDEO_PORT: u16 = 4002;
/// Media packets are rare in simulated time: enough to see where they go.
const TICK: Duration = Duration::from_millis(200);
/// How long a person looks at a late ring before the answer that was decided already.
const LOOK: Duration = Duration::from_secs(15);
/// Longer than the server rings.
const PATIENCE: Duration = Duration::from_secs(200);

pub fn password(name: &str) -> String {
    format!("pw-{name}")
}

/// What a device does when it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// A door: it calls.
    Door,
    /// 183 with SDP at once.
    Early,
    /// 180 without SDP.
    Ring,
    /// 486.
    Busy,
    /// Answers 200 at once.
    Eager,
}

/// What else a device knows, by the words of the cast.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traits {
    pub reliable: bool,
    /// Asks for a session timer of 90 s.
    pub timer: bool,
    /// Calls without an offer.
    pub offerless: bool,
}

/// How a door takes an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Prompt,
    /// It opens, and says so after that many milliseconds: in time, too late, or when nobody remembers.
    Slow(u64),
    /// It opens and says nothing.
    Silent,
    /// It opens and says so again and again.
    Twice,
    /// It stays shut and says so.
    Refuses,
}

const MOODS: [Mood; 9] = [
    Mood::Prompt,
    Mood::Prompt,
    Mood::Prompt,
    Mood::Slow(1000),
    Mood::Slow(2800),
    Mood::Slow(4000),
    Mood::Silent,
    Mood::Twice,
    Mood::Refuses,
];

/// An order that a door took.
#[derive(Clone, Debug)]
pub struct Order {
    pub reqsn: u64,
    pub at: Instant,
    pub mood: Mood,
}

/// A door's answer: in the dialog, or a MESSAGE to this number.
#[derive(Clone, Debug)]
struct Reply {
    body: String,
    to: Option<String>,
}

pub struct Device {
    pub name: String,
    pub ip: IpAddr,
    pub habit: Habit,
    pub agent: Agent,
    transport: Transport,
    /// Over TCP every connection has another one.
    sip_port: u16,
    /// Over TCP: is there a connection?
    connected: bool,
    /// Datagrams to it are lost.
    pub asleep: bool,
    pub outbox: Vec<Packet>,
    /// What happened to it, in words: `183`, `answered`, `cancelled`, `ended`, …
    pub story: Vec<String>,
    pub audio_in: u32,
    pub video_in: u32,
    /// Packets that came before it answered.
    pub early_video: u32,
    /// How often this door opened, as a door counts: the same number within three seconds is the same order.
    pub openings: u32,
    /// Its media is cut off; its SIP is not.
    pub dark: bool,
    /// A door that gets the order and says nothing.
    pub silent: bool,
    /// A door whose mood decides how it takes each order; `None`: it opens and says so.
    pub moods: Option<Random>,
    /// Every order that it took, once: its number, how it took it, and whether it has said 200.
    pub orders: Vec<Order>,
    /// Answers that it gives later.
    answers: Vec<(Instant, Reply)>,
    /// Results that it was told, all of them: number and status.
    pub told: Vec<(u64, u64)>,
    results: Vec<u64>,
    /// To-tags of provisional and 2xx responses to its call.
    pub tags: Vec<String>,
    seed: u64,
    traits: Traits,
    /// On hold, by its owner.
    held: bool,
    /// Of its descriptions in the call.
    version: u64,
    /// What its last re-INVITE was for.
    wish: &'static str,
    offer: Option<Sdp>,
    answer: Option<String>,
    audio: Option<Stream>,
    video: Option<Stream>,
    answered: bool,
    /// A person's answer to a ring that has not arrived yet.
    decided: Option<u16>,
    decide_at: Option<Instant>,
    /// When a phone stops ringing by itself, as phones do.
    ring_until: Option<Instant>,
    tick: Option<Instant>,
    seq: u16,
}

impl Device {
    pub fn new(name: &str, host: u8, habit: Habit, seed: u64) -> Device {
        Device::that(name, host, habit, seed, Traits::default())
    }

    pub fn that(name: &str, host: u8, habit: Habit, seed: u64, traits: Traits) -> Device {
        let ip = IpAddr::from([10, 0, 1, host]);
        Device {
            name: name.to_owned(),
            ip,
            habit,
            agent: new_agent(name, Transport::Udp, SocketAddr::new(ip, FIRST_SIP_PORT), seed, traits),
            transport: Transport::Udp,
            sip_port: FIRST_SIP_PORT,
            connected: true,
            asleep: false,
            outbox: Vec::new(),
            story: Vec::new(),
            audio_in: 0,
            video_in: 0,
            early_video: 0,
            openings: 0,
            dark: false,
            silent: false,
            moods: None,
            orders: Vec::new(),
            answers: Vec::new(),
            told: Vec::new(),
            results: Vec::new(),
            tags: Vec::new(),
            seed,
            traits,
            held: false,
            version: 1,
            wish: "",
            offer: None,
            answer: None,
            audio: None,
            video: None,
            answered: false,
            decided: None,
            decide_at: None,
            ring_until: None,
            tick: None,
            seq: 0,
        }
    }

    /// It speaks over TCP.
    pub fn over_tcp(mut self) -> Device {
        self.transport = Transport::Tcp;
        self.agent = new_agent(&self.name, self.transport, self.sip_address(), self.seed, self.traits);
        self
    }

    /// Where its messages come from; over TCP that names its connection.
    pub fn sip_address(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.sip_port)
    }

    /// Its connection broke, and it knows.
    pub fn lose_connection(&mut self, now: Instant) {
        self.connected = false;
        self.with_agent(|agent, out| agent.connection_lost(now, out), now);
    }

    /// Connects anew, whatever became of the connection before; a phone registers.
    pub fn reconnect(&mut self, now: Instant) {
        self.lose_connection(now);
        self.sip_port += 1;
        (self.connected, self.asleep) = (true, false);
        self.agent.connected(self.sip_address());
        if self.habit != Habit::Door {
            self.register(now);
        }
    }

    /// It forgets everything, as after a power cut, or its address changes.
    pub fn reboot(&mut self, host: Option<u8>) {
        self.seed += 1000;
        if let Some(host) = host {
            self.ip = IpAddr::from([10, 0, 1, host]);
        }
        self.sip_port += u16::from(self.transport.is_reliable());
        self.agent = new_agent(&self.name, self.transport, self.sip_address(), self.seed, self.traits);
        self.forget_call();
        self.asleep = false;
    }

    fn forget_call(&mut self) {
        (self.offer, self.answer, self.audio, self.video, self.answered, self.tick) = (None, None, None, None, false, None);
        (self.ring_until, self.decide_at) = (None, None);
        (self.held, self.version) = (false, 1);
    }

    pub fn register(&mut self, now: Instant) {
        self.with_agent(|agent, out| agent.register(now, out), now);
    }

    pub fn call(&mut self, now: Instant, dialled: &str) {
        let offer = Some(sdp::offer(&self.local(), &self.supported())).filter(|_| !self.traits.offerless);
        let body = offer.as_ref().map_or(Bytes::new(), |offer| Bytes::from(offer.to_string()));
        self.offer = offer;
        self.with_agent(|agent, out| agent.call(now, dialled, body, out), now);
    }

    /// The person at the phone answers or declines, as soon as it rings.
    pub fn decide(&mut self, now: Instant, code: u16) {
        if self.answer.is_some() {
            self.answer(now, code);
        } else {
            self.decided = Some(code);
        }
    }

    pub fn answer(&mut self, now: Instant, code: u16) {
        let body = self.answer.clone().filter(|_| code < 300);
        self.answered |= code == 200;
        self.with_agent(|agent, out| agent.answer(now, code, body.as_deref().map(str::as_bytes), out), now);
        if code >= 300 {
            self.story.push(format!("said {code}"));
            self.forget_call();
        }
    }

    pub fn hang_up(&mut self, now: Instant) {
        self.with_agent(|agent, out| agent.hang_up(now, out), now);
        self.story.push("hung up".into());
        self.forget_call();
    }

    /// Puts the call on hold, or takes it up again (RFC 3264 §8.4).
    pub fn hold(&mut self, now: Instant, held: bool) {
        self.held = held;
        self.reoffer(now, if held { "held" } else { "resumed" });
    }

    /// It walks out of one network and into another, and takes the call along.
    pub fn roam(&mut self, now: Instant, host: u8) {
        self.ip = IpAddr::from([10, 0, 1, host]);
        self.agent.move_to(Flow { transport: self.transport, local: self.sip_address(), remote: super::SERVER });
        self.reoffer(now, "roamed");
    }

    fn reoffer(&mut self, now: Instant, wish: &'static str) {
        (self.wish, self.version) = (wish, self.version + 1);
        let offer = sdp::offer(&self.local(), &self.supported());
        let body = Bytes::from(offer.to_string());
        self.offer = Some(offer);
        self.with_agent(|agent, out| agent.reoffer(now, body, out), now);
    }

    pub fn tell(&mut self, now: Instant, to: &str, text: &str) {
        self.with_agent(|agent, out| agent.message(now, to, "text/plain", text, out), now);
    }

    pub fn info(&mut self, now: Instant, content_type: &str, body: &str) {
        self.with_agent(|agent, out| agent.info(now, content_type, body.as_bytes(), out), now);
    }

    pub fn receive(&mut self, now: Instant, port: u16, bytes: Vec<u8>) {
        match port {
            port if port == self.sip_port => self.with_agent(|agent, out| agent.receive(now, Bytes::from(bytes), out), now),
            AUDIO_PORT => self.audio_in += 1,
            VIDEO_PORT => {
                self.video_in += 1;
                self.early_video += u32::from(self.answer.is_some() && !self.answered);
            }
            _ => {}
        }
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        let answer = self.answers.iter().map(|(at, _)| *at).min();
        [self.agent.next_deadline(), self.tick, self.ring_until, self.decide_at, answer].into_iter().flatten().min()
    }

    pub fn sizes(&self) -> (usize, usize, usize) {
        self.agent.sizes()
    }

    pub fn timeout(&mut self, now: Instant) {
        if self.agent.next_deadline().is_some_and(|at| at <= now) {
            self.with_agent(|agent, out| agent.timeout(now, out), now);
        }
        if self.decide_at.take_if(|at| *at <= now).is_some()
            && let Some(code) = self.decided.take()
        {
            self.decide(now, code);
        }
        if self.ring_until.take_if(|at| *at <= now).is_some() && !self.answered {
            self.answer(now, 480);
        }
        let due = self.answers.extract_if(.., |(at, _)| *at <= now).collect::<Vec<_>>();
        for (_, reply) in due {
            self.reply(now, &reply);
        }
        if self.tick.is_some_and(|at| at <= now) {
            self.tick = Some(now + TICK);
            self.send_media();
        }
    }

    fn send_media(&mut self) {
        if self.dark {
            return;
        }
        let door = self.habit == Habit::Door;
        self.seq = self.seq.wrapping_add(1);
        // Every video packet is a whole key frame: what is under test is where packets go, not what they show.
        let media = [
            (self.audio.clone(), AUDIO_PORT, vec![0xff; 20]),
            (self.video.clone(), VIDEO_PORT, vec![0x78, 0, 2, 0x67, 1, 0, 2, 0x65, 0x88]),
        ];
        for (stream, port, payload) in media {
            let Some(stream) = stream.filter(|s| s.send && (port == AUDIO_PORT || door)) else { continue };
            let (Some(to), Some(format)) = (stream.remote, stream.main()) else { continue };
            let mut bytes = vec![0x80, format.pt | 0x80];
            bytes.extend(self.seq.to_be_bytes());
            bytes.extend((u32::from(self.seq) * 1600).to_be_bytes());
            bytes.extend((self.seed as u32 ^ u32::from(port)).to_be_bytes());
            bytes.extend(payload);
            self.outbox.push(Packet { from: SocketAddr::new(self.ip, port), to, bytes, stream: false });
        }
    }

    fn with_agent(&mut self, act: impl FnOnce(&mut Agent, &mut AgentOut), now: Instant) {
        let mut out = AgentOut::default();
        act(&mut self.agent, &mut out);
        let (from, stream) = (self.sip_address(), self.transport.is_reliable());
        for transmit in out.transmits.drain(..).filter(|_| self.connected) {
            self.outbox.push(Packet { from, to: transmit.flow.remote, bytes: transmit.bytes.to_vec(), stream });
        }
        for event in out.events {
            self.event(now, event);
        }
    }

    fn event(&mut self, now: Instant, event: AgentEvent) {
        match event {
            AgentEvent::Registered => self.story.push("registered".into()),
            AgentEvent::RegisterFailed { code } => self.story.push(format!("not registered {code}")),
            AgentEvent::Incoming { offer } => {
                self.story.push("rings".into());
                let offer = Sdp::parse(&offer).expect("the server's offer is read");
                let Ok((answer, agreed)) = sdp::answer(&offer, &self.local(), &self.supported()) else {
                    return self.answer(now, 488);
                };
                (self.audio, self.video) = (agreed.audio, agreed.video);
                self.answer = Some(answer.to_string());
                self.ring_until = Some(now + PATIENCE);
                match self.habit {
                    Habit::Early => self.answer(now, 183),
                    Habit::Ring => self.with_agent(|agent, out| agent.answer(now, 180, None, out), now),
                    Habit::Busy => self.answer(now, 486),
                    Habit::Eager => self.answer(now, 200),
                    Habit::Door => self.answer(now, 488),
                }
                // Phones send early audio, as linphone and pjsip do: it must not arrive.
                self.tick = self.answer.is_some().then_some(now + TICK);
                self.decide_at = self.decided.map(|_| now + LOOK);
            }
            AgentEvent::Progress { code, to_tag, body } => {
                self.story.push(code.to_string());
                self.tags.push(to_tag);
                self.agreed(now, &body);
            }
            AgentEvent::Answered { body } => {
                self.story.push("answered".into());
                self.answered = true;
                self.agreed(now, &body);
            }
            AgentEvent::Refused { code } => {
                self.story.push(format!("refused {code}"));
                self.forget_call();
            }
            AgentEvent::Cancelled => {
                self.story.push("cancelled".into());
                self.forget_call();
            }
            AgentEvent::Ended => {
                self.story.push("ended".into());
                self.forget_call();
            }
            AgentEvent::Info { body } => self.unlock_info(now, &body, None),
            AgentEvent::Reoffered { code: 200, body } => {
                self.story.push(self.wish.into());
                self.agreed(now, &body);
            }
            AgentEvent::Reoffered { code, .. } => self.story.push(format!("not {} {code}", self.wish)),
            AgentEvent::Message { from, body } if body.starts_with(b"{") => self.unlock_info(now, &body, Some(from)),
            AgentEvent::Message { from, body } => self.story.push(format!("{} from {from}", String::from_utf8_lossy(&body))),
            AgentEvent::Delivered { code } => self.story.push(format!("told {code}")),
        }
    }

    /// Asks for the door as the spec says: the same request twice, each a transaction of its own.
    pub fn unlock(&mut self, now: Instant, reqsn: u16) {
        let body = format!("{{\"req\":\"unlock\",\"reqsn\":{reqsn}}}");
        for _ in 0..2 {
            self.info(now, "application/json", &body);
        }
    }

    /// The same outside of any call.
    pub fn unlock_by_message(&mut self, now: Instant, door: &str, reqsn: u16) {
        let body = format!("{{\"req\":\"unlock\",\"reqsn\":{reqsn}}}");
        self.with_agent(|agent, out| agent.message(now, door, "application/json", &body, out), now);
    }

    pub fn unlock_by_lone_info(&mut self, now: Instant, door: &str, reqsn: u16) {
        let body = format!("{{\"req\":\"unlock\",\"reqsn\":{reqsn}}}");
        self.with_agent(|agent, out| agent.lone_info(now, door, "application/json", &body, out), now);
    }

    pub fn unregister(&mut self, now: Instant) {
        self.with_agent(|agent, out| agent.unregister(now, out), now);
    }

    /// `from`: who sent it as a MESSAGE.
    fn unlock_info(&mut self, now: Instant, body: &[u8], from: Option<String>) {
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) else { return };
        let Some(reqsn) = value["reqsn"].as_u64() else { return };
        if value["req"] == "unlock" && self.habit == Habit::Door {
            if self.orders.iter().any(|order| order.reqsn == reqsn && now < order.at + Duration::from_secs(3)) {
                return;
            }
            let mood = self.moods.as_mut().map_or(if self.silent { Mood::Silent } else { Mood::Prompt }, |random| {
                MOODS[random.below(MOODS.len() as u32) as usize]
            });
            self.orders.push(Order { reqsn, at: now, mood });
            self.openings += u32::from(mood != Mood::Refuses);
            let status = if mood == Mood::Refuses { 403 } else { 200 };
            let reply = Reply { body: format!("{{\"res\":\"unlock\",\"reqsn\":{reqsn},\"status\":{status}}}"), to: from };
            let times: &[u64] = match mood {
                Mood::Prompt | Mood::Refuses => &[0],
                Mood::Slow(ref ms) => std::slice::from_ref(ms),
                Mood::Silent => &[],
                Mood::Twice => &[0, 300, 2900],
            };
            for ms in times {
                match ms {
                    0 => self.reply(now, &reply),
                    ms => self.answers.push((now + Duration::from_millis(*ms), reply.clone())),
                }
            }
        }
        if let (true, Some(status)) = (value["res"] == "unlock", value["status"].as_u64()) {
            self.told.push((reqsn, status));
            if !self.results.contains(&reqsn) {
                self.results.push(reqsn);
                self.story.push(format!("unlock {reqsn} {status}"));
            }
        }
    }

    fn reply(&mut self, now: Instant, reply: &Reply) {
        match &reply.to {
            Some(to) => self.with_agent(|agent, out| agent.message(now, to, "application/json", &reply.body, out), now),
            None => {
                for _ in 0..2 {
                    self.info(now, "application/json", &reply.body);
                }
            }
        }
    }

    fn agreed(&mut self, now: Instant, body: &[u8]) {
        if let (None, Ok(offer)) = (&self.offer, Sdp::parse(body)) {
            // Our call had no offer: this is theirs.
            let Ok((answer, agreed)) = sdp::answer(&offer, &self.local(), &self.supported()) else { return };
            let text = answer.to_string();
            // From now on we described ourselves; what comes later answers that.
            self.offer = Some(answer);
            (self.audio, self.video) = (agreed.audio, agreed.video);
            self.tick.get_or_insert(now + TICK);
            return self.with_agent(|agent, out| agent.accept_offer(now, text.as_bytes(), out), now);
        }
        let agreed = self.offer.as_ref().and_then(|offer| sdp::read_answer(offer, &Sdp::parse(body).ok()?).ok());
        if let Some(agreed) = agreed {
            (self.audio, self.video) = (agreed.audio, agreed.video);
            self.tick.get_or_insert(now + TICK);
        }
    }

    fn local(&self) -> Local {
        Local {
            ip: self.ip,
            audio_port: Some(AUDIO_PORT),
            video_port: Some(VIDEO_PORT),
            session_id: self.seed + 1,
            version: self.version,
            ice: None,
        }
    }

    fn supported(&self) -> Supported {
        let door = self.habit == Habit::Door;
        Supported {
            audio: vec![Codec::Pcmu, Codec::Pcma, Codec::TelephoneEvent(8000)],
            audio_direction: if self.held { Direction::SendOnly } else { Direction::SendRecv },
            video: vec![H264 { packetization_mode: 1, ..H264::parse("profile-level-id=42e01f") }],
            video_direction: match (door, self.held) {
                (true, _) => Direction::SendOnly,
                (false, true) => Direction::Inactive,
                (false, false) => Direction::RecvOnly,
            },
        }
    }
}

fn new_agent(name: &str, transport: Transport, local: SocketAddr, seed: u64, traits: Traits) -> Agent {
    let mut bytes = [3; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    Agent::new(AgentConfig {
        number: name.to_owned(),
        password: password(name),
        domain: super::SERVER.ip().to_string(),
        flow: Flow { transport, local, remote: super::SERVER },
        seed: bytes,
        supported: match (traits.reliable, traits.timer) {
            (true, true) => "100rel, timer",
            (true, false) => "100rel",
            (false, true) => "timer",
            (false, false) => "",
        },
        session_expires: traits.timer.then_some(90),
    })
}
