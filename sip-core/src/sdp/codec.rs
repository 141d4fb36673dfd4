//! Payload formats: which codec a payload type means, and the H264 parameters (RFC 3551, 4733, 5574, 6184, 7587).
//!
//! What is not listed in [`Codec`] is ignored in an offer, never an error. `L16` (OPEN-03) is not listed.

use super::{Fmtp, Kind, Media, RtpMap};

/// A payload format Doorline can relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    Pcmu,
    Pcma,
    G722,
    Opus,
    /// Speex at 8000, 16000 or 32000 Hz.
    Speex(u32),
    /// RFC 4733, at the clock rate of the audio it goes with.
    TelephoneEvent(u32),
    H264,
}

/// The encoding name and clock rate of `a=rtpmap` (RFC 8866 §6.6).
impl std::fmt::Display for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self {
            Codec::Pcmu => "PCMU",
            Codec::Pcma => "PCMA",
            Codec::G722 => "G722",
            Codec::Opus => "opus",
            Codec::Speex(_) => "speex",
            Codec::TelephoneEvent(_) => "telephone-event",
            Codec::H264 => "H264",
        };
        write!(f, "{name}/{}", self.clock())
    }
}

/// A payload type of one leg and what it means there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// 0–127.
    pub pt: u8,
    pub codec: Codec,
    /// Parameters as the writer of the SDP gave them.
    pub fmtp: Option<String>,
}

impl Codec {
    /// RTP clock rate in Hz. G722 counts 8000 although it samples 16000 (RFC 3551 §4.5.2).
    pub fn clock(self) -> u32 {
        match self {
            Codec::Pcmu | Codec::Pcma | Codec::G722 => 8000,
            Codec::Opus => 48000,
            Codec::Speex(hz) | Codec::TelephoneEvent(hz) => hz,
            Codec::H264 => 90000,
        }
    }

    pub fn is_video(self) -> bool {
        self == Codec::H264
    }

    pub fn is_telephone_event(self) -> bool {
        matches!(self, Codec::TelephoneEvent(_))
    }

    /// The payload type fixed by RFC 3551 §6, if there is one.
    pub fn static_pt(self) -> Option<u8> {
        match self {
            Codec::Pcmu => Some(0),
            Codec::Pcma => Some(8),
            Codec::G722 => Some(9),
            _ => None,
        }
    }

    fn of_static_pt(pt: u8) -> Option<Codec> {
        [Codec::Pcmu, Codec::Pcma, Codec::G722].into_iter().find(|codec| codec.static_pt() == Some(pt))
    }

    fn of_rtpmap(map: &RtpMap) -> Option<Codec> {
        let mono = matches!(map.channels, None | Some(1));
        match (map.encoding.to_ascii_lowercase().as_str(), map.clock, map.channels) {
            ("pcmu", 8000, _) if mono => Some(Codec::Pcmu),
            ("pcma", 8000, _) if mono => Some(Codec::Pcma),
            // baresip writes the sampling rate instead of the RTP clock.
            ("g722", 8000 | 16000, _) if mono => Some(Codec::G722),
            // "opus/48000/2" whatever is sent (RFC 7587 §7); the channels are sometimes forgotten.
            ("opus", 48000, None | Some(2)) => Some(Codec::Opus),
            ("speex", hz @ (8000 | 16000 | 32000), _) if mono => Some(Codec::Speex(hz)),
            ("telephone-event", hz @ 1.., _) => Some(Codec::TelephoneEvent(hz)),
            ("h264", 90000, _) if mono => Some(Codec::H264),
            _ => None,
        }
    }

    pub(super) fn rtpmap(self, pt: u8) -> RtpMap {
        let (encoding, channels) = match self {
            Codec::Pcmu => ("PCMU", None),
            Codec::Pcma => ("PCMA", None),
            Codec::G722 => ("G722", None),
            Codec::Opus => ("opus", Some(2)),
            Codec::Speex(_) => ("speex", None),
            Codec::TelephoneEvent(_) => ("telephone-event", None),
            Codec::H264 => ("H264", None),
        };
        RtpMap { pt, encoding: encoding.into(), clock: self.clock(), channels }
    }

    /// The parameters we state for what we receive, where nobody asks for others (spec sip.md §4.1, §4.5).
    pub(super) fn own_fmtp(self) -> Option<String> {
        match self {
            Codec::Opus => Some("useinbandfec=1".into()),
            Codec::Speex(_) => Some("vbr=on".into()),
            Codec::TelephoneEvent(_) => Some("0-15".into()),
            Codec::Pcmu | Codec::Pcma | Codec::G722 | Codec::H264 => None,
        }
    }
}

impl Media {
    /// The payload types of this m-line that Doorline can relay, in the order listed, each once. An rtpmap line
    /// overrides the static meaning of a number.
    pub fn payloads(&self) -> Vec<Payload> {
        let mut seen = 0_u128;
        let formats = self.formats.iter().filter_map(|f| f.parse::<u8>().ok());
        formats
            .filter(|pt| *pt < 128)
            .filter(|pt| {
                let bit = 1 << pt;
                let new = seen & bit == 0;
                seen |= bit;
                new
            })
            .filter_map(|pt| self.payload(pt))
            .filter(|p| match self.kind {
                Kind::Audio => !p.codec.is_video(),
                // Interleaved mode 2 reorders NAL units: nothing behind us could be offered that as 0 or 1.
                Kind::Video => p.codec.is_video() && p.h264().packetization_mode < 2,
                Kind::Other(_) => false,
            })
            .collect()
    }

    fn payload(&self, pt: u8) -> Option<Payload> {
        let codec = match self.rtpmap.iter().find(|map| map.pt == pt) {
            Some(map) => Codec::of_rtpmap(map)?,
            None => Codec::of_static_pt(pt)?,
        };
        let fmtp = self.fmtp.iter().find(|fmtp| fmtp.pt == pt);
        Some(Payload { pt, codec, fmtp: fmtp.map(|fmtp| fmtp.params.clone()) })
    }

    /// Adds a payload type: format, rtpmap (also for static types: some phones want it) and fmtp.
    pub(super) fn push_payload(&mut self, payload: &Payload) {
        let pt = payload.pt;
        self.formats.push(pt.to_string());
        self.rtpmap.push(payload.codec.rtpmap(pt));
        self.fmtp.extend(payload.fmtp.clone().map(|params| Fmtp { pt, params }));
    }
}

impl Payload {
    /// The H264 parameters of this payload type; the defaults of RFC 6184 where it states none.
    pub fn h264(&self) -> H264 {
        H264::parse(self.fmtp.as_deref().unwrap_or_default())
    }
}

/// H264 format parameters that offer/answer acts on (RFC 6184 §8.1). The others bound what their writer receives and
/// are not passed between legs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct H264 {
    /// Six hex digits as written; absent means 42000A by RFC 6184, and stays absent onward.
    pub profile_level_id: Option<String>,
    /// 0 single NAL unit (the default), 1 non-interleaved, 2 interleaved (not relayed).
    pub packetization_mode: u8,
    pub level_asymmetry_allowed: bool,
    /// Base64 SPS and PPS, comma-separated.
    pub sprop_parameter_sets: Option<String>,
}

impl H264 {
    /// Reads `fmtp` parameters. Values of a wrong form count as absent, an unreadable mode as 2, which is not relayed.
    pub fn parse(fmtp: &str) -> H264 {
        let mut h264 = H264::default();
        for param in fmtp.split(';') {
            let (name, value) = param.split_once('=').unwrap_or((param, ""));
            let value = value.trim_ascii();
            match name.trim_ascii().to_ascii_lowercase().as_str() {
                "profile-level-id" if value.len() == 6 && value.bytes().all(|b| b.is_ascii_hexdigit()) => {
                    h264.profile_level_id = Some(value.to_owned());
                }
                "packetization-mode" => h264.packetization_mode = value.parse().unwrap_or(2),
                "level-asymmetry-allowed" => h264.level_asymmetry_allowed = value == "1",
                "sprop-parameter-sets" if is_sprop(value) => {
                    h264.sprop_parameter_sets = Some(value.to_owned());
                }
                _ => {}
            }
        }
        h264
    }

    /// The `fmtp` parameters.
    pub fn to_fmtp(&self) -> String {
        let mut params = Vec::new();
        params.extend(self.profile_level_id.as_ref().map(|id| format!("profile-level-id={id}")));
        // Mode 0 is the default, but stated: side by side with a mode 1 nobody should have to guess.
        params.push(format!("packetization-mode={}", self.packetization_mode));
        if self.level_asymmetry_allowed {
            params.push("level-asymmetry-allowed=1".into());
        }
        params.extend(self.sprop_parameter_sets.as_ref().map(|sets| format!("sprop-parameter-sets={sets}")));
        params.join(";")
    }
}

fn is_sprop(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b','))
}
