//! [`Sdp`] → text (RFC 8866 §5). The one place that writes session descriptions.
//!
//! Fixed line order, CRLF, and no value can start a line of its own: CR and LF inside values are left out.

use std::fmt::{self, Display, Write};
use std::net::IpAddr;

use super::{Connection, Kind, Media, Sdp};

impl Display for Sdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = Lines(f);
        let o = &self.origin;
        out.line(format_args!("v=0"))?;
        out.line(format_args!("o={} {} {} {}", o.username, o.session_id, o.version, o.address))?;
        out.line(format_args!("s={}", self.session_name))?;
        if let Some(connection) = &self.connection {
            out.line(format_args!("c={connection}"))?;
        }
        out.line(format_args!("t=0 0"))?;
        if let Some(direction) = self.direction {
            out.line(format_args!("a={}", direction.as_str()))?;
        }
        for attribute in &self.attributes {
            out.attribute(&attribute.name, attribute.value.as_deref())?;
        }
        self.media.iter().try_for_each(|media| out.media(media))
    }
}

impl Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Connection::Ip(IpAddr::V4(ip)) => write!(f, "IN IP4 {ip}"),
            Connection::Ip(IpAddr::V6(ip)) => write!(f, "IN IP6 {ip}"),
            Connection::Name(name) => write!(f, "IN IP4 {name}"),
        }
    }
}

impl Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Audio => "audio",
            Kind::Video => "video",
            Kind::Other(name) => name,
        })
    }
}

struct Lines<'a, 'b>(&'a mut fmt::Formatter<'b>);

/// Passes everything on but line ends.
struct OneLine<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for OneLine<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.split(['\r', '\n']).try_for_each(|part| self.0.write_str(part))
    }
}

impl Lines<'_, '_> {
    fn line(&mut self, line: fmt::Arguments<'_>) -> fmt::Result {
        OneLine(self.0).write_fmt(line)?;
        self.0.write_str("\r\n")
    }

    fn attribute(&mut self, name: &str, value: Option<&str>) -> fmt::Result {
        match value {
            Some(value) => self.line(format_args!("a={name}:{value}")),
            None => self.line(format_args!("a={name}")),
        }
    }

    fn media(&mut self, m: &Media) -> fmt::Result {
        self.line(format_args!("m={} {} {} {}", m.kind, m.port, m.proto, m.formats.join(" ")))?;
        if let Some(connection) = &m.connection {
            self.line(format_args!("c={connection}"))?;
        }
        for map in &m.rtpmap {
            let (pt, encoding, clock) = (map.pt, &map.encoding, map.clock);
            match map.channels {
                Some(n) => self.line(format_args!("a=rtpmap:{pt} {encoding}/{clock}/{n}"))?,
                None => self.line(format_args!("a=rtpmap:{pt} {encoding}/{clock}"))?,
            }
        }
        for fmtp in &m.fmtp {
            self.line(format_args!("a=fmtp:{} {}", fmtp.pt, fmtp.params))?;
        }
        for fb in &m.rtcp_fb {
            match fb.pt {
                Some(pt) => self.line(format_args!("a=rtcp-fb:{pt} {}", fb.value))?,
                None => self.line(format_args!("a=rtcp-fb:* {}", fb.value))?,
            }
        }
        if let Some(rtcp) = &m.rtcp {
            match &rtcp.connection {
                Some(at) => self.line(format_args!("a=rtcp:{} {at}", rtcp.port))?,
                None => self.line(format_args!("a=rtcp:{}", rtcp.port))?,
            }
        }
        if m.rtcp_mux {
            self.line(format_args!("a=rtcp-mux"))?;
        }
        if let Some(ptime) = m.ptime {
            self.line(format_args!("a=ptime:{ptime}"))?;
        }
        if let Some(direction) = m.direction {
            self.line(format_args!("a={}", direction.as_str()))?;
        }
        for attribute in &m.attributes {
            self.attribute(&attribute.name, attribute.value.as_deref())?;
        }
        Ok(())
    }
}
