//! The fuzz targets on stable: what they found once is replayed, and seeded mutations of it are thrown at them, so that CI finds
//! things without a nightly compiler. `DOORLINE_FUZZ=1000000` for the long run; `fuzz/` for the guided one.

#![allow(clippy::disallowed_methods)] // the targets need some instant to begin at

#[path = "../../fuzz/src/audio.rs"]
mod audio;
#[path = "../../fuzz/src/digest.rs"]
mod digest;
#[path = "../../fuzz/src/engine.rs"]
mod engine;
#[path = "../../fuzz/src/framing.rs"]
mod framing;
#[path = "../../fuzz/src/key_frame.rs"]
mod key_frame;
#[path = "../../fuzz/src/message.rs"]
mod message;
#[path = "../../fuzz/src/sdp.rs"]
mod sdp;
#[path = "../../fuzz/src/switchboard.rs"]
mod switchboard;
#[path = "../../fuzz/src/uri.rs"]
mod uri;
#[path = "../../fuzz/src/websocket.rs"]
mod websocket;

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

/// Mutated inputs per target, a tenth of it for the slow one.
fn mutations() -> u64 {
    std::env::var("DOORLINE_FUZZ").ok().and_then(|text| text.parse().ok()).unwrap_or(20_000)
}

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut folders = vec![root.join("fuzz/corpus").join(target)];
    if target == "message" {
        folders.extend([root.join("fixtures/torture/rfc4475"), root.join("fixtures/torture/rfc5118")]);
    }
    let entries =
        folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("readable"))).collect()
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % below.max(1) as u64) as usize
    }
}

/// Bytes that mean something to one of the readers.
const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"\"",
    b"\\",
    b"<",
    b">",
    b";",
    b",",
    b":",
    b"@",
    b"?",
    b"=",
    b"%",
    b"%00",
    b" ",
    b"\t",
    b"[",
    b"]",
    b"[::1]",
    b"/",
    b"*",
    b"-1",
    b"0",
    b"65536",
    b"4294967296",
    b"18446744073709551616",
    b"sip:",
    b";tag=",
    b";lr",
    b"z9hG4bK",
    b"\xff",
    b"\xc0\x80",
    b"\n--\n",
    b"{tag}",
    b"{target}",
    b"a=",
    b"m=video 0 RTP/AVP 96\r\n",
    b"SIP/2.0",
    b"Content-Length: ",
    b"\r\n ",
    b"\0\0\x01",
    b"\0\0\0\x01\x67",
    b"\0\0\x01\x65\x88",
    b"99",
    b"127",
    b"128",
];

/// A few cuts, copies, swaps and odd bytes; sometimes with the tail of another input.
fn mutate(dice: &mut Dice, inputs: &[(PathBuf, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = inputs[dice.roll(inputs.len())].1.clone();
    if dice.roll(4) == 0 {
        let other = &inputs[dice.roll(inputs.len())].1;
        bytes.truncate(dice.roll(bytes.len() + 1));
        bytes.extend_from_slice(&other[dice.roll(other.len() + 1)..]);
    }
    for _ in 0..=dice.roll(5) {
        let (at, length) = (dice.roll(bytes.len() + 1), bytes.len());
        let end = (at + dice.roll(24)).min(length);
        match dice.roll(6) {
            0 if at < length => bytes[at] ^= 1 << dice.roll(8),
            1 if at < length => bytes[at] = dice.roll(256) as u8,
            2 => drop(bytes.drain(at..end)),
            3 => {
                let part = bytes[at..end].to_vec();
                let to = dice.roll(length + 1);
                bytes.splice(to..to, part);
            }
            4 => {
                let word = WORDS[dice.roll(WORDS.len())];
                bytes.splice(at..end.min(at + word.len()), word.iter().copied());
            }
            _ => {
                let word = WORDS[dice.roll(WORDS.len())];
                bytes.splice(at..at, word.iter().copied());
            }
        }
    }
    bytes
}

fn check(target: &str, run: fn(&[u8]), share: u64) {
    let inputs = corpus(target);
    for (path, bytes) in &inputs {
        assert!(catch_unwind(|| run(bytes)).is_ok(), "{target} falls over {}", path.display());
    }
    let mut dice = Dice(target.len() as u64);
    for number in 0..mutations() / share {
        let bytes = mutate(&mut dice, &inputs);
        if catch_unwind(|| run(&bytes)).is_err() {
            let path = std::env::temp_dir().join(format!("doorline-{target}-{number}"));
            std::fs::write(&path, &bytes).expect("a place to keep it");
            panic!("{target} falls over {}: fix it and keep it in fuzz/corpus/{target}/", path.display());
        }
    }
}

#[test]
fn message_survives_anything() {
    check("message", message::run, 1);
}

#[test]
fn uri_survives_anything() {
    check("uri", uri::run, 1);
}

#[test]
fn sdp_survives_anything() {
    check("sdp", sdp::run, 1);
}

#[test]
fn digest_survives_anything() {
    check("digest", digest::run, 1);
}

#[test]
fn switchboard_survives_anything() {
    check("switchboard", switchboard::run, 10);
}

#[test]
fn framing_survives_anything() {
    check("framing", framing::run, 1);
}

#[test]
fn key_frame_survives_anything() {
    check("key_frame", key_frame::run, 1);
}

#[test]
fn websocket_survives_anything() {
    check("websocket", websocket::run, 1);
}

#[test]
fn engine_survives_anything() {
    check("engine", engine::run, 10);
}

#[test]
fn audio_survives_anything() {
    check("audio", audio::run, 10);
}
