//! The tone the visitor hears while it rings (D-03): one second of 425 Hz, four of silence (ITU-T E.180, most of the world),
//! encoded once per law (ITU-T G.711).

use crate::command::Codec;
use bytes::Bytes;
use std::f32::consts::TAU;

/// Samples of one packet: 20 ms at 8 kHz.
pub(crate) const PACKET: usize = 160;
const RATE: usize = 8000;
const SOUND: usize = RATE;
const PERIOD: usize = 5 * RATE;
const HZ: f32 = 425.0;
/// About -16 dBm0: heard, not startling.
const LEVEL: f32 = 5000.0;

/// One period in both laws; packets are slices of it.
#[derive(Clone, Debug)]
pub(crate) struct Ringback {
    ulaw: Bytes,
    alaw: Bytes,
}

impl Ringback {
    pub fn new() -> Ringback {
        let sample = |n: usize| if n < SOUND { (LEVEL * (TAU * HZ * n as f32 / RATE as f32).sin()) as i16 } else { 0 };
        let encode = |law: fn(i16) -> u8| (0..PERIOD).map(|n| law(sample(n))).collect::<Vec<u8>>().into();
        Ringback { ulaw: encode(ulaw), alaw: encode(alaw) }
    }

    /// The packet at this place of the endless loop; none for a codec that is not G.711.
    pub fn packet(&self, codec: Codec, index: usize) -> Option<Bytes> {
        let at = index * PACKET % PERIOD;
        match codec {
            Codec::Pcmu => Some(self.ulaw.slice(at..at + PACKET)),
            Codec::Pcma => Some(self.alaw.slice(at..at + PACKET)),
            Codec::G722 | Codec::Opus | Codec::Speex(_) | Codec::TelephoneEvent(_) | Codec::H264 => None,
        }
    }
}

impl Default for Ringback {
    fn default() -> Ringback {
        Ringback::new()
    }
}

/// μ-law: sign, 3-bit segment, 4-bit step of a 14-bit sample, all bits inverted.
fn ulaw(sample: i16) -> u8 {
    let magnitude = sample.unsigned_abs().min(32_635) + 132;
    let segment = 7 - (magnitude << 1).leading_zeros().min(7) as u8;
    let step = (magnitude >> (segment + 3)) as u8 & 0x0f;
    !(u8::from(sample < 0) << 7 | segment << 4 | step)
}

/// A-law: the same on a 13-bit sample, even bits inverted.
fn alaw(sample: i16) -> u8 {
    let magnitude = if sample < 0 { !sample } else { sample }.unsigned_abs() >> 4;
    let segment = (12 - magnitude.leading_zeros().clamp(5, 12)) as u8;
    let step = if segment == 0 { magnitude as u8 } else { (magnitude >> (segment - 1)) as u8 & 0x0f };
    let byte = segment << 4 | step & 0x0f;
    (if sample < 0 { byte } else { byte | 0x80 }) ^ 0x55
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_ulaw(byte: u8) -> i32 {
        let byte = !byte;
        let magnitude = (((i32::from(byte & 15) << 3) + 132) << ((byte >> 4) & 7)) - 132;
        if byte & 0x80 != 0 { -magnitude } else { magnitude }
    }

    fn from_alaw(byte: u8) -> i32 {
        let byte = byte ^ 0x55;
        let (mantissa, segment) = (i32::from(byte & 15) << 4, (byte >> 4) & 7);
        let magnitude = if segment == 0 { mantissa + 8 } else { (mantissa + 0x108) << (segment - 1) };
        if byte & 0x80 != 0 { magnitude } else { -magnitude }
    }

    #[test]
    fn both_laws_come_back_within_their_step() {
        for sample in (-32_000i16..=32_000).step_by(37) {
            let near = |decoded: i32| (decoded - i32::from(sample)).abs() <= i32::from(sample.unsigned_abs()) / 16 + 16;
            assert!(near(from_ulaw(ulaw(sample))), "ulaw {sample}: {}", from_ulaw(ulaw(sample)));
            assert!(near(from_alaw(alaw(sample))), "alaw {sample}: {}", from_alaw(alaw(sample)));
        }
        assert_eq!((ulaw(0), alaw(0)), (0xff, 0xd5));
    }

    #[test]
    fn the_loop_has_no_end_and_no_seam() {
        let tone = Ringback::new();
        let first = tone.packet(Codec::Pcmu, 0);
        assert_eq!(first, tone.packet(Codec::Pcmu, PERIOD / PACKET));
        assert_ne!(first, tone.packet(Codec::Pcma, 0));
        assert!(tone.packet(Codec::Opus, 0).is_none());
        assert!(tone.packet(Codec::Pcma, 60).is_some_and(|silence| silence.iter().all(|byte| *byte == 0xd5)));
    }
}
