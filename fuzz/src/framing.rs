//! Bytes of a stream → frames: however the stream is cut, the same frames come out, and what is held stays bounded.

use sip_core::framing::{Broken, Frame, Framer, MAX_MESSAGE};
use std::net::{Ipv4Addr, SocketAddr};

/// The first byte says into what pieces the rest is cut.
pub fn run(bytes: &[u8]) {
    let (cut, bytes) = bytes.split_first().map_or((1, bytes), |(first, rest)| (usize::from(*first).max(1), rest));
    let whole = frames(bytes.chunks(MAX_MESSAGE));
    let pieces = frames(bytes.chunks(cut));
    assert_eq!(whole, pieces, "cut into {cut}");
}

fn frames<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> (Vec<Frame>, Option<Broken>) {
    let mut framer = Framer::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
    let mut frames = Vec::new();
    for chunk in chunks {
        framer.push(chunk);
        loop {
            match framer.pop() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(broken) => return (calm(frames), Some(broken)),
            }
        }
        assert!(framer.held() <= MAX_MESSAGE, "{} bytes held", framer.held());
    }
    (calm(frames), None)
}

/// Whether CRLFCRLF was one ping or two pongs depends on what was there when it was looked at; messages do not.
fn calm(frames: Vec<Frame>) -> Vec<Frame> {
    frames.into_iter().filter(|frame| matches!(frame, Frame::Message(_))).collect()
}
