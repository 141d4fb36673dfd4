//! What a camera calls a key frame, and what the picture helper calls an answer: no bytes may panic. What is let through to the
//! decoder is one picture with its parameter sets and nothing else, and letting it through again changes nothing.

use intercom_api::pictures::helper::parse_answer;
use media::snapshot::{Preset, key_frame, nal_units};

pub fn run(bytes: &[u8]) {
    let length: usize = nal_units(bytes).map(<[u8]>::len).sum();
    assert!(length <= bytes.len());
    if let Ok(passed) = key_frame(bytes) {
        assert!(nal_units(&passed).all(|unit| matches!(unit[0] & 0x1f, 5 | 7 | 8)));
        assert!(passed.len() <= bytes.len() + bytes.len() / 3 + 4, "a start code grows by one byte at most");
        assert_eq!(key_frame(&passed).as_deref(), Ok(&passed[..]));
    }
    if let Some(Ok(jpeg)) = parse_answer(bytes, Preset::Small) {
        assert!(jpeg.bytes.len() <= Preset::Small.max_bytes());
    }
}
