//! From SDP to media: the ports of a leg and the [`LegPlan`] that its negotiated streams make.

use crate::turn::{Turn, media_leg};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use media::command::{self, Ice, LegPlan, PairId, Payload, StreamPlan, WorkerId};
use media::nat;
use sip_core::endpoint::LegId;
use sip_core::sdp::{self, Codec, Local, Sdp, Stream};
use std::net::IpAddr;

/// One stream's socket pair and the identity we send with.
#[derive(Clone, Copy, Debug)]
struct Port {
    pair: PairId,
    number: u16,
    ssrc: u32,
    seq: u16,
    timestamp: u32,
}

/// The ports of one leg, kept from its first offer to its end.
#[derive(Clone, Debug)]
pub struct LegPorts {
    leg: LegId,
    sip_source: IpAddr,
    audio: Option<Port>,
    video: Option<Port>,
    /// What we are called in ICE, and what the peer called itself then.
    ice: Option<(Ice, String)>,
}

impl LegPorts {
    /// Takes a pair per stream from one worker's stock. `None` when it has too few: nothing is taken then.
    pub fn take(
        turn: &mut Turn<'_>,
        worker: WorkerId,
        leg: LegId,
        sip_source: IpAddr,
        audio: bool,
        video: bool,
    ) -> Option<LegPorts> {
        let mut ports = LegPorts { leg, sip_source, audio: None, video: None, ice: None };
        for (wanted, video) in [(audio, false), (video, true)] {
            if !wanted {
                continue;
            }
            let Some((pair, number)) = turn.ports.take(turn.now, worker) else {
                ports.release(turn);
                turn.count("ports_exhausted");
                return None;
            };
            let tokens = turn.endpoint.tokens();
            let port = Port {
                pair,
                number,
                ssrc: tokens.random_u32(),
                // A start in the lower half: RFC 3550 wants it random, and a wrap in the first minute helps nobody.
                seq: (tokens.random_u32() & 0x7fff) as u16,
                timestamp: tokens.random_u32(),
            };
            *(if video { &mut ports.video } else { &mut ports.audio }) = Some(port);
        }
        Some(ports)
    }

    /// Names the leg once its INVITE is sent.
    pub fn belong_to(&mut self, leg: LegId) {
        self.leg = leg;
    }

    /// The leg's SIP comes from there: so may its media (D-17).
    pub fn reached_from(&mut self, ip: IpAddr) {
        self.sip_source = ip;
    }

    /// The peer offers ICE: it gets names to check us with, new ones when it starts anew (RFC 8445 §9).
    pub fn meet_ice(&mut self, turn: &mut Turn<'_>, offer: &Sdp) {
        let Some(theirs) = offer.ice_ufrag() else { return };
        if self.ice.as_ref().is_none_or(|(_, known)| known != theirs) {
            let tokens = turn.endpoint.tokens();
            // RFC 8839 §5.4: a password of at least 128 random bits; a token has 80.
            let (ufrag, pwd) = (tokens.token(), tokens.token() + &tokens.token());
            self.ice = Some((Ice { ufrag: ufrag.into(), pwd: pwd.into() }, theirs.to_owned()));
        }
    }

    /// Does the peer name an address that we cannot reach, as far as we know?
    pub fn hidden(&self, stream: &Stream) -> bool {
        stream.remote.is_some_and(|remote| nat::is_private(remote.ip()) && remote.ip() != self.sip_source)
    }

    pub fn release(&mut self, turn: &mut Turn<'_>) {
        for port in [self.audio.take(), self.video.take()].into_iter().flatten() {
            turn.ports.release(turn.now, port.pair);
        }
    }

    /// Our side of an SDP of this leg.
    pub fn local(&self, ip: IpAddr, session_id: u64, version: u64) -> Local {
        let ice = self.ice.as_ref().map(|(ice, _)| sdp::Ice { ufrag: ice.ufrag.to_string(), pwd: ice.pwd.to_string() });
        Local { ip, audio_port: self.audio.map(|p| p.number), video_port: self.video.map(|p| p.number), session_id, version, ice }
    }

    /// What media has to know; a stream the peer declined is left out.
    pub fn plan(&self, audio: Option<&Stream>, video: Option<&Stream>) -> LegPlan {
        let stream = |port: Option<Port>, stream: Option<&Stream>| {
            let (port, stream) = (port?, stream?);
            Some(StreamPlan {
                pair: port.pair,
                remote: stream.remote,
                remote_rtcp: stream.remote_rtcp,
                sip_source: self.sip_source,
                payloads: stream.payloads.iter().filter_map(|p| Some(Payload { pt: p.pt, codec: codec(p.codec)? })).collect(),
                ssrc: port.ssrc,
                first_seq: port.seq,
                first_timestamp: port.timestamp,
                send: stream.send,
                receive: stream.receive,
                parameter_sets: stream.main().map(parameter_sets).unwrap_or_default(),
                rtcp_mux: stream.rtcp_mux,
                ice: self.ice.as_ref().filter(|_| stream.ice).map(|(ice, _)| ice.clone()),
            })
        };
        LegPlan { leg: media_leg(self.leg), audio: stream(self.audio, audio), video: stream(self.video, video) }
    }
}

/// SPS and PPS of `sprop-parameter-sets` (RFC 6184 §8.1); what is no Base64 is left out.
fn parameter_sets(payload: &sdp::Payload) -> Vec<Bytes> {
    let sets = payload.h264().sprop_parameter_sets.unwrap_or_default();
    sets.split(',').filter_map(|set| STANDARD.decode(set).ok()).map(Bytes::from).collect()
}

/// What media converts, in SIP's words and media's order.
pub fn converted() -> Vec<Codec> {
    let name = |codec: &command::Codec| match codec {
        command::Codec::Pcmu => Some(Codec::Pcmu),
        command::Codec::Pcma => Some(Codec::Pcma),
        command::Codec::G722 => Some(Codec::G722),
        command::Codec::Opus => Some(Codec::Opus),
        command::Codec::Speex(hz) => Some(Codec::Speex(*hz)),
        command::Codec::TelephoneEvent(_) | command::Codec::H264 => None,
    };
    media::audio::CONVERTED.iter().filter_map(name).collect()
}

/// SIP's name of a codec in media's words.
fn codec(codec: Codec) -> Option<command::Codec> {
    Some(match codec {
        Codec::Pcmu => command::Codec::Pcmu,
        Codec::Pcma => command::Codec::Pcma,
        Codec::G722 => command::Codec::G722,
        Codec::Opus => command::Codec::Opus,
        Codec::Speex(hz) => command::Codec::Speex(hz),
        Codec::TelephoneEvent(hz) => command::Codec::TelephoneEvent(hz),
        Codec::H264 => command::Codec::H264,
    })
}
