//! Every reason a datagram is not forwarded: a name and a counter each.

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Drop {
    /// Too short or another version: not RTP.
    NotRtp,
    /// A STUN message on a media port; phones send them even with ICE off.
    Stun,
    /// RTCP where RTP belongs, or the other way round.
    NotRtcp,
    /// RTCP of which a part is malformed.
    BadRtcp,
    /// From an address this leg may not send from (D-17).
    ForeignSource,
    /// Another SSRC from the right address, not yet confirmed by a second packet (D-17).
    NewSource,
    /// A payload type that was not negotiated.
    PayloadType,
    /// The leg's SDP does not let it send.
    NotReceiving,
    /// Of a member, before the answer or without the floor (D-05).
    NotTalking,
    /// A member's video: there is no one to show it to.
    MemberVideo,
    /// Video for a sink that waits for a key frame.
    BeforeKeyFrame,
    /// The sink has no payload type for this codec, and none that it could be converted to.
    NoCodec,
    /// The sink's SDP lets us send nothing.
    NotSending,
    /// Nobody knows where the sink is.
    NoAddress,
    /// Audio to be converted that its codec cannot read, or more than 200 ms of it.
    Undecodable,
    /// Behind what has been converted or told already.
    Late,
    /// A telephone-event too short to be one (RFC 4733 §2.3).
    BadEvent,
    /// A telephone-event that is none of the 16 signals: a flash, a modem's tone.
    NotADigit,
    /// More presses than fingers make.
    EventFlood,
    /// The talker's sound while a digit of his goes to the anchor, or digits behind a full queue.
    DuringDigit,
}

impl Drop {
    pub const ALL: [Drop; 20] = [
        Drop::NotRtp,
        Drop::Stun,
        Drop::NotRtcp,
        Drop::BadRtcp,
        Drop::ForeignSource,
        Drop::NewSource,
        Drop::PayloadType,
        Drop::NotReceiving,
        Drop::NotTalking,
        Drop::MemberVideo,
        Drop::BeforeKeyFrame,
        Drop::NoCodec,
        Drop::NotSending,
        Drop::NoAddress,
        Drop::Undecodable,
        Drop::Late,
        Drop::BadEvent,
        Drop::NotADigit,
        Drop::EventFlood,
        Drop::DuringDigit,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Drop::NotRtp => "not_rtp",
            Drop::Stun => "stun",
            Drop::NotRtcp => "not_rtcp",
            Drop::BadRtcp => "bad_rtcp",
            Drop::ForeignSource => "foreign_source",
            Drop::NewSource => "new_source",
            Drop::PayloadType => "payload_type",
            Drop::NotReceiving => "not_receiving",
            Drop::NotTalking => "not_talking",
            Drop::MemberVideo => "member_video",
            Drop::BeforeKeyFrame => "before_key_frame",
            Drop::NoCodec => "no_codec",
            Drop::NotSending => "not_sending",
            Drop::NoAddress => "no_address",
            Drop::Undecodable => "undecodable",
            Drop::Late => "late",
            Drop::BadEvent => "bad_event",
            Drop::NotADigit => "not_a_digit",
            Drop::EventFlood => "event_flood",
            Drop::DuringDigit => "during_digit",
        }
    }
}

/// A counter per reason.
#[derive(Clone, Debug, Default)]
pub struct Drops([u64; Drop::ALL.len()]);

impl Drops {
    pub fn count(&mut self, drop: Drop) {
        self.0[drop as usize] += 1;
    }

    /// Those that are not zero, in a fixed order.
    pub fn list(&self) -> Vec<(&'static str, u64)> {
        Drop::ALL.iter().map(|drop| (drop.name(), self.0[*drop as usize])).filter(|(_, count)| *count > 0).collect()
    }
}
