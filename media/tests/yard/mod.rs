//! An Engine on virtual time with a door and a phone whose plans a test writes itself.

#![allow(dead_code)] // each test binary uses its part

use media::command::*;
use media::engine::{Channel, Engine, Out, Send, Tail};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

pub const DOOR: LegId = LegId(1);
pub const PHONE: LegId = LegId(2);

pub fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A PCMU stream on a pair, for a peer that names `remote` and signals from `sip`.
pub fn audio(pair: u32, remote: &str, sip: &str) -> StreamPlan {
    let remote = at(remote);
    StreamPlan {
        pair: PairId(pair),
        remote: Some(remote),
        remote_rtcp: Some(SocketAddr::new(remote.ip(), remote.port() + 1)),
        sip_source: sip.parse().unwrap(),
        payloads: vec![Payload { pt: 0, codec: Codec::Pcmu }],
        ssrc: 0xd000 + pair,
        first_seq: 1,
        first_timestamp: 0,
        send: true,
        receive: true,
        parameter_sets: vec![],
        rtcp_mux: false,
        ice: None,
    }
}

pub fn leg(leg: LegId, audio: StreamPlan) -> LegPlan {
    LegPlan { leg, audio: Some(audio), video: None }
}

pub fn rtp(pt: u8, seq: u16, ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, pt];
    packet.extend(seq.to_be_bytes());
    packet.extend((u32::from(seq) * 160).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend([0xff; 160]);
    packet
}

/// RTCP that asks for a key frame: an empty receiver report and a PLI.
pub fn pli(ours: u32, theirs: u32) -> Vec<u8> {
    let (ours, theirs) = (ours.to_be_bytes(), theirs.to_be_bytes());
    [&[0x80, 201, 0, 1][..], &ours, &[0x81, 206, 0, 2], &ours, &theirs].concat()
}

pub struct Yard {
    pub now: Instant,
    pub engine: Engine,
    pub events: Vec<Event>,
    /// Where something was sent to in its own time: reports, tones.
    pub sent: Vec<SocketAddr>,
}

impl Yard {
    #[allow(clippy::disallowed_methods)] // some instant to begin at
    pub fn new() -> Yard {
        Yard { now: Instant::now(), engine: Engine::default(), events: Vec::new(), sent: Vec::new() }
    }

    /// A session in which both talk.
    pub fn talk(&mut self, session: u64, door: StreamPlan, phone: StreamPlan) {
        let session = SessionId(session);
        self.order(Command::Open { session, anchor: leg(DOOR, door), key_frame_by: None });
        self.order(Command::Put { session, leg: leg(PHONE, phone) });
        self.order(Command::Talk { session, leg: Some(PHONE) });
    }

    pub fn order(&mut self, command: Command) {
        let mut out = Out::default();
        self.engine.command(self.now, command, &mut out);
        self.events.append(&mut out.events);
    }

    /// What leaves because of a datagram.
    pub fn give(&mut self, pair: u32, channel: Channel, from: SocketAddr, bytes: &[u8]) -> Vec<Send> {
        let mut out = Out::default();
        self.engine.receive(self.now, PairId(pair), channel, from, bytes, &mut out);
        self.events.append(&mut out.events);
        out.sends
    }

    /// An audio packet; where it was forwarded to.
    pub fn say(&mut self, pair: u32, from: &str, seq: u16, ssrc: u32) -> Vec<SocketAddr> {
        self.give(pair, Channel::Rtp, at(from), &rtp(0, seq, ssrc)).iter().map(|send| send.to).collect()
    }

    /// Time passes, and what is due happens.
    pub fn wait(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while let Some(due) = self.engine.next_deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            let mut out = Out::default();
            self.engine.timeout(self.now, &mut out);
            self.sent.extend(out.sends.iter().map(|send| send.to));
            self.events.append(&mut out.events);
        }
        self.now = end;
    }

    /// The last counters of a leg's audio.
    pub fn report(&mut self, leg: LegId) -> StreamReport {
        self.wait(1000);
        let mut reports = self.events.iter().rev().filter_map(|event| match event {
            Event::Report { legs, .. } => legs.iter().find(|report| report.leg == leg),
            _ => None,
        });
        reports.next().expect("a report").audio.clone()
    }

    /// Takes the news of silence.
    pub fn silent(&mut self) -> Vec<LegId> {
        let events = std::mem::take(&mut self.events);
        events.into_iter().filter_map(|event| if let Event::Silent { leg, .. } = event { Some(leg) } else { None }).collect()
    }
}

pub fn bytes(send: &Send) -> Vec<u8> {
    let Tail::Owned(tail) = &send.tail else { panic!("a datagram of our own") };
    [&send.head[..], tail].concat()
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
