//! [`Converter`]: one stream in, one stream of frames out per codec that is wanted.

use super::codec::{Decoder, Encoder};
use super::resample::HalfBand;
use super::{CONCEALED, FRAME};
use crate::command::Codec;
use crate::drop::Drop;
use crate::rtp::{self, Rtp};
use bytes::Bytes;

/// Ticks per second of a converter's own time: every clock here divides it.
const TICKS: u32 = 48_000;
/// A sequence number so far behind is no straggler but a new beginning.
const STRAGGLERS: u16 = 64;

/// See the text of [`super`].
#[derive(Debug)]
pub(crate) struct Converter {
    codec: Codec,
    decoder: Decoder,
    heard: Option<Heard>,
    /// Samples of the last packet, behind what was concealed before it.
    pcm: Vec<i16>,
    /// When they begin, and when what follows will.
    begin: u64,
    end: u64,
    voices: Vec<Voice>,
}

/// The sender's numbers.
#[derive(Clone, Copy, Debug)]
struct Heard {
    ssrc: u32,
    sequence: u16,
    /// Timestamp of what should follow.
    next: u32,
}

/// The same sound in one codec.
#[derive(Debug)]
struct Voice {
    codec: Codec,
    encoder: Encoder,
    filter: Option<HalfBand>,
    /// Samples that do not make a frame yet.
    pending: Vec<i16>,
    /// Timestamp and sequence number of the next frame.
    timestamp: u32,
    sequence: u16,
    /// How far it has heard.
    at: u64,
    /// The next frame begins a talk-spurt.
    marker: bool,
    frames: Vec<Frame>,
}

/// One packet out, in a numbering that begins anywhere.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub sequence: u16,
    pub timestamp: u32,
    pub marker: bool,
    pub payload: Bytes,
}

impl Converter {
    /// `None`: nothing here reads this codec.
    pub fn new(codec: Codec) -> Option<Converter> {
        let decoder = Decoder::new(codec)?;
        Some(Converter { codec, decoder, heard: None, pcm: Vec::new(), begin: 0, end: 0, voices: Vec::new() })
    }

    /// Takes one packet, once. Its sound is then there for [`Converter::speak`].
    pub fn hear(&mut self, packet: &Rtp<'_>, codec: Codec) -> Result<(), Drop> {
        let (clock, sequence) = (codec.clock_rate(), packet.sequence());
        if codec != self.codec {
            self.decoder = Decoder::new(codec).ok_or(Drop::NoCodec)?;
            self.codec = codec;
            self.heard = None;
        }
        let followed = self.heard.filter(|h| h.ssrc == packet.ssrc() && h.sequence.wrapping_sub(sequence) > STRAGGLERS);
        let (mut lost, mut pause) = (0, 0);
        match (followed, self.heard) {
            (None, Some(heard)) if heard.ssrc == packet.ssrc() => return Err(Drop::Late),
            (Some(heard), _) if rtp::later(sequence, heard.sequence) => {
                // A step back is a new beginning, as is half the number space ahead.
                let gap = packet.timestamp().wrapping_sub(heard.next);
                let gap = if gap < 1 << 31 { gap } else { 0 };
                let missing = sequence.wrapping_sub(heard.sequence) > 1;
                let concealed = u64::from(gap) * 1000 <= CONCEALED.as_millis() as u64 * u64::from(clock);
                *(if missing && concealed { &mut lost } else { &mut pause }) = gap;
            }
            _ => {}
        }
        let rate = self.decoder.rate();
        self.pcm.clear();
        if lost > 0 {
            self.decoder.conceal(scale(u64::from(lost), clock, rate) as usize, packet.payload(), &mut self.pcm);
        }
        if self.decoder.decode(packet.payload(), &mut self.pcm).is_err() {
            // Its place in the sequence stays open: what follows finds it lost.
            self.pcm.clear();
            self.begin = self.end;
            return Err(Drop::Undecodable);
        }
        self.begin = self.end + scale(u64::from(pause), clock, TICKS);
        let length = scale(self.pcm.len() as u64, rate, TICKS);
        self.end = self.begin + length;
        let own = scale(length, TICKS, clock) as u32;
        self.heard = Some(Heard { ssrc: packet.ssrc(), sequence, next: packet.timestamp().wrapping_add(own.wrapping_sub(lost)) });
        Ok(())
    }

    /// A packet of the same stream that is no sound (an event): nothing is lost where it stands.
    pub fn skip(&mut self, packet: &Rtp<'_>) {
        if let Some(heard) = self.heard.as_mut().filter(|h| h.ssrc == packet.ssrc())
            && rtp::later(packet.sequence(), heard.sequence)
        {
            heard.sequence = packet.sequence();
        }
    }

    /// What the last packet gives in this codec: none, one or more frames; the same to everybody who asks.
    pub fn speak(&mut self, codec: Codec) -> Result<&[Frame], Drop> {
        let rate = self.decoder.rate();
        let index = match self.voices.iter().position(|voice| voice.codec == codec && voice.fits(rate)) {
            Some(index) => index,
            None => {
                let former =
                    self.voices.iter().position(|voice| voice.codec == codec).map(|index| self.voices.swap_remove(index));
                self.voices.push(Voice::new(codec, rate, self.begin, former).ok_or(Drop::NoCodec)?);
                self.voices.len() - 1
            }
        };
        let voice = &mut self.voices[index];
        if voice.at != self.end {
            voice.frames.clear();
            voice.say(&self.pcm, self.begin, self.end);
        }
        Ok(&voice.frames)
    }
}

impl Voice {
    /// One that goes on with the numbers of its former self, for a sound of another rate.
    fn new(codec: Codec, rate: u32, begin: u64, former: Option<Voice>) -> Option<Voice> {
        let encoder = Encoder::new(codec, rate)?;
        let filter = HalfBand::between(rate, encoder.rate());
        let sequence = former.map_or(0, |former| former.sequence);
        let timestamp = timestamp(begin, codec);
        let (pending, frames) = (Vec::new(), Vec::new());
        Some(Voice { codec, encoder, filter, pending, timestamp, sequence, at: begin, marker: true, frames })
    }

    /// Whether it takes sound of this rate as it is.
    fn fits(&self, rate: u32) -> bool {
        self.filter.is_none() == (self.encoder.rate() == rate)
    }

    fn say(&mut self, pcm: &[i16], begin: u64, end: u64) {
        if self.at != begin {
            // Silence, or nobody wanted this voice: it finishes its frame and goes on later.
            if !self.pending.is_empty() {
                self.pending.resize(self.encoder.frame(), 0);
                self.cut();
            }
            let later = timestamp(begin, self.codec);
            // The frame just filled up may reach into what follows.
            if later.wrapping_sub(self.timestamp) < 1 << 31 {
                self.timestamp = later;
            }
            self.marker = true;
        }
        match &mut self.filter {
            Some(filter) => filter.run(pcm, &mut self.pending),
            None => self.pending.extend_from_slice(pcm),
        }
        self.at = end;
        self.cut();
    }

    /// Whole frames leave.
    fn cut(&mut self) {
        let length = self.encoder.frame();
        let step = self.codec.clock_rate() / 1000 * FRAME.as_millis() as u32;
        let whole = self.pending.len() / length * length;
        for frame in self.pending[..whole].chunks_exact(length) {
            let (sequence, timestamp) = (self.sequence, self.timestamp);
            self.timestamp = timestamp.wrapping_add(step);
            if let Some(payload) = self.encoder.encode(frame) {
                self.sequence = sequence.wrapping_add(1);
                self.frames.push(Frame { sequence, timestamp, marker: std::mem::take(&mut self.marker), payload });
            }
        }
        self.pending.drain(..whole);
    }
}

fn scale(count: u64, from: u32, to: u32) -> u64 {
    count * u64::from(to) / u64::from(from)
}

fn timestamp(at: u64, codec: Codec) -> u32 {
    scale(at, TICKS, codec.clock_rate()) as u32
}
