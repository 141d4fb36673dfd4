//! Bytes → [`Sdp`] (RFC 8866 §5, §9), lenient: what devices write is taken as long as its meaning is plain.
//!
//! Invariants: an m-line is never skipped (an answer must mirror all of them); a broken attribute stays a raw
//! attribute; no value contains CR or LF, so nothing read here can add a line to what is written later.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use super::{
    Attribute, Connection, Direction, Fmtp, Kind, MAX_BYTES, MAX_FORMATS, MAX_MEDIA, Media, Origin, Rtcp, RtcpFb, RtpMap, Sdp,
};

/// Why a body is not taken as SDP; the SIP answer is 488 in a request, and the leg's end in a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    #[error("session description longer than {MAX_BYTES} bytes")]
    TooLong,
    #[error("more than {MAX_MEDIA} m-lines")]
    TooManyMedia,
    #[error("body does not begin with v=")]
    NotSdp,
    #[error("unreadable m-line on line {line}")]
    BadMedia { line: usize },
}

pub(super) fn parse(bytes: &[u8]) -> Result<Sdp, SdpError> {
    if bytes.len() > MAX_BYTES {
        return Err(SdpError::TooLong);
    }
    let mut sdp = Sdp {
        origin: Origin::default(),
        session_name: "-".into(),
        connection: None,
        direction: None,
        attributes: Vec::new(),
        media: Vec::new(),
    };
    // A lone CR ends a line too: left inside a value, some phone would read it as a line end later.
    let lines = bytes.split(|b| *b == b'\n' || *b == b'\r').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    if !lines.clone().next().is_some_and(|first| first.starts_with(b"v=")) {
        return Err(SdpError::NotSdp);
    }
    for (number, line) in lines.enumerate() {
        let [kind, b'=', value @ ..] = line else {
            continue;
        };
        let value = text(value);
        match (*kind, sdp.media.last_mut()) {
            (b'm', _) => {
                if sdp.media.len() == MAX_MEDIA {
                    return Err(SdpError::TooManyMedia);
                }
                let media = media(&value).ok_or(SdpError::BadMedia { line: number + 1 })?;
                sdp.media.push(media);
            }
            (b'c', Some(media)) if media.connection.is_none() => {
                media.connection = connection(&value);
            }
            (b'a', Some(media)) => media_attribute(media, &value),
            (b'o', None) => sdp.origin = origin(&value),
            (b's', None) => sdp.session_name = value,
            (b'c', None) => sdp.connection = connection(&value),
            (b'a', None) => match Direction::parse(&value) {
                Some(direction) => sdp.direction = Some(direction),
                None => sdp.attributes.extend(attribute(&value)),
            },
            _ => {}
        }
    }
    if sdp.session_name.is_empty() {
        sdp.session_name = "-".into();
    }
    Ok(sdp)
}

impl Default for Origin {
    /// What is assumed where a device sends no `o=`, or an unreadable one.
    fn default() -> Origin {
        Origin {
            username: "-".into(),
            session_id: "0".into(),
            version: "0".into(),
            address: Connection::Ip(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        }
    }
}

/// UTF-8, or else Latin-1, which every byte string is.
fn text(bytes: &[u8]) -> String {
    let bytes = bytes.trim_ascii();
    match std::str::from_utf8(bytes) {
        Ok(utf8) => utf8.to_owned(),
        Err(_) => bytes.iter().map(|b| char::from(*b)).collect(),
    }
}

/// Read from the right: user names with blanks occur.
fn origin(value: &str) -> Origin {
    let words: Vec<&str> = value.split_ascii_whitespace().collect();
    let [username @ .., session_id, version, _net, _family, address] = words.as_slice() else {
        return Origin::default();
    };
    Origin {
        username: if username.is_empty() { "-".into() } else { username.join(" ") },
        session_id: (*session_id).into(),
        version: (*version).into(),
        address: host(address),
    }
}

/// `IN IP4 <address>[/<ttl>[/<count>]]`
fn connection(value: &str) -> Option<Connection> {
    value.split_ascii_whitespace().nth(2).map(host)
}

fn host(word: &str) -> Connection {
    let address = word.split('/').next().unwrap_or(word);
    match address.parse() {
        Ok(ip) => Connection::Ip(ip),
        Err(_) => Connection::Name(word.to_owned()),
    }
}

/// `<kind> <port>[/<count>] <proto> <fmt> …`
fn media(value: &str) -> Option<Media> {
    let mut words = value.split_ascii_whitespace();
    let kind = words.next()?;
    let port = words.next()?.split('/').next()?.parse().ok()?;
    let proto = words.next()?.to_owned();
    Some(Media {
        kind: if kind.eq_ignore_ascii_case("audio") {
            Kind::Audio
        } else if kind.eq_ignore_ascii_case("video") {
            Kind::Video
        } else {
            Kind::Other(kind.to_owned())
        },
        port,
        proto,
        formats: words.take(MAX_FORMATS).map(str::to_owned).collect(),
        connection: None,
        direction: None,
        rtpmap: Vec::new(),
        fmtp: Vec::new(),
        rtcp_fb: Vec::new(),
        rtcp: None,
        rtcp_mux: false,
        ptime: None,
        attributes: Vec::new(),
    })
}

fn media_attribute(media: &mut Media, value: &str) {
    if typed_attribute(media, value).is_none() {
        media.attributes.extend(attribute(value));
    }
}

/// Stores an attribute that has a field of its own; `None` if it has none or cannot be read.
fn typed_attribute(media: &mut Media, line: &str) -> Option<()> {
    if let Some(direction) = Direction::parse(line) {
        media.direction = Some(direction);
        return Some(());
    }
    if line == "rtcp-mux" {
        media.rtcp_mux = true;
        return Some(());
    }
    let (name, value) = line.split_once(':')?;
    let value = value.trim_ascii();
    match name {
        "rtpmap" if media.rtpmap.len() < MAX_FORMATS => media.rtpmap.push(rtpmap(value)?),
        "fmtp" if media.fmtp.len() < MAX_FORMATS => {
            let (pt, params) = number_then_text(value)?;
            media.fmtp.push(Fmtp { pt, params });
        }
        "rtcp-fb" if media.rtcp_fb.len() < MAX_FORMATS => {
            let (pt, value) = match value.strip_prefix("* ") {
                Some(value) => (None, value.trim_ascii().to_owned()),
                None => number_then_text(value).map(|(pt, text)| (Some(pt), text))?,
            };
            media.rtcp_fb.push(RtcpFb { pt, value });
        }
        "rtcp" => {
            let (port, rest) = value.split_once(' ').unwrap_or((value, ""));
            media.rtcp = Some(Rtcp { port: port.parse().ok()?, connection: connection(rest) });
        }
        "ptime" => media.ptime = Some(value.parse().ok()?),
        _ => return None,
    }
    Some(())
}

fn number_then_text<N: FromStr>(value: &str) -> Option<(N, String)> {
    let (number, text) = value.split_once(' ')?;
    Some((number.parse().ok()?, text.trim_ascii().to_owned()))
}

fn rtpmap(value: &str) -> Option<RtpMap> {
    let (pt, map) = number_then_text(value)?;
    let mut parts = map.split('/');
    let map = RtpMap {
        pt,
        encoding: parts.next()?.to_owned(),
        clock: parts.next()?.parse().ok()?,
        channels: parts.next().map(str::parse).transpose().ok()?,
    };
    (parts.next().is_none() && !map.encoding.is_empty()).then_some(map)
}

fn attribute(line: &str) -> Option<Attribute> {
    let (name, value) = match line.split_once(':') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (line, None),
    };
    (!name.is_empty()).then(|| Attribute { name: name.to_owned(), value })
}
