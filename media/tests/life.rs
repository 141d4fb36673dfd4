//! Where media goes and comes from over the life of a call: NAT, STUN, ICE, rtcp-mux, ports that were another call's, a phone
//! that changes its network, silence (D-16 … D-18).

mod yard;

use media::command::*;
use media::engine::Channel;
use media::stun::Request;
use std::time::Duration;
use yard::{DOOR, PHONE, Yard, at, audio, bytes, leg, rtp};

const HOME: &str = "10.0.0.1:4000";
const S: SessionId = SessionId(1);

fn yard() -> Yard {
    let mut yard = Yard::new();
    yard.talk(1, audio(0, HOME, "10.0.0.1"), audio(1, "10.0.0.2:4000", "10.0.0.2"));
    yard
}

/// A bare Binding request.
fn binding() -> Vec<u8> {
    [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12]].concat()
}

#[test]
fn a_phone_changes_its_network_in_a_talk_and_media_follows_both_ways() {
    let mut y = yard();
    let (old, new) = ("10.0.0.2:4000", "198.51.100.7:62001");
    assert_eq!(y.say(1, old, 1, 7), [at(HOME)]);
    assert_eq!(y.say(0, HOME, 1, 5), [at(old)]);
    y.wait(499);
    assert_eq!(y.say(1, new, 26, 7), [], "not silent yet");
    y.wait(101);
    assert_eq!(y.say(1, new, 31, 7), [at(HOME)]);
    assert_eq!(y.say(0, HOME, 31, 5), [at(new)]);
    y.wait(5000);
    assert_eq!(y.say(1, "198.51.100.7:62002", 300, 8), [], "a stranger does not know its SSRC");
    assert_eq!(y.report(PHONE).drops, [("foreign_source", 2)]);
}

#[test]
fn doubles_replays_and_jumps_are_dropped_by_name_and_a_timestamp_may_wrap() {
    let mut y = yard();
    let say = |y: &mut Yard, seq: u16| y.say(1, "10.0.0.2:4000", seq, 7).len();
    assert_eq!([100, 101, 101, 99, 100, 40_000, 102].map(|seq| say(&mut y, seq)), [1, 1, 0, 1, 0, 0, 1]);
    assert_eq!([50_000, 50_001, 50_002].map(|seq| say(&mut y, seq)), [0, 1, 1], "a sender that starts again");
    let mut wrapped = rtp(0, 50_003, 7);
    wrapped[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
    assert_eq!(y.give(1, Channel::Rtp, at("10.0.0.2:4000"), &wrapped).len(), 1);
    wrapped[2..8].copy_from_slice(&[0xc3, 0x54, 0, 0, 0, 0x9f]);
    assert_eq!(y.give(1, Channel::Rtp, at("10.0.0.2:4000"), &wrapped).len(), 1);
    assert!(y.give(1, Channel::Rtp, at("10.0.0.2:4000"), &[0x80; 11]).is_empty());
    assert!(y.give(1, Channel::Rtp, at("10.0.0.2:4000"), &[0x80; 2048]).is_empty());
    let drops = y.report(PHONE).drops;
    assert_eq!(drops, [("truncated", 1), ("oversized", 1), ("sequence_jump", 2), ("duplicate", 2)]);
}

#[test]
fn what_a_former_calls_phone_still_sends_never_enters_the_next_call_on_its_port() {
    // Both phones live behind one NAT, and each comes out at a port that its SDP does not know.
    let (nat, old, new) = ("203.0.113.5", "203.0.113.5:7001", "203.0.113.5:7002");
    let mut y = Yard::new();
    y.talk(1, audio(0, HOME, "10.0.0.1"), audio(1, "192.168.1.5:4000", nat));
    assert_eq!(y.say(1, old, 1, 7), [at(HOME)]);
    y.order(Command::Close { session: S });
    // It has not understood: it goes on while the port rests and when it is given away.
    for seq in 2..100 {
        y.wait(400);
        assert!(y.say(1, old, seq, 7).is_empty());
    }
    y.talk(2, audio(0, HOME, "10.0.0.1"), audio(1, "192.168.1.6:4000", nat));
    assert_eq!(y.say(1, old, 100, 7), [], "its address");
    assert_eq!(y.say(1, "203.0.113.5:7009", 101, 7), [], "or only its SSRC");
    assert_eq!(y.say(1, old, 1, 99), [], "or only its address");
    let rtcp = [&[0x80, 201, 0, 1][..], &7u32.to_be_bytes()].concat();
    y.give(1, Channel::Rtcp, at("203.0.113.5:7010"), &rtcp);
    y.give(1, Channel::Rtp, at(old), &binding());
    assert_eq!(y.say(0, HOME, 1, 5), [at("203.0.113.5:4000")], "and nothing goes to it");
    assert_eq!(y.say(1, new, 1, 8), [at(HOME)], "the phone that has the call is heard");
    assert_eq!(y.say(1, new, 2, 8), [at(HOME)]);
    assert_eq!(y.say(0, HOME, 2, 5), [at(new)]);
    assert_eq!(y.say(1, old, 102, 7), []);
    assert_eq!(y.report(PHONE).drops, [("former_call", 6)]);
}

#[test]
fn a_phone_that_rings_again_on_the_same_port_is_not_a_stranger() {
    let (nat, mapped) = ("203.0.113.5", "203.0.113.5:7001");
    let mut y = Yard::new();
    for session in 1..3 {
        y.talk(session, audio(0, HOME, "10.0.0.1"), audio(1, "192.168.1.5:4000", nat));
        assert_eq!(y.say(1, mapped, 1, 7), [at(HOME)], "call {session}");
        y.order(Command::Close { session: SessionId(session) });
    }
}

#[test]
fn stun_is_answered_and_shows_where_a_silent_phone_is() {
    let mut y = Yard::new();
    y.talk(1, audio(0, HOME, "10.0.0.1"), audio(1, "192.168.1.5:4000", "203.0.113.5"));
    assert_eq!(y.say(0, HOME, 1, 5), [at("203.0.113.5:4000")], "the NAT, by the port of the SDP");
    let mapped = at("203.0.113.5:7001");
    let sent = y.give(1, Channel::Rtp, mapped, &binding());
    assert_eq!((sent[0].to, sent[0].channel), (mapped, Channel::Rtp));
    let answer = bytes(&sent[0]);
    assert_eq!((&answer[..4], &answer[8..20]), (&[1, 1, 0, 12][..], &[7; 12][..]));
    assert_eq!(y.say(0, HOME, 2, 5), [mapped]);
    assert!(y.give(1, Channel::Rtp, at("198.51.100.9:1"), &binding()).is_empty(), "a stranger");
    assert!(y.give(9, Channel::Rtp, mapped, &binding()).is_empty(), "nobody's port");
    let mut indication = binding();
    indication[1] = 0x11;
    assert!(y.give(1, Channel::Rtp, mapped, &indication).is_empty());
    let report = y.report(PHONE);
    assert_eq!(report.drops, [("stun", 1), ("foreign_source", 1)]);
    assert!(report.alive && report.packets_in == 0);
}

/// The check of RFC 5769 §2.1, with the names and the password used there.
const CHECK: &[u8] = b"\x00\x01\x00\x58\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
    \x80\x22\x00\x10STUN test client\x00\x24\x00\x04\x6e\x00\x01\xff\x80\x29\x00\x08\x93\x2f\xf9\xb1\x51\x26\x3b\x36\
    \x00\x06\x00\x09\x65\x76\x74\x6a\x3a\x68\x36\x76\x59\x20\x20\x20\
    \x00\x08\x00\x14\x9a\xea\xa7\x0c\xbf\xd8\xcb\x56\x78\x1e\xf2\xb5\xb2\xd3\xf2\x49\xc1\xb5\x71\xa2\
    \x80\x28\x00\x04\xe5\x7a\x3b\xcf";

#[test]
fn an_ice_phone_is_believed_from_anywhere_if_it_knows_the_password() {
    let mut phone = audio(1, "192.168.1.5:4000", "203.0.113.5");
    phone.ice = Some(Ice { ufrag: "evtj".into(), pwd: "VOkJxbRl1RmTxUk/WvJxBt".into() });
    assert!(!format!("{phone:?}").contains("VOkJ"), "a plan may be logged");
    let mut y = Yard::new();
    y.talk(1, audio(0, HOME, "10.0.0.1"), phone);
    let relay = "198.51.100.9:50000";
    assert_eq!(y.say(1, relay, 1, 7), []);
    assert!(y.give(1, Channel::Rtp, at(relay), &binding()).is_empty(), "without a password");
    let mut forged = CHECK.to_vec();
    forged[90] ^= 1;
    assert!(y.give(1, Channel::Rtp, at(relay), &forged).is_empty());
    let answer = bytes(&y.give(1, Channel::Rtp, at(relay), CHECK)[0]);
    assert_eq!(answer.len(), 64, "address, integrity, fingerprint");
    assert!(Request::parse(&answer).is_none());
    assert_eq!(y.say(0, HOME, 1, 5), [at(relay)], "checked, so it can be reached there");
    assert_eq!(y.say(1, relay, 2, 7), [at(HOME)]);
    let drops = y.report(PHONE).drops;
    assert_eq!(drops, [("stun", 1), ("stun_integrity", 1), ("foreign_source", 1)], "the forged one broke its seal");
}

#[test]
fn with_rtcp_mux_rtcp_comes_and_goes_on_the_rtp_port() {
    let mut y = Yard::new();
    let video = |pair, remote: &str, mux| StreamPlan {
        payloads: vec![Payload { pt: 96, codec: Codec::H264 }],
        rtcp_mux: mux,
        ..audio(pair, remote, "10.0.0.1")
    };
    let door = LegPlan { leg: DOOR, audio: None, video: Some(video(0, HOME, true)) };
    y.order(Command::Open { session: S, anchor: door, key_frame_by: None });
    y.order(Command::Put { session: S, leg: LegPlan { leg: PHONE, audio: None, video: Some(video(1, "10.0.0.1:5000", false)) } });
    let frame = [&rtp(0xe0, 1, 5)[..12], &[0x65, 0x88, 2]].concat();
    y.give(0, Channel::Rtp, at(HOME), &frame);
    y.wait(1000);
    let asked = y.give(1, Channel::Rtcp, at("10.0.0.1:5001"), &yard::pli(1, 2));
    assert_eq!((asked[0].channel, asked[0].to), (Channel::Rtp, at(HOME)));
    let report = [&[0x80, 201, 0, 1][..], &5u32.to_be_bytes()].concat();
    y.give(0, Channel::Rtp, at(HOME), &report);
    y.give(1, Channel::Rtp, at("10.0.0.1:5000"), &report);
    y.wait(1000);
    let reports = y.events.iter().rev().find_map(|e| if let Event::Report { legs, .. } = e { Some(legs) } else { None }).unwrap();
    assert_eq!(reports[0].video.drops, [], "taken as RTCP");
    assert_eq!(reports[1].video.drops[0], ("not_rtp", 1), "not agreed on with this phone");
}

#[test]
fn silence_is_told_of_whoever_should_send_and_of_nobody_else() {
    let mut y = yard();
    let silence = Duration::from_secs(30);
    y.wait(40_000);
    assert_eq!(y.silent(), [], "it rings: phones need not send, and a door that does not is only shown");
    y.order(Command::Watch { session: S, silence });
    for seq in 0..40 {
        y.wait(1000);
        y.say(0, HOME, seq, 5);
        let rtcp = [&[0x80, 201, 0, 1][..], &7u32.to_be_bytes()].concat();
        y.give(1, Channel::Rtcp, at("10.0.0.2:4001"), &rtcp);
    }
    assert_eq!(y.silent(), [], "RTCP is life too");
    for seq in 40..71 {
        y.wait(1000);
        y.say(0, HOME, seq, 5);
    }
    assert_eq!(y.silent(), [PHONE]);
    // It holds: neither side has to send. Thirty seconds after the hold it must again.
    let held = StreamPlan { send: false, receive: false, ..audio(1, "10.0.0.2:4000", "10.0.0.2") };
    y.order(Command::Put { session: S, leg: leg(PHONE, held) });
    for seq in 71..171 {
        y.wait(1000);
        y.say(0, HOME, seq, 5);
    }
    assert_eq!(y.silent(), []);
    y.order(Command::Put { session: S, leg: leg(PHONE, audio(1, "10.0.0.2:4000", "10.0.0.2")) });
    for seq in 171..201 {
        assert_eq!(y.silent(), [], "{seq}");
        y.wait(1000);
        y.say(0, HOME, seq, 5);
    }
    assert_eq!(y.silent(), [PHONE]);
    y.wait(30_000);
    assert!(y.silent().contains(&DOOR));
    y.order(Command::Close { session: S });
    y.events.clear();
    y.wait(100_000);
    assert_eq!((y.silent(), y.engine.next_deadline()), (vec![], None), "nothing is left over");
}
