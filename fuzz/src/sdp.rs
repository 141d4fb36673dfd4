//! Bytes → session description: what is read is written and read the same, and every offer that is answered at all gets an
//! answer of its shape (RFC 3264 §6), from a door and from a member.

use sip_core::sdp::{Codec, Ice, Local, Sdp, answer_door, answer_member, offer_member, read_answer};

const CONVERTED: [Codec; 4] = [Codec::Pcmu, Codec::Pcma, Codec::G722, Codec::Opus];

pub fn run(bytes: &[u8]) {
    let Ok(sdp) = Sdp::parse(bytes) else { return };
    let again = Sdp::parse(sdp.to_string().as_bytes()).expect("we read what we write");
    assert_eq!(again, sdp);
    let local = |port| Local {
        ip: [203, 0, 113, 5].into(),
        audio_port: Some(port),
        video_port: Some(port + 2),
        session_id: 1,
        version: 1,
        ice: Some(Ice { ufrag: "ours".into(), pwd: "a-password-of-22-letters".into() }),
    };
    let Ok((answer, door)) = answer_door(&sdp, &local(10_000)) else { return };
    assert_eq!(answer.media.len(), sdp.media.len());
    let offer = offer_member(&door, &local(10_004), &CONVERTED);
    let _ = read_answer(&offer, &sdp);
    if let Ok((answer, _)) = answer_member(&sdp, &door, &local(10_004), &CONVERTED) {
        assert_eq!(answer.media.len(), sdp.media.len());
    }
}
