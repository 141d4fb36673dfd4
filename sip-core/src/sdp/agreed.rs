//! What offer and answer left of one leg: per medium a [`Stream`], in our view (RFC 3264 §6, §7, §8.4).

use std::net::{IpAddr, SocketAddr};

use super::{Connection, Direction, Kind, Media, Payload, Refuse, Sdp};

/// What offer and answer left of one medium, in our view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Number of the m-line, from 0.
    pub index: usize,
    /// Usable payload types with the peer's parameters, the one to send with first (per codec).
    pub payloads: Vec<Payload>,
    /// Where RTP goes by SDP; `None` for a domain name (never resolved) or an unspecified address.
    pub remote: Option<SocketAddr>,
    /// Where RTCP goes by SDP: `a=rtcp`, else RTP port + 1 (RFC 3605, RFC 3550 §11).
    pub remote_rtcp: Option<SocketAddr>,
    /// RTCP shares the RTP port in both directions (RFC 5761).
    pub rtcp_mux: bool,
    /// The peer makes ICE checks, and has what it needs for that.
    pub ice: bool,
    /// We may send to the peer. False while it holds, by direction or by the address 0.0.0.0 (RFC 3264 §8.4).
    pub send: bool,
    /// The peer may send to us.
    pub receive: bool,
}

/// What offer and answer left of one leg.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agreed {
    pub audio: Option<Stream>,
    pub video: Option<Stream>,
    /// Numbers of the offered m-lines that carry nothing, declined by whichever side.
    pub declined: Vec<usize>,
}

/// The anchor of a session.
pub type Door = Agreed;
/// One of those behind it.
pub type Member = Agreed;

impl Stream {
    /// The audio or video format, without telephone-event.
    pub fn main(&self) -> Option<&Payload> {
        self.payloads.iter().find(|p| !p.codec.is_telephone_event())
    }

    /// `direction` is ours; addresses are the peer's.
    pub(super) fn with(index: usize, peer: &Sdp, media: &Media, payloads: Vec<Payload>, direction: Direction) -> Stream {
        let connection = media.connection.as_ref().or(peer.connection.as_ref());
        let ip = connection.and_then(Connection::ip);
        let held = ip.is_some_and(|ip| ip.is_unspecified());
        let at = |ip: Option<IpAddr>, port: u16| {
            let ip = ip.filter(|ip| !ip.is_unspecified())?;
            (port != 0).then(|| SocketAddr::new(ip, port))
        };
        let remote_rtcp = match &media.rtcp {
            Some(rtcp) => at(rtcp.connection.as_ref().map_or(ip, Connection::ip), rtcp.port),
            None => at(ip, media.port.wrapping_add(1)),
        };
        Stream {
            index,
            payloads,
            remote: at(ip, media.port),
            remote_rtcp,
            rtcp_mux: false,
            ice: false,
            send: direction.sends() && !held,
            receive: direction.receives(),
        }
    }
}

impl Agreed {
    pub(super) fn of(&self, kind: &Kind) -> Option<&Stream> {
        match kind {
            Kind::Audio => self.audio.as_ref(),
            Kind::Video => self.video.as_ref(),
            Kind::Other(_) => None,
        }
    }

    pub(super) fn put(&mut self, kind: &Kind, index: usize, stream: Option<Stream>) {
        match (kind, stream) {
            (Kind::Audio, Some(stream)) => self.audio = Some(stream),
            (Kind::Video, Some(stream)) => self.video = Some(stream),
            (_, None) | (Kind::Other(_), Some(_)) => self.declined.push(index),
        }
    }

    pub(super) fn usable(self) -> Result<Agreed, Refuse> {
        match (&self.audio, &self.video) {
            (None, None) => Err(Refuse::NothingInCommon),
            _ => Ok(self),
        }
    }
}
