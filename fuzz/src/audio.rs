//! Bytes → RTP payloads of a talker in an answered call, in whatever codec he claims: telephone-events and audio that has to be
//! converted. Input: records of one byte payload type, one byte that moves sequence and timestamp, one byte length, payload.
//! What the door gets is one source, each number once and in order, and bounded by what came in.

use media::command::{Codec, Command, LegId, LegPlan, PairId, Payload, SessionId, StreamPlan};
use media::engine::{Channel, Engine, Out, Tail};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const SESSION: SessionId = SessionId(1);
const DOOR: u64 = 1;
const PHONE: u64 = 2;
/// Payload types 0 to 5, the same on both sides; the door shares none of the sounds.
const PHONE_SPEAKS: [Codec; 6] =
    [Codec::Pcma, Codec::G722, Codec::Opus, Codec::Pcma, Codec::TelephoneEvent(8000), Codec::TelephoneEvent(48_000)];
const DOOR_SPEAKS: [Codec; 2] = [Codec::Pcmu, Codec::TelephoneEvent(8000)];
/// 200 ms in one packet and 120 ms made up before it, in frames of 20 ms, one of them begun before; a press let go.
const MOST: usize = 17;

fn address(leg: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, leg as u8], 4000))
}

fn plan(leg: u64, codecs: &[Codec]) -> LegPlan {
    let stream = StreamPlan {
        pair: PairId(leg as u32),
        remote: Some(address(leg)),
        remote_rtcp: None,
        sip_source: address(leg).ip(),
        payloads: codecs.iter().enumerate().map(|(pt, codec)| Payload { pt: pt as u8, codec: *codec }).collect(),
        ssrc: 7,
        parameter_sets: vec![],
        rtcp_mux: false,
        ice: None,
        first_seq: 0,
        first_timestamp: 0,
        send: true,
        receive: true,
    };
    LegPlan { leg: LegId(leg), audio: Some(stream), video: None }
}

pub fn run(bytes: &[u8]) {
    let (mut engine, mut now) = (Engine::default(), Instant::now());
    let mut out = Out::default();
    engine.command(now, Command::Open { session: SESSION, anchor: plan(DOOR, &DOOR_SPEAKS), key_frame_by: None }, &mut out);
    engine.command(now, Command::Put { session: SESSION, leg: plan(PHONE, &PHONE_SPEAKS) }, &mut out);
    engine.command(now, Command::Talk { session: SESSION, leg: Some(LegId(PHONE)) }, &mut out);
    let (mut rest, mut sequence, mut timestamp, mut last) = (bytes, 0u16, 0u32, None::<u16>);
    while let [pt, moves, length, tail @ ..] = rest {
        let (payload, after) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = after;
        sequence = sequence.wrapping_add(u16::from(moves & 15)).wrapping_sub(1);
        timestamp = timestamp.wrapping_add(u32::from(moves >> 4) * 480).wrapping_sub(480);
        let mut packet = vec![0x80, pt & 0x87];
        packet.extend(sequence.to_be_bytes());
        packet.extend(timestamp.to_be_bytes());
        packet.extend(9u32.to_be_bytes());
        packet.extend(payload);
        let mut out = Out::default();
        engine.receive(now, PairId(PHONE as u32), Channel::Rtp, address(PHONE), &packet, &mut out);
        assert!(out.sends.len() <= MOST, "{} packets out of one", out.sends.len());
        for send in &out.sends {
            assert_eq!(send.to, address(DOOR));
            let number = u16::from_be_bytes([send.head[2], send.head[3]]);
            assert!(last.is_none_or(|last| number == last.wrapping_add(1)), "{number} after {last:?}");
            last = Some(number);
            if let Tail::Owned(payload) = &send.tail {
                assert!(payload.len() == 160 || payload.len() == 4, "a frame of 20 ms, or an event");
            }
        }
        now += Duration::from_millis(u64::from(moves & 31));
    }
}
