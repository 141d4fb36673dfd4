//! Every reason a datagram is not forwarded: a name and a counter each.

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Drop {
    /// Another version: not RTP.
    NotRtp,
    /// RTP that ends before its header does.
    Truncated,
    /// Longer than any media datagram; its end is cut off already.
    Oversized,
    /// A STUN message that is no Binding request.
    Stun,
    /// An ICE check that does not know the password of this leg (RFC 8445 §7.3).
    StunIntegrity,
    /// RTCP where RTP belongs, or the other way round.
    NotRtcp,
    /// RTCP of which a part is malformed.
    BadRtcp,
    /// From an address this leg may not send from (D-17).
    ForeignSource,
    /// What the former call of this port still sends (D-18).
    FormerCall,
    /// Another SSRC from the right address, not yet confirmed by a second packet (D-17).
    NewSource,
    /// A sequence number far from the last one, not yet confirmed by the next (RFC 3550 §A.1).
    SequenceJump,
    /// A sequence number that was here already: doubled on the way, or replayed.
    Duplicate,
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
    /// It went to the sink, but its socket was full, or the system refused it.
    NotSent,
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
    /// A telephone-event that signalling decides about, or of a talker who may not open the door.
    KeyHeldBack,
}

impl Drop {
    pub const ALL: [Drop; 28] = [
        Drop::NotRtp,
        Drop::Truncated,
        Drop::Oversized,
        Drop::Stun,
        Drop::StunIntegrity,
        Drop::NotRtcp,
        Drop::BadRtcp,
        Drop::ForeignSource,
        Drop::FormerCall,
        Drop::NewSource,
        Drop::SequenceJump,
        Drop::Duplicate,
        Drop::PayloadType,
        Drop::NotReceiving,
        Drop::NotTalking,
        Drop::MemberVideo,
        Drop::BeforeKeyFrame,
        Drop::NoCodec,
        Drop::NotSending,
        Drop::NoAddress,
        Drop::NotSent,
        Drop::Undecodable,
        Drop::Late,
        Drop::BadEvent,
        Drop::NotADigit,
        Drop::EventFlood,
        Drop::DuringDigit,
        Drop::KeyHeldBack,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Drop::NotRtp => "not_rtp",
            Drop::Truncated => "truncated",
            Drop::Oversized => "oversized",
            Drop::Stun => "stun",
            Drop::StunIntegrity => "stun_integrity",
            Drop::NotRtcp => "not_rtcp",
            Drop::BadRtcp => "bad_rtcp",
            Drop::ForeignSource => "foreign_source",
            Drop::FormerCall => "former_call",
            Drop::NewSource => "new_source",
            Drop::SequenceJump => "sequence_jump",
            Drop::Duplicate => "duplicate",
            Drop::PayloadType => "payload_type",
            Drop::NotReceiving => "not_receiving",
            Drop::NotTalking => "not_talking",
            Drop::MemberVideo => "member_video",
            Drop::BeforeKeyFrame => "before_key_frame",
            Drop::NoCodec => "no_codec",
            Drop::NotSending => "not_sending",
            Drop::NoAddress => "no_address",
            Drop::NotSent => "not_sent",
            Drop::Undecodable => "undecodable",
            Drop::Late => "late",
            Drop::BadEvent => "bad_event",
            Drop::NotADigit => "not_a_digit",
            Drop::EventFlood => "event_flood",
            Drop::DuringDigit => "during_digit",
            Drop::KeyHeldBack => "key_held_back",
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

    pub fn add(&mut self, drop: Drop, count: u64) {
        self.0[drop as usize] += count;
    }

    /// Those that are not zero, in a fixed order.
    pub fn list(&self) -> Vec<(&'static str, u64)> {
        Drop::ALL.iter().map(|drop| (drop.name(), self.0[*drop as usize])).filter(|(_, count)| *count > 0).collect()
    }
}
