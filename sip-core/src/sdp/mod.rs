//! Session descriptions: reading, writing, offer/answer (RFC 8866, 3264, 4566 in the field; spec sip.md §3, §4).
//!
//! - [`Sdp`] is the model: what offer/answer needs is typed, every other attribute is kept raw and in order.
//! - `read` is lenient: LF-only lines, Latin-1 text and a free-form `o=` are fine; sizes are bounded; no input panics.
//! - `write` is the one place that writes SDP. The same model always gives the same bytes, with CRLF.
//! - `codec` knows the payload formats, `negotiate` agrees on streams: one anchor (the door), many members (D-04);
//!   `agreed` is what comes of it, in the words the media plane needs.
//!
//! Invariant: an answer has the m-lines of its offer, same number, same order (RFC 3264 §6).

mod agreed;
mod codec;
mod negotiate;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::net::IpAddr;

pub use agreed::{Agreed, Door, Member, Stream};
pub use codec::{Codec, H264, Payload};
pub use negotiate::{
    Local, Refuse, Supported, answer, answer_door, answer_door_again, answer_member, offer, offer_door, offer_member, read_answer,
};
pub use read::SdpError;

/// Longest session description that is read, in bytes.
pub const MAX_BYTES: usize = 64 * 1024;
/// Most m-lines that are read. (A video call has two.)
pub const MAX_MEDIA: usize = 32;
/// Most formats, and most rtpmap and fmtp lines, that are read of one m-line: there are no more payload types.
pub const MAX_FORMATS: usize = 128;

/// A session description. Lines nobody here acts on (`i= u= e= p= b= t= r= z= k=`) are not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sdp {
    pub origin: Origin,
    pub session_name: String,
    /// Session-level `c=`; a media-level one overrides it.
    pub connection: Option<Connection>,
    /// Session-level direction; a media-level one overrides it.
    pub direction: Option<Direction>,
    /// All other session-level attributes, in order.
    pub attributes: Vec<Attribute>,
    pub media: Vec<Media>,
}

/// `o=`. Session id and version are text: devices write words and numbers beyond 64 bits there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub username: String,
    pub session_id: String,
    pub version: String,
    pub address: Connection,
}

/// The address of a `c=`, `o=` or `a=rtcp` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    Ip(IpAddr),
    /// A domain name or something unreadable. Never resolved: a name in a message must not cost a DNS query.
    Name(String),
}

/// An attribute that is kept as it came: `a=name` or `a=name:value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    pub name: String,
    pub value: Option<String>,
}

/// The media type of an m-line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Audio,
    Video,
    /// `text`, `application`, `image` … : always declined.
    Other(String),
}

/// One m-line and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    pub kind: Kind,
    /// RTP port; 0 = declined or switched off (RFC 3264 §6, §8.2).
    pub port: u16,
    /// The transport profile as written, e.g. `RTP/AVP`.
    pub proto: String,
    /// Formats as written; payload types for RTP.
    pub formats: Vec<String>,
    pub connection: Option<Connection>,
    /// `None`: the session's, which defaults to sendrecv. See [`Sdp::direction_of`].
    pub direction: Option<Direction>,
    pub rtpmap: Vec<RtpMap>,
    pub fmtp: Vec<Fmtp>,
    pub rtcp_fb: Vec<RtcpFb>,
    pub rtcp: Option<Rtcp>,
    pub rtcp_mux: bool,
    /// Milliseconds of media per packet that the writer of this SDP likes to receive.
    pub ptime: Option<u32>,
    /// All other attributes, in order.
    pub attributes: Vec<Attribute>,
}

/// `a=rtpmap:<pt> <encoding>/<clock>[/<channels>]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtpMap {
    pub pt: u8,
    pub encoding: String,
    /// RTP clock rate in Hz.
    pub clock: u32,
    pub channels: Option<u8>,
}

/// `a=fmtp:<pt> <params>`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fmtp {
    pub pt: u8,
    pub params: String,
}

/// `a=rtcp-fb:<pt|*> <value>` (RFC 4585 §4.2)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtcpFb {
    /// `None` is `*`.
    pub pt: Option<u8>,
    pub value: String,
}

/// `a=rtcp:<port> [IN IP4 <address>]` (RFC 3605)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rtcp {
    pub port: u16,
    pub connection: Option<Connection>,
}

/// One side's `a=ice-ufrag` and `a=ice-pwd` (RFC 8839 §5.4).
#[derive(Clone, PartialEq, Eq)]
pub struct Ice {
    pub ufrag: String,
    pub pwd: String,
}

/// Without the password.
impl std::fmt::Debug for Ice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ice").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

/// Direction from the view of the one who wrote it (RFC 3264 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

impl Direction {
    /// The direction of one who sends and receives as given.
    pub fn of(send: bool, receive: bool) -> Direction {
        match (send, receive) {
            (true, true) => Direction::SendRecv,
            (true, false) => Direction::SendOnly,
            (false, true) => Direction::RecvOnly,
            (false, false) => Direction::Inactive,
        }
    }

    pub fn sends(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::SendOnly)
    }

    pub fn receives(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::RecvOnly)
    }

    /// What one who is `willing` can answer to a peer that says `self` (RFC 3264 §6.1).
    pub fn answered_by(self, willing: Direction) -> Direction {
        Direction::of(willing.sends() && self.receives(), willing.receives() && self.sends())
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Direction::SendRecv => "sendrecv",
            Direction::SendOnly => "sendonly",
            Direction::RecvOnly => "recvonly",
            Direction::Inactive => "inactive",
        }
    }

    fn parse(word: &str) -> Option<Direction> {
        match word {
            "sendrecv" => Some(Direction::SendRecv),
            "sendonly" => Some(Direction::SendOnly),
            "recvonly" => Some(Direction::RecvOnly),
            "inactive" => Some(Direction::Inactive),
            _ => None,
        }
    }
}

impl Sdp {
    /// Reads a session description; lenient, bounded, never panics.
    ///
    /// Errors: [`SdpError`] when it is too long, is no SDP, or an m-line cannot be placed.
    pub fn parse(bytes: &[u8]) -> Result<Sdp, SdpError> {
        read::parse(bytes)
    }

    /// The direction of an m-line, inherited from the session where it says none (RFC 8866 §6.7).
    pub fn direction_of(&self, media: &Media) -> Direction {
        media.direction.or(self.direction).unwrap_or(Direction::SendRecv)
    }

    /// What its writer calls itself in ICE, if it offers ICE at all. Another name than before restarts it (RFC 8445 §9).
    pub fn ice_ufrag(&self) -> Option<&str> {
        self.media.iter().find_map(|media| self.ice_of(media))
    }

    /// The same for one m-line, which inherits both attributes from the session (RFC 8839 §5.4).
    fn ice_of<'a>(&'a self, media: &'a Media) -> Option<&'a str> {
        let find = |name: &str| {
            let both = media.attributes.iter().chain(&self.attributes);
            both.filter(|attribute| attribute.name == name).find_map(|attribute| attribute.value.as_deref())
        };
        find("ice-pwd").and(find("ice-ufrag"))
    }

    /// Whether both say the same apart from the version in `o=`. Then the former one is to be repeated as it was:
    /// the version rises with each change and only then (RFC 3264 §8).
    pub fn says_the_same(&self, other: &Sdp) -> bool {
        let mut other = other.clone();
        other.origin.version.clone_from(&self.origin.version);
        *self == other
    }
}

impl Connection {
    /// The address, if it is one; a domain name is none.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Connection::Ip(ip) => Some(*ip),
            Connection::Name(_) => None,
        }
    }
}
