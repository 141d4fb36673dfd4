//! A device: an [`Agent`] with sockets, a camera or a screen, a microphone and a clock. One tokio task each.

#![allow(clippy::disallowed_methods)] // a shell: owns sockets and the clock

use super::agent::{Agent, AgentConfig, AgentEvent, AgentOut};
use super::clip::{self, Clip, Packing};
use super::rtp::Rtp;
use super::screen::Screen;
use super::voice;
use bytes::Bytes;
use serde_json::{Value, json};
use sip_core::flow::{Flow, Transport};
use sip_core::sdp::{self, Codec, Direction, H264, Local, Sdp, Supported};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

/// Audio packets: 20 ms of G.711.
const AUDIO_TICK: Duration = Duration::from_millis(20);
/// How long a change of network takes.
const MOVE: Duration = Duration::from_millis(600);
/// Video frames: 25 a second.
const VIDEO_TICK: Duration = Duration::from_millis(40);

/// Which end of the call it plays.
#[derive(Clone, Debug)]
pub enum Role {
    /// Calls, and shows this clip.
    Door(Clip),
    /// Is called; `early` answers 183 with SDP at once, else 180.
    Phone { early: bool },
}

#[derive(Clone, Debug)]
pub struct DeviceConfig {
    pub number: String,
    pub password: String,
    pub domain: String,
    pub server: SocketAddr,
    /// Our address; ports are the system's choice.
    pub ip: IpAddr,
    pub role: Role,
    /// Decode pictures (phone); costs a millisecond each.
    pub decode: bool,
    /// Percent of the media packets that never arrive.
    pub lose: u8,
    pub seed: [u8; 32],
}

/// What a device is told to do.
#[derive(Clone, Debug)]
pub enum Order {
    Register,
    Unregister,
    Call(String),
    Answer,
    Decline,
    /// Asks the door to open, with this number.
    Unlock(u16),
    HangUp,
    /// Sends and receives its audio at this address from now on, after a pause, as a phone does that changes its network.
    MoveAudio(IpAddr),
    /// Says what was received so far.
    Report,
}

/// What happened at a device, with the time it happened.
#[derive(Clone, Debug)]
pub enum Happened {
    Registered,
    RegisterFailed(u16),
    /// The INVITE with credentials left (door).
    Calling,
    Incoming,
    /// The first 183 with a description (door).
    Progress,
    /// The first complete key frame, decoded if we decode (phone).
    FirstPicture,
    /// The door opened, ordered by this account (door).
    Opened(String),
    /// The result of our [`Order::Unlock`] (phone).
    UnlockResult(u16),
    Answered,
    Refused(u16),
    Cancelled,
    /// Asked for by [`Order::Report`].
    Report(Tally),
    Ended(Tally),
}

/// What a device received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub audio_packets: u64,
    pub video_packets: u64,
    pub key_frames: u64,
    /// Pictures decoded, and the numbers read from the first and the last one; only with a real clip.
    pub pictures: u64,
    pub first: Option<u8>,
    pub counter: Option<u8>,
    /// The tone heard last, and how often a packet carried it.
    pub tone: Option<(u16, u64)>,
}

/// See the module text.
pub struct Device {
    agent: Agent,
    role: Role,
    ip: IpAddr,
    sip: UdpSocket,
    server: SocketAddr,
    audio: Rtp,
    video: Rtp,
    /// Our last description, and the offer it belongs to.
    offer: Option<Sdp>,
    answer: Option<String>,
    frame: usize,
    lose: u8,
    talking: bool,
    /// It has no network for its audio until then.
    moving_until: Option<Instant>,
    progressed: bool,
    tally: Tally,
    key_begun: bool,
    pictured: bool,
    screen: Option<Screen>,
    /// Numbers of orders and results that were seen: the second packet of a pair repeats the first.
    seen: Vec<u64>,
    happened: mpsc::UnboundedSender<(Instant, Happened)>,
}

impl Device {
    /// Binds the sockets and starts the task; it ends when the orders' sender is dropped.
    pub async fn start(
        config: DeviceConfig,
    ) -> io::Result<(mpsc::UnboundedSender<Order>, mpsc::UnboundedReceiver<(Instant, Happened)>)> {
        let sip = UdpSocket::bind((config.ip, 0)).await?;
        let flow = Flow { transport: Transport::Udp, local: sip.local_addr()?, remote: config.server };
        let agent_config = AgentConfig {
            number: config.number,
            password: config.password,
            domain: config.domain,
            flow,
            seed: config.seed,
            supported: "",
            session_expires: None,
        };
        let mut agent = Agent::new(agent_config);
        let audio = Rtp::bind(config.ip, agent.tokens().random_u32()).await?;
        let video = Rtp::bind(config.ip, agent.tokens().random_u32()).await?;
        let (orders, inbox) = mpsc::unbounded_channel();
        let (happened, events) = mpsc::unbounded_channel();
        let device = Device {
            agent,
            role: config.role,
            ip: config.ip,
            sip,
            server: config.server,
            audio,
            video,
            offer: None,
            answer: None,
            frame: 0,
            lose: config.lose,
            talking: false,
            moving_until: None,
            progressed: false,
            tally: Tally::default(),
            key_begun: false,
            pictured: false,
            screen: config.decode.then(Screen::new),
            seen: Vec::new(),
            happened,
        };
        tokio::spawn(device.run(inbox));
        Ok((orders, events))
    }

    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Order>) {
        let (mut sip, mut audio, mut video, mut rtcp) = ([0u8; 4096], [0u8; 2048], [0u8; 2048], [0u8; 2048]);
        let mut audio_tick = tokio::time::interval(AUDIO_TICK);
        let mut video_tick = tokio::time::interval(VIDEO_TICK);
        loop {
            let mut out = AgentOut::default();
            let deadline = self.agent.next_deadline();
            tokio::select! {
                order = inbox.recv() => match order {
                    Some(order) => self.order(order, &mut out),
                    None => return,
                },
                Ok((len, _)) = self.sip.recv_from(&mut sip) => self.agent.receive(Instant::now(), Bytes::copy_from_slice(&sip[..len]), &mut out),
                Ok((len, _)) = self.audio.socket.recv_from(&mut audio) => self.sound(&audio[..len]),
                Ok((len, _)) = self.video.socket.recv_from(&mut video) => self.picture(&video[..len]),
                Ok((len, _)) = self.video.rtcp.recv_from(&mut rtcp) => self.feedback(&rtcp[..len]),
                _ = audio_tick.tick(), if self.sends_audio() => self.speak(),
                _ = video_tick.tick(), if self.sends_video() => self.show(),
                () = sleep_until(deadline) => self.agent.timeout(Instant::now(), &mut out),
            }
            self.perform(out);
        }
    }

    fn order(&mut self, order: Order, out: &mut AgentOut) {
        let now = Instant::now();
        match order {
            Order::Register => self.agent.register(now, out),
            Order::Unregister => self.agent.unregister(now, out),
            Order::Call(dialled) => {
                let offer = sdp::offer(&self.local(), &self.supported());
                let body = Bytes::from(offer.to_string());
                self.offer = Some(offer);
                self.tell(Happened::Calling);
                self.agent.call(now, &dialled, body, out);
            }
            Order::Answer => {
                self.talking = true;
                let answer = self.answer.clone().unwrap_or_default();
                self.agent.answer(now, 200, Some(answer.as_bytes()), out);
                self.tell(Happened::Answered);
            }
            Order::Unlock(reqsn) => {
                let body = json!({"req": "unlock", "reqsn": reqsn}).to_string();
                for _ in 0..2 {
                    self.agent.info(now, "application/json", body.as_bytes(), out);
                }
            }
            Order::Decline => self.agent.answer(now, 603, None, out),
            Order::HangUp => {
                self.agent.hang_up(now, out);
                self.over();
            }
            Order::MoveAudio(ip) => {
                // Without a free port it stays where it is, and whoever moved it sees that.
                if self.audio.rebind(ip).is_ok() {
                    self.moving_until = Some(now + MOVE);
                }
            }
            Order::Report => self.tell(Happened::Report(self.tally())),
        }
    }

    fn perform(&mut self, mut out: AgentOut) {
        while !out.events.is_empty() || !out.transmits.is_empty() {
            let mut next = AgentOut::default();
            for transmit in out.transmits.drain(..) {
                let _ = self.sip.try_send_to(&transmit.bytes, self.server);
            }
            for event in out.events.drain(..) {
                self.event(event, &mut next);
            }
            out = next;
        }
    }

    fn event(&mut self, event: AgentEvent, out: &mut AgentOut) {
        match event {
            AgentEvent::Registered => self.tell(Happened::Registered),
            AgentEvent::RegisterFailed { code } => self.tell(Happened::RegisterFailed(code)),
            AgentEvent::Incoming { offer } => {
                self.tell(Happened::Incoming);
                let answered =
                    Sdp::parse(&offer).ok().and_then(|offer| sdp::answer(&offer, &self.local(), &self.supported()).ok());
                let Some((answer, agreed)) = answered else { return self.agent.answer(Instant::now(), 488, None, out) };
                self.tally = Tally::default();
                (self.audio.stream, self.video.stream) = (agreed.audio, agreed.video);
                let text = answer.to_string();
                let early = matches!(self.role, Role::Phone { early: true });
                self.agent.answer(Instant::now(), if early { 183 } else { 180 }, early.then_some(text.as_bytes()), out);
                self.answer = Some(text);
            }
            AgentEvent::Progress { body, .. } => {
                if !body.is_empty() {
                    self.agreed(&body);
                    if !std::mem::replace(&mut self.progressed, true) {
                        self.tell(Happened::Progress);
                    }
                }
            }
            AgentEvent::Answered { body } => {
                self.agreed(&body);
                self.talking = true;
                self.tell(Happened::Answered);
            }
            AgentEvent::Refused { code } => {
                self.tell(Happened::Refused(code));
                self.over();
            }
            AgentEvent::Cancelled => {
                self.tell(Happened::Cancelled);
                self.over();
            }
            AgentEvent::Ended => self.over(),
            AgentEvent::Info { body } => self.info(&body, out),
            // It is told to do none of these, and shows no texts.
            AgentEvent::Reoffered { .. } | AgentEvent::Delivered { .. } | AgentEvent::Message { .. } => {}
        }
    }

    /// Spec sip.md §8: a door opens and says so twice; a phone hears how it went.
    fn info(&mut self, body: &[u8], out: &mut AgentOut) {
        let Ok(value) = serde_json::from_slice::<Value>(body) else { return };
        let Some(reqsn) = value["reqsn"].as_u64() else { return };
        if self.seen.contains(&reqsn) {
            return;
        }
        self.seen.push(reqsn);
        if value["req"] == "unlock" && matches!(self.role, Role::Door(_)) {
            self.tell(Happened::Opened(value["sip"].as_str().unwrap_or_default().to_owned()));
            let body = json!({"res": "unlock", "reqsn": reqsn, "status": 200}).to_string();
            for _ in 0..2 {
                self.agent.info(Instant::now(), "application/json", body.as_bytes(), out);
            }
        } else if value["res"] == "unlock" {
            let status = value["status"].as_u64().and_then(|status| u16::try_from(status).ok()).unwrap_or_default();
            self.tell(Happened::UnlockResult(status));
        }
    }

    /// The server's description for our call.
    fn agreed(&mut self, body: &[u8]) {
        let agreed = self.offer.as_ref().and_then(|offer| sdp::read_answer(offer, &Sdp::parse(body).ok()?).ok());
        if let Some(agreed) = agreed {
            (self.audio.stream, self.video.stream) = (agreed.audio, agreed.video);
        }
    }

    fn over(&mut self) {
        self.tell(Happened::Ended(self.tally()));
        self.screen = self.screen.is_some().then(Screen::new);
        self.seen.clear();
        (self.audio.stream, self.video.stream) = (None, None);
        (self.offer, self.answer) = (None, None);
        (self.talking, self.progressed, self.key_begun, self.pictured, self.frame) = (false, false, false, false, 0);
        self.tally = Tally::default();
    }

    fn tally(&self) -> Tally {
        let Some(screen) = &self.screen else { return self.tally };
        Tally { pictures: screen.pictures, first: screen.first, counter: screen.counter, ..self.tally }
    }

    fn tell(&self, happened: Happened) {
        let _ = self.happened.send((Instant::now(), happened));
    }

    fn local(&self) -> Local {
        Local {
            ip: self.ip,
            audio_port: Some(self.audio.port),
            video_port: Some(self.video.port),
            session_id: u64::from(self.audio.ssrc),
            version: 1,
            ice: None,
        }
    }

    fn supported(&self) -> Supported {
        let door = matches!(self.role, Role::Door(_));
        let h264 = |packetization_mode| H264 { packetization_mode, ..H264::parse("profile-level-id=42e01f") };
        Supported {
            audio: vec![Codec::Pcmu, Codec::Pcma, Codec::TelephoneEvent(8000)],
            audio_direction: Direction::SendRecv,
            video: match &self.role {
                Role::Door(Clip { packing: Packing::Single, .. }) => vec![h264(0)],
                Role::Door(_) => vec![h264(1)],
                Role::Phone { .. } => vec![h264(1), h264(0)],
            },
            video_direction: if door { Direction::SendOnly } else { Direction::RecvOnly },
        }
    }

    fn sends_audio(&self) -> bool {
        self.audio.stream.is_some() && (self.talking || matches!(self.role, Role::Door(_)))
    }

    fn sends_video(&self) -> bool {
        self.video.stream.is_some() && matches!(self.role, Role::Door(_))
    }

    fn speak(&mut self) {
        if self.moving_until.is_some_and(|until| Instant::now() < until) {
            return self.audio.advance(voice::PACKET as u32);
        }
        let hz = if matches!(self.role, Role::Door(_)) { voice::DOOR_HZ } else { voice::PHONE_HZ };
        if let Some(packet) = self.audio.codec().and_then(|codec| voice::tone(hz, codec)) {
            self.audio.send(&packet, false);
        }
        self.audio.advance(voice::PACKET as u32);
    }

    /// Bad luck, on purpose.
    fn lost(&mut self) -> bool {
        self.lose > 0 && self.agent.tokens().random_u32() % 100 < u32::from(self.lose)
    }

    fn sound(&mut self, packet: &[u8]) {
        let (Some(payload), false) = (packet.get(12..), self.lost()) else { return };
        self.tally.audio_packets += 1;
        let Some(hz) = self.audio.codec().and_then(|codec| voice::heard(payload, codec)) else { return };
        let count = self.tally.tone.filter(|(before, _)| *before == hz).map_or(0, |(_, count)| count);
        self.tally.tone = Some((hz, count + 1));
    }

    fn show(&mut self) {
        let Role::Door(clip) = &self.role else { return };
        let frame = &clip.frames[self.frame % clip.frames.len()];
        let payloads = clip::payloads(frame, clip.packing);
        let last = payloads.len().saturating_sub(1);
        for (index, payload) in payloads.iter().enumerate() {
            self.video.send(payload, index == last);
        }
        self.frame += 1;
        self.video.advance(3600);
    }

    /// A key frame is wanted (PLI or FIR, RFC 4585, RFC 5104): the next frame is one.
    fn feedback(&mut self, packet: &[u8]) {
        if matches!(&self.role, Role::Door(Clip { deaf: true, .. })) {
            return;
        }
        let mut rest = packet;
        while let [head, kind, high, low, ..] = rest {
            let len = 4 * (usize::from(*high) << 8 | usize::from(*low)) + 4;
            if *kind == 206 && matches!(head & 0x1f, 1 | 4) {
                self.frame = 0;
            }
            rest = rest.get(len..).unwrap_or_default();
        }
    }

    fn picture(&mut self, packet: &[u8]) {
        if self.video.stream.is_none() {
            // The last of a call that is over.
            return;
        }
        let ([_, marker, high, low, _, _, _, _, s0, s1, s2, s3, payload @ ..], false) = (packet, self.lost()) else { return };
        self.tally.video_packets += 1;
        let marker = marker & 0x80 != 0;
        self.key_begun |= clip::is_key(payload);
        let mut shown = marker && self.key_begun;
        if let Some(screen) = &mut self.screen {
            shown = screen.packet(u16::from_be_bytes([*high, *low]), marker, payload);
            if screen.is_broken() {
                self.video.ask_key_frame(Instant::now(), u32::from_be_bytes([*s0, *s1, *s2, *s3]));
            }
        }
        self.tally.key_frames += u64::from(marker && std::mem::take(&mut self.key_begun));
        if shown && !std::mem::replace(&mut self.pictured, true) {
            self.tell(Happened::FirstPicture);
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
