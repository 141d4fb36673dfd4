//! Keys through the engine: out with the right payload type, clock, duration and ends, told once, and from nobody who may not.

mod star;

use media::command::*;
use star::*;
use std::time::Duration;

const DTMF: Codec = Codec::TelephoneEvent(8000);
const DTMF48: Codec = Codec::TelephoneEvent(48_000);

/// A peer that presses a key for 100 ms: five packets with growing durations, the last one three times.
fn press(star: &mut Star, leg: LegId, codec: Codec, key: u8, seq: &mut u16, ts: u32, lost: &[usize]) {
    let unit = (codec.clock_rate() / 50) as u16;
    for n in 0..7usize {
        let end = n >= 4;
        let [high, low] = (unit * (n.min(4) as u16 + 1)).to_be_bytes();
        if !lost.contains(&n) {
            star.rtp(leg, codec, *seq, ts, n == 0, &[key, u8::from(end) << 7 | 10, high, low]);
        }
        *seq = seq.wrapping_add(1);
        if n < 4 {
            star.wait(20);
        }
    }
}

/// The events among these packets: (marker, timestamp, key, end, duration).
fn events(got: &[Got], pt: u8) -> Vec<(bool, u32, u8, bool, u16)> {
    let read = |got: &Got| {
        let p = &got.payload;
        (got.marker, got.ts, p[0], p[1] & 0x80 != 0, u16::from_be_bytes([p[2], p[3]]))
    };
    got.iter().filter(|got| got.pt == pt).map(read).collect()
}

fn is_gapless(got: &[Got]) {
    for two in got.windows(2) {
        assert_eq!((two[1].ssrc, two[1].seq), (two[0].ssrc, two[0].seq.wrapping_add(1)));
        assert!(two[1].ts.wrapping_sub(two[0].ts) < 1 << 31, "time does not run backwards: {two:?}");
    }
}

#[test]
fn a_key_keeps_its_length_across_clocks_and_payload_types() {
    for (phone, from_dtmf, door, to_dtmf) in [
        (Codec::Pcmu, DTMF, Codec::Pcmu, DTMF),
        (Codec::Opus, DTMF48, Codec::Pcmu, DTMF),
        (Codec::Opus, DTMF, Codec::Pcma, DTMF),
        (Codec::Pcmu, DTMF, Codec::Opus, DTMF48),
        (Codec::Pcmu, DTMF, Codec::Opus, DTMF),
        (Codec::Speex(16_000), Codec::TelephoneEvent(16_000), Codec::Pcmu, DTMF),
    ] {
        let mut star = Star::new(&[door, to_dtmf], &[(A, &[phone, from_dtmf])]);
        star.talk(A);
        let mut seq = 10;
        press(&mut star, A, from_dtmf, 11, &mut seq, 1000, &[]);
        star.wait(60);
        press(&mut star, A, from_dtmf, 3, &mut seq, 1000 + phone.clock_rate() / 5, &[]);
        let got = star.to(DOOR);
        let unit = (to_dtmf.clock_rate() / 50) as u16;
        let told = events(&got, pt(DOOR, to_dtmf));
        assert_eq!((got.len(), told.len()), (14, 14), "{phone:?} to {door:?}: all three ends of both");
        let (first, second) = (told[0].1, told[7].1);
        for (n, event) in told.iter().enumerate() {
            let (begun, key) = if n < 7 { (first, 11) } else { (second, 3) };
            let at = n % 7;
            assert_eq!(*event, (at == 0, begun, key, at >= 4, unit * (at.min(4) as u16 + 1)), "{phone:?} to {door:?} {n}");
        }
        let apart = f64::from(second.wrapping_sub(first)) / f64::from(door.clock_rate());
        let real = (got[7].at - got[0].at).as_secs_f64();
        assert!((apart - real).abs() < 0.065, "{phone:?} to {door:?}: {apart} s of timestamps in {real} s");
        is_gapless(&got);
        assert_eq!(star.digits(), [(A, '#'), (A, '3')]);
    }
}

#[test]
fn whatever_is_lost_it_is_one_digit() {
    for lost in [&[][..], &[0], &[0, 1, 2, 3], &[4, 5, 6], &[4, 6], &[0, 4, 5, 6]] {
        let mut star = Star::new(&[Codec::Pcmu, DTMF], &[(A, &[Codec::Pcma, DTMF])]);
        star.talk(A);
        let mut seq = 0;
        press(&mut star, A, DTMF, 1, &mut seq, 0, lost);
        star.wait(50);
        press(&mut star, A, DTMF, 1, &mut seq, 1200, lost);
        assert_eq!(star.digits(), [(A, '1'), (A, '1')], "{lost:?}");
        let got = star.to(DOOR);
        assert!(got[0].marker, "{lost:?}: whichever packet comes first begins it");
        let stamps: std::collections::BTreeSet<u32> = got.iter().map(|got| got.ts).collect();
        assert_eq!(stamps.len(), 2, "{lost:?}");
    }
}

#[test]
fn talk_goes_on_in_one_stream_behind_a_key() {
    for (phone, door) in [(Codec::Pcmu, Codec::Pcmu), (Codec::Opus, Codec::Pcmu), (Codec::G722, Codec::Opus)] {
        let mut star = Star::new(&[door, DTMF], &[(A, &[phone, DTMF])]);
        star.talk(A);
        let mut tone = Tone::new(phone, 1000.0);
        (0..10).for_each(|_| tone.send(&mut star, A));
        let (mut seq, ts) = (tone.seq, tone.ts);
        press(&mut star, A, DTMF, 5, &mut seq, ts, &[]);
        star.wait(20);
        (tone.seq, tone.ts) = (seq, ts.wrapping_add(phone.clock_rate() / 10));
        (0..10).for_each(|_| tone.send(&mut star, A));
        let got = star.to(DOOR);
        assert_eq!(got.len(), 27);
        is_gapless(&got);
        let apart = f64::from(got[26].ts.wrapping_sub(got[0].ts)) / f64::from(door.clock_rate());
        assert!((apart - 0.48).abs() < 0.021, "{phone:?} to {door:?}: {apart}");
        assert_eq!(star.drops(A), []);
    }
}

/// D-27: what `*` is worth is decided by signalling, whoever talks; other keys pass as long as the talker may open the door.
#[test]
fn a_star_reaches_the_door_only_when_signalling_says_so() {
    let mut star = Star::new(&[Codec::Pcmu, DTMF], &[(A, &[Codec::Pcmu, DTMF])]);
    star.talk(A);
    press(&mut star, A, DTMF, 10, &mut 0, 0, &[]);
    assert!(star.to(DOOR).is_empty());
    star.command(Command::Press { session: S, leg: A, digit: '*', length: Duration::from_millis(100) });
    star.wait(500);
    let told = star.to(DOOR);
    assert!(events(&told, pt(DOOR, DTMF)).iter().all(|event| event.2 == 10) && told.len() == 4, "{told:?}");
    star.command(Command::Keys { session: S, pass: false });
    press(&mut star, A, DTMF, 7, &mut 20, 9000, &[]);
    assert_eq!(star.to(DOOR).len(), told.len(), "not of one who may not open");
    star.command(Command::Keys { session: S, pass: true });
    press(&mut star, A, DTMF, 7, &mut 40, 18_000, &[]);
    assert!(star.to(DOOR).len() > told.len());
    assert_eq!(star.digits(), [(A, '*'), (A, '7'), (A, '7')], "and each is told");
    assert_eq!(star.drops(A), [("key_held_back", 14)]);
}

#[test]
fn before_the_answer_and_without_the_floor_no_key_reaches_the_door() {
    let mut star = Star::new(&[Codec::Pcmu, DTMF], &[(A, &[Codec::Pcmu, DTMF]), (B, &[Codec::Pcmu, DTMF])]);
    press(&mut star, A, DTMF, 10, &mut 0, 0, &[]);
    star.talk(B);
    press(&mut star, A, DTMF, 10, &mut 10, 5000, &[]);
    star.command(Command::Press { session: S, leg: A, digit: '*', length: Duration::from_millis(100) });
    star.wait(500);
    assert!(star.to(DOOR).is_empty());
    assert_eq!(star.digits(), [(A, '*'), (A, '*')], "signalling decides what it is worth");
    assert_eq!(star.drops(A), [("not_talking", 15)]);
}

#[test]
fn a_door_without_events_gets_none() {
    let mut star = Star::new(&[Codec::Pcmu], &[(A, &[Codec::Pcmu, DTMF])]);
    star.talk(A);
    press(&mut star, A, DTMF, 1, &mut 0, 0, &[]);
    star.command(Command::Press { session: S, leg: A, digit: '1', length: Duration::from_millis(100) });
    star.wait(500);
    assert!(star.to(DOOR).is_empty());
    assert_eq!(star.engine.next_deadline().map(|at| at > star.now), None.or(Some(true)), "nothing is due any more");
    assert_eq!(star.drops(DOOR), [("no_codec", 8)]);
}

#[test]
fn a_key_by_info_becomes_events_in_steps_of_fifty() {
    for (door, dtmf) in [(Codec::Pcmu, DTMF), (Codec::Opus, DTMF48), (Codec::Opus, DTMF)] {
        let mut star = Star::new(&[door, dtmf], &[(A, &[Codec::Pcmu])]);
        star.talk(A);
        let mut tone = Tone::new(Codec::Pcmu, 1000.0);
        (0..10).for_each(|_| tone.send(&mut star, A));
        for digit in ['5', '#'] {
            star.command(Command::Press { session: S, leg: A, digit, length: Duration::from_millis(150) });
        }
        // The talker's sound goes on meanwhile; the keys replace it.
        (0..30).for_each(|_| tone.send(&mut star, A));
        let got = star.to(DOOR);
        is_gapless(&got);
        let told = events(&got, pt(DOOR, dtmf));
        let ms = |ms: u32| (dtmf.clock_rate() * ms / 1000) as u16;
        let shape: Vec<_> = told.iter().map(|(marker, _, key, end, duration)| (*marker, *key, *end, *duration)).collect();
        let one = |key| {
            [(true, false, 50), (false, false, 100), (false, true, 150), (false, true, 150), (false, true, 150)]
                .map(|(marker, end, length)| (marker, key, end, ms(length)))
        };
        assert_eq!(shape, [one(5), one(11)].concat(), "{door:?}");
        let begun = |n: usize| told[n].1;
        assert!((0..5).all(|n| begun(n) == begun(0)) && (5..10).all(|n| begun(n) == begun(5)));
        let apart = f64::from(begun(5).wrapping_sub(begun(0))) / f64::from(door.clock_rate());
        assert!((0.2..=0.201).contains(&apart), "{door:?}: {apart}");
        let last = f64::from(got.last().unwrap().ts.wrapping_sub(got[0].ts)) / f64::from(door.clock_rate());
        assert!((last - 0.78).abs() < 0.021, "{door:?}: the talk goes on in real time: {last}");
        assert!(star.digits().is_empty(), "signalling knows already");
        assert!(star.drops(A).iter().all(|(name, count)| *name == "during_digit" && *count <= 20));
    }
}

#[test]
fn a_key_that_is_held_when_the_floor_moves_is_let_go() {
    for phone in [Codec::Pcmu, Codec::Opus] {
        let mut star = Star::new(&[Codec::Pcmu, DTMF], &[(A, &[phone, DTMF]), (B, &[Codec::Pcmu, DTMF])]);
        star.talk(A);
        for n in 0..5u16 {
            let [high, low] = (160 * (n + 1)).to_be_bytes();
            star.rtp(A, DTMF, n, 400, n == 0, &[7, 10, high, low]);
            star.wait(20);
        }
        star.talk(B);
        let [high, low] = 960u16.to_be_bytes();
        star.rtp(A, DTMF, 5, 400, false, &[7, 10, high, low]);
        let mut tone = Tone::new(Codec::Pcmu, 1000.0);
        (0..5).for_each(|_| tone.send(&mut star, B));
        press(&mut star, B, DTMF, 8, &mut tone.seq.clone(), tone.ts, &[]);
        let got = star.to(DOOR);
        is_gapless(&got);
        let told = events(&got, pt(DOOR, DTMF));
        let ends: Vec<_> = told.iter().filter(|(.., end, _)| *end).map(|(_, _, key, _, length)| (*key, *length)).collect();
        assert_eq!(ends, [(7, 800), (7, 800), (7, 800), (8, 800), (8, 800), (8, 800)], "{phone:?}");
        assert_eq!(star.digits(), [(A, '7'), (B, '8')]);
        let talk = got.iter().find(|got| got.pt == 0).unwrap();
        let talk = talk.ts.wrapping_sub(told[0].1);
        assert!((800..=801).contains(&talk), "{phone:?}: B's sound begins where the key ended: {talk}");
    }
    // The same for one that came by INFO.
    let mut star = Star::new(&[Codec::Pcmu, DTMF], &[(A, &[Codec::Pcmu]), (B, &[Codec::Pcmu])]);
    star.talk(A);
    star.command(Command::Press { session: S, leg: A, digit: '9', length: Duration::from_secs(1) });
    star.wait(220);
    star.command(Command::Remove { session: S, leg: A });
    star.wait(2000);
    let told = events(&star.to(DOOR), pt(DOOR, DTMF));
    assert_eq!(
        told.iter().map(|(.., end, length)| (*end, *length)).collect::<Vec<_>>()[3..],
        [(false, 1600), (true, 1600), (true, 1600), (true, 1600)]
    );
}

#[test]
fn the_doors_keys_reach_its_phones_and_flash_reaches_nobody() {
    let mut star = Star::new(&[Codec::Pcmu, DTMF], &[(A, &[Codec::Pcmu, DTMF]), (B, &[Codec::Opus, DTMF48])]);
    let mut seq = 0;
    press(&mut star, DOOR, DTMF, 10, &mut seq, 0, &[]);
    assert_eq!(star.digits(), [(DOOR, '*')]);
    assert_eq!((star.to(A).len(), star.to(B).len()), (7, 7));
    assert_eq!(events(&star.to(B), pt(B, DTMF48))[6].4, 4800);
    press(&mut star, DOOR, DTMF, 16, &mut seq, 5000, &[]);
    star.rtp(DOOR, DTMF, 50, 9000, true, &[1, 2]);
    assert_eq!((star.to(A).len(), star.digits().len()), (7, 1));
    assert_eq!(star.drops(DOOR), [("bad_event", 1), ("not_a_digit", 7)]);
}

#[test]
fn a_storm_of_presses_is_bounded() {
    let mut star = Star::new(&[Codec::Pcmu, DTMF], &[(A, &[Codec::Pcmu, DTMF])]);
    star.talk(A);
    for n in 0..1000 {
        star.rtp(A, DTMF, n, u32::from(n) * 1600, true, &[1, 0x8a, 3, 32]);
        star.command(Command::Press { session: S, leg: A, digit: '1', length: Duration::from_secs(9) });
    }
    assert_eq!(star.digits().len(), 16);
    star.wait(60_000);
    let told = events(&star.to(DOOR), pt(DOOR, DTMF));
    let presses = told.iter().filter(|(marker, ..)| *marker).count();
    assert!((30..=33).contains(&presses), "{presses}");
}
