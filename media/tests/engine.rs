//! The engine on packet traces: a door, its phones, and strangers.

#![allow(clippy::disallowed_methods)] // a test needs some instant to begin at

mod world;

use media::command::*;
use media::engine::Channel;
use std::net::SocketAddr;
use world::*;

#[test]
fn door_packets_reach_every_early_phone_with_their_own_header() {
    let mut w = World::new(&[A, B]);
    let sent = w.audio(DOOR, 9, 7);
    assert_eq!(
        sent.iter().map(Sent::fields).collect::<Vec<_>>(),
        [(address(A, Kind::Audio), 0, 100, 5000, 0x2000), (address(B, Kind::Audio), 0, 100, 5000, 0x3000)]
    );
    let sent = w.audio(DOOR, 11, 7);
    assert_eq!((sent[0].seq, sent[0].ts), (102, 5320), "a loss stays a loss");
    w.video(1, false, SPS);
    let sent = w.video(2, true, IDR);
    assert_eq!((seen_by(A, &sent).len(), seen_by(B, &sent).len()), (4, 4), "the whole key frame, twice over");
    assert_eq!((sent[0].pt, sent[4].pt), (98, 99), "payload types are per leg");
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
        w.give(pair(A, Kind::Audio), Channel::Rtp, address(A, Kind::Audio), &rtp(103, 3, 320, 50, true, &[5, 0, 0, 160]));
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
    let mut packets: Vec<Sent> = vec![];
    w.command(Command::Ringback { session: S, on: true });
    packets.extend(w.wait(999).into_iter().filter(|s| s.to == address(DOOR, Kind::Audio)));
    assert_eq!(packets.len(), 50, "one in 20 ms");
    assert!(packets.windows(2).all(|p| p[1].seq == p[0].seq + 1 && p[1].ts == p[0].ts + 160));
    assert_eq!(packets[0].payload().len(), 160);
    w.command(Command::Talk { session: S, leg: Some(A) });
    let talk = w.audio(A, 7000, 50);
    assert_eq!(talk[0].seq, packets[49].seq + 1, "the talk goes on where the tone ended");
    assert!(talk[0].ssrc == 0x1000);
    assert!(w.wait(40).is_empty(), "no tone behind the talk");
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
    assert_eq!(drops, [("truncated", 1), ("stun", 1), ("foreign_source", 1), ("new_source", 1), ("payload_type", 1)]);
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
        w.command(Command::Open { session: two, anchor: other, key_frame_by: None });
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
