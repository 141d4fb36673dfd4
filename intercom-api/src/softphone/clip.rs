//! What a door's camera shows: H264 access units in a loop, one of them a key frame, and how they go into RTP payloads
//! (RFC 6184 §5.6, §5.8).

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

/// Access units played in a loop; a request for a key frame jumps to the next one.
#[derive(Clone, Debug)]
pub struct Clip {
    pub frames: Vec<Frame>,
}

impl Clip {
    /// The test picture with a frame counter in it (`fixtures/media/README.md`).
    pub fn test_picture() -> Clip {
        Clip::from_bytes(include_bytes!("../../../fixtures/media/clip.h264"))
    }

    /// A byte stream with start codes; every slice is an access unit of its own, parameter sets go with the next one.
    pub fn from_bytes(stream: &'static [u8]) -> Clip {
        let starts: Vec<usize> = stream.windows(3).enumerate().filter(|(_, w)| *w == [0, 0, 1]).map(|(at, _)| at + 3).collect();
        let ends = starts.iter().skip(1).map(|next| next - 3).chain([stream.len()]);
        let mut frames = Vec::new();
        let mut nals = Vec::new();
        for (begin, end) in starts.iter().zip(ends) {
            // The zero of a four-byte start code belongs to the next unit.
            let nal = Bytes::from_static(&stream[*begin..end]);
            let nal = nal.strip_suffix(&[0]).map_or(nal.clone(), |shorter| nal.slice_ref(shorter));
            let kind = nal.first().map_or(0, |byte| byte & 0x1f);
            nals.push(nal);
            if matches!(kind, 1 | 5) {
                frames.push(Frame { key: kind == 5, nals: std::mem::take(&mut nals) });
            }
        }
        Clip { frames }
    }

    /// NAL units with the right types and nothing to see: enough where packets are timed and not decoded. A key frame of
    /// three packets every `gop` frames, one packet for each of the others.
    pub fn synthetic(gop: usize) -> Clip {
        let nal = |kind: u8, len: usize| {
            let mut bytes = BytesMut::with_capacity(len);
            bytes.put_u8(0x60 | kind);
            // No zero bytes: nothing in here may look like a start code.
            bytes.extend((1..len).map(|n| (n % 251 + 1) as u8));
            bytes.freeze()
        };
        let key = Frame { key: true, nals: vec![nal(7, 16), nal(8, 8), nal(5, 3000)] };
        let other = Frame { key: false, nals: vec![nal(1, 900)] };
        Clip { frames: std::iter::once(key).chain(std::iter::repeat_n(other, gop.max(1) - 1)).collect() }
    }
}

/// The payloads of a frame: small NAL units as they are, large ones in fragments (FU-A).
pub(super) fn payloads(frame: &Frame) -> Vec<Bytes> {
    let mut out = Vec::new();
    for nal in &frame.nals {
        if nal.len() <= MAX_PAYLOAD {
            out.push(nal.clone());
            continue;
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
    out
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
