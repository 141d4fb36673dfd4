//! What a packet of 20 ms costs the media engine: forwarded, and converted between each pair of codecs. No server, no sockets.

use crate::stats::Row;
use media::command::*;
use media::engine::{Channel, Engine, Out, Tail};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const CODECS: [Codec; 4] = [Codec::Pcmu, Codec::Pcma, Codec::G722, Codec::Opus];
const PACKETS: u16 = 2000;
const SESSION: SessionId = SessionId(1);

pub fn run() -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for door in CODECS {
        let packets = sound(door);
        for phone in CODECS {
            let mut star = Star::new(door, phone);
            let times = packets.iter().map(|packet| {
                let begun = Instant::now();
                star.give(packet);
                begun.elapsed().as_secs_f64() * 1e6
            });
            let times = times.collect();
            rows.push(Row::of(format!("{door:?} to {phone:?}"), "µs", times, None)?);
        }
    }
    Ok(rows)
}

/// A door and a phone.
struct Star {
    engine: Engine,
    out: Out,
    now: Instant,
}

impl Star {
    fn new(door: Codec, phone: Codec) -> Star {
        let leg = |leg: u64, codec| {
            let stream = StreamPlan {
                pair: PairId(leg as u32),
                remote: Some(address(leg)),
                remote_rtcp: None,
                sip_source: address(leg).ip(),
                payloads: vec![Payload { pt: 96, codec }],
                ssrc: leg as u32,
                first_seq: 0,
                first_timestamp: 0,
                send: true,
                receive: true,
                parameter_sets: vec![],
                rtcp_mux: false,
                ice: None,
            };
            LegPlan { leg: LegId(leg), audio: Some(stream), video: None }
        };
        let mut star = Star { engine: Engine::default(), out: Out::default(), now: Instant::now() };
        let open = Command::Open { session: SESSION, anchor: leg(0, door), key_frame_by: None };
        star.engine.command(star.now, open, &mut star.out);
        star.engine.command(star.now, Command::Put { session: SESSION, leg: leg(1, phone) }, &mut star.out);
        star
    }

    /// 20 ms of the door.
    fn give(&mut self, packet: &[u8]) {
        self.out.sends.clear();
        self.now += Duration::from_millis(20);
        self.engine.receive(self.now, PairId(0), Channel::Rtp, address(0), packet, &mut self.out);
    }
}

fn address(leg: u64) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 4000 + 2 * leg as u16))
}

/// Sound in this codec, as the engine makes it from a G.711 sawtooth.
fn sound(codec: Codec) -> Vec<Vec<u8>> {
    let saw: Vec<u8> = (0..160u8).map(|n| n % 40 * 3).collect();
    let pcmu = (0..PACKETS).map(|seq| packet(seq, u32::from(seq) * 160, &saw));
    if codec == Codec::Pcmu {
        return pcmu.collect();
    }
    let mut star = Star::new(Codec::Pcmu, codec);
    let converted = pcmu.filter_map(|pcmu| {
        star.give(&pcmu);
        let send = star.out.sends.iter().find(|send| send.to == address(1) && send.channel == Channel::Rtp)?;
        let Tail::Owned(tail) = &send.tail else { return None };
        Some([&send.head[..], tail].concat())
    });
    converted.collect()
}

fn packet(seq: u16, timestamp: u32, payload: &[u8]) -> Vec<u8> {
    [&[0x80, 96], &seq.to_be_bytes()[..], &timestamp.to_be_bytes(), &[0, 0, 0, 9], payload].concat()
}
