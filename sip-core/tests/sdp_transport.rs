//! rtcp-mux (RFC 5761) and ICE (RFC 8839) in offers and answers, and the profile of the offer.

use sip_core::sdp::{Codec, Direction, Ice, Local, Sdp, Supported, answer, answer_door, offer_member};

fn read(text: &str) -> Sdp {
    Sdp::parse(text.as_bytes()).unwrap()
}

fn local() -> Local {
    Local {
        ip: [203, 0, 113, 5].into(),
        audio_port: Some(10_000),
        video_port: Some(10_002),
        session_id: 77,
        version: 1,
        ice: None,
    }
}

#[test]
fn rtcp_mux_is_answered_where_it_is_offered_in_the_profile_of_the_offer() {
    for profile in ["RTP/AVP", "RTP/AVPF"] {
        let offer = read(&format!(
            "v=0\no=- 1 1 IN IP4 192.0.2.9\ns=-\nc=IN IP4 192.0.2.9\nt=0 0\nm=audio 4000 {profile} 0\na=rtcp-mux\n\
             m=video 4002 {profile} 96\na=rtpmap:96 H264/90000\n"
        ));
        let (answer, door) = answer_door(&offer, &local()).unwrap();
        assert!(answer.media.iter().all(|media| media.proto == profile));
        assert_eq!(answer.media.iter().map(|media| media.rtcp_mux).collect::<Vec<_>>(), [true, false]);
        assert_eq!((door.audio.as_ref().unwrap().rtcp_mux, door.video.as_ref().unwrap().rtcp_mux), (true, false));
        // A phone is not offered what the door knows.
        let to_member = offer_member(&door, &local(), &[]).to_string();
        assert!(!to_member.contains("rtcp-mux") && !to_member.contains("AVPF"), "{to_member}");
        // The softphone has a socket for RTCP.
        let unit = Supported {
            audio: vec![Codec::Pcmu],
            audio_direction: Direction::SendRecv,
            video: vec![],
            video_direction: Direction::Inactive,
        };
        assert!(!answer_by_unit(&offer, &unit).contains("rtcp-mux"));
    }
}

fn answer_by_unit(offer: &Sdp, supported: &Supported) -> String {
    answer(offer, &local(), supported).unwrap().0.to_string()
}

#[test]
fn ice_is_answered_lite_where_it_is_offered() {
    let ice = Ice { ufrag: "ours".into(), pwd: "a-password-of-22-letters".into() };
    assert!(!format!("{ice:?}").contains("password"));
    let local = Local { ice: Some(ice), ..local() };
    let session = "v=0\no=- 1 1 IN IP4 192.0.2.9\ns=-\nc=IN IP4 192.0.2.9\nt=0 0\n";
    let names = "a=ice-ufrag:them\na=ice-pwd:0123456789012345678901\n";
    let media = "m=audio 4000 RTP/AVP 0\na=rtcp-mux\nm=video 4002 RTP/AVP 96\na=rtpmap:96 H264/90000\n";
    let offer = read(&format!("{session}{names}{media}"));
    assert_eq!(offer.ice_ufrag(), Some("them"));
    let (answer, door) = answer_door(&offer, &local).unwrap();
    let ours = "a=ice-ufrag:ours\r\na=ice-pwd:a-password-of-22-letters\r\na=candidate:1 1 UDP 2130706431 203.0.113.5";
    let text = answer.to_string();
    assert!(text.contains("t=0 0\r\na=ice-lite\r\nm=audio"), "{text}");
    assert!(text.contains(&format!("{ours} 10000 typ host\r\nm=video")), "one component with rtcp-mux: {text}");
    let rtcp = "a=candidate:1 2 UDP 2130706430 203.0.113.5 10003 typ host\r\n";
    assert!(text.ends_with(&format!("{ours} 10002 typ host\r\n{rtcp}")), "{text}");
    assert!(door.audio.unwrap().ice && door.video.unwrap().ice);
    // Without a password it is no offer of ICE; and nobody is offered it who did not ask.
    let half = read(&format!("{session}a=ice-ufrag:them\n{media}"));
    assert_eq!(half.ice_ufrag(), None);
    for offer in [half, read(&format!("{session}{media}"))] {
        let (answer, door) = answer_door(&offer, &local).unwrap();
        assert!(!answer.to_string().contains("a=ice") && !door.audio.unwrap().ice);
    }
}
