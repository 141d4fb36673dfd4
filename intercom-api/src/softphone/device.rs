//! A device: an [`Agent`] with sockets, a camera or a screen, a microphone and a clock. One tokio task each.

#![allow(clippy::disallowed_methods)] // a shell: owns sockets and the clock

use super::agent::{Agent, AgentConfig, AgentEvent, AgentOut};
use super::clip::{self, Clip};
use super::screen::Screen;
use bytes::Bytes;
use serde_json::{Value, json};
use sip_core::flow::{Flow, Transport};
use sip_core::sdp::{self, Codec, Direction, H264, Local, Sdp, Stream, Supported};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

/// Audio packets: 20 ms of G.711.
const AUDIO_TICK: Duration = Duration::from_millis(20);
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
    /// The first complete key frame (phone).
    FirstPicture,
    /// The door opened, ordered by this account (door).
    Opened(String),
    /// The result of our [`Order::Unlock`] (phone).
    UnlockResult(u16),
    Answered,
    Refused(u16),
    Cancelled,
    Ended(Tally),
}

/// What a device received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub audio_packets: u64,
    pub video_packets: u64,
    pub key_frames: u64,
    /// Pictures decoded, and the number read from the last one; only with a real clip.
    pub pictures: u64,
    pub counter: Option<u8>,
}

/// RTP + RTCP sockets of one stream, and what we send on it.
struct Rtp {
    socket: UdpSocket,
    rtcp: UdpSocket,
    port: u16,
    stream: Option<Stream>,
    ssrc: u32,
    seq: u16,
    timestamp: u32,
}

impl Rtp {
    /// An even port and the one above it.
    async fn bind(ip: IpAddr, random: u32) -> io::Result<Rtp> {
        loop {
            let socket = UdpSocket::bind((ip, 0)).await?;
            let port = socket.local_addr()?.port();
            if port % 2 == 1 {
                continue;
            }
            let Ok(rtcp) = UdpSocket::bind((ip, port + 1)).await else { continue };
            return Ok(Rtp { socket, rtcp, port, stream: None, ssrc: random, seq: random as u16, timestamp: random });
        }
    }

    fn send(&mut self, payload: &[u8], marker: bool) {
        let Some(stream) = self.stream.as_ref().filter(|stream| stream.send) else { return };
        let (Some(remote), Some(format)) = (stream.remote, stream.main()) else { return };
        let mut packet = Vec::with_capacity(12 + payload.len());
        packet.extend_from_slice(&[0x80, format.pt | u8::from(marker) << 7]);
        packet.extend_from_slice(&self.seq.to_be_bytes());
        packet.extend_from_slice(&self.timestamp.to_be_bytes());
        packet.extend_from_slice(&self.ssrc.to_be_bytes());
        packet.extend_from_slice(payload);
        // A full socket loses a packet, as a network would.
        let _ = self.socket.try_send_to(&packet, remote);
        self.seq = self.seq.wrapping_add(1);
    }
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
    talking: bool,
    progressed: bool,
    tally: Tally,
    key_begun: bool,
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
        let agent_config =
            AgentConfig { number: config.number, password: config.password, domain: config.domain, flow, seed: config.seed };
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
            talking: false,
            progressed: false,
            tally: Tally::default(),
            key_begun: false,
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
                Ok(_) = self.audio.socket.recv_from(&mut audio) => self.tally.audio_packets += 1,
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
        if let Some(screen) = &mut self.screen {
            (self.tally.pictures, self.tally.counter) = (screen.pictures, screen.counter);
            *screen = Screen::new();
        }
        self.tell(Happened::Ended(self.tally));
        self.seen.clear();
        (self.audio.stream, self.video.stream) = (None, None);
        (self.offer, self.answer) = (None, None);
        (self.talking, self.progressed, self.key_begun, self.frame) = (false, false, false, 0);
        self.tally = Tally::default();
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
        }
    }

    fn supported(&self) -> Supported {
        let door = matches!(self.role, Role::Door(_));
        let h264 = |packetization_mode| H264 { packetization_mode, ..H264::parse("profile-level-id=42e01f") };
        Supported {
            audio: vec![Codec::Pcmu, Codec::Pcma, Codec::TelephoneEvent(8000)],
            audio_direction: Direction::SendRecv,
            video: if door { vec![h264(1)] } else { vec![h264(1), h264(0)] },
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
        // μ-law silence that is not zero: 0xff is the smallest value.
        self.audio.send(&[0xff; 160], false);
        self.audio.timestamp = self.audio.timestamp.wrapping_add(160);
    }

    fn show(&mut self) {
        let Role::Door(clip) = &self.role else { return };
        let frame = &clip.frames[self.frame % clip.frames.len()];
        let payloads = clip::payloads(frame);
        let last = payloads.len().saturating_sub(1);
        for (index, payload) in payloads.iter().enumerate() {
            self.video.send(payload, index == last);
        }
        self.frame += 1;
        self.video.timestamp = self.video.timestamp.wrapping_add(3600);
    }

    /// A key frame is wanted (PLI or FIR, RFC 4585, RFC 5104): the next frame is one.
    fn feedback(&mut self, packet: &[u8]) {
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
        let [_, marker, high, low, ..] = packet else { return };
        self.tally.video_packets += 1;
        let Some(payload) = packet.get(12..) else { return };
        if let Some(screen) = &mut self.screen {
            screen.packet(u16::from_be_bytes([*high, *low]), marker & 0x80 != 0, payload);
        }
        self.key_begun |= clip::is_key(payload);
        if marker & 0x80 != 0 && std::mem::take(&mut self.key_begun) {
            self.tally.key_frames += 1;
            if self.tally.key_frames == 1 {
                self.tell(Happened::FirstPicture);
            }
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
