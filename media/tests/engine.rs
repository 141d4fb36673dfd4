//! The engine on packet traces: a door, its phones, and strangers.

#![allow(clippy::disallowed_methods)] // a test needs some instant to begin at

use media::command::*;
use media::engine::{Channel, Engine, Out, Tail};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const S: SessionId = SessionId(1);
const DOOR: LegId = LegId(1);
const A: LegId = LegId(2);
const B: LegId = LegId(3);

/// Pairs: leg n has audio pair 10n and video pair 10n + 1. Peers live at 10.0.0.n, audio 4000, video 5000.
fn address(leg: LegId, kind: Kind) -> SocketAddr {
    let port = if kind == Kind::Audio { 4000 } else { 5000 };
    SocketAddr::from(([10, 0, 0, leg.0 as u8], port))
}

fn pair(leg: LegId, kind: Kind) -> PairId {
    PairId(leg.0 as u32 * 10 + u32::from(kind == Kind::Video))
}

fn plan(leg: LegId) -> LegPlan {
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
    };
    LegPlan { leg, audio: Some(stream(Kind::Audio)), video: Some(stream(Kind::Video)) }
}

fn rtp(pt: u8, seq: u16, ts: u32, ssrc: u32, marker: bool, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, pt | u8::from(marker) << 7];
    packet.extend(seq.to_be_bytes());
    packet.extend(ts.to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend(payload);
    packet
}

const SPS: &[u8] = &[0x67, 1, 2];
const IDR: &[u8] = &[0x65, 0x88, 2];
const P: &[u8] = &[0x41, 0x9a, 2];

struct World {
    now: Instant,
    engine: Engine,
    events: Vec<Event>,
}

/// What left: to whom, and the RTP fields.
#[derive(Debug, PartialEq, Eq)]
struct Sent {
    to: SocketAddr,
    pt: u8,
    seq: u16,
    ts: u32,
    ssrc: u32,
}

impl World {
    fn new(legs: &[LegId]) -> World {
        let mut world = World { now: Instant::now(), engine: Engine::default(), events: vec![] };
        world.command(Command::Open { session: S, anchor: plan(DOOR) });
        for leg in legs {
            world.command(Command::Put { session: S, leg: plan(*leg) });
        }
        world
    }

    fn command(&mut self, command: Command) -> Out {
        let mut out = Out::default();
        self.engine.command(self.now, command, &mut out);
        self.events.append(&mut out.events);
        out
    }

    fn give(&mut self, pair: PairId, channel: Channel, from: SocketAddr, bytes: &[u8]) -> Vec<Sent> {
        let mut out = Out::default();
        self.engine.receive(self.now, pair, channel, from, bytes, &mut out);
        self.events.append(&mut out.events);
        out.sends
            .iter()
            .map(|send| {
                if send.channel == Channel::Rtp {
                    assert_eq!(send.tail, Tail::Input);
                }
                let h = &send.head;
                Sent {
                    to: send.to,
                    pt: if send.channel == Channel::Rtp { h[1] & 0x7f } else { h[1] },
                    seq: u16::from_be_bytes([h[2], h[3]]),
                    ts: u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
                    ssrc: u32::from_be_bytes([h[8], h[9], h[10], h[11]]),
                }
            })
            .collect()
    }

    fn audio(&mut self, leg: LegId, seq: u16, ssrc: u32) -> Vec<Sent> {
        self.give(
            pair(leg, Kind::Audio),
            Channel::Rtp,
            address(leg, Kind::Audio),
            &rtp(0, seq, u32::from(seq) * 160, ssrc, false, &[1; 160]),
        )
    }

    fn video(&mut self, seq: u16, marker: bool, payload: &[u8]) -> Vec<Sent> {
        self.give(pair(DOOR, Kind::Video), Channel::Rtp, address(DOOR, Kind::Video), &rtp(97, seq, 3000, 77, marker, payload))
    }

    fn wait(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    fn report(&mut self) -> Vec<LegReport> {
        let mut out = Out::default();
        self.wait(1000);
        self.engine.timeout(self.now, &mut out);
        let reports = out.events.into_iter().filter_map(|e| if let Event::Report { legs, .. } = e { Some(legs) } else { None });
        reports.collect::<Vec<_>>().pop().expect("a report a second")
    }
}

fn to(sent: &[Sent]) -> Vec<SocketAddr> {
    sent.iter().map(|s| s.to).filter(|to| to.port() % 2 == 0).collect()
}

#[test]
fn door_packets_reach_every_early_phone_with_their_own_header() {
    let mut w = World::new(&[A, B]);
    let sent = w.audio(DOOR, 9, 7);
    assert_eq!(
        sent,
        [
            Sent { to: address(A, Kind::Audio), pt: 0, seq: 100, ts: 5000, ssrc: 0x2000 },
            Sent { to: address(B, Kind::Audio), pt: 0, seq: 100, ts: 5000, ssrc: 0x3000 },
        ]
    );
    let sent = w.audio(DOOR, 11, 7);
    assert_eq!((sent[0].seq, sent[0].ts), (102, 5320), "a loss stays a loss");
    w.video(1, false, SPS);
    let sent = w.video(2, true, IDR);
    assert_eq!(to(&sent), [address(A, Kind::Video), address(B, Kind::Video)]);
    assert_eq!((sent[0].pt, sent[1].pt), (98, 99), "payload types are per leg");
    assert_eq!(w.events.iter().filter(|e| matches!(e, Event::AnchorHeard { .. })).count(), 1);
    assert_eq!(w.events.iter().filter(|e| matches!(e, Event::FirstVideo { .. })).count(), 2);
    assert_eq!(w.events.iter().filter(|e| matches!(e, Event::FirstKeyFrame { .. })).count(), 1);
}

#[test]
fn phone_audio_reaches_the_door_only_after_the_answer_and_video_never() {
    let mut w = World::new(&[A, B]);
    assert!(w.audio(A, 1, 50).is_empty());
    w.command(Command::Talk { session: S, leg: Some(A) });
    assert_eq!(to(&w.audio(A, 2, 50)), [address(DOOR, Kind::Audio)]);
    assert!(w.audio(B, 1, 60).is_empty());
    let sent = w.give(pair(A, Kind::Video), Channel::Rtp, address(A, Kind::Video), &rtp(98, 1, 1, 51, true, IDR));
    assert!(sent.is_empty());
    let digits =
        w.give(pair(A, Kind::Audio), Channel::Rtp, address(A, Kind::Audio), &rtp(103, 3, 320, 50, true, &[10, 0, 0, 160]));
    assert_eq!(digits[0].pt, 102, "telephone-event by the door's payload type");
    let report = w.report();
    assert_eq!(report[1].audio.drops, [("not_talking", 1)]);
    assert_eq!(report[1].video.drops, [("not_receiving", 1)]);
    assert_eq!(report[2].audio.drops, [("not_talking", 1)]);
}

#[test]
fn the_door_hears_one_stream_when_the_talker_changes() {
    let mut w = World::new(&[A, B]);
    w.command(Command::Talk { session: S, leg: Some(A) });
    let first = w.audio(A, 1, 50);
    w.wait(20);
    w.command(Command::Talk { session: S, leg: Some(B) });
    let second = w.audio(B, 9000, 60);
    assert_eq!((first[0].ssrc, second[0].ssrc), (0x1000, 0x1000));
    assert_eq!((second[0].seq, second[0].ts), (first[0].seq + 1, first[0].ts + 160));
}

#[test]
fn the_visitor_hears_ringback_until_somebody_talks_in_one_stream() {
    let mut w = World::new(&[A]);
    let mut packets = vec![];
    w.command(Command::Ringback { session: S, on: true });
    for _ in 0..100 {
        let mut out = Out::default();
        w.engine.timeout(w.now, &mut out);
        packets.extend(out.sends.into_iter().filter(|s| s.to == address(DOOR, Kind::Audio)));
        w.wait(10);
    }
    assert_eq!(packets.len(), 50, "one in 20 ms");
    let seq = |head: &[u8; 12]| u16::from_be_bytes([head[2], head[3]]);
    let ts = |head: &[u8; 12]| u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
    assert!(packets.windows(2).all(|p| seq(&p[1].head) == seq(&p[0].head) + 1 && ts(&p[1].head) == ts(&p[0].head) + 160));
    assert!(matches!(&packets[0].tail, Tail::Owned(samples) if samples.len() == 160));
    w.command(Command::Talk { session: S, leg: Some(A) });
    let talk = w.audio(A, 7000, 50);
    assert_eq!(talk[0].seq, seq(&packets[49].head) + 1, "the talk goes on where the tone ended");
    assert!(talk[0].ssrc == 0x1000);
    w.wait(40);
    let mut out = Out::default();
    w.engine.timeout(w.now, &mut out);
    assert!(out.sends.is_empty(), "no tone behind the talk");
}

#[test]
fn joining_phone_starts_at_a_key_frame_and_the_door_is_asked_for_one() {
    let mut w = World::new(&[A]);
    w.video(1, false, SPS);
    w.video(2, true, IDR);
    let out = w.command(Command::Put { session: S, leg: plan(B) });
    let asked = &out.sends[0];
    assert_eq!((asked.channel, asked.to), (Channel::Rtcp, SocketAddr::from(([10, 0, 0, 1], 5001))));
    let Tail::Owned(tail) = &asked.tail else { panic!("a PLI") };
    assert!(media::rtcp::asks_for_key_frame(&[&asked.head[..], tail].concat()));
    assert_eq!(to(&w.video(3, true, P)), [address(A, Kind::Video)], "B waits");
    w.wait(499);
    let mut out = Out::default();
    w.engine.timeout(w.now, &mut out);
    assert!(out.sends.is_empty(), "not asked twice in half a second");
    w.wait(1);
    assert_eq!(w.engine.next_deadline(), Some(w.now));
    w.engine.timeout(w.now, &mut out);
    assert_eq!(out.sends.len(), 1, "asked again");
    let sent = w.video(4, true, IDR);
    assert_eq!(to(&sent), [address(A, Kind::Video)], "an IDR without its parameter sets is of no use to B");
    w.video(5, false, SPS);
    let sent = w.video(6, true, IDR);
    assert_eq!(to(&sent), [address(A, Kind::Video), address(B, Kind::Video)]);
    assert_eq!(sent[1].seq, 101, "what B did not get leaves no gap");
    assert_eq!(w.report()[2].video.drops, [("before_key_frame", 2)]);
}

#[test]
fn a_phone_that_asks_for_a_key_frame_is_heard() {
    let mut w = World::new(&[A]);
    w.video(1, false, SPS);
    w.video(2, true, IDR);
    let pli = media::rtcp::pli(1, 2);
    let rtcp = |leg: LegId| SocketAddr::new(address(leg, Kind::Video).ip(), 5001);
    assert_eq!(w.give(pair(A, Kind::Video), Channel::Rtcp, rtcp(A), &pli).len(), 1);
    assert!(w.give(pair(A, Kind::Video), Channel::Rtcp, rtcp(A), &pli).is_empty(), "at most one in half a second");
    w.wait(500);
    assert!(w.give(pair(A, Kind::Video), Channel::Rtcp, "203.0.113.5:9".parse().unwrap(), &pli).is_empty(), "a stranger");
    assert!(w.give(pair(DOOR, Kind::Video), Channel::Rtcp, rtcp(DOOR), &pli).is_empty(), "the door");
}

#[test]
fn strangers_and_nonsense_are_dropped_by_name() {
    let mut w = World::new(&[A]);
    w.audio(DOOR, 1, 7);
    let stranger: SocketAddr = "203.0.113.5:4000".parse().unwrap();
    let at = pair(DOOR, Kind::Audio);
    assert!(w.give(at, Channel::Rtp, stranger, &rtp(0, 2, 2, 7, false, &[1])).is_empty());
    let home = address(DOOR, Kind::Audio);
    assert!(w.give(at, Channel::Rtp, home, &rtp(55, 2, 2, 7, false, &[1])).is_empty());
    assert!(w.give(at, Channel::Rtp, home, &[0x80; 5]).is_empty());
    let mut stun = [0u8; 20];
    stun[4..8].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
    assert!(w.give(at, Channel::Rtp, home, &stun).is_empty());
    assert!(w.give(at, Channel::Rtp, home, &rtp(0, 2, 2, 8, false, &[1])).is_empty());
    let drops = w.report()[0].audio.drops.clone();
    assert_eq!(drops, [("not_rtp", 1), ("stun", 1), ("foreign_source", 1), ("new_source", 1), ("payload_type", 1)]);
}

#[test]
fn a_closed_session_forwards_nothing_and_its_pairs_are_noisy_at_most_once_a_second() {
    let mut w = World::new(&[A]);
    w.audio(DOOR, 1, 7);
    w.command(Command::Close { session: S });
    assert!(
        matches!(w.events.last(), Some(Event::Report { last: true, legs, .. }) if legs[0].audio.packets_in == 1 && legs[1].audio.packets_out == 1)
    );
    w.events.clear();
    for _ in 0..5 {
        assert!(w.audio(DOOR, 2, 7).is_empty());
    }
    assert_eq!(w.events, [Event::Noise { pair: pair(DOOR, Kind::Audio) }]);
    w.wait(1000);
    w.audio(DOOR, 3, 7);
    assert_eq!(w.events.len(), 2);
    assert_eq!(w.engine.sizes(), (0, 0));
}

#[test]
fn a_removed_phone_gets_nothing_more_and_its_counters_come_back() {
    let mut w = World::new(&[A, B]);
    w.audio(DOOR, 1, 7);
    w.command(Command::Remove { session: S, leg: A });
    assert!(
        matches!(w.events.last(), Some(Event::Report { legs, last: false, .. }) if legs[0].leg == A && legs[0].audio.packets_out == 1)
    );
    assert_eq!(to(&w.audio(DOOR, 2, 7)), [address(B, Kind::Audio)]);
}

#[test]
fn no_datagram_panics_or_crosses_sessions() {
    use proptest::prelude::*;
    proptest!(|(packets in proptest::collection::vec((0u32..40, any::<bool>(), 0u8..4, proptest::collection::vec(any::<u8>(), 0..60), any::<bool>()), 0..60))| {
        let mut w = World::new(&[A]);
        // A second session, with legs 3 and up, must never send to the first one's peers.
        let mut other = plan(B);
        other.video = None;
        let two = SessionId(2);
        w.command(Command::Open { session: two, anchor: other });
        for (at, rtcp, from, mut bytes, valid) in packets {
            if valid && bytes.len() > 12 {
                bytes[0] = 0x80;
                bytes[1] &= 0x81;
            }
            let channel = if rtcp { Channel::Rtcp } else { Channel::Rtp };
            let sent = w.give(PairId(at), channel, SocketAddr::from(([10, 0, 0, from], 4000)), &bytes);
            if at / 10 == B.0 as u32 {
                prop_assert!(sent.is_empty(), "the other session has no receiver");
            }
            prop_assert!(sent.iter().all(|s| s.to.ip() != address(B, Kind::Audio).ip()));
        }
    });
}
