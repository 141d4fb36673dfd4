//! A door's key frame as a JPEG: what `POST /v1/calls/{id}/snapshot` and the record show.
//!
//! The decoder is C and reads what a door sends, so this runs in a process of its own, never where packets or signalling do.
//! A decoder is used again (a new one costs 4 ms), but only after a picture that was whole: concealment is off in it, one picture
//! goes in and nothing may be left inside, so nothing of one door's picture can ever be in another's. After any error it
//! is thrown away.

use jpeg_encoder::{Encoder, EncodingError, ImageBuffer, JpegColorType, SamplingFactor};
use openh264::decoder::{DecodedYUV, Decoder};
use openh264::formats::YUVSource;

/// Longest key frame that is looked at; media keeps none longer than 128 KiB (D-19).
pub const MAX_KEY_FRAME: usize = 512 << 10;
/// Longest side of a picture: beyond 4K no door is honest.
const MAX_SIDE: usize = 4096;

/// NAL unit types (H.264 table 7-1) that make a key frame; everything else in it is left out.
const IDR: u8 = 5;
const SPS: u8 = 7;
const PPS: u8 = 8;

/// From good to bad, until it fits; then the picture is halved and it begins again.
const QUALITIES: [u8; 4] = [85, 70, 50, 30];

/// How large a picture may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preset {
    /// At most 100 KB, longest side 640.
    Small,
    /// At most 200 KB, longest side 1280.
    #[default]
    Large,
}

impl Preset {
    /// As in URLs.
    pub fn from_name(name: &str) -> Option<Preset> {
        match name {
            "small" => Some(Preset::Small),
            "large" => Some(Preset::Large),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Preset::Small => "small",
            Preset::Large => "large",
        }
    }

    /// Most bytes of the JPEG.
    pub fn max_bytes(self) -> usize {
        match self {
            Preset::Small => 100_000,
            Preset::Large => 200_000,
        }
    }

    fn max_side(self) -> usize {
        match self {
            Preset::Small => 640,
            Preset::Large => 1280,
        }
    }
}

/// A picture as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jpeg {
    pub width: u16,
    pub height: u16,
    pub bytes: Vec<u8>,
}

/// Why there is no picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("the key frame is too long")]
    TooLong,
    #[error("the key frame has no parameter sets")]
    NoParameterSets,
    #[error("not one picture begins in the key frame")]
    NotOnePicture,
    #[error("the key frame cannot be decoded")]
    Undecodable,
    #[error("the picture has an impossible size")]
    BadSize,
    #[error("the picture cannot be written as JPEG")]
    NotEncodable,
}

impl SnapshotError {
    pub const ALL: [SnapshotError; 6] = [
        SnapshotError::TooLong,
        SnapshotError::NoParameterSets,
        SnapshotError::NotOnePicture,
        SnapshotError::Undecodable,
        SnapshotError::BadSize,
        SnapshotError::NotEncodable,
    ];

    /// Its counter.
    pub fn name(self) -> &'static str {
        match self {
            SnapshotError::TooLong => "picture_too_long",
            SnapshotError::NoParameterSets => "picture_no_parameter_sets",
            SnapshotError::NotOnePicture => "picture_not_one",
            SnapshotError::Undecodable => "picture_undecodable",
            SnapshotError::BadSize => "picture_bad_size",
            SnapshotError::NotEncodable => "picture_not_encodable",
        }
    }
}

impl From<EncodingError> for SnapshotError {
    fn from(_: EncodingError) -> SnapshotError {
        SnapshotError::NotEncodable
    }
}

/// Turns key frames into pictures, one after another.
#[derive(Default)]
pub struct Developer {
    decoder: Option<Decoder>,
}

impl Developer {
    /// `annex_b`: SPS, PPS and all slices of one IDR picture, with start codes.
    pub fn picture(&mut self, annex_b: &[u8], preset: Preset) -> Result<Jpeg, SnapshotError> {
        let key_frame = key_frame(annex_b)?;
        let mut decoder = match self.decoder.take() {
            Some(decoder) => decoder,
            None => Decoder::new().map_err(|_| SnapshotError::Undecodable)?,
        };
        let frame = match decoder.decode(&key_frame) {
            Ok(Some(decoded)) => Frame::copy(&decoded)?,
            Ok(None) | Err(_) => return Err(SnapshotError::Undecodable),
        };
        // It is used again only if nothing has stayed in it.
        if decoder.flush_remaining().is_ok_and(|left| left.is_empty()) {
            self.decoder = Some(decoder);
        }
        frame.fit(preset)
    }
}

/// The NAL units of a byte stream (H.264 annex B), without start codes and the zeros between them.
pub fn nal_units(stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = after_start_code(stream);
    std::iter::from_fn(move || {
        let bytes = rest?;
        let end = bytes.windows(3).position(|three| three == [0, 0, 1]);
        rest = end.map(|at| &bytes[at + 3..]);
        let unit = &bytes[..end.unwrap_or(bytes.len())];
        Some(&unit[..unit.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)])
    })
    .filter(|unit| !unit.is_empty())
}

fn after_start_code(stream: &[u8]) -> Option<&[u8]> {
    stream.windows(3).position(|three| three == [0, 0, 1]).map(|at| &stream[at + 3..])
}

/// What a decoder needs of a key frame and nothing else.
pub fn key_frame(annex_b: &[u8]) -> Result<Vec<u8>, SnapshotError> {
    if annex_b.len() > MAX_KEY_FRAME {
        return Err(SnapshotError::TooLong);
    }
    let (mut sps, mut pps, mut begun) = (false, false, 0);
    let mut out = Vec::with_capacity(annex_b.len() + 16);
    for unit in nal_units(annex_b) {
        match unit[0] & 0x1f {
            SPS => sps = true,
            PPS => pps = true,
            // `first_mb_in_slice` is 0: one bit of Exp-Golomb.
            IDR => begun += usize::from(unit.get(1).is_some_and(|byte| byte & 0x80 != 0)),
            _ => continue,
        }
        out.extend_from_slice(&[0, 0, 0, 1]);
        out.extend_from_slice(unit);
    }
    match (sps && pps, begun) {
        (false, _) => Err(SnapshotError::NoParameterSets),
        (true, 1) => Ok(out),
        (true, _) => Err(SnapshotError::NotOnePicture),
    }
}

/// One plane, rows without gaps.
struct Plane {
    width: usize,
    bytes: Vec<u8>,
}

impl Plane {
    /// `full`: what each value is in full range.
    fn copy(source: &[u8], stride: usize, width: usize, height: usize, full: &[u8; 256]) -> Option<Plane> {
        let mut bytes = Vec::with_capacity(width * height);
        for row in 0..height {
            bytes.extend(source.get(row * stride..row * stride + width)?.iter().map(|value| full[usize::from(*value)]));
        }
        Some(Plane { width, bytes })
    }

    fn height(&self) -> usize {
        self.bytes.len() / self.width
    }

    fn row(&self, y: usize) -> &[u8] {
        let y = y.min(self.height() - 1);
        &self.bytes[y * self.width..][..self.width]
    }

    /// Each new pixel is the mean of the old ones it covers.
    fn scaled(&self, width: usize, height: usize) -> Plane {
        let span = |n: usize, new: usize, old: usize| {
            let from = n * old / new;
            from..((n + 1) * old / new).clamp(from + 1, old)
        };
        let mut bytes = Vec::with_capacity(width * height);
        for y in 0..height {
            let rows = span(y, height, self.height());
            for x in 0..width {
                let columns = span(x, width, self.width);
                let count = rows.len() * columns.len();
                let sum: usize =
                    rows.clone().flat_map(|row| &self.row(row)[columns.clone()]).map(|value| usize::from(*value)).sum();
                bytes.push((sum / count) as u8);
            }
        }
        Plane { width, bytes }
    }
}

/// A picture in full-range YCbCr, as JPEG wants it; the colours have half the width and height.
struct Frame {
    y: Plane,
    cb: Plane,
    cr: Plane,
}

impl Frame {
    /// Cameras send 16 to 235 (and 240 for colours), JPEG means 0 to 255.
    fn copy(decoded: &DecodedYUV<'_>) -> Result<Frame, SnapshotError> {
        let (width, height) = decoded.dimensions();
        if !(16..=MAX_SIDE).contains(&width) || !(16..=MAX_SIDE).contains(&height) {
            return Err(SnapshotError::BadSize);
        }
        let stretched = |value: usize, zero: i32, steps: i32, new_zero: i32| {
            let distance = value as i32 - zero;
            (new_zero + (distance * 255 + distance.signum() * steps / 2) / steps).clamp(0, 255) as u8
        };
        let luma: [u8; 256] = std::array::from_fn(|value| stretched(value, 16, 219, 0));
        let colour: [u8; 256] = std::array::from_fn(|value| stretched(value, 128, 224, 128));
        let (y_stride, u_stride, v_stride) = decoded.strides();
        let plane = |source, stride, share: usize, full| {
            Plane::copy(source, stride, width / share, height / share, full).ok_or(SnapshotError::BadSize)
        };
        Ok(Frame {
            y: plane(decoded.y(), y_stride, 1, &luma)?,
            cb: plane(decoded.u(), u_stride, 2, &colour)?,
            cr: plane(decoded.v(), v_stride, 2, &colour)?,
        })
    }

    /// The best JPEG that is small enough.
    fn fit(mut self, preset: Preset) -> Result<Jpeg, SnapshotError> {
        self = self.scaled(preset.max_side());
        loop {
            for quality in QUALITIES {
                let bytes = self.encoded(quality)?;
                if bytes.len() <= preset.max_bytes() {
                    let (width, height) = (self.y.width as u16, self.y.height() as u16);
                    return Ok(Jpeg { width, height, bytes });
                }
            }
            let half = self.y.width.max(self.y.height()) / 2;
            if half < 16 {
                return Err(SnapshotError::NotEncodable);
            }
            self = self.scaled(half);
        }
    }

    /// No side longer than `side`, the same shape, even sides.
    fn scaled(self, side: usize) -> Frame {
        let (width, height) = (self.y.width, self.y.height());
        let longest = width.max(height);
        if longest <= side {
            return self;
        }
        let even = |length: usize| (length * side / longest).max(2) & !1;
        let (width, height) = (even(width), even(height));
        Frame {
            y: self.y.scaled(width, height),
            cb: self.cb.scaled(width / 2, height / 2),
            cr: self.cr.scaled(width / 2, height / 2),
        }
    }

    fn encoded(&self, quality: u8) -> Result<Vec<u8>, SnapshotError> {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, quality);
        encoder.set_sampling_factor(SamplingFactor::F_2_2);
        encoder.encode_image(self)?;
        Ok(bytes)
    }
}

impl ImageBuffer for &Frame {
    fn get_jpeg_color_type(&self) -> JpegColorType {
        JpegColorType::Ycbcr
    }

    fn width(&self) -> u16 {
        // At most `MAX_SIDE`.
        self.y.width as u16
    }

    fn height(&self) -> u16 {
        self.y.height() as u16
    }

    fn fill_buffers(&self, y: u16, buffers: &mut [Vec<u8>; 4]) {
        let y = usize::from(y);
        buffers[0].extend_from_slice(self.y.row(y));
        for (plane, buffer) in [&self.cb, &self.cr].into_iter().zip(&mut buffers[1..]) {
            let row = plane.row(y / 2);
            buffer.extend((0..self.y.width).map(|x| row[(x / 2).min(row.len() - 1)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test clip: 640×480, one key frame of SPS, PPS and a slice first, then P frames (`fixtures/media/README.md`).
    const CLIP: &[u8] = include_bytes!("../../fixtures/media/clip.h264");

    fn with_start_codes<'a>(units: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        units.into_iter().flat_map(|unit| [&[0, 0, 0, 1], unit].concat()).collect()
    }

    fn first_key_frame() -> Vec<u8> {
        with_start_codes(nal_units(CLIP).take(3))
    }

    #[test]
    fn a_key_frame_becomes_a_jpeg_of_its_size() {
        let mut developer = Developer::default();
        for preset in [Preset::Large, Preset::Small, Preset::Large] {
            let jpeg = developer.picture(&first_key_frame(), preset).unwrap();
            assert_eq!((jpeg.width, jpeg.height), (640, 480));
            assert!(jpeg.bytes.starts_with(&[0xff, 0xd8]) && jpeg.bytes.ends_with(&[0xff, 0xd9]));
            assert!((5_000..=preset.max_bytes()).contains(&jpeg.bytes.len()), "{}", jpeg.bytes.len());
            assert!(developer.decoder.is_some(), "the decoder is kept");
        }
    }

    #[test]
    fn units_of_other_kinds_do_not_matter() {
        let key_frame = first_key_frame();
        let with_more = [&[0, 0, 1, 9, 0x10][..], &[0, 0, 1, 6, 5, 1, 0x80], &key_frame, &[0, 0, 1, 12, 0xff]].concat();
        let mut developer = Developer::default();
        assert_eq!(developer.picture(&with_more, Preset::Large), developer.picture(&key_frame, Preset::Large));
    }

    #[test]
    fn a_busy_large_picture_is_made_to_fit() {
        // Noise does not compress: 4096×2304 of it is some 10 MB at the best quality.
        let mut state = 1u32;
        let mut noise = |width: usize, height: usize| Plane {
            width,
            bytes: (0..width * height)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                })
                .collect(),
        };
        for (width, height) in [(4096, 2304), (1280, 720), (720, 1280), (64, 2048)] {
            for preset in [Preset::Large, Preset::Small] {
                let frame = Frame { y: noise(width, height), cb: noise(width / 2, height / 2), cr: noise(width / 2, height / 2) };
                let jpeg = frame.fit(preset).unwrap();
                assert!(jpeg.bytes.len() <= preset.max_bytes());
                assert!(usize::from(jpeg.width.max(jpeg.height)) <= preset.max_side());
                let (was, is) = (width as f64 / height as f64, f64::from(jpeg.width) / f64::from(jpeg.height));
                assert!((was / is - 1.0).abs() < 0.1, "{width}×{height} became {}×{}", jpeg.width, jpeg.height);
            }
        }
    }

    #[test]
    fn what_is_no_key_frame_is_refused_by_name() {
        let units: Vec<&[u8]> = nal_units(CLIP).take(4).collect();
        let [sps, pps, idr, p] = units[..] else { panic!("{} units", units.len()) };
        let mut developer = Developer::default();
        let cases = [
            (vec![], SnapshotError::NoParameterSets),
            (vec![idr], SnapshotError::NoParameterSets),
            (vec![sps, idr], SnapshotError::NoParameterSets),
            (vec![sps, pps], SnapshotError::NotOnePicture),
            (vec![sps, pps, p], SnapshotError::NotOnePicture),
            (vec![sps, pps, idr, idr], SnapshotError::NotOnePicture),
            (vec![&sps[..3], pps, idr], SnapshotError::Undecodable),
        ];
        for (units, wanted) in cases {
            assert_eq!(developer.picture(&with_start_codes(units), Preset::Large), Err(wanted));
        }
        assert_eq!(developer.picture(&vec![0; MAX_KEY_FRAME + 1], Preset::Large), Err(SnapshotError::TooLong));
    }

    /// A decoder that has another door's picture in it must not fill the holes of this one with it.
    #[test]
    fn half_a_picture_is_never_filled_up_with_the_one_before() {
        let units: Vec<&[u8]> = nal_units(CLIP).take(4).collect();
        let [sps, pps, idr, p] = units[..] else { panic!("{} units", units.len()) };
        // A slice that copies what was there before, called an IDR slice.
        let disguised = [&[idr[0]], &p[1..]].concat();
        let mut developer = Developer::default();
        for length in [2, 10, idr.len() / 4, idr.len() / 2, idr.len() * 9 / 10] {
            developer.picture(&first_key_frame(), Preset::Large).unwrap();
            let cut = with_start_codes([sps, pps, &idr[..length]]);
            assert_eq!(developer.picture(&cut, Preset::Large), Err(SnapshotError::Undecodable), "{length}");
            assert!(developer.decoder.is_none(), "the decoder is thrown away");
        }
        developer.picture(&first_key_frame(), Preset::Large).unwrap();
        assert_eq!(developer.picture(&with_start_codes([sps, pps, &disguised]), Preset::Large), Err(SnapshotError::Undecodable));
    }
}
