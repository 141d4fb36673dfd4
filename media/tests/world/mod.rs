//! A door, its phones, and the engine between them, on virtual time.

#![allow(dead_code)] // each test file uses its part

use media::command::*;
use media::engine::{Channel, Engine, Out, Tail};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub const S: SessionId = SessionId(1);
pub const DOOR: LegId = LegId(1);
pub const A: LegId = LegId(2);
pub const B: LegId = LegId(3);

/// Pairs: leg n has audio pair 10n and video pair 10n + 1. Peers live at 10.0.0.n, audio 4000, video 5000.
pub fn address(leg: LegId, kind: Kind) -> SocketAddr {
    let port = if kind == Kind::Audio { 4000 } else { 5000 };
    SocketAddr::from(([10, 0, 0, leg.0 as u8], port))
}

pub fn pair(leg: LegId, kind: Kind) -> PairId {
    PairId(leg.0 as u32 * 10 + u32::from(kind == Kind::Video))
}

pub fn plan(leg: LegId) -> LegPlan {
    let door = leg == DOOR;
    let stream = |kind: Kind| StreamPlan {
        pair: pair(leg, kind),
        remote: Some(address(leg, kind)),
        remote_rtcp: Some(SocketAddr::new(address(leg, kind).ip(), address(leg, kind).port() + 1)),
        sip_source: address(leg, kind).ip(),
        payloads: match kind {
            Kind::Audio => {
                vec![Payload { pt: 0, codec: Codec::Pcmu }, Payload { pt: 101 + leg.0 as u8, codec: Codec::TelephoneEvent(8000) }]
            }
            Kind::Video => vec![Payload { pt: 96 + leg.0 as u8, codec: Codec::H264 }],
        },
        ssrc: 0x1000 * leg.0 as u32 + u32::from(kind == Kind::Video),
        first_seq: 100,
        first_timestamp: 5000,
        send: kind == Kind::Audio || !door,
        receive: kind == Kind::Audio || door,
        parameter_sets: vec![],
        rtcp_mux: false,
        ice: None,
    };
    LegPlan { leg, audio: Some(stream(Kind::Audio)), video: Some(stream(Kind::Video)) }
}

pub fn rtp(pt: u8, seq: u16, ts: u32, ssrc: u32, marker: bool, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, pt | u8::from(marker) << 7];
    packet.extend(seq.to_be_bytes());
    packet.extend(ts.to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend(payload);
    packet
}

pub const SPS: &[u8] = &[0x67, 0x42, 0xe0, 0x1f, 0x80];
pub const IDR: &[u8] = &[0x65, 0x88, 2];
pub const P: &[u8] = &[0x41, 0x9a, 2];

pub struct World {
    pub now: Instant,
    pub engine: Engine,
    pub events: Vec<Event>,
}

/// What left: to whom, and the RTP fields.
#[derive(Debug, PartialEq, Eq)]
pub struct Sent {
    pub to: SocketAddr,
    pub pt: u8,
    pub seq: u16,
    pub ts: u32,
    pub ssrc: u32,
    /// The whole datagram.
    pub bytes: Vec<u8>,
}

impl Sent {
    pub fn fields(&self) -> (SocketAddr, u8, u16, u32, u32) {
        (self.to, self.pt, self.seq, self.ts, self.ssrc)
    }

    pub fn payload(&self) -> &[u8] {
        &self.bytes[12..]
    }
}

impl World {
    pub fn new(legs: &[LegId]) -> World {
        let mut world = World { now: Instant::now(), engine: Engine::default(), events: vec![] };
        world.command(Command::Open { session: S, anchor: plan(DOOR), key_frame_by: None });
        for leg in legs {
            world.command(Command::Put { session: S, leg: plan(*leg) });
        }
        world
    }

    pub fn command(&mut self, command: Command) -> Out {
        let mut out = Out::default();
        self.engine.command(self.now, command, &mut out);
        self.events.append(&mut out.events);
        out
    }

    /// A datagram for the engine, and what leaves because of it.
    pub fn give(&mut self, pair: PairId, channel: Channel, from: SocketAddr, bytes: &[u8]) -> Vec<Sent> {
        let mut out = Out::default();
        self.engine.receive(self.now, pair, channel, from, bytes, &mut out);
        self.events.append(&mut out.events);
        sent(out, bytes)
    }

    /// Time passes; what leaves when it does.
    pub fn wait(&mut self, ms: u64) -> Vec<Sent> {
        let end = self.now + Duration::from_millis(ms);
        let mut all = vec![];
        while let Some(due) = self.engine.next_deadline().filter(|due| *due <= end) {
            self.now = due.max(self.now);
            let mut out = Out::default();
            self.engine.timeout(self.now, &mut out);
            self.events.append(&mut out.events);
            all.extend(sent(out, &[]));
        }
        self.now = end;
        all
    }

    pub fn audio(&mut self, leg: LegId, seq: u16, ssrc: u32) -> Vec<Sent> {
        self.give(
            pair(leg, Kind::Audio),
            Channel::Rtp,
            address(leg, Kind::Audio),
            &rtp(0, seq, u32::from(seq) * 160, ssrc, false, &[1; 160]),
        )
    }

    pub fn video(&mut self, seq: u16, marker: bool, payload: &[u8]) -> Vec<Sent> {
        self.video_at(seq, 3000, marker, payload)
    }

    pub fn video_at(&mut self, seq: u16, ts: u32, marker: bool, payload: &[u8]) -> Vec<Sent> {
        self.give(pair(DOOR, Kind::Video), Channel::Rtp, address(DOOR, Kind::Video), &rtp(97, seq, ts, 77, marker, payload))
    }

    pub fn report(&mut self) -> Vec<LegReport> {
        self.events.clear();
        self.wait(1000);
        let reports = self.events.drain(..).filter_map(|e| if let Event::Report { legs, .. } = e { Some(legs) } else { None });
        reports.collect::<Vec<_>>().pop().expect("a report a second")
    }
}

pub fn sent(out: Out, input: &[u8]) -> Vec<Sent> {
    let one = |send: media::engine::Send| {
        let h = send.head;
        let tail = match &send.tail {
            Tail::Input => &input[12..],
            Tail::Owned(bytes) => bytes,
        };
        Sent {
            to: send.to,
            pt: if send.channel == Channel::Rtp { h[1] & 0x7f } else { h[1] },
            seq: u16::from_be_bytes([h[2], h[3]]),
            ts: u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
            ssrc: u32::from_be_bytes([h[8], h[9], h[10], h[11]]),
            bytes: [&h[..], tail].concat(),
        }
    };
    out.sends.into_iter().map(one).collect()
}

/// RTP that was sent to this leg's video.
pub fn seen_by(leg: LegId, sent: &[Sent]) -> Vec<&Sent> {
    sent.iter().filter(|sent| sent.to == address(leg, Kind::Video)).collect()
}

pub fn to(sent: &[Sent]) -> Vec<SocketAddr> {
    sent.iter().map(|s| s.to).filter(|to| to.port() % 2 == 0).collect()
}
