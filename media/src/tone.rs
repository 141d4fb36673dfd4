//! The tone the visitor hears while it rings (D-03): one second of 425 Hz, four of silence (ITU-T E.180, most of the world),
//! encoded once per law (ITU-T G.711).

use crate::command::Codec;
use crate::g711::{alaw, ulaw};
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

#[cfg(test)]
mod tests {
    use super::*;

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
