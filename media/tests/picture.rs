//! What a phone sees of the door, and when (D-19, D-20), on virtual time.

#![allow(clippy::disallowed_methods)] // a test needs some instant to begin at

mod world;

use bytes::Bytes;
use media::asking::Way;
use media::command::*;
use media::engine::Channel;
use media::rtcp::{Report, Then};
use std::net::SocketAddr;
use world::*;

/// The door's RTP of `frames`: a picture every 40 ms, the first one a key frame.
fn play(w: &mut World, seq: &mut u16, ts: &mut u32, key: bool) -> Vec<Sent> {
    let mut sent = vec![];
    if key {
        for (n, unit) in [SPS, PPS, FU_BEGIN, FU_END].into_iter().enumerate() {
            sent.extend(w.video_at(*seq, *ts, n == 3, unit));
            *seq = seq.wrapping_add(1);
        }
    } else {
        sent.extend(w.video_at(*seq, *ts, true, P));
        *seq = seq.wrapping_add(1);
    }
    *ts = ts.wrapping_add(3600);
    sent.extend(w.wait(40));
    sent
}

const PPS: &[u8] = &[0x68, 0x80];
const FU_BEGIN: &[u8] = &[0x7c, 0x85, 0x88, 1];
const FU_END: &[u8] = &[0x7c, 0x45, 2, 3];

/// As a receiver with a buffer sees them.
fn once(seen: Vec<&Sent>) -> Vec<&Sent> {
    let mut numbers = std::collections::BTreeSet::new();
    seen.into_iter().filter(|sent| numbers.insert(sent.seq)).collect()
}

fn payloads(seen: &[&Sent]) -> Vec<Vec<u8>> {
    seen.iter().map(|sent| sent.payload().to_vec()).collect()
}

fn requests(sent: &[Sent]) -> Vec<&Sent> {
    sent.iter()
        .filter(|sent| sent.to == rtcp_of(DOOR) && media::rtcp::read(&sent.bytes).is_some_and(|said| said.wants_key_frame))
        .collect()
}

fn rtcp_of(leg: LegId) -> SocketAddr {
    SocketAddr::new(address(leg, Kind::Video).ip(), 5001)
}

fn pli() -> Vec<u8> {
    Report { ours: 1, ..Report::default() }.write(Then::Pli(2))
}

#[test]
fn a_phone_that_joins_has_the_picture_at_once_and_goes_on_live() {
    let mut w = World::new(&[A]);
    let (mut seq, mut ts) = (65_530, 0u32.wrapping_sub(5000));
    play(&mut w, &mut seq, &mut ts, true);
    for _ in 0..5 {
        play(&mut w, &mut seq, &mut ts, false);
    }
    let out = w.command(Command::Put { session: S, leg: plan(B) });
    let joined = sent(out, &[]);
    let seen = seen_by(B, &joined);
    let seen = once(seen);
    assert_eq!(payloads(&seen), [SPS, PPS, FU_BEGIN, FU_END, P, P, P, P, P]);
    assert_eq!(seen.iter().map(|s| s.seq).collect::<Vec<_>>(), (100..109).collect::<Vec<_>>());
    assert_eq!(
        seen.iter().map(|s| 5000u32.wrapping_sub(s.ts)).collect::<Vec<_>>(),
        [450, 450, 450, 450, 360, 270, 180, 90, 0],
        "1 ms apart"
    );
    assert!(matches!(w.events.last(), Some(Event::FirstVideo { leg: B, .. })));
    assert!(requests(&joined).is_empty(), "the door need not be asked");
    let live = w.video_at(seq, ts, true, P);
    let seen = seen_by(B, &live);
    assert_eq!((seen[0].seq, seen[0].ts), (109, 5000 + 3600), "one frame later");
}

#[test]
fn far_from_the_key_frame_there_is_a_still_until_the_next_one() {
    let mut w = World::new(&[A]);
    let (mut seq, mut ts) = (0, 0);
    play(&mut w, &mut seq, &mut ts, true);
    for _ in 0..31 {
        play(&mut w, &mut seq, &mut ts, false);
    }
    let out = w.command(Command::Put { session: S, leg: plan(B) });
    let joined = sent(out, &[]);
    assert_eq!(payloads(&once(seen_by(B, &joined))), [SPS, PPS, FU_BEGIN, FU_END]);
    assert_eq!(requests(&joined).len(), 1);
    for _ in 0..10 {
        let later = play(&mut w, &mut seq, &mut ts, false);
        assert!(seen_by(B, &later).is_empty(), "nothing that needs what B has not seen");
    }
    let next = play(&mut w, &mut seq, &mut ts, true);
    let seen = once(seen_by(B, &next));
    assert_eq!(payloads(&seen), [SPS, PPS, FU_BEGIN, FU_END]);
    assert_eq!((seen[0].seq, seen[3].seq), (104, 107), "what B did not get leaves no gap");
    let step = seen[0].ts.wrapping_sub(seen_by(B, &joined)[3].ts);
    assert_eq!(step, 11 * 3600, "the time that has passed");
    assert_eq!(seen_by(B, &play(&mut w, &mut seq, &mut ts, false))[0].seq, 108);
    assert_eq!(w.report()[2].video.drops, [("before_key_frame", 14)]);
}

#[test]
fn the_first_key_frame_is_sent_twice_with_the_same_numbers() {
    let mut w = World::new(&[A]);
    let (mut seq, mut ts) = (0, 0);
    let first = play(&mut w, &mut seq, &mut ts, true);
    let seen = seen_by(A, &first);
    assert_eq!(seen.len(), 8);
    assert_eq!(seen[..4], seen[4..], "to the last bit");
    assert!(seen_by(A, &w.wait(1000)).is_empty(), "and not again");
}

#[test]
fn a_key_frame_that_lost_a_packet_begins_no_picture() {
    let mut w = World::new(&[A]);
    let mut sent = w.video_at(1, 0, false, SPS);
    sent.extend(w.video_at(2, 0, false, FU_BEGIN));
    sent.extend(w.video_at(4, 0, true, FU_END));
    sent.extend(w.video_at(5, 3600, true, P));
    assert!(seen_by(A, &sent).is_empty());
    assert_eq!(requests(&sent).len(), 1, "the door is asked for another");
    let whole = w.video_at(6, 7200, true, IDR);
    assert_eq!(payloads(&once(seen_by(A, &whole))), [SPS, IDR], "with the parameter sets that came before");
    let report = w.report();
    assert_eq!((report[0].video.key_frames, report[0].video.key_frames_broken, report[0].video.lost_in), (1, 1, 1));
}

#[test]
fn parameter_sets_of_the_sdp_come_first_when_the_stream_has_none() {
    let mut door = plan(DOOR);
    let sps: &[u8] = &[0x67, 0x42, 0xe0, 0x1f, 0x80];
    door.video.as_mut().unwrap().parameter_sets = vec![Bytes::from_static(sps), Bytes::from_static(PPS)];
    let mut w = World::new(&[]);
    w.command(Command::Close { session: S });
    w.command(Command::Open { session: S, anchor: door, key_frame_by: None });
    w.command(Command::Put { session: S, leg: plan(A) });
    let sent = w.video(1, true, IDR);
    assert_eq!(payloads(&once(seen_by(A, &sent))), [sps, PPS, IDR]);
    let live = w.video_at(2, 6600, true, P);
    assert_eq!(seen_by(A, &live)[0].seq, 103);
}

#[test]
fn a_key_frame_too_large_to_keep_is_passed_on_as_it_comes() {
    let mut w = World::new(&[A]);
    let mut fu = vec![0x7c, 0x85, 0x88];
    fu.resize(1200, 1);
    let mut seen = 0;
    for n in 0..200u16 {
        if n > 0 {
            fu[1] = 5;
        }
        seen += seen_by(A, &w.video_at(n, 0, n == 199, &fu)).len();
    }
    assert_eq!(seen, 200, "each once, none lost");
    let late = w.command(Command::Put { session: S, leg: plan(B) });
    assert!(seen_by(B, &sent(late, &[])).is_empty());
}

#[test]
fn the_door_is_asked_by_pli_then_fir_then_info_and_once_a_second() {
    let mut w = World::new(&[A]);
    // It begins in the middle of a group, and A sees nothing.
    let mut asked = w.video(1, true, P);
    for _ in 0..28 {
        asked.extend(w.wait(100));
    }
    let by = |fir: bool| move |sent: &&&Sent| sent.bytes.windows(2).any(|two| two == [if fir { 0x84 } else { 0x81 }, 206]);
    let requests = requests(&asked);
    assert_eq!(requests.len(), 2);
    assert_eq!((requests.iter().position(|s| by(false)(&s)), requests.iter().position(|s| by(true)(&s))), (Some(0), Some(1)));
    assert_eq!(w.events.iter().filter(|e| matches!(e, Event::KeyFrameWanted { .. })).count(), 1);
    // It hears that.
    w.video_at(2, 9000, false, SPS);
    w.video_at(3, 9000, true, IDR);
    assert!(w.events.contains(&Event::KeyFrameBy { session: S, way: Way::Info }));
    w.events.clear();
    let mut again = vec![];
    for _ in 0..200 {
        again.extend(w.give(pair(A, Kind::Video), Channel::Rtcp, rtcp_of(A), &pli()));
        w.command(Command::AskKeyFrame { session: S });
        w.wait(10);
    }
    assert!(self::requests(&again).is_empty());
    let wanted = w.events.iter().filter(|e| matches!(e, Event::KeyFrameWanted { .. })).count();
    assert!((1..=2).contains(&wanted), "by the way that works, once a second however many ask: {wanted}");
}

#[test]
fn only_those_who_receive_the_picture_may_ask_for_a_key_frame() {
    let mut w = World::new(&[A]);
    w.video(1, false, SPS);
    w.video(2, true, IDR);
    let stranger = "203.0.113.5:9".parse().unwrap();
    assert!(requests(&w.give(pair(A, Kind::Video), Channel::Rtcp, stranger, &pli())).is_empty());
    assert!(requests(&w.give(pair(DOOR, Kind::Video), Channel::Rtcp, rtcp_of(DOOR), &pli())).is_empty());
    assert_eq!(requests(&w.give(pair(A, Kind::Video), Channel::Rtcp, rtcp_of(A), &pli())).len(), 1);
}

#[test]
fn a_phone_that_answers_from_another_address_gets_a_picture_there() {
    let mut w = World::new(&[A]);
    let (mut seq, mut ts) = (0, 0);
    play(&mut w, &mut seq, &mut ts, true);
    let mut moved = plan(A);
    let there: SocketAddr = "10.0.9.9:7000".parse().unwrap();
    moved.video.as_mut().unwrap().remote = Some(there);
    let out = w.command(Command::Put { session: S, leg: moved });
    let sent = sent(out, &[]);
    let seen = sent.iter().filter(|s| s.to == there).collect();
    assert_eq!(payloads(&once(seen)), [SPS, PPS, FU_BEGIN, FU_END]);
    assert_eq!(sent[0].seq, 104, "the same stream goes on");
}

#[test]
fn the_picture_taken_is_the_last_whole_key_frame() {
    let mut w = World::new(&[A]);
    w.command(Command::TakePicture { session: S });
    assert_eq!(w.events.pop(), Some(Event::Picture { session: S, picture: None }));
    let at = w.now;
    w.video(1, false, SPS);
    w.video(2, false, FU_BEGIN);
    w.video(3, true, FU_END);
    w.command(Command::TakePicture { session: S });
    let annex_b = [&[0, 0, 0, 1], SPS, &[0, 0, 0, 1, 0x65, 0x88, 1, 2, 3]].concat().into();
    assert_eq!(w.events.pop(), Some(Event::Picture { session: S, picture: Some(Picture { at, annex_b }) }));
}

/// Whatever is lost or overtaken on the way from the door, and whenever phones join: each phone's picture begins with a whole
/// key frame, its numbers go up by one except where the door's do not, and its time never runs back.
#[test]
fn no_picture_begins_broken() {
    use proptest::prelude::*;
    let step = (0u8..100, any::<bool>(), 0u8..8);
    proptest!(|(steps in proptest::collection::vec(step, 1..120))| {
        let mut w = World::new(&[A]);
        let (mut seq, mut ts, mut n) = (65_500u16, 0u32.wrapping_sub(90_000), 0u8);
        let mut seen: Vec<Sent> = vec![];
        let mut joined = false;
        for (dice, key, lost) in steps {
            if dice == 0 && !joined {
                joined = true;
                let out = w.command(Command::Put { session: S, leg: plan(B) });
                seen.extend(sent(out, &[]));
            }
            n = n.wrapping_add(1);
            // A key frame of three fragments that know which frame they are of, or a small picture.
            let frame: Vec<Vec<u8>> = match (key, dice % 3) {
                (true, 0) => vec![vec![0x7c, 0x85, 0x80, n], vec![0x7c, 0x05, n], vec![0x7c, 0x45, n]],
                (true, _) => vec![vec![0x65, 0x80, n]],
                (false, _) => vec![vec![0x41, 0x9a, n], vec![0x41, 0x1a, n]],
            };
            let last = frame.len() - 1;
            for (index, unit) in frame.iter().enumerate() {
                if lost != index as u8 {
                    seen.extend(w.video_at(seq, ts, index == last, unit));
                }
                seq = seq.wrapping_add(1);
            }
            ts = ts.wrapping_add(3600);
            seen.extend(w.wait(40));
        }
        for leg in [A, B] {
            let got = seen_by(leg, &seen);
            let Some(first) = got.first() else { continue };
            let kind = |sent: &Sent| if sent.payload()[0] & 0x1f == 28 { sent.payload()[1] & 0x1f } else { sent.payload()[0] & 0x1f };
            prop_assert_eq!(kind(first), 5, "it begins with a key frame");
            if first.payload()[0] & 0x1f == 28 {
                let n = first.payload()[3];
                let whole: Vec<Vec<u8>> = vec![vec![0x7c, 0x85, 0x80, n], vec![0x7c, 0x05, n], vec![0x7c, 0x45, n]];
                prop_assert_eq!(payloads(&got[..3]), whole, "a whole one");
            }
            let mut highest = (first.seq.wrapping_sub(1), first.ts);
            for sent in got {
                if media::rtp::later(sent.seq, highest.0) {
                    prop_assert!((sent.ts.wrapping_sub(highest.1) as i32) >= 0, "time runs on");
                    highest = (sent.seq, sent.ts);
                }
            }
        }
    });
}
