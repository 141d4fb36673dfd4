//! A door and two phones with audio only, on virtual time: what goes in is made here, what comes out is kept as the peer gets it.

#![allow(dead_code)] // each test binary uses its part
#![allow(clippy::disallowed_methods)] // a test needs some instant to begin at

use media::audio::{Decoder, Encoder};
use media::command::*;
use media::engine::{Channel, Engine, Out, Tail};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub const S: SessionId = SessionId(1);
pub const DOOR: LegId = LegId(1);
pub const A: LegId = LegId(2);
pub const B: LegId = LegId(3);

pub fn address(leg: LegId) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, leg.0 as u8], 4000))
}

pub fn pair(leg: LegId) -> PairId {
    PairId(leg.0 as u32)
}

/// The usual payload type of a codec, moved by the leg's number where it is dynamic.
pub fn pt(leg: LegId, codec: Codec) -> u8 {
    let dynamic = |base: u8| base + leg.0 as u8;
    match codec {
        Codec::Pcmu => 0,
        Codec::Pcma => 8,
        Codec::G722 => 9,
        Codec::Opus => dynamic(96),
        Codec::Speex(hz) => dynamic(if hz == 8000 { 105 } else { 110 }),
        Codec::TelephoneEvent(8000) => dynamic(100),
        Codec::TelephoneEvent(_) => dynamic(115),
        Codec::H264 => dynamic(120),
    }
}

pub fn plan(leg: LegId, codecs: &[Codec]) -> LegPlan {
    let audio = StreamPlan {
        pair: pair(leg),
        remote: Some(address(leg)),
        remote_rtcp: None,
        sip_source: address(leg).ip(),
        payloads: codecs.iter().map(|codec| Payload { pt: pt(leg, *codec), codec: *codec }).collect(),
        ssrc: 0x1000 * leg.0 as u32,
        parameter_sets: vec![],
        rtcp_mux: false,
        ice: None,
        first_seq: 0xfff0,
        first_timestamp: 0xffff_ff00,
        send: true,
        receive: true,
    };
    LegPlan { leg, audio: Some(audio), video: None }
}

/// A packet as its receiver has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    pub at: Instant,
    pub pt: u8,
    pub marker: bool,
    pub seq: u16,
    pub ts: u32,
    pub ssrc: u32,
    pub payload: Vec<u8>,
}

pub struct Star {
    pub now: Instant,
    pub engine: Engine,
    pub events: Vec<Event>,
    pub got: Vec<(LegId, Got)>,
}

impl Star {
    pub fn new(door: &[Codec], phones: &[(LegId, &[Codec])]) -> Star {
        let mut star = Star { now: Instant::now(), engine: Engine::default(), events: vec![], got: vec![] };
        star.command(Command::Open { session: S, anchor: plan(DOOR, door), key_frame_by: None });
        for (leg, codecs) in phones {
            star.command(Command::Put { session: S, leg: plan(*leg, codecs) });
        }
        star
    }

    pub fn command(&mut self, command: Command) {
        let mut out = Out::default();
        self.engine.command(self.now, command, &mut out);
        self.keep(out, &[]);
    }

    pub fn talk(&mut self, leg: LegId) {
        self.command(Command::Talk { session: S, leg: Some(leg) });
    }

    pub fn rtp(&mut self, leg: LegId, codec: Codec, seq: u16, ts: u32, marker: bool, payload: &[u8]) {
        let mut packet = vec![0x80, pt(leg, codec) | u8::from(marker) << 7];
        packet.extend(seq.to_be_bytes());
        packet.extend(ts.to_be_bytes());
        packet.extend((77 + leg.0 as u32).to_be_bytes());
        packet.extend(payload);
        let mut out = Out::default();
        self.engine.receive(self.now, pair(leg), Channel::Rtp, address(leg), &packet, &mut out);
        self.keep(out, &packet);
    }

    fn keep(&mut self, out: Out, input: &[u8]) {
        self.events.extend(out.events);
        for send in out.sends.into_iter().filter(|send| send.channel == Channel::Rtp) {
            let payload = match &send.tail {
                Tail::Input => input[12..].to_vec(),
                Tail::Owned(bytes) => bytes.to_vec(),
            };
            let h = send.head;
            let got = Got {
                at: self.now,
                pt: h[1] & 0x7f,
                marker: h[1] & 0x80 != 0,
                seq: u16::from_be_bytes([h[2], h[3]]),
                ts: u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
                ssrc: u32::from_be_bytes([h[8], h[9], h[10], h[11]]),
                payload,
            };
            self.got.push((LegId(send.pair.0.into()), got));
        }
    }

    /// Lets time pass, with everything that is due on the way.
    pub fn wait(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while let Some(at) = self.engine.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let mut out = Out::default();
            self.engine.timeout(self.now, &mut out);
            self.keep(out, &[]);
        }
        self.now = end;
    }

    pub fn to(&self, leg: LegId) -> Vec<Got> {
        self.got.iter().filter(|(to, _)| *to == leg).map(|(_, got)| got.clone()).collect()
    }

    /// Named drops of a leg's audio so far.
    pub fn drops(&mut self, leg: LegId) -> Vec<(&'static str, u64)> {
        self.events.clear();
        self.command(Command::Close { session: S });
        let Some(Event::Report { legs, .. }) = self.events.last() else { panic!("a last report") };
        legs.iter().find(|report| report.leg == leg).map(|report| report.audio.drops.clone()).unwrap_or_default()
    }

    pub fn digits(&self) -> Vec<(LegId, char)> {
        let digit = |event: &Event| if let Event::Digit { leg, digit, .. } = event { Some((*leg, *digit)) } else { None };
        self.events.iter().filter_map(digit).collect()
    }
}

/// A peer that sends a tone in one codec, 20 ms at a time.
pub struct Tone {
    pub codec: Codec,
    pub hz: f32,
    encoder: Encoder,
    sample: usize,
    pub seq: u16,
    pub ts: u32,
}

pub const LEVEL: f32 = 8000.0;

impl Tone {
    pub fn new(codec: Codec, hz: f32) -> Tone {
        // Both numbers wrap during a test.
        Tone { codec, hz, encoder: Encoder::new(codec, 16_000).unwrap(), sample: 0, seq: 0xfffa, ts: 0xffff_f000 }
    }

    pub fn packet(&mut self) -> (u16, u32, Vec<u8>) {
        let rate = self.encoder.rate() as f32;
        let pcm: Vec<i16> = (self.sample..self.sample + self.encoder.frame())
            .map(|n| (LEVEL * (std::f32::consts::TAU * self.hz * n as f32 / rate).sin()) as i16)
            .collect();
        self.sample += pcm.len();
        let packet = (self.seq, self.ts, self.encoder.encode(&pcm).unwrap().to_vec());
        self.seq = self.seq.wrapping_add(1);
        self.ts = self.ts.wrapping_add(self.codec.clock_rate() / 50);
        packet
    }

    /// Sends one packet from a leg, and 20 ms pass.
    pub fn send(&mut self, star: &mut Star, leg: LegId) {
        let (seq, ts, payload) = self.packet();
        star.rtp(leg, self.codec, seq, ts, false, &payload);
        star.wait(20);
    }
}

/// What a peer hears of these packets.
pub fn decode(codec: Codec, packets: &[Got]) -> (u32, Vec<i16>) {
    let (mut decoder, mut pcm) = (Decoder::new(codec).unwrap(), vec![]);
    for packet in packets {
        decoder.decode(&packet.payload, &mut pcm).unwrap();
    }
    (decoder.rate(), pcm)
}

/// Level of a frequency in dB against the tone that was sent, and its share of the energy (Goertzel).
pub fn heard(rate: u32, pcm: &[i16], hz: f32) -> (f64, f64) {
    let turn = 2.0 * (std::f64::consts::TAU * f64::from(hz) / f64::from(rate)).cos();
    let (mut a, mut b, mut energy) = (0.0, 0.0, 1e-9);
    for sample in pcm {
        let x = f64::from(*sample);
        energy += x * x;
        (a, b) = (x + turn * a - b, a);
    }
    let power = a * a + b * b - turn * a * b;
    let half = pcm.len() as f64 / 2.0;
    let amplitude = power.sqrt() / half;
    (20.0 * (amplitude / f64::from(LEVEL)).log10(), power / (half * energy))
}

/// One source, numbered without gaps, in frames of 20 ms.
pub fn is_one_stream(packets: &[Got], codec: Codec) {
    let step = codec.clock_rate() / 50;
    for two in packets.windows(2) {
        assert_eq!(two[1].ssrc, two[0].ssrc);
        assert_eq!(two[1].seq, two[0].seq.wrapping_add(1), "{codec:?}");
        assert_eq!(two[1].ts, two[0].ts.wrapping_add(step), "{codec:?} seq {}", two[1].seq);
    }
}
