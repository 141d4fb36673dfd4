//! The words signalling and media share: plain data, no behaviour.
//!
//! A **session** is the media of one call or view: one **anchor** (the door) and its **receivers**, a star. Everything a
//! leg needs is in its [`LegPlan`]; a new plan for the same leg replaces the old one (new SDP, hold, answer).

use crate::asking::Way;
use crate::quality::Heard;
use bytes::Bytes;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// The media of one call or view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// One leg of a session; unique in the process, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LegId(pub u64);

/// One bound RTP/RTCP socket pair of the stock (D-18): its index, not its port number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PairId(pub u32);

/// Which worker owns a pair, and so every session that uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u16);

/// The two kinds of stream a leg may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Audio,
    Video,
}

/// What a payload type carries. Packets go between legs of equal codecs with another payload type; audio is converted for a leg
/// that shares no codec (`audio/`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Codec {
    Pcmu,
    Pcma,
    G722,
    Opus,
    /// Speex at a clock rate in Hz.
    Speex(u32),
    /// RFC 4733 events at a clock rate in Hz.
    TelephoneEvent(u32),
    /// RFC 6184; the packetization mode is the same on all legs of a session (D-04), so it is not told apart here.
    H264,
}

impl Codec {
    /// RTP clock rate in Hz (RFC 3551 §6; G.722 is 8000 on the wire by its famous mistake).
    pub fn clock_rate(self) -> u32 {
        match self {
            Codec::Pcmu | Codec::Pcma | Codec::G722 => 8_000,
            Codec::Opus => 48_000,
            Codec::Speex(hz) | Codec::TelephoneEvent(hz) => hz,
            Codec::H264 => 90_000,
        }
    }

    /// Audio that is no event.
    pub fn is_sound(self) -> bool {
        !matches!(self, Codec::TelephoneEvent(_) | Codec::H264)
    }
}

/// One payload type of one stream of one leg: the same number in both directions, as negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    pub pt: u8,
    pub codec: Codec,
}

/// One stream of a leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamPlan {
    /// Our socket pair.
    pub pair: PairId,
    /// Where the peer's SDP says it receives RTP; `None` while it has not said (offer without answer).
    pub remote: Option<SocketAddr>,
    /// Where it receives RTCP (`a=rtcp`, else port + 1); `None` as above.
    pub remote_rtcp: Option<SocketAddr>,
    /// Where the leg's SIP comes from: RTP from this address may be latched (D-17).
    pub sip_source: IpAddr,
    /// Negotiated payload types, preferred first.
    pub payloads: Vec<Payload>,
    /// The identity we send with. Drawn by signalling, because the engine has no randomness.
    pub ssrc: u32,
    pub first_seq: u16,
    pub first_timestamp: u32,
    /// We send to this leg (its SDP says `sendrecv` or `recvonly`).
    pub send: bool,
    /// We take packets from this leg (its SDP says `sendrecv` or `sendonly`).
    pub receive: bool,
    /// SPS and PPS of its SDP (`sprop-parameter-sets`), for an anchor whose stream has none.
    pub parameter_sets: Vec<Bytes>,
    /// RTCP shares the RTP port, in both directions (RFC 5761).
    pub rtcp_mux: bool,
    /// Set when the peer makes ICE checks; they are judged with it.
    pub ice: Option<Ice>,
}

/// Our side of ICE on one leg (RFC 8445 §2.5, lite): what its peer must know to be believed.
#[derive(Clone, PartialEq, Eq)]
pub struct Ice {
    pub ufrag: Box<str>,
    pub pwd: Box<str>,
}

/// Without the password: a plan may be logged.
impl std::fmt::Debug for Ice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ice").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

/// Everything media knows of one leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegPlan {
    pub leg: LegId,
    pub audio: Option<StreamPlan>,
    pub video: Option<StreamPlan>,
}

/// What signalling orders. Commands of one session arrive in order, at the worker that owns its pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A session begins with its anchor. What the anchor sends goes to every receiver; nothing goes to the anchor yet.
    /// `key_frame_by`: how this door gave key frames in an earlier session.
    Open { session: SessionId, anchor: LegPlan, key_frame_by: Option<Way> },
    /// A receiver joins, or its plan changes (also the anchor's plan, by its leg id). From now on it gets the anchor's
    /// media, video from a key frame on.
    Put { session: SessionId, leg: LegPlan },
    /// The receiver whose audio (and telephone-events) goes to the anchor: the winner, later the holder of the floor
    /// (D-05: nobody before the answer).
    Talk { session: SessionId, leg: Option<LegId> },
    /// The anchor hears a ringback tone, until it is switched off or somebody talks (D-03).
    Ringback { session: SessionId, on: bool },
    /// Somebody asked for a key frame by signalling (RFC 5168); the same gate as for all who ask.
    AskKeyFrame { session: SessionId },
    /// The picture as it is now; comes back as [`Event::Picture`].
    TakePicture { session: SessionId },
    /// The call is answered: from now on the anchor and whoever talks are expected to send. The one who stays silent for so
    /// long is told with [`Event::Silent`]; who holds, or only listens by its SDP, is not expected to.
    Watch { session: SessionId, silence: Duration },
    /// Do the talker's telephone-events reach the anchor (D-27)? They do until this says otherwise. A `*` never does by itself: it
    /// opens doors, so signalling decides and says [`Command::Press`].
    Keys { session: SessionId, pass: bool },
    /// The talker pressed a key by other means than its media (SIP INFO): it goes to the anchor as RFC 4733 events of this
    /// length. Of a leg that does not talk it goes nowhere (D-05).
    Press { session: SessionId, leg: LegId, digit: char, length: Duration },
    /// A receiver leaves; its counters come back in a last [`Event::Report`].
    Remove { session: SessionId, leg: LegId },
    /// The session ends; its counters come back in a last [`Event::Report`] with `last: true`.
    Close { session: SessionId },
}

/// What media tells signalling.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The first RTP packet of the anchor arrived: it heard our 183 (D-02).
    AnchorHeard { session: SessionId },
    /// The first complete key frame of the anchor arrived (D-20).
    FirstKeyFrame { session: SessionId, at: Instant },
    /// The anchor is to be asked for a key frame by signalling: it hears no RTCP.
    KeyFrameWanted { session: SessionId },
    /// How this anchor gives key frames, now that it is known; for [`Command::Open`] of its next session.
    KeyFrameBy { session: SessionId, way: Way },
    /// What [`Command::TakePicture`] took; `None`: no complete key frame has come.
    Picture { session: SessionId, picture: Option<Picture> },
    /// The first packet of a key frame left for this leg (D-20).
    FirstVideo { session: SessionId, leg: LegId, at: Instant },
    /// A leg that should send has not been heard for as long as [`Command::Watch`] says, neither RTP nor RTCP.
    Silent { session: SessionId, leg: LegId },
    /// A leg pressed one of the 16 keys: once per press, with the first packet of it that arrived. What it may do is decided by
    /// signalling; to the anchor it went only if this leg talks.
    Digit { session: SessionId, leg: LegId, digit: char },
    /// Counters of a session: once a second while it changes, and once at the end.
    Report { session: SessionId, legs: Vec<LegReport>, last: bool },
    /// An idle pair received something: it must rest on (D-18). At most once a second per pair.
    Noise { pair: PairId },
}

/// The last complete key frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// When its last packet came.
    pub at: Instant,
    /// SPS, PPS and slices as a byte stream (H.264 annex B).
    pub annex_b: Bytes,
}

/// Counters of one leg since it joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegReport {
    pub leg: LegId,
    pub audio: StreamReport,
    pub video: StreamReport,
}

/// Counters of one stream. "In" is what the peer sent to us, "out" what we sent to it; RTP only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamReport {
    pub packets_in: u64,
    pub bytes_in: u64,
    pub packets_out: u64,
    pub bytes_out: u64,
    /// Where packets for the peer go now.
    pub sends_to: Option<SocketAddr>,
    /// Packets of the peer that never came, by their numbers; and its jitter, in clock units.
    pub lost_in: i64,
    pub jitter_in: u32,
    /// What the peer says of what we send.
    pub heard: Option<Heard>,
    /// Video of an anchor: complete key frames, and those that lost a packet on the way.
    pub key_frames: u64,
    pub key_frames_broken: u64,
    /// Something of the peer arrived from a place it may send from: RTP, RTCP or a STUN request.
    pub alive: bool,
    /// Named drops (`drop.rs`), only those that are not zero, in a fixed order.
    pub drops: Vec<(&'static str, u64)>,
}
