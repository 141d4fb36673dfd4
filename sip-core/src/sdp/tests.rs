//! Stories of doors and phones at the SDP level, then properties over arbitrary descriptions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

/// The offer of spec sip.md §3.
const SPEC_OFFER: &str = "\
v=0
o=U1residentA00000000001 2846 1117 IN IP4 192.0.2.33
s=Talk
c=IN IP4 192.0.2.33
t=0 0
a=ice-pwd:0a1b2c3d4e5f60718293a4b5
a=ice-ufrag:a1b2c3d4
a=rtcp-xr:rcvr-rtt=all:10000 stat-summary=loss,dup,jitt,TTL voip-metrics
m=audio 54480 RTP/AVPF 96 97 98 0 8 101 99 100
c=IN IP4 198.51.100.62
a=rtpmap:96 opus/48000/2
a=fmtp:96 useinbandfec=1
a=rtpmap:97 speex/16000
a=fmtp:97 vbr=on
a=rtpmap:98 speex/8000
a=fmtp:98 vbr=on
a=rtpmap:101 telephone-event/48000
a=rtpmap:99 telephone-event/16000
a=rtpmap:100 telephone-event/8000
a=rtcp:51670
a=candidate:1 1 UDP 2130706431 192.0.2.33 54480 typ host
a=candidate:1 2 UDP 2130706430 192.0.2.33 51670 typ host
a=candidate:2 1 UDP 1694498815 198.51.100.62 54480 typ srflx raddr 192.0.2.33 rport 54480
a=candidate:2 2 UDP 1694498814 198.51.100.62 51670 typ srflx raddr 192.0.2.33 rport 51670
";

/// Its video m-line as recommended by OPEN-04.
const SPEC_VIDEO: &str = "\
m=video 54482 RTP/AVPF 102
a=rtpmap:102 H264/90000
a=fmtp:102 profile-level-id=42801F;packetization-mode=1
a=rtcp-fb:* ccm fir
a=rtcp-fb:* nack pli
a=sendonly
";

/// A door as baresip 1.0 offers: several codecs, H264 in both modes, other video formats around it.
const BARESIP_DOOR: &str = "\
v=0
o=- 2146270713 1440298433 IN IP4 127.0.0.21
s=-
c=IN IP4 127.0.0.21
t=0 0
a=tool:baresip 1.0.0
m=audio 20010 RTP/AVP 96 9 8 0 101
a=rtpmap:96 opus/48000/2
a=fmtp:96 stereo=1;sprop-stereo=1
a=rtpmap:9 G722/16000/1
a=rtpmap:8 PCMA/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-15
a=rtcp:20011
a=sendrecv
a=label:1
a=ptime:20
m=video 20012 RTP/AVP 97 98 34 99 100
a=rtpmap:97 H264/90000
a=fmtp:97 packetization-mode=0;profile-level-id=42e01f
a=rtpmap:98 H264/90000
a=fmtp:98 packetization-mode=1;profile-level-id=42e01f
a=rtpmap:34 H263/90000
a=fmtp:34 CIF=1;CIF4=1
a=rtpmap:99 H265/90000
a=rtpmap:100 VP8/90000
a=rtcp:20013
a=rtcp-fb:* nack pli
a=framerate:25.00
a=sendrecv
a=label:2
";

/// A door as pjsip offers: mode 1 only, parameter sets, and a text stream between.
const PJSIP_DOOR: &str = "\
v=0
o=- 3910000000 3910000000 IN IP4 192.0.2.40
s=pjmedia
b=AS:352
t=0 0
a=X-nat:0
m=audio 4000 RTP/AVP 0 8 101
c=IN IP4 192.0.2.40
b=TIAS:64000
a=rtcp:4001 IN IP4 192.0.2.41
a=sendonly
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
m=text 4004 RTP/AVP 98
c=IN IP4 192.0.2.40
a=rtpmap:98 t140/1000
m=video 4002 RTP/AVP 97
c=IN IP4 192.0.2.40
a=rtpmap:97 H264/90000
a=fmtp:97 profile-level-id=42e01e; packetization-mode=1; sprop-parameter-sets=Z0LgHtoCgPRA,aM4xUg==; max-mbps=40500
a=sendonly
";

/// What media converts.
const CONVERTED: [Codec; 4] = [Codec::Pcmu, Codec::Pcma, Codec::G722, Codec::Opus];

fn read(text: &str) -> Sdp {
    Sdp::parse(text.as_bytes()).unwrap()
}

fn local() -> Local {
    Local {
        ip: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 5)),
        audio_port: Some(10000),
        video_port: Some(10002),
        session_id: 77,
        version: 1,
        ice: None,
    }
}

fn door(offer: &str) -> Door {
    answer_door(&read(offer), &local()).unwrap().1
}

fn formats(payloads: &[Payload]) -> Vec<(u8, Codec)> {
    payloads.iter().map(|p| (p.pt, p.codec)).collect()
}

fn crlf(text: &str) -> String {
    text.replace('\n', "\r\n")
}

#[test]
fn spec_offer_is_read_whole() {
    let sdp = read(SPEC_OFFER);
    assert_eq!(sdp.origin.username, "U1residentA00000000001");
    assert_eq!(sdp.session_name, "Talk");
    assert_eq!(sdp.attributes[0].name, "ice-pwd");
    let audio = &sdp.media[0];
    assert_eq!((audio.port, audio.proto.as_str()), (54480, "RTP/AVPF"));
    assert_eq!(audio.rtcp.as_ref().unwrap().port, 51670);
    assert_eq!(audio.attributes.len(), 4, "candidates are kept");
    assert_eq!(
        formats(&audio.payloads()),
        [
            (96, Codec::Opus),
            (97, Codec::Speex(16000)),
            (98, Codec::Speex(8000)),
            (0, Codec::Pcmu),
            (8, Codec::Pcma),
            (101, Codec::TelephoneEvent(48000)),
            (99, Codec::TelephoneEvent(16000)),
            (100, Codec::TelephoneEvent(8000)),
        ]
    );
}

#[test]
fn spec_offer_is_answered_in_its_profile_with_one_codec_each() {
    let offer = read(&format!("{SPEC_OFFER}{SPEC_VIDEO}"));
    let (answer, door) = answer_door(&offer, &local()).unwrap();
    assert_eq!(
        answer.to_string(),
        crlf(
            "v=0
o=doorline 77 1 IN IP4 203.0.113.5
s=-
c=IN IP4 203.0.113.5
t=0 0
m=audio 10000 RTP/AVPF 0 100
a=rtpmap:0 PCMU/8000
a=rtpmap:100 telephone-event/8000
a=fmtp:100 0-15
a=sendrecv
m=video 10002 RTP/AVPF 102
a=rtpmap:102 H264/90000
a=fmtp:102 profile-level-id=42801F;packetization-mode=1
a=rtcp-fb:* nack pli
a=rtcp-fb:* ccm fir
a=recvonly
"
        )
    );
    let audio = door.audio.unwrap();
    assert_eq!(audio.remote, Some("198.51.100.62:54480".parse().unwrap()));
    assert_eq!(audio.remote_rtcp, Some("198.51.100.62:51670".parse().unwrap()));
    assert!(audio.send && audio.receive);
    let video = door.video.unwrap();
    assert_eq!((video.index, video.send, video.receive), (1, false, true));
    assert_eq!(video.remote_rtcp, Some("192.0.2.33:54483".parse().unwrap()));
}

#[test]
fn baresip_door_gets_g711_and_its_first_h264_and_members_both_modes() {
    let offer = read(BARESIP_DOOR);
    let (answer, door) = answer_door(&offer, &local()).unwrap();
    assert_eq!(answer.media[0].formats, ["8", "101"]);
    assert_eq!(answer.media[1].formats, ["97"]);
    assert_eq!(answer.media[1].rtcp_fb.len(), 1, "only what was offered");
    assert_eq!(
        offer_member(&door, &local(), &CONVERTED).to_string(),
        crlf(
            "v=0
o=doorline 77 1 IN IP4 203.0.113.5
s=-
c=IN IP4 203.0.113.5
t=0 0
m=audio 10000 RTP/AVP 8 0 9 96 101 98
a=rtpmap:8 PCMA/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:9 G722/8000
a=rtpmap:96 opus/48000/2
a=rtpmap:101 telephone-event/8000
a=rtpmap:98 telephone-event/48000
a=fmtp:96 useinbandfec=1
a=fmtp:101 0-15
a=fmtp:98 0-15
a=sendrecv
m=video 10002 RTP/AVP 97 99
a=rtpmap:97 H264/90000
a=rtpmap:99 H264/90000
a=fmtp:97 profile-level-id=42e01f;packetization-mode=0
a=fmtp:99 profile-level-id=42e01f;packetization-mode=1
a=rtcp-fb:* nack pli
a=rtcp-fb:* ccm fir
a=sendonly
"
        )
    );
}

#[test]
fn pjsip_door_keeps_its_line_order_and_hands_on_mode_1_with_parameter_sets() {
    let offer = read(PJSIP_DOOR);
    let (answer, door) = answer_door(&offer, &local()).unwrap();
    let kinds: Vec<_> = answer.media.iter().map(|m| (&m.kind, m.port)).collect();
    assert_eq!(kinds, [(&Kind::Audio, 10000), (&Kind::Other("text".into()), 0), (&Kind::Video, 10002)]);
    assert_eq!(door.declined, [1]);
    assert_eq!(answer.media[0].direction, Some(Direction::RecvOnly));
    let audio = door.audio.as_ref().unwrap();
    assert_eq!((audio.send, audio.receive), (false, true));
    assert_eq!(audio.remote_rtcp, Some("192.0.2.41:4001".parse().unwrap()));
    assert_eq!(answer.media[2].fmtp[0].params, "profile-level-id=42e01e;packetization-mode=1");

    let onward = offer_member(&door, &local(), &CONVERTED);
    assert_eq!(onward.media[1].formats, ["97"]);
    assert_eq!(
        onward.media[1].fmtp[0].params,
        "profile-level-id=42e01e;packetization-mode=1;sprop-parameter-sets=Z0LgHtoCgPRA,aM4xUg=="
    );
    assert_eq!(onward.media[0].direction, Some(Direction::SendRecv));
}

#[test]
fn a_door_without_offer_may_answer_any_mode_and_its_phones_are_offered_mode_1() {
    let (offer, door) = offer_door(&local());
    assert_eq!(
        (offer.media[0].formats.as_slice(), offer.media[1].direction),
        (&["0".to_owned(), "101".to_owned()][..], Some(Direction::RecvOnly))
    );
    assert!(door.audio.as_ref().is_some_and(|audio| audio.remote.is_none() && !audio.send));
    assert_eq!(offer_member(&door, &local(), &CONVERTED).media[1].formats.len(), 1);
    let answer = read(
        "v=0\nc=IN IP4 192.0.2.50\nm=audio 7078 RTP/AVP 0\nm=video 9078 RTP/AVP 97\n\
         a=rtpmap:97 H264/90000\na=fmtp:97 packetization-mode=0;profile-level-id=42e01f\na=sendonly\n",
    );
    let door = read_answer(&offer, &answer).unwrap();
    let video = door.video.unwrap();
    assert_eq!((video.remote, video.send, video.receive), (Some("192.0.2.50:9078".parse().unwrap()), false, true));
}

#[test]
fn linphone_door_without_a_mode_is_mode_0() {
    let door = door(
        "v=0\nc=IN IP4 192.0.2.50\nm=audio 7078 RTP/AVP 0\nm=video 9078 RTP/AVP 99\n\
        a=rtpmap:99 H264/90000\na=fmtp:99 profile-level-id=42801F\n",
    );
    assert_eq!(door.video.as_ref().unwrap().payloads[0].h264().packetization_mode, 0);
    let onward = offer_member(&door, &local(), &CONVERTED);
    let modes: Vec<_> = onward.media[1].payloads().iter().map(|p| p.h264().packetization_mode).collect();
    assert_eq!(modes, [0, 1]);
    assert_eq!(onward.media[0].formats, ["0", "8", "9", "96", "101", "97"], "the star may always be pressed");
}

#[test]
fn a_door_with_one_medium_is_served_and_one_with_none_is_refused() {
    let only_video = read(&format!("v=0\nc=IN IP4 192.0.2.33\n{SPEC_VIDEO}"));
    let (answer, door) = answer_door(&only_video, &local()).unwrap();
    assert_eq!(answer.media.len(), 1);
    assert!(door.audio.is_none());
    assert_eq!(offer_member(&door, &local(), &CONVERTED).media.len(), 1);

    for hopeless in [
        "v=0\n",
        "v=0\nm=audio 4000 RTP/AVP 18 101\na=rtpmap:101 telephone-event/8000\n",
        "v=0\nm=audio 0 RTP/AVP 0\n",
        "v=0\nm=audio 4000 RTP/SAVP 0\n",
        "v=0\nm=video 4000 RTP/AVP 97\na=rtpmap:97 H264/90000\na=fmtp:97 packetization-mode=2\n",
        "v=0\nm=audio 4000 RTP/AVP 0\na=rtpmap:0 L16/8000\n",
        "v=0\nm=image 4000 udptl t38\n",
    ] {
        let refused = answer_door(&read(hopeless), &local());
        assert_eq!(refused, Err(Refuse::NothingInCommon), "{hopeless}");
    }
}

#[test]
fn a_door_without_g711_is_answered_with_its_first_known_codec() {
    let opus = door(
        "v=0\nm=audio 4000 RTP/AVP 18 111 97 110\na=rtpmap:111 OPUS/48000/2\na=fmtp:111 maxplaybackrate=16000\n\
        a=rtpmap:97 speex/8000\na=rtpmap:110 telephone-event/48000\n",
    );
    assert_eq!(formats(&opus.audio.as_ref().unwrap().payloads), [(111, Codec::Opus), (110, Codec::TelephoneEvent(48000))]);
    let onward = offer_member(&opus, &local(), &CONVERTED);
    assert_eq!(onward.media[0].formats, ["111", "0", "8", "9", "110", "101"]);
    assert_eq!(onward.media[0].fmtp[0].params, "maxplaybackrate=16000");
}

#[test]
fn rfc_3264_example_with_two_video_lines_keeps_both_declined() {
    // RFC 3264 §10.1
    let offer = read(
        "v=0\no=alice 2890844526 2890844526 IN IP4 host.anywhere.com\ns=\nc=IN IP4 host.anywhere.com\nt=0 0\n\
         m=audio 49170 RTP/AVP 0\na=rtpmap:0 PCMU/8000\nm=video 51372 RTP/AVP 31\na=rtpmap:31 H261/90000\n\
         m=video 53000 RTP/AVP 32\na=rtpmap:32 MPV/90000\n",
    );
    let (answer, door) = answer_door(&offer, &local()).unwrap();
    let ports: Vec<_> = answer.media.iter().map(|m| m.port).collect();
    assert_eq!(ports, [10000, 0, 0]);
    assert_eq!(answer.media[1].formats, ["31"]);
    let audio = door.audio.unwrap();
    assert_eq!(audio.remote, None, "a name is never resolved");
    assert!(audio.send, "latching may still find the door");
}

#[test]
fn rfc_6184_offer_with_three_modes_is_answered_with_the_first_usable() {
    // After RFC 6184 §8.2.2: one payload type per mode, the interleaved one first.
    let offer = read(
        "v=0\nc=IN IP4 192.0.2.1\nm=video 49170 RTP/AVP 100 99 98\n\
         a=rtpmap:98 H264/90000\na=fmtp:97 profile-level-id=42A01E; packetization-mode=0;\n\
         a=rtpmap:99 H264/90000\na=fmtp:99 profile-level-id=42A01E; packetization-mode=1\n\
         a=rtpmap:100 H264/90000\na=fmtp:100 profile-level-id=42A01E; packetization-mode=2; sprop-interleaving-depth=45\n",
    );
    let (answer, _) = answer_door(&offer, &local()).unwrap();
    assert_eq!(answer.media[0].formats, ["99"]);
    assert_eq!(answer.media[0].fmtp[0].params, "profile-level-id=42A01E;packetization-mode=1");
}

#[test]
fn member_answers_of_all_sorts_are_understood() {
    let offer = offer_member(&door(BARESIP_DOOR), &local(), &CONVERTED);
    let whole = "v=0\nc=IN IP4 192.0.2.7\nm=audio 4000 RTP/AVP 8 101\na=rtpmap:101 telephone-event/8000\n\
        m=video 4002 RTP/AVP 97\na=rtpmap:97 H264/90000\na=fmtp:97 packetization-mode=1\na=recvonly\n";
    let member = read_answer(&offer, &read(whole)).unwrap();
    let (audio, video) = (member.audio.unwrap(), member.video.unwrap());
    assert_eq!(formats(&audio.payloads), [(8, Codec::Pcma), (101, Codec::TelephoneEvent(8000))]);
    assert!(audio.send && audio.receive);
    assert_eq!(formats(&video.payloads), [(97, Codec::H264)]);
    assert_eq!((video.send, video.receive), (true, false));
    assert_eq!(video.remote, Some("192.0.2.7:4002".parse().unwrap()));

    // Its camera stays off however it answers: we offered sendonly.
    let both_ways = whole.replace("a=recvonly", "a=sendrecv");
    assert!(!read_answer(&offer, &read(&both_ways)).unwrap().video.unwrap().receive);

    let no_video = whole.replace("m=video 4002", "m=video 0");
    let member = read_answer(&offer, &read(&no_video)).unwrap();
    assert!(member.audio.is_some() && member.video.is_none());
    assert_eq!(member.declined, [1]);

    let fewer_lines = &whole[..whole.find("m=video").unwrap()];
    assert_eq!(read_answer(&offer, &read(fewer_lines)).unwrap().declined, [1]);

    let no_audio = whole.replace("m=audio 4000", "m=audio 0");
    let member = read_answer(&offer, &read(&no_audio)).unwrap();
    assert!(member.audio.is_none() && member.video.is_some());

    let nothing = no_audio.replace("m=video 4002", "m=video 0");
    assert_eq!(read_answer(&offer, &read(&nothing)), Err(Refuse::NothingInCommon));
    let other_codec = "v=0\nm=audio 4000 RTP/AVP 18\n";
    assert_eq!(read_answer(&offer, &read(other_codec)), Err(Refuse::NothingInCommon));
}

#[test]
fn an_answer_may_leave_out_rtpmaps_or_renumber() {
    let offer = offer_member(&door(BARESIP_DOOR), &local(), &CONVERTED);
    let bare = "v=0\nc=IN IP4 192.0.2.7\nm=audio 4000 RTP/AVP 8 101\nm=video 4002 RTP/AVP 97\n";
    let member = read_answer(&offer, &read(bare)).unwrap();
    assert_eq!(member.audio.unwrap().payloads.len(), 2);
    assert_eq!(formats(&member.video.unwrap().payloads), [(97, Codec::H264)]);

    let renumbered = "v=0\nc=IN IP4 192.0.2.7\nm=audio 4000 RTP/AVP 8\nm=video 4002 RTP/AVP 120\na=rtpmap:120 h264/90000\n";
    let member = read_answer(&offer, &read(renumbered)).unwrap();
    assert_eq!(formats(&member.video.unwrap().payloads), [(120, Codec::H264), (97, Codec::H264), (99, Codec::H264)]);
}

#[test]
fn a_member_holds_and_resumes_without_the_door() {
    let door = door(BARESIP_DOOR);
    let reoffer = |address: &str, direction: &str| {
        read(&format!(
            "v=0\no=- 1 2 IN IP4 192.0.2.7\nc=IN IP4 {address}\nm=audio 4000 RTP/AVP 8 101\n\
             a=rtpmap:101 telephone-event/8000\na={direction}\nm=video 4002 RTP/AVP 96\na=rtpmap:96 H264/90000\n\
             a=fmtp:96 packetization-mode=1;profile-level-id=42e01f\na={direction}\n"
        ))
    };
    // (address, their direction) → (our answer for audio and video, we send audio, we send video)
    for (address, theirs, audio, video, sends) in [
        ("192.0.2.7", "sendonly", "recvonly", "inactive", [false, false]),
        ("192.0.2.7", "inactive", "inactive", "inactive", [false, false]),
        ("192.0.2.7", "recvonly", "sendonly", "sendonly", [true, true]),
        ("192.0.2.7", "sendrecv", "sendrecv", "sendonly", [true, true]),
        ("0.0.0.0", "sendrecv", "sendrecv", "sendonly", [false, false]),
    ] {
        let (answer, member) = answer_member(&reoffer(address, theirs), &door, &local(), &CONVERTED).unwrap();
        let says: Vec<_> = answer.media.iter().map(|m| m.direction.unwrap().as_str()).collect();
        assert_eq!(says, [audio, video], "{address} {theirs}");
        let streams = [member.audio.unwrap(), member.video.unwrap()];
        assert_eq!([streams[0].send, streams[1].send], sends, "{address} {theirs}");
        assert_eq!(streams[0].remote.is_none(), address == "0.0.0.0");
    }
}

#[test]
fn a_member_that_leaves_the_doors_formats_is_refused() {
    let mode_1 = door(PJSIP_DOOR);
    let reoffer = read("v=0\nc=IN IP4 192.0.2.7\nm=audio 4000 RTP/AVP 0\nm=video 4002 RTP/AVP 97\na=rtpmap:97 H264/90000\n");
    let (answer, member) = answer_member(&reoffer, &mode_1, &local(), &CONVERTED).unwrap();
    assert_eq!(answer.media[1].port, 0, "mode 1 cannot be sent as mode 0");
    assert!(member.audio.is_some());
    let speex = read("v=0\nm=audio 4000 RTP/AVP 111\na=rtpmap:111 speex/16000\n");
    assert_eq!(answer_member(&speex, &mode_1, &local(), &CONVERTED), Err(Refuse::NothingInCommon));
}

#[test]
fn a_member_may_speak_what_can_be_converted_and_the_doors_codec_goes_first() {
    let pcma = door(BARESIP_DOOR);
    let offers = |formats: &str| {
        let maps = "a=rtpmap:96 opus/48000/2\na=rtpmap:101 telephone-event/48000\na=rtpmap:100 telephone-event/8000\n";
        read(&format!("v=0\nc=IN IP4 192.0.2.7\nm=audio 4000 RTP/AVP {formats}\n{maps}"))
    };
    let chosen = |formats_: &str| {
        let (_, member) = answer_member(&offers(formats_), &pcma, &local(), &CONVERTED).unwrap();
        formats(&member.audio.unwrap().payloads)
    };
    assert_eq!(chosen("96 0 8 101 100"), [(8, Codec::Pcma), (100, Codec::TelephoneEvent(8000))]);
    assert_eq!(chosen("96 101 100"), [(96, Codec::Opus), (101, Codec::TelephoneEvent(48000))]);
    assert_eq!(chosen("96 100"), [(96, Codec::Opus), (100, Codec::TelephoneEvent(8000))], "all that baresip has");
    assert_eq!(chosen("96 9 100"), [(9, Codec::G722), (100, Codec::TelephoneEvent(8000))], "the cheaper one");

    let offer = offer_member(&pcma, &local(), &CONVERTED);
    let answer = read(
        "v=0\nc=IN IP4 192.0.2.7\nm=audio 4000 RTP/AVP 96 100\na=rtpmap:96 opus/48000/2\na=rtpmap:100 telephone-event/8000\n",
    );
    let member = read_answer(&offer, &answer).unwrap().audio.unwrap();
    assert_eq!(member.main().unwrap().codec, Codec::Opus);

    let speex = door("v=0\nm=audio 4000 RTP/AVP 97\na=rtpmap:97 speex/16000\n");
    assert_eq!(offer_member(&speex, &local(), &CONVERTED).media[0].formats, ["97", "101"], "nothing else fits this door");
    let both = offer_member(&speex, &local(), &[Codec::Speex(16000), Codec::Pcmu, Codec::Speex(8000)]);
    assert_eq!(both.media[0].formats, ["97", "0", "96", "101", "98"]);
}

#[test]
fn a_door_that_offers_again_keeps_its_codec() {
    let door = door(BARESIP_DOOR);
    // PCMU first now, H264 mode 1 first now: the session stays with PCMA and mode 0.
    let again = BARESIP_DOOR.replace("96 9 8 0 101", "0 8 101").replace("97 98 34", "98 97 34");
    let (answer, _) = answer_door_again(&read(&again), &door, &local()).unwrap();
    assert_eq!(answer.media[0].formats, ["8", "101"]);
    assert_eq!(answer.media[1].formats, ["97"]);
    let (first, _) = answer_door(&read(BARESIP_DOOR), &local()).unwrap();
    let next = answer_door_again(&read(BARESIP_DOOR), &door, &Local { version: 2, ..local() }).unwrap().0;
    assert_ne!(first, next);
    assert!(first.says_the_same(&next), "so version 1 is repeated");
}

#[test]
fn a_second_line_of_a_kind_and_a_medium_without_port_are_declined() {
    let two = read("v=0\nc=IN IP4 192.0.2.1\nm=audio 4000 RTP/AVP 18\nm=audio 4002 RTP/AVP 8\nm=audio 4004 RTP/AVP 0\n");
    let (answer, door) = answer_door(&two, &local()).unwrap();
    let ports: Vec<_> = answer.media.iter().map(|m| m.port).collect();
    assert_eq!(ports, [0, 10000, 0]);
    assert_eq!(door.audio.unwrap().index, 1);

    let no_video = Local { video_port: None, ..local() };
    let (answer, door) = answer_door(&read(BARESIP_DOOR), &no_video).unwrap();
    assert_eq!(answer.media[1].port, 0);
    assert!(door.video.is_none());
    assert_eq!(offer_member(&door, &local(), &CONVERTED).media.len(), 1);
}

#[test]
fn ipv6_both_ways() {
    let ip = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let offer = read("v=0\no=- 1 1 IN IP6 2001:db8::7\nc=IN IP6 2001:db8::7\nm=audio 65535 RTP/AVP 0\n");
    let (answer, door) = answer_door(&offer, &Local { ip, ..local() }).unwrap();
    assert!(answer.to_string().contains("c=IN IP6 ::1\r\n"));
    let audio = door.audio.unwrap();
    assert_eq!(audio.remote, Some("[2001:db8::7]:65535".parse().unwrap()));
    assert_eq!(audio.remote_rtcp, None, "there is no port after the last");
}

#[test]
fn two_user_agents_agree_through_the_server() {
    let h264 = H264 {
        profile_level_id: Some("42e01f".into()),
        packetization_mode: 1,
        sprop_parameter_sets: Some("Z0LgHtoCgPRA,aM4xUg==".into()),
        ..H264::default()
    };
    let can = Supported {
        audio: vec![Codec::Opus, Codec::Pcma, Codec::TelephoneEvent(48000), Codec::TelephoneEvent(8000)],
        audio_direction: Direction::SendRecv,
        video: vec![h264],
        video_direction: Direction::SendOnly,
    };
    let unit = Local { ip: "192.0.2.2".parse().unwrap(), ..local() };
    let offered = offer(&unit, &can);
    assert_eq!(offered.media[0].formats, ["96", "8", "101", "97"]);
    let (answered, door) = answer_door(&read(&offered.to_string()), &local()).unwrap();
    let at_door = read_answer(&offered, &read(&answered.to_string())).unwrap();
    assert_eq!(at_door.audio.unwrap().main().unwrap().codec, Codec::Pcma);
    assert!(at_door.video.unwrap().send);

    let onward = offer_member(&door, &local(), &CONVERTED);
    let phone = Supported { video_direction: Direction::RecvOnly, ..can };
    let (said, at_phone) = answer(&read(&onward.to_string()), &unit, &phone).unwrap();
    let member = read_answer(&onward, &read(&said.to_string())).unwrap();
    let (ours, theirs) = (member.video.unwrap(), at_phone.video.unwrap());
    assert_eq!((ours.send, theirs.receive), (true, true));
    assert_eq!((ours.receive, theirs.send), (false, false));
    assert_eq!(formats(&ours.payloads), formats(&theirs.payloads));
    assert_eq!(theirs.payloads[0].h264().sprop_parameter_sets.as_deref(), Some("Z0LgHtoCgPRA,aM4xUg=="));
}

#[test]
fn odd_texts_survive() {
    let latin_1 = b"v=0\no=T\xfcr 3 vorn abc-1 v.2 IN IP4 192.0.2.1\ns=Haust\xfcr\nc=IN IP4 224.2.1.1/127/3\n\
        b=AS:64\nnonsense\nm=audio 4000/2  RTP/AVP 0 \na=ptime:twenty\na=rtpmap:96 nothing\na=sendonly \na=\n";
    let sdp = Sdp::parse(latin_1).unwrap();
    assert_eq!(sdp.session_name, "Haustür");
    assert_eq!(sdp.origin.username, "Tür 3 vorn");
    assert_eq!((sdp.origin.session_id.as_str(), sdp.origin.version.as_str()), ("abc-1", "v.2"));
    assert_eq!(sdp.connection, Some(Connection::Ip("224.2.1.1".parse().unwrap())));
    let audio = &sdp.media[0];
    assert_eq!((audio.port, audio.direction), (4000, Some(Direction::SendOnly)));
    assert_eq!(audio.attributes.len(), 2, "unreadable ones stay raw");
    assert_eq!(read(&sdp.to_string()), sdp);
}

#[test]
fn what_is_no_sdp_or_too_much_is_refused_by_name() {
    assert_eq!(Sdp::parse(b""), Err(SdpError::NotSdp));
    assert_eq!(Sdp::parse(b"{\"req\":\"unlock\"}"), Err(SdpError::NotSdp));
    assert_eq!(Sdp::parse(b"o=- 1 1 IN IP4 192.0.2.1\n"), Err(SdpError::NotSdp));
    for bad in ["m=audio", "m=audio x RTP/AVP 0", "m=audio 70000 RTP/AVP 0", "m=audio 4000"] {
        let text = format!("v=0\n{bad}\n");
        assert_eq!(Sdp::parse(text.as_bytes()), Err(SdpError::BadMedia { line: 2 }), "{bad}");
    }
    let many = format!("v=0\n{}", "m=audio 0 RTP/AVP 0\n".repeat(MAX_MEDIA + 1));
    assert_eq!(Sdp::parse(many.as_bytes()), Err(SdpError::TooManyMedia));
    assert_eq!(Sdp::parse(&vec![b'v'; MAX_BYTES + 1]), Err(SdpError::TooLong));
    let wide = format!("v=0\nm=audio 4000 RTP/AVP{}\n", " 0".repeat(5000));
    assert_eq!(read(&wide).media[0].formats.len(), MAX_FORMATS);
}

#[test]
fn nothing_read_can_add_a_line_to_what_is_written() {
    let door = door(
        "v=0\nm=audio 4000 RTP/AVP 111\na=rtpmap:111 opus/48000/2\na=fmtp:111 x=1\rm=evil 1 RTP/AVP 0\n\
        m=video 4002 RTP/AVP 97\na=rtpmap:97 H264/90000\na=fmtp:97 sprop-parameter-sets=\"a b\";profile-level-id=xyz\n",
    );
    let onward = offer_member(&door, &local(), &CONVERTED);
    assert_eq!(onward.media.len(), 2);
    let video = &onward.media[1];
    assert_eq!(video.fmtp[0].params, "packetization-mode=0", "values of a wrong form are dropped");
    let mut sly = onward.clone();
    sly.session_name = "a\r\nm=evil 1 RTP/AVP 0".into();
    assert_eq!(read(&sly.to_string()).media.len(), 2);
}

fn line() -> impl Strategy<Value = String> {
    let kind = prop_oneof![Just("audio"), Just("video"), Just("text")];
    let proto = prop_oneof![Just("RTP/AVP"), Just("RTP/AVPF"), Just("RTP/SAVPF"), Just("udptl")];
    let name = prop_oneof![
        Just("H264/90000"),
        Just("opus/48000/2"),
        Just("PCMA/8000"),
        Just("speex/16000"),
        Just("telephone-event/8000"),
        Just("telephone-event/48000"),
        Just("VP8/90000"),
        Just("L16/16000/2"),
    ];
    let pt = || prop_oneof![Just(0_u8), Just(8), Just(9), 96..104_u8, any::<u8>()];
    prop_oneof![
        3 => (kind, any::<u16>(), proto, prop::collection::vec(pt(), 1..6)).prop_map(|(k, port, proto, pts)| {
            let pts: Vec<_> = pts.iter().map(u8::to_string).collect();
            format!("m={k} {port} {proto} {}", pts.join(" "))
        }),
        6 => (pt(), name).prop_map(|(pt, name)| format!("a=rtpmap:{pt} {name}")),
        2 => (pt(), 0..4_u8).prop_map(|(pt, mode)| format!("a=fmtp:{pt} packetization-mode={mode};profile-level-id=42e01f")),
        2 => prop_oneof![Just("a=sendonly"), Just("a=recvonly"), Just("a=inactive"), Just("a=sendrecv")].prop_map(String::from),
        1 => prop_oneof![Just("c=IN IP4 192.0.2.9"), Just("c=IN IP4 0.0.0.0"), Just("c=IN IP6 ::1"), Just("c=IN IP4 a.example")].prop_map(String::from),
        1 => (pt(), any::<u16>()).prop_map(|(pt, port)| format!("a=rtcp-fb:{pt} nack pli\na=rtcp:{port}")),
        1 => "[a-z]=[ -~]{0,40}",
    ]
}

fn description() -> impl Strategy<Value = String> {
    prop::collection::vec(line(), 0..40).prop_map(|lines| format!("v=0\n{}\n", lines.join("\n")))
}

/// RFC 3264 §6: same lines, only offered formats, nothing on a line that was off.
fn is_answer_to(answer: &Sdp, offer: &Sdp) {
    assert_eq!(answer.media.len(), offer.media.len());
    for (ours, theirs) in answer.media.iter().zip(&offer.media) {
        assert_eq!((&ours.kind, &ours.proto), (&theirs.kind, &theirs.proto));
        assert!(ours.formats.iter().all(|f| theirs.formats.contains(f)) || theirs.formats.is_empty());
        assert!(!ours.formats.is_empty());
        assert!(theirs.port != 0 || ours.port == 0);
        if ours.port != 0 {
            let willing = Direction::SendRecv;
            let most = offer.direction_of(theirs).answered_by(willing);
            let says = ours.direction.unwrap();
            assert!(most.sends() >= says.sends() && most.receives() >= says.receives());
        }
    }
    assert_eq!(read(&answer.to_string()), *answer);
}

proptest! {
    #[test]
    fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut text = b"v=0\r\n".to_vec();
        text.extend(&bytes);
        let _ = Sdp::parse(&bytes);
        let _ = Sdp::parse(&text);
    }

    #[test]
    fn what_was_read_is_written_and_read_the_same(text in description()) {
        if let Ok(sdp) = Sdp::parse(text.as_bytes()) {
            prop_assert_eq!(read(&sdp.to_string()), sdp);
        }
    }

    #[test]
    fn every_offer_gets_an_answer_of_its_shape(first in description(), second in description()) {
        let (Ok(first), Ok(second)) = (Sdp::parse(first.as_bytes()), Sdp::parse(second.as_bytes())) else {
            return Ok(());
        };
        let Ok((answer, door)) = answer_door(&first, &local()) else { return Ok(()) };
        is_answer_to(&answer, &first);
        for stream in [&door.audio, &door.video].into_iter().flatten() {
            let mains = stream.payloads.iter().filter(|p| !p.codec.is_telephone_event());
            prop_assert_eq!(mains.count(), 1);
        }
        let onward = offer_member(&door, &local(), &CONVERTED);
        prop_assert_eq!(&read(&onward.to_string()), &onward);
        let mut numbers: Vec<_> = onward.media.iter().flat_map(|m| &m.formats).collect();
        numbers.sort();
        numbers.dedup();
        prop_assert_eq!(numbers.len(), onward.media.iter().map(|m| m.formats.len()).sum::<usize>());
        for (reply, reoffer) in [
            (answer_member(&second, &door, &local(), &CONVERTED), &second),
            (answer_door_again(&second, &door, &local()), &second),
            (answer_member(&onward, &door, &local(), &CONVERTED), &onward),
        ] {
            if let Ok((reply, _)) = reply {
                is_answer_to(&reply, reoffer);
            }
        }
        let _ = read_answer(&onward, &second);
        prop_assert!(answer_member(&onward, &door, &local(), &CONVERTED).is_ok());
    }
}
