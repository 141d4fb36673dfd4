//! What a phone sees: RTP payloads → access units (RFC 6184) → pictures, and the frame number drawn into the test clip.

use super::clip;
use openh264::decoder::Decoder;
use openh264::formats::YUVSource;

/// Largest access unit put together; a longer one is thrown away.
const MAX_UNIT: usize = 512 << 10;
/// The clip's counter: eight blocks of this width, read at this line.
const BLOCK: usize = 80;
const LINE: usize = 32;

/// Decodes what arrives.
pub struct Screen {
    decoder: Option<Decoder>,
    /// The access unit so far, with start codes; `None` after a loss, until the next one begins.
    unit: Option<Vec<u8>>,
    next: Option<u16>,
    broken: bool,
    /// The unit so far is a key frame.
    key: bool,
    /// Pictures shown.
    pub pictures: u64,
    /// Frame number of the first picture, and of the last.
    pub first: Option<u8>,
    pub counter: Option<u8>,
}

impl Screen {
    pub fn new() -> Screen {
        Screen {
            decoder: Decoder::new().ok(),
            unit: Some(Vec::new()),
            next: None,
            broken: false,
            key: false,
            pictures: 0,
            first: None,
            counter: None,
        }
    }

    /// A loss is on the screen until the next key frame; before the first picture there is nothing to break.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// One RTP packet in the order of arrival. `true`: a picture is complete.
    pub fn packet(&mut self, seq: u16, marker: bool, payload: &[u8]) -> bool {
        if self.next.is_some_and(|next| seq.wrapping_sub(next) >= 0x8000) {
            // A copy, or one that is too late.
            return false;
        }
        if self.next.is_some_and(|next| next != seq) {
            (self.unit, self.broken) = (None, true);
        }
        self.key |= clip::is_key(payload);
        self.next = Some(seq.wrapping_add(1));
        if let Some(unit) = &mut self.unit {
            append(unit, payload);
            if unit.len() > MAX_UNIT {
                self.unit = None;
            }
        }
        if !marker {
            return false;
        }
        let (unit, key) = (self.unit.replace(Vec::new()), std::mem::take(&mut self.key));
        let Some(unit) = unit.filter(|unit| !unit.is_empty()) else { return false };
        self.broken &= !key;
        if self.broken {
            return false;
        }
        let Some(Ok(Some(picture))) = self.decoder.as_mut().map(|decoder| decoder.decode(&unit)) else { return false };
        let (width, _) = picture.dimensions();
        let (stride, ..) = picture.strides();
        let luma = picture.y();
        let bit = |n: usize| luma.get(LINE * stride + n * BLOCK + BLOCK / 2).is_some_and(|y| *y > 125);
        self.counter = (width >= 8 * BLOCK).then(|| (0..8).fold(0, |number, n| number | u8::from(bit(n)) << n));
        self.first = self.first.or(self.counter);
        self.pictures += 1;
        true
    }
}

/// Adds the NAL units of a payload with start codes: single, STAP-A, FU-A.
fn append(unit: &mut Vec<u8>, payload: &[u8]) {
    const START: [u8; 4] = [0, 0, 0, 1];
    match payload {
        [head, rest @ ..] if head & 0x1f == 24 => {
            let mut rest = rest;
            while let [high, low, more @ ..] = rest {
                let Some((nal, next)) = more.split_at_checked(usize::from(u16::from_be_bytes([*high, *low]))) else { return };
                unit.extend_from_slice(&START);
                unit.extend_from_slice(nal);
                rest = next;
            }
        }
        [head, fu, piece @ ..] if head & 0x1f == 28 => {
            if fu & 0x80 != 0 {
                unit.extend_from_slice(&START);
                unit.push(head & 0xe0 | fu & 0x1f);
            }
            unit.extend_from_slice(piece);
        }
        [] => {}
        nal => {
            unit.extend_from_slice(&START);
            unit.extend_from_slice(nal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::clip::{Clip, Packing, payloads};
    use super::*;

    #[test]
    fn the_clip_is_decoded_and_its_counter_read() {
        let clip = Clip::test_picture();
        assert_eq!((clip.frames.len(), clip.frames.iter().filter(|frame| frame.key).count()), (50, 1));
        let mut screen = Screen::new();
        let mut seq = 65_500u16;
        for (number, frame) in clip.frames.iter().enumerate() {
            let parts = payloads(frame, Packing::Aggregates);
            for (index, payload) in parts.iter().enumerate() {
                screen.packet(seq, index + 1 == parts.len(), payload);
                seq = seq.wrapping_add(1);
            }
            assert_eq!((screen.pictures, screen.counter), (number as u64 + 1, Some(number as u8)));
        }
    }

    #[test]
    fn nonsense_shows_nothing() {
        let mut screen = Screen::new();
        for payload in [&[][..], &[0x7c], &[0x7c, 0x45, 1], &[0x78, 0xff, 0xff, 1], &[0x65; 50]] {
            assert!(!screen.packet(1, true, payload));
        }
    }
}
