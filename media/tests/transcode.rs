//! A tone through the engine, between every two codecs, both ways: what comes out has its frequency and level, no gap, and
//! timestamps that tell the time.

mod star;

use media::command::*;
use star::*;

const CODECS: [Codec; 4] = [Codec::Pcmu, Codec::Pcma, Codec::G722, Codec::Opus];
const HZ: f32 = 1000.0;

/// The tone in these packets of one codec: right, without a hole, within `db`.
fn is_the_tone(packets: &[Got], codec: Codec, db: f64, what: &str) {
    let (rate, pcm) = decode(codec, packets);
    // A codec needs a moment to swing in.
    let pcm = &pcm[rate as usize / 4..];
    let (level, share) = heard(rate, pcm, HZ);
    assert!(level.abs() < db && share > 0.9, "{what}: {level:.2} dB, share {share:.3}");
    for window in pcm.chunks_exact(rate as usize / 50) {
        let (level, _) = heard(rate, window, HZ);
        assert!(level.abs() < db + 1.5, "{what}: a hole of {level:.1} dB");
    }
}

#[test]
fn every_codec_reaches_every_other_both_ways() {
    for door in CODECS {
        for phone in CODECS {
            for from_phone in [false, true] {
                let mut star = Star::new(&[door], &[(A, &[phone])]);
                star.talk(A);
                let (from, to, codec, as_) = if from_phone { (A, DOOR, phone, door) } else { (DOOR, A, door, phone) };
                let mut tone = Tone::new(codec, HZ);
                (0..100).for_each(|_| tone.send(&mut star, from));
                let what = format!("{codec:?} to {as_:?}");
                let got = star.to(to);
                assert_eq!(got.len(), 100, "{what}");
                assert!(got.iter().all(|got| got.pt == pt(to, as_)), "{what}");
                assert_eq!((got[0].seq, got[0].ts), (0xfff0, 0xffff_ff00));
                assert_eq!(got[0].marker, codec != as_, "{what}: a talk-spurt begins");
                assert!(got[1..].iter().all(|got| !got.marker), "{what}");
                is_one_stream(&got, as_);
                is_the_tone(&got, as_, 1.0, &what);
            }
        }
    }
}

#[test]
fn a_leg_with_the_doors_codec_is_forwarded_untouched_beside_one_without() {
    let mut star = Star::new(&[Codec::Pcmu], &[(A, &[Codec::Opus, Codec::Pcmu]), (B, &[Codec::Opus])]);
    let mut tone = Tone::new(Codec::Pcmu, HZ);
    let mut sent = vec![];
    for _ in 0..50 {
        let (seq, ts, payload) = tone.packet();
        star.rtp(DOOR, Codec::Pcmu, seq, ts, false, &payload);
        star.wait(20);
        sent.push(payload);
    }
    let payloads: Vec<Vec<u8>> = star.to(A).into_iter().map(|got| got.payload).collect();
    assert_eq!(payloads, sent, "A shares PCMU, though it likes Opus better");
    is_the_tone(&star.to(B), Codec::Opus, 1.0, "B");
}

#[test]
fn two_phones_with_one_foreign_codec_hear_the_same_frames() {
    let mut star = Star::new(&[Codec::Pcma], &[(A, &[Codec::Opus])]);
    let mut tone = Tone::new(Codec::Pcma, HZ);
    (0..50).for_each(|_| tone.send(&mut star, DOOR));
    star.command(Command::Put { session: S, leg: plan(B, &[Codec::Opus]) });
    (0..50).for_each(|_| tone.send(&mut star, DOOR));
    let (a, b) = (star.to(A), star.to(B));
    let payloads = |got: &[Got]| got.iter().map(|got| got.payload.clone()).collect::<Vec<_>>();
    assert_eq!((a.len(), payloads(&a[50..])), (100, payloads(&b)));
    assert_eq!((b[0].seq, b[0].ts), (0xfff0, 0xffff_ff00), "in numbers of its own");
    is_one_stream(&b, Codec::Opus);
    is_the_tone(&b, Codec::Opus, 1.0, "joined in the middle");
}

#[test]
fn a_lost_packet_moves_nothing_and_is_hardly_heard() {
    for codec in CODECS {
        for as_ in CODECS.into_iter().filter(|as_| *as_ != codec) {
            let mut star = Star::new(&[codec], &[(A, &[as_])]);
            let mut tone = Tone::new(codec, HZ);
            for n in 0..150 {
                let (seq, ts, payload) = tone.packet();
                // One in ten, and once three in a row.
                if n % 10 != 5 && !(100..103).contains(&n) {
                    star.rtp(DOOR, codec, seq, ts, false, &payload);
                }
                star.wait(20);
            }
            let got = star.to(A);
            assert_eq!(got.len(), 150, "{codec:?} to {as_:?}: what was lost has its frames");
            is_one_stream(&got, as_);
            let (rate, pcm) = decode(as_, &got);
            let pcm = &pcm[rate as usize * 12 / 50..];
            let rms = (pcm.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / pcm.len() as f64).sqrt();
            let level = 20.0 * (rms * std::f64::consts::SQRT_2 / f64::from(LEVEL)).log10();
            assert!(level.abs() < 1.5, "{codec:?} to {as_:?}: {level:.2} dB");
            // What was lost is silent (one frame, or part of two behind a delay), but Opus has copies and memories of it.
            let frames = pcm.chunks_exact(rate as usize / 50);
            let sounding = frames.clone().filter(|frame| heard(rate, frame, HZ).0 > -16.0).count() as f64 / frames.len() as f64;
            let least = if codec == Codec::Opus { 0.99 } else { 0.85 };
            assert!(sounding >= least, "{codec:?} to {as_:?}: {sounding:.2} of the frames are not silent");
        }
    }
}

#[test]
fn a_repeated_or_late_packet_is_dropped_by_name() {
    let mut star = Star::new(&[Codec::Pcmu], &[(A, &[Codec::Pcma])]);
    let mut tone = Tone::new(Codec::Pcmu, HZ);
    let packets: Vec<_> = (0..20).map(|_| tone.packet()).collect();
    for (seq, ts, payload) in [&packets[..10], &packets[8..9], &packets[11..], &packets[10..11]].concat() {
        star.rtp(DOOR, Codec::Pcmu, seq, ts, false, &payload);
        star.wait(20);
    }
    is_one_stream(&star.to(A), Codec::Pcma);
    assert_eq!(star.to(A).len(), 20);
    assert_eq!(star.drops(DOOR), [("duplicate", 1), ("late", 1)]);
}

#[test]
fn a_pause_is_a_step_of_the_timestamp_and_a_new_spurt() {
    for as_ in [Codec::Pcma, Codec::G722, Codec::Opus] {
        let mut star = Star::new(&[Codec::Pcmu], &[(A, &[as_])]);
        let mut tone = Tone::new(Codec::Pcmu, HZ);
        (0..10).for_each(|_| tone.send(&mut star, DOOR));
        star.wait(3000);
        tone.ts = tone.ts.wrapping_add(24_000);
        (0..10).for_each(|_| tone.send(&mut star, DOOR));
        let got = star.to(A);
        assert_eq!(got.len(), 20);
        is_one_stream(&got[..10], as_);
        is_one_stream(&got[10..], as_);
        let clock = as_.clock_rate();
        assert_eq!((got[10].seq, got[10].ts), (got[9].seq.wrapping_add(1), got[9].ts.wrapping_add(clock * 3 + clock / 50)));
        let markers: Vec<usize> = (0..20).filter(|n| got[*n].marker).collect();
        assert_eq!(markers, [0, 10]);
    }
}

#[test]
fn every_packet_time_comes_out_in_frames_of_twenty() {
    // 30 ms is no Opus frame (RFC 6716 §2.1.4).
    let opus = [10, 20, 40, 60].map(|ms| (Codec::Opus, ms));
    let others = [10, 20, 30, 40, 60].into_iter().flat_map(|ms| [(Codec::Pcmu, ms), (Codec::G722, ms)]);
    for (codec, ms) in others.chain(opus) {
        let mut whole = Tone::new(codec, HZ);
        let bytes: Vec<u8> = (0..120).flat_map(|_| whole.packet().2).collect();
        let mut encoder = opus::Encoder::new(16_000, opus::Channels::Mono, opus::Application::Voip).unwrap();
        let sample = |n: usize| (LEVEL * (std::f32::consts::TAU * HZ * n as f32 / 16_000.0).sin()) as i16;
        let payload = |n: usize| match codec {
            Codec::Opus => encoder.encode_vec(&(n * 16 * ms..(n + 1) * 16 * ms).map(sample).collect::<Vec<_>>(), 1000).unwrap(),
            _ => bytes[n * ms * 8..(n + 1) * ms * 8].to_vec(),
        };
        let payloads: Vec<Vec<u8>> = (0..2400 / ms).map(payload).collect();
        for as_ in CODECS.into_iter().filter(|as_| *as_ != codec) {
            let mut star = Star::new(&[codec], &[(A, &[as_])]);
            for (n, payload) in payloads.iter().enumerate() {
                star.rtp(DOOR, codec, n as u16, (n * ms) as u32 * codec.clock_rate() / 1000, false, payload);
                star.wait(ms as u64);
            }
            let got = star.to(A);
            assert_eq!(got.len(), 120, "{codec:?} {ms} ms to {as_:?}");
            is_one_stream(&got, as_);
            is_the_tone(&got, as_, 1.0, &format!("{codec:?} {ms} ms to {as_:?}"));
        }
    }
}

/// The floor, the ringback and the kind of feed change; the visitor's device sees one stream whose time is real time.
#[test]
fn ringback_talk_and_floor_are_one_stream_whatever_is_converted() {
    for door in CODECS {
        let mut star = Star::new(&[door], &[(A, &[Codec::Opus]), (B, &[Codec::Pcmu])]);
        star.command(Command::Ringback { session: S, on: true });
        star.wait(990);
        star.talk(A);
        let (mut a, mut b) = (Tone::new(Codec::Opus, HZ), Tone::new(Codec::Pcmu, HZ));
        b.ts = 5;
        (0..50).for_each(|_| a.send(&mut star, A));
        star.talk(B);
        (0..50).for_each(|_| b.send(&mut star, B));
        star.talk(A);
        (0..50).for_each(|_| a.send(&mut star, A));
        let got = star.to(DOOR);
        assert_eq!(got.len(), 50 + 150, "{door:?}");
        assert!(got[0].marker, "{door:?}");
        let (rate, ringback) = decode(door, &got[5..50]);
        assert!(heard(rate, &ringback, 425.0).1 > 0.9, "{door:?}: the visitor hears ringback");
        let clock = f64::from(door.clock_rate());
        for two in got.windows(2) {
            assert_eq!((two[1].ssrc, two[1].seq), (two[0].ssrc, two[0].seq.wrapping_add(1)), "{door:?}");
            let step = f64::from(two[1].ts.wrapping_sub(two[0].ts)) / clock;
            let real = (two[1].at - two[0].at).as_secs_f64();
            assert!((step - real).abs() < 0.0105, "{door:?}: {step} s of timestamps in {real} s");
        }
    }
}

#[test]
fn a_talker_that_changes_its_codec_stays_one_stream() {
    let mut star = Star::new(&[Codec::Pcmu], &[(A, &[Codec::Opus, Codec::G722, Codec::Pcmu])]);
    star.talk(A);
    let mut seq = 1u16;
    for codec in [Codec::Opus, Codec::Pcmu, Codec::G722, Codec::Opus] {
        // It answered with PCMU as well, so that is forwarded, and the others converted: they are what it sends.
        let mut tone = Tone::new(codec, HZ);
        tone.seq = seq;
        (0..25).for_each(|_| tone.send(&mut star, A));
        seq = tone.seq;
    }
    let got = star.to(DOOR);
    assert_eq!(got.len(), 100);
    for two in got.windows(2) {
        assert_eq!((two[1].ssrc, two[1].seq), (two[0].ssrc, two[0].seq.wrapping_add(1)));
        assert_eq!(two[1].ts.wrapping_sub(two[0].ts), 160);
    }
}

#[test]
fn what_no_codec_reads_is_dropped_by_name_and_its_length_kept() {
    let mut star = Star::new(&[Codec::Opus], &[(A, &[Codec::Pcmu]), (B, &[Codec::Speex(32_000)])]);
    let mut tone = Tone::new(Codec::Opus, HZ);
    for n in 0..50 {
        let (seq, ts, payload) = tone.packet();
        let payload = match n {
            10 => vec![],
            20 => vec![0xff; 3],
            30 => vec![0x03, 0xff, 1, 2, 3],
            _ => payload,
        };
        star.rtp(DOOR, Codec::Opus, seq, ts, false, &payload);
        star.wait(20);
    }
    let got = star.to(A);
    assert_eq!(got.len(), 50, "each of them is concealed");
    is_one_stream(&got, Codec::Pcmu);
    assert!(star.to(B).is_empty());
    assert_eq!(star.drops(DOOR), [("undecodable", 3)]);
}

#[test]
fn one_packet_costs_a_bounded_amount_of_work() {
    for codec in [Codec::Pcmu, Codec::G722] {
        let mut star = Star::new(&[codec], &[(A, &[Codec::Opus])]);
        star.rtp(DOOR, codec, 1, 0, false, &vec![0x55; 2000]);
        assert!(star.to(A).is_empty(), "a quarter of a second in one datagram");
        star.rtp(DOOR, codec, 2, 0, false, &[0x55; 160]);
        // A jump of hours with a gap in the sequence is a pause, not an hour of silence to be made.
        star.rtp(DOOR, codec, 9, 1 << 30, false, &[0x55; 160]);
        star.rtp(DOOR, codec, 11, 5, false, &[0x55; 160]);
        assert_eq!(star.to(A).len(), 3);
        assert_eq!(star.drops(DOOR), [("undecodable", 1)]);
    }
}
