//! Addresses that a peer names and that nothing may be sent to: a Contact, or the `c=` and port of its SDP.
//!
//! Requests and answers of ours go out on flows, never to a named address (RFC 3581, RFC 5626), but a Contact travels on in a
//! Request-URI and whoever stands behind the flow may route by it; and media goes where the SDP says. Nobody may use us to
//! reach what only we can reach, a whole network, or ourselves in a circle. Names are never resolved: they pass.

use crate::message::Uri;
use std::net::{IpAddr, SocketAddr};

/// Why an address is no target. Each is a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadTarget {
    /// Loopback, and the peer did not reach us there.
    Loopback,
    Multicast,
    /// 0.0.0.0 and its net, `::`. In an SDP it is the hold of old (RFC 3264 §8.4), which never comes here.
    Unspecified,
    Broadcast,
    /// One of our own ports.
    Ourselves,
}

impl BadTarget {
    /// The counter's name.
    pub fn name(self) -> &'static str {
        match self {
            BadTarget::Loopback => "target_loopback",
            BadTarget::Multicast => "target_multicast",
            BadTarget::Unspecified => "target_unspecified",
            BadTarget::Broadcast => "target_broadcast",
            BadTarget::Ourselves => "target_ourselves",
        }
    }
}

/// Judges an address that came over a flow whose local end is `here`. `is_ours`: is this port of our addresses in use by us?
pub fn check(target: SocketAddr, here: IpAddr, is_ours: impl Fn(SocketAddr) -> bool) -> Result<(), BadTarget> {
    let target = SocketAddr::new(target.ip().to_canonical(), target.port());
    let (net_zero, broadcast) = match target.ip() {
        IpAddr::V4(ip) => (ip.octets()[0] == 0, ip.is_broadcast()),
        IpAddr::V6(ip) => (ip.is_unspecified(), false),
    };
    if net_zero {
        return Err(BadTarget::Unspecified);
    }
    if broadcast {
        return Err(BadTarget::Broadcast);
    }
    if target.ip().is_multicast() {
        return Err(BadTarget::Multicast);
    }
    if target.ip().is_loopback() && !here.to_canonical().is_loopback() {
        return Err(BadTarget::Loopback);
    }
    if is_ours(target) { Err(BadTarget::Ourselves) } else { Ok(()) }
}

/// The same for the address in a URI, if it has one.
pub fn check_uri(uri: &str, here: IpAddr, is_ours: impl Fn(SocketAddr) -> bool) -> Result<(), BadTarget> {
    let Some(uri) = Uri::parse(uri) else { return Ok(()) };
    match uri.host.trim_matches(['[', ']']).parse() {
        Ok(ip) => check(SocketAddr::new(ip, uri.port_or_default()), here, is_ours),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_places_where_a_phone_can_be_are_targets() {
        let (here, loopback): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "127.0.0.1".parse().unwrap());
        let ours = |address: SocketAddr| address == "192.0.2.1:6050".parse().unwrap();
        for (text, wanted) in [
            ("sip:101@192.0.2.7:5060", Ok(())),
            ("sip:101@192.0.2.1:5060", Ok(())),
            ("sip:101@phone.invalid;transport=ws", Ok(())),
            ("tel:101", Ok(())),
            ("sip:101@[2001:db8::7]:5060", Ok(())),
            ("sip:101@192.0.2.1:6050", Err(BadTarget::Ourselves)),
            ("sip:101@[::ffff:192.0.2.1]:6050", Err(BadTarget::Ourselves)),
            ("sip:101@127.0.0.1", Err(BadTarget::Loopback)),
            ("sip:101@127.9.9.9:5060", Err(BadTarget::Loopback)),
            ("sip:101@[::1]", Err(BadTarget::Loopback)),
            ("sip:101@[::ffff:127.0.0.1]", Err(BadTarget::Loopback)),
            ("sip:101@224.0.1.75", Err(BadTarget::Multicast)),
            ("sip:101@[ff02::1]", Err(BadTarget::Multicast)),
            ("sip:101@0.0.0.0:5060", Err(BadTarget::Unspecified)),
            ("sip:101@0.1.2.3", Err(BadTarget::Unspecified)),
            ("sip:101@[::]", Err(BadTarget::Unspecified)),
            ("sip:101@255.255.255.255", Err(BadTarget::Broadcast)),
        ] {
            assert_eq!(check_uri(text, here, ours), wanted, "{text}");
        }
        assert_eq!(check_uri("sip:101@127.0.0.1", loopback, ours), Ok(()), "we are on loopback ourselves");
    }
}
