//! STUN on the SIP port (RFC 5626 §8, RFC 8489): the keep-alive of an outbound phone over UDP. It asks which address we see;
//! the answer keeps its NAT's mapping open, and a changed address makes it register anew. Stateless, 1.6 times the request.

use bytes::Bytes;
use std::net::{IpAddr, SocketAddr};

const COOKIE: u32 = 0x2112_A442;
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;

/// The answer to a Binding request; `None` when this is no such thing. No SIP message begins with a zero byte.
pub fn binding_response(datagram: &[u8], source: SocketAddr) -> Option<Bytes> {
    let (head, attributes) = datagram.split_at_checked(20)?;
    let u16_at = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    if u16_at(0) != BINDING_REQUEST || head[4..8] != COOKIE.to_be_bytes() || usize::from(u16_at(2)) != attributes.len() {
        return None;
    }
    // §14.2: the port is hidden by the cookie, the address by cookie and transaction id, from NATs that rewrite addresses.
    let (family, mut address) = match source.ip() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    address.iter_mut().zip(&head[4..]).for_each(|(byte, mask)| *byte ^= mask);
    let port = source.port() ^ (COOKIE >> 16) as u16;
    let value = 4 + address.len() as u16;
    let mut out = Vec::with_capacity(44);
    for number in [BINDING_SUCCESS, 4 + value] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(&head[4..]);
    for number in [XOR_MAPPED_ADDRESS, value, family, port] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(&address);
    Some(Bytes::from(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The transaction of RFC 5769 §2.1–2.3, without its attributes.
    const REQUEST: &[u8] = b"\x00\x01\x00\x00\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae";

    #[test]
    fn the_mapped_addresses_are_those_of_the_test_vectors() {
        let v4 = binding_response(REQUEST, ([192, 0, 2, 1], 32853).into()).unwrap();
        assert_eq!(v4[..4], *b"\x01\x01\x00\x0c");
        assert_eq!(v4[4..20], REQUEST[4..]);
        assert_eq!(v4[20..], *b"\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43");
        let source = "[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap();
        let v6 = binding_response(REQUEST, source).unwrap();
        let value = b"\x00\x20\x00\x14\x00\x02\xa1\x47\x01\x13\xa9\xfa\xa5\xd3\xf1\x79\xbc\x25\xf4\xb5\xbe\xd2\xb9\xd9";
        assert_eq!(v6[20..], *value);
    }

    #[test]
    fn nothing_else_is_answered() {
        let source = ([192, 0, 2, 1], 1).into();
        for other in [&b"REGISTER sip:x SIP/2.0\r\n"[..], b"", &REQUEST[..19], b"\r\n\r\n"] {
            assert_eq!(binding_response(other, source), None);
        }
        let mut indication = REQUEST.to_vec();
        indication[1] = 0x11;
        assert_eq!(binding_response(&indication, source), None);
    }
}
