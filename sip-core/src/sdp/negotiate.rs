//! Offer/answer (RFC 3264) of a B2BUA with one anchor, the door, and many members; D-04, D-05, D-09.
//!
//! - The door: [`answer_door`] for its INVITE, [`answer_door_again`] for what it offers later, [`offer_door`] if it offers
//!   nothing.
//! - A member: [`offer_member`], [`read_answer`], and [`answer_member`] for what it offers later (hold, resume).
//! - A user agent (softphone, bench): [`offer`], [`read_answer`], [`answer`].
//!
//! All answers come from one function and all offers from another; the entry points only differ in the choice of
//! payload types and in the directions they are willing to use.
//!
//! Invariants: an answer has the m-lines of its offer, in number and order, and only payload types offered there;
//! an m-line that cannot be served is declined with port 0, and costs the call only if nothing is left.
//! Payload types are per leg. rtcp-mux and ICE (lite) are answered where they are offered and never offered: phones that know
//! neither are many. SRTP and BUNDLE are answered as if they had not been offered.

use std::net::IpAddr;

use super::{
    Agreed, Attribute, Codec, Connection, Direction, Door, H264, Ice, Kind, Media, Member, Origin, Payload, RtcpFb, Sdp, Stream,
};

/// Our side of the SDP of one leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// Written in `o=` and `c=`.
    pub ip: IpAddr,
    /// RTP port; RTCP is the next one. `None`: no audio on this leg.
    pub audio_port: Option<u16>,
    /// RTP port; RTCP is the next one. `None`: no video on this leg.
    pub video_port: Option<u16>,
    /// The number in `o=`: the same for the life of a leg.
    pub session_id: u64,
    /// Higher by one than in the last SDP of this leg, unless that one is repeated as it was (RFC 3264 §8,
    /// [`Sdp::says_the_same`]).
    pub version: u64,
    /// What a peer's ICE checks are to know of us; `None`: an offer of ICE is passed over.
    pub ice: Option<Ice>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refuse {
    /// No m-line is left that both sides can use: 488 (RFC 3261 §21.4.26), or the end of the leg if it is an answer.
    #[error("no media in common")]
    NothingInCommon,
}

/// What a user agent can do, in its order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Supported {
    /// May include [`Codec::TelephoneEvent`]s, one per clock rate.
    pub audio: Vec<Codec>,
    pub audio_direction: Direction,
    /// One entry per packetization mode; empty for no video.
    pub video: Vec<H264>,
    pub video_direction: Direction,
}

/// The answer to a door's offer, for the 183 and, unchanged, the 200 (D-01, D-09): one audio codec with its
/// telephone-event, one H264 payload type that we receive only.
///
/// Errors: [`Refuse::NothingInCommon`].
pub fn answer_door(offer: &Sdp, local: &Local) -> Result<(Sdp, Door), Refuse> {
    let rules = Rules {
        server: true,
        audio: &|offered| one_audio(offered, door_codec(offered)),
        audio_willing: Direction::SendRecv,
        video: &|offered| offered.iter().take(1).cloned().collect(),
        video_willing: Direction::RecvOnly,
        sprop: None,
    };
    answer_by(offer, local, &rules)
}

/// Our offer to a door that made none (D-09), and what its room is told meanwhile: PCMU, which every device knows, and H264 in
/// mode 1, which also takes what a mode-0 door sends (RFC 6184 §6.3). So whatever the door answers fits what its phones have
/// been offered, and they need not wait for it.
pub fn offer_door(local: &Local) -> (Sdp, Door) {
    let modes = [1, 0].map(|packetization_mode| H264 { packetization_mode, ..H264::parse("profile-level-id=42e01f") });
    let offer = offer(
        local,
        &Supported {
            audio: vec![Codec::Pcmu, Codec::TelephoneEvent(8000)],
            audio_direction: Direction::SendRecv,
            video: modes.into(),
            video_direction: Direction::RecvOnly,
        },
    );
    let mut door = Door::default();
    for (index, media) in offer.media.iter().enumerate() {
        // Where to send is not known yet; its packets are welcome.
        let mut stream = Stream::with(index, &offer, media, media.payloads(), Direction::RecvOnly);
        (stream.remote, stream.remote_rtcp) = (None, None);
        door.put(&media.kind, index, Some(stream));
    }
    (offer, door)
}

/// The answer to a later offer of the door (session refresh, hold): its formats stay what the members were offered.
///
/// Errors: [`Refuse::NothingInCommon`]; the session then goes on as it was (RFC 3261 §14.2).
pub fn answer_door_again(offer: &Sdp, door: &Door, local: &Local) -> Result<(Sdp, Door), Refuse> {
    let mode = door_h264(door).map(|h264| h264.packetization_mode);
    let rules = Rules {
        server: true,
        audio: &|offered| one_audio(offered, main_codec(door)),
        audio_willing: Direction::SendRecv,
        video: &|offered| one_video(offered, |h264| Some(h264.packetization_mode) == mode),
        video_willing: Direction::RecvOnly,
        sprop: None,
    };
    answer_by(offer, local, &rules)
}

/// The offer to a member: the door's audio codec, then those that can be converted from and to it, in the order of `converted`,
/// and telephone-event at each clock rate among them (RFC 4733 §2.1), sendrecv; and the door's H264, sendonly (D-04).
/// RTP/AVP with `a=rtcp-fb` lines, because baresip refuses AVPF. An m-line is there if the door has the medium and
/// `local` a port for it.
pub fn offer_member(door: &Door, local: &Local, converted: &[Codec]) -> Sdp {
    let mut numbers = Numbers::beside(door);
    let mut sdp = Sdp::ours(local);
    if let (Some(port), Some(stream)) = (local.audio_port, &door.audio) {
        let mut media = Media::offered(Kind::Audio, port, Direction::SendRecv);
        let of_door = |codec: Codec| stream.payloads.iter().find(|p| p.codec == codec);
        let codecs = member_codecs(door, converted);
        let mut events: Vec<Codec> = Vec::new();
        for event in codecs.iter().map(|codec| Codec::TelephoneEvent(codec.clock())) {
            if !events.contains(&event) {
                events.push(event);
            }
        }
        for codec in codecs.into_iter().chain(events) {
            let theirs = of_door(codec);
            let fmtp = theirs.and_then(|p| p.fmtp.clone()).filter(|_| !codec.is_telephone_event()).or(codec.own_fmtp());
            media.push_payload(&Payload { pt: numbers.take(codec, theirs.map(|p| p.pt)), codec, fmtp });
        }
        sdp.media.push(media);
    }
    if let (Some(port), Some(stream), Some(h264)) = (local.video_port, &door.video, door_h264(door)) {
        let mut media = Media::offered(Kind::Video, port, Direction::SendOnly);
        let mut wished = stream.main().map(|payload| payload.pt);
        // Single NAL units (mode 0) are valid in mode 1 too, not the other way round (RFC 6184 §6.2, §6.3).
        for packetization_mode in h264.packetization_mode..=1 {
            let h264 = H264 { packetization_mode, ..h264.clone() };
            media.push_payload(&Payload {
                pt: numbers.take(Codec::H264, wished.take()),
                codec: Codec::H264,
                fmtp: Some(h264.to_fmtp()),
            });
        }
        media.rtcp_fb = feedback();
        sdp.media.push(media);
    }
    sdp
}

/// The answer to a later offer of a member (hold, resume, refresh), given locally; the door hears nothing of it (D-09).
/// It takes the door's codec if the member still has that, else the first that can be converted.
///
/// Errors: [`Refuse::NothingInCommon`]; the session then goes on as it was (RFC 3261 §14.2).
pub fn answer_member(reoffer: &Sdp, door: &Door, local: &Local, converted: &[Codec]) -> Result<(Sdp, Member), Refuse> {
    let h264 = door_h264(door);
    let rules = Rules {
        server: true,
        audio: &|offered| {
            let fits = |codec: &Codec| offered.iter().any(|p| p.codec == *codec);
            one_audio(offered, member_codecs(door, converted).into_iter().find(fits))
        },
        audio_willing: Direction::SendRecv,
        video: &|offered| {
            one_video(offered, |theirs| h264.as_ref().is_some_and(|door| door.packetization_mode <= theirs.packetization_mode))
        },
        video_willing: Direction::SendOnly,
        sprop: h264.as_ref().and_then(|h264| h264.sprop_parameter_sets.clone()),
    };
    answer_by(reoffer, local, &rules)
}

/// The offer of a user agent.
pub fn offer(local: &Local, supported: &Supported) -> Sdp {
    let mut numbers = Numbers::default();
    let mut sdp = Sdp::ours(local);
    if let (Some(port), false) = (local.audio_port, supported.audio.is_empty()) {
        let mut media = Media::offered(Kind::Audio, port, supported.audio_direction);
        for codec in &supported.audio {
            media.push_payload(&Payload { pt: numbers.take(*codec, None), codec: *codec, fmtp: codec.own_fmtp() });
        }
        sdp.media.push(media);
    }
    if let (Some(port), false) = (local.video_port, supported.video.is_empty()) {
        let mut media = Media::offered(Kind::Video, port, supported.video_direction);
        for h264 in &supported.video {
            media.push_payload(&Payload { pt: numbers.take(Codec::H264, None), codec: Codec::H264, fmtp: Some(h264.to_fmtp()) });
        }
        media.rtcp_fb = feedback();
        sdp.media.push(media);
    }
    sdp
}

/// The answer of a user agent: per medium the first offered format that it supports.
///
/// Errors: [`Refuse::NothingInCommon`].
pub fn answer(offer: &Sdp, local: &Local, supported: &Supported) -> Result<(Sdp, Agreed), Refuse> {
    let modes = &supported.video;
    let rules = Rules {
        server: false,
        audio: &|offered| {
            let known = offered.iter().filter(|p| supported.audio.contains(&p.codec));
            let known: Vec<Payload> = known.cloned().collect();
            one_audio(&known, first_codec(&known))
        },
        audio_willing: supported.audio_direction,
        video: &|offered| {
            one_video(offered, |theirs| modes.iter().any(|our| our.packetization_mode == theirs.packetization_mode))
        },
        video_willing: supported.video_direction,
        sprop: modes.iter().find_map(|our| our.sprop_parameter_sets.clone()),
    };
    answer_by(offer, local, &rules)
}

/// What the answer to our offer means. Missing m-lines count as declined, surplus ones are ignored. A peer may answer
/// with other numbers for the codecs we offered (RFC 3264 §6.1): both are then in the stream, the peer's first.
///
/// Errors: [`Refuse::NothingInCommon`] if no stream is left.
pub fn read_answer(offer: &Sdp, answer: &Sdp) -> Result<Member, Refuse> {
    let mut agreed = Agreed::default();
    for (index, ours) in offer.media.iter().enumerate() {
        let theirs = answer.media.get(index);
        let stream = theirs.filter(|theirs| ours.port != 0 && theirs.port != 0 && theirs.kind == ours.kind).and_then(|theirs| {
            let payloads = answered_payloads(ours, theirs);
            let says = answer.direction_of(theirs);
            let willing = offer.direction_of(ours);
            (!only_events(&payloads)).then(|| Stream::with(index, answer, theirs, payloads, says.answered_by(willing)))
        });
        agreed.put(&ours.kind, index, stream);
    }
    agreed.usable()
}

/// How one side answers: which of the offered payload types of the first fitting m-line of a kind it takes (none:
/// declined), and in which direction at most.
struct Rules<'a> {
    /// RTCP on the RTP port and ICE if offered: the media plane can, the softphone cannot.
    server: bool,
    audio: &'a dyn Fn(&[Payload]) -> Vec<Payload>,
    audio_willing: Direction,
    video: &'a dyn Fn(&[Payload]) -> Vec<Payload>,
    video_willing: Direction,
    /// Parameter sets of the video that we send, if known.
    sprop: Option<String>,
}

fn answer_by(offer: &Sdp, local: &Local, rules: &Rules<'_>) -> Result<(Sdp, Agreed), Refuse> {
    let mut sdp = Sdp::ours(local);
    let mut agreed = Agreed::default();
    for (index, theirs) in offer.media.iter().enumerate() {
        let second = agreed.of(&theirs.kind).is_some();
        let accepted = accept(offer, index, local, rules).filter(|_| !second);
        let (ours, stream) = match accepted {
            Some((ours, stream)) => (ours, Some(stream)),
            None => (theirs.decline(), None),
        };
        if stream.as_ref().is_some_and(|stream| stream.ice) && sdp.attributes.is_empty() {
            sdp.attributes.push(Attribute { name: "ice-lite".into(), value: None });
        }
        sdp.media.push(ours);
        agreed.put(&theirs.kind, index, stream);
    }
    Ok((sdp, agreed.usable()?))
}

/// Our m-line for an offered one and what it makes of the stream; `None` if it cannot be served.
fn accept(offer: &Sdp, index: usize, local: &Local, rules: &Rules<'_>) -> Option<(Media, Stream)> {
    let theirs = offer.media.get(index)?;
    let (choose, willing, port) = match theirs.kind {
        Kind::Audio => (rules.audio, rules.audio_willing, local.audio_port?),
        Kind::Video => (rules.video, rules.video_willing, local.video_port?),
        Kind::Other(_) => return None,
    };
    if theirs.port == 0 || !is_rtp(&theirs.proto) {
        return None;
    }
    let payloads = choose(&theirs.payloads());
    if only_events(&payloads) {
        return None;
    }
    let direction = offer.direction_of(theirs).answered_by(willing);
    let mut ours = Media::new(theirs.kind.clone(), port, &theirs.proto);
    ours.direction = Some(direction);
    for payload in &payloads {
        ours.push_payload(&Payload { fmtp: answer_fmtp(payload, direction, rules.sprop.as_ref()), ..payload.clone() });
    }
    if theirs.kind == Kind::Video {
        ours.rtcp_fb = feedback();
        ours.rtcp_fb.retain(|ours| theirs.offers_feedback(ours));
    }
    let mut stream = Stream::with(index, offer, theirs, payloads, direction);
    if rules.server {
        ours.rtcp_mux = theirs.rtcp_mux;
        stream.rtcp_mux = theirs.rtcp_mux;
    }
    if let (true, Some(ice), Some(_)) = (rules.server, &local.ice, offer.ice_of(theirs)) {
        ours.attributes = ice_lines(local.ip, port, ours.rtcp_mux, ice);
        stream.ice = true;
    }
    Some((ours, stream))
}

/// Our side of ICE: the names and, as its lite side, the one address we have (RFC 8445 §5.2), per component.
fn ice_lines(ip: IpAddr, port: u16, rtcp_mux: bool, ice: &Ice) -> Vec<Attribute> {
    let line = |name: &str, value: String| Attribute { name: name.to_owned(), value: Some(value) };
    // RFC 8445 §5.1.2.1: type preference 126 (host), local preference 65535, then the component.
    let candidate = |component: u16| {
        let (priority, port) = (2_130_706_432 - u32::from(component), port + component - 1);
        line("candidate", format!("1 {component} UDP {priority} {ip} {port} typ host"))
    };
    let mut lines = vec![line("ice-ufrag", ice.ufrag.clone()), line("ice-pwd", ice.pwd.clone())];
    lines.extend((1..=if rtcp_mux { 1 } else { 2 }).map(candidate));
    lines
}

/// H264 profile, level and mode are symmetric: what was offered, or no answer at all (RFC 6184 §8.2.2). Parameter sets
/// belong to the one who sends.
fn answer_fmtp(offered: &Payload, direction: Direction, sprop: Option<&String>) -> Option<String> {
    if offered.codec != Codec::H264 {
        return offered.codec.own_fmtp();
    }
    offered.fmtp.as_ref()?;
    let h264 = H264 { sprop_parameter_sets: sprop.filter(|_| direction.sends()).cloned(), ..offered.h264() };
    Some(h264.to_fmtp())
}

/// PCMU or PCMA, whichever the door lists first, else the first codec we know (D-04).
fn door_codec(offered: &[Payload]) -> Option<Codec> {
    let g711 = offered.iter().find(|p| matches!(p.codec, Codec::Pcmu | Codec::Pcma));
    g711.map(|p| p.codec).or_else(|| first_codec(offered))
}

fn first_codec(offered: &[Payload]) -> Option<Codec> {
    let mut codecs = offered.iter().map(|p| p.codec);
    codecs.find(|codec| !codec.is_telephone_event())
}

fn main_codec(agreed: &Agreed) -> Option<Codec> {
    Some(agreed.audio.as_ref()?.main()?.codec)
}

/// What a member may speak with this door: the door's codec, and if that can be converted, the others that can be.
fn member_codecs(door: &Door, converted: &[Codec]) -> Vec<Codec> {
    let Some(own) = main_codec(door) else { return Vec::new() };
    let others = converted.iter().filter(|codec| converted.contains(&own) && **codec != own);
    std::iter::once(own).chain(others.copied()).collect()
}

/// The door's H264 parameters.
fn door_h264(door: &Door) -> Option<H264> {
    Some(door.video.as_ref()?.main()?.h264())
}

/// `codec` and the telephone-event of the same clock rate (RFC 4733 §2.1: they share one RTP timeline), or the only one there
/// is: baresip knows 8000 Hz alone, beside Opus too.
fn one_audio(offered: &[Payload], codec: Option<Codec>) -> Vec<Payload> {
    let Some(codec) = codec else {
        return Vec::new();
    };
    let Some(main) = offered.iter().find(|p| p.codec == codec) else {
        return Vec::new();
    };
    let event = Codec::TelephoneEvent(codec.clock());
    let event = offered.iter().find(|p| p.codec == event).or(offered.iter().find(|p| p.codec.is_telephone_event()));
    std::iter::once(main).chain(event).cloned().collect()
}

fn one_video(offered: &[Payload], fits: impl Fn(&H264) -> bool) -> Vec<Payload> {
    let fitting = offered.iter().find(|p| fits(&p.h264()));
    fitting.cloned().into_iter().collect()
}

/// Nothing to talk with: no payload type, or telephone-events alone.
fn only_events(payloads: &[Payload]) -> bool {
    payloads.iter().all(|p| p.codec.is_telephone_event())
}

/// The codecs of our m-line that the answer kept. Where it repeats one of our numbers without an rtpmap, ours holds.
fn answered_payloads(ours: &Media, theirs: &Media) -> Vec<Payload> {
    let offered = ours.payloads();
    let mut read = theirs.clone();
    for map in &ours.rtpmap {
        if read.rtpmap.iter().all(|m| m.pt != map.pt) {
            read.rtpmap.push(map.clone());
        }
    }
    let mut kept = read.payloads();
    kept.retain(|k| offered.iter().any(|o| o.codec == k.codec));
    // A peer that renumbers a codec wants its number from us, and sends with ours.
    let renumbered: Vec<Payload> = offered
        .iter()
        .filter(|o| {
            let mut same = kept.iter().filter(|k| k.codec == o.codec).peekable();
            same.peek().is_some() && same.all(|k| offered.iter().all(|o| o.pt != k.pt))
        })
        .filter(|o| kept.iter().all(|k| k.pt != o.pt))
        .cloned()
        .collect();
    kept.extend(renumbered);
    kept
}

/// Plain RTP, with or without early feedback (RFC 3551, RFC 4585). SRTP profiles join with SRTP.
fn is_rtp(proto: &str) -> bool {
    proto.eq_ignore_ascii_case("RTP/AVP") || proto.eq_ignore_ascii_case("RTP/AVPF")
}

/// How a key frame may be asked for: PLI (RFC 4585) and FIR (RFC 5104).
fn feedback() -> Vec<RtcpFb> {
    ["nack pli", "ccm fir"].map(|value| RtcpFb { pt: None, value: value.into() }).into()
}

/// Hands out the payload types of one SDP: no number twice, also across m-lines.
#[derive(Default)]
struct Numbers {
    taken: Vec<u8>,
    /// Only for those who wish them.
    reserved: Vec<u8>,
}

impl Numbers {
    /// A codec that the door has keeps the door's number.
    fn beside(door: &Door) -> Numbers {
        let streams = door.audio.iter().chain(&door.video);
        Numbers { taken: Vec::new(), reserved: streams.flat_map(|stream| &stream.payloads).map(|p| p.pt).collect() }
    }

    /// The static number of the codec, else the wished one if it is dynamic and free, else the customary 101 for
    /// telephone-event, else the next free dynamic one.
    fn take(&mut self, codec: Codec, wished: Option<u8>) -> u8 {
        let customary = codec.is_telephone_event().then_some(101);
        let free = customary.into_iter().chain(96..=127).filter(|pt| !self.reserved.contains(pt));
        let mut dynamic = wished.into_iter().chain(free).filter(|pt| *pt >= 96 && !self.taken.contains(pt));
        let pt = codec.static_pt().or_else(|| dynamic.next()).unwrap_or(127);
        self.taken.push(pt);
        pt
    }
}

impl Sdp {
    /// An SDP of ours without m-lines.
    fn ours(local: &Local) -> Sdp {
        Sdp {
            origin: Origin {
                username: "doorline".into(),
                session_id: local.session_id.to_string(),
                version: local.version.to_string(),
                address: Connection::Ip(local.ip),
            },
            session_name: "-".into(),
            connection: Some(Connection::Ip(local.ip)),
            direction: None,
            attributes: Vec::new(),
            media: Vec::new(),
        }
    }
}

impl Media {
    fn new(kind: Kind, port: u16, proto: &str) -> Media {
        Media {
            kind,
            port,
            proto: proto.to_owned(),
            formats: Vec::new(),
            connection: None,
            direction: None,
            rtpmap: Vec::new(),
            fmtp: Vec::new(),
            rtcp_fb: Vec::new(),
            rtcp: None,
            rtcp_mux: false,
            ptime: None,
            attributes: Vec::new(),
        }
    }

    fn offered(kind: Kind, port: u16, direction: Direction) -> Media {
        Media { direction: Some(direction), ..Media::new(kind, port, "RTP/AVP") }
    }

    /// The declined form of an offered m-line: port 0 and one of its formats, which nobody reads (RFC 3264 §6).
    fn decline(&self) -> Media {
        let format = self.formats.first().map_or("0", String::as_str);
        Media { formats: vec![format.to_owned()], ..Media::new(self.kind.clone(), 0, &self.proto) }
    }

    /// Only offered feedback may be answered (RFC 4585 §4.2).
    fn offers_feedback(&self, wanted: &RtcpFb) -> bool {
        self.rtcp_fb.iter().any(|fb| fb.value.eq_ignore_ascii_case(&wanted.value))
    }
}
