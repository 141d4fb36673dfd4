//! What a device says, a steady tone, and what it hears: which of the tones that may be there it is.

use media::audio::g711;
use sip_core::sdp::Codec;
use std::f32::consts::TAU;

/// Samples of one packet: 20 ms at 8 kHz.
pub(super) const PACKET: usize = 160;
/// The tones of a door and of a phone; whole cycles in 20 ms, so every packet is the same.
pub(super) const DOOR_HZ: u16 = 1000;
pub(super) const PHONE_HZ: u16 = 600;
/// The server's ringback (ITU-T E.180).
const RINGBACK_HZ: u16 = 425;
const RATE: f32 = 8000.0;
/// Mean square below which it is silence.
const SILENCE: f32 = 400.0;
/// Share of the energy that one tone must have.
const CLEAR: f32 = 0.6;

/// One packet of a tone in G.711; none for other codecs.
pub(super) fn tone(hz: u16, codec: Codec) -> Option<Vec<u8>> {
    let law = match codec {
        Codec::Pcmu => g711::ulaw,
        Codec::Pcma => g711::alaw,
        _ => return None,
    };
    Some((0..PACKET).map(|n| law((8000.0 * (TAU * f32::from(hz) * n as f32 / RATE).sin()) as i16)).collect())
}

/// The tone in a packet of G.711; none when there is silence, or a mix.
pub(super) fn heard(payload: &[u8], codec: Codec) -> Option<u16> {
    let law = match codec {
        Codec::Pcmu => g711::from_ulaw,
        Codec::Pcma => g711::from_alaw,
        _ => return None,
    };
    let samples: Vec<f32> = payload.iter().map(|byte| f32::from(law(*byte))).collect();
    let energy = samples.iter().map(|sample| sample * sample).sum::<f32>();
    if samples.is_empty() || energy / samples.len() as f32 <= SILENCE {
        return None;
    }
    let share = |hz: u16| goertzel(&samples, f32::from(hz)) / (energy * samples.len() as f32 / 2.0);
    [DOOR_HZ, PHONE_HZ, RINGBACK_HZ].into_iter().find(|hz| share(*hz) > CLEAR)
}

/// Energy of one frequency.
fn goertzel(samples: &[f32], hz: f32) -> f32 {
    let turn = 2.0 * (TAU * hz / RATE).cos();
    let (mut a, mut b) = (0.0, 0.0);
    for sample in samples {
        (a, b) = (sample + turn * a - b, a);
    }
    a * a + b * b - turn * a * b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tones_are_told_apart() {
        for codec in [Codec::Pcmu, Codec::Pcma] {
            for hz in [DOOR_HZ, PHONE_HZ, RINGBACK_HZ] {
                assert_eq!(tone(hz, codec).and_then(|packet| heard(&packet, codec)), Some(hz), "{codec:?}");
            }
            assert_eq!(tone(2000, codec).and_then(|packet| heard(&packet, codec)), None);
        }
        assert_eq!(heard(&[0xff; 160], Codec::Pcmu), None);
        assert_eq!(heard(&[], Codec::Pcmu), None);
        assert_eq!(heard(&[1, 2, 3], Codec::Opus), None);
    }
}
