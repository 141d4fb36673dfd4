//! One direction of one codec, with the state it keeps: bytes ↔ 16-bit samples, mono.

use super::{FRAME, LONGEST, g711, samples};
use crate::command::Codec;
use audio_codec::g722::{G722Decoder, G722Encoder};
use audio_codec::{Decoder as _, Encoder as _};
use bytes::Bytes;
use std::fmt;

const NARROW: u32 = 8_000;
const WIDE: u32 = 16_000;
/// Speech needs no more; the in-band copies of the last frame (FEC) are in it.
const OPUS_BITS: i32 = 24_000;
/// What the encoder is told of the network, so that it writes these copies.
const OPUS_LOSS: i32 = 10;
/// Of 10: above it the cost doubles and nobody hears it on a door's loudspeaker.
const OPUS_COMPLEXITY: i32 = 5;
/// The copy in a packet, and what fades out before it, come in steps of 2.5 ms (RFC 6716 §2).
const OPUS_STEPS: u32 = 400;
/// Room for any frame out.
const PAYLOAD: usize = 400;

/// A payload that its codec cannot read, or that is too long or empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undecodable;

/// Reads one stream of a codec.
pub struct Decoder(Reading);

enum Reading {
    Law(fn(u8) -> i16),
    G722(Box<G722Decoder>),
    Opus(opus::Decoder),
}

impl Decoder {
    /// `None`: nothing here reads this codec.
    pub fn new(codec: Codec) -> Option<Decoder> {
        Some(Decoder(match codec {
            Codec::Pcmu => Reading::Law(g711::from_ulaw),
            Codec::Pcma => Reading::Law(g711::from_alaw),
            Codec::G722 => Reading::G722(Box::default()),
            Codec::Opus => Reading::Opus(opus::Decoder::new(WIDE, opus::Channels::Mono).ok()?),
            Codec::Speex(_) | Codec::TelephoneEvent(_) | Codec::H264 => return None,
        }))
    }

    /// Samples per second that come out.
    pub fn rate(&self) -> u32 {
        match &self.0 {
            Reading::Law(_) => NARROW,
            Reading::G722(_) | Reading::Opus(_) => WIDE,
        }
    }

    /// Appends the samples of a packet.
    pub fn decode(&mut self, payload: &[u8], out: &mut Vec<i16>) -> Result<(), Undecodable> {
        let (begin, longest) = (out.len(), samples(LONGEST, self.rate()));
        if payload.is_empty() {
            return Err(Undecodable);
        }
        match &mut self.0 {
            Reading::Law(from) if payload.len() <= longest => out.extend(payload.iter().map(|byte| from(*byte))),
            Reading::G722(decoder) if payload.len() * 2 <= longest => {
                out.resize(begin + payload.len() * 2, 0);
                let made = decoder.decode_into(payload, &mut out[begin..]).unwrap_or(0);
                out.truncate(begin + made);
            }
            Reading::Opus(decoder) => {
                out.resize(begin + longest, 0);
                let made = decoder.decode(payload, &mut out[begin..], false);
                out.truncate(begin + made.as_ref().map_or(0, |made| *made));
                made.map_err(|_| Undecodable)?;
            }
            Reading::Law(_) | Reading::G722(_) => return Err(Undecodable),
        }
        Ok(())
    }

    /// Appends exactly so many samples for what was lost before this packet: Opus from the packet's copy of it and from what it
    /// heard before, the others silence.
    pub fn conceal(&mut self, lost: usize, next: &[u8], out: &mut Vec<i16>) {
        let begin = out.len();
        out.resize(begin + lost, 0);
        if let Reading::Opus(decoder) = &mut self.0 {
            let step = (WIDE / OPUS_STEPS) as usize;
            let whole = lost / step * step;
            if whole > 0 && !next.is_empty() {
                // What it cannot make up stays silent.
                let _ = decoder.decode(next, &mut out[begin..begin + whole], true);
            }
        }
    }
}

/// Writes one stream of a codec in frames of 20 ms.
pub struct Encoder(Writing);

enum Writing {
    Law(fn(i16) -> u8),
    G722(Box<G722Encoder>),
    Opus(opus::Encoder, u32),
}

impl Encoder {
    /// For samples that come at `rate`, if the codec has the choice. `None`: nothing here writes this codec.
    pub fn new(codec: Codec, rate: u32) -> Option<Encoder> {
        Some(Encoder(match codec {
            Codec::Pcmu => Writing::Law(g711::ulaw),
            Codec::Pcma => Writing::Law(g711::alaw),
            Codec::G722 => Writing::G722(Box::default()),
            Codec::Opus => Writing::Opus(opus_encoder(rate).ok()?, rate),
            Codec::Speex(_) | Codec::TelephoneEvent(_) | Codec::H264 => return None,
        }))
    }

    /// Samples per second that it wants.
    pub fn rate(&self) -> u32 {
        match &self.0 {
            Writing::Law(_) => NARROW,
            Writing::G722(_) => WIDE,
            Writing::Opus(_, rate) => *rate,
        }
    }

    /// Samples of a frame.
    pub fn frame(&self) -> usize {
        samples(FRAME, self.rate())
    }

    /// One frame of [`Encoder::frame`] samples. `None`: the codec failed, and the frame is missing.
    pub fn encode(&mut self, frame: &[i16]) -> Option<Bytes> {
        let mut payload = [0; PAYLOAD];
        let length = match &mut self.0 {
            Writing::Law(to) => return Some(frame.iter().map(|sample| to(*sample)).collect()),
            Writing::G722(encoder) => encoder.encode_into(frame, &mut payload).ok()?,
            Writing::Opus(encoder, _) => encoder.encode(frame, &mut payload).ok()?,
        };
        Some(Bytes::copy_from_slice(payload.get(..length)?))
    }
}

fn opus_encoder(rate: u32) -> opus::Result<opus::Encoder> {
    let mut encoder = opus::Encoder::new(rate, opus::Channels::Mono, opus::Application::Voip)?;
    encoder.set_bitrate(opus::Bitrate::Bits(OPUS_BITS))?;
    encoder.set_complexity(OPUS_COMPLEXITY)?;
    encoder.set_inband_fec(true)?;
    encoder.set_packet_loss_perc(OPUS_LOSS)?;
    Ok(encoder)
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Decoder({} Hz)", self.rate())
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encoder({} Hz)", self.rate())
    }
}
