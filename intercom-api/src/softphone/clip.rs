//! What a door's camera shows: H264 access units in a loop, one of them a key frame, and how they go into RTP payloads
//! (RFC 6184 §5.6–§5.8).

use bytes::{BufMut, Bytes, BytesMut};

/// Largest RTP payload: a datagram of 1,200 bytes passes every tunnel.
const MAX_PAYLOAD: usize = 1188;

/// One access unit.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Starts with parameter sets and an IDR picture.
    pub key: bool,
    pub nals: Vec<Bytes>,
}

/// How NAL units go into packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// One each (RFC 6184 §5.6); the encoder cuts its slices to fit. Packetization mode 0.
    Single,
    /// Large ones in fragments (§5.8). Mode 1, like the others.
    Fragments,
    /// Small ones together (§5.7), large ones in fragments.
    Aggregates,
}

/// Access units played in a loop; a request for a key frame jumps to the next one.
#[derive(Clone, Debug)]
pub struct Clip {
    pub frames: Vec<Frame>,
    pub packing: Packing,
    /// Requests for a key frame are not heard.
    pub deaf: bool,
}

impl Clip {
    /// The test picture with a frame counter in it (`fixtures/media/README.md`).
    pub fn test_picture() -> Clip {
        Clip::from_bytes(&include_bytes!("../../../fixtures/media/clip.h264")[..])
    }

    /// A byte stream with start codes. A picture ends where a slice with its first macroblock begins another, or parameter sets
    /// do (H.264 §7.4.1.2.3).
    pub fn from_bytes(stream: impl Into<Bytes>) -> Clip {
        let stream: Bytes = stream.into();
        let starts: Vec<usize> = stream.windows(3).enumerate().filter(|(_, w)| *w == [0, 0, 1]).map(|(at, _)| at + 3).collect();
        let ends = starts.iter().skip(1).map(|next| next - 3).chain([stream.len()]);
        let mut frames: Vec<Frame> = Vec::new();
        let mut sliced = true;
        for (begin, end) in starts.iter().zip(ends) {
            // The zero of a four-byte start code belongs to the next unit.
            let nal = stream.slice(*begin..end);
            let nal = nal.strip_suffix(&[0]).map_or(nal.clone(), |shorter| nal.slice_ref(shorter));
            let kind = nal.first().map_or(0, |byte| byte & 0x1f);
            let slice = matches!(kind, 1 | 5);
            // `first_mb_in_slice` 0 is one bit of Exp-Golomb.
            let begins = !slice || nal.get(1).is_some_and(|byte| byte & 0x80 != 0);
            if begins && std::mem::take(&mut sliced) {
                frames.push(Frame { key: false, nals: Vec::new() });
            }
            sliced |= slice;
            if let Some(frame) = frames.last_mut() {
                frame.key |= kind == 5;
                frame.nals.push(nal);
            }
        }
        frames.retain(|frame| !frame.nals.is_empty());
        Clip { frames, packing: Packing::Fragments, deaf: false }
    }

    /// NAL units with the right types and nothing to see: enough where packets are timed and not decoded. A key frame of
    /// three packets every `gop` frames, one packet for each of the others.
    pub fn synthetic(gop: usize) -> Clip {
        let nal = |kind: u8, len: usize| {
            let mut bytes = BytesMut::with_capacity(len);
            bytes.put_u8(0x60 | kind);
            // A slice is the first of its picture: `first_mb_in_slice` is 0, one bit of Exp-Golomb.
            bytes.put_u8(0x88);
            // No zero bytes: nothing in here may look like a start code.
            bytes.extend((2..len).map(|n| (n % 251 + 1) as u8));
            bytes.freeze()
        };
        let key = Frame { key: true, nals: vec![nal(7, 16), nal(8, 8), nal(5, 3000)] };
        let other = Frame { key: false, nals: vec![nal(1, 900)] };
        let frames = std::iter::once(key).chain(std::iter::repeat_n(other, gop.max(1) - 1)).collect();
        Clip { frames, packing: Packing::Fragments, deaf: false }
    }
}

/// The payloads of a frame.
pub(super) fn payloads(frame: &Frame, packing: Packing) -> Vec<Bytes> {
    let mut out = Vec::new();
    let mut together = BytesMut::new();
    for nal in &frame.nals {
        match packing {
            Packing::Single => out.push(nal.clone()),
            Packing::Aggregates if together.len() + 2 + nal.len() < MAX_PAYLOAD => {
                if together.is_empty() {
                    together.put_u8(0x60 | 24);
                }
                together.put_u16(nal.len() as u16);
                together.extend_from_slice(nal);
            }
            Packing::Fragments | Packing::Aggregates => {
                out.extend((!together.is_empty()).then(|| together.split().freeze()));
                fragments(nal, &mut out);
            }
        }
    }
    out.extend((!together.is_empty()).then(|| together.freeze()));
    out
}

/// A NAL unit in as many packets as it takes.
fn fragments(nal: &Bytes, out: &mut Vec<Bytes>) {
    if nal.len() <= MAX_PAYLOAD {
        return out.push(nal.clone());
    }
    let (header, body) = (nal[0], nal.slice(1..));
    let chunks: Vec<&[u8]> = body.chunks(MAX_PAYLOAD - 2).collect();
    for (index, chunk) in chunks.iter().enumerate() {
        let mut bytes = BytesMut::with_capacity(chunk.len() + 2);
        bytes.put_u8(header & 0xe0 | 28);
        let (first, last) = (index == 0, index + 1 == chunks.len());
        bytes.put_u8(header & 0x1f | u8::from(first) << 7 | u8::from(last) << 6);
        bytes.extend_from_slice(chunk);
        out.push(bytes.freeze());
    }
}

/// Is this payload part of an IDR picture, alone or as a fragment?
pub(super) fn is_key(payload: &[u8]) -> bool {
    match payload {
        [header, ..] if header & 0x1f == 5 => true,
        [header, fu, ..] if header & 0x1f == 28 => fu & 0x1f == 5,
        [header, _, _, first, ..] if header & 0x1f == 24 => matches!(first & 0x1f, 5 | 7),
        _ => false,
    }
}
