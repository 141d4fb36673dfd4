//! The tone the visitor hears while it rings (D-03): one second of 425 Hz, four of silence (ITU-T E.180, most of the world),
//! encoded once per worker and codec, when the first anchor with that codec hears it.

use crate::audio::{Encoder, FRAME};
use crate::command::Codec;
use bytes::Bytes;
use std::f32::consts::TAU;
use std::time::Duration;

const SOUND: Duration = Duration::from_secs(1);
const PERIOD: Duration = Duration::from_secs(5);
/// Frames of silence that are encoded behind the tone; by then a codec with a memory has forgotten it, and the last one repeats.
const FADE: usize = 5;
const HZ: f32 = 425.0;
/// About -16 dBm0: heard, not startling.
const LEVEL: f32 = 5000.0;
/// Sampling rate for a codec that has the choice.
const RATE: u32 = 16_000;

/// The beginning of the period in every codec that was asked for; packets are taken from it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ringback(Vec<(Codec, Vec<Bytes>)>);

impl Ringback {
    /// The packet at this place of the endless loop; none for a codec that nothing here writes.
    pub fn packet(&mut self, codec: Codec, index: usize) -> Option<Bytes> {
        let known = self.0.iter().position(|(known, _)| *known == codec);
        let at = match known {
            Some(at) => at,
            None => {
                self.0.push((codec, encode(codec)?));
                self.0.len() - 1
            }
        };
        let (_, packets) = self.0.get(at)?;
        let place = index % (PERIOD.as_millis() / FRAME.as_millis()) as usize;
        packets.get(place).or(packets.last()).cloned()
    }
}

fn encode(codec: Codec) -> Option<Vec<Bytes>> {
    let mut encoder = Encoder::new(codec, RATE)?;
    let (rate, length) = (encoder.rate() as f32, encoder.frame());
    let sounding = (SOUND.as_millis() / FRAME.as_millis()) as usize;
    let frame = |index: usize| {
        let sample = |n: usize| (LEVEL * (TAU * HZ * (index * length + n) as f32 / rate).sin()) as i16;
        (0..length).map(|n| if index < sounding { sample(n) } else { 0 }).collect::<Vec<i16>>()
    };
    (0..sounding + FADE).map(|index| encoder.encode(&frame(index))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loop_has_no_end_and_no_seam() {
        let mut tone = Ringback::default();
        let first = tone.packet(Codec::Pcmu, 0);
        assert_eq!(first.as_ref().map(Bytes::len), Some(160));
        assert_eq!(first, tone.packet(Codec::Pcmu, 250));
        assert_ne!(first, tone.packet(Codec::Pcma, 0));
        assert!(tone.packet(Codec::H264, 0).is_none());
        assert!(tone.packet(Codec::Pcma, 60).is_some_and(|silence| silence.iter().all(|byte| *byte == 0xd5)));
        for codec in [Codec::G722, Codec::Opus] {
            assert!(tone.packet(codec, 0).is_some());
            assert_eq!(tone.packet(codec, 100), tone.packet(codec, 249), "silence");
        }
    }
}
