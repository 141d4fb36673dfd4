//! RTCP of our own per leg: what is reported, to whom, and that it keeps the door's audio and video in step (RFC 3550 §6).

#![allow(clippy::disallowed_methods)] // a test needs some instant to begin at

mod world;

use media::command::*;
use media::engine::{Channel, Out};
use media::rtcp::{ReceptionReport, Report, Said, Then, read};
use std::net::SocketAddr;
use std::time::Duration;
use world::*;

fn rtcp_of(leg: LegId, kind: Kind) -> SocketAddr {
    SocketAddr::new(address(leg, kind).ip(), address(leg, kind).port() + 1)
}

/// What was reported to this stream's peer.
fn reported(sent: &[Sent], leg: LegId, kind: Kind) -> Vec<Said> {
    sent.iter().filter(|sent| sent.to == rtcp_of(leg, kind)).filter_map(|sent| read(&sent.bytes)).collect()
}

/// A door plays for some seconds: audio every 20 ms, a picture every 40 ms. The third second's audio loses a packet of ten.
fn play(w: &mut World, seconds: u16) -> Vec<Sent> {
    let mut sent = vec![];
    for n in 0..seconds * 50 {
        if !(100..150).contains(&n) || n % 10 != 0 {
            sent.extend(w.audio(DOOR, n, 7));
        }
        if n % 2 == 0 {
            let ts = u32::from(n) * 1800;
            sent.extend(w.video_at(n / 2, ts, true, if n == 0 { IDR } else { P }));
        }
        sent.extend(w.wait(20));
    }
    sent
}

#[test]
fn every_leg_hears_what_we_got_from_it_and_what_we_sent_to_it() {
    let mut w = World::new(&[A]);
    let sent = play(&mut w, 20);
    let door = reported(&sent, DOOR, Kind::Audio);
    assert!((3..=8).contains(&door.len()), "about every five seconds: {}", door.len());
    let lost: Vec<(u8, u32)> = door.iter().flat_map(|said| &said.blocks).map(|b| (b.fraction_lost, b.total_lost)).collect();
    assert!(door.iter().all(|said| said.blocks.iter().all(|block| block.ssrc == 7) && said.sender.is_none()));
    assert_eq!(lost.last().map(|(_, total)| *total), Some(5), "{lost:?}");
    let told = lost.iter().filter(|(fraction, _)| *fraction > 0).count();
    assert!((1..=2).contains(&told), "in the reports of that second: {lost:?}");
    let phone = reported(&sent, A, Kind::Video);
    let (ssrc, ..) = phone.last().unwrap().sender.expect("a sender report");
    assert_eq!(ssrc, 0x2001, "as we are known to this phone");
    assert!(phone.iter().all(|said| said.blocks.is_empty()), "it has sent nothing");
    // Nobody else gets any, and nothing is relayed.
    let rtcp = sent.iter().filter(|sent| sent.pt >= 200 - 128 && sent.to.port() % 2 == 1);
    assert!(rtcp.clone().all(|sent| [DOOR, A].iter().any(|leg| sent.to.ip() == address(*leg, Kind::Audio).ip())));
}

#[test]
fn audio_and_video_of_the_door_stay_in_step_behind_us() {
    let mut w = World::new(&[A]);
    play(&mut w, 1);
    // The door says: at its time T the audio was at 1,000,000 and the video at 5,000,000.
    let at = 0x1234_5678_8000_0000u64;
    for (kind, ssrc, rtp) in [(Kind::Audio, 7, 1_000_000), (Kind::Video, 77, 5_000_000)] {
        let report = Report { ours: ssrc, sent: Some((at, rtp, 1, 1)), heard: None }.write(Then::Nothing);
        w.give(pair(DOOR, kind), Channel::Rtcp, rtcp_of(DOOR, kind), &report);
        // The second one comes late: the network is no clock.
        w.wait(300);
    }
    let sent = play_more(&mut w);
    let line = |kind, offset: u32| {
        let (_, ntp, rtp) = reported(&sent, A, kind).last().unwrap().sender.unwrap();
        (ntp, rtp.wrapping_sub(offset))
    };
    // On the phone's time line the door's numbers are moved: audio 0 is 5000, video 0 is 5000.
    let (audio_ntp, audio) = line(Kind::Audio, 5000);
    let (video_ntp, video) = line(Kind::Video, 5000);
    assert_eq!(audio_ntp, video_ntp, "one compound each, at the same moment");
    // So the same moment of the door is the same distance from T in both clocks.
    let audio_since = f64::from(audio.wrapping_sub(1_000_000) as i32) / 8_000.0;
    let video_since = f64::from(video.wrapping_sub(5_000_000) as i32) / 90_000.0;
    assert!((audio_since - video_since).abs() < 0.001, "{audio_since} s and {video_since} s after T");
}

fn play_more(w: &mut World) -> Vec<Sent> {
    let mut sent = vec![];
    for n in 50..500u16 {
        sent.extend(w.audio(DOOR, n, 7));
        sent.extend(w.wait(20));
    }
    sent
}

#[test]
fn loss_and_round_trip_of_a_phone_are_read_from_its_report() {
    let mut w = World::new(&[A]);
    let sent = play(&mut w, 8);
    let (_, ntp, _) = reported(&sent, A, Kind::Audio).last().unwrap().sender.unwrap();
    let last = sent.iter().rposition(|s| s.to == rtcp_of(A, Kind::Audio)).unwrap();
    let since = sent[last..].iter().filter(|s| s.to == address(A, Kind::Audio)).count() as u32 * 20;
    let block = |ssrc| ReceptionReport {
        ssrc,
        fraction_lost: 64,
        total_lost: 9,
        last_sender_report: (ntp >> 16) as u32,
        // It kept the report for all of that time but 100 ms.
        delay: (since - 100) * 65_536 / 1000,
        ..ReceptionReport::default()
    };
    for ssrc in [0x9999, 0x2000] {
        let report = Report { ours: 3, sent: None, heard: Some(block(ssrc)) }.write(Then::Nothing);
        w.give(pair(A, Kind::Audio), Channel::Rtcp, rtcp_of(A, Kind::Audio), &report);
    }
    let heard = w.report()[1].audio.heard.expect("what it says of our source");
    assert_eq!((heard.fraction_lost, heard.lost), (64, 9));
    let round_trip = heard.round_trip.unwrap();
    assert!(round_trip.abs_diff(Duration::from_millis(100)) <= Duration::from_millis(45), "{round_trip:?}");
}

#[test]
fn who_leaves_is_told_goodbye() {
    let mut w = World::new(&[A]);
    let goodbye = |out: Out, to: SocketAddr| {
        let sent = sent(out, &[]);
        sent.iter().any(|sent| sent.to == to && sent.bytes.windows(4).any(|four| four[1..] == [203, 0, 2] && four[0] & 0x1f == 1))
    };
    let out = w.command(Command::Remove { session: S, leg: A });
    assert!(goodbye(out, rtcp_of(A, Kind::Video)));
    let out = w.command(Command::Close { session: S });
    assert!(goodbye(out, rtcp_of(DOOR, Kind::Audio)));
}

#[test]
fn rtcp_of_one_leg_never_reaches_another_and_a_broken_one_is_named() {
    let mut w = World::new(&[A, B]);
    play(&mut w, 1);
    let report = Report { ours: 7, sent: Some((1, 2, 3, 4)), heard: None }.write(Then::Bye);
    assert!(w.give(pair(DOOR, Kind::Audio), Channel::Rtcp, rtcp_of(DOOR, Kind::Audio), &report).is_empty());
    let mut cut = report.clone();
    cut.truncate(report.len() - 4);
    assert!(w.give(pair(DOOR, Kind::Audio), Channel::Rtcp, rtcp_of(DOOR, Kind::Audio), &cut).is_empty());
    assert_eq!(w.report()[0].audio.drops, [("bad_rtcp", 1)]);
}
