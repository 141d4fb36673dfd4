//! Bytes → datagrams at all ports of two sessions, RTP, RTCP and anything else, from their own peers and from strangers: RTP and
//! RTCP reading, H264 and the key-frame cache, requests for key frames, reports. Input: records of one byte port, one byte who,
//! one byte shape, one byte length, content. Nothing crosses from one session to the other or goes to a stranger, a picture
//! begins with parameter sets or a key frame, and no packet makes more than a cached group.

use media::command::{Codec, Command, LegId, LegPlan, PairId, Payload, SessionId, StreamPlan};
use media::engine::{Channel, Engine, Out};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Legs 0 and 1 are door and phone of the first session, 2 and 3 of the second. Leg n has audio pair 2n and video pair 2n + 1.
const LEGS: u64 = 4;
/// A key frame twice, and what follows it.
const MOST: usize = 400;

fn address(pair: u32) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, (pair / 2) as u8 + 1], 4000 + 2 * pair as u16))
}

fn plan(leg: u64) -> LegPlan {
    let door = leg.is_multiple_of(2);
    let stream = |video: bool| {
        let pair = leg as u32 * 2 + u32::from(video);
        StreamPlan {
            pair: PairId(pair),
            remote: Some(address(pair)),
            remote_rtcp: Some(SocketAddr::new(address(pair).ip(), address(pair).port() + 1)),
            sip_source: address(pair).ip(),
            payloads: vec![if video { Payload { pt: 96, codec: Codec::H264 } } else { Payload { pt: 0, codec: Codec::Pcmu } }],
            ssrc: 0x100 + pair,
            first_seq: 65_530,
            first_timestamp: 0,
            send: !video || !door,
            receive: !video || door,
            parameter_sets: vec![],
            rtcp_mux: leg == 1,
            ice: None,
        }
    };
    LegPlan { leg: LegId(leg), audio: Some(stream(false)), video: Some(stream(true)) }
}

pub fn run(bytes: &[u8]) {
    let (mut engine, mut now, mut out) = (Engine::default(), Instant::now(), Out::default());
    for door in [0, 2] {
        let session = SessionId(door);
        engine.command(now, Command::Open { session, anchor: plan(door), key_frame_by: None }, &mut out);
        engine.command(now, Command::Put { session, leg: plan(door + 1) }, &mut out);
        engine.command(now, Command::Talk { session, leg: Some(LegId(door + 1)) }, &mut out);
    }
    let (mut rest, mut begun) = (bytes, [false; LEGS as usize * 2]);
    let (mut sequence, mut timestamp) = (0u16, 0u32);
    while let [port, who, shape, length, tail @ ..] = rest {
        let (content, after) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = after;
        let pair = u32::from(*port) % (LEGS as u32 * 2);
        let stranger = who & 0xc0 == 0xc0;
        let from = if stranger { SocketAddr::from(([203, 0, 113, who & 7], 9)) } else { address(pair) };
        // Who knows the source may come from elsewhere after silence (D-17); a stranger does not.
        let source = if stranger { 0xee } else { pair as u8 };
        sequence = sequence.wrapping_add(u16::from(who & 7)).wrapping_sub(1);
        timestamp = timestamp.wrapping_add(u32::from(shape >> 5) * 3000);
        let datagram = match shape & 3 {
            // Anything at all.
            0 => content.to_vec(),
            1 => [&[0x81, 192 + (shape >> 2 & 31)], &((content.len() / 4) as u16).to_be_bytes()[..], content].concat(),
            _ => {
                let marker = (shape & 4) << 5;
                let pt = if pair % 2 == 1 { 96 } else { 0 };
                let numbers = [&sequence.to_be_bytes()[..], &timestamp.to_be_bytes(), &[0, 0, 0, source]].concat();
                [&[0x80, pt | marker][..], &numbers, content].concat()
            }
        };
        let channel = if shape & 3 == 1 { Channel::Rtcp } else { Channel::Rtp };
        let mut out = Out::default();
        engine.receive(now, PairId(pair), channel, from, &datagram, &mut out);
        now += Duration::from_millis(u64::from(who >> 3 & 7) * 10);
        if engine.next_deadline().is_some_and(|due| due <= now) {
            engine.timeout(now, &mut out);
        }
        assert!(out.sends.len() <= MOST, "{} packets out of one", out.sends.len());
        for send in &out.sends {
            assert_eq!(send.to.ip(), address(send.pair.0).ip(), "only to the peer of the port");
            let crosses = send.channel == Channel::Rtp && send.head[1] & 0x7f == 96 && send.pair.0 / 4 != pair / 4;
            assert!(!crosses, "a picture of another session");
            let video = send.pair.0 % 2 == 1 && send.channel == Channel::Rtp && send.head[1] & 0x7f == 96;
            if video && !std::mem::replace(&mut begun[send.pair.0 as usize], true) {
                let media::engine::Tail::Owned(payload) = &send.tail else { panic!("a picture that begins live") };
                let seen = media::h264::look(payload);
                let opens = seen.sps || seen.idr_begins || payload.first().is_some_and(|head| head & 0x1f >= 6);
                assert!(opens && !seen.slice, "it begins with {payload:x?}");
            }
        }
    }
    for session in [0, 2].map(SessionId) {
        engine.command(now, Command::TakePicture { session }, &mut out);
        engine.command(now, Command::Close { session }, &mut out);
    }
    assert_eq!(engine.sizes(), (0, 0), "nothing is left");
}
