//! Doors and phones that only signal: SIP user agents on one thread, whose descriptions name sockets of the generator
//! ([`crate::wire`]). What the server answers says where the generator has to send.

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use fixtures::server::{Server, password};
use intercom_api::softphone::{Agent, AgentConfig, AgentEvent, AgentOut};
use serde_json::{Value, json};
use sip_core::flow::{Flow, Transport};
use sip_core::sdp::{self, Codec, Direction, H264, Local, Sdp, Supported};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::time::{Duration, Instant};

/// Where SIP of all of them comes from; their media, too.
pub const IP: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 80));
/// Longest wait for one step of all.
const PATIENCE: Duration = Duration::from_secs(30);
/// Devices that begin something at the same time.
const AT_ONCE: usize = 50;

/// Sockets of the generator that a device names in its description.
#[derive(Clone, Copy)]
pub struct Media {
    pub audio: u16,
    /// `None`: it has no video.
    pub video: Option<u16>,
}

/// Where a device has to send.
#[derive(Clone, Copy, Default)]
pub struct Remote {
    pub audio: Option<SocketAddr>,
    pub video: Option<SocketAddr>,
}

struct Device {
    agent: Agent,
    sip: UdpSocket,
    door: bool,
    media: Media,
    /// Our description, as offered or answered.
    ours: String,
    remote: Remote,
    registered: bool,
    described: bool,
    answered: bool,
    /// Called, it says nothing yet.
    holds: bool,
    /// Orders to open, or their results, that came by INFO: the first of each pair, and when.
    unlocks: Vec<(Instant, Value)>,
}

/// All devices: per call a door, then its phones.
pub struct House {
    devices: Vec<Device>,
    phones: usize,
    server: SocketAddr,
}

impl House {
    /// `media` says what each device of a call names, door first.
    pub fn new(server: &Server, calls: usize, phones: usize, media: impl Fn(usize, usize) -> Media) -> anyhow::Result<House> {
        let mut devices = Vec::new();
        for call in 0..calls {
            for device in 0..=phones {
                let number = if device == 0 { format!("door{call}") } else { format!("phone{call}-{}", device - 1) };
                let sip = UdpSocket::bind((IP, 0))?;
                sip.set_nonblocking(true)?;
                let mut seed = [7; 32];
                seed[..8].copy_from_slice(&(devices.len() as u64).to_le_bytes());
                let flow = Flow { transport: Transport::Udp, local: sip.local_addr()?, remote: server.sip };
                let agent = Agent::new(AgentConfig {
                    password: password(&number),
                    number,
                    domain: server.sip.ip().to_string(),
                    flow,
                    seed,
                    supported: "",
                    session_expires: None,
                });
                let (media, ours) = (media(call, device), String::new());
                let (registered, described, answered, holds) = (false, false, false, false);
                let door = device == 0;
                devices.push(Device {
                    agent,
                    sip,
                    door,
                    media,
                    ours,
                    remote: Remote::default(),
                    registered,
                    described,
                    answered,
                    holds,
                    unlocks: Vec::new(),
                });
            }
        }
        Ok(House { devices, phones, server: server.sip })
    }

    pub fn register(&mut self) -> anyhow::Result<()> {
        self.each("registrations", 0..self.devices.len(), |d| !d.door, |d, now, out| d.agent.register(now, out), |d| d.registered)
    }

    /// Doors call their rooms; their phones answer 183 with a description. Nobody answers the call.
    pub fn ring(&mut self, calls: Range<usize>) -> anyhow::Result<()> {
        let (mut call, devices) = (calls.start, calls.start * (self.phones + 1)..calls.end * (self.phones + 1));
        let begin = |device: &mut Device, now: Instant, out: &mut AgentOut| {
            let offer = sdp::offer(&device.local(), &device.supported()).to_string();
            device.ours.clone_from(&offer);
            device.agent.call(now, &format!("room{call}"), Bytes::from(offer), out);
            call += 1;
        };
        self.each("183s", devices.clone(), |d| d.door, begin, |d| d.described)?;
        self.turn_until("rings", |all| all[devices.clone()].iter().all(|device| device.described))
    }

    /// From now on phones that are called say nothing until [`House::show`].
    pub fn hold(&mut self) {
        self.devices.iter_mut().for_each(|device| device.holds = true);
    }

    /// Every phone that was called answers 183 with its description.
    pub fn show(&mut self) -> anyhow::Result<()> {
        let show = |device: &mut Device, now: Instant, out: &mut AgentOut| {
            let ours = device.ours.clone();
            device.agent.answer(now, 183, Some(ours.as_bytes()), out);
        };
        self.each("183s of phones", 0..self.devices.len(), |d| !d.door, show, |_| true)
    }

    /// Every phone picks up.
    pub fn answer(&mut self) -> anyhow::Result<()> {
        let pick_up = |device: &mut Device, now: Instant, out: &mut AgentOut| {
            let ours = device.ours.clone();
            device.agent.answer(now, 200, Some(ours.as_bytes()), out);
        };
        self.each("answers", 0..self.devices.len(), |d| !d.door, pick_up, |_| true)?;
        self.turn_until("answers at the doors", |all| all.iter().all(|device| !device.door || device.answered))
    }

    /// The phone of a call opens its door, which says so at once: how long the order and its result were under way, from socket to
    /// socket.
    pub fn unlock(&mut self, call: usize, reqsn: u16) -> anyhow::Result<(Duration, Duration)> {
        let server = self.server;
        let [door, phone] = &mut self.devices[call * (self.phones + 1)..][..2] else { bail!("no call {call}") };
        door.unlocks.clear();
        phone.unlocks.clear();
        let asked = Instant::now();
        phone.info_pair(&json!({"req": "unlock", "reqsn": reqsn}), server)?;
        let (ordered, order) = wait_for([&mut *door, &mut *phone], 0, server)?;
        ensure!(order["req"] == "unlock", "odd order {order}");
        let answered = Instant::now();
        door.info_pair(&json!({"res": "unlock", "reqsn": order["reqsn"], "status": 200}), server)?;
        let (told, result) = wait_for([&mut *door, &mut *phone], 1, server)?;
        ensure!(result == json!({"res": "unlock", "reqsn": reqsn, "status": 200}), "odd result {result}");
        Ok((ordered - asked, told - answered))
    }

    /// Lets everybody do what is due.
    pub fn rest(&mut self, time: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + time;
        self.turn_until("rest", |_| Instant::now() >= end)
    }

    /// Where the devices of a call send, door first.
    pub fn remotes(&self, call: usize) -> Vec<Remote> {
        let first = call * (self.phones + 1);
        self.devices[first..=first + self.phones].iter().map(|device| device.remote).collect()
    }

    /// Some do something, a few at a time, until each has come to its end.
    fn each(
        &mut self,
        what: &str,
        among: Range<usize>,
        who: impl Fn(&Device) -> bool,
        mut begin: impl FnMut(&mut Device, Instant, &mut AgentOut),
        done: impl Fn(&Device) -> bool,
    ) -> anyhow::Result<()> {
        let chosen: Vec<usize> = among.filter(|at| who(&self.devices[*at])).collect();
        for some in chosen.chunks(AT_ONCE) {
            for at in some {
                let (device, mut out) = (&mut self.devices[*at], AgentOut::default());
                begin(device, Instant::now(), &mut out);
                device.perform(out, self.server)?;
            }
            self.turn_until(what, |devices| some.iter().all(|at| done(&devices[*at])))?;
        }
        Ok(())
    }

    fn turn_until(&mut self, what: &str, done: impl Fn(&[Device]) -> bool) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        while !done(&self.devices) {
            if Instant::now() > end {
                bail!("no {what} in {PATIENCE:?}");
            }
            for device in &mut self.devices {
                device.turn(self.server)?;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// Turns two devices, and nobody else, until one of them has an order or a result.
fn wait_for(mut devices: [&mut Device; 2], who: usize, server: SocketAddr) -> anyhow::Result<(Instant, Value)> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        for device in &mut devices {
            device.turn(server)?;
        }
        if let Some(found) = devices[who].unlocks.first() {
            return Ok(found.clone());
        }
        std::thread::yield_now();
    }
    bail!("no unlock in {PATIENCE:?}")
}

impl Device {
    fn info_pair(&mut self, body: &Value, server: SocketAddr) -> anyhow::Result<()> {
        let (body, mut out) = (body.to_string(), AgentOut::default());
        for _ in 0..2 {
            self.agent.info(Instant::now(), "application/json", body.as_bytes(), &mut out);
        }
        self.perform(out, server)
    }

    fn turn(&mut self, server: SocketAddr) -> anyhow::Result<()> {
        let (now, mut out, mut buffer) = (Instant::now(), AgentOut::default(), [0; 4096]);
        while let Ok(length) = self.sip.recv(&mut buffer) {
            self.agent.receive(now, Bytes::copy_from_slice(&buffer[..length]), &mut out);
        }
        if self.agent.next_deadline().is_some_and(|at| at <= now) {
            self.agent.timeout(now, &mut out);
        }
        self.perform(out, server)
    }

    fn perform(&mut self, mut out: AgentOut, server: SocketAddr) -> anyhow::Result<()> {
        while !out.transmits.is_empty() || !out.events.is_empty() {
            let mut next = AgentOut::default();
            for transmit in out.transmits.drain(..) {
                self.sip.send_to(&transmit.bytes, server)?;
            }
            for event in out.events.drain(..) {
                self.event(event, &mut next)?;
            }
            out = next;
        }
        Ok(())
    }

    fn event(&mut self, event: AgentEvent, out: &mut AgentOut) -> anyhow::Result<()> {
        match event {
            AgentEvent::Registered => self.registered = true,
            AgentEvent::RegisterFailed { code } | AgentEvent::Refused { code } => bail!("{code}"),
            AgentEvent::Cancelled | AgentEvent::Ended => bail!("the call ended"),
            AgentEvent::Incoming { offer } => {
                let offer = Sdp::parse(&offer)?;
                let (answer, agreed) = sdp::answer(&offer, &self.local(), &self.supported())?;
                self.ours = answer.to_string();
                if !self.holds {
                    self.agent.answer(Instant::now(), 183, Some(self.ours.as_bytes()), out);
                }
                self.agreed(&agreed);
            }
            AgentEvent::Progress { body, .. } if !body.is_empty() => self.read(&body)?,
            AgentEvent::Answered { body } => {
                self.answered = true;
                self.read(&body)?;
            }
            AgentEvent::Info { body } => {
                if let Ok(value) = serde_json::from_slice(&body) {
                    self.unlocks.push((Instant::now(), value));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn read(&mut self, body: &[u8]) -> anyhow::Result<()> {
        let ours = Sdp::parse(self.ours.as_bytes()).context("our own description")?;
        self.agreed(&sdp::read_answer(&ours, &Sdp::parse(body)?)?);
        Ok(())
    }

    fn agreed(&mut self, agreed: &sdp::Agreed) {
        let remote = |stream: &Option<sdp::Stream>| stream.as_ref().and_then(|stream| stream.remote);
        self.remote = Remote { audio: remote(&agreed.audio), video: remote(&agreed.video) };
        self.described = true;
    }

    fn local(&self) -> Local {
        Local { ip: IP, audio_port: Some(self.media.audio), video_port: self.media.video, session_id: 1, version: 1, ice: None }
    }

    fn supported(&self) -> Supported {
        Supported {
            audio: vec![Codec::Pcma],
            audio_direction: Direction::SendRecv,
            video: vec![H264 { packetization_mode: 1, ..H264::parse("profile-level-id=42e01f") }],
            video_direction: if self.door { Direction::SendOnly } else { Direction::RecvOnly },
        }
    }
}
